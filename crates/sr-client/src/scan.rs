//! Walks a folder: what is there, in an order that is the same each time.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use sr_vault::{
    ChunkId,
    tree::{Content, Node, is_name},
};

use crate::{ClientError, backup::Skipped, progress::Progress};

/// What tells whether a file changed since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    pub(crate) inode: u64,
}

impl Stamp {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }
}

/// One entry of a folder, its content not read yet.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) folder: usize,
    /// Its node; chunks are filled in as they become known.
    pub(crate) node: Node,
    pub(crate) kind: ItemKind,
}

/// What an item is.
#[derive(Debug)]
pub(crate) enum ItemKind {
    File(Stamp),
    Folder(usize),
    Symlink,
    /// It could not be read; it is left out of the tree.
    Gone,
}

/// A folder and its items, sorted by name.
#[derive(Debug)]
pub(crate) struct ScannedFolder {
    pub(crate) path: PathBuf,
    pub(crate) items: Vec<usize>,
}

/// All of a tree, folders before what is in them.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) root: Node,
    pub(crate) items: Vec<Item>,
    pub(crate) folders: Vec<ScannedFolder>,
    pub(crate) skipped: Vec<Skipped>,
}

impl Scan {
    pub(crate) fn path(&self, item: &Item) -> PathBuf {
        let name = OsStr::from_bytes(item.node.name.as_slice());
        self.folders[item.folder].path.join(name)
    }
}

/// Walks `path`, a folder. `exclude` is the profile, whose own files would change while they are
/// read.
pub(crate) fn scan(path: &Path, exclude: &Path, progress: &Progress) -> Result<Scan, ClientError> {
    let meta = fs::symlink_metadata(path).map_err(ClientError::local("reading", path))?;
    let root = node(b"", &meta, Content::Folder { chunks: Vec::new() });
    let mut scan = Scan { root, items: Vec::new(), folders: Vec::new(), skipped: Vec::new() };
    // The root must be readable; below it, what is not is listed.
    fs::read_dir(path).map_err(ClientError::local("reading", path))?;
    scan.folders.push(ScannedFolder { path: path.to_owned(), items: Vec::new() });
    let mut stack = vec![(0, None::<std::vec::IntoIter<Vec<u8>>>)];
    while let Some((folder, names)) = stack.pop() {
        let mut names = match names {
            Some(names) => names,
            None => sorted_names(&mut scan, folder).into_iter(),
        };
        let Some(name) = names.next() else { continue };
        stack.push((folder, Some(names)));
        if let Some(child) = add(&mut scan, folder, &name, exclude, progress) {
            stack.push((child, None));
        }
    }
    Ok(scan)
}

fn sorted_names(scan: &mut Scan, folder: usize) -> Vec<Vec<u8>> {
    let path = scan.folders[folder].path.clone();
    let mut names = Vec::new();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) => {
            scan.skipped.push(Skipped::unreadable(path, &error));
            return names;
        }
    };
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().as_bytes().to_vec()),
            Err(error) => scan.skipped.push(Skipped::unreadable(path.clone(), &error)),
        }
    }
    names.sort_unstable();
    names
}

/// Adds an entry; returns the number of the folder that it opens.
fn add(
    scan: &mut Scan,
    folder: usize,
    name: &[u8],
    exclude: &Path,
    progress: &Progress,
) -> Option<usize> {
    let path = scan.folders[folder].path.join(OsStr::from_bytes(name));
    // The profile's own files change while they are read; a staging folder is what an interrupted
    // restore left.
    if path == exclude || name == crate::restore::STAGING.as_bytes() {
        return None;
    }
    let meta = match fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) => {
            scan.skipped.push(Skipped::unreadable(path, &error));
            return None;
        }
    };
    progress.did(1, 0);
    let number = scan.items.len();
    let mut opened = None;
    let (content, kind) = if meta.is_dir() {
        opened = Some(scan.folders.len());
        let kind = ItemKind::Folder(scan.folders.len());
        scan.folders.push(ScannedFolder { path, items: Vec::new() });
        (Content::Folder { chunks: Vec::new() }, kind)
    } else if meta.is_file() {
        let content = Content::File { size: meta.size(), chunks: Vec::new() };
        (content, ItemKind::File(Stamp::of(&meta)))
    } else if meta.is_symlink() {
        match fs::read_link(&path) {
            Ok(target) => {
                let target = target.as_os_str().as_bytes().to_vec().into();
                (Content::Symlink { target }, ItemKind::Symlink)
            }
            Err(error) => {
                scan.skipped.push(Skipped::unreadable(path, &error));
                return None;
            }
        }
    } else {
        scan.skipped.push(Skipped { path, why: "a socket, pipe or device".into() });
        return None;
    };
    debug_assert!(is_name(name), "the operating system returns names only");
    scan.items.push(Item { folder, node: node(name, &meta, content), kind });
    scan.folders[folder].items.push(number);
    opened
}

pub(crate) fn node(name: &[u8], meta: &Metadata, content: Content) -> Node {
    Node {
        name: name.to_vec().into(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_s: meta.mtime().cast_unsigned(),
        mtime_ns: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        content,
    }
}

/// Sets the content of a file's node.
pub(crate) fn set_file(node: &mut Node, new_size: u64, new_chunks: Vec<ChunkId>) {
    node.content = Content::File { size: new_size, chunks: new_chunks };
}
