//! The operator's attacks on a vault. Each is run twice: against the client, which refuses with the
//! number of its check, and against a client with just the checks of that row taken out, against
//! which it must succeed. A check whose absence changes nothing is no check.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;
use sr_client::{ClientError, Progress, Target};
use sr_keys::DeviceKeys;
use sr_store::Fault;
use sr_vault::{
    ChunkId, ChunkIds,
    block::Kind,
    head::{HeadPlace, NewHead},
    index::{Index, IndexBlock, IndexChunk, IndexPack},
    manifest::{Elements, IndexRef, Manifest, index_hash},
    pack::{PackBuilder, PackSeal},
};
use sr_wire::{Misbehaviour, PackId, SealedHead, SpaceId, check::danger_skip, encode};

use crate::world::{World, cached};

/// Checks are taken out for the whole process, so one attack runs at a time, and no other test that
/// waits for a refusal beside it.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `attack` against the whole client and against one without `checks`. `attack` returns what
/// the client ended with; without the checks it must end well, with the operator's state taken.
pub(crate) fn attack<T: std::fmt::Debug>(
    checks: &[Misbehaviour],
    attack: impl Fn() -> Result<T, ClientError>,
) -> T {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    danger_skip(&[]);
    match attack() {
        Err(ClientError::Misbehaviour(refused)) => assert_eq!(refused, checks[0]),
        other => panic!("not refused: {other:?}"),
    }
    danger_skip(checks);
    let result = attack();
    danger_skip(&[]);
    result
        .unwrap_or_else(|error| panic!("without {checks:?} the attack fails all the same: {error}"))
}

fn sql(data: &Path, statement: &str, value: &[u8]) {
    let database = Connection::open(data.join("strongroom.db")).expect("opens");
    assert_eq!(database.execute(statement, [value]).expect("runs"), 1);
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// A world with two snapshots, and the head of the first.
fn two_snapshots() -> (World, SealedHead) {
    let world = World::new();
    world.write("a", "first");
    world.backup();
    let old = world.stored_head();
    world.write("a", "second");
    world.write("b", "new");
    world.backup();
    world.takes_nothing_back();
    (world, old)
}

/// ST-09: last week's state.
#[test]
fn sr_006_an_older_head_is_refused() {
    let seen = attack(&[Misbehaviour::HeadRolledBack, Misbehaviour::HeadForked], || {
        let (world, old) = two_snapshots();
        world.show_head(&old);
        world.client().snapshots()
    });
    assert_eq!(seen.len(), 1, "the newest snapshot is hidden from a client without the check");
}

/// ST-09: a server that says it has no snapshot at all, or no space.
#[test]
fn sr_006_an_emptied_server_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for statement in ["DELETE FROM heads", "DELETE FROM spaces"] {
        let (world, _) = two_snapshots();
        world.database().execute(statement, []).expect("runs");
        world.faults.set(Fault::Full, 0);
        let refused = world.client().snapshots();
        assert!(
            matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::HeadRolledBack))),
            "{refused:?}"
        );
        // A backup must not start a new history on top of it either.
        let refused = world.client().backup(None, &Progress::default());
        assert!(
            matches!(refused, Err(ClientError::Misbehaviour(_) | ClientError::Sealed { .. })),
            "{refused:?}"
        );
    }
}

/// ST-10: another history of the same length, signed by the device itself, as a copy of its disk
/// would.
#[test]
fn sr_007_another_head_at_the_same_place_is_refused() {
    let seen = attack(&[Misbehaviour::HeadForked], || {
        let world = World::new();
        world.write("a", "first");
        world.backup();
        let fork = forge_head(&world, HeadPlace::EMPTY, &world.insider().device.signing(), |_| {});
        world.show_head(&fork);
        world.client().snapshots()
    });
    assert_eq!(seen.len(), 0);
}

/// ST-04: a head that follows the newest one, by somebody who has the vault's key but not the
/// device's.
#[test]
fn sr_014_a_head_by_another_device_is_refused() {
    let thief = DeviceKeys::generate(&mut rng()).signing();
    let checks = [Misbehaviour::SignerUnknown, Misbehaviour::HeadForked];
    let seen = attack_last(&checks, || shows_next_head(Some(&thief), |_| {}));
    assert_eq!(seen, 0);
}

/// As [`attack`], where a check further out refuses first: that one is out in both runs.
fn attack_last(checks: &[Misbehaviour], make: impl Fn() -> World) -> usize {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    danger_skip(&checks[1..]);
    let refused = make().client().snapshots();
    assert!(
        matches!(&refused, Err(ClientError::Misbehaviour(m)) if *m == checks[0]),
        "{refused:?}"
    );
    danger_skip(checks);
    let seen = make().client().snapshots();
    danger_skip(&[]);
    seen.expect("the attack succeeds without the check").len()
}

/// ST-01: the sealed bytes of the head, changed.
#[test]
fn sr_005_and_009_a_changed_head_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (world, _) = two_snapshots();
    let head = world.stored_head();
    let bytes = encode(&head);
    let space = world.insider().vault.space();
    for place in (0..bytes.len()).step_by(997) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        // Where the change leaves something that the server itself can't read, it answers so.
        let statement = "UPDATE heads SET head = ?1 WHERE space = ?2 AND seq = ?3";
        let row = rusqlite::params![changed, space.0, head.seq];
        world.database().execute(statement, row).expect("runs");
        assert!(world.client().snapshots().is_err(), "byte {place}");
    }
    world.show_head(&head);
    assert_eq!(world.snapshots().len(), 2, "an honest server is taken again");
}

/// ST-11: the newest snapshot is left out of the manifest, by somebody who can seal packs.
#[test]
fn sr_012_a_manifest_without_a_snapshot_is_refused() {
    let checks = [Misbehaviour::SnapshotSetMismatch, Misbehaviour::HeadForked];
    let seen = attack_last(&checks, || {
        // The head commits to one snapshot; the manifest it names has none.
        shows_next_head(None, |head| head.snapshot_set = [7; 32])
    });
    assert_eq!(seen, 0);
}

/// ST-16: an index is left out, so that the owner would take live packs for dead.
#[test]
fn sr_013_a_manifest_without_an_index_is_refused() {
    let checks = [Misbehaviour::IndexSetMismatch, Misbehaviour::HeadForked];
    let seen = attack_last(&checks, || shows_next_head(None, |head| head.index_set = [7; 32]));
    assert_eq!(seen, 0);
}

/// A world with one snapshot whose server shows a head that follows it, over an empty manifest:
/// signed by the world's own device unless by `signer`, and as `change` leaves it.
fn shows_next_head(signer: Option<&sr_crypto::SigningKey>, change: impl Fn(&mut NewHead)) -> World {
    let world = World::new();
    world.write("a", "first");
    world.backup();
    let newest = world.stored_head();
    let own = world.insider().device.signing();
    let previous = HeadPlace::of(Some(&newest));
    let forged = forge_head(&world, previous, signer.unwrap_or(&own), change);
    world.show_head(&forged);
    world
}

/// Stores an empty manifest in a pack of its own and signs a head over it, as `change` leaves it.
fn forge_head(
    world: &World,
    previous: HeadPlace,
    device: &sr_crypto::SigningKey,
    change: impl Fn(&mut NewHead),
) -> SealedHead {
    let insider = world.insider();
    let manifest = Manifest::default();
    let raw = manifest.to_bytes();
    let mut builder = PackBuilder::new(PackId::random(&mut rng()));
    let raw_len = u32::try_from(raw.len()).expect("short").to_be_bytes();
    builder.push(Kind::Manifest, &[&raw_len, &raw[..]].concat());
    let pack = builder.id();
    plant(world, insider.vault.space(), pack, &builder.seal(&insider.vault));
    let mut head = NewHead {
        previous,
        snapshot_set: manifest.snapshot_set(),
        index_set: manifest.index_set(),
        manifest: pack,
        time_s: 1,
        adds: Elements::default(),
    };
    change(&mut head);
    head.seal(&insider.vault, &insider.account, device, &mut rng())
}

/// Puts a pack into the server's store as if it had been received.
pub(crate) fn plant(world: &World, space: SpaceId, pack: PackId, bytes: &[u8]) {
    let folder = world.data().join("packs").join(sr_crypto::text::to_hex(&pack.0[..1]));
    fs::write(folder.join(pack.to_string()), bytes).expect("writes");
    fs::create_dir_all(&folder).expect("makes");
    world
        .database()
        .execute(
            "INSERT INTO packs VALUES (?1, ?2, ?3, NULL)",
            rusqlite::params![pack.0, space.0, bytes.len()],
        )
        .expect("inserts");
}

/// ST-01: one byte of a stored pack. The files concerned are named, the others restored, and no
/// wrong byte is written.
#[test]
fn sr_001_a_changed_byte_is_refused_and_the_rest_restored() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("big", crate::world::noise(1, 9_000_000));
    world.backup();
    for i in 0..30 {
        world.write(&format!("small {i}"), format!("content {i}"));
    }
    world.backup();
    let big = &world.packs()[0];
    let file = OpenOptions::new().write(true).open(big).expect("opens");
    file.write_all_at(b"x", 2_000_000).expect("writes");

    let report = world.restore("latest", None);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.refused[0].path, Path::new("big"));
    assert!(report.refused[0].why.starts_with("SR-001"));
    assert_eq!(report.files, 30);
    assert!(!world.target().join("big").exists());
    assert_eq!(fs::read(world.target().join("small 7")).expect("reads"), b"content 7");

    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert_eq!(report.bad_packs.len(), 1);
    assert_eq!(report.files.len(), 1);
    assert!(report.files[0].path.ends_with("big"));
}

/// ST-02: one pack's bytes under another's name. Without the check, the key is derived for whatever
/// pack the server chose, and its plaintext is taken.
#[test]
fn sr_002_a_swapped_pack_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let restored = |world: &World| {
        let target = Target::Folder(world.target());
        world.client().restore("latest", None, &target, &Progress::default()).expect("restores").1
    };
    let swap = || {
        let world = World::new();
        // Two packs of one size, each with one file of the same length.
        for (name, seed) in [("a", 1), ("b", 2)] {
            world.write(name, crate::world::noise(seed, 700_000));
            world.backup();
        }
        let packs: Vec<_> = world.packs().into_iter().take(2).collect();
        let sizes: Vec<u64> = packs.iter().map(|p| fs::metadata(p).expect("file").len()).collect();
        assert_eq!(sizes, [1 << 20, 1 << 20]);
        let beside = world.dir.path().join("beside");
        fs::rename(&packs[0], &beside).expect("renames");
        fs::rename(&packs[1], &packs[0]).expect("renames");
        fs::rename(&beside, &packs[1]).expect("renames");
        world
    };
    danger_skip(&[]);
    let report = restored(&swap());
    assert_eq!(report.files, 0);
    assert!(report.refused.iter().all(|file| file.why.starts_with("SR-002")), "{report:?}");
    // The id of each chunk is a second line: with both out, a is b.
    danger_skip(&[Misbehaviour::PackSwapped]);
    let report = restored(&swap());
    assert!(report.refused.iter().all(|file| file.why.starts_with("SR-004")), "{report:?}");
    danger_skip(&[Misbehaviour::PackSwapped, Misbehaviour::ChunkMismatch]);
    let world = swap();
    let report = restored(&world);
    danger_skip(&[]);
    assert_eq!(report.files, 2);
    let (a, b) = (world.target().join("a"), world.target().join("b"));
    assert_eq!(fs::read(a).expect("reads"), crate::world::noise(2, 700_000));
    assert_eq!(fs::read(b).expect("reads"), crate::world::noise(1, 700_000));
}

/// ST-11: a stored pack is gone.
#[test]
fn sr_003_a_missing_pack_is_named_with_its_files() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let remove_file = |world: &World| fs::remove_file(&world.packs()[0]).expect("removes");
    let remove_record = |world: &World| {
        let id: PackId = world.packs()[0]
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok())
            .expect("id");
        sql(&world.data(), "DELETE FROM packs WHERE pack = ?1", &id.0);
    };
    let acts: [&dyn Fn(&World); 2] = [&remove_file, &remove_record];
    for act in acts {
        let world = World::new();
        world.write("big", crate::world::noise(1, 3_000_000));
        world.backup();
        world.write("small", "s");
        world.backup();
        act(&world);
        let report = world.restore("latest", None);
        assert_eq!(report.files, 1);
        assert_eq!(report.refused[0].path, Path::new("big"));
        assert!(report.refused[0].why.starts_with("SR-003"), "{:?}", report.refused);
        let report = world
            .client()
            .verify(sr_client::ReadData::All, &Progress::default())
            .expect("verifies");
        assert_eq!(report.bad_packs.len(), 1);
        assert_eq!(report.files.len(), 1);
    }
}

/// ST-01: a pack that is cut off, or longer than it was.
#[test]
fn sr_001_a_pack_of_another_length_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for len in [0u64, 100, 1 << 20, (4 << 20) - 1, (4 << 20) + 1] {
        let world = World::new();
        world.write("big", crate::world::noise(1, 3_500_000));
        world.backup();
        let big = &world.packs()[0];
        assert_eq!(fs::metadata(big).expect("file").len(), 4 << 20);
        OpenOptions::new().write(true).open(big).and_then(|f| f.set_len(len)).expect("cuts");
        let target = Target::Folder(world.target());
        let restored = world.client().restore("latest", None, &target, &Progress::default());
        // What is behind the end of a pack is never sent, so a longer one is as good as ever.
        if len > 4 << 20 {
            assert_eq!(restored.expect("restores").1.files, 1);
            continue;
        }
        match restored {
            Ok((_, report)) => assert_eq!((report.files, report.refused.len()), (0, 1), "{len}"),
            // The tree lay in the same pack.
            Err(ClientError::Misbehaviour(Misbehaviour::PackAltered)) => {}
            Err(error) => panic!("{len}: {error}"),
        }
        assert!(!world.target().join("big").exists());
    }
}

/// ST-03: somebody who can seal packs, and sign for them, names a chunk's id over other bytes; also over
/// bytes that follow those which have that id, so that whoever hashes too seldom takes them.
#[test]
fn sr_004_a_chunk_must_be_the_one_its_tree_names() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let restored = || {
        let world = World::new();
        world.write("a", "content of a");
        world.write("b", "content of b");
        world.backup();
        let ids = ChunkIds::new(&world.insider().vault);
        let (of_a, of_b) = (ids.data(b"content of a"), ids.data(b"content of b"));
        forge_place(&world, &[(of_a, b"content of b"), (of_b, b"something...")]);
        let report = world.restore("latest", None);
        let why = report.refused.iter().map(|file| file.why.split(':').next().map(str::to_owned));
        let why: Vec<_> = why.collect();
        let read = |name: &str| fs::read(world.target().join(name)).ok();
        let damaged = world
            .client()
            .verify(sr_client::ReadData::All, &Progress::default())
            .expect("checks")
            .files;
        // One file to standard output goes another way.
        let mut out = Vec::new();
        let cat = world.client().cat("latest", Path::new("b"), &mut out);
        (why, read("a"), read("b"), damaged.len(), cat.map(|_| out))
    };
    let number = Some("SR-004".to_owned());
    let (why, a, b, damaged, cat) = restored();
    assert_eq!((why, a, b, damaged), (vec![number.clone(), number], None, None, 2));
    let refused = Misbehaviour::ChunkMismatch;
    assert!(matches!(cat, Err(ClientError::Misbehaviour(m)) if m == refused), "{cat:?}");
    danger_skip(&[refused]);
    let (why, a, b, _, cat) = restored();
    danger_skip(&[]);
    let other = b"something...".to_vec();
    assert_eq!((why.len(), a, b), (0, Some(b"content of b".to_vec()), Some(other.clone())));
    assert_eq!(cat.expect("reads"), other);
}

/// Stores a block over these chunks, which are named as they are said to be, and a head by the world's own
/// device under which an index has them there.
fn forge_place(world: &World, chunks: &[(ChunkId, &[u8])]) {
    let insider = world.insider();
    let raw = cached(&world.profile(), "manifest-").remove(0);
    let mut manifest = Manifest::parse(&raw).expect("parses");
    let mut builder = PackBuilder::new(PackId::random(&mut rng()));
    let (pack, seal) = (builder.id(), PackSeal::of(&insider.vault, builder.id()));
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
    let block: Vec<u8> = chunks.iter().flat_map(|(_, chunk)| chunk.iter().copied()).collect();
    let entry = builder.push(Kind::Data, &block);
    let block = IndexBlock {
        kind: Kind::Data,
        offset: entry.offset,
        stored_len: entry.len,
        raw_len: entry.len,
        chunks: chunks.iter().map(|(id, chunk)| IndexChunk { id: *id, len: len(chunk) }).collect(),
    };
    let index = Index { packs: vec![IndexPack { id: pack, seal, blocks: vec![block] }] }.to_bytes();
    let entry = builder.push(Kind::Index, &index);
    manifest.indexes.push(IndexRef {
        pack,
        offset: entry.offset,
        stored_len: entry.len,
        raw_len: entry.len,
        seal,
        hash: index_hash(&index),
    });
    let raw = manifest.to_bytes();
    builder.push(Kind::Manifest, &[&len(&raw).to_be_bytes(), &raw[..]].concat());
    plant(world, insider.vault.space(), pack, &builder.seal(&insider.vault));
    let head = NewHead {
        previous: HeadPlace::of(Some(&world.stored_head())),
        snapshot_set: manifest.snapshot_set(),
        index_set: manifest.index_set(),
        manifest: pack,
        time_s: 1,
        adds: Elements::default(),
    };
    let signing = insider.device.signing();
    world.show_head(&head.seal(&insider.vault, &insider.account, &signing, &mut rng()));
}

/// ID-11: a server that took the place of the one in the invite.
#[test]
fn sr_010_another_server_at_the_same_address_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.stop();
    fs::remove_dir_all(world.data()).expect("removes");
    world.start();
    let refused = || match world.client().snapshots() {
        Err(ClientError::Misbehaviour(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(), Misbehaviour::CardMismatch);
    danger_skip(&[Misbehaviour::CardMismatch, Misbehaviour::TlsKeyUnsigned]);
    let without = refused();
    danger_skip(&[]);
    // A client without the check asks the other server for its account.
    assert_eq!(without, Misbehaviour::ChainRolledBack);
}

/// A false alarm teaches people to look away: an honest server restarts, is busy, is asked twice,
/// and nothing is refused.
#[test]
fn an_honest_server_is_never_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    for round in 0..6 {
        world.write("a", format!("round {round}"));
        world.backup();
        world.tamper(|_| {});
        assert_eq!(world.snapshots().len(), round + 1);
    }
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.bad_packs.is_empty() && report.files.is_empty());
}
