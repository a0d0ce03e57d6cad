//! Records in SQLite: one writer thread with group commit, durable before it answers.

use std::{
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use sr_crypto::Hash;
use sr_wire::{
    AccountId, PackId, SealedHead, SpaceId, SpaceKeys, decode, encode,
    log::{ACCOUNT, ENTRY_LEN, Entry, FRESHNESS},
};

use crate::{
    Blocks, Caps, MetaStore, NewBlocks, PackRecord, StoreError, Swapped,
    dictionary::{self, DATABASE_FILE},
    memory::{after, first_blocks, follows, judge_swap},
};

/// Changes that share one commit at most.
const GROUP_MAX: usize = 256;
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// But for the log, which anyone may read, no table has a time or an order of arrival, and none has both
/// an account and a space: keys are random, and there are no row ids.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS vouchers (hash BLOB PRIMARY KEY) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS spaces (
    space BLOB PRIMARY KEY, keys BLOB NOT NULL, packs INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS heads (
    space BLOB NOT NULL, seq INTEGER NOT NULL, head BLOB NOT NULL, PRIMARY KEY (space, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS packs (
    pack BLOB PRIMARY KEY, space BLOB NOT NULL, len INTEGER NOT NULL, days_left INTEGER
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS days (day INTEGER PRIMARY KEY) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    account BLOB PRIMARY KEY, key_block BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS blocks (
    account BLOB NOT NULL, seq INTEGER NOT NULL, block BLOB NOT NULL, PRIMARY KEY (account, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS envelopes (
    lookup BLOB PRIMARY KEY, account BLOB NOT NULL, envelope BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS checkpoints (note BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS witnesses (url TEXT PRIMARY KEY, keys TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS policies (card INTEGER PRIMARY KEY, policy TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS freshness (
    name BLOB PRIMARY KEY, seq INTEGER NOT NULL, value BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS put_back (note BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS owed (
    name BLOB NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, seq)
) WITHOUT ROWID, STRICT;
";

type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&Transaction<'_>) -> Reply + Send>;

/// Records in a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    reader: Mutex<Connection>,
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens the database of a data directory, makes it if it is missing, and refuses one with a
    /// table, column or file that the data dictionary does not know.
    ///
    /// **Errors** [`StoreError::NotInDictionary`], [`StoreError::Failed`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let opening = |e| StoreError::sql("opening the database", e);
        dictionary::check_files(dir)?;
        let path = dir.join(DATABASE_FILE);
        let connection = connect(&path).map_err(opening)?;
        connection.execute_batch(SCHEMA).map_err(opening)?;
        dictionary::check_schema(&connection)?;
        let reader = connect(&path).map_err(opening)?;
        let (jobs, queue) = mpsc::sync_channel(GROUP_MAX);
        let writer = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || write_jobs(connection, &queue))
            .map_err(|e| StoreError::io("starting the writer", e))?;
        Ok(Self { reader: Mutex::new(reader), jobs: Some(jobs), writer: Some(writer) })
    }

    /// Returns whether no space and no voucher was ever recorded.
    ///
    /// **Errors** [`StoreError::Failed`].
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        let query = "SELECT NOT EXISTS (SELECT 1 FROM spaces UNION ALL SELECT 1 FROM vouchers)";
        self.read(|c| c.query_row(query, [], |row| row.get(0)))
    }

    /// Returns how many entries the log has.
    ///
    /// **Errors** [`StoreError::Failed`].
    pub fn log_len(&self) -> Result<u64, StoreError> {
        self.read(|c| c.query_row("SELECT count(*) FROM log", [], |row| row.get(0)))
    }

    /// Runs `change` on the writer thread and returns after the commit that holds it.
    fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Failed {
            doing: "writing a record",
            source: "the writer has stopped".into(),
        };
        let (send, receive) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |transaction| {
            let result = in_savepoint(transaction, change);
            Box::new(move |committed| {
                // A receiver that is gone wants no answer.
                let _ = send.send(committed.and(result));
            })
        });
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).map_err(|_| stopped())?;
        receive.recv().map_err(|_| stopped())?
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        query(&reader).map_err(|e| StoreError::sql("reading a record", e))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl MetaStore for Sqlite {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        let hashes = hashes.to_vec();
        self.write(move |t| {
            let mut insert =
                t.prepare_cached("INSERT INTO vouchers VALUES (?1)").map_err(failed)?;
            for hash in &hashes {
                insert.execute([hash]).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        let (keys, voucher_hash, caps) = (encode(keys), *voucher_hash, *caps);
        self.write(move |t| {
            if exists(t, "SELECT 1 FROM spaces WHERE space = ?1", &space.0)? {
                return Err(StoreError::Exists);
            }
            let spaces: u64 =
                t.query_row("SELECT count(*) FROM spaces", [], |row| row.get(0)).map_err(failed)?;
            if spaces >= caps.spaces {
                return Err(StoreError::QuotaFull);
            }
            let spent = t
                .execute("DELETE FROM vouchers WHERE hash = ?1", [voucher_hash])
                .map_err(failed)?;
            if spent == 0 {
                return Err(StoreError::VoucherUnknown);
            }
            t.execute("INSERT INTO spaces VALUES (?1, ?2, 0, 0)", params![space.0, keys])
                .map_err(failed)?;
            Ok(())
        })
    }

    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError> {
        let keys: Option<Vec<u8>> = self.read(|c| {
            c.prepare_cached("SELECT keys FROM spaces WHERE space = ?1")?
                .query_row([space.0], |row| row.get(0))
                .optional()
        })?;
        let keys = keys.ok_or(StoreError::NotFound)?;
        decode("space keys", &keys, keys.len()).map_err(damaged)
    }

    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        let caps = *caps;
        self.write(move |t| {
            let usage: Option<(u64, u64)> = t
                .prepare_cached("SELECT packs, bytes FROM spaces WHERE space = ?1")
                .and_then(|mut q| {
                    q.query_row([space.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()
                })
                .map_err(failed)?;
            let (packs, bytes) = usage.ok_or(StoreError::NotFound)?;
            if exists(t, "SELECT 1 FROM packs WHERE pack = ?1", &pack.0)? {
                return Err(StoreError::Exists);
            }
            let bytes = bytes + u64::from(len);
            if packs >= caps.packs_per_space || bytes > caps.bytes_per_space {
                return Err(StoreError::QuotaFull);
            }
            t.execute("INSERT INTO packs VALUES (?1, ?2, ?3, NULL)", params![pack.0, space.0, len])
                .map_err(failed)?;
            t.execute(
                "UPDATE spaces SET packs = packs + 1, bytes = ?2 WHERE space = ?1",
                params![space.0, bytes],
            )
            .map_err(failed)?;
            Ok(())
        })
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT len, days_left FROM packs WHERE pack = ?1 AND space = ?2")?
                .query_row(params![pack.0, space.0], |row| {
                    Ok(PackRecord { len: row.get(0)?, days_left: row.get(1)? })
                })
                .optional()
        })?
        .ok_or(StoreError::NotFound)
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        self.read(|c| {
            let query = "SELECT pack FROM packs WHERE space = ?1 AND days_left IS NULL";
            let mut query = c.prepare_cached(query)?;
            query.query_map([space.0], |row| row.get(0).map(PackId))?.collect()
        })
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        let packs = packs.to_vec();
        self.write(move |t| {
            let delete = "UPDATE packs SET days_left = ?3
                          WHERE pack = ?1 AND space = ?2 AND days_left IS NULL";
            let mut delete = t.prepare_cached(delete).map_err(failed)?;
            for pack in &packs {
                delete.execute(params![pack.0, space.0, days]).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        self.write(move |t| {
            let undelete = "UPDATE packs SET days_left = NULL
                            WHERE space = ?1 AND days_left IS NOT NULL";
            t.execute(undelete, [space.0]).map(|packs| packs as u64).map_err(failed)
        })
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        self.write(move |t| count_day(t, day).map_err(failed))
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        self.read(|c| c.prepare_cached("SELECT 1 FROM packs WHERE pack = ?1")?.exists([pack.0]))
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        let found: Option<Option<Vec<u8>>> = self.read(|c| {
            c.prepare_cached(
                "SELECT head FROM spaces LEFT JOIN heads USING (space) WHERE space = ?1
                 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row([space.0], |row| row.get(0))
            .optional()
        })?;
        match found.ok_or(StoreError::NotFound)? {
            None => Ok(None),
            Some(head) => decode("head", &head, head.len()).map(Some).map_err(damaged),
        }
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        let head = head.clone();
        self.write(move |t| {
            if !exists(t, "SELECT 1 FROM spaces WHERE space = ?1", &head.space.0)? {
                return Err(StoreError::NotFound);
            }
            if is_put_back(t)? {
                return Err(StoreError::PutBack);
            }
            let swapped = judge_swap(newest_head(t, head.space)?.as_ref(), &head);
            if swapped == Swapped::Done {
                insert_head(t, &head)?;
            }
            Ok(swapped)
        })
    }

    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError> {
        let heads = heads.to_vec();
        self.write(move |t| {
            let Some(first) = heads.first() else { return Ok(()) };
            if !exists(t, "SELECT 1 FROM spaces WHERE space = ?1", &first.space.0)? {
                return Err(StoreError::NotFound);
            }
            let newest = newest_head(t, first.space)?;
            let follows = judge_swap(newest.as_ref(), first) == Swapped::Done;
            if !follows || newest.as_ref() == Some(first) {
                return Err(StoreError::Exists);
            }
            heads.iter().try_for_each(|head| insert_head(t, head))
        })
    }

    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError> {
        let heads: Vec<Vec<u8>> = self.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT head FROM heads WHERE space = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
            )?;
            let from = i64::try_from(from).unwrap_or(i64::MAX);
            query.query_map(params![space.0, from, max], |row| row.get(0))?.collect()
        })?;
        if heads.is_empty() {
            self.space_keys(space)?;
        }
        heads.iter().map(|head| decode("head", head, head.len()).map_err(damaged)).collect()
    }

    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError> {
        let (expected, keys) = (encode(expected), encode(keys));
        self.write(move |t| {
            if !exists(t, "SELECT 1 FROM spaces WHERE space = ?1", &space.0)? {
                return Err(StoreError::NotFound);
            }
            let changed = t
                .execute(
                    "UPDATE spaces SET keys = ?3 WHERE space = ?1 AND keys = ?2",
                    params![space.0, expected, keys],
                )
                .map_err(failed)?;
            if changed == 1 { Ok(()) } else { Err(StoreError::Exists) }
        })
    }

    fn append_blocks(&self, new: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
        let (new, caps) = (new.clone(), *caps);
        self.write(move |t| append_blocks(t, &new, &caps))
    }

    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let (found, blocks) = self.read(|c| {
            let found: Option<(Vec<u8>, i64)> = c
                .prepare_cached(
                    "SELECT key_block, (SELECT count(*) FROM blocks WHERE account = ?1)
                     FROM accounts WHERE account = ?1",
                )?
                .query_row([account.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let mut query = c.prepare_cached(
                "SELECT block FROM blocks WHERE account = ?1 AND seq >= ?2 ORDER BY seq LIMIT 256",
            )?;
            let blocks: Vec<Vec<u8>> = query
                .query_map(params![account.0, from], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok((found, blocks))
        })?;
        let (key_block, count) = found.ok_or(StoreError::NotFound)?;
        let blocks = first_blocks(blocks.into_iter(), len_max);
        let end = from.saturating_add(i64::try_from(blocks.len()).unwrap_or(i64::MAX));
        Ok((blocks, (end >= count).then_some(key_block)))
    }

    fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT account FROM accounts ORDER BY account")?;
            query.query_map([], |row| Ok(AccountId(row.get(0)?)))?.collect()
        })
    }

    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let entries = entries.to_vec();
        self.write(move |t| {
            if last_entry(t)?.is_some() {
                return Ok(());
            }
            let mut insert = t.prepare_cached("INSERT INTO log VALUES (?1, ?2)").map_err(failed)?;
            for (place, entry) in entries.iter().enumerate() {
                insert.execute(params![place as u64, entry.to_bytes()]).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let rows: Vec<Vec<u8>> = self.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT entry FROM log WHERE place >= ?1 ORDER BY place LIMIT ?2",
            )?;
            query.query_map(params![from, max as u64], |row| row.get(0))?.collect()
        })?;
        rows.iter().map(|row| decode("entry", row, ENTRY_LEN).map_err(damaged)).collect()
    }

    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError> {
        let entry = *entry;
        self.write(move |t| {
            let query = "SELECT seq, value FROM freshness WHERE name = ?1";
            let newest = t
                .query_row(query, [entry.index], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(failed)?;
            if !follows(newest, &entry)? {
                return Ok(false);
            }
            if is_put_back(t)? {
                return Err(StoreError::PutBack);
            }
            let last = last_entry(t)?;
            let place = last.as_ref().map_or(0, |(place, _)| place + 1);
            let time_s = last.map_or(0, |(_, last)| last.time_s).max(entry.time_s);
            let row = params![place, Entry { time_s, ..entry }.to_bytes()];
            t.execute("INSERT INTO log VALUES (?1, ?2)", row).map_err(failed)?;
            note_freshness(t, &entry)?;
            Ok(true)
        })
    }

    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        let note = note.to_vec();
        self.write(move |t| replace_note(t, "checkpoints", &note))
    }

    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError> {
        let (entries, note) = (entries.to_vec(), note.to_vec());
        self.write(move |t| {
            if last_entry(t)?.map_or(0, |(place, _)| place + 1) != from {
                return Err(StoreError::Exists);
            }
            let mut insert = t.prepare_cached("INSERT INTO log VALUES (?1, ?2)").map_err(failed)?;
            let mut owe =
                t.prepare_cached("INSERT INTO owed VALUES (?1, ?2, ?3)").map_err(failed)?;
            for (place, entry) in (from..).zip(&entries) {
                insert.execute(params![place, entry.to_bytes()]).map_err(failed)?;
                if entry.kind == ACCOUNT {
                    let owed = params![entry.index, entry.seq, entry.value];
                    owe.execute(owed).map_err(failed)?;
                }
                if entry.kind == FRESHNESS {
                    note_freshness(t, entry)?;
                }
            }
            replace_note(t, "checkpoints", &note)
        })
    }

    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError> {
        let note = note.to_vec();
        self.write(move |t| replace_note(t, "put_back", &note))
    }

    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT note FROM put_back")?;
            query.query_row([], |row| row.get(0)).optional()
        })
    }

    fn end_put_back(&self) -> Result<(), StoreError> {
        self.write(|t| t.execute("DELETE FROM put_back", []).map(drop).map_err(failed))
    }

    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT url, keys FROM witnesses ORDER BY url")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError> {
        let (url, keys) = (url.to_owned(), keys.map(str::to_owned));
        self.write(move |t| {
            let done = match keys {
                Some(keys) => {
                    let insert = "INSERT OR REPLACE INTO witnesses VALUES (?1, ?2)";
                    t.execute(insert, params![url, keys])
                }
                None => t.execute("DELETE FROM witnesses WHERE url = ?1", [url]),
            };
            done.map(drop).map_err(failed)
        })
    }

    fn policies(&self) -> Result<Vec<String>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT policy FROM policies ORDER BY card")?;
            query.query_map([], |row| row.get(0))?.collect()
        })
    }

    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError> {
        let (policy, entry) = (policy.to_owned(), entry.cloned());
        self.write(move |t| {
            let insert = "INSERT INTO policies (policy) VALUES (?1)";
            t.execute(insert, [policy]).map_err(failed)?;
            let Some(entry) = entry else { return Ok(()) };
            let place = last_entry(t)?.map_or(0, |(place, _)| place + 1);
            let row = params![place, entry.to_bytes()];
            t.execute("INSERT INTO log VALUES (?1, ?2)", row).map(drop).map_err(failed)
        })
    }

    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError> {
        let query = "SELECT 1 FROM owed WHERE name = ?1 AND seq = ?2 AND value = ?3";
        self.read(|c| c.prepare_cached(query)?.exists(params![entry.index, entry.seq, entry.value]))
    }

    fn owed(&self) -> Result<u64, StoreError> {
        self.read(|c| c.query_row("SELECT count(DISTINCT name) FROM owed", [], |row| row.get(0)))
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|c| c.query_row("SELECT note FROM checkpoints", [], |row| row.get(0)).optional())
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT envelope FROM envelopes WHERE lookup = ?1")?
                .query_row([lookup], |row| row.get(0))
                .optional()
        })?
        .ok_or(StoreError::NotFound)
    }
}

fn append_blocks(t: &Transaction<'_>, new: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
    let account = new.account.0;
    let len: u64 = t
        .query_row("SELECT count(*) FROM blocks WHERE account = ?1", [account], |row| row.get(0))
        .map_err(failed)?;
    if new.from != len {
        return Err(if new.from < len { StoreError::Exists } else { StoreError::NotFound });
    }
    if let Some((lookup, envelope)) = &new.envelope {
        let there: Option<Vec<u8>> = t
            .prepare_cached("SELECT envelope FROM envelopes WHERE lookup = ?1")
            .and_then(|mut q| q.query_row([lookup], |row| row.get(0)).optional())
            .map_err(failed)?;
        if there.is_some_and(|there| there != *envelope) {
            return Err(StoreError::Exists);
        }
        let insert = "INSERT OR IGNORE INTO envelopes VALUES (?1, ?2, ?3)";
        t.execute(insert, params![lookup, account, envelope]).map_err(failed)?;
    }
    for (seq, (block, entry)) in (new.from..).zip(&new.blocks) {
        if !take_owed(t, entry)? {
            if is_put_back(t)? {
                return Err(StoreError::PutBack);
            }
            if seq == 0 && !new.is_promised {
                pay_account(t, new, caps)?;
            }
            let last = last_entry(t)?;
            let place = last.as_ref().map_or(0, |(place, _)| place + 1);
            let entry = after(last.as_ref().map(|(_, entry)| entry), *entry);
            t.execute("INSERT INTO log VALUES (?1, ?2)", params![place, entry.to_bytes()])
                .map_err(failed)?;
        }
        t.execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", params![account, seq, block])
            .map_err(failed)?;
    }
    if let Some(key_block) = &new.key_block {
        t.execute("INSERT OR REPLACE INTO accounts VALUES (?1, ?2)", params![account, key_block])
            .map_err(failed)?;
    }
    Ok(())
}

fn pay_account(t: &Transaction<'_>, new: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
    let accounts: u64 =
        t.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).map_err(failed)?;
    if accounts >= caps.spaces {
        return Err(StoreError::QuotaFull);
    }
    let voucher = new.voucher_hash.ok_or(StoreError::VoucherUnknown)?;
    let spent = t.execute("DELETE FROM vouchers WHERE hash = ?1", [voucher]).map_err(failed)?;
    if spent == 0 { Err(StoreError::VoucherUnknown) } else { Ok(()) }
}

/// Returns whether the log had this entry before its block came, and forgets that.
fn take_owed(t: &Transaction<'_>, entry: &Entry) -> Result<bool, StoreError> {
    let delete = "DELETE FROM owed WHERE name = ?1 AND seq = ?2 RETURNING value";
    let owed: Option<Hash> = t
        .prepare_cached(delete)
        .and_then(|mut delete| {
            delete.query_row(params![entry.index, entry.seq], |row| row.get(0)).optional()
        })
        .map_err(failed)?;
    match owed {
        Some(value) if value != entry.value => Err(StoreError::Exists),
        owed => Ok(owed.is_some()),
    }
}

/// Notes the newest entry of a key that signs states.
fn note_freshness(t: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    let insert = "INSERT OR REPLACE INTO freshness VALUES (?1, ?2, ?3)";
    let row = params![entry.index, entry.seq, entry.value];
    t.execute(insert, row).map(drop).map_err(failed)
}

fn is_put_back(t: &Transaction<'_>) -> Result<bool, StoreError> {
    t.prepare_cached("SELECT 1 FROM put_back").and_then(|mut q| q.exists([])).map_err(failed)
}

/// Gives a table of one note this one.
fn replace_note(t: &Transaction<'_>, table: &str, note: &[u8]) -> Result<(), StoreError> {
    t.execute(&format!("DELETE FROM {table}"), []).map_err(failed)?;
    t.execute(&format!("INSERT INTO {table} VALUES (?1)"), [note]).map_err(failed)?;
    Ok(())
}

fn newest_head(t: &Transaction<'_>, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
    let query = "SELECT head FROM heads WHERE space = ?1 ORDER BY seq DESC LIMIT 1";
    let newest: Option<Vec<u8>> =
        t.query_row(query, [space.0], |row| row.get(0)).optional().map_err(failed)?;
    newest.map(|bytes| decode("head", &bytes, bytes.len()).map_err(damaged)).transpose()
}

fn insert_head(t: &Transaction<'_>, head: &SealedHead) -> Result<(), StoreError> {
    let row = params![head.space.0, head.seq, encode(head)];
    t.execute("INSERT OR IGNORE INTO heads VALUES (?1, ?2, ?3)", row).map(drop).map_err(failed)
}

fn last_entry(t: &Transaction<'_>) -> Result<Option<(u64, Entry)>, StoreError> {
    let row: Option<(u64, Vec<u8>)> = t
        .prepare_cached("SELECT place, entry FROM log ORDER BY place DESC LIMIT 1")
        .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed)?;
    let entry = |(place, bytes): (u64, Vec<u8>)| {
        Ok((place, decode("entry", &bytes, ENTRY_LEN).map_err(damaged)?))
    };
    row.map(entry).transpose()
}

fn count_day(t: &Transaction<'_>, day: u64) -> rusqlite::Result<Vec<PackId>> {
    let last: Option<u64> = t.query_row("SELECT max(day) FROM days", [], |row| row.get(0))?;
    if last == Some(day) {
        return Ok(Vec::new());
    }
    t.execute("DELETE FROM days", [])?;
    t.execute("INSERT INTO days VALUES (?1)", [day])?;
    if last.is_none_or(|last| day < last) {
        return Ok(Vec::new());
    }
    t.execute("UPDATE packs SET days_left = days_left - 1 WHERE days_left IS NOT NULL", [])?;
    let gone: Vec<(PackId, [u8; 16], u64)> = t
        .prepare("DELETE FROM packs WHERE days_left <= 0 RETURNING pack, space, len")?
        .query_map([], |row| Ok((PackId(row.get(0)?), row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut free =
        t.prepare("UPDATE spaces SET packs = packs - 1, bytes = bytes - ?2 WHERE space = ?1")?;
    for (_, space, len) in &gone {
        free.execute(params![space, len])?;
    }
    Ok(gone.into_iter().map(|(pack, _, _)| pack).collect())
}

/// Opens a connection with the settings that durability and forgetting need.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    // The journal is cut to nothing whenever its content has moved into the database.
    connection.pragma_update(None, "journal_size_limit", 0)?;
    Ok(connection)
}

fn write_jobs(mut connection: Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut replies = Vec::new();
        let committed =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let committed = committed.and_then(|transaction| {
            replies.push(first(&transaction));
            while replies.len() < GROUP_MAX {
                let Ok(job) = queue.try_recv() else { break };
                replies.push(job(&transaction));
            }
            transaction.commit()
        });
        // Without a transaction the first job was dropped, and its sender hears that by itself.
        let full = matches!(&committed, Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
        for reply in replies {
            reply(match &committed {
                Ok(()) => Ok(()),
                Err(_) if full => Err(StoreError::Full),
                Err(e) => Err(StoreError::Failed {
                    doing: "committing a record",
                    source: e.to_string().into(),
                }),
            });
        }
    }
    let _ = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
}

/// Jobs share a transaction but not their failures.
fn in_savepoint<T>(
    transaction: &Transaction<'_>,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    transaction.execute_batch("SAVEPOINT job").map_err(failed)?;
    let result = change(transaction);
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    transaction.execute_batch(end).map_err(failed)?;
    result
}

fn exists(transaction: &Transaction<'_>, query: &str, key: &[u8]) -> Result<bool, StoreError> {
    transaction.prepare_cached(query).and_then(|mut q| q.exists([key])).map_err(failed)
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::sql("writing a record", error)
}

fn damaged(error: sr_wire::Malformed) -> StoreError {
    StoreError::Failed { doing: "reading a record", source: error.into() }
}
