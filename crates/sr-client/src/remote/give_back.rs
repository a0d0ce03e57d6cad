//! What a server that was put back from a backup gets back.

use sr_keys::VaultKeys;
use sr_wire::{
    Right, SealedHead, SignedAnswer, VLBytes,
    api::{self, HeadGiveBack, LogGiveBack},
    encode, limits,
    log::Entry,
};

use super::Remote;
use crate::ClientError;

impl Remote {
    /// Gives the server heads back, of which it has signed that the last was the newest.
    pub(crate) fn give_back_heads(
        &self,
        keys: &VaultKeys,
        answer: SignedAnswer,
        heads: Vec<SealedHead>,
    ) -> Result<(), ClientError> {
        let request = encode(&HeadGiveBack { answer, heads });
        self.with_session(Some((keys, Right::Read)), |session| {
            let request = request.clone();
            async move { session.call(api::HEAD_GIVE_BACK, request, limits::MESSAGE_LEN_MAX).await }
        })?;
        Ok(())
    }

    /// Gives the server the end of its log back, up to a checkpoint that it has signed.
    pub(crate) fn give_back_log(
        &self,
        checkpoint: Vec<u8>,
        from: u64,
        entries: Vec<Entry>,
    ) -> Result<(), ClientError> {
        let checkpoint = VLBytes::from(checkpoint);
        let request = encode(&LogGiveBack { checkpoint, from, entries });
        self.with_session(None, |session| {
            let request = request.clone();
            async move { session.call(api::LOG_GIVE_BACK, request, limits::MESSAGE_LEN_MAX).await }
        })?;
        Ok(())
    }
}
