//! The server card: who a server is, as the invite pins it.

use sr_crypto::{Hash, SigningKey, VerifyError, hash, text, verify};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{Malformed, Misbehaviour, decode, encode, labels, limits};

/// A server's identity.
///
/// **Shape** `{u64 seq; opaque previous[32]; opaque identity<1984>; opaque log_keys<>;
/// opaque policy<>; opaque origin<>}`. Before there is a log, `log_keys` and `policy` are empty.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Card {
    /// Place in the chain of cards.
    pub seq: u64,
    /// Hash of the card before, zeros for the first.
    pub previous: Hash,
    /// Hybrid public identity key.
    pub identity: VLBytes,
    /// Keys of the log.
    pub log_keys: VLBytes,
    /// Witness policy.
    pub policy: VLBytes,
    /// Origin of the log: `<32 hex of H("origin", identity)>/strongroom`.
    pub origin: VLBytes,
}

impl Card {
    /// Makes the first card of an identity key.
    #[must_use]
    pub fn first(identity: &[u8]) -> Self {
        Self {
            seq: 0,
            previous: [0; 32],
            identity: identity.to_vec().into(),
            log_keys: Vec::new().into(),
            policy: Vec::new().into(),
            origin: origin(identity).into_bytes().into(),
        }
    }

    /// Makes the card that follows this one, with the keys of a log, one in a line.
    #[must_use]
    pub fn with_log(&self, log_keys: &str) -> Self {
        Self {
            seq: self.seq + 1,
            previous: card_hash(self),
            log_keys: log_keys.as_bytes().to_vec().into(),
            ..self.clone()
        }
    }

    /// Makes the card that follows this one, with another witness policy.
    #[must_use]
    pub fn with_policy(&self, policy: &str) -> Self {
        Self {
            seq: self.seq + 1,
            previous: card_hash(self),
            policy: policy.as_bytes().to_vec().into(),
            ..self.clone()
        }
    }

    /// Returns whether `next` is a card after this one: signed by this identity key, of the same log. Log
    /// keys come once and stay.
    fn leads_to(&self, next: &SignedCard) -> bool {
        let (card, signature) = (&next.card, next.signature.as_slice());
        card.seq == self.seq + 1
            && card.previous == card_hash(self)
            && card.origin == self.origin
            && (self.log_keys.as_slice().is_empty() || card.log_keys == self.log_keys)
            && self.verify(labels::CARD, &encode(card), signature).is_ok()
    }

    /// Verifies the server's signature under this card's identity key.
    ///
    /// **Errors** [`VerifyError`].
    pub fn verify(
        &self,
        label: sr_crypto::Label,
        x: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        verify(label, self.identity.as_slice(), x, signature)
    }

    /// Returns the nine characters by which people compare servers, as `4F7K-Q2M9`.
    #[must_use]
    pub fn short_name(&self) -> String {
        let text = text::to_base32(&card_hash(self)).to_uppercase();
        format!("{}-{}", &text[..4], &text[4..8])
    }
}

/// A card and its signature by the identity key of the card before, or its own for the first.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SignedCard {
    /// The card.
    pub card: Card,
    /// Hybrid signature over the card's bytes.
    pub signature: VLBytes,
}

impl SignedCard {
    /// Signs a card with the identity key of the card before; the first with its own.
    #[must_use]
    pub fn sign(card: Card, identity: &SigningKey) -> Self {
        let signature = identity.sign(labels::CARD, &encode(&card)).into();
        Self { card, signature }
    }
}

/// The TLS key that an identity key vouches for.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct TlsKey {
    /// `H("tls-spki", SubjectPublicKeyInfo)` of the certificate.
    pub spki_hash: Hash,
    /// Unix seconds after which the statement counts no more.
    pub not_after: u64,
}

/// The answer to `card`: who the server is, and that this connection is with it.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct CardResponse {
    /// The server's cards, from the first on; 16 at most.
    pub cards: Vec<SignedCard>,
    /// The TLS key in use.
    pub tls_key: TlsKey,
    /// The identity key's signature over `tls_key`.
    pub tls_signature: VLBytes,
}

impl CardResponse {
    /// Reads a response and verifies it against the pinned card hash, the connection's TLS key and
    /// the time in Unix seconds; returns the cards, of which the pinned one must be one. Without a pin, a device that is being linked compares the card later, by the words of the ceremony.
    ///
    /// **Errors** [`Misbehaviour::CardMismatch`], [`Misbehaviour::TlsKeyUnsigned`] or
    /// [`Misbehaviour::ResponseMalformed`].
    pub fn verify(
        bytes: &[u8],
        pinned: Option<&Hash>,
        spki_hash: &Hash,
        now_s: u64,
    ) -> Result<Vec<SignedCard>, Misbehaviour> {
        let response: Self = decode("card", bytes, limits::CARDS_LEN_MAX)
            .map_err(|Malformed { .. }| Misbehaviour::ResponseMalformed)?;
        let cards = &response.cards;
        let newest = cards.last().ok_or(Misbehaviour::ResponseMalformed)?;
        Misbehaviour::ResponseMalformed.refuse_if(cards.len() > CARDS_MAX)?;
        // SR-010
        Misbehaviour::CardMismatch.refuse_if(verify_cards(cards, pinned).is_none())?;
        let card = &newest.card;
        let tls_key = &response.tls_key;
        let vouched = card
            .verify(labels::CARD_TLS, &encode(tls_key), response.tls_signature.as_slice())
            .is_ok();
        // SR-011
        Misbehaviour::TlsKeyUnsigned
            .refuse_if(!vouched || tls_key.spki_hash != *spki_hash || now_s > tls_key.not_after)?;
        Ok(response.cards)
    }
}

/// A server has no more cards.
pub const CARDS_MAX: usize = 16;

/// Returns the newest card, if the first has signed itself, each of the others follows from the one before,
/// and the pinned one is among them.
#[must_use]
pub fn verify_cards<'a>(cards: &'a [SignedCard], pinned: Option<&Hash>) -> Option<&'a Card> {
    let first = cards.first()?;
    let (card, signature) = (&first.card, first.signature.as_slice());
    let begins = (card.seq, card.previous) == (0, [0; 32])
        && card.origin.as_slice() == origin(card.identity.as_slice()).as_bytes()
        && card.verify(labels::CARD, &encode(card), signature).is_ok();
    let is_chain = cards.windows(2).all(|pair| pair[0].card.leads_to(&pair[1]));
    let is_there = |pin: &Hash| cards.iter().any(|signed| card_hash(&signed.card) == *pin);
    let descends = begins && is_chain && cards.len() <= CARDS_MAX && pinned.is_none_or(is_there);
    cards.last().filter(|_| descends).map(|newest| &newest.card)
}

/// Returns the hash by which invites pin a card.
#[must_use]
pub fn card_hash(card: &Card) -> Hash {
    hash(labels::CARD, &[&encode(card)])
}

fn origin(identity: &[u8]) -> String {
    let hash = hash(labels::ORIGIN, &[identity]);
    format!("{}/strongroom", text::to_hex(&hash[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_crypto::Secret32;

    fn identity(byte: u8) -> SigningKey {
        SigningKey::from_seed(&Secret32::init_with(|b| b.fill(byte)))
    }

    fn response(key: &SigningKey) -> CardResponse {
        let tls_key = TlsKey { spki_hash: [5; 32], not_after: 100 };
        CardResponse {
            cards: vec![SignedCard::sign(Card::first(key.public_key()), key)],
            tls_signature: key.sign(labels::CARD_TLS, &encode(&tls_key)).into(),
            tls_key,
        }
    }

    #[test]
    fn only_the_pinned_card_over_its_own_tls_key_is_taken() {
        let key = identity(1);
        let honest = response(&key);
        let pin = card_hash(&honest.cards[0].card);
        let check = |r: &CardResponse, spki, now| {
            CardResponse::verify(&encode(r), Some(&pin), &[spki; 32], now).map(|_| ())
        };
        assert_eq!(check(&honest, 5, 100), Ok(()));
        assert_eq!(check(&honest, 6, 100), Err(Misbehaviour::TlsKeyUnsigned));
        assert_eq!(check(&honest, 5, 101), Err(Misbehaviour::TlsKeyUnsigned));
        assert_eq!(check(&response(&identity(2)), 5, 1), Err(Misbehaviour::CardMismatch));

        let mut forged = honest.clone();
        forged.tls_signature = identity(2).sign(labels::CARD_TLS, &encode(&honest.tls_key)).into();
        assert_eq!(check(&forged, 5, 1), Err(Misbehaviour::TlsKeyUnsigned));
        let mut forged = honest.clone();
        forged.cards[0].signature = vec![0; sr_crypto::SIGNATURE_LEN].into();
        assert_eq!(check(&forged, 5, 1), Err(Misbehaviour::CardMismatch));

        let mut bytes = encode(&honest);
        bytes.push(0);
        assert_eq!(
            CardResponse::verify(&bytes, Some(&pin), &[5; 32], 1),
            Err(Misbehaviour::ResponseMalformed)
        );
    }

    #[test]
    fn sr_010_only_a_chain_of_cards_from_the_pinned_one_is_followed() {
        let (key, other) = (identity(1), identity(2));
        let first = Card::first(key.public_key());
        let second = first.with_log("keys");
        let sign = |card: &Card, key: &SigningKey| SignedCard::sign(card.clone(), key);
        let take = |cards: Vec<SignedCard>, pin: &Card| {
            let answer = CardResponse { cards, ..response(&key) };
            let taken = CardResponse::verify(&encode(&answer), Some(&card_hash(pin)), &[5; 32], 1);
            taken.map(|cards| cards.last().expect("a card").card.clone())
        };
        let chain = || vec![sign(&first, &key), sign(&second, &key)];
        assert_eq!(take(chain(), &first).as_ref(), Ok(&second), "the pin is followed");
        assert_eq!(take(chain(), &second).as_ref(), Ok(&second));
        let refused = |cards, pin: &Card| {
            assert_eq!(take(cards, pin), Err(Misbehaviour::CardMismatch));
        };
        // The log is hidden from one who knows of it.
        refused(vec![sign(&first, &key)], &second);
        // Signed by somebody else; out of the chain; with other keys once there are some; of another log.
        refused(vec![sign(&first, &key), sign(&second, &other)], &first);
        refused(vec![sign(&second, &key)], &second);
        refused(vec![sign(&second, &key), sign(&first, &key)], &second);
        let third = second.with_log("others");
        refused([chain(), vec![sign(&third, &key)]].concat(), &first);
        let elsewhere = Card { origin: b"elsewhere".to_vec().into(), ..second.clone() };
        refused(vec![sign(&first, &key), sign(&elsewhere, &key)], &first);
        assert_eq!(take(vec![], &first), Err(Misbehaviour::ResponseMalformed));
        let foreign = Card { origin: Card::first(other.public_key()).origin, ..first.clone() };
        refused(vec![sign(&foreign, &key)], &foreign);
        let many = std::iter::repeat_with(|| sign(&first, &key)).take(17).collect();
        assert_eq!(take(many, &first), Err(Misbehaviour::ResponseMalformed));
    }
}
