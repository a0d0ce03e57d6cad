//! Who may do what, and every way in which a server could change it.

use std::sync::{Mutex, PoisonError};

use sr_trust::{Account, Block, Change, Gate, Op, Role, Verified};
use sr_wire::{Misbehaviour, check::danger_skip};

use crate::house::{House, Keys, account_key, contacts, device, kit, sign};

/// Checks are taken out of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `attack`, which must be refused by `check`, and succeed when that check is taken out.
fn refused<T>(check: Misbehaviour, attack: impl Fn() -> Result<T, Misbehaviour>) {
    refused_first(check, &[], attack);
}

/// As [`refused`], where other checks would refuse too: those are out in both runs.
fn refused_first<T>(
    check: Misbehaviour,
    others: &[Misbehaviour],
    attack: impl Fn() -> Result<T, Misbehaviour>,
) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    danger_skip(others);
    assert_eq!(attack().err(), Some(check));
    danger_skip(&[&[check], others].concat());
    let without = attack().err();
    danger_skip(&[]);
    assert_eq!(without, None, "the attack succeeds without the check");
}

fn keys(number: u8) -> Keys {
    Keys::new(number)
}

const NOT_ALLOWED: Result<(), Misbehaviour> = Err(Misbehaviour::ActNotAllowed);

#[test]
fn a_life_of_an_account_verifies_from_its_genesis() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::furnished();
    house.act(house.add(&keys(3)), &[device(&keys(2))]).expect("adds");
    house.act(house.remove(&keys(1)), &[device(&keys(3))]).expect("removes");
    let rotate = Op::RotateDevice {
        old: keys(3).id(),
        device: keys(4).info(),
        anchors: [0; 32],
        key: house.next_key(),
    };
    house.act(rotate, &[device(&keys(3))]).expect("rotates");
    let home = house.set(Change::Home([9; 32]));
    house.act(home, &[device(&keys(2)), kit(&keys(8))]).expect("moves");
    let start = Op::RecoveryStart { device: keys(5).info(), stolen: Some(keys(2).id()) };
    house.act(start, &[contacts(&keys(9))]).expect("starts");
    let finish =
        Op::RecoveryFinish { start: house.account.seq(), anchors: [1; 32], key: house.next_key() };
    house.act(finish, &[contacts(&keys(9))]).expect("finishes");
    let live: Vec<_> = house.account.live().map(|d| d.id).collect();
    assert_eq!(live, [keys(4).id(), keys(5).id()]);
    assert_eq!(house.account.home(), [9; 32]);
    assert_eq!(house.account.key().generation, 5);

    let again = Verified::verify(house.account.id(), &house.blocks).expect("verifies");
    assert_eq!(again, house.account);
    let removed = again.device(keys(1).id()).expect("known");
    assert!(removed.was_live(3) && !removed.was_live(4));
}

/// ID-02: left out, repeated, reordered, cut at the front, of another account.
#[test]
fn sr_017_a_chain_with_a_block_missing_or_moved_is_refused() {
    let house = House::furnished();
    let id = house.account.id();
    let verify = |places: &[usize]| {
        let blocks: Vec<Block> = places.iter().map(|i| house.blocks[*i].clone()).collect();
        Verified::<Account>::verify(id, &blocks).map(|_| ())
    };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let broken = Err(Misbehaviour::ChainBroken);
    for places in [&[0, 2][..], &[0, 1, 1], &[0, 2, 1], &[1, 2], &[], &[0, 0]] {
        assert_eq!(verify(places), broken, "{places:?}");
    }
    assert_eq!(verify(&[0, 1, 2]), Ok(()));
    let other = sr_wire::AccountId([1; 32]);
    assert_eq!(Verified::begin(other, &house.blocks[0]).map(|_| ()), broken);
    // Without the check, a removal can be left out: the veto that follows says nothing of it.
    drop(_guard);
    refused(Misbehaviour::ChainBroken, || {
        let mut house = House::furnished();
        let start = Op::DelayStart { change: Change::Pin([1; 32]) };
        house.act(start, &[device(&keys(1))])?;
        let one = house.make(Op::DelayStart { change: Change::Close }, &[device(&keys(2))])?;
        let mut body = one.body.clone();
        body.previous = [9; 32];
        house.account.extend(&sign(body, house.account.id(), &[device(&keys(2))]))
    });
}

/// ID-01: a device that the operator made up, in every way in which it could be signed for.
#[test]
fn sr_018_a_ghost_device_is_refused() {
    refused(Misbehaviour::BlockForged, || {
        let mut house = House::furnished();
        let ghost = keys(7);
        let names = [(Role::Device, keys(1).id())];
        let body = house.account.next(house.add(&ghost), &names, 1).expect("allowed");
        house.account.extend(&sign(body, house.account.id(), &[device(&ghost)]))
    });
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let forged = Err(Misbehaviour::BlockForged);
    let mut house = House::furnished();
    let honest = house.make(house.add(&keys(3)), &[device(&keys(1))]).expect("makes");
    let mut try_with = |change: &dyn Fn(&mut Block)| {
        let mut block = honest.clone();
        change(&mut block);
        house.account.extend(&block)
    };
    // Each byte of either signature, another name, another role, more and fewer of them.
    for place in [0, 63, 64, 3372] {
        let flip = |bytes: &sr_wire::VLBytes| {
            let mut bytes = bytes.as_slice().to_vec();
            bytes[place] ^= 1;
            bytes.into()
        };
        let flipped = |b: &mut Block| b.signatures[0].signature = flip(&b.signatures[0].signature);
        assert_eq!(try_with(&flipped), forged);
        assert_eq!(try_with(&|b| b.pop = flip(&b.pop)), forged);
    }
    assert_eq!(try_with(&|b| b.pop = Vec::new().into()), forged);
    assert_eq!(try_with(&|b| b.signatures[0].key = keys(2).id()), forged);
    assert_eq!(try_with(&|b| b.signatures[0].role = Role::Kit), forged);
    assert_eq!(try_with(&|b| b.signatures.clear()), forged);
    let twice = |b: &mut Block| b.signatures.push(b.signatures[0].clone());
    assert_eq!(try_with(&twice), forged);
    // What is signed is all of the body.
    assert_eq!(try_with(&|b| b.body.time_s += 1), forged);
    let other = keys(4).info();
    let renamed = |b: &mut Block| {
        if let Op::AddDevice { device, .. } = &mut b.body.op {
            *device = other.clone();
        }
    };
    assert_eq!(try_with(&renamed), forged);
    assert_eq!(try_with(&|_| {}), Ok(()));
}

/// Who is no live full device, kit or contact signs nothing, however good the signature.
#[test]
fn sr_018_only_who_may_signs() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::furnished();
    house.act(house.add(&keys(3)), &[device(&keys(1))]).expect("adds");
    house.act(house.remove(&keys(3)), &[device(&keys(1))]).expect("removes");
    let thief = keys(3);
    let (one, paper, friends) = (keys(1), keys(8), keys(9));
    let home = || Change::Home([7; 32]);
    let start = Op::RecoveryStart { device: keys(5).info(), stolen: None };
    let attempts: [(Op, Vec<(Role, &Keys)>); 12] = [
        (house.add(&keys(4)), vec![device(&thief)]),
        (house.add(&keys(4)), vec![kit(&paper)]),
        (house.add(&keys(4)), vec![device(&one), kit(&paper)]),
        (house.remove(&keys(2)), vec![device(&thief)]),
        (house.remove(&keys(2)), vec![contacts(&friends)]),
        (house.set(House::policy(7, None)), vec![device(&one)]),
        (house.set(home()), vec![device(&one)]),
        (house.set(home()), vec![kit(&paper)]),
        (house.set(home()), vec![device(&one), contacts(&friends)]),
        (Op::DelayStart { change: home() }, vec![kit(&paper)]),
        (start, vec![device(&one)]),
        (Op::Veto { start: 2 }, vec![device(&one)]),
    ];
    for (op, signers) in attempts {
        assert_eq!(house.make(op.clone(), &signers).map(|_| ()), NOT_ALLOWED, "{op:?}");
    }
    // The same, signed for good by a client without rules: refused by everybody else.
    let names = [(Role::Device, keys(1).id())];
    let body = house.account.next(house.add(&keys(4)), &names, 1).expect("allowed");
    let block = sign(body, house.account.id(), &[device(&thief)]);
    assert_eq!(house.account.extend(&block), Err(Misbehaviour::BlockForged));
}

/// ID-08, ID-12: what is signed by a live device and may not be all the same.
#[test]
fn sr_019_what_the_state_does_not_allow_is_refused() {
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let house = House::furnished();
        let one = keys(1);
        let by_one = |op: Op| house.make(op, &[device(&one)]).map(|_| ());
        let add_with = |change: &dyn Fn(&mut sr_trust::DeviceInfo, &mut sr_trust::AccountKey)| {
            let mut op = house.add(&keys(3));
            if let Op::AddDevice { device, key, .. } = &mut op {
                change(device, key);
            }
            by_one(op)
        };
        assert_eq!(by_one(house.add(&keys(3))), Ok(()));
        // A key used twice, a key of a wrong length, half of another's.
        assert_eq!(by_one(house.add(&keys(2))), NOT_ALLOWED);
        assert_eq!(by_one(house.add(&keys(8))), NOT_ALLOWED);
        assert_eq!(add_with(&|d, _| d.sealing = keys(2).info().sealing), NOT_ALLOWED);
        assert_eq!(add_with(&|d, _| d.sealing = vec![1; 32].into()), NOT_ALLOWED);
        assert_eq!(add_with(&|d, _| d.signing = vec![1; 32].into()), NOT_ALLOWED);
        // An addition keeps the root; everything else makes the next one.
        assert_eq!(add_with(&|_, k| k.root_commit = [1; 32]), NOT_ALLOWED);
        assert_eq!(add_with(&|_, k| k.generation += 1), NOT_ALLOWED);
        for (generation, like) in [(2, 2), (4, 4), (1, 1), (3, 2)] {
            let mut key = account_key(like, 7);
            key.generation = generation;
            let op = Op::RemoveDevice { device: keys(2).id(), anchors: [0; 32], key };
            assert_eq!(by_one(op), NOT_ALLOWED, "{generation} {like}");
        }
        assert_eq!(by_one(house.remove(&keys(3))), NOT_ALLOWED);
        assert_eq!(by_one(Op::Veto { start: 1 }), NOT_ALLOWED);
        assert_eq!(by_one(Op::DelayFinish { start: 1, key: house.next_key() }), NOT_ALLOWED);
        let first = House::new();
        assert_eq!(
            first.make(first.remove(&one), &[device(&one)]).map(|_| ()),
            NOT_ALLOWED,
            "the last device stays"
        );
        // A policy without a kit, with one key for both, with a device's key, without a wait.
        let policy = |change: &dyn Fn(&mut sr_trust::Policy)| {
            let Change::Recovery(mut policy) = House::policy(6, Some(7)) else { return Ok(()) };
            change(&mut policy);
            let set = house.set(Change::Recovery(policy));
            house.make(set, &[device(&one), kit(&keys(8))]).map(|_| ())
        };
        assert_eq!(policy(&|_| {}), Ok(()));
        assert_eq!(policy(&|p| p.kit = None), NOT_ALLOWED);
        assert_eq!(policy(&|p| p.contacts = p.kit.clone()), NOT_ALLOWED);
        assert_eq!(policy(&|p| p.kit = Some(keys(2).recovery())), NOT_ALLOWED);
        assert_eq!(policy(&|p| p.delay_s = 0), NOT_ALLOWED);
        assert_eq!(policy(&|p| p.delay_s = u32::MAX), NOT_ALLOWED);
    }
    // Signed for good: two roots for two devices of one account.
    refused_first(Misbehaviour::ActNotAllowed, &[Misbehaviour::StateMismatch], || {
        let mut house = House::furnished();
        let mut body = house.make(house.add(&keys(3)), &[device(&keys(1))])?.body;
        if let Op::AddDevice { key, .. } = &mut body.op {
            key.root_commit = [1; 32];
        }
        house.account.extend(&sign(body, house.account.id(), &[device(&keys(1))]))
    });
}

/// What a signer took for the state is not what it is.
#[test]
fn sr_020_a_block_over_another_state_is_refused() {
    refused(Misbehaviour::StateMismatch, || {
        let mut house = House::furnished();
        let mut body = house.make(house.add(&keys(3)), &[device(&keys(1))])?.body;
        body.state = [1; 32];
        house.account.extend(&sign(body, house.account.id(), &[device(&keys(1))]))
    });
}

/// core.md 2: a change without the kit waits, and is stopped by whoever was live when it began.
#[test]
fn a_change_without_the_kit_waits_and_can_be_stopped() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::furnished();
    let thief = keys(2);
    house
        .act(Op::DelayStart { change: House::policy(7, None) }, &[device(&thief)])
        .expect("starts");
    let start = house.account.seq();
    // The thief takes the other device out; it can still stop what began before.
    house.act(house.remove(&keys(1)), &[device(&thief)]).expect("removes");
    let finish = Op::DelayFinish { start, key: house.next_key() };
    let made = house.make(finish, &[device(&thief)]).expect("makes");
    assert_eq!(house.account.gate(&made), Some(Gate { opened: start, delay_s: 1000 }));
    house.act(Op::Veto { start }, &[device(&keys(1))]).expect("stops");
    assert_eq!(house.account.changes().count(), 0);
    assert_eq!(house.account.extend(&made), Err(Misbehaviour::ChainBroken));

    house.act(Op::DelayStart { change: Change::Close }, &[device(&thief)]).expect("starts");
    let start = house.account.seq();
    house.act(Op::Veto { start }, &[kit(&keys(8))]).expect("the kit stops it too");

    // By the kit at once, by one device alone after the wait.
    house
        .act(Op::DelayStart { change: House::policy(7, None) }, &[device(&thief)])
        .expect("starts");
    let finish = Op::DelayFinish { start: house.account.seq(), key: house.next_key() };
    house.act(finish, &[device(&thief)]).expect("finishes");
    assert_eq!(house.account.policy().kit, Some(keys(7).recovery()));
    assert_eq!(house.account.past_kits()[0].id, keys(8).id());
}

/// core.md 2: recovery waits; any live device stops it, but the only one, if it is named as stolen,
/// only makes it longer.
#[test]
fn a_recovery_waits_and_can_be_stopped() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let paper = keys(8);
    let start = |stolen: Option<u8>| Op::RecoveryStart {
        device: keys(5).info(),
        stolen: stolen.map(|number| keys(number).id()),
    };
    let mut house = House::furnished();
    house.act(start(None), &[kit(&paper)]).expect("starts");
    let seq = house.account.seq();
    house.act(Op::Veto { start: seq }, &[device(&keys(2))]).expect("stops");

    // Named as stolen, a device has no say while there is another.
    house.act(start(Some(2)), &[kit(&paper)]).expect("starts");
    let seq = house.account.seq();
    let veto = Op::Veto { start: seq };
    assert_eq!(house.make(veto.clone(), &[device(&keys(2))]).map(|_| ()), NOT_ALLOWED);
    house.act(house.remove(&keys(1)), &[device(&keys(2))]).expect("removes");
    // It is the only one now: three times the wait, once.
    house.act(veto.clone(), &[device(&keys(2))]).expect("prolongs");
    assert_eq!(house.make(veto, &[device(&keys(2))]).map(|_| ()), NOT_ALLOWED);
    let finish = Op::RecoveryFinish { start: seq, anchors: [1; 32], key: house.next_key() };
    let made = house.make(finish.clone(), &[kit(&paper)]).expect("makes");
    assert_eq!(house.account.gate(&made), Some(Gate { opened: seq, delay_s: 3000 }));
    assert_eq!(house.make(finish.clone(), &[contacts(&keys(9))]).map(|_| ()), NOT_ALLOWED);
    house.act(finish, &[kit(&paper)]).expect("finishes");
    assert_eq!(house.account.live().map(|d| d.id).collect::<Vec<_>>(), [keys(5).id()]);
}

/// The kit takes out one device at once, and the next after a wait.
#[test]
fn the_kit_takes_out_one_device_per_delay() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::furnished();
    house.act(house.add(&keys(3)), &[device(&keys(1))]).expect("adds");
    let first = house.make(house.remove(&keys(1)), &[kit(&keys(8))]).expect("makes");
    assert_eq!(house.account.gate(&first), None);
    house.account.extend(&first).expect("removes");
    let seq = house.account.seq();
    let second = house.make(house.remove(&keys(2)), &[kit(&keys(8))]).expect("makes");
    assert_eq!(house.account.gate(&second), Some(Gate { opened: seq, delay_s: 1000 }));
    let by_device = house.make(house.remove(&keys(2)), &[device(&keys(3))]).expect("makes");
    assert_eq!(house.account.gate(&by_device), None);
    house.account.extend(&second).expect("valid all the same: time gates, and decides nothing");
    assert_eq!(
        house.make(house.remove(&keys(3)), &[kit(&keys(8))]).map(|_| ()),
        NOT_ALLOWED,
        "never the last"
    );
}

/// A new kit ends what the old one began; an ended account does nothing more.
#[test]
fn a_replaced_kit_and_a_closed_account_do_nothing() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::furnished();
    let start = Op::RecoveryStart { device: keys(5).info(), stolen: None };
    house.act(start.clone(), &[kit(&keys(8))]).expect("starts");
    let set = house.set(House::policy(7, Some(9)));
    house.act(set, &[device(&keys(1)), kit(&keys(8))]).expect("sets");
    assert_eq!(house.account.recoveries().count(), 0);
    assert_eq!(house.make(start, &[kit(&keys(8))]).map(|_| ()), NOT_ALLOWED);
    let back = house.set(House::policy(8, None));
    assert_eq!(
        house.make(back, &[device(&keys(1)), kit(&keys(7))]).map(|_| ()),
        NOT_ALLOWED,
        "an old kit's keys never come back"
    );
    let close = house.set(Change::Close);
    house.act(close, &[device(&keys(1)), kit(&keys(7))]).expect("closes");
    assert!(house.account.is_closed());
    assert_eq!(house.make(house.add(&keys(3)), &[device(&keys(1))]).map(|_| ()), NOT_ALLOWED);
}
