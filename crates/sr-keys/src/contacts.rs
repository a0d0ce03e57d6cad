//! Recovery contacts: k of n people who together bring an account back, and whom no server knows. See
//! `spec/recovery-contacts.md`.

use std::{fmt, str::FromStr};

use bip39::Language;
use sr_crypto::{
    CryptoRng, Hash, SealError, SealingKey, Secret32, hash, join, seal_to, split, text,
};
use sr_trust::{Account, Verified};
use sr_wire::{AccountId, DeviceId, Malformed, VLBytes, decode, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{AccountKeys, DeviceKeys, RecoveryKeys};

const CARD_PREFIX: &str = "strongroom-contact1:";
const SHARE_PREFIX: &str = "strongroom-share1:";
const REQUEST_PREFIX: &str = "strongroom-help1:";
const ANSWER_PREFIX: &str = "strongroom-helped1:";
const CHECK_LEN: usize = 4;
/// A card may have a witness policy and a checkpoint in it.
const TEXT_LEN_MAX: usize = 4 * 1024 + limits::POLICY_LEN_MAX + limits::CHECKPOINT_LEN_MAX;
/// Words by which two people compare a request.
const WORDS: usize = 6;

/// Who somebody is, for those who want to make them a contact: an account, and where it is. Its keys are those that
/// its chain names. It may go any way; the two compare its words.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct ContactCard {
    /// Their account.
    pub account: AccountId,
    /// Address of its server, in UTF-8.
    pub address: VLBytes,
    /// Hash of its server's card.
    pub card: Hash,
    /// The text of the witness policy that the account has chosen; empty if it has chosen none.
    pub policy: VLBytes,
    /// The newest checkpoint of that server's log that their device has accepted, as the log has signed it; empty
    /// before the first.
    pub log: VLBytes,
    /// Random.
    pub salt: [u8; 16],
}

impl ContactCard {
    /// Returns the words by which the two compare it, by voice or face to face.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        words(&hash(labels::CONTACT_CARD, &[&encode(self)]))
    }
}

impl fmt::Display for ContactCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(CARD_PREFIX, &encode(self)))
    }
}

impl FromStr for ContactCard {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "contact card" };
        let card: Self =
            decode("contact card", &from_text(CARD_PREFIX, line).ok_or(malformed)?, TEXT_LEN_MAX)?;
        let is_text = |bytes: &VLBytes| std::str::from_utf8(bytes.as_slice()).is_ok();
        if is_text(&card.address) && is_text(&card.policy) { Ok(card) } else { Err(malformed) }
    }
}

/// One contact's share, with all that bringing the account back needs beside it.
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Share {
    /// The account that it helps to bring back.
    pub account: AccountId,
    /// Its owner's name.
    pub name: VLBytes,
    /// Address of its server.
    pub address: VLBytes,
    /// Hash of its server's card.
    pub card: Hash,
    /// How many contacts are needed.
    pub need: u8,
    /// The id of the key that the shares yield, against which they are checked.
    pub key: DeviceId,
    /// The newest checkpoint of that server's log that whoever gives this has accepted, as the log has signed it; or
    /// empty.
    pub log: VLBytes,
    share: VLBytes,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.account)
    }
}

/// What a new set of contacts is about.
#[derive(Clone, Debug)]
pub struct ShareTemplate {
    /// The account.
    pub account: AccountId,
    /// Its owner's name.
    pub name: String,
    /// Address of its server.
    pub address: String,
    /// Hash of its server's card.
    pub card: Hash,
    /// The newest checkpoint of its log that the owner's device has accepted.
    pub log: Vec<u8>,
}

impl Share {
    /// Makes the contacts' key, and a share of it for each of `count` contacts.
    pub fn deal(
        template: &ShareTemplate,
        need: u8,
        count: usize,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> (RecoveryKeys, Vec<Self>) {
        let secret = Secret32::random(rng);
        let keys = RecoveryKeys::from_secret(&secret);
        let key = keys.public().id();
        let shares = split(&secret, need, count, rng)
            .iter()
            .map(|share| Self {
                account: template.account,
                name: template.name.as_bytes().to_vec().into(),
                address: template.address.as_bytes().to_vec().into(),
                card: template.card,
                need,
                key,
                log: template.log.clone().into(),
                share: share.to_vec().into(),
            })
            .collect();
        (keys, shares)
    }

    /// Seals the share to a contact's account, by the key that its chain names; the text may go any way.
    ///
    /// **Errors** [`SealError`].
    pub fn seal(&self, contact: &Verified<Account>) -> Result<String, SealError> {
        let key = contact.key().sealing.as_slice();
        let sealed = seal_to(key, labels::CONTACT_SHARE, b"", &encode(self))?;
        Ok(to_text(SHARE_PREFIX, &sealed))
    }

    /// Returns the share with a newer checkpoint.
    #[must_use]
    pub fn with_log(self, log: Vec<u8>) -> Self {
        Self { log: log.into(), ..self }
    }

    /// Seals the share to somebody who asks for help.
    ///
    /// **Errors** [`SealError`].
    pub fn answer(&self, request: &HelpRequest) -> Result<String, SealError> {
        let to = request.sealing.as_slice();
        let sealed = seal_to(to, labels::CONTACT_HELP, &request.hash(), &encode(self))?;
        Ok(to_text(ANSWER_PREFIX, &sealed))
    }

    /// Opens an answer to one's own request.
    ///
    /// **Errors** [`Malformed`].
    pub fn open_answer(answer: &str, device: &DeviceKeys) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "answer of a contact" };
        let sealed = from_text(ANSWER_PREFIX, answer).ok_or(malformed)?;
        let aad = HelpRequest::of(device).hash();
        let plain =
            device.sealing().open(labels::CONTACT_HELP, &aad, &sealed).map_err(|_| malformed)?;
        decode("share", &plain, TEXT_LEN_MAX)
    }

    /// Joins shares to the secret behind the contacts' key. `None` when there are not enough, or when
    /// they do not belong together: the secret is checked against the key that each of them names.
    #[must_use]
    pub fn join(shares: &[Self]) -> Option<Secret32> {
        let first = shares.first()?;
        let same = |share: &Self| {
            (share.account, share.card, share.need, share.key)
                == (first.account, first.card, first.need, first.key)
        };
        // One contact alone brings nobody into any account.
        if first.need < 2 {
            return None;
        }
        let bytes: Vec<&[u8]> = shares.iter().map(|share| share.share.as_slice()).collect();
        let secret = join(&bytes, first.need)?;
        let is_right = RecoveryKeys::from_secret(&secret).public().id() == first.key;
        (shares.iter().all(same) && is_right).then_some(secret)
    }
}

impl AccountKeys {
    /// Opens a share that was sealed to this account, under whichever of its keys.
    ///
    /// **Errors** [`Malformed`].
    pub fn open_share(&self, share: &str) -> Result<Share, Malformed> {
        let malformed = Malformed { what: "share" };
        let sealed = from_text(SHARE_PREFIX, share).ok_or(malformed)?;
        let open = |key: SealingKey| key.open(labels::CONTACT_SHARE, b"", &sealed).ok();
        let plain = self.sealing_keys().rev().find_map(open).ok_or(malformed)?;
        decode("share", &plain, TEXT_LEN_MAX)
    }
}

/// A request for help by somebody who has lost every device: a key to seal shares to.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HelpRequest {
    sealing: VLBytes,
}

impl HelpRequest {
    /// Returns the request of a new device.
    #[must_use]
    pub fn of(device: &DeviceKeys) -> Self {
        Self { sealing: device.info().sealing }
    }

    fn hash(&self) -> Hash {
        hash(labels::CONTACT_REQUEST, &[self.sealing.as_slice()])
    }

    /// Returns the words by which the two compare it, by voice or face to face.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        words(&self.hash())
    }
}

impl fmt::Display for HelpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(REQUEST_PREFIX, &encode(self)))
    }
}

impl FromStr for HelpRequest {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "request for help" };
        let request: Self =
            decode("request", &from_text(REQUEST_PREFIX, line).ok_or(malformed)?, TEXT_LEN_MAX)?;
        let is_key = request.sealing.as_slice().len() == sr_crypto::SEALING_PUBLIC_LEN;
        if is_key { Ok(request) } else { Err(malformed) }
    }
}

/// The first 66 bits of a hash, as six of 2,048 words (the English list of BIP 39). Whoever would put
/// something else in its place needs 2^66 tries for the same words.
pub(crate) fn words(hash: &Hash) -> Vec<&'static str> {
    let list = Language::English.word_list();
    let mut bits = [0; 16];
    bits.copy_from_slice(&hash[..16]);
    let bits = u128::from_be_bytes(bits);
    (1..=WORDS)
        .map(|word| list[usize::try_from(bits >> (128 - 11 * word) & 0x7ff).unwrap_or(0)])
        .collect()
}

fn to_text(prefix: &str, bytes: &[u8]) -> String {
    format!("{prefix}{}", text::to_base32(&with_check(bytes)))
}

fn from_text(prefix: &str, line: &str) -> Option<Vec<u8>> {
    let code: String = line.trim().strip_prefix(prefix)?.split_whitespace().collect();
    without_check(&text::from_base32(&code)?)
}

/// Four bytes that find what was cut off or mistyped.
fn with_check(bytes: &[u8]) -> Vec<u8> {
    let check = hash(labels::CONTACT_CHECK, &[bytes]);
    [bytes, &check[..CHECK_LEN]].concat()
}

fn without_check(bytes: &[u8]) -> Option<Vec<u8>> {
    let content = bytes.get(..bytes.len().checked_sub(CHECK_LEN)?)?;
    (with_check(content) == bytes).then(|| content.to_vec())
}
