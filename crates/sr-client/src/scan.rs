//! Lists a folder: what is in it, in an order that is the same each time.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, SeekFrom, Stat, major, minor, readlinkat, seek, statat};
use sr_vault::{
    ChunkId,
    tree::{Content, HOLES_MAX, Hole, Node, is_name},
};

use crate::{attributes::Of, backup::Skipped, restore::STAGING};

/// What tells whether a file changed since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    pub(crate) inode: u64,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size.cast_unsigned(),
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec).into()),
            ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec).into()),
            inode: stat.st_ino,
        }
    }
}

/// One entry of a folder; the content of files and folders is not known yet.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its node; content and attributes of files and folders are filled in as they become known.
    pub(crate) node: Node,
    pub(crate) stamp: Stamp,
    /// Whether it is left out of the tree, because it could not be read.
    pub(crate) is_gone: bool,
}

/// The folder that is backed up, or one below it, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    /// Its whole path.
    pub(crate) path: PathBuf,
    /// The device of the whole backup's root.
    pub(crate) device: u64,
}

impl Opened {
    /// Lists the entries, sorted by name, without those that `leave_out` names. Whatever can't be backed
    /// up is added to `skipped`.
    pub(crate) fn list(
        &self,
        leave_out: impl Fn(&[u8]) -> bool,
        skipped: &mut Vec<Skipped>,
    ) -> io::Result<Vec<Item>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            // A staging folder is what an interrupted restore left.
            if name != b"." && name != b".." && name != STAGING.as_bytes() && !leave_out(name) {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        let mut items = Vec::with_capacity(names.len());
        for name in names {
            debug_assert!(is_name(&name), "the operating system returns names only");
            match self.item(name) {
                Ok(item) => items.push(item),
                Err(reason) => skipped.push(reason),
            }
        }
        Ok(items)
    }

    fn item(&self, name: Vec<u8>) -> Result<Item, Skipped> {
        let path = || self.path.join(OsStr::from_bytes(&name));
        let unreadable = |error: io::Error| Skipped::unreadable(path(), &error);
        let stat = statat(&self.fd, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| unreadable(error.into()))?;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let content = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                Content::File { size: 0, chunks: Vec::new(), holes: Vec::new() }
            }
            FileType::Directory => Content::Folder { chunks: Vec::new() },
            FileType::Symlink => {
                let target = readlinkat(&self.fd, name.as_slice(), Vec::new())
                    .map_err(|error| unreadable(error.into()))?;
                Content::Symlink { target: target.into_bytes().into() }
            }
            FileType::Fifo => Content::Fifo,
            FileType::CharacterDevice => Content::CharacterDevice { major, minor },
            FileType::BlockDevice => Content::BlockDevice { major, minor },
            _ => return Err(Skipped { path: path(), why: "a socket".into() }),
        };
        let attributes = match content {
            Content::File { .. } | Content::Folder { .. } => Vec::new(),
            _ => Of::Entry(&self.fd, &name).read().map_err(unreadable)?,
        };
        let mut node = node(&stat, self.device, content);
        (node.name, node.attributes) = (name.into(), attributes);
        Ok(Item { node, stamp: Stamp::of(&stat), is_gone: false })
    }
}

/// Returns the node of what `stat` says, without name and attributes.
pub(crate) fn node(stat: &Stat, device: u64, content: Content) -> Node {
    let is_folder = matches!(content, Content::Folder { .. });
    // Below a mount, another file may have the same number.
    let elsewhere = if stat.st_dev == device { 0 } else { stat.st_dev.rotate_left(40) };
    Node {
        name: Vec::new().into(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime.cast_unsigned(),
        mtime_ns: nanoseconds(stat.st_mtime_nsec),
        links: (stat.st_nlink > 1 && !is_folder).then_some(stat.st_ino ^ elsewhere),
        attributes: Vec::new(),
        content,
    }
}

/// Returns the holes of a file, which the file system need not tell, and where its bytes are.
pub(crate) fn holes(file: &File, stat: &Stat) -> io::Result<Vec<Hole>> {
    let size = stat.st_size.cast_unsigned();
    let mut holes = Vec::new();
    let mut at = 0;
    // Most files have all of their blocks, and need no look.
    if stat.st_blocks.cast_unsigned().saturating_mul(512) >= size {
        return Ok(holes);
    }
    while at < size && holes.len() < HOLES_MAX {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        if data > at {
            holes.push(Hole { offset: at, len: data - at });
        }
        at = if data < size { seek(file, SeekFrom::Hole(data))?.min(size) } else { size };
    }
    Ok(holes)
}

/// Where the bytes of a file are that lie in no hole: offset and end of each piece, in order.
pub(crate) fn pieces(size: u64, holes: &[Hole]) -> Vec<(u64, u64)> {
    let ends = holes.iter().map(|hole| hole.offset + hole.len);
    let starts = std::iter::once(0).chain(ends);
    let stops = holes.iter().map(|hole| hole.offset).chain(std::iter::once(size));
    starts.zip(stops).filter(|(start, stop)| start < stop).collect()
}

/// Sets the content of a file's node.
pub(crate) fn set_file(node: &mut Node, size: u64, chunks: Vec<ChunkId>, holes: Vec<Hole>) {
    node.content = Content::File { size, chunks, holes };
}

/// Returns where in `folder` the profile lies, if it does: its own files change while they are read.
pub(crate) fn inside(folder: &Path, profile: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let relative = profile.strip_prefix(folder).ok()?;
    let name = relative.file_name()?.as_bytes().to_vec();
    Some((relative.parent()?.to_owned(), name))
}

fn nanoseconds(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0)
}
