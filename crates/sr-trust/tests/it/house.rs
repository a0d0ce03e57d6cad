//! Keys and an account to play with.

use sr_crypto::{SealingKey, Secret32, SigningKey, hash};
use sr_trust::{
    Account, AccountKey, Block, Change, DeviceInfo, DeviceKind, Op, Policy, RecoveryKey, Role,
    Verified, account_id, pop, seed_commit,
};
use sr_wire::{DeviceId, Misbehaviour, labels};

/// The keys of a device, a kit, or a contacts' key.
pub(crate) struct Keys {
    pub(crate) signing: SigningKey,
    pub(crate) sealing: SealingKey,
}

impl Keys {
    pub(crate) fn new(number: u8) -> Self {
        let seed = |kind| {
            Secret32::init_with(|b| b.copy_from_slice(&hash(labels::CHUNKER, &[&[number, kind]])))
        };
        Self { signing: SigningKey::from_seed(&seed(0)), sealing: SealingKey::from_seed(&seed(1)) }
    }

    pub(crate) fn info(&self) -> DeviceInfo {
        DeviceInfo {
            signing: self.signing.public_key().to_vec().into(),
            sealing: self.sealing.public_key().to_vec().into(),
            kind: DeviceKind::Full,
        }
    }

    pub(crate) fn recovery(&self) -> RecoveryKey {
        let info = self.info();
        RecoveryKey { signing: info.signing, sealing: info.sealing }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.info().id()
    }
}

/// A key of a generation; `version` tells key blocks apart.
pub(crate) fn account_key(generation: u32, version: u8) -> AccountKey {
    let seed = Secret32::init_with(|b| b[..4].copy_from_slice(&generation.to_be_bytes()));
    AccountKey {
        generation,
        sealing: SealingKey::from_seed(&seed).public_key().to_vec().into(),
        root_commit: hash(labels::ROOT_COMMIT, &[seed.expose()]),
        key_block: [version; 32],
    }
}

/// An account, its blocks, and the keys of its first device.
pub(crate) struct House {
    pub(crate) account: Verified<Account>,
    pub(crate) blocks: Vec<Block>,
}

/// Device 1 has begun the account; 2 and 3 are strangers; 8 is the kit, 9 the contacts.
impl House {
    pub(crate) fn new() -> Self {
        let device = Keys::new(1);
        let op = Op::Genesis {
            salt: [1; 32],
            device: device.info(),
            seed_commit: seed_commit(&Secret32::init_with(|b| b.fill(5))),
            key: account_key(1, 0),
            delay_s: 1000,
            home: [2; 32],
        };
        let body = Account::genesis(op, 100).expect("allowed");
        let id = account_id(&body);
        let block = body.sign(&[(Role::Device, &device.signing)], Vec::new());
        let account = Verified::begin(id, &block).expect("verifies");
        Self { account, blocks: vec![block] }
    }

    /// Makes the next block, whether or not it is allowed: the state it names is what it would be.
    pub(crate) fn make(&self, op: Op, signers: &[(Role, &Keys)]) -> Result<Block, Misbehaviour> {
        let names: Vec<_> = signers.iter().map(|(role, keys)| (*role, keys.id())).collect();
        let body = self.account.next(op, &names, 100 + self.account.seq())?;
        Ok(sign(body, self.account.id(), signers))
    }

    /// Makes the next block and takes it.
    pub(crate) fn act(&mut self, op: Op, signers: &[(Role, &Keys)]) -> Result<(), Misbehaviour> {
        let block = self.make(op, signers)?;
        self.account.extend(&block)?;
        self.blocks.push(block);
        Ok(())
    }

    pub(crate) fn next_key(&self) -> AccountKey {
        account_key(self.account.key().generation + 1, 0)
    }

    pub(crate) fn add(&self, device: &Keys) -> Op {
        let version = u8::try_from(self.account.seq() + 1).expect("short chain");
        let key = account_key(self.account.key().generation, version);
        Op::AddDevice { device: device.info(), transcript: [3; 32], key }
    }

    pub(crate) fn remove(&self, device: &Keys) -> Op {
        Op::RemoveDevice { device: device.id(), anchors: [4; 32], key: self.next_key() }
    }

    pub(crate) fn policy(kit: u8, contacts: Option<u8>) -> Change {
        Change::Recovery(Policy {
            kit: Some(Keys::new(kit).recovery()),
            contacts: contacts.map(|number| Keys::new(number).recovery()),
            delay_s: 1000,
        })
    }

    pub(crate) fn set(&self, change: Change) -> Op {
        let key = match &change {
            Change::Recovery(_) => self.next_key(),
            _ => self.account.key().clone(),
        };
        Op::Set { change, key }
    }

    /// Devices 1 and 2, the kit 8 and the contacts 9.
    pub(crate) fn furnished() -> Self {
        let mut house = Self::new();
        house.act(house.add(&Keys::new(2)), &[device(&Keys::new(1))]).expect("adds");
        let set = house.set(Self::policy(8, Some(9)));
        house.act(set, &[device(&Keys::new(1))]).expect("sets");
        house
    }
}

/// Signs a body; a new device of it signs too, with the keys that are its own.
pub(crate) fn sign(
    body: sr_trust::Body,
    account: sr_wire::AccountId,
    signers: &[(Role, &Keys)],
) -> Block {
    let keys: Vec<_> = signers.iter().map(|(role, keys)| (*role, &keys.signing)).collect();
    let proof = match &body.op {
        Op::AddDevice { device, transcript, .. } => Some((device, *transcript)),
        Op::RotateDevice { device, .. } | Op::RecoveryStart { device, .. } => {
            Some((device, [0; 32]))
        }
        _ => None,
    };
    let proof = proof.map(|(info, transcript)| {
        let keys = (0..=9).map(Keys::new).find(|keys| keys.info().signing == info.signing);
        pop(&keys.expect("one of the ten").signing, account, info, &transcript)
    });
    body.sign(&keys, proof.unwrap_or_default())
}

pub(crate) fn device(keys: &Keys) -> (Role, &Keys) {
    (Role::Device, keys)
}

pub(crate) fn kit(keys: &Keys) -> (Role, &Keys) {
    (Role::Kit, keys)
}

pub(crate) fn contacts(keys: &Keys) -> (Role, &Keys) {
    (Role::Contacts, keys)
}
