//! Everything back from paper or with friends, what waits until somebody could object, and keys at rest.

use std::{
    fs,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use sr_client::{Client, ClientError, Clock, KeyLock, Kit, Progress, RequestKind, Target};
use sr_wire::{Misbehaviour, SpaceKeys, api::ErrorCode, decode};

use crate::{
    accounts::{DAY_S, backup},
    attacks::ONE_AT_A_TIME,
    world::{Insider, World, assert_same_tree, clock},
};

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

/// A thief with a device gives the spaces other rights before they are taken out. By the kit, and by
/// nothing else, the account has them back.
#[test]
fn with_the_kit_a_faster_thief_loses() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.write("a", "1");
    world.backup();
    let shut_out = |world: &World| {
        let database = world.database();
        let mut query = database.prepare("SELECT space, keys FROM spaces").expect("query");
        let rows = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)));
        let spaces: Vec<(Vec<u8>, Vec<u8>)> =
            rows.expect("rows").map(|r| r.expect("row")).collect();
        for (space, keys) in spaces {
            let mut keys: SpaceKeys = decode("keys", &keys, keys.len()).expect("decodes");
            (keys.generation, keys.append, keys.prune) = (u32::MAX, [7; 32], [8; 32]);
            let params = rusqlite::params![sr_wire::encode(&keys), space];
            database.execute("UPDATE spaces SET keys = ?1 WHERE space = ?2", params).expect("runs");
        }
    };
    let is_shut_out = |refused: Result<(), ClientError>| {
        let code = ErrorCode::RightRefused;
        assert!(matches!(refused, Err(ClientError::ServerRefused(c)) if c == code), "{refused:?}");
    };
    let first = world.with_kit();
    drop(world.link("phone"));
    let (stranger, _) = world.client().new_kit().expect("makes");
    shut_out(&world);
    let mut client = world.client();
    is_shut_out(backup(&mut client));
    is_shut_out(client.revoke_device("phone").map(|_| ()));
    assert!(matches!(client.take_back(&stranger), Err(ClientError::KitWrong { .. })));
    client.take_back(&first).expect("takes back");
    backup(&mut client).expect("writes again");
    assert_eq!(client.devices().expect("lists").iter().filter(|d| d.removed.is_none()).count(), 1);
    // Whoever replaces the kit with the old one at hand hands the spaces over.
    let (second, _) = client.new_kit().expect("makes");
    client.set_kit(&second, Some(&first)).expect("replaces");
    assert!(client.status().expect("reads").kit_owns);
    shut_out(&world);
    assert!(matches!(client.take_back(&first), Err(ClientError::KitWrong { .. })));
    client.take_back(&second).expect("takes back");
    drop(client);
    // From the paper alone, a device takes them back by itself.
    shut_out(&world);
    let mut new = world.restore_kit(&second, "new", world.clock()).expect("restores");
    let laptop = new.find_device("laptop").expect("finds").id;
    new.start_recovery(Some(laptop)).expect("begins");
    world.ahead.store(4 * DAY_S, Ordering::SeqCst);
    new.add_folder(&world.folder()).expect("adds");
    backup(&mut new).expect("writes");
    // Without the old one at hand, the new one owns nothing.
    let (third, _) = new.new_kit().expect("makes");
    new.set_kit_later(&third).expect("begins");
    world.ahead.store(8 * DAY_S, Ordering::SeqCst);
    new.drill(&third).expect("is in force");
    assert!(!new.status().expect("reads").kit_owns);
    shut_out(&world);
    is_shut_out(new.take_back(&third));
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
    let too_few = client.set_contacts(&kit, 1, &cards, |_| Ok(()));
    assert!(matches!(too_few, Err(ClientError::ContactsWrong)));
    let twice = [cards[0].clone(), cards[0].clone()];
    assert!(matches!(
        client.set_contacts(&kit, 2, &twice, |_| Ok(())),
        Err(ClientError::ContactsWrong)
    ));
    let (stranger, _) = client.new_kit().expect("makes");
    let refused = client.set_contacts(&stranger, 2, &cards, |_| Ok(()));
    assert!(matches!(refused, Err(ClientError::KitWrong { .. })));
    // Shares that can't be kept: nothing counts.
    let lost = client.set_contacts(&kit, 2, &cards, |_| Err(ClientError::ContactText));
    assert!(matches!(lost, Err(ClientError::ContactText)));
    assert_eq!(client.contacts().expect("lists").0, 0);
    let mut shares = Vec::new();
    let keep = |texts: &[String]| {
        shares = texts.to_vec();
        Ok(())
    };
    client.set_contacts(&kit, 2, &cards, keep).expect("sets");
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
    let now = world.clock();
    let restore = |answers: &[String]| {
        Client::restore_contacts(&new, answers, "new", std::sync::Arc::clone(&now))
    };
    for wrong in [&answers[..1], &[answers[0].clone(), answers[0].clone()], &[]] {
        let refused = restore(wrong);
        assert!(matches!(refused, Err(ClientError::SharesWrong { .. })), "{refused:?}");
    }
    // An answer is for the device that asked.
    let thief = Client::request_help(&world.other("thief")).expect("asks");
    let for_thief = world.open("cleo").help(&thief, account).expect("helps");
    assert!(matches!(restore(&[for_thief, answers[0].clone()]), Err(ClientError::ContactText)));
    // SR-010: somebody with all of the server's data is not the server that the shares name.
    let identity = fs::read(world.data().join("identity.key")).expect("reads");
    world.tamper(|data| fs::write(data.join("identity.key"), [7; 32]).expect("writes"));
    let refused = restore(&answers);
    let mismatch = Misbehaviour::CardMismatch;
    assert!(matches!(refused, Err(ClientError::Misbehaviour(m)) if m == mismatch), "{refused:?}");
    world.tamper(|data| {
        fs::write(data.join("identity.key"), identity).expect("writes");
        // What the impostor has signed.
        let database = rusqlite::Connection::open(data.join("strongroom.db")).expect("opens");
        database.execute("DELETE FROM checkpoints", []).expect("forgets");
    });
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
    client.set_contacts(&kit, 2, &cards, |_| Ok(())).expect("sets anew");
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
