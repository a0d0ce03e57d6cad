//! A store whose n-th call fails, to show that nothing is lost or half-done then.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sr_crypto::Hash;
use sr_wire::{AccountId, PackId, SealedHead, SpaceId, SpaceKeys};

use crate::{
    BlobStore, BlobWriter, Blocks, Caps, MetaStore, NewBlock, PackRecord, StoreError, Swapped,
};

/// Wraps a store; the call with number `n`, counted from 0 over all clones, fails once.
#[derive(Clone, Debug)]
pub struct Faulty<T> {
    inner: Arc<T>,
    calls_left: Arc<AtomicU64>,
}

impl<T> Faulty<T> {
    /// Wraps `inner` so that call `n` fails.
    pub fn new(inner: Arc<T>, n: u64) -> Self {
        Self { inner, calls_left: Arc::new(AtomicU64::new(n)) }
    }

    fn call(&self) -> Result<&T, StoreError> {
        call(&self.calls_left)?;
        Ok(&self.inner)
    }
}

fn call(calls_left: &AtomicU64) -> Result<(), StoreError> {
    // Wraps from 0 to the maximum, so that the calls after the failing one work.
    match calls_left.fetch_sub(1, Ordering::SeqCst) {
        0 => Err(StoreError::Failed { doing: "anything", source: "injected fault".into() }),
        _ => Ok(()),
    }
}

impl<T: MetaStore> MetaStore for Faulty<T> {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        self.call()?.add_vouchers(hashes)
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.call()?.create_space(space, keys, voucher_hash, caps)
    }

    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError> {
        self.call()?.space_keys(space)
    }

    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.call()?.add_pack(space, pack, len, caps)
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        self.call()?.pack(space, pack)
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        self.call()?.packs(space)
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        self.call()?.delete_packs(space, packs, days)
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        self.call()?.undelete_packs(space)
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        self.call()?.count_day(day)
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        self.call()?.has_pack(pack)
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        self.call()?.head(space)
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        self.call()?.swap_head(head)
    }

    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError> {
        self.call()?.heads(space, from, max)
    }

    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError> {
        self.call()?.rotate_space(space, expected, keys)
    }

    fn append_block(&self, block: &NewBlock, caps: &Caps) -> Result<(), StoreError> {
        self.call()?.append_block(block, caps)
    }

    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        self.call()?.blocks(account, from, len_max)
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        self.call()?.envelope(lookup)
    }
}

impl<T: BlobStore> BlobStore for Faulty<T> {
    fn begin(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        let inner = self.call()?.begin()?;
        Ok(Box::new(FaultyWriter { inner, calls_left: Arc::clone(&self.calls_left) }))
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.call()?.read(pack, offset, len)
    }

    fn has(&self, pack: PackId) -> Result<bool, StoreError> {
        self.call()?.has(pack)
    }

    fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        self.call()?.delete(pack)
    }

    fn list(&self) -> Result<Vec<PackId>, StoreError> {
        self.call()?.list()
    }
}

struct FaultyWriter {
    inner: Box<dyn BlobWriter>,
    calls_left: Arc<AtomicU64>,
}

impl BlobWriter for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        call(&self.calls_left)?;
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>, pack: PackId) -> Result<(), StoreError> {
        call(&self.calls_left)?;
        self.inner.finish(pack)
    }
}
