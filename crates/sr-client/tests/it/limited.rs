//! Append-only devices: what they can do, and what whoever has stolen one can't.

use std::{
    fs,
    path::PathBuf,
    sync::{PoisonError, atomic::Ordering},
};

use sr_client::{
    Client, ClientError, DeviceKind, Keep, Kit, Linking, PINNED, Progress, ReadData, SnapshotInfo,
    Target,
};
use sr_vault::{
    ChunkIds,
    block::Kind,
    head::{HeadPlace, NewHead},
    index::{Index, IndexBlock, IndexChunk, IndexPack},
    manifest::{Elements, Forgotten, IndexRef, Manifest, index_hash},
    pack::{PackBuilder, PackSeal},
};
use sr_wire::{Misbehaviour, PackId, Right, api::ErrorCode, check::danger_skip};

use crate::{
    accounts::DAY_S,
    attacks::{ONE_AT_A_TIME, plant},
    keep::{client, prune},
    world::{Insider, World, assert_same_tree, cached, clock, noise},
};

const NAS: &str = "nas";

/// A world with an append-only device and a folder of it, backed up twice.
struct Limited {
    world: World,
    /// Of the device.
    id: String,
    folder: PathBuf,
    first: String,
    /// The folder as it was at the first backup.
    then: PathBuf,
}

impl Limited {
    fn new() -> Self {
        let world = World::new();
        world.write("diary", "of the laptop");
        world.backup();
        let mut nas = world.link_as(DeviceKind::Limited, NAS);
        let (folder, then) = (world.other("nas-folder"), world.other("nas-then"));
        for folder in [&folder, &then] {
            fs::create_dir(folder).expect("makes");
            fs::write(folder.join("big"), noise(1, 3 << 20)).expect("writes");
            fs::write(folder.join("small"), "first").expect("writes");
            let file = fs::File::open(folder.join("big")).expect("opens");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
            file.set_modified(time).expect("sets");
            let file = fs::File::open(folder.join("small")).expect("opens");
            file.set_modified(time).expect("sets");
            let dir = fs::File::open(folder).expect("opens");
            dir.set_modified(time).expect("sets");
        }
        nas.add_folder(&folder).expect("adds");
        let id = nas.devices().expect("lists").remove(1).id.to_string();
        let limited = Self { first: backup(&mut nas), id, world, folder, then };
        drop(nas);
        fs::write(limited.folder.join("small"), "second").expect("writes");
        limited.backup();
        limited
    }

    fn nas(&self) -> Client {
        self.world.open(NAS)
    }

    fn backup(&self) -> String {
        backup(&mut self.nas())
    }

    /// A full device that looks at the backups of the append-only one.
    fn owner(&self) -> Client {
        self.seen_by(client(&self.world))
    }

    fn seen_by(&self, mut client: Client) -> Client {
        client.use_vault_of(&self.id).expect("chooses");
        client
    }

    fn world_link(&self, name: &str) -> Client {
        self.seen_by(self.world.link(name))
    }

    /// What lies on the disk of the append-only device.
    fn thief(&self) -> Insider {
        Insider::of(&self.world.other(NAS))
    }

    fn first_is_whole(&self, mut client: Client) {
        let target = self.world.other("again");
        drop(fs::remove_dir_all(&target));
        let to = Target::Folder(target.clone());
        let restored = client.restore(&self.first, None, &to, &Progress::default());
        let (_, report) = restored.expect("restores");
        assert_eq!((&report.refused[..], &report.failed[..]), (&[][..], &[][..]));
        assert_same_tree(&self.then, &target);
    }

    /// Prunes on five days, and returns how many snapshots went.
    fn pruned(&self) -> u64 {
        let prune = |_| {
            self.world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
            self.owner().prune(false, &Progress::default()).expect("prunes").snapshots
        };
        (0..5).map(prune).sum()
    }

    fn biggest_pack(&self) -> PathBuf {
        self.world.packs_of(self.thief().vault.space()).remove(0)
    }

    /// The newest manifest, as the append-only device has it.
    fn manifest(&self) -> Manifest {
        let raw = cached(&self.world.other(NAS), "manifest-").remove(0);
        Manifest::parse(&raw).expect("parses")
    }

    /// Stores a manifest and a head over it, with the keys of the append-only device and a program of
    /// the thief's own.
    fn forge(&self, thief: &Insider, by: &Insider, manifest: &Manifest, adds: Elements) {
        let raw = manifest.to_bytes();
        let mut builder = PackBuilder::new(PackId::random(&mut rng()));
        builder.push(Kind::Manifest, &[&len(&raw).to_be_bytes(), &raw[..]].concat());
        let (pack, space) = (builder.id(), by.vault.space());
        plant(&self.world, space, pack, &builder.seal(&by.vault));
        let head = NewHead {
            previous: HeadPlace::of(Some(&self.world.stored_head_of(space))),
            snapshot_set: manifest.snapshot_set(),
            index_set: manifest.index_set(),
            manifest: pack,
            time_s: 1,
            adds,
        };
        let signing = thief.device.signing();
        self.world.show_head(&head.seal(&by.vault, &by.account, &signing, &mut rng()));
    }

    /// A list which says that all that is stored lies in a pack of noise.
    fn poison(&self, thief: &Insider) -> IndexRef {
        let mut builder = PackBuilder::new(PackId::random(&mut rng()));
        let (pack, seal) = (builder.id(), PackSeal::of(&thief.vault, builder.id()));
        let mut blocks = Vec::new();
        for raw in cached(&self.world.other(NAS), "index-") {
            let index = Index::parse(&raw).expect("parses");
            for block in index.packs.into_iter().flat_map(|pack| pack.blocks) {
                let raw_len: u32 = block.chunks.iter().map(|chunk| chunk.len).sum();
                let entry = builder.push(block.kind, &noise(9, raw_len as usize));
                let chunks: Vec<IndexChunk> = block.chunks;
                blocks.push(IndexBlock {
                    kind: block.kind,
                    offset: entry.offset,
                    stored_len: entry.len,
                    raw_len,
                    chunks,
                });
            }
        }
        let index = Index { packs: vec![IndexPack { id: pack, seal, blocks }] }.to_bytes();
        let entry = builder.push(Kind::Index, &index);
        plant(&self.world, thief.vault.space(), pack, &builder.seal(&thief.vault));
        IndexRef {
            pack,
            offset: entry.offset,
            stored_len: entry.len,
            raw_len: entry.len,
            seal,
            hash: index_hash(&index),
        }
    }
}

fn backup(client: &mut Client) -> String {
    let reports = client.backup(None, &Progress::default()).expect("backs up");
    assert_eq!(reports[0].skipped, []);
    reports[0].snapshot.expect("snapshot").to_string()
}

fn ids(snapshots: &[SnapshotInfo]) -> Vec<String> {
    snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect()
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("short")
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

#[test]
fn an_append_only_device_backs_up_and_reads_its_own() {
    let limited = Limited::new();
    let mut nas = limited.nas();
    assert!(nas.is_limited());
    let own = ids(&nas.snapshots().expect("lists"));
    assert_eq!(own.len(), 2);
    let status = nas.status().expect("reads");
    assert!(status.is_limited && status.devices == 2 && status.snapshots == Some(2));
    let verified = nas.verify(ReadData::All, &Progress::default()).expect("verifies");
    assert!(verified.is_whole() && verified.bad_packs.is_empty());
    let devices = nas.devices().expect("lists");
    let names: Vec<_> = devices.iter().map(|d| (d.name.as_deref(), d.is_limited)).collect();
    assert_eq!(names, [(None, false), (Some(NAS), true)]);
    let kinds: Vec<_> = nas.what_they_see().expect("reads").spaces;
    assert_eq!(kinds.len(), 1);
    limited.first_is_whole(nas);
    // A full device sees them apart from its own, and can give the device a name.
    let mut laptop = client(&limited.world);
    assert_eq!(laptop.snapshots().expect("lists").len(), 1);
    let entry = laptop.devices().expect("lists").remove(1);
    let name = entry.name.expect("has one");
    assert!(entry.is_limited && name.starts_with("append-only-"));
    laptop.rename_device(&name, "box in the cellar").expect("renames");
    laptop.use_vault_of("box in the cellar").expect("chooses");
    assert_eq!(ids(&laptop.snapshots().expect("lists")), own);
    let refused = laptop.backup(None, &Progress::default());
    assert!(matches!(refused, Err(ClientError::NotAllowed)), "{refused:?}");
    limited.first_is_whole(laptop);
    let mut laptop = client(&limited.world);
    let laptops = laptop.devices().expect("lists").remove(0).id.to_string();
    let refused = laptop.use_vault_of(&laptops);
    assert!(matches!(refused, Err(ClientError::NotLimited(_))), "{refused:?}");
    let seen = laptop.what_they_see().expect("reads");
    assert_eq!(seen.spaces.len(), 3);
    assert!(seen.spaces.iter().all(|space| !space.packs.is_empty()));
}

#[test]
fn it_can_do_nothing_else() {
    let limited = Limited::new();
    let (mut nas, first) = (limited.nas(), vec![limited.first.clone()]);
    let refused = |name: &str, done: Result<(), ClientError>| {
        assert!(matches!(done, Err(ClientError::Limited)), "{name}: {done:?}");
    };
    refused("forget", nas.forget(&first).map(|_| ()));
    refused("pin", nas.tag(&first, PINNED, true).map(|_| ()));
    refused("tag", nas.tag(&first, "x", true).map(|_| ()));
    refused("prune", nas.prune(false, &Progress::default()).map(|_| ()));
    refused("undelete", nas.undelete().map(|_| ()));
    refused("rules", nas.forget_by(&Keep::default(), false).map(|_| ()));
    refused("kit", nas.new_kit().map(|_| ()));
    refused("link", nas.link("AAAA-AAAA").map(|_| ()));
    let other = nas.devices().expect("lists").remove(0).id.to_string();
    refused("revoke", nas.revoke_device(&other).map(|_| ()));
    refused("rename", nas.rename_device(&other, "x").map(|_| ()));
    refused("of", nas.use_vault_of(&other));
    refused("card", nas.contact_card().map(|_| ()));
    // It has no key for it either.
    let thief = limited.thief();
    assert!(thief.vault.capability(Right::Prune).is_none());
    assert!(thief.vault.capability(Right::Append).is_some());
    let shared = limited.world.insider().vault;
    assert_ne!(thief.vault.space(), shared.space());
    assert_ne!(ChunkIds::new(&thief.vault).data(b"x"), ChunkIds::new(&shared).data(b"x"));
}

/// SR-031, ST-12: whoever has the keys of an append-only device, and a program of their own, takes
/// nothing away. The server is honest, or with them.
#[test]
fn sr_031_a_head_that_does_more_than_add_does_not_count() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    type Change = fn(&mut Manifest, Forgotten);
    let changes: [(&str, Change); 6] = [
        ("all", |manifest, _| *manifest = Manifest::default()),
        ("a snapshot", |manifest, _| drop(manifest.snapshots.remove(0))),
        ("order", |manifest, _| manifest.snapshots.reverse()),
        ("a mark", |manifest, mark| manifest.snapshots[0].forgotten = Some(mark)),
        ("a list", |manifest, _| manifest.indexes.truncate(1)),
        ("retired", |manifest, _| manifest.retired.push(PackId([1; 32]))),
    ];
    let limited = Limited::new();
    let kit = limited.world.with_kit();
    let thief = limited.thief();
    let before = limited.manifest();
    let own = ids(&limited.owner().snapshots().expect("lists"));
    let stored = limited.world.stored_head_of(thief.vault.space());
    let mark = Forgotten { by: limited.world.insider().device.id(), time_s: 1 };
    for (what, change) in changes {
        let mut manifest = before.clone();
        change(&mut manifest, mark);
        // It says nothing about what it adds, or what it would have to say.
        for adds in
            [Elements::default(), manifest.adds_to(&Manifest::default()).unwrap_or_default()]
        {
            limited.forge(&thief, &thief, &manifest, adds);
            let seen = |mut client: Client| {
                let forgotten = client.forgotten().map(|marked| ids(&marked));
                (client.snapshots().map(|listed| ids(&listed)), forgotten, client.overreach())
            };
            let name = format!("restored-{what}-{}", rand_id());
            for client in [limited.owner(), restored(&limited, &kit, &name)] {
                let (listed, forgotten, overreach) = seen(client);
                assert_eq!(listed.expect("lists"), own, "{what}");
                assert_eq!(forgotten.expect("lists").len(), 0, "{what}");
                assert_eq!(overreach.expect("reads"), Some(thief.device.id()), "{what}");
            }
            danger_skip(&[Misbehaviour::LimitedOverreach]);
            let without = restored(&limited, &kit, &format!("without-{}", rand_id()));
            let (listed, forgotten, _) = seen(without);
            danger_skip(&[]);
            let is_same = listed.is_ok_and(|listed| listed == own)
                && forgotten.is_ok_and(|forgotten| forgotten.is_empty());
            assert!(!is_same || ["a list", "retired"].contains(&what), "{what}");
        }
    }
    // The device itself goes on where it was, and so does the next.
    drop(stored);
    fs::write(limited.folder.join("small"), "third").expect("writes");
    let third = limited.backup();
    assert_eq!(ids(&limited.owner().snapshots().expect("lists")), [own, vec![third]].concat());
    limited.first_is_whole(limited.owner());
}

fn restored(limited: &Limited, kit: &Kit, name: &str) -> Client {
    limited.seen_by(limited.world.restore_kit(kit, name, clock()).expect("restores"))
}

fn rand_id() -> String {
    PackId::random(&mut rng()).to_string()[..8].to_owned()
}

/// It adds a list which says that everything is elsewhere, in a head that only adds.
#[test]
fn what_is_listed_again_elsewhere_stays_where_it_was() {
    let limited = Limited::new();
    let thief = limited.thief();
    let before = limited.manifest();
    let mut manifest = before.clone();
    manifest.indexes.push(limited.poison(&thief));
    let adds = manifest.adds_to(&before).expect("adds only");
    limited.forge(&thief, &thief, &manifest, adds);
    let mut owner = limited.owner();
    assert_eq!(owner.snapshots().expect("lists").len(), 2);
    assert_eq!(owner.overreach().expect("reads"), None);
    limited.first_is_whole(owner);
    limited.first_is_whole(limited.nas());
    // Nor does a prune put the one in place of the other.
    let second = ids(&limited.owner().snapshots().expect("lists")).remove(1);
    limited.owner().forget(&[second]).expect("marks");
    assert_eq!(limited.pruned(), 1);
    limited.first_is_whole(limited.owner());
    limited.first_is_whole(limited.nas());
}

/// It has no key of the shared vault; with one, its signature there counts for nothing.
#[test]
fn sr_031_it_writes_no_head_of_another_vault() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limited = Limited::new();
    let shared = limited.world.insider();
    limited.forge(&limited.thief(), &shared, &Manifest::default(), Elements::default());
    let seen = || limited.world.client().snapshots().expect("lists").len();
    assert_eq!(seen(), 1);
    let fresh = limited.world.link("desktop").snapshots().expect("lists").len();
    // A device that has seen nothing but this head takes none of it.
    assert_eq!(fresh, 1);
    danger_skip(&[Misbehaviour::LimitedOverreach]);
    let without = limited.world.link("without").snapshots().expect("lists").len();
    danger_skip(&[]);
    assert_eq!(without, 0);
}

/// The server loses a pack of its vault: its next backup stores what was in it again, and all read
/// that.
#[test]
fn what_the_server_lost_is_stored_again() {
    let limited = Limited::new();
    let biggest = limited.biggest_pack();
    fs::remove_file(&biggest).expect("removes");
    let id = biggest.file_name().expect("name").to_string_lossy().into_owned();
    let id: PackId = id.parse().expect("an id");
    let delete = "DELETE FROM packs WHERE pack = ?1";
    limited.world.database().execute(delete, [id.0]).expect("deletes");
    let verified = limited.owner().verify(ReadData::Nothing, &Progress::default());
    assert!(!verified.expect("verifies").is_whole());
    fs::write(limited.folder.join("small"), "first").expect("writes");
    let mut nas = limited.nas();
    backup(&mut nas);
    assert_eq!(nas.lost_packs(), 1);
    drop(nas);
    let mut owner = limited.owner();
    let target = limited.world.other("mended");
    let to = Target::Folder(target.clone());
    let (_, report) = owner.restore("latest", None, &to, &Progress::default()).expect("restores");
    assert_eq!(report.refused, []);
    assert_same_tree(&limited.folder, &target);
}

/// Only a full device prunes, after the wait; the append-only one goes on from there.
#[test]
fn a_full_device_forgets_and_prunes_for_it() {
    let limited = Limited::new();
    limited.owner().forget(std::slice::from_ref(&limited.first)).expect("marks");
    assert_eq!(limited.nas().snapshots().expect("lists").len(), 1);
    assert_eq!(limited.pruned(), 1);
    fs::write(limited.folder.join("small"), "third").expect("writes");
    limited.backup();
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 2);
    let verified = limited.owner().verify(ReadData::All, &Progress::default());
    assert!(verified.expect("verifies").is_whole());
    // The shared vault has waits of its own.
    assert_eq!(prune(&limited.world).snapshots, 0);
}

#[test]
fn taken_out_it_reads_and_writes_nothing_more_and_its_backups_stay() {
    let limited = Limited::new();
    drop(limited.world.link("stolen"));
    // Another device goes: the append-only one gets new keys, and goes on.
    client(&limited.world).revoke_device("stolen").expect("takes out");
    fs::write(limited.folder.join("small"), "third").expect("writes");
    limited.backup();
    assert_eq!(limited.thief().vault.generation(), 2);
    limited.first_is_whole(limited.owner());
    limited.first_is_whole(limited.nas());
    let thief = limited.thief();
    let revoked = client(&limited.world).revoke_device(&limited.id).expect("takes out");
    assert_eq!(revoked.snapshots, 3);
    let gone = limited.nas().backup(None, &Progress::default());
    assert!(matches!(gone, Err(ClientError::DeviceRemoved)), "{gone:?}");
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 3);
    limited.first_is_whole(limited.owner());
    // With a server that is with the thief: their head is above the one at which it was taken out.
    let before = limited.manifest();
    let mut manifest = before.clone();
    manifest.indexes.push(limited.poison(&thief));
    limited.forge(&thief, &thief, &manifest, manifest.adds_to(&before).expect("adds only"));
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 3);
    limited.first_is_whole(limited.owner());
}

/// ST-09, for its vault too: what a full device has seen, it and the devices that it links hold on to.
#[test]
fn its_vault_is_not_rolled_back() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limited = Limited::new();
    let space = limited.thief().vault.space();
    limited.owner().snapshots().expect("lists");
    drop(limited.world.link("desktop"));
    let roll_back = || {
        limited
            .world
            .database()
            .execute("DELETE FROM heads WHERE space = ?1 AND seq = 2", [space.0])
    };
    roll_back().expect("deletes");
    limited.world.takes_nothing_back();
    let desktop = Client::open(&limited.world.other("desktop"), clock()).expect("opens");
    for mut client in [limited.owner(), limited.seen_by(desktop), limited.nas()] {
        match client.snapshots() {
            Err(ClientError::Misbehaviour(Misbehaviour::HeadRolledBack)) => {}
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// A head that only adds, over lists that are not there: it hides everything, until the device is taken
/// out.
#[test]
fn sr_031_lists_that_are_not_there_hide_nothing_for_good() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limited = Limited::new();
    let own = ids(&limited.owner().snapshots().expect("lists"));
    let (thief, space) = (limited.thief(), limited.thief().vault.space());
    let before = limited.manifest();
    let adds = Elements { snapshots: vec![[7; 32]], indexes: vec![] };
    let (snapshot_set, index_set) = adds.added_to((before.snapshot_set(), before.index_set()));
    let head = NewHead {
        previous: HeadPlace::of(Some(&limited.world.stored_head_of(space))),
        snapshot_set,
        index_set,
        manifest: PackId([9; 32]),
        time_s: 1,
        adds,
    };
    let signing = thief.device.signing();
    limited.world.show_head(&head.seal(&thief.vault, &thief.account, &signing, &mut rng()));
    match limited.owner().snapshots() {
        Err(ClientError::Misbehaviour(Misbehaviour::LimitedOverreach)) => {}
        other => panic!("not refused: {other:?}"),
    }
    // Nothing else stops.
    let status = limited.world.client().status().expect("reads");
    assert_eq!(status.snapshots, Some(1));
    limited.world.backup();
    limited.world.client().revoke_device(&limited.id).expect("takes out");
    for client in [limited.world.link("fresh"), client(&limited.world)] {
        let mut client = limited.seen_by(client);
        assert_eq!(ids(&client.snapshots().expect("lists")), own);
        limited.first_is_whole(client);
    }
}

/// Any bytes can be stored as a head with the right to append.
#[test]
fn a_head_that_does_not_open_stops_nothing() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limited = Limited::new();
    let kit = limited.world.with_kit();
    let own = ids(&limited.owner().snapshots().expect("lists"));
    let space = limited.thief().vault.space();
    for (number, generation) in [2, 1, 999].into_iter().enumerate() {
        let mut garbage = limited.world.stored_head_of(space);
        (garbage.previous, garbage.seq) = (garbage.hash(), garbage.seq + 1);
        garbage.generation = generation;
        garbage.sealed = noise(number as u64, garbage.sealed.as_slice().len()).into();
        limited.world.show_head(&garbage);
        assert_eq!(ids(&limited.owner().snapshots().expect("lists")), own);
        let restored = restored(&limited, &kit, &format!("restored-{number}"));
        limited.first_is_whole(restored);
        limited.first_is_whole(limited.world_link(&format!("desktop-{number}")));
        let status = limited.world.client().status().expect("reads");
        assert_eq!(status.overreaching, [limited.thief().device.id()]);
    }
    // It goes on itself, and so does a removal of somebody else.
    fs::write(limited.folder.join("small"), "third").expect("writes");
    let first_try = limited.nas().backup(None, &Progress::default());
    // It asks once whether the account has moved on, of which that head may be.
    assert!(matches!(first_try, Err(ClientError::Misbehaviour(Misbehaviour::PlaceMismatch))));
    let third = limited.backup();
    client(&limited.world).revoke_device("desktop-1").expect("takes out");
    assert_eq!(ids(&limited.owner().snapshots().expect("lists")), [own, vec![third]].concat());
    limited.owner().forget(std::slice::from_ref(&limited.first)).expect("marks");
    client(&limited.world).revoke_device(&limited.id).expect("takes out");
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 2);
}

/// It lists every snapshot once more, so that none could be named.
#[test]
fn snapshots_that_are_listed_twice_can_be_named() {
    let limited = Limited::new();
    let thief = limited.thief();
    let before = limited.manifest();
    let mut manifest = before.clone();
    let mut copies = before.snapshots.clone();
    copies.reverse();
    manifest.snapshots.extend(copies);
    let adds = manifest.adds_to(&before).expect("adds only");
    limited.forge(&thief, &thief, &manifest, adds);
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 2);
    limited.first_is_whole(limited.owner());
    limited.owner().forget(std::slice::from_ref(&limited.first)).expect("marks");
    // The device goes on from there, and before.
    fs::write(limited.folder.join("small"), "third").expect("writes");
    limited.backup();
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 2);
}

/// It names a list that never was: a prune works all the same.
#[test]
fn a_list_that_never_was_stops_no_prune() {
    let limited = Limited::new();
    let thief = limited.thief();
    let before = limited.manifest();
    let mut manifest = before.clone();
    let made_up = IndexRef { pack: PackId([9; 32]), offset: u32::MAX, ..before.indexes[0] };
    manifest.indexes.push(IndexRef { hash: [9; 32], ..made_up });
    let adds = manifest.adds_to(&before).expect("adds only");
    limited.forge(&thief, &thief, &manifest, adds);
    limited.first_is_whole(limited.owner());
    let second = ids(&limited.owner().snapshots().expect("lists")).remove(1);
    limited.owner().forget(&[second]).expect("marks");
    assert_eq!(limited.pruned(), 1);
    limited.first_is_whole(limited.owner());
    let verified = limited.owner().verify(ReadData::All, &Progress::default()).expect("verifies");
    assert!(verified.is_whole() && verified.bad_packs.is_empty(), "{verified:?}");
}

/// The server has changed a pack: a check finds it, the device's next backup stores it again, and who has
/// checked reads that.
#[test]
fn what_the_server_changed_is_stored_again() {
    let limited = Limited::new();
    let biggest = limited.biggest_pack();
    let mut bytes = fs::read(&biggest).expect("reads");
    bytes[2_000_000] ^= 1;
    fs::write(biggest, bytes).expect("writes");
    fs::write(limited.folder.join("small"), "first").expect("writes");
    let check = |mut client: Client| client.verify(ReadData::All, &Progress::default());
    assert!(!check(limited.nas()).expect("verifies").is_whole());
    assert!(!check(limited.owner()).expect("verifies").is_whole());
    limited.backup();
    let target = limited.world.other("mended");
    let to = Target::Folder(target.clone());
    let restored = limited.owner().restore("latest", None, &to, &Progress::default());
    assert_eq!(restored.expect("restores").1.refused, []);
    assert_same_tree(&limited.folder, &target);
}

/// A full device was taken out by one that had not seen what it wrote here, and on what this device has
/// built since: all judge alike then, and it goes on.
#[test]
fn a_removal_below_what_it_built_on_is_got_over() {
    let limited = Limited::new();
    let space = limited.thief().vault.space();
    limited.owner().snapshots().expect("lists");
    let mut desktop = limited.seen_by(limited.world.link("desktop"));
    desktop.forget(std::slice::from_ref(&limited.first)).expect("marks");
    drop(desktop);
    fs::write(limited.folder.join("small"), "third").expect("writes");
    limited.backup();
    // The one that takes it out is shown nothing of that.
    let now = limited.world.database();
    let rows: Vec<(u64, Vec<u8>)> = now
        .prepare("SELECT seq, head FROM heads WHERE space = ?1 AND seq > 2")
        .expect("query")
        .query_map([space.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("heads")
        .map(|row| row.expect("row"))
        .collect();
    assert_eq!(rows.len(), 2);
    now.execute("DELETE FROM heads WHERE space = ?1 AND seq > 2", [space.0]).expect("deletes");
    client(&limited.world).revoke_device("desktop").expect("takes out");
    for (seq, head) in &rows {
        let row = rusqlite::params![space.0, seq, head];
        now.execute("INSERT INTO heads VALUES (?1, ?2, ?3)", row).expect("inserts");
    }
    fs::write(limited.folder.join("small"), "fourth").expect("writes");
    let fourth = limited.backup();
    for client in [limited.world.link("fresh"), client(&limited.world)] {
        let listed = ids(&limited.seen_by(client).snapshots().expect("lists"));
        assert_eq!((listed.len(), &listed[0], &listed[2]), (3, &limited.first, &fourth));
    }
}

/// Pins of many vaults fit a linking.
#[test]
fn a_full_device_is_linked_beside_many_append_only_ones() {
    let world = World::new();
    world.backup();
    for number in 0..6 {
        let mut other = world.link_as(DeviceKind::Limited, &format!("limited-{number}"));
        other.add_folder(&world.folder()).expect("adds");
        other.backup(None, &Progress::default()).expect("backs up");
    }
    let mut desktop = world.link("desktop");
    assert_eq!(desktop.devices().expect("lists").len(), 8);
    assert_eq!(desktop.snapshots().expect("lists").len(), 1);
}

/// A key block has the heads of the newest removals only. Each has where every vault was.
#[test]
fn its_backups_stay_however_many_devices_go_after_it() {
    let limited = Limited::new();
    client(&limited.world).revoke_device(&limited.id).expect("takes out");
    for number in 0..17 {
        let name = format!("later-{number}");
        drop(limited.world.link(&name));
        client(&limited.world).revoke_device(&name).expect("takes out");
    }
    let mut fresh = limited.world_link("fresh");
    assert_eq!(fresh.snapshots().expect("lists").len(), 2);
    limited.first_is_whole(fresh);
}

/// A head has room for 128 new elements. What has no room is stored, and not listed, until it has.
#[test]
fn more_folders_than_a_head_has_room_for_are_backed_up_one_by_one() {
    let limited = Limited::new();
    let mut nas = limited.nas();
    let folders: Vec<PathBuf> = (0..130).map(|n| limited.folder.join(format!("{n}"))).collect();
    for folder in &folders {
        fs::create_dir(folder).expect("makes");
        nas.add_folder(folder).expect("adds");
    }
    let all = nas.backup(None, &Progress::default());
    assert!(matches!(all, Err(ClientError::LimitedTooMuch)), "{all:?}");
    assert_eq!(nas.snapshots().expect("lists").len(), 2);
    nas.backup(Some(&folders[0]), &Progress::default()).expect("backs up");
    drop(nas);
    assert_eq!(limited.owner().snapshots().expect("lists").len(), 3);
    assert_eq!(limited.owner().overreach().expect("reads"), None);
}

/// Its space is paid for by an invite. Who holds none finds out before anything is done.
#[test]
fn it_is_linked_by_a_device_that_holds_an_invite() {
    let mut world = World::new();
    let mut desktop = world.link("desktop");
    let begin = || {
        let linking = Linking::begin(&world.address(), DeviceKind::Limited, clock());
        linking.expect("begins").code()
    };
    let (first, second) = (begin(), begin());
    desktop.set_link_patience(std::time::Duration::from_millis(1));
    match desktop.link(&first) {
        Err(ClientError::ServerRefused(ErrorCode::VoucherRefused)) => {}
        other => panic!("not refused: {other:?}"),
    }
    drop(desktop);
    let invite = world.invite();
    let mut desktop = Client::join(&world.other("desktop"), &invite, None, "desktop", clock())
        .expect("takes over the invite");
    desktop.set_link_patience(std::time::Duration::from_millis(1));
    // The other side does not go on here.
    assert!(matches!(desktop.link(&second), Err(ClientError::LinkExpired)));
}

/// A server that shows a head far away, which nobody has signed, is asked for nothing in between.
#[test]
fn a_head_that_nobody_signed_asks_for_no_chain_without_end() {
    let limited = Limited::new();
    limited.owner().snapshots().expect("lists");
    let mut far = limited.world.stored_head_of(limited.thief().vault.space());
    far.seq += 20_000;
    far.sealed = noise(1, far.sealed.as_slice().len()).into();
    limited.world.show_head(&far);
    match limited.owner().snapshots() {
        Err(ClientError::Misbehaviour(Misbehaviour::HeadAltered)) => {}
        other => panic!("not refused: {other:?}"),
    }
}
