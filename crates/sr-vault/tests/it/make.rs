//! Makes the vectors again: `SR_MAKE_VECTORS=1 cargo test -p sr-vault`. Without the variable, it
//! makes them in memory and checks that each is what it should be.

use std::fs;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sr_crypto::{Secret32, SigningKey};
use sr_vault::{
    ChunkId,
    block::{Compression, Compressor, Kind},
    head::{HeadPlace, NewHead},
    index::{Index, IndexBlock, IndexChunk, IndexPack},
    manifest::{Elements, Forgotten, IndexRef, Listed, Manifest, PINNED, Snapshot},
    pack::{PackBuilder, PackSeal},
    tree::{self, Attribute, Content, Hole, Node},
};
use sr_wire::{
    Card, CardResponse, DeviceId, Invite, PackId, SealedHead, SignedCard, TlsKey, encode, labels,
};

use crate::{
    house::House,
    vectors::{accepts, dir, keys},
};

/// The vectors of one format.
struct Format {
    name: &'static str,
    valid: Vec<(&'static str, Vec<u8>)>,
    invalid: Vec<(&'static str, Vec<u8>)>,
}

#[test]
fn vectors_are_what_they_should_be() {
    let write = std::env::var_os("SR_MAKE_VECTORS").is_some();
    for format in formats() {
        for (kind, wanted, cases) in
            [("valid", true, &format.valid), ("invalid", false, &format.invalid)]
        {
            let folder = dir().join(format.name).join(kind);
            if write {
                fs::create_dir_all(&folder).expect("makes");
            }
            for (case, bytes) in cases {
                assert_eq!(accepts(format.name, bytes), wanted, "{}/{case}", format.name);
                let path = folder.join(case);
                if write {
                    fs::write(path, bytes).expect("writes");
                } else {
                    assert!(path.exists(), "{} is not in spec/vectors", path.display());
                }
            }
        }
    }
}

fn formats() -> Vec<Format> {
    vec![
        blocks(),
        cards(),
        heads(),
        indexes(),
        invites(),
        key_files(),
        manifests(),
        packs(),
        trees(),
    ]
}

fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes
}

fn with_length(raw_len: u32, stored: &[u8]) -> Vec<u8> {
    [&raw_len.to_be_bytes(), stored].concat()
}

fn blocks() -> Format {
    let stored =
        Compressor::new(Compression::Default).expect("memory").compress(&[b'a'; 1000]).to_vec();
    Format {
        name: "block",
        valid: vec![("raw", with_length(3, b"abc")), ("zstd", with_length(1000, &stored))],
        invalid: vec![
            ("length-too-large", with_length(1001, &stored)),
            ("length-too-small", with_length(999, &stored)),
            ("longer-than-any-block", with_length(1 << 30, &stored)),
            ("shorter-than-its-stored-form", with_length(2, b"abc")),
            ("not-zstd", with_length(1000, b"not zstd")),
            ("cut", with_length(1000, &stored[..stored.len() - 1])),
        ],
    }
}

fn cards() -> Format {
    let response = |key: &SigningKey, tls_key: TlsKey, signer: &SigningKey| CardResponse {
        cards: vec![SignedCard::sign(Card::first(key.public_key()), key)],
        tls_signature: signer.sign(labels::CARD_TLS, &encode(&tls_key)).into(),
        tls_key,
    };
    let key = keys().device.signing();
    let other = SigningKey::from_seed(&Secret32::init_with(|s| s.fill(9)));
    let tls_key = || TlsKey { spki_hash: [5; 32], not_after: 2_000 };
    let good = encode(&response(&key, tls_key(), &key));
    let first = Card::first(key.public_key());
    let second = first.with_log("log keys");
    let chain = |cards: &[(&Card, &SigningKey)]| {
        let cards = cards.iter().map(|(card, by)| SignedCard::sign((*card).clone(), by)).collect();
        encode(&CardResponse { cards, ..response(&key, tls_key(), &key) })
    };
    let (gap, elsewhere_log) = (
        Card { seq: 2, ..second.clone() },
        Card { origin: b"elsewhere".to_vec().into(), ..second.clone() },
    );
    let other_keys = second.with_log("other keys");
    let expired = TlsKey { spki_hash: [5; 32], not_after: 999 };
    let elsewhere = TlsKey { spki_hash: [6; 32], not_after: 2_000 };
    Format {
        name: "card",
        invalid: vec![
            ("another-server", encode(&response(&other, tls_key(), &other))),
            ("card-signature-wrong", changed(&good, |b| b[2200] ^= 1)),
            ("no-card", chain(&[])),
            ("pinned-card-left-out", chain(&[(&second, &key)])),
            ("second-card-by-another", chain(&[(&first, &key), (&second, &other)])),
            ("second-card-out-of-place", chain(&[(&first, &key), (&gap, &key)])),
            ("second-card-of-another-log", chain(&[(&first, &key), (&elsewhere_log, &key)])),
            ("log-keys-twice", chain(&[(&first, &key), (&second, &key), (&other_keys, &key)])),
            ("tls-key-expired", encode(&response(&key, expired, &key))),
            ("tls-key-of-another-connection", encode(&response(&key, elsewhere, &key))),
            ("tls-key-vouched-for-by-another", encode(&response(&key, tls_key(), &other))),
            ("byte-left-over", changed(&good, |b| b.push(0))),
            ("cut", good[..good.len() - 1].to_vec()),
        ],
        valid: vec![
            ("second-card", chain(&[(&first, &key), (&second, &key)])),
            ("first-card", good),
        ],
    }
}

fn heads() -> Format {
    let keys = keys();
    let device = keys.device.signing();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let new = |previous| NewHead {
        previous,
        snapshot_set: [1; 32],
        index_set: [2; 32],
        manifest: PackId([3; 32]),
        time_s: 4,
        adds: Elements::default(),
    };
    let first = new(HeadPlace::EMPTY).seal(&keys.vault, &keys.account, &device, &mut rng);
    let second =
        new(HeadPlace::of(Some(&first))).seal(&keys.vault, &keys.account, &device, &mut rng);
    let other = SigningKey::from_seed(&Secret32::init_with(|s| s.fill(9)));
    let by_another = new(HeadPlace::EMPTY).seal(&keys.vault, &keys.account, &other, &mut rng);
    let stranger = House::new(2);
    let of_another_account =
        new(HeadPlace::EMPTY).seal(&keys.vault, &stranger.account, &device, &mut rng);
    let with = |change: &dyn Fn(&mut SealedHead)| {
        let mut head = first.clone();
        change(&mut head);
        encode(&head)
    };
    let sealed = first.sealed.as_slice().to_vec();
    Format {
        name: "head",
        valid: vec![("first", encode(&first)), ("second", encode(&second))],
        invalid: vec![
            ("signed-by-another-device", encode(&by_another)),
            ("at-a-place-of-another-account", encode(&of_another_account)),
            ("seq-changed", with(&|h| h.seq += 1)),
            ("generation-changed", with(&|h| h.generation += 1)),
            ("previous-changed", with(&|h| h.previous = [9; 32])),
            ("another-space", with(&|h| h.space.0 = [9; 16])),
            ("commitment-changed", with(&|h| h.sealed = changed(&sealed, |b| b[40] ^= 1).into())),
            ("ciphertext-changed", with(&|h| h.sealed = changed(&sealed, |b| b[99] ^= 1).into())),
            ("one-byte-short", with(&|h| h.sealed = sealed[1..].to_vec().into())),
            ("byte-left-over", changed(&encode(&first), |b| b.push(0))),
        ],
    }
}

fn index() -> Index {
    let chunk = |byte, len| IndexChunk { id: ChunkId([byte; 32]), len };
    Index {
        packs: vec![IndexPack {
            id: PackId([1; 32]),
            seal: PackSeal { generation: 1, commitment: [2; 32] },
            blocks: vec![IndexBlock {
                kind: Kind::Data,
                offset: 0,
                stored_len: 20,
                raw_len: 30,
                chunks: vec![chunk(1, 10), chunk(2, 20)],
            }],
        }],
    }
}

fn indexes() -> Format {
    let with = |change: &dyn Fn(&mut IndexBlock)| {
        let mut index = index();
        change(&mut index.packs[0].blocks[0]);
        index.to_bytes()
    };
    let good = index().to_bytes();
    Format {
        name: "index",
        valid: vec![("empty", Index::default().to_bytes()), ("one-pack", good.clone())],
        invalid: vec![
            ("block-of-a-manifest", with(&|b| b.kind = Kind::Manifest)),
            ("chunks-do-not-add-up", with(&|b| b.raw_len = 31)),
            ("stored-longer-than-raw", with(&|b| b.stored_len = 31)),
            ("behind-the-end-of-a-pack", with(&|b| b.offset = 1 << 24)),
            ("chunk-without-bytes", with(&|b| b.chunks[0].len = 0)),
            ("byte-left-over", changed(&good, |b| b.push(0))),
            ("length-not-minimal", vec![0x40, 0]),
        ],
    }
}

fn invites() -> Format {
    let invite = |address: &str| {
        Invite { address: address.into(), card_hash: [1; 32], token: [2; 16] }.to_string()
    };
    let good = invite("cloud.example.org:7443");
    let bytes = |text: &str| text.as_bytes().to_vec();
    Format {
        name: "invite",
        valid: vec![
            ("name", bytes(&good)),
            ("ipv4", bytes(&invite("192.0.2.7:7443"))),
            ("ipv6", bytes(&invite("[2001:db8::1]:7443"))),
        ],
        invalid: vec![
            ("another-prefix", bytes(&good.replacen('1', "2", 1))),
            ("link", bytes(&good.replacen("strongroom1:", "https://", 1))),
            ("no-port", bytes(&good.replacen(":7443", "", 1))),
            ("port-zero", bytes(&good.replacen("7443", "0", 1))),
            ("ipv6-without-brackets", bytes(&invite("2001:db8::1:7443"))),
            ("cut", bytes(&good[..good.len() - 1])),
            (
                "last-character-wrong",
                changed(good.as_bytes(), |b| {
                    let last = b.len() - 1;
                    b[last] = if b[last] == b'7' { b'8' } else { b'7' };
                }),
            ),
        ],
    }
}

fn key_files() -> Format {
    let good = keys().device.to_file().to_vec();
    Format {
        name: "key-file",
        invalid: vec![
            ("magic-changed", changed(&good, |b| b[0] ^= 1)),
            ("secret-changed", changed(&good, |b| b[20] ^= 1)),
            ("checksum-changed", changed(&good, |b| b[100] ^= 1)),
            ("cut", good[..good.len() - 1].to_vec()),
            ("byte-left-over", changed(&good, |b| b.push(0))),
            ("empty", vec![]),
        ],
        valid: vec![("seed-1", good)],
    }
}

fn folder(name: &[u8]) -> Node {
    Node {
        name: name.to_vec().into(),
        mode: 0o755,
        uid: 1000,
        gid: 1000,
        mtime_s: 1_700_000_000,
        mtime_ns: 1,
        links: None,
        attributes: Vec::new(),
        content: Content::Folder { chunks: vec![ChunkId([4; 32])] },
    }
}

fn manifests() -> Format {
    let snapshot = |root| Snapshot {
        time_s: 1,
        number: 0,
        by: DeviceId([2; 32]),
        device: b"laptop".to_vec().into(),
        path: b"/home/ana".to_vec().into(),
        files: 1,
        bytes: 2,
        skipped: 0,
        root,
    };
    let manifest = |root| Manifest {
        snapshots: vec![Listed::new(snapshot(root))],
        indexes: vec![IndexRef {
            pack: PackId([1; 32]),
            offset: 0,
            stored_len: 2,
            raw_len: 3,
            seal: PackSeal { generation: 1, commitment: [4; 32] },
            hash: [5; 32],
        }],
        retired: vec![],
    };
    let of_everything = || {
        let mut manifest = manifest(folder(b""));
        let mut forgotten = manifest.snapshots[0].clone();
        forgotten.set_tag("taxes", true);
        forgotten.set_tag(PINNED, true);
        forgotten.forgotten = Some(Forgotten { by: DeviceId([3; 32]), time_s: 9 });
        manifest.snapshots.push(forgotten);
        manifest.retired = vec![PackId([6; 32])];
        manifest
    };
    let tagged = |tags: &[&[u8]]| {
        let mut manifest = of_everything();
        manifest.snapshots[1].tags = tags.iter().map(|tag| tag.to_vec().into()).collect();
        manifest.to_bytes()
    };
    let good = manifest(folder(b"")).to_bytes();
    let link = Node { content: Content::Symlink { target: b"x".to_vec().into() }, ..folder(b"") };
    let wrong_mode = Node { mode: 0o10000, ..folder(b"") };
    Format {
        name: "manifest",
        valid: vec![
            ("empty", Manifest::default().to_bytes()),
            ("one-snapshot", good.clone()),
            ("forgotten-tagged-and-retired", of_everything().to_bytes()),
        ],
        invalid: vec![
            ("tags-out-of-order", tagged(&[b"b", b"a"])),
            ("tag-twice", tagged(&[b"a", b"a"])),
            ("tag-empty", tagged(&[b""])),
            ("tag-too-long", tagged(&[&[b'a'; 65]])),
            ("root-with-a-name", manifest(folder(b"x")).to_bytes()),
            ("root-that-is-a-link", manifest(link).to_bytes()),
            ("root-with-a-wrong-mode", manifest(wrong_mode).to_bytes()),
            ("cut", good[..good.len() - 1].to_vec()),
            ("byte-left-over", changed(&good, |b| b.push(0))),
        ],
    }
}

fn packs() -> Format {
    let keys = keys();
    let pack = |id: u8| {
        let mut builder = PackBuilder::new(PackId([id; 32]));
        builder.push(Kind::Data, b"a block");
        builder.push(Kind::Tree, b"another");
        builder.seal(&keys.vault)
    };
    let good = pack(7);
    let last = good.len() - 1;
    Format {
        name: "pack",
        invalid: vec![
            ("another-id", pack(8)),
            ("magic-changed", changed(&good, |b| b[0] ^= 1)),
            ("suite-changed", changed(&good, |b| b[9] ^= 1)),
            ("generation-of-no-key", changed(&good, |b| b[15] = 2)),
            ("class-changed", changed(&good, |b| b[10] ^= 1)),
            ("commitment-changed", changed(&good, |b| b[50] ^= 1)),
            ("header-padding-changed", changed(&good, |b| b[127] ^= 1)),
            ("ciphertext-changed", changed(&good, |b| b[200] ^= 1)),
            ("tag-changed", changed(&good, |b| b[last] ^= 1)),
            ("cut", good[..last].to_vec()),
            ("of-the-next-size", changed(&good, |b| b.resize(1 << 18, 0))),
        ],
        valid: vec![("two-blobs", good)],
    }
}

fn trees() -> Format {
    let file = |name: &[u8]| Node {
        content: Content::File { size: 3, chunks: vec![ChunkId([1; 32])], holes: vec![] },
        ..folder(name)
    };
    let link = |target: &[u8]| Node {
        content: Content::Symlink { target: target.to_vec().into() },
        ..folder(b"l")
    };
    let one = |node| tree::to_bytes(&[node]);
    let good = tree::to_bytes(&[folder(b"a"), file(b"b"), link(b"../x")]);
    let attribute =
        |name: &[u8]| Attribute { name: name.to_vec().into(), value: b"v".to_vec().into() };
    let with = |attributes: Vec<Attribute>| Node { attributes, ..file(b"a") };
    let hole = |offset, len| Hole { offset, len };
    let sparse = |holes: Vec<Hole>| Node {
        content: Content::File { size: 9, chunks: vec![ChunkId([1; 32])], holes },
        ..folder(b"a")
    };
    let odd = [
        with(vec![attribute(b"system.posix_acl_access"), attribute(b"user.a")]),
        Node { links: Some(7), ..file(b"b") },
        Node { content: Content::Fifo, ..folder(b"c") },
        Node { content: Content::CharacterDevice { major: 1, minor: 3 }, ..folder(b"d") },
        Node { content: Content::BlockDevice { major: 8, minor: 0 }, ..folder(b"e") },
        Node { name: b"f".to_vec().into(), ..sparse(vec![hole(0, 2), hole(3, 6)]) },
    ];
    let no_chunks =
        Node { content: Content::File { size: 3, chunks: vec![], holes: vec![] }, ..folder(b"a") };
    Format {
        name: "tree",
        invalid: vec![
            ("name-empty", one(file(b""))),
            ("name-dot", one(file(b"."))),
            ("name-dot-dot", one(file(b".."))),
            ("name-with-slash", one(file(b"a/b"))),
            ("name-absolute", one(file(b"/etc"))),
            ("name-with-zero", one(file(b"a\0"))),
            ("name-of-256-bytes", one(file(&[b'x'; 256]))),
            ("out-of-order", tree::to_bytes(&[file(b"b"), file(b"a")])),
            ("double", tree::to_bytes(&[file(b"a"), file(b"a")])),
            ("mode-too-large", one(Node { mode: 0o10000, ..file(b"a") })),
            ("nanoseconds-too-large", one(Node { mtime_ns: 1_000_000_000, ..file(b"a") })),
            ("file-without-its-chunks", one(no_chunks)),
            ("attribute-twice", one(with(vec![attribute(b"user.a"), attribute(b"user.a")]))),
            ("attributes-out-of-order", one(with(vec![attribute(b"b"), attribute(b"a")]))),
            ("attribute-without-a-name", one(with(vec![attribute(b"")]))),
            ("folder-with-two-names", one(Node { links: Some(7), ..folder(b"a") })),
            ("hole-beyond-the-end", one(sparse(vec![hole(8, 2)]))),
            ("hole-of-nothing", one(sparse(vec![hole(2, 0)]))),
            ("holes-that-touch", one(sparse(vec![hole(1, 2), hole(3, 1)]))),
            ("holes-out-of-order", one(sparse(vec![hole(5, 1), hole(1, 1)]))),
            ("nothing-but-holes-with-a-chunk", one(sparse(vec![hole(0, 9)]))),
            ("link-to-nothing", one(link(b""))),
            ("link-with-zero", one(link(b"a\0b"))),
            ("cut", good[..good.len() - 1].to_vec()),
        ],
        valid: vec![("empty", vec![]), ("three-kinds", good), ("odd", tree::to_bytes(&odd))],
    }
}
