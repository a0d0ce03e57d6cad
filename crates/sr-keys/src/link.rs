//! Linking a device: two screens, six words, and no secret on the way. See `spec/linking.md`.
//!
//! The new device shows a code, by which the two meet at the server. It commits to its keys, the old
//! one answers, the new one opens. Both then have the same words, or somebody stands between them.

use bip39::Language;
use sr_crypto::{CryptoRng, Hash, SealError, SealingKey, hash, seal_to, text};
use sr_trust::{DeviceInfo, DeviceKind};
use sr_wire::{AccountId, Misbehaviour, SignedAnswer, VLBytes, decode, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::Anchor;

/// A code of eight characters has 40 bits.
const CODE_BYTES: usize = 5;
/// Words that each side shows.
const WORDS_PER_SIDE: usize = 3;

/// The eight characters that the new device shows. They are no secret: whoever learns them can make
/// the linking fail, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCode([u8; CODE_BYTES]);

impl LinkCode {
    /// Makes a code.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut code = [0; CODE_BYTES];
        rng.fill_bytes(&mut code);
        Self(code)
    }

    /// Reads a code as people type it.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Some(Self(text::from_base32(code.trim())?.try_into().ok()?))
    }

    /// Returns where at the server the two devices meet.
    #[must_use]
    pub fn place(&self) -> Hash {
        hash(labels::LINK_PLACE, &[&self.0])
    }
}

impl std::fmt::Display for LinkCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = text::to_base32(&self.0).to_uppercase();
        write!(f, "{}-{}", &text[..4], &text[4..])
    }
}

/// First, the new device commits.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkCommit {
    /// `H("link-commit", opening)`.
    pub commit: Hash,
    /// What it is to be: a limited device learns less.
    pub kind: DeviceKind,
}

/// Second, the old device says what account this is.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkAnswer {
    /// The account.
    pub account: AccountId,
    /// Its newest block that the old device has accepted.
    pub seq: u64,
    /// That block's hash.
    pub block: Hash,
    /// Hash of the server's card.
    pub card: Hash,
    /// Random.
    pub random: Hash,
    /// Hash of the pins.
    pub pins: Hash,
}

/// Third, the new device shows what it had committed to.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkOpening {
    /// Random.
    pub random: Hash,
    /// Its keys.
    pub device: DeviceInfo,
}

impl LinkOpening {
    /// Returns the commitment to this.
    #[must_use]
    pub fn commit(&self) -> LinkCommit {
        LinkCommit { commit: hash(labels::LINK_COMMIT, &[&encode(self)]), kind: self.device.kind }
    }
}

/// The whole ceremony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    answer: LinkAnswer,
    opening: LinkOpening,
}

impl Transcript {
    /// Puts the three messages together, if the opening is what was committed to.
    ///
    /// **Errors** [`Misbehaviour::LinkAltered`].
    pub fn new(
        commit: &LinkCommit,
        answer: LinkAnswer,
        opening: LinkOpening,
    ) -> Result<Self, Misbehaviour> {
        // SR-030: else somebody in between could choose keys until the words agree.
        Misbehaviour::LinkAltered.refuse_if(opening.commit() != *commit)?;
        Ok(Self { answer, opening })
    }

    /// Returns what the old device said.
    #[must_use]
    pub fn answer(&self) -> &LinkAnswer {
        &self.answer
    }

    /// Returns the new device's keys.
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        &self.opening.device
    }

    /// Returns the hash that the new device and the block that adds it sign.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(labels::LINK, &[&encode(&self.answer), &encode(&self.opening)])
    }

    /// Returns the words that the new device shows and the old one asks for.
    #[must_use]
    pub fn words_of_new(&self) -> Vec<&'static str> {
        self.words()[..WORDS_PER_SIDE].to_vec()
    }

    /// Returns the words that the old device shows, once it has added the new one, and the new one
    /// asks for.
    #[must_use]
    pub fn words_of_old(&self) -> Vec<&'static str> {
        self.words()[WORDS_PER_SIDE..].to_vec()
    }

    /// The first 66 bits of `H("link-sas", both messages)`, as six of 2,048 words (the English list
    /// of BIP 39).
    fn words(&self) -> Vec<&'static str> {
        let hash = hash(labels::LINK_SAS, &[&encode(&self.answer), &encode(&self.opening)]);
        let list = Language::English.word_list();
        let mut bits = [0; 16];
        bits.copy_from_slice(&hash[..16]);
        let bits = u128::from_be_bytes(bits);
        (1..=2 * WORDS_PER_SIDE)
            .map(|word| {
                let number = bits >> (128 - 11 * word) & 0x7ff;
                list[usize::try_from(number).unwrap_or(0)]
            })
            .collect()
    }
}

/// What the old device has seen, so that the new one can't be shown anything older.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Pins {
    /// The person's name, for the new device to show.
    pub name: VLBytes,
    /// The newest signed answers about the root space and the shared vault's.
    pub answers: Vec<SignedAnswer>,
    /// Where the vaults of limited devices were.
    pub places: Vec<Anchor>,
    /// The newest checkpoint of the server's log, as the log has signed it; empty for none.
    pub log: VLBytes,
    /// The witness policy that the chain names by its hash; empty when it names none.
    pub policy: VLBytes,
}

impl Pins {
    /// Returns the hash that the old device's answer contains.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(labels::LINK_PINS, &[&encode(self)])
    }

    /// Seals the pins to the new device.
    ///
    /// **Errors** [`SealError`] when the device has no sealing key.
    pub fn seal(&self, transcript: &Transcript) -> Result<Vec<u8>, SealError> {
        let to = transcript.device().sealing.as_slice();
        seal_to(to, labels::LINK_PINS, &transcript.hash(), &encode(self))
    }

    /// Opens the pins, which must be the ones that the words were made of.
    ///
    /// **Errors** [`Misbehaviour::LinkAltered`].
    pub fn open(
        sealed: &[u8],
        transcript: &Transcript,
        key: &SealingKey,
    ) -> Result<Self, Misbehaviour> {
        // SR-030
        let altered = Misbehaviour::LinkAltered;
        let plain = key.open(labels::LINK_PINS, &transcript.hash(), sealed).map_err(|_| altered)?;
        let pins: Self =
            decode("pins", &plain, limits::ACCOUNT_MESSAGE_LEN_MAX).map_err(|_| altered)?;
        altered.refuse_if(pins.hash() != transcript.answer.pins)?;
        Ok(pins)
    }
}
