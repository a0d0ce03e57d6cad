//! What an operator can do to their own files.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

const DATABASE: &str = "strongroom.db";

/// A copy of the server's directory from earlier.
pub(crate) struct OldState {
    dir: PathBuf,
    head: Vec<u8>,
}

impl OldState {
    /// Returns the head that it shows.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }
}

/// Copies the state of a running server: its database, and its packs by hard links, which is enough
/// because packs are never written again.
pub(crate) fn remember(data: &Path, to: &Path) -> io::Result<OldState> {
    let head = read_head(data).map_err(io::Error::other)?;
    link_all(&data.join("packs"), &to.join("packs"))?;
    let database = Connection::open(data.join(DATABASE)).map_err(io::Error::other)?;
    let copy = to.join(DATABASE);
    database.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(io::Error::other)?;
    fs::copy(data.join("identity.key"), to.join("identity.key"))?;
    Ok(OldState { dir: to.to_owned(), head })
}

/// Puts the old state into the place of the new one, which is kept; the server is switched off.
pub(crate) fn put_back(data: &Path, old: &OldState, keep: &Path) -> io::Result<PathBuf> {
    fs::rename(data, keep)?;
    fs::rename(&old.dir, data)?;
    Ok(keep.to_owned())
}

/// Takes [`put_back`] back.
pub(crate) fn undo(data: &Path, kept: PathBuf) -> io::Result<()> {
    fs::remove_dir_all(data)?;
    fs::rename(kept, data)
}

/// Shows `head` as the newest, and returns the one that was.
pub(crate) fn show_head(data: &Path, head: &[u8]) -> rusqlite::Result<Vec<u8>> {
    let newest = read_head(data)?;
    let database = Connection::open(data.join(DATABASE))?;
    database.execute("UPDATE heads SET head = ?1", [head])?;
    Ok(newest)
}

/// Returns the largest pack.
pub(crate) fn largest_pack(data: &Path) -> io::Result<PathBuf> {
    Ok(packs(data)?.swap_remove(0).1)
}

/// Returns two packs, of one size if there are such.
pub(crate) fn two_packs(data: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let packs = packs(data)?;
    let pair = packs
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0)
        .or_else(|| packs.windows(2).next())
        .ok_or_else(|| io::Error::other("the server holds fewer than two objects"))?;
    Ok((pair[0].1.clone(), pair[1].1.clone()))
}

/// Changes one bit in the middle of a file; a second time, changes it back.
pub(crate) fn flip_a_bit(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    byte[0] ^= 1;
    file.write_all_at(&byte, middle)
}

/// Gives each of two files the other's name.
pub(crate) fn swap(a: &Path, b: &Path) -> io::Result<()> {
    let beside = a.with_extension("swap");
    fs::rename(a, &beside)?;
    fs::rename(b, a)?;
    fs::rename(&beside, b)
}

fn read_head(data: &Path) -> rusqlite::Result<Vec<u8>> {
    let database = Connection::open(data.join(DATABASE))?;
    database.query_row("SELECT head FROM heads", [], |row| row.get(0))
}

/// The packs, the largest first.
fn packs(data: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut packs = Vec::new();
    for folder in fs::read_dir(data.join("packs"))? {
        for file in fs::read_dir(folder?.path())? {
            let file = file?;
            packs.push((file.metadata()?.len(), file.path()));
        }
    }
    packs.sort_by(|a, b| b.cmp(a));
    Ok(packs)
}

fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
