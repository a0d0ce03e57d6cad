//! What the server can see of this account, worked out by the client from what its devices have signed
//! and stored, and not from what a server says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sr_vault::head::{self, HeadPlace};
use sr_wire::{AccountId, PackId, SealedHead, SpaceId};

use crate::{Client, ClientError, account::Keys, heads, view::For};

/// What the server can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The account.
    pub account: AccountId,
    /// Its blocks, whole.
    pub blocks: Vec<Vec<u8>>,
    /// Devices that it ever had.
    pub devices: usize,
    /// Kits that it has or had.
    pub kits: usize,
    /// Whether it has recovery contacts.
    pub has_contacts: bool,
    /// Its spaces, which the server can't tie to it.
    pub spaces: Vec<SeenSpace>,
}

/// What the server can see of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSpace {
    /// Its id.
    pub space: SpaceId,
    /// What it is for, which the server does not know.
    pub what: &'static str,
    /// Its heads, whole.
    pub heads: Vec<SealedHead>,
    /// The packs that a device of the account has stored for good. An interrupted run may have left
    /// more.
    pub packs: BTreeSet<PackId>,
}

impl Client {
    /// Returns what the server can see of this account.
    ///
    /// **Errors** those of reading the account and its spaces.
    pub fn what_they_see(&mut self) -> Result<Seen, ClientError> {
        let mut seen = BTreeMap::new();
        let (keys, space, packs) = self.own_packs()?;
        seen.insert(space, ("backup", packs));
        let limited = keys.account.devices().iter().filter(|device| !device.is_full());
        for device in limited.filter(|_| !keys.is_limited()) {
            let (_, space, packs) = self.in_vault_of(device.id, Self::own_packs)?;
            seen.insert(space, ("backup of an append-only device", packs));
        }
        let mut spaces = Vec::new();
        self.each_space(|profile, keys_of, remote| {
            let root = ("list of your vaults and devices", BTreeSet::new());
            let (what, mut packs) = seen.remove(&keys_of.space()).unwrap_or(root);
            let tip = heads::newest(profile, remote, keys_of, false)?.tip;
            let heads = remote.heads(keys_of, 1, tip.seq)?;
            let mut before = HeadPlace::EMPTY;
            for sealed in &heads {
                // SR-007: the heads are the ones that lead to the newest.
                let follows = sealed.previous == before.hash && sealed.seq == before.seq + 1;
                sr_wire::Misbehaviour::HeadForked.refuse_if(!follows)?;
                before = HeadPlace::of(Some(sealed));
                packs.insert(head::open(sealed, keys_of, &keys.account)?.manifest);
            }
            spaces.push(SeenSpace { space: keys_of.space(), what, heads, packs });
            Ok(())
        })?;
        let account = &keys.account;
        Ok(Seen {
            account: account.id(),
            blocks: self.profile.blocks()?,
            devices: account.devices().len(),
            kits: account.past_kits().len() + usize::from(account.policy().kit.is_some()),
            has_contacts: account.policy().contacts.is_some(),
            spaces,
        })
    }

    /// Returns the packs of the vault that is worked with.
    fn own_packs(&mut self) -> Result<(Arc<Keys>, SpaceId, BTreeSet<PackId>), ClientError> {
        let (keys, _, view) = self.view(For::Reading)?;
        let mut packs: BTreeSet<PackId> = view.index.packs().chain(view.gone).collect();
        packs.extend(view.manifest.indexes.iter().map(|index| index.pack));
        packs.extend(&view.manifest.retired);
        let space = keys.vault.space();
        Ok((keys, space, packs))
    }
}
