//! Packs as files: `packs/XX/ID`, written in `incoming/`, synced, renamed and never written again.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sr_crypto::text;
use sr_wire::{PackId, limits};

use crate::{BlobStore, BlobWriter, PARTS_MAX, StoreError};

const DAY_S: u64 = 86_400;

/// Packs in a directory.
#[derive(Debug)]
pub struct Files {
    packs: PathBuf,
    parts: Arc<Parts>,
}

/// What interrupted uploads left.
#[derive(Debug)]
struct Parts {
    incoming: PathBuf,
    /// Those that nobody writes, the oldest first.
    resting: Mutex<VecDeque<PackId>>,
}

impl Parts {
    fn path(&self, pack: PackId) -> PathBuf {
        self.incoming.join(pack.to_string())
    }

    fn resting(&self) -> MutexGuard<'_, VecDeque<PackId>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a part, and deletes the oldest when there are too many.
    fn rest(&self, pack: PackId) {
        let mut resting = self.resting();
        resting.push_back(pack);
        if resting.len() > PARTS_MAX
            && let Some(oldest) = resting.pop_front()
        {
            // One that can't be deleted is found again at the next start.
            let _ = fs::remove_file(self.path(oldest));
        }
    }
}

impl Files {
    /// Opens `dir` and makes what is missing. What a crash left of uploads stays for them to go on.
    ///
    /// **Errors** [`StoreError`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (packs, incoming) = (dir.join("packs"), dir.join("incoming"));
        let doing = "opening the directory of packs";
        fs::create_dir_all(&packs).map_err(|e| StoreError::io(doing, e))?;
        fs::create_dir_all(&incoming).map_err(|e| StoreError::io(doing, e))?;
        let parts = Arc::new(Parts { incoming, resting: Mutex::default() });
        for file in fs::read_dir(&parts.incoming).map_err(|e| StoreError::io(doing, e))? {
            let file = file.map_err(|e| StoreError::io(doing, e))?;
            match file.file_name().to_str().and_then(|name| name.parse().ok()) {
                Some(pack) => parts.rest(pack),
                None => fs::remove_file(file.path()).map_err(|e| StoreError::io(doing, e))?,
            }
        }
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
        Ok(Self { packs, parts })
    }

    fn path(&self, pack: PackId) -> PathBuf {
        self.packs.join(text::to_hex(&pack.0[..1])).join(pack.to_string())
    }
}

impl BlobStore for Files {
    fn begin(&self, pack: PackId, kept: u64) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.parts.resting().retain(|resting| *resting != pack);
        let begin = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(self.parts.path(pack))?;
            let is_there = file.metadata()?.len() >= kept;
            file.set_len(if is_there { kept } else { 0 })?;
            file.seek(SeekFrom::Start(kept))?;
            Ok((file, is_there))
        };
        let (file, is_there) = begin().map_err(|e| {
            self.parts.rest(pack);
            StoreError::io("starting a pack", e)
        })?;
        let (parts, packs) = (Arc::clone(&self.parts), self.packs.clone());
        let writer = Box::new(FileWriter { file, pack, parts, packs, leaves: Leaves::Part });
        if !is_there {
            writer.discard();
            return Err(StoreError::NotFound);
        }
        Ok(writer)
    }

    fn read_part(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        match read(&self.parts.path(pack), offset, len) {
            Err(StoreError::NotFound) => Ok(Vec::new()),
            read => read,
        }
    }

    fn drop_old_parts(&self) -> Result<(), StoreError> {
        let mut failed = Ok(());
        self.parts.resting().retain(|pack| match delete_if_old(&self.parts.path(*pack)) {
            Ok(was_old) => !was_old,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => {
                failed = Err(StoreError::io("deleting parts of packs", e));
                true
            }
        });
        failed
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        read(&self.path(pack), offset, len)
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
    pack: PackId,
    parts: Arc<Parts>,
    packs: PathBuf,
    leaves: Leaves,
}

/// What a writer leaves in `incoming/`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Part,
    Nothing,
}

impl BlobWriter for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|e| {
            self.leaves = Leaves::Nothing;
            StoreError::io("writing a pack", e)
        })
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.leaves = Leaves::Nothing;
        let failed = |e| StoreError::io("storing a pack", e);
        // File times say the day and no more.
        self.file.set_modified(today()).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let folder = self.packs.join(text::to_hex(&self.pack.0[..1]));
        let path = folder.join(self.pack.to_string());
        let part = self.parts.path(self.pack);
        renameat_with(CWD, &part, CWD, &path, RenameFlags::NOREPLACE).map_err(|e| match e {
            rustix::io::Errno::EXIST => StoreError::Exists,
            e => failed(e.into()),
        })?;
        sync_dir(&folder)
    }

    fn discard(mut self: Box<Self>) {
        self.leaves = Leaves::Nothing;
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let len = self.file.metadata().map_or(0, |file| file.len());
        match self.leaves {
            Leaves::Part if len >= limits::SLOT_LEN as u64 => self.parts.rest(self.pack),
            // After `finish` there is nothing under this name; less than a slot is of no use to anybody,
            // and would take the place of what is.
            _ => {
                let _ = fs::remove_file(self.parts.path(self.pack));
            }
        }
    }
}

fn read(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    let doing = "reading a pack";
    let file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound,
        _ => StoreError::io(doing, e),
    })?;
    let size = file.metadata().map_err(|e| StoreError::io(doing, e))?.len();
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(left)];
    file.read_exact_at(&mut bytes, offset).map_err(|e| StoreError::io(doing, e))?;
    Ok(bytes)
}

fn delete_if_old(path: &Path) -> io::Result<bool> {
    let age = fs::metadata(path)?.modified()?.elapsed().unwrap_or_default();
    let is_old = age.as_secs() > DAY_S;
    if is_old {
        fs::remove_file(path)?;
    }
    Ok(is_old)
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
