//! Proofs that something was logged, for who has no more than the proof (c2sp.org/tlog-proof).

use std::{fmt, str::FromStr};

use data_encoding::BASE64;

use crate::{
    Digest, LogError, LogKeys, Opened, Policy,
    checkpoint::decimal,
    leaf_hash,
    note::{NOTE_LEN_MAX, decode_base64},
    verify_inclusion,
};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^64 entries has no longer path.
const HASHES_MAX: usize = 64;
/// No proof is longer: extra data, a path, and a note.
const PROOF_LEN_MAX: usize = 2 * NOTE_LEN_MAX;

/// A proof that an entry is in a log, with the checkpoint that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedProof {
    /// What goes with it. Nothing vouches for this.
    pub extra: Option<Vec<u8>>,
    /// The entry's number.
    pub index: u64,
    /// The path from the entry's sibling to the root's child.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint, whole.
    pub checkpoint: String,
}

impl LoggedProof {
    /// Verifies that `entry` is in the log of `keys`, as `policy` asks. Cosignatures dated after
    /// `until_s` do not count.
    ///
    /// **Errors** those of [`LogKeys::open`], and [`LogError::ProofWrong`].
    pub fn verify(
        &self,
        entry: &[u8],
        keys: &LogKeys,
        policy: &Policy,
        until_s: u64,
    ) -> Result<Opened, LogError> {
        let opened = keys.open(self.checkpoint.as_bytes(), policy, until_s)?;
        let (size, root) = (opened.checkpoint.size(), opened.checkpoint.root());
        verify_inclusion(&leaf_hash(entry), self.index, size, &self.hashes, root)?;
        Ok(opened)
    }
}

impl fmt::Display for LoggedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for LoggedProof {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = LogError::Malformed("proof");
        if text.len() > PROOF_LEN_MAX {
            return Err(malformed);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed)?;
        let mut lines = head.split('\n');
        let mut line = lines.next().filter(|line| *line == FIRST_LINE).and(lines.next());
        let decode = |text: &str| decode_base64(text).ok_or(malformed);
        let extra = line.and_then(|line| line.strip_prefix("extra ")).map(decode).transpose()?;
        if extra.is_some() {
            line = lines.next();
        }
        let index = line.and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(malformed)?;
        let hashes: Vec<Digest> = lines
            .map(|line| decode(line)?.try_into().map_err(|_| malformed))
            .collect::<Result<_, _>>()?;
        if hashes.len() > HASHES_MAX {
            return Err(malformed);
        }
        Ok(Self { extra, index, hashes, checkpoint: checkpoint.to_owned() })
    }
}
