//! Content-defined chunks and their ids.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use sr_crypto::KeyedHasher;
use sr_keys::VaultKeys;
use sr_wire::labels;
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

const CHUNK_LEN_MIN: usize = 128 << 10;
const CHUNK_LEN_AVERAGE: usize = 512 << 10;
/// The longest chunk.
pub const CHUNK_LEN_MAX: usize = 4 << 20;

/// Keyed BLAKE3 of a chunk: equal content has equal ids within one vault and kind, and nobody
/// without the vault's seed can test for known content.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    TlsSerialize,
    TlsDeserializeBytes,
    TlsSize,
)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// In the place of a chunk that was pruned.
    pub const PRUNED: Self = Self([0; 32]);
}

/// Names chunks. File content and trees have keys of their own, so neither passes for the other.
#[derive(Debug)]
pub struct ChunkIds {
    data: KeyedHasher,
    tree: KeyedHasher,
    snapshot: KeyedHasher,
}

impl ChunkIds {
    /// Derives the hashers of a vault.
    #[must_use]
    pub fn new(keys: &VaultKeys) -> Self {
        Self {
            data: keys.hasher(labels::CHUNK_DATA),
            tree: keys.hasher(labels::CHUNK_TREE),
            snapshot: keys.hasher(labels::CHUNK_SNAPSHOT),
        }
    }

    /// Returns the id of a chunk of file content.
    #[must_use]
    pub fn data(&self, chunk: &[u8]) -> ChunkId {
        ChunkId(self.data.hash(chunk))
    }

    /// Returns the id of a chunk of a tree.
    #[must_use]
    pub fn tree(&self, chunk: &[u8]) -> ChunkId {
        ChunkId(self.tree.hash(chunk))
    }

    /// Returns the keyed hash that is a snapshot's id.
    #[must_use]
    pub fn snapshot(&self, snapshot: &[u8]) -> [u8; 32] {
        self.snapshot.hash(snapshot)
    }
}

/// FastCDC under a gear table that only the vault's devices know.
///
/// **Units** chunks of 128 KiB to 4 MiB, 512 KiB on average; what is shorter than 128 KiB is one
/// chunk.
///
/// **Source** Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
/// Storage Systems" (TPDS 2020). The table is keyed because chunk lengths under a public table let
/// a server test for known files; packs of fixed sizes hide the lengths in the first place.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    mask_small: u64,
    mask_large: u64,
}

impl Chunker {
    /// Makes the chunker of a vault.
    #[must_use]
    pub fn new(keys: &VaultKeys) -> Self {
        let gear = Box::new(keys.gear());
        let gear_shifted = Box::new(gear.map(|value| value << 1));
        let (mask_small, mask_large) = select_masks(CHUNK_LEN_AVERAGE, Normalization::Level1);
        Self { gear, gear_shifted, mask_small, mask_large }
    }

    /// Returns the length of the first chunk of `bytes`, which hold [`CHUNK_LEN_MAX`] bytes or all
    /// that is left of the content.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        if bytes.len() <= CHUNK_LEN_MIN {
            return bytes.len();
        }
        let (_, len) = cut_gear(
            bytes,
            CHUNK_LEN_MIN,
            CHUNK_LEN_AVERAGE,
            CHUNK_LEN_MAX,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            &*self.gear,
            &*self.gear_shifted,
        );
        len.clamp(1, bytes.len())
    }

    /// Returns the chunks of content that is all in memory.
    pub fn chunks<'a>(&self, mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let (chunk, rest) = bytes.split_at(self.cut(bytes));
            bytes = rest;
            Some(chunk)
        })
    }
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chunker(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn keys(seed: u64) -> VaultKeys {
        VaultKeys::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(seed))
    }

    fn content(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand_chacha::ChaCha8Rng::seed_from_u64(7).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn lengths_stay_within_the_limits_and_cover_everything() {
        let chunker = Chunker::new(&keys(1));
        let content = content(20 << 20);
        let chunks: Vec<_> = chunker.chunks(&content).collect();
        assert_eq!(chunks.concat(), content);
        assert!(chunks.len() > 8 && chunks.len() < 60, "{}", chunks.len());
        for chunk in &chunks[..chunks.len() - 1] {
            assert!((CHUNK_LEN_MIN..=CHUNK_LEN_MAX).contains(&chunk.len()));
        }
        assert_eq!(chunker.chunks(&vec![0; 9 << 20]).map(<[u8]>::len).max(), Some(CHUNK_LEN_MAX));
    }

    #[test]
    fn an_insertion_changes_few_chunks_and_another_key_shares_none() {
        let content = content(24 << 20);
        let ids = ChunkIds::new(&keys(1));
        let set = |chunker: &Chunker, bytes: &[u8]| -> std::collections::BTreeSet<ChunkId> {
            chunker.chunks(bytes).map(|c| ids.data(c)).collect()
        };
        let chunker = Chunker::new(&keys(1));
        let before = set(&chunker, &content);
        let mut edited = content.clone();
        edited.splice(12_000_000..12_000_000, *b"inserted bytes");
        let after = set(&chunker, &edited);
        assert!(before.difference(&after).count() <= 2);
        let other = set(&Chunker::new(&keys(2)), &content);
        assert!(before.intersection(&other).count() <= 1);
    }

    #[test]
    fn kinds_have_ids_of_their_own() {
        let ids = ChunkIds::new(&keys(1));
        assert_ne!(ids.data(b"x"), ids.tree(b"x"));
        assert_ne!(ids.data(b"x"), ChunkIds::new(&keys(2)).data(b"x"));
    }
}
