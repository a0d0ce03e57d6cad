//! Indexes: which pack and block holds a chunk. See `spec/index.md`.

use std::collections::HashSet;

use sr_wire::{Malformed, PackId, decode, encode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    CHUNK_LEN_MAX, ChunkId,
    block::{BLOCK_LEN_MAX, Kind},
    pack::{Class, PackSeal},
    table::{IdTable, Pages},
};

/// Chunks after which an index is closed: what a run needs at its end is a few times an index.
pub const CHUNKS_PER_INDEX: usize = 20_000;
/// No index is longer than this before compression.
pub const INDEX_LEN_MAX: usize = 8 << 20;

/// What some packs hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Index {
    /// The packs.
    pub packs: Vec<IndexPack>,
}

/// What one pack holds. A pack that holds an index or a manifest only has no blocks, and is named
/// all the same, so that no pack of the space is unknown to its owner.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct IndexPack {
    /// The pack.
    pub id: PackId,
    /// Under which key it is sealed.
    pub seal: PackSeal,
    /// Its blocks.
    pub blocks: Vec<IndexBlock>,
}

/// Where a block lies, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct IndexBlock {
    /// [`Kind::Data`] or [`Kind::Tree`].
    pub kind: Kind,
    /// Offset in the pack's plaintext.
    pub offset: u32,
    /// Length as stored.
    pub stored_len: u32,
    /// Length before compression; equal to `stored_len` when stored raw.
    pub raw_len: u32,
    /// Its chunks in order.
    pub chunks: Vec<IndexChunk>,
}

/// A chunk of a block; it begins where the one before ends. One that nothing needs any more has lost
/// its name, [`ChunkId::PRUNED`]: what a list names can be built on, and what only a pruned tree
/// named may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct IndexChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Its length.
    pub len: u32,
}

impl Index {
    /// Returns the canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Returns the canonical bytes of an index that can be read back.
    ///
    /// **Errors** [`Malformed`] for one that [`Index::parse`] would refuse.
    pub fn to_valid_bytes(&self) -> Result<Vec<u8>, Malformed> {
        let bytes = self.to_bytes();
        self.check(&bytes)?;
        Ok(bytes)
    }

    /// Reads an index and checks its numbers.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let index: Self = decode("index", bytes, INDEX_LEN_MAX)?;
        index.check(bytes)?;
        Ok(index)
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut blocks = self.packs.iter().flat_map(|pack| &pack.blocks);
        let is_valid = bytes.len() <= INDEX_LEN_MAX && blocks.all(IndexBlock::is_valid);
        if is_valid { Ok(()) } else { Err(Malformed { what: "index" }) }
    }

    /// Returns the number of chunks.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.packs.iter().flat_map(|pack| &pack.blocks).map(|block| block.chunks.len()).sum()
    }
}

impl IndexBlock {
    fn is_valid(&self) -> bool {
        let within_pack = (self.offset as usize)
            .checked_add(self.stored_len as usize)
            .is_some_and(|end| end <= Class::LARGEST.plain_len());
        let chunks_len: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        matches!(self.kind, Kind::Data | Kind::Tree)
            && within_pack
            && self.stored_len <= self.raw_len
            && self.raw_len as usize <= BLOCK_LEN_MAX
            && chunks_len == u64::from(self.raw_len)
            && self.chunks.iter().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&(chunk.len as usize)))
    }
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the block in the [`ChunkIndex`].
    pub block: u32,
    /// Offset in the raw block.
    pub offset: u32,
    /// Length.
    pub len: u32,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Data or tree.
    pub kind: Kind,
    /// Number of the pack in the [`ChunkIndex`].
    pub pack: u32,
    /// Offset in the pack's plaintext.
    pub offset: u32,
    /// Length as stored.
    pub stored_len: u32,
    /// Length before compression.
    pub raw_len: u32,
}

/// Which place of a chunk counts that was stored twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wins {
    First,
    Newest,
}

/// The block of a chunk that is lost.
const NOWHERE: u32 = u32::MAX;

/// All indexes of a vault, as one map in memory: at most 56 bytes for each chunk.
#[derive(Debug, Default)]
pub struct ChunkIndex {
    packs: Vec<(PackId, PackSeal)>,
    blocks: Pages<BlockPlace>,
    ids: IdTable,
    /// By the numbers of the ids.
    places: Pages<Place>,
}

impl ChunkIndex {
    /// Adds what a pack holds. A chunk that is known gets the new place: it was stored again because
    /// the old one was damaged.
    pub fn add(&mut self, pack: &IndexPack) {
        self.add_by(pack, Wins::Newest);
    }

    /// Adds what a pack holds that a limited device has listed. A chunk that is known keeps its place:
    /// whoever has stolen such a device could else take away what it had stored.
    pub fn add_new(&mut self, pack: &IndexPack) {
        self.add_by(pack, Wins::First);
    }

    #[expect(clippy::cast_possible_truncation, reason = "packs are capped at 2^20, blocks at 2^32")]
    fn add_by(&mut self, pack: &IndexPack, wins: Wins) {
        let pack_number = self.packs.len() as u32;
        self.packs.push((pack.id, pack.seal));
        for block in &pack.blocks {
            let number = self.blocks.len() as u32;
            self.blocks.push(BlockPlace {
                kind: block.kind,
                pack: pack_number,
                offset: block.offset,
                stored_len: block.stored_len,
                raw_len: block.raw_len,
            });
            let mut offset = 0;
            for chunk in &block.chunks {
                if chunk.id == ChunkId::PRUNED {
                    offset += chunk.len;
                    continue;
                }
                let place = Place { block: number, offset, len: chunk.len };
                let (number, is_new) = self.ids.insert(chunk.id);
                match self.places.get_mut(number as usize) {
                    Some(old) if !is_new && wins == Wins::Newest => *old = place,
                    Some(_) if !is_new => {}
                    _ => self.places.push(place),
                }
                offset += chunk.len;
            }
        }
    }

    /// Takes away what lies in these packs: such a chunk counts as unknown, though an earlier place of it
    /// may be known, because readers go to the newest. Returns those chunks.
    pub fn distrust(&mut self, packs: &[PackId]) -> Vec<ChunkId> {
        let mut lost = Vec::new();
        if packs.is_empty() {
            return lost;
        }
        let packs: HashSet<PackId> = packs.iter().copied().collect();
        for (number, id) in self.ids.iter().enumerate() {
            let Some(place) = self.places.get_mut(number) else { continue };
            let pack = self.blocks.get(place.block as usize).map(|block| block.pack);
            let pack = pack.and_then(|pack| self.packs.get(pack as usize));
            if pack.is_some_and(|(pack, _)| packs.contains(pack)) {
                place.block = NOWHERE;
                lost.push(*id);
            }
        }
        lost
    }

    /// Returns the packs that are the newest place of some chunk.
    #[must_use]
    pub fn packs_in_use(&self) -> HashSet<PackId> {
        let places = self.places.iter().filter_map(|place| self.blocks.get(place.block as usize));
        places.filter_map(|block| Some(self.packs.get(block.pack as usize)?.0)).collect()
    }

    /// Returns where a chunk lies.
    #[must_use]
    pub fn find(&self, id: &ChunkId) -> Option<Place> {
        let place = self.places.get(self.ids.find(id)? as usize).copied();
        place.filter(|place| place.block != NOWHERE)
    }

    /// Returns where block `number` lies.
    #[must_use]
    pub fn block(&self, number: u32) -> Option<BlockPlace> {
        self.blocks.get(number as usize).copied()
    }

    /// Returns id and seal of pack `number`.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<(PackId, PackSeal)> {
        self.packs.get(number as usize).copied()
    }

    /// Returns the ids of all packs.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.packs.iter().map(|(id, _)| *id)
    }

    /// Returns the number of a chunk that is known, below [`ChunkIndex::len`].
    #[must_use]
    pub fn number(&self, id: &ChunkId) -> Option<u32> {
        self.find(id)?;
        self.ids.find(id)
    }

    /// Returns how many chunks are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether no chunk is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all chunks and where they lie, in no order.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkId, Place)> + '_ {
        let all = self.ids.iter().copied().zip(self.places.iter().copied());
        all.filter(|(_, place)| place.block != NOWHERE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(chunks: &[(u8, u32)]) -> IndexBlock {
        let raw_len = chunks.iter().map(|(_, len)| len).sum();
        IndexBlock {
            kind: Kind::Data,
            offset: 0,
            stored_len: raw_len,
            raw_len,
            chunks: chunks
                .iter()
                .map(|(b, len)| IndexChunk { id: ChunkId([*b; 32]), len: *len })
                .collect(),
        }
    }

    fn index(block: IndexBlock) -> Index {
        Index {
            packs: vec![IndexPack {
                id: PackId([1; 32]),
                seal: PackSeal { generation: 1, commitment: [2; 32] },
                blocks: vec![block],
            }],
        }
    }

    #[test]
    fn round_trips_and_finds() {
        let index = index(block(&[(1, 10), (2, 20)]));
        assert_eq!(Index::parse(&index.to_bytes()), Ok(index.clone()));
        let mut map = ChunkIndex::default();
        map.add(&index.packs[0]);
        let place = map.find(&ChunkId([2; 32])).expect("known");
        assert_eq!((place.offset, place.len), (10, 20));
        assert_eq!(
            map.pack(map.block(place.block).expect("block").pack),
            Some((PackId([1; 32]), PackSeal { generation: 1, commitment: [2; 32] }))
        );
        assert_eq!(map.find(&ChunkId([3; 32])), None);
        // A newer place in another pack, which is lost then: the older one is not what readers go to.
        let mut newer = index.packs[0].clone();
        newer.id = PackId([9; 32]);
        newer.blocks[0] = block(&[(2, 20)]);
        map.add(&newer);
        assert_eq!(map.packs_in_use().len(), 2);
        assert_eq!(map.distrust(&[newer.id]), [ChunkId([2; 32])]);
        assert_eq!((map.find(&ChunkId([2; 32])), map.number(&ChunkId([2; 32]))), (None, None));
        assert!(map.find(&ChunkId([1; 32])).is_some());
        assert_eq!(map.chunks().count(), 1);
        map.add(&newer);
        assert!(map.find(&ChunkId([2; 32])).is_some());
    }

    #[test]
    fn numbers_that_do_not_add_up_are_refused() {
        let refused = |change: fn(&mut IndexBlock)| {
            let mut wrong = block(&[(1, 10), (2, 20)]);
            change(&mut wrong);
            assert!(Index::parse(&index(wrong).to_bytes()).is_err());
        };
        refused(|b| b.raw_len += 1);
        refused(|b| b.stored_len = b.raw_len + 1);
        refused(|b| b.offset = u32::MAX);
        // Found by the fuzzer: within the pack, and behind its plaintext.
        refused(|b| b.offset = (1 << 24) - 30);
        refused(|b| b.kind = Kind::Manifest);
        refused(|b| b.chunks[0].len = 0);
        refused(|b| b.chunks[0].len = u32::MAX);
        let mut bytes = index(block(&[(1, 10)])).to_bytes();
        bytes.push(0);
        assert!(Index::parse(&bytes).is_err());
        assert!(Index::parse(&bytes[..20]).is_err());
    }
}
