//! The profile: `$XDG_STATE_HOME/strongroom/PROFILE`, with keys, state and caches.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};
use sr_crypto::CryptoRng;
use sr_keys::Keys;
use sr_vault::{head::HeadPlace, index::IndexPack};
use sr_wire::{Invite, PackId, SealedHead, SignedAnswer, decode, encode, limits};

use crate::ClientError;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE pending (pack BLOB PRIMARY KEY, holds BLOB NOT NULL) STRICT;
CREATE TABLE damaged (pack BLOB PRIMARY KEY) STRICT;
PRAGMA user_version = 1;
";

/// A folder that is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Its number in the profile.
    pub id: i64,
    /// Its absolute path.
    pub path: PathBuf,
}

/// Returns the directory of profile `name`: under `$XDG_STATE_HOME/strongroom`, or
/// `~/.local/state/strongroom`. `None` when neither is known.
#[must_use]
pub fn profile_dir(name: &str) -> Option<PathBuf> {
    let absolute = |var: &str| std::env::var_os(var).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("strongroom").join(name))
}

/// An open profile. It is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Profile {
    dir: PathBuf,
    database: Connection,
    pub(crate) keys: Arc<Keys>,
    _lock: File,
}

impl Profile {
    /// Makes a profile for the server of `invite`, with new keys or with those of another profile's
    /// key file.
    pub(crate) fn create(
        dir: &Path,
        invite: &Invite,
        name: Option<&str>,
        device_name: &str,
        keys: Option<Keys>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, ClientError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ClientError::local("making", dir))?;
        let lock = lock(dir)?;
        if is_joined(dir) {
            return Err(ClientError::AlreadyJoined);
        }
        let path = dir.join("state.db");
        if was_used(&path) {
            // Its key file was moved away: without it the state is of no use, and with it of much.
            return Err(ClientError::Keys(dir.join(KEY_FILE)));
        }
        let is_copy = keys.is_some();
        let keys = Arc::new(keys.unwrap_or_else(|| Keys::generate(rng)));
        // What an interrupted `join` left is worth nothing: no key was used yet.
        for leftover in ["state.db", "state.db-wal", "state.db-shm"] {
            remove_if_there(&dir.join(leftover))?;
        }
        let database = open_database(&path).map_err(state_error(&path))?;
        let profile = Self { dir: dir.to_owned(), database, keys, _lock: lock };
        profile.set("invite", invite.to_string().as_bytes())?;
        profile.set("device", device_name.as_bytes())?;
        if is_copy {
            profile.set("take-first-head", b"")?;
            profile.set("space", b"made")?;
        }
        if let Some(name) = name {
            profile.set("name", name.as_bytes())?;
        }
        // The key file comes last: with it, the profile exists.
        write_durably(&profile.dir.join(KEY_FILE), &profile.keys.to_file())?;
        Ok(profile)
    }

    /// Opens the profile in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, ClientError> {
        if !is_joined(dir) {
            return Err(ClientError::NotJoined);
        }
        let lock = lock(dir)?;
        let key_path = dir.join(KEY_FILE);
        let bytes = fs::read(&key_path).map_err(ClientError::local("reading", &key_path))?;
        let keys = Keys::from_file(&zeroize::Zeroizing::new(bytes))
            .map_err(|_| ClientError::Keys(key_path))?;
        let path = dir.join("state.db");
        let database = open_database(&path).map_err(state_error(&path))?;
        let version: i64 = database
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(state_error(&path))?;
        if version > SCHEMA_VERSION {
            return Err(ClientError::StateNewer);
        }
        Ok(Self { dir: dir.to_owned(), database, keys: Arc::new(keys), _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.join(KEY_FILE)
    }

    /// Returns the folder of caches, which may be deleted at any time.
    pub(crate) fn cache_dir(&self) -> Result<PathBuf, ClientError> {
        let dir = self.dir.join("cache");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(ClientError::local("making", &dir))?;
        Ok(dir)
    }

    pub(crate) fn invite(&self) -> Result<Invite, ClientError> {
        let text = self.get("invite")?.unwrap_or_default();
        String::from_utf8_lossy(&text).parse().map_err(|_| self.damaged())
    }

    pub(crate) fn device_name(&self) -> Result<Vec<u8>, ClientError> {
        Ok(self.get("device")?.unwrap_or_default())
    }

    pub(crate) fn name(&self) -> Result<Option<String>, ClientError> {
        Ok(self.get("name")?.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    pub(crate) fn has_space(&self) -> Result<bool, ClientError> {
        Ok(self.get("space")?.is_some())
    }

    pub(crate) fn set_has_space(&self) -> Result<(), ClientError> {
        self.set("space", b"made")
    }

    /// Returns whether this profile was made from a copy of a key file and has seen no head yet.
    pub(crate) fn takes_first_head(&self) -> Result<bool, ClientError> {
        Ok(self.get("take-first-head")?.is_some())
    }

    /// Takes another invite of the same server, which may have another address.
    pub(crate) fn set_invite(&self, invite: &Invite) -> Result<(), ClientError> {
        self.set("invite", invite.to_string().as_bytes())
    }

    /// Returns the newest head that this client accepted.
    pub(crate) fn accepted(&self) -> Result<HeadPlace, ClientError> {
        let Some(bytes) = self.get("head")? else { return Ok(HeadPlace::EMPTY) };
        let head: SealedHead =
            decode("head", &bytes, limits::MESSAGE_LEN_MAX).map_err(|_| self.damaged())?;
        Ok(HeadPlace::of(Some(&head)))
    }

    /// Returns the head that was sent and not answered.
    pub(crate) fn sent(&self) -> Result<Option<SealedHead>, ClientError> {
        self.get("sent")?
            .map(|bytes| decode("head", &bytes, limits::MESSAGE_LEN_MAX))
            .transpose()
            .map_err(|_| self.damaged())
    }

    /// Remembers a head before it is sent.
    pub(crate) fn set_sent(&self, head: &SealedHead) -> Result<(), ClientError> {
        self.set("sent", &encode(head))
    }

    /// Returns the newest signed answer.
    pub(crate) fn answer(&self) -> Result<Option<SignedAnswer>, ClientError> {
        self.get("answer")?
            .map(|bytes| decode("answer", &bytes, limits::MESSAGE_LEN_MAX))
            .transpose()
            .map_err(|_| self.damaged())
    }

    /// Remembers the newest signed answer.
    pub(crate) fn set_answer(&self, answer: &SignedAnswer) -> Result<(), ClientError> {
        self.set("answer", &encode(answer))
    }

    /// Accepts the head that was sent: from here on, nothing older is. The packs that waited for it
    /// are named by its indexes.
    pub(crate) fn accept_sent(&mut self, head: &SealedHead) -> Result<(), ClientError> {
        let path = self.dir.join("state.db");
        let accept = |database: &mut Connection| {
            let transaction = database.transaction()?;
            transaction
                .execute("INSERT OR REPLACE INTO state VALUES ('head', ?1)", [encode(head)])?;
            transaction
                .execute("DELETE FROM state WHERE key IN ('sent', 'take-first-head')", [])?;
            transaction.execute("DELETE FROM pending", [])?;
            transaction.commit()
        };
        accept(&mut self.database).map_err(state_error(&path))
    }

    pub(crate) fn newest_snapshot_s(&self) -> Result<Option<u64>, ClientError> {
        Ok(self
            .get("newest-snapshot")?
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes))
    }

    pub(crate) fn set_newest_snapshot_s(&self, time_s: u64) -> Result<(), ClientError> {
        self.set("newest-snapshot", &time_s.to_be_bytes())
    }

    pub(crate) fn folders(&self) -> Result<Vec<Folder>, ClientError> {
        self.query(|database| {
            let mut query = database.prepare("SELECT id, path FROM folders ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let path: Vec<u8> = row.get(1)?;
                Ok(Folder { id: row.get(0)?, path: PathBuf::from(OsStr::from_bytes(&path)) })
            })?;
            rows.collect()
        })
    }

    /// Adds a folder; one that is there stays.
    pub(crate) fn add_folder(&self, path: &Path) -> Result<bool, ClientError> {
        self.query(|database| {
            let added = database.execute(
                "INSERT OR IGNORE INTO folders (path) VALUES (?1)",
                [path.as_os_str().as_bytes()],
            )?;
            Ok(added == 1)
        })
    }

    /// Removes a folder; returns false for one that is not there.
    pub(crate) fn remove_folder(&self, path: &Path) -> Result<bool, ClientError> {
        let path = path.as_os_str().as_bytes();
        let removed =
            self.query(|database| database.execute("DELETE FROM folders WHERE path = ?1", [path]))?;
        Ok(removed == 1)
    }

    /// Remembers what a pack holds, before the pack is sent: whatever happens then, the next run
    /// knows of it.
    pub(crate) fn add_pending(&self, pack: &IndexPack) -> Result<(), ClientError> {
        self.query(|database| {
            database.execute(
                "INSERT OR REPLACE INTO pending VALUES (?1, ?2)",
                params![pack.id.0, encode(pack)],
            )
        })?;
        Ok(())
    }

    /// Remembers packs that a check found damaged; the next backup stores what they held anew.
    pub(crate) fn add_damaged(&self, packs: &[PackId]) -> Result<(), ClientError> {
        for pack in packs {
            self.query(|db| db.execute("INSERT OR IGNORE INTO damaged VALUES (?1)", [pack.0]))?;
        }
        Ok(())
    }

    /// Forgets the damaged packs: a check has read everything, or a backup has mended it.
    pub(crate) fn clear_damaged(&self) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM damaged", []))?;
        Ok(())
    }

    pub(crate) fn damaged_packs(&self) -> Result<Vec<PackId>, ClientError> {
        self.query(|database| {
            let mut query = database.prepare("SELECT pack FROM damaged")?;
            query.query_map([], |row| Ok(PackId(row.get(0)?)))?.collect()
        })
    }

    pub(crate) fn remove_pending(&self, packs: &[PackId]) -> Result<(), ClientError> {
        for pack in packs {
            self.query(|db| db.execute("DELETE FROM pending WHERE pack = ?1", [pack.0]))?;
        }
        Ok(())
    }

    pub(crate) fn pending(&self) -> Result<Vec<IndexPack>, ClientError> {
        let rows: Vec<Vec<u8>> = self.query(|database| {
            let mut query = database.prepare("SELECT holds FROM pending")?;
            query.query_map([], |row| row.get(0))?.collect()
        })?;
        rows.iter()
            .map(|bytes| decode("pack", bytes, bytes.len()).map_err(|_| self.damaged()))
            .collect()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClientError> {
        self.query(|database| {
            database
                .prepare_cached("SELECT value FROM state WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), ClientError> {
        self.query(|database| {
            database.execute("INSERT OR REPLACE INTO state VALUES (?1, ?2)", params![key, value])
        })?;
        Ok(())
    }

    fn query<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ClientError> {
        query(&self.database).map_err(state_error(&self.dir.join("state.db")))
    }

    fn damaged(&self) -> ClientError {
        state_error(&self.dir.join("state.db"))(rusqlite::Error::InvalidQuery)
    }
}

const KEY_FILE: &str = "keys";

fn is_joined(dir: &Path) -> bool {
    dir.join(KEY_FILE).exists()
}

/// Returns whether a database holds more than an interrupted `join` leaves.
fn was_used(path: &Path) -> bool {
    path.exists()
        && open_database(path).is_ok_and(|database| {
            let query = "SELECT EXISTS (SELECT 1 FROM state WHERE key IN ('space', 'head'))
                 AND NOT EXISTS (SELECT 1 FROM state WHERE key = 'take-first-head')";
            database.query_row(query, [], |row| row.get(0)).unwrap_or(true)
        })
}

fn lock(dir: &Path) -> Result<File, ClientError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(ClientError::local("opening", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| ClientError::Locked)?;
    Ok(file)
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        database.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
    }
    Ok(database)
}

fn state_error(path: &Path) -> impl FnOnce(rusqlite::Error) -> ClientError {
    let path = path.to_owned();
    move |source| ClientError::State { path, source }
}

fn remove_if_there(path: &Path) -> Result<(), ClientError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(ClientError::local("removing", path)(e))
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner reads: to a temporary name, synced, renamed.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    let temporary = path.with_extension("part");
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(ClientError::local("writing", path))
}
