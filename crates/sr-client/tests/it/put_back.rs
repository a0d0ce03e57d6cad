//! An honest server that was put back from a backup: it gets back what came after, from its clients, and no
//! alarm stays.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sr_client::{Client, ClientError, Progress, ReadData, evidence_files};
use sr_store::{Fault, MetaStore, Sqlite};
use sr_wire::{Misbehaviour, api::ErrorCode};

use crate::{
    log::{copy, wait_for},
    world::{World, assert_same_tree, clock},
};

impl World {
    /// Copies the server's directory, which is the operator's backup.
    fn copied(&mut self) -> PathBuf {
        let to = self.dir.path().join("copy");
        self.put_back(|data| copy(data, &to));
        to
    }

    /// Puts the copy into the place of the server's directory.
    fn put_copy_back(&mut self, from: &Path) {
        self.put_back(|data| {
            fs::remove_dir_all(data).expect("deletes");
            copy(from, data);
        });
    }

    /// Waits until the log has so many changes of accounts, and has the laptop know that.
    fn logged(&self, changes: u64) {
        wait_for(&self.client().log().expect("reads"), changes);
        self.snapshots();
    }

    fn meta(&self) -> Sqlite {
        Sqlite::open(&self.data()).expect("opens")
    }
}

fn no_alarm(profile: &Path) {
    assert_eq!(evidence_files(profile).expect("lists"), Vec::<PathBuf>::new());
}

fn is_refused_as_put_back<T>(done: Result<T, ClientError>) {
    let refused = done.map(drop);
    assert!(matches!(refused, Err(ClientError::ServerRefused(ErrorCode::PutBack))), "{refused:?}");
}

/// A day with backups, a second device, a device that goes, and a kit.
#[test]
fn everything_that_came_after_comes_back() {
    let mut world = World::new();
    world.write("first", "of yesterday");
    world.backup();
    world.logged(1);
    let copy = world.copied();
    world.write("second", vec![7; 3 << 20]);
    world.backup();
    let phone = world.other("phone");
    drop(world.link("phone"));
    drop(world.link("tablet"));
    world.client().revoke_device("tablet").expect("revokes");
    let kit = world.with_kit();
    world.write("third", "of today");
    world.backup();
    world.logged(5);
    let devices = world.client().devices().expect("lists").len();
    world.put_copy_back(&copy);

    // Reading goes on with what this device knows; writing waits for the operator.
    assert_eq!(world.snapshots().len(), 3);
    let is_noted = |client: &mut Client| client.status().expect("reads").put_back;
    assert_eq!(is_noted(&mut world.client()).expect("noted").times, 1);
    let backup = |client: &mut Client| client.backup(None, &Progress::default());
    is_refused_as_put_back(backup(&mut world.client()));
    assert_eq!(world.meta().owed().expect("counts"), 0);
    // The other device finds all as it knows it.
    let mut other = Client::open(&phone, clock()).expect("opens");
    assert_eq!(other.devices().expect("lists").len(), devices);
    // But for what only the first one's next backup stores anew.
    let refused = other.snapshots().map(drop);
    let missing = ClientError::Misbehaviour(Misbehaviour::PackMissing);
    assert_eq!(refused.map_err(|e| e.to_string()), Err(missing.to_string()));

    world.meta().end_put_back().expect("ends");
    world.backup();
    let mut client = world.client();
    let report = client.verify(ReadData::All, &Progress::default()).expect("verifies");
    // A state in between that is nowhere any more is named.
    assert_eq!((report.bad_snapshots.len(), report.lists_damaged), (1, false), "{report:?}");
    let log = client.log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!((log.missing, log.unknown_from), (0, None));
    assert_eq!(client.status().expect("reads").put_back.expect("noted").times, 1);
    drop(client);
    assert_eq!(other.snapshots().expect("reads").len(), 5);
    assert_eq!(is_noted(&mut other), None, "the first has given back all");
    no_alarm(&world.profile());
    no_alarm(&phone);
    // Whoever comes for the first time, too.
    let address = world.invite().address;
    let paper = world.dir.path().join("paper");
    let mut paper =
        Client::restore_kit(&paper, &address, &kit, "paper", clock()).expect("restores");
    let to = sr_client::Target::Folder(world.target());
    let (_, report) = paper.restore("latest", None, &to, &Progress::default()).expect("restores");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    assert_same_tree(&world.folder(), &world.target());
}

fn is_refused<T>(done: Result<T, ClientError>, why: Misbehaviour) {
    let refused = done.map(drop).map_err(|error| error.to_string());
    assert_eq!(refused, Err(ClientError::Misbehaviour(why).to_string()));
}

fn is_sealed<T>(done: Result<T, ClientError>) {
    let refused = done.map(drop);
    assert!(matches!(refused, Err(ClientError::Sealed { .. })), "{refused:?}");
}

fn backup(client: &mut Client) -> Result<Vec<sr_client::BackupReport>, ClientError> {
    client.backup(None, &Progress::default())
}

/// Changes that no device has seen in the log yet, or not all: the server's promise to log them brings them back.
#[test]
fn what_was_only_promised_comes_back_after_the_end() {
    for first_is_read in [false, true] {
        let mut world = World::new();
        world.write("first", "of yesterday");
        world.backup();
        world.logged(1);
        let copy = world.copied();
        drop(world.link("phone"));
        if first_is_read {
            world.logged(2);
        }
        // The last that the laptop does with the account is not in the log that it has read.
        let kit = world.with_kit();
        world.put_copy_back(&copy);
        world.meta().set_put_back(b"").expect("sets");
        is_refused(world.client().snapshots(), Misbehaviour::ChainRolledBack);
        world.meta().end_put_back().expect("ends");
        // Long after the time by which it was promised.
        world.ahead.fetch_add(3600, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.snapshots().len(), 1);
        world.backup();
        world.logged(3);
        assert_eq!(world.open("phone").devices().expect("lists").len(), 2);
        no_alarm(&world.profile());
        let (address, paper) = (world.invite().address, world.dir.path().join("paper"));
        Client::restore_kit(&paper, &address, &kit, "paper", clock()).expect("restores");
    }
}

/// What the kit opens is on the server and on the device that made the kit; here another one comes first.
#[test]
fn a_kit_that_opens_nothing_any_more_is_spoken_of() {
    let (mut world, copy, phone) = one_day();
    drop(world.with_kit());
    world.logged(3);
    let mut other = Client::open(&phone, clock()).expect("opens");
    other.status().expect("reads");
    let is_lost = |client: &mut Client| client.status().expect("reads").is_kit_lost;
    assert!(!is_lost(&mut world.client()));
    world.put_copy_back(&copy);
    other.devices().expect("gives back");
    drop(other);
    is_refused_as_put_back(backup(&mut world.client()));
    assert!(is_lost(&mut world.client()));
    world.meta().end_put_back().expect("ends");
    assert!(is_lost(&mut world.client()));
}

/// Two devices that have seen a snapshot, a copy of the server as it is then, and the second device's profile.
fn one_day() -> (World, PathBuf, PathBuf) {
    let mut world = World::new();
    world.write("first", "of yesterday");
    world.backup();
    let phone = world.other("phone");
    drop(world.link("phone"));
    assert_eq!(world.open("phone").snapshots().expect("reads").len(), 1);
    world.logged(2);
    let copy = world.copied();
    (world, copy, phone)
}

/// The same, and both have seen another snapshot since.
fn two_days() -> (World, PathBuf, PathBuf) {
    let (world, copy, phone) = one_day();
    world.write("second", "of today");
    world.backup();
    assert_eq!(world.open("phone").snapshots().expect("reads").len(), 2);
    (world, copy, phone)
}

/// ST-09, AV-06: who rolls back and does not take back is refused, by each device until a person says so.
#[test]
fn what_is_lost_for_good_is_forgotten_by_those_who_say_so() {
    let (mut world, copy_of_yesterday, phone) = two_days();
    let today = world.dir.path().join("today");
    world.tamper(|data| {
        copy(data, &today);
        fs::remove_dir_all(data).expect("deletes");
        copy(&copy_of_yesterday, data);
    });
    is_refused(world.client().snapshots(), Misbehaviour::HeadRolledBack);
    assert_eq!(evidence_files(&world.profile()).expect("lists").len(), 1);
    // From then on nothing is sent, though the server shows all again.
    world.tamper(|data| {
        fs::remove_dir_all(data).expect("deletes");
        copy(&today, data);
    });
    assert_eq!(world.snapshots().len(), 2);
    is_sealed(backup(&mut world.client()));
    let mut client = world.client();
    let (kit, _) = client.new_kit().expect("is made here");
    is_sealed(client.set_kit(&kit, None));
    drop(client);
    assert!(world.client().status().expect("reads").sealed.is_some());
    let nothing = world.client().rollback().expect("compares");
    assert!(nothing.is_nothing() && nothing.snapshots.is_empty());
    world.client().accept_rollback(nothing).expect("goes on");
    backup(&mut world.client()).expect("goes on");

    world.tamper(|data| {
        fs::remove_dir_all(data).expect("deletes");
        copy(&copy_of_yesterday, data);
    });
    is_refused(world.client().snapshots(), Misbehaviour::HeadRolledBack);
    let mut client = world.client();
    let rollback = client.rollback().expect("compares");
    let lost: Vec<_> = rollback.snapshots.iter().map(|snapshot| snapshot.files).collect();
    assert_eq!((lost, rollback.states), (vec![2, 2], 3));
    client.accept_rollback(rollback).expect("goes on");
    assert_eq!(client.snapshots().expect("reads").len(), 1);
    world.write("third", "of another day");
    backup(&mut client).expect("goes on");
    let status = client.status().expect("reads");
    assert_eq!((status.sealed, status.accepted_rollback.expect("noted").snapshots), (None, 2));
    let report = client.verify(ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole() && report.snapshots == 2, "{report:?}");
    drop(client);
    // The other device has not said so.
    let mut other = Client::open(&phone, clock()).expect("opens");
    is_refused(other.snapshots(), Misbehaviour::HeadForked);
    other.add_folder(&world.folder()).expect("adds");
    is_sealed(backup(&mut other));
    let rollback = other.rollback().expect("compares");
    assert_eq!((rollback.snapshots.len(), rollback.states), (1, 1));
    other.accept_rollback(rollback).expect("goes on");
    assert_eq!(other.snapshots().expect("reads").len(), 2);
}

/// An operator who forgets to say that the server was put back: whoever comes first writes on the older state.
#[test]
fn a_state_that_somebody_wrote_on_is_gone_on_with_when_a_person_says_so() {
    let (mut world, copy, phone) = one_day();
    world.write("second", "of today");
    world.backup();
    world.put_copy_back(&copy);
    let mut other = Client::open(&phone, clock()).expect("opens");
    other.add_folder(&world.folder()).expect("adds");
    world.write("third", "of another day");
    backup(&mut other).expect("knows no better");
    drop(other);
    is_refused(world.client().snapshots(), Misbehaviour::HeadForked);
    assert_eq!(evidence_files(&world.profile()).expect("lists").len(), 1);
    let rollback = world.client().rollback().expect("compares");
    assert_eq!((rollback.snapshots.len(), rollback.states), (1, 2));
    world.client().accept_rollback(rollback).expect("goes on");
    assert_eq!(world.snapshots().len(), 2);
    world.backup();
    assert_eq!(world.open("phone").snapshots().expect("reads").len(), 3);
}

/// The heads came back, and what they name was only on the server and on a device that is gone.
#[test]
fn lists_that_are_lost_for_good_are_forgotten_when_a_person_says_so() {
    let (mut world, copy, phone) = two_days();
    world.put_copy_back(&copy);
    assert_eq!(world.snapshots().len(), 2);
    // An honest server is not accused for what it got back.
    no_alarm(&world.profile());
    assert!(world.client().status().expect("reads").sealed.is_none());
    fs::remove_dir_all(world.profile()).expect("deletes");
    let mut other = Client::open(&phone, clock()).expect("opens");
    fs::remove_dir_all(phone.join("cache")).expect("deletes");
    is_refused(other.snapshots(), Misbehaviour::PackMissing);
    let rollback = other.rollback().expect("looks");
    assert_eq!((rollback.snapshots.len(), rollback.states), (0, 1));
    other.accept_rollback(rollback).expect("goes on");
    assert_eq!(other.snapshots().expect("reads").len(), 1);
    other.add_folder(&world.folder()).expect("adds");
    backup(&mut other).expect("goes on");
    let report = other.verify(ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole() && report.snapshots == 2, "{report:?}");
}

/// What a device knew that took another one out is not forgotten: the one that was taken out could have
/// written the rest.
#[test]
fn a_state_from_before_a_device_was_taken_out_is_not_gone_on_with() {
    let (mut world, old, _) = two_days();
    world.client().revoke_device("phone").expect("takes out");
    // Its heads are older than the account.
    world.tamper(|data| {
        let database = rusqlite::Connection::open(data.join("strongroom.db")).expect("opens");
        let old = old.join("strongroom.db");
        database.execute("ATTACH ?1 AS old", [old.to_string_lossy()]).expect("attaches");
        database
            .execute_batch("DELETE FROM heads; INSERT INTO heads SELECT * FROM old.heads")
            .expect("puts back");
    });
    is_refused(world.client().snapshots(), Misbehaviour::HeadRolledBack);
    is_refused(world.client().rollback(), Misbehaviour::HeadRolledBack);
}

/// What a server refuses while it is put back does not come into force by itself, days later.
#[test]
fn a_change_that_was_refused_is_not_made_later() {
    let (world, _, _) = one_day();
    world.meta().set_put_back(b"").expect("sets");
    is_refused_as_put_back(world.client().revoke_device("phone"));
    world.meta().end_put_back().expect("ends");
    assert_eq!(world.client().chain().expect("reads").devices, 2);
    assert_eq!(world.open("phone").snapshots().expect("is still in").len(), 1);
    world.client().revoke_device("phone").expect("takes out");
}

/// An invite that is younger than the copy: the server does not know what has paid for the spaces.
#[test]
fn who_joined_after_the_copy_needs_another_invite() {
    let (mut world, copy, _) = one_day();
    let profile = world.other("late");
    let join = |invite| Client::join(&profile, &invite, None, "late", clock());
    let mut late = join(world.invite()).expect("joins");
    late.add_folder(&world.folder()).expect("adds");
    backup(&mut late).expect("stores");
    wait_for(&late.log().expect("reads"), 3);
    late.snapshots().expect("reads the log");
    drop(late);
    world.put_copy_back(&copy);
    let refused = Client::open(&profile, clock()).expect("opens").snapshots().map(drop);
    assert!(
        matches!(refused, Err(ClientError::ServerRefused(ErrorCode::VoucherRefused))),
        "{refused:?}"
    );
    world.meta().end_put_back().expect("ends");
    let mut late = join(world.invite()).expect("takes the new vouchers");
    backup(&mut late).expect("goes on");
    assert_eq!(late.snapshots().expect("reads").len(), 2);
    drop(late);
    no_alarm(&profile);
}

/// A server that shows an older state, and whose calls all fail from some call on: what it has signed by then is
/// refused for what it is, and kept.
#[test]
fn who_ends_the_conversation_has_shown_an_older_state_all_the_same() {
    let (mut world, yesterday, _) = two_days();
    let kept = world.dir.path().join("kept");
    copy(&world.profile(), &kept);
    let mut caught = 0;
    for calls in (0..).step_by(2) {
        world.faults.clear();
        world.put_copy_back(&yesterday);
        fs::remove_dir_all(world.profile()).expect("deletes");
        copy(&kept, &world.profile());
        world.faults.set(Fault::Ends, calls);
        let done = world.client().snapshots().map(drop);
        if done.is_ok() {
            break;
        }
        let database = rusqlite::Connection::open(world.profile().join("state.db")).expect("opens");
        let query = "SELECT EXISTS (SELECT 1 FROM state WHERE key = 'put-back')";
        let is_noted: bool = database.query_row(query, [], |row| row.get(0)).expect("reads");
        if is_noted {
            is_refused(done, Misbehaviour::HeadRolledBack);
            assert_eq!(evidence_files(&world.profile()).expect("lists").len(), 1, "{calls}");
            caught += 1;
        }
    }
    assert!(caught > 0);
}
