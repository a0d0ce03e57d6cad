//! The witnesses of the log: who they are, and how they are asked to cosign what it has signed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use sr_store::StoreError;
use sr_tlog::{Checkpoint, KeyKind, Note, NoteSignature, Policy, VerifierKey};
use sr_witness::{AskError, WitnessUrl, add_checkpoint, checkpoint};

use crate::{Identity, Server, data::DataError, log::Signed, put_back::note_ahead};

/// A checkpoint is signed and cosigned again after so long, though the log did not grow: how old it may be,
/// a reader knows by that.
pub(crate) const AGAIN_S: u64 = 3600;
/// A witness that failed is left alone for so long.
const RETRY_S: u64 = 60;
/// A server whose clock differs more from its witnesses' shows nothing new.
pub(crate) const CLOCKS_APART_S: u64 = 86_400;

/// A witness, as the server knows it.
#[derive(Debug)]
pub struct Witness {
    url: WitnessUrl,
    keys: Vec<VerifierKey>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The size that it has cosigned last, as far as is known.
    size: u64,
    /// Before that, it is not asked again.
    not_before_s: u64,
    failure: Option<String>,
}

/// What a witness has signed, and when by its clock, in Unix seconds.
#[derive(Clone, Debug)]
pub(crate) struct Cosigned {
    pub(crate) lines: Vec<NoteSignature>,
    time_s: u64,
    /// When it was asked, by the server's clock.
    pub(crate) asked_s: u64,
}

impl Cosigned {
    /// Returns whether its clock and the server's show about the same.
    pub(crate) fn is_time(&self, now_s: u64) -> bool {
        self.time_s.abs_diff(now_s) <= CLOCKS_APART_S
    }
}

impl Witness {
    /// Reads the address of a witness, and its one or two keys, one in a line.
    ///
    /// **Errors** [`DataError::WitnessText`].
    pub fn parse(url: &str, keys: &str) -> Result<Self, DataError> {
        let malformed = || DataError::WitnessText;
        let url = url.parse().map_err(|_| malformed())?;
        let keys: Vec<VerifierKey> =
            keys.lines().map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
        let is_cosigner = |key: &VerifierKey| key.kind() != KeyKind::Ed25519;
        let are_one = match &keys[..] {
            [key] => is_cosigner(key),
            [a, b] => {
                is_cosigner(a) && is_cosigner(b) && a.kind() != b.kind() && a.name() == b.name()
            }
            _ => false,
        };
        if are_one { Ok(Self { url, keys, state: Mutex::default() }) } else { Err(malformed()) }
    }

    /// Returns where it is asked.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.keys.first().map_or("", VerifierKey::name)
    }

    /// Returns how many entries it has cosigned of this log, as it says itself.
    ///
    /// **Errors** [`AskError`].
    pub fn cosigned_size(&self, origin: &str) -> Result<u64, AskError> {
        let note = checkpoint(&self.url, origin)?;
        let parsed = Note::parse(&note).map_err(|_| AskError::Malformed)?;
        let said: Checkpoint = parsed.text.parse().map_err(|_| AskError::Malformed)?;
        let is_by = |key: &VerifierKey| {
            let line = parsed.signatures.iter().find(|line| key.is_of(line));
            line.is_some_and(|line| key.verify(&said, line).is_ok())
        };
        if self.keys.iter().all(is_by) { Ok(said.size()) } else { Err(AskError::Malformed) }
    }

    /// Has it cosign what the log has signed, unless it has failed a moment ago.
    pub(crate) fn cosign(&self, server: &Server, signed: &Signed) -> Option<Cosigned> {
        let (now_s, mut state) = (server.now_s(), self.state().clone());
        if now_s < state.not_before_s {
            return None;
        }
        let done = match self.ask(server, signed, state.size) {
            // It knows better what it has cosigned.
            Err(AskError::Conflict(size)) if size != state.size => self.ask(server, signed, size),
            done => done,
        };
        if let Err(AskError::Conflict(size)) = done
            && size > signed.checkpoint.size()
            && let Ok(note) = checkpoint(&self.url, signed.checkpoint.origin())
        {
            // Signed by this log itself, and more than it has: nothing is added beside that.
            let _ = note_ahead(server, &note);
        }
        let failure = done.as_ref().err().map(ToString::to_string);
        if failure != state.failure {
            server.tell(&match &failure {
                Some(failure) => format!("the witness at {} does not cosign: {failure}", self.url),
                None => format!("the witness at {} cosigns again", self.url),
            });
        }
        state.not_before_s = if done.is_err() { now_s + RETRY_S } else { 0 };
        state.failure = failure;
        if done.is_ok() {
            state.size = signed.checkpoint.size();
        }
        *self.state() = state;
        done.ok()
    }

    fn ask(&self, server: &Server, signed: &Signed, old: u64) -> Result<Cosigned, AskError> {
        let size = signed.checkpoint.size();
        let proof = server.log.prove(old, size).ok_or(AskError::Conflict(old))?;
        let lines = add_checkpoint(&self.url, old, &proof, &signed.note)?;
        let text = [format!("{}\n", signed.checkpoint).into_bytes(), lines].concat();
        self.signed(&text, signed, server.now_s()).ok_or(AskError::Malformed)
    }

    /// Returns its lines in a note, if all of its keys have signed.
    fn signed(&self, note: &[u8], signed: &Signed, asked_s: u64) -> Option<Cosigned> {
        let note = Note::parse(note).ok()?;
        let mut cosigned = Cosigned { lines: Vec::new(), time_s: 0, asked_s };
        for key in &self.keys {
            let line = note.signatures.iter().find(|line| key.is_of(line))?;
            cosigned.time_s = key.verify(&signed.checkpoint, line).ok()?;
            cosigned.lines.push(line.clone());
        }
        Some(cosigned)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the policy that asks more than half of the witnesses, each by all of its keys; empty for none.
#[must_use]
pub fn policy(witnesses: &[Witness]) -> String {
    if witnesses.is_empty() {
        return String::new();
    }
    let (mut text, mut names) = (String::new(), Vec::new());
    for (number, witness) in (1..).zip(witnesses) {
        let mut members = Vec::new();
        for (key, kind) in witness.keys.iter().zip(["a", "b"]) {
            let member = format!("{number}{kind}-{}", witness.name());
            text.push_str(&format!("witness {member} {key} {}\n", witness.url));
            members.push(member);
        }
        let name = format!("{number}-{}", witness.name());
        text.push_str(&format!("group {name} all {}\n", members.join(" ")));
        names.push(name);
    }
    let need = witnesses.len() / 2 + 1;
    text.push_str(&format!("group witnesses {need} {}\nquorum witnesses\n", names.join(" ")));
    text
}

/// Returns whether enough of the server's witnesses have cosigned a checkpoint.
pub(crate) fn is_enough(server: &Server, note: &[u8]) -> bool {
    let enough = || {
        let policy: Policy = policy(&server.witnesses).parse().ok()?;
        let note = Note::parse(note).ok()?;
        let checkpoint: Checkpoint = note.text.parse().ok()?;
        policy.quorum(&checkpoint, &note, u64::MAX).ok()
    };
    enough().is_some()
}

/// Returns whether a witness has cosigned more of the log than `len` entries.
pub(crate) fn has_more(witnesses: &[Witness], identity: &Identity, len: u64) -> bool {
    let origin = identity.card().origin.as_slice();
    let origin = String::from_utf8_lossy(origin);
    let notes = at_once(witnesses.iter(), |witness| checkpoint(&witness.url, &origin));
    let sizes = notes.into_iter().filter_map(|note| identity.signed(&note?.ok()?));
    sizes.into_iter().any(|(size, _)| size > len)
}

/// Returns what each of the server's witnesses has signed of a stored checkpoint.
pub(crate) fn cosigned(server: &Server, signed: &Signed, note: &[u8]) -> Vec<Option<Cosigned>> {
    let of = |witness: &Witness| witness.signed(note, signed, signed.time_s);
    server.witnesses.iter().map(of).collect()
}

/// Has those of the server's witnesses cosign that have not done so.
pub(crate) fn cosign(server: &Server, signed: &Signed, missing: &[usize]) -> Vec<Option<Cosigned>> {
    let witnesses = missing.iter().filter_map(|number| server.witnesses.get(*number));
    let asked = at_once(witnesses, |witness| witness.cosign(server, signed));
    asked.into_iter().map(Option::flatten).collect()
}

/// Asks witnesses all at once, as each may take its time.
fn at_once<'a, T: Send>(
    witnesses: impl Iterator<Item = &'a Witness>,
    ask: impl Fn(&'a Witness) -> T + Sync,
) -> Vec<Option<T>> {
    thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = witnesses.map(|witness| scope.spawn(move || ask(witness))).collect();
        asked.into_iter().map(|asked| asked.join().ok()).collect()
    })
}

impl Server {
    /// Asks the witnesses for what they have cosigned of this server's log, which must be in it: else an
    /// older copy of its directory was put back, and what it would sign now would contradict what it has
    /// signed. One that was started to be given back what is missing, learns from it how much that is.
    ///
    /// Returns the addresses of those that did not answer.
    ///
    /// **Errors** [`DataError::BehindWitness`], [`DataError::OtherThanWitness`] and those of the store.
    pub fn ask_witnesses(&self) -> Result<Vec<String>, DataError> {
        let mut silent = Vec::new();
        let meta = &self.stores.meta;
        self.log.read(self)?;
        let origin = self.origin();
        let notes = at_once(self.witnesses.iter(), |witness| checkpoint(&witness.url, &origin));
        for (witness, note) in self.witnesses.iter().zip(notes) {
            let note = match note {
                Some(Ok(note)) => note,
                // It has seen nothing yet.
                Some(Err(AskError::Unknown)) => continue,
                _ => {
                    silent.push(witness.url());
                    continue;
                }
            };
            // A witness can make nobody believe what this server's log has not signed.
            let Some((size, root)) = self.identity.signed(&note) else { continue };
            let has = self.log.size();
            if size > has {
                let Some(known) = meta.put_back()? else {
                    let (url, missing) = (witness.url(), size - has);
                    return Err(DataError::BehindWitness { url, missing });
                };
                if self.identity.signed(&known).is_none_or(|(known, _)| known < size) {
                    meta.set_put_back(&note)?;
                }
            } else if self.log.tree().root(size) != Some(root) {
                return Err(DataError::OtherThanWitness { url: witness.url() });
            }
        }
        Ok(silent)
    }
}

impl From<DataError> for StoreError {
    fn from(error: DataError) -> Self {
        Self::Failed { doing: "reading the witnesses", source: error.into() }
    }
}
