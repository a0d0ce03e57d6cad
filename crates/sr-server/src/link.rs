//! Where two devices meet to link: a few messages in memory, for ten minutes. Nothing is stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sr_crypto::Hash;
use sr_wire::{
    api::{self, ErrorCode},
    decode, encode, limits,
};

use crate::routes::Refusal;

/// How long a ceremony may take.
const LINK_VALID_S: u64 = 600;

/// The ceremonies under way.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<Hash, Link>>);

#[derive(Debug)]
struct Link {
    began_s: u64,
    messages: HashMap<u8, Vec<u8>>,
}

impl Links {
    /// Keeps a message. The first for its place and number stays; a repeat of it succeeds.
    pub(crate) fn put(&self, body: &[u8], now_s: u64) -> Result<Vec<u8>, Refusal> {
        let request: api::LinkPut = decode("request", body, limits::MESSAGE_LEN_MAX)?;
        let message = request.message.as_slice();
        if message.len() > limits::LINK_MESSAGE_LEN_MAX
            || request.number >= limits::LINK_MESSAGES_MAX
        {
            return Err(ErrorCode::Malformed.into());
        }
        let mut links = self.live(now_s);
        if links.len() >= limits::LINKS_MAX && !links.contains_key(&request.place) {
            return Err(ErrorCode::QuotaFull.into());
        }
        // The first message begins a ceremony; the others go on with one.
        if request.number > 0 && !links.contains_key(&request.place) {
            return Err(ErrorCode::NotFound.into());
        }
        let link = links
            .entry(request.place)
            .or_insert_with(|| Link { began_s: now_s, messages: HashMap::new() });
        let kept = link.messages.entry(request.number).or_insert_with(|| message.to_vec());
        if kept == message { Ok(Vec::new()) } else { Err(ErrorCode::Exists.into()) }
    }

    /// Returns a message, if it is there.
    pub(crate) fn get(&self, body: &[u8], now_s: u64) -> Result<Vec<u8>, Refusal> {
        let request: api::LinkGet = decode("request", body, limits::MESSAGE_LEN_MAX)?;
        let links = self.live(now_s);
        let link = links.get(&request.place).ok_or(ErrorCode::NotFound)?;
        let message = link.messages.get(&request.number).cloned().map(Into::into);
        Ok(encode(&api::LinkResponse { message }))
    }

    fn live(&self, now_s: u64) -> MutexGuard<'_, HashMap<Hash, Link>> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| now_s < link.began_s.saturating_add(LINK_VALID_S));
        links
    }
}
