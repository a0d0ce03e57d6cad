//! What files looked like when they were last read, so that unchanged ones are not read again.
//!
//! One file for each backed-up folder, in the order of the walk, so that both are merged in one
//! pass. It is safe to lose and worth nothing without the verified index: a chunk that the index
//! does not know is read again, whatever the cache says.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sr_vault::ChunkId;
use sr_wire::{VLBytes, decode, encode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::scan::Stamp;

const MAGIC: &[u8; 8] = b"srcache1";
const STAMP_LEN: usize = 48;
const ENTRY_LEN_MAX: u32 = 64 << 20;

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Entry {
    path: VLBytes,
    stamp: [u8; STAMP_LEN],
    chunks: Vec<ChunkId>,
}

/// Reads the cache of the last run beside a walk.
pub(crate) struct OldCache {
    reader: Option<BufReader<File>>,
    next: Option<Entry>,
}

impl OldCache {
    /// Opens the cache; a missing or damaged one is an empty one.
    pub(crate) fn open(path: &Path) -> Self {
        let mut magic = [0; 8];
        let reader = File::open(path).ok().map(BufReader::new).and_then(|mut reader| {
            reader.read_exact(&mut magic).ok()?;
            (magic == *MAGIC).then_some(reader)
        });
        let mut cache = Self { reader, next: None };
        cache.advance();
        cache
    }

    /// Returns the chunks of the file at `path`, if it looks as it did. Paths are asked for in the
    /// order of the walk.
    pub(crate) fn find(&mut self, path: &Path, stamp: &Stamp) -> Option<Vec<ChunkId>> {
        let wanted = path.as_os_str().as_bytes();
        while let Some(entry) = &self.next {
            match walk_order(entry.path.as_slice(), wanted) {
                Ordering::Less => self.advance(),
                Ordering::Equal => {
                    let same = entry.stamp == stamp_bytes(stamp);
                    return same.then(|| entry.chunks.clone());
                }
                Ordering::Greater => return None,
            }
        }
        None
    }

    fn advance(&mut self) {
        self.next = self.reader.as_mut().and_then(|reader| {
            let mut len = [0; 4];
            reader.read_exact(&mut len).ok()?;
            let len = u32::from_be_bytes(len);
            if len > ENTRY_LEN_MAX {
                return None;
            }
            let mut bytes = vec![0; len as usize];
            reader.read_exact(&mut bytes).ok()?;
            decode("cache entry", &bytes, bytes.len()).ok()
        });
    }
}

/// Writes the cache of this run. It takes the place of the old one when it is finished.
pub(crate) struct NewCache {
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
}

impl NewCache {
    pub(crate) fn create(path: PathBuf) -> std::io::Result<Self> {
        let temporary = path.with_extension("part");
        let mut writer = BufWriter::new(File::create(&temporary)?);
        writer.write_all(MAGIC)?;
        Ok(Self { path, temporary, writer })
    }

    pub(crate) fn add(
        &mut self,
        path: &Path,
        stamp: &Stamp,
        chunks: &[ChunkId],
    ) -> std::io::Result<()> {
        let entry = encode(&Entry {
            path: path.as_os_str().as_bytes().to_vec().into(),
            stamp: stamp_bytes(stamp),
            chunks: chunks.to_vec(),
        });
        let len = u32::try_from(entry.len()).map_err(std::io::Error::other)?;
        self.writer.write_all(&len.to_be_bytes())?;
        self.writer.write_all(&entry)
    }

    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.writer.flush()?;
        fs::rename(&self.temporary, &self.path)
    }
}

/// The order of the walk: name by name, so that `a/z` comes before `a.b`.
fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/'))
}

fn stamp_bytes(stamp: &Stamp) -> [u8; STAMP_LEN] {
    let times = [stamp.mtime.0, stamp.mtime.1, stamp.ctime.0, stamp.ctime.1];
    let [a, b, c, d] = times.map(i64::cast_unsigned);
    let mut bytes = [0; STAMP_LEN];
    for (place, number) in bytes.chunks_exact_mut(8).zip([stamp.size, stamp.inode, a, b, c, d]) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp { size, mtime: (-1, 2), ctime: (3, 4), inode: 5 }
    }

    #[test]
    fn what_was_added_in_walk_order_is_found_in_walk_order() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("files-1");
        let mut new = NewCache::create(path.clone()).expect("creates");
        for name in ["/x/a/z", "/x/a.b", "/x/c"] {
            new.add(Path::new(name), &stamp(1), &[ChunkId([1; 32])]).expect("adds");
        }
        new.finish().expect("finishes");
        let mut old = OldCache::open(&path);
        assert_eq!(old.find(Path::new("/x/a/y"), &stamp(1)), None);
        assert_eq!(old.find(Path::new("/x/a/z"), &stamp(1)), Some(vec![ChunkId([1; 32])]));
        assert_eq!(old.find(Path::new("/x/a.b"), &stamp(2)), None);
        assert_eq!(old.find(Path::new("/x/c"), &stamp(1)), Some(vec![ChunkId([1; 32])]));
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("files-1");
        for bytes in [&b""[..], b"other", b"srcache1\0\0\0\x05abc", b"srcache1\xff\xff\xff\xff"] {
            fs::write(&path, bytes).expect("writes");
            assert_eq!(OldCache::open(&path).find(Path::new("/x"), &stamp(1)), None);
        }
    }
}
