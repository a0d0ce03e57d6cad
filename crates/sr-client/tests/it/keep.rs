//! Forgetting, pruning and having back: what nobody may lose, and what must go.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use sr_client::{Client, ClientError, Keep, Progress, PruneReport, ReadData, Target, Undeleted};
use sr_wire::{Misbehaviour, limits::TRASH_DAYS};

use crate::{
    accounts::DAY_S,
    attacks::ONE_AT_A_TIME,
    world::{World, assert_same_tree, clock, noise},
};

/// A client whose clock a test moves, on a machine that does not know how long it runs.
pub(crate) fn client(world: &World) -> Client {
    let mut client = Client::open(&world.profile(), world.clock()).expect("opens");
    client.set_uptime(Arc::new(|| None));
    client
}

fn backup(world: &World) -> String {
    let reports = client(world).backup(None, &Progress::default()).expect("backs up");
    assert_eq!(reports[0].skipped, []);
    reports[0].snapshot.expect("snapshot").to_string()
}

pub(crate) fn prune(world: &World) -> PruneReport {
    client(world).prune(false, &Progress::default()).expect("prunes")
}

/// Days on which the device runs once.
pub(crate) fn days(world: &World, days: u64) {
    for _ in 0..days {
        world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
        prune(world);
    }
}

fn restored_is(world: &World, which: &str, like: &Path) {
    let target = world.dir.path().join("again");
    drop(fs::remove_dir_all(&target));
    let (_, report) = client(world)
        .restore(which, None, &Target::Folder(target.clone()), &Progress::default())
        .expect("restores");
    assert_eq!((&report.refused[..], &report.failed[..]), (&[][..], &[][..]));
    assert_same_tree(like, &target);
}

fn is_clean(world: &World) {
    let report =
        client(world).verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole() && report.bad_packs.is_empty(), "{report:?}");
}

fn bytes_stored(world: &World) -> u64 {
    let space = world.insider().vault.space();
    let query = "SELECT bytes FROM spaces WHERE space = ?1";
    world.database().query_row(query, [space.0], |row| row.get(0)).expect("space")
}

/// The server's own day goes by.
fn server_days(world: &mut World, days: u64) {
    for _ in 0..days {
        world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
        world.stop();
        world.start();
        // A server that starts looks into its trash.
        prune(world);
    }
}

fn copy(world: &World, name: &str) -> std::path::PathBuf {
    let to = world.dir.path().join(name);
    let status = std::process::Command::new("cp").arg("-a").arg(world.folder()).arg(&to).status();
    assert!(status.expect("runs").success());
    to
}

/// A folder of which half goes, a quarter changes, and a quarter stays, and its first state.
fn two_snapshots(world: &World) -> (String, std::path::PathBuf, String) {
    for n in 0..8 {
        world.write(&format!("going/{n}"), noise(n, 3 << 20));
        world.write(&format!("staying/{n}"), noise(100 + n, 300 << 10));
    }
    world.write("letter", "first");
    let first = backup(world);
    let before = copy(world, "before");
    fs::remove_dir_all(world.folder().join("going")).expect("removes");
    world.write("letter", "second");
    (first, before, backup(world))
}

#[test]
fn what_is_forgotten_goes_after_its_days_and_the_rest_is_as_it_was() {
    let mut world = World::new();
    let (first, before, second) = two_snapshots(&world);
    let full = bytes_stored(&world);

    let mut ours = client(&world);
    assert_eq!(ours.forget(std::slice::from_ref(&first)).expect("forgets").len(), 1);
    assert_eq!(ours.forget(std::slice::from_ref(&first)).expect("again").len(), 0);
    assert_eq!(ours.snapshots().expect("lists").len(), 1);
    assert_eq!(ours.forgotten().expect("lists")[0].id.to_string(), first);
    drop(ours);
    restored_is(&world, &first, &before);

    // Not on the first day, nor the third.
    for _ in 0..3 {
        let report = prune(&world);
        assert_eq!((report.snapshots, report.waiting, report.packs), (0, 1, 0), "{report:?}");
        restored_is(&world, &first, &before);
        world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
    }
    let would = client(&world).prune(true, &Progress::default()).expect("says what it would do");
    let report = prune(&world);
    assert_eq!(report, would);
    assert_eq!((report.snapshots, report.waiting), (1, 0));
    assert!(report.bytes > 20 << 20, "{report:?}");
    let gone =
        client(&world).restore(&first, None, &Target::Folder(world.target()), &Progress::default());
    assert!(matches!(gone, Err(ClientError::NotFound(_))), "{gone:?}");
    restored_is(&world, &second, &world.folder());
    is_clean(&world);
    let again = prune(&world);
    assert_eq!((again.packs, again.snapshots), (0, 0), "nothing is left to do: {again:?}");

    // The server keeps it for its own days, and then it is gone.
    assert!(bytes_stored(&world) >= full);
    server_days(&mut world, u64::from(TRASH_DAYS) - 1);
    assert!(bytes_stored(&world) >= full);
    server_days(&mut world, 1);
    assert!(bytes_stored(&world) < full - (20 << 20));
    is_clean(&world);

    // What was pruned is stored again, though the cache of this device remembers the folder.
    fs::remove_dir_all(world.folder()).expect("removes");
    fs::rename(&before, world.folder()).expect("comes back");
    let third = backup(&world);
    restored_is(&world, &third, &world.folder());
    restored_is(&world, "latest", &world.folder());
    is_clean(&world);
}

#[test]
fn an_unchanged_folder_is_whole_after_its_only_snapshot_was_pruned() {
    let world = World::new();
    world.write("a/b/c", noise(1, 3 << 20));
    world.write("a/d", "d");
    let first = backup(&world);
    client(&world).forget(&[first]).expect("forgets");
    days(&world, 3);
    assert_eq!(client(&world).forgotten().expect("lists"), []);
    // This device's cache says that all of it is stored.
    let second = backup(&world);
    restored_is(&world, &second, &world.folder());
    is_clean(&world);
}

#[test]
fn what_was_forgotten_comes_back_unless_it_was_pruned() {
    let world = World::new();
    let (first, before, second) = two_snapshots(&world);
    let mut ours = client(&world);
    ours.forget(&[first.clone(), second.clone()]).expect("forgets");
    assert_eq!(ours.snapshots().expect("lists"), []);
    let back = ours.unforget(&[]).expect("undoes");
    assert_eq!(back.len(), 2);
    assert_eq!(ours.snapshots().expect("lists").len(), 2);
    ours.tag(std::slice::from_ref(&first), sr_client::PINNED, true).expect("pins");
    let refused = ours.forget(std::slice::from_ref(&first));
    assert!(matches!(refused, Err(ClientError::Pinned)));
    let judged = ours.forget_by(&Keep { last: 1, ..Keep::default() }, false).expect("judges");
    assert!(judged.iter().all(|(_, why)| !why.is_empty()), "the pinned one stays");
    drop(ours);
    days(&world, 4);
    restored_is(&world, &first, &before);
    let refused = client(&world).tag(&[second], "line\nbreak", true);
    assert!(matches!(refused, Err(ClientError::Tag)));
}

/// ST-12: a stolen laptop prunes everything at once, with a program that waits for nothing.
#[test]
fn st_12_what_a_thief_has_pruned_is_had_back() {
    let mut world = World::new();
    let (first, before, second) = two_snapshots(&world);
    let folder = copy(&world, "folder-then");
    drop(world.link("stolen"));
    let thief = world.other("stolen");
    let mut theirs = Client::open(&thief, clock()).expect("opens");
    theirs.set_uptime(Arc::new(|| None));
    theirs.forget(&[first.clone(), second.clone()]).expect("marks");
    drop(theirs);
    for day in 1..=4 {
        let late: sr_client::Clock = Arc::new(move || clock()() + day * DAY_S);
        let mut theirs = Client::open(&thief, late).expect("opens");
        theirs.set_uptime(Arc::new(|| None));
        theirs.prune(false, &Progress::default()).expect("prunes");
    }
    let mut ours = client(&world);
    assert_eq!(ours.snapshots().expect("lists"), []);
    let back = ours.undelete().expect("comes back");
    assert!(back.packs > 0 && back.snapshots == 2, "{back:?}");
    assert_eq!(ours.snapshots().expect("lists").len(), 2);
    assert_eq!(ours.undelete().expect("again"), Undeleted::default());
    drop(ours);
    restored_is(&world, &first, &before);
    restored_is(&world, &second, &folder);
    is_clean(&world);
    // It stays, when the server's days are over.
    server_days(&mut world, u64::from(TRASH_DAYS) + 1);
    restored_is(&world, &first, &before);
    is_clean(&world);
}

/// ST-12: a thief who has pruned puts more heads on top, and the manifest of one of them is not there.
#[test]
fn st_12_a_missing_manifest_on_the_way_stops_no_undelete() {
    let mut world = World::new();
    let (first, before, second) = two_snapshots(&world);
    drop(world.link("stolen"));
    let open = |day| {
        let late: sr_client::Clock = Arc::new(move || clock()() + day * DAY_S);
        let mut theirs = Client::open(&world.other("stolen"), late).expect("opens");
        theirs.set_uptime(Arc::new(|| None));
        theirs
    };
    open(0).forget(&[first.clone(), second]).expect("marks");
    for day in 1..=4 {
        open(day).prune(false, &Progress::default()).expect("prunes");
    }
    let stream = |name| {
        open(5).backup_stream(name, &mut &b"x"[..], &Progress::default()).expect("backs up");
    };
    stream("one");
    let insider = world.insider();
    let head = sr_vault::head::open(&world.stored_head(), &insider.vault, &insider.account);
    let missing = head.expect("opens").manifest.to_string();
    stream("two");
    let pack = world.packs().into_iter().find(|pack| pack.ends_with(&missing)).expect("is there");
    world.tamper(|_| fs::remove_file(pack).expect("removes"));
    let back = client(&world).undelete().expect("comes back");
    assert_eq!(back.snapshots, 2);
    restored_is(&world, &first, &before);
}

/// ST-12: what a device marked does not go any more once it was taken out.
#[test]
fn st_12_the_marks_of_a_device_that_was_taken_out_count_no_more() {
    let world = World::new();
    let (first, before, _) = two_snapshots(&world);
    let mut theirs = world.link("desktop");
    theirs.forget(std::slice::from_ref(&first)).expect("marks");
    drop(theirs);
    client(&world).revoke_device("desktop").expect("takes out");
    days(&world, 5);
    let report = prune(&world);
    assert_eq!((report.unmarked, report.snapshots, report.packs), (1, 0, 0), "{report:?}");
    restored_is(&world, &first, &before);
    // It asks for a deletion all the same, and the server refuses.
    let mut theirs = world.open("desktop");
    assert!(theirs.prune(false, &Progress::default()).is_err());
}

/// A backup that began before a prune does not build on what the prune took away.
#[test]
fn a_backup_that_a_prune_overtakes_begins_anew() {
    let world = World::new();
    let (first, before, _) = two_snapshots(&world);
    drop(world.link("desktop"));
    client(&world).forget(&[first]).expect("forgets");
    days(&world, 2);
    // The other device has the files that only the forgotten snapshot needs; it reads the lists, and
    // while it reads its files, the prune goes on.
    let mut theirs = Client::open(&world.other("desktop"), world.clock()).expect("opens");
    theirs.add_folder(&before).expect("adds");
    fs::write(before.join("slow"), noise(7, 40 << 20)).expect("writes");
    world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
    let progress = Progress::default();
    let watched = progress.clone();
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(move || theirs.backup(None, &progress));
        while watched.phase() != sr_client::Phase::Storing && !run.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(prune(&world).snapshots, 1);
        run.join().expect("joins")
    });
    let snapshot = ran.expect("backs up")[0].snapshot.expect("snapshot").to_string();
    restored_is(&world, &snapshot, &before);
    is_clean(&world);
}

/// ST-16: with a list hidden, what it names would count as unused.
#[test]
fn st_16_a_prune_with_a_list_hidden_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let (first, _, _) = two_snapshots(&world);
    client(&world).forget(&[first]).expect("forgets");
    days(&world, 2);
    world.ahead.fetch_add(DAY_S, Ordering::SeqCst);
    drop(fs::remove_dir_all(world.profile().join("cache")));
    let smallest = world.packs().pop().expect("has packs");
    let packs = world.packs();
    // All small ones, in which the lists lie, but the newest, in which the manifest does.
    let manifest = world.insider();
    let head = sr_vault::head::open(&world.stored_head(), &manifest.vault, &manifest.account);
    let newest = head.expect("opens").manifest.to_string();
    let size = fs::metadata(&smallest).expect("file").len();
    world.tamper(|_| {
        for pack in packs {
            if fs::metadata(&pack).expect("file").len() <= size.max(1 << 18)
                && !pack.ends_with(&newest)
            {
                fs::remove_file(pack).expect("removes");
            }
        }
    });
    let refused = client(&world).prune(false, &Progress::default());
    assert!(
        matches!(
            refused,
            Err(ClientError::Misbehaviour(
                Misbehaviour::PackMissing | Misbehaviour::IndexSetMismatch
            ))
        ),
        "{refused:?}"
    );
}

/// ST-11: a server that forgot packs is found out by the next backup, which stores them again.
#[test]
fn st_11_packs_that_the_server_lost_are_found_by_the_next_backup() {
    let mut world = World::new();
    world.write("big", noise(1, 20 << 20));
    world.write("small", "small");
    let first = backup(&world);
    let biggest = world.packs().remove(0);
    world.tamper(|_| fs::remove_file(&biggest).expect("removes"));
    let mut ours = client(&world);
    ours.backup(None, &Progress::default()).expect("backs up");
    assert_eq!(ours.lost_packs(), 1);
    drop(ours);
    restored_is(&world, "latest", &world.folder());
    restored_is(&world, &first, &world.folder());
    let mut ours = client(&world);
    ours.backup(None, &Progress::default()).expect("backs up");
    assert_eq!(ours.lost_packs(), 0);
}

/// A check says which snapshots are concerned, keeps in mind what it found, and a backup mends it.
#[test]
fn a_check_names_the_snapshots_and_remembers_what_is_damaged() {
    let world = World::new();
    world.write("deep/er/kept", noise(1, 2 << 20));
    let first = backup(&world);
    fs::remove_file(world.folder().join("deep/er/kept")).expect("removes");
    world.write("other", noise(2, 9 << 20));
    let second = backup(&world);
    let mut packs = world.packs();
    packs.sort_by_key(|pack| fs::metadata(pack).expect("file").modified().expect("time"));
    // The packs with the content that only the first snapshot has.
    let sizes = |pack: &std::path::PathBuf| fs::metadata(pack).expect("file").len() == 4 << 20;
    let pack = packs.into_iter().find(sizes).expect("a pack of 4 MiB");
    let mut bytes = fs::read(&pack).expect("reads");
    bytes[1 << 20] ^= 1;
    fs::write(&pack, &bytes).expect("writes");
    let mut ours = client(&world);
    let mut verify = |how| ours.verify(how, &Progress::default()).expect("verifies");
    let all = verify(ReadData::All);
    let named: Vec<String> = all.bad_snapshots.iter().map(ToString::to_string).collect();
    assert!(named == [first.clone()] || named == [second], "{named:?}");
    assert_eq!(all.files.len(), 1);
    // Without reading it again, it is still known.
    let known = verify(ReadData::Nothing);
    assert_eq!((known.files, known.bad_snapshots), (all.files, all.bad_snapshots));
    let part = verify(ReadData::Part(30));
    assert!(part.packs_read < part.packs && part.all_read_s.is_some() && !part.is_whole());
    fs::write(&pack, {
        bytes[1 << 20] ^= 1;
        bytes
    })
    .expect("mends");
    assert!(!verify(ReadData::Nothing).is_whole());
    assert!(verify(ReadData::All).is_whole());
    assert!(verify(ReadData::Nothing).is_whole());
}

/// Content that lies in two packs, and the newer one is lost: it is stored again, for readers go to the
/// newest place; and a prune that would take the older one is refused as long as that is not so.
#[test]
fn st_11_a_lost_copy_is_mended_though_an_older_one_is_there() {
    let mut world = World::new();
    let content = noise(1, 6 << 20);
    world.write("one", &content);
    backup(&world);
    let older = world.packs();
    let apart = world.dir.path().join("apart");
    fs::create_dir(&apart).expect("makes");
    fs::write(apart.join("two"), &content).expect("writes");
    let rules = sr_client::Rules { no_dedup_across: true, ..Default::default() };
    client(&world).add_folder_with(&apart, &rules).expect("adds");
    client(&world).backup(Some(&apart), &Progress::default()).expect("backs up");
    let newer = world.packs().into_iter().find(|pack| !older.contains(pack)).expect("a pack");
    world.tamper(|_| fs::remove_file(&newer).expect("removes"));
    // Nothing may go as long as what is needed is lost.
    let ids: Vec<String> = world.snapshots().iter().map(|s| s.id.to_string()).collect();
    let refused = client(&world).prune(false, &Progress::default());
    assert!(matches!(refused, Err(ClientError::Misbehaviour(_))), "{refused:?}");
    // The other folder has the content; the tree of this one is in no other.
    let mut ours = client(&world);
    ours.backup(Some(&world.folder()), &Progress::default()).expect("backs up");
    drop(ours);
    restored_is(&world, &ids[0], &world.folder());
    let mut ours = client(&world);
    ours.backup(None, &Progress::default()).expect("backs up");
    assert_eq!((ours.lost_packs(), ours.unmended()), (0, 0));
    drop(ours);
    for id in &ids {
        let target = world.dir.path().join(id);
        let restored = client(&world)
            .restore(id, None, &Target::Folder(target), &Progress::default())
            .expect("restores")
            .1;
        assert_eq!((restored.refused, restored.failed), (vec![], vec![]));
    }
    days(&world, 1);
    is_clean(&world);
}

/// A pin made after somebody's mark, and a mark in this device's name that it never made.
#[test]
fn st_12_pinned_ones_and_forged_marks_stay() {
    let world = World::new();
    let (first, before, second) = two_snapshots(&world);
    drop(world.link("stolen"));
    let mut theirs = Client::open(&world.other("stolen"), clock()).expect("opens");
    theirs.forget(&[first.clone(), second.clone()]).expect("marks");
    drop(theirs);
    let mut ours = client(&world);
    ours.backup(None, &Progress::default()).expect("backs up");
    assert_eq!(ours.marked_by_others(), 2);
    ours.tag(std::slice::from_ref(&first), sr_client::PINNED, true).expect("pins");
    assert_eq!(ours.forgotten().expect("lists").len(), 1, "a pin takes the mark away");
    // What this device marked and does not know of was not marked by it.
    ours.forget(std::slice::from_ref(&second)).expect("marks");
    ours.unforget(std::slice::from_ref(&second)).expect("undoes");
    ours.forget(std::slice::from_ref(&second)).expect("marks");
    drop(ours);
    let database = rusqlite::Connection::open(world.profile().join("state.db")).expect("opens");
    database.execute("DELETE FROM state WHERE key = 'delay'", []).expect("forgets");
    drop(database);
    days(&world, 4);
    let report = prune(&world);
    assert_eq!((report.unmarked, report.snapshots), (1, 0), "{report:?}");
    backup(&world);
    restored_is(&world, &first, &before);
}

/// What no device could read is not stored: no tag too many.
#[test]
fn a_snapshot_has_no_tags_too_many() {
    let world = World::new();
    world.write("a", "a");
    let first = backup(&world);
    let mut ours = client(&world);
    let mut added = 0;
    let refused = loop {
        match ours.tag(std::slice::from_ref(&first), &format!("tag {added}"), true) {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ClientError::Tag) && added == 64, "{added}: {refused:?}");
    assert_eq!(ours.snapshots().expect("lists")[0].tags.len(), 64);
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    assert!(matches!(ours.set_tags(&many), Err(ClientError::Tag)));
}

/// ST-16: as long as a snapshot needs what the server has lost, nothing is pruned.
#[test]
fn st_16_a_prune_with_needed_content_lost_is_refused() {
    let mut world = World::new();
    world.write("big", noise(1, 20 << 20));
    backup(&world);
    let biggest = world.packs().remove(0);
    world.tamper(|_| fs::remove_file(&biggest).expect("removes"));
    let refused = client(&world).prune(true, &Progress::default());
    let missing = ClientError::Misbehaviour(Misbehaviour::PackMissing);
    assert_eq!(refused.expect_err("refuses").to_string(), missing.to_string());
    // It is remembered, and the next backup mends it.
    backup(&world);
    prune(&world);
    restored_is(&world, "latest", &world.folder());
}
