//! Floor 2: the transparency log, in the formats of [C2SP](https://c2sp.org) and no others.
//!
//! A log is a Merkle tree over entries (RFC 6962), of which a *checkpoint* says size and root in a
//! signed note. Witnesses add *cosignatures* to a checkpoint that continues the one they saw before; a
//! *policy* says how many of them are needed. The tree is read as *tiles*. Nothing here performs I/O,
//! reads a clock or finds its own randomness, and what an entry means is sr-trust's.

mod checkpoint;
mod key;
mod note;
mod policy;
mod proof;
mod tile;
mod tree;

pub use checkpoint::{Checkpoint, LogKeys, Opened};
pub use key::{KeyKind, NoteKey, VerifierKey};
pub use note::{NOTE_LEN_MAX, Note, NoteSignature, SIGNATURES_MAX};
pub use policy::{POLICY_LEN_MAX, Policy, Quorum, Witness};
pub use proof::LoggedProof;
pub use tile::{ENTRY_LEN_MAX, TILE_WIDTH, Tile, bundle, entries_of, tiles_between};
pub use tree::{
    Frontier, Tree, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};

use thiserror::Error;

/// SHA-256, with which the formats of C2SP hash.
pub type Digest = [u8; 32];

/// Why a text or a proof is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// It is not exactly of its form.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The checkpoint is of another log.
    #[error("a checkpoint of another log")]
    OtherLog,
    /// A line by a known key does not verify. One such line spoils the whole note.
    #[error("a signature of a known key does not verify")]
    BadSignature,
    /// The log has not signed with each of its keys.
    #[error("the log has not signed the checkpoint with both of its keys")]
    NotSigned,
    /// Too few of the policy's witnesses have cosigned.
    #[error("too few witnesses have cosigned the checkpoint")]
    QuorumShort,
    /// The hashes do not lead to the root.
    #[error("the proof does not lead to the root")]
    ProofWrong,
}
