//! What the fuzzer calls, and what `cargo test` calls with the corpora: parsers of what a server can
//! send, with whatever it can send. None panics, and what one takes is in its canonical form.

use std::sync::OnceLock;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sr_crypto::seal_box;
use sr_vault::{
    ChunkId, block,
    head::{self, HeadPlace},
    index::{ChunkIndex, Index},
    manifest::Manifest,
    pack::{OpenSlots, Slots},
    retention::Keep,
    tree,
};
use sr_wire::{PackId, SealedHead, SpaceId, decode, encode, labels, limits};

use crate::house::House;

/// All targets.
pub(crate) const TARGETS: [&str; 6] = ["block", "head", "index", "pack", "snapshot", "tree"];

/// Gives `bytes` to a target.
pub(crate) fn run(target: &str, bytes: &[u8]) {
    match target {
        "block" => block(bytes),
        "head" => head(bytes),
        "index" => index(bytes),
        "pack" => pack(bytes),
        "snapshot" => snapshot(bytes),
        "tree" => tree(bytes),
        other => panic!("no target {other}"),
    }
}

fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| House::new(1))
}

/// A finding can be played again.
fn same_each_time() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

/// `u32 raw length ‖ stored form`, as in a manifest's blob.
fn block(bytes: &[u8]) {
    let Some((len, stored)) = bytes.split_first_chunk::<4>() else { return };
    let raw_len = u32::from_be_bytes(*len) as usize;
    if let Ok(raw) = block::expand(stored, raw_len, 1 << 20) {
        assert_eq!(raw.len(), raw_len);
    }
}

/// As it travels, and as what is inside when a device with the keys has sealed it.
fn head(bytes: &[u8]) {
    let house = house();
    if let Ok(sealed) = decode::<SealedHead>("head", bytes, limits::MESSAGE_LEN_MAX) {
        assert_eq!(encode(&sealed), bytes);
        let _ = head::open(&sealed, &house.vault, &house.account);
    }
    let mut plain = bytes.to_vec();
    plain.resize(limits::HEAD_LEN, 0);
    let mut sealed = SealedHead {
        space: house.vault.space(),
        seq: 1,
        generation: 1,
        previous: HeadPlace::EMPTY.hash,
        sealed: Vec::new().into(),
    };
    let (aad, key) = (sealed.associated_data(), house.vault.head_key(1).expect("has one"));
    sealed.sealed = seal_box(&key, labels::HEAD, &aad, &plain, &mut same_each_time()).into();
    let _ = head::open(&sealed, &house.vault, &house.account);
    let other = SealedHead { space: SpaceId([0; 16]), ..sealed };
    assert!(head::open(&other, &house.vault, &house.account).is_err());
}

fn index(bytes: &[u8]) {
    let Ok(index) = Index::parse(bytes) else { return };
    assert_eq!(index.to_bytes(), bytes);
    let mut all = ChunkIndex::default();
    index.packs.iter().for_each(|pack| all.add(pack));
    for pack in &index.packs {
        for block in &pack.blocks {
            for chunk in block.chunks.iter().filter(|chunk| chunk.id != ChunkId::PRUNED) {
                let place = all.find(&chunk.id).expect("is known");
                let block = all.block(place.block).expect("is in a block");
                assert!(all.pack(block.pack).is_some());
                assert!(place.offset + place.len <= block.raw_len);
                let slots = Slots::of_range(block.offset as usize, block.stored_len as usize);
                assert!(slots.first <= slots.last && slots.last < limits::SLOTS_MAX);
            }
        }
    }
}

/// As the bytes of a pack, and as the end of the plaintext of one that a device with the keys has
/// sealed, by `spec/pack.md`.
fn pack(bytes: &[u8]) {
    const HEADER_LEN: usize = 128;
    const TAG_LEN: usize = 16;
    let keys = &house().vault;
    let id = PackId([7; 32]);
    let open = |pack: Vec<u8>| OpenSlots::open(keys, id, None, pack.len(), 0, pack);
    let mut raw = bytes.to_vec();
    let size = limits::PACK_SIZES.iter().find(|size| **size >= raw.len());
    raw.resize(size.copied().unwrap_or(limits::PACK_SIZES[0]).min(1 << 18), 0);
    let _ = open(raw);

    let len = limits::PACK_SIZES[0];
    let mut pack = vec![0; len];
    let key = keys.pack_key(1, id).expect("has one");
    pack[..8].copy_from_slice(b"srpack\x001");
    pack[8..10].copy_from_slice(&1_u16.to_be_bytes());
    pack[12..16].copy_from_slice(&1_u32.to_be_bytes());
    pack[16..48].copy_from_slice(&id.0);
    pack[48..80].copy_from_slice(key.commitment());
    let end = len - TAG_LEN;
    let tail = &bytes[..bytes.len().min(end - HEADER_LEN)];
    pack[end - tail.len()..end].copy_from_slice(tail);
    let aad = [
        &1_u16.to_be_bytes()[..],
        &keys.vault().0,
        &1_u32.to_be_bytes(),
        &[0],
        &id.0,
        &0_u32.to_be_bytes(),
        &[1],
    ];
    key.seal_segment(0, true, &aad.concat(), &mut pack[HEADER_LEN..]);
    let opened = open(pack).expect("is sealed as the page says");
    if let Ok(table) = opened.table() {
        for entry in table {
            assert!(opened.bytes(entry.offset, entry.len).is_some());
        }
    }
}

fn snapshot(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    assert_eq!(manifest.to_bytes(), bytes);
    let (snapshots, indexes) = (manifest.snapshot_set(), manifest.index_set());
    assert!(Manifest::verify(bytes, &snapshots, &indexes).is_ok());
    let keep = Keep { daily: 3, weekly: 2, within_s: 9, ..Keep::default() };
    let reasons = keep.judge(&manifest.snapshots, 2_000_000_000);
    assert_eq!(reasons.len(), manifest.snapshots.len());
    let _ = manifest.next_number();
}

fn tree(bytes: &[u8]) {
    let Ok(nodes) = tree::parse(bytes) else { return };
    assert_eq!(tree::to_bytes(&nodes), bytes);
    assert!(nodes.windows(2).all(|pair| pair[0].name.as_slice() < pair[1].name.as_slice()));
}
