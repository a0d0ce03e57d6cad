//! Several devices, one taken out, everything from paper; and what the operator tries with them.

use std::{fs, path::PathBuf, sync::PoisonError};

use rusqlite::params;
use sr_client::{Client, ClientError, Clock, DeviceKind, Kit, Linking, Progress, Target};
use sr_store::Fault;
use sr_trust::Block;
use sr_vault::{
    head::{HeadPlace, NewHead},
    manifest::Elements,
};
use sr_wire::{Misbehaviour, PackId, check::danger_skip, encode};

use crate::{
    attacks::ONE_AT_A_TIME,
    world::{Insider, World, assert_same_tree, clock},
};

pub(crate) const DAY_S: u64 = 86_400;

impl World {
    pub(crate) fn address(&self) -> String {
        fs::read_to_string(self.dir.path().join("port"))
            .map(|port| format!("127.0.0.1:{port}"))
            .expect("runs")
    }

    pub(crate) fn other(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Links a new device with the first one, word by word.
    pub(crate) fn link(&self, name: &str) -> Client {
        self.link_as(DeviceKind::Full, name)
    }

    pub(crate) fn link_as(&self, kind: DeviceKind, name: &str) -> Client {
        let (linking, words) = self.link_to_the_end(kind);
        linking.finish(&words, &self.other(name), name).expect("finishes")
    }

    /// Links a new device up to the words that are to be typed on it.
    pub(crate) fn link_to_the_end(&self, kind: DeviceKind) -> (Linking, Vec<String>) {
        let mut linking = Linking::begin(&self.address(), kind, clock()).expect("begins");
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
        (linking, words_of_new.into_iter().map(str::to_owned).collect())
    }

    pub(crate) fn open(&self, name: &str) -> Client {
        Client::open(&self.other(name), clock()).expect("opens")
    }

    pub(crate) fn with_kit(&self) -> Kit {
        let mut client = self.client();
        let (kit, _) = client.new_kit().expect("makes");
        client.set_kit(&kit, None).expect("sets");
        kit
    }

    pub(crate) fn restore_kit(
        &self,
        kit: &Kit,
        name: &str,
        clock: Clock,
    ) -> Result<Client, ClientError> {
        Client::restore_kit(&self.other(name), &self.address(), kit, name, clock)
    }

    /// The account's blocks, as the server has them.
    fn blocks(&self) -> Vec<Vec<u8>> {
        self.blocks_of(self.insider().account.id())
    }

    pub(crate) fn blocks_of(&self, account: sr_wire::AccountId) -> Vec<Vec<u8>> {
        let database = self.database();
        let mut query = database
            .prepare("SELECT block FROM blocks WHERE account = ?1 ORDER BY seq")
            .expect("query");
        let blocks = query.query_map([account.0], |row| row.get(0)).expect("blocks");
        blocks.map(|block| block.expect("block")).collect()
    }
}

pub(crate) fn backup(client: &mut Client) -> Result<(), ClientError> {
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
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole(), "{report:?}");
}

/// A wrong word adds nobody; after three, the old device links nothing for an hour.
#[test]
fn a_wrong_word_adds_nobody() {
    let world = World::new();
    let mut client = world.client();
    let wrong: Vec<String> = ["zoo", "zoo", "zoo"].map(str::to_owned).to_vec();
    for _ in 0..3 {
        let mut linking =
            Linking::begin(&world.address(), DeviceKind::Full, clock()).expect("begins");
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
    let linking = Linking::begin(&world.address(), DeviceKind::Full, clock()).expect("begins");
    let refused = client.link(&linking.code());
    assert!(matches!(refused, Err(ClientError::LinkLocked { .. })), "{refused:?}");
    assert_eq!(client.devices().expect("lists").len(), 1);
    assert!(matches!(client.link("0000-000"), Err(ClientError::LinkLocked { .. })));
}

/// On the new device, nothing is made before the right words.
#[test]
fn the_new_device_takes_nothing_before_the_words() {
    let world = World::new();
    let mut linking = Linking::begin(&world.address(), DeviceKind::Full, clock()).expect("begins");
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
        adds: Elements::default(),
    }
    .seal(&stolen.vault, &stolen.account, &stolen.device.signing(), &mut rng());
    world.show_head(&forged);
    let refused = world.client().snapshots();
    // It names an earlier place in the account's history than the head that it follows.
    assert_refused(&refused, Misbehaviour::PlaceMismatch);
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
    world.faults.set(Fault::Full, 0);
    let refused = world.client().snapshots();
    assert_refused(&refused, Misbehaviour::ChainRolledBack);
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
    assert_refused(&refused, Misbehaviour::ChainForked);
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
    assert_refused(&refused, Misbehaviour::BlockForged);
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
    assert_refused(&refused, Misbehaviour::KeyBlockSwapped);
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
    assert_refused(&refused, Misbehaviour::ChainNotAsPromised);
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
        assert_refused(&refused, Misbehaviour::EnvelopeAltered);
    }
    assert!(!world.other("new").exists());
}

/// ID-11: somebody who has all of the server's data answers in its place. The address that is typed says
/// nothing, the envelope says which server is meant.
#[test]
fn sr_010_a_kit_restores_from_the_server_that_it_was_made_at_only() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("a", "precious");
    world.backup();
    let kit = world.with_kit();
    world.tamper(|data| {
        fs::write(data.join("identity.key"), [7; 32]).expect("writes");
        // The log begins anew, under the keys of the other one.
        let database = rusqlite::Connection::open(data.join("strongroom.db")).expect("opens");
        database.execute_batch("DELETE FROM checkpoints; DELETE FROM log;").expect("forgets");
    });
    let refused = world.restore_kit(&kit, "new", clock());
    assert_refused(&refused, Misbehaviour::CardMismatch);
    assert!(!world.other("new").exists());
    danger_skip(&[Misbehaviour::CardMismatch]);
    let restored = world.restore_kit(&kit, "new", clock());
    danger_skip(&[]);
    assert!(restored.is_ok(), "without the check it takes the place: {restored:?}");
}

/// The client must have refused with the number of this check.
fn assert_refused<T: std::fmt::Debug>(result: &Result<T, ClientError>, check: Misbehaviour) {
    assert!(matches!(result, Err(ClientError::Misbehaviour(m)) if *m == check), "{result:?}");
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
