//! Floor 2: what the server stores, behind two small traits in use-case terms.
//!
//! [`MetaStore`] holds records (in memory, or [`Sqlite`]), [`BlobStore`] holds packs (in memory, or
//! [`Files`]). One contract suite in `tests/it` runs on every back-end. Whatever is stored has an
//! entry in the [`DICTIONARY`], and a store with anything else in it does not open.

mod copy;
mod dictionary;
mod error;
mod faulty;
mod files;
mod memory;
mod sqlite;

pub use copy::{Copied, copy, has_part_of_copy};
pub use dictionary::{
    DATABASE_FILE, DICTIONARY, DictionaryEntry, DisclosedTable, Disclosure, IDENTITY_FILE,
    LOCK_FILE, Selection, check_files, disclose,
};
pub use error::StoreError;
pub use faulty::{Fault, Faults, Faulty};
pub use files::Files;
pub use memory::{MemoryBlobs, MemoryMeta};
pub use sqlite::Sqlite;

use sr_crypto::Hash;
use sr_wire::{AccountId, PackId, SealedHead, SpaceId, SpaceKeys, limits, log::Entry};

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Spaces of the server.
    pub spaces: u64,
    /// Packs of one space.
    pub packs_per_space: u64,
    /// Bytes of one space.
    pub bytes_per_space: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            spaces: limits::SPACES_MAX,
            packs_per_space: limits::PACKS_PER_SPACE_MAX,
            bytes_per_space: limits::BYTES_PER_SPACE_MAX,
        }
    }
}

/// What is recorded of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Its length.
    pub len: u32,
    /// For one that was deleted, the days until it is gone.
    pub days_left: Option<u32>,
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The new head is stored durably.
    Done,
    /// It does not follow the newest head, which is this one; nothing was changed. A head that is
    /// the newest already is reported as [`Swapped::Done`].
    Conflict(Option<SealedHead>),
}

/// Blocks on their way into an account's chain. Whoever calls has verified them.
#[derive(Clone, Debug)]
pub struct NewBlocks {
    /// The account.
    pub account: AccountId,
    /// The place of the first.
    pub from: u64,
    /// The blocks, and what the log says of each. An entry's time becomes that of the entry before, if it is
    /// earlier.
    pub blocks: Vec<(Vec<u8>, Entry)>,
    /// The key block that replaces the one before.
    pub key_block: Option<Vec<u8>>,
    /// A kit's envelope, and the id that it is kept under.
    pub envelope: Option<(Hash, Vec<u8>)>,
    /// What pays for the first block of an account.
    pub voucher_hash: Option<Hash>,
    /// Whether the server had taken, and been paid for, the first block of the account before.
    pub is_promised: bool,
}

/// Blocks in a row, and the newest key block if the newest block is among them or before.
pub type Blocks = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// Records. Every method that changes something returns after the change is durable, and does all
/// of it or nothing.
pub trait MetaStore: Send + Sync {
    /// Adds the hashes of vouchers that were given out.
    ///
    /// **Errors** [`StoreError::Full`], [`StoreError::Failed`], as all methods.
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError>;

    /// Makes a space and deletes the voucher that pays for it.
    ///
    /// **Errors** [`StoreError::VoucherUnknown`], [`StoreError::Exists`], [`StoreError::QuotaFull`].
    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError>;

    /// Returns the keys of a space.
    ///
    /// **Errors** [`StoreError::NotFound`].
    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError>;

    /// Records a pack of `len` bytes whose blob is durable.
    ///
    /// **Errors** [`StoreError::Exists`], [`StoreError::NotFound`] for the space,
    /// [`StoreError::QuotaFull`].
    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError>;

    /// Returns what is recorded of a pack of this space.
    ///
    /// **Errors** [`StoreError::NotFound`].
    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError>;

    /// Returns all packs of this space that were not deleted, in no order.
    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError>;

    /// Deletes those of `packs` that the space has, which keeps them for `days` more.
    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError>;

    /// Brings all packs of the space back that were deleted. Returns how many.
    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError>;

    /// Takes note of the day, and forgets the packs for which it was the last; their blobs may go.
    /// However far a clock jumps ahead, that is one day, and back, none.
    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError>;

    /// Returns whether any space has this pack, deleted or not.
    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError>;

    /// Returns the newest head of a space.
    ///
    /// **Errors** [`StoreError::NotFound`] for the space.
    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError>;

    /// Returns up to `max` heads of a space from place `from` on.
    ///
    /// **Errors** [`StoreError::NotFound`] for the space.
    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError>;

    /// Gives a space other keys, if it has `expected` now.
    ///
    /// **Errors** [`StoreError::NotFound`], [`StoreError::Exists`] when its keys are others.
    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError>;

    /// Appends blocks, with all that comes with them, and their entries to the log. Those that the log has
    /// already, since [`MetaStore::give_back_log`], get no other entry, and need no voucher.
    ///
    /// **Errors** [`StoreError::Exists`] when the place is taken, or the envelope's id by another, or the log has
    /// another block there, [`StoreError::NotFound`] when the place before is empty,
    /// [`StoreError::VoucherUnknown`] and [`StoreError::QuotaFull`] for a new account,
    /// [`StoreError::PutBack`].
    fn append_blocks(&self, blocks: &NewBlocks, caps: &Caps) -> Result<(), StoreError>;

    /// Returns the blocks of an account from place `from` on, as many as have `len_max` bytes, at
    /// least one if there is one; and the key block if the newest block is among them or before.
    ///
    /// **Errors** [`StoreError::NotFound`] for the account.
    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError>;

    /// Returns the ids of all accounts, rising.
    fn accounts(&self) -> Result<Vec<AccountId>, StoreError>;

    /// Returns a kit's envelope.
    ///
    /// **Errors** [`StoreError::NotFound`].
    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError>;

    /// Begins the log with these entries, if it has none.
    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError>;

    /// Returns up to `max` entries of the log, from place `from` on.
    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError>;

    /// Adds an entry to the log that follows the newest of its index; a repeat of that is `false`. It is of none of the
    /// types that other methods add. Its time becomes that of the entry before, if it is earlier.
    ///
    /// **Errors** [`StoreError::Exists`] when it does not follow, [`StoreError::PutBack`].
    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError>;

    /// Stores a checkpoint in place of the one before.
    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError>;

    /// Returns the newest checkpoint.
    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Makes `head` the newest if its seq and previous hash follow the newest. A repeat succeeds.
    ///
    /// **Errors** [`StoreError::NotFound`] for the space, [`StoreError::PutBack`].
    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError>;

    /// Makes heads in a row the newest. Whoever calls has verified that this server had them.
    ///
    /// **Errors** [`StoreError::NotFound`] for the space, [`StoreError::Exists`] when the first does not
    /// follow the newest.
    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError>;

    /// Adds entries to the log, and the checkpoint over them and all before. Whoever calls has verified
    /// that this server signed it. Of which accounts they are, is remembered until their blocks come.
    ///
    /// **Errors** [`StoreError::Exists`] when the log has not `from` entries.
    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError>;

    /// From now on nothing new is stored but packs and spaces: a newer state is to be given back first. `note`
    /// is the newest checkpoint that is known of it, empty for none.
    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError>;

    /// Returns what [`MetaStore::set_put_back`] was told, until [`MetaStore::end_put_back`].
    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Ends what [`MetaStore::set_put_back`] began.
    fn end_put_back(&self) -> Result<(), StoreError>;

    /// Returns the witnesses that are asked to cosign the log: for each its address and its keys, one in a line.
    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError>;

    /// Keeps the keys of the witness at an address, or forgets it.
    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError>;

    /// Returns the policies of the server's cards from the third on.
    fn policies(&self) -> Result<Vec<String>, StoreError>;

    /// Adds the policy of the next card, and the card's entry to the log unless it has it.
    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError>;

    /// Returns whether the log has this very entry, and its block was not given back.
    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError>;

    /// Returns how many accounts have changes in the log that were not given back.
    fn owed(&self) -> Result<u64, StoreError>;
}

/// Packs by id.
pub trait BlobStore: Send + Sync {
    /// Starts a blob, after the first `kept` bytes of what an interrupted upload has left of it.
    ///
    /// **Errors** [`StoreError::NotFound`] when fewer are left; [`StoreError::Full`],
    /// [`StoreError::Failed`], as all methods.
    fn begin(&self, pack: PackId, kept: u64) -> Result<Box<dyn BlobWriter>, StoreError>;

    /// Returns `len` bytes from `offset` on of what an interrupted upload has left, fewer at its end,
    /// and none when there is nothing.
    fn read_part(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// Deletes what was left of uploads that nobody went on with for a day.
    fn drop_old_parts(&self) -> Result<(), StoreError>;

    /// Returns `len` bytes from `offset` on, fewer at the end.
    ///
    /// **Errors** [`StoreError::NotFound`].
    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// Returns whether there is a blob.
    fn has(&self, pack: PackId) -> Result<bool, StoreError>;

    /// Deletes a blob; one that is not there is deleted already.
    fn delete(&self, pack: PackId) -> Result<(), StoreError>;

    /// Returns all ids, in no order.
    fn list(&self) -> Result<Vec<PackId>, StoreError>;
}

/// A blob that is being written. Dropped before [`BlobWriter::finish`], it leaves what was written, if that
/// is a slot or more, so that the upload can go on; after an error, nothing.
pub trait BlobWriter: Send {
    /// Appends bytes.
    ///
    /// **Errors** [`StoreError::Full`], [`StoreError::Failed`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the blob durable under its id. An id that is taken is never written again.
    ///
    /// **Errors** [`StoreError::Exists`].
    fn finish(self: Box<Self>) -> Result<(), StoreError>;

    /// Leaves nothing: what was written is no pack.
    fn discard(self: Box<Self>);
}

/// Of so many interrupted uploads something is left; the oldest make room.
const PARTS_MAX: usize = 64;

/// More blobs without a record than this are no leftovers of a crash: the records are older.
const LEFTOVERS_MAX: usize = 64;

/// Deletes blobs that no record names: what a crash between the two left behind. Returns how many.
///
/// **Errors** [`StoreError::RecordsMissing`], and as the stores have them. Called before the server
/// accepts connections.
pub fn sweep(meta: &dyn MetaStore, blobs: &dyn BlobStore) -> Result<usize, StoreError> {
    let mut leftovers = Vec::new();
    for pack in blobs.list()? {
        if !meta.has_pack(pack)? {
            leftovers.push(pack);
        }
    }
    if leftovers.len() > LEFTOVERS_MAX {
        return Err(StoreError::RecordsMissing { packs: leftovers.len() });
    }
    for pack in &leftovers {
        blobs.delete(*pack)?;
    }
    Ok(leftovers.len())
}
