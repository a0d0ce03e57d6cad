//! The account's devices: listing, naming, and taking one out.

use std::sync::Arc;

use sr_keys::{Anchor, RootRecord};
use sr_trust::Role;
use sr_vault::head::{self, Before, HeadPlace};
use sr_wire::DeviceId;

use crate::{
    Client, ClientError,
    account::{self, PendingAct},
    heads,
    remote::os_rng,
    root,
    view::manifest_of,
};

/// How often an act is begun again because another device was faster.
pub(crate) const TRIES_MAX: usize = 5;

/// A device of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Its id.
    pub id: DeviceId,
    /// Its name, which only the account's own devices know.
    pub name: Option<String>,
    /// Whether it is this one.
    pub is_this: bool,
    /// Whether it may only add to a vault of its own.
    pub is_limited: bool,
    /// The block that added it.
    pub added: u64,
    /// The block that took it out.
    pub removed: Option<u64>,
}

/// The account's chain, as this device has verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// The account.
    pub account: sr_wire::AccountId,
    /// Its newest block.
    pub seq: u64,
    /// That block's hash.
    pub hash: sr_crypto::Hash,
    /// Generation of the account key.
    pub generation: u32,
    /// Live devices.
    pub devices: usize,
}

/// What taking a device out has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The device.
    pub device: DeviceEntry,
    /// Snapshots that it could read, and may have copied.
    pub snapshots: u64,
    /// Unix seconds of the newest of them.
    pub newest_s: Option<u64>,
    /// Live devices that have to be linked again: their addition is not in the log, so they got no new keys.
    pub left_out: Vec<DeviceId>,
}

/// Does what another device may be faster at, and then again.
///
/// **Errors** [`ClientError::Overtaken`] when that was so every time, and those of `work`.
pub(crate) fn unless_overtaken<T>(
    mut work: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    for _ in 1..TRIES_MAX {
        match work() {
            Err(ClientError::Overtaken) => {}
            done => return done,
        }
    }
    work()
}

impl Client {
    /// Returns all devices that the account ever had.
    ///
    /// **Errors** those of reading the account and the root space.
    pub fn devices(&mut self) -> Result<Vec<DeviceEntry>, ClientError> {
        self.fresh(|client| {
            let mut record = RootRecord::default();
            if !client.is_limited() {
                record = root::read(&mut client.profile, &client.root_remote)?;
            }
            let own_name = client.profile.device_name()?;
            let keys = &client.profile.keys;
            let this = keys.device.id();
            let own_name =
                |id| (id == this).then(|| String::from_utf8_lossy(&own_name).into_owned());
            let entry = |device: &sr_trust::Device| DeviceEntry {
                id: device.id,
                name: record.name(device.id).or_else(|| own_name(device.id)),
                is_this: device.id == this,
                is_limited: !device.is_full(),
                added: device.added,
                removed: device.removed.map(|(seq, _)| seq),
            };
            Ok(keys.account.devices().iter().map(entry).collect())
        })
    }

    /// Returns where the account's chain is, verified from its genesis.
    ///
    /// **Errors** those of reading the account.
    pub fn chain(&mut self) -> Result<ChainInfo, ClientError> {
        self.refresh()?;
        let account = &self.profile.keys.account;
        Ok(ChainInfo {
            account: account.id(),
            seq: account.seq(),
            hash: account.newest(),
            generation: account.key().generation,
            devices: account.live().count(),
        })
    }

    /// Gives a device a name.
    ///
    /// **Errors** [`ClientError::NotFound`], and those of writing the root space.
    pub fn rename_device(&mut self, which: &str, name: &str) -> Result<DeviceEntry, ClientError> {
        let mut device = self.find_device(which)?;
        self.require_full()?;
        self.fresh(|client| {
            let (profile, remote) = (&mut client.profile, &client.root_remote);
            root::update(profile, remote, &client.clock, |record| record.set_name(device.id, name))
        })?;
        if device.is_this {
            self.profile.set_device_name(name)?;
        }
        device.name = Some(name.to_owned());
        Ok(device)
    }

    /// Takes a device out of the account: it reads nothing that is stored from now on, and writes
    /// nothing. Whatever interrupts this, the next command finishes it.
    ///
    /// **Errors** [`ClientError::NotFound`], [`ClientError::OwnDevice`], and those of the account.
    pub fn revoke_device(&mut self, which: &str) -> Result<Revoked, ClientError> {
        let device = self.find_device(which)?;
        if device.is_this {
            return Err(ClientError::OwnDevice);
        }
        if device.removed.is_some() {
            return Err(ClientError::NotFound(format!("live device {which}")));
        }
        let snapshots = match device.is_limited {
            // Whoever has its keys can make its vault unreadable, until it is taken out.
            true => self.in_vault_of(device.id, Self::snapshots).unwrap_or_default(),
            false => self.snapshots()?,
        };
        let left_out = unless_overtaken(|| self.try_revoke(device.id))?;
        // The rights of every space, now or at the next command.
        self.refresh()?;
        Ok(Revoked {
            device,
            snapshots: snapshots.len() as u64,
            newest_s: snapshots.iter().map(|snapshot| snapshot.time_s).max(),
            left_out,
        })
    }

    fn try_revoke(&mut self, device: DeviceId) -> Result<Vec<DeviceId>, ClientError> {
        let left_out = self.left_out(Some(device))?;
        let mut anchors = self.fresh(Client::anchors)?;
        if account::is_limited(&self.profile.keys.account, device) {
            match self.in_vault_of(device, Self::newest_readable) {
                Ok(readable) => {
                    anchors.retain(|anchor| anchor.space != readable.space);
                    anchors.push(readable);
                }
                Err(ClientError::Misbehaviour(_) | ClientError::ServerRefused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let goes = (device, left_out.as_slice());
        let keys = Arc::clone(&self.profile.keys);
        let (actor, mut rng) = (keys.actor((self.clock)())?, os_rng());
        let act = match (self.require_full(), self.profile.kept()) {
            (Ok(()), _) => actor.remove_device(&keys.device, goes, anchors, &mut rng),
            // The kit takes out one device at once, and the next after the wait.
            (Err(_), Some(kept)) if kept.role() == Role::Kit => {
                actor.remove_device_by_kit(&kept.keys(), goes, anchors, &mut rng)
            }
            (Err(error), _) => return Err(error),
        };
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        Ok(left_out)
    }

    /// Returns the heads of the account's spaces that this device accepts.
    pub(crate) fn anchors(&mut self) -> Result<Vec<Anchor>, ClientError> {
        let mut anchors = Vec::new();
        self.each_space(|profile, keys, remote| {
            let newest = match heads::newest(profile, remote, keys, false) {
                // What is wrong with a limited device's vault stops nothing else.
                Err(ClientError::Misbehaviour(_) | ClientError::ServerRefused(_))
                    if keys.limited().is_some() =>
                {
                    heads::current(profile, keys)
                }
                newest => newest,
            };
            let place = newest?.place;
            anchors.push(Anchor { space: keys.space(), seq: place.seq, hash: place.hash });
            Ok(())
        })?;
        Ok(anchors)
    }

    /// Returns the newest head that counts of the vault that is worked with whose lists can be read: in
    /// one above, whoever has stolen a limited device may name lists that are not there.
    fn newest_readable(&mut self) -> Result<Anchor, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let (space, tip) = (keys.vault.space(), heads::current(&self.profile, &keys.vault)?.tip);
        let none = Anchor { space, seq: 0, hash: HeadPlace::EMPTY.hash };
        if tip.seq == 0 {
            return Ok(none);
        }
        let chain = self.remote.heads(&keys.vault, 1, tip.seq)?;
        let (account, removals) = (&keys.account, keys.removals());
        let judged = head::follow(Before::NOTHING, &chain, &keys.vault, account, removals)?;
        for head::Opened { place, head } in judged.counting.iter().rev() {
            match manifest_of(&self.profile, &self.remote, head) {
                Ok(_) => return Ok(Anchor { space, seq: place.seq, hash: place.hash }),
                Err(ClientError::Misbehaviour(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(none)
    }

    /// Finds a device by its name, its id, or the beginning of its id.
    ///
    /// **Errors** [`ClientError::NotFound`], and those of [`Client::devices`].
    pub fn find_device(&mut self, which: &str) -> Result<DeviceEntry, ClientError> {
        let devices = self.devices()?;
        let wanted = which.to_lowercase();
        let by_name = |d: &&DeviceEntry| d.removed.is_none() && d.name.as_deref() == Some(which);
        let by_id = |d: &&DeviceEntry| wanted.len() >= 8 && d.id.to_string().starts_with(&wanted);
        let mut found: Vec<_> = devices.iter().filter(by_name).collect();
        if found.is_empty() {
            found = devices.iter().filter(by_id).collect();
        }
        match found[..] {
            [device] => Ok(device.clone()),
            [] => Err(ClientError::NotFound(format!("device {which}"))),
            _ => Err(ClientError::NotFound(format!("single device {which}; use its id"))),
        }
    }

    /// Returns why the newest state of the account does not count yet, if it does not.
    #[must_use]
    pub fn waiting(&self) -> Option<crate::Waiting> {
        self.profile.waiting
    }
}
