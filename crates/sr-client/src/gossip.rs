//! What others have seen of the server's log: own devices, by the root record, and contacts, by the texts that they give
//! each other. Two histories are noticed as soon as one of them hears of the other.

use std::sync::Arc;

use sr_crypto::sha256;
use sr_keys::{Anchor, State, TOLD_LEN_MAX};
use sr_tlog::{Checkpoint, Note};
use sr_trust::{Mirror, log_keys};
use sr_wire::{Card, VLBytes, decode, encode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, evidence,
    log::{self, Follow},
    profile::Profile,
    root,
};

/// Notes that are kept until the log was compared with them.
const HEARD_MAX: usize = 16;
/// Where they are in the state; and the hashes of what the other devices told, once it was compared.
const HEARD: &str = "heard";
const MET: &str = "met";
/// How often a device tells the others what it has seen.
const TELL_S: u64 = 7 * 86_400;

/// A checkpoint that somebody else was shown.
pub(crate) struct Heard {
    pub(crate) note: Vec<u8>,
    pub(crate) checkpoint: Checkpoint,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Notes {
    notes: Vec<VLBytes>,
}

impl Client {
    /// Compares the server's log with what somebody else was shown of it; of another log, nothing is said.
    ///
    /// **Errors** a log that forks, or is shorter: `LogForked`, `LogRolledBack`; those of reading the log.
    pub(crate) fn meet(&mut self, notes: &[VLBytes]) -> Result<(), ClientError> {
        let shown = log::shown(&self.log_remote, &self.clock)?;
        let notes = notes.iter().map(VLBytes::as_slice);
        let heard: Vec<Heard> = notes.filter_map(|note| Heard::open(note, &shown.card)).collect();
        let known = self.profile.log()?.map(|known| known.checkpoint);
        let size = known.as_ref().map_or(0, Checkpoint::size);
        let (newer, older): (Vec<_>, Vec<_>) =
            heard.iter().partition(|heard| heard.checkpoint.size() > size);
        if !newer.is_empty() {
            self.profile.hear(newer.iter().map(|heard| heard.note.as_slice()))?;
            self.sync()?;
        }
        if older.is_empty() {
            return Ok(());
        }
        // Of what was accepted, only the newest is kept.
        let known = known.iter().chain(older.iter().map(|heard| &heard.checkpoint)).collect();
        let mut mirror = Mirror::default();
        let read = Follow { to: &shown.checkpoint, known }
            .read(&self.log_remote, &mut mirror, |_, _, _| Ok(()))
            .map(drop);
        if let Err(ClientError::Misbehaviour(refused)) = &read {
            self.profile.hear(older.iter().map(|heard| heard.note.as_slice()))?;
            evidence::about_log(&self.profile, &self.log_remote, &shown, *refused);
        }
        read
    }

    /// Compares the server's log with what the account's other devices have told, as far as the record is known here; each
    /// note once. A log that is not to be had is no alarm: the next command compares.
    ///
    /// **Errors** as [`Client::meet`].
    pub(crate) fn meet_devices(&mut self) -> Result<(), ClientError> {
        let this = self.profile.keys.device.id();
        let Some(record) = self.profile.record()? else { return Ok(()) };
        let told: Vec<VLBytes> = record.told(this).map(|note| note.to_vec().into()).collect();
        let names: Vec<u8> = told.iter().flat_map(|note| sha256(&[note.as_slice()])).collect();
        if told.is_empty() || self.profile.get(MET)?.as_ref() == Some(&names) {
            return Ok(());
        }
        match self.meet(&told) {
            Ok(()) => self.profile.set(MET, &names),
            Err(error @ ClientError::Misbehaviour(_)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Returns the newest checkpoint that this device has accepted, as the log has signed it, to give to others; empty
    /// before the first.
    pub(crate) fn told_note(&self) -> Result<Vec<u8>, ClientError> {
        let (note, cards) = (self.profile.log_note()?, self.profile.cards()?);
        let keys = cards.last().and_then(|signed| log_keys(&signed.card));
        let (Ok(mut note), Some(keys)) = (Note::parse(&note), keys) else { return Ok(Vec::new()) };
        note.signatures.retain(|line| keys.keys().iter().any(|key| key.is_of(line)));
        Ok(note.to_string().into_bytes())
    }

    /// Tells the account's other devices what this one was shown, if it has not for a week. Nothing depends on it.
    pub(crate) fn tell(&mut self) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let is_alone = keys.account.live().filter(|device| device.is_full()).count() < 2;
        if is_alone || self.require_full().is_err() || self.profile.require_unsealed().is_err() {
            return Ok(());
        }
        let (this, now_s) = (keys.device.id(), (self.clock)());
        if !self.profile.record()?.is_some_and(|record| record.may_tell(this, now_s, TELL_S)) {
            return Ok(());
        }
        let note = self.told_note()?;
        match self.giving_back(|client| {
            let (profile, remote) = (&mut client.profile, &client.root_remote);
            root::update(profile, remote, &client.clock, |record| record.tell(this, &note, now_s))
        }) {
            Err(error @ ClientError::Misbehaviour(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns what this device has accepted, to be compared with another device of the account by words.
    ///
    /// **Errors** [`ClientError::Limited`], and those of reading the account.
    pub fn state(&mut self) -> Result<State, ClientError> {
        // One that can only add knows its own space alone.
        self.profile.keys.secrets()?;
        let mut heads: Vec<Anchor> = self.fresh(Self::anchors)?;
        heads.sort_by_key(|head| head.space.0);
        let account = &self.profile.keys.account;
        Ok(State { account: account.id(), seq: account.seq(), block: account.newest(), heads })
    }
}

impl Heard {
    /// Opens a note that the log of a card has signed; `None` for every other.
    fn open(note: &[u8], card: &Card) -> Option<Self> {
        let checkpoint = log::open(card, note, u64::MAX).ok()?.checkpoint;
        Some(Self { note: note.to_vec(), checkpoint })
    }
}

impl Profile {
    /// Keeps notes that others were shown, until the log was compared with them. Whether the log has signed them, is
    /// asked then.
    pub(crate) fn hear<'a>(
        &self,
        notes: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), ClientError> {
        let before = self.heard_notes()?;
        let mut heard = before.clone();
        for note in notes {
            let note = VLBytes::from(note.to_vec());
            let is_one = (1..=TOLD_LEN_MAX).contains(&note.as_slice().len());
            if is_one && !heard.contains(&note) {
                heard.push(note);
            }
        }
        heard.drain(..heard.len().saturating_sub(HEARD_MAX));
        if heard == before { Ok(()) } else { self.set(HEARD, &encode(&Notes { notes: heard })) }
    }

    /// Returns what was heard of the log of a card.
    pub(crate) fn heard(&self, card: &Card) -> Result<Vec<Heard>, ClientError> {
        let notes = self.heard_notes()?;
        Ok(notes.iter().filter_map(|note| Heard::open(note.as_slice(), card)).collect())
    }

    fn heard_notes(&self) -> Result<Vec<VLBytes>, ClientError> {
        let Some(row) = self.get(HEARD)? else { return Ok(Vec::new()) };
        let row = decode::<Notes>("notes", &row, row.len());
        row.map(|row| row.notes).map_err(|_| self.damaged())
    }
}
