//! The keys of logs and witnesses, as C2SP writes and uses them.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER};
use sr_crypto::{PlainAlgorithm, PlainKey, Secret32, sha256, verify_plain};

use crate::{
    Checkpoint, LogError, NoteSignature,
    note::{decode_base64, is_name},
};

/// What a key signs with, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// Ed25519 over the text of the note (c2sp.org/signed-note).
    Ed25519 = 0x01,
    /// Ed25519 over time and text (c2sp.org/tlog-cosignature, `cosignature/v1`).
    CosignEd25519 = 0x04,
    /// ML-DSA-44 over time, names, size and root (c2sp.org/tlog-cosignature, `subtree/v1`).
    CosignMlDsa44 = 0x06,
}

impl KeyKind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Ed25519, Self::CosignEd25519, Self::CosignMlDsa44]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn algorithm(self) -> PlainAlgorithm {
        match self {
            Self::Ed25519 | Self::CosignEd25519 => PlainAlgorithm::Ed25519,
            Self::CosignMlDsa44 => PlainAlgorithm::MlDsa44,
        }
    }

    fn is_timed(self) -> bool {
        self != Self::Ed25519
    }
}

/// A key by which checkpoints are verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: Vec<u8>,
}

impl VerifierKey {
    /// Returns the key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it signs with.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Returns the short id: the first four bytes of `SHA-256(name ‖ "\n" ‖ kind ‖ public key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest =
            sha256(&[self.name.as_bytes(), b"\n", &[self.kind as u8], self.public.as_slice()]);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Returns whether a line is by this key, as it says.
    #[must_use]
    pub fn is_of(&self, line: &NoteSignature) -> bool {
        line.name == self.name && line.id == self.id()
    }

    /// Verifies a line that is by this key. Returns when it was made, in Unix seconds, 0 for a kind that
    /// does not say so.
    ///
    /// **Errors** [`LogError::BadSignature`].
    pub fn verify(&self, checkpoint: &Checkpoint, line: &NoteSignature) -> Result<u64, LogError> {
        let (time_s, signature) = if self.kind.is_timed() {
            let split = line.signature.split_first_chunk::<8>();
            let (time, signature) = split.ok_or(LogError::BadSignature)?;
            (u64::from_be_bytes(*time), signature)
        } else {
            (0, line.signature.as_slice())
        };
        // What the format does not allow: no honest key signs it.
        if i64::try_from(time_s).is_err() || (self.kind.is_timed() && time_s == 0) {
            return Err(LogError::BadSignature);
        }
        let message = message(self.kind, &self.name, checkpoint, time_s);
        verify_plain(self.kind.algorithm(), &self.public, &message, signature)
            .map_err(|_| LogError::BadSignature)?;
        Ok(time_s)
    }
}

/// `name+id+base64(kind ‖ public key)`.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.kind as u8], self.public.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = LogError::Malformed("key");
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(malformed);
        let (name, id, encoded) = (part()?, part()?, part()?);
        let bytes = decode_base64(encoded).ok_or(malformed)?;
        let (kind, public) = bytes.split_first().ok_or(malformed)?;
        let kind = KeyKind::of(*kind).ok_or(malformed)?;
        let key = Self { name: name.to_owned(), kind, public: public.to_vec() };
        let is_valid = is_name(name)
            && public.len() == kind.algorithm().public_len()
            && HEXLOWER.encode(&key.id()) == id;
        if is_valid { Ok(key) } else { Err(malformed) }
    }
}

/// A key that signs checkpoints.
#[derive(Debug)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    key: PlainKey,
}

impl NoteKey {
    /// Makes the key of a seed. No two kinds share a seed: what one signs must not count as the other's.
    ///
    /// **Errors** [`LogError::Malformed`] for a name that no key may have.
    pub fn new(name: &str, kind: KeyKind, seed: &Secret32) -> Result<Self, LogError> {
        if !is_name(name) || name.len() > usize::from(u8::MAX) {
            return Err(LogError::Malformed("name of a key"));
        }
        let key = PlainKey::from_seed(kind.algorithm(), seed);
        Ok(Self { name: name.to_owned(), kind, key })
    }

    /// Returns the key by which its signatures are verified.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        let public = self.key.public_key().to_vec();
        VerifierKey { name: self.name.clone(), kind: self.kind, public }
    }

    /// Signs a checkpoint at `time_s`, in Unix seconds, which a kind without time leaves out.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint, time_s: u64) -> NoteSignature {
        let mut signature = Vec::new();
        if self.kind.is_timed() {
            signature.extend_from_slice(&time_s.to_be_bytes());
        }
        let message = message(self.kind, &self.name, checkpoint, time_s);
        signature.extend_from_slice(&self.key.sign(&message));
        NoteSignature { name: self.name.clone(), id: self.verifier().id(), signature }
    }
}

/// What a key of this kind signs.
fn message(kind: KeyKind, name: &str, checkpoint: &Checkpoint, time_s: u64) -> Vec<u8> {
    let text = checkpoint.to_string();
    match kind {
        KeyKind::Ed25519 => text.into_bytes(),
        KeyKind::CosignEd25519 => format!("cosignature/v1\ntime {time_s}\n{text}").into_bytes(),
        KeyKind::CosignMlDsa44 => {
            // A name or an origin of more than 255 bytes has no form here; both are refused when read.
            let short = |text: &str| {
                let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
                [&[len], &text.as_bytes()[..usize::from(len)]].concat()
            };
            [
                b"subtree/v1\n\0".to_vec(),
                short(name),
                time_s.to_be_bytes().to_vec(),
                short(checkpoint.origin()),
                0u64.to_be_bytes().to_vec(),
                checkpoint.size().to_be_bytes().to_vec(),
                checkpoint.root().to_vec(),
            ]
            .concat()
        }
    }
}
