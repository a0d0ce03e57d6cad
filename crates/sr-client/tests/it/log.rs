//! The log: what honest servers keep, what those of earlier versions begin, and what is no log.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sr_client::{
    Client, ClientError, DeviceKind, Dial, LogReader, LogState, LogStatus, MakeDialer, Progress,
    ReadData, VerifiedLog, evidence_files,
};
use sr_crypto::SigningKey;
use sr_server::{DataDir, Server, add_invite};
use sr_store::{Caps, MemoryBlobs, MemoryMeta};
use sr_trust::{Accused, Block, Evidence, Mirror, block_hash};
use sr_wire::{
    CardResponse, Invite, Misbehaviour, SignedCard,
    api::{AccountResponse, ErrorCode},
    card_hash, decode, encode,
    log::{Entry, Key, LOGGED_WITHIN_S, Newest, block_commit},
};

use crate::{
    attacks::{ONE_AT_A_TIME, attack},
    network::{Bend, BentNetwork, Simulated, SimulatedNetwork, dialer, refusal},
    world::{World, clock},
};

/// A checkpoint comes once a second; this is when a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// Every log begins with the server's two cards.
const CARDS: u64 = 2;

/// Reads the log as a stranger, once it has so many entries of accounts.
fn log_of(address: &str, size: u64) -> Result<VerifiedLog, ClientError> {
    let reader = LogReader::new(address, clock()).expect("reads");
    wait_for(&reader, size);
    reader.verify(&Progress::default())
}

pub(crate) fn wait_for(reader: &LogReader, size: u64) {
    let began = Instant::now();
    // Before its first checkpoint, a server has none.
    let is_short = |status: LogStatus| status.size < size + CARDS;
    while reader.status().map_or(true, is_short) && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

fn database(data: &Path) -> Connection {
    Connection::open(data.join("strongroom.db")).expect("opens")
}

/// Changes the only entry of an account.
pub(crate) fn change_entry(data: &Path, change: impl Fn(&mut Entry)) {
    let database = database(data);
    let mut entry = last_entry(&database);
    change(&mut entry);
    let set = "UPDATE log SET entry = ?1 WHERE place = ?2";
    database.execute(set, rusqlite::params![entry.to_bytes(), CARDS]).expect("changes");
}

fn last_entry(database: &Connection) -> Entry {
    let last = "SELECT entry FROM log ORDER BY place DESC LIMIT 1";
    let entry: Vec<u8> = database.query_row(last, [], |row| row.get(0)).expect("has an entry");
    sr_wire::decode("entry", &entry, 200).expect("reads")
}

/// Plays the operator who changes the only entry of an account, and signs that.
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
    assert_eq!((log.status.size, log.accounts, log.unknown_from), (2 + CARDS, 2, None));
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
    assert_eq!((log.unknown_from, log.accounts), (Some(CARDS), 0));
    // Who reads it for the first time goes on, and is told to update.
    let (invite, profile) = (world.invite(), world.other("second"));
    let mut client = Client::join(&profile, &invite, None, "second", clock()).expect("joins");
    assert!(client.status().expect("syncs").log.expect("is reached").needs_update);
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

/// The log has another change than this device has made: it disowns that one, which proves it in part.
#[test]
fn a_change_that_is_disowned_is_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    rewrite(&mut world, |entry| entry.value = [7; 32]);
    log_of(&address, 1).expect("a stranger can't tell");
    let refused = status(&world).map(drop);
    let not_own = Misbehaviour::LogNotOwn;
    assert!(matches!(refused, Err(ClientError::Misbehaviour(m)) if m == not_own), "{refused:?}");
    assert_proven(&world.profile(), 5);
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

/// The device has seen a log of two accounts; the operator puts back the one before the second, and goes on
/// with others.
fn after_the_log_was_put_back(others: &[&str]) -> World {
    let (mut world, address) = world_with_account();
    let before = kept_copy(&mut world);
    somebody_joins(&mut world, "second");
    log_of(&address, 2).expect("verifies");
    status(&world).expect("syncs");
    put_back_log(&mut world, before.path());
    others.iter().for_each(|name| somebody_joins(&mut world, name));
    log_of(&address, 1 + others.len() as u64).expect("a stranger can't tell");
    world
}

fn status(world: &World) -> Result<LogState, ClientError> {
    Ok(world.client().status()?.log.expect("is reached"))
}

#[test]
fn each_sync_reads_what_is_new_and_keeps_it() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    let seen = LogState { size: 1 + CARDS, ..LogState::default() };
    assert_eq!(status(&world).expect("syncs"), seen);
    somebody_joins(&mut world, "second");
    log_of(&address, 2).expect("verifies");
    assert_eq!(status(&world).expect("syncs"), LogState { size: 2 + CARDS, ..seen.clone() });
    assert_eq!(status(&world).expect("syncs"), LogState { size: 2 + CARDS, ..seen });
}

#[test]
fn sr_036_a_shorter_log_is_refused_by_who_has_seen_a_longer_one() {
    attack(&[Misbehaviour::LogRolledBack, Misbehaviour::LogForked], || {
        status(&after_the_log_was_put_back(&[]))
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

/// What the operator has signed proves it to anybody; what was changed on the way proves nothing.
fn assert_proven(profile: &Path, kind: u8) {
    let files = evidence_files(profile).expect("lists");
    let bytes = fs::read(files.first().expect("has kept something")).expect("reads");
    let evidence = Evidence::parse(&bytes).expect("parses");
    assert_eq!((files.len(), evidence.kind()), (1, kind));
    evidence.verify().expect("proves it");
    let accused = world_card(profile);
    let Ok(Accused::Server(card)) = evidence.verify() else { panic!("accuses a server") };
    assert_eq!(card_hash(card), accused);
}

/// The card that a profile pins.
fn world_card(profile: &Path) -> sr_crypto::Hash {
    let database = Connection::open(profile.join("state.db")).expect("opens");
    let invite: Vec<u8> = database
        .query_row("SELECT value FROM state WHERE key = 'invite'", [], |row| row.get(0))
        .expect("has an invite");
    let invite: Invite = String::from_utf8(invite).expect("text").parse().expect("parses");
    invite.card_hash
}

#[test]
fn a_fork_of_the_log_leaves_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // At the same length, and when it is longer by then.
    for (names, kind) in [(&["third"][..], 1), (&["third", "fourth"], 2)] {
        let world = after_the_log_was_put_back(names);
        for _ in 0..2 {
            let refused = status(&world).expect_err("refuses");
            assert!(matches!(refused, ClientError::Misbehaviour(Misbehaviour::LogForked)));
            assert_proven(&world.profile(), kind);
        }
    }
}

#[test]
fn a_rewritten_log_leaves_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    // The account begins with its second change, says the log.
    rewrite(&mut world, |entry| entry.seq = 1);
    let (invite, profile) = (world.invite(), world.other("second"));
    let refused = Client::join(&profile, &invite, None, "second", clock()).map(drop);
    let broken = Misbehaviour::LogRuleBroken;
    assert!(matches!(refused, Err(ClientError::Misbehaviour(m)) if m == broken), "{refused:?}");
    assert_proven(&profile, 3);
}

#[test]
fn a_broken_promise_leaves_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = change_that_is_never_logged();
    let refused = status(&world).expect_err("refuses");
    assert!(matches!(refused, ClientError::Misbehaviour(Misbehaviour::ReceiptBroken)));
    assert_proven(&world.profile(), 7);
}

#[test]
fn a_backup_that_was_put_back_leaves_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("file", "one");
    world.backup();
    let before = kept_copy(&mut world);
    world.write("file", "two");
    world.backup();
    world.tamper(|data| {
        fs::remove_dir_all(data).expect("removes");
        copy(before.path(), data);
    });
    let refused = world.client().snapshots().expect_err("refuses");
    assert!(matches!(refused, ClientError::Misbehaviour(Misbehaviour::HeadRolledBack)));
    assert_proven(&world.profile(), 12);
}

#[test]
fn sr_036_who_verifies_the_whole_log_refuses_a_shorter_one() {
    attack(&[Misbehaviour::LogRolledBack, Misbehaviour::LogForked], || {
        let world = after_the_log_was_put_back(&[]);
        world.client().log().expect("reads").verify(&Progress::default())
    });
}

/// Two histories of one length, each of which follows the rules.
#[test]
fn sr_033_another_log_of_the_same_length_is_refused() {
    attack(&[Misbehaviour::LogForked], || status(&after_the_log_was_put_back(&["third"])));
}

/// And one that has outgrown the other.
#[test]
fn sr_033_a_longer_log_with_another_beginning_is_refused() {
    attack(&[Misbehaviour::LogForked], || {
        status(&after_the_log_was_put_back(&["third", "fourth"]))
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
            let entry = last_entry(&database);
            let newest = Newest { seq: entry.seq, value: entry.value };
            let ghost = Entry::following(Some(&newest), entry.key(), [7; 32], entry.time_s);
            let ghost = ghost.to_bytes();
            database.execute("INSERT INTO log (entry) VALUES (?1)", [ghost]).expect("adds");
        });
        log_of(&address, 2).expect("a stranger can't tell");
        status(&world)
    });
}

/// The operator shows everybody else another card.
#[test]
fn sr_037_a_card_that_the_log_does_not_have_is_refused() {
    attack(&[Misbehaviour::CardNotLogged], || {
        let (mut world, address) = world_with_account();
        log_of(&address, 1).expect("verifies");
        world.tamper(|data| {
            let database = database(data);
            let delete = "DELETE FROM log WHERE place > 1; DELETE FROM checkpoints;";
            database.execute_batch(delete).expect("deletes");
            let card = Entry { value: [7; 32], ..last_entry(&database) };
            let set = "UPDATE log SET entry = ?1 WHERE place = 1";
            database.execute(set, [card.to_bytes()]).expect("changes");
        });
        let stranger = log_of(&address, 0).map(drop);
        let (invite, profile) = (world.invite(), world.other("second"));
        let joined = Client::join(&profile, &invite, None, "second", clock()).map(drop);
        assert_eq!(stranger.is_ok(), joined.is_ok(), "{stranger:?} {joined:?}");
        joined
    });
}

/// The operator takes a device's change, and logs it for nobody. What others do goes on being logged.
#[test]
fn sr_039_a_change_that_is_never_logged_is_refused_after_its_time() {
    attack(&[Misbehaviour::ReceiptBroken], || status(&change_that_is_never_logged()));
}

fn change_that_is_never_logged() -> World {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    status(&world).expect("syncs");
    drop(world.with_kit());
    world.tamper(|data| {
        let database = database(data);
        let kept = CARDS + 1;
        database.execute("DELETE FROM log WHERE place >= ?1", [kept]).expect("deletes");
        database.execute("DELETE FROM checkpoints", []).expect("forgets");
    });
    log_of(&address, 1).expect("verifies");
    let late = LOGGED_WITHIN_S + 1;
    world.ahead.store(late, Ordering::SeqCst);
    // Within its time it only counts as missing.
    assert_eq!(status(&world).expect("syncs").missing, 1);
    somebody_joins(&mut world, "second");
    log_of(&address, 2).expect("a stranger can't tell");
    world
}

/// A world in memory, whose operator rewrites answers.
fn bent(bend: Arc<Bend>) -> (Simulated, MakeDialer) {
    let (meta, blobs) = (Arc::new(MemoryMeta::default()), Arc::new(MemoryBlobs::default()));
    let simulated = Simulated::new(meta, blobs, Caps::default()).expect("joins");
    let runtime = simulated.runtime.handle().clone();
    let network = Arc::new(BentNetwork { to: Arc::clone(&simulated.network), runtime, bend });
    let dialer: MakeDialer = Arc::new(move |_| Ok(Arc::clone(&network) as Arc<dyn Dial>));
    (simulated, dialer)
}

/// The operator takes a change, and answers that another was faster: it would be in force on this device, and
/// nobody has promised to log it.
#[test]
fn sr_038_a_change_that_was_taken_without_a_promise_is_refused() {
    for code in [ErrorCode::Conflict, ErrorCode::NotFound, ErrorCode::BlockRefused] {
        attack(&[Misbehaviour::ReceiptForged], || {
            let (simulated, dialer) = bent(Arc::new(move |path, status, body| {
                if path == sr_wire::api::ACCOUNT_APPEND { refusal(code) } else { (status, body) }
            }));
            let profile = simulated.dir.path().join("profile");
            let mut client = Client::open_by(&profile, clock(), &dialer).expect("opens");
            let (kit, _) = client.new_kit().expect("makes");
            // The first answer may be the end of this command, not of the next.
            let set = client.set_kit(&kit, None);
            if matches!(set, Err(ClientError::Misbehaviour(_))) {
                return set.map(|()| Vec::new());
            }
            client.snapshots()
        });
    }
}

/// An honest server answers a second try as it did the first.
#[test]
fn a_change_whose_answer_was_lost_is_promised_when_it_is_sent_again() {
    let lost = AtomicUsize::new(1);
    let (simulated, dialer) = bent(Arc::new(move |path, status, body| {
        let is_append = path == sr_wire::api::ACCOUNT_APPEND;
        let is_lost = is_append && lost.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_lost { refusal(ErrorCode::Internal) } else { (status, body) }
    }));
    let profile = simulated.dir.path().join("profile");
    let open = || Client::open_by(&profile, clock(), &dialer).expect("opens");
    let (kit, _) = open().new_kit().expect("makes");
    let set = open().set_kit(&kit, None);
    assert!(matches!(set, Err(ClientError::ServerRefused(ErrorCode::Internal))), "{set:?}");
    assert!(open().status().expect("goes on").has_kit);
}

/// The operator hides a change that it has logged, and refuses to answer when the device asks again.
#[test]
fn sr_035_who_is_asked_again_and_refuses_gains_nothing_by_it() {
    let reads = AtomicUsize::new(0);
    let (simulated, dialer) = bent(Arc::new(move |path, status, body| {
        if path != sr_wire::api::ACCOUNT_READ {
            return (status, body);
        }
        if reads.fetch_add(1, Ordering::SeqCst) > 0 {
            return refusal(ErrorCode::Internal);
        }
        let mut shown: AccountResponse =
            sr_wire::decode("answer", &body, body.len()).expect("parses");
        shown.blocks.truncate(1);
        (status, sr_wire::encode(&shown))
    }));
    let (profile, old) = (simulated.dir.path().join("profile"), simulated.dir.path().join("old"));
    copy(&profile, &old);
    let honest = self::dialer(&simulated.network);
    let mut client = Client::open_by(&profile, clock(), &honest).expect("opens");
    let (kit, _) = client.new_kit().expect("makes");
    client.set_kit(&kit, None).expect("sets");
    wait_for(&client.log().expect("reads"), 2);
    let refused = Client::open_by(&old, clock(), &dialer).expect("opens").snapshots();
    assert!(matches!(refused, Err(ClientError::ServerRefused(ErrorCode::Internal))), "{refused:?}");
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
    assert_eq!(seen.size, 1 + CARDS);
    assert!(seen.withheld.is_some());
}

/// An honest server whose log is not the one that it has signed publishes nothing more.
#[test]
fn a_server_does_not_contradict_itself() {
    let (mut world, address) = world_with_account();
    log_of(&address, 1).expect("verifies");
    world.stop();
    let reports = || {
        let opened = DataDir::open(&world.data(), &mut rng()).expect("opens");
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let report = move |what: &str| told.lock().expect("lock").push(what.to_owned());
        let (identity, stores) = (opened.identity, opened.stores);
        Server::new(identity, stores, Caps::default(), clock(), Box::new(report))
            .expect("begins")
            .publish();
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

pub(crate) fn copy(from: &Path, to: &Path) {
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
    let opened = DataDir::open(&data, &mut rng()).expect("opens");
    let meta = Arc::clone(&opened.stores.meta);
    let account = meta.accounts().expect("lists")[0];
    let (blocks, _) = meta.blocks(account, 0, usize::MAX).expect("reads");
    let network = SimulatedNetwork::new();
    let server =
        Server::new(opened.identity, opened.stores, Caps::default(), clock(), Box::new(|_| {}))
            .expect("begins");
    let _runtime = network.serve(server);
    // The profile pins the card without a log, and follows to the one with it.
    let client = Client::open_by(&profile, clock(), &dialer(&network)).expect("opens");
    wait_for(&client.log().expect("reads"), blocks.len() as u64);
    let log = client.log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!((log.status.size, log.accounts), (blocks.len() as u64 + CARDS, 1));
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

/// ID-04, ID-11: a card that names another log than the one that this device knows, signed by the same server.
#[test]
fn sr_010_another_card_after_the_same_one_leaves_evidence() {
    let other = Arc::new(AtomicUsize::new(0));
    let shown = Arc::clone(&other);
    let (simulated, dialer) = bent(Arc::new(move |path, status, body| {
        if path != sr_wire::api::CARD || shown.load(Ordering::SeqCst) == 0 {
            return (status, body);
        }
        let mut answer: CardResponse = decode("card", &body, body.len()).expect("reads");
        let identity = SigningKey::from_seed(&crate::network::seed());
        let second = answer.cards[0].card.with_log("of others");
        answer.cards[1] = SignedCard::sign(second, &identity);
        (status, encode(&answer))
    }));
    let profile = simulated.dir.path().join("profile");
    let open = || Client::open_by(&profile, clock(), &dialer).expect("opens");
    open().snapshots().expect("reads");
    other.store(1, Ordering::SeqCst);
    let refused = open().snapshots().map(drop);
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::CardMismatch))),
        "{refused:?}"
    );
    let files = evidence_files(&profile).expect("lists");
    let evidence = Evidence::parse(&fs::read(&files[0]).expect("reads")).expect("parses");
    assert_eq!((evidence.kind(), evidence.verify().is_ok(), files.len()), (13, true, 1));
    // From then on nothing is sent, whichever card is shown.
    other.store(0, Ordering::SeqCst);
    let mut client = open();
    client.snapshots().expect("reads");
    let refused = client.backup(None, &Progress::default()).map(drop);
    assert!(matches!(refused, Err(ClientError::Sealed { .. })), "{refused:?}");
}
