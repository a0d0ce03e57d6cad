//! The data directory: its lock, its identity key, its stores.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};
use sr_crypto::{CryptoRng, Secret32};
use sr_store::{
    Copied, DATABASE_FILE, Files, IDENTITY_FILE, LOCK_FILE, MetaStore, Sqlite, StoreError,
};
use sr_tlog::Policy;
use sr_wire::{CARDS_MAX, Invite, VOUCHERS_PER_INVITE, card_hash, limits, voucher, voucher_hash};
use thiserror::Error;

use crate::{Identity, Stores, Witness, policy};

/// Why a data directory was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The copy could not be made.
    #[error("the copy was not finished: {0}")]
    Copy(#[source] StoreError),
    /// There is no room for it.
    #[error("the copy was not finished: there is no room where it is made")]
    CopyFull,
    /// Another copy is being made there, or a server runs on it.
    #[error("another copy to that directory is being made, or a server runs there")]
    CopyBusy,
    /// It has a part of a copy.
    #[error("this is a copy of a server that was not finished")]
    CopyUnfinished,
    /// A copy would lie in what it is of.
    #[error("the copy can't be inside the data directory")]
    CopyInside,
    /// Its identity key is damaged, or missing beside a database.
    #[error("the server's identity key, {0}, is missing or damaged", IDENTITY_FILE)]
    Identity,
    /// The database is missing beside an identity key.
    #[error("the server's database, {0}, is missing", DATABASE_FILE)]
    Database,
    /// A file could not be read or written.
    #[error("the data directory can't be used")]
    Io(#[from] io::Error),
    /// Another process serves it.
    #[error("another server is running on this data directory")]
    Locked,
    /// The log that a server was put back with is not whole yet.
    #[error(
        "{missing} entries of the log are missing that this server has signed: wait for a device that has \
         them. Without them, what it signs from now on would contradict what it has signed before"
    )]
    LogShort {
        /// How many.
        missing: u64,
    },
    /// A witness has cosigned more of the log than there is.
    #[error(
        "the witness at {url} has cosigned {missing} more entries of this server's log than the data directory \
         has: an older copy of it was put back"
    )]
    BehindWitness {
        /// Where it is.
        url: String,
        /// How many are missing.
        missing: u64,
    },
    /// A witness has cosigned another log.
    #[error(
        "the witness at {url} has cosigned another log than that of the data directory: somebody has run \
         this server from another copy of it"
    )]
    OtherThanWitness {
        /// Where it is.
        url: String,
    },
    /// It is no witness.
    #[error("these are not the address and the one or two keys of one witness")]
    WitnessText,
    /// It is one of the server's already, at another address.
    #[error("this server asks this witness already, at another address")]
    WitnessTwice,
    /// There is no room for it.
    #[error("a server has seven witnesses at most, and changes them thirteen times at most")]
    WitnessesTooMany,
    /// There is no such witness.
    #[error("no witness has this address")]
    WitnessUnknown,
    /// There is no server.
    #[error("there is no server in this directory")]
    Missing,
    /// A copy would replace something else.
    #[error("there is another server in that directory, or something else")]
    OtherServer,
    /// A store was not opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps other servers away from a data directory as long as it lives.
#[derive(Debug)]
pub struct DataLock(#[expect(dead_code, reason = "held, not read")] File);

/// An open data directory.
#[derive(Debug)]
pub struct DataDir {
    /// Identity of the server.
    pub identity: Identity,
    /// Its stores.
    pub stores: Stores,
    /// Whether this call made the directory's server.
    pub is_new: bool,
    /// Held as long as the server runs.
    pub lock: DataLock,
}

impl DataDir {
    /// Opens `dir` for serving, makes what is missing, and deletes what a crash left.
    ///
    /// **Errors** [`DataError`].
    pub fn open(dir: &Path, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, DataError> {
        let lock = lock(dir)?;
        sr_store::check_files(dir)?;
        let is_new = !dir.join(IDENTITY_FILE).exists();
        if is_new && !dir.join(DATABASE_FILE).exists() && sr_store::has_part_of_copy(dir)? {
            return Err(DataError::CopyUnfinished);
        }
        // A new identity beside old records would look like an attack to every client, and new records
        // beside old packs would take all of them for leftovers.
        if is_new && dir.join(DATABASE_FILE).exists() && !Sqlite::open(dir)?.is_empty()? {
            return Err(DataError::Identity);
        }
        if !is_new && !dir.join(DATABASE_FILE).exists() {
            return Err(DataError::Database);
        }
        if is_new {
            // The database first: a crash in between leaves an empty one, which counts as none.
            drop(Sqlite::open(dir)?);
            write_identity(dir, &Secret32::random(rng))?;
        }
        let identity = read_identity(dir)?;
        let meta = Sqlite::open(dir)?;
        let blobs = Files::open(dir)?;
        sr_store::sweep(&meta, &blobs)?;
        let stores = Stores { meta: Arc::new(meta), blobs: Arc::new(blobs) };
        Ok(Self { identity, stores, is_new, lock })
    }
}

/// Copies the data directory of a server, which may be running, to a directory that is empty or has an
/// earlier copy.
///
/// **Errors** [`DataError`]; [`DataError::OtherServer`] when there is something else.
pub fn back_up(dir: &Path, to: &Path) -> Result<Copied, DataError> {
    let identity = server_of(dir)?;
    if is_inside(to, dir)? {
        return Err(DataError::CopyInside);
    }
    let is_there = to.join(IDENTITY_FILE).exists() || to.join(DATABASE_FILE).exists();
    let is_other = is_there && read_identity(to)?.card() != identity.card();
    // Somebody's documents, say.
    if is_other || (to.exists() && sr_store::check_files(to).is_err()) {
        return Err(DataError::OtherServer);
    }
    let at = |e: StoreError| match e {
        StoreError::CopyNewer => DataError::Store(e),
        StoreError::Full => DataError::CopyFull,
        e => DataError::Copy(e),
    };
    let _lock = match lock(to) {
        Err(DataError::Locked) => return Err(DataError::CopyBusy),
        Err(DataError::Io(e)) => return Err(at(StoreError::io("making the copy's directory", e))),
        lock => lock?,
    };
    sr_store::copy(dir, to).map_err(at)
}

/// Returns whether a path, of which the end need not exist, is in a directory, or is it.
fn is_inside(path: &Path, dir: &Path) -> io::Result<bool> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    Ok(there.is_some_and(|there| dir.canonicalize().is_ok_and(|dir| there.starts_with(dir))))
}

/// A server that was put back from a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoring {
    /// How many entries its log has.
    pub entries: u64,
    /// How many it has had, as far as a device has shown.
    pub had: u64,
    /// How many accounts have changes in the log that no device of theirs has given back.
    pub owed: u64,
}

/// From here on nothing new is stored in a server that was put back from a backup, until [`finish_restoring`].
///
/// **Errors** [`DataError`].
pub fn begin_restoring(stores: &Stores) -> Result<(), DataError> {
    Ok(stores.meta.set_put_back(&stores.meta.put_back()?.unwrap_or_default())?)
}

/// Returns how far a server is that was put back from a backup; `None` for one that was not, or is through
/// with it. It may be running.
///
/// **Errors** [`DataError`].
pub fn restoring(dir: &Path) -> Result<Option<Restoring>, DataError> {
    let (identity, meta) = (server_of(dir)?, Sqlite::open(dir)?);
    let Some(note) = meta.put_back()? else { return Ok(None) };
    let entries = meta.log_len()?;
    let had = identity.signed(&note).map_or(0, |(size, _)| size).max(entries);
    Ok(Some(Restoring { entries, had, owed: meta.owed()? }))
}

/// Lets a server that was put back from a backup store what is new again.
///
/// **Errors** [`DataError::LogShort`] when its log is shorter than one that it has signed.
pub fn finish_restoring(dir: &Path) -> Result<(), DataError> {
    match restoring(dir)? {
        Some(Restoring { entries, had, .. }) if entries < had => {
            Err(DataError::LogShort { missing: had - entries })
        }
        _ => Ok(Sqlite::open(dir)?.end_put_back()?),
    }
}

/// Makes an invite for each of `addresses`, all with one token, while the server may be running.
///
/// **Errors** [`DataError`].
pub fn add_invite(
    dir: &Path,
    addresses: &[String],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<Invite>, DataError> {
    let identity = server_of(dir)?.with_policies(&Sqlite::open(dir)?.policies()?);
    let invite = Invite::new(String::new(), card_hash(identity.card()), rng);
    let hashes: Vec<_> =
        (0..VOUCHERS_PER_INVITE).map(|n| voucher_hash(&voucher(&invite.token, n))).collect();
    Sqlite::open(dir)?.add_vouchers(&hashes)?;
    Ok(addresses.iter().map(|a| Invite { address: a.clone(), ..invite.clone() }).collect())
}

/// Returns the keys of a server's log, as its witnesses need them, one in a line.
///
/// **Errors** [`DataError`].
pub fn log_keys(dir: &Path) -> Result<String, DataError> {
    let identity = server_of(dir)?;
    Ok(String::from_utf8_lossy(identity.card().log_keys.as_slice()).into_owned())
}

/// Returns the witnesses that a server asks from its next start on.
///
/// **Errors** [`DataError`].
pub fn witnesses(dir: &Path) -> Result<Vec<Witness>, DataError> {
    server_of(dir)?;
    Sqlite::open(dir)?.witnesses()?.iter().map(|(url, keys)| Witness::parse(url, keys)).collect()
}

/// Has a server ask a witness from its next start on. `keys` are its one or two keys, one in a line.
///
/// **Errors** [`DataError::WitnessText`], and those of the directory.
pub fn add_witness(dir: &Path, url: &str, keys: &str) -> Result<(), DataError> {
    let witness = Witness::parse(url, keys)?;
    let mut others = witnesses(dir)?;
    others.retain(|other| other.url() != witness.url());
    if others.iter().any(|other| other.name() == witness.name()) {
        return Err(DataError::WitnessTwice);
    }
    let (url, meta) = (witness.url(), Sqlite::open(dir)?);
    others.push(witness);
    let text = policy(&others);
    // A card says it to everybody, for good.
    let is_policy = text.parse::<Policy>().is_ok() && text.len() <= limits::POLICY_LEN_MAX;
    if !is_policy || meta.policies()?.len() + 3 > CARDS_MAX {
        return Err(DataError::WitnessesTooMany);
    }
    Ok(meta.set_witness(&url, Some(keys))?)
}

/// Has a server ask a witness no more, from its next start on.
///
/// **Errors** [`DataError::WitnessUnknown`], and those of the directory.
pub fn remove_witness(dir: &Path, url: &str) -> Result<(), DataError> {
    if !witnesses(dir)?.iter().any(|witness| witness.url() == url.trim_end_matches('/')) {
        return Err(DataError::WitnessUnknown);
    }
    Ok(Sqlite::open(dir)?.set_witness(url.trim_end_matches('/'), None)?)
}

/// Makes a directory if it is missing, and keeps other servers away from it.
fn lock(dir: &Path) -> Result<DataLock, DataError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK_FILE))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| DataError::Locked)?;
    Ok(DataLock(lock))
}

/// Returns the identity of the server that is in a directory.
fn server_of(dir: &Path) -> Result<Identity, DataError> {
    if !dir.join(IDENTITY_FILE).exists() || !dir.join(DATABASE_FILE).exists() {
        let is_part = dir.exists() && sr_store::has_part_of_copy(dir)?;
        return Err(if is_part { DataError::CopyUnfinished } else { DataError::Missing });
    }
    read_identity(dir)
}

fn read_identity(dir: &Path) -> Result<Identity, DataError> {
    let bytes = fs::read(dir.join(IDENTITY_FILE))?;
    if bytes.len() != 32 {
        return Err(DataError::Identity);
    }
    Ok(Identity::from_seed(&Secret32::init_with(|seed| seed.copy_from_slice(&bytes))))
}

/// Written to a temporary name, synced and renamed. The temporary name is one that opening the
/// store clears away, should a crash leave it.
fn write_identity(dir: &Path, seed: &Secret32) -> io::Result<()> {
    let path = dir.join(IDENTITY_FILE);
    let incoming = dir.join("incoming");
    fs::create_dir_all(&incoming)?;
    let temporary = incoming.join("0");
    // A mode counts for a new file only.
    if temporary.exists() {
        fs::remove_file(&temporary)?;
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(seed.expose())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(dir)?.sync_all()
}
