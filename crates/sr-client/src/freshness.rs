//! The newest state of the backups, in the log: so a device that comes back from paper knows that it is not
//! shown an older one, as far as the log is the newest.

use std::sync::Arc;

use sr_keys::Freshness;
use sr_vault::head::HeadPlace;
use sr_wire::{Misbehaviour, decode, encode, log::Newest};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{Client, ClientError, Level, profile::Profile, root};

/// A state is put into the log after a change, once a day at most.
const AFTER_CHANGE_S: u64 = 86_400;
/// And without one, so often.
const ALWAYS_S: u64 = 7 * 86_400;

/// What this device has put into the log last.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Sent {
    time_s: u64,
    state: Freshness,
}

impl Client {
    /// Puts the newest state of the backups into the log, if that is due, for an account that asks witnesses. Whether
    /// it worked is nothing that a backup depends on: the next one tries again.
    ///
    /// **Errors** [`ClientError::Misbehaviour`].
    pub(crate) fn send_freshness(&mut self) -> Result<(), ClientError> {
        let is_asked = self.log_state.level > Level::G0;
        if !is_asked || self.require_full().is_err() || self.profile.require_unsealed().is_err() {
            return Ok(());
        }
        match self.giving_back(Self::try_send_freshness) {
            Err(error @ ClientError::Misbehaviour(_)) => Err(error),
            _ => Ok(()),
        }
    }

    fn try_send_freshness(&mut self) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let (secrets, now_s) = (keys.secrets()?, (self.clock)());
        let logged = self.profile.newest_logged(&secrets.freshness().log_key())?;
        let next = logged.map_or(0, |newest| newest.seq + 1);
        let mut state =
            Freshness { generation: secrets.generation(), seq: next, answers: Vec::new() };
        for vault in keys.vaults()? {
            state.answers.extend(self.profile.answer(vault.space())?);
        }
        if !self.is_due(&state, now_s)? {
            return Ok(());
        }
        let note = self.told_note()?;
        // Saved before it is sent: an entry without its state would look like a rollback. Of each number there is
        // one state: whoever comes second sends what the first has saved.
        let record = root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
            let is_there =
                |saved: &Freshness| saved.generation == state.generation && saved.seq >= state.seq;
            if !record.freshness().is_some_and(is_there) {
                record.set_freshness(state.clone());
                if record.may_tell(keys.device.id(), now_s, 0) {
                    record.tell(keys.device.id(), &note, now_s);
                }
            }
        })?;
        let Some(saved) = record.freshness().filter(|saved| saved.seq == next) else {
            return Ok(());
        };
        let previous = logged.map_or([0; 32], |newest| newest.value);
        self.log_remote.append_log(&secrets.freshness().sign(saved, previous))?;
        self.profile.set("freshness", &encode(&Sent { time_s: now_s, state: saved.clone() }))
    }

    /// Returns whether a state is to be sent: the first of a generation, after a day if it changed, after a week
    /// if not.
    fn is_due(&self, state: &Freshness, now_s: u64) -> Result<bool, ClientError> {
        let Some(sent) = self.profile.sent_freshness()? else { return Ok(true) };
        let is_new = sent.state.generation != state.generation || state.seq == 0;
        let places = |state: &Freshness| -> Vec<_> {
            state.answers.iter().map(|a| (a.answer.space, a.answer.seq)).collect()
        };
        let interval_s =
            if places(&sent.state) == places(state) { ALWAYS_S } else { AFTER_CHANGE_S };
        Ok(is_new || now_s.saturating_sub(sent.time_s) >= interval_s)
    }

    /// Compares the state that the server shows with the newest that the log has, on a device that has come back
    /// from paper or by contacts and knows nothing else.
    ///
    /// **Errors** [`Misbehaviour::OlderThanLogged`].
    pub(crate) fn check_freshness(&mut self) -> Result<(), ClientError> {
        if self.profile.get("unfresh")?.is_none() {
            return Ok(());
        }
        let keys = Arc::clone(&self.profile.keys);
        let key = keys.secrets()?.freshness();
        let record = root::read(&mut self.profile, &self.root_remote)?;
        let state = record.freshness().filter(|state| {
            keys.secrets().is_ok_and(|secrets| state.generation == secrets.generation())
        });
        // The log was read first: what is in it, was saved before.
        if let Some(Newest { seq, value }) = self.profile.newest_logged(&key.log_key())? {
            let is_newer = |state: &Freshness| state.seq > seq;
            let is_it = |state: &Freshness| state.seq == seq && key.value(state) == value;
            let is_older = !state.is_some_and(|state| is_newer(state) || is_it(state));
            self.older_by =
                is_older.then(|| seq + 1 - state.map_or(0, |state| state.seq + 1).min(seq));
            // SR-040
            Misbehaviour::OlderThanLogged.refuse_if(is_older)?;
            self.profile.set("fresh", b"")?;
        }
        // From here on each vault must go on from there, as on a device that has seen it.
        for answer in state.into_iter().flat_map(|state| &state.answers) {
            let place = HeadPlace { seq: answer.answer.seq, hash: answer.answer.head_hash };
            if self.profile.accepted(answer.answer.space)?.tip.is_none() {
                self.profile.set_accepted(answer.answer.space, place, 0, None)?;
                self.profile.set_answer(answer.answer.space, answer)?;
            }
        }
        self.profile.unset("unfresh")
    }

    /// Goes on with an older state than the log has.
    pub(crate) fn accept_older(&mut self) -> Result<(), ClientError> {
        self.profile.unset("unfresh")
    }

    /// Returns when this device has put the newest state into the log that the log has, in Unix seconds.
    pub(crate) fn state_logged_s(&self) -> Result<Option<u64>, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let (Ok(secrets), Some(sent)) = (keys.secrets(), self.profile.sent_freshness()?) else {
            return Ok(None);
        };
        let newest = self.profile.newest_logged(&secrets.freshness().log_key())?;
        let is_logged = sent.state.generation == secrets.generation()
            && newest.is_some_and(|newest| newest.seq >= sent.state.seq);
        Ok(is_logged.then_some(sent.time_s))
    }

    /// Returns whether the state that this device was restored to is known to be no older than one that is in a
    /// log that witnesses have cosigned.
    ///
    /// **Errors** those of the local state.
    pub fn is_fresh(&self) -> Result<bool, ClientError> {
        Ok(self.log_state.level > Level::G0 && self.profile.get("fresh")?.is_some())
    }
}

impl Profile {
    fn sent_freshness(&self) -> Result<Option<Sent>, ClientError> {
        let row = self.get("freshness")?;
        let row = row.map(|row| decode("freshness", &row, row.len()));
        row.transpose().map_err(|_| self.damaged())
    }
}
