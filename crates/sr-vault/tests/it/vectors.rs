//! Reads every vector.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sr_keys::DeviceKeys;
use sr_vault::{block, head, index::Index, manifest::Manifest, pack::OpenSlots, tree};
use sr_wire::{Card, CardResponse, Invite, PackId, SealedHead, card_hash, decode};

use crate::house::House;

/// The keys of all vectors, from seed 1.
pub(crate) fn keys() -> House {
    House::new(1)
}

pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors")
}

/// Returns whether the format's parser takes `bytes`.
pub(crate) fn accepts(format: &str, bytes: &[u8]) -> bool {
    let keys = keys();
    let text = || std::str::from_utf8(bytes).ok();
    match format {
        "block" => {
            // The file is `u32 raw length ‖ stored form`.
            bytes.split_first_chunk::<4>().is_some_and(|(len, stored)| {
                let len = u32::from_be_bytes(*len) as usize;
                block::expand(stored, len, block::BLOCK_LEN_MAX).is_ok()
            })
        }
        "card" => {
            let pinned = card_hash(&Card::first(keys.device.signing().public_key()));
            CardResponse::verify(bytes, Some(&pinned), &[5; 32], 1_000).is_ok()
        }
        "head" => decode::<SealedHead>("head", bytes, 1 << 16)
            .is_ok_and(|sealed| head::open(&sealed, &keys.vault, &keys.account).is_ok()),
        "index" => Index::parse(bytes).is_ok(),
        "invite" => text().is_some_and(|text| text.parse::<Invite>().is_ok()),
        "key-file" => DeviceKeys::from_file(bytes).is_ok(),
        "manifest" => Manifest::parse(bytes).is_ok_and(|manifest| {
            // The roots that a head would commit to.
            let (snapshots, indexes) = (manifest.snapshot_set(), manifest.index_set());
            Manifest::verify(bytes, &snapshots, &indexes).is_ok()
        }),
        "pack" => {
            let id = PackId([7; 32]);
            OpenSlots::open(&keys.vault, id, None, bytes.len(), 0, bytes.to_vec())
                .is_ok_and(|opened| opened.table().is_ok())
        }
        "tree" => tree::parse(bytes).is_ok(),
        other => panic!("no format {other}"),
    }
}

#[test]
fn valid_vectors_are_read_and_invalid_ones_refused() {
    // The others are read in the rooms that make them, sr-trust and sr-keys.
    let formats =
        ["block", "card", "head", "index", "invite", "key-file", "manifest", "pack", "tree"];
    for name in formats {
        let format = dir().join(name);
        let count = |kind: &str, wanted: bool| {
            let files: Vec<PathBuf> = fs::read_dir(format.join(kind))
                .expect("folder")
                .map(|file| file.expect("entry").path())
                .collect();
            for file in &files {
                let bytes = fs::read(file).expect("reads");
                assert_eq!(accepts(name, &bytes), wanted, "{}", file.display());
            }
            files.len()
        };
        let (valid, invalid) = (count("valid", true), count("invalid", false));
        assert!(valid > 0 && invalid > valid, "{name}: {valid} valid, {invalid} invalid");
    }
}
