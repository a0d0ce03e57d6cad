//! The entries of the log. What is signed over them is sr-tlog's; how they are folded, sr-trust's.

use sr_crypto::{Hash, SigningKey, VerifyError, hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{AccountId, Card, Misbehaviour, encode, labels};

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 114;
/// The entry type of an account's chain.
pub const ACCOUNT: u8 = 1;
/// The entry type of a server's card.
pub const SERVER_CARD: u8 = 6;
/// The entry type of what an account's backups are.
pub const FRESHNESS: u8 = 9;
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

    /// Returns that of the states that a key signs: `H("freshness-index", key)`.
    #[must_use]
    pub fn freshness(key: &Hash) -> Self {
        Self { kind: FRESHNESS, index: hash(labels::FRESHNESS_INDEX, &[key]) }
    }

    /// Returns that of a server's cards: `H("card-index", origin)`.
    #[must_use]
    pub fn card(origin: &[u8]) -> Self {
        Self { kind: SERVER_CARD, index: hash(labels::CARD_INDEX, &[origin]) }
    }
}

/// Returns the value of an account's entry: `H("block-commit", id ‖ block hash)`. Who does not know the
/// id can't tell which account it is of.
#[must_use]
pub fn block_commit(id: AccountId, block: &Hash) -> Hash {
    hash(labels::BLOCK_COMMIT, &[&id.0, block])
}

/// For so long, in seconds, a server may keep something before it is in the log.
pub const LOGGED_WITHIN_S: u64 = 60;

/// The server's promise that a change of an account will be in its log.
///
/// **Shape** `{opaque index[32]; uint64 seq; opaque value[32]; uint64 deadline_s}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Receipt {
    /// The index of the entry.
    pub index: Hash,
    /// Its number.
    pub seq: u64,
    /// Its value.
    pub value: Hash,
    /// Every checkpoint that is signed later has it, in Unix seconds by the server's clock.
    pub deadline_s: u64,
}

/// A receipt, and the hybrid signature of the server's identity key over it.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SignedReceipt {
    /// The promise.
    pub receipt: Receipt,
    /// The signature.
    pub signature: VLBytes,
}

impl SignedReceipt {
    /// Promises at `now_s` that the block of an account will be in the log.
    #[must_use]
    pub fn sign(
        account: AccountId,
        seq: u64,
        block: &Hash,
        now_s: u64,
        identity: &SigningKey,
    ) -> Self {
        let (Key { index, .. }, value) = (Key::account(account), block_commit(account, block));
        let receipt = Receipt { index, seq, value, deadline_s: now_s + LOGGED_WITHIN_S };
        Self { receipt, signature: identity.sign(labels::RECEIPT, &encode(&receipt)).into() }
    }

    /// Verifies that this is the server's promise about a block of an account.
    ///
    /// **Errors** [`Misbehaviour::ReceiptForged`].
    pub fn verify(
        &self,
        card: &Card,
        account: AccountId,
        seq: u64,
        block: &Hash,
    ) -> Result<(), Misbehaviour> {
        let promised = Receipt {
            index: Key::account(account).index,
            seq,
            value: block_commit(account, block),
            deadline_s: self.receipt.deadline_s,
        };
        let is_signed = self.verify_signature(card).is_ok();
        // SR-038
        Misbehaviour::ReceiptForged.refuse_if(!is_signed || self.receipt != promised)
    }

    /// Verifies the signature alone.
    ///
    /// **Errors** [`VerifyError`].
    pub fn verify_signature(&self, card: &Card) -> Result<(), VerifyError> {
        card.verify(labels::RECEIPT, &encode(&self.receipt), self.signature.as_slice())
    }
}

/// The newest value of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its number, from 0.
    pub seq: u64,
    /// The value.
    pub value: Hash,
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_crypto::Secret32;

    #[test]
    fn sr_038_a_receipt_is_about_one_block_and_signed() {
        let key = |byte| SigningKey::from_seed(&Secret32::init_with(|seed| seed.fill(byte)));
        let card = Card::first(key(1).public_key());
        let account = AccountId([1; 32]);
        let sign = |account, seq, block, key: &SigningKey| {
            SignedReceipt::sign(account, seq, &block, 5, key)
        };
        let honest = sign(account, 3, [2; 32], &key(1));
        let check = |receipt: &SignedReceipt| receipt.verify(&card, account, 3, &[2; 32]);
        assert_eq!(check(&honest), Ok(()));
        assert_eq!(honest.receipt.deadline_s, 5 + LOGGED_WITHIN_S);
        let forged = Err(Misbehaviour::ReceiptForged);
        assert_eq!(check(&sign(account, 3, [2; 32], &key(2))), forged);
        assert_eq!(check(&sign(AccountId([9; 32]), 3, [2; 32], &key(1))), forged);
        assert_eq!(check(&sign(account, 4, [2; 32], &key(1))), forged);
        assert_eq!(check(&sign(account, 3, [9; 32], &key(1))), forged);
        let mut later = honest;
        later.receipt.deadline_s += 1;
        assert_eq!(check(&later), forged);
    }
}
