//! What a device has accepted, compared with another by words. See `spec/linking.md`.

use sr_crypto::{Hash, hash};
use sr_wire::{AccountId, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{Anchor, contacts::words};

/// What a device has accepted: the account, and the newest head of each of its spaces.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct State {
    /// The account.
    pub account: AccountId,
    /// The number of its newest block.
    pub seq: u64,
    /// That block's hash.
    pub block: Hash,
    /// The newest heads, in the order of their spaces' ids.
    pub heads: Vec<Anchor>,
}

impl State {
    /// Returns the six words by which a person compares it with that of another device.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        words(&hash(labels::DEVICE_COMPARE, &[&encode(self)]))
    }
}
