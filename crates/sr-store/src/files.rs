//! Packs as files: `packs/XX/ID`, written in `incoming/`, synced, renamed and never written again.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sr_crypto::text;
use sr_wire::PackId;

use crate::{BlobStore, BlobWriter, StoreError};

const DAY_S: u64 = 86_400;

/// Packs in a directory.
#[derive(Debug)]
pub struct Files {
    packs: PathBuf,
    incoming: PathBuf,
    counter: AtomicU64,
}

impl Files {
    /// Opens `dir`, makes what is missing, and deletes what an earlier crash left half-written.
    ///
    /// **Errors** [`StoreError`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (packs, incoming) = (dir.join("packs"), dir.join("incoming"));
        let doing = "opening the directory of packs";
        fs::create_dir_all(&packs).map_err(|e| StoreError::io(doing, e))?;
        match fs::remove_dir_all(&incoming) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(doing, e));
            }
            _ => {}
        }
        fs::create_dir(&incoming).map_err(|e| StoreError::io(doing, e))?;
        // All folders are there and durable before the first pack is acknowledged.
        for first in 0..=u8::MAX {
            match fs::create_dir(packs.join(text::to_hex(&[first]))) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::io(doing, e));
                }
                _ => {}
            }
        }
        sync_dir(&packs)?;
        sync_dir(dir)?;
        Ok(Self { packs, incoming, counter: AtomicU64::new(0) })
    }

    fn path(&self, pack: PackId) -> PathBuf {
        self.packs.join(text::to_hex(&pack.0[..1])).join(pack.to_string())
    }
}

impl BlobStore for Files {
    fn begin(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        let file = File::create_new(&path).map_err(|e| StoreError::io("starting a pack", e))?;
        Ok(Box::new(FileWriter { file, path, packs: self.packs.clone() }))
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let doing = "reading a pack";
        let file = File::open(self.path(pack)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound,
            _ => StoreError::io(doing, e),
        })?;
        let size = file.metadata().map_err(|e| StoreError::io(doing, e))?.len();
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        file.read_exact_at(&mut bytes, offset).map_err(|e| StoreError::io(doing, e))?;
        Ok(bytes)
    }

    fn has(&self, pack: PackId) -> Result<bool, StoreError> {
        let there = self.path(pack).try_exists();
        there.map_err(|e| StoreError::io("looking for a pack", e))
    }

    fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        match fs::remove_file(self.path(pack)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("deleting a pack", e))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<PackId>, StoreError> {
        let doing = "listing packs";
        let mut packs = Vec::new();
        for folder in fs::read_dir(&self.packs).map_err(|e| StoreError::io(doing, e))? {
            let folder = folder.map_err(|e| StoreError::io(doing, e))?.path();
            for file in fs::read_dir(&folder).map_err(|e| StoreError::io(doing, e))? {
                let name = file.map_err(|e| StoreError::io(doing, e))?.file_name();
                packs.extend(name.to_str().and_then(|name| name.parse::<PackId>().ok()));
            }
        }
        Ok(packs)
    }
}

struct FileWriter {
    file: File,
    path: PathBuf,
    packs: PathBuf,
}

impl BlobWriter for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|e| StoreError::io("writing a pack", e))
    }

    fn finish(self: Box<Self>, pack: PackId) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("storing a pack", e);
        // File times say the day and no more.
        self.file.set_modified(today()).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let folder = self.packs.join(text::to_hex(&pack.0[..1]));
        let path = folder.join(pack.to_string());
        renameat_with(CWD, &self.path, CWD, &path, RenameFlags::NOREPLACE).map_err(
            |e| match e {
                rustix::io::Errno::EXIST => StoreError::Exists,
                e => failed(e.into()),
            },
        )?;
        sync_dir(&folder)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing left under this name; before it, nothing may stay. What a
        // crash leaves is deleted by the next `open`.
        let _ = fs::remove_file(&self.path);
    }
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| StoreError::io("syncing a directory of packs", e))
}

/// File times are the one place where this room reads the clock, and it keeps the day only.
fn today() -> SystemTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs() / DAY_S * DAY_S)
}
