//! Reads chunks back: fetched, opened, expanded, and checked against the id that a tree names.

use std::{borrow::Cow, sync::Arc};

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId, ChunkIds,
    block::{self, BLOCK_LEN_MAX, Kind},
    index::{BlockPlace, ChunkIndex, Place},
    pack::{OpenSlots, PackSeal, Slots},
    tree::{self, Content, Node, TREE_LEN_MAX},
};
use sr_wire::{Misbehaviour, PackId, api::ErrorCode};

use crate::{ClientError, lru::Lru, remote::Remote};

/// Blocks in memory at once, 4 MiB each at most and 2 MiB as a rule.
const BLOCKS_CACHED: usize = 6;

/// Why a chunk was not read: it is cloned to every reader that waits for the same pack.
#[derive(Clone, Debug)]
pub(crate) enum ReadError {
    /// What is stored is not what was stored.
    Damaged(Misbehaviour),
    /// Nothing can be read now.
    Failed(Arc<ClientError>),
}

impl From<Misbehaviour> for ReadError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::Damaged(misbehaviour)
    }
}

impl From<ReadError> for ClientError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(misbehaviour) => Self::Misbehaviour(misbehaviour),
            // Other readers may hold the same error, so it is told again and not moved.
            ReadError::Failed(error) => match &*error {
                Self::ServerRefused(code) => Self::ServerRefused(*code),
                Self::Unreachable { address, source } => Self::Unreachable {
                    address: address.clone(),
                    source: std::io::Error::new(source.kind(), source.to_string()),
                },
                error => Self::Resources(error.to_string()),
            },
        }
    }
}

/// Reads chunks of a verified vault.
pub(crate) struct Reader<'a> {
    keys: &'a VaultKeys,
    remote: &'a Remote,
    index: &'a ChunkIndex,
    ids: &'a ChunkIds,
    blocks: Lru<u32, Vec<u8>, ReadError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        keys: &'a VaultKeys,
        remote: &'a Remote,
        index: &'a ChunkIndex,
        ids: &'a ChunkIds,
    ) -> Self {
        Self { keys, remote, index, ids, blocks: Lru::new(BLOCKS_CACHED) }
    }

    /// Reads a chunk and hands it to `take`.
    pub(crate) fn chunk<T>(
        &self,
        kind: Kind,
        id: &ChunkId,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        // SR-003: a verified tree names a chunk that no verified index knows.
        let place = self.index.find(id).ok_or(Misbehaviour::PackMissing)?;
        let block = self.blocks.get(place.block, || self.block(place.block))?;
        let from = place.offset as usize;
        let chunk =
            block.get(from..from + place.len as usize).ok_or(Misbehaviour::ObjectMalformed)?;
        self.check(kind, id, chunk)?;
        Ok(take(chunk))
    }

    /// Refuses bytes that are not the chunk of that id (SR-004): whatever index or pack they came from.
    pub(crate) fn check(&self, kind: Kind, id: &ChunkId, chunk: &[u8]) -> Result<(), Misbehaviour> {
        let actual = match kind {
            Kind::Tree => self.ids.tree(chunk),
            _ => self.ids.data(chunk),
        };
        Misbehaviour::ChunkMismatch.refuse_if(actual != *id)
    }

    /// Reads the nodes of a folder.
    pub(crate) fn tree(&self, chunks: &[ChunkId]) -> Result<Vec<Node>, ReadError> {
        let mut bytes = Vec::new();
        for id in chunks {
            self.chunk(Kind::Tree, id, |chunk| bytes.extend_from_slice(chunk))?;
            if bytes.len() > TREE_LEN_MAX {
                return Err(Misbehaviour::ObjectMalformed.into());
            }
        }
        // SR-015
        tree::parse(&bytes).map_err(|_| Misbehaviour::ObjectMalformed.into())
    }

    /// Reads the node at `path` below `root`.
    pub(crate) fn node(&self, root: &Node, path: &[&[u8]]) -> Result<Option<Node>, ReadError> {
        let mut node = root.clone();
        for name in path {
            let Content::Folder { chunks } = &node.content else { return Ok(None) };
            let found = self.tree(chunks)?.into_iter().find(|n| n.name.as_slice() == *name);
            let Some(found) = found else { return Ok(None) };
            node = found;
        }
        Ok(Some(node))
    }

    /// Returns where a chunk lies.
    pub(crate) fn place(&self, id: &ChunkId) -> Option<Place> {
        self.index.find(id)
    }

    /// Returns where a block lies.
    pub(crate) fn block_place(&self, number: u32) -> Option<BlockPlace> {
        self.index.block(number)
    }

    /// Opens slots of the pack with this number in the index.
    pub(crate) fn open_pack(&self, number: u32, slots: Slots) -> Result<OpenSlots, ReadError> {
        let (pack, seal) = self.index.pack(number).ok_or(Misbehaviour::ObjectMalformed)?;
        self.open_sealed(pack, &seal, slots)
    }

    /// Opens slots of a pack whose seal a verified index names.
    pub(crate) fn open_sealed(
        &self,
        pack: PackId,
        seal: &PackSeal,
        slots: Slots,
    ) -> Result<OpenSlots, ReadError> {
        self.open(pack, Some(seal), slots)
    }

    /// Returns the length of a chunk that an index knows.
    pub(crate) fn chunk_len(&self, id: &ChunkId) -> Option<usize> {
        self.index.find(id).map(|place| place.len as usize)
    }

    /// Opens a pack whole.
    pub(crate) fn open_whole(&self, pack: PackId) -> Result<OpenSlots, ReadError> {
        self.open(pack, None, Slots::ALL)
    }

    /// Returns the id that content on this device would have.
    pub(crate) fn data_id(&self, chunk: &[u8]) -> ChunkId {
        self.ids.data(chunk)
    }

    fn block(&self, number: u32) -> Result<Vec<u8>, ReadError> {
        let place = self.index.block(number).ok_or(Misbehaviour::ObjectMalformed)?;
        let slots = Slots::of_range(place.offset as usize, place.stored_len as usize);
        Ok(expand(&self.open_pack(place.pack, slots)?, place)?.into_owned())
    }

    fn open(
        &self,
        pack: PackId,
        seal: Option<&PackSeal>,
        slots: Slots,
    ) -> Result<OpenSlots, ReadError> {
        let (len, bytes) =
            self.remote.get_pack(self.keys, pack, slots).map_err(|error| match error {
                ClientError::Misbehaviour(misbehaviour) => ReadError::Damaged(misbehaviour),
                // SR-003: for whatever reason the server does not give it, the others go on.
                ClientError::ServerRefused(code)
                    if !matches!(code, ErrorCode::RightRefused | ErrorCode::Version) =>
                {
                    ReadError::Damaged(Misbehaviour::PackMissing)
                }
                error => ReadError::Failed(Arc::new(error)),
            })?;
        Ok(OpenSlots::open(self.keys, pack, seal, len, slots.first, bytes)?)
    }
}

/// Returns the raw bytes of a block in opened slots.
pub(crate) fn expand(opened: &OpenSlots, place: BlockPlace) -> Result<Cow<'_, [u8]>, ReadError> {
    let stored =
        opened.bytes(place.offset, place.stored_len).ok_or(Misbehaviour::ObjectMalformed)?;
    block::expand(stored, place.raw_len as usize, BLOCK_LEN_MAX)
        .map_err(|_| Misbehaviour::ObjectMalformed.into())
}
