//! Who acts in a block, and what they may.

use sr_wire::{AccountId, DeviceId, Misbehaviour};

use crate::{
    Account, Block, Body, Change, Device, Op, RecoveryKey, Role, Verified,
    account::{Start, Waiting},
};

/// Who has signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acting {
    pub(crate) device: Option<DeviceId>,
    pub(crate) kit: bool,
    pub(crate) contacts: bool,
    /// The id of the kit's or the contacts' key.
    pub(crate) recovery: Option<DeviceId>,
}

impl Acting {
    /// Returns who has signed `block`, if every signature in it is one of somebody whom the account
    /// knows, and a new device has signed too.
    pub(crate) fn of(account: &Account, block: &Block) -> Option<Self> {
        for signature in &block.signatures {
            let policy = account.policy();
            let key = match signature.role {
                Role::Device => &account.device(signature.key)?.info.signing,
                Role::Kit => &policy.kit.as_ref()?.signing,
                Role::Contacts => &policy.contacts.as_ref()?.signing,
            };
            if !block.is_signed(signature.role, key.as_slice()) {
                return None;
            }
        }
        let transcript = match &block.body.op {
            Op::AddDevice { transcript, .. } => *transcript,
            _ => [0; 32],
        };
        let pop_ok = match block.new_device() {
            Some(device) => block.has_pop(device, &transcript),
            None => block.pop.as_slice().is_empty(),
        };
        let acting = Self::claimed(block);
        (pop_ok && acting.signers() == block.signatures.len()).then_some(acting)
    }

    /// Returns who is said to have signed.
    pub(crate) fn claimed(block: &Block) -> Self {
        let mut acting = Self::default();
        for signature in &block.signatures {
            acting.add(signature.role, signature.key);
        }
        acting
    }

    fn add(&mut self, role: Role, key: DeviceId) {
        match role {
            Role::Device => self.device = Some(key),
            Role::Kit => (self.kit, self.recovery) = (true, Some(key)),
            Role::Contacts => (self.contacts, self.recovery) = (true, Some(key)),
        }
    }

    fn signers(&self) -> usize {
        usize::from(self.device.is_some()) + usize::from(self.kit) + usize::from(self.contacts)
    }

    /// Returns whether they may do `op`. Whether the state allows it is another question.
    pub(crate) fn may(&self, account: &Account, op: &Op) -> bool {
        let by_device = self.device.is_some_and(|id| account.is_full(id));
        let alone = self.signers() == 1;
        let policy = account.policy();
        let in_force = if self.kit { &policy.kit } else { &policy.contacts };
        if self.recovery.is_some() && self.recovery != in_force.as_ref().map(RecoveryKey::id) {
            return false;
        }
        match op {
            Op::Genesis { .. } => false,
            Op::AddDevice { .. } | Op::RotateDevice { .. } | Op::DelayStart { .. } => {
                by_device && alone
            }
            // Who takes a device out makes the next root, which that device must not know.
            Op::RemoveDevice { device, .. } => {
                (by_device || self.kit) && alone && self.device != Some(*device)
            }
            Op::Set { change, .. } => {
                let is_first =
                    matches!(change, Change::Recovery(_)) && account.policy().kit.is_none();
                if is_first { by_device && alone } else { by_device && self.kit }
            }
            Op::DelayFinish { start, .. } => {
                let by = account.start(*start).and_then(Start::by);
                by_device && alone && by == self.device
            }
            Op::RecoveryStart { .. } => (self.kit || self.contacts) && alone,
            Op::RecoveryFinish { start, .. } => {
                let by = account.start(*start).and_then(Start::by);
                self.recovery.is_some() && alone && by == self.recovery
            }
            Op::Veto { start } => {
                alone && account.start(*start).is_some_and(|start| self.may_stop(account, start))
            }
        }
    }

    /// A change is stopped by the kit and by any device that was live when it began; a recovery by any
    /// live device, but by the one that is named as stolen only if there is no other.
    fn may_stop(&self, account: &Account, start: &Start) -> bool {
        match &start.what {
            Waiting::Change { .. } => {
                let was_live = |id| {
                    start.live.contains(&id) && account.device(id).is_some_and(Device::is_full)
                };
                self.kit || self.device.is_some_and(was_live)
            }
            Waiting::Recovery { stolen, .. } => self.device.is_some_and(|id| {
                let is_only = account.live().filter(|device| device.is_full()).count() == 1;
                account.is_full(id) && (*stolen != Some(id) || is_only)
            }),
        }
    }
}

impl Start {
    fn by(&self) -> Option<DeviceId> {
        match &self.what {
            Waiting::Change { by, .. } | Waiting::Recovery { by, .. } => Some(*by),
        }
    }
}

impl Account {
    /// Returns the body of a genesis, and the account that it begins.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`] for keys of wrong lengths, which is a bug of the
    /// caller.
    pub fn genesis(op: Op, time_s: u64) -> Result<Body, Misbehaviour> {
        let (account, previous) = (AccountId([0; 32]), [0; 32]);
        let mut body = Body { version: 1, account, seq: 0, previous, time_s, op, state: [0; 32] };
        body.state = Self::of_genesis(&body)?.state.hash();
        Ok(body)
    }
}

impl Verified<Account> {
    /// Returns the body of the block that does `op` next, to be signed as each of `signers`.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`] when the state does not allow it, or not to them.
    pub fn next(
        &self,
        op: Op,
        signers: &[(Role, DeviceId)],
        time_s: u64,
    ) -> Result<Body, Misbehaviour> {
        let mut acting = Acting::default();
        signers.iter().for_each(|(role, key)| acting.add(*role, *key));
        let mut next = (**self).clone();
        let is_allowed = acting.may(self, &op) && next.apply(&op, &acting, time_s).is_some();
        if !is_allowed {
            return Err(Misbehaviour::ActNotAllowed);
        }
        let (account, seq, previous) = (self.id(), self.seq() + 1, self.newest());
        let state = next.state.hash();
        Ok(Body { version: 1, account, seq, previous, time_s, op, state })
    }
}
