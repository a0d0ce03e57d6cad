//! Back-ends in memory, for tests and simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sr_crypto::Hash;
use sr_wire::{PackId, SealedHead, SpaceId, SpaceKeys};

use crate::{BlobStore, BlobWriter, Caps, MetaStore, StoreError, Swapped};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryMeta(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    vouchers: BTreeSet<Hash>,
    spaces: BTreeMap<SpaceId, Space>,
    packs: BTreeMap<PackId, (SpaceId, u32)>,
}

#[derive(Debug)]
struct Space {
    keys: SpaceKeys,
    head: Option<SealedHead>,
    packs: u64,
    bytes: u64,
}

impl MemoryMeta {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetaStore for MemoryMeta {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        self.records().vouchers.extend(hashes);
        Ok(())
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        let mut records = self.records();
        if records.spaces.contains_key(&space) {
            return Err(StoreError::Exists);
        }
        if records.spaces.len() as u64 >= caps.spaces {
            return Err(StoreError::QuotaFull);
        }
        if !records.vouchers.remove(voucher_hash) {
            return Err(StoreError::VoucherUnknown);
        }
        records.spaces.insert(space, Space { keys: *keys, head: None, packs: 0, bytes: 0 });
        Ok(())
    }

    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError> {
        self.records().spaces.get(&space).map(|space| space.keys).ok_or(StoreError::NotFound)
    }

    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        let mut records = self.records();
        let exists = records.packs.contains_key(&pack);
        let usage = records.spaces.get_mut(&space).ok_or(StoreError::NotFound)?;
        if exists {
            return Err(StoreError::Exists);
        }
        let bytes = usage.bytes + u64::from(len);
        if usage.packs >= caps.packs_per_space || bytes > caps.bytes_per_space {
            return Err(StoreError::QuotaFull);
        }
        usage.packs += 1;
        usage.bytes = bytes;
        records.packs.insert(pack, (space, len));
        Ok(())
    }

    fn pack_len(&self, space: SpaceId, pack: PackId) -> Result<u32, StoreError> {
        match self.records().packs.get(&pack) {
            Some((owner, len)) if *owner == space => Ok(*len),
            _ => Err(StoreError::NotFound),
        }
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(self.records().packs.contains_key(&pack))
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        let records = self.records();
        records.spaces.get(&space).map(|space| space.head.clone()).ok_or(StoreError::NotFound)
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        let mut records = self.records();
        let space = records.spaces.get_mut(&head.space).ok_or(StoreError::NotFound)?;
        let swapped = judge_swap(space.head.as_ref(), head);
        if swapped == Swapped::Done {
            space.head = Some(head.clone());
        }
        Ok(swapped)
    }
}

/// Decides a swap, for every back-end alike.
pub(crate) fn judge_swap(newest: Option<&SealedHead>, head: &SealedHead) -> Swapped {
    let (seq, hash) = newest.map_or((0, sr_wire::EMPTY_HEAD_HASH), |h| (h.seq, h.hash()));
    let follows = head.seq.checked_sub(1) == Some(seq) && head.previous == hash;
    if follows || newest == Some(head) { Swapped::Done } else { Swapped::Conflict(newest.cloned()) }
}

type Blobs = Arc<Mutex<BTreeMap<PackId, Vec<u8>>>>;

/// Packs in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Blobs);

struct MemoryWriter {
    bytes: Vec<u8>,
    blobs: Blobs,
}

impl BlobStore for MemoryBlobs {
    fn begin(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        Ok(Box::new(MemoryWriter { bytes: Vec::new(), blobs: Arc::clone(&self.0) }))
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let blobs = lock(&self.0);
        let blob = blobs.get(&pack).ok_or(StoreError::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(blob.len());
        Ok(blob[from..blob.len().min(from.saturating_add(len))].to_vec())
    }

    fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        lock(&self.0).remove(&pack);
        Ok(())
    }

    fn list(&self) -> Result<Vec<PackId>, StoreError> {
        Ok(lock(&self.0).keys().copied().collect())
    }
}

impl BlobWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, pack: PackId) -> Result<(), StoreError> {
        let mut blobs = lock(&self.blobs);
        if blobs.contains_key(&pack) {
            return Err(StoreError::Exists);
        }
        blobs.insert(pack, self.bytes);
        Ok(())
    }
}

fn lock(blobs: &Blobs) -> MutexGuard<'_, BTreeMap<PackId, Vec<u8>>> {
    blobs.lock().unwrap_or_else(PoisonError::into_inner)
}
