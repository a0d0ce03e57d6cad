//! Acts on an account: a block, and the key block that goes with it.

use sr_crypto::{CryptoRng, Hash, SigningKey};
use sr_trust::{
    Account, AccountKey, Body, Change, DeviceInfo, Op, Policy, Role, Verified, account_id,
    key_block_hash, pop, seed_commit,
};
use sr_wire::{AccountId, DeviceId, Misbehaviour, encode, limits};

use crate::{
    AccountKeys, Anchor, DeviceKeys, KeyBlock, RecoveryKeys, Removal, key_block::Recipients,
};

/// A block to append, and what goes with it.
#[derive(Debug)]
pub struct Act {
    /// The block's bytes.
    pub block: Vec<u8>,
    /// The new key block, if the block names one.
    pub key_block: Option<Vec<u8>>,
}

/// Begins an account: returns its id, its genesis, and its secrets.
///
/// **Errors** [`Misbehaviour::ActNotAllowed`] for a delay that no policy may have.
pub fn begin(
    device: &DeviceKeys,
    delay_s: u32,
    home: Hash,
    time_s: u64,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(AccountId, Act, AccountKeys), Misbehaviour> {
    let keys = AccountKeys::generate(rng);
    let (info, mut salt) = (device.info(), [0; 32]);
    rng.fill_bytes(&mut salt);
    let policy = Policy { kit: None, contacts: None, delay_s };
    let recipients = Recipients::from_parts([&info].into_iter(), &policy);
    let (key, key_block) = seal(&keys, &recipients, salt, rng)?;
    let seed_commit = seed_commit(&keys.seed);
    let op = Op::Genesis { salt, device: info, seed_commit, key, delay_s, home };
    let body = Account::genesis(op, time_s)?;
    let id = account_id(&body);
    let block = body.sign(&[(Role::Device, &device.signing())], Vec::new());
    Ok((id, Act { block: encode(&block), key_block: Some(key_block) }, keys))
}

/// Who acts, on what.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The account as this client has accepted it.
    pub account: &'a Verified<Account>,
    /// Its secrets.
    pub keys: &'a AccountKeys,
    /// Unix seconds.
    pub time_s: u64,
}

impl Actor<'_> {
    /// Adds a device that has signed that it joins, in the ceremony `transcript`.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`], as all acts.
    pub fn add_device(
        &self,
        by: &DeviceKeys,
        device: &DeviceInfo,
        transcript: Hash,
        pop: Vec<u8>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let recipients = Recipients::of(self.account, Some(device), &[], self.account.policy());
        let device = device.clone();
        let op = |key| Op::AddDevice { device, transcript, key };
        self.act_with(self.keys, &recipients, op, &[(Role::Device, &by.signing())], pop, rng)
    }

    /// Takes a device out, at the heads that this client accepts. Those that are `left_out` get no new keys.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn remove_device(
        &self,
        by: &DeviceKeys,
        (device, left_out): (DeviceId, &[DeviceId]),
        anchors: Vec<Anchor>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        self.remove((device, left_out), anchors, (Role::Device, &by.signing()), rng)
    }

    /// Takes a device out by the kit: one per delay, and never the last.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn remove_device_by_kit(
        &self,
        kit: &RecoveryKeys,
        (device, left_out): (DeviceId, &[DeviceId]),
        anchors: Vec<Anchor>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        self.remove((device, left_out), anchors, (Role::Kit, &kit.signing), rng)
    }

    fn remove(
        &self,
        (device, left_out): (DeviceId, &[DeviceId]),
        anchors: Vec<Anchor>,
        by: (Role, &SigningKey),
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let (keys, anchors) = self.removal(anchors, rng);
        let without = [left_out, &[device]].concat();
        let recipients = Recipients::of(self.account, None, &without, self.account.policy());
        let op = |key| Op::RemoveDevice { device, anchors, key };
        self.act_with(&keys, &recipients, op, &[by], Vec::new(), rng)
    }

    /// Sets another recovery policy at once: the first by a device alone, later ones with the kit in
    /// force. Devices that are `left_out` get no new keys.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn set_recovery(
        &self,
        by: &DeviceKeys,
        kit: Option<&RecoveryKeys>,
        (policy, left_out): (Policy, &[DeviceId]),
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let keys = self.keys.next(rng);
        let recipients = Recipients::of(self.account, None, left_out, &policy);
        let signing = by.signing();
        let mut signers = vec![(Role::Device, &signing)];
        signers.extend(kit.map(|kit| (Role::Kit, &kit.signing)));
        let op = |key| Op::Set { change: Change::Recovery(policy), key };
        self.act_with(&keys, &recipients, op, &signers, Vec::new(), rng)
    }

    /// Begins a change of the recovery policy without the kit. It waits.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn start_change(&self, by: &DeviceKeys, policy: Policy) -> Result<Act, Misbehaviour> {
        let op = Op::DelayStart { change: Change::Recovery(policy) };
        self.act(op, &[(Role::Device, &by.signing())], Vec::new())
    }

    /// Has the account ask the witnesses of a policy, by its hash.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn set_pin(
        &self,
        by: &DeviceKeys,
        kit: &RecoveryKeys,
        pin: Hash,
    ) -> Result<Act, Misbehaviour> {
        let op = Op::Set { change: Change::Pin(pin), key: self.account.key().clone() };
        let signing = by.signing();
        self.act(op, &[(Role::Device, &signing), (Role::Kit, &kit.signing)], Vec::new())
    }

    /// Begins the same without the kit. It waits.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn start_pin(&self, by: &DeviceKeys, pin: Hash) -> Result<Act, Misbehaviour> {
        let op = Op::DelayStart { change: Change::Pin(pin) };
        self.act(op, &[(Role::Device, &by.signing())], Vec::new())
    }

    /// Ends the wait of a change that was begun without the kit.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn finish_change(
        &self,
        by: &DeviceKeys,
        start: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let change = self.account.changes().find(|(seq, _)| *seq == start);
        let policy = match change {
            Some((_, Change::Recovery(policy))) => policy,
            Some((_, Change::Pin(_))) => {
                let op = Op::DelayFinish { start, key: self.account.key().clone() };
                return self.act(op, &[(Role::Device, &by.signing())], Vec::new());
            }
            _ => return Err(Misbehaviour::ActNotAllowed),
        };
        let keys = self.keys.next(rng);
        let recipients = Recipients::of(self.account, None, &[], policy);
        let op = |key| Op::DelayFinish { start, key };
        let signing = by.signing();
        self.act_with(&keys, &recipients, op, &[(Role::Device, &signing)], Vec::new(), rng)
    }

    /// Begins a recovery: `device` joins by the kit or the contacts' key, after the wait.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn start_recovery(
        &self,
        by: (Role, &RecoveryKeys),
        device: &DeviceKeys,
        stolen: Option<DeviceId>,
    ) -> Result<Act, Misbehaviour> {
        let info = device.info();
        let pop = pop(&device.signing(), self.account.id(), &info, &[0; 32]);
        let op = Op::RecoveryStart { device: info, stolen };
        self.act(op, &[(by.0, &by.1.signing)], pop)
    }

    /// Ends a recovery's wait.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn finish_recovery(
        &self,
        by: (Role, &RecoveryKeys),
        start: u64,
        anchors: Vec<Anchor>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let waiting = self.account.recoveries().find(|(seq, ..)| *seq == start);
        let (_, device, stolen) = waiting.ok_or(Misbehaviour::ActNotAllowed)?;
        let stolen = stolen.filter(|id| self.account.device(*id).is_some_and(|d| d.is_live()));
        let without = stolen.as_slice();
        let recipients = Recipients::of(self.account, Some(device), without, self.account.policy());
        let (mut keys, mut commit) = self.removal(anchors, rng);
        if stolen.is_none() {
            keys.removals.pop();
            commit = [0; 32];
        }
        let op = |key| Op::RecoveryFinish { start, anchors: commit, key };
        self.act_with(&keys, &recipients, op, &[(by.0, &by.1.signing)], Vec::new(), rng)
    }

    /// Stops something that waits.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn veto(&self, by: &DeviceKeys, start: u64) -> Result<Act, Misbehaviour> {
        self.act(Op::Veto { start }, &[(Role::Device, &by.signing())], Vec::new())
    }

    /// Stops a change that was begun without the kit, by the kit.
    ///
    /// **Errors** [`Misbehaviour::ActNotAllowed`].
    pub fn veto_by_kit(&self, kit: &RecoveryKeys, start: u64) -> Result<Act, Misbehaviour> {
        self.act(Op::Veto { start }, &[(Role::Kit, &kit.signing)], Vec::new())
    }

    /// The secrets of the next generation, with the heads of a removal, and what commits to those.
    fn removal(
        &self,
        anchors: Vec<Anchor>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> (AccountKeys, Hash) {
        let mut keys = self.keys.next(rng);
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        let removal = Removal { seq: self.account.seq() + 1, salt, anchors };
        let commit = removal.commit();
        keys.removals.push(removal);
        (keys, commit)
    }

    fn act_with(
        &self,
        keys: &AccountKeys,
        recipients: &Recipients,
        op: impl FnOnce(AccountKey) -> Op,
        signers: &[(Role, &SigningKey)],
        pop: Vec<u8>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Act, Misbehaviour> {
        let (key, key_block) = seal(keys, recipients, self.account.newest(), rng)?;
        let act = self.act(op(key), signers, pop)?;
        Ok(Act { key_block: Some(key_block), ..act })
    }

    fn act(
        &self,
        op: Op,
        signers: &[(Role, &SigningKey)],
        pop: Vec<u8>,
    ) -> Result<Act, Misbehaviour> {
        let names: Vec<_> = signers
            .iter()
            .map(|(role, key)| (*role, sr_trust::device_id(key.public_key())))
            .collect();
        let body: Body = self.account.next(op, &names, self.time_s)?;
        Ok(Act { block: encode(&body.sign(signers, pop)), key_block: None })
    }
}

fn seal(
    keys: &AccountKeys,
    recipients: &Recipients,
    bound_to: Hash,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(AccountKey, Vec<u8>), Misbehaviour> {
    let block = KeyBlock::seal(keys, recipients, bound_to, rng)
        .map_err(|_| Misbehaviour::ActNotAllowed)?
        .to_bytes();
    // Grants grow with the generations: for very many devices and changes there is no room.
    if block.len() > limits::KEY_BLOCK_LEN_MAX {
        return Err(Misbehaviour::ActNotAllowed);
    }
    Ok((keys.account_key(key_block_hash(&block)), block))
}
