//! The server's signed word on which packs a space has, and the hash of a slot that was received.

use sr_crypto::{Hash, SigningKey, hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{Card, Misbehaviour, PackId, SpaceId, encode, labels};

/// How many packs a space has, and which, without those that were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackListAnswer {
    /// The space.
    pub space: SpaceId,
    /// How many.
    pub count: u64,
    /// From [`pack_list_hash`].
    pub hash: Hash,
    /// The question's nonce.
    pub nonce: Hash,
}

/// The answer, signed by the identity key of the server's card.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SignedPackList {
    /// The answer.
    pub answer: PackListAnswer,
    /// Hybrid signature.
    pub signature: VLBytes,
}

impl SignedPackList {
    /// Signs the list for `space`, which has `packs`.
    #[must_use]
    pub fn sign(space: SpaceId, packs: Vec<PackId>, nonce: Hash, identity: &SigningKey) -> Self {
        let count = packs.len() as u64;
        let answer = PackListAnswer { space, count, hash: pack_list_hash(packs), nonce };
        Self { answer, signature: identity.sign(labels::PACK_LIST, &encode(&answer)).into() }
    }

    /// Verifies that this is the server's own answer to `nonce`.
    ///
    /// **Errors** [`Misbehaviour::AnswerForged`].
    pub fn verify(&self, card: &Card, space: SpaceId, nonce: &Hash) -> Result<(), Misbehaviour> {
        let bytes = encode(&self.answer);
        let signed = card.verify(labels::PACK_LIST, &bytes, self.signature.as_slice()).is_ok();
        // SR-008
        Misbehaviour::AnswerForged
            .refuse_if(!signed || self.answer.nonce != *nonce || self.answer.space != space)
    }
}

/// Returns `H("pack-list", ids)`, the ids rising.
#[must_use]
pub fn pack_list_hash(mut packs: Vec<PackId>) -> Hash {
    packs.sort_unstable();
    hash(labels::PACK_LIST, &[&packs.iter().flat_map(|pack| pack.0).collect::<Vec<u8>>()])
}

/// Returns `H("pack-slot", slot)`, by which an upload that goes on finds out what the server has of it.
#[must_use]
pub fn slot_hash(slot: &[u8]) -> Hash {
    hash(labels::PACK_SLOT, &[slot])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_crypto::Secret32;

    #[test]
    fn sr_008_a_list_counts_for_its_question_and_space_only() {
        let key = SigningKey::from_seed(&Secret32::init_with(|b| b.fill(1)));
        let card = Card::first(key.public_key());
        let (space, packs) = (SpaceId([1; 16]), vec![PackId([2; 32]), PackId([1; 32])]);
        let list = SignedPackList::sign(space, packs.clone(), [7; 32], &key);
        assert_eq!(list.verify(&card, space, &[7; 32]), Ok(()));
        assert_eq!(list.answer.hash, pack_list_hash(packs.into_iter().rev().collect()));
        let forged = Err(Misbehaviour::AnswerForged);
        assert_eq!(list.verify(&card, space, &[8; 32]), forged);
        assert_eq!(list.verify(&card, SpaceId([2; 16]), &[7; 32]), forged);
        let mut other = list.clone();
        other.answer.count += 1;
        assert_eq!(other.verify(&card, space, &[7; 32]), forged);
    }
}
