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

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use rustix::fs::{FlockOperation, flock};
use sr_keys::{Anchor, DeviceKeys, Kept, KeyBlock, RootRecord};
use sr_trust::{Account, Block, Verified};
use sr_vault::{head::HeadPlace, index::IndexPack};
use sr_wire::{
    AccountId, Card, DeviceId, Invite, Misbehaviour, PackId, SignedAnswer, SpaceId, VaultId,
    card_hash, decode, encode,
};

use crate::{
    ClientError,
    account::{Keys, Opened, PendingAct, Waiting, Which, is_limited},
    delay::Delay,
    evidence::InDoubt,
    exclude::Rules,
    lock::read_keys,
};

const SCHEMA_VERSION: i64 = 6;
/// As of version 4.
const SCHEMA: &str = "
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE folders (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, rules BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE pending (
    pack BLOB PRIMARY KEY, holds BLOB NOT NULL, vault BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE damaged (pack BLOB PRIMARY KEY, vault BLOB NOT NULL DEFAULT x'') STRICT;
CREATE TABLE blocks (seq INTEGER PRIMARY KEY, block BLOB NOT NULL) STRICT;
CREATE TABLE seen (seq INTEGER PRIMARY KEY, time_s INTEGER NOT NULL) STRICT;
PRAGMA user_version = 4;
";

/// Folders had no rules before.
const FROM_2: &str = "
ALTER TABLE folders ADD COLUMN rules BLOB NOT NULL DEFAULT x'';
PRAGMA user_version = 3;
";

/// There was one vault before. Its rows keep the empty name.
const FROM_3: &str = "
ALTER TABLE pending ADD COLUMN vault BLOB NOT NULL DEFAULT x'';
ALTER TABLE damaged ADD COLUMN vault BLOB NOT NULL DEFAULT x'';
PRAGMA user_version = 4;
";

/// Servers had no log before.
const FROM_4: &str = "
CREATE TABLE log (
    kind INTEGER NOT NULL, name BLOB NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 5;
";

/// Nothing was kept to be given back before.
const FROM_5: &str = "
CREATE TABLE entries (place INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
CREATE TABLE heads (
    space BLOB NOT NULL, seq INTEGER NOT NULL, head BLOB NOT NULL, PRIMARY KEY (space, seq)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 6;
";

/// A folder that is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Its number in the profile.
    pub id: i64,
    /// Its absolute path.
    pub path: PathBuf,
    /// What of it is not backed up.
    pub rules: Rules,
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
    /// Until when the account moves on only after a wait.
    pub(crate) waiting: Option<Waiting>,
    /// Whether the server was given back in this run what it may have lost: who shows less then is accused.
    pub(crate) gave_back: bool,
    /// What the server has signed before it was, and would be evidence then.
    pub(crate) in_doubt: Vec<InDoubt>,
    _lock: File,
}

/// What a new profile begins with.
pub(crate) struct NewProfile<'a> {
    /// Unix seconds now.
    pub(crate) now_s: u64,
    pub(crate) invite: &'a Invite,
    pub(crate) name: Option<&'a str>,
    pub(crate) device_name: &'a str,
    pub(crate) device: DeviceKeys,
    /// The chain as this device has verified it, and its newest key block.
    pub(crate) account: Verified<Account>,
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) key_block: Vec<u8>,
    /// The act that makes the account, for the device that does.
    pub(crate) act: Option<PendingAct>,
    /// The newest heads that another device of the account had seen.
    pub(crate) pins: Vec<SignedAnswer>,
    /// And of the vaults of limited devices.
    pub(crate) places: Vec<Anchor>,
    /// The newest checkpoint of the log that another device had accepted; empty for none.
    pub(crate) log_note: Vec<u8>,
    /// The witness policy that the old device has told.
    pub(crate) policy: Vec<u8>,
    /// What this device is restored from.
    pub(crate) kept: Option<&'a Kept>,
}

impl Profile {
    /// Makes a profile.
    pub(crate) fn create(dir: &Path, new: NewProfile<'_>) -> Result<Self, ClientError> {
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
        // What an interrupted `join` left is worth nothing: no key was used yet.
        for leftover in ["state.db", "state.db-wal", "state.db-shm"] {
            remove_if_there(&dir.join(leftover))?;
        }
        let database = open_database(&path).map_err(state_error(&path))?;
        let device = Arc::new(new.device);
        let opened = open_key_block(&new.key_block, &new.account, &device, new.kept)?;
        let keys = Keys::new(Arc::clone(&device), new.account, opened, Which::default());
        let mut profile = Self::of(dir, database, keys, lock);
        profile.set("invite", new.invite.to_string().as_bytes())?;
        profile.set("device", new.device_name.as_bytes())?;
        profile.set("account", &profile.keys.account.id().0)?;
        profile.insert_blocks(&new.blocks, 0)?;
        // What waits has been seen now, and not before.
        for seq in 0..new.blocks.len() as u64 {
            profile.note_block_seen(seq, new.now_s)?;
        }
        profile.set("key-block", &new.key_block)?;
        if let Some(act) = &new.act {
            profile.set_act(act)?;
        }
        for pin in &new.pins {
            let tip = HeadPlace { seq: pin.answer.seq, hash: pin.answer.head_hash };
            profile.set_accepted(pin.answer.space, tip, 0, None)?;
            profile.set_answer(pin.answer.space, pin)?;
        }
        for pin in &new.places {
            let tip = HeadPlace { seq: pin.seq, hash: pin.hash };
            profile.set_accepted(pin.space, tip, 0, None)?;
        }
        if !new.log_note.is_empty() {
            profile.set_log(&new.log_note, None, None)?;
        }
        // Its witnesses are asked before a log is accepted.
        profile.set("unasked", b"")?;
        if new.kept.is_some() {
            profile.set("unfresh", b"")?;
        }
        profile.set("policy", &new.policy)?;
        if let Some(name) = new.name {
            profile.set("name", name.as_bytes())?;
        }
        if let Some(kept) = new.kept {
            let kept = kept.seal(&device).map_err(|_| profile.damaged())?;
            profile.set("kit", &kept)?;
        }
        // The key file comes last: with it, the profile exists.
        write_durably(&profile.dir.join(KEY_FILE), &device.to_file())?;
        Ok(profile)
    }

    /// Opens the profile in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, ClientError> {
        if !is_joined(dir) {
            return Err(ClientError::NotJoined);
        }
        let lock = lock(dir)?;
        let device = read_keys(dir)?;
        let path = dir.join("state.db");
        let database = open_database(&path).map_err(state_error(&path))?;
        let version: i64 = database
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(state_error(&path))?;
        if version > SCHEMA_VERSION {
            return Err(ClientError::StateNewer);
        }
        let keys = load_keys(&database, Arc::new(device))
            .map_err(state_error(&path))?
            .ok_or_else(|| state_error(&path)(not_ours()))?;
        Ok(Self::of(dir, database, keys, lock))
    }

    fn of(dir: &Path, database: Connection, keys: Arc<Keys>, lock: File) -> Self {
        let dir = dir.to_owned();
        let (waiting, gave_back, in_doubt) = (None, false, Vec::new());
        Self { dir, database, keys, waiting, gave_back, in_doubt, _lock: lock }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.join(KEY_FILE)
    }

    /// Returns the folder of caches, which may be deleted at any time.
    pub(crate) fn cache_dir(&self) -> Result<PathBuf, ClientError> {
        let dir = self.dir.join(self.of_vault("cache"));
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

    pub(crate) fn set_device_name(&self, name: &str) -> Result<(), ClientError> {
        self.set("device", name.as_bytes())
    }

    pub(crate) fn name(&self) -> Result<Option<String>, ClientError> {
        Ok(self.get("name")?.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    /// Takes another invite of the same server, which may have another address.
    pub(crate) fn set_invite(&self, invite: &Invite) -> Result<(), ClientError> {
        self.set("invite", invite.to_string().as_bytes())
    }

    /// Pins a card that the pinned one has led to: no older one is taken from here on.
    pub(crate) fn pin(&self, card: &Card) -> Result<(), ClientError> {
        let (invite, card_hash) = (self.invite()?, card_hash(card));
        if invite.card_hash == card_hash {
            return Ok(());
        }
        self.set_invite(&Invite { card_hash, ..invite })
    }

    /// Returns the generation of the keys that a space has at the server, `None` before it is made.
    pub(crate) fn space_generation(&self, space: SpaceId) -> Result<Option<u32>, ClientError> {
        let bytes = self.get(&format!("generation/{space}"))?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes))
    }

    pub(crate) fn set_space_generation(
        &self,
        space: SpaceId,
        generation: u32,
    ) -> Result<(), ClientError> {
        self.set(&format!("generation/{space}"), &generation.to_be_bytes())
    }

    /// Returns the root record as this device last saw it.
    pub(crate) fn record(&self) -> Result<Option<RootRecord>, ClientError> {
        let bytes = self.get("record")?;
        bytes.map(|bytes| RootRecord::parse(&bytes)).transpose().map_err(|_| self.damaged())
    }

    /// Takes a root record, and the vault that it names.
    pub(crate) fn set_record(&mut self, record: &RootRecord) -> Result<(), ClientError> {
        self.set("record", &record.to_bytes())?;
        self.keys = self.keys.choose(|which| which.shared = shared_vault(record));
        Ok(())
    }

    /// Returns the act that is on its way.
    pub(crate) fn pending_act(&self) -> Result<Option<PendingAct>, ClientError> {
        let bytes = self.get("act")?;
        bytes.map(|bytes| PendingAct::parse(&bytes)).transpose().map_err(|_| self.damaged())
    }

    pub(crate) fn set_act(&self, act: &PendingAct) -> Result<(), ClientError> {
        self.set("act", &encode(act))
    }

    pub(crate) fn clear_act(&self) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM state WHERE key = 'act'", []))?;
        Ok(())
    }

    /// Returns when this client first saw a block.
    pub(crate) fn block_seen_s(&self, seq: u64) -> Result<Option<u64>, ClientError> {
        self.query(|database| {
            database
                .query_row("SELECT time_s FROM seen WHERE seq = ?1", [seq], |row| row.get(0))
                .optional()
        })
    }

    pub(crate) fn note_block_seen(&self, seq: u64, now_s: u64) -> Result<(), ClientError> {
        self.query(|db| db.execute("INSERT OR IGNORE INTO seen VALUES (?1, ?2)", [seq, now_s]))?;
        Ok(())
    }

    /// Accepts blocks, which lead to `account`, and the key block that this device could open.
    pub(crate) fn take_blocks(
        &mut self,
        account: Verified<Account>,
        blocks: &[Vec<u8>],
        opened: Option<(Vec<u8>, Opened)>,
    ) -> Result<(), ClientError> {
        let from = account.seq() + 1 - blocks.len() as u64;
        self.transaction(|transaction| {
            for (seq, block) in (from..).zip(blocks) {
                transaction.execute(
                    "INSERT OR REPLACE INTO blocks VALUES (?1, ?2)",
                    params![seq, block],
                )?;
            }
            if let Some((key_block, _)) = &opened {
                transaction.execute(
                    "INSERT OR REPLACE INTO state VALUES ('key-block', ?1)",
                    [key_block],
                )?;
            }
            Ok(())
        })?;
        self.keys = match opened {
            Some((_, opened)) => self.keys.with(account, opened),
            None => self.keys.on(account),
        };
        Ok(())
    }

    /// Works with the vault of a limited device from here on, or with this device's own.
    pub(crate) fn use_vault_of(&mut self, device: Option<DeviceId>) {
        self.keys = self.keys.choose(|which| which.of = device);
    }

    /// Returns the account's blocks.
    pub(crate) fn blocks(&self) -> Result<Vec<Vec<u8>>, ClientError> {
        self.query(|database| {
            let mut query = database.prepare("SELECT block FROM blocks ORDER BY seq")?;
            query.query_map([], |row| row.get(0))?.collect()
        })
    }

    fn insert_blocks(&mut self, blocks: &[Vec<u8>], from: u64) -> Result<(), ClientError> {
        self.query(|database| {
            for (seq, block) in (from..).zip(blocks) {
                database.execute("INSERT INTO blocks VALUES (?1, ?2)", params![seq, block])?;
            }
            Ok(())
        })
    }

    /// Forgets the head that was sent: it arrived, or another was faster. If it arrived, the packs
    /// that waited for it are named by its indexes.
    pub(crate) fn clear_sent(&mut self, space: SpaceId, arrived: bool) -> Result<(), ClientError> {
        let is_vault = space == self.keys.vault.space();
        let vault = self.vault_name();
        self.transaction(|transaction| {
            transaction.execute("DELETE FROM state WHERE key = ?1", [format!("sent/{space}")])?;
            if arrived && is_vault {
                transaction.execute("DELETE FROM pending WHERE vault = ?1", [&vault])?;
            }
            Ok(())
        })
    }

    /// Returns what this device was restored from, as long as it does not count as one of the
    /// account's.
    pub(crate) fn kept(&self) -> Option<Kept> {
        let sealed = self.get("kit").ok().flatten()?;
        Kept::open(&sealed, &self.keys.device)
    }

    pub(crate) fn clear_kept(&self) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM state WHERE key = 'kit'", []))?;
        Ok(())
    }

    /// Returns the envelope of a kit that comes into force after a wait.
    pub(crate) fn kit_change(&self) -> Result<Option<Vec<u8>>, ClientError> {
        self.get("kit-change")
    }

    pub(crate) fn set_kit_change(&self, envelope: Option<&[u8]>) -> Result<(), ClientError> {
        match envelope {
            Some(envelope) => self.set("kit-change", envelope),
            None => {
                self.query(|db| db.execute("DELETE FROM state WHERE key = 'kit-change'", []))?;
                Ok(())
            }
        }
    }

    /// Returns how many linkings failed for a wrong word, and until when that locks linking.
    pub(crate) fn link_failures(&self) -> Result<(u64, u64), ClientError> {
        let bytes = self.get("link-failures")?.unwrap_or_default();
        let number = |from: usize| {
            let bytes = bytes.get(from..from + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        Ok((number(0).unwrap_or(0), number(8).unwrap_or(0)))
    }

    pub(crate) fn set_link_failures(&self, count: u64, until_s: u64) -> Result<(), ClientError> {
        self.set("link-failures", &[count.to_be_bytes(), until_s.to_be_bytes()].concat())
    }

    /// Returns when a check has read all content back.
    pub(crate) fn all_read_s(&self) -> Result<Option<u64>, ClientError> {
        let bytes = self.get(&self.of_vault("all-read"))?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    }

    pub(crate) fn set_all_read_s(&self, time_s: u64) -> Result<(), ClientError> {
        self.set(&self.of_vault("all-read"), &time_s.to_be_bytes())
    }

    /// Returns what this device has counted of the waits of forgotten snapshots.
    pub(crate) fn delay(&self) -> Result<Delay, ClientError> {
        let Some(bytes) = self.get(&self.of_vault("delay"))? else { return Ok(Delay::default()) };
        decode("delay", &bytes, bytes.len()).map_err(|_| self.damaged())
    }

    pub(crate) fn set_delay(&self, delay: &Delay) -> Result<(), ClientError> {
        self.set(&self.of_vault("delay"), &encode(delay))
    }

    pub(crate) fn newest_snapshot_s(&self) -> Result<Option<u64>, ClientError> {
        Ok(self
            .get("newest-snapshot")?
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes))
    }

    pub(crate) fn set_newest_snapshot_s(&self, time_s: u64) -> Result<(), ClientError> {
        self.set(&self.of_vault("newest-snapshot"), &time_s.to_be_bytes())
    }

    pub(crate) fn folders(&self) -> Result<Vec<Folder>, ClientError> {
        self.query(|database| {
            let mut query = database.prepare("SELECT id, path, rules FROM folders ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let (path, rules): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
                let path = PathBuf::from(OsStr::from_bytes(&path));
                let rules = Rules::parse(&rules).ok_or(rusqlite::Error::InvalidQuery)?;
                Ok(Folder { id: row.get(0)?, path, rules })
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

    /// Gives a folder that is there other rules.
    pub(crate) fn set_rules(&self, path: &Path, rules: &Rules) -> Result<(), ClientError> {
        let (path, rules) = (path.as_os_str().as_bytes(), rules.to_bytes());
        let set = "UPDATE folders SET rules = ?2 WHERE path = ?1";
        self.query(|database| database.execute(set, params![path, rules]))?;
        Ok(())
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
                "INSERT OR REPLACE INTO pending VALUES (?1, ?2, ?3)",
                params![pack.id.0, encode(pack), self.vault_name()],
            )
        })?;
        Ok(())
    }

    /// Remembers packs that a check found damaged; the next backup stores what they held anew.
    pub(crate) fn add_damaged(&self, packs: &[PackId]) -> Result<(), ClientError> {
        for pack in packs {
            let row = params![pack.0, self.vault_name()];
            self.query(|db| db.execute("INSERT OR IGNORE INTO damaged VALUES (?1, ?2)", row))?;
        }
        Ok(())
    }

    /// Forgets the damaged packs: a check has read everything, or a backup has mended it.
    pub(crate) fn clear_damaged(&self) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM damaged WHERE vault = ?1", [self.vault_name()]))?;
        Ok(())
    }

    pub(crate) fn damaged_packs(&self) -> Result<Vec<PackId>, ClientError> {
        self.query(|database| {
            let mut query = database.prepare("SELECT pack FROM damaged WHERE vault = ?1")?;
            query.query_map([self.vault_name()], |row| Ok(PackId(row.get(0)?)))?.collect()
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
            let mut query = database.prepare("SELECT holds FROM pending WHERE vault = ?1")?;
            query.query_map([self.vault_name()], |row| row.get(0))?.collect()
        })?;
        rows.iter()
            .map(|bytes| decode("pack", bytes, bytes.len()).map_err(|_| self.damaged()))
            .collect()
    }

    /// Returns the name of the vault that is worked with: empty for this device's own.
    fn vault_name(&self) -> Vec<u8> {
        self.keys.of().map(|device| device.0.to_vec()).unwrap_or_default()
    }

    fn of_vault(&self, key: &str) -> String {
        self.keys.of().map_or_else(|| key.to_owned(), |device| format!("{key}/{device}"))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClientError> {
        self.query(|database| {
            database
                .prepare_cached("SELECT value FROM state WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), ClientError> {
        self.query(|database| {
            database.execute("INSERT OR REPLACE INTO state VALUES (?1, ?2)", params![key, value])
        })?;
        Ok(())
    }

    pub(crate) fn unset(&self, key: &str) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM state WHERE key = ?1", [key])).map(drop)
    }

    /// Does all of something or nothing.
    pub(crate) fn transaction(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), ClientError> {
        let path = self.dir.join("state.db");
        let done = self.database.transaction().and_then(|transaction| {
            work(&transaction)?;
            transaction.commit()
        });
        done.map_err(state_error(&path))
    }

    pub(crate) fn query<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ClientError> {
        query(&self.database).map_err(state_error(&self.dir.join("state.db")))
    }

    pub(crate) fn damaged(&self) -> ClientError {
        state_error(&self.dir.join("state.db"))(not_ours())
    }
}

pub(crate) const KEY_FILE: &str = "keys";
/// Half a second in all.
const LOCK_TRIES: u32 = 25;
const LOCK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);

/// Returns whether there is a profile in `dir`.
#[must_use]
pub fn is_joined(dir: &Path) -> bool {
    dir.join(KEY_FILE).exists()
}

/// Returns whether a database holds more than an interrupted `join` leaves.
fn was_used(path: &Path) -> bool {
    path.exists()
        && open_database(path).is_ok_and(|database| {
            let query = "SELECT EXISTS (SELECT 1 FROM state WHERE key GLOB 'generation/*')";
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
    // A run that is about to end, or a process that one has just started, holds it a little longer.
    for _ in 0..LOCK_TRIES {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(file);
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
    Err(ClientError::Locked)
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    // Each pack is noted once and read again after a crash only: nothing to keep 2 MB in memory for.
    database.pragma_update(None, "cache_size", -256)?;
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => migrate(&database, &[SCHEMA, FROM_4, FROM_5])?,
        2 => migrate(&database, &[FROM_2, FROM_3, FROM_4, FROM_5])?,
        3 => migrate(&database, &[FROM_3, FROM_4, FROM_5])?,
        4 => migrate(&database, &[FROM_4, FROM_5])?,
        5 => migrate(&database, &[FROM_5])?,
        _ => {}
    }
    Ok(database)
}

fn migrate(database: &Connection, steps: &[&str]) -> rusqlite::Result<()> {
    database.execute_batch(&format!("BEGIN; {} COMMIT;", steps.concat()))
}

/// Verifies the chain that this device keeps, and opens its key block. `None` when either is not what
/// this device wrote.
fn load_keys(
    database: &Connection,
    device: Arc<DeviceKeys>,
) -> rusqlite::Result<Option<Arc<Keys>>> {
    let value = |key: &str| {
        database
            .query_row("SELECT value FROM state WHERE key = ?1", [key], |row| row.get(0))
            .optional()
    };
    let id: Option<Vec<u8>> = value("account")?;
    let key_block: Option<Vec<u8>> = value("key-block")?;
    let kit: Option<Vec<u8>> = value("kit")?;
    let record: Option<Vec<u8>> = value("record")?;
    let mut query = database.prepare("SELECT block FROM blocks ORDER BY seq")?;
    let blocks: Vec<Vec<u8>> =
        query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let load = || {
        let id = AccountId::from_slice(&id?)?;
        let blocks: Option<Vec<Block>> = blocks.iter().map(|b| Block::parse(b).ok()).collect();
        let blocks = blocks?;
        let kit = kit.and_then(|sealed| Kept::open(&sealed, &device));
        let account = Verified::verify(id, &blocks).ok()?;
        let open = |account: &Verified<Account>| {
            open_key_block(key_block.as_deref()?, account, &device, kit.as_ref()).ok()
        };
        // A device that was taken out keeps the last key block that it could open.
        let opened = open(&account).or_else(|| {
            (1..blocks.len())
                .rev()
                .find_map(|len| open(&Verified::verify(id, &blocks[..len]).ok()?))
        })?;
        let record = record.and_then(|bytes| RootRecord::parse(&bytes).ok());
        let which = Which { shared: record.as_ref().and_then(shared_vault), of: None };
        Some(Keys::new(device, account, opened, which))
    };
    Ok(load())
}

fn shared_vault(record: &RootRecord) -> Option<(VaultId, SpaceId)> {
    record.vaults.first().map(|entry| (entry.vault, entry.space))
}

/// Opens a key block as a device of the account, or by what the device is restored from.
pub(crate) fn open_key_block(
    key_block: &[u8],
    account: &Verified<Account>,
    device: &DeviceKeys,
    kept: Option<&Kept>,
) -> Result<Opened, Misbehaviour> {
    let id = device.id();
    if is_limited(account, id) {
        let granted = KeyBlock::open_grant(key_block, account, id, &device.sealing());
        return granted.map(Opened::Limited);
    }
    let secrets = match kept {
        Some(kept) if !account.is_full(id) => {
            let keys = kept.keys();
            KeyBlock::open(key_block, account, keys.public().id(), keys.sealing())
        }
        _ => KeyBlock::open(key_block, account, id, &device.sealing()),
    };
    secrets.map(Opened::full)
}

/// What is there has not the form in which this version writes it.
fn not_ours() -> rusqlite::Error {
    let what = "a record in it is damaged, or of another version of this program";
    rusqlite::Error::ToSqlConversionFailure(what.into())
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
