//! Whether everything can be had back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId, ChunkIds,
    block::Kind,
    index::Place,
    tree::{Content, Node},
};
use sr_wire::{Misbehaviour, PackId};

use crate::{
    ClientError, RefusedFile,
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
        VerifyReport { snapshots: view.manifest.snapshots.len() as u64, ..VerifyReport::default() };
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
    let mut bad = Bad::new();
    for (pack, blocks) in blocks_by_pack(view) {
        let result = if missing.contains(&pack) {
            Err(Misbehaviour::PackMissing)
        } else if read_data {
            let checked = check_pack(&reader, ids, view, pack, &blocks, &mut bad, &mut report)?;
            progress.did(1, 0);
            checked
        } else {
            Ok(())
        };
        if let Err(misbehaviour) = result {
            let chunks = blocks.values().flatten();
            bad.extend(chunks.map(|(id, _)| (*id, misbehaviour)));
            if !missing.contains(&pack) {
                report.bad_packs.push((pack, misbehaviour));
            }
        }
    }
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

/// Reads a pack whole. The outer error ends the check; the inner one is a finding.
fn check_pack(
    reader: &Reader<'_>,
    ids: &ChunkIds,
    view: &View,
    pack: PackId,
    blocks: &Blocks,
    bad: &mut Bad,
    report: &mut VerifyReport,
) -> Result<Result<(), Misbehaviour>, ClientError> {
    let opened = match reader.open_whole(pack) {
        Ok(opened) => opened,
        Err(ReadError::Damaged(misbehaviour)) => return Ok(Err(misbehaviour)),
        Err(error) => return Err(error.into()),
    };
    if let Err(misbehaviour) = opened.table() {
        return Ok(Err(misbehaviour));
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
                bad.insert(*id, Misbehaviour::ChunkMismatch);
                report.bad_packs.push((pack, Misbehaviour::ChunkMismatch));
            }
            report.bytes_read += chunk.len() as u64;
        }
    }
    Ok(Ok(()))
}

/// Walks all trees, each once, and names the files that need a bad chunk.
fn name_files(
    view: &View,
    reader: &Reader<'_>,
    bad: &Bad,
    report: &mut VerifyReport,
) -> Result<(), ClientError> {
    let mut seen = HashSet::new();
    for snapshot in view.manifest.snapshots.iter().rev() {
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
