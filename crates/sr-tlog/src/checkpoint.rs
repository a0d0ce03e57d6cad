//! Checkpoints: what a log was at a size, signed (c2sp.org/tlog-checkpoint).

use std::{fmt, str::FromStr};

use data_encoding::BASE64;

use crate::{
    Digest, KeyKind, LogError, Note, Policy, Quorum, VerifierKey,
    note::{decode_base64, is_name},
};

/// No origin is longer: the signatures have one byte for its length.
const ORIGIN_LEN_MAX: usize = u8::MAX as usize;

/// Origin, size and root of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Digest,
}

impl Checkpoint {
    /// Makes a checkpoint.
    ///
    /// **Errors** [`LogError::Malformed`] for an origin that could not be a key's name.
    pub fn new(origin: &str, size: u64, root: Digest) -> Result<Self, LogError> {
        if is_name(origin) && origin.len() <= ORIGIN_LEN_MAX {
            Ok(Self { origin: origin.to_owned(), size, root })
        } else {
            Err(LogError::Malformed("origin"))
        }
    }

    /// Returns which log this is.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root over them.
    #[must_use]
    pub fn root(&self) -> &Digest {
        &self.root
    }
}

/// Three lines, each with a newline.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(&self.root))
    }
}

/// Extension lines are refused: ML-DSA cosignatures do not cover them.
impl FromStr for Checkpoint {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = LogError::Malformed("checkpoint");
        let lines = text.strip_suffix('\n').ok_or(malformed)?;
        let mut lines = lines.split('\n');
        let mut line = || lines.next().ok_or(malformed);
        let (origin, size, root) = (line()?, line()?, line()?);
        let root = decode_base64(root).ok_or(malformed)?;
        let root = root.try_into().map_err(|_| malformed)?;
        let checkpoint = Self::new(origin, decimal(size).ok_or(malformed)?, root)?;
        if lines.next().is_none() { Ok(checkpoint) } else { Err(malformed) }
    }
}

/// The two keys of a log, both of which sign each of its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKeys {
    keys: [VerifierKey; 2],
}

/// A checkpoint that its log has signed, and when its policy's quorum had cosigned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// What the witnesses say to it.
    pub quorum: Quorum,
    /// When the log has signed it, in Unix seconds.
    pub signed_s: u64,
}

impl LogKeys {
    /// Puts the keys of a log together: Ed25519 and ML-DSA-44, under the name that is its origin.
    ///
    /// **Errors** [`LogError::Malformed`] for other kinds, or two names.
    pub fn new(ed25519: VerifierKey, ml_dsa: VerifierKey) -> Result<Self, LogError> {
        let is_pair = ed25519.kind() == KeyKind::Ed25519
            && ml_dsa.kind() == KeyKind::CosignMlDsa44
            && ed25519.name() == ml_dsa.name()
            && ed25519.name().len() <= ORIGIN_LEN_MAX;
        if is_pair {
            Ok(Self { keys: [ed25519, ml_dsa] })
        } else {
            Err(LogError::Malformed("keys of a log"))
        }
    }

    /// Returns which log's they are.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.keys[0].name()
    }

    /// Returns the keys.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey; 2] {
        &self.keys
    }

    /// Opens a signed checkpoint: the log must have signed with both keys, and enough witnesses of
    /// `policy` have cosigned. A cosignature that is dated after `until_s`, in Unix seconds, does not
    /// count; lines by unknown keys are passed over.
    ///
    /// **Errors** [`LogError::Malformed`], [`LogError::OtherLog`], [`LogError::BadSignature`] for one
    /// bad line of a known key, [`LogError::NotSigned`], [`LogError::QuorumShort`].
    pub fn open(&self, note: &[u8], policy: &Policy, until_s: u64) -> Result<Opened, LogError> {
        let note = Note::parse(note)?;
        let checkpoint: Checkpoint = note.text.parse()?;
        if checkpoint.origin() != self.origin() {
            return Err(LogError::OtherLog);
        }
        let mut signed_s = 0;
        for key in &self.keys {
            let at_s = signed_by(key, &checkpoint, &note, u64::MAX)?.ok_or(LogError::NotSigned)?;
            signed_s = at_s.max(signed_s);
        }
        let quorum = policy.quorum(&checkpoint, &note, until_s)?;
        Ok(Opened { checkpoint, quorum, signed_s })
    }
}

/// Returns when a key has signed until then, `None` when it has not. Of several lines by one key, each must
/// verify, and the newest counts that is not later.
pub(crate) fn signed_by(
    key: &VerifierKey,
    checkpoint: &Checkpoint,
    note: &Note,
    until_s: u64,
) -> Result<Option<u64>, LogError> {
    let lines = note.signatures.iter().filter(|line| key.is_of(line));
    let times: Vec<u64> =
        lines.map(|line| key.verify(checkpoint, line)).collect::<Result<_, _>>()?;
    Ok(times.into_iter().filter(|time_s| *time_s <= until_s).max())
}

/// Reads a number without signs and zeros before it.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
