//! What a profile keeps of its server's log: everything that it was shown, folded. No server can show it a
//! shorter log, or another, from then on.

use std::collections::{HashMap, HashSet};

use rusqlite::params;
use sr_crypto::Hash;
use sr_tlog::{Checkpoint, Frontier, Note};
use sr_trust::{Account, Mirror, Taken};
use sr_wire::{
    Misbehaviour, decode, encode,
    log::{Key, Newest, SignedReceipt, block_commit},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, account, evidence,
    give_back::{is_kept, keep_entries},
    log::{self, Follow, Shown},
    profile::Profile,
    remote::Remote,
    root,
    witness::{Level, Unwitnessed, is_stale, judge},
};

/// What this device knows of its server's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// How many entries the newest log has that this device has accepted.
    pub size: u64,
    /// How many changes of this account it does not have. The newest takes a second or two.
    pub missing: u64,
    /// When this device first saw the first of them, by its clock, in Unix seconds.
    pub missing_since_s: Option<u64>,
    /// Why the newest was not to be had, if it was not. The server could be hiding something.
    pub withheld: Option<String>,
    /// Whether it has entries that this version does not know.
    pub needs_update: bool,
    /// Who checks it, for this account.
    pub level: Level,
    /// When enough witnesses had cosigned the newest that this device has accepted, in Unix seconds.
    pub cosigned_s: Option<u64>,
    /// Why the newest was not accepted, if it was shown.
    pub unwitnessed: Option<Unwitnessed>,
}

/// How far this device has read a log.
pub(crate) struct Known {
    /// The newest checkpoint that was accepted.
    pub(crate) checkpoint: Checkpoint,
    cosigned_s: Option<u64>,
    frontier: Frontier,
    time_s: u64,
    unknown_from: Option<u64>,
}

/// What was read of a log beyond what is known.
pub(crate) struct Read {
    mirror: Mirror,
    /// Those that have another newest value now.
    changed: HashSet<Key>,
    /// The newest entries, each with its place.
    entries: Vec<(u64, Vec<u8>)>,
    unknown_from: Option<u64>,
}

#[derive(Default, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct KnownRow {
    /// The newest checkpoint, as the log has signed it.
    note: Vec<u8>,
    size: u64,
    roots: Vec<Hash>,
    time_s: u64,
    /// The first entry of a type that this version does not know. One that does begins anew.
    unknown_from: Option<u64>,
    /// When enough witnesses had cosigned the checkpoint, in Unix seconds.
    cosigned_s: Option<u64>,
}

/// Compares the log that the server shows with what this device knows of it, reads what is new, and keeps
/// that. `served` is the account as the server has just shown it, with what waits.
///
/// `None` when the log has more of this account: its blocks came a moment later, or never.
///
/// **Errors** [`Misbehaviour::LogRolledBack`], [`Misbehaviour::LogForked`],
/// [`Misbehaviour::LogRuleBroken`], [`Misbehaviour::CardNotLogged`], [`Misbehaviour::LogNotOwn`],
/// [`Misbehaviour::ReceiptBroken`]; [`ClientError::ServerRefused`] and [`ClientError::Unreachable`] when entries are not to be had.
pub(crate) fn follow(
    profile: &mut Profile,
    remote: &Remote,
    shown: &Shown,
    served: &Account,
    relied: &Relied,
) -> Result<Option<LogState>, ClientError> {
    let (known, own) = (profile.log()?, Key::account(served.id()));
    let mut state = LogState { size: shown.checkpoint.size(), ..relied.state() };
    let old_unknown = known.as_ref().and_then(|known| known.unknown_from);
    let is_read = known.as_ref().is_some_and(|known| {
        known.checkpoint == shown.checkpoint && known.frontier.size() == state.size
    });
    let accepted = known.as_ref().map(|known| &known.checkpoint);
    let heard = profile.heard(&shown.card)?;
    let heard = heard.iter().map(|heard| &heard.checkpoint);
    let all = accepted.into_iter().chain(&relied.asked).chain(heard).collect();
    let follow = Follow { to: &shown.checkpoint, known: all };
    follow.refuse_less()?;
    let (newest, card, read) = if is_read {
        (profile.newest_logged(&own)?, profile.newest_logged(&shown.card_key())?, None)
    } else {
        let mut mirror = match &known {
            Some(known) => profile.mirror(known)?,
            None => Mirror::default(),
        };
        let (mut changed, mut entries, mut is_ahead) = (HashSet::new(), Vec::new(), false);
        let unknown = follow.read(remote, &mut mirror, |mirror, taken, entry| {
            let place = mirror.size() - 1;
            if is_kept(place, state.size) {
                entries.push((place, entry));
            }
            if let Taken::Folded(key) = taken {
                changed.insert(key);
                is_ahead |= key == own && !is_own(mirror.fold().newest(&own), served)?;
            }
            Ok(())
        })?;
        if is_ahead {
            return Ok(None);
        }
        let newest = mirror.fold().newest(&own).copied();
        let card = mirror.fold().newest(&shown.card_key()).copied();
        (
            newest,
            card,
            Some(Read { mirror, changed, entries, unknown_from: old_unknown.or(unknown) }),
        )
    };
    if !is_own(newest.as_ref(), served)? {
        return Ok(None);
    }
    shown.check_card(card.as_ref())?;
    let logged = newest.map_or(0, |newest| newest.seq + 1);
    if relied.unwitnessed.is_some() {
        return Ok(Some(state));
    }
    profile.settle_receipts(logged, shown.signed_s)?;
    state.needs_update = read.as_ref().map_or(old_unknown, |read| read.unknown_from).is_some();
    state.missing = (served.seq() + 1).saturating_sub(logged);
    state.missing_since_s = profile.block_seen_s(logged)?.filter(|_| state.missing > 0);
    if let Some(cosigned_s) = relied.cosigned_s.filter(|_| !relied.is_stale) {
        profile.note_waits(&profile.keys.account, logged, cosigned_s)?;
    }
    // Nothing of a log that is refused is kept.
    if read.is_some() || known.is_none_or(|known| relied.cosigned_s > known.cosigned_s) {
        profile.set_log(&shown.note, read.as_ref(), relied.cosigned_s)?;
    }
    Ok(Some(state))
}

/// Returns whether a logged value is that of a block of the account; false when it is of one after those
/// that are known.
pub(crate) fn is_own(logged: Option<&Newest>, account: &Account) -> Result<bool, Misbehaviour> {
    let Some(logged) = logged else { return Ok(true) };
    let Some(hash) = account.block_hash(logged.seq) else { return Ok(false) };
    // SR-035
    Misbehaviour::LogNotOwn.refuse_if(block_commit(account.id(), &hash) != logged.value)?;
    Ok(true)
}

/// Returns what a note says, without asking who has signed it.
pub(crate) fn checkpoint_of(note: &[u8]) -> Option<Checkpoint> {
    Note::parse(note).ok()?.text.parse().ok()
}

impl Client {
    /// Brings the account and the log up to date, each over a connection of its own.
    ///
    /// **Errors** those of the account; a log that is none, see [`Misbehaviour`]. One that is not to be had
    /// is no error: local folders go on being backed up.
    pub(crate) fn sync(&mut self) -> Result<(), ClientError> {
        let Self { profile, account_remote, log_remote, clock, .. } = self;
        // A server that has lost the end of its log would write another in its place.
        if profile.pending_act()?.is_some()
            && let (Some(known), Ok(shown)) = (profile.log()?, log::shown(log_remote, clock))
        {
            Follow { to: &shown.checkpoint, known: vec![&known.checkpoint] }.refuse_less()?;
        }
        let died = || ClientError::Resources("a part of the program has failed".into());
        let (served, shown) = std::thread::scope(|scope| {
            let shown = scope.spawn(|| log::shown(log_remote, clock));
            let served = account::sync(profile, account_remote, clock);
            (served, shown.join().unwrap_or_else(|_| Err(died())))
        });
        let mut served = served?;
        let relied = match self.rely(shown) {
            Ok(relied) => relied,
            Err(error) => {
                self.log_state = self.withheld(error)?;
                return Ok(());
            }
        };
        let Self { profile, account_remote, log_remote, clock, .. } = self;
        let shown = &relied.shown;
        let mut followed = follow(profile, log_remote, shown, &served, &relied);
        if matches!(followed, Ok(None)) {
            // Another device has changed the account meanwhile. SR-035: what is logged is there.
            served = account::sync(profile, account_remote, clock)?;
            followed = follow(profile, log_remote, shown, &served, &relied);
            Misbehaviour::LogNotOwn.refuse_if(matches!(followed, Ok(None)))?;
        }
        if let Err(ClientError::Misbehaviour(refused)) = &followed {
            evidence::about_log(profile, log_remote, shown, *refused);
        }
        self.log_state = match (followed, relied.unwitnessed) {
            (Ok(_), Some(why)) => self.withheld(why.into())?,
            (Ok(state), None) => {
                profile.pin(&shown.card)?;
                profile.set_cards(log_remote.cards()?)?;
                state.unwrap_or_default()
            }
            (Err(error), _) => self.withheld(error)?,
        };
        // By what witnesses have just said.
        let time_s = self.profile.waits_s((self.clock)())?;
        if self.profile.waiting.is_some_and(|waiting| waiting.until_s <= time_s) {
            account::sync(&mut self.profile, &self.account_remote, &self.clock)?;
        }
        Ok(())
    }

    /// Returns what the server shows of its log, and what the account's witnesses say to it. Who has never
    /// accepted a log, asks each of them.
    fn rely(&mut self, shown: Result<Shown, ClientError>) -> Result<Relied, ClientError> {
        let shown = shown?;
        let cards = self.log_remote.cards()?;
        let mut policy = self.profile.policy(&cards);
        // Its text may have come to the record since this device read that.
        if matches!(policy, Err(ClientError::Unwitnessed(_))) && !self.is_limited() {
            root::read(&mut self.profile, &self.root_remote)?;
            policy = self.profile.policy(&cards);
        }
        let policy = match policy {
            // It is signed by the log, whoever else should have signed it.
            Err(ClientError::Unwitnessed(why)) => {
                return Ok(Relied {
                    shown,
                    asked: Vec::new(),
                    is_stale: true,
                    cosigned_s: None,
                    level: Level::G1,
                    unwitnessed: Some(why),
                });
            }
            policy => policy?,
        };
        let is_unasked = self.profile.is_unasked()?;
        let asked =
            if is_unasked && policy.asks() { self.ask_witnesses(&policy)? } else { Vec::new() };
        // It has grown meanwhile.
        let shown =
            if asked.is_empty() { shown } else { log::shown(&self.log_remote, &self.clock)? };
        let now_s = (self.clock)();
        let (cosigned_s, mut unwitnessed) = match judge(&policy, &shown, now_s) {
            Ok(cosigned_s) => (cosigned_s, None),
            Err(why) => (None, Some(why)),
        };
        if unwitnessed.is_none() && is_unasked && policy.asks() && is_stale(cosigned_s, now_s) {
            unwitnessed = Some(Unwitnessed::Stale);
        }
        Ok(Relied {
            shown,
            asked,
            is_stale: is_stale(cosigned_s, now_s),
            cosigned_s,
            level: Level::of(&policy, self.profile.is_pinned()),
            unwitnessed,
        })
    }

    /// A log that is not to be had, or that its witnesses have not cosigned, is no alarm: but for a device that
    /// has nothing else to go by. Everything else is an error.
    fn withheld(&self, error: ClientError) -> Result<LogState, ClientError> {
        let unwitnessed = match error {
            ClientError::NoLog
            | ClientError::ServerRefused(_)
            | ClientError::Unreachable { .. } => None,
            ClientError::Unwitnessed(why) => Some(why),
            error => return Err(error),
        };
        let cards = self.log_remote.cards().or_else(|_| self.profile.cards())?;
        // Whom it does not know, it can't do without.
        let level = self
            .profile
            .policy(&cards)
            .map_or(Level::G1, |policy| Level::of(&policy, self.profile.is_pinned()));
        if level > Level::G0 && self.profile.is_unasked()? {
            return Err(error);
        }
        let known = self.profile.log()?;
        Ok(LogState {
            size: known.as_ref().map_or(0, |known| known.checkpoint.size()),
            cosigned_s: known.and_then(|known| known.cosigned_s),
            withheld: Some(error.to_string()),
            unwitnessed,
            level,
            ..LogState::default()
        })
    }
}

/// What the server shows of its log, and whether this device relies on it. In any case it must not break a rule.
pub(crate) struct Relied {
    shown: Shown,
    /// What witnesses have cosigned, as they say themselves.
    asked: Vec<Checkpoint>,
    cosigned_s: Option<u64>,
    /// Whether that is a day ago: no wait begins by it.
    is_stale: bool,
    level: Level,
    unwitnessed: Option<Unwitnessed>,
}

impl Relied {
    fn state(&self) -> LogState {
        LogState { level: self.level, cosigned_s: self.cosigned_s, ..LogState::default() }
    }
}

impl Profile {
    /// Returns how far this device has read its server's log.
    pub(crate) fn log(&self) -> Result<Option<Known>, ClientError> {
        let Some(row) = self.log_row()? else { return Ok(None) };
        let parse = || {
            let checkpoint = checkpoint_of(&row.note)?;
            let frontier = Frontier::from_parts(row.size, row.roots)?;
            let KnownRow { time_s, unknown_from, cosigned_s, .. } = row;
            Some(Known { checkpoint, cosigned_s, frontier, time_s, unknown_from })
        };
        parse().map(Some).ok_or_else(|| self.damaged())
    }

    /// Returns the newest checkpoint, as the log has signed it; empty before the first.
    pub(crate) fn log_note(&self) -> Result<Vec<u8>, ClientError> {
        Ok(self.log_row()?.unwrap_or_default().note)
    }

    /// Accepts a checkpoint, and what was read up to it: from here on, no shorter log and no other is.
    pub(crate) fn set_log(
        &mut self,
        note: &[u8],
        read: Option<&Read>,
        cosigned_s: Option<u64>,
    ) -> Result<(), ClientError> {
        let mut row = self.log_row()?.unwrap_or_default();
        (row.note, row.cosigned_s) = (note.to_vec(), cosigned_s);
        if let Some(Read { mirror, unknown_from, .. }) = read {
            row.size = mirror.size();
            row.roots = mirror.frontier().roots().to_vec();
            row.time_s = mirror.fold().time_s();
            row.unknown_from = *unknown_from;
        }
        self.transaction(|transaction| {
            if let Some(Read { mirror, changed, entries, .. }) = read {
                keep_entries(transaction, entries, mirror.size())?;
                let insert = "INSERT OR REPLACE INTO log VALUES (?1, ?2, ?3, ?4)";
                let mut insert = transaction.prepare(insert)?;
                for key in changed {
                    if let Some(newest) = mirror.fold().newest(key) {
                        insert.execute(params![key.kind, key.index, newest.seq, newest.value])?;
                    }
                }
            }
            let set = "INSERT OR REPLACE INTO state VALUES ('log', ?1)";
            transaction.execute(set, [encode(&row)])?;
            // Only a log that was read is one that was accepted, and continues what others have seen.
            if read.is_some() {
                let compared = "DELETE FROM state WHERE key IN ('unasked', 'heard')";
                transaction.execute(compared, [])?;
            }
            Ok(())
        })
    }

    /// Returns when enough witnesses had cosigned the newest log, in Unix seconds.
    pub(crate) fn cosigned_s(&self) -> Result<Option<u64>, ClientError> {
        Ok(self.log_row()?.and_then(|row| row.cosigned_s))
    }

    /// Remembers the server's promise to log a change that this device has made.
    pub(crate) fn set_receipt(&self, receipt: &SignedReceipt) -> Result<(), ClientError> {
        self.set(&format!("receipt/{}", receipt.receipt.seq), &encode(receipt))
    }

    /// Returns whether the server has promised to log a change.
    pub(crate) fn has_receipt(&self, seq: u64) -> Result<bool, ClientError> {
        Ok(self.get(&format!("receipt/{seq}"))?.is_some())
    }

    /// Forgets the promises about changes from a place on.
    pub(crate) fn forget_receipts(&self, from: u64) -> Result<(), ClientError> {
        for (key, SignedReceipt { receipt, .. }) in self.receipts()? {
            if receipt.seq >= from {
                self.query(|database| database.execute("DELETE FROM state WHERE key = ?1", [key]))?;
            }
        }
        Ok(())
    }

    /// Forgets the promises that were kept: `logged` changes of the account are in a log that was signed at
    /// `signed_s`.
    fn settle_receipts(&self, logged: u64, signed_s: u64) -> Result<(), ClientError> {
        for (key, SignedReceipt { receipt, .. }) in self.receipts()? {
            if receipt.seq < logged {
                self.query(|database| database.execute("DELETE FROM state WHERE key = ?1", [key]))?;
                continue;
            }
            // SR-039
            Misbehaviour::ReceiptBroken.refuse_if(signed_s > receipt.deadline_s)?;
        }
        Ok(())
    }

    /// Returns the promises that are not known to be kept, each with its key.
    pub(crate) fn receipts(&self) -> Result<Vec<(String, SignedReceipt)>, ClientError> {
        let rows: Vec<(String, Vec<u8>)> = self.query(|database| {
            let query = "SELECT key, value FROM state WHERE key GLOB 'receipt/*'";
            let mut query = database.prepare_cached(query)?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let parse = |(key, row): (String, Vec<u8>)| {
            Ok((key, decode("receipt", &row, row.len()).map_err(|_| self.damaged())?))
        };
        rows.into_iter().map(parse).collect()
    }

    fn log_row(&self) -> Result<Option<KnownRow>, ClientError> {
        let row = self.get("log")?;
        let row = row.map(|row| decode("log", &row, row.len()));
        row.transpose().map_err(|_| self.damaged())
    }

    /// Returns how many changes of the account this device has seen in the log.
    pub(crate) fn own_logged(&self) -> Result<Option<u64>, ClientError> {
        let newest = self.newest_logged(&Key::account(self.keys.account.id()))?;
        Ok(newest.map(|newest| newest.seq + 1))
    }

    /// Returns the newest value of a key in the log that this device has accepted.
    pub(crate) fn newest_logged(&self, key: &Key) -> Result<Option<Newest>, ClientError> {
        self.query(|database| {
            let query = "SELECT seq, value FROM log WHERE kind = ?1 AND name = ?2";
            let newest =
                |row: &rusqlite::Row<'_>| Ok(Newest { seq: row.get(0)?, value: row.get(1)? });
            let mut query = database.prepare(query)?;
            let mut rows = query.query_map(params![key.kind, key.index], newest)?;
            rows.next().transpose()
        })
    }

    fn mirror(&self, known: &Known) -> Result<Mirror, ClientError> {
        let newest: HashMap<Key, Newest> = self.query(|database| {
            let mut query = database.prepare("SELECT kind, name, seq, value FROM log")?;
            let rows = query.query_map([], |row| {
                let key = Key { kind: row.get(0)?, index: row.get(1)? };
                Ok((key, Newest { seq: row.get(2)?, value: row.get(3)? }))
            })?;
            rows.collect()
        })?;
        Ok(Mirror::from_parts(known.frontier.clone(), known.time_s, newest))
    }
}
