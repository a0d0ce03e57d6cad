//! Freeing what no snapshot needs, and having back what was freed.
//!
//! In two phases: first a head under which nothing names the packs any more, then their deletion at
//! the server, which keeps them for some days. So a crash in between loses nothing, and a backup that
//! ran meanwhile is overtaken and finds out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    thread,
};

use sr_vault::{
    ChunkId, ChunkIds,
    block::{BlockBuilder, Compression, Compressor, Kind},
    head::{self, Before, HeadPlace},
    index::{ChunkIndex, IndexBlock, IndexPack},
    manifest::{Listed, Manifest, PINNED},
    pack::{Class, Slots},
    tree::{Content, Node},
};
use sr_wire::{Misbehaviour, PackId};

use crate::{
    Client, ClientError,
    backup::{compressor, join_all, store_manifest},
    devices::unless_overtaken,
    profile::Profile,
    progress::{Phase, Progress},
    read::{Reader, expand},
    remote::Remote,
    sink::{Adopted, Finished, Sink, UPLOADERS, upload},
    view::{Cache, For, View, manifest_of},
};

/// Of what is stored, this part may be of no use before packs are packed anew: one in twenty.
const UNUSED_MAX: u64 = 20;
/// Heads in a row of which something is gone, before what is older is given up.
const GONE_MAX: usize = 100;
/// More lists than this are worth to be put together: each backup adds one.
const LISTS_MAX: usize = 64;

/// What a prune does, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Forgotten snapshots that go.
    pub snapshots: u64,
    /// Forgotten snapshots that still wait.
    pub waiting: u64,
    /// Seconds until the last of them may go, if this device runs each day.
    pub wait_s: u64,
    /// Forgotten snapshots that stay, because the device that marked them was taken out since.
    pub unmarked: u64,
    /// Packs that are deleted, and about how many bytes the server frees by that in the end.
    pub packs: u64,
    /// See [`PruneReport::packs`].
    pub bytes: u64,
    /// Packs whose useful part is packed anew, about how many bytes.
    pub repacked: u64,
    /// About how many bytes stay.
    pub bytes_left: u64,
}

/// What was had back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undeleted {
    /// Packs that the server took out of its trash.
    pub packs: u64,
    /// Snapshots that are in the list again.
    pub snapshots: u64,
}

/// What stays and what goes.
struct Plan {
    report: PruneReport,
    /// Snapshots that stay.
    snapshots: Vec<Listed>,
    /// Packs that stay, without the names of what nobody needs.
    kept: Vec<IndexPack>,
    /// Packs that are packed anew.
    repack: Vec<IndexPack>,
    /// Packs that go.
    retired: Vec<PackId>,
}

impl Plan {
    fn is_worth_it(&self, lists: usize) -> bool {
        self.report.snapshots > 0 || !self.repack.is_empty() || lists > LISTS_MAX
    }
}

impl Client {
    /// Frees what no snapshot needs any more. Forgotten snapshots go after the account's delay, counted
    /// by this device, and unless the device that marked them was taken out. With `dry_run` nothing is
    /// changed, and the report says what would be.
    ///
    /// **Errors** [`ClientError::Misbehaviour`] when something that is needed is damaged or missing:
    /// then nothing is pruned; and those of reading and writing the vault.
    pub fn prune(
        &mut self,
        dry_run: bool,
        progress: &Progress,
    ) -> Result<PruneReport, ClientError> {
        unless_overtaken(|| {
            self.fresh(|client| {
                client.require_full()?;
                client.try_prune(dry_run, progress)
            })
        })
    }

    /// Brings back what was pruned, as long as the server has it, with the snapshots that it belongs
    /// to.
    ///
    /// **Errors** those of reading and writing the vault.
    pub fn undelete(&mut self) -> Result<Undeleted, ClientError> {
        self.profile.require_unsealed()?;
        unless_overtaken(|| {
            self.fresh(|client| {
                client.require_full()?;
                client.try_undelete()
            })
        })
    }

    fn try_prune(
        &mut self,
        dry_run: bool,
        progress: &Progress,
    ) -> Result<PruneReport, ClientError> {
        progress.start(Phase::Checking, 0);
        let (view, _) = self.view_to_write(&[])?;
        let lost = view.lost(&self.remote, &self.profile.keys.vault)?;
        self.profile.add_damaged(&lost)?;
        // What is lost counts as unknown: if a snapshot needs it, nothing is pruned.
        let (view, pending) = self.view_to_write(&lost)?;
        if !dry_run {
            self.finish_deletion(&view)?;
        }
        let plan = self.plan(&view, &pending)?;
        let mut report = plan.report;
        if !plan.is_worth_it(view.manifest.indexes.len()) {
            report.bytes_left += report.bytes;
            (report.packs, report.bytes) = (0, 0);
            return Ok(report);
        }
        if dry_run {
            return Ok(report);
        }
        progress.start(Phase::Storing, plan.repack.len() as u64);
        let retired = plan.retired.clone();
        let finished = repack(&mut self.profile, &self.remote, &view, plan, pending, progress)?;
        progress.start(Phase::Finishing, 0);
        self.swap_manifest(view.place, &finished)?;
        Cache { dir: self.profile.cache_dir()? }.keep_only(&finished.manifest, finished.pack);
        self.delete(&retired)?;
        Ok(report)
    }

    /// Deletes packs, and takes that back if another device has found use for them meanwhile, as one does
    /// that has brought them back.
    fn delete(&mut self, packs: &[PackId]) -> Result<(), ClientError> {
        if packs.is_empty() {
            return Ok(());
        }
        let keys = Arc::clone(&self.profile.keys);
        self.remote.delete_packs(&keys.vault, packs)?;
        let now = View::open(&mut self.profile, &self.remote, For::Reading)?;
        if now.index.packs().any(|pack| packs.contains(&pack)) {
            self.remote.undelete_packs(&keys.vault)?;
        }
        Ok(())
    }

    /// Deletes what an earlier prune has retired and did not come to delete.
    fn finish_deletion(&mut self, view: &View) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let needed: HashSet<PackId> = view.index.packs().collect();
        let mut retired = view.manifest.retired.clone();
        // A device that was stolen may have put anything there.
        retired.retain(|pack| !needed.contains(pack));
        let gone = self.remote.missing(&keys.vault, &retired)?;
        retired.retain(|pack| !gone.contains(pack));
        self.delete(&retired)
    }

    fn plan(&self, view: &View, pending: &[IndexPack]) -> Result<Plan, ClientError> {
        let keys = &self.profile.keys;
        let ids = ChunkIds::new(&keys.vault);
        let delay = self.profile.delay()?;
        let delay_s = u64::from(keys.account.policy().delay_s);
        let mut report = PruneReport::default();
        let mut snapshots = Vec::new();
        for listed in &view.manifest.snapshots {
            if let Some(forgotten) = listed.forgotten {
                let left_s = delay.left_s(listed, &ids, delay_s);
                // Another device can write this one's name, and mark what is pinned.
                let is_forged =
                    forgotten.by == keys.device.id() && !self.is_own_mark(&delay, listed, &ids);
                if !keys.account.is_full(forgotten.by) || is_forged || listed.has_tag(PINNED) {
                    report.unmarked += 1;
                } else if left_s > 0 {
                    report.waiting += 1;
                    report.wait_s = report.wait_s.max(left_s);
                } else {
                    report.snapshots += 1;
                    continue;
                }
            }
            snapshots.push(listed.clone());
        }
        let reader = Reader::new(&keys.vault, &self.remote, &view.index, &ids);
        let used = Used::by(&snapshots, &view.index, &reader)?;
        let mut plan = Plan { report, snapshots, kept: vec![], repack: vec![], retired: vec![] };
        let pending: HashSet<PackId> = pending.iter().map(|pack| pack.id).collect();
        let mut lists: HashMap<PackId, u32> = HashMap::new();
        for index in &view.manifest.indexes {
            let end = lists.entry(index.pack).or_default();
            *end = (*end).max(index.offset.saturating_add(index.stored_len));
        }
        let (mut wasteful, mut displaced) = (Vec::new(), HashSet::new());
        let (mut used_len, mut unused_len) = (0, 0);
        // ST-16: all lists, or nothing is pruned. What a hidden one names could not be told from what
        // nobody needs.
        for pack in view.packs(&self.profile, &self.remote)? {
            if pending.contains(&pack.id) {
                continue;
            }
            let lists_end = lists.get(&pack.id).copied().unwrap_or(0);
            let (size, stored) = (pack_len(&pack, lists_end), stored_len(&pack));
            let (id, pack) = (pack.id, used.part_of(pack, &view.index, &mut displaced));
            if pack.blocks.is_empty() {
                plan.retired.push(id);
                plan.report.packs += 1;
                plan.report.bytes += size;
                continue;
            }
            let used = used_part(&pack);
            used_len += used;
            unused_len += stored.saturating_sub(used);
            wasteful.push((pack, size, used, stored));
        }
        for (kind, id) in displaced {
            // Another copy goes for the newest one, which whoever wrote the newest list chose.
            reader.chunk(kind, &id, |_| ())?;
        }
        wasteful.sort_by_key(|(_, _, used, stored)| used * 1000 / (stored + 1));
        for (pack, size, used, stored) in wasteful {
            let is_too_much = unused_len * UNUSED_MAX > used_len;
            if is_too_much && used < stored {
                unused_len -= stored - used;
                plan.retired.push(pack.id);
                plan.report.packs += 1;
                plan.report.bytes += size.saturating_sub(used);
                plan.report.repacked += used;
                plan.report.bytes_left += used;
                plan.repack.push(pack);
            } else {
                plan.report.bytes_left += size;
                plan.kept.push(pack);
            }
        }
        Ok(plan)
    }

    fn try_undelete(&mut self) -> Result<Undeleted, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let packs = self.remote.undelete_packs(&keys.vault)?;
        let (mut view, stored) = self.view_to_write(&[])?;
        let ids = ChunkIds::new(&keys.vault);
        let before = view.manifest.snapshots.len();
        let tip = view.place;
        let chain = self.remote.heads(&keys.vault, 1, tip.seq)?;
        // SR-007: these heads must lead to the one that was accepted.
        Misbehaviour::HeadForked.refuse_if(HeadPlace::of(chain.last()) != tip)?;
        let (account, removals) = (&keys.account, keys.removals());
        let judged = head::follow(Before::NOTHING, &chain, &keys.vault, account, removals)?;
        let mut gone = 0;
        // What does not count, by a device that was taken out say, does not come back by this.
        for head::Opened { head, .. } in judged.counting.iter().rev() {
            match self.manifest_before(head, &view.manifest) {
                Ok(older) => {
                    merge(&mut view.manifest, older, &ids);
                    gone = 0;
                }
                // One may be missing by accident, or on purpose; what is before many is gone for good.
                Err(ClientError::Misbehaviour(_)) if gone < GONE_MAX => gone += 1,
                Err(ClientError::Misbehaviour(_)) => break,
                Err(error) => return Err(error),
            }
        }
        let snapshots = (view.manifest.snapshots.len() - before) as u64;
        if snapshots > 0 {
            view.manifest.retired.clear();
            let (profile, remote) = (&mut self.profile, &self.remote);
            let finished = store_manifest(profile, remote, view.manifest, stored)?;
            self.swap_manifest(tip, &finished)?;
        }
        Ok(Undeleted { packs, snapshots })
    }

    /// Returns the manifest of an earlier head, if all packs that it names and `newer` does not are
    /// there.
    fn manifest_before(
        &self,
        head: &head::Head,
        newer: &Manifest,
    ) -> Result<Manifest, ClientError> {
        let mut older = manifest_of(&self.profile, &self.remote, head)?;
        let known: HashSet<_> = newer.indexes.iter().map(|index| index.hash).collect();
        older.indexes.retain(|index| !known.contains(&index.hash));
        let indexes = older.indexes.clone();
        let lists = View::of_lists(Manifest { indexes, ..Manifest::default() });
        let packs: Vec<PackId> =
            lists.packs(&self.profile, &self.remote)?.iter().map(|pack| pack.id).collect();
        let missing = self.remote.missing(&self.profile.keys.vault, &packs)?;
        // SR-003
        Misbehaviour::PackMissing.refuse_if(!missing.is_empty())?;
        Ok(older)
    }
}

/// Adds what an older manifest has besides, before what is there: what was stored later counts first.
fn merge(manifest: &mut Manifest, older: Manifest, ids: &ChunkIds) {
    let known: HashSet<_> = manifest.snapshots.iter().map(|l| l.snapshot.id(ids)).collect();
    let back = older.snapshots.into_iter().filter(|l| !known.contains(&l.snapshot.id(ids)));
    let back: Vec<Listed> = back.map(|l| Listed { forgotten: None, ..l }).collect();
    if back.is_empty() {
        return;
    }
    manifest.indexes.splice(0..0, older.indexes);
    manifest.snapshots.splice(0..0, back);
    manifest.snapshots.sort_by_key(|listed| listed.snapshot.number);
}

/// Which chunks snapshots need.
struct Used(Vec<bool>);

impl Used {
    /// Walks all trees of `snapshots`, each once.
    fn by(
        snapshots: &[Listed],
        index: &ChunkIndex,
        reader: &Reader<'_>,
    ) -> Result<Self, ClientError> {
        let mut used = Self(vec![false; index.len()]);
        let mut seen = HashSet::new();
        let mut stack: Vec<Node> = snapshots.iter().map(|l| l.snapshot.root.clone()).collect();
        while let Some(node) = stack.pop() {
            match &node.content {
                Content::File { chunks, .. } => used.mark(chunks, index)?,
                Content::Folder { chunks } if seen.insert(chunks.clone()) => {
                    used.mark(chunks, index)?;
                    stack.extend(reader.tree(chunks)?);
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn mark(&mut self, chunks: &[ChunkId], index: &ChunkIndex) -> Result<(), Misbehaviour> {
        for id in chunks {
            // SR-003: a verified tree names a chunk that no verified index knows.
            let number = index.number(id).ok_or(Misbehaviour::PackMissing)?;
            self.0[number as usize] = true;
        }
        Ok(())
    }

    /// Returns a pack with the blocks that are needed, in which the chunks that are not have lost their
    /// names. A chunk that was stored twice is needed where it was stored last.
    /// Those that are needed and lose another place are added to `displaced`.
    fn part_of(
        &self,
        mut pack: IndexPack,
        index: &ChunkIndex,
        displaced: &mut HashSet<(Kind, ChunkId)>,
    ) -> IndexPack {
        let id = pack.id;
        let is_used = |number: u32| self.0[number as usize];
        for block in &mut pack.blocks {
            let mut offset = 0;
            for chunk in &mut block.chunks {
                let place = index.find(&chunk.id).filter(|place| {
                    let at = index.block(place.block);
                    let holds = at.and_then(|at| Some((index.pack(at.pack)?.0, at.offset)));
                    holds == Some((id, block.offset)) && place.offset == offset
                });
                offset += chunk.len;
                let is_needed = index.number(&chunk.id).is_some_and(is_used);
                if is_needed && place.is_none() {
                    displaced.insert((block.kind, chunk.id));
                }
                if !is_needed || place.is_none() {
                    chunk.id = ChunkId::PRUNED;
                }
            }
        }
        pack.blocks.retain(|block| block.chunks.iter().any(|chunk| chunk.id != ChunkId::PRUNED));
        pack
    }
}

fn stored_len(pack: &IndexPack) -> u64 {
    pack.blocks.iter().map(|block| u64::from(block.stored_len)).sum()
}

/// Returns about how many stored bytes of a pack are needed.
fn used_part(pack: &IndexPack) -> u64 {
    let part = |block: &IndexBlock| {
        let named = block.chunks.iter().filter(|chunk| chunk.id != ChunkId::PRUNED);
        let used: u64 = named.map(|chunk| u64::from(chunk.len)).sum();
        used * u64::from(block.stored_len) / u64::from(block.raw_len.max(1))
    };
    pack.blocks.iter().map(part).sum()
}

/// Returns the length of the smallest pack that holds these blocks and lists: the pack's own, but for a
/// manifest that lies behind them.
fn pack_len(pack: &IndexPack, lists_end: u32) -> u64 {
    let ends = pack.blocks.iter().map(|block| block.offset + block.stored_len);
    let end = ends.max().unwrap_or(0).max(lists_end);
    Class::for_plain(end as usize).unwrap_or(Class::LARGEST).pack_len() as u64
}

/// Stores what is needed of `plan.repack` in new packs, and lists of all packs.
fn repack(
    profile: &mut Profile,
    remote: &Remote,
    view: &View,
    plan: Plan,
    pending: Vec<IndexPack>,
    progress: &Progress,
) -> Result<Finished, ClientError> {
    let keys = Arc::clone(&profile.keys);
    let ids = ChunkIds::new(&keys.vault);
    let cache = Cache { dir: profile.cache_dir()? };
    let empty = ChunkIndex::default();
    let (sink, queue) = Sink::new(&keys.vault, &empty);
    let reader = Reader::new(&keys.vault, remote, &view.index, &ids);
    let shared = Mutex::new(profile);
    let (finished, uploaded) = thread::scope(|scope| {
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|_| scope.spawn(|| upload(&queue, &shared, &keys.vault, remote, progress)))
            .collect();
        let finished = compressor(Compression::Default).and_then(|mut compressor| {
            let mut anew = Anew { reader: &reader, sink: &sink, compressor: &mut compressor };
            for pack in &plan.repack {
                anew.store(pack)?;
                progress.did(1, 0);
            }
            let stored = plan.kept.into_iter().chain(pending).collect();
            let adopted = Adopted { stored, ..Adopted::default() };
            let (snapshots, retired) = (plan.snapshots, plan.retired);
            let manifest = Manifest { snapshots, indexes: Vec::new(), retired };
            sink.finish(adopted, manifest, &mut compressor, &cache)
        });
        (finished, join_all(uploaders))
    });
    // An uploader's error is the cause, the other only its echo.
    uploaded?;
    finished
}

/// Puts chunks into new packs.
struct Anew<'a, 'b> {
    reader: &'a Reader<'a>,
    sink: &'a Sink<'b>,
    compressor: &'a mut Compressor,
}

impl Anew<'_, '_> {
    fn store(&mut self, pack: &IndexPack) -> Result<(), ClientError> {
        let opened = self.reader.open_sealed(pack.id, &pack.seal, Slots::ALL)?;
        for kind in [Kind::Data, Kind::Tree] {
            let mut builder = BlockBuilder::default();
            for block in pack.blocks.iter().filter(|block| block.kind == kind) {
                let named = block.chunks.iter().find(|chunk| chunk.id != ChunkId::PRUNED);
                let place = named.and_then(|chunk| self.reader.place(&chunk.id));
                let place = place.and_then(|place| self.reader.block_place(place.block));
                let raw = expand(&opened, place.ok_or(Misbehaviour::ObjectMalformed)?)?;
                let mut rest = &raw[..];
                for chunk in &block.chunks {
                    let (bytes, after) = rest
                        .split_at_checked(chunk.len as usize)
                        .ok_or(Misbehaviour::ObjectMalformed)?;
                    rest = after;
                    if chunk.id == ChunkId::PRUNED {
                        continue;
                    }
                    // SR-004
                    self.reader.check(kind, &chunk.id, bytes)?;
                    if !builder.has_room(bytes.len()) {
                        self.flush(kind, &mut builder)?;
                    }
                    builder.push(chunk.id, bytes);
                }
            }
            self.flush(kind, &mut builder)?;
        }
        Ok(())
    }

    fn flush(&mut self, kind: Kind, builder: &mut BlockBuilder) -> Result<(), ClientError> {
        if builder.is_empty() {
            return Ok(());
        }
        let stopped = |_| ClientError::Resources("the upload stopped".into());
        self.sink.add(kind, &builder.compress(self.compressor)).map_err(stopped)?;
        builder.clear();
        Ok(())
    }
}
