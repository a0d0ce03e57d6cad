//! A backup run: scan, read what changed, store what is new, and put a head on it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::fs::OFlags;
use sr_vault::{
    CHUNK_LEN_MAX, ChunkId, ChunkIds, Chunker,
    block::{BlockBuilder, Compressor, Kind},
    head::NewHead,
    index::ChunkIndex,
    manifest::{Manifest, Snapshot},
    tree::{self, Content, Node},
};
use sr_wire::SnapshotId;

use crate::{
    ClientError, Clock, Folder,
    cache::{NewCache, OldCache},
    heads::{self, Sent},
    profile::Profile,
    progress::{Phase, Progress},
    remote::{Remote, os_rng},
    scan::{self, ItemKind, Scan, Stamp, set_file},
    sink::{Adopted, Sink, Stopped, UPLOADERS, upload},
    view::{Cache, For, View},
};

/// Files that a worker takes at once: neighbours, so that they share a block.
const BATCH: usize = 32;
const WORKERS_MAX: usize = 8;
/// A file that changed this recently may change again within one tick of its clock, unseen.
const SETTLED_S: i64 = 2;

/// Something that is not in a snapshot, or not as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
}

impl Skipped {
    pub(crate) fn unreadable(path: PathBuf, error: &io::Error) -> Self {
        Self { path, why: error.to_string() }
    }
}

/// What a run did for one folder.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot; `None` when the folder could not be read at all.
    pub snapshot: Option<SnapshotId>,
    /// The folder.
    pub path: PathBuf,
    /// Files in the snapshot.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were read, because they are new or changed.
    pub files_read: u64,
    /// What is not in the snapshot, or changed while it was read.
    pub skipped: Vec<Skipped>,
}

impl BackupReport {
    fn unreadable(path: PathBuf, error: &io::Error) -> Self {
        let skipped = vec![Skipped::unreadable(path.clone(), error)];
        Self { snapshot: None, path, files: 0, bytes: 0, files_read: 0, skipped }
    }
}

struct Run<'a> {
    ids: ChunkIds,
    chunker: Chunker,
    sink: Sink<'a>,
    progress: &'a Progress,
    /// The profile's own files are not backed up: they change while they are read.
    exclude: PathBuf,
    cache_dir: PathBuf,
    now_s: u64,
    /// The first snapshot of this run is the vault's so-manieth.
    next_number: u64,
}

/// Backs up `folders` under one new head.
pub(crate) fn run(
    profile: &mut Profile,
    remote: &Remote,
    folders: &[Folder],
    clock: &Clock,
    progress: &Progress,
) -> Result<Vec<BackupReport>, ClientError> {
    progress.start(Phase::Connecting, 0);
    let keys = Arc::clone(&profile.keys);
    let ids = ChunkIds::new(&keys.vault);
    let damaged = profile.damaged_packs()?;
    let mut view = View::open(profile, remote, &ids, For::Writing(&damaged))?;
    let stored = view.adopt_pending(profile, remote)?;
    let adopted = Adopted { stored, to_index_anew: std::mem::take(&mut view.to_index_anew) };
    let device = profile.device_name()?;
    let (exclude, cache_dir) = (profile.dir().to_owned(), profile.cache_dir()?);
    let cache = Cache { dir: cache_dir.clone() };
    let (sink, queue) = Sink::new(&keys.vault, &view.index);
    let run = Run {
        chunker: Chunker::new(&keys.vault),
        ids,
        sink,
        progress,
        exclude,
        cache_dir,
        now_s: clock(),
        next_number: view.manifest.snapshots.len() as u64,
    };
    let shared = Mutex::new(&mut *profile);
    let manifest = view.manifest.clone();
    let (result, uploaded) = thread::scope(|scope| {
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|_| scope.spawn(|| upload(&queue, &shared, &keys.vault, remote, progress)))
            .collect();
        let result = run.store(folders, device, adopted, manifest, &cache);
        (result, join_all(uploaders))
    });
    // An uploader's error is the cause, the workers' only its echo.
    uploaded?;
    let (mut reports, finished, ids) = result?;
    // What only that list knew was stored again, as far as it is here; that it was needed is said.
    if let (Some((_, why, _)), Some(report)) = (view.bad_lists.first(), reports.first_mut()) {
        let why = format!("a list on the server can't be read, run a check: {why}");
        report.skipped.push(Skipped { path: report.path.clone(), why });
    }
    progress.start(Phase::Finishing, 0);
    let mut finished = finished;
    let mut place = view.place;
    let added = added(&view.manifest, &finished.manifest);
    loop {
        let head = NewHead {
            previous: place,
            snapshot_set: finished.manifest.snapshot_set(&ids),
            index_set: finished.manifest.index_set(),
            manifest: finished.pack,
            time_s: clock(),
        }
        .seal(&keys.vault, &keys.account, &keys.device.signing(), &mut os_rng());
        if heads::swap(profile, remote, &keys.vault, &head)? == Sent::Accepted {
            break;
        }
        // Another device was faster: what this run stored goes on top of what that one did.
        let theirs = View::open(profile, remote, &ids, For::Writing(&[]))?;
        place = theirs.place;
        let mut merged = theirs.manifest;
        merged.snapshots.extend_from_slice(&added.snapshots);
        merged.indexes.extend_from_slice(&added.indexes);
        finished = store_manifest(profile, remote, merged, &cache)?;
    }
    if let Some(newest) = finished.manifest.snapshots.iter().map(|s| s.time_s).max() {
        profile.set_newest_snapshot_s(newest)?;
    }
    cache.keep_only(&finished.manifest, finished.pack);
    Ok(reports)
}

/// Returns what a run has added to `before`.
fn added(before: &Manifest, after: &Manifest) -> Manifest {
    let snapshots = after.snapshots.iter().filter(|s| !before.snapshots.contains(s));
    let indexes = after.indexes.iter().filter(|index| !before.indexes.contains(index));
    Manifest { snapshots: snapshots.cloned().collect(), indexes: indexes.copied().collect() }
}

/// Stores a manifest in a pack of its own.
fn store_manifest(
    profile: &mut Profile,
    remote: &Remote,
    manifest: Manifest,
    cache: &Cache,
) -> Result<crate::sink::Finished, ClientError> {
    let keys = Arc::clone(&profile.keys);
    let (index, progress) = (ChunkIndex::default(), Progress::default());
    let (sink, queue) = Sink::new(&keys.vault, &index);
    let shared = Mutex::new(profile);
    let (finished, uploaded) = thread::scope(|scope| {
        let uploader = scope.spawn(|| upload(&queue, &shared, &keys.vault, remote, &progress));
        let finished = compressor().and_then(|mut compressor| {
            sink.finish(Adopted::default(), manifest, &mut compressor, cache)
        });
        (finished, join_all(vec![uploader]))
    });
    uploaded?;
    finished
}

type Stored = (Vec<BackupReport>, crate::sink::Finished, ChunkIds);

impl Run<'_> {
    /// Stores all folders; consumes the run, so that the uploaders' queue ends.
    fn store(
        self,
        folders: &[Folder],
        device: Vec<u8>,
        adopted: Adopted,
        mut manifest: sr_vault::manifest::Manifest,
        cache: &Cache,
    ) -> Result<Stored, ClientError> {
        let mut compressor = compressor()?;
        let mut reports = Vec::new();
        for folder in folders {
            // A folder that is gone, on a disk that is not plugged in say, does not stop the others.
            let (snapshot, mut report) = match self.folder(folder, &device, &mut compressor) {
                Err(ClientError::Local { path, source, .. }) if path == folder.path => {
                    reports.push(BackupReport::unreadable(path, &source));
                    continue;
                }
                done => done?,
            };
            let id = snapshot.id(&self.ids);
            report.snapshot = Some(id);
            manifest.snapshots.push(snapshot);
            reports.push(report);
        }
        let finished = self.sink.finish(adopted, manifest, &mut compressor, cache)?;
        Ok((reports, finished, self.ids))
    }

    fn folder(
        &self,
        folder: &Folder,
        device: &[u8],
        compressor: &mut Compressor,
    ) -> Result<(Snapshot, BackupReport), ClientError> {
        self.progress.start(Phase::Scanning, 0);
        let mut scan = scan::scan(&folder.path, &self.exclude, self.progress)?;
        let cache_path = self.cache_dir.join(format!("files-{}", folder.id));
        let todo = self.unknown_files(&mut scan, &cache_path);
        self.progress.start(Phase::Storing, todo.len() as u64);
        for (number, outcome) in self.read_all(&scan, &todo)? {
            apply(&mut scan, number, outcome);
        }
        // Without the cache, the next run reads more and stores the same.
        let _ = self.write_cache(&scan, &cache_path);
        self.store_trees(&mut scan, compressor)?;
        let (files, bytes) = totals(&scan);
        let snapshot = Snapshot {
            time_s: self.now_s,
            number: self.next_number,
            device: device.to_vec().into(),
            path: folder.path.as_os_str().as_bytes().to_vec().into(),
            files,
            bytes,
            skipped: scan.skipped.len() as u64,
            root: scan.root,
        };
        let report = BackupReport {
            snapshot: None,
            path: folder.path.clone(),
            files,
            bytes,
            files_read: todo.len() as u64,
            skipped: scan.skipped,
        };
        Ok((snapshot, report))
    }

    /// Fills in the chunks of files that look as they did and whose chunks are stored, and returns
    /// the others.
    fn unknown_files(&self, scan: &mut Scan, cache_path: &Path) -> Vec<usize> {
        let mut cache = OldCache::open(cache_path);
        let mut todo = Vec::new();
        for number in 0..scan.items.len() {
            let ItemKind::File(stamp) = scan.items[number].kind else { continue };
            if stamp.size == 0 {
                continue;
            }
            let known = cache
                .find(&scan.path(&scan.items[number]), &stamp)
                .filter(|chunks| chunks.iter().all(|id| self.sink.is_stored(id)));
            match known {
                Some(chunks) => set_file(&mut scan.items[number].node, stamp.size, chunks),
                None => todo.push(number),
            }
        }
        todo
    }

    /// Reads files on all cores; each worker goes the whole way from file to block.
    fn read_all(&self, scan: &Scan, todo: &[usize]) -> Result<Vec<(usize, Outcome)>, ClientError> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_MAX));
        let cursor = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::with_capacity(todo.len()));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|_| scope.spawn(|| self.work(scan, todo, &cursor, &outcomes)))
                .collect();
            join_all(workers)
        })?;
        Ok(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn work(
        &self,
        scan: &Scan,
        todo: &[usize],
        cursor: &AtomicUsize,
        outcomes: &Mutex<Vec<(usize, Outcome)>>,
    ) -> Result<(), ClientError> {
        let mut worker = Worker {
            run: self,
            block: BlockBuilder::default(),
            compressor: compressor()?,
            buffer: Vec::new(),
        };
        loop {
            let start = cursor.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = todo.get(start..todo.len().min(start + BATCH)) else { break };
            if batch.is_empty() {
                break;
            }
            let mut done = Vec::with_capacity(batch.len());
            for number in batch {
                let outcome = worker.file(&scan.path(&scan.items[*number])).map_err(stopped)?;
                self.progress.did(1, outcome.len());
                done.push((*number, outcome));
            }
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).append(&mut done);
        }
        worker.flush().map_err(stopped)
    }

    /// Writes what files looked like, for the next run.
    fn write_cache(&self, scan: &Scan, path: &Path) -> io::Result<()> {
        let mut cache = NewCache::create(path.to_owned())?;
        let settled = i64::try_from(self.now_s).unwrap_or(i64::MAX) - SETTLED_S;
        for item in &scan.items {
            if let (ItemKind::File(stamp), Content::File { chunks, .. }) =
                (&item.kind, &item.node.content)
                && stamp.ctime.0 < settled
            {
                cache.add(&scan.path(item), stamp, chunks)?;
            }
        }
        cache.finish()
    }

    /// Stores the trees, innermost first, and leaves the root's chunks in the root.
    fn store_trees(&self, scan: &mut Scan, compressor: &mut Compressor) -> Result<(), ClientError> {
        let mut block = BlockBuilder::default();
        let mut stored: Vec<Vec<ChunkId>> = vec![Vec::new(); scan.folders.len()];
        for number in (0..scan.folders.len()).rev() {
            let mut nodes: Vec<Node> = Vec::with_capacity(scan.folders[number].items.len());
            for item in &scan.folders[number].items {
                let item = &mut scan.items[*item];
                match item.kind {
                    ItemKind::Gone => continue,
                    ItemKind::Folder(child) => {
                        let chunks = std::mem::take(&mut stored[child]);
                        item.node.content = Content::Folder { chunks };
                    }
                    ItemKind::File(_) | ItemKind::Symlink => {}
                }
                nodes.push(item.node.clone());
            }
            let bytes = tree::to_bytes(&nodes);
            if bytes.len() > tree::TREE_LEN_MAX {
                let path = scan.folders[number].path.display();
                return Err(ClientError::Resources(format!("{path} has too many entries")));
            }
            for chunk in self.chunker.chunks(&bytes) {
                let id = self.ids.tree(chunk);
                stored[number].push(id);
                if self.sink.claim(id) {
                    if !block.has_room(chunk.len()) {
                        self.sink.add(Kind::Tree, block.take(compressor)).map_err(stopped)?;
                    }
                    block.push(id, chunk);
                }
            }
        }
        if !block.is_empty() {
            self.sink.add(Kind::Tree, block.take(compressor)).map_err(stopped)?;
        }
        let chunks = stored.first_mut().map(std::mem::take).unwrap_or_default();
        scan.root.content = Content::Folder { chunks };
        Ok(())
    }
}

/// What reading a file gave.
enum Outcome {
    Read { stamp: Stamp, node: Node, changed: bool },
    Unreadable(io::Error),
}

impl Outcome {
    fn len(&self) -> u64 {
        match self {
            Self::Read { stamp, .. } => stamp.size,
            Self::Unreadable(_) => 0,
        }
    }
}

struct Worker<'a> {
    run: &'a Run<'a>,
    block: BlockBuilder,
    compressor: Compressor,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    /// Reads a file, once more if it changes meanwhile, and stores what of it is new.
    fn file(&mut self, path: &Path) -> Result<Outcome, Stopped> {
        let mut outcome = self.read_once(path)?;
        if matches!(outcome, Outcome::Read { changed: true, .. }) {
            outcome = self.read_once(path)?;
        }
        Ok(outcome)
    }

    fn read_once(&mut self, path: &Path) -> Result<Outcome, Stopped> {
        let opened = open_file(path).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, mut file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Outcome::Unreadable(error)),
        };
        let (mut size, mut chunks) = (0, Vec::new());
        self.buffer.clear();
        let mut at_end = false;
        let mut start = 0;
        loop {
            while !at_end && self.buffer.len() - start < CHUNK_LEN_MAX {
                self.buffer.drain(..start);
                start = 0;
                // One byte more than the file should have, so that its end is seen at once.
                let left = usize::try_from(meta.len().saturating_sub(size)).unwrap_or(usize::MAX);
                let room = (left + 1).clamp(4096, 2 * CHUNK_LEN_MAX);
                match read_some(&mut file, &mut self.buffer, room) {
                    Ok(0) => at_end = true,
                    Ok(len) => size += len as u64,
                    Err(error) => return Ok(Outcome::Unreadable(error)),
                }
            }
            if self.buffer.len() == start {
                break;
            }
            let len = self.run.chunker.cut(&self.buffer[start..]);
            let id = self.chunk(start, len)?;
            chunks.push(id);
            start += len;
        }
        let changed = match file.metadata() {
            Ok(after) => Stamp::of(&after) != Stamp::of(&meta) || size != meta.len(),
            Err(error) => return Ok(Outcome::Unreadable(error)),
        };
        let stamp = Stamp { size, ..Stamp::of(&meta) };
        let node = scan::node(b"", &meta, Content::File { size, chunks });
        Ok(Outcome::Read { stamp, node, changed })
    }

    fn chunk(&mut self, start: usize, len: usize) -> Result<ChunkId, Stopped> {
        let id = self.run.ids.data(&self.buffer[start..start + len]);
        if self.run.sink.claim(id) {
            if !self.block.has_room(len) {
                self.flush()?;
            }
            self.block.push(id, &self.buffer[start..start + len]);
        }
        Ok(id)
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.run.sink.add(Kind::Data, self.block.take(&mut self.compressor))
    }
}

fn apply(scan: &mut Scan, number: usize, outcome: Outcome) {
    let path = scan.path(&scan.items[number]);
    let item = &mut scan.items[number];
    match outcome {
        Outcome::Read { stamp, node, changed } => {
            let name = std::mem::replace(&mut item.node, node).name;
            item.node.name = name;
            if changed {
                // Not for the cache: what was read is no state that the file ever had.
                item.kind = ItemKind::File(Stamp { ctime: (i64::MAX, 0), ..stamp });
                scan.skipped.push(Skipped { path, why: "it changed while it was read".into() });
            } else {
                item.kind = ItemKind::File(stamp);
            }
        }
        Outcome::Unreadable(error) => {
            item.kind = ItemKind::Gone;
            scan.skipped.push(Skipped::unreadable(path, &error));
        }
    }
}

fn totals(scan: &Scan) -> (u64, u64) {
    scan.items.iter().fold((0, 0), |(files, bytes), item| match (&item.kind, &item.node.content) {
        (ItemKind::File(_), Content::File { size, .. }) => (files + 1, bytes + size),
        _ => (files, bytes),
    })
}

/// Opens a file and nothing else: a link or pipe that took its place is an error, not a wait.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a file any more"))
    }
}

/// Appends up to `room` bytes.
fn read_some(file: &mut File, buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
    let old_len = buffer.len();
    buffer.resize(old_len + room, 0);
    let result = loop {
        match file.read(&mut buffer[old_len..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    buffer.truncate(old_len + result.as_ref().map_or(0, |len| *len));
    result
}

fn compressor() -> Result<Compressor, ClientError> {
    Compressor::new().map_err(|error| ClientError::Resources(error.to_string()))
}

fn stopped(_: Stopped) -> ClientError {
    ClientError::Resources("the upload stopped".into())
}

/// Waits for all of `workers` and returns the first error.
pub(crate) fn join_all(
    workers: Vec<thread::ScopedJoinHandle<'_, Result<(), ClientError>>>,
) -> Result<(), ClientError> {
    let died = || ClientError::Resources("a worker thread ended unexpectedly".into());
    let results: Vec<_> =
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(died()))).collect();
    results.into_iter().collect()
}
