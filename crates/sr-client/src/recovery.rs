//! The recovery kit: made, tried, used; and what waits until somebody could have objected.

use std::{path::Path, sync::Arc};

use sr_keys::{DeviceKeys, Envelope, Handover, Kept, Kit, KitNote, Owner};
use sr_trust::{Change, Policy, Role};
use sr_wire::{
    DeviceId, Invite, Right, VLBytes,
    api::{EnvelopePut, ErrorCode},
    decode, encode, limits,
};

use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, Clock, MakeDialer,
    account::{self, PendingAct, first_view},
    client::tls_dialer,
    heads,
    link::adopt_spaces,
    profile::{NewProfile, Profile},
    remote::{Remote, os_rng, runtime},
    root,
};

/// Something that waits until it counts, and that may be stopped until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The block that began it, by which it is named.
    pub number: u64,
    /// What it is.
    pub kind: RequestKind,
    /// Unix seconds from which on it can be finished, by what this device has seen.
    pub until_s: u64,
}

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A new device, by the recovery kit or by contacts.
    Device(DeviceId),
    /// Another recovery kit, by a device without the old one.
    Policy,
    /// Other witnesses, by a device without the kit.
    Witnesses,
    /// Another change, by a device without the kit.
    Other,
}

/// What a kit's page says beside its characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitPage {
    /// Address of the server.
    pub server: String,
    /// The characters by which people compare servers.
    pub server_name: String,
    /// The account.
    pub account: sr_wire::AccountId,
    /// The person's name.
    pub name: Option<String>,
    /// Unix seconds.
    pub made_s: u64,
    /// Seconds that acting waits.
    pub delay_s: u32,
}

impl Client {
    /// Makes a kit that does not count yet, and what its page says. Nothing is sent.
    ///
    /// **Errors** those of reading the account.
    pub fn new_kit(&mut self) -> Result<(Kit, KitPage), ClientError> {
        self.refresh()?;
        self.require_full()?;
        self.require_logged()?;
        let page = KitPage {
            server: self.profile.invite()?.address,
            server_name: self.account_remote.card()?.short_name(),
            account: self.profile.keys.account.id(),
            name: self.profile.name()?,
            made_s: (self.clock)(),
            delay_s: self.profile.keys.account.policy().delay_s,
        };
        Ok((Kit::generate(&mut os_rng()), page))
    }

    /// Returns whether the account has a kit, so that a new one needs the old one, or time.
    #[must_use]
    pub fn has_kit(&self) -> bool {
        self.profile.keys.account.policy().kit.is_some()
    }

    /// Brings a kit into force, in place of `old`, which the first kit of an account does without.
    ///
    /// **Errors** [`ClientError::OldKitNeeded`], [`ClientError::KitWrong`], and those of the account.
    pub fn set_kit(&mut self, kit: &Kit, old: Option<&Kit>) -> Result<(), ClientError> {
        self.refresh()?;
        self.require_full()?;
        self.require_logged()?;
        let in_force = self.profile.keys.account.policy().kit.clone();
        match (&in_force, old) {
            (Some(_), None) => return Err(ClientError::OldKitNeeded),
            (Some(key), Some(old)) if old.keys().public() != *key => {
                return Err(ClientError::KitWrong { expected: self.kit_id()? });
            }
            _ => {}
        }
        let old = old.filter(|_| in_force.is_some());
        let (old_keys, old_owner) = (old.map(Kit::keys), old.map(Kit::owner));
        let keys = Arc::clone(&self.profile.keys);
        let envelope = self.envelope_of(kit)?;
        let actor = keys.actor((self.clock)())?;
        let act = actor.set_recovery(
            &keys.device,
            old_keys.as_ref(),
            (self.policy_with(kit), &[]),
            &mut os_rng(),
        )?;
        // Noted when it is in force, by this command or the next.
        let id = kit.id().into_bytes().into();
        let key = kit.keys().public().id();
        let handover = Handover { old: old_owner, new: kit.owner() };
        let handover = handover.seal(&keys.device).map_err(|_| self.profile.damaged())?.into();
        let change = KitChange { key, id, envelope: envelope.clone(), handover };
        self.profile.set_kit_change(Some(&encode(&change)))?;
        let act = PendingAct::new(act, Some(envelope));
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        self.refresh()
    }

    /// Begins to bring a kit into force without the old one. Other devices can stop it while it
    /// waits; the first command after that finishes it. Returns when that is, in Unix seconds.
    ///
    /// **Errors** those of the account.
    pub fn set_kit_later(&mut self, kit: &Kit) -> Result<u64, ClientError> {
        self.refresh()?;
        self.require_full()?;
        let keys = Arc::clone(&self.profile.keys);
        let envelope = self.envelope_of(kit)?;
        let id = kit.id().into_bytes().into();
        let change =
            KitChange { key: kit.keys().public().id(), id, envelope, handover: Vec::new().into() };
        self.profile.set_kit_change(Some(&encode(&change)))?;
        let now_s = (self.clock)();
        let act = keys.actor(now_s)?.start_change(&keys.device, self.policy_with(kit));
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        // From when witnesses have seen it.
        self.wait_logged()?;
        Ok(now_s + u64::from(keys.account.policy().delay_s))
    }

    /// Tries a kit as a restore would, up to the point where the account's secrets are open.
    ///
    /// **Errors** [`ClientError::KitWrong`], [`ClientError::KitReplaced`],
    /// [`ClientError::Misbehaviour`].
    pub fn drill(&mut self, kit: &Kit) -> Result<(), ClientError> {
        self.refresh()?;
        let id = self.kit_id()?;
        let is_in_force = self.profile.keys.account.policy().kit == Some(kit.keys().public());
        let opened = match open_kit(&self.account_remote, kit, id) {
            Err(ClientError::KitWrong { .. }) if is_in_force => return Err(ClientError::KitLost),
            opened => opened?,
        };
        if opened.view.account.id() != self.profile.keys.account.id() {
            return Err(ClientError::KitWrong { expected: self.kit_id()? });
        }
        let (account, keys) = (&opened.view.account, kit.keys());
        let recipient = keys.public().id();
        sr_keys::KeyBlock::open(&opened.view.key_block, account, recipient, keys.sealing())?;
        if self.require_full().is_err() {
            return Ok(());
        }
        let now_s = (self.clock)();
        self.note_kit(&kit.id(), Some(now_s))?;
        // A kit for which a wait was needed owns what had no owner by then.
        self.hand_over(&Handover { old: None, new: kit.owner() })?;
        Ok(())
    }

    /// Takes the account's place at the server back from who has given it other rights, as a thief
    /// with a device can who is faster than its removal.
    ///
    /// **Errors** [`ClientError::KitFirst`], [`ClientError::KitWrong`],
    /// [`ClientError::AccountWaits`]; [`ClientError::ServerRefused`] when an earlier kit owns it.
    pub fn take_back(&mut self, kit: &Kit) -> Result<(), ClientError> {
        self.profile.require_unsealed()?;
        self.sync()?;
        self.require_kit(kit)?;
        if !self.hand_over(&Handover { old: None, new: kit.owner() })? {
            return Err(ClientError::ServerRefused(ErrorCode::RightRefused));
        }
        self.refresh()
    }

    /// Makes a profile in `dir` from nothing but a kit and the server's address. It reads at once; as
    /// a device of the account it counts after the wait. With `stolen`, that device is taken out then.
    ///
    /// **Errors** [`ClientError::KitWrong`], [`ClientError::KitReplaced`],
    /// [`ClientError::Misbehaviour`], [`ClientError::AlreadyJoined`] and those of local files.
    pub fn restore_kit(
        dir: &Path,
        address: &str,
        kit: &Kit,
        device_name: &str,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        Self::restore_kit_by(dir, address, kit, device_name, clock, &tls_dialer())
    }

    /// As [`Client::restore_kit`], over another network than TLS.
    ///
    /// **Errors** as [`Client::restore_kit`].
    pub fn restore_kit_by(
        dir: &Path,
        address: &str,
        kit: &Kit,
        device_name: &str,
        clock: Clock,
        dialer: &MakeDialer,
    ) -> Result<Self, ClientError> {
        let remote = Remote::new(runtime()?, dialer(address)?, None, Arc::clone(&clock));
        let opened = open_kit(&remote, kit, None)?;
        let card = opened.envelope.card;
        let device = DeviceKeys::generate(&mut os_rng());
        let heard = Vec::new();
        let from = Restored { address, card, view: opened.view, device, device_name, heard };
        Self::restored(dir, from, &kit.to_kept(), &remote, clock)
    }

    /// Makes the profile of a device that was brought back by the kit or by contacts. It reads at once.
    pub(crate) fn restored(
        dir: &Path,
        from: Restored<'_>,
        kept: &Kept,
        remote: &Remote,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        let (address, card_hash) = (from.address.to_owned(), from.card);
        let invite = Invite { address, card_hash, token: [0; 16] };
        let mut profile = Profile::create(
            dir,
            NewProfile {
                now_s: clock(),
                invite: &invite,
                name: None,
                device_name: from.device_name,
                device: from.device,
                account: from.view.account,
                blocks: from.view.blocks,
                key_block: from.view.key_block,
                act: None,
                pins: Vec::new(),
                places: Vec::new(),
                log_note: Vec::new(),
                policy: Vec::new(),
                kept: Some(kept),
            },
        )?;
        profile.hear(from.heard.iter().map(Vec::as_slice))?;
        adopt_spaces(&mut profile)?;
        let mut client = Self::new(profile, remote.pinned(card_hash), clock);
        client.make_space(client.profile.keys.root()?, &client.root_remote)?;
        root::read(&mut client.profile, &client.root_remote)?;
        let keys = Arc::clone(&client.profile.keys);
        client.profile.set_space_generation(keys.vault.space(), 0)?;
        client.fresh(|client| {
            heads::newest(&mut client.profile, &client.remote, &keys.vault, false).map(drop)
        })?;
        Ok(client)
    }

    /// Begins to make this device, which was restored from a kit, a device of the account. Returns
    /// when it counts, in Unix seconds.
    ///
    /// **Errors** [`ClientError::AlreadyJoined`] when it was not restored from a kit or is one already,
    /// and those of the account.
    pub fn start_recovery(&mut self, stolen: Option<DeviceId>) -> Result<u64, ClientError> {
        self.refresh()?;
        let keys = Arc::clone(&self.profile.keys);
        let kept = self.profile.kept().ok_or(ClientError::AlreadyJoined)?;
        let now_s = (self.clock)();
        if !self.own_recoveries().is_empty() {
            return Ok(self.own_recoveries()[0].until_s);
        }
        let by = kept.keys();
        let act = keys.actor(now_s)?.start_recovery((kept.role(), &by), &keys.device, stolen);
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        // From when witnesses have seen it.
        self.wait_logged()?;
        Ok(now_s + u64::from(keys.account.policy().delay_s))
    }

    /// Returns what waits, as this device knows it, but for what it began itself.
    #[must_use]
    pub fn known_requests(&self) -> Vec<Request> {
        let this = RequestKind::Device(self.profile.keys.device.id());
        // A change of the kit that this device began is its own, too.
        let own_change = self.profile.kit_change().ok().flatten().is_some();
        let is_own = |request: &Request| {
            request.kind == this || (own_change && request.kind == RequestKind::Policy)
        };
        self.waiting_requests().into_iter().filter(|request| !is_own(request)).collect()
    }

    /// Returns what waits.
    ///
    /// **Errors** those of the account.
    pub fn requests(&mut self) -> Result<Vec<Request>, ClientError> {
        self.refresh()?;
        Ok(self.waiting_requests())
    }

    /// Stops something that waits.
    ///
    /// **Errors** [`ClientError::NotFound`], and those of the account.
    pub fn veto(&mut self, number: u64) -> Result<(), ClientError> {
        if !self.requests()?.iter().any(|request| request.number == number) {
            return Err(ClientError::NotFound(format!("request {number}")));
        }
        let keys = Arc::clone(&self.profile.keys);
        let actor = keys.actor((self.clock)())?;
        let act = match (self.require_full(), self.profile.kept()) {
            (Ok(()), _) => actor.veto(&keys.device, number),
            // The paper stops what a thief has begun without it.
            (Err(_), Some(kept)) if kept.role() == Role::Kit => {
                actor.veto_by_kit(&kept.keys(), number)
            }
            (Err(error), _) => return Err(error),
        };
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)
    }

    /// Refuses acts of a device that does not count yet.
    ///
    /// **Errors** [`ClientError::RecoveryWaits`].
    pub(crate) fn require_full(&self) -> Result<(), ClientError> {
        if self.profile.keys.account.is_full(self.profile.keys.device.id()) {
            return Ok(());
        }
        if self.profile.keys.is_limited() {
            return Err(ClientError::Limited);
        }
        let until_s = self.own_recoveries().first().map(|request| request.until_s);
        Err(ClientError::RecoveryWaits { until_s })
    }

    /// Refuses a backup of a device that does not count yet, or into another's vault.
    ///
    /// **Errors** [`ClientError::RecoveryWaits`], [`ClientError::NotAllowed`].
    pub(crate) fn require_writer(&self) -> Result<(), ClientError> {
        let keys = &self.profile.keys;
        match keys.of() {
            Some(_) => Err(ClientError::NotAllowed),
            None if keys.is_limited() => Ok(()),
            None => self.require_full(),
        }
    }

    /// Finishes what this device began and has waited for.
    pub(crate) fn finish_waits(&mut self) -> Result<(), ClientError> {
        let now_s = self.profile.waits_s((self.clock)())?;
        self.finish_recovery(now_s)?;
        self.finish_kit_change(now_s)?;
        self.finish_policies(now_s)
    }

    fn finish_recovery(&mut self, now_s: u64) -> Result<(), ClientError> {
        let Some(kept) = self.profile.kept() else { return Ok(()) };
        let keys = Arc::clone(&self.profile.keys);
        if keys.account.is_full(keys.device.id()) {
            // What it was kept for is done.
            let name = self.profile.device_name()?;
            let (device, name) = (keys.device.id(), String::from_utf8_lossy(&name).into_owned());
            self.make_space(keys.root()?, &self.root_remote)?;
            root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
                record.set_name(device, &name);
            })?;
            return self.profile.clear_kept();
        }
        let ready = self.own_recoveries().into_iter().find(|request| request.until_s <= now_s);
        let Some(ready) = ready else { return Ok(()) };
        // What seals keys to all devices waits until all of them are in the log.
        if !self.wait_logged()? {
            return Ok(());
        }
        let anchors = self.anchors()?;
        let by = kept.keys();
        let act = keys.actor((self.clock)())?.finish_recovery(
            (kept.role(), &by),
            ready.number,
            anchors,
            &mut os_rng(),
        );
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        self.finish_recovery(now_s)
    }

    fn finish_kit_change(&mut self, now_s: u64) -> Result<(), ClientError> {
        let Some(change) = self.profile.kit_change()? else { return Ok(()) };
        let change: KitChange = decode("kit change", &change, limits::MESSAGE_LEN_MAX)
            .map_err(|_| self.profile.damaged())?;
        let is_own =
            |policy: &Policy| policy.kit.as_ref().is_some_and(|kit| kit.id() == change.key);
        let account = &self.profile.keys.account;
        if is_own(account.policy()) {
            // It is in force, whoever heard the answer.
            let keys = Arc::clone(&self.profile.keys);
            self.make_space(keys.root()?, &self.root_remote)?;
            if let Some(handover) = Handover::open(change.handover.as_slice(), &keys.device) {
                self.hand_over(&handover)?;
            }
            self.note_kit(&String::from_utf8_lossy(change.id.as_slice()), None)?;
            return self.profile.set_kit_change(None);
        }
        let number = account.changes().find_map(|(seq, waiting)| match waiting {
            Change::Recovery(policy) if is_own(policy) => Some(seq),
            _ => None,
        });
        let request = self.waiting_requests().into_iter().find(|r| Some(r.number) == number);
        let Some(request) = request else {
            // Stopped by somebody.
            return self.profile.set_kit_change(None);
        };
        if request.until_s > now_s || !self.wait_logged()? {
            return Ok(());
        }
        let keys = Arc::clone(&self.profile.keys);
        let actor = keys.actor((self.clock)())?;
        let act = actor.finish_change(&keys.device, request.number, &mut os_rng());
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, Some(change.envelope));
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        self.finish_kit_change(now_s)
    }

    fn own_recoveries(&self) -> Vec<Request> {
        let this = RequestKind::Device(self.profile.keys.device.id());
        self.waiting_requests().into_iter().filter(|request| request.kind == this).collect()
    }

    fn waiting_requests(&self) -> Vec<Request> {
        let account = &self.profile.keys.account;
        let devices =
            account.recoveries().map(|(seq, info, _)| (seq, RequestKind::Device(info.id())));
        let changes = account.changes().map(|(seq, change)| match change {
            Change::Recovery(_) => (seq, RequestKind::Policy),
            Change::Pin(_) => (seq, RequestKind::Witnesses),
            _ => (seq, RequestKind::Other),
        });
        devices
            .chain(changes)
            .map(|(number, kind)| {
                let now_s = (self.clock)();
                let began_s = self.profile.wait_began_s(number, now_s).unwrap_or(now_s);
                let until_s = began_s + account.delay_s(number).unwrap_or_default();
                Request { number, kind, until_s }
            })
            .collect()
    }

    fn policy_with(&self, kit: &Kit) -> Policy {
        Policy { kit: Some(kit.keys().public()), ..self.profile.keys.account.policy().clone() }
    }

    fn envelope_of(&self, kit: &Kit) -> Result<EnvelopePut, ClientError> {
        let account = &self.profile.keys.account;
        let envelope = Envelope {
            account: account.id(),
            card: self.profile.invite()?.card_hash,
            seq: account.seq(),
            block: account.newest(),
            made_s: (self.clock)(),
        };
        let sealed = kit.seal(&envelope, &mut os_rng()).into();
        Ok(EnvelopePut { lookup: kit.lookup(), sealed })
    }

    /// Returns the id of the kit in force, if a device has noted it.
    pub(crate) fn kit_id(&self) -> Result<Option<String>, ClientError> {
        Ok(self.profile.record()?.and_then(|record| record.kit()).map(|kit| kit.id))
    }

    /// Makes a kit in force the owner of the account's spaces. Returns false when an earlier one is,
    /// and stays it.
    fn hand_over(&mut self, handover: &Handover) -> Result<bool, ClientError> {
        if let Some(waiting) = self.profile.waiting {
            return Err(ClientError::AccountWaits { until_s: waiting.until_s });
        }
        let keys = Arc::clone(&self.profile.keys);
        let mut is_ours = true;
        self.each_space(|profile, keys, remote| {
            let owner = |owner: &Owner| Some((Right::Owner, owner.capability(keys.space())));
            let new = handover.new.capability(keys.space()).public_key();
            let by = [
                keys.capability(Right::Prune).map(|key| (Right::Prune, key)),
                handover.old.as_ref().and_then(owner),
                owner(&handover.new),
            ];
            let mut is_owner = false;
            for (by, key) in by.into_iter().flatten() {
                match remote.rotate(keys, new, (by, &key)) {
                    Err(ClientError::ServerRefused(ErrorCode::RightRefused)) => {}
                    // What is wrong with a limited device's space stops nothing else.
                    Err(ClientError::ServerRefused(_)) if keys.limited().is_some() => {}
                    done => {
                        done?;
                        is_owner = true;
                        break;
                    }
                }
            }
            is_ours &= is_owner || keys.limited().is_some();
            if !is_owner {
                return Ok(());
            }
            profile.set_space_generation(keys.space(), keys.generation())
        })?;
        if !is_ours {
            return Ok(false);
        }
        let kit = keys.account.policy().kit.as_ref().map(sr_trust::RecoveryKey::id);
        if keys.account.is_full(keys.device.id()) {
            root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
                record.owner = kit;
            })?;
        }
        Ok(true)
    }

    /// Notes for all devices which kit is in force, and when it was tried.
    fn note_kit(&mut self, id: &str, checked_s: Option<u64>) -> Result<(), ClientError> {
        let now_s = (self.clock)();
        let (profile, remote) = (&mut self.profile, &self.root_remote);
        root::update(profile, remote, &self.clock, |record| {
            let made_s = record.kit().filter(|kit| kit.id == id).map_or(now_s, |kit| kit.made_s);
            let checked_s = checked_s.unwrap_or(made_s);
            record.set_kit(&KitNote { id: id.to_owned(), made_s, checked_s });
        })?;
        Ok(())
    }
}

/// A kit that comes into force after a wait.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct KitChange {
    key: DeviceId,
    id: VLBytes,
    envelope: EnvelopePut,
    /// Sealed; empty without the kit in force, by whose owner keys alone a space changes its owner.
    handover: VLBytes,
}

/// What a restored device begins with.
pub(crate) struct Restored<'a> {
    pub(crate) address: &'a str,
    pub(crate) card: sr_crypto::Hash,
    pub(crate) view: account::FirstView,
    pub(crate) device: DeviceKeys,
    pub(crate) device_name: &'a str,
    /// What contacts were shown of the server's log.
    pub(crate) heard: Vec<Vec<u8>>,
}

struct OpenedKit {
    envelope: Envelope,
    view: account::FirstView,
}

/// From the kit to the account: envelope, chain, policy. Nothing is released before all of it is
/// verified.
fn open_kit(
    remote: &Remote,
    kit: &Kit,
    expected: Option<String>,
) -> Result<OpenedKit, ClientError> {
    let sealed = match remote.envelope(kit.lookup()) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            return Err(ClientError::KitWrong { expected });
        }
        read => read?,
    };
    let envelope = kit.open(&sealed)?;
    // The envelope pins the server as an invite does.
    let remote = &remote.pinned(envelope.card);
    let view = first_view(remote, envelope.account, Some((envelope.seq, envelope.block)))?;
    let key = kit.keys().public();
    if view.account.policy().kit.as_ref() != Some(&key) {
        let past = view.account.past_kits().iter().find(|kit| kit.id == key.id());
        return Err(past.map_or(ClientError::KitWrong { expected: None }, |past| {
            ClientError::KitReplaced { when_s: past.replaced_s }
        }));
    }
    Ok(OpenedKit { envelope, view })
}
