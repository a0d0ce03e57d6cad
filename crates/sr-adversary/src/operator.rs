//! What an operator can do to their own files. Each act is on a data directory, of a server that runs or is
//! switched off.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};
use sr_crypto::{SealingKey, Secret32, SigningKey, text};
use sr_store::{DATABASE_FILE, IDENTITY_FILE};
use sr_trust::{Account, AccountKey, Block, DeviceInfo, DeviceKind, Op, Role, Verified, pop};
use sr_wire::{AccountId, PackId, encode};

use crate::AdversaryError;

/// The space with the most bytes, which the operator takes for the one with the backup.
const BIGGEST_SPACE: &str = "(SELECT space FROM spaces ORDER BY bytes DESC LIMIT 1)";

/// A copy of the server's directory from earlier.
#[derive(Debug)]
pub struct OldState {
    dir: PathBuf,
}

/// A head that was taken away.
#[derive(Debug)]
pub struct HiddenHead {
    space: Vec<u8>,
    seq: i64,
    head: Vec<u8>,
}

/// What the server knows of accounts and of the keys of spaces.
#[derive(Debug)]
pub struct Accounts {
    blocks: Vec<(Vec<u8>, i64, Vec<u8>)>,
    key_blocks: Vec<(Vec<u8>, Vec<u8>)>,
    space_keys: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Accounts {
    /// Copies what there is now.
    ///
    /// **Errors** [`AdversaryError`].
    pub fn read(data: &Path) -> Result<Self, AdversaryError> {
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
    ///
    /// **Errors** [`AdversaryError`].
    pub fn put_back(&self, data: &Path) -> Result<(), AdversaryError> {
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
        Ok(transaction.commit()?)
    }

    /// Changes the newest key block.
    ///
    /// **Errors** [`AdversaryError`].
    pub fn swap_key_block(&self, data: &Path) -> Result<(), AdversaryError> {
        for (account, key_block) in &self.key_blocks {
            let mut changed = key_block.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            let row = [account, &changed];
            open(data)?.execute("UPDATE accounts SET key_block = ?2 WHERE account = ?1", row)?;
        }
        Ok(())
    }

    /// Adds a device of the operator's to the account that has changed most: a block as a device of the
    /// account would make it, but for the signature, which the operator can only make with a key of theirs.
    ///
    /// **Errors** [`AdversaryError`].
    pub fn add_ghost(&self, data: &Path) -> Result<(), AdversaryError> {
        let nothing = AdversaryError::Nothing("an account");
        let id = self.blocks.iter().max_by_key(|(_, seq, _)| seq).map(|(account, ..)| account);
        let blocks = self.blocks.iter().filter(|(account, ..)| Some(account) == id);
        let blocks: Option<Vec<Block>> = blocks.map(|row| Block::parse(&row.2).ok()).collect();
        let ghost = || {
            let id = AccountId::from_slice(id?)?;
            self.ghost(&Verified::verify(id, &blocks?).ok()?)
        };
        let (account, seq, block) = ghost().ok_or(nothing)?;
        let row = params![account.0, seq, block];
        open(data)?.execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    fn ghost(&self, account: &Verified<Account>) -> Option<(AccountId, u64, Vec<u8>)> {
        let id = account.id();
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
        Some((id, account.seq() + 1, encode(&block)))
    }
}

/// Copies the state of a running server: its database, and its packs by hard links, which is enough
/// because packs are never written again.
///
/// **Errors** [`AdversaryError`].
pub fn remember(data: &Path, to: &Path) -> Result<OldState, AdversaryError> {
    each_file(&data.join("packs"), &to.join("packs"), |from, to| fs::hard_link(from, to))?;
    let database = open(data)?;
    let copy = to.join(DATABASE_FILE);
    database.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    fs::copy(data.join(IDENTITY_FILE), to.join(IDENTITY_FILE))?;
    Ok(OldState { dir: to.to_owned() })
}

/// Puts the old state into the place of the new one, which is kept; the server is switched off.
///
/// **Errors** [`AdversaryError`].
pub fn put_back(data: &Path, old: &OldState, keep: &Path) -> Result<PathBuf, AdversaryError> {
    fs::rename(data, keep)?;
    fs::rename(&old.dir, data)?;
    Ok(keep.to_owned())
}

/// Takes [`put_back`] back.
///
/// **Errors** [`AdversaryError`].
pub fn undo(data: &Path, kept: PathBuf) -> Result<(), AdversaryError> {
    fs::remove_dir_all(data)?;
    Ok(fs::rename(kept, data)?)
}

/// Takes the newest head of the backup away.
///
/// **Errors** [`AdversaryError`].
pub fn hide_newest(data: &Path) -> Result<HiddenHead, AdversaryError> {
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

/// Shows the heads that another copy of the server has.
///
/// **Errors** [`AdversaryError`].
pub fn show_heads_of(data: &Path, other: &Path) -> Result<(), AdversaryError> {
    let database = open(data)?;
    let path = other.join(DATABASE_FILE);
    database.execute("ATTACH ?1 AS other", [path.to_string_lossy()])?;
    let change = "DELETE FROM heads; INSERT INTO heads SELECT * FROM other.heads;";
    Ok(database.execute_batch(change)?)
}

/// Takes [`hide_newest`] back.
///
/// **Errors** [`AdversaryError`].
pub fn show_again(data: &Path, hidden: &HiddenHead) -> Result<(), AdversaryError> {
    let row = params![hidden.space, hidden.seq, hidden.head];
    open(data)?.execute("INSERT INTO heads VALUES (?1, ?2, ?3)", row)?;
    Ok(())
}

/// Returns the largest pack.
///
/// **Errors** [`AdversaryError`].
pub fn largest_pack(data: &Path) -> Result<PathBuf, AdversaryError> {
    let largest = packs(data)?.into_iter().next();
    Ok(largest.ok_or(AdversaryError::Nothing("a pack"))?.1)
}

/// Returns two packs, of one size if there are such.
///
/// **Errors** [`AdversaryError`].
pub fn two_packs(data: &Path) -> Result<(PathBuf, PathBuf), AdversaryError> {
    let packs = packs(data)?;
    let pair = packs
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0)
        .or_else(|| packs.windows(2).next())
        .ok_or(AdversaryError::Nothing("two packs"))?;
    Ok((pair[0].1.clone(), pair[1].1.clone()))
}

/// Changes one bit in the middle of a file; a second time, changes it back.
///
/// **Errors** [`AdversaryError`].
pub fn flip_a_bit(path: &Path) -> Result<(), AdversaryError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    byte[0] ^= 1;
    Ok(file.write_all_at(&byte, middle)?)
}

/// Gives each of two files the other's name.
///
/// **Errors** [`AdversaryError`].
pub fn swap(a: &Path, b: &Path) -> Result<(), AdversaryError> {
    let beside = a.with_extension("swap");
    fs::rename(a, &beside)?;
    fs::rename(b, a)?;
    Ok(fs::rename(&beside, b)?)
}

/// Returns the packs of the backup, the largest first, each with its length.
///
/// **Errors** [`AdversaryError`].
pub fn packs(data: &Path) -> Result<Vec<(u64, PathBuf)>, AdversaryError> {
    let query = format!("SELECT pack FROM packs WHERE space = {BIGGEST_SPACE}");
    let database = open(data)?;
    let mut query = database.prepare(&query)?;
    let ids = query.query_map([], |row| Ok(PackId(row.get(0)?)))?;
    let mut packs = Vec::new();
    for id in ids {
        let id = id?;
        let path = data.join("packs").join(text::to_hex(&id.0[..1])).join(id.to_string());
        packs.push((fs::metadata(&path)?.len(), path));
    }
    packs.sort_by(|a, b| b.cmp(a));
    Ok(packs)
}

/// Opens the database of a server.
///
/// **Errors** [`AdversaryError::Sql`].
pub fn open(data: &Path) -> Result<Connection, AdversaryError> {
    // Never one that is not there.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let database = Connection::open_with_flags(data.join(DATABASE_FILE), flags)?;
    database.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(database)
}

/// Changes what one query finds, each value by itself: `set` has the old value as `?1` and the new one as `?2`.
///
/// **Errors** [`AdversaryError`]; [`AdversaryError::Nothing`] when nothing is found.
pub fn change(
    data: &Path,
    (find, set): (&str, &str),
    change: impl Fn(&mut Vec<u8>),
) -> Result<(), AdversaryError> {
    let database = open(data)?;
    let found: Vec<Vec<u8>> = {
        let mut query = database.prepare(find)?;
        query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    if found.is_empty() {
        return Err(AdversaryError::Nothing("a row"));
    }
    for old in found {
        let mut new = old.clone();
        change(&mut new);
        database.execute(set, params![old, new])?;
    }
    Ok(())
}

/// Copies a directory.
///
/// **Errors** [`AdversaryError::Io`].
pub fn copy_all(from: &Path, to: &Path) -> Result<(), AdversaryError> {
    each_file(from, to, |from, to| fs::copy(from, to).map(drop))
}

/// Makes the folders of `from` in `to`, and has `place` make each file.
fn each_file(
    from: &Path,
    to: &Path,
    place: fn(&Path, &Path) -> io::Result<()>,
) -> Result<(), AdversaryError> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), &target, place)?;
        } else {
            place(&entry.path(), &target)?;
        }
    }
    Ok(())
}
