//! Floor 5: the vault's formats, pure: chunks, blocks, packs, indexes, trees, snapshots, heads.
//!
//! Bytes in, bytes out. Nothing here performs I/O, reads a clock or starts a thread; the client
//! reads the files, moves the packs and remembers the heads. One page of `spec/` stands beside each
//! module.

pub mod block;
mod chunk;
pub mod head;
pub mod index;
pub mod manifest;
pub mod pack;
pub mod retention;
mod table;
pub mod tree;

pub use chunk::{CHUNK_LEN_MAX, ChunkId, ChunkIds, Chunker};
pub use table::IdTable;
