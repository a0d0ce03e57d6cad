//! Other people's accounts: what is sealed to them goes to the devices that their chain names and their server's log
//! shows to everybody. Whatever is wrong with one of them stops nothing else.

use std::{sync::Arc, thread, time::Instant};

use sr_crypto::Hash;
use sr_keys::{Contact, ContactCard};
use sr_tlog::Policy;
use sr_trust::{Account, Block, Mirror, Op, Verified, policy_hash};
use sr_wire::{
    Misbehaviour, SignedCard, card_hash,
    log::{Key, Newest, block_commit},
};

use crate::{
    Client, ClientError, Unwitnessed,
    account::{FirstView, first_view},
    client::tls_dialer,
    log::{self, Follow},
    logged::{LOOK_INTERVAL, PATIENCE},
    mirror::is_own,
    remote::{Remote, runtime},
    witness::{is_stale, judge, parse, policy_of_home},
};

impl Client {
    /// Returns somebody's account as its server shows it, verified from its genesis, if their server's log has all of it.
    /// It must contain the block that is `known`. The server is asked on a connection of its own.
    ///
    /// **Errors** [`ClientError::Contact`], [`ClientError::ContactCardOld`], [`ClientError::NotLogged`],
    /// [`ClientError::Unwitnessed`], and those of the network.
    pub(crate) fn look_up(
        &mut self,
        name: &str,
        card: &ContactCard,
        known: Option<(u64, Hash)>,
    ) -> Result<Verified<Account>, ClientError> {
        let began = Instant::now();
        loop {
            match self.try_look_up(card, known) {
                Err(ClientError::NotLogged { .. }) if began.elapsed() < PATIENCE => {
                    thread::sleep(LOOK_INTERVAL);
                    self.sync()?;
                }
                Err(ClientError::Misbehaviour(refused)) => {
                    return Err(ClientError::Contact { name: name.to_owned(), refused });
                }
                done => return done,
            }
        }
    }

    /// Returns whether the log of this account's server shows that a contact's account is as it was.
    pub(crate) fn is_unchanged(&self, contact: &Contact) -> Result<bool, ClientError> {
        let account = contact.card.account;
        let value = block_commit(account, &contact.block);
        let newest = self.profile.newest_logged(&Key::account(account))?;
        Ok(newest == Some(Newest { seq: contact.seq, value }))
    }

    fn try_look_up(
        &self,
        card: &ContactCard,
        known: Option<(u64, Hash)>,
    ) -> Result<Verified<Account>, ClientError> {
        let cards = self.profile.cards()?;
        let is_ours = cards.iter().any(|signed| card_hash(&signed.card) == card.card);
        let remote = if is_ours { self.log_remote.apart() } else { self.remote_of(card)? };
        let view = first_view(&remote, card.account, known)?;
        let key = Key::account(card.account);
        let logged = if is_ours {
            self.profile.newest_logged(&key)?
        } else {
            self.logged_at(&remote, &view.account, card, &key)?
        };
        check_logged(&view, logged.as_ref())?;
        Ok(view.account)
    }

    fn remote_of(&self, card: &ContactCard) -> Result<Remote, ClientError> {
        let address = String::from_utf8_lossy(card.address.as_slice()).into_owned();
        let dial = tls_dialer()(&address)?;
        Ok(Remote::new(runtime()?, dial, Some(card.card), Arc::clone(&self.clock)))
    }

    /// Reads all of another server's log, which the witnesses of `account` must have cosigned within a day, and returns
    /// the newest of `key` in it.
    fn logged_at(
        &self,
        remote: &Remote,
        account: &Account,
        card: &ContactCard,
        key: &Key,
    ) -> Result<Option<Newest>, ClientError> {
        let shown = log::shown(remote, &self.clock)?;
        let policy = policy_of(account, card, &remote.cards()?)?;
        let now_s = (self.clock)();
        let cosigned_s = judge(&policy, &shown, now_s)?;
        if policy.asks() && is_stale(cosigned_s, now_s) {
            return Err(Unwitnessed::Stale.into());
        }
        let mut mirror = Mirror::default();
        Follow { to: &shown.checkpoint, known: Vec::new() }.read(
            remote,
            &mut mirror,
            |_, _, _| Ok(()),
        )?;
        shown.check_card(mirror.fold().newest(&shown.card_key()))?;
        Ok(mirror.fold().newest(key).copied())
    }
}

/// Returns whom an account asks: the policy of its card if it has chosen one, else that of the server's card that it
/// began with.
fn policy_of(
    account: &Account,
    card: &ContactCard,
    cards: &[SignedCard],
) -> Result<Policy, ClientError> {
    let chosen = std::str::from_utf8(card.policy.as_slice()).unwrap_or_default();
    let text = if account.pin() == [0; 32] {
        policy_of_home(account, cards)?
    } else if policy_hash(chosen) == account.pin() {
        Some(chosen.as_bytes().to_vec())
    } else {
        return Err(ClientError::ContactCardOld);
    };
    text.as_deref().and_then(parse).ok_or(ClientError::Unwitnessed(Unwitnessed::PolicyUnknown))
}

/// Refuses an account that is not what its server's log says, and one with more than that: but for devices that were
/// taken out, which counts at once.
fn check_logged(view: &FirstView, logged: Option<&Newest>) -> Result<(), ClientError> {
    let not_logged = || ClientError::NotLogged { why: None };
    let logged = logged.ok_or_else(not_logged)?;
    if !is_own(Some(logged), &view.account)? {
        return Err(not_logged());
    }
    let logged = usize::try_from(logged.seq).unwrap_or(usize::MAX);
    for block in view.blocks.iter().skip(logged.saturating_add(1)) {
        let block = Block::parse(block).map_err(|_| Misbehaviour::ResponseMalformed)?;
        if !matches!(block.body.op, Op::RemoveDevice { .. }) {
            return Err(not_logged());
        }
    }
    Ok(())
}
