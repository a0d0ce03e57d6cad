//! `spec/vectors/account-chain`: what every reader must take, and what none may.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sr_trust::{Account, Block, Op, Role, Verified};
use sr_wire::{AccountId, VLBytes, check::danger_skip, decode, encode};

use crate::house::{House, Keys, account_key, device, kit, sign};

fn dir(kind: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors/account-chain");
    PathBuf::from(root).join(kind)
}

/// A file is the account's id and its blocks: `opaque id[32] ‖ opaque block<>…`.
fn to_file(id: AccountId, blocks: &[Vec<u8>]) -> Vec<u8> {
    let blocks: Vec<VLBytes> = blocks.iter().map(|block| block.clone().into()).collect();
    [id.0.to_vec(), encode(&blocks)].concat()
}

fn is_valid(file: &[u8]) -> bool {
    let Some((id, rest)) = file.split_first_chunk::<32>() else { return false };
    let Ok(blocks) = decode::<Vec<VLBytes>>("blocks", rest, 1 << 20) else { return false };
    let blocks: Result<Vec<Block>, _> =
        blocks.iter().map(|block| Block::parse(block.as_slice())).collect();
    blocks.is_ok_and(|blocks| Verified::<Account>::verify(AccountId(*id), &blocks).is_ok())
}

#[test]
fn every_vector_is_judged_as_its_folder_says() {
    if std::env::var_os("SR_MAKE_VECTORS").is_some() {
        make();
    }
    let mut counts = BTreeMap::new();
    for kind in ["valid", "invalid"] {
        for entry in fs::read_dir(dir(kind)).expect("vectors") {
            let path = entry.expect("entry").path();
            let file = fs::read(&path).expect("reads");
            assert_eq!(is_valid(&file), kind == "valid", "{}", path.display());
            *counts.entry(kind).or_insert(0) += 1;
        }
    }
    assert!(counts["invalid"] > counts["valid"], "{counts:?}");
}

fn make() {
    let write = |kind: &str, name: &str, file: &[u8]| {
        fs::create_dir_all(dir(kind)).expect("makes");
        fs::write(dir(kind).join(name), file).expect("writes");
    };
    let house = House::furnished();
    let id = house.account.id();
    let blocks: Vec<Vec<u8>> = house.blocks.iter().map(encode).collect();
    write("valid", "genesis", &to_file(id, &blocks[..1]));
    write("valid", "two-devices-and-a-kit", &to_file(id, &blocks));
    let with = |block: &Block| to_file(id, &[&blocks[..], &[encode(block)]].concat());
    let by_one = |op: Op| house.make(op, &[device(&Keys::new(1))]).expect("makes");
    let removal = by_one(house.remove(&Keys::new(2)));
    write("valid", "removal", &with(&removal));

    write("invalid", "no-blocks", &to_file(id, &[]));
    write("invalid", "other-account", &to_file(AccountId([1; 32]), &blocks));
    write("invalid", "block-missing", &to_file(id, &[blocks[0].clone(), blocks[2].clone()]));
    write("invalid", "block-twice", &with(&house.blocks[2]));
    let swapped = [blocks[0].clone(), blocks[2].clone(), blocks[1].clone()];
    write("invalid", "blocks-swapped", &to_file(id, &swapped));
    write("invalid", "no-genesis", &to_file(id, &blocks[1..]));
    let mut long = blocks.clone();
    long[2].push(0);
    write("invalid", "trailing-byte", &to_file(id, &long));
    let mut short = blocks.clone();
    short[2].pop();
    write("invalid", "cut", &to_file(id, &short));
    let changed = |name: &str, change: &dyn Fn(&mut Block)| {
        let mut block = removal.clone();
        change(&mut block);
        write("invalid", name, &with(&block));
    };
    changed("signature-missing", &|b| b.signatures.clear());
    changed("signature-twice", &|b| b.signatures.push(b.signatures[0].clone()));
    changed("role-of-the-kit", &|b| b.signatures[0].role = Role::Kit);
    changed("pop-without-device", &|b| b.pop = vec![1; sr_crypto::SIGNATURE_LEN].into());
    changed("version-2", &|b| b.body.version = 2);
    let resigned = |name: &str, signer: u8, change: &dyn Fn(&mut Block)| {
        let mut block = removal.clone();
        change(&mut block);
        let signed = sign(block.body, id, &[device(&Keys::new(signer))]);
        write("invalid", name, &with(&signed));
    };
    resigned("ghost-signer", 7, &|_| {});
    resigned("state-of-another", 1, &|b| b.body.state = [1; 32]);
    resigned("seq-too-high", 1, &|b| b.body.seq += 1);
    resigned("previous-of-another", 1, &|b| b.body.previous = [1; 32]);
    let key_of = |b: &mut Block, generation| {
        if let Op::RemoveDevice { key, .. } = &mut b.body.op {
            *key = account_key(generation, 0);
        }
    };
    resigned("generation-skipped", 1, &|b| key_of(b, 4));
    resigned("generation-repeated", 1, &|b| key_of(b, 2));
    let start = Op::RecoveryStart { device: Keys::new(5).info(), stolen: None };
    let by_kit = house.make(start, &[kit(&Keys::new(8))]).expect("makes");
    write("valid", "recovery-begins", &with(&by_kit));
    let signed = sign(by_kit.body.clone(), id, &[device(&Keys::new(1))]);
    write("invalid", "recovery-by-a-device", &with(&signed));
    let no_pop = Block { pop: Vec::new().into(), ..by_kit };
    write("invalid", "device-without-proof", &with(&no_pop));
    danger_skip(&[]);
}
