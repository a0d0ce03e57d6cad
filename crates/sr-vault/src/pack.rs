//! Packs: what the server stores. Five sizes and no other, sealed in slots of 1 MiB.
//!
//! See `spec/pack.md`. Slot `i` is bytes `[i·2^20, (i+1)·2^20)`, one AEAD output with its tag; slot 0
//! begins with a clear header. Opening a pack proves that it is the one that was asked for, whole
//! and unchanged.

use sr_crypto::{COMMITMENT_LEN, TAG_LEN};
use sr_keys::VaultKeys;
use sr_wire::{
    Misbehaviour, PackId, check,
    limits::{PACK_LEN_MAX, PACK_SIZES, SLOT_LEN},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::block::Kind;

/// Length of the clear header.
pub const HEADER_LEN: usize = 128;
const MAGIC: &[u8; 8] = b"srpack\x001";
const SUITE: u16 = 1;
/// Bytes of the table for one blob, and of the table's frame.
const ENTRY_LEN: usize = 9;
const TABLE_FRAME_LEN: usize = 4;
/// Blobs of one pack: a table of 9-byte entries then stays below 64 KiB.
pub const BLOBS_MAX: usize = 4096;

/// A pack's size, as a number from 0 (64 KiB) to 4 (16 MiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// The smallest class.
    pub const SMALLEST: Self = Self(0);
    /// The largest class.
    pub const LARGEST: Self = Self(4);

    /// Returns the class of a pack of `len` bytes.
    #[must_use]
    pub fn of_len(len: usize) -> Option<Self> {
        PACK_SIZES.iter().position(|size| *size == len).and_then(|i| u8::try_from(i).ok()).map(Self)
    }

    /// Returns the smallest class that holds `plain_len` bytes of blobs and table.
    #[must_use]
    pub fn for_plain(plain_len: usize) -> Option<Self> {
        (0..=Self::LARGEST.0).map(Self).find(|class| plain_len <= class.plain_len())
    }

    /// Returns the next smaller class.
    #[must_use]
    pub fn smaller(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Returns the size on disk in bytes.
    #[must_use]
    pub fn pack_len(self) -> usize {
        PACK_SIZES[usize::from(self.0)]
    }

    /// Returns the bytes of plaintext that a pack of this class holds.
    #[must_use]
    pub fn plain_len(self) -> usize {
        self.pack_len() - HEADER_LEN - TAG_LEN * self.slots()
    }

    fn slots(self) -> usize {
        self.pack_len().div_ceil(SLOT_LEN)
    }
}

/// Where a blob lies in a pack's plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Offset in the plaintext.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Collects blobs of a pack. Its id is chosen first, so that an index can name the pack it lies in.
///
/// Blobs are written to where they will lie, with the gaps for header and tags, so that sealing
/// copies nothing.
#[derive(Debug)]
pub struct PackBuilder {
    id: PackId,
    pack: Vec<u8>,
    plain_len: usize,
    entries: Vec<Entry>,
}

impl PackBuilder {
    /// Starts a pack with a fresh random id.
    #[must_use]
    pub fn new(id: PackId) -> Self {
        Self::with_buffer(id, Vec::with_capacity(PACK_LEN_MAX))
    }

    /// As [`PackBuilder::new`], in memory that an earlier pack was in.
    #[must_use]
    pub fn with_buffer(id: PackId, mut pack: Vec<u8>) -> Self {
        pack.clear();
        Self { id, pack, plain_len: 0, entries: Vec::new() }
    }

    /// Returns the pack's id.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Returns whether a blob of `len` bytes fits into a pack of `class` beside what is there.
    #[must_use]
    pub fn fits(&self, class: Class, len: usize) -> bool {
        self.entries.len() < BLOBS_MAX
            && self.plain_len + len + table_len(self.entries.len() + 1) <= class.plain_len()
    }

    /// Adds a blob that [`PackBuilder::fits`], and returns its entry.
    pub fn push(&mut self, kind: Kind, blob: &[u8]) -> Entry {
        let entry = Entry { kind, offset: as_u32(self.plain_len), len: as_u32(blob.len()) };
        self.write(self.plain_len, blob);
        self.plain_len += blob.len();
        self.entries.push(entry);
        entry
    }

    /// Returns the number of blobs.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.entries.len()
    }

    /// Returns a copy of a blob that was added.
    #[must_use]
    pub fn blob(&self, entry: Entry) -> Vec<u8> {
        let (mut offset, end) = (entry.offset as usize, (entry.offset + entry.len) as usize);
        let mut blob = Vec::with_capacity(end - offset);
        while offset < end {
            let (place, room) = place_on_disk(offset);
            let len = room.min(end - offset);
            blob.extend_from_slice(&self.pack[place..place + len]);
            offset += len;
        }
        blob
    }

    /// Returns the class that the pack has when it is sealed now: the smallest that holds it.
    ///
    /// **Panics** when a blob was pushed that did not fit, which is a bug of the caller.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the doc says so")]
    pub fn class(&self) -> Class {
        let len = self.plain_len + table_len(self.entries.len());
        Class::for_plain(len).expect("every blob was checked to fit")
    }

    /// Seals the pack in the smallest class that holds it.
    ///
    /// **Panics** when a blob was pushed that did not fit, which is a bug of the caller.
    #[must_use]
    #[expect(clippy::expect_used, reason = "there is a key of every generation")]
    pub fn seal(mut self, keys: &VaultKeys) -> Vec<u8> {
        let generation = keys.generation();
        let table = self.table();
        let class = self.class();
        self.write(class.plain_len() - table.len(), &table);
        let mut pack = self.pack;
        pack.resize(class.pack_len(), 0);
        let key = keys.pack_key(generation, self.id).expect("the newest generation has a key");
        let seal = PackSeal { generation, commitment: *key.commitment() };
        write_header(&mut pack, class, self.id, &seal);
        for number in 0..class.slots() {
            let last = number + 1 == class.slots();
            let aad = associated_data(keys, generation, class, self.id, number, last);
            key.seal_segment(as_u32(number), last, &aad, slot_bytes(&mut pack, number));
        }
        pack
    }

    fn table(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(table_len(self.entries.len()));
        for entry in &self.entries {
            table.extend_from_slice(&sr_wire::encode(entry));
        }
        table.extend_from_slice(&as_u32(table.len()).to_be_bytes());
        table
    }

    fn write(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (place, room) = place_on_disk(offset);
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            let end = place + head.len();
            if self.pack.len() < end {
                self.pack.resize(end, 0);
            }
            self.pack[place..end].copy_from_slice(head);
            offset += head.len();
            bytes = rest;
        }
    }
}

/// Returns where byte `offset` of the plaintext lies in the pack, and how many follow it in its slot.
fn place_on_disk(offset: usize) -> (usize, usize) {
    let slot = (offset + HEADER_LEN) / (SLOT_LEN - TAG_LEN);
    let place = offset + HEADER_LEN + slot * TAG_LEN;
    (place, (slot + 1) * SLOT_LEN - TAG_LEN - place)
}

/// Under which key a pack is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackSeal {
    /// Generation of the vault key.
    pub generation: u32,
    /// Commitment to the pack's key, which is in its header too, so that reading a part needs no
    /// slot 0.
    pub commitment: [u8; COMMITMENT_LEN],
}

impl PackSeal {
    /// Returns the seal of a pack that is sealed now.
    ///
    /// **Panics** never: there is a key of every generation.
    #[must_use]
    #[expect(clippy::expect_used, reason = "there is a key of every generation")]
    pub fn of(keys: &VaultKeys, id: PackId) -> Self {
        let generation = keys.generation();
        let key = keys.pack_key(generation, id).expect("the newest generation has a key");
        Self { generation, commitment: *key.commitment() }
    }
}

/// The slots that hold a range of a pack's plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// First slot.
    pub first: usize,
    /// Last slot.
    pub last: usize,
}

impl Slots {
    /// All slots of any pack.
    pub const ALL: Self = Self { first: 0, last: sr_wire::limits::SLOTS_MAX - 1 };

    /// Returns the slots of plaintext `[offset, offset + len)`.
    #[must_use]
    pub fn of_range(offset: usize, len: usize) -> Self {
        let slot_of = |place: usize| place_on_disk(place).0 / SLOT_LEN;
        Self { first: slot_of(offset), last: slot_of(offset + len.saturating_sub(1)) }
    }
}

/// Plaintext of some slots of a pack.
#[derive(Debug)]
pub struct OpenSlots {
    start: usize,
    plain: Vec<u8>,
    whole: bool,
}

impl OpenSlots {
    /// Opens `bytes`, the slots from `first` on of pack `id`, whose length on disk is `pack_len`.
    /// The commitment is checked before anything is decrypted: that of `seal`, which a signed index
    /// names, or the header's where none does, as for a manifest; slot 0 must be among them then.
    ///
    /// **Errors** [`Misbehaviour::PackAltered`] or [`Misbehaviour::PackSwapped`].
    pub fn open(
        keys: &VaultKeys,
        id: PackId,
        seal: Option<&PackSeal>,
        pack_len: usize,
        first: usize,
        mut bytes: Vec<u8>,
    ) -> Result<Self, Misbehaviour> {
        // SR-001: every way of not being the sealed bytes ends here.
        let altered = Misbehaviour::PackAltered;
        let class = Class::of_len(pack_len).ok_or(altered)?;
        let from = first * SLOT_LEN;
        let to = from + bytes.len();
        let count = bytes.len().div_ceil(SLOT_LEN);
        if bytes.is_empty() || to > pack_len || (!to.is_multiple_of(SLOT_LEN) && to != pack_len) {
            return Err(altered);
        }
        let (mut id, mut seal) = (id, seal.copied());
        if first == 0 {
            let (written, in_header) = check_header(&bytes, class, id)?;
            // A pack that was swapped has another commitment, which SR-002 has named already.
            let is_same = seal.is_none_or(|seal| seal == in_header) || written != id;
            if !is_same {
                return Err(altered);
            }
            (id, seal) = (written, Some(in_header));
        }
        let seal = seal.ok_or(altered)?;
        let generation = seal.generation;
        let key = keys.pack_key(generation, id).ok_or(altered)?;
        key.check_commitment(&seal.commitment).map_err(|_| altered)?;
        let mut end = 0;
        for i in 0..count {
            let number = first + i;
            let last = number + 1 == class.slots();
            let aad = associated_data(keys, generation, class, id, number, last);
            let header = if number == 0 { HEADER_LEN } else { 0 };
            let start = i * SLOT_LEN;
            let stop = bytes.len().min(start + SLOT_LEN);
            let slot = bytes.get_mut(start + header..stop).ok_or(altered)?;
            let plain_len =
                key.open_segment(as_u32(number), last, &aad, slot).map_err(|_| altered)?.len();
            bytes.copy_within(start + header..start + header + plain_len, end);
            end += plain_len;
        }
        bytes.truncate(end);
        let start = if first == 0 { 0 } else { first * (SLOT_LEN - TAG_LEN) - HEADER_LEN };
        Ok(Self { start, plain: bytes, whole: first == 0 && to == pack_len })
    }

    /// Returns plaintext `[offset, offset + len)` of the pack, if these slots hold it.
    #[must_use]
    pub fn bytes(&self, offset: u32, len: u32) -> Option<&[u8]> {
        let from = (offset as usize).checked_sub(self.start)?;
        self.plain.get(from..from.checked_add(len as usize)?)
    }

    /// Reads the table of a pack that was opened whole.
    ///
    /// **Errors** [`Misbehaviour::ObjectMalformed`] when it is not in its canonical form.
    pub fn table(&self) -> Result<Vec<Entry>, Misbehaviour> {
        // SR-015
        self.parse_table().ok_or(Misbehaviour::ObjectMalformed)
    }

    /// Returns the only blob of `kind` in a pack that was opened whole.
    ///
    /// **Errors** [`Misbehaviour::ObjectMalformed`] when there is not exactly one.
    pub fn only(&self, kind: Kind) -> Result<&[u8], Misbehaviour> {
        let table = self.table()?;
        let mut found = table.iter().filter(|entry| entry.kind == kind);
        let (Some(entry), None) = (found.next(), found.next()) else {
            return Err(Misbehaviour::ObjectMalformed);
        };
        self.bytes(entry.offset, entry.len).ok_or(Misbehaviour::ObjectMalformed)
    }

    fn parse_table(&self) -> Option<Vec<Entry>> {
        if !self.whole {
            return None;
        }
        let (rest, len) = self.plain.split_last_chunk::<4>()?;
        let len = u32::from_be_bytes(*len) as usize;
        let table_at = rest.len().checked_sub(len)?;
        if !len.is_multiple_of(ENTRY_LEN) || len / ENTRY_LEN > BLOBS_MAX {
            return None;
        }
        let mut end = 0usize;
        let mut entries = Vec::with_capacity(len / ENTRY_LEN);
        for bytes in rest[table_at..].chunks_exact(ENTRY_LEN) {
            let entry: Entry = sr_wire::decode("pack table", bytes, ENTRY_LEN).ok()?;
            if entry.offset as usize != end {
                return None;
            }
            end = end.checked_add(entry.len as usize)?;
            entries.push(entry);
        }
        let padding = rest.get(end..table_at)?;
        padding.iter().all(|byte| *byte == 0).then_some(entries)
    }
}

/// Cuts what is left at the end of a run into packs: 4 MiB, then 1 MiB, then 256 KiB, the last one
/// as small as it can be. Returns the blobs of each pack, as indices into `lens`; the last pack has
/// room for `reserve` bytes more.
///
/// Blobs and reserve together fit into one pack of the largest class, and there are at most
/// [`BLOBS_MAX`] less a few of them.
///
/// The operator learns the total of a run to about a quarter and no blob's length.
#[must_use]
pub fn plan_tail(lens: &[usize], reserve: usize) -> Vec<Vec<usize>> {
    let mut packs = Vec::new();
    let mut left: Vec<usize> = (0..lens.len()).collect();
    while packs.len() < PACKS_PER_TAIL_MAX - 1 {
        let plain: usize = left.iter().map(|i| lens[*i]).sum::<usize>() + reserve;
        let fitting = Class::for_plain(plain + table_len(left.len() + RESERVED_BLOBS));
        let class = match fitting {
            Some(class) if is_well_filled(class, plain) => break,
            Some(class) => class.smaller(),
            None => Class::LARGEST.smaller(),
        };
        let Some(class) = class else { break };
        let (mut pack, mut plain) = (Vec::new(), 0);
        left.retain(|i| {
            let fits = pack.len() < BLOBS_MAX
                && plain + lens[*i] + table_len(pack.len() + 1) <= class.plain_len();
            if fits {
                pack.push(*i);
                plain += lens[*i];
            }
            !fits
        });
        if pack.is_empty() {
            break;
        }
        packs.push(pack);
    }
    packs.push(left);
    packs
}

const PACKS_PER_TAIL_MAX: usize = 10;
/// Blobs that the last pack of a tail takes beyond the planned ones: indexes and a manifest.
const RESERVED_BLOBS: usize = 16;

fn is_well_filled(class: Class, plain: usize) -> bool {
    class.pack_len() <= PACK_SIZES[1] || plain > class.plain_len() / 4 * 3
}

fn table_len(blobs: usize) -> usize {
    blobs * ENTRY_LEN + TABLE_FRAME_LEN
}

fn slot_bytes(pack: &mut [u8], number: usize) -> &mut [u8] {
    let start = if number == 0 { HEADER_LEN } else { number * SLOT_LEN };
    let end = pack.len().min((number + 1) * SLOT_LEN);
    &mut pack[start..end]
}

/// `magic[8] ‖ u16 suite ‖ u8 class ‖ u8 zero ‖ u32 generation ‖ pack id[32] ‖ commitment[32] ‖ zeros`.
fn write_header(pack: &mut [u8], class: Class, id: PackId, seal: &PackSeal) {
    pack[..8].copy_from_slice(MAGIC);
    pack[8..10].copy_from_slice(&SUITE.to_be_bytes());
    pack[10] = class.0;
    pack[12..16].copy_from_slice(&seal.generation.to_be_bytes());
    pack[16..48].copy_from_slice(&id.0);
    pack[48..80].copy_from_slice(&seal.commitment);
}

/// Checks the header's form, and returns the id whose key opens the pack, and the seal it names.
fn check_header(
    bytes: &[u8],
    class: Class,
    id: PackId,
) -> Result<(PackId, PackSeal), Misbehaviour> {
    let altered = Misbehaviour::PackAltered;
    let header = bytes.get(..HEADER_LEN).ok_or(altered)?;
    let written = PackId::from_slice(&header[16..48]).ok_or(altered)?;
    let mut expected = vec![0; HEADER_LEN];
    let generation = header[12..16].try_into().map_err(|_| altered)?;
    let seal = PackSeal {
        generation: u32::from_be_bytes(generation),
        commitment: header[48..80].try_into().map_err(|_| altered)?,
    };
    write_header(&mut expected, class, written, &seal);
    if header != expected {
        return Err(altered);
    }
    // SR-002: without this check, the key would be derived for whatever pack the server chose.
    Misbehaviour::PackSwapped.refuse_if(written != id)?;
    Ok((if check::enforced(Misbehaviour::PackSwapped) { id } else { written }, seal))
}

fn associated_data(
    keys: &VaultKeys,
    generation: u32,
    class: Class,
    id: PackId,
    slot: usize,
    last: bool,
) -> Vec<u8> {
    let mut aad = Vec::with_capacity(60);
    aad.extend_from_slice(&SUITE.to_be_bytes());
    aad.extend_from_slice(&keys.vault().0);
    aad.extend_from_slice(&generation.to_be_bytes());
    aad.push(class.0);
    aad.extend_from_slice(&id.0);
    aad.extend_from_slice(&as_u32(slot).to_be_bytes());
    aad.push(u8::from(last));
    aad
}

#[expect(clippy::cast_possible_truncation, reason = "slots and tables are far below 2^32")]
fn as_u32(number: usize) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::rand_core::SeedableRng;

    const NO_SEAL: PackSeal = PackSeal { generation: 1, commitment: [0; 32] };

    fn keys() -> VaultKeys {
        VaultKeys::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(1))
    }

    fn id(byte: u8) -> PackId {
        PackId([byte; 32])
    }

    fn pack(id_byte: u8, blobs: &[&[u8]]) -> Vec<u8> {
        let mut builder = PackBuilder::new(id(id_byte));
        for blob in blobs {
            assert!(builder.fits(Class::LARGEST, blob.len()));
            builder.push(Kind::Data, blob);
        }
        builder.seal(&keys())
    }

    fn open(id_byte: u8, bytes: &[u8]) -> Result<OpenSlots, Misbehaviour> {
        OpenSlots::open(&keys(), id(id_byte), None, bytes.len(), 0, bytes.to_vec())
    }

    #[test]
    fn capacities_are_those_of_the_design() {
        assert_eq!(Class::SMALLEST.plain_len(), 65_392);
        assert_eq!(Class::LARGEST.plain_len(), (1 << 24) - 128 - 16 * 16);
        assert_eq!(Class::of_len(12345), None);
        assert_eq!(Class::for_plain(65_392), Some(Class::SMALLEST));
        assert_eq!(Class::for_plain(65_393), Some(Class(1)));
        assert_eq!(Class::for_plain(1 << 24), None);
    }

    #[test]
    fn blobs_come_back_whole_and_by_slots() {
        let big: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let bytes = pack(1, &[b"first", &big, b"last"]);
        assert_eq!(bytes.len(), 4 << 20);
        let opened = open(1, &bytes).expect("opens");
        let table = opened.table().expect("table");
        assert_eq!(table.len(), 3);
        assert_eq!(opened.bytes(table[1].offset, table[1].len), Some(&big[..]));

        let seal = PackSeal::of(&keys(), id(1));
        for (offset, len) in [(2_500_000u32, 10u32), (1_048_430, 2), (2_097_000, 900_000)] {
            let slots = Slots::of_range(offset as usize, len as usize);
            let part = bytes[slots.first * SLOT_LEN..bytes.len().min((slots.last + 1) * SLOT_LEN)]
                .to_vec();
            let opened =
                OpenSlots::open(&keys(), id(1), Some(&seal), bytes.len(), slots.first, part)
                    .expect("opens");
            let from = offset as usize - 5;
            assert_eq!(opened.bytes(offset, len), Some(&big[from..from + len as usize]));
            assert!(opened.table().is_err() || slots.first == 0);
        }
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let bytes = pack(1, &[b"blob"]);
        for place in (0..200).chain((200..bytes.len()).step_by(97)).chain([bytes.len() - 1]) {
            let mut forged = bytes.clone();
            forged[place] ^= 0x10;
            assert!(open(1, &forged).is_err(), "byte {place}");
        }
    }

    #[test]
    fn another_packs_bytes_and_other_lengths_are_refused() {
        let bytes = pack(1, &[b"blob"]);
        assert_eq!(open(2, &bytes).err(), Some(Misbehaviour::PackSwapped));
        let altered = Some(Misbehaviour::PackAltered);
        assert_eq!(open(1, &bytes[..bytes.len() - 1]).err(), altered);
        assert_eq!(open(1, &[]).err(), altered);
        assert_eq!(open(1, &bytes[..100]).err(), altered);
        let mut longer = bytes.clone();
        longer.resize(1 << 18, 0);
        assert_eq!(open(1, &longer).err(), altered);
    }

    #[test]
    fn slots_cannot_be_moved_dropped_or_repeated() {
        let big = vec![7; 3_500_000];
        let bytes = pack(1, &[&big]);
        let slot = |i: usize| &bytes[i * SLOT_LEN..(i + 1) * SLOT_LEN];
        let altered = Some(Misbehaviour::PackAltered);
        let swapped = [slot(0), slot(2), slot(1), slot(3)].concat();
        assert_eq!(open(1, &swapped).err(), altered);
        let repeated = [slot(0), slot(1), slot(1), slot(3)].concat();
        assert_eq!(open(1, &repeated).err(), altered);
        assert_eq!(open(1, slot(0)).err(), altered);
        let commitment = PackSeal::of(&keys(), id(1));
        let part = |first, bytes: &[u8], commitment: &PackSeal| {
            OpenSlots::open(&keys(), id(1), Some(commitment), 4 << 20, first, bytes.to_vec()).err()
        };
        assert_eq!(part(1, slot(1), &commitment), None);
        assert_eq!(part(1, slot(2), &commitment), altered);
        assert_eq!(part(1, slot(1), &NO_SEAL), altered);
        assert_eq!(part(1, &slot(1)[1..], &commitment), altered);
        assert_eq!(part(4, slot(1), &commitment), altered);
    }

    #[test]
    fn tails_are_cut_as_the_design_says() {
        let mib = 1 << 20;
        let sizes = |lens: &[usize], reserve: usize| -> Vec<usize> {
            let packs = plan_tail(lens, reserve);
            let last = packs.len() - 1;
            packs
                .iter()
                .enumerate()
                .map(|(n, pack)| {
                    let plain: usize = pack.iter().map(|i| lens[*i]).sum::<usize>()
                        + if n == last { reserve } else { 0 };
                    Class::for_plain(plain + table_len(pack.len())).expect("fits").pack_len()
                })
                .collect()
        };
        assert_eq!(sizes(&[], 2000), [1 << 16]);
        assert_eq!(sizes(&[100_000], 2000), [1 << 18]);
        // 4.1 MiB in blobs of 100 KiB: one pack of 4 MiB and one of 256 KiB.
        assert_eq!(sizes(&[102_400; 42], 2000), [4 * mib, 1 << 18]);
        assert_eq!(sizes(&[4 * mib], 2000), [16 * mib]);
    }

    proptest! {
        #[test]
        fn a_tail_keeps_every_blob_once_and_fits(
            lens in proptest::collection::vec(1usize..2_000_000, 0..40),
        ) {
            let total: usize = lens.iter().sum();
            prop_assume!(total < 15_000_000);
            let packs = plan_tail(&lens, 100_000);
            prop_assert!(packs.len() <= PACKS_PER_TAIL_MAX);
            let mut seen: Vec<usize> = packs.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lens.len()).collect::<Vec<_>>());
            for pack in &packs {
                let plain: usize = pack.iter().map(|i| lens[*i]).sum::<usize>() + 100_000;
                prop_assert!(Class::for_plain(plain + table_len(pack.len())).is_some());
            }
        }

        #[test]
        fn any_bytes_open_or_are_refused_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            first in 0usize..20,
        ) {
            let pack_len = PACK_SIZES[first % 5];
            prop_assert!(
                OpenSlots::open(&keys(), id(1), Some(&NO_SEAL), pack_len, first, bytes).is_err()
            );
        }
    }
}
