//! A copy of a data directory, made while its server runs. A second copy into the same directory costs what
//! came since, because packs are never written again.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
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

/// Copies the data directory `from`, of a server that may be running, to `to`, where no server runs. Until
/// it returns, `to` is the copy before, if there was one, and packs besides.
///
/// **Errors** [`StoreError::CopyNewer`], [`StoreError::NotInDictionary`], [`StoreError::Full`],
/// [`StoreError::Failed`].
pub fn copy(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    check_files(to)?;
    if newest_size(to)? > newest_size(from)? {
        return Err(StoreError::CopyNewer);
    }
    let target = Files::open(to)?;
    let (incoming, database) = (to.join("incoming").join("0"), to.join(DATABASE_FILE));
    // Records first: what they name was there before them.
    let failed = |e| StoreError::sql("copying the database", e);
    let source = connect(&from.join(DATABASE_FILE)).map_err(failed)?;
    remove_if_there(&incoming)?;
    source.execute("VACUUM INTO ?1", [incoming.to_string_lossy()]).map_err(failed)?;
    let named = packs_of(&incoming).map_err(failed)?;
    let there: HashSet<PackId> = target.list()?.into_iter().collect();
    let mut copied = Copied { packs: named.len() as u64, ..Copied::default() };
    for pack in named.difference(&there) {
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
        fs::copy(from.join(IDENTITY_FILE), to.join(IDENTITY_FILE))?;
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
    there.difference(&named).try_for_each(|pack| target.delete(*pack))?;
    Ok(copied)
}

/// How much has happened on a server, as its newest checkpoint counts it: none for one that is not there.
fn newest_size(dir: &Path) -> Result<u64, StoreError> {
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Ok(0);
    }
    let size = || {
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).optional()
    };
    Ok(size().map_err(|e| StoreError::sql("reading the database", e))?.unwrap_or(0))
}

fn packs_of(database: &Path) -> rusqlite::Result<HashSet<PackId>> {
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = database.prepare("SELECT pack FROM packs")?;
    query.query_map([], |row| Ok(PackId(row.get(0)?)))?.collect()
}

/// Copies a pack to where uploads are received, and gives it its name when it is whole.
fn copy_pack(from: &Path, to: &Path, pack: PackId) -> io::Result<u64> {
    let place =
        |dir: &Path| dir.join("packs").join(text::to_hex(&pack.0[..1])).join(pack.to_string());
    let part = to.join("incoming").join(pack.to_string());
    let source = place(from);
    let modified = fs::metadata(&source)?.modified()?;
    let len = fs::copy(&source, &part)?;
    File::options().write(true).open(&part)?.set_modified(modified)?;
    fs::rename(&part, place(to))?;
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
