//! The server's log, as anyone can read and verify it: no account, and no right, is needed.

use std::sync::Arc;

use sr_crypto::Hash;
use sr_tlog::{Checkpoint, Opened, Policy, TILE_WIDTH, Tile, entries_of};
use sr_trust::{Mirror, Taken, log_keys};
use sr_wire::{
    Card, Misbehaviour,
    api::ErrorCode,
    card_hash, limits,
    log::{ACCOUNT, ENTRY_LEN, Key, Newest},
};

use crate::{
    Client, ClientError, Clock, MakeDialer, Phase, Progress,
    account::Keys,
    client::tls_dialer,
    mirror::is_own,
    remote::{Remote, runtime},
};

/// No bundle of entries is longer: 256 of them, each with its length before it. One of a later version
/// may have longer entries.
const BUNDLE_LEN_MAX: usize = TILE_WIDTH * (2 + 1024);

/// What a server says of its log, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The server's name, as people compare it.
    pub server_name: String,
    /// The hash of the server's newest card.
    pub card: Hash,
    /// Which log it is.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// What was found in a log of which every entry was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLog {
    /// What the server says of it.
    pub status: LogStatus,
    /// How many accounts have entries.
    pub accounts: u64,
    /// When the last entry was added, by the server's clock, in Unix seconds; 0 without any.
    pub last_s: u64,
    /// The first entry that this version does not know; what such entries say was not judged.
    pub unknown_from: Option<u64>,
    /// How many changes of this profile's account it does not have. The newest takes a second or two.
    pub missing: u64,
}

/// A log that is read from a server.
pub struct LogReader {
    remote: Remote,
    clock: Clock,
    own: Option<Own>,
}

/// What a profile knows.
struct Own {
    keys: Arc<Keys>,
    checkpoint: Option<Checkpoint>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogReader({:?})", self.remote)
    }
}

impl LogReader {
    /// Reads from the server that answers at `address`. Whether it is the one that is meant, its name
    /// tells whoever knows that.
    ///
    /// **Errors** [`ClientError`].
    pub fn new(address: &str, clock: Clock) -> Result<Self, ClientError> {
        Self::new_by(address, clock, &tls_dialer())
    }

    /// Takes no other server than the one that has this card, or had it.
    #[must_use]
    pub fn of_card(self, card: Hash) -> Self {
        Self { remote: self.remote.pinned(card), ..self }
    }

    /// As [`LogReader::new`], over another network than TLS.
    ///
    /// **Errors** as [`LogReader::new`].
    pub fn new_by(address: &str, clock: Clock, dialer: &MakeDialer) -> Result<Self, ClientError> {
        let remote = Remote::new(runtime()?, dialer(address)?, None, Arc::clone(&clock));
        Ok(Self { remote, clock, own: None })
    }

    /// Returns what the server says of its log.
    ///
    /// **Errors** [`ClientError::NoLog`], [`Misbehaviour::LogUnsigned`]; [`Misbehaviour::LogRolledBack`] and
    /// [`Misbehaviour::LogForked`] when this profile knows better.
    pub fn status(&self) -> Result<LogStatus, ClientError> {
        let shown = shown(&self.remote, &self.clock)?;
        Follow { to: &shown.checkpoint, known: self.known() }.refuse_less()?;
        Ok(shown.status())
    }

    /// Reads all entries, in order, and verifies that each follows from those before it, and that they
    /// are those that the server has signed.
    ///
    /// What this profile's own account did must be in it as its devices signed it, and the log that this
    /// device has accepted must be its beginning.
    ///
    /// **Errors** as [`LogReader::status`]; [`Misbehaviour::LogRuleBroken`],
    /// [`Misbehaviour::LogForked`], [`Misbehaviour::LogRolledBack`], [`Misbehaviour::CardNotLogged`],
    /// [`Misbehaviour::LogNotOwn`].
    pub fn verify(&self, progress: &Progress) -> Result<VerifiedLog, ClientError> {
        let shown = shown(&self.remote, &self.clock)?;
        let account = self.own.as_ref().map(|own| &own.keys.account);
        progress.start(Phase::Checking, shown.checkpoint.size());
        let mut mirror = Mirror::default();
        let follow = Follow { to: &shown.checkpoint, known: self.known() };
        let unknown_from = follow.read(&self.remote, &mut mirror, |mirror, _, _| {
            progress.did(1, ENTRY_LEN as u64);
            let Some(account) = account else { return Ok(()) };
            // What this device has not read yet, the next command reads.
            is_own(mirror.fold().newest(&Key::account(account.id())), account).map(drop)
        })?;
        shown.check_card(mirror.fold().newest(&shown.card_key()))?;
        let missing = account.map_or(0, |account| {
            let newest = mirror.fold().newest(&Key::account(account.id()));
            (account.seq() + 1).saturating_sub(newest.map_or(0, |newest| newest.seq + 1))
        });
        let accounts = mirror.fold().keys().filter(|key| key.kind == ACCOUNT).count() as u64;
        let last_s = mirror.fold().time_s();
        Ok(VerifiedLog { status: shown.status(), accounts, last_s, unknown_from, missing })
    }

    fn known(&self) -> Vec<&Checkpoint> {
        self.own.iter().filter_map(|own| own.checkpoint.as_ref()).collect()
    }
}

/// What a server shows of its log.
pub(crate) struct Shown {
    pub(crate) card: Card,
    /// The checkpoint, as the log has signed it.
    pub(crate) note: Vec<u8>,
    pub(crate) checkpoint: Checkpoint,
    /// When the log has signed it, in Unix seconds by the server's clock.
    pub(crate) signed_s: u64,
}

impl Shown {
    fn status(&self) -> LogStatus {
        LogStatus {
            server_name: self.card.short_name(),
            card: card_hash(&self.card),
            origin: self.checkpoint.origin().to_owned(),
            size: self.checkpoint.size(),
            root: *self.checkpoint.root(),
        }
    }

    /// Compares the server's card with the newest that the log has: what a server says of itself, it says
    /// to all.
    ///
    /// **Errors** [`Misbehaviour::CardNotLogged`].
    pub(crate) fn check_card(&self, logged: Option<&Newest>) -> Result<(), Misbehaviour> {
        let card = Newest { seq: self.card.seq, value: card_hash(&self.card) };
        // SR-037
        Misbehaviour::CardNotLogged.refuse_if(logged != Some(&card))
    }

    /// Returns whose entries those of the card are.
    pub(crate) fn card_key(&self) -> Key {
        Key::card(self.card.origin.as_slice())
    }
}

/// Returns the newest checkpoint, which the log's keys have signed.
///
/// **Errors** [`ClientError::NoLog`], [`Misbehaviour::LogUnsigned`].
pub(crate) fn shown(remote: &Remote, clock: &Clock) -> Result<Shown, ClientError> {
    let (card, note) = match remote.log_file("checkpoint", limits::CHECKPOINT_LEN_MAX) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => return Err(ClientError::NoLog),
        shown => shown?,
    };
    if card.log_keys.as_slice().is_empty() {
        return Err(ClientError::NoLog);
    }
    let Opened { checkpoint, signed_s, .. } = open(&card, &note, clock())?;
    Ok(Shown { card, note, checkpoint, signed_s })
}

/// From where a log is read to where.
pub(crate) struct Follow<'a> {
    pub(crate) to: &'a Checkpoint,
    /// What this device has accepted before, and what witnesses have cosigned.
    pub(crate) known: Vec<&'a Checkpoint>,
}

impl Follow<'_> {
    /// Reads the entries from where `mirror` is. `each` gets each of them, and is told what it did. Returns the place of
    /// the first that this version does not know.
    ///
    /// **Errors** [`Misbehaviour::LogRolledBack`], [`Misbehaviour::LogForked`],
    /// [`Misbehaviour::LogRuleBroken`]; what `each` refuses.
    pub(crate) fn read(
        &self,
        remote: &Remote,
        mirror: &mut Mirror,
        mut each: impl FnMut(&Mirror, Taken, Vec<u8>) -> Result<(), Misbehaviour>,
    ) -> Result<Option<u64>, ClientError> {
        let (size, mut unknown_from) = (self.to.size(), None);
        self.refuse_less()?;
        self.check(mirror)?;
        while mirror.size() < size {
            for entry in bundle(remote, mirror.size(), size)? {
                let place = mirror.size();
                let taken = mirror.take(&entry)?;
                if taken == Taken::UpdateNeeded {
                    unknown_from = unknown_from.or(Some(place));
                }
                each(mirror, taken, entry)?;
                self.check(mirror)?;
            }
        }
        mirror.check(size, self.to.root())?;
        Ok(unknown_from)
    }

    /// Refuses what the known checkpoint alone refutes, whatever the entries are.
    pub(crate) fn refuse_less(&self) -> Result<(), Misbehaviour> {
        for known in &self.known {
            let (shown, size) = (self.to, known.size());
            // SR-036
            Misbehaviour::LogRolledBack.refuse_if(shown.size() < size)?;
            // SR-033
            let is_other = shown.size() == size && shown.root() != known.root();
            Misbehaviour::LogForked.refuse_if(is_other)?;
        }
        Ok(())
    }

    /// What was accepted before is the beginning of what is shown now.
    fn check(&self, mirror: &Mirror) -> Result<(), Misbehaviour> {
        let mut here = self.known.iter().filter(|known| known.size() == mirror.size());
        here.try_for_each(|known| mirror.check(known.size(), known.root()))
    }
}

/// Returns the entries from place `from` on that are in one bundle.
pub(crate) fn bundle(remote: &Remote, from: u64, size: u64) -> Result<Vec<Vec<u8>>, ClientError> {
    let index = from / TILE_WIDTH as u64;
    let width = (size - index * TILE_WIDTH as u64).min(TILE_WIDTH as u64);
    let width = u16::try_from(width).unwrap_or(u16::MAX);
    let path = Tile { level: 0, index, width }.entries_path();
    let (_, bytes) = remote.log_file(&path, BUNDLE_LEN_MAX)?;
    // SR-016
    let entries =
        entries_of(&bytes, usize::from(width)).map_err(|_| Misbehaviour::ResponseMalformed)?;
    let read = usize::try_from(from % TILE_WIDTH as u64).unwrap_or(0);
    Ok(entries.into_iter().skip(read).map(<[u8]>::to_vec).collect())
}

/// Opens a note, which the log of a card must have signed.
pub(crate) fn open(card: &Card, note: &[u8], now_s: u64) -> Result<Opened, Misbehaviour> {
    // SR-034
    let unsigned = Misbehaviour::LogUnsigned;
    let keys = log_keys(card).ok_or(unsigned)?;
    let opened = keys.open(note, &Policy::none(), now_s).map_err(|_| unsigned)?;
    // SR-016: who reads it without end, or keeps all of it, is stopped.
    let size = opened.checkpoint.size();
    Misbehaviour::ResponseMalformed.refuse_if(size > limits::LOG_ENTRIES_MAX)?;
    Ok(opened)
}

impl Client {
    /// Returns a reader of the log of this profile's server, over a connection of its own.
    ///
    /// **Errors** those of the local state.
    pub fn log(&self) -> Result<LogReader, ClientError> {
        let checkpoint = self.profile.log()?.map(|known| known.checkpoint);
        let own = Some(Own { keys: Arc::clone(&self.profile.keys), checkpoint });
        Ok(LogReader { remote: self.remote.apart(), clock: Arc::clone(&self.clock), own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{Unwitnessed, judge};
    use sr_crypto::{Secret32, SigningKey};
    use sr_tlog::{KeyKind, Note, NoteKey};

    /// A card, and what signs the checkpoints of its log.
    fn log() -> (Card, [NoteKey; 2]) {
        let seed = |byte| Secret32::init_with(|seed| seed.fill(byte));
        let card = Card::first(SigningKey::from_seed(&seed(1)).public_key());
        let origin = std::str::from_utf8(card.origin.as_slice()).expect("text").to_owned();
        let keys = [(KeyKind::Ed25519, 2), (KeyKind::CosignMlDsa44, 3)]
            .map(|(kind, byte)| NoteKey::new(&origin, kind, &seed(byte)).expect("a name"));
        let lines: String = keys.iter().map(|key| format!("{}\n", key.verifier())).collect();
        (card.with_log(&lines), keys)
    }

    fn note(keys: &[&NoteKey], size: u64) -> Vec<u8> {
        let name = keys[0].verifier();
        let checkpoint = Checkpoint::new(name.name(), size, [7; 32]).expect("an origin");
        let signatures = keys.iter().map(|key| key.sign(&checkpoint, 9)).collect();
        Note { text: checkpoint.to_string(), signatures }.to_string().into_bytes()
    }

    #[test]
    fn sr_034_both_keys_of_the_card_must_have_signed() {
        let (card, [ed25519, ml_dsa]) = log();
        let both = note(&[&ed25519, &ml_dsa], 5);
        let opened = open(&card, &both, 9).expect("is signed");
        assert_eq!((opened.checkpoint.size(), opened.signed_s), (5, 9));
        let unsigned = |card: &Card, note: &[u8]| {
            assert_eq!(open(card, note, 9), Err(Misbehaviour::LogUnsigned));
        };
        unsigned(&card, &note(&[&ed25519], 5));
        unsigned(&card, &note(&[&ml_dsa], 5));
        unsigned(&card, b"no note");
        // Keys of another log, or none that are such.
        let lines = |name: &str| {
            let seed = Secret32::init_with(|seed| seed.fill(2));
            let key = NoteKey::new(name, KeyKind::Ed25519, &seed).expect("a name").verifier();
            let other = card.log_keys.as_slice();
            let second = std::str::from_utf8(other).expect("text").lines().nth(1).expect("a key");
            format!("{key}\n{second}\n")
        };
        let with =
            |lines: &str| Card { log_keys: lines.as_bytes().to_vec().into(), ..card.clone() };
        unsigned(&with(&lines("elsewhere")), &both);
        unsigned(&with("nonsense"), &both);
        let elsewhere = Card { origin: b"elsewhere".to_vec().into(), ..card.clone() };
        unsigned(&elsewhere, &both);
    }

    /// What counts is cosigned at a time that has come, by a clock that is the log's, more or less.
    #[test]
    fn what_witnesses_say_counts_at_their_time() {
        const HOUR_S: u64 = 3600;
        let (card, [ed25519, ml_dsa]) = log();
        let seed = Secret32::init_with(|seed| seed.fill(5));
        let witness = NoteKey::new("w", KeyKind::CosignEd25519, &seed).expect("a name");
        let policy = format!("witness w {}\nquorum w\n", witness.verifier());
        let policy: Policy = policy.parse().expect("a policy");
        let judged = |time_s: Option<u64>, now_s| {
            let bytes = note(&[&ed25519, &ml_dsa], 5);
            let Opened { checkpoint, signed_s, .. } = open(&card, &bytes, 9).expect("is signed");
            let mut note = Note::parse(&bytes).expect("parses");
            note.signatures.extend(time_s.map(|time_s| witness.sign(&checkpoint, time_s)));
            let note = note.to_string().into_bytes();
            let shown = Shown { card: card.clone(), note, checkpoint, signed_s };
            judge(&policy, &shown, now_s)
        };
        assert_eq!(judged(Some(9), 9), Ok(Some(9)));
        assert_eq!(judged(None, 9), Err(Unwitnessed::TooFew));
        // The log is signed at 9 here.
        let apart_s = 9 + 26 * HOUR_S;
        assert_eq!(judged(Some(apart_s), apart_s), Ok(Some(apart_s)));
        assert_eq!(judged(Some(apart_s + 1), apart_s), Err(Unwitnessed::ClocksApart));
        let ahead_s = 15 * 60;
        assert_eq!(judged(Some(100 + ahead_s), 100), Ok(Some(100 + ahead_s)));
        assert_eq!(judged(Some(101 + ahead_s), 100), Err(Unwitnessed::TooFew));
    }

    #[test]
    fn sr_016_a_log_without_end_is_refused() {
        let (card, [ed25519, ml_dsa]) = log();
        let of_size = |size| open(&card, &note(&[&ed25519, &ml_dsa], size), 9).map(|_| ());
        assert_eq!(of_size(limits::LOG_ENTRIES_MAX), Ok(()));
        let refused = Err(Misbehaviour::ResponseMalformed);
        assert_eq!(of_size(limits::LOG_ENTRIES_MAX + 1), refused);
        assert_eq!(of_size(u64::MAX), refused);
    }
}
