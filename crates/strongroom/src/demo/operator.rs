//! What an operator can do to their own files.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params};
use sr_crypto::{SealingKey, Secret32, SigningKey, text};
use sr_trust::{AccountKey, Block, DeviceInfo, DeviceKind, Op, Role, Verified, pop};
use sr_wire::{AccountId, PackId, encode};

const DATABASE: &str = "strongroom.db";

/// The space with the most bytes, which the operator takes for the one with the backup.
const BIGGEST_SPACE: &str = "(SELECT space FROM spaces ORDER BY bytes DESC LIMIT 1)";

/// A copy of the server's directory from earlier.
pub(crate) struct OldState {
    dir: PathBuf,
}

/// A head that was taken away.
pub(crate) struct HiddenHead {
    space: Vec<u8>,
    seq: i64,
    head: Vec<u8>,
}

/// What the server knows of accounts and of the keys of spaces.
pub(crate) struct Accounts {
    blocks: Vec<(Vec<u8>, i64, Vec<u8>)>,
    key_blocks: Vec<(Vec<u8>, Vec<u8>)>,
    space_keys: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Accounts {
    /// Copies what there is now.
    pub(crate) fn read(data: &Path) -> rusqlite::Result<Self> {
        let database = open(data)?;
        let pairs = |query: &str| -> rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>> {
            let mut query = database.prepare(query)?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let mut blocks = database.prepare("SELECT account, seq, block FROM blocks ORDER BY seq")?;
        Ok(Self {
            blocks: blocks
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?,
            key_blocks: pairs("SELECT account, key_block FROM accounts")?,
            space_keys: pairs("SELECT space, keys FROM spaces")?,
        })
    }

    /// Puts these in the place of what there is.
    pub(crate) fn put_back(&self, data: &Path) -> rusqlite::Result<()> {
        let mut database = open(data)?;
        let transaction = database.transaction()?;
        transaction.execute("DELETE FROM blocks", [])?;
        for (account, seq, block) in &self.blocks {
            let row = params![account, seq, block];
            transaction.execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row)?;
        }
        for (account, key_block) in &self.key_blocks {
            let row = [account, key_block];
            transaction.execute("UPDATE accounts SET key_block = ?2 WHERE account = ?1", row)?;
        }
        for (space, keys) in &self.space_keys {
            transaction.execute("UPDATE spaces SET keys = ?2 WHERE space = ?1", [space, keys])?;
        }
        transaction.commit()
    }

    /// Changes the newest key block.
    pub(crate) fn swap_key_block(&self, data: &Path) -> rusqlite::Result<()> {
        for (account, key_block) in &self.key_blocks {
            let mut changed = key_block.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            let row = [account, &changed];
            open(data)?.execute("UPDATE accounts SET key_block = ?2 WHERE account = ?1", row)?;
        }
        Ok(())
    }

    /// Adds a device of the operator's to the only account: a block as a device of the account would
    /// make it, but for the signature, which the operator can only make with a key of theirs.
    pub(crate) fn add_ghost(&self, data: &Path) -> Option<rusqlite::Result<usize>> {
        let blocks: Option<Vec<Block>> =
            self.blocks.iter().map(|(_, _, block)| Block::parse(block).ok()).collect();
        let id = AccountId::from_slice(&self.blocks.first()?.0)?;
        let account = Verified::verify(id, &blocks?).ok()?;
        let seed = Secret32::init_with(|seed| seed.fill(7));
        let (signing, sealing) = (SigningKey::from_seed(&seed), SealingKey::from_seed(&seed));
        let ghost = DeviceInfo {
            signing: signing.public_key().to_vec().into(),
            sealing: sealing.public_key().to_vec().into(),
            kind: DeviceKind::Full,
        };
        let key = AccountKey { key_block: [7; 32], ..account.key().clone() };
        let proof = pop(&signing, id, &ghost, &[0; 32]);
        let op = Op::AddDevice { device: ghost, transcript: [0; 32], key };
        let live = account.live().next()?.id;
        let body = account.next(op, &[(Role::Device, live)], 0).ok()?;
        let mut block = body.sign(&[(Role::Device, &signing)], proof);
        block.signatures[0].key = live;
        let row = params![id.0, account.seq() + 1, encode(&block)];
        let insert =
            |database: Connection| database.execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row);
        Some(open(data).and_then(insert))
    }
}

/// Copies the state of a running server: its database, and its packs by hard links, which is enough
/// because packs are never written again.
pub(crate) fn remember(data: &Path, to: &Path) -> io::Result<OldState> {
    link_all(&data.join("packs"), &to.join("packs"))?;
    let database = open(data).map_err(io::Error::other)?;
    let copy = to.join(DATABASE);
    database.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(io::Error::other)?;
    fs::copy(data.join("identity.key"), to.join("identity.key"))?;
    Ok(OldState { dir: to.to_owned() })
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

/// Takes the newest head of the backup away.
pub(crate) fn hide_newest(data: &Path) -> rusqlite::Result<HiddenHead> {
    let database = open(data)?;
    let query = format!(
        "SELECT space, seq, head FROM heads WHERE space = {BIGGEST_SPACE} ORDER BY seq DESC LIMIT 1"
    );
    let hidden = database.query_row(&query, [], |row| {
        Ok(HiddenHead { space: row.get(0)?, seq: row.get(1)?, head: row.get(2)? })
    })?;
    let row = params![hidden.space, hidden.seq];
    database.execute("DELETE FROM heads WHERE space = ?1 AND seq = ?2", row)?;
    Ok(hidden)
}

/// Takes [`hide_newest`] back.
pub(crate) fn show_again(data: &Path, hidden: &HiddenHead) -> rusqlite::Result<()> {
    let row = params![hidden.space, hidden.seq, hidden.head];
    open(data)?.execute("INSERT INTO heads VALUES (?1, ?2, ?3)", row)?;
    Ok(())
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

/// The packs of the backup, the largest first.
fn packs(data: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let query = format!("SELECT pack FROM packs WHERE space = {BIGGEST_SPACE}");
    let names = || -> rusqlite::Result<Vec<PackId>> {
        let database = open(data)?;
        let mut query = database.prepare(&query)?;
        query.query_map([], |row| Ok(PackId(row.get(0)?)))?.collect()
    };
    let mut packs = Vec::new();
    for id in names().map_err(io::Error::other)? {
        let path = data.join("packs").join(text::to_hex(&id.0[..1])).join(id.to_string());
        packs.push((fs::metadata(&path)?.len(), path));
    }
    packs.sort_by(|a, b| b.cmp(a));
    Ok(packs)
}

fn open(data: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(data.join(DATABASE))?;
    database.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(database)
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
