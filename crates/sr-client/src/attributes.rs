//! Extended attributes, and with them access control lists, which Linux shows as such.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use rustix::{
    fs::{
        XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr,
        lremovexattr, lsetxattr,
    },
    io::Errno,
};
use sr_vault::tree::Attribute;

/// The kernel has no longer list of names, and no longer value.
const LEN_MAX: usize = 64 << 10;
/// Access control lists; what else is in that namespace belongs to the file system.
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Whose attributes: a file that is open, or an entry of a folder that can't be opened without effect.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a, Fd> {
    File(&'a Fd),
    Entry(&'a Fd, &'a [u8]),
}

impl<Fd: AsFd> Of<'_, Fd> {
    /// Returns all that are stored, sorted by name. A file system that has none has none.
    pub(crate) fn read(&self) -> io::Result<Vec<Attribute>> {
        let mut attributes = Vec::new();
        for name in self.names()? {
            let mut value = Vec::new();
            match self.get(&name, &mut value) {
                Ok(()) => attributes.push(Attribute { name: name.into(), value: value.into() }),
                // It was taken away meanwhile, or is for the superuser to see.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        attributes.sort_by(|a, b| a.name.as_slice().cmp(b.name.as_slice()));
        Ok(attributes)
    }

    /// Gives the file these attributes and no others, as far as this user may: those of the system are
    /// the superuser's.
    pub(crate) fn write(&self, wanted: &[Attribute]) -> io::Result<()> {
        let is_root = rustix::process::geteuid().is_root();
        for name in self.names()? {
            // Labels that the system gives by itself stay.
            let is_given = name.starts_with(b"security.");
            if !is_given && !wanted.iter().any(|attribute| attribute.name.as_slice() == name) {
                self.remove(&name)?;
            }
        }
        for attribute in wanted {
            let name = attribute.name.as_slice();
            if is_root || is_for_all(name) {
                self.set(name, attribute.value.as_slice())?;
            }
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut small = [0; 256];
        let names = match self.list(&mut small) {
            Ok(len) => small[..len].to_vec(),
            Err(Errno::RANGE) => {
                let mut large = vec![0; LEN_MAX];
                let len = self.list(&mut large)?;
                large.truncate(len);
                large
            }
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let names = names.split(|byte| *byte == 0).filter(|name| is_stored(name));
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::File(file) => flistxattr(file, buffer),
            Self::Entry(folder, name) => llistxattr(path(folder, name), buffer),
        }
    }

    fn get(&self, name: &[u8], value: &mut Vec<u8>) -> rustix::io::Result<()> {
        value.resize(LEN_MAX, 0);
        let len = match self {
            Self::File(file) => fgetxattr(file, name, value.as_mut_slice()),
            Self::Entry(folder, entry) => {
                lgetxattr(path(folder, entry), name, value.as_mut_slice())
            }
        }?;
        value.truncate(len);
        value.shrink_to_fit();
        Ok(())
    }

    fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        let flags = XattrFlags::empty();
        match self {
            Self::File(file) => fsetxattr(file, name, value, flags),
            Self::Entry(folder, entry) => lsetxattr(path(folder, entry), name, value, flags),
        }
    }

    fn remove(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::File(file) => fremovexattr(file, name),
            Self::Entry(folder, entry) => lremovexattr(path(folder, entry), name),
        }
    }
}

fn is_stored(name: &[u8]) -> bool {
    let spaces: [&[u8]; 3] = [b"user.", b"security.", b"trusted."];
    spaces.iter().any(|space| name.starts_with(space)) || LISTS.contains(&name)
}

fn is_for_all(name: &[u8]) -> bool {
    name.starts_with(b"user.") || LISTS.contains(&name)
}

/// There is no call for an entry of an open folder; this is the same, of whatever length its path is.
fn path(folder: &impl AsFd, name: &[u8]) -> PathBuf {
    let folder = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    folder.join(OsStr::from_bytes(name))
}
