//! What a failing command says: what happened, what it means, what was done, what to do.

mod contacts;

use std::error::Error;

use sr_client::ClientError;
use sr_wire::{Misbehaviour, api::ErrorCode};

/// Exit codes. They are published, tested and never reused.
pub(crate) mod exit {
    /// Failed; the error's code says why.
    pub(crate) const FAILED: u8 = 1;
    /// The command line.
    pub(crate) const USAGE: u8 = 2;
    /// Done in part.
    pub(crate) const PARTLY: u8 = 3;
    /// A person is needed: input, or a wait that others may end.
    pub(crate) const NEEDS_PERSON: u8 = 4;
    /// Not found.
    pub(crate) const NOT_FOUND: u8 = 5;
    /// Not in this state.
    pub(crate) const CONFLICT: u8 = 6;
    /// Not joined on this device.
    pub(crate) const NOT_JOINED: u8 = 10;
    /// Another run holds the lock.
    pub(crate) const LOCKED: u8 = 11;
    /// The server can't be reached.
    pub(crate) const UNREACHABLE: u8 = 20;
    /// The server refused: quota, rights, suspended.
    pub(crate) const SERVER_REFUSED: u8 = 21;
    /// Security refusal. Nothing was sent, nothing wrong was released.
    pub(crate) const SECURITY: u8 = 30;
    /// A verification says: not proven, or not as it should be.
    pub(crate) const INVALID: u8 = 31;
    /// A verification could not be completed.
    pub(crate) const INCOMPLETE: u8 = 32;
    /// Local state damaged.
    pub(crate) const STATE: u8 = 40;
    /// Wrong recovery kit, code or words.
    pub(crate) const WRONG_KIT: u8 = 41;
    /// The keys are locked.
    pub(crate) const KEYS_LOCKED: u8 = 42;
    /// Interrupted; the same command goes on.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For programs.
    pub(crate) code: &'static str,
    /// The process's exit code.
    pub(crate) exit: u8,
    /// What happened.
    pub(crate) title: String,
    /// What it can mean.
    pub(crate) meaning: &'static str,
    /// What this program did.
    pub(crate) did: &'static str,
    /// What the reader can do.
    pub(crate) next: Vec<String>,
}

const NOTHING_DONE: &str = "Nothing was changed.";
const GOES_ON: &str = "What was stored stays; the same command goes on from there.";

impl Failure {
    pub(crate) fn usage(title: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code: "USAGE",
            exit: exit::USAGE,
            title: title.into(),
            meaning: "The command was not understood.",
            did: NOTHING_DONE,
            next: vec![next.into()],
        }
    }

    pub(crate) fn needs_a_person(title: &str) -> Self {
        Self {
            code: "NEEDS_PERSON",
            exit: exit::NEEDS_PERSON,
            title: title.to_owned(),
            meaning: "This command asks a person something.",
            did: NOTHING_DONE,
            next: vec!["Run it on a terminal.".into()],
        }
    }

    pub(crate) fn kit_mistyped(error: &sr_client::CodeError) -> Self {
        Self {
            code: "KIT_MISTYPED",
            exit: exit::WRONG_KIT,
            title: error.to_string(),
            meaning: "The two check characters do not fit the others.",
            did: "Nothing was sent.",
            next: vec!["Compare each group with the page, and run the command again.".into()],
        }
    }

    pub(crate) fn kit_not_typed_back(group: usize) -> Self {
        Self {
            code: "KIT_MISTYPED",
            exit: exit::WRONG_KIT,
            title: format!("that is not group {group} of this kit"),
            meaning: "Whoever can't type two groups back has no page that could be used.",
            did: "This kit does not count, and nothing was sent.",
            next: vec!["Destroy its page, and run the command again for a new one.".into()],
        }
    }

    pub(crate) fn rollback_not_accepted() -> Self {
        Self {
            code: "ROLLBACK_NOT_ACCEPTED",
            exit: exit::NEEDS_PERSON,
            title: "another number was typed".to_owned(),
            meaning: "Forgetting snapshots is nothing to be done by mistake.",
            did: "Nothing was forgotten; this device still refuses the older state.",
            next: vec!["Run the command again, and type the number that it shows.".into()],
        }
    }

    pub(crate) fn failed(title: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code: "FAILED",
            exit: exit::FAILED,
            title: title.into(),
            meaning: "This machine or its disk did not do what was asked.",
            did: GOES_ON,
            next: vec![next.into()],
        }
    }

    fn misbehaviour(misbehaviour: Misbehaviour) -> Self {
        let rolled_back = matches!(
            misbehaviour,
            Misbehaviour::HeadRolledBack
                | Misbehaviour::HeadForked
                | Misbehaviour::ChainRolledBack
                | Misbehaviour::LogRolledBack
        );
        let other_server =
            matches!(misbehaviour, Misbehaviour::CardMismatch | Misbehaviour::TlsKeyUnsigned);
        let about_log = misbehaviour.number() >= Misbehaviour::LogRuleBroken.number();
        let account = (Misbehaviour::ChainBroken.number()..=Misbehaviour::LinkAltered.number())
            .contains(&misbehaviour.number());
        let (meaning, next) = if misbehaviour == Misbehaviour::OlderThanLogged {
            (
                "Your devices have put into the server's log which state of your backups was the newest. What the \
                 server shows is older: its disk was put back, or somebody hides the newest on purpose.",
                "Ask the operator what happened, over another channel, and try again when it is mended. If that \
                 state is lost for good, `strongroom trust accept-rollback` goes on with the older one.",
            )
        } else if rolled_back {
            (
                "The server shows less than this device, or a witness that it asks, has seen: its disk was put back to an older state, by \
                 accident or on purpose. Your own files are untouched.",
                "Ask the operator what happened, over another channel. What this device holds of the newer state, \
                 it has offered. If that state is lost for good: `strongroom trust accept-rollback` says what \
                 would be forgotten. Until then, do not delete your own files.",
            )
        } else if account {
            (
                "The account that the server shows is not the one that your devices have signed.",
                "Ask the operator what happened, over another channel, and compare `strongroom device \
                 chain` on your other devices. Nothing was encrypted to a key from there.",
            )
        } else if misbehaviour == Misbehaviour::LimitedOverreach {
            (
                "Its lists can't be read: the server has lost or changed them, or somebody has the \
                 device's keys.",
                "Ask the operator. If nobody has an explanation, take the device out on another one: \
                 `strongroom device revoke`. The newest state before that can be read comes back then.",
            )
        } else if about_log {
            (
                "The log is not one that only grows: the server changed it, lost a part of it, or does not \
                 stand by it.",
                "Keep what this command printed, ask the operator what happened, over another channel, and \
                 ask others who use the server what they see.",
            )
        } else if other_server {
            (
                "Somebody stands between you and your server, or the server was made anew.",
                "Check this device's clock; then ask the operator over a channel you trust which \
                 server it is.",
            )
        } else {
            (
                "What the server sent is not what this device stored there.",
                "Run `strongroom backup verify --read-data`: it says which files are concerned, and stores \
                 anew what of them is still on this device.",
            )
        };
        let mut next = vec![next.to_owned()];
        if rolled_back {
            next.push(
                "If the operator has just put the server back from a backup, run the same command again when that is \
                 finished."
                    .into(),
            );
        }
        if misbehaviour == Misbehaviour::PackMissing {
            next.push(
                "If even that ends here, the list of the newest backup is lost at the server. Another device of \
                 yours may still have it: run `strongroom backup now` there first. Only if none has it: `strongroom \
                 trust accept-rollback`."
                    .into(),
            );
        }
        if rolled_back || about_log {
            next.push(
                "If what the server has signed proves it, this device has kept that: `strongroom evidence ls`."
                    .into(),
            );
        }
        Self {
            code: code_of(misbehaviour),
            exit: exit::SECURITY,
            title: misbehaviour.to_string(),
            meaning,
            did: "Refused. Nothing more is sent, and nothing wrong was written.",
            next,
        }
    }

    fn server_refused(code: ErrorCode, title: String) -> Self {
        let next = match code {
            ErrorCode::VoucherRefused => {
                "Ask the operator for a new invite, and give it to this device: `strongroom join INVITE`. \
                 Then run the same command again."
            }
            ErrorCode::QuotaFull | ErrorCode::StorageFull => {
                "Ask the operator for room; then run the same command again."
            }
            ErrorCode::RightRefused => {
                "If this device is not the one that was taken out, somebody with one of your devices may \
                 have shut the others out. Take that one out (`strongroom device revoke`); then, with \
                 your kit: `strongroom recovery take-back`."
            }
            ErrorCode::PutBack => {
                "Run the same command again later. What came after the operator's backup, this device has given \
                 back as far as it had it; what is on its disk, its next backup after that stores again. The \
                 operator finishes it with `strongroom server log reseed --finish`."
            }
            ErrorCode::TooEarly => "Check the clocks of this device and of the server.",
            ErrorCode::Version => "Update the older of the two: this program, or the server.",
            _ => "Run the same command again; if it stays, tell the operator.",
        };
        Self {
            code: "SERVER_REFUSED",
            exit: exit::SERVER_REFUSED,
            title,
            meaning: "The server is there and says no.",
            did: GOES_ON,
            next: vec![next.to_owned()],
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let title = with_causes(&error);
        if let Some(failure) = contacts::failure(&error, &title) {
            return failure;
        }
        let make = |code, exit, meaning, did, next: &str| Self {
            code,
            exit,
            title: title.clone(),
            meaning,
            did,
            next: vec![next.to_owned()],
        };
        match error {
            ClientError::Misbehaviour(misbehaviour) => Self::misbehaviour(misbehaviour),
            ClientError::ServerRefused(code) => Self::server_refused(code, title),
            ClientError::AccountWaits { until_s } => make(
                "ACCOUNT_WAITS",
                exit::NEEDS_PERSON,
                "Somebody has acted with the recovery kit, or without it, while this device was away. It \
                 waits before it believes that, so that you could object.",
                NOTHING_DONE,
                &format!(
                    "If that was you, run the command again after {}. If not: `strongroom device chain` on \
                     your other devices.",
                    crate::output::time(until_s)
                ),
            ),
            ClientError::Unwitnessed(why) => make(
                "UNWITNESSED",
                exit::UNREACHABLE,
                "Witnesses cosign the server's log, so that nobody can be shown another one than everybody else, or an \
                 old one. What is shown here, they have not cosigned. The server or a witness may be down, or \
                 somebody hides something.",
                "Nothing new was built on it. Devices that have seen the log before go on backing up and restoring.",
                match why {
                    sr_client::Unwitnessed::ClocksApart => {
                        "Ask the server's operator to set its clock, then run the command again."
                    }
                    sr_client::Unwitnessed::PolicyUnknown => {
                        "Run the command again. On an append-only device: link it again, `strongroom device link`."
                    }
                    _ => {
                        "See that this machine's clock is right, and run the command again in an hour. If it stays, \
                         `strongroom trust status` says which witness is silent: ask its operator. A device that was just \
                         restored, and whose witnesses are gone for good: `strongroom trust accept-rollback`."
                    }
                },
            ),
            ClientError::PolicyWrong => make(
                "USAGE",
                exit::USAGE,
                "A witness policy is a text as c2sp.org/tlog-policy has it, of 16 KiB at most.",
                NOTHING_DONE,
                "Take what `strongroom trust policy show --of-server` prints, and change that.",
            ),
            ClientError::Sealed { since_s, is_rollback } => make(
                "SEALED",
                exit::SECURITY,
                "The server has signed two things that contradict each other. Reading goes on, where what it shows \
                 is what your devices have signed.",
                NOTHING_DONE,
                &format!(
                    "Since {}: `strongroom evidence ls` says what it did. {} make a backup somewhere else: \
                     `strongroom --profile NAME join …`.",
                    crate::output::time(since_s),
                    if is_rollback {
                        "If the operator has lost your newest backups, or they are there again, `strongroom trust \
                         accept-rollback` goes on with this server; else"
                    } else {
                        "That can't be undone: ask the operator, over another channel, and"
                    }
                ),
            ),
            ClientError::AlreadyJoined => make(
                "ALREADY_JOINED",
                exit::CONFLICT,
                "A profile belongs to one server and one set of keys.",
                NOTHING_DONE,
                "For another server, use another profile: `strongroom --profile NAME join …`.",
            ),
            ClientError::KitFirst => make(
                "KIT_FIRST",
                exit::CONFLICT,
                "Contacts are chosen with the kit, so that a thief of a device can't choose theirs.",
                NOTHING_DONE,
                "Make one: `strongroom recovery kit`.",
            ),
            ClientError::NotLogged { why } => make(
                "NOT_LOGGED",
                exit::UNREACHABLE,
                "Whatever is added to the account is in the server's log for everybody to see before anything is built \
                 on it. That takes a second or two; the server may be slow, or hide something.",
                NOTHING_DONE,
                &format!(
                    "{}Run the command again in a minute. If it stays, `strongroom trust status` says whether a witness is \
                     silent; else ask the server's operator.",
                    why.map_or_else(String::new, |why| format!("{why}. "))
                ),
            ),
            ClientError::LeftOut => make(
                "LEFT_OUT",
                exit::CONFLICT,
                "Another device has taken one out, and the log did not show yet that this one was added. Nothing can \
                 be read here until it is added again.",
                "Nothing was sent.",
                "On another device: `strongroom device revoke` for this one. Then link it anew, in a new profile.",
            ),
            ClientError::DeviceRemoved => make(
                "DEVICE_REMOVED",
                exit::CONFLICT,
                "Another device of the account has taken this one out. What was stored since can't be \
                 read here.",
                "Nothing was sent.",
                "If that was not you, look at your other devices. Else link this one anew, in a new \
                 profile.",
            ),
            ClientError::KitLost => make(
                "KIT_LOST",
                exit::WRONG_KIT,
                "The kit is the one in force, but the server was put back from a backup that is older than it.",
                "Nothing was released.",
                "Make a new one, with this page at hand, on a device that works: `strongroom recovery kit`.",
            ),
            ClientError::KitReplaced { when_s } => make(
                "KIT_REPLACED",
                exit::WRONG_KIT,
                "A newer kit is in force; this page opens nothing any more.",
                "Nothing was released.",
                &format!("Look for the page that was made on {}.", crate::output::time(when_s)),
            ),
            ClientError::KitWrong { expected } => make(
                "KIT_WRONG",
                exit::WRONG_KIT,
                "The characters are those of a kit, but not of one that counts here.",
                "Nothing was released.",
                &expected.map_or_else(
                    || "Check the server's address and the kit's id on the page.".to_owned(),
                    |id| format!("The kit in force is {id}: look for the page with that id."),
                ),
            ),
            ClientError::LinkCode | ClientError::LinkExpired => make(
                "LINK_CODE",
                exit::WRONG_KIT,
                "A code is shown by the new device, counts once, and for ten minutes. It is typed on the \
                 old device, never the other way round.",
                NOTHING_DONE,
                "Begin again on the new device: `strongroom device link --server HOST:PORT`.",
            ),
            ClientError::Limited => make(
                "APPEND_ONLY",
                exit::CONFLICT,
                "It backs up and reads its own backups. It has no key for anything else.",
                NOTHING_DONE,
                "Do it on another of your devices; for this one's backups: `strongroom backup … --of DEVICE`.",
            ),
            ClientError::LimitedTooMuch => make(
                "APPEND_ONLY_TOO_MUCH",
                exit::CONFLICT,
                "An append-only device shows with each run that it only adds, and there is room for \
                 about a hundred folders in that.",
                GOES_ON,
                "Back up folder by folder: `strongroom backup now FOLDER`. What was stored is used then.",
            ),
            ClientError::NotLimited(_) => make(
                "NOT_APPEND_ONLY",
                exit::NOT_FOUND,
                "The backups of all other devices are in one list.",
                NOTHING_DONE,
                "Leave out --of; `strongroom device ls` says which devices are append-only.",
            ),
            ClientError::LinkLocked { .. } => make(
                "LINK_LOCKED",
                exit::CONFLICT,
                "Somebody may be trying to link a device of theirs.",
                NOTHING_DONE,
                "Wait for an hour; then let nobody but yourself tell you codes and words.",
            ),
            ClientError::OldKitNeeded => make(
                "OLD_KIT_NEEDED",
                exit::CONFLICT,
                "Else a thief of a device could replace your kit by theirs.",
                NOTHING_DONE,
                "Have the old page at hand, or use `strongroom recovery kit --without-old`.",
            ),
            ClientError::Overtaken => make(
                "OVERTAKEN",
                exit::CONFLICT,
                "The account moved on while this was being done.",
                NOTHING_DONE,
                "Run the same command again.",
            ),
            ClientError::OwnDevice => make(
                "OWN_DEVICE",
                exit::CONFLICT,
                "Who takes a device out makes the next key, which that device must not know.",
                NOTHING_DONE,
                "Run it on another device of your account, or by the kit on a new one.",
            ),
            ClientError::RecoveryWaits { .. } => make(
                "RECOVERY_WAITS",
                exit::NEEDS_PERSON,
                "A device that was brought back by the kit or by contacts reads at once; acting waits, so that your \
                 other devices could stop a thief.",
                NOTHING_DONE,
                "`strongroom recovery requests` says from when on. If it was stopped, or never begun: \
                 `strongroom recovery restore`.",
            ),
            ClientError::WrongWords => make(
                "WRONG_WORDS",
                exit::WRONG_KIT,
                "A word was mistyped, or somebody stands between the two devices or people.",
                "The attempt is ended, and nothing was done here. If this was a linking and the other device \
                 says that it has added this one, take it out there.",
                "Compare the words by voice or face to face, and run the command again; for a linking, begin \
                 again on the new device.",
            ),
            ClientError::FolderAmbiguous => make(
                "FOLDER_AMBIGUOUS",
                exit::USAGE,
                "The newest snapshot of which folder is meant was not said.",
                NOTHING_DONE,
                "`strongroom backup snapshots` lists them: restore latest:/FOLDER, or a snapshot's id.",
            ),
            ClientError::FolderUnknown(_) => make(
                "FOLDER_UNKNOWN",
                exit::NOT_FOUND,
                "Only folders that were added are backed up.",
                NOTHING_DONE,
                "Add it with `strongroom backup add PATH`; `strongroom backup ls` lists them.",
            ),
            ClientError::Keys(_) | ClientError::State { .. } => make(
                "STATE_DAMAGED",
                exit::STATE,
                "The profile on this device can't be used. What is on the server is not touched.",
                NOTHING_DONE,
                "If the disk is full or not writable, mend that. Else put back a copy of the \
                 profile's folder; without its key file nothing can be had back.",
            ),
            ClientError::StateNewer => make(
                "STATE_NEWER",
                exit::STATE,
                "An older version must not write what a newer one made.",
                NOTHING_DONE,
                "Update this program.",
            ),
            ClientError::Locked => make(
                "LOCKED",
                exit::LOCKED,
                "One run at a time keeps what this device remembers of the server right.",
                NOTHING_DONE,
                "Wait until the other run has ended.",
            ),
            ClientError::KeysLocked => make(
                "KEYS_LOCKED",
                exit::KEYS_LOCKED,
                "The keys of this device are under a passphrase.",
                NOTHING_DONE,
                "Run `strongroom unlock`, and then the same command.",
            ),
            ClientError::PassphraseWrong => make(
                "PASSPHRASE_WRONG",
                exit::KEYS_LOCKED,
                "Each guess takes a second; nobody counts them, and nobody can reset it.",
                NOTHING_DONE,
                "Try again. If it is lost: link this device anew from another one, or use the recovery \
                 kit, in a new profile.",
            ),
            ClientError::NotAllowed => make(
                "NOT_ALLOWED",
                exit::CONFLICT,
                "The account has 24 devices at most, at least one, and each change has those who may make \
                 it.",
                NOTHING_DONE,
                "`strongroom device ls` and `strongroom recovery requests` show how the account is.",
            ),
            ClientError::NotFound(_) => make(
                "NOT_FOUND",
                exit::NOT_FOUND,
                "There is nothing by that name.",
                NOTHING_DONE,
                "`backup snapshots`, `backup ls`, `device ls` and `recovery requests` list what there \
                 is; `backup add PATH` adds a folder.",
            ),
            ClientError::Pattern(_) => make(
                "PATTERN",
                exit::USAGE,
                "A pattern may have `*`, `?`, `[…]` and `{…}`.",
                NOTHING_DONE,
                "Put it in quotes, as in: strongroom backup find '*.txt'",
            ),
            ClientError::Pinned => make(
                "PINNED",
                exit::CONFLICT,
                "It was pinned so that nothing forgets it.",
                NOTHING_DONE,
                "If that is over: strongroom backup pin --undo SNAPSHOT",
            ),
            ClientError::Name => make(
                "NAME",
                exit::USAGE,
                "It is empty, `.` or `..`, or has a `/` in it.",
                NOTHING_DONE,
                "Choose another name, as in: pg_dump … | strongroom backup now --stdin dump.sql",
            ),
            ClientError::Tag => make(
                "TAG",
                exit::USAGE,
                "It is empty, too long, or has a line break or another character that can't be seen.",
                NOTHING_DONE,
                "Choose another tag.",
            ),
            ClientError::NoLog => make(
                "NO_LOG",
                exit::INCOMPLETE,
                "The server is one of an earlier version, has just begun, or can't stand by its log.",
                NOTHING_DONE,
                "Run the same command again in a minute; if it stays, ask the operator.",
            ),
            ClientError::NotJoined => make(
                "NOT_JOINED",
                exit::NOT_JOINED,
                "This device has no keys and no server yet.",
                NOTHING_DONE,
                "Run `strongroom join INVITE` with the line that the server printed, or try \
                 `strongroom demo` first.",
            ),
            ClientError::Unreachable { .. } => make(
                "UNREACHABLE",
                exit::UNREACHABLE,
                "The server is down, or the network between is.",
                GOES_ON,
                "Check the network and run the same command again.",
            ),
            _ => make(
                "FAILED",
                exit::FAILED,
                "This machine or its disk did not do what was asked.",
                GOES_ON,
                "Mend what the message names, then run the same command again.",
            ),
        }
    }
}

#[cfg(feature = "server")]
impl From<sr_server::DataError> for Failure {
    fn from(error: sr_server::DataError) -> Self {
        use sr_server::DataError;
        let title = with_causes(&error);
        let (meaning, did) = match error {
            DataError::Copy(_)
            | DataError::CopyFull
            | DataError::CopyBusy
            | DataError::CopyInside
            | DataError::OtherServer
            | DataError::Store(sr_store::StoreError::CopyNewer) => (
                "There is no copy of now.",
                "The server was not touched; the copy before is as it was.",
            ),
            DataError::WitnessText
            | DataError::WitnessTwice
            | DataError::WitnessesTooMany
            | DataError::WitnessUnknown => {
                ("The witnesses of the server are as they were.", NOTHING_DONE)
            }
            _ => ("The server's data directory can't be used as it is.", NOTHING_DONE),
        };
        let (code, exit, next) = match error {
            DataError::Locked => ("LOCKED", exit::LOCKED, "Stop the other server first."),
            DataError::Missing => {
                ("NOT_FOUND", exit::NOT_FOUND, "Name its directory with `--data DIR`.")
            }
            DataError::Store(sr_store::StoreError::NotFound) => {
                ("NOT_FOUND", exit::NOT_FOUND, "Name its directory with `--data DIR`.")
            }
            DataError::CopyInside
            | DataError::OtherServer
            | DataError::Store(sr_store::StoreError::CopyNewer) => (
                "USAGE",
                exit::USAGE,
                "Choose another with `--to DIR`: an empty one, or an earlier copy.",
            ),
            DataError::CopyBusy => {
                ("LOCKED", exit::LOCKED, "Wait for it; then run the command again.")
            }
            DataError::CopyUnfinished => (
                "SERVER_DATA",
                exit::STATE,
                "Run `strongroom server backup` again, or use another copy.",
            ),
            DataError::Copy(_) | DataError::CopyFull => (
                "FAILED",
                exit::FAILED,
                "Make room there, or name another with `--to DIR`; the same command goes on.",
            ),
            DataError::BehindWitness { .. } => (
                "BEHIND_WITNESS",
                exit::STATE,
                "If you have put back a backup, start it with `--restored`: its devices give back what is \
                 missing. If not, the directory is not the newest: look for that.",
            ),
            DataError::OtherThanWitness { .. } => (
                "OTHER_THAN_WITNESS",
                exit::STATE,
                "Use the other copy of the directory, the one that the server ran from last. Without it this \
                 server can't go on under its name.",
            ),
            DataError::WitnessText => {
                ("USAGE", exit::USAGE, "Copy the line that `strongroom witness up` prints.")
            }
            DataError::WitnessTwice => {
                ("USAGE", exit::USAGE, "Take it out first: `strongroom server witness rm URL`.")
            }
            DataError::WitnessesTooMany => (
                "USAGE",
                exit::USAGE,
                "Take one out with `strongroom server witness rm URL`, or go on with those that there are.",
            ),
            DataError::WitnessUnknown => {
                ("NOT_FOUND", exit::NOT_FOUND, "See them with `strongroom server witness ls`.")
            }
            DataError::LogShort { .. } => (
                "LOG_SHORT",
                exit::STATE,
                "If every device that had them is gone for good, this server can't go on under its name: \
                 make a new one, and have everybody join it.",
            ),
            DataError::Store(sr_store::StoreError::NotInDictionary { .. }) => (
                "NOT_IN_DICTIONARY",
                exit::STATE,
                "Look at what it is and who put it there before you remove it.",
            ),
            _ => (
                "SERVER_DATA",
                exit::STATE,
                "Check that the directory is readable, writable and not full.",
            ),
        };
        Self { code, exit, title, meaning, did, next: vec![next.to_owned()] }
    }
}

/// Returns the stable code of a misbehaviour, for programs.
pub(crate) fn code_of(misbehaviour: Misbehaviour) -> &'static str {
    match misbehaviour {
        Misbehaviour::PackAltered => "PACK_ALTERED",
        Misbehaviour::PackSwapped => "PACK_SWAPPED",
        Misbehaviour::PackMissing => "PACK_MISSING",
        Misbehaviour::ChunkMismatch => "CHUNK_MISMATCH",
        Misbehaviour::HeadAltered => "HEAD_ALTERED",
        Misbehaviour::HeadRolledBack => "HEAD_ROLLED_BACK",
        Misbehaviour::HeadForked => "HEAD_FORKED",
        Misbehaviour::AnswerForged => "ANSWER_FORGED",
        Misbehaviour::AnswerMismatch => "ANSWER_MISMATCH",
        Misbehaviour::CardMismatch => "CARD_MISMATCH",
        Misbehaviour::TlsKeyUnsigned => "TLS_KEY_UNSIGNED",
        Misbehaviour::SnapshotSetMismatch => "SNAPSHOT_SET_MISMATCH",
        Misbehaviour::IndexSetMismatch => "INDEX_SET_MISMATCH",
        Misbehaviour::SignerUnknown => "SIGNER_UNKNOWN",
        Misbehaviour::ObjectMalformed => "OBJECT_MALFORMED",
        Misbehaviour::ResponseMalformed => "RESPONSE_MALFORMED",
        Misbehaviour::ChainBroken => "CHAIN_BROKEN",
        Misbehaviour::BlockForged => "BLOCK_FORGED",
        Misbehaviour::ActNotAllowed => "ACT_NOT_ALLOWED",
        Misbehaviour::StateMismatch => "STATE_MISMATCH",
        Misbehaviour::ChainRolledBack => "CHAIN_ROLLED_BACK",
        Misbehaviour::ChainForked => "CHAIN_FORKED",
        Misbehaviour::KeyBlockSwapped => "KEY_BLOCK_SWAPPED",
        Misbehaviour::RootMismatch => "ROOT_MISMATCH",
        Misbehaviour::SeedMismatch => "SEED_MISMATCH",
        Misbehaviour::PlaceMismatch => "PLACE_MISMATCH",
        Misbehaviour::AnchorsMismatch => "ANCHORS_MISMATCH",
        Misbehaviour::EnvelopeAltered => "ENVELOPE_ALTERED",
        Misbehaviour::ChainNotAsPromised => "CHAIN_NOT_AS_PROMISED",
        Misbehaviour::LinkAltered => "LINK_ALTERED",
        Misbehaviour::LimitedOverreach => "LIMITED_OVERREACH",
        Misbehaviour::LogRuleBroken => "LOG_RULE_BROKEN",
        Misbehaviour::LogForked => "LOG_FORKED",
        Misbehaviour::LogUnsigned => "LOG_UNSIGNED",
        Misbehaviour::LogNotOwn => "LOG_NOT_OWN",
        Misbehaviour::LogRolledBack => "LOG_ROLLED_BACK",
        Misbehaviour::CardNotLogged => "CARD_NOT_LOGGED",
        Misbehaviour::ReceiptForged => "RECEIPT_FORGED",
        Misbehaviour::ReceiptBroken => "RECEIPT_BROKEN",
        Misbehaviour::OlderThanLogged => "OLDER_THAN_LOGGED",
        _ => "MISBEHAVIOUR",
    }
}

/// Returns an error and its causes in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
