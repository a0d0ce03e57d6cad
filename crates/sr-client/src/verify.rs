//! Whether everything can be had back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId, ChunkIds,
    block::Kind,
    index::Place,
    manifest::Listed,
    tree::{Content, Node},
};
use sr_wire::{Misbehaviour, PackId};

use crate::{
    ClientError, RefusedFile,
    backup::join_all,
    progress::{Phase, Progress},
    read::{ReadError, Reader, expand},
    remote::Remote,
    view::View,
};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Snapshots that were checked.
    pub snapshots: u64,
    /// Packs that the server has.
    pub packs: u64,
    /// Bytes of content that were read back and compared with their ids.
    pub bytes_read: u64,
    /// Packs that are missing or damaged.
    pub bad_packs: Vec<(PackId, Misbehaviour)>,
    /// Files that can't be had back whole, each once, under its newest snapshot.
    pub files: Vec<RefusedFile>,
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
}

/// Packs that are read at once.
const WORKERS: usize = 2;

type Bad = HashMap<ChunkId, Misbehaviour>;

/// Checks every snapshot of `view`: that every chunk has a place in a pack that the server has, and
/// with `read_data` that every chunk is what its id says.
pub(crate) fn verify(
    view: &View,
    keys: &VaultKeys,
    ids: &ChunkIds,
    remote: &Remote,
    read_data: bool,
    progress: &Progress,
) -> Result<VerifyReport, ClientError> {
    let mut report =
        VerifyReport { snapshots: view.manifest.live().count() as u64, ..VerifyReport::default() };
    let packs: Vec<PackId> = {
        let mut packs: Vec<PackId> = view.index.packs().collect();
        packs.sort_unstable();
        packs.dedup();
        packs
    };
    progress.start(Phase::Checking, if read_data { packs.len() as u64 } else { 0 });
    let missing: HashSet<PackId> = remote.missing(keys, &packs)?.into_iter().collect();
    report.packs = (packs.len() - missing.len()) as u64;
    report.bad_packs.extend(missing.iter().map(|pack| (*pack, Misbehaviour::PackMissing)));
    let reader = Reader::new(keys, remote, &view.index, ids);
    let packs: Vec<(PackId, Blocks)> = blocks_by_pack(view).into_iter().collect();
    let (cursor, found) = (AtomicUsize::new(0), Mutex::new((Bad::new(), report)));
    thread::scope(|scope| {
        let work = || {
            while let Some((pack, blocks)) = packs.get(cursor.fetch_add(1, Ordering::Relaxed)) {
                let checked = if missing.contains(pack) {
                    Checked { whole: Err(Misbehaviour::PackMissing), ..Checked::default() }
                } else if read_data {
                    let checked = check_pack(&reader, ids, view, *pack, blocks)?;
                    progress.did(1, 0);
                    checked
                } else {
                    Checked::default()
                };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                let (bad, report) = &mut *found;
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
    report.bad_packs.extend(view.bad_lists.iter().map(|(pack, why, _)| (*pack, *why)));
    name_files(view, &reader, &bad, &mut report)?;
    report.bad_packs.sort_by_key(|(pack, _)| *pack);
    report.bad_packs.dedup_by_key(|(pack, _)| *pack);
    Ok(report)
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

/// Walks all trees, each once, and names the files that need a bad chunk.
fn name_files(
    view: &View,
    reader: &Reader<'_>,
    bad: &Bad,
    report: &mut VerifyReport,
) -> Result<(), ClientError> {
    let mut seen = HashSet::new();
    // Those that are forgotten may be wanted back.
    for Listed { snapshot, .. } in view.manifest.snapshots.iter().rev() {
        let base = PathBuf::from(OsStr::from_bytes(snapshot.path.as_slice()));
        let mut stack = vec![(base, snapshot.root.clone())];
        while let Some((path, node)) = stack.pop() {
            let chunks = match &node.content {
                Content::File { chunks, .. } => {
                    check_file(view, bad, report, &path, chunks);
                    continue;
                }
                Content::Folder { chunks } => chunks.clone(),
                _ => continue,
            };
            if !seen.insert(chunks.clone()) {
                continue;
            }
            match reader.tree(&chunks) {
                Ok(nodes) => stack.extend(nodes.into_iter().map(|node| below(&path, node))),
                Err(ReadError::Damaged(misbehaviour)) => {
                    add_file(report, &path, misbehaviour);
                    let places = chunks.iter().filter_map(|id| view.index.find(id));
                    let blocks = places.filter_map(|place| view.index.block(place.block));
                    let packs = blocks.filter_map(|block| view.index.pack(block.pack));
                    report.bad_packs.extend(packs.map(|(pack, _)| (pack, misbehaviour)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    report.files.dedup_by(|a, b| a.path == b.path);
    Ok(())
}

fn below(path: &Path, node: Node) -> (PathBuf, Node) {
    (path.join(OsStr::from_bytes(node.name.as_slice())), node)
}

fn check_file(view: &View, bad: &Bad, report: &mut VerifyReport, path: &Path, chunks: &[ChunkId]) {
    let wrong = chunks.iter().find_map(|id| match bad.get(id) {
        Some(misbehaviour) => Some(*misbehaviour),
        None if view.index.find(id).is_none() => Some(Misbehaviour::PackMissing),
        None => None,
    });
    if let Some(misbehaviour) = wrong {
        add_file(report, path, misbehaviour);
    }
}

fn add_file(report: &mut VerifyReport, path: &Path, misbehaviour: Misbehaviour) {
    report.files.push(RefusedFile { path: path.to_owned(), why: misbehaviour.to_string() });
}
