//! Several devices, one taken out, everything from paper; and what the operator tries with them.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use rusqlite::params;
use sr_client::{Client, ClientError, Clock, KeyLock, Kit, Linking, Progress, RequestKind, Target};
use sr_trust::Block;
use sr_vault::head::{HeadPlace, NewHead};
use sr_wire::{Misbehaviour, PackId, check::danger_skip, encode};

use crate::{
    attacks::ONE_AT_A_TIME,
    world::{Insider, World, assert_same_tree, clock},
};

const DAY_S: u64 = 86_400;

impl World {
    fn address(&self) -> String {
        fs::read_to_string(self.dir.path().join("port"))
            .map(|port| format!("127.0.0.1:{port}"))
            .expect("runs")
    }

    fn other(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Links a new device with the first one, word by word.
    pub(crate) fn link(&self, name: &str) -> Client {
        let mut linking = Linking::begin(&self.address(), clock()).expect("begins");
        let code = linking.code();
        let (words_of_new, linking) = std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel();
            let old = scope.spawn(move || {
                let mut client = self.client();
                let offer = client.link(&code).expect("meets");
                let words: Vec<&str> = receive.recv().expect("words");
                let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                client.link_finish(offer, &words).expect("adds")
            });
            send.send(linking.words().expect("shows words")).expect("waits");
            let words = old.join().expect("joins");
            linking.wait().expect("is added");
            (words, linking)
        });
        let words: Vec<String> = words_of_new.into_iter().map(str::to_owned).collect();
        linking.finish(&words, &self.other(name), name).expect("finishes")
    }

    fn open(&self, name: &str) -> Client {
        Client::open(&self.other(name), clock()).expect("opens")
    }

    pub(crate) fn with_kit(&self) -> Kit {
        let mut client = self.client();
        let (kit, _) = client.new_kit().expect("makes");
        client.set_kit(&kit, None).expect("sets");
        kit
    }

    fn restore_kit(&self, kit: &Kit, name: &str, clock: Clock) -> Result<Client, ClientError> {
        Client::restore_kit(&self.other(name), &self.address(), kit, name, clock)
    }

    /// The account's blocks, as the server has them.
    fn blocks(&self) -> Vec<Vec<u8>> {
        self.blocks_of(self.insider().account.id())
    }

    fn blocks_of(&self, account: sr_wire::AccountId) -> Vec<Vec<u8>> {
        let database = self.database();
        let mut query = database
            .prepare("SELECT block FROM blocks WHERE account = ?1 ORDER BY seq")
            .expect("query");
        let blocks = query.query_map([account.0], |row| row.get(0)).expect("blocks");
        blocks.map(|block| block.expect("block")).collect()
    }
}

fn backup(client: &mut Client) -> Result<(), ClientError> {
    client.backup(None, &Progress::default()).map(|_| ())
}

#[test]
fn two_devices_back_up_to_one_vault_and_read_each_other() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "of the first");
    world.backup();
    let mut second = world.link("phone");
    let folder = world.other("photos");
    fs::create_dir(&folder).expect("makes");
    fs::write(folder.join("b"), "of the second").expect("writes");
    second.add_folder(&folder).expect("adds");
    backup(&mut second).expect("backs up");
    drop(second);
    world.backup();
    assert_eq!(world.snapshots().len(), 3);
    let names: Vec<_> = world.client().devices().expect("lists");
    let names: Vec<_> = names.iter().map(|d| d.name.clone().unwrap_or_default()).collect();
    assert_eq!(names, ["laptop", "phone"]);
    let mut second = world.open("phone");
    let target = Target::Folder(world.target());
    second
        .restore("latest", Some(&world.folder()), &target, &Progress::default())
        .expect("restores");
    assert_same_tree(&world.folder(), &world.target());
    second.rename_device("laptop", "old laptop").expect("renames");
    assert!(world.client().devices().expect("lists")[0].name.as_deref() == Some("old laptop"));
}

/// Both write the next head on the same one: nobody's snapshot is lost.
#[test]
fn two_devices_at_once_lose_no_snapshot() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    let folder = world.other("photos");
    fs::create_dir(&folder).expect("makes");
    fs::write(folder.join("b"), "2").expect("writes");
    world.open("phone").add_folder(&folder).expect("adds");
    std::thread::scope(|scope| {
        for profile in [world.profile(), world.other("phone")] {
            scope.spawn(move || {
                for _ in 0..6 {
                    let mut client = Client::open(&profile, clock()).expect("opens");
                    backup(&mut client).expect("backs up");
                }
            });
        }
    });
    assert_eq!(world.snapshots().len(), 13);
    assert_eq!(world.open("phone").snapshots().expect("lists").len(), 13);
    let report = world.client().verify(true, &Progress::default()).expect("verifies");
    assert!(report.is_whole(), "{report:?}");
}

/// A wrong word adds nobody; after three, the old device links nothing for an hour.
#[test]
fn a_wrong_word_adds_nobody() {
    let world = World::new();
    let mut client = world.client();
    let wrong: Vec<String> = ["zoo", "zoo", "zoo"].map(str::to_owned).to_vec();
    for _ in 0..3 {
        let mut linking = Linking::begin(&world.address(), clock()).expect("begins");
        let code = linking.code();
        let offer = std::thread::scope(|scope| {
            let new = scope.spawn(|| linking.words().map(|_| ()));
            let offer = client.link(&code).expect("meets");
            new.join().expect("joins").expect("shows words");
            offer
        });
        let refused = client.link_finish(offer, &wrong);
        assert!(matches!(refused, Err(ClientError::WrongWords)), "{refused:?}");
        // A code counts once.
        let again = client.link(&code);
        assert!(
            matches!(again, Err(ClientError::LinkExpired | ClientError::LinkLocked { .. })),
            "{again:?}"
        );
    }
    let linking = Linking::begin(&world.address(), clock()).expect("begins");
    let refused = client.link(&linking.code());
    assert!(matches!(refused, Err(ClientError::LinkLocked { .. })), "{refused:?}");
    assert_eq!(client.devices().expect("lists").len(), 1);
    assert!(matches!(client.link("0000-000"), Err(ClientError::LinkLocked { .. })));
}

/// On the new device, nothing is made before the right words.
#[test]
fn the_new_device_takes_nothing_before_the_words() {
    let world = World::new();
    let mut linking = Linking::begin(&world.address(), clock()).expect("begins");
    let code = linking.code();
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel::<Vec<&str>>();
        let world = &world;
        scope.spawn(move || {
            let mut client = world.client();
            let offer = client.link(&code).expect("meets");
            let words: Vec<String> =
                receive.recv().expect("words").into_iter().map(str::to_owned).collect();
            client.link_finish(offer, &words).expect("adds")
        });
        send.send(linking.words().expect("words")).expect("waits");
        linking.wait().expect("is added");
    });
    let wrong: Vec<String> = ["zoo", "zoo", "zoo"].map(str::to_owned).to_vec();
    let refused = linking.finish(&wrong, &world.other("new"), "new");
    assert!(matches!(refused, Err(ClientError::WrongWords)), "{refused:?}");
    assert!(!world.other("new").exists());
    let unknown = world.client().link("0000-0000");
    assert!(matches!(unknown, Err(ClientError::LinkExpired)), "{unknown:?}");
}

/// The laptop that was taken out: it refuses by itself, the server refuses its rights, the others
/// refuse its heads, and it opens nothing newer.
#[test]
fn a_device_that_was_taken_out_reads_nothing_new_and_writes_nothing() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    let folder = world.folder();
    world.open("phone").add_folder(&folder).expect("adds");
    let stolen = Insider::of(&world.other("phone"));
    let revoked = world.client().revoke_device("phone").expect("takes out");
    assert_eq!(revoked.snapshots, 1);
    world.write("a", "2");
    world.backup();
    for _ in 0..2 {
        let refused = world.open("phone").snapshots();
        assert!(matches!(refused, Err(ClientError::DeviceRemoved)), "{refused:?}");
        let refused = backup(&mut world.open("phone"));
        assert!(matches!(refused, Err(ClientError::DeviceRemoved)), "{refused:?}");
        let refused = world.open("phone").revoke_device("laptop");
        assert!(matches!(refused, Err(ClientError::DeviceRemoved)), "{refused:?}");
    }
    // A thief's own program, with all that the laptop had: the newer head does not open.
    let newest = world.stored_head();
    let now = world.insider();
    assert!(sr_vault::head::open(&newest, &now.vault, &now.account).is_ok());
    assert!(sr_vault::head::open(&newest, &stolen.vault, &now.account).is_err());
    // Nor is the head that it signs taken, with an operator who stores it.
    let forged = NewHead {
        previous: HeadPlace::of(Some(&newest)),
        snapshot_set: [1; 32],
        index_set: [1; 32],
        manifest: PackId([1; 32]),
        time_s: 1,
    }
    .seal(&stolen.vault, &stolen.account, &stolen.device.signing(), &mut rng());
    world.show_head(&forged);
    let refused = world.client().snapshots();
    // It names an earlier place in the account's history than the head that it follows.
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::PlaceMismatch))),
        "{refused:?}"
    );
    assert!(matches!(
        world.client().revoke_device("laptop"),
        Err(ClientError::OwnDevice | ClientError::Misbehaviour(_))
    ));
}

/// Power lost in the middle of taking a device out: the next command finishes it.
#[test]
fn an_interrupted_removal_is_finished_by_the_next_command() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    let stolen = Insider::of(&world.other("phone"));
    let keys_of = |world: &World| -> Vec<Vec<u8>> {
        let database = world.database();
        let mut query = database.prepare("SELECT keys FROM spaces").expect("query");
        let rows = query.query_map([], |row| row.get(0)).expect("rows");
        rows.map(|row| row.expect("keys")).collect()
    };
    let (spaces_before, blocks_before) = (keys_of(&world), world.blocks().len());
    // As far as the block: the rights were not rotated.
    world.client().revoke_device("phone").expect("takes out");
    let spaces_after = keys_of(&world);
    assert!(spaces_before.iter().all(|keys| !spaces_after.contains(keys)));
    let database = world.database();
    database
        .execute_batch("CREATE TEMP TABLE t AS SELECT space FROM spaces ORDER BY space")
        .expect("runs");
    for (number, keys) in spaces_before.iter().enumerate() {
        database
            .execute(
                "UPDATE spaces SET keys = ?1 WHERE space = (SELECT space FROM t LIMIT 1 OFFSET ?2)",
                params![keys, number],
            )
            .expect("runs");
    }
    drop(database);
    let state = rusqlite::Connection::open(world.profile().join("state.db")).expect("opens");
    state
        .execute("UPDATE state SET value = ?1 WHERE key GLOB 'generation/*'", [vec![0u8, 0, 0, 1]])
        .expect("runs");
    drop(state);
    assert_eq!(world.snapshots().len(), 1);
    assert_eq!(keys_of(&world), spaces_after, "any later command has finished it");
    // As far as the journal: the block was made and not sent.
    world.tamper(|_| {});
    drop(world.link("tablet"));
    let before = (world.blocks(), fs::read(world.profile().join("state.db")).expect("reads"));
    assert_eq!(before.0.len(), blocks_before + 2);
    world.stop();
    let refused = world.client().revoke_device("tablet");
    assert!(matches!(refused, Err(ClientError::Unreachable { .. })), "{refused:?}");
    world.start();
    world.client().revoke_device("tablet").expect("takes out");
    world.write("a", "2");
    world.backup();
    let newest = world.stored_head();
    assert!(sr_vault::head::open(&newest, &stolen.vault, &world.insider().account).is_err());
}

/// Two devices change the account at the same moment: one is overtaken, and neither forks.
#[test]
fn two_devices_that_change_the_account_at_once_do_not_fork() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    for name in ["b", "c", "d"] {
        drop(world.link(name));
    }
    std::thread::scope(|scope| {
        let profile = world.profile();
        scope.spawn(move || {
            Client::open(&profile, clock()).expect("opens").revoke_device("c").expect("takes out")
        });
        let profile = world.other("b");
        scope.spawn(move || {
            Client::open(&profile, clock()).expect("opens").revoke_device("d").expect("takes out")
        });
    });
    let (mut one, mut two) = (world.client(), world.open("b"));
    assert_eq!(one.chain().expect("verifies"), two.chain().expect("verifies"));
    assert_eq!(one.chain().expect("verifies").devices, 2);
}

/// Every device is gone; there is a sheet of paper.
#[test]
fn everything_comes_back_from_the_paper_alone() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "precious");
    world.backup();
    let kit = world.with_kit();
    world.client().drill(&kit).expect("opens");
    let original = world.folder();
    fs::remove_dir_all(world.profile()).expect("removes");
    let typed = Kit::from_text(&kit.code().to_lowercase()).expect("reads");
    let (moving, ahead) = (world.clock(), Arc::clone(&world.ahead));
    let mut client = world.restore_kit(&typed, "new", Arc::clone(&moving)).expect("restores");
    let target = Target::Folder(world.target());
    client.restore("latest", None, &target, &Progress::default()).expect("reads at once");
    assert_same_tree(&original, &world.target());
    // Acting waits.
    client.add_folder(&original).expect("adds");
    assert!(matches!(backup(&mut client), Err(ClientError::RecoveryWaits { until_s: None })));
    client.start_recovery(None).expect("begins");
    assert!(matches!(backup(&mut client), Err(ClientError::RecoveryWaits { until_s: Some(_) })));
    ahead.store(3 * DAY_S - 60, Ordering::SeqCst);
    assert!(matches!(backup(&mut client), Err(ClientError::RecoveryWaits { .. })));
    ahead.store(3 * DAY_S + 60, Ordering::SeqCst);
    backup(&mut client).expect("is a device of the account");
    assert_eq!(client.snapshots().expect("lists").len(), 2);
    assert!(client.devices().expect("lists").iter().any(|d| d.is_this && d.removed.is_none()));
    client.revoke_device("laptop").expect("takes out the one that is gone");
    backup(&mut client).expect("goes on");
    drop(client);
    assert_eq!(
        Client::open(&world.other("new"), moving).expect("opens").snapshots().expect("lists").len(),
        3
    );
}

/// Whoever has the paper reads; but a live device stops them from acting.
#[test]
fn a_live_device_stops_a_recovery() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    let (moving, ahead) = (world.clock(), Arc::clone(&world.ahead));
    let mut thief = world.restore_kit(&kit, "thief", moving).expect("reads");
    thief.add_folder(&world.folder()).expect("adds");
    // A device that does not count writes no record either.
    assert!(matches!(thief.rename_device("laptop", "x"), Err(ClientError::RecoveryWaits { .. })));
    thief.drill(&kit).expect("opens");
    thief.start_recovery(None).expect("begins");
    let mut client = world.client();
    let requests = client.requests().expect("lists");
    assert!(matches!(requests[0].kind, RequestKind::Device(_)));
    client.veto(requests[0].number).expect("stops");
    ahead.store(4 * DAY_S, Ordering::SeqCst);
    assert!(matches!(backup(&mut thief), Err(ClientError::RecoveryWaits { until_s: None })));
    assert!(client.requests().expect("lists").is_empty());
    assert!(matches!(client.veto(99), Err(ClientError::NotFound(_))));
}

/// A recovery that was begun and finished while a device was away does not count for it before the
/// delay has run from when it saw that; until then it goes on with the state that it had.
#[test]
fn a_finished_recovery_waits_for_each_device_that_was_away() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    let (moving, ahead) = (world.clock(), Arc::clone(&world.ahead));
    let mut other = world.restore_kit(&kit, "other", Arc::clone(&moving)).expect("restores");
    other.start_recovery(None).expect("begins");
    ahead.store(4 * DAY_S, Ordering::SeqCst);
    other.add_folder(&world.folder()).expect("adds");
    backup(&mut other).expect("is a device of the account");
    drop(other);
    let mut client = world.client();
    assert_eq!(client.chain().expect("verifies").devices, 1);
    assert!(client.waiting().is_some());
    assert_eq!(client.snapshots().expect("the last accepted state stays in use").len(), 1);
    drop(client);
    ahead.store(8 * DAY_S, Ordering::SeqCst);
    let mut client = Client::open(&world.profile(), moving).expect("opens");
    assert_eq!(client.chain().expect("verifies").devices, 2);
    assert!(client.waiting().is_none());
}

#[test]
fn a_new_kit_replaces_the_old_one() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let old = world.with_kit();
    let mut client = world.client();
    let (new, _) = client.new_kit().expect("makes");
    assert!(matches!(client.set_kit(&new, None), Err(ClientError::OldKitNeeded)));
    let (stranger, _) = client.new_kit().expect("makes");
    let refused = client.set_kit(&new, Some(&stranger));
    assert!(matches!(refused, Err(ClientError::KitWrong { expected: Some(_) })), "{refused:?}");
    client.set_kit(&new, Some(&old)).expect("replaces");
    let refused = client.drill(&old);
    assert!(matches!(refused, Err(ClientError::KitReplaced { .. })), "{refused:?}");
    client.drill(&new).expect("opens");
    let refused = client.drill(&stranger);
    assert!(matches!(refused, Err(ClientError::KitWrong { .. })), "{refused:?}");
    drop(client);
    let refused = world.restore_kit(&old, "new", clock());
    assert!(matches!(refused, Err(ClientError::KitReplaced { .. })), "{refused:?}");
    assert!(!world.other("new").exists());
    // The page is lost: another one counts after a wait, on its own.
    let (moving, ahead) = (world.clock(), Arc::clone(&world.ahead));
    let mut client = Client::open(&world.profile(), moving).expect("opens");
    let (third, _) = client.new_kit().expect("makes");
    client.set_kit_later(&third).expect("begins");
    assert!(client.drill(&new).is_ok() && client.drill(&third).is_err());
    ahead.store(3 * DAY_S + 60, Ordering::SeqCst);
    assert_eq!(client.snapshots().expect("lists").len(), 1);
    client.drill(&third).expect("is in force");
    assert!(matches!(client.drill(&new), Err(ClientError::KitReplaced { .. })));
}

/// ID-02: the account as it was before a device was taken out.
#[test]
fn sr_021_an_older_account_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    world.client().revoke_device("phone").expect("takes out");
    world.database().execute("DELETE FROM blocks WHERE seq = 2", []).expect("runs");
    let refused = world.client().snapshots();
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::ChainRolledBack))),
        "{refused:?}"
    );
    // A client without the check goes on, and would link on top of the older state.
    danger_skip(&[Misbehaviour::ChainRolledBack]);
    let seen = world.client().snapshots();
    danger_skip(&[]);
    assert_eq!(seen.expect("the attack succeeds without the check").len(), 1);
}

/// ID-02: another block in the place of one that was accepted, signed by the thief of a device.
#[test]
fn sr_022_another_account_history_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    let stolen = Insider::of(&world.other("phone"));
    world.client().revoke_device("phone").expect("takes out");
    // Instead of the removal, the thief begins something.
    let op = sr_trust::Op::DelayStart { change: sr_trust::Change::Pin([1; 32]) };
    let names = [(sr_trust::Role::Device, stolen.device.id())];
    let body = stolen.account.next(op, &names, 1).expect("allowed");
    let forged = body.sign(&[(sr_trust::Role::Device, &stolen.device.signing())], Vec::new());
    world
        .database()
        .execute("UPDATE blocks SET block = ?1 WHERE seq = 2", [encode(&forged)])
        .expect("runs");
    let refused = world.client().snapshots();
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::ChainForked))),
        "{refused:?}"
    );
    danger_skip(&[Misbehaviour::ChainForked]);
    let seen = world.client().snapshots();
    danger_skip(&[]);
    assert_eq!(seen.expect("the attack succeeds without the check").len(), 1);
}

/// ID-01, end to end: the operator lists a device of theirs.
#[test]
fn sr_018_a_ghost_device_is_refused_by_the_client() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let own = world.insider();
    let ghost = sr_keys::DeviceKeys::generate(&mut rng());
    let op = sr_trust::Op::AddDevice {
        device: ghost.info(),
        transcript: [0; 32],
        key: sr_trust::AccountKey { key_block: [7; 32], ..own.account.key().clone() },
    };
    let names = [(sr_trust::Role::Device, own.device.id())];
    let body = own.account.next(op, &names, 1).expect("allowed");
    let pop = sr_trust::pop(&ghost.signing(), own.account.id(), &ghost.info(), &[0; 32]);
    let forged = body.sign(&[(sr_trust::Role::Device, &ghost.signing())], pop);
    let row = params![own.account.id().0, 1, encode(&forged)];
    world.database().execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row).expect("runs");
    let refused = world.client().snapshots();
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::BlockForged))),
        "{refused:?}"
    );
    // A backup encrypts nothing to it either.
    assert!(matches!(backup(&mut world.client()), Err(ClientError::Misbehaviour(_))));
}

/// ID-12, end to end: the operator puts a key block of theirs in the place of the account's.
#[test]
fn sr_023_a_swapped_account_key_is_refused_by_the_client() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    // The first device has not seen the key block of the addition yet: it did make it. The second
    // one meets a swapped one when the first is renewed by a removal.
    drop(world.link("tablet"));
    world.client().revoke_device("tablet").expect("takes out");
    let block: Vec<u8> = world
        .database()
        .query_row("SELECT key_block FROM accounts", [], |row| row.get(0))
        .expect("has one");
    let mut changed = block.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    world.database().execute("UPDATE accounts SET key_block = ?1", [&changed]).expect("runs");
    let refused = world.open("phone").snapshots();
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::KeyBlockSwapped))),
        "{refused:?}"
    );
    world.database().execute("UPDATE accounts SET key_block = ?1", [&block]).expect("runs");
    assert_eq!(world.open("phone").snapshots().expect("lists").len(), 1, "nothing is stuck");
}

/// A restored device is shown an account without the newest changes.
#[test]
fn sr_029_an_account_without_the_promised_block_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    world.client().revoke_device("phone").expect("takes out");
    // Made at change 2, which the operator then leaves out; the kit's own change with it.
    let kit = world.with_kit();
    world.database().execute("DELETE FROM blocks WHERE seq >= 2", []).expect("runs");
    let refused = world.restore_kit(&kit, "new", clock());
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::ChainNotAsPromised))),
        "{refused:?}"
    );
    assert!(!world.other("new").exists());
    // A client without the check comes further, to an account that has no such kit.
    danger_skip(&[Misbehaviour::ChainNotAsPromised]);
    let without = world.restore_kit(&kit, "new", clock());
    danger_skip(&[]);
    assert!(matches!(without, Err(ClientError::KitWrong { .. })), "{without:?}");
}

/// ST-06: the envelope, changed.
#[test]
fn sr_028_a_changed_envelope_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    let kit = world.with_kit();
    let envelope: Vec<u8> = world
        .database()
        .query_row("SELECT envelope FROM envelopes", [], |row| row.get(0))
        .expect("has one");
    for place in (0..envelope.len()).step_by(37) {
        let mut changed = envelope.clone();
        changed[place] ^= 1;
        world.database().execute("UPDATE envelopes SET envelope = ?1", [changed]).expect("runs");
        let refused = world.restore_kit(&kit, "new", clock());
        assert!(
            matches!(refused, Err(ClientError::Misbehaviour(Misbehaviour::EnvelopeAltered))),
            "{refused:?}"
        );
    }
    assert!(!world.other("new").exists());
}

/// What is not signed by the account is not stored by an honest server either.
#[test]
fn an_honest_server_takes_no_block_that_clients_would_refuse() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    drop(world.link("phone"));
    let blocks = world.blocks();
    assert_eq!(blocks.len(), 2);
    let parsed: Vec<Block> = blocks.iter().map(|b| Block::parse(b).expect("parses")).collect();
    assert_eq!(parsed[1].body.previous, parsed[0].hash());
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// With the paper, a thief of the only device is stopped and taken out at once.
#[test]
fn the_paper_wins_against_a_single_stolen_device() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    drop(world.link("phone"));
    // The thief, on the laptop, begins to replace the kit.
    let mut thief = Client::open(&world.profile(), world.clock()).expect("opens");
    let (theirs, _) = thief.new_kit().expect("makes");
    thief.set_kit_later(&theirs).expect("begins");
    drop(thief);
    let mut owner = world.restore_kit(&kit, "new", world.clock()).expect("restores");
    let requests = owner.requests().expect("lists");
    owner.veto(requests[0].number).expect("the paper stops it");
    owner.revoke_device("laptop").expect("the paper takes one out at once");
    let refused = world.client().snapshots();
    assert!(matches!(refused, Err(ClientError::DeviceRemoved)), "{refused:?}");
    world.ahead.store(4 * DAY_S, Ordering::SeqCst);
    assert!(owner.drill(&theirs).is_err() && owner.drill(&kit).is_ok());
    assert_eq!(owner.snapshots().expect("reads").len(), 1);
    assert_eq!(world.open("phone").snapshots().expect("reads").len(), 1);
}

/// What ends a wait is not stored by an honest server before the wait is over, so that whoever may
/// stop it still can.
#[test]
fn an_honest_server_makes_a_wait_last() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    let (ours, ahead) = (world.clock(), Arc::clone(&world.ahead));
    let mut thief = world.restore_kit(&kit, "thief", Arc::clone(&ours)).expect("reads");
    thief.start_recovery(None).expect("begins");
    drop(thief);
    // The thief's own clock runs ahead; the server's does not.
    let theirs: Clock = Arc::new(move || ours() + 4 * DAY_S);
    let mut thief = Client::open(&world.other("thief"), theirs).expect("opens");
    thief.add_folder(&world.folder()).expect("adds");
    assert_eq!(thief.snapshots().expect("reads").len(), 1);
    let refused = backup(&mut thief);
    assert!(matches!(refused, Err(ClientError::RecoveryWaits { .. })), "{refused:?}");
    assert_eq!(thief.chain().expect("verifies").devices, 1);
    drop(thief);
    let mut owner = world.client();
    let requests = owner.requests().expect("lists");
    owner.veto(requests[0].number).expect("can still stop it");
    ahead.store(4 * DAY_S, Ordering::SeqCst);
    assert_eq!(owner.chain().expect("verifies").devices, 1);
}

/// A head by a thief that a device had accepted before the removal counts no more after it.
#[test]
fn a_head_accepted_before_a_removal_is_judged_again() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    drop(world.link("phone"));
    drop(world.link("tablet"));
    // The laptop has not seen what the phone writes when it takes the phone out.
    let folder = world.folder();
    let accepted = world.stored_head();
    let mut phone = world.open("phone");
    phone.add_folder(&folder).expect("adds");
    backup(&mut phone).expect("backs up");
    drop(phone);
    let by_phone = world.stored_head();
    assert_eq!(world.open("tablet").snapshots().expect("reads").len(), 2);
    let space = world.insider().vault.space();
    let statement = "DELETE FROM heads WHERE space = ?1 AND seq = ?2";
    world.database().execute(statement, params![space.0, by_phone.seq]).expect("runs");
    assert_eq!(world.stored_head(), accepted);
    world.client().revoke_device("phone").expect("takes out");
    world.show_head(&by_phone);
    assert_eq!(world.snapshots().len(), 1, "read as the anchor");
    assert_eq!(world.open("tablet").snapshots().expect("reads").len(), 1, "and so by the tablet");
    world.backup();
    assert_eq!(world.open("tablet").snapshots().expect("reads").len(), 2);
    // One that is linked only now sees the same.
    assert_eq!(world.link("new").snapshots().expect("reads").len(), 2);
}

/// The keys at rest, under a passphrase.
#[test]
fn locked_keys_open_for_the_passphrase_only() {
    let world = World::new();
    let dir = world.profile();
    let cost = sr_crypto::Cost { memory_kib: 64, passes: 1 };
    assert_eq!(sr_client::key_lock(&dir).expect("reads"), KeyLock::None);
    sr_client::set_passphrase(&dir, "long words", cost).expect("locks");
    assert_eq!(sr_client::key_lock(&dir).expect("reads"), KeyLock::Locked);
    let refused = Client::open(&dir, clock());
    assert!(matches!(refused, Err(ClientError::KeysLocked)), "{refused:?}");
    let refused = sr_client::unlock(&dir, "other words");
    assert!(matches!(refused, Err(ClientError::PassphraseWrong)), "{refused:?}");
    sr_client::unlock(&dir, "long words").expect("opens");
    assert_eq!(sr_client::key_lock(&dir).expect("reads"), KeyLock::Open);
    assert!(world.client().chain().is_ok());
    sr_client::lock(&dir).expect("locks");
    sr_client::lock(&dir).expect("locks twice");
    assert!(matches!(Client::open(&dir, clock()), Err(ClientError::KeysLocked)));
    sr_client::remove_passphrase(&dir, "long words").expect("opens for good");
    assert_eq!(sr_client::key_lock(&dir).expect("reads"), KeyLock::None);
    assert!(world.client().chain().is_ok());
}

/// Everything is gone, the kit too; two of three friends help, and no server knows who they are.
#[test]
fn two_of_three_contacts_bring_everything_back() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("a", "precious");
    world.backup();
    let kit = world.with_kit();
    let names = ["ben", "cleo", "dan"];
    let mut cards = Vec::new();
    for name in names {
        let invite = world.invite();
        let mut friend =
            Client::join(&world.other(name), &invite, Some(name), name, clock()).expect("joins");
        let card = friend.contact_card().expect("has one").to_string();
        cards.push((name.to_owned(), card.parse().expect("reads")));
    }
    let mut client = world.client();
    let too_few = client.set_contacts(&kit, 1, &cards);
    assert!(matches!(too_few, Err(ClientError::ContactsWrong)));
    let twice = [cards[0].clone(), cards[0].clone()];
    assert!(matches!(client.set_contacts(&kit, 2, &twice), Err(ClientError::ContactsWrong)));
    let (stranger, _) = client.new_kit().expect("makes");
    let refused = client.set_contacts(&stranger, 2, &cards);
    assert!(matches!(refused, Err(ClientError::KitWrong { .. })));
    let shares = client.set_contacts(&kit, 2, &cards).expect("sets");
    assert_eq!(client.contacts().expect("lists").0, 2);
    client.drill(&kit).expect("the kit is still in force");
    drop(client);
    // Each takes their own share only.
    for (name, share) in names.iter().zip(&shares) {
        let mut friend = world.open(name);
        friend.accept_share(share).expect("keeps");
        let other = shares.iter().find(|other| *other != share).expect("another");
        assert!(matches!(friend.accept_share(other), Err(ClientError::ContactText)));
        assert!(matches!(friend.accept_share(&share[..99]), Err(ClientError::ContactText)));
    }
    // A friend's key has changed since: the share opens all the same.
    let mut ben = world.open("ben");
    let (bens, _) = ben.new_kit().expect("makes");
    ben.set_kit(&bens, None).expect("sets");
    drop(ben);

    let account = world.insider().account.id();
    fs::remove_dir_all(world.profile()).expect("removes");
    let new = world.other("new");
    let request = Client::request_help(&new).expect("asks");
    assert_eq!(Client::request_help(&new).expect("asks again"), request);
    let typed: sr_client::HelpRequest = request.to_string().parse().expect("reads");
    let answers: Vec<String> = ["ben", "dan"]
        .iter()
        .map(|name| world.open(name).help(&typed, account).expect("helps"))
        .collect();
    let restore =
        |answers: &[String]| Client::restore_contacts(&new, answers, "new", world.clock());
    for wrong in [&answers[..1], &[answers[0].clone(), answers[0].clone()], &[]] {
        let refused = restore(wrong);
        assert!(matches!(refused, Err(ClientError::SharesWrong { .. })), "{refused:?}");
    }
    // An answer is for the device that asked.
    let thief = Client::request_help(&world.other("thief")).expect("asks");
    let for_thief = world.open("cleo").help(&thief, account).expect("helps");
    assert!(matches!(restore(&[for_thief, answers[0].clone()]), Err(ClientError::ContactText)));
    let mut client = restore(&answers).expect("restores");
    let target = Target::Folder(world.target());
    client.restore("latest", None, &target, &Progress::default()).expect("reads at once");
    assert_same_tree(&world.folder(), &world.target());
    client.add_folder(&world.folder()).expect("adds");
    client.start_recovery(None).expect("begins");
    assert!(matches!(backup(&mut client), Err(ClientError::RecoveryWaits { .. })));
    world.ahead.store(3 * DAY_S + 60, Ordering::SeqCst);
    backup(&mut client).expect("is a device of the account");
    // New contacts: the old shares count no more.
    client.set_contacts(&kit, 2, &cards).expect("sets anew");
    drop(client);
    let again = world.other("again");
    let request = Client::request_help(&again).expect("asks");
    let answers: Vec<String> = ["ben", "dan"]
        .iter()
        .map(|name| world.open(name).help(&request, account).expect("helps"))
        .collect();
    let refused = Client::restore_contacts(&again, &answers, "again", world.clock());
    assert!(matches!(refused, Err(ClientError::ContactsReplaced)), "{refused:?}");
    // The server knows of no contact: what it holds of the account does not name their accounts.
    let friend = Insider::of(&world.other("ben")).account.id();
    let blocks = world.blocks_of(account).concat();
    assert!(!blocks.windows(32).any(|window| window == friend.0));
}
