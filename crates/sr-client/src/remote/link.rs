//! Where two devices meet.

use sr_crypto::Hash;
use sr_wire::{api, encode, limits};

use super::{Remote, parse};
use crate::ClientError;

impl Remote {
    /// Leaves a message where two devices meet.
    pub(crate) fn put_link(
        &self,
        place: Hash,
        number: u8,
        message: Vec<u8>,
    ) -> Result<(), ClientError> {
        let request = encode(&api::LinkPut { place, number, message: message.into() });
        self.with_session(None, |session| {
            let request = request.clone();
            async move { session.call(api::LINK_PUT, request, limits::MESSAGE_LEN_MAX).await }
        })?;
        Ok(())
    }

    /// Returns a message that was left, if it is there.
    pub(crate) fn get_link(&self, place: Hash, number: u8) -> Result<Option<Vec<u8>>, ClientError> {
        let request = encode(&api::LinkGet { place, number });
        let reply = self.with_session(None, |session| {
            let request = request.clone();
            async move { session.call(api::LINK_GET, request, limits::MESSAGE_LEN_MAX).await }
        })?;
        let reply: api::LinkResponse = parse(&reply, limits::MESSAGE_LEN_MAX)?;
        Ok(reply.message.map(Vec::from))
    }
}
