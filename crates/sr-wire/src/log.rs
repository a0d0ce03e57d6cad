//! The entries of the log. What is signed over them is sr-tlog's; how they are folded, sr-trust's.

use sr_crypto::{Hash, hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{AccountId, encode, labels};

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 114;
/// The entry type of an account's chain.
pub const ACCOUNT: u8 = 1;
/// The entry type of a server's card.
pub const SERVER_CARD: u8 = 6;
/// The only version of an entry.
pub const ENTRY_VERSION: u8 = 1;

/// An entry of the log.
///
/// **Shape** 114 bytes: `uint8 version = 1; uint8 type; uint64 time_s; opaque index[32]; uint64 seq;
/// opaque value[32]; opaque previous[32]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Entry {
    /// [`ENTRY_VERSION`].
    pub version: u8,
    /// What it is about.
    pub kind: u8,
    /// When the log says that it was added, in Unix seconds.
    pub time_s: u64,
    /// Whose it is.
    pub index: Hash,
    /// Which of that index's values this is, from 0.
    pub seq: u64,
    /// The value.
    pub value: Hash,
    /// The value before, zeros for the first.
    pub previous: Hash,
}

impl Entry {
    /// Makes the entry that follows the newest of its index.
    #[must_use]
    pub fn following(before: Option<&Newest>, key: Key, value: Hash, time_s: u64) -> Self {
        let (seq, previous) = before.map_or((0, [0; 32]), |newest| (newest.seq + 1, newest.value));
        Self {
            version: ENTRY_VERSION,
            kind: key.kind,
            time_s,
            index: key.index,
            seq,
            value,
            previous,
        }
    }

    /// Returns the 114 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Returns whose entry this is.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { kind: self.kind, index: self.index }
    }
}

/// Whose values are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The entry type.
    pub kind: u8,
    /// The index.
    pub index: Hash,
}

impl Key {
    /// Returns that of an account: `H("account-index", id)`.
    #[must_use]
    pub fn account(id: AccountId) -> Self {
        Self { kind: ACCOUNT, index: hash(labels::ACCOUNT_INDEX, &[&id.0]) }
    }
}

/// Returns the value of an account's entry: `H("block-commit", id ‖ block hash)`. Who does not know the
/// id can't tell which account it is of.
#[must_use]
pub fn block_commit(id: AccountId, block: &Hash) -> Hash {
    hash(labels::BLOCK_COMMIT, &[&id.0, block])
}

/// The newest value of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its number, from 0.
    pub seq: u64,
    /// The value.
    pub value: Hash,
}
