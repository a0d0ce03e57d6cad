//! Whether everything can be had back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rand_core::Rng;
use sr_keys::VaultKeys;
use sr_vault::{ChunkId, ChunkIds, block::Kind, index::Place, manifest::Listed, tree::Content};
use sr_wire::{Misbehaviour, PackId, SnapshotId};

use crate::{
    ClientError, RefusedFile,
    backup::join_all,
    progress::{Phase, Progress},
    read::{ReadError, Reader, expand},
    remote::{Remote, os_rng},
    view::View,
};

/// How much content a check reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadData {
    /// None: lists and trees only.
    Nothing,
    /// Of the packs, so many in a hundred, by chance.
    Part(u8),
    /// All of it.
    All,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Snapshots that were checked, but for those that are forgotten.
    pub snapshots: u64,
    /// Packs that the server has.
    pub packs: u64,
    /// Packs that were read back.
    pub packs_read: u64,
    /// Bytes of content that were read back and compared with their ids.
    pub bytes_read: u64,
    /// Bytes of all content.
    pub bytes: u64,
    /// Unix seconds when all content of that time was read back last.
    pub all_read_s: Option<u64>,
    /// Packs that are missing or damaged.
    pub bad_packs: Vec<(PackId, Misbehaviour)>,
    /// Files that can't be had back whole, each once, under its newest snapshot.
    pub files: Vec<RefusedFile>,
    /// The snapshots that have such files, or folders.
    pub bad_snapshots: Vec<SnapshotId>,
    /// Whether a list without which nothing can be found is among what is damaged.
    pub lists_damaged: bool,
}

impl VerifyReport {
    /// Returns whether everything can be had back. Damaged packs that nothing needs any more, because
    /// what they held was stored anew, do not matter.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.files.is_empty() && !self.lists_damaged
    }

    /// Returns with what probability this check had found damage to one pack in `in_packs`.
    ///
    /// That is 1 − C(N − k, n) / C(N, n), of n packs read out of N with k damaged ones.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a million packs at most")]
    pub fn probability(&self, in_packs: u64) -> f64 {
        let damaged = self.packs.div_ceil(in_packs.max(1));
        let missed = (0..self.packs_read).map(|read| {
            let left = (self.packs - read) as f64;
            (left - damaged as f64).max(0.0) / left
        });
        1.0 - missed.product::<f64>()
    }
}

/// Packs that are read at once.
const WORKERS: usize = 2;

type Bad = HashMap<ChunkId, Misbehaviour>;

/// Checks every snapshot of `view`: that every chunk has a place in a pack that the server has, and that
/// is not among those `known` to be damaged, and of what is read that every chunk is what its id says.
pub(crate) fn verify(
    view: &View,
    keys: &VaultKeys,
    ids: &ChunkIds,
    remote: &Remote,
    read_data: ReadData,
    known: &[PackId],
    progress: &Progress,
) -> Result<VerifyReport, ClientError> {
    let all: Vec<PackId> = view.index.packs().collect::<BTreeSet<_>>().into_iter().collect();
    let missing: HashSet<PackId> = remote.missing(keys, &all)?.into_iter().collect();
    let to_read = chosen(&all, read_data);
    progress.start(Phase::Checking, to_read.len() as u64);
    let report = VerifyReport {
        snapshots: view.manifest.live().count() as u64,
        packs: (all.len() - missing.len()) as u64,
        bytes: view.index.chunks().map(|(_, place)| u64::from(place.len)).sum(),
        bad_packs: missing.iter().map(|pack| (*pack, Misbehaviour::PackMissing)).collect(),
        ..VerifyReport::default()
    };
    let reader = Reader::new(keys, remote, &view.index, ids);
    let packs: Vec<(PackId, Blocks)> = blocks_by_pack(view).into_iter().collect();
    let (cursor, found) = (AtomicUsize::new(0), Mutex::new((Bad::new(), report)));
    thread::scope(|scope| {
        let work = || {
            while let Some((pack, blocks)) = packs.get(cursor.fetch_add(1, Ordering::Relaxed)) {
                let is_read = to_read.contains(pack) && !missing.contains(pack);
                let checked = if missing.contains(pack) {
                    Checked { whole: Err(Misbehaviour::PackMissing), ..Checked::default() }
                } else if is_read {
                    let checked = check_pack(&reader, ids, view, *pack, blocks)?;
                    progress.did(1, 0);
                    checked
                } else if known.contains(pack) {
                    Checked { whole: Err(Misbehaviour::PackAltered), ..Checked::default() }
                } else {
                    Checked::default()
                };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                let (bad, report) = &mut *found;
                report.packs_read += u64::from(is_read);
                report.bytes_read += checked.bytes_read;
                for id in checked.wrong {
                    bad.insert(id, Misbehaviour::ChunkMismatch);
                    report.bad_packs.push((*pack, Misbehaviour::ChunkMismatch));
                }
                if let Err(misbehaviour) = checked.whole {
                    bad.extend(blocks.values().flatten().map(|(id, _)| (*id, misbehaviour)));
                    if !missing.contains(pack) {
                        report.bad_packs.push((*pack, misbehaviour));
                    }
                }
            }
            Ok(())
        };
        join_all((0..WORKERS).map(|_| scope.spawn(work)).collect())
    })?;
    let (bad, mut report) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // What only this device's cache makes up for is lost with this device.
    report.lists_damaged = view.bad_lists.iter().any(|(_, _, cached)| *cached);
    report.bad_packs.extend(view.gone.iter().map(|pack| (*pack, Misbehaviour::PackMissing)));
    report.bad_packs.extend(view.bad_lists.iter().map(|(pack, why, _)| (*pack, *why)));
    Names { view, reader: &reader, bad: &bad, report: &mut report }.find(ids)?;
    report.bad_packs.sort_by_key(|(pack, _)| *pack);
    report.bad_packs.dedup_by_key(|(pack, _)| *pack);
    Ok(report)
}

/// Chooses the packs that are read, so that no server can know them before.
fn chosen(packs: &[PackId], read_data: ReadData) -> HashSet<PackId> {
    let wanted = match read_data {
        ReadData::Nothing => 0,
        ReadData::Part(percent) => (packs.len() * usize::from(percent.min(100))).div_ceil(100),
        ReadData::All => packs.len(),
    };
    // The first of them in the order of random numbers.
    let mut rng = os_rng();
    let mut drawn: Vec<(u64, PackId)> = packs.iter().map(|p| (rng.next_u64(), *p)).collect();
    drawn.sort_unstable();
    drawn.into_iter().take(wanted).map(|(_, pack)| pack).collect()
}

type Blocks = BTreeMap<u32, Vec<(ChunkId, Place)>>;

fn blocks_by_pack(view: &View) -> BTreeMap<PackId, Blocks> {
    let mut packs: BTreeMap<PackId, Blocks> = BTreeMap::new();
    for (id, place) in view.index.chunks() {
        let pack = view.index.block(place.block).and_then(|block| view.index.pack(block.pack));
        if let Some((pack, _)) = pack {
            packs.entry(pack).or_default().entry(place.block).or_default().push((id, place));
        }
    }
    // Packs that hold no chunk are read too: they hold indexes and manifests.
    for pack in view.index.packs() {
        packs.entry(pack).or_default();
    }
    packs
}

/// What reading a pack gave.
struct Checked {
    /// Whether it is the pack that was stored.
    whole: Result<(), Misbehaviour>,
    /// Chunks that are not what their ids say.
    wrong: Vec<ChunkId>,
    bytes_read: u64,
}

impl Default for Checked {
    fn default() -> Self {
        Self { whole: Ok(()), wrong: Vec::new(), bytes_read: 0 }
    }
}

/// Reads a pack whole. An error ends the check; what is wrong with the pack is none.
fn check_pack(
    reader: &Reader<'_>,
    ids: &ChunkIds,
    view: &View,
    pack: PackId,
    blocks: &Blocks,
) -> Result<Checked, ClientError> {
    let mut checked = Checked::default();
    let opened = match reader.open_whole(pack) {
        Ok(opened) => opened,
        Err(ReadError::Damaged(misbehaviour)) => {
            checked.whole = Err(misbehaviour);
            return Ok(checked);
        }
        Err(error) => return Err(error.into()),
    };
    checked.whole = opened.table().map(|_| ());
    if checked.whole.is_err() {
        return Ok(checked);
    }
    for (number, chunks) in blocks {
        let Some(place) = view.index.block(*number) else { continue };
        let raw = expand(&opened, place).unwrap_or_default();
        for (id, place) in chunks {
            let from = place.offset as usize;
            let chunk = raw.get(from..from + place.len as usize).unwrap_or_default();
            let actual = match view.index.block(*number).map(|block| block.kind) {
                Some(Kind::Tree) => ids.tree(chunk),
                _ => ids.data(chunk),
            };
            // SR-004
            if actual != *id {
                checked.wrong.push(*id);
            }
            checked.bytes_read += chunk.len() as u64;
        }
    }
    Ok(checked)
}

/// Names the files that need a bad chunk, and the snapshots that have them.
struct Names<'a> {
    view: &'a View,
    reader: &'a Reader<'a>,
    bad: &'a Bad,
    report: &'a mut VerifyReport,
}

/// The folders of all snapshots, each once, by its tree.
#[derive(Default)]
struct Folders {
    numbers: HashMap<Vec<ChunkId>, usize>,
    /// Those that each is in.
    parents: Vec<Vec<usize>>,
    bad: Vec<usize>,
}

impl Folders {
    /// Returns a folder's number, and whether it is new.
    fn number(&mut self, chunks: &[ChunkId], parent: Option<usize>) -> (usize, bool) {
        let next = self.numbers.len();
        let number = *self.numbers.entry(chunks.to_vec()).or_insert(next);
        if number == next {
            self.parents.push(Vec::new());
        }
        self.parents[number].extend(parent);
        (number, number == next)
    }

    /// Returns all that are bad, or have one that is.
    fn concerned(&self) -> HashSet<usize> {
        let mut concerned = HashSet::new();
        let mut stack = self.bad.clone();
        while let Some(number) = stack.pop() {
            if concerned.insert(number) {
                stack.extend(&self.parents[number]);
            }
        }
        concerned
    }
}

impl Names<'_> {
    /// Walks all trees, each once.
    fn find(mut self, ids: &ChunkIds) -> Result<(), ClientError> {
        let mut folders = Folders::default();
        let mut roots = Vec::new();
        // Those that are forgotten may be wanted back.
        for Listed { snapshot, .. } in self.view.manifest.snapshots.iter().rev() {
            let base = PathBuf::from(OsStr::from_bytes(snapshot.path.as_slice()));
            let mut stack = vec![(base, snapshot.root.clone(), None)];
            while let Some((path, node, parent)) = stack.pop() {
                let chunks = match &node.content {
                    Content::File { chunks, .. } => {
                        if let Some(misbehaviour) = self.check_file(chunks) {
                            self.add_file(&path, misbehaviour);
                            folders.bad.extend(parent);
                        }
                        continue;
                    }
                    Content::Folder { chunks } => chunks,
                    _ => continue,
                };
                let (number, is_new) = folders.number(chunks, parent);
                if parent.is_none() {
                    roots.push((number, snapshot.id(ids)));
                }
                if !is_new {
                    continue;
                }
                match self.reader.tree(chunks) {
                    Ok(nodes) => stack.extend(nodes.into_iter().map(|node| {
                        (path.join(OsStr::from_bytes(node.name.as_slice())), node, Some(number))
                    })),
                    Err(ReadError::Damaged(misbehaviour)) => {
                        self.add_file(&path, misbehaviour);
                        folders.bad.push(number);
                        let places = chunks.iter().filter_map(|id| self.view.index.find(id));
                        let blocks = places.filter_map(|p| self.view.index.block(p.block));
                        let packs = blocks.filter_map(|block| self.view.index.pack(block.pack));
                        let packs = packs.map(|(pack, _)| (pack, misbehaviour));
                        self.report.bad_packs.extend(packs);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let concerned = folders.concerned();
        let roots = roots.into_iter().filter(|(number, _)| concerned.contains(number));
        self.report.bad_snapshots = roots.map(|(_, snapshot)| snapshot).collect();
        self.report.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.report.files.dedup_by(|a, b| a.path == b.path);
        Ok(())
    }

    fn check_file(&self, chunks: &[ChunkId]) -> Option<Misbehaviour> {
        chunks.iter().find_map(|id| match self.bad.get(id) {
            Some(misbehaviour) => Some(*misbehaviour),
            None if self.view.index.find(id).is_none() => Some(Misbehaviour::PackMissing),
            None => None,
        })
    }

    fn add_file(&mut self, path: &Path, misbehaviour: Misbehaviour) {
        let why = misbehaviour.to_string();
        self.report.files.push(RefusedFile { path: path.to_owned(), why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_is_that_of_drawing_without_putting_back() {
        let of = |packs, packs_read, in_packs| {
            VerifyReport { packs, packs_read, ..VerifyReport::default() }.probability(in_packs)
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(of(0, 0, 100), 0.0);
        near(of(10, 0, 100), 0.0);
        // One of ten is damaged.
        near(of(10, 3, 100), 0.3);
        near(of(10, 10, 100), 1.0);
        // Two of five: 1 - C(3,2)/C(5,2).
        near(of(5, 2, 3), 0.7);
        // All but two are read, and three are damaged.
        near(of(6, 4, 2), 1.0);
    }

    #[test]
    fn a_part_is_drawn_by_chance() {
        let packs: Vec<PackId> = (0..200).map(|n| PackId([n; 32])).collect();
        assert_eq!(chosen(&packs, ReadData::Nothing).len(), 0);
        assert_eq!(chosen(&packs, ReadData::All).len(), 200);
        assert_eq!(chosen(&packs[..3], ReadData::Part(1)).len(), 1);
        let (one, other) = (chosen(&packs, ReadData::Part(10)), chosen(&packs, ReadData::Part(10)));
        assert_eq!((one.len(), other.len()), (20, 20));
        assert_ne!(one, other);
    }
}
