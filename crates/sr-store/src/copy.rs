//! A copy of a data directory, made while its server runs. A second copy into the same directory costs what
//! came since, because packs are never written again.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::syncfs;
use sr_crypto::text;
use sr_wire::PackId;

use crate::{
    BlobStore, DATABASE_FILE, Files, IDENTITY_FILE, StoreError, check_files, sqlite::connect,
};

/// What a copy consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Its packs.
    pub packs: u64,
    /// Those of them that this run has copied.
    pub new_packs: u64,
    /// Their bytes.
    pub new_bytes: u64,
}

/// The database of a copy that is not finished.
const PART: &str = "incoming/copy";

/// Returns whether a directory has a copy that was begun and not finished.
///
/// **Errors** [`StoreError::Failed`].
pub fn has_part_of_copy(dir: &Path) -> Result<bool, StoreError> {
    let part = dir.join(PART).try_exists();
    part.map_err(|e| StoreError::io("looking for a part of a copy", e))
}

/// Copies the data directory `from`, of a server that may be running, to `to`, where no server runs. Until
/// it returns, `to` is the copy before, if there was one, and packs besides.
///
/// **Errors** [`StoreError::CopyNewer`], [`StoreError::NotInDictionary`], [`StoreError::Full`],
/// [`StoreError::Failed`].
pub fn copy(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    check_files(to)?;
    refuse_newer(from, to)?;
    let target = Files::open(to)?;
    let (incoming, database) = (to.join(PART), to.join(DATABASE_FILE));
    // Records first: what they name was there before them.
    let failed = |e| StoreError::sql("copying the database", e);
    let source = connect(&from.join(DATABASE_FILE)).map_err(failed)?;
    remove_if_there(&incoming)?;
    source.execute("VACUUM INTO ?1", [incoming.to_string_lossy()]).map_err(failed)?;
    let named = packs_of(&incoming).map_err(failed)?;
    let there: HashSet<PackId> = target.list()?.into_iter().collect();
    let mut copied = Copied { packs: named.len() as u64, ..Copied::default() };
    for (pack, len) in &named {
        // What the power has cut off is copied again.
        if there.contains(pack) && has_len(&place(to, *pack), *len) {
            continue;
        }
        match copy_pack(from, to, *pack) {
            Ok(len) => {
                copied.new_packs += 1;
                copied.new_bytes += len;
            }
            // Deleted since: what nobody needs any more.
            Err(e) if e.kind() == ErrorKind::NotFound => copied.packs -= 1,
            Err(e) => return Err(StoreError::io("copying a pack", e)),
        }
    }
    let done = || {
        copy_file(&from.join(IDENTITY_FILE), &to.join("incoming/1"))?;
        fs::rename(to.join("incoming/1"), to.join(IDENTITY_FILE))?;
        sync(to)?;
        // What a server that was run there has left does not belong to the new database.
        for journal in ["-wal", "-shm", "-journal"] {
            let path = to.join(format!("{DATABASE_FILE}{journal}"));
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        fs::rename(&incoming, &database)?;
        sync(to)
    };
    done().map_err(|e| StoreError::io("finishing the copy", e))?;
    let is_old = |pack: &&PackId| !named.contains_key(*pack);
    there.iter().filter(is_old).try_for_each(|pack| target.delete(*pack))?;
    Ok(copied)
}

/// Refuses to replace a copy by an older state, as that of a server that was itself put back.
fn refuse_newer(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (from.join(DATABASE_FILE), to.join(DATABASE_FILE));
    if !to.exists() {
        return Ok(());
    }
    let is_older = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database = Connection::open_with_flags(&from, flags)?;
        database.execute("ATTACH ?1 AS copy", [to.to_string_lossy()])?;
        database.query_row(
            "SELECT EXISTS (SELECT 1 FROM put_back)
                OR (SELECT count(*) FROM copy.log) > (SELECT count(*) FROM log)
                OR EXISTS (
                    SELECT 1 FROM (SELECT space, max(seq) AS seq FROM copy.heads GROUP BY space) AS c
                    WHERE c.seq > coalesce((SELECT max(seq) FROM heads WHERE space = c.space), 0))",
            [],
            |row| row.get(0),
        )
    };
    match is_older() {
        Ok(true) => Err(StoreError::CopyNewer),
        Ok(false) => Ok(()),
        Err(e) => Err(StoreError::sql("comparing with the copy before", e)),
    }
}

/// Returns the packs that a database names, each with its length.
fn packs_of(database: &Path) -> rusqlite::Result<HashMap<PackId, u64>> {
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = database.prepare("SELECT pack, len FROM packs")?;
    query.query_map([], |row| Ok((PackId(row.get(0)?), row.get(1)?)))?.collect()
}

fn place(dir: &Path, pack: PackId) -> PathBuf {
    dir.join("packs").join(text::to_hex(&pack.0[..1])).join(pack.to_string())
}

fn has_len(path: &Path, len: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() == len)
}

/// Copies a pack to where uploads are received, and gives it its name when it is whole.
fn copy_pack(from: &Path, to: &Path, pack: PackId) -> io::Result<u64> {
    let part = to.join("incoming").join(pack.to_string());
    let len = copy_file(&place(from, pack), &part)?;
    fs::rename(&part, place(to, pack))?;
    Ok(len)
}

/// Copies a file with its time and mode. It is durable before it gets its name.
fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let modified = fs::metadata(from)?.modified()?;
    let len = fs::copy(from, to)?;
    let file = File::options().write(true).open(to)?;
    file.set_modified(modified)?;
    file.sync_all()?;
    Ok(len)
}

fn sync(dir: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(dir)?)?)
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("beginning a copy", e)),
        _ => Ok(()),
    }
}
