//! Key blocks: for whom they are, what they must hold, and what a lying signer could put in them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use sr_crypto::{SealingKey, Secret32, hash, seal_box, seal_to};
use sr_keys::{
    AccountKeys, Act, Actor, Anchor, DeviceKeys, Freshness, KeyBlock, Kit, LinkAnswer, LinkOpening,
    Pins, RootRecord, Transcript, begin,
};
use sr_trust::{
    Account, Block, DeviceInfo, Op, Policy, Role, Verified, account_id, key_block_hash, pop,
};
use sr_wire::{
    AccountId, DeviceId, Misbehaviour, Right, SpaceId, VLBytes, VaultId, check::danger_skip,
    encode, labels,
};
use tls_codec::{TlsSerialize, TlsSize};

/// Checks are taken out of the whole process.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Runs `attack`, which must be refused by `check`, and succeed when that check is taken out.
fn refused<T>(check: Misbehaviour, attack: impl Fn() -> Result<T, Misbehaviour>) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(attack().err(), Some(check));
    danger_skip(&[check]);
    let without = attack().err();
    danger_skip(&[]);
    assert_eq!(without, None, "the attack succeeds without the check");
}

pub(crate) struct House {
    /// The seed and the first root.
    parts: ([u8; 32], [u8; 32]),
    pub(crate) account: Verified<Account>,
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) secrets: AccountKeys,
    pub(crate) key_block: Vec<u8>,
    pub(crate) one: DeviceKeys,
}

impl House {
    pub(crate) fn new() -> Self {
        let mut rng = rng(1);
        let one = DeviceKeys::generate(&mut rng);
        // What an account begins with is the next that its randomness gives.
        let (mut copy, mut parts) = (rng.clone(), ([0; 32], [0; 32]));
        copy.fill_bytes(&mut parts.0);
        copy.fill_bytes(&mut parts.1);
        let (id, act, secrets) = begin(&one, 1000, [0; 32], 1, &mut rng).expect("begins");
        let genesis = Block::parse(&act.block).expect("parses");
        let account = Verified::begin(id, &genesis).expect("verifies");
        let (blocks, key_block) = (vec![act.block], act.key_block.expect("has one"));
        Self { parts, account, blocks, secrets, key_block, one }
    }

    pub(crate) fn actor(&self) -> Actor<'_> {
        Actor { account: &self.account, keys: &self.secrets, time_s: 2 }
    }

    pub(crate) fn take(&mut self, act: &Act) {
        self.blocks.push(act.block.clone());
        self.account.extend(&Block::parse(&act.block).expect("parses")).expect("verifies");
        if let Some(key_block) = &act.key_block {
            self.key_block.clone_from(key_block);
            self.secrets = self.open(&self.one).expect("opens");
        }
    }

    fn open(&self, device: &DeviceKeys) -> Result<AccountKeys, Misbehaviour> {
        KeyBlock::open(&self.key_block, &self.account, device.id(), &device.sealing())
    }

    pub(crate) fn add(&mut self, device: &DeviceKeys) {
        self.add_as(device, &device.info());
    }

    pub(crate) fn add_as(&mut self, device: &DeviceKeys, info: &DeviceInfo) {
        let joins = pop(&device.signing(), self.account.id(), info, &[5; 32]);
        let act = self.actor().add_device(&self.one, info, [5; 32], joins, &mut rng(3));
        self.take(&act.expect("adds"));
    }

    pub(crate) fn remove(&mut self, device: DeviceId) {
        let anchor = Anchor { space: SpaceId([1; 16]), seq: 7, hash: [8; 32] };
        let act = self
            .actor()
            .remove_device(
                &self.one,
                (device, &[]),
                vec![anchor],
                &mut rng(100 + self.account.seq()),
            )
            .expect("removes");
        self.take(&act);
    }
}

fn root_of(keys: &AccountKeys) -> [u8; 32] {
    let vault = keys.vault(VaultId([1; 16]), SpaceId([2; 16]));
    *vault.head_key(vault.generation()).expect("has one").expose()
}

#[test]
fn every_live_device_and_the_kit_open_the_same_root_and_nobody_else() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::new();
    let two = DeviceKeys::generate(&mut rng(2));
    house.add(&two);
    let kit = Kit::generate(&mut rng(5));
    let policy = Policy { kit: Some(kit.keys().public()), contacts: None, delay_s: 1000 };
    let act =
        house.actor().set_recovery(&house.one, None, (policy, &[]), &mut rng(6)).expect("sets");
    house.take(&act);
    assert_eq!(house.account.key().generation, 2);
    let by_kit = |house: &House| {
        let keys = kit.keys();
        let id = keys.public().id();
        KeyBlock::open(&house.key_block, &house.account, id, keys.sealing())
    };
    let roots: BTreeSet<_> = [house.open(&house.one), house.open(&two), by_kit(&house)]
        .into_iter()
        .map(|keys| root_of(&keys.expect("opens")))
        .collect();
    assert_eq!(roots.len(), 1);
    // A stranger is no recipient, and can't open another's box either.
    let stranger = DeviceKeys::generate(&mut rng(9));
    assert_eq!(house.open(&stranger).err(), Some(Misbehaviour::RootMismatch));
    let (block, account) = (&house.key_block, &house.account);
    let forced = KeyBlock::open(block, account, two.id(), &stranger.sealing());
    assert_eq!(forced.err(), Some(Misbehaviour::RootMismatch));

    let before = root_of(&house.secrets);
    house.remove(two.id());
    assert_eq!(house.open(&two).err(), Some(Misbehaviour::RootMismatch), "nothing newer");
    assert_ne!(root_of(&house.secrets), before);
    assert_eq!(root_of(&by_kit(&house).expect("opens")), root_of(&house.secrets));
    // Everything older stays readable.
    let vault = house.secrets.vault(VaultId([1; 16]), SpaceId([2; 16]));
    assert_eq!(*vault.head_key(2).expect("has one").expose(), before);
    assert!(vault.head_key(1).is_some() && vault.head_key(0).is_none());
    assert!(vault.head_key(4).is_none());
}

/// A limited device gets what its own vault needs, and nothing by which more could be had.
#[test]
fn a_limited_device_opens_its_grant_and_nothing_else() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::new();
    let [two, nas] = [2, 8].map(|seed| DeviceKeys::generate(&mut rng(seed)));
    house.add(&two);
    house.add_as(&nas, &nas.limited_info());
    let grant = |house: &House, of: &DeviceKeys| {
        KeyBlock::open_grant(&house.key_block, &house.account, of.id(), &of.sealing())
    };
    let mismatch = Some(Misbehaviour::RootMismatch);
    for generation in 1..=2 {
        let granted = grant(&house, &nas).expect("opens");
        let (theirs, all) = (granted.vault, house.secrets.limited_vault(nas.id()));
        assert_eq!((theirs.vault(), theirs.space()), (all.vault(), all.space()));
        assert_eq!((theirs.limited(), all.limited()), (Some(nas.id()), Some(nas.id())));
        assert_eq!((theirs.generation(), all.generation()), (generation, generation));
        let public =
            |keys: &sr_keys::VaultKeys, right| keys.capability(right).map(|key| key.public_key());
        for right in [Right::Read, Right::Append] {
            assert_eq!(public(&theirs, right), public(&all, right));
        }
        assert_eq!((public(&theirs, Right::Prune), public(&theirs, Right::Owner)), (None, None));
        assert!(theirs.capability_of(generation - 1, Right::Append).is_none());
        for of in 1..=generation {
            let keys = [&theirs, &all].map(|keys| *keys.head_key(of).expect("has it").expose());
            assert_eq!(keys[0], keys[1]);
        }
        assert_eq!(theirs.gear(), all.gear());
        // Of what others are removed at, it learns nothing but what concerns its own space.
        assert!(granted.removals.iter().all(|removal| removal.anchors.is_empty()));
        assert_eq!(granted.removals.len(), usize::try_from(generation - 1).expect("small"));
        // Full devices and limited ones do not open each other's.
        assert_eq!(house.open(&nas).err(), mismatch);
        assert_eq!(grant(&house, &house.one).err(), mismatch);
        let (block, account) = (&house.key_block, &house.account);
        let forced = KeyBlock::open_grant(block, account, nas.id(), &house.one.sealing());
        assert_eq!(forced.err(), mismatch);
        if generation == 1 {
            house.remove(two.id());
        }
    }
    // Another block than the chain names, and one of another generation.
    let mut swapped = House { key_block: house.key_block.clone(), ..House::new() };
    assert_eq!(grant(&swapped, &nas).err(), Some(Misbehaviour::KeyBlockSwapped));
    swapped.account = house.account.clone();
    assert!(grant(&swapped, &nas).is_ok());
    house.remove(nas.id());
    assert_eq!(grant(&house, &nas).err(), mismatch, "nothing newer");
}

/// What outlives a removal and what does not.
#[test]
fn rights_to_write_change_with_the_generation_and_the_rest_is_for_life() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::new();
    let two = DeviceKeys::generate(&mut rng(2));
    house.add(&two);
    let keys = |house: &House| house.secrets.vault(VaultId([1; 16]), SpaceId([2; 16]));
    let (before, root_before) = (keys(&house), house.secrets.root_space());
    house.remove(two.id());
    let after = keys(&house);
    let public =
        |keys: &sr_keys::VaultKeys, right| keys.capability(right).map(|key| key.public_key());
    for (right, same) in [(Right::Read, true), (Right::Append, false), (Right::Prune, false)] {
        assert_eq!(public(&before, right) == public(&after, right), same, "{right:?}");
    }
    assert_eq!(public(&after, Right::Owner), None);
    assert_eq!(before.gear(), after.gear());
    assert_eq!(root_before.space(), house.secrets.root_space().space());
    // No two spaces share a key.
    let other = house.secrets.vault(VaultId([1; 16]), SpaceId([3; 16]));
    for right in [Right::Read, Right::Append, Right::Prune] {
        assert_ne!(public(&after, right), public(&other, right));
    }
    let all: BTreeSet<_> = [Right::Read, Right::Append, Right::Prune]
        .into_iter()
        .map(|right| public(&after, right))
        .collect();
    assert_eq!(all.len(), 3);
}

/// ID-12: the server gives another key block than the chain names, in every way.
#[test]
fn sr_023_another_key_block_is_refused() {
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let house = House::new();
        let swapped = Some(Misbehaviour::KeyBlockSwapped);
        for place in (0..house.key_block.len()).step_by(7) {
            let mut changed = house.key_block.clone();
            changed[place] ^= 1;
            let opened =
                KeyBlock::open(&changed, &house.account, house.one.id(), &house.one.sealing());
            assert_eq!(opened.err(), swapped, "byte {place}");
        }
    }
    // A second one over the same secrets, to fewer recipients, say: made by somebody who has them.
    refused(Misbehaviour::KeyBlockSwapped, || {
        let house = House::new();
        let forged = Forged::of(&house).seal();
        KeyBlock::open(&forged, &house.account, house.one.id(), &house.one.sealing())
    });
}

/// A key block as only somebody with the account's secrets makes one, and as no honest client does.
pub(crate) struct Forged {
    pub(crate) to: (DeviceId, Vec<u8>),
    pub(crate) root: [u8; 32],
    pub(crate) seed: [u8; 32],
    pub(crate) earlier: Vec<[u8; 32]>,
    pub(crate) removals: Vec<sr_keys::Removal>,
    pub(crate) generation: u32,
}

#[derive(Debug, TlsSerialize, TlsSize)]
struct ForgedBlock {
    version: u8,
    generation: u32,
    bound_to: [u8; 32],
    recipients: Vec<ForgedRecipient>,
    grants: Vec<ForgedRecipient>,
    inside: VLBytes,
}

#[derive(Debug, TlsSerialize, TlsSize)]
struct ForgedRecipient {
    key: DeviceId,
    sealed: VLBytes,
}

#[derive(Debug, TlsSerialize, TlsSize)]
struct ForgedInside {
    seed: [u8; 32],
    roots: Vec<[u8; 32]>,
    removals: Vec<sr_keys::Removal>,
}

impl Forged {
    /// The true secrets of a house.
    pub(crate) fn of(house: &House) -> Self {
        let (seed, root) = house.parts;
        Self {
            to: (house.one.id(), house.one.sealing().public_key().to_vec()),
            root,
            seed,
            earlier: Vec::new(),
            removals: house.secrets.removals().to_vec(),
            generation: house.secrets.generation(),
        }
    }

    fn seal(&self) -> Vec<u8> {
        let bound_to = [9; 32];
        let mut aad = vec![2];
        aad.extend_from_slice(&self.generation.to_be_bytes());
        aad.extend_from_slice(&bound_to);
        aad.extend_from_slice(&encode(&vec![self.to.0]));
        aad.extend_from_slice(&encode(&Vec::<DeviceId>::new()));
        let sealed = seal_to(&self.to.1, labels::KEY_BLOCK_SEAL, &aad, &self.root).expect("seals");
        let inside = encode(&ForgedInside {
            seed: self.seed,
            roots: self.earlier.clone(),
            removals: self.removals.clone(),
        });
        let root = Secret32::init_with(|secret| secret.copy_from_slice(&self.root));
        let inside = seal_box(&root, labels::KEY_BLOCK_BOX, &aad, &inside, &mut rng(7));
        encode(&ForgedBlock {
            version: 2,
            generation: self.generation,
            bound_to,
            recipients: vec![ForgedRecipient { key: self.to.0, sealed: sealed.into() }],
            grants: Vec::new(),
            inside: inside.into(),
        })
    }

    /// An account whose genesis names this key block, over the commitments of `honest`.
    pub(crate) fn named(&self, honest: &House) -> (Verified<Account>, Vec<u8>, Vec<u8>) {
        let bytes = self.seal();
        let mut key = honest.account.key().clone();
        key.key_block = key_block_hash(&bytes);
        let op = Op::Genesis {
            salt: [1; 32],
            device: honest.one.info(),
            seed_commit: honest.account.seed_commit(),
            key,
            delay_s: 1000,
            home: [0; 32],
        };
        let body = Account::genesis(op, 1).expect("allowed");
        let id = account_id(&body);
        let genesis = body.sign(&[(Role::Device, &honest.one.signing())], Vec::new());
        (Verified::begin(id, &genesis).expect("verifies"), encode(&genesis), bytes)
    }

    fn open(&self, honest: &House) -> Result<AccountKeys, Misbehaviour> {
        let (account, _, bytes) = self.named(honest);
        KeyBlock::open(&bytes, &account, honest.one.id(), &honest.one.sealing())
    }
}

/// ID-12: a device that is in the account gives another of its devices another root.
#[test]
fn sr_024_two_roots_for_two_devices_are_refused() {
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let house = House::new();
        assert!(Forged::of(&house).open(&house).is_ok(), "the true ones are taken");
        let more = Forged { earlier: vec![[1; 32]], ..Forged::of(&house) };
        assert_eq!(more.open(&house).err(), Some(Misbehaviour::RootMismatch));
    }
    refused(Misbehaviour::RootMismatch, || {
        let house = House::new();
        Forged { root: [1; 32], ..Forged::of(&house) }.open(&house)
    });
}

/// Another seed would send the restored device to other spaces.
#[test]
fn sr_025_another_seed_is_refused() {
    refused(Misbehaviour::SeedMismatch, || {
        let house = House::new();
        Forged { seed: [1; 32], ..Forged::of(&house) }.open(&house)
    });
}

/// Heads at which nobody was removed.
#[test]
fn sr_027_other_anchors_are_refused() {
    refused(Misbehaviour::AnchorsMismatch, || {
        let house = House::new();
        let removal = sr_keys::Removal { seq: 0, salt: [0; 32], anchors: Vec::new() };
        Forged { removals: vec![removal], ..Forged::of(&house) }.open(&house)
    });
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut house = House::new();
    let two = DeviceKeys::generate(&mut rng(2));
    house.add(&two);
    house.remove(two.id());
    let removal = &house.secrets.removals()[0];
    assert_eq!(removal.anchors[0].seq, 7);
    let committed = house.account.device(two.id()).and_then(|device| device.removed);
    assert_eq!(committed, Some((2, removal.commit())));
}

fn no_pins() -> Pins {
    Pins {
        name: b"Ana".to_vec().into(),
        answers: Vec::new(),
        places: Vec::new(),
        log: Vec::new().into(),
        policy: Vec::new().into(),
    }
}

fn opening(byte: u8) -> LinkOpening {
    LinkOpening { random: [byte; 32], device: DeviceKeys::generate(&mut rng(byte.into())).info() }
}

fn answer() -> LinkAnswer {
    LinkAnswer {
        account: AccountId([1; 32]),
        seq: 2,
        block: [3; 32],
        card: [4; 32],
        random: [5; 32],
        pins: no_pins().hash(),
    }
}

/// ID-07: whoever stands between two devices changes the words, or is refused.
#[test]
fn sr_030_changed_link_messages_are_refused() {
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let honest = Transcript::new(&opening(1).commit(), answer(), opening(1)).expect("fits");
        let words = [honest.words_of_new(), honest.words_of_old()].concat();
        assert_eq!(words.len(), 6);
        // Every field of either message is in the words and in the hash that the devices sign.
        let changes: [&dyn Fn(&mut LinkAnswer); 6] = [
            &|a| a.account.0[0] ^= 1,
            &|a| a.seq += 1,
            &|a| a.block[0] ^= 1,
            &|a| a.card[0] ^= 1,
            &|a| a.random[0] ^= 1,
            &|a| a.pins[0] ^= 1,
        ];
        for change in changes {
            let mut changed = answer();
            change(&mut changed);
            let other = Transcript::new(&opening(1).commit(), changed, opening(1)).expect("fits");
            assert_ne!([other.words_of_new(), other.words_of_old()].concat(), words);
            assert_ne!(other.hash(), honest.hash());
        }
        // The pins open for the new device, in this ceremony, and only if they are the promised ones.
        let device = DeviceKeys::generate(&mut rng(1));
        let pins = no_pins();
        let sealed = pins.seal(&honest).expect("seals");
        assert_eq!(Pins::open(&sealed, &honest, &device.sealing()), Ok(pins.clone()));
        let other = DeviceKeys::generate(&mut rng(2));
        let altered = Err(Misbehaviour::LinkAltered);
        assert_eq!(Pins::open(&sealed, &honest, &other.sealing()), altered);
        assert_eq!(Pins::open(&sealed[1..], &honest, &device.sealing()), altered);
    }
    // Keys chosen after the answer was seen, until the words agree.
    refused(Misbehaviour::LinkAltered, || {
        Transcript::new(&opening(1).commit(), answer(), opening(2))
    });
    refused(Misbehaviour::LinkAltered, || {
        let promised = LinkAnswer { pins: [9; 32], ..answer() };
        let transcript = Transcript::new(&opening(1).commit(), promised, opening(1))?;
        let sealed = no_pins().seal(&transcript).expect("seals");
        Pins::open(&sealed, &transcript, &DeviceKeys::generate(&mut rng(1)).sealing())
    });
}

/// Known answers, so that another implementation finds the same keys.
#[test]
fn derivations_have_known_answers() {
    let keys = AccountKeys::generate(&mut rng(1));
    let digest = |bytes: &[u8]| sr_crypto::text::to_hex(&hash(labels::KEY_BLOCK, &[bytes])[..8]);
    let vault = keys.vault(VaultId([3; 16]), SpaceId([4; 16]));
    let right = |right| digest(&vault.capability(right).expect("has it").public_key());
    let found = [
        digest(&keys.root_space().space().0),
        digest(SealingKey::public_key(&keys.sealing())),
        digest(vault.head_key(1).expect("has it").expose()),
        right(Right::Read),
        right(Right::Append),
        right(Right::Prune),
    ];
    assert_eq!(found, KNOWN);
}

const KNOWN: [&str; 6] = [
    "a8b3c1d94b66c7c1",
    "559ba2010a3a09e3",
    "7059e437b6e846e7",
    "b5f8de6dfefead7a",
    "1ee335d252fd52f1",
    "e847219d05a353be",
];

/// What is in no record is not written, and there is one form of each.
#[test]
fn a_root_record_has_one_form() {
    let mut record = RootRecord::default();
    let empty = record.to_bytes();
    assert_eq!(RootRecord::parse(&empty), Ok(record.clone()), "as before there were policies");
    // Nothing, written out: no policy, no state.
    assert!(RootRecord::parse(&[&empty[..], &[0, 0]].concat()).is_err());
    let pin = |text: &str| sr_trust::policy_hash(text);
    record.add_policy("a", &[0; 32], 3);
    for text in ["b", "c", "d", "e"] {
        record.add_policy(text, &pin("a"), 3);
    }
    // What devices tell is short, and of few.
    let told = |notes: &[usize]| {
        let mut record = RootRecord::default();
        for (device, len) in (0..).zip(notes) {
            record.tell(DeviceId([device; 32]), &vec![1; *len], 5);
        }
        RootRecord::parse(&record.to_bytes())
    };
    assert_eq!(told(&[8 * 1024]).expect("parses").told(DeviceId([9; 32])).count(), 1);
    assert_eq!(told(&[8 * 1024]).expect("parses").told(DeviceId([0; 32])).count(), 0);
    assert!(told(&[8 * 1024 + 1]).is_err());
    let many = told(&[9; 12]).expect("the oldest go");
    assert_eq!(many.told(DeviceId([99; 32])).count(), 8);
    assert!(!many.may_tell(DeviceId([99; 32]), 6, 10), "nobody's newer word goes");
    assert!(many.may_tell(DeviceId([99; 32]), 15, 10) && !many.may_tell(DeviceId([11; 32]), 6, 10));
    let kept = |record: &RootRecord, text: &str| record.policy(&pin(text)).is_some();
    let names = ["a", "b", "c", "d", "e"].map(|text| kept(&record, text));
    assert_eq!(names, [true, false, false, true, true], "the one in force stays");
    record.set_freshness(Freshness { generation: 2, seq: 5, answers: Vec::new() });
    let bytes = record.to_bytes();
    assert_eq!(RootRecord::parse(&bytes), Ok(record));
    assert!(RootRecord::parse(&[&bytes[..], &[0]].concat()).is_err());
    assert!(RootRecord::parse(&bytes[..bytes.len() - 1]).is_err());
}
