//! Keys at rest: a passphrase on the key file, and where the keys are while it is open.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use sr_crypto::Cost;
use sr_keys::DeviceKeys;
use zeroize::Zeroizing;

use crate::{
    ClientError,
    profile::{KEY_FILE, is_joined, write_durably},
    remote::os_rng,
};

/// How the keys of a profile are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLock {
    /// Without a passphrase.
    None,
    /// Under a passphrase, and open until `lock` or the end of the session.
    Open,
    /// Under a passphrase.
    Locked,
}

/// Returns how the keys of the profile in `dir` are kept.
///
/// **Errors** [`ClientError::NotJoined`], and those of local files.
pub fn key_lock(dir: &Path) -> Result<KeyLock, ClientError> {
    if !DeviceKeys::is_locked_file(&read(dir)?) {
        return Ok(KeyLock::None);
    }
    let is_open = open_copy(dir)?.exists();
    Ok(if is_open { KeyLock::Open } else { KeyLock::Locked })
}

/// Puts the key file under a passphrase. `cost` is what each guess costs a thief.
///
/// **Errors** [`ClientError::NotJoined`], [`ClientError::Keys`], and those of local files.
pub fn set_passphrase(dir: &Path, passphrase: &str, cost: Cost) -> Result<(), ClientError> {
    let path = dir.join(KEY_FILE);
    let keys = DeviceKeys::from_file(&read(dir)?).map_err(|_| ClientError::Keys(path.clone()))?;
    let locked = keys.to_locked_file(passphrase.as_bytes(), cost, &mut os_rng());
    write_durably(&path, &locked.map_err(|_| ClientError::Keys(path.clone()))?)
}

/// Takes the passphrase off the key file.
///
/// **Errors** as [`unlock`].
pub fn remove_passphrase(dir: &Path, passphrase: &str) -> Result<(), ClientError> {
    let keys = open(dir, passphrase)?;
    write_durably(&dir.join(KEY_FILE), &keys.to_file())?;
    lock(dir)
}

/// Opens the keys until [`lock`], or until this machine forgets what is in its memory.
///
/// **Errors** [`ClientError::PassphraseWrong`], [`ClientError::NotJoined`], and those of local files.
pub fn unlock(dir: &Path, passphrase: &str) -> Result<(), ClientError> {
    let keys = open(dir, passphrase)?;
    let path = open_copy(dir)?;
    if let Some(folder) = path.parent() {
        make_private(folder)?;
    }
    write_durably(&path, &keys.to_file())
}

/// Closes the keys.
///
/// **Errors** those of local files.
pub fn lock(dir: &Path) -> Result<(), ClientError> {
    let path = open_copy(dir)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ClientError::local("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Reads the keys of a profile: from the key file, or from memory if that is under a passphrase.
pub(crate) fn read_keys(dir: &Path) -> Result<DeviceKeys, ClientError> {
    let bytes = read(dir)?;
    let damaged = || ClientError::Keys(dir.join(KEY_FILE));
    if !DeviceKeys::is_locked_file(&bytes) {
        return DeviceKeys::from_file(&bytes).map_err(|_| damaged());
    }
    let path = open_copy(dir)?;
    let is_private = path.parent().is_some_and(|folder| check_private(folder).is_ok());
    match fs::read(&path) {
        Ok(bytes) if is_private => {
            DeviceKeys::from_file(&Zeroizing::new(bytes)).map_err(|_| damaged())
        }
        _ => Err(ClientError::KeysLocked),
    }
}

fn open(dir: &Path, passphrase: &str) -> Result<DeviceKeys, ClientError> {
    DeviceKeys::from_locked_file(&read(dir)?, passphrase.as_bytes())
        .map_err(|_| ClientError::PassphraseWrong)
}

fn read(dir: &Path) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    if !is_joined(dir) {
        return Err(ClientError::NotJoined);
    }
    let path = dir.join(KEY_FILE);
    fs::read(&path).map(Zeroizing::new).map_err(ClientError::local("reading", path))
}

/// Where the keys are while they are open: in the file system in memory, in a folder which only this
/// user reads, and which is gone when the machine is switched off. It is the same for a person's
/// session and for what runs by itself. One file for each profile.
fn open_copy(dir: &Path) -> Result<PathBuf, ClientError> {
    let dir = dir.canonicalize().map_err(ClientError::local("opening", dir))?;
    let path = std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str());
    let name = sr_crypto::hash(sr_wire::labels::KEY_FILE_LOCK, &[path]);
    let user = rustix::process::geteuid().as_raw();
    let file = format!("{}.keys", sr_crypto::text::to_hex(&name[..16]));
    Ok(PathBuf::from(format!("/dev/shm/strongroom-{user}")).join(file))
}

/// Makes a folder that is this user's and nobody else's.
fn make_private(folder: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("making", folder)(error);
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => check_private(folder).map_err(failed),
    }
}

/// Refuses a folder that somebody else has made, or may read.
fn check_private(folder: &Path) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(folder)?;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw();
    if meta.is_dir() && is_own && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
}
