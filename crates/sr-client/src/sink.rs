//! Where new blocks go: into packs, to the server, and into the index of this run.

use std::{
    collections::HashSet,
    hash::BuildHasherDefault,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
};

use sr_keys::{GENERATION, VaultKeys};
use sr_vault::{
    ChunkId,
    block::{Block, Compressor, Kind},
    index::{CHUNKS_PER_INDEX, ChunkIndex, IdHasher, Index, IndexBlock, IndexChunk, IndexPack},
    manifest::{IndexRef, MANIFEST_LEN_MAX, Manifest, index_hash},
    pack::{BLOBS_MAX, Class, PackBuilder, plan_tail},
};
use sr_wire::PackId;

use crate::{
    ClientError,
    profile::Profile,
    progress::Progress,
    remote::{Remote, os_rng},
    view::{Cache, index_name, manifest_blob, manifest_name},
};

/// Packs that wait for an uploader; each has up to 16 MiB.
const QUEUE: usize = 1;
/// Uploads in flight.
pub(crate) const UPLOADERS: usize = 2;
/// A pack has room for this many blocks, and for some indexes and a manifest beside them.
const BLOCKS_PER_PACK: usize = BLOBS_MAX - 64;
/// What one more pack or block costs in an index, rounded up.
const INDEX_PACK_LEN: usize = 96;
const INDEX_BLOCK_LEN: usize = 32;
const INDEX_CHUNK_LEN: usize = 36;

/// The uploaders are gone; their error says why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// A sealed pack on its way, with what it holds.
pub(crate) struct Upload {
    id: PackId,
    bytes: Vec<u8>,
    holds: IndexPack,
}

/// What the uploaders read. The first that fails takes the receiver away, so that no worker waits
/// for a place in it.
pub(crate) type Queue = Mutex<Option<mpsc::Receiver<Upload>>>;

/// Takes blocks from any thread.
pub(crate) struct Sink<'a> {
    keys: &'a VaultKeys,
    index: &'a ChunkIndex,
    claimed: Mutex<HashSet<ChunkId, BuildHasherDefault<IdHasher>>>,
    open: Mutex<Open>,
    uploads: mpsc::SyncSender<Upload>,
    written: Mutex<Vec<IndexPack>>,
}

#[derive(Default)]
struct Open {
    blocks: Vec<(Kind, Block)>,
    len: usize,
}

impl<'a> Sink<'a> {
    /// Makes a sink and the queue that its uploaders read.
    pub(crate) fn new(keys: &'a VaultKeys, index: &'a ChunkIndex) -> (Self, Queue) {
        let (uploads, queue) = mpsc::sync_channel(QUEUE);
        let sink = Self {
            keys,
            index,
            claimed: Mutex::default(),
            open: Mutex::default(),
            uploads,
            written: Mutex::default(),
        };
        (sink, Mutex::new(Some(queue)))
    }

    /// Returns true once for each chunk that is not stored yet: who is told so stores it.
    pub(crate) fn claim(&self, id: ChunkId) -> bool {
        self.index.find(&id).is_none() && lock(&self.claimed).insert(id)
    }

    /// Returns whether the server has a chunk already.
    pub(crate) fn is_stored(&self, id: &ChunkId) -> bool {
        self.index.find(id).is_some()
    }

    /// Adds a block.
    pub(crate) fn add(&self, kind: Kind, block: Block) -> Result<(), Stopped> {
        let full = {
            let mut open = lock(&self.open);
            let len = open.len + block.stored.len();
            let is_full = open.blocks.len() >= BLOCKS_PER_PACK
                || len + INDEX_BLOCK_LEN * (open.blocks.len() + 2) > Class::LARGEST.plain_len();
            let full = is_full.then(|| std::mem::take(&mut *open).blocks);
            open.len += block.stored.len();
            open.blocks.push((kind, block));
            full
        };
        full.map_or(Ok(()), |blocks| self.send_pack(blocks))
    }

    fn send_pack(&self, blocks: Vec<(Kind, Block)>) -> Result<(), Stopped> {
        let (builder, holds) = self.fill(blocks);
        lock(&self.written).push(holds.clone());
        self.send(builder, holds)
    }

    fn send(&self, builder: PackBuilder, holds: IndexPack) -> Result<(), Stopped> {
        let upload = Upload { id: builder.id(), bytes: builder.seal(self.keys), holds };
        self.uploads.send(upload).map_err(|_| Stopped)
    }

    fn fill(&self, blocks: Vec<(Kind, Block)>) -> (PackBuilder, IndexPack) {
        let mut builder = PackBuilder::new(PackId::random(&mut os_rng()));
        let mut holds = self.empty_pack(builder.id());
        for (kind, block) in blocks {
            let entry = builder.push(kind, &block.stored);
            holds.blocks.push(IndexBlock {
                kind,
                offset: entry.offset,
                stored_len: entry.len,
                raw_len: u32::try_from(block.raw_len).unwrap_or(u32::MAX),
                chunks: block
                    .chunks
                    .iter()
                    .map(|(id, len)| IndexChunk { id: *id, len: *len })
                    .collect(),
            });
        }
        (builder, holds)
    }

    fn empty_pack(&self, id: PackId) -> IndexPack {
        let commitment = *self.keys.pack_key(id).commitment();
        IndexPack { id, generation: GENERATION, commitment, blocks: Vec::new() }
    }

    /// Sends what is left, the indexes of this run and of `adopted`, and the manifest. Returns the
    /// manifest and its pack. Everything goes into one tail of packs, so that the server sees one
    /// total and not its parts.
    pub(crate) fn finish(
        self,
        adopted: Vec<IndexPack>,
        mut manifest: Manifest,
        compressor: &mut Compressor,
        cache: &Cache,
    ) -> Result<Finished, ClientError> {
        let blocks = std::mem::take(&mut *lock(&self.open)).blocks;
        let mut packs = std::mem::take(&mut *lock(&self.written));
        packs.extend(adopted);
        let reserve = index_len(&packs)
            + blocks.iter().map(|(_, block)| block_index_len(block)).sum::<usize>()
            + manifest.to_bytes().len()
            + 64 * INDEX_PACK_LEN;
        let fits_tail = reserve < Class::LARGEST.plain_len() / 2;
        let lens: Vec<usize> = blocks.iter().map(|(_, block)| block.stored.len()).collect();
        let mut groups = plan_tail(&lens, if fits_tail { reserve } else { 0 });
        let last = groups.pop().unwrap_or_default();
        let mut blocks: Vec<Option<(Kind, Block)>> = blocks.into_iter().map(Some).collect();
        let mut take = |group: &[usize]| -> Vec<(Kind, Block)> {
            group.iter().filter_map(|i| blocks[*i].take()).collect()
        };
        let stopped = |Stopped| ClientError::Resources("the upload stopped".into());
        for group in &groups {
            let (builder, holds) = self.fill(take(group));
            packs.push(holds.clone());
            self.send(builder, holds).map_err(stopped)?;
        }
        let (tail, holds) = self.fill(take(&last));
        let fits = fits_tail && tail.fits(Class::LARGEST, reserve);
        packs.push(holds.clone());
        // Where the tail has no room, each index and the manifest get a pack of their own; their
        // ids are chosen first, because the indexes name them too.
        let mut own: Vec<PackId> = Vec::new();
        if !fits {
            let count = split(packs.clone()).len() + 1;
            own.extend((0..count).map(|_| PackId::random(&mut os_rng())));
            packs.extend(own.iter().map(|id| self.empty_pack(*id)));
        }
        let mut own = own.into_iter();
        let mut open = (tail, holds);
        for index in split(packs) {
            self.next_pack(&mut open, &mut own).map_err(stopped)?;
            let raw = index.to_bytes();
            let entry = open.0.push(Kind::Index, &compressor.compress(&raw));
            let index_ref = IndexRef {
                pack: open.0.id(),
                offset: entry.offset,
                stored_len: entry.len,
                raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX),
                commitment: open.1.commitment,
                hash: index_hash(&raw),
            };
            cache.write(&index_name(&index_ref), &raw)?;
            manifest.indexes.push(index_ref);
        }
        self.next_pack(&mut open, &mut own).map_err(stopped)?;
        let raw = manifest.to_bytes();
        if raw.len() > MANIFEST_LEN_MAX {
            return Err(ClientError::Resources("this vault has too many snapshots".into()));
        }
        let (mut tail, holds) = open;
        tail.push(Kind::Manifest, &manifest_blob(&raw, &compressor.compress(&raw)));
        let pack = tail.id();
        cache.write(&manifest_name(pack), &raw)?;
        self.send(tail, holds).map_err(stopped)?;
        Ok(Finished { manifest, pack })
    }

    /// Sends the open pack and starts the next of `own`, if there are such.
    fn next_pack(
        &self,
        open: &mut (PackBuilder, IndexPack),
        own: &mut impl Iterator<Item = PackId>,
    ) -> Result<(), Stopped> {
        let Some(id) = own.next() else { return Ok(()) };
        let next = (PackBuilder::new(id), self.empty_pack(id));
        let (builder, holds) = std::mem::replace(open, next);
        self.send(builder, holds)
    }
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
    loop {
        let next = lock(queue).as_ref().map(mpsc::Receiver::recv);
        let Some(Ok(upload)) = next else { return Ok(()) };
        let len = upload.bytes.len() as u64;
        // The profile is free again before the pack is on its way.
        let remembered = lock(profile).add_pending(&upload.holds);
        let sent = remembered.and_then(|()| remote.put_pack(keys, upload.id, upload.bytes));
        if let Err(error) = sent {
            *lock(queue) = None;
            return Err(error);
        }
        progress.did_send(len);
    }
}

/// Distributes packs over indexes of limited size; a pack with many chunks may be part of several.
fn split(packs: Vec<IndexPack>) -> Vec<Index> {
    let mut indexes = vec![Index::default()];
    let mut chunks = 0;
    for mut pack in packs {
        let blocks = std::mem::take(&mut pack.blocks);
        let empty = pack.clone();
        for block in blocks {
            if chunks + block.chunks.len() > CHUNKS_PER_INDEX && chunks > 0 {
                let full = std::mem::replace(&mut pack, empty.clone());
                if let Some(index) = indexes.last_mut() {
                    index.packs.push(full);
                }
                indexes.push(Index::default());
                chunks = 0;
            }
            chunks += block.chunks.len();
            pack.blocks.push(block);
        }
        if let Some(index) = indexes.last_mut() {
            index.packs.push(pack);
        }
    }
    indexes
}

fn index_len(packs: &[IndexPack]) -> usize {
    let blocks = |pack: &IndexPack| {
        let chunks: usize = pack.blocks.iter().map(|block| block.chunks.len()).sum();
        pack.blocks.len() * INDEX_BLOCK_LEN + chunks * INDEX_CHUNK_LEN
    };
    packs.iter().map(|pack| INDEX_PACK_LEN + blocks(pack)).sum()
}

fn block_index_len(block: &Block) -> usize {
    INDEX_BLOCK_LEN + block.chunks.len() * INDEX_CHUNK_LEN
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            generation: 0,
            commitment: [0; 32],
            blocks,
        };
        let half = CHUNKS_PER_INDEX / 2;
        let indexes = split(vec![
            pack(1, vec![block(half), block(half), block(half)]),
            pack(2, vec![]),
            pack(3, vec![block(half)]),
        ]);
        let chunks: Vec<usize> = indexes.iter().map(Index::chunks).collect();
        assert_eq!(chunks, [2 * half, 2 * half]);
        let ids: Vec<u8> =
            indexes.iter().flat_map(|index| &index.packs).map(|pack| pack.id.0[0]).collect();
        assert_eq!(ids, [1, 1, 2, 3]);
        assert_eq!(split(vec![pack(1, vec![])]).len(), 1);
    }
}
