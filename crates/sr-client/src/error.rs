//! What can go wrong, split by whose fault it is.

use std::{io, path::PathBuf};

use sr_wire::{Misbehaviour, api::ErrorCode};
use thiserror::Error;

use crate::Unwitnessed;

/// A file that was not restored or can't be had back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// Its path.
    pub path: PathBuf,
    /// Why, in one sentence.
    pub why: String,
}

/// Why the client did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The account was changed after a wait that this device did not see, and the change does not
    /// count here yet. Until then this device reads, and does not write.
    #[error("the account was changed, and the change does not count on this device yet")]
    AccountWaits {
        /// Unix seconds until when.
        until_s: u64,
    },
    /// The profile has a server already.
    #[error("this profile has joined a server already")]
    AlreadyJoined,
    /// A newer set of contacts has replaced these, or none is in force any more.
    #[error("these contacts' shares count no more")]
    ContactsReplaced,
    /// What a contact's server shows of their account is not to be believed. Nobody else is concerned.
    #[error("{name}'s account: {refused}")]
    Contact {
        /// The contact.
        name: String,
        /// What was refused.
        refused: Misbehaviour,
    },
    /// The account has chosen other witnesses since.
    #[error("the contact's card is older than the witnesses that their account asks")]
    ContactCardOld,
    /// Too few contacts, or the same twice.
    #[error(
        "there must be at least two contacts, all different, and not more needed than there are"
    )]
    ContactsWrong,
    /// A text is not what it should be, was cut off, or is for somebody else.
    #[error("the text is not complete, or not meant for this account or device")]
    ContactText,
    /// This device has asked no contact for help.
    #[error("this device has made no request for help")]
    NoRequest,
    /// A change of the account is not in a log that this device accepts, though it was waited for.
    #[error("the server's log does not have all changes of the account yet")]
    NotLogged {
        /// Why the log was not to be had, if it was not.
        why: Option<String>,
    },
    /// Another device has changed the account's keys, and this one was not in the log by then.
    #[error(
        "this device was given no new keys: its addition was not in the log when they were made"
    )]
    LeftOut,
    /// This device was taken out of the account by another one.
    #[error("this device was taken out of the account")]
    DeviceRemoved,
    /// Several folders are backed up, and which one is meant was not said.
    #[error(
        "there are snapshots of several folders: `latest` needs an absolute path, as in latest:/home/…"
    )]
    FolderAmbiguous,
    /// The folder is not one that is backed up.
    #[error("{} is not among the folders that are backed up", .0.display())]
    FolderUnknown(PathBuf),
    /// The key file can't be used.
    #[error("the key file {} is damaged or missing", .0.display())]
    Keys(PathBuf),
    /// The key file is under a passphrase.
    #[error("the keys are locked")]
    KeysLocked,
    /// The passphrase does not open the key file.
    #[error("the passphrase does not open the keys")]
    PassphraseWrong,
    /// A local file could not be read or written.
    #[error("{doing} {} failed", path.display())]
    Local {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Contacts are set with the kit at hand.
    #[error("make a recovery kit first")]
    KitFirst,
    /// The kit is not one that this account, or this server, knows.
    #[error("this recovery kit opens nothing here")]
    KitWrong {
        /// The id of the kit in force, if it is known.
        expected: Option<String>,
    },
    /// It is the kit in force, and the server has lost what it opens.
    #[error("the server has lost what this recovery kit opens")]
    KitLost,
    /// A newer kit has replaced it.
    #[error("this recovery kit was replaced by a newer one")]
    KitReplaced {
        /// Unix seconds when.
        when_s: u64,
    },
    /// What was typed is no linking code.
    #[error("a linking code has eight characters, as in 4F7K-Q2M9")]
    LinkCode,
    /// The code is unknown to the server, older than ten minutes, or used.
    #[error("the linking code is wrong, too old, or was used already")]
    LinkExpired,
    /// Three attempts with wrong words.
    #[error("linking is locked for an hour after three attempts with wrong words")]
    LinkLocked {
        /// Unix seconds until when.
        until_s: u64,
    },
    /// This device is append-only: it backs up, and reads its own backups.
    #[error("this device is append-only")]
    Limited,
    /// A limited device backs up fewer folders in one run.
    #[error("too much for one run of an append-only device")]
    LimitedTooMuch,
    /// What is meant is no append-only device of this account.
    #[error("{0} is no append-only device of this account")]
    NotLimited(String),
    /// Another run holds the profile.
    #[error("another strongroom run is using this profile")]
    Locked,
    /// The server did what no honest one does. Nothing was released or sent.
    #[error("{0}")]
    Misbehaviour(Misbehaviour),
    /// The account's rules do not allow it.
    #[error("the account's rules do not allow this")]
    NotAllowed,
    /// The server has broken a rule, and this device can prove it: nothing is sent to it any more.
    #[error(
        "nothing is sent to this server any more: it broke a rule, and this device has the proof"
    )]
    Sealed {
        /// Unix seconds since when.
        since_s: u64,
        /// Whether all that it is known to have done is to show an older state, which a person may accept.
        is_rollback: bool,
    },
    /// The account's witnesses have not cosigned what the server shows of its log, or long ago.
    #[error("the server's log can't be relied on: {0}")]
    Unwitnessed(#[from] Unwitnessed),
    /// A text is no witness policy.
    #[error("this is no witness policy")]
    PolicyWrong,
    /// There is nothing by that name.
    #[error("there is no {0}")]
    NotFound(String),
    /// What was looked for is no pattern.
    #[error("that is no pattern: {0}")]
    Pattern(String),
    /// The snapshot is pinned.
    #[error("a pinned snapshot can't be forgotten")]
    Pinned,
    /// What was to be the name of a file is none.
    #[error("that is no name of a file")]
    Name,
    /// What was to be a tag is none.
    #[error("a tag has 1 to 64 bytes, all of them visible")]
    Tag,
    /// The server's card names no log, or it shows no checkpoint of it.
    #[error("this server shows no log")]
    NoLog,
    /// The profile has no server.
    #[error("this device has not joined a server")]
    NotJoined,
    /// The account has a kit: a new one needs the old one, or waits.
    #[error("a new recovery kit needs the one in force, or a wait")]
    OldKitNeeded,
    /// A device can't take itself out: it would know the key that comes after it.
    #[error("a device can't be taken out by itself")]
    OwnDevice,
    /// Another device changed the account at the same moment.
    #[error("another device changed the account at the same moment")]
    Overtaken,
    /// This device was restored from a kit and does not count as one of the account's yet.
    #[error("this device reads, and may act for the account only after the wait")]
    RecoveryWaits {
        /// Unix seconds until when, once the wait has begun.
        until_s: Option<u64>,
    },
    /// Shares are missing, or do not belong together.
    #[error("{have} of the {need} shares that are needed are here, or they do not belong together")]
    SharesWrong {
        /// Shares here.
        have: usize,
        /// Shares needed.
        need: usize,
    },
    /// There is no memory, or the machine failed in another way that this program can't mend.
    #[error("{0}")]
    Resources(String),
    /// The server refused.
    #[error("the server refused: {}", refusal_text(*.0))]
    ServerRefused(ErrorCode),
    /// The profile's database can't be used.
    #[error("the profile's state {} can't be used", path.display())]
    State {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The profile was written by a newer version.
    #[error("the profile was written by a newer version of strongroom")]
    StateNewer,
    /// The words are not those that the other device shows.
    #[error("the words are not those that the other side shows")]
    WrongWords,
    /// The server was not reached, or the connection broke and stayed broken.
    #[error("the server at {address} can't be reached")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why the last try failed.
        source: io::Error,
    },
}

impl ClientError {
    pub(crate) fn local(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { doing, path, source }
    }
}

impl From<Misbehaviour> for ClientError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::Misbehaviour(misbehaviour)
    }
}

fn refusal_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Malformed => "it does not understand this client's request",
        ErrorCode::Version => "it speaks another version of the protocol",
        ErrorCode::RightRefused => "it does not accept this device's rights",
        ErrorCode::VoucherRefused => "the invite was used up or never given out",
        ErrorCode::QuotaFull => "the limit that its operator set is reached",
        ErrorCode::StorageFull => "its disk is full",
        ErrorCode::NotFound => "it has nothing by that name",
        ErrorCode::Exists => "the id is taken",
        ErrorCode::Busy => "it is busy",
        ErrorCode::Conflict => "another device was faster",
        ErrorCode::BlockRefused => "the account's rules do not allow it",
        ErrorCode::TooEarly => "the wait is not over by its clock, or the clocks differ",
        ErrorCode::PutBack => {
            "it was put back from a backup, and its operator has not finished that"
        }
        ErrorCode::Internal => "it failed by itself",
    }
}
