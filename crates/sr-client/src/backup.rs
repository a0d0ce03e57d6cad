//! A backup run: scan, read what changed, store what is new, and put a head on it.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use sr_vault::{
    ChunkId, ChunkIds, Chunker,
    block::{Compression, Compressor},
    head::{ADDS_MAX, NewHead},
    index::{ChunkIndex, IndexPack},
    manifest::{Elements, IndexRef, Listed, Manifest, Snapshot},
    tree::{self, Content, Node},
};
use sr_wire::{DeviceId, PackId, SnapshotId};

use crate::{
    ClientError, Clock, Folder,
    account::Keys,
    cache::{NewCache, OldCache},
    file::{FileReader, ReadFailed},
    heads::{self, Sent},
    outgoing,
    profile::Profile,
    progress::{Phase, Progress},
    remote::{Remote, os_rng},
    sink::{Adopted, Finished, Sink, UPLOADERS, upload},
    view::{Cache, For, View},
    walk::{Tools, Trees, stopped, walk},
};

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

/// How a run stores.
pub(crate) struct How {
    pub(crate) compression: Compression,
    /// Without a change, only the first run of a day makes a snapshot.
    pub(crate) automatic: bool,
    /// Tags of its snapshots.
    pub(crate) tags: Vec<String>,
}

/// What a run did.
pub(crate) struct Ran {
    pub(crate) reports: Vec<BackupReport>,
    pub(crate) manifest: Manifest,
    /// Packs that the server has lost.
    pub(crate) lost: Vec<PackId>,
    /// Pieces of content that are lost and were not on this device.
    pub(crate) unmended: u64,
}

/// What a run did for one folder.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot; `None` when the folder could not be read at all.
    pub snapshot: Option<SnapshotId>,
    /// Whether it was made by this run: an automatic one makes none when nothing changed.
    pub is_new: bool,
    /// The folder.
    pub path: PathBuf,
    /// Files in the snapshot.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were read, because they are new or changed.
    pub files_read: u64,
    /// Entries that a rule left out; of a folder only itself.
    pub left_out: u64,
    /// What is not in the snapshot, or changed while it was read.
    pub skipped: Vec<Skipped>,
}

impl BackupReport {
    fn unreadable(path: PathBuf, error: &io::Error) -> Self {
        let skipped = vec![Skipped::unreadable(path.clone(), error)];
        Self {
            snapshot: None,
            is_new: false,
            path,
            files: 0,
            bytes: 0,
            files_read: 0,
            left_out: 0,
            skipped,
        }
    }
}

struct Run<'a> {
    ids: ChunkIds,
    chunker: Chunker,
    sink: Sink<'a>,
    how: &'a How,
    progress: &'a Progress,
    /// The profile's own files are not backed up: they change while they are read.
    exclude: PathBuf,
    cache_dir: PathBuf,
    now_s: u64,
    /// The number of this run.
    next_number: u64,
    by: DeviceId,
    /// Chunks that the server has lost.
    distrusted: Vec<ChunkId>,
}

/// What is backed up.
pub(crate) enum What<'a> {
    Folders(&'a [Folder]),
    /// What a program writes, as a file of this name.
    Stream(&'a str, &'a mut (dyn Read + Send)),
}

/// Where streams are, each in a folder of its own name, so that rules tell them apart.
const STREAMS: &str = "/stdin";

/// Backs `what` up under one new head.
pub(crate) fn run(
    profile: &mut Profile,
    remote: &Remote,
    what: What<'_>,
    clock: &Clock,
    how: &How,
    progress: &Progress,
) -> Result<Ran, ClientError> {
    progress.start(Phase::Connecting, 0);
    let keys = Arc::clone(&profile.keys);
    let ids = ChunkIds::new(&keys.vault);
    let mut damaged = profile.damaged_packs()?;
    let mut view = View::open(profile, remote, For::Writing(&damaged))?;
    let mut lost = view.lost(remote, &keys.vault)?;
    if !lost.is_empty() {
        // Another device may have pruned in between.
        let now = View::open(profile, remote, For::Writing(&damaged))?;
        if now.place != view.place {
            lost = now.lost(remote, &keys.vault)?;
        }
        // What they held counts as not stored.
        profile.add_damaged(&lost)?;
        damaged.extend(&lost);
        view = View::open(profile, remote, For::Writing(&damaged))?;
    }
    outgoing::send_rest(profile, remote, progress)?;
    let stored = view.adopt_pending(profile, remote)?;
    let device = profile.device_name()?;
    let (exclude, cache_dir) = (profile.dir().to_owned(), profile.cache_dir()?);
    let cache = Cache { dir: cache_dir.clone() };
    let (mut sink, queue) = Sink::new(&keys.vault, &view.index);
    sink.adopt(&stored);
    let adopted = Adopted { stored, to_index_anew: std::mem::take(&mut view.to_index_anew) };
    let run = Run {
        chunker: Chunker::new(&keys.vault),
        ids,
        sink,
        how,
        progress,
        exclude,
        cache_dir,
        now_s: clock(),
        next_number: view.manifest.next_number(),
        by: keys.device.id(),
        distrusted: std::mem::take(&mut view.distrusted),
    };
    let shared = Mutex::new(&mut *profile);
    let manifest = view.manifest.clone();
    let (result, uploaded) = thread::scope(|scope| {
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|_| scope.spawn(|| upload(&queue, &shared, &keys.vault, remote, progress)))
            .collect();
        let result = run.store(what, device, adopted, manifest, &cache);
        (result, join_all(uploaders))
    });
    // An uploader's error is the cause, the workers' only its echo.
    uploaded?;
    let (mut reports, finished, unmended) = result?;
    let Some(mut finished) = finished else {
        return Ok(Ran { reports, manifest: view.manifest, lost, unmended });
    };
    // What only that list knew was stored again, as far as it is here; that it was needed is said.
    if let (Some((_, why, _)), Some(report)) = (view.bad_lists.first(), reports.first_mut()) {
        let why = format!("a list on the server can't be read, run a check: {why}");
        report.skipped.push(Skipped { path: report.path.clone(), why });
    }
    progress.start(Phase::Finishing, 0);
    let mut place = view.place;
    let mut base = view.manifest;
    loop {
        let head = NewHead {
            previous: place,
            snapshot_set: finished.manifest.snapshot_set(),
            index_set: finished.manifest.index_set(),
            manifest: finished.pack,
            time_s: clock(),
            adds: adds(&keys, &base, &finished.manifest)?,
        }
        .seal(&keys.vault, &keys.account, &keys.device.signing(), &mut os_rng());
        if heads::swap(profile, remote, &keys.vault, &head)? == Sent::Accepted {
            break;
        }
        // Another device was faster: what this run stored goes on top of what that one did.
        let theirs = View::open(profile, remote, For::Writing(&[]))?;
        if pruned_between(&base, &theirs.manifest) {
            // What this run found stored may be gone. What it stored itself is not lost.
            return Err(ClientError::Overtaken);
        }
        place = theirs.place;
        let added = added(&base, &finished.manifest);
        base = theirs.manifest;
        let mut merged = base.clone();
        merged.snapshots.extend_from_slice(&added.snapshots);
        for index in added.indexes {
            // One that was stored again keeps its place.
            match merged.indexes.iter_mut().find(|old| old.hash == index.hash) {
                Some(old) => *old = index,
                None => merged.indexes.push(index),
            }
        }
        finished = store_manifest(profile, remote, merged, Vec::new())?;
    }
    if let Some(newest) = finished.manifest.live().map(|listed| listed.snapshot.time_s).max() {
        profile.set_newest_snapshot_s(newest)?;
    }
    cache.keep_only(&finished.manifest, finished.pack);
    Ok(Ran { reports, manifest: finished.manifest, lost, unmended })
}

/// Returns what the head of a limited device has to say that it adds.
fn adds(keys: &Keys, before: &Manifest, after: &Manifest) -> Result<Elements, ClientError> {
    if !keys.is_limited() {
        return Ok(Elements::default());
    }
    let adds = after.adds_to(before).filter(|adds| adds.count() <= ADDS_MAX);
    adds.ok_or(ClientError::LimitedTooMuch)
}

/// Returns what a run has added to `before`.
fn added(before: &Manifest, after: &Manifest) -> Manifest {
    let snapshots = after.snapshots.iter().filter(|s| !before.snapshots.contains(s));
    let indexes = after.indexes.iter().filter(|index| !before.indexes.contains(index));
    Manifest {
        snapshots: snapshots.cloned().collect(),
        indexes: indexes.copied().collect(),
        retired: Vec::new(),
    }
}

/// Returns whether a list of `before` is not in `after`: packs that it named may be gone.
fn pruned_between(before: &Manifest, after: &Manifest) -> bool {
    let stays = |old: &IndexRef| after.indexes.iter().any(|index| index.hash == old.hash);
    !before.indexes.iter().all(stays)
}

/// Stores a manifest in a pack of its own, and an index of that and of `stored`.
pub(crate) fn store_manifest(
    profile: &mut Profile,
    remote: &Remote,
    manifest: Manifest,
    stored: Vec<IndexPack>,
) -> Result<Finished, ClientError> {
    let keys = Arc::clone(&profile.keys);
    let cache = Cache { dir: profile.cache_dir()? };
    let (index, progress) = (ChunkIndex::default(), Progress::default());
    let (sink, queue) = Sink::new(&keys.vault, &index);
    let shared = Mutex::new(profile);
    let (finished, uploaded) = thread::scope(|scope| {
        let uploader = scope.spawn(|| upload(&queue, &shared, &keys.vault, remote, &progress));
        let finished = compressor(Compression::Default).and_then(|mut compressor| {
            let adopted = Adopted { stored, ..Adopted::default() };
            sink.finish(adopted, manifest, &mut compressor, &cache)
        });
        (finished, join_all(vec![uploader]))
    });
    uploaded?;
    finished
}

/// Without anything that is new, nothing is finished.
type Stored = (Vec<BackupReport>, Option<Finished>, u64);

impl Run<'_> {
    /// Stores all folders; consumes the run, so that the uploaders' queue ends.
    fn store(
        self,
        what: What<'_>,
        device: Vec<u8>,
        adopted: Adopted,
        mut manifest: sr_vault::manifest::Manifest,
        cache: &Cache,
    ) -> Result<Stored, ClientError> {
        self.progress.start(Phase::Storing, 0);
        let (mut reports, mut is_new) = (Vec::new(), false);
        let folders = match what {
            What::Folders(folders) => folders,
            What::Stream(name, stream) => {
                let (snapshot, mut report) = self.stream(name, stream, &device)?;
                report.snapshot = Some(snapshot.id(&self.ids));
                is_new = true;
                self.list(&mut manifest, snapshot);
                reports.push(report);
                &[]
            }
        };
        for folder in folders {
            // A folder that is gone, on a disk that is not plugged in say, does not stop the others.
            let (snapshot, mut report) = match self.folder(folder, &device) {
                Err(ClientError::Local { path, source, .. }) if path == folder.path => {
                    reports.push(BackupReport::unreadable(path, &source));
                    continue;
                }
                done => done?,
            };
            if let Some(same) = self.same_today(&manifest, &snapshot) {
                (report.snapshot, report.is_new) = (Some(same), false);
                reports.push(report);
                continue;
            }
            let id = snapshot.id(&self.ids);
            report.snapshot = Some(id);
            is_new = true;
            self.list(&mut manifest, snapshot);
            reports.push(report);
        }
        let is_adopted = !adopted.stored.is_empty() || !adopted.to_index_anew.is_empty();
        if self.how.automatic && !is_new && !is_adopted && self.sink.is_empty() {
            return Ok((reports, None, self.unmended()));
        }
        let unmended = self.unmended();
        let finished =
            self.sink.finish(adopted, manifest, &mut compressor(Compression::Default)?, cache)?;
        Ok((reports, Some(finished), unmended))
    }

    fn unmended(&self) -> u64 {
        self.distrusted.iter().filter(|id| !self.sink.has_stored(id)).count() as u64
    }

    fn list(&self, manifest: &mut Manifest, snapshot: Snapshot) {
        let mut listed = Listed::new(snapshot);
        self.how.tags.iter().for_each(|tag| listed.set_tag(tag, true));
        manifest.snapshots.push(listed);
    }

    /// Stores a stream as the only file of a folder.
    fn stream(
        &self,
        name: &str,
        stream: &mut dyn Read,
        device: &[u8],
    ) -> Result<(Snapshot, BackupReport), ClientError> {
        let (ids, chunker, sink) = (&self.ids, &self.chunker, &self.sink);
        let mut reader = FileReader::new(ids, chunker, sink, compressor(self.how.compression)?);
        let path = Path::new(STREAMS).join(name);
        let (len, chunks) =
            reader.stream(stream, self.progress).map_err(|failed| match failed {
                ReadFailed::Local(error) => ClientError::local("reading", &path)(error),
                ReadFailed::Stopped(error) => stopped(error),
            })?;
        reader.flush().map_err(stopped)?;
        drop(reader);
        sink.settle();
        let node = |name: &str, mode, content| Node {
            name: name.as_bytes().to_vec().into(),
            mode,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mtime_s: self.now_s,
            mtime_ns: 0,
            links: None,
            attributes: Vec::new(),
            content,
        };
        let file = Content::File { size: len, chunks, holes: Vec::new() };
        let bytes = tree::to_bytes([&node(name, 0o600, file)]);
        let (mut trees, mut chunks) = (Trees::new()?, Vec::new());
        for chunk in chunker.chunks(&bytes) {
            let id = ids.tree(chunk);
            chunks.push(id);
            if sink.claim(id) {
                trees.push(sink, id, chunk).map_err(stopped)?;
            }
        }
        trees.flush(sink).map_err(stopped)?;
        let snapshot = Snapshot {
            time_s: self.now_s,
            number: self.next_number,
            by: self.by,
            device: device.to_vec().into(),
            path: path.as_os_str().as_bytes().to_vec().into(),
            files: 1,
            bytes: len,
            skipped: 0,
            root: node("", 0o700, Content::Folder { chunks }),
        };
        let report = BackupReport {
            snapshot: None,
            is_new: true,
            path,
            files: 1,
            bytes: len,
            files_read: 1,
            left_out: 0,
            skipped: Vec::new(),
        };
        Ok((snapshot, report))
    }

    /// Returns this device's newest snapshot of the same folder, if it is of the same day and the folder
    /// was as it is now: then an automatic run makes no other. The first of a day is made all the same,
    /// so that days without a change look like those with a small one.
    fn same_today(&self, manifest: &Manifest, now: &Snapshot) -> Option<SnapshotId> {
        const DAY_S: u64 = 86_400;
        let is_own =
            |old: &Snapshot| (old.by, old.path.as_slice()) == (now.by, now.path.as_slice());
        let own = manifest.live().rev().map(|listed| &listed.snapshot).find(|old| is_own(old))?;
        let is_same = own.root == now.root
            && own.skipped == now.skipped
            && own.time_s / DAY_S == now.time_s / DAY_S;
        (self.how.automatic && is_same).then(|| own.id(&self.ids))
    }

    fn folder(
        &self,
        folder: &Folder,
        device: &[u8],
    ) -> Result<(Snapshot, BackupReport), ClientError> {
        let cache_path = self.cache_dir.join(format!("files-{}", folder.id));
        let settled_s = i64::try_from(self.now_s).unwrap_or(i64::MAX) - SETTLED_S;
        let old = OldCache::open(&cache_path);
        // Without the cache, the next run reads more and stores the same.
        let new = NewCache::create(cache_path, settled_s).ok();
        let (ids, chunker) = (&self.ids, &self.chunker);
        let (sink, compression, progress) = (&self.sink, self.how.compression, self.progress);
        let apart = folder.rules.no_dedup_across.then_some(folder.id);
        let tools = Tools { ids, chunker, sink, compression, apart, progress };
        let walked = walk(&tools, &folder.path, &folder.rules, &self.exclude, &old, new)?;
        let snapshot = Snapshot {
            time_s: self.now_s,
            number: self.next_number,
            by: self.by,
            device: device.to_vec().into(),
            path: folder.path.as_os_str().as_bytes().to_vec().into(),
            files: walked.files,
            bytes: walked.bytes,
            skipped: walked.skipped.len() as u64,
            root: walked.root,
        };
        let report = BackupReport {
            snapshot: None,
            is_new: true,
            path: folder.path.clone(),
            files: walked.files,
            bytes: walked.bytes,
            files_read: walked.files_read,
            left_out: walked.left_out,
            skipped: walked.skipped,
        };
        Ok((snapshot, report))
    }
}

pub(crate) fn compressor(compression: Compression) -> Result<Compressor, ClientError> {
    Compressor::new(compression).map_err(|error| ClientError::Resources(error.to_string()))
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
