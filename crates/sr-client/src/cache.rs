//! What files looked like when they were last read, so that unchanged ones are not read again.
//!
//! One file for each backed-up folder: a record for each folder below it, and a table that finds them.
//! It is safe to lose and worth nothing without the verified index: a chunk that the index does not
//! know is read again, whatever the cache says.
//!
//! ```text
//! record… ‖ (u64 key ‖ u64 offset)… by key ‖ u64 offset of the table ‖ "srcache2"
//! record = u32 length ‖ FolderRecord ‖ u64 check
//! ```

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

use sr_vault::{
    ChunkId,
    tree::{Attribute, Content, Hole},
};
use sr_wire::{VLBytes, decode, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::scan::{Item, Stamp};

const MAGIC: &[u8; 8] = b"srcache2";
const STAMP_LEN: usize = 48;
const NO_STAMP: [u8; STAMP_LEN] = [0xff; STAMP_LEN];
const ENTRY_LEN: usize = 16;
const CHECK_LEN: usize = 8;
const RECORD_LEN_MAX: u32 = 1 << 30;

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct FolderRecord {
    path: VLBytes,
    files: Vec<Known>,
}

/// A file as it was when it was read.
#[derive(Clone, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Known {
    name: VLBytes,
    stamp: [u8; STAMP_LEN],
    pub(crate) chunks: Vec<ChunkId>,
    pub(crate) holes: Vec<Hole>,
    pub(crate) attributes: Vec<Attribute>,
}

impl Known {
    pub(crate) fn looks_like(&self, stamp: &Stamp) -> bool {
        self.stamp == stamp_bytes(stamp)
    }
}

/// The cache of the last run.
#[derive(Default)]
pub(crate) struct OldCache(Option<(File, Vec<u8>)>);

impl OldCache {
    /// Opens the cache; a missing or damaged one is an empty one.
    pub(crate) fn open(path: &Path) -> Self {
        Self(read_table(path))
    }

    /// Returns the files of a folder as they were, by name.
    pub(crate) fn folder(&self, path: &Path) -> KnownFolder {
        KnownFolder(self.record(path).map_or_else(Vec::new, |record| record.files))
    }

    fn record(&self, path: &Path) -> Option<FolderRecord> {
        let (file, table) = self.0.as_ref()?;
        let path = path.as_os_str().as_bytes();
        let wanted = key(path);
        let (entries, _) = table.as_chunks::<ENTRY_LEN>();
        let place = entries.binary_search_by_key(&wanted, |entry| word(entry)).ok()?;
        let offset = word(&entries[place][8..]);
        let mut len = [0; 4];
        file.read_exact_at(&mut len, offset).ok()?;
        let len = u32::from_be_bytes(len);
        if len > RECORD_LEN_MAX {
            return None;
        }
        let mut bytes = vec![0; len as usize + CHECK_LEN];
        file.read_exact_at(&mut bytes, offset.checked_add(4)?).ok()?;
        let (bytes, check) = bytes.split_at(len as usize);
        let is_whole = word(check) == key(bytes);
        let record: FolderRecord = decode("cache", bytes, bytes.len()).ok().filter(|_| is_whole)?;
        (record.path.as_slice() == path).then_some(record)
    }
}

/// The files of one folder as they were.
pub(crate) struct KnownFolder(Vec<Known>);

impl KnownFolder {
    /// Returns a file as it was, if it looks the same.
    pub(crate) fn find(&self, name: &[u8], stamp: &Stamp) -> Option<&Known> {
        self.before(name).filter(|known| known.looks_like(stamp))
    }

    /// Returns a file as it was.
    pub(crate) fn before(&self, name: &[u8]) -> Option<&Known> {
        let place = self.0.binary_search_by(|known| known.name.as_slice().cmp(name)).ok()?;
        self.0.get(place)
    }
}

/// Writes the cache of this run. It takes the place of the old one when it is finished.
pub(crate) struct NewCache {
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
    at: u64,
    table: Vec<(u64, u64)>,
    /// A file that changed from then on may change again within one tick of its clock, unseen.
    settled_s: i64,
}

impl NewCache {
    pub(crate) fn create(path: PathBuf, settled_s: i64) -> io::Result<Self> {
        let temporary = path.with_extension("part");
        let writer = BufWriter::new(File::create(&temporary)?);
        Ok(Self { path, temporary, writer, at: 0, table: Vec::new(), settled_s })
    }

    /// Adds the files of a folder, whose items are sorted by name.
    pub(crate) fn add(&mut self, path: &Path, items: &[Item]) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        let files: Vec<Known> = items.iter().filter_map(|item| self.known(item)).collect();
        if files.is_empty() {
            return Ok(());
        }
        let record = encode(&FolderRecord { path: path.to_vec().into(), files });
        let len = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.table.push((key(path), self.at));
        self.writer.write_all(&len.to_be_bytes())?;
        self.writer.write_all(&record)?;
        self.writer.write_all(&key(&record).to_be_bytes())?;
        self.at += 4 + u64::from(len) + CHECK_LEN as u64;
        Ok(())
    }

    fn known(&self, item: &Item) -> Option<Known> {
        let Content::File { chunks, holes, .. } = &item.node.content else { return None };
        let is_settled = item.stamp.ctime.0 < self.settled_s;
        (!item.is_gone).then(|| Known {
            name: item.node.name.clone(),
            // One that may have changed since looks like no file; what it was is known all the same.
            stamp: if is_settled { stamp_bytes(&item.stamp) } else { NO_STAMP },
            chunks: chunks.clone(),
            holes: holes.clone(),
            attributes: item.node.attributes.clone(),
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.table.sort_unstable();
        for (key, offset) in &self.table {
            self.writer.write_all(&key.to_be_bytes())?;
            self.writer.write_all(&offset.to_be_bytes())?;
        }
        self.writer.write_all(&self.at.to_be_bytes())?;
        self.writer.write_all(MAGIC)?;
        self.writer.flush()?;
        fs::rename(&self.temporary, &self.path)
    }
}

fn read_table(path: &Path) -> Option<(File, Vec<u8>)> {
    let file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    let mut footer = [0; 16];
    let footer_at = len.checked_sub(footer.len() as u64)?;
    file.read_exact_at(&mut footer, footer_at).ok()?;
    let table_len = footer_at.checked_sub(word(&footer))?;
    let mut table = vec![0; usize::try_from(table_len).ok()?];
    file.read_exact_at(&mut table, word(&footer)).ok()?;
    (footer[8..] == *MAGIC).then_some((file, table))
}

/// The first eight bytes of `H("cache-folder", bytes)`.
fn key(bytes: &[u8]) -> u64 {
    word(&sr_crypto::hash(labels::CACHE_FOLDER, &[bytes]))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |word| u64::from_be_bytes(*word))
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
    use sr_vault::tree::Node;

    fn stamp(size: u64) -> Stamp {
        Stamp { size, mtime: (-1, 2), ctime: (3, 4), inode: 5 }
    }

    fn item(name: &str, stamp: Stamp) -> Item {
        let node = Node {
            name: name.as_bytes().to_vec().into(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            links: None,
            attributes: Vec::new(),
            content: Content::File {
                size: stamp.size,
                chunks: vec![ChunkId([1; 32])],
                holes: Vec::new(),
            },
        };
        Item { node, stamp, is_gone: false }
    }

    #[test]
    fn what_was_added_is_found_as_long_as_it_looks_the_same() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("files-1");
        let mut new = NewCache::create(path.clone(), 100).expect("creates");
        let fresh = Stamp { ctime: (100, 0), ..stamp(1) };
        new.add(Path::new("b"), &[item("x", stamp(1)), item("y", fresh)]).expect("adds");
        new.add(Path::new(""), &[item("x", stamp(2))]).expect("adds");
        new.finish().expect("finishes");
        let old = OldCache::open(&path);
        let find = |folder: &str, name: &str, stamp: Stamp| {
            old.folder(Path::new(folder)).find(name.as_bytes(), &stamp).is_some()
        };
        assert!(find("b", "x", stamp(1)) && find("", "x", stamp(2)));
        assert!(!find("b", "x", stamp(2)) && !find("", "y", stamp(1)) && !find("c", "x", stamp(1)));
        assert!(!find("b", "y", fresh), "it may change again within the same tick");
        assert!(old.folder(Path::new("b")).before(b"y").is_some());
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("files-1");
        let mut new = NewCache::create(path.clone(), 100).expect("creates");
        new.add(Path::new(""), &[item("x", stamp(1))]).expect("adds");
        new.finish().expect("finishes");
        let good = fs::read(&path).expect("reads");
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, &bad).expect("writes");
            let old = OldCache::open(&path).folder(Path::new(""));
            assert!(old.find(b"x", &stamp(1)).is_none(), "byte {place}");
        }
        for bytes in [&b""[..], b"other", &good[..good.len() - 1], &[0xff; 64]] {
            fs::write(&path, bytes).expect("writes");
            let old = OldCache::open(&path).folder(Path::new(""));
            assert!(old.find(b"x", &stamp(1)).is_none());
        }
    }
}
