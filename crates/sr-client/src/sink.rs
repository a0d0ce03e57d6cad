//! Where new blocks go: into packs, to the server, and into the index of this run.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::Instant,
};

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId, IdTable,
    block::{Block, Compressor, Kind},
    index::{CHUNKS_PER_INDEX, ChunkIndex, Index, IndexBlock, IndexChunk, IndexPack},
    manifest::{IndexRef, MANIFEST_LEN_MAX, Manifest, index_hash},
    pack::{BLOBS_MAX, Class, Entry, PackBuilder, PackSeal, plan_tail},
};
use sr_wire::{PackId, decode, encode};

use crate::{
    ClientError,
    outgoing::{self, Outgoing},
    profile::Profile,
    progress::Progress,
    remote::{Remote, os_rng},
    view::{Cache, index_name, manifest_blob, manifest_name},
};

/// Uploads in flight.
pub(crate) const UPLOADERS: usize = 2;
/// A pack has room for this many blocks, and for some indexes and a manifest beside them.
const BLOCKS_PER_PACK: usize = BLOBS_MAX - 64;
/// What one more pack costs in an index, rounded up.
const INDEX_PACK_LEN: usize = 96;

/// The uploaders are gone; their error says why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// A full pack on its way, with what it holds.
pub(crate) struct Upload {
    builder: PackBuilder,
    holds: IndexPack,
    flight: Flight,
}

/// What the uploaders read.
pub(crate) struct Queue {
    /// The first that fails takes the receiver away, so that no worker waits for a place in it.
    receiver: Mutex<Option<mpsc::Receiver<Upload>>>,
    spare: Spare,
}

/// Packs that were handed over and are not stored yet.
#[derive(Default)]
struct InFlight {
    packs: Mutex<usize>,
    done: Condvar,
}

/// One of them, as long as it lives.
struct Flight(Arc<InFlight>);

impl Flight {
    fn begin(all: &Arc<InFlight>) -> Self {
        *lock(&all.packs) += 1;
        Self(Arc::clone(all))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        *lock(&self.0.packs) -= 1;
        self.0.done.notify_all();
    }
}

/// The memory of packs that were sent, for the next ones.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes blocks from any thread.
pub(crate) struct Sink<'a> {
    keys: &'a VaultKeys,
    index: &'a ChunkIndex,
    claimed: Mutex<IdTable>,
    /// For folders that share nothing with others, by folder.
    claimed_apart: Mutex<HashMap<i64, IdTable>>,
    adopted: HashSet<ChunkId>,
    /// The pack that is being filled, and those that hold what had no room in it.
    open: Mutex<VecDeque<Open>>,
    uploads: mpsc::SyncSender<Upload>,
    in_flight: Arc<InFlight>,
    spare: Spare,
    /// What the packs of this run hold, as it stands in a list: much less than in memory.
    written: Mutex<Vec<Vec<u8>>>,
}

/// Blocks that wait for the next pack, so that others can fill this one to the brim.
const DEFERRED_MAX: usize = 4;

/// A pack that is being filled, and what it holds.
struct Open {
    builder: PackBuilder,
    holds: IndexPack,
}

impl Open {
    fn new(keys: &VaultKeys, id: PackId, spare: &Spare) -> Self {
        let holds = IndexPack { id, seal: PackSeal::of(keys, id), blocks: Vec::new() };
        let buffer = lock(spare).pop();
        let builder =
            buffer.map_or_else(|| PackBuilder::new(id), |b| PackBuilder::with_buffer(id, b));
        Self { builder, holds }
    }

    fn random(keys: &VaultKeys, spare: &Spare) -> Self {
        Self::new(keys, PackId::random(&mut os_rng()), spare)
    }

    fn has_room(&self, len: usize) -> bool {
        self.builder.blobs() < BLOCKS_PER_PACK && self.builder.fits(Class::LARGEST, len)
    }

    /// Adds a block, whose place in the pack `block` does not name yet.
    fn push(&mut self, mut block: IndexBlock, stored: &[u8]) {
        let entry = self.builder.push(block.kind, stored);
        (block.offset, block.stored_len) = (entry.offset, entry.len);
        self.holds.blocks.push(block);
    }
}

impl<'a> Sink<'a> {
    /// Makes a sink and the queue that its uploaders read.
    pub(crate) fn new(keys: &'a VaultKeys, index: &'a ChunkIndex) -> (Self, Queue) {
        // Handed over, not queued: each has 16 MiB.
        let (uploads, queue) = mpsc::sync_channel(0);
        let spare = Spare::default();
        let sink = Self {
            keys,
            index,
            claimed: Mutex::default(),
            claimed_apart: Mutex::default(),
            adopted: HashSet::new(),
            open: Mutex::default(),
            uploads,
            in_flight: Arc::default(),
            spare: Arc::clone(&spare),
            written: Mutex::default(),
        };
        (sink, Queue { receiver: Mutex::new(Some(queue)), spare })
    }

    /// Returns true once for each chunk that is not stored yet: who is told so stores it.
    pub(crate) fn claim(&self, id: ChunkId) -> bool {
        self.index.find(&id).is_none() && lock(&self.claimed).insert(id).1
    }

    /// As [`Sink::claim`], for a folder that shares nothing with others: whether they have it stored does
    /// not matter, only whether this one has in this run.
    pub(crate) fn claim_apart(&self, folder: i64, id: ChunkId) -> bool {
        let is_adopted = self.adopted.contains(&id);
        !is_adopted && lock(&self.claimed_apart).entry(folder).or_default().insert(id).1
    }

    /// Returns whether the server has a chunk already.
    pub(crate) fn is_stored(&self, id: &ChunkId) -> bool {
        self.index.find(id).is_some()
    }

    /// Says what an interrupted run has stored.
    pub(crate) fn adopt(&mut self, stored: &[IndexPack]) {
        let chunks = stored.iter().flat_map(|pack| &pack.blocks).flat_map(|block| &block.chunks);
        self.adopted = chunks.map(|chunk| chunk.id).collect();
    }

    /// Returns whether this run, or the interrupted one before, has stored a chunk.
    pub(crate) fn has_stored(&self, id: &ChunkId) -> bool {
        let apart = || lock(&self.claimed_apart).values().any(|ids| ids.find(id).is_some());
        self.adopted.contains(id) || lock(&self.claimed).find(id).is_some() || apart()
    }

    /// Returns whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.open).is_empty() && lock(&self.written).is_empty()
    }

    /// Adds a block.
    pub(crate) fn add(&self, kind: Kind, block: &Block<'_>) -> Result<(), Stopped> {
        let raw_len = u32::try_from(block.raw_len).unwrap_or(u32::MAX);
        let chunks = block.chunks.iter().map(|(id, len)| IndexChunk { id: *id, len: *len });
        let in_index =
            IndexBlock { kind, offset: 0, stored_len: 0, raw_len, chunks: chunks.collect() };
        let mut open = lock(&self.open);
        let place = open.iter().position(|pack| pack.has_room(block.stored.len()));
        let place = place.unwrap_or_else(|| {
            open.push_back(Open::random(self.keys, &self.spare));
            open.len() - 1
        });
        open[place].push(in_index, block.stored);
        let deferred: usize = open.iter().skip(1).map(|pack| pack.builder.blobs()).sum();
        if deferred < DEFERRED_MAX {
            return Ok(());
        }
        // They stay locked until an uploader takes the full one, so that no other fills meanwhile.
        open.pop_front().map_or(Ok(()), |full| self.send_filled(full))
    }

    /// Sends a pack that this run's index names.
    fn send_filled(&self, open: Open) -> Result<(), Stopped> {
        lock(&self.written).push(encode(&open.holds));
        self.send(open)
    }

    fn send(&self, open: Open) -> Result<(), Stopped> {
        let Open { builder, holds } = open;
        let flight = Flight::begin(&self.in_flight);
        self.uploads.send(Upload { builder, holds, flight }).map_err(|_| Stopped)
    }

    /// Waits for the packs on their way and gives their memory back, so that what comes at the end of a
    /// run takes its place.
    pub(crate) fn settle(&self) {
        let packs = lock(&self.in_flight.packs);
        drop(self.in_flight.done.wait_while(packs, |packs| *packs > 0));
        lock(&self.spare).clear();
    }

    /// Sends what is left, the indexes of this run and of `adopted`, and the manifest. Returns the
    /// manifest and its pack. Everything goes into one tail of packs, so that the server sees one
    /// total and not its parts.
    pub(crate) fn finish(
        self,
        adopted: Adopted,
        mut manifest: Manifest,
        compressor: &mut Compressor,
        cache: &Cache,
    ) -> Result<Finished, ClientError> {
        let stopped = |Stopped| ClientError::Resources("the upload stopped".into());
        let mut open = std::mem::take(&mut *lock(&self.open));
        let rest = open.pop_back().unwrap_or_else(|| Open::random(self.keys, &self.spare));
        for full in open {
            self.send_filled(full).map_err(stopped)?;
        }
        self.settle();
        let mut packs: Vec<Vec<u8>> = adopted.stored.iter().map(encode).collect();
        packs.append(&mut lock(&self.written));
        let anew = adopted.to_index_anew;
        let reserve = packs.iter().map(Vec::len).sum::<usize>()
            + anew.iter().map(|index| index.to_bytes().len()).sum::<usize>()
            + encode(&rest.holds).len()
            + manifest.to_bytes().len()
            + 64 * INDEX_PACK_LEN;
        let fits_tail =
            reserve < Class::LARGEST.plain_len() / 2 && rest.builder.fits(Class::LARGEST, reserve);
        let blocks = rest.holds.blocks;
        let lens: Vec<usize> = blocks.iter().map(|block| block.stored_len as usize).collect();
        let mut groups = plan_tail(&lens, if fits_tail { reserve } else { 0 });
        let last = groups.pop().unwrap_or_default();
        let fill = |group: &[usize]| {
            let mut open = Open::random(self.keys, &self.spare);
            for block in group.iter().map(|number| &blocks[*number]) {
                let entry = Entry { kind: block.kind, offset: block.offset, len: block.stored_len };
                open.push(block.clone(), &rest.builder.blob(entry));
            }
            open
        };
        for group in &groups {
            self.send_filled(fill(group)).map_err(stopped)?;
        }
        let mut open = fill(&last);
        self.free();
        packs.append(&mut lock(&self.written));
        packs.push(encode(&open.holds));
        // Where the tail has no room, each index and the manifest get a pack of their own; their
        // ids are chosen first, because the indexes name them too.
        let mut own: Vec<PackId> = Vec::new();
        if !fits_tail {
            let count = anew.len() + lists(&packs).count() + 1;
            own.extend((0..count).map(|_| PackId::random(&mut os_rng())));
            let holds = |id: &PackId| Open::new(self.keys, *id, &self.spare).holds;
            packs.extend(own.iter().map(|id| encode(&holds(id))));
        }
        let mut own = own.into_iter();
        for index in anew.into_iter().map(Ok).chain(lists(&packs)) {
            self.next_pack(&mut open, &mut own).map_err(stopped)?;
            let raw = index?.to_valid_bytes().map_err(|_| unreadable("list"))?;
            let entry = open.builder.push(Kind::Index, compressor.compress(&raw));
            let index_ref = IndexRef {
                pack: open.builder.id(),
                offset: entry.offset,
                stored_len: entry.len,
                raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX),
                seal: open.holds.seal,
                hash: index_hash(&raw),
            };
            cache.write(&index_name(&index_ref), &raw)?;
            // An index that is stored again keeps its place: a chunk's newest place stays the newest.
            match manifest.indexes.iter_mut().find(|old| old.hash == index_ref.hash) {
                Some(old) => *old = index_ref,
                None => manifest.indexes.push(index_ref),
            }
        }
        self.next_pack(&mut open, &mut own).map_err(stopped)?;
        let raw = manifest.to_bytes();
        if raw.len() > MANIFEST_LEN_MAX {
            return Err(ClientError::Resources("this vault has too many snapshots".into()));
        }
        Manifest::parse(&raw).map_err(|_| unreadable("list of snapshots"))?;
        let blob = manifest_blob(&raw, compressor.compress(&raw));
        open.builder.push(Kind::Manifest, &blob);
        let pack = open.builder.id();
        cache.write(&manifest_name(pack), &raw)?;
        self.send(open).map_err(stopped)?;
        Ok(Finished { manifest, pack })
    }

    /// Gives back what no chunk needs any more, so that lists of many chunks take its place.
    fn free(&self) {
        std::mem::take(&mut *lock(&self.claimed));
        std::mem::take(&mut *lock(&self.claimed_apart));
    }

    /// Sends the open pack and starts the next of `own`, if there are such.
    fn next_pack(
        &self,
        open: &mut Open,
        own: &mut impl Iterator<Item = PackId>,
    ) -> Result<(), Stopped> {
        let Some(id) = own.next() else { return Ok(()) };
        self.send(std::mem::replace(open, Open::new(self.keys, id, &self.spare)))
    }
}

/// What no device could read is not put under a head.
fn unreadable(what: &str) -> ClientError {
    ClientError::Resources(format!("the new {what} would be malformed; please report this"))
}

/// What an earlier run left for this one.
#[derive(Default)]
pub(crate) struct Adopted {
    /// Packs that an interrupted run stored.
    pub(crate) stored: Vec<IndexPack>,
    /// Indexes that lie in damaged packs, to be stored again as they are.
    pub(crate) to_index_anew: Vec<Index>,
}

/// What a run stored.
pub(crate) struct Finished {
    pub(crate) manifest: Manifest,
    pub(crate) pack: PackId,
}

/// Sends packs until the sink is gone. What a pack holds is remembered before it is sent.
pub(crate) fn upload(
    queue: &Queue,
    profile: &Mutex<&mut Profile>,
    keys: &VaultKeys,
    remote: &Remote,
    progress: &Progress,
) -> Result<(), ClientError> {
    let outgoing = Outgoing::of(lock(profile).dir());
    let mut is_slow = true;
    loop {
        let next = lock(&queue.receiver).as_ref().map(mpsc::Receiver::recv);
        let Some(Ok(Upload { builder, holds, flight })) = next else { return Ok(()) };
        let (id, bytes) = (builder.id(), builder.seal(keys));
        let (len, began) = (bytes.len() as u64, Instant::now());
        // The profile is free again before the pack is on its way.
        let remembered = lock(profile).add_pending(&holds);
        let sent = remembered.and_then(|()| {
            if is_slow {
                outgoing.keep(id, &bytes);
            }
            remote.put_pack(keys, id, bytes, false)
        });
        let stored = sent.map(|buffer| lock(&queue.spare).extend(buffer));
        drop(flight);
        if let Err(error) = stored {
            *lock(&queue.receiver) = None;
            return Err(error);
        }
        outgoing.remove(id);
        is_slow = began.elapsed() > outgoing::SLOW;
        progress.did_send(len);
    }
}

/// Takes packs until the sink is gone, and sends none.
#[cfg(test)]
pub(crate) fn drain(queue: &Queue) -> Vec<(PackBuilder, IndexPack)> {
    let receiver = lock(&queue.receiver).take();
    let uploads = receiver.into_iter().flatten();
    uploads.map(|upload| (upload.builder, upload.holds)).collect()
}

/// Distributes what packs hold over indexes of limited size; a pack with many chunks may be part of several.
fn lists(packs: &[Vec<u8>]) -> impl Iterator<Item = Result<Index, ClientError>> + '_ {
    let mut packs = packs.iter().map(|pack| decode::<IndexPack>("pack", pack, pack.len()));
    let mut rest = None;
    iter::from_fn(move || {
        let (mut index, mut chunks) = (Index::default(), 0);
        while let Some(pack) = rest.take().map(Ok).or_else(|| packs.next()) {
            let Ok(mut pack) = pack else { return Some(Err(unreadable("list"))) };
            let fits = pack.blocks.iter().take_while(|block| {
                let has_room = chunks == 0 || chunks + block.chunks.len() <= CHUNKS_PER_INDEX;
                chunks += if has_room { block.chunks.len() } else { 0 };
                has_room
            });
            let fits = fits.count();
            let blocks = pack.blocks.split_off(fits);
            if !blocks.is_empty() {
                rest = Some(IndexPack { id: pack.id, seal: pack.seal, blocks });
            }
            index.packs.push(pack);
            if rest.is_some() {
                break;
            }
        }
        (!index.packs.is_empty()).then_some(Ok(index))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_vault::block::Compression;

    /// Blocks of the largest size, four of which are longer than a pack by a header and some tags.
    #[test]
    fn blocks_that_fill_a_pack_to_the_brim_go_on_to_the_next() {
        let keys = sr_keys::VaultKeys::generate(&mut os_rng());
        let index = ChunkIndex::default();
        let (sink, queue) = Sink::new(&keys, &index);
        let stored = vec![1; 4 << 20];
        let chunks = [(ChunkId([7; 32]), 4 << 20)];
        let block = Block { stored: &stored, raw_len: 4 << 20, chunks: &chunks };
        let sizes = std::thread::scope(|scope| {
            let received = scope.spawn(|| {
                let queue = lock(&queue.receiver).take().expect("queue");
                queue.iter().map(|upload| upload.holds.blocks.len()).collect::<Vec<_>>()
            });
            for _ in 0..20 {
                sink.add(Kind::Data, &block).expect("takes");
            }
            let dir = tempfile::tempdir().expect("dir");
            let cache = Cache { dir: dir.path().to_owned() };
            let mut compressor = Compressor::new(Compression::Default).expect("memory");
            sink.finish(Adopted::default(), Manifest::default(), &mut compressor, &cache)
                .expect("sends");
            received.join().expect("joins")
        });
        assert_eq!(sizes.iter().sum::<usize>(), 20);
    }

    #[test]
    fn a_pack_with_many_chunks_is_split_over_indexes_and_nothing_is_lost() {
        let block = |n: usize| IndexBlock {
            kind: Kind::Data,
            offset: 0,
            stored_len: 1,
            raw_len: 1,
            chunks: vec![IndexChunk { id: ChunkId([0; 32]), len: 1 }; n],
        };
        let pack = |id, blocks: Vec<IndexBlock>| IndexPack {
            id: PackId([id; 32]),
            seal: PackSeal { generation: 1, commitment: [0; 32] },
            blocks,
        };
        let half = CHUNKS_PER_INDEX / 2;
        let packs = [
            pack(1, vec![block(half), block(half), block(half)]),
            pack(2, vec![]),
            pack(3, vec![block(half)]),
        ];
        let packs = packs.map(|pack| encode(&pack));
        let indexes: Vec<Index> = lists(&packs).map(|index| index.expect("reads")).collect();
        let chunks: Vec<usize> = indexes.iter().map(Index::chunks).collect();
        assert_eq!(chunks, [2 * half, 2 * half]);
        let ids: Vec<u8> =
            indexes.iter().flat_map(|index| &index.packs).map(|pack| pack.id.0[0]).collect();
        assert_eq!(ids, [1, 1, 2, 3]);
        assert_eq!(lists(&[encode(&pack(1, vec![]))]).count(), 1);
        assert_eq!(lists(&[]).count(), 0);
    }
}
