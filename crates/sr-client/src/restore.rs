//! Restores: what a verified snapshot names, and nothing outside the target.
//!
//! Every file is written in a staging folder inside the target and renamed to its place when it is
//! whole, so no half file ever has its final name. Every path is opened beneath the target without
//! following a link (`openat2`), whatever the snapshot or another process puts in the way.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

mod fill;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, makedev, mkdirat, mknodat, openat, renameat, statat, symlinkat,
    utimensat,
};
use sr_vault::{
    ChunkId,
    tree::{Content, Hole, Node},
};

use crate::{
    ClientError, RefusedFile,
    attributes::Of,
    backup::join_all,
    beneath::open_beneath,
    progress::{Phase, Progress},
    read::{ReadError, Reader},
    scan::pieces,
};

/// The staging folder, which a restore makes in its target and removes when it ends. Backups leave
/// it out.
pub(crate) const STAGING: &str = ".strongroom-restore";
const WORKERS: usize = 2;
const BATCH: usize = 64;
/// Entries that are planned at once.
const JOBS_AT_ONCE: usize = 50_000;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into this folder: a folder's content, or a file under its name.
    Folder(PathBuf),
    /// To where it was.
    InPlace,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    /// Files that are in place, whole and verified.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not in place because what the server stores of them is not what was backed
    /// up.
    pub refused: Vec<RefusedFile>,
    /// Entries that could not be written.
    pub failed: Vec<RefusedFile>,
}

/// What is still to be listed, folders before those in them.
struct Walk {
    stack: Vec<(PathBuf, Node)>,
    /// The first name of each file that has several: its folder, and its node.
    first_names: HashMap<u64, (PathBuf, Node)>,
}

/// What is restored at once: so much that nearly every pack is fetched once, and so little that it does
/// not matter how large the whole is.
#[derive(Default)]
struct Part {
    folders: Vec<Folder>,
    jobs: Vec<Job>,
}

struct Job {
    folder: usize,
    node: Node,
    /// Whether the file is there under its first name.
    is_other_name: bool,
}

struct Folder {
    /// Path below the target.
    path: PathBuf,
    /// `None` for the target of a single file, which is no folder of the snapshot.
    node: Option<Node>,
}

struct Restore<'a> {
    reader: &'a Reader<'a>,
    progress: &'a Progress,
    target: PathBuf,
    root: OwnedFd,
    staging: OwnedFd,
    counter: AtomicUsize,
    report: Mutex<RestoreReport>,
}

/// Restores `node` into the folder `target`.
pub(crate) fn restore(
    reader: &Reader<'_>,
    node: &Node,
    target: &Path,
    progress: &Progress,
) -> Result<RestoreReport, ClientError> {
    progress.start(Phase::Restoring, 0);
    fs::create_dir_all(target).map_err(ClientError::local("making", target))?;
    let (root, staging) = open_target(target).map_err(ClientError::local("opening", target))?;
    let restore = Restore {
        reader,
        progress,
        target: target.to_owned(),
        root,
        staging,
        counter: AtomicUsize::new(0),
        report: Mutex::default(),
    };
    let done = restore.run(node);
    if done.is_err() {
        // A full disk, say: what was begun takes no room. The next restore would clear it too.
        let _ = fs::remove_dir_all(target.join(STAGING));
    }
    done?;
    let Restore { report, root, .. } = restore;
    // Before the run says it is done, all of it is on the disk.
    rustix::fs::syncfs(&root).map_err(|e| ClientError::local("syncing", target)(e.into()))?;
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.refused.sort_by(|a, b| a.path.cmp(&b.path));
    report.failed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

impl Walk {
    /// Returns the folders in which something is still to be listed.
    fn open(&self) -> HashSet<&Path> {
        self.stack.iter().flat_map(|(path, _)| path.ancestors().skip(1)).collect()
    }

    /// Returns whether a file has come under another name before. What does not look the same in all is
    /// no other name, whatever its number says.
    fn has_come(&mut self, folder: &Path, node: &Node) -> bool {
        let Some(number) = node.links else { return false };
        match self.first_names.entry(number) {
            Entry::Occupied(first) => {
                let (_, first) = first.get();
                *first == Node { name: first.name.clone(), ..node.clone() }
            }
            Entry::Vacant(entry) => {
                entry.insert((folder.to_owned(), node.clone()));
                false
            }
        }
    }
}

impl Restore<'_> {
    fn run(&self, node: &Node) -> Result<(), ClientError> {
        let mut walk = Walk { stack: Vec::new(), first_names: HashMap::new() };
        let mut part = Part::default();
        if matches!(node.content, Content::Folder { .. }) {
            walk.stack.push((PathBuf::new(), node.clone()));
        } else {
            part.folders.push(Folder { path: PathBuf::new(), node: None });
            part.jobs.push(Job { folder: 0, node: node.clone(), is_other_name: false });
        }
        let mut unfinished = Vec::new();
        loop {
            self.plan(&mut walk, &mut part)?;
            self.write(&part, &walk)?;
            unfinished.append(&mut part.folders);
            part.jobs.clear();
            if walk.stack.is_empty() {
                break;
            }
            let open = walk.open();
            let (still, done) =
                unfinished.into_iter().partition(|folder| open.contains(folder.path.as_path()));
            self.finish_folders(done);
            unfinished = still;
        }
        let staging = self.target.join(STAGING);
        fs::remove_dir_all(&staging).map_err(ClientError::local("removing", &staging))?;
        self.finish_folders(unfinished);
        Ok(())
    }

    /// Lists folders before their content, and all else in the order of the walk.
    fn plan(&self, walk: &mut Walk, part: &mut Part) -> Result<(), ClientError> {
        while part.jobs.len() < JOBS_AT_ONCE
            && let Some((path, node)) = walk.stack.pop()
        {
            let number = part.folders.len();
            let chunks = match &node.content {
                Content::Folder { chunks } => chunks.clone(),
                _ => Vec::new(),
            };
            part.folders.push(Folder { path: path.clone(), node: Some(node) });
            let nodes = match self.reader.tree(&chunks) {
                Ok(nodes) => nodes,
                Err(ReadError::Damaged(misbehaviour)) => {
                    let why = format!("the list of this folder: {misbehaviour}");
                    self.report().refused.push(RefusedFile { path, why });
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut inner = Vec::new();
            for node in nodes {
                if matches!(node.content, Content::Folder { .. }) {
                    inner.push((path.join(name(&node)), node));
                } else {
                    let is_other_name = walk.has_come(&path, &node);
                    part.jobs.push(Job { folder: number, node, is_other_name });
                }
            }
            walk.stack.extend(inner.into_iter().rev());
        }
        self.progress.expect(part.jobs.iter().filter(|job| is_file(&job.node)).count() as u64);
        Ok(())
    }

    fn write(&self, part: &Part, walk: &Walk) -> Result<(), ClientError> {
        for folder in part.folders.iter().filter(|folder| !folder.path.as_os_str().is_empty()) {
            if let Err(error) = self.make_folder(folder) {
                self.fail(&folder.path, &error);
            }
        }
        let (cursor, to_fill) = (AtomicUsize::new(0), Mutex::default());
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..WORKERS).map(|_| scope.spawn(|| self.work(part, &cursor, &to_fill))).collect();
            join_all(workers)
        })?;
        self.fill(part, &to_fill.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        let left = self.other_names(part, walk)?;
        self.fill(part, &left)
    }

    /// Gives folders what they are, innermost first: a folder's own times change when something in it
    /// does, and nothing does any more.
    fn finish_folders(&self, folders: Vec<Folder>) {
        for folder in folders.iter().rev() {
            let Some(node) = &folder.node else { continue };
            let opened = self.open_folder(&folder.path);
            if let Err(error) = opened.and_then(|fd| self.set_meta(&fd, node, &folder.path)) {
                self.fail(&folder.path, &error);
            }
        }
    }

    /// Gives files their other names, once they are there under their first. Returns those that are to be
    /// filled as files of their own: the first is not there, or the file system has no such names.
    fn other_names(&self, part: &Part, walk: &Walk) -> Result<Vec<usize>, ClientError> {
        let mut left = Vec::new();
        for (number, job) in part.jobs.iter().enumerate().filter(|(_, job)| job.is_other_name) {
            let first = job.node.links.and_then(|number| walk.first_names.get(&number));
            let Some((first_folder, first)) = first else { continue };
            let folder = &part.folders[job.folder].path;
            let linked = self.open_folder(first_folder).and_then(|from| {
                let temporary = self.temporary();
                let from_name = first.name.as_slice();
                linkat(&from, from_name, &self.staging, &temporary, AtFlags::empty())?;
                rename(&self.staging, &temporary, &self.open_folder(folder)?, &job.node)
            });
            let path = folder.join(name(&job.node));
            match linked {
                Ok(()) => self.did(&job.node),
                Err(_) => match self.open_folder(folder) {
                    Ok(folder) if !self.entry(&folder, &job.node, &path)? => left.push(number),
                    Ok(_) => {}
                    Err(error) => self.fail(&path, &error),
                },
            }
        }
        Ok(left)
    }

    /// Restores what has no content, and finds the files that are to be filled.
    fn work(
        &self,
        part: &Part,
        cursor: &AtomicUsize,
        to_fill: &Mutex<Vec<usize>>,
    ) -> Result<(), ClientError> {
        let mut open: Option<(usize, OwnedFd)> = None;
        loop {
            let start = cursor.fetch_add(BATCH, Ordering::Relaxed);
            let batch = start..part.jobs.len().min(start + BATCH);
            if batch.is_empty() {
                return Ok(());
            }
            let mut found = Vec::new();
            for number in batch {
                let job = &part.jobs[number];
                let path = part.folders[job.folder].path.join(name(&job.node));
                if open.as_ref().is_none_or(|(number, _)| *number != job.folder) {
                    match self.open_folder(&part.folders[job.folder].path) {
                        Ok(fd) => open = Some((job.folder, fd)),
                        Err(error) => {
                            self.fail(&path, &error);
                            continue;
                        }
                    }
                }
                let Some((_, folder)) = &open else { continue };
                if !job.is_other_name && !self.entry(folder, &job.node, &path)? {
                    found.push(number);
                }
            }
            to_fill.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
        }
    }

    /// Restores an entry that has no content, or is there already; returns false for a file that is to
    /// be filled. One that can't be written is listed, and the others go on.
    fn entry(&self, folder: &OwnedFd, node: &Node, path: &Path) -> Result<bool, ClientError> {
        let done = match &node.content {
            Content::File { size, chunks, holes } => {
                if self.is_there(folder, node, path, (*size, chunks, holes)) {
                    Ok(())
                } else if chunks.is_empty() {
                    self.fill_with_nothing(folder, node, path)
                } else {
                    return Ok(false);
                }
            }
            _ => self.special(folder, node, path),
        };
        match done {
            Ok(()) => self.did(node),
            Err(error) if is_disk_full(&error) => {
                return Err(ClientError::local("writing", self.target.join(path))(error));
            }
            Err(error) => self.fail(path, &error),
        }
        Ok(true)
    }

    fn did(&self, node: &Node) {
        if let Content::File { size, .. } = node.content {
            let mut report = self.report();
            report.files += 1;
            report.bytes += size;
            self.progress.did(1, size);
        }
    }

    /// Returns whether the file is in place already, by an earlier run that was interrupted: same
    /// size and time, and its content has the ids that the tree names.
    fn is_there(
        &self,
        folder: &OwnedFd,
        node: &Node,
        path: &Path,
        (size, chunks, holes): (u64, &[ChunkId], &[Hole]),
    ) -> bool {
        let name = node.name.as_slice();
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        let same_look = FileType::from_raw_mode(stat.st_mode).is_file()
            && u64::try_from(stat.st_size) == Ok(size)
            && stat.st_mtime.cast_unsigned() == node.mtime_s
            && stat.st_mtime_nsec == u64::from(node.mtime_ns)
            // A file with several names may belong to somebody else, too.
            && (stat.st_nlink == 1 || node.links.is_some());
        if !same_look {
            return false;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(fd) = openat(folder, name, flags, Mode::empty()) else { return false };
        let mut file = File::from(fd);
        if !crate::scan::holes(&file, &stat).is_ok_and(|found| found == holes) {
            return false;
        }
        let mut content = Pieces { file: &mut file, pieces: pieces(size, holes), at: 0 };
        let mut chunk = Vec::new();
        for id in chunks {
            let Some(len) = self.reader.chunk_len(id) else { return false };
            chunk.resize(len, 0);
            if content.read_exact(&mut chunk).is_err() || self.reader.data_id(&chunk) != *id {
                return false;
            }
        }
        self.set_meta(&file, node, path).is_ok()
    }

    /// Restores what has no content: a link, a pipe, a device.
    fn special(&self, folder: &OwnedFd, node: &Node, path: &Path) -> io::Result<()> {
        let temporary = self.temporary();
        let mode = Mode::from_raw_mode(node.mode);
        let make = |kind, device| mknodat(&self.staging, &temporary, kind, mode, device);
        match &node.content {
            Content::Symlink { target } => symlinkat(target.as_slice(), &self.staging, &temporary),
            Content::Fifo => make(FileType::Fifo, 0),
            Content::CharacterDevice { major, minor } => {
                make(FileType::CharacterDevice, makedev(*major, *minor))
            }
            Content::BlockDevice { major, minor } => {
                make(FileType::BlockDevice, makedev(*major, *minor))
            }
            Content::File { .. } | Content::Folder { .. } => return Ok(()),
        }?;
        if may_chown() {
            let (uid, gid) = owner(node);
            chownat(&self.staging, &temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let of = Of::Entry(&self.staging, temporary.as_bytes());
        self.set_attributes(&of, node, path);
        if !matches!(node.content, Content::Symlink { .. }) {
            // It was made by this restore a moment ago, in a folder that nobody else writes to.
            chmodat(&self.staging, &temporary, mode, AtFlags::empty())?;
        }
        utimensat(&self.staging, &temporary, &times(node), AtFlags::SYMLINK_NOFOLLOW)?;
        rename(&self.staging, &temporary, folder, node)
    }

    fn set_meta(&self, fd: &impl AsFd, node: &Node, path: &Path) -> io::Result<()> {
        if may_chown() {
            let (uid, gid) = owner(node);
            fchown(fd, uid, gid)?;
        }
        self.set_attributes(&Of::File(fd), node, path);
        fchmod(fd, Mode::from_raw_mode(node.mode))?;
        Ok(futimens(fd, &times(node))?)
    }

    /// Without its attributes, an entry is better than not at all; which of them can't be set is listed.
    fn set_attributes(&self, of: &Of<'_, impl AsFd>, node: &Node, path: &Path) {
        if let Err(error) = of.write(&node.attributes) {
            let error = io::Error::new(error.kind(), format!("its attributes: {error}"));
            self.fail(path, &error);
        }
    }

    fn make_folder(&self, folder: &Folder) -> io::Result<()> {
        let parent = folder.path.parent().unwrap_or_else(|| Path::new(""));
        let name = folder.path.file_name().unwrap_or_default();
        let parent = self.open_folder(parent)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(()),
            // What is there must be a folder, not a link to one.
            Err(rustix::io::Errno::EXIST) => self.open_folder(&folder.path).map(|_| ()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a folder of the target; a link on the way, or a way out, is an error.
    fn open_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        open_beneath(&self.root, path)
    }

    fn temporary(&self) -> String {
        self.counter.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn fail(&self, path: &Path, error: &io::Error) {
        let refused = RefusedFile { path: path.to_owned(), why: error.to_string() };
        self.report().failed.push(refused);
    }

    fn report(&self) -> std::sync::MutexGuard<'_, RestoreReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum EntryError {
    Read(ReadError),
    Local(io::Error),
}

impl From<ReadError> for EntryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for EntryError {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

/// Opens the target and a fresh staging folder in it. What an interrupted restore left there goes.
fn open_target(target: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, target, flags, Mode::empty())?;
    let staging = target.join(STAGING);
    match fs::symlink_metadata(&staging) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&staging)?,
        Ok(_) => fs::remove_file(&staging)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    mkdirat(&root, STAGING, Mode::from_raw_mode(0o700))?;
    let staging = open_beneath(&root, Path::new(STAGING))?;
    Ok((root, staging))
}

fn rename(staging: &OwnedFd, from: &str, folder: &OwnedFd, node: &Node) -> io::Result<()> {
    renameat(staging, from, folder, node.name.as_slice()).map_err(io::Error::from)
}

/// Only the superuser may give files away; for anybody else, what they restore is theirs.
pub(crate) fn may_chown() -> bool {
    rustix::process::geteuid().is_root()
}

fn owner(node: &Node) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
}

fn times(node: &Node) -> Timestamps {
    let mtime = Timespec { tv_sec: node.mtime_s.cast_signed(), tv_nsec: i64::from(node.mtime_ns) };
    Timestamps { last_access: mtime, last_modification: mtime }
}

/// What of a file is in no hole, one after the other.
struct Pieces<'a> {
    file: &'a mut File,
    pieces: Vec<(u64, u64)>,
    at: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((start, end)) = self.pieces.get_mut(self.at) else { return Ok(0) };
        let room = usize::try_from(*end - *start).map_or(buffer.len(), |len| len.min(buffer.len()));
        let len = self.file.read_at(&mut buffer[..room], *start)?;
        *start += len as u64;
        if start == end {
            self.at += 1;
        }
        Ok(len)
    }
}

fn name(node: &Node) -> &OsStr {
    OsStr::from_bytes(node.name.as_slice())
}

fn is_file(node: &Node) -> bool {
    matches!(node.content, Content::File { .. })
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
