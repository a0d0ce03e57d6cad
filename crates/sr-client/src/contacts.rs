//! Recovery contacts: people who together can bring an account back. Nothing here names them to a
//! server; cards, shares, requests and answers are texts that go any way.

use std::{fs, path::Path, sync::Arc};

use sr_crypto::Rng;
use sr_keys::{Contact, ContactCard, DeviceKeys, HelpRequest, Kept, Kit, Share, ShareTemplate};
use sr_trust::{Device, Policy};
use sr_wire::{AccountId, DeviceId, SignedCard, VLBytes, card_hash};
use zeroize::Zeroizing;

use crate::{
    Client, ClientError, Clock, MakeDialer,
    account::{self, PendingAct, first_view},
    client::tls_dialer,
    profile::write_durably,
    recovery::Restored,
    remote::{Remote, os_rng, runtime},
    root,
};

/// The keys of a device that asks its contacts for help and has no profile yet.
const HELP_FILE: &str = "help.keys";

/// A share that this account keeps for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptShare {
    /// The name by which its owner goes.
    pub name: String,
    /// Their account.
    pub account: AccountId,
}

impl Client {
    /// Returns the card to give to somebody who wants this account as a contact.
    ///
    /// **Errors** those of the account.
    pub fn contact_card(&mut self) -> Result<ContactCard, ClientError> {
        self.refresh()?;
        self.profile.keys.secrets()?;
        let invite = self.profile.invite()?;
        let policy = self.profile.pinned_policy()?.unwrap_or_default();
        Ok(ContactCard {
            account: self.profile.keys.account.id(),
            address: invite.address.into_bytes().into(),
            card: invite.card_hash,
            policy: policy.into_bytes().into(),
            log: self.told_note()?.into(),
            salt: random16(),
        })
    }

    /// Makes `need` of these contacts able to bring the account back together, in place of those before.
    /// `hand_out` keeps the text to give to each, in their order, before it counts: shares that are
    /// lost on the way would be a key that nobody has.
    ///
    /// Each contact's account is looked up at its server first: what is handed out, only the devices open that its
    /// chain and its server's log show.
    ///
    /// **Errors** [`ClientError::ContactsWrong`], [`ClientError::KitFirst`], [`ClientError::KitWrong`],
    /// [`ClientError::Contact`], [`ClientError::NotLogged`], [`ClientError::Unwitnessed`], those of `hand_out` and of
    /// the account.
    pub fn set_contacts(
        &mut self,
        kit: &Kit,
        need: u8,
        contacts: &[(String, ContactCard)],
        hand_out: impl FnOnce(&[String]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let accounts: std::collections::BTreeSet<_> =
            contacts.iter().map(|(_, card)| card.account).collect();
        // One contact alone would be a second kit in somebody else's hands.
        let is_right = need >= 2
            && usize::from(need) <= contacts.len()
            && contacts.len() <= usize::from(u8::MAX)
            && accounts.len() == contacts.len()
            && !accounts.contains(&self.profile.keys.account.id());
        if !is_right {
            return Err(ClientError::ContactsWrong);
        }
        self.refresh()?;
        self.require_full()?;
        self.require_logged()?;
        let invite = self.profile.invite()?;
        let template = ShareTemplate {
            account: self.profile.keys.account.id(),
            name: self.profile.name()?.unwrap_or_default(),
            address: invite.address,
            card: invite.card_hash,
            log: self.told_note()?,
        };
        let (keys, shares) = Share::deal(&template, need, contacts.len(), &mut os_rng());
        self.require_kit(kit)?;
        let told: Vec<VLBytes> = contacts.iter().map(|(_, card)| card.log.clone()).collect();
        self.meet(&told)?;
        let (mut texts, mut chosen) = (Vec::new(), Vec::new());
        for (share, (name, card)) in shares.iter().zip(contacts) {
            let theirs = self.look_up(name, card, None)?;
            texts.push(share.seal(&theirs).map_err(|_| ClientError::ContactsWrong)?);
            // Its checkpoint is compared, and needed no more.
            let card = ContactCard { log: Vec::new().into(), ..card.clone() };
            chosen.push(Contact::new(name, card, (theirs.seq(), theirs.newest())));
        }
        hand_out(&texts)?;
        let policy = self.profile.keys.account.policy().clone();
        self.set_policy(kit, Policy { contacts: Some(keys.public()), ..policy }, &[])?;
        self.note_contacts(need, &chosen)
    }

    /// Takes the contacts' right to bring the account back away.
    ///
    /// **Errors** [`ClientError::KitFirst`], [`ClientError::KitWrong`] and those of the account.
    pub fn remove_contacts(&mut self, kit: &Kit) -> Result<(), ClientError> {
        self.refresh()?;
        self.require_full()?;
        let policy = self.profile.keys.account.policy().clone();
        // Their right ends at once, whatever the log shows.
        let left_out = self.left_out(None)?;
        self.set_policy(kit, Policy { contacts: None, ..policy }, &left_out)?;
        self.note_contacts(0, &[])
    }

    /// Returns how many contacts are needed, and who they are.
    ///
    /// **Errors** those of reading the root space.
    pub fn contacts(&mut self) -> Result<(u8, Vec<Contact>), ClientError> {
        self.fresh(|client| {
            let record = root::read(&mut client.profile, &client.root_remote)?;
            let (need, contacts) = record.contacts();
            Ok((need, contacts.to_vec()))
        })
    }

    /// Looks a contact's account up at its server, and returns whether a device was taken out of it since the share
    /// was sealed to it: whoever has that device and the share's text, can open it.
    ///
    /// **Errors** those of [`Client::set_contacts`].
    pub fn contact_has_removed(&mut self, contact: &Contact) -> Result<bool, ClientError> {
        self.require_witnessed()?;
        if let Some(why) = self.log_state.withheld.clone() {
            return Err(ClientError::NotLogged { why: Some(why) });
        }
        // On one's own server the log, which this device has anyway, says whether there is anything to ask for.
        if self.is_unchanged(contact)? {
            return Ok(false);
        }
        let known = Some((contact.seq, contact.block));
        let theirs = self.look_up(&contact.name(), &contact.card, known)?;
        let is_since = |device: &Device| device.removed.is_some_and(|(seq, _)| seq > contact.seq);
        Ok(theirs.devices().iter().any(is_since))
    }

    /// Keeps somebody's share, for all devices of this account.
    ///
    /// **Errors** [`ClientError::ContactText`] for a share that is not for this account.
    pub fn accept_share(&mut self, text: &str) -> Result<KeptShare, ClientError> {
        self.refresh()?;
        self.require_full()?;
        let share = self.open_share(text)?;
        self.meet(std::slice::from_ref(&share.log))?;
        self.giving_back(|client| {
            let (profile, remote) = (&mut client.profile, &client.root_remote);
            root::update(profile, remote, &client.clock, |record| record.add_share(text))
        })?;
        Ok(kept(&share))
    }

    /// Returns whose shares this account keeps.
    ///
    /// **Errors** those of reading the root space.
    pub fn kept_shares(&mut self) -> Result<Vec<KeptShare>, ClientError> {
        Ok(self.shares()?.iter().map(kept).collect())
    }

    /// Answers a request for help with the share of `owner`, once its words were compared.
    ///
    /// **Errors** [`ClientError::NotFound`] when no share is kept for them.
    pub fn help(&mut self, request: &HelpRequest, owner: AccountId) -> Result<String, ClientError> {
        let shares = self.shares()?;
        let share = shares.iter().rev().find(|share| share.account == owner);
        let missing = || ClientError::NotFound("share for them here".into());
        let mut share = share.ok_or_else(missing)?.clone();
        let is_ours = |signed: &SignedCard| card_hash(&signed.card) == share.card;
        if self.profile.cards()?.iter().any(is_ours) {
            share = share.with_log(self.told_note()?);
        }
        share.answer(request).map_err(|_| ClientError::ContactText)
    }

    /// Begins to ask contacts for help, on a device without anything: the request is the same until
    /// the account is back.
    ///
    /// **Errors** [`ClientError::AlreadyJoined`], and those of local files.
    pub fn request_help(dir: &Path) -> Result<HelpRequest, ClientError> {
        if crate::is_joined(dir) {
            return Err(ClientError::AlreadyJoined);
        }
        if let Some(device) = help_keys(dir)? {
            return Ok(HelpRequest::of(&device));
        }
        std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700)
            .create(dir)
            .map_err(ClientError::local("making", dir))?;
        let device = DeviceKeys::generate(&mut os_rng());
        write_durably(&dir.join(HELP_FILE), &device.to_file())?;
        Ok(HelpRequest::of(&device))
    }

    /// Makes a profile in `dir` from the answers of enough contacts. It reads at once; as a device of the
    /// account it counts after the wait.
    ///
    /// **Errors** [`ClientError::NoRequest`], [`ClientError::ContactText`] for a text that is no answer to this device's request,
    /// [`ClientError::SharesWrong`] for too few or such that do not belong together,
    /// [`ClientError::Misbehaviour`] and those of local files.
    pub fn restore_contacts(
        dir: &Path,
        answers: &[String],
        device_name: &str,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        Self::restore_contacts_by(dir, answers, device_name, clock, &tls_dialer())
    }

    /// As [`Client::restore_contacts`], over another network than TLS.
    ///
    /// **Errors** as [`Client::restore_contacts`].
    pub fn restore_contacts_by(
        dir: &Path,
        answers: &[String],
        device_name: &str,
        clock: Clock,
        dialer: &MakeDialer,
    ) -> Result<Self, ClientError> {
        let device = help_keys(dir)?.ok_or(ClientError::NoRequest)?;
        let shares = answers
            .iter()
            .map(|answer| Share::open_answer(answer, &device))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ClientError::ContactText)?;
        let secret = Share::join(&shares).ok_or_else(|| ClientError::SharesWrong {
            have: shares.len(),
            need: shares.first().map_or(0, |share| usize::from(share.need)),
        })?;
        let (kept, first) = (Kept::of_contacts(secret), &shares[0]);
        let address = String::from_utf8_lossy(first.address.as_slice()).into_owned();
        // The shares pin the server as an invite does.
        let pin = Some(first.card);
        let remote = Remote::new(runtime()?, dialer(&address)?, pin, Arc::clone(&clock));
        let view = first_view(&remote, first.account, None)?;
        if !kept.is_in(view.account.policy()) {
            return Err(ClientError::ContactsReplaced);
        }
        let heard = shares.iter().map(|share| share.log.as_slice().to_vec()).collect();
        let from =
            Restored { address: &address, card: first.card, view, device, device_name, heard };
        let restored = Self::restored(dir, from, &kept, &remote, clock);
        if crate::is_joined(dir) {
            // The same keys are in the key file now.
            let _ = fs::remove_file(dir.join(HELP_FILE));
        }
        restored
    }

    /// Refuses a kit that is not the one in force.
    pub(crate) fn require_kit(&self, kit: &Kit) -> Result<(), ClientError> {
        let in_force = &self.profile.keys.account.policy().kit;
        let expected = self.kit_id()?;
        match in_force {
            None => Err(ClientError::KitFirst),
            Some(key) if kit.keys().public() != *key => Err(ClientError::KitWrong { expected }),
            Some(_) => Ok(()),
        }
    }

    /// Sets a policy at once, with the kit in force.
    fn set_policy(
        &mut self,
        kit: &Kit,
        policy: Policy,
        left_out: &[DeviceId],
    ) -> Result<(), ClientError> {
        self.require_kit(kit)?;
        let keys = Arc::clone(&self.profile.keys);
        let (actor, kit) = (keys.actor((self.clock)())?, kit.keys());
        let policy = (policy, left_out);
        let act = actor.set_recovery(&keys.device, Some(&kit), policy, &mut os_rng());
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)?;
        self.refresh()
    }

    fn note_contacts(&mut self, need: u8, contacts: &[Contact]) -> Result<(), ClientError> {
        self.giving_back(|client| {
            let (profile, remote) = (&mut client.profile, &client.root_remote);
            root::update(profile, remote, &client.clock, |record| {
                record.set_contacts(need, contacts);
            })
        })?;
        Ok(())
    }

    fn shares(&mut self) -> Result<Vec<Share>, ClientError> {
        let record = self.fresh(|client| root::read(&mut client.profile, &client.root_remote))?;
        record.shares().map(|text| self.open_share(&text)).collect()
    }

    fn open_share(&self, text: &str) -> Result<Share, ClientError> {
        self.profile.keys.secrets()?.open_share(text).map_err(|_| ClientError::ContactText)
    }
}

fn kept(share: &Share) -> KeptShare {
    let name = String::from_utf8_lossy(share.name.as_slice()).into_owned();
    KeptShare { name, account: share.account }
}

fn help_keys(dir: &Path) -> Result<Option<DeviceKeys>, ClientError> {
    let path = dir.join(HELP_FILE);
    match fs::read(&path) {
        Ok(bytes) => DeviceKeys::from_file(&Zeroizing::new(bytes))
            .map(Some)
            .map_err(|_| ClientError::Keys(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClientError::local("reading", path)(error)),
    }
}

/// Drawn when all else is fixed, so that nobody who has a say in that can look for two cards with the same words.
fn random16() -> [u8; 16] {
    let mut salt = [0; 16];
    os_rng().fill_bytes(&mut salt);
    salt
}
