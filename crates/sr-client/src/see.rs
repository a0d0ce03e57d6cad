//! What the server can see of this account, worked out by the client from what its devices have signed
//! and stored, and not from what a server says of itself.

use std::collections::BTreeSet;

use sr_vault::head::{self, HeadPlace};
use sr_wire::{AccountId, PackId, SealedHead, SpaceId};

use crate::{Client, ClientError, heads, view::For};

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
        let (keys, _, view) = self.view(For::Reading)?;
        let mut packs: BTreeSet<PackId> = view.index.packs().collect();
        packs.extend(view.manifest.indexes.iter().map(|index| index.pack));
        packs.extend(&view.manifest.retired);
        let mut spaces = Vec::new();
        for (what, keys_of, remote, packs) in [
            ("list of your vaults and devices", &keys.root, &self.root_remote, BTreeSet::new()),
            ("backup", &keys.vault, &self.remote, packs),
        ] {
            let tip = heads::newest(&mut self.profile, remote, keys_of, false)?.tip;
            let heads = remote.heads(keys_of, 1, tip.seq)?;
            let mut packs = packs;
            let mut before = HeadPlace::EMPTY;
            for sealed in &heads {
                // SR-007: the heads are the ones that lead to the newest.
                let follows = sealed.previous == before.hash && sealed.seq == before.seq + 1;
                sr_wire::Misbehaviour::HeadForked.refuse_if(!follows)?;
                before = HeadPlace::of(Some(sealed));
                packs.insert(head::open(sealed, keys_of, &keys.account)?.manifest);
            }
            spaces.push(SeenSpace { space: keys_of.space(), what, heads, packs });
        }
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
}
