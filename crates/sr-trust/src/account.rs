//! The state of an account, and the one function that moves it on.

use sr_crypto::{Hash, hash};
use sr_wire::{AccountId, DeviceId, Misbehaviour, VLBytes, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    AccountKey, Block, Body, Change, DeviceInfo, DeviceKind, Op, Policy, RecoveryKey, Role,
    Verified, account_id, act::Acting, block_hash,
};

/// The longest wait that a policy may ask for: 30 days.
const DELAY_MAX_S: u32 = 30 * 86_400;
/// Things that wait at once.
const STARTS_MAX: usize = 16;

/// An account as its chain has it, from the genesis on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    id: AccountId,
    hashes: Vec<Hash>,
    devices: Vec<Device>,
    keys: Vec<AccountKey>,
    seed_commit: Hash,
    past_kits: Vec<PastKit>,
    /// Recovery keys that count no more; none comes back in another place.
    retired: Vec<RecoveryKey>,
    pub(crate) state: State,
}

/// A device, live or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its keys.
    pub info: DeviceInfo,
    /// Its id.
    pub id: DeviceId,
    /// The block that added it.
    pub added: u64,
    /// The block that took it out, and the anchors it commits to.
    pub removed: Option<(u64, Hash)>,
}

impl Device {
    /// Returns whether it is live now.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.removed.is_none()
    }

    /// Returns whether it holds the account key, as long as it is live.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.info.kind == DeviceKind::Full
    }

    /// Returns whether it was live right after block `seq`.
    #[must_use]
    pub fn was_live(&self, seq: u64) -> bool {
        self.added <= seq && self.removed.is_none_or(|(removed, _)| removed > seq)
    }
}

/// A kit that counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastKit {
    /// Its key's id.
    pub id: DeviceId,
    /// When it was replaced, by the clock of the device that did so.
    pub replaced_s: u64,
}

/// What a client waits for before it acts on a block, if it held the chain before the wait began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The block that began the wait.
    pub opened: u64,
    /// Seconds from when the client first saw that block.
    pub delay_s: u64,
}

/// What each block's `state` is the hash of.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct State {
    pub(crate) live: Vec<DeviceId>,
    pub(crate) key: AccountKey,
    pub(crate) policy: Policy,
    pub(crate) starts: Vec<Start>,
    pub(crate) home: Hash,
    pub(crate) pin: Hash,
    /// The newest block by which the kit took a device out; 0 for none.
    pub(crate) kit_removal: u64,
    pub(crate) is_closed: u8,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Start {
    pub(crate) seq: u64,
    pub(crate) what: Waiting,
    /// Who was live then, and may stop it for ever.
    pub(crate) live: Vec<DeviceId>,
    pub(crate) delay_s: u64,
    /// Whether the one live device, which is named as stolen, has objected.
    pub(crate) is_prolonged: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub(crate) enum Waiting {
    #[tls_codec(discriminant = 1)]
    Change { change: Change, by: DeviceId },
    #[tls_codec(discriminant = 2)]
    Recovery { device: DeviceInfo, stolen: Option<DeviceId>, by: DeviceId },
}

impl Verified<Account> {
    /// Verifies a genesis and returns its account.
    ///
    /// **Errors** [`Misbehaviour::ChainBroken`] when it is not the genesis of `id`,
    /// [`Misbehaviour::BlockForged`], [`Misbehaviour::ActNotAllowed`],
    /// [`Misbehaviour::StateMismatch`].
    pub fn begin(id: AccountId, genesis: &Block) -> Result<Self, Misbehaviour> {
        let body = &genesis.body;
        // SR-017: an account's id is the hash of its genesis.
        let is_first = body.seq == 0 && body.previous == [0; 32] && body.account.0 == [0; 32];
        Misbehaviour::ChainBroken.refuse_if(!is_first || account_id(body) != id)?;
        let account = Account::of_genesis(body)?;
        // SR-018
        let key = account.devices[0].info.signing.as_slice();
        let is_signed = genesis.signatures.len() == 1 && genesis.is_signed(Role::Device, key);
        Misbehaviour::BlockForged.refuse_if(!is_signed || !genesis.pop.as_slice().is_empty())?;
        // SR-020
        Misbehaviour::StateMismatch.refuse_if(account.state.hash() != body.state)?;
        Ok(Self::new(account))
    }

    /// Verifies the next block and moves on to the state after it. On an error nothing has changed.
    ///
    /// **Errors** [`Misbehaviour::ChainBroken`] for a block that is not the next,
    /// [`Misbehaviour::BlockForged`] for one that is not signed by who may do so,
    /// [`Misbehaviour::ActNotAllowed`] for one that does what the state before does not allow,
    /// [`Misbehaviour::StateMismatch`] for one whose signer took the state for another.
    pub fn extend(&mut self, block: &Block) -> Result<(), Misbehaviour> {
        let body = &block.body;
        let is_next =
            body.seq == self.seq() + 1 && body.previous == self.newest() && body.account == self.id;
        // SR-017: left out, repeated, reordered, or of another account.
        Misbehaviour::ChainBroken.refuse_if(!is_next)?;
        // SR-018: a ghost device is one that no device has signed for.
        let acting = Acting::of(self, block);
        Misbehaviour::BlockForged.refuse_if(acting.is_none())?;
        let acting = acting.unwrap_or_else(|| Acting::claimed(block));
        Misbehaviour::BlockForged.refuse_if(!acting.may(self, &body.op))?;
        let mut next = (**self).clone();
        // SR-019
        let allowed = next.apply(&body.op, &acting, body.time_s);
        Misbehaviour::ActNotAllowed.refuse_if(allowed.is_none())?;
        // SR-020
        Misbehaviour::StateMismatch.refuse_if(next.state.hash() != body.state)?;
        next.hashes.push(block.hash());
        *self.inner_mut() = next;
        Ok(())
    }

    /// Verifies a whole chain, the genesis first.
    ///
    /// **Errors** as [`Verified::begin`] and [`Verified::extend`].
    pub fn verify(id: AccountId, blocks: &[Block]) -> Result<Self, Misbehaviour> {
        let (genesis, rest) = blocks.split_first().ok_or(Misbehaviour::ChainBroken)?;
        let mut account = Self::begin(id, genesis)?;
        rest.iter().try_for_each(|block| account.extend(block))?;
        Ok(account)
    }
}

impl Account {
    /// Returns the account's id.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// Returns the newest block's place.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.hashes.len() as u64 - 1
    }

    /// Returns the newest block's hash.
    #[must_use]
    pub fn newest(&self) -> Hash {
        self.hashes[self.hashes.len() - 1]
    }

    /// Returns the hash of block `seq`, if there is one.
    #[must_use]
    pub fn block_hash(&self, seq: u64) -> Option<Hash> {
        self.hashes.get(usize::try_from(seq).ok()?).copied()
    }

    /// Returns all devices that ever were, in the order in which they came.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Returns the live devices.
    pub fn live(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.is_live())
    }

    /// Returns a device, live or not.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// Returns whether a device is live and holds the account key.
    #[must_use]
    pub fn is_full(&self, id: DeviceId) -> bool {
        self.device(id).is_some_and(|d| d.is_live() && d.is_full())
    }

    /// Returns the account key.
    #[must_use]
    pub fn key(&self) -> &AccountKey {
        &self.state.key
    }

    /// Returns the account key of a generation.
    #[must_use]
    pub fn key_of(&self, generation: u32) -> Option<&AccountKey> {
        self.keys.get(usize::try_from(generation.checked_sub(1)?).ok()?)
    }

    /// Returns what the seed must hash to.
    #[must_use]
    pub fn seed_commit(&self) -> Hash {
        self.seed_commit
    }

    /// Returns the recovery policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.state.policy
    }

    /// Returns the kits that were replaced.
    #[must_use]
    pub fn past_kits(&self) -> &[PastKit] {
        &self.past_kits
    }

    /// Returns the hash of the home server's card.
    #[must_use]
    pub fn home(&self) -> Hash {
        self.state.home
    }

    /// Returns the hash of the witness policy that it asks for; zeros for that of its home's card.
    #[must_use]
    pub fn pin(&self) -> Hash {
        self.state.pin
    }

    /// Returns whether the account has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.is_closed != 0
    }

    /// Returns the recoveries that wait: the block that began each, and its new device.
    pub fn recoveries(&self) -> impl Iterator<Item = (u64, &DeviceInfo, Option<DeviceId>)> {
        self.state.starts.iter().filter_map(|start| match &start.what {
            Waiting::Recovery { device, stolen, .. } => Some((start.seq, device, *stolen)),
            Waiting::Change { .. } => None,
        })
    }

    /// Returns the changes that wait: the block that began each.
    pub fn changes(&self) -> impl Iterator<Item = (u64, &Change)> {
        self.state.starts.iter().filter_map(|start| match &start.what {
            Waiting::Change { change, .. } => Some((start.seq, change)),
            Waiting::Recovery { .. } => None,
        })
    }

    /// Returns what the block after this state must wait for, on a client that held the chain before
    /// the wait began.
    #[must_use]
    pub fn gate(&self, next: &Block) -> Option<Gate> {
        match &next.body.op {
            Op::DelayFinish { start, .. } | Op::RecoveryFinish { start, .. } => {
                Some(Gate { opened: *start, delay_s: self.delay_s(*start)? })
            }
            // The kit takes out one device per delay.
            Op::RemoveDevice { .. } if self.state.kit_removal > 0 => {
                let by_device = next.signatures.iter().any(|s| s.role == Role::Device);
                let delay_s = u64::from(self.state.policy.delay_s);
                (!by_device).then_some(Gate { opened: self.state.kit_removal, delay_s })
            }
            _ => None,
        }
    }

    /// Returns the blocks that have begun something that waits, or what opens the next wait.
    pub fn waits(&self) -> impl Iterator<Item = u64> {
        let kit_removal = Some(self.state.kit_removal).filter(|seq| *seq > 0);
        self.state.starts.iter().map(|start| start.seq).chain(kit_removal)
    }

    /// Returns how many seconds something waits that the block `seq` began.
    #[must_use]
    pub fn delay_s(&self, seq: u64) -> Option<u64> {
        let start = self.start(seq)?;
        Some(start.delay_s * if start.is_prolonged == 0 { 1 } else { 3 })
    }

    pub(crate) fn start(&self, seq: u64) -> Option<&Start> {
        self.state.starts.iter().find(|start| start.seq == seq)
    }

    pub(crate) fn of_genesis(body: &Body) -> Result<Self, Misbehaviour> {
        let Op::Genesis { device, seed_commit, key, delay_s, home, .. } = &body.op else {
            return Err(Misbehaviour::ActNotAllowed);
        };
        let policy = Policy { kit: None, contacts: None, delay_s: *delay_s };
        let is_allowed = device.is_well_formed()
            && device.kind == DeviceKind::Full
            && key.generation == 1
            && is_key(key)
            && is_delay(&policy);
        // SR-019
        Misbehaviour::ActNotAllowed.refuse_if(!is_allowed)?;
        let state = State {
            live: vec![device.id()],
            key: key.clone(),
            policy,
            starts: Vec::new(),
            home: *home,
            pin: [0; 32],
            kit_removal: 0,
            is_closed: 0,
        };
        let first = Device { info: device.clone(), id: device.id(), added: 0, removed: None };
        Ok(Self {
            id: account_id(body),
            hashes: vec![block_hash(body)],
            devices: vec![first],
            keys: vec![key.clone()],
            seed_commit: *seed_commit,
            past_kits: Vec::new(),
            retired: Vec::new(),
            state,
        })
    }

    /// Changes the state as `op` says; `None` when it may not be. What it leaves then is of no use.
    pub(crate) fn apply(&mut self, op: &Op, acting: &Acting, time_s: u64) -> Option<()> {
        let seq = self.hashes.len() as u64;
        if self.is_closed() {
            return None;
        }
        match op {
            Op::Genesis { .. } => return None,
            Op::AddDevice { device, key, .. } => {
                self.same_root(key)?;
                self.add(device, seq)?;
            }
            Op::RemoveDevice { device, anchors, key } => {
                self.next_root(key)?;
                self.remove(*device, seq, anchors)?;
                if acting.device.is_none() {
                    self.state.kit_removal = seq;
                }
            }
            Op::RotateDevice { old, device, anchors, key } => {
                self.next_root(key)?;
                if self.device(*old)?.info.kind != device.kind {
                    return None;
                }
                self.add(device, seq)?;
                self.remove(*old, seq, anchors)?;
            }
            Op::Set { change, key } => self.change(change, key, time_s)?,
            Op::DelayStart { change } => {
                self.check_change(change)?;
                let what = Waiting::Change { change: change.clone(), by: acting.device? };
                self.begin_wait(seq, what)?;
            }
            Op::DelayFinish { start, key } => {
                let Waiting::Change { change, .. } = self.end_wait(*start)? else { return None };
                self.change(&change, key, time_s)?;
            }
            Op::RecoveryStart { device, stolen } => {
                self.check_new(device)?;
                if device.kind != DeviceKind::Full
                    || stolen.is_some_and(|id| !self.state.live.contains(&id))
                {
                    return None;
                }
                let (device, stolen) = (device.clone(), *stolen);
                let what = Waiting::Recovery { device, stolen, by: acting.recovery? };
                self.begin_wait(seq, what)?;
            }
            Op::RecoveryFinish { start, anchors, key } => {
                let Waiting::Recovery { device, stolen, .. } = self.end_wait(*start)? else {
                    return None;
                };
                self.next_root(key)?;
                self.add(&device, seq)?;
                if let Some(stolen) = stolen.filter(|id| self.state.live.contains(id)) {
                    self.remove(stolen, seq, anchors)?;
                }
            }
            Op::Veto { start } => self.veto(*start, acting)?,
        }
        (self.state.live.len() <= limits::DEVICES_MAX).then_some(())
    }

    fn begin_wait(&mut self, seq: u64, what: Waiting) -> Option<()> {
        let live = self.state.live.clone();
        let delay_s = u64::from(self.state.policy.delay_s);
        self.state.starts.push(Start { seq, what, live, delay_s, is_prolonged: 0 });
        (self.state.starts.len() <= STARTS_MAX).then_some(())
    }

    fn end_wait(&mut self, seq: u64) -> Option<Waiting> {
        let place = self.state.starts.iter().position(|start| start.seq == seq)?;
        Some(self.state.starts.remove(place).what)
    }

    /// Ends a wait; but the only live device, named as stolen, can only make it longer, once.
    fn veto(&mut self, seq: u64, acting: &Acting) -> Option<()> {
        let start = self.state.starts.iter_mut().find(|start| start.seq == seq)?;
        if let Waiting::Recovery { stolen: Some(stolen), .. } = &start.what
            && acting.device == Some(*stolen)
        {
            if start.is_prolonged != 0 {
                return None;
            }
            start.is_prolonged = 1;
            return Some(());
        }
        self.end_wait(seq).map(|_| ())
    }

    fn add(&mut self, device: &DeviceInfo, seq: u64) -> Option<()> {
        self.check_new(device)?;
        let id = device.id();
        self.devices.push(Device { info: device.clone(), id, added: seq, removed: None });
        self.state.live.push(id);
        Some(())
    }

    /// Takes a device out, which leaves at least one full one, and ends what it began.
    fn remove(&mut self, id: DeviceId, seq: u64, anchors: &Hash) -> Option<()> {
        let device = self.devices.iter_mut().find(|d| d.id == id && d.is_live())?;
        device.removed = Some((seq, *anchors));
        self.state.live.retain(|live| *live != id);
        self.state
            .starts
            .retain(|start| !matches!(&start.what, Waiting::Change { by, .. } if *by == id));
        self.state.live.iter().any(|id| self.is_full(*id)).then_some(())
    }

    fn change(&mut self, change: &Change, key: &AccountKey, time_s: u64) -> Option<()> {
        self.check_change(change)?;
        if let Change::Recovery(policy) = change {
            self.next_root(key)?;
            let old = std::mem::replace(&mut self.state.policy, policy.clone());
            let kit = old.kit.filter(|kit| policy.kit.as_ref() != Some(kit));
            let contacts = old.contacts.filter(|key| policy.contacts.as_ref() != Some(key));
            self.past_kits
                .extend(kit.as_ref().map(|kit| PastKit { id: kit.id(), replaced_s: time_s }));
            self.retired.extend(kit.into_iter().chain(contacts));
            let keys: Vec<_> =
                [&policy.kit, &policy.contacts].into_iter().flatten().map(|k| k.id()).collect();
            // What a replaced key began counts no more than the key.
            self.state.starts.retain(
                |start| !matches!(&start.what, Waiting::Recovery { by, .. } if !keys.contains(by)),
            );
            return Some(());
        }
        match change {
            Change::Home(home) => self.state.home = *home,
            Change::Pin(pin) => self.state.pin = *pin,
            Change::Close => self.state.is_closed = 1,
            Change::Recovery(_) => {}
        }
        (*key == self.state.key).then_some(())
    }

    /// A policy has a kit; a key of it that is new was never used for anything.
    fn check_change(&self, change: &Change) -> Option<()> {
        let Change::Recovery(policy) = change else { return Some(()) };
        let is_new = |key: &RecoveryKey, old: &Option<RecoveryKey>| {
            old.as_ref() == Some(key) || !self.is_used(&key.signing, &key.sealing)
        };
        let old = &self.state.policy;
        let kit = policy.kit.as_ref()?;
        let contacts_ok = policy.contacts.as_ref().is_none_or(|contacts| {
            contacts.id() != kit.id()
                && contacts.sealing != kit.sealing
                && is_new(contacts, &old.contacts)
        });
        let is_allowed =
            policy.is_well_formed() && is_delay(policy) && is_new(kit, &old.kit) && contacts_ok;
        is_allowed.then_some(())
    }

    /// A new device's keys were never used for anything.
    fn check_new(&self, device: &DeviceInfo) -> Option<()> {
        let is_new = device.is_well_formed() && !self.is_used(&device.signing, &device.sealing);
        is_new.then_some(())
    }

    fn is_used(&self, signing: &VLBytes, sealing: &VLBytes) -> bool {
        let policy = &self.state.policy;
        let in_force = [&policy.kit, &policy.contacts].into_iter().flatten();
        let mut recovery = in_force.chain(&self.retired);
        self.devices.iter().any(|d| d.info.signing == *signing || d.info.sealing == *sealing)
            || recovery.any(|key| key.signing == *signing || key.sealing == *sealing)
            || self.keys.iter().any(|key| key.sealing == *sealing)
    }

    /// The key of the same generation, in another key block.
    fn same_root(&mut self, key: &AccountKey) -> Option<()> {
        let old = &self.state.key;
        let is_same = key.generation == old.generation
            && key.sealing == old.sealing
            && key.root_commit == old.root_commit;
        self.state.key = key.clone();
        is_same.then_some(())
    }

    /// The key of the next generation, unlike any before.
    fn next_root(&mut self, key: &AccountKey) -> Option<()> {
        let follows = Some(key.generation) == self.state.key.generation.checked_add(1);
        let is_new = is_key(key)
            && self
                .keys
                .iter()
                .all(|old| old.sealing != key.sealing && old.root_commit != key.root_commit);
        self.keys.push(key.clone());
        self.state.key = key.clone();
        (follows && is_new && key.generation <= limits::GENERATIONS_MAX).then_some(())
    }
}

impl State {
    pub(crate) fn hash(&self) -> Hash {
        hash(labels::ACCOUNT_STATE, &[&encode(self)])
    }
}

fn is_key(key: &AccountKey) -> bool {
    key.sealing.as_slice().len() == sr_crypto::SEALING_PUBLIC_LEN
}

fn is_delay(policy: &Policy) -> bool {
    (1..=DELAY_MAX_S).contains(&policy.delay_s)
}
