//! The account's spaces: made, given newer keys, and which of them is worked with.

use std::sync::Arc;

use sr_keys::{Owner, VaultKeys};
use sr_wire::{DeviceId, Right, VOUCHERS_PER_INVITE, api::ErrorCode, voucher};

use crate::{Client, ClientError, account, heads, profile::Profile, remote::Remote};

impl Client {
    /// Works with the vault of an append-only device from here on.
    ///
    /// **Errors** [`ClientError::NotLimited`], [`ClientError::Limited`], and those of
    /// [`Client::devices`].
    pub fn use_vault_of(&mut self, which: &str) -> Result<(), ClientError> {
        self.profile.keys.root()?;
        let device = self.find_device(which)?;
        if !device.is_limited {
            return Err(ClientError::NotLimited(which.to_owned()));
        }
        self.switch_vault(Some(device.id));
        Ok(())
    }

    /// Does `work` with the vault of a limited device.
    pub(crate) fn in_vault_of<T>(
        &mut self,
        device: DeviceId,
        work: impl FnOnce(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let before = self.profile.keys.of();
        self.switch_vault(Some(device));
        let done = work(self);
        self.switch_vault(before);
        done
    }

    fn switch_vault(&mut self, of: Option<DeviceId>) {
        self.profile.use_vault_of(of);
        self.remote = self.remote.apart();
    }

    /// Returns how many append-only devices the account has.
    #[must_use]
    pub fn limited_devices(&self) -> u64 {
        self.profile.keys.account.live().filter(|device| !device.is_full()).count() as u64
    }

    /// Returns the append-only device that has written to the vault that is worked with what it may not.
    /// It does not count.
    ///
    /// **Errors** those of the local state.
    pub fn overreach(&self) -> Result<Option<DeviceId>, ClientError> {
        let keys = &self.profile.keys;
        let device = self.profile.overreach(keys.vault.space())?;
        Ok(device.filter(|id| account::is_limited(&keys.account, *id)))
    }

    /// Reads the heads of all append-only devices' vaults, and returns the devices of which
    /// [`Client::overreach`] would say something.
    pub(crate) fn overreaching(&mut self) -> Result<Vec<DeviceId>, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let limited = keys.account.live().filter(|device| !device.is_full() && !keys.is_limited());
        let mut overreaching = Vec::new();
        for device in limited {
            overreaching.extend(self.in_vault_of(device.id, |client| {
                let keys = Arc::clone(&client.profile.keys);
                let newest = client.giving_back(|client| {
                    heads::newest(&mut client.profile, &client.remote, &keys.vault, false)
                });
                match newest {
                    Err(ClientError::Misbehaviour(_) | ClientError::ServerRefused(_)) => {}
                    read => drop(read?),
                }
                client.overreach()
            })?);
        }
        Ok(overreaching)
    }

    /// Does `work` for the root space and each vault, over a connection of its own.
    pub(crate) fn each_space(
        &mut self,
        mut work: impl FnMut(&mut Profile, &VaultKeys, &Remote) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        if keys.is_limited() {
            return work(&mut self.profile, &keys.vault, &self.remote);
        }
        work(&mut self.profile, keys.root()?, &self.root_remote)?;
        for vault in keys.vaults()? {
            if vault.space() == keys.vault.space() {
                work(&mut self.profile, &vault, &self.remote)?;
            } else {
                work(&mut self.profile, &vault, &self.remote.apart())?;
            }
        }
        Ok(())
    }

    /// Brings the space of each vault up to date.
    pub(crate) fn make_vaults(&self) -> Result<(), ClientError> {
        for keys in self.profile.keys.vaults()? {
            // The device that linked a limited one has made its space.
            let is_made = keys.limited().is_some();
            if is_made && self.profile.space_generation(keys.space())?.is_none() {
                self.profile.set_space_generation(keys.space(), 0)?;
            }
            let made = if keys.space() == self.profile.keys.vault.space() {
                self.make_space(&keys, &self.remote)
            } else {
                self.make_space(&keys, &self.remote.apart())
            };
            match made {
                // What is wrong with a limited device's space stops nothing else.
                Err(ClientError::ServerRefused(_)) if is_made => {}
                made => made?,
            }
        }
        Ok(())
    }

    /// Makes a space on the server with a voucher of the invite, unless that was done, and gives it
    /// the keys of the newest generation, unless it has them.
    pub(crate) fn make_space(&self, keys: &VaultKeys, remote: &Remote) -> Result<(), ClientError> {
        let (space, newest) = (keys.space(), keys.generation());
        match self.profile.space_generation(space)? {
            Some(generation) if generation == newest => return Ok(()),
            // Others have rotated it further than this device knows yet.
            Some(_) if self.profile.waiting.is_some() => return Ok(()),
            None => {
                let token = self.profile.invite()?.token;
                // Voucher 0 has paid for the account; it is not shown where a space is asked for.
                let vouchers: Vec<_> =
                    (1..VOUCHERS_PER_INVITE).map(|n| voucher(&token, n)).collect();
                match remote.create_space(keys, &vouchers) {
                    // Another device has made it, and this one was interrupted before it could note that.
                    Err(ClientError::ServerRefused(ErrorCode::Exists)) => {
                        self.rotate(keys, remote)?
                    }
                    made => made?,
                }
            }
            // Which of the earlier generations it has is not known after an interruption.
            Some(_) => self.rotate(keys, remote)?,
        }
        self.profile.set_space_generation(space, newest)
    }

    fn rotate(&self, keys: &VaultKeys, remote: &Remote) -> Result<(), ClientError> {
        let owner = self.profile.kept().and_then(|kept| kept.owner());
        rotate(keys, remote, owner.as_ref())
    }
}

/// Gives a space the keys of the newest generation, by the key that it has: one of an earlier
/// generation, or the owner's.
pub(crate) fn rotate(
    keys: &VaultKeys,
    remote: &Remote,
    owner: Option<&Owner>,
) -> Result<(), ClientError> {
    let prune = (1..keys.generation()).rev().filter_map(|old| {
        let key = keys.capability_of(old, Right::Prune)?;
        Some((Right::Prune, key, [0; 32]))
    });
    let owner = owner.map(|owner| {
        let key = owner.capability(keys.space());
        let public = key.public_key();
        (Right::Owner, key, public)
    });
    let mut refused = Ok(());
    for (by, key, owner) in prune.chain(owner) {
        match remote.rotate(keys, owner, (by, &key)) {
            Err(error @ ClientError::ServerRefused(ErrorCode::RightRefused)) => {
                refused = Err(error);
            }
            done => return done,
        }
    }
    refused
}
