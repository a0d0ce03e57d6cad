//! What a server that was put back from a backup gets back; and the cards of one that is refused.

use sr_keys::VaultKeys;
use std::sync::PoisonError;

use sr_wire::{
    CardResponse, Right, SealedHead, SignedAnswer, SignedCard, VLBytes,
    api::{self, HeadGiveBack, LogAppend, LogGiveBack},
    decode, encode, limits,
    log::Entry,
};

use super::Remote;
use crate::ClientError;

impl Remote {
    /// Returns the cards that were shown last and refused; none if there were none.
    pub(crate) fn refused_cards(&self) -> Vec<SignedCard> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_refused(&self, reply: &[u8]) {
        if let Ok(shown) = decode::<CardResponse>("card", reply, limits::CARDS_LEN_MAX) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = shown.cards;
        }
    }

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

    /// Puts a state of the backups into the log.
    pub(crate) fn append_log(&self, request: &LogAppend) -> Result<(), ClientError> {
        let request = encode(request);
        self.with_session(None, |session| {
            let request = request.clone();
            async move { session.call(api::LOG_APPEND, request, limits::MESSAGE_LEN_MAX).await }
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
