//! What is added waits until the log shows it, what is taken out does not; waits are counted by the witnesses' time; and
//! nothing is sealed to anybody but by the keys that their devices have signed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use rusqlite::params;
use sr_client::{
    Client, ClientError, Clock, ContactCard, DeviceKind, Kit, Progress, evidence_files,
};
use sr_keys::{AccountKeys, DeviceKeys};
use sr_trust::{Accused, Block, Change, Evidence, Op, Role, Verified};
use sr_wire::{Misbehaviour, encode};

use crate::{
    accounts::{DAY_S, backup},
    attacks::{ONE_AT_A_TIME, attack},
    keep::{client, prune},
    witnesses::{Watch, until, watched},
    world::{Insider, World, clock},
};

/// A clock that somebody has set forward.
fn late(days: u64) -> Clock {
    Arc::new(move || clock()() + days * DAY_S)
}

/// AV-02: who sets this device's clock forward ends no wait of an account that asks witnesses.
#[test]
fn a_recovery_waits_by_the_witnesses_time() {
    let (world, _watch) = watched();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    world.settled();
    let mut thief = world.restore_kit(&kit, "thief", world.clock()).expect("restores");
    thief.start_recovery(None).expect("begins");
    world.ahead.store(4 * DAY_S, Ordering::SeqCst);
    thief.add_folder(&world.folder()).expect("adds");
    until("it does not count", || backup(&mut thief).ok());
    // The laptop was away. Its clock runs ahead of everybody's.
    for days in [4, 8, 12] {
        let mut laptop = Client::open(&world.profile(), late(days)).expect("opens");
        assert_eq!(laptop.chain().expect("verifies").devices, 1, "day {days}");
        let waiting = laptop.waiting().expect("it waits");
        assert!(waiting.until_s > clock()() + 6 * DAY_S, "from when witnesses have said so");
    }
    world.ahead.store(8 * DAY_S, Ordering::SeqCst);
    let mut laptop = Client::open(&world.profile(), world.clock()).expect("opens");
    until("it does not count here", || (laptop.chain().expect("reads").devices == 2).then_some(()));
    assert_eq!(laptop.waiting(), None);
}

/// AV-02: nor does who sets it back, while the server shows beginning and end at once; and whatever else came before,
/// each device goes on when the time is over.
#[test]
fn a_wait_that_was_not_seen_to_begin_is_waited_for() {
    let (world, _watch) = watched();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    drop(world.link("phone"));
    world.settled();
    let away = world.dir.path().join("away");
    crate::log::copy(&world.other("phone"), &away);
    // What comes before has other keys, which no device of then can be given alone.
    drop(world.link("tablet"));
    world.settled();
    let mut paper = world.restore_kit(&kit, "paper", world.clock()).expect("restores");
    paper.start_recovery(None).expect("begins");
    world.ahead.store(4 * DAY_S, Ordering::SeqCst);
    paper.add_folder(&world.folder()).expect("adds");
    until("it does not count", || backup(&mut paper).ok());
    drop(paper);
    let early: Clock = Arc::new(|| clock()() - 4 * DAY_S);
    let mut phone = Client::open(&away, early).expect("opens");
    assert!(phone.chain().expect("verifies").devices <= 3);
    assert!(phone.waiting().is_some());
    drop(phone);
    let mut phone = Client::open(&away, world.clock()).expect("opens");
    phone.chain().expect("verifies");
    let waiting = phone.waiting().expect("it waits");
    assert!(waiting.until_s > clock()() + 6 * DAY_S, "from when witnesses have said so");
    drop(phone);
    world.ahead.store(8 * DAY_S, Ordering::SeqCst);
    let mut phone = Client::open(&away, world.clock()).expect("opens");
    until("it does not count here", || (phone.chain().expect("reads").devices == 4).then_some(()));
}

/// Whose witnesses are gone for good comes back from paper all the same, by its own clock and a person's word.
#[test]
fn a_kit_outlives_its_witnesses() {
    let (world, mut watch) = watched();
    world.write("a", "1");
    world.backup();
    let kit = world.with_kit();
    world.settled();
    watch.stop();
    world.ahead.store(2 * DAY_S, Ordering::SeqCst);
    let refused = world.restore_kit(&kit, "paper", world.clock()).map(drop);
    assert!(matches!(refused, Err(ClientError::Unwitnessed(_))), "{refused:?}");
    let mut paper = Client::open(&world.other("paper"), world.clock()).expect("opens");
    let rollback = paper.rollback().expect("says so");
    assert!(rollback.unwitnessed.is_some());
    paper.accept_rollback(rollback).expect("goes on");
    paper.start_recovery(None).expect("begins");
    world.ahead.fetch_add(3 * DAY_S + 60, Ordering::SeqCst);
    paper.add_folder(&world.folder()).expect("adds");
    backup(&mut paper).expect("is a device of the account");
}

/// AV-02: nor does anything that was forgotten go before its time.
#[test]
fn a_prune_waits_by_the_witnesses_time() {
    let (world, _watch) = watched();
    world.write("a", "1");
    world.backup();
    let first = world.client().snapshots().expect("lists")[0].id.to_string();
    world.write("a", "2");
    world.backup();
    client(&world).forget(&[first]).expect("forgets");
    for days in 1..=5 {
        let mut laptop = Client::open(&world.profile(), late(days)).expect("opens");
        laptop.set_uptime(Arc::new(|| None));
        let report = laptop.prune(false, &Progress::default()).expect("prunes");
        assert_eq!((report.snapshots, report.waiting), (0, 1), "day {days}");
    }
    let pruned = (0..6).any(|_| {
        let day = world.ahead.fetch_add(DAY_S, Ordering::SeqCst) / DAY_S;
        until("witnesses do not cosign it", || {
            let status = client(&world).status().expect("reads");
            let cosigned_s = status.log?.cosigned_s?;
            (cosigned_s > clock()() + day * DAY_S + DAY_S / 2).then_some(())
        });
        prune(&world).snapshots == 1
    });
    assert!(pruned, "it goes when its days are over");
}

fn is_not_logged<T>(done: Result<T, ClientError>) {
    let refused = done.map(drop);
    assert!(matches!(refused, Err(ClientError::NotLogged { .. })), "{refused:?}");
}

/// A device that the log does not show gets nothing, and nothing is built beside it; but whoever was stolen is taken out.
#[test]
fn additions_wait_for_the_log_and_removals_do_not() {
    let (world, mut watch) = watched();
    world.write("a", "1");
    world.backup();
    drop(world.link("stolen"));
    drop(world.link("phone"));
    world.settled();
    world.settled_as(&world.other("phone"));
    watch.stop();
    // Nobody sees this one.
    let (linking, words) = world.link_to_the_end(DeviceKind::Full);
    let tablet = world.other("tablet");
    drop(linking.finish(&words, &tablet, "tablet"));
    let mut laptop = world.client();
    is_not_logged(laptop.new_kit());
    is_not_logged(laptop.link("0000-0000").map(drop));
    assert_eq!(laptop.new_devices().expect("lists"), [], "it has added it itself");
    drop(laptop);
    let mut phone = world.open("phone");
    phone.snapshots().expect("reads");
    let news = phone.new_devices().expect("lists");
    let id = DeviceKeys::from_file(&fs::read(tablet.join("keys")).expect("reads"));
    let id = id.expect("parses").id();
    assert_eq!(news.iter().map(|(device, _)| *device).collect::<Vec<_>>(), [id]);
    let revoked = phone.revoke_device("stolen").expect("takes out");
    assert_eq!(revoked.left_out, [id]);
    drop(phone);
    world.client().snapshots().expect("the others have the new keys");
    let refused = Client::open(&tablet, clock()).expect("opens").snapshots();
    assert!(matches!(refused, Err(ClientError::LeftOut)), "{refused:?}");
    let refused = world.open("stolen").snapshots();
    assert!(matches!(refused, Err(ClientError::DeviceRemoved)), "{refused:?}");
    // It is taken out too, and linked again.
    let _watch = Watch::start(&world.dir.path().join("witness"), &world, watch.address);
    world.ahead.fetch_add(120, Ordering::SeqCst);
    world.settled();
    let mut laptop = world.client();
    let revoked = laptop.revoke_device(&id.to_string()).expect("takes out");
    assert_eq!(revoked.left_out, []);
    drop(laptop);
    world.settled();
    assert_eq!(world.link("tablet again").snapshots().expect("reads").len(), 1);
}

/// Somebody who chooses the laptop as a contact, and their kit.
fn owner(world: &mut World) -> (PathBuf, Kit) {
    let (dir, invite) = (world.other("owner"), world.invite());
    let mut owner = Client::join(&dir, &invite, Some("ann"), "owner", clock()).expect("joins");
    let (kit, _) = owner.new_kit().expect("makes");
    owner.set_kit(&kit, None).expect("sets");
    (dir, kit)
}

fn contacts(world: &mut World) -> Vec<(String, ContactCard)> {
    let (dir, invite) = (world.other("cleo"), world.invite());
    let mut cleo = Client::join(&dir, &invite, None, "cleo", clock()).expect("joins");
    let cards = [("ben", world.client().contact_card()), ("cleo", cleo.contact_card())];
    cards.map(|(name, card)| (name.to_owned(), card.expect("has one"))).into()
}

fn choose(
    owner: &Path,
    kit: &Kit,
    contacts: &[(String, ContactCard)],
) -> Result<Vec<String>, ClientError> {
    let mut shares = Vec::new();
    Client::open(owner, clock())?.set_contacts(kit, 2, contacts, |texts| {
        shares = texts.to_vec();
        Ok(())
    })?;
    Ok(shares)
}

/// The same, where what concerns one contact only is an error like others.
fn choose_or_refuse(
    owner: &Path,
    kit: &Kit,
    contacts: &[(String, ContactCard)],
) -> Result<Vec<String>, ClientError> {
    choose(owner, kit, contacts).map_err(|error| match error {
        ClientError::Contact { refused, name } => {
            assert_eq!(name, "ben");
            refused.into()
        }
        error => error,
    })
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// Makes the server show a block of `op` that `by` has signed as the first device of the laptop's account.
fn forge(world: &World, op: Op, by: &DeviceKeys) {
    let own = world.insider();
    let body = own.account.next(op, &[(Role::Device, own.device.id())], 1).expect("is allowed");
    let seq = body.seq;
    let forged = body.sign(&[(Role::Device, &by.signing())], Vec::new());
    let row = params![own.account.id().0, seq, encode(&forged)];
    world.database().execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row).expect("runs");
}

/// ID-01, the peer is a recovery contact: the operator puts a device, and a key, of their own into a contact's account.
#[test]
fn sr_018_a_contacts_share_is_sealed_to_nobody_but_their_devices() {
    let ghost = DeviceKeys::generate(&mut rng());
    let opened = attack(&[Misbehaviour::BlockForged], || {
        let mut world = World::new();
        let (dir, kit) = owner(&mut world);
        let contacts = contacts(&mut world);
        let phone = Insider::of(&{
            drop(world.link("phone"));
            world.other("phone")
        });
        world.settled();
        let own = world.insider();
        let device = phone.device.id();
        // Removals count at once: so this one needs no log.
        let theirs = AccountKeys::generate(&mut rng()).account_key([7; 32]);
        let generation = own.account.key().generation + 1;
        let key = sr_trust::AccountKey { generation, ..theirs };
        forge(&world, Op::RemoveDevice { device, anchors: [0; 32], key }, &ghost);
        let shares = choose_or_refuse(&dir, &kit, &contacts);
        assert_eq!(evidence_files(&dir).expect("lists"), Vec::<PathBuf>::new());
        let seals = Client::open(&dir, clock()).expect("opens").status().expect("reads").sealed;
        assert!(seals.is_none(), "a contact stops nobody");
        let shares = shares?;
        world
            .database()
            .execute("DELETE FROM blocks WHERE account = ?1 AND seq > 1", [own.account.id().0])
            .expect("runs");
        Ok(world.client().accept_share(&shares[0]))
    });
    let opened = opened.map(|kept| kept.name);
    assert!(matches!(opened, Err(ClientError::ContactText)), "somebody else's: {opened:?}");
}

/// What a contact has added counts when the log shows it, what they have taken out at once.
#[test]
fn a_contacts_additions_wait_for_the_log() {
    let (mut world, mut watch) = watched();
    let (dir, kit) = owner(&mut world);
    let contacts = contacts(&mut world);
    drop(world.link("phone"));
    world.settled();
    world.settled_as(&dir);
    watch.stop();
    world.client().revoke_device("phone").expect("takes out");
    let shares = choose(&dir, &kit, &contacts).expect("a removal counts");
    let kept = world.client().accept_share(&shares[0]).expect("by the newest key");
    assert_eq!(kept.name, "ann");
    let mut watch = Watch::start(&world.dir.path().join("witness"), &world, watch.address);
    world.ahead.fetch_add(120, Ordering::SeqCst);
    world.settled();
    world.settled_as(&dir);
    watch.stop();
    drop(world.link_to_the_end(DeviceKind::Full));
    is_not_logged(choose(&dir, &kit, &contacts));
}

/// Contacts are on other servers, too, and what was shown of them must not change.
#[test]
fn a_contact_on_another_server_is_looked_up_there() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (theirs, _watch) = watched();
    let mut world = World::new();
    let (dir, kit) = owner(&mut world);
    let mut contacts = contacts(&mut world);
    drop(theirs.link("phone"));
    theirs.settled();
    contacts[0].1 = theirs.client().contact_card().expect("has one");
    let shares = choose(&dir, &kit, &contacts).expect("looks up");
    theirs.client().accept_share(&shares[0]).expect("opens");
    let mut owner = Client::open(&dir, clock()).expect("opens");
    let (need, kept) = owner.contacts().expect("lists");
    assert_eq!((need, kept[0].name(), kept[0].seq), (2, "ben".into(), 1));
    assert!(!owner.contact_has_removed(&kept[0]).expect("looks up"));
    theirs.client().revoke_device("phone").expect("takes out");
    assert!(owner.contact_has_removed(&kept[0]).expect("looks up"));
    // SR-029: their server shows them as they were before that.
    let account = theirs.insider().account.id();
    theirs
        .database()
        .execute("DELETE FROM blocks WHERE account = ?1 AND seq > 0", [account.0])
        .expect("runs");
    let refused = owner.contact_has_removed(&kept[0]);
    let is_it = |refused: &Misbehaviour| *refused == Misbehaviour::ChainNotAsPromised;
    let is_it = matches!(&refused, Err(ClientError::Contact { refused, .. }) if is_it(refused));
    assert!(is_it, "{refused:?}");
    // Their own server goes on.
    owner.add_folder(&world.folder()).expect("adds");
    backup(&mut owner).expect("backs up");
    drop(owner);
    // AV-05: they sign another history, on purpose, to stop all who know them.
    theirs
        .database()
        .execute("DELETE FROM blocks WHERE account = ?1 AND seq > 0", [account.0])
        .expect("runs");
    let insider = theirs.insider();
    let first =
        Verified::verify(account, &[Block::parse(&theirs.blocks_of(account)[0]).expect("is")]);
    let first = first.expect("verifies");
    let names = [(Role::Device, insider.device.id())];
    let op = Op::DelayStart { change: Change::Pin([1; 32]) };
    let body = first.next(op, &names, 1).expect("is allowed");
    let other = body.sign(&[(Role::Device, &insider.device.signing())], Vec::new());
    let row = params![account.0, 1, encode(&other)];
    theirs.database().execute("INSERT INTO blocks VALUES (?1, ?2, ?3)", row).expect("runs");
    let mut owner = Client::open(&dir, clock()).expect("opens");
    let refused = owner.contact_has_removed(&kept[0]);
    let is_it = |refused: &Misbehaviour| *refused == Misbehaviour::ChainForked;
    let is_it = matches!(&refused, Err(ClientError::Contact { refused, .. }) if is_it(refused));
    assert!(is_it, "{refused:?}");
    assert_eq!(owner.status().expect("reads").sealed, None, "that conversation only");
    backup(&mut owner).expect("backs up");
    drop(owner);
    let files = evidence_files(&dir).expect("lists");
    let proof = Evidence::parse(&fs::read(&files[0]).expect("reads")).expect("parses");
    let device = insider.device.id();
    assert_eq!(proof.verify(), Ok(Accused::Device(account, device)), "{}", files.len());
    // A card of another server at that address.
    let (_, mut card) = contacts[0].clone();
    card.card = [9; 32];
    let refused = choose(&dir, &kit, &[("ben".into(), card), contacts[1].clone()]);
    let is_it = |refused: &Misbehaviour| *refused == Misbehaviour::CardMismatch;
    let is_it = matches!(&refused, Err(ClientError::Contact { refused, .. }) if is_it(refused));
    assert!(is_it, "{refused:?}");
}

/// ID-11: a server that shows a contact another card than this account is found out when the two compare.
#[test]
fn a_card_made_for_one_person_is_found_when_two_compare() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let (dir, kit) = owner(&mut world);
    let mut contacts = contacts(&mut world);
    let mut theirs = World::bare();
    world.put_back(|data| {
        theirs.put_back(|copied| {
            fs::remove_dir_all(copied).expect("deletes");
            crate::log::copy(data, copied);
        });
    });
    // Each has a witness that the other has not.
    let _watches = [world.watch("witness"), theirs.watch("witness")];
    let invite = theirs.invite();
    let ben = theirs.other("ben");
    let mut ben = Client::join(&ben, &invite, None, "ben", clock()).expect("joins");
    contacts[0].1 = ben.contact_card().expect("has one");
    drop(ben);
    world.settled_as(&dir);
    let with_its_log = contacts.clone();
    contacts[0].1.log = Vec::new().into();
    let refused = choose(&dir, &kit, &contacts);
    let is_it = |refused: &Misbehaviour| *refused == Misbehaviour::CardMismatch;
    assert!(matches!(&refused, Err(ClientError::Misbehaviour(m)) if is_it(m)), "{refused:?}");
    let files = evidence_files(&dir).expect("lists");
    let proof = Evidence::parse(&fs::read(&files[0]).expect("reads")).expect("parses");
    assert_eq!((proof.kind(), proof.verify().is_ok(), files.len()), (13, true, 1));
    assert!(Client::open(&dir, clock()).expect("opens").status().expect("reads").sealed.is_some());
    // What the contact was shown of the log says it by itself.
    let refused = choose(&dir, &kit, &with_its_log);
    let is_it = |refused: &Misbehaviour| *refused == Misbehaviour::LogForked;
    assert!(matches!(&refused, Err(ClientError::Misbehaviour(m)) if is_it(m)), "{refused:?}");
}

/// A log of another server counts as far as the contact's own witnesses have cosigned it.
#[test]
fn a_contacts_log_needs_their_witnesses() {
    let (mut theirs, mut watch) = watched();
    theirs.settled();
    let mut world = World::new();
    let (dir, kit) = owner(&mut world);
    let mut contacts = contacts(&mut world);
    contacts[0].1 = theirs.client().contact_card().expect("has one");
    choose(&dir, &kit, &contacts).expect("they have cosigned it");
    watch.stop();
    let (invite, other) = (theirs.invite(), theirs.other("other"));
    drop(Client::join(&other, &invite, None, "other", clock()));
    theirs.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    until("it is relied on", || match choose(&dir, &kit, &contacts) {
        Err(ClientError::Unwitnessed(_)) => Some(()),
        done => done.map(|_| None).expect("was cosigned before"),
    });
}
