//! Looks into snapshots without restoring them: lists, finds, compares, and hands out one file.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use globset::GlobMatcher;
use sr_vault::{
    ChunkId, ChunkIds,
    block::Kind,
    tree::{Content, Hole, Node},
};

use crate::{
    Client, ClientError, SnapshotInfo,
    client::{choose, info},
    read::{ReadError, Reader},
    view::{For, View},
};

/// Zeros of a hole that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What an entry of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A pipe or device.
    Other,
}

/// An entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// Its name, or its path where several folders are concerned.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, for a file.
    pub size: u64,
    /// Unix seconds of the last change.
    pub mtime_s: i64,
    /// Permission bits.
    pub mode: u32,
}

/// In what two snapshots differ at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the later one has it.
    Added,
    /// Only the earlier one has it.
    Removed,
    /// Its content, kind or target is another.
    Changed,
    /// Its permissions, owner, time or attributes are others.
    Look,
}

/// A difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In what.
    pub kind: ChangeKind,
    /// The entry as the later one has it, or the earlier one for what was removed; its path is below
    /// the snapshots' folder. What is in an added or removed folder is not listed one by one.
    pub entry: EntryInfo,
}

/// One version of an entry that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry; its path is absolute.
    pub entry: EntryInfo,
    /// Snapshots that have this version.
    pub snapshots: u64,
    /// The newest of them.
    pub newest: SnapshotInfo,
}

impl Client {
    /// Lists a folder of a snapshot, or the one file at `path`. `which` and `path` are as in
    /// [`Client::restore`].
    ///
    /// **Errors** [`ClientError::NotFound`], and those of reading the vault.
    pub fn browse(
        &mut self,
        which: &str,
        path: Option<&Path>,
    ) -> Result<(SnapshotInfo, Vec<EntryInfo>), ClientError> {
        self.at(which, path, |reader, node, _| {
            let Content::Folder { chunks } = &node.content else {
                return Ok(vec![entry(node, Path::new(""))]);
            };
            let nodes = reader.tree(chunks)?;
            Ok(nodes.iter().map(|node| entry(node, Path::new(""))).collect())
        })
    }

    /// Writes one file of a snapshot to `out`, each part after it was verified. Returns its snapshot.
    ///
    /// **Errors** [`ClientError::NotFound`] when it is no file, [`ClientError::Misbehaviour`] when a part
    /// is damaged: what came before is written by then; and those of writing.
    pub fn cat(
        &mut self,
        which: &str,
        path: &Path,
        out: &mut dyn Write,
    ) -> Result<SnapshotInfo, ClientError> {
        let (snapshot, ()) = self.at(which, Some(path), |reader, node, _| {
            let Content::File { size, chunks, holes } = &node.content else {
                return Err(ClientError::NotFound(format!("file {}", path.display())));
            };
            write_file(reader, *size, chunks, holes, out)
        })?;
        Ok(snapshot)
    }

    /// Returns in what two snapshots differ, by path.
    ///
    /// **Errors** [`ClientError::NotFound`], and those of reading the vault.
    pub fn diff(&mut self, before: &str, after: &str) -> Result<Vec<Change>, ClientError> {
        let (keys, ids, view) = self.view(For::Reading)?;
        let reader = Reader::new(&keys.vault, &self.remote, &view.index, &ids);
        let root = |which: &str| {
            choose(&view.manifest, &ids, which, None).map(|(listed, _)| &listed.snapshot.root)
        };
        let (before, after) = (root(before)?, root(after)?);
        let mut changes = Vec::new();
        let mut stack = vec![(PathBuf::new(), before.clone(), after.clone())];
        while let Some((path, before, after)) = stack.pop() {
            if look(&before) != look(&after) && !path.as_os_str().is_empty() {
                changes.push(Change { kind: ChangeKind::Look, entry: at(&after, path.clone()) });
            }
            if before.content == after.content {
                continue;
            }
            let (Content::Folder { chunks: old }, Content::Folder { chunks: new }) =
                (&before.content, &after.content)
            else {
                changes.push(Change { kind: ChangeKind::Changed, entry: at(&after, path) });
                continue;
            };
            let mut old: BTreeMap<Vec<u8>, Node> = by_name(reader.tree(old)?);
            for (name, node) in by_name(reader.tree(new)?) {
                match old.remove(&name) {
                    Some(before) => stack.push((path.join(OsStr::from_bytes(&name)), before, node)),
                    None => {
                        changes.push(Change { kind: ChangeKind::Added, entry: entry(&node, &path) })
                    }
                }
            }
            let removed = old.values().map(|node| entry(node, &path));
            changes.extend(removed.map(|entry| Change { kind: ChangeKind::Removed, entry }));
        }
        changes.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        // What is changed in its content is said once.
        changes.dedup_by(|b, a| {
            let same = a.entry.path == b.entry.path;
            if same && b.kind == ChangeKind::Changed {
                a.kind = b.kind;
            }
            same
        });
        Ok(changes)
    }

    /// Finds entries whose name, or whose whole path if the pattern has a `/`, fits a pattern with `*`,
    /// `?`, `[…]` and `{…}`; returns each version once, by path, the newest first.
    ///
    /// **Errors** [`ClientError::Pattern`], and those of reading the vault.
    pub fn find(&mut self, pattern: &str) -> Result<Vec<Found>, ClientError> {
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| ClientError::Pattern(error.kind().to_string()))?;
        let finder = Finder {
            glob: glob.compile_matcher(),
            by_path: pattern.contains('/'),
            known: HashMap::new(),
        };
        let (keys, ids, view) = self.view(For::Reading)?;
        let reader = Reader::new(&keys.vault, &self.remote, &view.index, &ids);
        finder.all(&view, &ids, &reader)
    }

    /// Reads what `which` and `path` name; `read` also gets where that was on the device.
    pub(crate) fn at<T>(
        &mut self,
        which: &str,
        path: Option<&Path>,
        read: impl FnOnce(&Reader<'_>, &Node, PathBuf) -> Result<T, ClientError>,
    ) -> Result<(SnapshotInfo, T), ClientError> {
        let (keys, ids, view) = self.view(For::Reading)?;
        let (listed, inner) = choose(&view.manifest, &ids, which, path)?;
        let snapshot = &listed.snapshot;
        let names: Vec<&[u8]> = inner.iter().map(|name| name.as_bytes()).collect();
        let reader = Reader::new(&keys.vault, &self.remote, &view.index, &ids);
        let node = reader.node(&snapshot.root, &names)?.ok_or_else(|| {
            let path = inner.iter().collect::<PathBuf>();
            ClientError::NotFound(format!("{} in that snapshot", path.display()))
        })?;
        let mut place = PathBuf::from(OsStr::from_bytes(snapshot.path.as_slice()));
        place.extend(&inner);
        Ok((info(listed, &ids), read(&reader, &node, place)?))
    }
}

/// Finds what fits. Snapshots share most of their folders, which are read once.
struct Finder {
    glob: GlobMatcher,
    by_path: bool,
    known: HashMap<Folder, Rc<Here>>,
}

/// A folder: its path, and the chunks of its tree.
type Folder = (PathBuf, Vec<ChunkId>);

/// What a folder holds that matters here.
#[derive(Default)]
struct Here {
    fitting: Vec<(PathBuf, Node)>,
    folders: Vec<Folder>,
}

impl Finder {
    fn all(
        mut self,
        view: &View,
        ids: &ChunkIds,
        reader: &Reader<'_>,
    ) -> Result<Vec<Found>, ClientError> {
        let mut versions: Vec<(Node, Found)> = Vec::new();
        let mut places: HashMap<PathBuf, Vec<usize>> = HashMap::new();
        for listed in view.manifest.live().rev() {
            let base = Path::new(OsStr::from_bytes(listed.snapshot.path.as_slice()));
            let Content::Folder { chunks } = &listed.snapshot.root.content else { continue };
            let mut stack = vec![(base.to_owned(), chunks.clone())];
            while let Some(folder) = stack.pop() {
                let here = self.here(reader, folder)?;
                stack.extend(here.folders.iter().cloned());
                for (path, node) in &here.fitting {
                    let places = places.entry(path.clone()).or_default();
                    let same = places.iter().find(|place| versions[**place].0 == *node);
                    if let Some(place) = same {
                        versions[*place].1.snapshots += 1;
                        continue;
                    }
                    places.push(versions.len());
                    let newest = info(listed, ids);
                    let found = Found { entry: at(node, path.clone()), snapshots: 1, newest };
                    versions.push((node.clone(), found));
                }
            }
        }
        let mut found: Vec<Found> = versions.into_iter().map(|(_, found)| found).collect();
        // Stable: versions of one path stay newest first.
        found.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        Ok(found)
    }

    fn here(&mut self, reader: &Reader<'_>, folder: Folder) -> Result<Rc<Here>, ClientError> {
        if let Some(known) = self.known.get(&folder) {
            return Ok(Rc::clone(known));
        }
        let mut here = Here::default();
        for node in reader.tree(&folder.1)? {
            let path = folder.0.join(OsStr::from_bytes(node.name.as_slice()));
            if let Content::Folder { chunks } = &node.content {
                here.folders.push((path.clone(), chunks.clone()));
            }
            if self.glob.is_match(if self.by_path { &path } else { file_name(&path) }) {
                here.fitting.push((path, node));
            }
        }
        let here = Rc::new(here);
        self.known.insert(folder, Rc::clone(&here));
        Ok(here)
    }
}

fn write_file(
    reader: &Reader<'_>,
    size: u64,
    chunks: &[ChunkId],
    holes: &[Hole],
    out: &mut dyn Write,
) -> Result<(), ClientError> {
    let cannot = ClientError::local("writing", "standard output");
    let mut at = 0;
    let mut holes = holes.iter().peekable();
    let mut write = |mut bytes: &[u8], at: &mut u64| -> std::io::Result<()> {
        loop {
            while let Some(hole) = holes.next_if(|hole| hole.offset == *at) {
                let mut left = hole.len;
                while left > 0 {
                    let len = left.min(ZEROS.len() as u64);
                    out.write_all(&ZEROS[..usize::try_from(len).unwrap_or(0)])?;
                    left -= len;
                }
                *at += hole.len;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let room = holes.peek().map_or(u64::MAX, |hole| hole.offset - *at);
            let len = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let (now, later) = bytes.split_at(len);
            out.write_all(now)?;
            (*at, bytes) = (*at + now.len() as u64, later);
        }
    };
    for id in chunks {
        let written = reader.chunk(Kind::Data, id, |chunk| write(chunk, &mut at))?;
        if let Err(error) = written {
            return Err(cannot(error));
        }
    }
    write(&[], &mut at).map_err(cannot)?;
    // SR-015: the chunks are the right ones, so what the node says must be theirs.
    sr_wire::Misbehaviour::ObjectMalformed.refuse_if(at != size).map_err(ReadError::from)?;
    Ok(())
}

/// All of a node but its content and name.
fn look(node: &Node) -> Node {
    Node { name: Vec::new().into(), content: Content::Fifo, ..node.clone() }
}

fn by_name(nodes: Vec<Node>) -> BTreeMap<Vec<u8>, Node> {
    nodes.into_iter().map(|node| (node.name.as_slice().to_vec(), node)).collect()
}

fn entry(node: &Node, folder: &Path) -> EntryInfo {
    at(node, folder.join(OsStr::from_bytes(node.name.as_slice())))
}

fn at(node: &Node, path: PathBuf) -> EntryInfo {
    let (kind, size) = match &node.content {
        Content::File { size, .. } => (EntryKind::File, *size),
        Content::Folder { .. } => (EntryKind::Folder, 0),
        Content::Symlink { .. } => (EntryKind::Symlink, 0),
        _ => (EntryKind::Other, 0),
    };
    EntryInfo { path, kind, size, mtime_s: node.mtime_s.cast_signed(), mode: node.mode }
}

fn file_name(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}
