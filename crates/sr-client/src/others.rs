//! Other people's accounts: what is sealed to them goes to the devices that their chain names and their server's log
//! shows to everybody. Whatever is wrong with one of them stops nothing else.

use std::{sync::Arc, thread, time::Instant};

use sr_crypto::Hash;
use sr_keys::{Contact, ContactCard};
use sr_tlog::Policy;
use sr_trust::{Account, Block, Mirror, Op, Verified, policy_hash};
use sr_wire::{
    AccountId, Misbehaviour, SignedCard, VLBytes, card_hash, decode, encode,
    log::{Key, Newest, block_commit},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, Unwitnessed,
    account::{FirstView, first_view},
    client::tls_dialer,
    evidence,
    log::{self, Follow},
    logged::{LOOK_INTERVAL, PATIENCE},
    mirror::is_own,
    profile::Profile,
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
            let remote = self.remote_of(name, card)?;
            match self.try_look_up(&remote, card, known) {
                Err(ClientError::NotLogged { .. }) if began.elapsed() < PATIENCE => {
                    if self.is_ours(card)? {
                        thread::sleep(LOOK_INTERVAL);
                        self.sync()?;
                    } else {
                        // All of its log is read again.
                        thread::sleep(PATIENCE / 3);
                    }
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
        remote: &Remote,
        card: &ContactCard,
        known: Option<(u64, Hash)>,
    ) -> Result<Verified<Account>, ClientError> {
        let view = first_view(remote, card.account, None)?;
        self.check_known(&view, known)?;
        let key = Key::account(card.account);
        let logged = if self.is_ours(card)? {
            self.profile.newest_logged(&key)?
        } else {
            self.logged_at(remote, &view.account, card, &key)?
        };
        check_logged(&view, logged.as_ref())?;
        self.profile.set_blocks_of(card.account, &view.blocks)?;
        Ok(view.account)
    }

    /// Refuses an account without the block that is known.
    fn check_known(&self, view: &FirstView, known: Option<(u64, Hash)>) -> Result<(), ClientError> {
        let Some((seq, hash)) = known else { return Ok(()) };
        let shown = view.account.block_hash(seq);
        // SR-029
        Misbehaviour::ChainNotAsPromised.refuse_if(shown.is_none())?;
        if shown != Some(hash) {
            let before = self.profile.blocks_of(view.account.id())?;
            evidence::about_blocks(&self.profile, (self.clock)(), &before, &view.blocks);
        }
        // SR-022
        Ok(Misbehaviour::ChainForked.refuse_if(shown != Some(hash))?)
    }

    /// Returns whether a card is of this account's own server.
    fn is_ours(&self, card: &ContactCard) -> Result<bool, ClientError> {
        let cards = self.profile.cards()?;
        Ok(cards.iter().any(|signed| card_hash(&signed.card) == card.card))
    }

    /// Returns a connection to a contact's server that proves nothing about this account.
    ///
    /// **Errors** [`Misbehaviour::CardMismatch`] when it is the account's own server, which has shown the contact another
    /// card: then it is that server who lies.
    fn remote_of(&self, name: &str, card: &ContactCard) -> Result<Remote, ClientError> {
        if self.is_ours(card)? {
            return Ok(self.log_remote.apart());
        }
        let address = String::from_utf8_lossy(card.address.as_slice()).into_owned();
        let dial = tls_dialer()(&address)?;
        let remote = Remote::new(runtime()?, dial, Some(card.card), Arc::clone(&self.clock));
        let cards = remote.cards().map_err(|error| match error {
            ClientError::Misbehaviour(refused) => {
                ClientError::Contact { name: name.to_owned(), refused }
            }
            error => error,
        })?;
        // SR-010
        let is_other = evidence::about_others_cards(&self.profile, (self.clock)(), cards);
        Misbehaviour::CardMismatch.refuse_if(is_other)?;
        Ok(remote)
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

impl Profile {
    /// Returns the blocks of somebody's account as they were when it was looked up last.
    fn blocks_of(&self, account: AccountId) -> Result<Vec<Vec<u8>>, ClientError> {
        let Some(row) = self.get(&blocks_key(account))? else { return Ok(Vec::new()) };
        let blocks: Blocks = decode("blocks", &row, row.len()).map_err(|_| self.damaged())?;
        Ok(blocks.blocks.into_iter().map(|block| block.as_slice().to_vec()).collect())
    }

    fn set_blocks_of(&self, account: AccountId, blocks: &[Vec<u8>]) -> Result<(), ClientError> {
        let blocks = blocks.iter().map(|block| block.clone().into()).collect();
        self.set(&blocks_key(account), &encode(&Blocks { blocks }))
    }
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Blocks {
    blocks: Vec<VLBytes>,
}

fn blocks_key(account: AccountId) -> String {
    format!("contact/{account}")
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
