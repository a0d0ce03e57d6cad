//! What a witness keeps, and what it answers.

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use data_encoding::{BASE64, HEXLOWER};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sr_crypto::{CryptoRng, Secret32, derive, sha256};
use sr_tlog::{
    Checkpoint, Digest, KeyKind, LogError, LogKeys, Note, NoteKey, Opened, Policy, VerifierKey,
    verify_consistency,
};
use sr_wire::labels;
use thiserror::Error;

/// The one file of a witness.
pub const WATCHED_FILE: &str = "witness.db";
/// What tells the directory of a server.
const SERVER_FILE: &str = "identity.key";
/// A proof of consistency has no more hashes.
const PROOF_MAX: usize = 63;
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const SCHEMA: &str = "
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS seed (one INTEGER PRIMARY KEY CHECK (one = 1), seed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS logs (
    origin TEXT PRIMARY KEY, name BLOB UNIQUE NOT NULL, keys TEXT NOT NULL, note BLOB NOT NULL
) WITHOUT ROWID, STRICT;
";

/// Unix seconds now.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Why a witness can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// There is none in the directory.
    #[error("there is no witness in {0}")]
    Missing(PathBuf),
    /// A server is there.
    #[error("a server's data directory is no place for a witness")]
    Server,
    /// Its file, or the directory.
    #[error("the witness's directory can't be used")]
    Io(#[from] std::io::Error),
    /// Its file.
    #[error("the witness's file can't be used")]
    File(#[from] rusqlite::Error),
    /// Its file has something else in it.
    #[error("the witness's file is damaged")]
    Damaged,
    /// A log of this origin has other keys here.
    #[error("the log {0} is watched with other keys")]
    OtherKeys(String),
}

/// A witness.
pub struct Witness {
    database: Mutex<Connection>,
    keys: [NoteKey; 2],
    clock: Clock,
}

/// A log that a witness watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Which.
    pub origin: String,
    /// How many entries it had when it was cosigned last; `None` before the first time.
    pub size: Option<u64>,
    /// When that was, in Unix seconds; 0 before the first time.
    pub cosigned_s: u64,
}

/// What is answered to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a checkpoint is not cosigned. The numbers are those of c2sp.org/tlog-witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The request has another form, or says that the log has shrunk.
    Malformed,
    /// The log's keys have not signed it.
    Unsigned,
    /// This log is not watched.
    Unknown,
    /// The newest that was cosigned has this size, or is another of the same.
    Conflict(u64),
    /// It does not continue the one before.
    Inconsistent,
}

impl Refused {
    fn answer(self) -> Answer {
        let (status, body) = match self {
            Self::Malformed => (400, String::new()),
            Self::Unsigned => (403, String::new()),
            Self::Unknown => (404, String::new()),
            Self::Conflict(size) => (409, format!("{size}\n")),
            Self::Inconsistent => (422, String::new()),
        };
        Answer { status, body: body.into_bytes() }
    }
}

impl Witness {
    /// Opens the witness of a directory, and makes it if there is none and `rng` is given.
    ///
    /// **Errors** [`WitnessError`].
    pub fn open(
        dir: &Path,
        rng: Option<&mut dyn CryptoRng>,
        clock: Clock,
    ) -> Result<Self, WitnessError> {
        let path = dir.join(WATCHED_FILE);
        if rng.is_none() && !path.exists() {
            return Err(WitnessError::Missing(dir.to_owned()));
        }
        if dir.join(SERVER_FILE).exists() {
            return Err(WitnessError::Server);
        }
        // Nobody else reads the key in it.
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if rng.is_some() {
            // SQLite would let others read it. What it writes beside, has the mode of this file.
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        }
        let database = Connection::open(&path)?;
        database.busy_timeout(BUSY_TIMEOUT)?;
        database.execute_batch(SCHEMA)?;
        if let Some(rng) = rng {
            let seed = Secret32::random(rng);
            // One that is there stays.
            database.execute("INSERT OR IGNORE INTO seed VALUES (1, ?1)", [seed.expose()])?;
        }
        let seed: Option<[u8; 32]> =
            database.query_row("SELECT seed FROM seed", [], |row| row.get(0)).optional()?;
        let seed = seed.ok_or_else(|| WitnessError::Missing(dir.to_owned()))?;
        let keys = keys(&Secret32::init_with(|bytes| bytes.copy_from_slice(&seed)));
        let keys = keys.map_err(|_| WitnessError::Damaged)?;
        Ok(Self { database: Mutex::new(database), keys, clock })
    }

    /// Returns the keys by which its cosignatures are verified: Ed25519 and ML-DSA-44, of one name.
    #[must_use]
    pub fn verifiers(&self) -> [VerifierKey; 2] {
        self.keys.each_ref().map(NoteKey::verifier)
    }

    /// Watches a log. Returns whether it is a new one.
    ///
    /// **Errors** [`WitnessError::OtherKeys`], and those of the file.
    pub fn add(&self, log: &LogKeys) -> Result<bool, WitnessError> {
        let (origin, keys) = (log.origin(), lines(log));
        let known: Option<String> = self
            .database()
            .query_row("SELECT keys FROM logs WHERE origin = ?1", [origin], |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            let is_same = known == keys;
            return is_same.then_some(false).ok_or_else(|| WitnessError::OtherKeys(origin.into()));
        }
        let row = params![origin, sha256(&[origin.as_bytes()]), keys, Vec::<u8>::new()];
        self.database().execute("INSERT INTO logs VALUES (?1, ?2, ?3, ?4)", row)?;
        Ok(true)
    }

    /// Returns the logs that it watches, by origin.
    ///
    /// **Errors** those of the file.
    pub fn watched(&self) -> Result<Vec<Watched>, WitnessError> {
        let database = self.database();
        let mut query = database.prepare("SELECT origin, note FROM logs ORDER BY origin")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
        drop(query);
        drop(database);
        rows.into_iter().map(|(origin, note)| self.watched_as(origin, &note)).collect()
    }

    /// Answers a request.
    ///
    /// **Errors** those of the file; what is not cosigned is an answer.
    pub fn answer(&self, is_post: bool, path: &str, body: &[u8]) -> Result<Answer, WitnessError> {
        let name = path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint"));
        match (is_post, path, name) {
            (true, "/add-checkpoint", _) => Ok(match self.add_checkpoint(body)? {
                Ok(body) => Answer { status: 200, body },
                Err(refused) => refused.answer(),
            }),
            (false, _, Some(name)) => self.newest(name),
            _ => Ok(Refused::Unknown.answer()),
        }
    }

    /// Cosigns a checkpoint that continues the one before, after it is durable. Returns the lines.
    ///
    /// **Errors** those of the file.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<Result<Vec<u8>, Refused>, WitnessError> {
        let Some(request) = AddCheckpoint::parse(body) else { return Ok(Err(Refused::Malformed)) };
        let mut database = self.database();
        // Nobody else cosigns between the look and the change.
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let query = "SELECT keys, note FROM logs WHERE origin = ?1";
        let row = transaction.query_row(query, [request.checkpoint.origin()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        });
        let Some((keys, before)) = row.optional()? else { return Ok(Err(Refused::Unknown)) };
        let log = parse_lines(&keys).ok_or(WitnessError::Damaged)?;
        if open(&log, &request.note).is_err() {
            return Ok(Err(Refused::Unsigned));
        }
        let before = (!before.is_empty()).then(|| open(&log, &before)).transpose();
        let before = before.map_err(|_| WitnessError::Damaged)?.map(|opened| opened.checkpoint);
        if let Err(refused) = request.follows(before.as_ref()) {
            return Ok(Err(refused));
        }
        let now_s = (self.clock)();
        let lines = self.keys.each_ref().map(|key| key.sign(&request.checkpoint, now_s));
        let mut note = Note::parse(&request.note).map_err(|_| WitnessError::Damaged)?;
        // What others have signed is not ours to keep.
        note.signatures.retain(|line| log.keys().iter().any(|key| key.is_of(line)));
        note.signatures.extend(lines.iter().cloned());
        let update = "UPDATE logs SET note = ?2 WHERE origin = ?1";
        let note = note.to_string().into_bytes();
        transaction.execute(update, params![request.checkpoint.origin(), note])?;
        transaction.commit()?;
        Ok(Ok(lines.map(|line| format!("{line}\n")).concat().into_bytes()))
    }

    /// Returns the newest checkpoint of a log by the hash of its origin, with the cosignatures.
    fn newest(&self, name: &str) -> Result<Answer, WitnessError> {
        let Ok(name) = HEXLOWER.decode(name.as_bytes()) else {
            return Ok(Refused::Unknown.answer());
        };
        let query = "SELECT note FROM logs WHERE name = ?1 AND note != x''";
        let note = self.database().query_row(query, [name], |row| row.get(0)).optional()?;
        Ok(note.map_or_else(|| Refused::Unknown.answer(), |body| Answer { status: 200, body }))
    }

    fn watched_as(&self, origin: String, note: &[u8]) -> Result<Watched, WitnessError> {
        if note.is_empty() {
            return Ok(Watched { origin, size: None, cosigned_s: 0 });
        }
        let damaged = |_| WitnessError::Damaged;
        let note = Note::parse(note).map_err(damaged)?;
        let checkpoint: Checkpoint = note.text.parse().map_err(damaged)?;
        let [key, _] = self.verifiers();
        let line = note.signatures.iter().find(|line| key.is_of(line));
        let line = line.ok_or(WitnessError::Damaged)?;
        let cosigned_s = key.verify(&checkpoint, line).map_err(damaged)?;
        Ok(Watched { origin, size: Some(checkpoint.size()), cosigned_s })
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Witness({})", self.keys[0].verifier().name())
    }
}

/// A request to cosign.
struct AddCheckpoint {
    old: u64,
    proof: Vec<Digest>,
    note: Vec<u8>,
    checkpoint: Checkpoint,
}

impl AddCheckpoint {
    fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = lines.next()?.strip_prefix("old ")?;
        let size: u64 = old.parse().ok()?;
        let proof = lines.map(|line| BASE64.decode(line.as_bytes()).ok()?.try_into().ok());
        let proof: Vec<Digest> = proof.collect::<Option<_>>()?;
        let checkpoint = Note::parse(note.as_bytes()).ok()?.text.parse().ok()?;
        let is_one_form = size.to_string() == old && proof.len() <= PROOF_MAX;
        is_one_form.then(|| Self { old: size, proof, note: note.into(), checkpoint })
    }

    fn follows(&self, before: Option<&Checkpoint>) -> Result<(), Refused> {
        let (size, root) = (self.checkpoint.size(), self.checkpoint.root());
        if self.old > size {
            return Err(Refused::Malformed);
        }
        let known = before.map_or(0, Checkpoint::size);
        if self.old != known {
            return Err(Refused::Conflict(known));
        }
        let Some(before) = before else {
            return if self.proof.is_empty() { Ok(()) } else { Err(Refused::Inconsistent) };
        };
        if size == known {
            let is_same = root == before.root() && self.proof.is_empty();
            return if is_same { Ok(()) } else { Err(Refused::Conflict(known)) };
        }
        verify_consistency(known, before.root(), size, root, &self.proof)
            .map_err(|_| Refused::Inconsistent)
    }
}

/// Both keys, from one seed, each by a label of its own.
fn keys(seed: &Secret32) -> Result<[NoteKey; 2], LogError> {
    let key = |name: &str, kind, label| NoteKey::new(name, kind, &derive(seed, b"", label, b""));
    let (kind, label) = (KeyKind::CosignEd25519, labels::WITNESS_ED25519);
    let public = key("witness", kind, label)?.verifier();
    let name = format!("witness-{}", HEXLOWER.encode(&sha256(&[public.public()])[..4]));
    let ml_dsa = key(&name, KeyKind::CosignMlDsa44, labels::WITNESS_ML_DSA_44)?;
    Ok([key(&name, kind, label)?, ml_dsa])
}

fn open(log: &LogKeys, note: &[u8]) -> Result<Opened, LogError> {
    log.open(note, &Policy::none(), u64::MAX)
}

fn lines(log: &LogKeys) -> String {
    log.keys().iter().map(|key| format!("{key}\n")).collect()
}

fn parse_lines(lines: &str) -> Option<LogKeys> {
    let mut keys = lines.lines().map(str::parse);
    LogKeys::new(keys.next()?.ok()?, keys.next()?.ok()?).ok()
}
