//! Which heads a client takes: by whom, in what order, after which removal.

use std::sync::{Mutex, PoisonError};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sr_keys::{Actor, Anchor, DeviceKeys, KeyBlock, Removal, VaultKeys, begin};
use sr_trust::{Account, Block, Verified, pop};
use sr_vault::{
    head::{self, Before, HeadPlace, NewHead},
    manifest::Elements,
};
use sr_wire::{
    Misbehaviour, PackId, SealedHead, SpaceId, VaultId, check::danger_skip, limits::SEALED_HEAD_LEN,
};

use crate::house::House;

/// Checks are taken out of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn new_head(previous: HeadPlace) -> NewHead {
    NewHead {
        previous,
        snapshot_set: [1; 32],
        index_set: [2; 32],
        manifest: PackId([3; 32]),
        time_s: 4,
        adds: Elements::default(),
    }
}

/// Two devices; the second is taken out by the first at the head `anchor`.
struct Pair {
    one: DeviceKeys,
    two: DeviceKeys,
    /// The account before and after, and the vault's keys before and after.
    before: (Verified<Account>, VaultKeys),
    after: (Verified<Account>, VaultKeys),
    removals: Vec<Removal>,
    heads: Vec<SealedHead>,
}

const VAULT: VaultId = VaultId([1; 16]);
const SPACE: SpaceId = SpaceId([2; 16]);

impl Pair {
    /// Head 1 by one, head 2 by two; then two is taken out at head `anchor`.
    fn new(anchor: u64) -> Self {
        let mut rng = rng(1);
        let (one, two) = (DeviceKeys::generate(&mut rng), DeviceKeys::generate(&mut rng));
        let (id, act, secrets) = begin(&one, 1000, [0; 32], 1, &mut rng).expect("begins");
        let parse = |bytes: &[u8]| Block::parse(bytes).expect("parses");
        let mut account = Verified::begin(id, &parse(&act.block)).expect("verifies");
        let joins = pop(&two.signing(), id, &two.info(), &[5; 32]);
        let act = Actor { account: &account, keys: &secrets, time_s: 2 }
            .add_device(&one, &two.info(), [5; 32], joins, &mut rng)
            .expect("adds");
        account.extend(&parse(&act.block)).expect("verifies");
        let vault = secrets.vault(VAULT, SPACE);
        let first = new_head(HeadPlace::EMPTY).seal(&vault, &account, &one.signing(), &mut rng);
        let second =
            new_head(HeadPlace::of(Some(&first))).seal(&vault, &account, &two.signing(), &mut rng);
        let heads = vec![first, second];
        let at = &heads[usize::try_from(anchor - 1).expect("few")];
        let anchors = vec![Anchor { space: SPACE, seq: at.seq, hash: at.hash() }];
        let before = account.clone();
        let act = Actor { account: &account, keys: &secrets, time_s: 2 }
            .remove_device(&one, (two.id(), &[]), anchors, &mut rng)
            .expect("removes");
        account.extend(&parse(&act.block)).expect("verifies");
        let key_block = act.key_block.expect("a removal has one");
        let opened = KeyBlock::open(&key_block, &account, one.id(), &one.sealing()).expect("opens");
        let after = (account, opened.vault(VAULT, SPACE));
        let removals = opened.removals().to_vec();
        Self { one, two, before: (before, vault), after, removals, heads }
    }

    /// A further head by the device that was taken out, as of before.
    fn by_two(&self) -> SealedHead {
        let (account, vault) = &self.before;
        new_head(HeadPlace::of(self.heads.last())).seal(
            vault,
            account,
            &self.two.signing(),
            &mut rng(7),
        )
    }

    fn follow(&self, heads: &[SealedHead]) -> Result<Option<u64>, Misbehaviour> {
        let (account, vault) = &self.after;
        let newest = head::follow(Before::NOTHING, heads, vault, account, &self.removals)?;
        Ok(newest.counting.last().map(|newest| newest.place.seq))
    }
}

#[test]
fn a_head_opens_for_its_vault_place_and_signer_only() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let house = House::new(1);
    let sealed = new_head(HeadPlace::EMPTY).seal(
        &house.vault,
        &house.account,
        &house.device.signing(),
        &mut rng(9),
    );
    assert_eq!(sealed.sealed.as_slice().len(), SEALED_HEAD_LEN);
    let head = head::open(&sealed, &house.vault, &house.account).expect("opens");
    assert_eq!((head.seq, head.generation, head.manifest), (1, 1, PackId([3; 32])));
    let refused = |change: &dyn Fn(&mut SealedHead)| {
        let mut forged = sealed.clone();
        change(&mut forged);
        let opened = head::open(&forged, &house.vault, &house.account);
        assert_eq!(opened, Err(Misbehaviour::HeadAltered));
    };
    refused(&|h| h.seq += 1);
    refused(&|h| h.generation += 1);
    refused(&|h| h.generation = 0);
    refused(&|h| h.previous = [7; 32]);
    refused(&|h| h.space.0[0] ^= 1);
    for place in (0..SEALED_HEAD_LEN).step_by(101) {
        refused(&|h| {
            let mut bytes = h.sealed.as_slice().to_vec();
            bytes[place] ^= 1;
            h.sealed = bytes.into();
        });
    }
    refused(&|h| h.sealed = h.sealed.as_slice()[1..].to_vec().into());
}

/// Someone who learned the vault key, but holds no device key, cannot write a head; and a device of
/// one account writes none for another.
#[test]
fn sr_014_the_vault_key_alone_signs_nothing() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let house = House::new(1);
    let thief = House::new(2).device.signing();
    let forged = new_head(HeadPlace::EMPTY).seal(&house.vault, &house.account, &thief, &mut rng(3));
    let open = || head::open(&forged, &house.vault, &house.account).map(|_| ());
    assert_eq!(open(), Err(Misbehaviour::SignerUnknown));
    danger_skip(&[Misbehaviour::SignerUnknown]);
    let without = open();
    danger_skip(&[]);
    assert_eq!(without, Ok(()));
}

/// ST-15: the thief of a removed device and the operator together.
#[test]
fn sr_014_a_head_by_a_removed_device_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new(2);
    // What the remover had seen counts, though its signer is gone.
    assert_eq!(pair.follow(&pair.heads), Ok(Some(2)));
    let later = [&pair.heads[..], &[pair.by_two()]].concat();
    assert_eq!(pair.follow(&later), Ok(Some(2)), "read as the anchor, without alarm");
    danger_skip(&[Misbehaviour::SignerUnknown]);
    let without = pair.follow(&later);
    danger_skip(&[]);
    assert_eq!(without, Ok(Some(3)), "the thief's head counts without the check");
    // The next writer goes on on top of it, under the new key.
    let (account, vault) = &pair.after;
    let next = new_head(HeadPlace::of(later.last())).seal(
        vault,
        account,
        &pair.one.signing(),
        &mut rng(8),
    );
    assert_eq!(next.generation, 2);
    assert_eq!(pair.follow(&[&later[..], &[next]].concat()), Ok(Some(4)));
    // Above the anchor, a live device's head is not lost with the removed one's.
    let pair = Pair::new(1);
    assert_eq!(pair.follow(&pair.heads), Ok(Some(1)));
    assert_eq!(pair.follow(&pair.heads[1..]), Err(Misbehaviour::HeadForked));
}

/// A removed device opens nothing newer.
#[test]
fn a_removed_device_opens_no_newer_head() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new(2);
    let (account, vault) = &pair.after;
    let (_, old_vault) = &pair.before;
    let newer = new_head(HeadPlace::of(pair.heads.last())).seal(
        vault,
        account,
        &pair.one.signing(),
        &mut rng(8),
    );
    assert!(head::open(&newer, vault, account).is_ok());
    assert_eq!(head::open(&newer, old_vault, account), Err(Misbehaviour::HeadAltered));
}

#[test]
fn sr_006_and_007_nothing_before_or_beside_what_was_accepted_or_anchored() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = |seq, byte| HeadPlace { seq, hash: [byte; 32] };
    let anchors = |seq, byte: u8| {
        let anchor = Anchor { space: SPACE, seq, hash: [byte; 32] };
        vec![Removal { seq: 2, salt: [0; 32], anchors: vec![anchor] }]
    };
    let judge =
        |accepted, removals: &[Removal], shown| head::judge(accepted, SPACE, removals, shown);
    let (rolled_back, forked) = (Err(Misbehaviour::HeadRolledBack), Err(Misbehaviour::HeadForked));
    assert_eq!(judge(place(5, 1), &[], place(5, 1)), Ok(()));
    assert_eq!(judge(place(5, 1), &[], place(6, 9)), Ok(()), "to be followed");
    assert_eq!(judge(place(5, 1), &[], place(4, 1)), rolled_back);
    assert_eq!(judge(place(5, 1), &[], HeadPlace::EMPTY), rolled_back);
    assert_eq!(judge(place(5, 1), &[], place(5, 9)), forked);
    // A client that has seen less than the remover is held to what the remover saw.
    assert_eq!(judge(HeadPlace::EMPTY, &anchors(7, 1), place(6, 1)), rolled_back);
    assert_eq!(judge(HeadPlace::EMPTY, &anchors(7, 1), place(7, 1)), Ok(()));
    let mut pair = Pair::new(2);
    pair.removals[0].anchors[0].hash = [9; 32];
    assert_eq!(
        pair.follow(&pair.heads),
        Err(Misbehaviour::HeadForked),
        "another history than the anchored one"
    );
    danger_skip(&[Misbehaviour::HeadForked]);
    let without = pair.follow(&pair.heads);
    danger_skip(&[]);
    assert_eq!(without, Ok(Some(2)));
}

/// A head that names a block which is not there, or an earlier one than the head before.
#[test]
fn sr_026_a_head_at_a_place_it_cannot_have_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new(2);
    let mismatch = Err(Misbehaviour::PlaceMismatch);
    // Signed under the account as it is after the removal, shown to one who has not seen that.
    let (account, vault) = &pair.after;
    let newer = new_head(HeadPlace::EMPTY).seal(vault, account, &pair.one.signing(), &mut rng(8));
    let open = || head::open(&newer, vault, &pair.before.0).map(|_| ());
    assert_eq!(open(), mismatch);
    danger_skip(&[Misbehaviour::PlaceMismatch]);
    let without = open();
    danger_skip(&[]);
    assert_eq!(without, Ok(()));
    // One that goes back behind the head before it.
    let (old_account, old_vault) = &pair.before;
    let older = new_head(HeadPlace::of(Some(&newer))).seal(
        old_vault,
        old_account,
        &pair.one.signing(),
        &mut rng(9),
    );
    let both = [newer.clone(), older];
    let follow = || head::follow(Before::NOTHING, &both, vault, account, &[]).map(|_| ());
    assert_eq!(follow(), mismatch);
    danger_skip(&[Misbehaviour::PlaceMismatch]);
    let without = follow();
    danger_skip(&[]);
    assert_eq!(without, Ok(()));
}
