//! One pass over a folder: listed by one thread, files read by several, and each folder's tree stored
//! as soon as all that is in it is known. What is in memory is what is on the way, not the whole tree.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use rustix::fs::{Mode, OFlags, fstat};
use sr_vault::{
    ChunkId, ChunkIds, Chunker,
    block::{BlockBuilder, Compression, Compressor, Kind},
    tree::{self, Attribute, Content, Node},
};

use crate::{
    ClientError,
    attributes::Of,
    backup::{Skipped, compressor, join_all},
    beneath::open_beneath,
    cache::{NewCache, OldCache},
    exclude::{Excluder, Ignores, Rules},
    file::{Apart, FileReader, Outcome},
    progress::Progress,
    scan::{self, Item, Opened, set_file},
    sink::{Sink, Stopped},
};

/// Files that a worker takes at once: neighbours, so that they share a block.
const BATCH: usize = 32;
const WORKERS_MAX: usize = 8;
/// Files that may wait for a reader before the listing waits for the readers.
const UNREAD_MAX: usize = 16 << 10;

/// What a walk works with.
pub(crate) struct Tools<'a> {
    pub(crate) ids: &'a ChunkIds,
    pub(crate) chunker: &'a Chunker,
    pub(crate) sink: &'a Sink<'a>,
    pub(crate) compression: Compression,
    /// The folder's number, if it shares nothing with others.
    pub(crate) apart: Option<i64>,
    pub(crate) progress: &'a Progress,
}

/// What a walk found and stored.
pub(crate) struct Walked {
    pub(crate) root: Node,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) files_read: u64,
    /// Entries that a rule leaves out; of a folder only itself.
    pub(crate) left_out: u64,
    pub(crate) skipped: Vec<Skipped>,
}

/// Stores the folder at `path`, without what `rules` leave out. `profile` is left out, whose files would change while they are read.
///
/// **Errors** [`ClientError::Local`] for that path when it can't be read; what can't be read below it is
/// listed.
pub(crate) fn walk(
    tools: &Tools<'_>,
    path: &Path,
    rules: &Rules,
    profile: &Path,
    old: &OldCache,
    new: Option<NewCache>,
) -> Result<Walked, ClientError> {
    let cannot = |error: io::Error| ClientError::local("reading", path)(error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| cannot(error.into()))?;
    let stat = fstat(&root).map_err(|error| cannot(error.into()))?;
    let mut node = scan::node(&stat, stat.st_dev, Content::Folder { chunks: Vec::new() });
    let walk = Walk {
        tools,
        path,
        root,
        device: stat.st_dev,
        profile: scan::inside(path, profile),
        excluder: Excluder::new(rules)?,
        old,
        state: Mutex::new(State {
            folders: HashMap::new(),
            next: 0,
            unread: 0,
            failed: false,
            root: None,
            cache: new,
            walked: Walked {
                root: node.clone(),
                files: 0,
                bytes: 0,
                files_read: 0,
                left_out: 0,
                skipped: Vec::new(),
            },
        }),
        trees: Mutex::new(Trees::new()?),
        room: Condvar::new(),
    };
    walk.run().map_err(|error| match error {
        WalkError::Root(error) => cannot(error),
        WalkError::Client(error) => error,
    })?;
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut walked = state.walked;
    let (chunks, attributes) = state.root.unwrap_or_default();
    (node.content, node.attributes) = (Content::Folder { chunks }, attributes);
    walked.root = node;
    walked.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    // Without the cache, the next run reads more and stores the same.
    let _ = state.cache.map(NewCache::finish);
    Ok(walked)
}

struct Walk<'a> {
    tools: &'a Tools<'a>,
    path: &'a Path,
    root: OwnedFd,
    device: u64,
    /// The folder that holds the profile, and the profile's name in it.
    profile: Option<(PathBuf, Vec<u8>)>,
    excluder: Excluder<'a>,
    old: &'a OldCache,
    state: Mutex<State>,
    trees: Mutex<Trees>,
    /// Rung when there is less on the way, or when nothing goes on.
    room: Condvar,
}

/// What several threads share.
struct State {
    /// Folders of which something is not known yet.
    folders: HashMap<usize, Folder>,
    next: usize,
    /// Files that wait for a reader.
    unread: usize,
    /// A reader has ended with an error.
    failed: bool,
    root: Option<Stored>,
    cache: Option<NewCache>,
    walked: Walked,
}

/// What a folder's node needs to know of it.
type Stored = (Vec<ChunkId>, Vec<Attribute>);

/// A folder on the way.
struct Folder {
    /// Below the root.
    path: PathBuf,
    /// The folder that it is in, and its place there; none for the root.
    parent: Option<(usize, usize)>,
    attributes: Vec<Attribute>,
    items: Vec<Item>,
    /// Files and folders in it that are not known yet.
    unknown: usize,
}

/// A folder that is to be listed.
struct ToList {
    path: PathBuf,
    parent: Option<(usize, usize)>,
    /// The `.gitignore` files of the folders that it is in.
    ignores: Option<Arc<Ignores>>,
}

/// A file that is to be read. Its folder is opened again then: so many files wait that there would be too
/// many open folders.
struct ToRead {
    folder: Arc<Path>,
    number: usize,
    place: usize,
    name: Vec<u8>,
    apart: Option<Apart>,
}

type Batches = Mutex<Option<mpsc::Receiver<Vec<ToRead>>>>;

enum WalkError {
    /// The root itself can't be listed.
    Root(io::Error),
    Client(ClientError),
}

impl From<ClientError> for WalkError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Walk<'_> {
    fn run(&self) -> Result<(), WalkError> {
        let (batches, queue) = mpsc::channel();
        let queue: Batches = Mutex::new(Some(queue));
        let count = thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_MAX));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..count).map(|_| scope.spawn(|| self.work(&queue))).collect();
            let listed = self.list_all(&batches);
            drop(batches);
            let worked = join_all(workers);
            // A reader's error is the cause, the listing's may be its echo.
            worked.map_err(WalkError::Client).and(listed)
        })?;
        Ok(lock(&self.trees).flush(self.tools.sink).map_err(stopped)?)
    }

    /// Lists all folders, each before those in it.
    fn list_all(&self, batches: &mpsc::Sender<Vec<ToRead>>) -> Result<(), WalkError> {
        let mut stack = vec![ToList { path: PathBuf::new(), parent: None, ignores: None }];
        let mut to_read = VecDeque::new();
        while let Some(next) = stack.pop() {
            let is_root = next.parent.is_none();
            let listed = self
                .open(&next.path)
                .and_then(|opened| self.list(&opened, &next, &mut to_read, &mut stack));
            match listed {
                Ok(folder) => self.finish_folders(folder)?,
                Err(error) if is_root => return Err(WalkError::Root(error)),
                Err(error) => {
                    let skipped = Skipped::unreadable(self.path.join(&next.path), &error);
                    self.state().walked.skipped.push(skipped);
                    let above = self.know(next.parent, Stored::default());
                    self.finish_folders(above)?;
                }
            }
            while to_read.len() >= BATCH {
                self.send(batches, to_read.drain(..BATCH).collect())?;
            }
        }
        self.send(batches, to_read.into())
    }

    fn open(&self, folder: &Path) -> io::Result<Opened> {
        let fd = open_beneath(&self.root, folder)?;
        Ok(Opened { fd, path: self.path.join(folder), device: self.device })
    }

    fn send(
        &self,
        batches: &mpsc::Sender<Vec<ToRead>>,
        batch: Vec<ToRead>,
    ) -> Result<(), WalkError> {
        let is_full = |state: &mut State| state.unread >= UNREAD_MAX && !state.failed;
        let state = self.room.wait_while(self.state(), is_full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return Err(WalkError::Client(stopped(Stopped)));
        }
        state.unread += batch.len();
        drop(state);
        batches.send(batch).map_err(|_| WalkError::Client(stopped(Stopped)))
    }

    /// Lists a folder. Returns it if all that is in it is known.
    fn list(
        &self,
        opened: &Opened,
        this: &ToList,
        to_read: &mut VecDeque<ToRead>,
        stack: &mut Vec<ToList>,
    ) -> io::Result<Option<Folder>> {
        let (path, parent, mut ignores) = (this.path.clone(), this.parent, this.ignores.clone());
        let profile = self.profile.as_ref().filter(|(folder, _)| *folder == path);
        let mut skipped = Vec::new();
        let mut items =
            opened.list(|name| profile.is_some_and(|(_, own)| own == name), &mut skipped)?;
        let left_out = self.excluder.apply(opened, &path, &mut items, &mut ignores)?;
        let attributes = Of::File(&opened.fd).read()?;
        let known = self.old.folder(&path);
        let number = self.number();
        let (mut files, mut bytes, mut folders) = (0, 0, Vec::new());
        let (folder, before): (Arc<Path>, _) = (path.as_path().into(), to_read.len());
        for (place, item) in items.iter_mut().enumerate() {
            match item.node.content {
                Content::Folder { .. } => folders.push(ToList {
                    path: path.join(name(item)),
                    parent: Some((number, place)),
                    ignores: ignores.clone(),
                }),
                Content::File { .. } => {
                    if self.is_known(item, &known) {
                        (files, bytes) = (files + 1, bytes + item.stamp.size);
                        continue;
                    }
                    let (folder, name) = (Arc::clone(&folder), item.node.name.as_slice().to_vec());
                    let apart = self.tools.apart.map(|folder| {
                        let before = known.before(&name).map(|known| known.chunks.iter());
                        let before = before.into_iter().flatten().copied().collect();
                        Apart { folder, before: Arc::new(before) }
                    });
                    to_read.push_back(ToRead { folder, number, place, name, apart });
                }
                _ => {}
            }
        }
        let new = to_read.len() - before;
        self.tools.progress.expect(files + new as u64);
        self.tools.progress.did(files, 0);
        let unknown = new + folders.len();
        stack.extend(folders.into_iter().rev());
        let folder = Folder { path, parent, attributes, items, unknown };
        let mut state = self.state();
        state.walked.skipped.append(&mut skipped);
        state.walked.files += files;
        state.walked.bytes += bytes;
        state.walked.left_out += left_out.len() as u64;
        if unknown == 0 {
            return Ok(Some(folder));
        }
        state.folders.insert(number, folder);
        Ok(None)
    }

    /// Fills in a file that is empty, or looks as it did and has all its chunks on the server.
    fn is_known(&self, item: &mut Item, folder: &crate::cache::KnownFolder) -> bool {
        let Some(known) = folder.find(item.node.name.as_slice(), &item.stamp) else { return false };
        let is_stored = known.chunks.iter().all(|id| self.tools.sink.is_stored(id));
        if is_stored {
            let (chunks, holes) = (known.chunks.clone(), known.holes.clone());
            set_file(&mut item.node, item.stamp.size, chunks, holes);
            item.node.attributes.clone_from(&known.attributes);
        }
        is_stored
    }

    /// Reads files until there are no more.
    fn work(&self, queue: &Batches) -> Result<(), ClientError> {
        let Tools { ids, chunker, sink, progress, compression, .. } = self.tools;
        let mut reader = FileReader::new(ids, chunker, sink, compressor(*compression)?);
        let mut opened: Option<(usize, io::Result<Opened>)> = None;
        let mut run = || -> Result<(), ClientError> {
            loop {
                let next = lock(queue).as_ref().map(mpsc::Receiver::recv);
                let Some(Ok(batch)) = next else { return reader.flush().map_err(stopped) };
                for file in batch {
                    if opened.as_ref().is_none_or(|(number, _)| *number != file.number) {
                        opened = Some((file.number, self.open(&file.folder)));
                    }
                    let outcome = match &opened {
                        Some((_, Ok(folder))) => {
                            let apart = file.apart.as_ref();
                            reader.file(folder, &file.name, apart).map_err(stopped)?
                        }
                        Some((_, Err(error))) => {
                            Outcome::Unreadable(io::Error::new(error.kind(), error.to_string()))
                        }
                        None => continue,
                    };
                    progress.did(1, outcome.len());
                    self.take(&file, outcome)?;
                }
            }
        };
        let done = run();
        if done.is_err() {
            self.state().failed = true;
            self.room.notify_one();
        }
        done
    }

    /// Fills in what reading a file gave.
    fn take(&self, file: &ToRead, outcome: Outcome) -> Result<(), ClientError> {
        let mut state = self.state();
        let state_ref = &mut *state;
        let Some(folder) = state_ref.folders.get_mut(&file.number) else { return Ok(()) };
        let item = &mut folder.items[file.place];
        let path = || self.path.join(&file.folder).join(name(item));
        match outcome {
            Outcome::Read { stamp, node, changed } => {
                state_ref.walked.files += 1;
                state_ref.walked.files_read += u64::from(stamp.size > 0);
                state_ref.walked.bytes += stamp.size;
                if changed {
                    let why = "it changed while it was read".into();
                    state_ref.walked.skipped.push(Skipped { path: path(), why });
                }
                let name = std::mem::replace(&mut item.node, node).name;
                item.node.name = name;
                item.stamp = stamp;
                if changed {
                    // Not for the cache: what was read is no state that the file ever had.
                    item.stamp.ctime = (i64::MAX, 0);
                }
            }
            Outcome::Unreadable(error) => {
                state_ref.walked.skipped.push(Skipped::unreadable(path(), &error));
                item.is_gone = true;
            }
        }
        let done = state.known_in(file.number);
        state.unread -= 1;
        drop(state);
        self.room.notify_one();
        self.finish_folders(done)
    }

    /// Stores the tree of a folder of which all is known, and of each folder above of which then all is
    /// known, too.
    fn finish_folders(&self, first: Option<Folder>) -> Result<(), ClientError> {
        let mut next = first;
        while let Some(folder) = next {
            let parent = folder.parent;
            next = self.know(parent, self.store_folder(folder)?);
        }
        Ok(())
    }

    /// Fills in what a folder's node needs to know of it. Returns the folder that it is in if that was the
    /// last of it.
    fn know(&self, parent: Option<(usize, usize)>, stored: Stored) -> Option<Folder> {
        let mut state = self.state();
        let Some((number, place)) = parent else {
            state.root = Some(stored);
            return None;
        };
        let node = &mut state.folders.get_mut(&number)?.items[place].node;
        let (chunks, attributes) = stored;
        (node.content, node.attributes) = (Content::Folder { chunks }, attributes);
        state.known_in(number)
    }

    fn store_folder(&self, mut folder: Folder) -> Result<Stored, ClientError> {
        let mut state = self.state();
        if let Some(cache) = &mut state.cache
            && cache.add(&folder.path, &folder.items).is_err()
        {
            state.cache = None;
        }
        drop(state);
        folder.items.retain(|item| !item.is_gone);
        let bytes = tree::to_bytes(folder.items.iter().map(|item| &item.node));
        let Folder { path, attributes, .. } = folder;
        if bytes.len() > tree::TREE_LEN_MAX {
            let path = self.path.join(path);
            return Err(ClientError::Resources(format!("{} has too many entries", path.display())));
        }
        let mut chunks = Vec::new();
        for chunk in self.tools.chunker.chunks(&bytes) {
            let id = self.tools.ids.tree(chunk);
            chunks.push(id);
            if self.tools.sink.claim(id) {
                self.store_tree(id, chunk)?;
            }
        }
        Ok((chunks, attributes))
    }

    fn store_tree(&self, id: ChunkId, chunk: &[u8]) -> Result<(), ClientError> {
        lock(&self.trees).push(self.tools.sink, id, chunk).map_err(stopped)
    }

    fn number(&self) -> usize {
        let mut state = self.state();
        state.next += 1;
        state.next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Trees that wait for more in their block.
pub(crate) struct Trees {
    block: BlockBuilder,
    compressor: Compressor,
}

impl Trees {
    pub(crate) fn new() -> Result<Self, ClientError> {
        let compressor = compressor(Compression::Default)?;
        Ok(Self { block: BlockBuilder::default(), compressor })
    }

    pub(crate) fn push(
        &mut self,
        sink: &Sink<'_>,
        id: ChunkId,
        chunk: &[u8],
    ) -> Result<(), Stopped> {
        if !self.block.has_room(chunk.len()) {
            self.flush(sink)?;
        }
        self.block.push(id, chunk);
        Ok(())
    }

    pub(crate) fn flush(&mut self, sink: &Sink<'_>) -> Result<(), Stopped> {
        if self.block.is_empty() {
            return Ok(());
        }
        let added = sink.add(Kind::Tree, &self.block.compress(&mut self.compressor));
        self.block.clear();
        added
    }
}

impl State {
    /// Counts one more known entry of a folder; returns the folder with its last.
    fn known_in(&mut self, number: usize) -> Option<Folder> {
        let folder = self.folders.get_mut(&number)?;
        folder.unknown -= 1;
        if folder.unknown > 0 {
            return None;
        }
        self.folders.remove(&number)
    }
}

fn name(item: &Item) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(item.node.name.as_slice())
}

pub(crate) fn stopped(_: Stopped) -> ClientError {
    ClientError::Resources("the upload stopped".into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
