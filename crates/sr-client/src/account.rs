//! The account on this device: its verified chain, its secrets, and how both are brought up to date.

use std::sync::Arc;

use sr_keys::{AccountKeys, Act, Actor, DeviceKeys, Granted, KeyBlock, Removal, VaultKeys};
use sr_trust::{Account, Block, Device, Verified};
use sr_wire::{
    AccountId, DeviceId, Misbehaviour, SpaceId, VLBytes, VOUCHERS_PER_INVITE, VaultId,
    api::{AccountAppend, EnvelopePut, ErrorCode},
    decode, limits, voucher,
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{ClientError, Clock, profile::Profile, remote::Remote};

/// Everything that this device knows of its account and may use.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) device: Arc<DeviceKeys>,
    pub(crate) account: Verified<Account>,
    opened: Opened,
    which: Which,
    /// The vault that is worked with: the one that the account's full devices share, or a limited
    /// device's.
    pub(crate) vault: VaultKeys,
}

/// What this device could open of the key block.
#[derive(Debug)]
pub(crate) enum Opened {
    Full(FullKeys),
    Limited(Granted),
}

#[derive(Debug)]
pub(crate) struct FullKeys {
    secrets: AccountKeys,
    root: VaultKeys,
}

impl Opened {
    pub(crate) fn full(secrets: AccountKeys) -> Self {
        let root = secrets.root_space();
        Self::Full(FullKeys { secrets, root })
    }

    fn duplicate(&self) -> Self {
        match self {
            Self::Full(keys) => Self::full(keys.secrets.duplicate()),
            Self::Limited(granted) => {
                let (vault, removals) = (granted.vault.duplicate(), granted.removals.clone());
                Self::Limited(Granted { vault, removals })
            }
        }
    }
}

/// Which vault is worked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Which {
    /// The one that the root record lists.
    pub(crate) shared: Option<(VaultId, SpaceId)>,
    /// That of a limited device.
    pub(crate) of: Option<DeviceId>,
}

impl Keys {
    pub(crate) fn new(
        device: Arc<DeviceKeys>,
        account: Verified<Account>,
        opened: Opened,
        which: Which,
    ) -> Arc<Self> {
        let vault = match (&opened, which.of, which.shared) {
            (Opened::Limited(granted), ..) => granted.vault.duplicate(),
            (Opened::Full(keys), Some(of), _) => keys.secrets.limited_vault(of),
            (Opened::Full(keys), None, Some((vault, space))) => keys.secrets.vault(vault, space),
            // None is listed yet.
            (Opened::Full(keys), None, None) => keys.root.duplicate(),
        };
        Arc::new(Self { device, account, opened, which, vault })
    }

    /// Returns the same on an account that has moved on without another key block.
    pub(crate) fn on(&self, account: Verified<Account>) -> Arc<Self> {
        Self::new(Arc::clone(&self.device), account, self.opened.duplicate(), self.which)
    }

    /// Returns the same with what was opened of a newer key block.
    pub(crate) fn with(&self, account: Verified<Account>, opened: Opened) -> Arc<Self> {
        Self::new(Arc::clone(&self.device), account, opened, self.which)
    }

    /// Returns the same, of which another vault is worked with.
    pub(crate) fn choose(&self, change: impl FnOnce(&mut Which)) -> Arc<Self> {
        let (account, mut which) = (self.account.clone(), self.which);
        change(&mut which);
        Self::new(Arc::clone(&self.device), account, self.opened.duplicate(), which)
    }

    /// Returns the limited device whose vault is worked with by a full one.
    pub(crate) fn of(&self) -> Option<DeviceId> {
        self.which.of
    }

    /// Returns whether this device may only add to its own vault.
    pub(crate) fn is_limited(&self) -> bool {
        matches!(self.opened, Opened::Limited(_))
    }

    /// Returns the account's secrets.
    ///
    /// **Errors** [`ClientError::Limited`] on a limited device, as for all that needs them.
    pub(crate) fn secrets(&self) -> Result<&AccountKeys, ClientError> {
        self.full().map(|keys| &keys.secrets)
    }

    /// Returns the keys of the root space.
    pub(crate) fn root(&self) -> Result<&VaultKeys, ClientError> {
        self.full().map(|keys| &keys.root)
    }

    fn full(&self) -> Result<&FullKeys, ClientError> {
        match &self.opened {
            Opened::Full(keys) => Ok(keys),
            Opened::Limited(_) => Err(ClientError::Limited),
        }
    }

    /// Returns the heads at which devices were removed.
    pub(crate) fn removals(&self) -> &[Removal] {
        match &self.opened {
            Opened::Full(keys) => keys.secrets.removals(),
            Opened::Limited(granted) => &granted.removals,
        }
    }

    /// Returns who acts on the account at `time_s`.
    pub(crate) fn actor(&self, time_s: u64) -> Result<Actor<'_>, ClientError> {
        Ok(Actor { account: &self.account, keys: self.secrets()?, time_s })
    }

    /// Returns the account's vaults: the shared one, if it is known, and those of all limited devices
    /// that ever were.
    pub(crate) fn vaults(&self) -> Result<Vec<VaultKeys>, ClientError> {
        let secrets = self.secrets()?;
        let shared = self.which.shared.map(|(vault, space)| secrets.vault(vault, space));
        let limited = self.account.devices().iter().filter(|device| !device.is_full());
        let limited = limited.map(|device| secrets.limited_vault(device.id));
        Ok(shared.into_iter().chain(limited).collect())
    }
}

/// An act that is remembered before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct PendingAct {
    pub(crate) block: VLBytes,
    pub(crate) key_block: Option<VLBytes>,
    pub(crate) envelope: Option<EnvelopePut>,
}

impl PendingAct {
    pub(crate) fn new(act: Act, envelope: Option<EnvelopePut>) -> Self {
        Self { block: act.block.into(), key_block: act.key_block.map(Into::into), envelope }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, sr_wire::Malformed> {
        decode("act", bytes, limits::ACCOUNT_MESSAGE_LEN_MAX)
    }
}

/// A block that this client does not act on yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place.
    pub seq: u64,
    /// Unix seconds from which on it counts.
    pub until_s: u64,
    /// The block that began the wait.
    pub opened: u64,
}

/// Brings the account up to date: what was begun is sent again, what is new is verified. Returns the
/// account as the server shows it, with what waits.
pub(crate) fn sync(
    profile: &mut Profile,
    remote: &Remote,
    clock: &Clock,
) -> Result<Verified<Account>, ClientError> {
    let mut overtaken = false;
    let sealed = profile.sealed()?;
    if let Some(act) = profile.pending_act()?.filter(|_| sealed.is_none()) {
        match send(profile, remote, &act, clock) {
            // Another device was faster. What was begun is to be begun again, on what is now.
            Err(ClientError::ServerRefused(
                ErrorCode::Conflict | ErrorCode::BlockRefused | ErrorCode::TooEarly,
            )) => overtaken = true,
            // The account is not there, which reading it will say.
            Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {}
            // Nothing new is stored now. What there is, can be read.
            Err(ClientError::ServerRefused(ErrorCode::PutBack))
                if profile.keys.account.seq() > 0 => {}
            done => done?,
        }
    }
    let served = fetch(profile, remote, clock)?;
    require_receipt(profile, &served)?;
    if overtaken {
        profile.clear_act()?;
    }
    if may_read(profile, &profile.keys.account) {
        Ok(served)
    } else {
        Err(ClientError::DeviceRemoved)
    }
}

/// Refuses a server that has taken the act that is on its way, and does not promise to log it: it would be
/// in force here, and hidden from others.
fn require_receipt(profile: &Profile, served: &Account) -> Result<(), ClientError> {
    let Some(act) = profile.pending_act()? else { return Ok(()) };
    let block = Block::parse(act.block.as_slice()).map_err(|_| profile.damaged())?;
    let is_taken = served.block_hash(block.body.seq) == Some(block.hash());
    // The genesis is on this device before it is on the server.
    let is_promised = block.body.seq == 0 || profile.has_receipt(block.body.seq)?;
    // SR-038
    Ok(Misbehaviour::ReceiptForged.refuse_if(is_taken && !is_promised)?)
}

/// Does an act: it is remembered, sent, and accepted.
///
/// **Errors** [`ClientError::Overtaken`] when another device was faster.
pub(crate) fn act(
    profile: &mut Profile,
    remote: &Remote,
    act: PendingAct,
    clock: &Clock,
) -> Result<(), ClientError> {
    profile.require_unsealed()?;
    // What this client would not take from another is not sent.
    let block = Block::parse(act.block.as_slice()).map_err(|_| ClientError::NotAllowed)?;
    profile.keys.account.clone().extend(&block).map_err(|_| ClientError::NotAllowed)?;
    profile.set_act(&act)?;
    match send(profile, remote, &act, clock) {
        Err(ClientError::ServerRefused(
            code @ (ErrorCode::Conflict | ErrorCode::BlockRefused | ErrorCode::TooEarly),
        )) => {
            let served = fetch(profile, remote, clock)?;
            require_receipt(profile, &served)?;
            profile.clear_act()?;
            let is_overtaken = code == ErrorCode::Conflict;
            Err(if is_overtaken {
                ClientError::Overtaken
            } else {
                ClientError::ServerRefused(code)
            })
        }
        // What was refused does not come into force by itself, days later.
        Err(error @ ClientError::ServerRefused(ErrorCode::PutBack)) => {
            profile.clear_act()?;
            Err(error)
        }
        done => done,
    }
}

fn send(
    profile: &mut Profile,
    remote: &Remote,
    act: &PendingAct,
    clock: &Clock,
) -> Result<(), ClientError> {
    let block = Block::parse(act.block.as_slice()).map_err(|_| profile.damaged())?;
    let account = profile.keys.account.id();
    // Its answer came, and the power went before it was ticked off.
    let seq = block.body.seq;
    let is_taken = seq > 0 && profile.keys.account.block_hash(seq) == Some(block.hash());
    if is_taken && profile.has_receipt(seq)? {
        return profile.clear_act();
    }
    let mut request = AccountAppend {
        account,
        blocks: vec![act.block.clone()],
        key_block: act.key_block.clone(),
        envelope: act.envelope.clone(),
        voucher: None,
        receipts: Vec::new(),
    };
    if block.body.seq == 0 {
        let token = profile.invite()?.token;
        let mut refused = ClientError::ServerRefused(ErrorCode::VoucherRefused);
        for number in 0..VOUCHERS_PER_INVITE {
            request.voucher = Some(voucher(&token, number));
            match remote.append(&request, (0, &block.hash())) {
                Err(error @ ClientError::ServerRefused(ErrorCode::VoucherRefused)) => {
                    refused = error;
                }
                done => {
                    profile.set_receipt(&done?)?;
                    return profile.clear_act();
                }
            }
        }
        return Err(refused);
    }
    profile.set_receipt(&remote.append(&request, (seq, &block.hash()))?)?;
    if let Some(envelope) = &act.envelope {
        profile.set_envelope(seq, envelope)?;
    }
    if is_taken {
        return profile.clear_act();
    }
    take(profile, act, &block, (clock)())
}

/// Accepts the device's own act.
fn take(
    profile: &mut Profile,
    act: &PendingAct,
    block: &Block,
    now_s: u64,
) -> Result<(), ClientError> {
    let mut account = profile.keys.account.clone();
    account.extend(block)?;
    profile.note_block_seen(block.body.seq, now_s)?;
    let mine = may_read(profile, &account);
    let secrets = match &act.key_block {
        Some(bytes) if mine => {
            let secrets = open_key_block(profile, &account, bytes.as_slice())?;
            Some((bytes.as_slice().to_vec(), secrets))
        }
        _ => None,
    };
    profile.take_blocks(account, &[act.block.as_slice().to_vec()], secrets)?;
    profile.clear_act()
}

/// Reads the blocks that this client does not have, verifies each, and takes those that count now. Returns
/// where all of them lead.
fn fetch(
    profile: &mut Profile,
    remote: &Remote,
    clock: &Clock,
) -> Result<Verified<Account>, ClientError> {
    let known = profile.keys.account.clone();
    let key_block_now = known.key().key_block;
    let (blocks, key_block) = match remote.blocks(known.id(), known.seq()) {
        // SR-021: an account that this server had is not there any more.
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            return Err(Misbehaviour::ChainRolledBack.into());
        }
        read => read?,
    };
    // SR-021: the newest block that this client accepted is not there.
    let Some((first, new)) = blocks.split_first() else {
        Misbehaviour::ChainRolledBack.refuse_if(true)?;
        return Ok(known);
    };
    let first = Block::parse(first).map_err(|_| Misbehaviour::ResponseMalformed)?;
    // SR-022: another block stands in its place.
    Misbehaviour::ChainForked.refuse_if(first.hash() != known.newest())?;
    let mut account = known;
    let (mut taken, mut waiting, mut waits) = (Vec::new(), None, Vec::new());
    let now_s = (clock)();
    for bytes in new {
        let block = Block::parse(bytes).map_err(|_| Misbehaviour::ResponseMalformed)?;
        if waiting.is_none()
            && let Some(gate) = account.gate(&block)
        {
            // A start that was there at the first view was first seen then, or now at the latest.
            profile.note_block_seen(gate.opened, now_s)?;
            let until_s = profile.wait_began_s(gate.opened, now_s)?.saturating_add(gate.delay_s);
            if profile.waits_s(now_s)? < until_s {
                waiting = Some(Waiting { seq: block.body.seq, until_s, opened: gate.opened });
            }
        }
        if waiting.is_some() {
            waits.push(block);
            continue;
        }
        account.extend(&block)?;
        // What waits is known from here on, even if the rest is not taken.
        profile.note_block_seen(block.body.seq, now_s)?;
        taken.push(bytes.clone());
    }
    profile.waiting = waiting;
    let mut served = account.clone();
    waits.iter().try_for_each(|block| served.extend(block))?;
    if taken.is_empty() {
        return Ok(served);
    }
    let is_newest = waiting.is_none();
    let changed = account.key().key_block != key_block_now;
    let mine = may_read(profile, &account);
    let opened = match (changed && mine, is_newest) {
        (true, true) => Some(open_key_block(profile, &account, &key_block)?),
        // The key block of a state in the middle is not kept by the server: wait for the rest.
        (true, false) => return Ok(served),
        (false, _) => None,
    };
    profile.take_blocks(account, &taken, opened.map(|opened| (key_block, opened)))?;
    Ok(served)
}

fn open_key_block(
    profile: &Profile,
    account: &Verified<Account>,
    key_block: &[u8],
) -> Result<Opened, ClientError> {
    let (device, kit) = (&profile.keys.device, profile.kept());
    let is_live = account.device(device.id()).is_some_and(Device::is_live);
    if is_live && !KeyBlock::is_for(key_block, account, device.id())? {
        return Err(ClientError::LeftOut);
    }
    Ok(crate::profile::open_key_block(key_block, account, device, kit.as_ref())?)
}

/// Returns whether a device is a limited one, as long as it is live.
pub(crate) fn is_limited(account: &Account, device: DeviceId) -> bool {
    account.device(device).is_some_and(|device| device.is_live() && !device.is_full())
}

/// A live device, or one that was restored from the kit or by the contacts in force.
fn may_read(profile: &Profile, account: &Verified<Account>) -> bool {
    account.device(profile.keys.device.id()).is_some_and(Device::is_live)
        || profile.kept().is_some_and(|kept| kept.is_in(account.policy()))
}

/// A whole account as a client sees it for the first time.
pub(crate) struct FirstView {
    pub(crate) account: Verified<Account>,
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) key_block: Vec<u8>,
}

/// Reads and verifies a whole chain, which must contain the promised block, if one was promised.
pub(crate) fn first_view(
    remote: &Remote,
    id: AccountId,
    promised: Option<(u64, sr_crypto::Hash)>,
) -> Result<FirstView, ClientError> {
    let (blocks, key_block) = match remote.blocks(id, 0) {
        // SR-029
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            return Err(Misbehaviour::ChainNotAsPromised.into());
        }
        read => read?,
    };
    let parsed: Result<Vec<Block>, _> = blocks.iter().map(|block| Block::parse(block)).collect();
    let parsed = parsed.map_err(|_| Misbehaviour::ResponseMalformed)?;
    let account = Verified::verify(id, &parsed)?;
    // SR-029
    let is_in = |(seq, hash)| account.block_hash(seq) == Some(hash);
    Misbehaviour::ChainNotAsPromised.refuse_if(!promised.is_none_or(is_in))?;
    Ok(FirstView { account, blocks, key_block })
}
