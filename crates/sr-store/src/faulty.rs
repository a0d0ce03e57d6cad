//! A store whose calls fail when a test wants it, to show that nothing is lost or half-done then.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use sr_crypto::Hash;
use sr_wire::{AccountId, PackId, SealedHead, SpaceId, SpaceKeys, log::Entry};

use crate::{
    BlobStore, BlobWriter, Blocks, Caps, MetaStore, NewBlocks, PackRecord, StoreError, Swapped,
};

/// What goes wrong, and when. Clones share it, so that a test changes it while a server runs.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    /// Calls, over all stores that share this, before the fault.
    calls_left: AtomicU64,
    kind: Mutex<Fault>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { calls_left: AtomicU64::new(u64::MAX), kind: Mutex::new(Fault::Once) }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One call fails, and those after it work.
    Once,
    /// That call and all after it fail, as for a process that has ended.
    Ends,
    /// From that call on nothing can be written.
    Full,
    /// From that call on no pack can be read.
    Unreadable,
    /// From that call on nothing is taken back that was there before.
    Deaf,
}

impl Faults {
    /// Returns faults of which the call with number `n`, counted from 0, fails once.
    #[must_use]
    pub fn at(n: u64) -> Self {
        let faults = Self::default();
        faults.set(Fault::Once, n);
        faults
    }

    /// Puts a fault `calls` calls from now, in place of the one before.
    pub fn set(&self, fault: Fault, calls: u64) {
        *self.0.kind.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.0.calls_left.store(calls, Ordering::SeqCst);
    }

    /// Lets all calls work.
    pub fn clear(&self) {
        self.set(Fault::Once, u64::MAX);
    }

    fn call(&self, call: Call) -> Result<(), StoreError> {
        let kind = *self.0.kind.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = &self.0.calls_left;
        let is_due = match kind {
            // Wraps from 0 to the maximum, so that the calls after the failing one work.
            Fault::Once => plan.fetch_sub(1, Ordering::SeqCst) == 0,
            _ => plan
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_err(),
        };
        match kind {
            Fault::Full if is_due && matches!(call, Call::Write | Call::TakeBack) => {
                Err(StoreError::Full)
            }
            Fault::Unreadable if is_due && call == Call::ReadPack => Err(injected()),
            Fault::Deaf if is_due && call == Call::TakeBack => Err(injected()),
            Fault::Once | Fault::Ends if is_due => Err(injected()),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    ReadPack,
    TakeBack,
    Write,
}

fn injected() -> StoreError {
    StoreError::Failed { doing: "anything", source: "injected fault".into() }
}

/// Wraps a store that fails as its faults say.
#[derive(Clone, Debug)]
pub struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    faults: Faults,
}

impl<T: ?Sized> Faulty<T> {
    /// Wraps `inner`.
    pub fn new(inner: Arc<T>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn call(&self) -> Result<&T, StoreError> {
        self.faults.call(Call::Read)?;
        Ok(&self.inner)
    }

    fn write(&self) -> Result<&T, StoreError> {
        self.faults.call(Call::Write)?;
        Ok(&self.inner)
    }

    fn take_back(&self) -> Result<&T, StoreError> {
        self.faults.call(Call::TakeBack)?;
        Ok(&self.inner)
    }
}

impl<T: MetaStore + ?Sized> MetaStore for Faulty<T> {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        self.write()?.add_vouchers(hashes)
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.write()?.create_space(space, keys, voucher_hash, caps)
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
        self.write()?.add_pack(space, pack, len, caps)
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        self.call()?.pack(space, pack)
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        self.call()?.packs(space)
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        self.write()?.delete_packs(space, packs, days)
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        self.write()?.undelete_packs(space)
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        self.write()?.count_day(day)
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        self.call()?.has_pack(pack)
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        self.call()?.head(space)
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        self.write()?.swap_head(head)
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
        self.write()?.rotate_space(space, expected, keys)
    }

    fn append_blocks(&self, blocks: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
        self.write()?.append_blocks(blocks, caps)
    }

    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        self.call()?.blocks(account, from, len_max)
    }

    fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        self.call()?.accounts()
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        self.call()?.envelope(lookup)
    }

    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.write()?.begin_log(entries)
    }

    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError> {
        self.call()?.log_entries(from, max)
    }

    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.write()?.append_entry(entry)
    }

    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.write()?.set_checkpoint(note)
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.call()?.checkpoint()
    }

    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError> {
        self.take_back()?.give_back_heads(heads)
    }

    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError> {
        self.take_back()?.give_back_log(from, entries, note)
    }

    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError> {
        self.take_back()?.set_put_back(note)
    }

    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.call()?.put_back()
    }

    fn end_put_back(&self) -> Result<(), StoreError> {
        self.write()?.end_put_back()
    }

    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.call()?.witnesses()
    }

    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError> {
        self.write()?.set_witness(url, keys)
    }

    fn policies(&self) -> Result<Vec<String>, StoreError> {
        self.call()?.policies()
    }

    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError> {
        self.write()?.add_policy(policy, entry)
    }

    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.call()?.is_owed(entry)
    }

    fn owed(&self) -> Result<u64, StoreError> {
        self.call()?.owed()
    }
}

impl<T: BlobStore + ?Sized> BlobStore for Faulty<T> {
    fn begin(&self, pack: PackId, kept: u64) -> Result<Box<dyn BlobWriter>, StoreError> {
        let inner = self.write()?.begin(pack, kept)?;
        Ok(Box::new(FaultyWriter { inner, faults: self.faults.clone() }))
    }

    fn read_part(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.call()?.read_part(pack, offset, len)
    }

    /// No fault: when the server does this is not for a test to say.
    fn drop_old_parts(&self) -> Result<(), StoreError> {
        self.inner.drop_old_parts()
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.faults.call(Call::ReadPack)?;
        self.inner.read(pack, offset, len)
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
    faults: Faults,
}

impl BlobWriter for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.faults.call(Call::Write)?;
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.faults.call(Call::Write)?;
        self.inner.finish()
    }

    fn discard(self: Box<Self>) {
        self.inner.discard();
    }
}
