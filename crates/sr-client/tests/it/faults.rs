//! Interrupted, unreachable, full: the same command goes on and nothing acknowledged is lost.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rusqlite::Connection;
use sr_client::{Client, ClientError, Progress, Target};

use crate::world::{World, assert_same_tree, clock, noise};

/// Forgets that the head was answered, as a crash right before that would.
fn forget_answer(world: &World, accepted_before: Option<&[u8]>) {
    let (space, head) = (world.insider().vault.space(), world.stored_head());
    let database = Connection::open(world.profile().join("state.db")).expect("opens");
    let set = |key: String, value: &[u8]| {
        let row = rusqlite::params![key, value];
        database.execute("INSERT OR REPLACE INTO state VALUES (?1, ?2)", row).expect("runs");
    };
    set(format!("sent/{space}"), &sr_wire::encode(&head));
    match accepted_before {
        Some(before) => set(format!("head/{space}"), before),
        None => {
            let key = format!("head/{space}");
            database.execute("DELETE FROM state WHERE key = ?1", [key]).expect("runs");
        }
    }
}

fn accepted(world: &World) -> Vec<u8> {
    let key = format!("head/{}", world.insider().vault.space());
    let database = Connection::open(world.profile().join("state.db")).expect("opens");
    database
        .query_row("SELECT value FROM state WHERE key = ?1", [key], |row| row.get(0))
        .expect("head")
}

#[test]
fn a_lost_answer_to_a_swap_is_made_up_for() {
    let world = World::new();
    world.write("a", "1");
    world.backup();
    // The first head arrived, its answer did not.
    forget_answer(&world, None);
    assert_eq!(world.snapshots().len(), 1);
    let first = accepted(&world);
    world.write("a", "2");
    world.backup();
    forget_answer(&world, Some(&first));
    assert_eq!(world.snapshots().len(), 2);
    world.backup();
    assert_eq!(world.snapshots().len(), 3);
}

#[test]
fn a_head_that_never_arrived_is_sent_again() {
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let first = accepted(&world);
    world.write("a", "2");
    world.backup();
    forget_answer(&world, Some(&first));
    // The server never got it either.
    let space = world.insider().vault.space();
    let statement = "DELETE FROM heads WHERE space = ?1 AND seq = 2";
    assert_eq!(world.database().execute(statement, [space.0]).expect("runs"), 1);
    assert_eq!(world.snapshots().len(), 2);
    world.restore("latest", None);
    assert_eq!(fs::read(world.target().join("a")).expect("reads"), b"2");
}

#[test]
fn packs_of_an_interrupted_run_are_used_by_the_next() {
    let mut world = World::new();
    // A chunk of the largest size needs a pack of the largest size, however little is left beside it.
    for number in 0..40 {
        world.write(&format!("big {number}"), noise(number, 1_000_000));
    }
    // The server refuses in the middle of the upload, and has room later.
    world.caps.bytes_per_space = 20 << 20;
    world.tamper(|_| {});
    let failed = world.client().backup(None, &Progress::default());
    assert!(matches!(failed, Err(ClientError::ServerRefused(_))), "{failed:?}");
    assert!(!world.packs().is_empty());
    world.caps = sr_store::Caps::default();
    world.tamper(|_| {});
    world.backup();
    // A pack that was sent twice would be 16 MiB more; the rest is padding.
    let again = Progress::default();
    world.client().backup(None, &again).expect("backs up");
    assert!(again.sent() < 1 << 20);
    let total: u64 = world.packs().iter().map(|pack| fs::metadata(pack).expect("file").len()).sum();
    assert!(total < 50 << 20, "{total} bytes: something was stored twice");
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn an_unreachable_server_is_said_to_be_and_status_works_without_it() {
    let mut world = World::new();
    world.write("a", "1");
    world.backup();
    world.stop();
    let failed = world.client().backup(None, &Progress::default());
    assert!(matches!(failed, Err(ClientError::Unreachable { .. })), "{failed:?}");
    let status = world.client().status().expect("works");
    assert!(status.unreachable.is_some() && status.newest_s.is_some());
}

#[test]
fn lost_caches_cost_time_only() {
    let world = World::new();
    world.write("a", "1");
    world.backup();
    fs::remove_dir_all(world.profile().join("cache")).expect("removes");
    assert_eq!(world.snapshots().len(), 1);
    for entry in fs::read_dir(world.profile().join("cache")).expect("dir").flatten() {
        fs::write(entry.path(), b"nonsense").expect("writes");
    }
    world.write("b", "2");
    world.backup();
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn a_damaged_profile_is_said_to_be_and_nothing_is_changed() {
    let world = World::new();
    let key_file = world.profile().join("keys");
    let keys = fs::read(&key_file).expect("reads");
    fs::write(&key_file, &keys[1..]).expect("writes");
    let failed = Client::open(&world.profile(), clock());
    assert!(matches!(failed, Err(ClientError::Keys(_))), "{failed:?}");
    fs::write(&key_file, &keys).expect("writes");
    world.client();
    fs::write(world.profile().join("state.db"), "not a database at all").expect("writes");
    let failed = Client::open(&world.profile(), clock());
    assert!(matches!(failed, Err(ClientError::State { .. })), "{failed:?}");
    let mode = fs::metadata(&key_file).expect("meta").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mode = fs::metadata(world.profile()).expect("meta").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn an_interrupted_restore_leaves_no_half_file_and_goes_on() {
    let world = World::new();
    world.write("a", noise(1, 300_000));
    world.write("deep/b", noise(2, 300_000));
    world.backup();
    // What a killed restore leaves: a staging folder with a part of a file.
    fs::create_dir_all(world.target().join(".strongroom-restore")).expect("makes");
    fs::write(world.target().join(".strongroom-restore/0"), "half").expect("writes");
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
    // The same, with a link where the staging folder goes.
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).expect("makes");
    fs::write(outside.join("mine"), "mine").expect("writes");
    std::os::unix::fs::symlink(&outside, world.target().join(".strongroom-restore"))
        .expect("links");
    world.restore("latest", None);
    assert!(outside.join("mine").exists());
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn files_that_vanish_or_change_while_they_are_read_are_listed() {
    let world = World::new();
    for i in 0..400 {
        world.write(&format!("{i:03}"), noise(i, 50_000));
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut i = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Grows and shrinks, comes and goes, all the time.
                let path = world.folder().join("200");
                let _ = fs::write(&path, noise(i, 10_000 + (i % 7) as usize * 5_000));
                let _ = fs::remove_file(world.folder().join("399"));
                i += 1;
            }
        });
        let report = world.backup();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        report
    });
    assert!(report.files >= 399, "{}", report.files);
    let restored = world.restore("latest", None);
    assert_eq!(restored.refused.len() + restored.failed.len(), 0);
    for i in (0..400).filter(|i| !matches!(i, 200 | 399)) {
        let name = format!("{i:03}");
        assert_eq!(
            fs::read(world.target().join(&name)).expect("reads"),
            fs::read(world.folder().join(&name)).expect("reads")
        );
    }
}

#[test]
fn a_full_disk_ends_a_restore_with_the_reason() {
    let world = World::new();
    world.write("a", "a");
    world.backup();
    let target = Target::Folder(Path::new("/dev/full/x").to_owned());
    let failed = world.client().restore("latest", None, &target, &Progress::default());
    assert!(matches!(failed, Err(ClientError::Local { .. })), "{failed:?}");
}

#[test]
fn what_a_check_finds_damaged_is_stored_anew_by_the_next_backup() {
    let world = World::new();
    world.write("big", noise(1, 3_000_000));
    world.backup();
    world.write("small", "s");
    world.backup();
    let damaged = world.packs()[0].clone();
    let mut bytes = fs::read(&damaged).expect("reads");
    bytes[2_000_000] ^= 1;
    fs::write(&damaged, &bytes).expect("writes");
    assert_eq!(world.restore("latest", None).refused.len(), 1);
    // Nobody knows of it yet: a backup alone mends nothing, and says nothing wrong either.
    world.backup();
    assert_eq!(world.restore("latest", None).refused.len(), 1);
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert_eq!(report.bad_packs.len(), 1);
    // A quick check sees nothing of it, and forgets nothing.
    world.client().verify(sr_client::ReadData::Nothing, &Progress::default()).expect("verifies");
    world.backup();
    assert_eq!(fs::read(&damaged).expect("reads"), bytes, "no id is ever written over");
    // Old snapshots are whole again too.
    for snapshot in world.snapshots() {
        let report = world.restore(&snapshot.id.to_string(), None);
        assert_eq!(report.refused.len(), 0);
    }
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole());
}

#[test]
fn damaged_lists_are_written_anew_too() {
    let world = World::new();
    world.write("a", "a");
    world.backup();
    world.backup();
    // Each run left one pack of 64 KiB, with an index and a manifest in each.
    for pack in world.packs() {
        let mut bytes = fs::read(&pack).expect("reads");
        bytes[1000] ^= 1;
        fs::write(&pack, bytes).expect("writes");
    }
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.lists_damaged && report.bad_packs.len() == 2);
    world.backup();
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole(), "{report:?}");
    // Nothing hangs on this device's caches any more.
    fs::remove_dir_all(world.profile().join("cache")).expect("removes");
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn a_key_file_that_was_moved_away_is_asked_for_and_nothing_is_deleted() {
    let mut world = World::new();
    world.write("a", "a");
    world.backup();
    let moved = world.dir.path().join("moved");
    fs::rename(world.profile().join("keys"), &moved).expect("moves");
    let invite = world.invite();
    let joined = Client::join(&world.profile(), &invite, None, "x", clock());
    assert!(matches!(joined, Err(ClientError::Keys(_))), "{joined:?}");
    fs::rename(&moved, world.profile().join("keys")).expect("moves back");
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn a_new_invite_of_the_same_server_is_taken_over() {
    let mut world = World::new();
    world.write("a", "a");
    world.backup();
    let mut invite = world.invite();
    invite.address = invite.address.replace("127.0.0.1", "localhost");
    let joined = Client::join(&world.profile(), &invite, None, "x", clock());
    assert_eq!(joined.expect("takes over").server().expect("address"), invite.address);
    assert_eq!(world.snapshots().len(), 1);
    invite.card_hash = [1; 32];
    let joined = Client::join(&world.profile(), &invite, None, "x", clock());
    assert!(matches!(joined, Err(ClientError::AlreadyJoined)), "{joined:?}");
}

#[test]
fn a_damaged_index_costs_what_only_it_knows() {
    let world = World::new();
    world.write("old", noise(1, 100_000));
    world.backup();
    let index_of_old = world.packs();
    world.write("new", noise(2, 100_000));
    world.backup();
    for pack in index_of_old {
        let mut bytes = fs::read(&pack).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).expect("writes");
    }
    fs::remove_dir_all(world.profile().join("cache")).expect("removes");
    let report = world.restore("latest", None);
    assert_eq!((report.files, report.refused.len()), (1, 1));
    assert_eq!(report.refused[0].path, Path::new("old"));
    // It is still on this device, so a backup brings it back.
    world.backup();
    assert_eq!(world.restore("latest", None).refused.len(), 0);
    assert_same_tree(&world.folder(), &world.target());
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("writes");
}

/// What was stored anew stays found when the list that names its new place is stored anew in turn.
#[test]
fn repairs_outlive_repairs() {
    let world = World::new();
    let new_packs = |before: &[std::path::PathBuf]| -> Vec<std::path::PathBuf> {
        world.packs().into_iter().filter(|pack| !before.contains(pack)).collect()
    };
    let check =
        || world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    world.write("a", noise(1, 3_500_000));
    world.backup();
    let first = world.packs();
    flip(&first[0]);
    assert_eq!(check().files.len(), 1);
    world.backup();
    assert!(check().is_whole());
    // The smallest of the new packs holds the index with the new places.
    let second = new_packs(&first);
    let list = second.last().expect("a pack");
    flip(list);
    check();
    world.backup();
    world.backup();
    assert!(check().is_whole());
    fs::remove_dir_all(world.profile().join("cache")).expect("removes");
    assert_eq!(world.restore("latest", None).refused.len(), 0);
    assert_same_tree(&world.folder(), &world.target());
}

/// A check asks the server for the lists, though this device has them all.
#[test]
fn a_check_does_not_trust_the_cache() {
    let world = World::new();
    world.write("a", "a");
    world.backup();
    flip(&world.packs()[0]);
    let report = world
        .client()
        .verify(sr_client::ReadData::Nothing, &Progress::default())
        .expect("verifies");
    assert!(report.lists_damaged && !report.is_whole());
    world.backup();
    let report = world
        .client()
        .verify(sr_client::ReadData::Nothing, &Progress::default())
        .expect("verifies");
    assert!(!report.lists_damaged && report.is_whole(), "{report:?}");
}

#[test]
fn a_server_without_its_records_deletes_nothing() {
    let mut world = World::new();
    world.write("a", "a");
    world.backup();
    world.stop();
    let packs = world.all_packs();
    let database = world.data().join("strongroom.db");
    let aside = world.dir.path().join("aside");
    fs::rename(&database, &aside).expect("moves");
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let opened = sr_server::DataDir::open(&world.data(), &mut rng);
    assert!(matches!(opened, Err(sr_server::DataError::Database)));
    assert_eq!(world.all_packs(), packs);
    fs::rename(&aside, &database).expect("moves back");
    world.start();
    assert_eq!(world.snapshots().len(), 1);
}
