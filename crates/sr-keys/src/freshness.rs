//! What the newest state of an account's backups is, as its devices put it into the log. See `spec/freshness.md`.

use sr_crypto::{CapabilityKey, Hash, derive, hash};
use sr_wire::{SignedAnswer, api::LogAppend, encode, labels, log::Key};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::AccountKeys;

/// A state, as the root record keeps it. The log has a value that is made of it, and says nothing.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Freshness {
    /// The generation whose key signs it.
    pub generation: u32,
    /// Which of that key's entries it is, from 0.
    pub seq: u64,
    /// The newest that the server has signed about each vault.
    pub answers: Vec<SignedAnswer>,
}

/// The key of one generation that signs states.
#[derive(Debug)]
pub struct FreshnessKey<'a> {
    keys: &'a AccountKeys,
    key: CapabilityKey,
}

impl AccountKeys {
    /// Returns the key that signs states in the newest generation.
    #[must_use]
    pub fn freshness(&self) -> FreshnessKey<'_> {
        let seed = derive(self.root(), b"", labels::FRESHNESS_KEY, b"");
        FreshnessKey { keys: self, key: CapabilityKey::from_seed(&seed) }
    }
}

impl FreshnessKey<'_> {
    /// Returns whose entries those of the key are.
    #[must_use]
    pub fn log_key(&self) -> Key {
        Key::freshness(&self.key.public_key())
    }

    /// Returns what the log has of a state. Who does not have the root can't tell of which.
    #[must_use]
    pub fn value(&self, state: &Freshness) -> Hash {
        let state = hash(labels::FRESHNESS_STATE, &[&encode(state)]);
        *derive(self.keys.root(), b"", labels::FRESHNESS, &state).expose()
    }

    /// Returns the entry of a state, after the one with the value `previous`.
    #[must_use]
    pub fn sign(&self, state: &Freshness, previous: Hash) -> LogAppend {
        let (key, seq, value) = (self.key.public_key(), state.seq, self.value(state));
        let bytes = LogAppend::signed_bytes(&key, seq, &value, &previous);
        let signature = self.key.sign(labels::FRESHNESS_SIGN, &bytes);
        LogAppend { key, seq, value, previous, signature }
    }
}
