//! The closed, numbered catalogue of what no honest operator does.
//!
//! A number is a row of THREATS.md, a comment at the check, and a test that fails without it.

use thiserror::Error;

/// Something that an honest server does not do. Never retried, never a warning.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Misbehaviour {
    /// SR-001: a pack's bytes are not what was sealed.
    #[error("SR-001: a stored pack was changed")]
    PackAltered = 1,
    /// SR-002: a pack is served under another pack's id.
    #[error("SR-002: a stored pack was swapped for another")]
    PackSwapped = 2,
    /// SR-003: a pack that the server acknowledged is not there.
    #[error("SR-003: a stored pack is missing")]
    PackMissing = 3,
    /// SR-004: a chunk is not the one that its tree names.
    #[error("SR-004: a chunk is not the one that was backed up")]
    ChunkMismatch = 4,
    /// SR-005: a head does not open under the vault's key, or its inside differs from its outside.
    #[error("SR-005: the vault's head was changed")]
    HeadAltered = 5,
    /// SR-006: a head older than one that this client accepted.
    #[error("SR-006: the server shows an older state than it showed before")]
    HeadRolledBack = 6,
    /// SR-007: a head that does not follow the one that this client accepted.
    #[error("SR-007: the server shows a state that does not follow the one it showed before")]
    HeadForked = 7,
    /// SR-008: a head answer that the server's identity key did not sign, or for another question.
    #[error("SR-008: the server's answer is not signed by its identity key")]
    AnswerForged = 8,
    /// SR-009: the server's signed answer names another head than the one it sends.
    #[error("SR-009: the server's signed answer and the state it sends differ")]
    AnswerMismatch = 9,
    /// SR-010: the card is not the one that the invite names.
    #[error("SR-010: the server is not the one that the invite names")]
    CardMismatch = 10,
    /// SR-011: the connection's TLS key is not signed by the server's identity key.
    #[error("SR-011: the connection is not with the server that the invite names")]
    TlsKeyUnsigned = 11,
    /// SR-012: the manifest's snapshots are not the ones that the head commits to.
    #[error("SR-012: the list of snapshots is not the one that was signed")]
    SnapshotSetMismatch = 12,
    /// SR-013: the manifest's indexes are not the ones that the head commits to.
    #[error("SR-013: the list of indexes is not the one that was signed")]
    IndexSetMismatch = 13,
    /// SR-014: the head's signer is not the device that this profile pins.
    #[error("SR-014: the vault's head is signed by a device that is not this one")]
    SignerUnknown = 14,
    /// SR-015: an authenticated object is not in the form that the format page gives.
    #[error("SR-015: a stored object has a form that no Strongroom client writes")]
    ObjectMalformed = 15,
    /// SR-016: an answer is larger, smaller or of another form than the protocol allows.
    #[error("SR-016: the server's answer breaks the protocol")]
    ResponseMalformed = 16,
    /// SR-017: a block of an account chain is left out, repeated, reordered, or of another account.
    #[error("SR-017: a part of the account's history is missing or was changed")]
    ChainBroken = 17,
    /// SR-018: a block that is not signed by somebody who may do what it says.
    #[error("SR-018: the account was changed by somebody who is not one of its devices")]
    BlockForged = 18,
    /// SR-019: a block does what the state before it does not allow.
    #[error("SR-019: the account's history has a step that its rules do not allow")]
    ActNotAllowed = 19,
    /// SR-020: a block commits to another state than the one that follows from the chain.
    #[error("SR-020: the account's history says of itself what does not follow from it")]
    StateMismatch = 20,
    /// SR-021: a chain shorter than the one that this client accepted.
    #[error("SR-021: the server shows an older account than it showed before")]
    ChainRolledBack = 21,
    /// SR-022: another block at a place where this client accepted one.
    #[error("SR-022: the server shows another account history than it showed before")]
    ChainForked = 22,
    /// SR-023: a key block that is not the one that the chain names.
    #[error("SR-023: the account's key block is not the one that its devices signed")]
    KeyBlockSwapped = 23,
    /// SR-024: a root that is not the one that the chain commits to.
    #[error("SR-024: the account's key is not the one that its devices signed")]
    RootMismatch = 24,
    /// SR-025: a seed that is not the one that the genesis commits to.
    #[error("SR-025: the account's seed is not the one that it began with")]
    SeedMismatch = 25,
    /// SR-026: a head whose place in the account chain is not there, or before that of the head it
    /// follows.
    #[error("SR-026: the vault's head names a place in the account's history that it can't have")]
    PlaceMismatch = 26,
    /// SR-027: the heads that a removal was made at are not those that its block commits to.
    #[error("SR-027: what the device that removed another had seen was changed")]
    AnchorsMismatch = 27,
    /// SR-028: the kit's envelope does not open under the kit.
    #[error("SR-028: what the server keeps for this kit was changed")]
    EnvelopeAltered = 28,
    /// SR-029: the chain does not contain the block that the kit's envelope or the linking device
    /// names.
    #[error("SR-029: the account shown is older than, or not, the one that was promised")]
    ChainNotAsPromised = 29,
    /// SR-030: what came in a linking ceremony is not what its words were made of.
    #[error("SR-030: the messages of the linking were changed on the way")]
    LinkAltered = 30,
    /// SR-031: the newest state by a limited device does more than add, or its lists can't be read.
    #[error("SR-031: the newest state by an append-only device is not one that it may write")]
    LimitedOverreach = 31,
    /// SR-032: an entry of the log that does not follow from those before it.
    #[error("SR-032: the server's log has an entry that does not follow from those before it")]
    LogRuleBroken = 32,
    /// SR-033: a checkpoint of another tree than that of the entries that this client has read.
    #[error("SR-033: the server shows another log than it showed before")]
    LogForked = 33,
    /// SR-034: a checkpoint that the log's keys, as the server's card names them, have not signed.
    #[error("SR-034: what the server says of its log is not signed by the log's keys")]
    LogUnsigned = 34,
    /// SR-035: the log has something else of this account than its chain has.
    #[error("SR-035: the log has a change of this account that is not in its history")]
    LogNotOwn = 35,
    /// SR-036: a checkpoint with fewer entries than one that this client has accepted.
    #[error("SR-036: the server shows a shorter log than it showed before")]
    LogRolledBack = 36,
    /// SR-037: the newest card that the log has is not the one that the server shows.
    #[error("SR-037: the server shows a card of itself that is not the newest in its log")]
    CardNotLogged = 37,
    /// SR-038: an answer to a change of an account that is not the server's promise to log it.
    #[error("SR-038: the server does not promise to log a change of the account")]
    ReceiptForged = 38,
    /// SR-039: a log, signed later than promised, without what the server has promised to log.
    #[error("SR-039: the server has not logged a change of the account as it promised")]
    ReceiptBroken = 39,
    /// SR-040: a state of the account that is older than one that its own log has.
    #[error("SR-040: the server shows an older state than the one that its log has")]
    OlderThanLogged = 40,
}

impl Misbehaviour {
    /// Returns the number in the catalogue.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns this misbehaviour as an error when `happened`; the form of every check.
    ///
    /// **Errors** `self`.
    pub fn refuse_if(self, happened: bool) -> Result<(), Self> {
        if happened && enforced(self) { Err(self) } else { Ok(()) }
    }
}

#[cfg(debug_assertions)]
static SKIPPED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Returns whether the check is made. Always true in a release build, where nothing can change it.
#[must_use]
pub fn enforced(_check: Misbehaviour) -> bool {
    #[cfg(debug_assertions)]
    {
        let skipped = SKIPPED.load(std::sync::atomic::Ordering::SeqCst);
        skipped & (1 << _check.number()) == 0
    }
    #[cfg(not(debug_assertions))]
    true
}

/// Takes exactly `checks` out of this process, so that a test can show that the attack they stop
/// succeeds without them. It does not exist in a release build, and nothing but tests calls it.
#[cfg(debug_assertions)]
pub fn danger_skip(checks: &[Misbehaviour]) {
    let mask = checks.iter().fold(0u64, |mask, check| mask | 1 << check.number());
    SKIPPED.store(mask, std::sync::atomic::Ordering::SeqCst);
}
