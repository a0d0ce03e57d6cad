//! The log: what honest servers keep, what those of earlier versions begin, and what is no log.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sr_client::{
    Client, ClientError, DeviceKind, LogReader, LogState, Progress, ReadData, VerifiedLog,
};
use sr_server::{DataDir, Server, add_invite};
use sr_store::Caps;
use sr_trust::{Block, Mirror, block_hash};
use sr_wire::{
    Invite, Misbehaviour,
    log::{Entry, Key, Newest, block_commit},
};

use crate::{
    attacks::attack,
    network::{SimulatedNetwork, dialer},
    world::{World, clock},
};

/// A checkpoint comes once a second; this is when a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// Reads the log as a stranger, once it has so many entries.
fn log_of(address: &str, size: u64) -> Result<VerifiedLog, ClientError> {
    let reader = LogReader::new(address, clock()).expect("reads");
    wait_for(&reader, size);
    reader.verify(&Progress::default())
}

fn wait_for(reader: &LogReader, size: u64) {
    let began = Instant::now();
    // Before its first checkpoint, a server has none.
    while reader.status().map_or(true, |status| status.size < size) && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

fn database(data: &Path) -> Connection {
    Connection::open(data.join("strongroom.db")).expect("opens")
}

/// Changes the only entry of a server's log.
fn change_entry(data: &Path, change: impl Fn(&mut Entry)) {
    let database = database(data);
    let entry: Vec<u8> =
        database.query_row("SELECT entry FROM log", [], |row| row.get(0)).expect("has an entry");
    let mut entry: Entry = sr_wire::decode("entry", &entry, 200).expect("reads");
    change(&mut entry);
    database.execute("UPDATE log SET entry = ?1", [entry.to_bytes()]).expect("changes");
}

/// Plays the operator who changes the only entry, and signs that.
fn rewrite(world: &mut World, change: impl Fn(&mut Entry)) {
    world.tamper(|data| {
        change_entry(data, change);
        database(data).execute("DELETE FROM checkpoints", []).expect("forgets");
    });
}

/// Makes an account, whose genesis is in the log.
fn world_with_account() -> (World, String) {
    let mut world = World::new();
    let address = world.invite().address;
    (world, address)
}

#[test]
fn anyone_reads_every_change_of_every_account_in_order() {
    let (mut world, address) = world_with_account();
    let invite = world.invite();
    let other = world.data().with_file_name("other");
    let client = Client::join(&other, &invite, None, "other", clock()).expect("joins");
    let log = log_of(&address, 2).expect("verifies");
    assert_eq!((log.status.size, log.accounts, log.unknown_from), (2, 2, None));
    assert!(log.last_s <= clock()());
    let own = client.log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!(own, log, "with an account it is the same");
    // After a restart too, and the log goes on.
    world.tamper(|_| {});
    let again = log_of(&address, 2).expect("verifies");
    assert_eq!(again.status, log.status);
}

/// The operator changes what an account did, and signs that.
#[test]
fn sr_032_a_log_that_was_rewritten_is_refused() {
    attack(&[Misbehaviour::LogRuleBroken], || {
        let (mut world, address) = world_with_account();
        log_of(&address, 1).expect("verifies");
        // The account now begins with its second block.
        rewrite(&mut world, |entry| entry.seq = 1);
        log_of(&address, 1)
    });
}

/// The operator shows entries that are not those that the log has signed.
#[test]
fn sr_033_entries_that_were_not_signed_are_refused() {
    attack(&[Misbehaviour::LogForked], || {
        let (world, address) = world_with_account();
        log_of(&address, 1).expect("verifies");
        // While it runs: it signs what it has read at its start.
        change_entry(&world.data(), |entry| entry.value = [7; 32]);
        log_of(&address, 1)
    });
}

/// The operator shows a rewritten log, and an entry of a kind that nobody knows in front of the rest.
#[test]
fn sr_033_an_unknown_entry_hides_no_other_log() {
    let (world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    change_entry(&world.data(), |entry| entry.kind = 64);
    let refused = log_of(&address, 1).expect_err("it is not what was signed");
    assert!(matches!(refused, ClientError::Misbehaviour(Misbehaviour::LogForked)), "{refused}");
}

/// One that the log did sign is of a later version: what follows is hashed, and not judged.
#[test]
fn an_entry_of_a_later_version_is_no_alarm() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    rewrite(&mut world, |entry| entry.kind = 64);
    let log = log_of(&address, 1).expect("verifies");
    assert_eq!((log.unknown_from, log.accounts), (Some(0), 0));
}

#[test]
fn sr_035_what_the_log_has_of_this_account_must_be_its_own() {
    attack(&[Misbehaviour::LogNotOwn], || {
        let (mut world, address) = world_with_account();
        log_of(&address, 1).expect("verifies");
        rewrite(&mut world, |entry| entry.value = [7; 32]);
        log_of(&address, 1).expect("a stranger can't tell");
        world.client().log().expect("reads").verify(&Progress::default())
    });
}

#[test]
fn a_change_of_this_account_that_is_not_in_the_log_is_counted() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    rewrite(&mut world, |entry| entry.index = [7; 32]);
    log_of(&address, 1).expect("a stranger can't tell");
    let log = world.client().log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!(log.missing, 1);
}

#[test]
fn sr_034_a_checkpoint_that_the_log_did_not_sign_is_refused() {
    let (mut world, address) = world_with_account();
    let reader = LogReader::new(&address, clock()).expect("reads");
    wait_for(&reader, 1);
    world.tamper(|data| {
        let database = database(data);
        let note: Vec<u8> = database
            .query_row("SELECT note FROM checkpoints", [], |row| row.get(0))
            .expect("has a checkpoint");
        let note = String::from_utf8(note).expect("text");
        // Only the first of its two keys has signed.
        let (text, lines) = note.rsplit_once("\n\n").expect("a note");
        let first = lines.lines().next().expect("a line");
        let note = format!("{text}\n\n{first}\n").into_bytes();
        database.execute("UPDATE checkpoints SET note = ?1", [note]).expect("changes");
    });
    let reader = LogReader::new(&address, clock()).expect("reads");
    let began = Instant::now();
    loop {
        match reader.status() {
            Err(ClientError::Misbehaviour(refused)) => {
                return assert_eq!(refused, Misbehaviour::LogUnsigned);
            }
            // The server has not read it yet.
            answer => assert!(began.elapsed() < PATIENCE, "{answer:?}"),
        }
    }
}

/// What the device knew before it asked: both are copies of one server's directory.
fn kept_copy(world: &mut World) -> tempfile::TempDir {
    let copy_of = tempfile::tempdir().expect("dir");
    world.tamper(|data| copy(data, copy_of.path()));
    copy_of
}

/// The operator puts back only the log, so that everything else fits what the device knows.
fn put_back_log(world: &mut World, copy_of: &Path) {
    let from = copy_of.join("strongroom.db");
    world.tamper(|data| {
        let database = database(data);
        let attach = "ATTACH ?1 AS old";
        database.execute(attach, [from.to_str().expect("text")]).expect("attaches");
        let put_back = "DELETE FROM log; INSERT INTO log SELECT * FROM old.log;
             DELETE FROM checkpoints; INSERT INTO checkpoints SELECT * FROM old.checkpoints;";
        database.execute_batch(put_back).expect("puts back");
    });
}

/// Adds an account, which adds an entry.
fn somebody_joins(world: &mut World, name: &str) {
    let invite = world.invite();
    let profile = world.data().with_file_name(name);
    Client::join(&profile, &invite, None, name, clock()).expect("joins");
}

fn status(world: &World) -> Result<LogState, ClientError> {
    Ok(world.client().status()?.log.expect("is reached"))
}

#[test]
fn each_sync_reads_what_is_new_and_keeps_it() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    let seen = LogState { size: 1, ..LogState::default() };
    assert_eq!(status(&world).expect("syncs"), seen);
    somebody_joins(&mut world, "second");
    log_of(&address, 2).expect("verifies");
    assert_eq!(status(&world).expect("syncs"), LogState { size: 2, ..seen.clone() });
    assert_eq!(status(&world).expect("syncs"), LogState { size: 2, ..seen });
}

#[test]
fn sr_036_a_shorter_log_is_refused_by_who_has_seen_a_longer_one() {
    attack(&[Misbehaviour::LogRolledBack, Misbehaviour::LogForked], || {
        let (mut world, address) = world_with_account();
        let before = kept_copy(&mut world);
        somebody_joins(&mut world, "second");
        log_of(&address, 2).expect("verifies");
        status(&world).expect("syncs");
        put_back_log(&mut world, before.path());
        log_of(&address, 1).expect("a stranger can't tell");
        status(&world)
    });
}

/// What the old device has seen, the new one knows from its first moment.
#[test]
fn sr_036_a_newly_linked_device_refuses_a_shorter_log() {
    attack(&[Misbehaviour::LogRolledBack, Misbehaviour::LogForked], || {
        let (mut world, address) = world_with_account();
        let before = kept_copy(&mut world);
        somebody_joins(&mut world, "second");
        log_of(&address, 2).expect("verifies");
        let (linking, words) = world.link_to_the_end(DeviceKind::Full);
        put_back_log(&mut world, before.path());
        linking.finish(&words, &world.other("phone"), "phone")
    });
}

#[test]
fn sr_036_who_verifies_the_whole_log_refuses_a_shorter_one() {
    attack(&[Misbehaviour::LogRolledBack, Misbehaviour::LogForked], || {
        let (mut world, address) = world_with_account();
        let before = kept_copy(&mut world);
        somebody_joins(&mut world, "second");
        log_of(&address, 2).expect("verifies");
        status(&world).expect("syncs");
        put_back_log(&mut world, before.path());
        world.client().log().expect("reads").verify(&Progress::default())
    });
}

/// Two histories of one length, each of which follows the rules.
#[test]
fn sr_033_another_log_of_the_same_length_is_refused() {
    attack(&[Misbehaviour::LogForked], || {
        let (mut world, address) = world_with_account();
        let before = kept_copy(&mut world);
        somebody_joins(&mut world, "second");
        log_of(&address, 2).expect("verifies");
        status(&world).expect("syncs");
        put_back_log(&mut world, before.path());
        somebody_joins(&mut world, "third");
        log_of(&address, 2).expect("a stranger can't tell");
        status(&world)
    });
}

/// And one that has outgrown the other.
#[test]
fn sr_033_a_longer_log_with_another_beginning_is_refused() {
    attack(&[Misbehaviour::LogForked], || {
        let (mut world, address) = world_with_account();
        let before = kept_copy(&mut world);
        somebody_joins(&mut world, "second");
        log_of(&address, 2).expect("verifies");
        status(&world).expect("syncs");
        put_back_log(&mut world, before.path());
        somebody_joins(&mut world, "third");
        somebody_joins(&mut world, "fourth");
        log_of(&address, 3).expect("a stranger can't tell");
        status(&world)
    });
}

/// The operator logs a change of the account that nobody has made, and never shows it to its devices.
#[test]
fn sr_035_a_change_that_no_device_made_is_refused() {
    attack(&[Misbehaviour::LogNotOwn], || {
        let (mut world, address) = world_with_account();
        log_of(&address, 1).expect("verifies");
        status(&world).expect("syncs");
        world.tamper(|data| {
            let database = database(data);
            let entry: Vec<u8> =
                database.query_row("SELECT entry FROM log", [], |row| row.get(0)).expect("has one");
            let entry: Entry = sr_wire::decode("entry", &entry, 200).expect("reads");
            let newest = Newest { seq: entry.seq, value: entry.value };
            let ghost = Entry::following(Some(&newest), entry.key(), [7; 32], entry.time_s);
            let ghost = ghost.to_bytes();
            database.execute("INSERT INTO log (entry) VALUES (?1)", [ghost]).expect("adds");
        });
        log_of(&address, 2).expect("a stranger can't tell");
        status(&world)
    });
}

#[test]
fn backups_go_on_without_the_log_and_the_device_says_so() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    status(&world).expect("syncs");
    // A server whose log is not what it has signed publishes nothing.
    world.tamper(|data| change_entry(data, |entry| entry.time_s += 1));
    world.write("file", "content");
    world.backup();
    let seen = status(&world).expect("syncs");
    assert_eq!(seen.size, 1);
    assert!(seen.withheld.is_some());
}

/// An honest server whose log is not the one that it has signed publishes nothing more.
#[test]
fn a_server_does_not_contradict_itself() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    world.stop();
    let reports = || {
        let opened = DataDir::open(&world.data(), clock()(), &mut rng()).expect("opens");
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let report = move |what: &str| told.lock().expect("lock").push(what.to_owned());
        let (identity, stores) = (opened.identity, opened.stores);
        Server::new(identity, stores, Caps::default(), clock(), Box::new(report)).publish();
        reports.lock().expect("lock").clone()
    };
    assert_eq!(reports(), Vec::<String>::new());
    change_entry(&world.data(), |entry| entry.time_s += 1);
    assert!(reports()[0].contains("publishing the log"), "{:?}", reports());
}

/// A server and a profile as they were before there was a log, copied.
fn before_the_log() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("dir");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/before-the-log");
    copy(&from, dir.path());
    let (server, profile) = (dir.path().join("server"), dir.path().join("profile"));
    (dir, server, profile)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for file in fs::read_dir(from).expect("lists") {
        let file = file.expect("reads");
        let target = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).expect("copies");
        }
    }
}

#[test]
fn what_was_made_before_the_log_goes_on_with_one() {
    let (dir, data, profile) = before_the_log();
    let opened = DataDir::open(&data, clock()(), &mut rng()).expect("opens");
    let meta = Arc::clone(&opened.stores.meta);
    let account = meta.accounts().expect("lists")[0];
    let (blocks, _) = meta.blocks(account, 0, usize::MAX).expect("reads");
    let network = SimulatedNetwork::new();
    let server =
        Server::new(opened.identity, opened.stores, Caps::default(), clock(), Box::new(|_| {}));
    let _runtime = network.serve(server);
    // The profile pins the card without a log, and follows to the one with it.
    let client = Client::open_by(&profile, clock(), &dialer(&network)).expect("opens");
    wait_for(&client.log().expect("reads"), blocks.len() as u64);
    let log = client.log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!((log.status.size, log.accounts), (blocks.len() as u64, 1));
    let mut mirror = Mirror::default();
    for entry in meta.log_entries(0, 100).expect("reads") {
        mirror.take(&entry.to_bytes()).expect("follows");
    }
    let newest = Block::parse(blocks.last().expect("a block")).expect("parses");
    let value = block_commit(account, &block_hash(&newest.body));
    let newest = Newest { seq: newest.body.seq, value };
    assert_eq!(mirror.fold().newest(&Key::account(account)), Some(&newest));
    // An invite of today names the newer card, and is one of the same server.
    let invite = add_invite(&data, &["simulated:1".into()], &mut rng()).expect("invites").remove(0);
    drop(client);
    let join = |invite: &Invite| {
        Client::join_by(&profile, invite, None, "laptop", clock(), &dialer(&network))
    };
    // One that names another server is not.
    let other = Invite { card_hash: [7; 32], ..invite.clone() };
    let refused = join(&other).map(drop);
    assert!(matches!(refused, Err(ClientError::AlreadyJoined)), "{refused:?}");
    let mut client = join(&invite).expect("is the same server");
    // What it had stored is there.
    let report = client.verify(ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole() && report.snapshots == 1);
    drop(dir);
}
