//! Folders below a folder, opened without following a link and whatever their path's length.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// The kernel takes no longer path at once.
const PIECE_LEN_MAX: usize = 4000;

/// Opens the folder at `path` below `root`; an empty path is `root` itself. A link on the way, or a
/// way out, is an error.
pub(crate) fn open_beneath(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let mut rest = path.as_os_str().as_bytes();
    let mut opened: Option<OwnedFd> = None;
    while rest.len() > PIECE_LEN_MAX {
        // A name has at most 255 bytes, so there is a slash.
        let slash = rest[..PIECE_LEN_MAX].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (piece, after) = rest.split_at(slash);
        let next = match &opened {
            Some(folder) => open_piece(folder.as_fd(), piece),
            None => open_piece(root.as_fd(), piece),
        };
        (opened, rest) = (Some(next?), &after[1.min(after.len())..]);
    }
    match &opened {
        Some(folder) => open_piece(folder.as_fd(), rest),
        None => open_piece(root.as_fd(), rest),
    }
}

fn open_piece(root: rustix::fd::BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            io::Error::other("a link or file is in the way of this folder; it is not followed")
        }
        rustix::io::Errno::XDEV => io::Error::other("the path leads out of the folder"),
        error => error.into(),
    })
}
