//! Compares a folder with its restore: names, kinds, modes, times to the nanosecond, content.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Files of the original.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that the restore has, identical.
    pub(crate) identical: u64,
    /// Whatever differs, files or not.
    pub(crate) different: Vec<PathBuf>,
}

/// Compares everything below `original` with `restored`, but for what the backup listed as skipped.
pub(crate) fn compare(
    original: &Path,
    restored: &Path,
    skipped: &HashSet<PathBuf>,
) -> io::Result<Comparison> {
    let mut comparison = Comparison::default();
    let mut stack = vec![PathBuf::new()];
    while let Some(relative) = stack.pop() {
        let (a, b) = (original.join(&relative), restored.join(&relative));
        if skipped.contains(&a) {
            continue;
        }
        let meta = fs::symlink_metadata(&a)?;
        let same = same_entry(&a, &b).unwrap_or(false);
        if meta.is_file() {
            comparison.files += 1;
            comparison.bytes += meta.len();
            comparison.identical += u64::from(same);
        }
        if !same {
            comparison.different.push(relative.clone());
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&a)? {
                stack.push(relative.join(entry?.file_name()));
            }
            // What the original does not have.
            for entry in fs::read_dir(&b).into_iter().flatten() {
                let name = entry?.file_name();
                if fs::symlink_metadata(a.join(&name)).is_err() {
                    comparison.different.push(relative.join(name));
                }
            }
        }
    }
    Ok(comparison)
}

fn same_entry(a: &Path, b: &Path) -> io::Result<bool> {
    let (of_a, of_b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    let look = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec());
    if look(&of_a) != look(&of_b) {
        return Ok(false);
    }
    if of_a.is_symlink() {
        return Ok(fs::read_link(a)? == fs::read_link(b)?);
    }
    Ok(!of_a.is_file() || (of_a.len() == of_b.len() && same_content(a, b)?))
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut of_a, mut of_b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let len = a.read(&mut of_a)?;
        if len == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
        match b.read_exact(&mut of_b[..len]) {
            Ok(()) if of_a[..len] == of_b[..len] => {}
            _ => return Ok(false),
        }
    }
}
