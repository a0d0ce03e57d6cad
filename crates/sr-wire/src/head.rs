//! Heads as the server sees them, and its signed answers about them.

use sr_crypto::{CryptoRng, Hash, SigningKey, VerifyError, hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{Card, Misbehaviour, SpaceId, encode, labels};

/// The head hash of a space that has none yet.
pub const EMPTY_HEAD_HASH: Hash = [0; 32];

/// A head as the server stores it: place in the chain in clear, content sealed.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SealedHead {
    /// The space it belongs to.
    pub space: SpaceId,
    /// Place in the chain; the first is 1.
    pub seq: u64,
    /// Generation of the vault key it is sealed under.
    pub generation: u32,
    /// Hash of the head before, [`EMPTY_HEAD_HASH`] for the first.
    pub previous: Hash,
    /// The sealed content, [`crate::limits::SEALED_HEAD_LEN`] bytes.
    pub sealed: VLBytes,
}

impl SealedHead {
    /// Returns the hash over the sealed bytes, by which heads are chained and named.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(labels::HEAD_HASH, &[self.sealed.as_slice()])
    }

    /// Returns what the seal authenticates beside the content: all clear fields.
    #[must_use]
    pub fn associated_data(&self) -> Vec<u8> {
        let mut bytes = encode(&self.space);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.previous);
        bytes
    }
}

/// What the server says is the newest head of a space, at the moment of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadAnswer {
    /// The space.
    pub space: SpaceId,
    /// Its newest seq, 0 when it has no head.
    pub seq: u64,
    /// Its newest head's hash, [`EMPTY_HEAD_HASH`] when it has none.
    pub head_hash: Hash,
    /// The question's nonce.
    pub nonce: Hash,
}

/// A head answer signed by the server's identity key: with a later one that contradicts it, it
/// proves a rollback to anybody.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SignedAnswer {
    /// The answer.
    pub answer: HeadAnswer,
    /// Hybrid signature by the identity key.
    pub signature: VLBytes,
}

impl SignedAnswer {
    /// Signs the answer for `space` whose newest head is `head`.
    #[must_use]
    pub fn sign(
        space: SpaceId,
        head: Option<&SealedHead>,
        nonce: Hash,
        identity: &SigningKey,
    ) -> Self {
        let answer = HeadAnswer {
            space,
            seq: head.map_or(0, |head| head.seq),
            head_hash: head.map_or(EMPTY_HEAD_HASH, SealedHead::hash),
            nonce,
        };
        Self { answer, signature: identity.sign(labels::HEAD_ANSWER, &encode(&answer)).into() }
    }

    /// Verifies that this is the server's own answer to `nonce`, and that `head` is the head it
    /// names.
    ///
    /// **Errors** [`Misbehaviour::AnswerForged`] or [`Misbehaviour::AnswerMismatch`].
    pub fn verify(
        &self,
        card: &Card,
        space: SpaceId,
        nonce: &Hash,
        head: Option<&SealedHead>,
    ) -> Result<(), Misbehaviour> {
        let signed = self.verify_signature(card).is_ok();
        // SR-008
        Misbehaviour::AnswerForged
            .refuse_if(!signed || self.answer.nonce != *nonce || self.answer.space != space)?;
        let sent = head.map_or((0, EMPTY_HEAD_HASH), |head| (head.seq, head.hash()));
        let other_space = head.is_some_and(|head| head.space != space);
        // SR-009
        Misbehaviour::AnswerMismatch
            .refuse_if(sent != (self.answer.seq, self.answer.head_hash) || other_space)
    }

    /// Verifies the signature alone.
    ///
    /// **Errors** [`VerifyError`].
    pub fn verify_signature(&self, card: &Card) -> Result<(), VerifyError> {
        card.verify(labels::HEAD_ANSWER, &encode(&self.answer), self.signature.as_slice())
    }

    /// Returns the hash that the next question's nonce contains.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(labels::HEAD_ANSWER, &[&encode(&self.answer)])
    }
}

/// Returns a fresh question's nonce and the random part that opens it:
/// `H("head-nonce", random ‖ newest answer held or zeros ‖ newest checkpoint held or zeros)`.
/// The answer that it contains proves later that the server had given it before.
pub fn head_nonce(
    newest_answer: Option<&SignedAnswer>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> (Hash, [u8; 32]) {
    let mut random = [0; 32];
    rng.fill_bytes(&mut random);
    (nonce_of(&random, newest_answer), random)
}

/// Returns the nonce of a question that contains the newest answer held.
#[must_use]
pub fn nonce_of(random: &[u8; 32], newest_answer: Option<&SignedAnswer>) -> Hash {
    let held = newest_answer.map_or([0; 32], SignedAnswer::hash);
    hash(labels::HEAD_NONCE, &[random, &held, &[0; 32]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_crypto::Secret32;

    #[test]
    fn an_answer_counts_for_its_question_space_and_head_only() {
        let key = SigningKey::from_seed(&Secret32::init_with(|b| b.fill(1)));
        let card = Card::first(key.public_key());
        let space = SpaceId([1; 16]);
        let head = SealedHead {
            space,
            seq: 3,
            generation: 0,
            previous: [9; 32],
            sealed: vec![1, 2, 3].into(),
        };
        let answer = SignedAnswer::sign(space, Some(&head), [7; 32], &key);
        assert_eq!(answer.verify(&card, space, &[7; 32], Some(&head)), Ok(()));
        let forged = Err(Misbehaviour::AnswerForged);
        let mismatch = Err(Misbehaviour::AnswerMismatch);
        assert_eq!(answer.verify(&card, space, &[8; 32], Some(&head)), forged);
        assert_eq!(answer.verify(&card, SpaceId([2; 16]), &[7; 32], Some(&head)), forged);
        assert_eq!(answer.verify(&card, space, &[7; 32], None), mismatch);
        let other = SealedHead { sealed: vec![1, 2, 4].into(), ..head.clone() };
        assert_eq!(answer.verify(&card, space, &[7; 32], Some(&other)), mismatch);
        let stranger = SigningKey::from_seed(&Secret32::init_with(|b| b.fill(2)));
        let signed = SignedAnswer::sign(space, Some(&head), [7; 32], &stranger);
        assert_eq!(signed.verify(&card, space, &[7; 32], Some(&head)), forged);
        let empty = SignedAnswer::sign(space, None, [7; 32], &key);
        assert_eq!(empty.verify(&card, space, &[7; 32], None), Ok(()));
    }
}
