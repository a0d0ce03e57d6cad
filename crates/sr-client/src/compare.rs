//! Compares a folder with its restore in all that a restore must bring back, holes, kinds and hard links
//! among it. It shares nothing with the backup but the reading of attributes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Dir, Mode, OFlags, SeekFrom, openat, seek};

use crate::{attributes::Of, restore::may_chown};

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files of the original.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that the restore has, identical.
    pub identical: u64,
    /// Whatever differs, files or not: its path below the folder, and in what.
    pub different: Vec<(PathBuf, &'static str)>,
}

/// Compares everything below `original` with `restored`, but for the paths in `without`. Owners are
/// compared where this user may give files away.
///
/// **Errors** those of reading the original.
pub fn compare(
    original: &Path,
    restored: &Path,
    without: &HashSet<PathBuf>,
) -> io::Result<Comparison> {
    let mut pass = Pass { without, found: Comparison::default(), first: HashMap::new() };
    let (a, b) = (open(CWD, original)?, open(CWD, restored)?);
    if let Some(what) = pass.difference(&of_itself(original)?, &of_itself(restored)?)? {
        pass.found.different.push((PathBuf::new(), what));
    }
    pass.folder(original, Path::new(""), &a, &b)?;
    Ok(pass.found)
}

struct Pass<'a> {
    without: &'a HashSet<PathBuf>,
    found: Comparison,
    /// The first of each file's names, by device and inode, of either side.
    first: HashMap<(bool, u64, u64), PathBuf>,
}

/// An entry of an open folder, by a path of any length.
struct Entry {
    meta: Metadata,
    folder: OwnedFd,
    name: Vec<u8>,
}

impl Entry {
    fn of(folder: &OwnedFd, name: &OsStr) -> io::Result<Self> {
        let meta = fs::symlink_metadata(by_folder(folder, name))?;
        Ok(Self { meta, folder: folder.try_clone()?, name: name.as_bytes().to_vec() })
    }

    fn path(&self) -> PathBuf {
        by_folder(&self.folder, OsStr::from_bytes(&self.name))
    }

    fn open(&self) -> io::Result<File> {
        Ok(openat(&self.folder, self.name.as_slice(), OFlags::NOFOLLOW, Mode::empty())?.into())
    }

    /// Kind and permissions, owner where that counts, and the device that a device file stands for.
    fn look(&self) -> (u32, Option<(u32, u32)>, u64) {
        let owner = may_chown().then(|| (self.meta.uid(), self.meta.gid()));
        (self.meta.mode(), owner, self.meta.rdev())
    }
}

impl Pass<'_> {
    fn folder(&mut self, root: &Path, path: &Path, a: &OwnedFd, b: &OwnedFd) -> io::Result<()> {
        let (of_a, of_b) = (names(a)?, names(b)?);
        for name in of_a.union(&of_b) {
            let path = path.join(name);
            if self.without.contains(&root.join(&path)) {
                continue;
            }
            let Ok(original) = Entry::of(a, name) else {
                self.found.different.push((path, "it is not in the original"));
                continue;
            };
            if original.meta.is_file() {
                self.found.files += 1;
                self.found.bytes += original.meta.len();
            }
            let what = match Entry::of(b, name) {
                Ok(restored) => {
                    let same = self.first_name(false, &original, &path)
                        == self.first_name(true, &restored, &path);
                    self.difference(&original, &restored)?.or((!same).then_some("its other names"))
                }
                Err(_) => Some("it is not there"),
            };
            match what {
                Some(what) => self.found.different.push((path.clone(), what)),
                None => self.found.identical += u64::from(original.meta.is_file()),
            }
            if original.meta.is_dir()
                && let Ok(restored) = open(b, name)
            {
                self.folder(root, &path, &open(a, name)?, &restored)?;
            }
        }
        Ok(())
    }

    fn first_name(&mut self, side: bool, entry: &Entry, path: &Path) -> PathBuf {
        let key = (side, entry.meta.dev(), entry.meta.ino());
        self.first.entry(key).or_insert_with(|| path.to_owned()).clone()
    }

    /// Returns in what the two differ, if they do.
    fn difference(&self, a: &Entry, b: &Entry) -> io::Result<Option<&'static str>> {
        let time = |entry: &Entry| (entry.meta.mtime(), entry.meta.mtime_nsec());
        let what = if a.look() != b.look() {
            "its kind, permissions or owner"
        } else if time(a) != time(b) {
            "its time"
        } else if attributes(a)? != attributes(b)? {
            "its attributes"
        } else if a.meta.is_symlink() && fs::read_link(a.path())? != fs::read_link(b.path())? {
            "where it points to"
        } else if a.meta.is_file() {
            return same_file(a, b);
        } else {
            return Ok(None);
        };
        Ok(Some(what))
    }
}

fn same_file(a: &Entry, b: &Entry) -> io::Result<Option<&'static str>> {
    let (of_a, of_b) = (a.open()?, b.open()?);
    if a.meta.len() != b.meta.len() {
        return Ok(Some("its content"));
    }
    let whole = vec![(0, a.meta.len())];
    let has_holes = |entry: &Entry| entry.meta.blocks() * 512 < entry.meta.len();
    let (data_a, data_b) = if has_holes(a) || has_holes(b) {
        (data(&of_a)?, data(&of_b)?)
    } else {
        (whole.clone(), whole.clone())
    };
    let same_holes = data_a == data_b;
    let ranges = if same_holes { data_a } else { whole };
    for (start, end) in ranges {
        if !same_content(&of_a, &of_b, start, end)? {
            return Ok(Some("its content"));
        }
    }
    Ok((!same_holes).then_some("its holes"))
}

fn same_content(a: &File, b: &File, mut at: u64, end: u64) -> io::Result<bool> {
    let (mut of_a, mut of_b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    while at < end {
        let len = usize::try_from(end - at).map_or(of_a.len(), |left| left.min(of_a.len()));
        a.read_exact_at(&mut of_a[..len], at)?;
        b.read_exact_at(&mut of_b[..len], at)?;
        if of_a[..len] != of_b[..len] {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

/// Where a file has bytes.
fn data(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        match seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = seek(file, SeekFrom::Hole(start))?;
                found.push((start, at));
            }
            Err(rustix::io::Errno::NXIO) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The attributes that a restore by this user brings back.
fn attributes(entry: &Entry) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let attributes = Of::Entry(&entry.folder, &entry.name).read()?;
    let all = attributes
        .into_iter()
        .map(|attribute| (attribute.name.into(), attribute.value.into()))
        .filter(|(name, _): &(Vec<u8>, Vec<u8>)| {
            may_chown() || name.starts_with(b"user.") || name.starts_with(b"system.")
        });
    Ok(all.collect())
}

fn names(folder: &OwnedFd) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

fn of_itself(path: &Path) -> io::Result<Entry> {
    let folder = open(CWD, path.parent().unwrap_or(path))?;
    Entry::of(&folder, path.file_name().unwrap_or(OsStr::new(".")))
}

fn open(folder: impl std::os::fd::AsFd, name: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name.as_ref(), flags, Mode::empty())?)
}

fn by_folder(folder: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name)
}
