//! Blocks: neighbouring chunks of one kind, compressed together.
//!
//! Small files then share one window and one call, which is where the size and speed come from.

use std::borrow::Cow;

use sr_wire::{Malformed, limits};
use thiserror::Error;

use crate::{CHUNK_LEN_MAX, ChunkId};

/// A block of several chunks holds no more than this.
pub const BLOCK_LEN_TARGET: usize = 2 << 20;
/// No block holds more than this before compression: the longest chunk is a block of its own.
pub const BLOCK_LEN_MAX: usize = CHUNK_LEN_MAX;
/// A block of tiny files is closed at this many, so that its part of an index stays below 300 KiB.
const CHUNKS_PER_BLOCK: usize = 8192;
/// Of a block that is at least so long, samples are tried first.
const PROBE_FROM: usize = 256 << 10;
const SAMPLES: usize = 4;
const SAMPLE_LEN: usize = 8 << 10;

/// How much work goes into making blocks small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// zstd level 1.
    Fast,
    /// zstd level 3.
    #[default]
    Default,
    /// zstd level 12: several times slower than the default.
    Best,
}

impl Compression {
    fn level(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Default => 3,
            Self::Best => 12,
        }
    }
}

const _: () = assert!(BLOCK_LEN_MAX < limits::PACK_LEN_MAX / 2);

/// What a blob in a pack is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    tls_codec::TlsSerialize,
    tls_codec::TlsDeserializeBytes,
    tls_codec::TlsSize,
)]
#[repr(u8)]
pub enum Kind {
    /// A block of chunks of file content.
    Data = 1,
    /// A block of chunks of trees.
    Tree = 2,
    /// An index.
    Index = 3,
    /// A manifest.
    Manifest = 4,
}

/// Collects chunks until a block is full.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    raw: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

impl BlockBuilder {
    /// Adds a chunk of at most [`CHUNK_LEN_MAX`] bytes.
    #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 4 MiB")]
    pub fn push(&mut self, id: ChunkId, chunk: &[u8]) {
        self.raw.extend_from_slice(chunk);
        self.chunks.push((id, chunk.len() as u32));
    }

    /// Returns whether a chunk of `len` bytes belongs into this block; else the block is closed first.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        self.is_empty()
            || (self.raw.len() + len <= BLOCK_LEN_TARGET && self.chunks.len() < CHUNKS_PER_BLOCK)
    }

    /// Returns whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Compresses what was collected.
    #[must_use]
    pub fn compress<'a>(&'a self, compressor: &'a mut Compressor) -> Block<'a> {
        let stored = compressor.compress(&self.raw);
        Block { stored, raw_len: self.raw.len(), chunks: &self.chunks }
    }

    /// Starts anew.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.chunks.clear();
    }
}

/// A block as it is stored.
#[derive(Debug)]
pub struct Block<'a> {
    /// Compressed bytes, or the raw ones when compressing does not shrink them.
    pub stored: &'a [u8],
    /// Length before compression; equal to that of `stored` when it is raw.
    pub raw_len: usize,
    /// The chunks in order, with their lengths.
    pub chunks: &'a [(ChunkId, u32)],
}

/// A zstd context and a buffer that are used again and again.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// Makes a context.
    ///
    /// **Errors** [`CompressError`] when there is no memory for it.
    pub fn new(compression: Compression) -> Result<Self, CompressError> {
        let context =
            zstd::bulk::Compressor::new(compression.level()).map_err(|_| CompressError)?;
        Ok(Self { context, buffer: Vec::new() })
    }

    /// Returns the shorter of the compressed and the raw form; equal length means raw.
    #[must_use]
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> &'a [u8] {
        if raw.len() >= PROBE_FROM && !self.samples_shrink(raw) {
            return raw;
        }
        self.buffer.clear();
        // What would be longer than the raw form is not needed.
        self.buffer.reserve(raw.len());
        match self.context.compress_to_buffer(raw, &mut self.buffer) {
            Ok(len) if len < raw.len() => &self.buffer,
            // Not shrinking and failing come to the same: the raw form is always right.
            _ => raw,
        }
    }

    /// Returns whether any of some samples of a long block gets smaller by 3 %: pictures, films and
    /// archives do not, and cost as much time as if they did.
    fn samples_shrink(&mut self, raw: &[u8]) -> bool {
        let gap = (raw.len() - SAMPLE_LEN) / (SAMPLES - 1);
        (0..SAMPLES).any(|number| {
            let sample = &raw[number * gap..][..SAMPLE_LEN];
            self.buffer.clear();
            self.buffer.reserve(SAMPLE_LEN);
            let len = self.context.compress_to_buffer(sample, &mut self.buffer);
            len.is_ok_and(|len| len * 100 < SAMPLE_LEN * 97)
        })
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor(..)")
    }
}

/// There is no memory for a compressor.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not enough memory to compress")]
pub struct CompressError;

/// Returns the raw bytes of a stored form, which were authenticated before.
///
/// **Errors** [`Malformed`] when they are not exactly `raw_len` bytes, or more than `raw_len_max`.
pub fn expand(
    stored: &[u8],
    raw_len: usize,
    raw_len_max: usize,
) -> Result<Cow<'_, [u8]>, Malformed> {
    let malformed = Malformed { what: "block" };
    if raw_len > raw_len_max || stored.len() > raw_len {
        return Err(malformed);
    }
    if stored.len() == raw_len {
        return Ok(Cow::Borrowed(stored));
    }
    match zstd::bulk::decompress(stored, raw_len) {
        Ok(raw) if raw.len() == raw_len => Ok(Cow::Owned(raw)),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_forms_expand_to_what_they_were() {
        let mut compressor = Compressor::new(Compression::Default).expect("memory");
        let mut builder = BlockBuilder::default();
        builder.push(ChunkId([1; 32]), &[7; 5000]);
        builder.push(ChunkId([2; 32]), b"hello");
        assert!(builder.has_room(1000) && !builder.has_room(BLOCK_LEN_TARGET));
        let block = builder.compress(&mut compressor);
        assert!(block.stored.len() < block.raw_len);
        let raw = expand(block.stored, block.raw_len, BLOCK_LEN_MAX).expect("expands");
        assert_eq!(raw, [&[7; 5000][..], b"hello"].concat());
        builder.clear();
        assert!(builder.is_empty());
        assert_eq!(compressor.compress(b"abc"), b"abc");
        assert_eq!(*expand(b"abc", 3, 3).expect("raw"), *b"abc");
    }

    #[test]
    fn what_does_not_shrink_is_left_as_it_is_and_what_shrinks_in_part_is_not() {
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let mut noise = vec![0; 1 << 20];
        rand_chacha::ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        for compression in [Compression::Fast, Compression::Default, Compression::Best] {
            let mut compressor = Compressor::new(compression).expect("memory");
            assert_eq!(compressor.compress(&noise).len(), noise.len());
            let mut half = noise.clone();
            half[..600_000].fill(b'a');
            let stored = compressor.compress(&half);
            assert!(stored.len() < 500_000);
            assert_eq!(*expand(stored, half.len(), BLOCK_LEN_MAX).expect("expands"), *half);
        }
    }

    #[test]
    fn wrong_lengths_and_bombs_are_refused() {
        let mut compressor = Compressor::new(Compression::Default).expect("memory");
        let stored = compressor.compress(&[0; 100_000]).to_vec();
        assert!(expand(&stored, 100_000, 99_999).is_err());
        assert!(expand(&stored, 99_999, BLOCK_LEN_MAX).is_err());
        assert!(expand(&stored, 100_001, BLOCK_LEN_MAX).is_err());
        assert!(expand(&stored, stored.len() - 1, BLOCK_LEN_MAX).is_err());
        assert!(expand(b"not zstd", 100, BLOCK_LEN_MAX).is_err());
    }
}
