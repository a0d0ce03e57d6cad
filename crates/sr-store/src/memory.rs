//! Back-ends in memory, for tests and simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sr_crypto::Hash;
use sr_wire::{
    AccountId, PackId, SealedHead, SpaceId, SpaceKeys, limits,
    log::{ACCOUNT, Entry},
};

use crate::{
    BlobStore, BlobWriter, Blocks, Caps, MetaStore, NewBlocks, PackRecord, StoreError, Swapped,
};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryMeta(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    vouchers: BTreeSet<Hash>,
    spaces: BTreeMap<SpaceId, Space>,
    packs: BTreeMap<PackId, (SpaceId, PackRecord)>,
    day: Option<u64>,
    accounts: BTreeMap<AccountId, Chain>,
    log: Vec<Entry>,
    checkpoint: Option<Vec<u8>>,
    put_back: Option<Vec<u8>>,
    witnesses: BTreeMap<String, String>,
    policies: Vec<String>,
    /// What the log has of accounts, and nobody has given back.
    owed: BTreeMap<(Hash, u64), Hash>,
    envelopes: BTreeMap<Hash, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Chain {
    blocks: Vec<Vec<u8>>,
    key_block: Vec<u8>,
}

#[derive(Debug)]
struct Space {
    keys: SpaceKeys,
    heads: Vec<SealedHead>,
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
        records.spaces.insert(space, Space { keys: *keys, heads: Vec::new(), packs: 0, bytes: 0 });
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
        records.packs.insert(pack, (space, PackRecord { len, days_left: None }));
        Ok(())
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        match self.records().packs.get(&pack) {
            Some((owner, record)) if *owner == space => Ok(*record),
            _ => Err(StoreError::NotFound),
        }
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        let records = self.records();
        let live = records
            .packs
            .iter()
            .filter(|(_, (owner, record))| *owner == space && record.days_left.is_none());
        Ok(live.map(|(pack, _)| *pack).collect())
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        let mut records = self.records();
        for pack in packs {
            match records.packs.get_mut(pack) {
                Some((owner, record)) if *owner == space => {
                    record.days_left.get_or_insert(days);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        let mut records = self.records();
        let of_space = records.packs.values_mut().filter(|(owner, _)| *owner == space);
        Ok(of_space.filter_map(|(_, record)| record.days_left.take()).count() as u64)
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        let mut records = self.records();
        if records.day.replace(day).is_none_or(|last| day <= last) {
            return Ok(Vec::new());
        }
        let Records { packs, spaces, .. } = &mut *records;
        let mut gone = Vec::new();
        packs.retain(|pack, (space, record)| {
            let Some(days_left) = &mut record.days_left else { return true };
            *days_left = days_left.saturating_sub(1);
            if *days_left > 0 {
                return true;
            }
            if let Some(space) = spaces.get_mut(space) {
                space.packs -= 1;
                space.bytes -= u64::from(record.len);
            }
            gone.push(*pack);
            false
        });
        Ok(gone)
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(self.records().packs.contains_key(&pack))
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        let records = self.records();
        records
            .spaces
            .get(&space)
            .map(|space| space.heads.last().cloned())
            .ok_or(StoreError::NotFound)
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        let mut records = self.records();
        let is_put_back = records.put_back.is_some();
        let space = records.spaces.get_mut(&head.space).ok_or(StoreError::NotFound)?;
        if is_put_back {
            return Err(StoreError::PutBack);
        }
        let newest = space.heads.last();
        let swapped = judge_swap(newest, head);
        if swapped == Swapped::Done && newest != Some(head) {
            space.heads.push(head.clone());
        }
        Ok(swapped)
    }

    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError> {
        let records = self.records();
        let space = records.spaces.get(&space).ok_or(StoreError::NotFound)?;
        Ok(space.heads.iter().filter(|head| head.seq >= from).take(max).cloned().collect())
    }

    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError> {
        let mut records = self.records();
        let space = records.spaces.get_mut(&space).ok_or(StoreError::NotFound)?;
        if space.keys != *expected {
            return Err(StoreError::Exists);
        }
        space.keys = *keys;
        Ok(())
    }

    fn append_blocks(&self, new: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
        let mut records = self.records();
        let len = records.accounts.get(&new.account).map_or(0, |chain| chain.blocks.len() as u64);
        if new.from != len {
            return Err(if new.from < len { StoreError::Exists } else { StoreError::NotFound });
        }
        if let Some((lookup, envelope)) = &new.envelope
            && records.envelopes.get(lookup).is_some_and(|there| there != envelope)
        {
            return Err(StoreError::Exists);
        }
        let owed = |entry: &Entry| records.owed.get(&(entry.index, entry.seq));
        let mut first_unlogged = None;
        for (_, entry) in &new.blocks {
            match owed(entry) {
                Some(value) if *value != entry.value => return Err(StoreError::Exists),
                Some(_) => {}
                None if records.put_back.is_some() => return Err(StoreError::PutBack),
                None => {
                    first_unlogged.get_or_insert(entry.seq);
                }
            }
        }
        if new.from == 0 && first_unlogged == Some(0) && !new.is_promised {
            if records.accounts.len() as u64 >= caps.spaces {
                return Err(StoreError::QuotaFull);
            }
            let voucher = new.voucher_hash.ok_or(StoreError::VoucherUnknown)?;
            if !records.vouchers.remove(&voucher) {
                return Err(StoreError::VoucherUnknown);
            }
        }
        for (_, entry) in &new.blocks {
            if records.owed.remove(&(entry.index, entry.seq)).is_none() {
                let last = records.log.last().copied();
                records.log.push(after(last.as_ref(), *entry));
            }
        }
        records.envelopes.extend(new.envelope.clone());
        let chain = records.accounts.entry(new.account).or_default();
        chain.blocks.extend(new.blocks.iter().map(|(block, _)| block.clone()));
        if let Some(key_block) = &new.key_block {
            chain.key_block.clone_from(key_block);
        }
        Ok(())
    }

    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError> {
        let Some(first) = heads.first() else { return Ok(()) };
        let mut records = self.records();
        let space = records.spaces.get_mut(&first.space).ok_or(StoreError::NotFound)?;
        let newest = space.heads.last();
        if matches!(judge_swap(newest, first), Swapped::Conflict(_)) || newest == Some(first) {
            return Err(StoreError::Exists);
        }
        space.heads.extend_from_slice(heads);
        Ok(())
    }

    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError> {
        let mut records = self.records();
        if records.log.len() as u64 != from {
            return Err(StoreError::Exists);
        }
        records.log.extend_from_slice(entries);
        let of_accounts = entries.iter().filter(|entry| entry.kind == ACCOUNT);
        records.owed.extend(of_accounts.map(|entry| ((entry.index, entry.seq), entry.value)));
        records.checkpoint = Some(note.to_vec());
        Ok(())
    }

    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError> {
        self.records().put_back = Some(note.to_vec());
        Ok(())
    }

    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.records().put_back.clone())
    }

    fn end_put_back(&self) -> Result<(), StoreError> {
        self.records().put_back = None;
        Ok(())
    }

    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError> {
        Ok(self.records().witnesses.clone().into_iter().collect())
    }

    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError> {
        let mut records = self.records();
        match keys {
            Some(keys) => records.witnesses.insert(url.to_owned(), keys.to_owned()),
            None => records.witnesses.remove(url),
        };
        Ok(())
    }

    fn policies(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.records().policies.clone())
    }

    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError> {
        let mut records = self.records();
        records.policies.push(policy.to_owned());
        records.log.extend(entry.cloned());
        Ok(())
    }

    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError> {
        Ok(self.records().owed.get(&(entry.index, entry.seq)) == Some(&entry.value))
    }

    fn owed(&self) -> Result<u64, StoreError> {
        let accounts: BTreeSet<Hash> =
            self.records().owed.keys().map(|(account, _)| *account).collect();
        Ok(accounts.len() as u64)
    }

    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        let records = self.records();
        let chain = records.accounts.get(&account).ok_or(StoreError::NotFound)?;
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(chain.blocks.len());
        let blocks = first_blocks(chain.blocks[from..].iter().cloned(), len_max);
        let is_all = from + blocks.len() == chain.blocks.len();
        Ok((blocks, is_all.then(|| chain.key_block.clone())))
    }

    fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        Ok(self.records().accounts.keys().copied().collect())
    }

    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let log = &mut self.records().log;
        if log.is_empty() {
            log.extend(entries);
        }
        Ok(())
    }

    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(self.records().log.iter().skip(from).take(max).copied().collect())
    }

    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError> {
        let mut records = self.records();
        let newest = records.log.iter().rfind(|old| old.key() == entry.key());
        if !follows(newest.map(|old| (old.seq, old.value)), entry)? {
            return Ok(false);
        }
        if records.put_back.is_some() {
            return Err(StoreError::PutBack);
        }
        let before_s = records.log.last().map_or(0, |last| last.time_s);
        records.log.push(Entry { time_s: entry.time_s.max(before_s), ..*entry });
        Ok(true)
    }

    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.records().checkpoint = Some(note.to_vec());
        Ok(())
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.records().checkpoint.clone())
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        self.records().envelopes.get(lookup).cloned().ok_or(StoreError::NotFound)
    }
}

/// Takes blocks as long as they have `len_max` bytes together, but at least one.
pub(crate) fn first_blocks(blocks: impl Iterator<Item = Vec<u8>>, len_max: usize) -> Vec<Vec<u8>> {
    let mut len = 0;
    blocks
        .enumerate()
        .take_while(|(number, block)| {
            len += block.len();
            *number == 0 || len <= len_max
        })
        .map(|(_, block)| block)
        .collect()
}

/// Returns whether an entry is to be added after the newest of its index, by seq and value.
///
/// **Errors** [`StoreError::Exists`] when it does not follow.
pub(crate) fn follows(newest: Option<(u64, Hash)>, entry: &Entry) -> Result<bool, StoreError> {
    if newest == Some((entry.seq, entry.value)) {
        return Ok(false);
    }
    let (seq, previous) = newest.map_or((0, [0; 32]), |(seq, value)| (seq + 1, value));
    let is_next = (entry.seq, entry.previous) == (seq, previous);
    if is_next { Ok(true) } else { Err(StoreError::Exists) }
}

/// Decides a swap, for every back-end alike.
pub(crate) fn judge_swap(newest: Option<&SealedHead>, head: &SealedHead) -> Swapped {
    let (seq, hash) = newest.map_or((0, sr_wire::EMPTY_HEAD_HASH), |h| (h.seq, h.hash()));
    let follows = head.seq.checked_sub(1) == Some(seq) && head.previous == hash;
    if follows || newest == Some(head) { Swapped::Done } else { Swapped::Conflict(newest.cloned()) }
}

/// Returns an entry as it goes after the last one: no log goes back in time.
pub(crate) fn after(last: Option<&Entry>, entry: Entry) -> Entry {
    Entry { time_s: entry.time_s.max(last.map_or(0, |last| last.time_s)), ..entry }
}

type Blobs = Arc<Mutex<Packs>>;

/// Packs in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Blobs);

#[derive(Debug, Default)]
struct Packs {
    whole: BTreeMap<PackId, Vec<u8>>,
    /// What interrupted uploads left.
    parts: BTreeMap<PackId, Vec<u8>>,
}

struct MemoryWriter {
    pack: PackId,
    bytes: Option<Vec<u8>>,
    blobs: Blobs,
}

impl BlobStore for MemoryBlobs {
    fn begin(&self, pack: PackId, kept: u64) -> Result<Box<dyn BlobWriter>, StoreError> {
        let mut bytes = lock(&self.0).parts.remove(&pack).unwrap_or_default();
        if (bytes.len() as u64) < kept {
            return Err(StoreError::NotFound);
        }
        bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        Ok(Box::new(MemoryWriter { pack, bytes: Some(bytes), blobs: Arc::clone(&self.0) }))
    }

    fn read_part(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        Ok(lock(&self.0).parts.get(&pack).map_or_else(Vec::new, |part| range(part, offset, len)))
    }

    fn drop_old_parts(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let blobs = lock(&self.0);
        Ok(range(blobs.whole.get(&pack).ok_or(StoreError::NotFound)?, offset, len))
    }

    fn has(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(lock(&self.0).whole.contains_key(&pack))
    }

    fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        lock(&self.0).whole.remove(&pack);
        Ok(())
    }

    fn list(&self) -> Result<Vec<PackId>, StoreError> {
        Ok(lock(&self.0).whole.keys().copied().collect())
    }
}

impl BlobWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let bytes = self.bytes.take().unwrap_or_default();
        let mut blobs = lock(&self.blobs);
        if blobs.whole.contains_key(&self.pack) {
            return Err(StoreError::Exists);
        }
        blobs.whole.insert(self.pack, bytes);
        Ok(())
    }

    fn discard(mut self: Box<Self>) {
        self.bytes = None;
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take().filter(|bytes| bytes.len() >= limits::SLOT_LEN) {
            lock(&self.blobs).parts.insert(self.pack, bytes);
        }
    }
}

fn range(bytes: &[u8], offset: u64, len: usize) -> Vec<u8> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes[from..bytes.len().min(from.saturating_add(len))].to_vec()
}

fn lock(blobs: &Blobs) -> MutexGuard<'_, Packs> {
    blobs.lock().unwrap_or_else(PoisonError::into_inner)
}
