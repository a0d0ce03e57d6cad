//! The witnesses that an account asks: which must have cosigned the server's log before this device relies on
//! it, and what they say themselves.

use std::{collections::BTreeMap, thread};

use sr_tlog::{Checkpoint, LogKeys, Note, Policy, Quorum, VerifierKey};
use sr_trust::{Account, Block, Change, Op, log_keys, policy_hash};
use sr_wire::{Misbehaviour, SignedCard, card_hash, limits};
use sr_witness::WitnessUrl;
use thiserror::Error;

use crate::{
    Client, ClientError, Kit,
    account::{self, PendingAct},
    log::{self, Shown},
    profile::Profile,
    remote::os_rng,
    root,
};

/// Witnesses' clocks may be ahead of this one by so much.
const AHEAD_MAX_S: u64 = 15 * 60;
/// A cosignature that is older shows nothing about now.
const FRESH_S: u64 = 86_400;
/// An honest server publishes nothing when its clock and its witnesses' are further apart, and signs each hour.
const CLOCKS_APART_S: u64 = 86_400 + 2 * 3600;
/// For so long a server may be behind a witness that has just cosigned what it is about to show.
const BEHIND_MAX: std::time::Duration = std::time::Duration::from_secs(12);
const TRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(300);
/// So many earlier policies are kept, for changes that wait or are stopped.
const POLICIES_KEPT: usize = 4;

/// Why this device does not rely on what the server shows of its log. That is no proof of anything.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unwitnessed {
    /// Too few have cosigned it, or one line is wrong.
    #[error("too few of the account's witnesses have cosigned it")]
    TooFew,
    /// They have, but long ago.
    #[error("the account's witnesses have not cosigned it for a day")]
    Stale,
    /// The server's clock is not theirs.
    #[error("the server's clock and its witnesses' show different days")]
    ClocksApart,
    /// One of them has cosigned more.
    #[error("one of the account's witnesses has cosigned a longer one")]
    Behind,
    /// Which they are is not known here.
    #[error("this device does not know which witnesses its account asks")]
    PolicyUnknown,
}

/// How much an account asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nobody is asked: what others are shown, only they can tell.
    #[default]
    G0,
    /// Contacts' devices are.
    G1,
    /// Others than contacts must have cosigned.
    G2,
    /// One of them has checked every entry, too.
    G3,
}

/// What the server's log is checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// How much that is.
    pub level: Level,
    /// The policy that the account asks for.
    pub policy: String,
    /// Its witnesses: name, address, and what each said when it was asked just now.
    pub witnesses: Vec<WitnessState>,
    /// When enough of them had cosigned the newest log that this device has accepted, in Unix seconds.
    pub cosigned_s: Option<u64>,
    /// Whether the policy that the server names now is another.
    pub server_differs: bool,
    /// Whether the recovery kit is older than the policy.
    pub kit_is_older: bool,
    /// Why the log that the server shows is not relied on, if it is not.
    pub unwitnessed: Option<Unwitnessed>,
    /// Whether the account has chosen it; else the card has that the account began with.
    pub is_pinned: bool,
    /// When this device has put a state of the backups into the log that is there, in Unix seconds.
    pub state_s: Option<u64>,
}

/// A witness, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessState {
    /// Where it is.
    pub url: String,
    /// Its name.
    pub name: String,
    /// How many entries it has cosigned, or why that is not known.
    pub size: Result<u64, String>,
}

/// What a witness was asked for, and has signed.
struct Asked {
    state: WitnessState,
    note: Option<Checkpoint>,
}

impl Level {
    /// Returns the level that a policy gives. What a witness is, its name says only if the account itself has pinned
    /// the policy.
    pub(crate) fn of(policy: &Policy, is_pinned: bool) -> Self {
        if !is_pinned {
            return if policy.asks() { Self::G2 } else { Self::G0 };
        }
        let is_contact = |key: &VerifierKey| key.name().ends_with("/contact");
        let is_auditor = |key: &VerifierKey| key.name().ends_with("/audit");
        if !policy.asks() {
            Self::G0
        } else if policy.needs(is_auditor) {
            Self::G3
        } else if policy.needs(|key| !is_contact(key)) {
            Self::G2
        } else {
            Self::G1
        }
    }
}

/// Returns when enough witnesses had cosigned what the server shows, in Unix seconds; `None` when the policy
/// asks nobody.
///
/// **Errors** [`Unwitnessed`].
pub(crate) fn judge(
    policy: &Policy,
    shown: &Shown,
    now_s: u64,
) -> Result<Option<u64>, Unwitnessed> {
    let note = Note::parse(&shown.note).map_err(|_| Unwitnessed::TooFew)?;
    let quorum = policy.quorum(&shown.checkpoint, &note, now_s.saturating_add(AHEAD_MAX_S));
    match quorum.map_err(|_| Unwitnessed::TooFew)? {
        Quorum::NotAsked => Ok(None),
        // Else a server could keep its promises by a clock that stands still.
        Quorum::At(time_s) if time_s.abs_diff(shown.signed_s) > CLOCKS_APART_S => {
            Err(Unwitnessed::ClocksApart)
        }
        Quorum::At(time_s) => Ok(Some(time_s)),
    }
}

/// Returns whether something that witnesses signed then shows nothing about now.
pub(crate) fn is_stale(cosigned_s: Option<u64>, now_s: u64) -> bool {
    cosigned_s.is_none_or(|cosigned_s| now_s.saturating_sub(cosigned_s) > FRESH_S)
}

/// Asks the witnesses of a policy at once, each directly. What they say counts if the log and they have signed it,
/// they within a day: so the server, or who is on the way, can only keep them from answering.
fn ask(policy: &Policy, log: &LogKeys, now_s: u64) -> Vec<Asked> {
    let mut by_url: BTreeMap<&str, Vec<&VerifierKey>> = BTreeMap::new();
    for (_, witness) in policy.witnesses() {
        if let Some(url) = &witness.url {
            by_url.entry(url).or_default().push(&witness.key);
        }
    }
    thread::scope(|scope| {
        let asked: Vec<_> = by_url
            .into_iter()
            .map(|(url, keys)| {
                let name = keys.first().map_or("", |key| key.name()).to_owned();
                (url, name, scope.spawn(move || ask_one(url, &keys, log, now_s)))
            })
            .collect();
        let asked = asked.into_iter().map(|(url, name, answer)| {
            let answer = answer.join().unwrap_or_else(|_| Err("it was not asked".into()));
            let size = answer.as_ref().map(Checkpoint::size).map_err(Clone::clone);
            let state = WitnessState { url: url.to_owned(), name, size };
            Asked { state, note: answer.ok() }
        });
        asked.collect()
    })
}

fn ask_one(
    url: &str,
    keys: &[&VerifierKey],
    log: &LogKeys,
    now_s: u64,
) -> Result<Checkpoint, String> {
    let url: WitnessUrl = url.parse().map_err(|error: sr_witness::AskError| error.to_string())?;
    let bytes = sr_witness::checkpoint(&url, log.origin()).map_err(|error| error.to_string())?;
    let malformed = || "its answer is not that of this witness".to_owned();
    let opened = log.open(&bytes, &Policy::none(), u64::MAX).map_err(|_| malformed())?;
    let note = Note::parse(&bytes).map_err(|_| malformed())?;
    for key in keys {
        let line = note.signatures.iter().find(|line| key.is_of(line)).ok_or_else(malformed)?;
        let time_s = key.verify(&opened.checkpoint, line).map_err(|_| malformed())?;
        if is_stale(Some(time_s), now_s) {
            return Err("it has not cosigned this log for a day".into());
        }
    }
    Ok(opened.checkpoint)
}

impl Client {
    /// Asks the witnesses of the account directly for what they have cosigned, as a device does that has not
    /// seen the log before, and waits a moment for a server that is about to show it.
    pub(crate) fn ask_witnesses(&self, policy: &Policy) -> Result<Vec<Checkpoint>, ClientError> {
        let shown = log::shown(&self.log_remote, &self.clock)?;
        let Some(log) = log_keys(&shown.card) else { return Err(ClientError::NoLog) };
        let asked = ask(policy, &log, (self.clock)());
        let known: Vec<Checkpoint> = asked.into_iter().filter_map(|asked| asked.note).collect();
        let size = known.iter().map(Checkpoint::size).max().unwrap_or_default();
        let (began, mut shown_size) = (std::time::Instant::now(), shown.checkpoint.size());
        while shown_size < size && began.elapsed() < BEHIND_MAX {
            thread::sleep(TRY_INTERVAL);
            shown_size = log::shown(&self.log_remote, &self.clock)?.checkpoint.size();
        }
        Ok(known)
    }

    /// Returns what the server's log is checked by, and asks each witness.
    ///
    /// **Errors** those of reading the account.
    pub fn trust(&mut self) -> Result<Trust, ClientError> {
        self.refresh()?;
        let cards = self.log_remote.cards()?;
        let policy = self.profile.policy(&cards)?;
        let newest = cards.last().map(|signed| &signed.card);
        let of_server = newest.map_or(&[][..], |card| card.policy.as_slice());
        let log = newest.and_then(log_keys);
        let asked = log.map_or_else(Vec::new, |log| ask(&policy, &log, (self.clock)()));
        Ok(Trust {
            level: Level::of(&policy, self.profile.is_pinned()),
            state_s: self.state_logged_s()?,
            is_pinned: self.profile.is_pinned(),
            unwitnessed: self.log_state.unwitnessed,
            witnesses: asked.into_iter().map(|asked| asked.state).collect(),
            cosigned_s: self.profile.cosigned_s()?,
            server_differs: parse(of_server).is_some_and(|of_server| of_server != policy),
            kit_is_older: self.kit_is_older()?,
            policy: policy.text().to_owned(),
        })
    }

    /// Returns the policy that the server's newest card names; empty for none.
    ///
    /// **Errors** those of the network.
    pub fn policy_of_server(&self) -> Result<String, ClientError> {
        let card = self.log_remote.card()?;
        Ok(String::from_utf8_lossy(card.policy.as_slice()).into_owned())
    }

    /// Has the account ask the witnesses of another policy: at once with the kit; without it the change waits.
    /// Returns until when, in Unix seconds.
    ///
    /// **Errors** [`ClientError::PolicyWrong`], [`ClientError::KitWrong`], [`ClientError::Unwitnessed`] when the
    /// witnesses of the new policy have not cosigned what the server shows, and those of the account.
    pub fn set_witness_policy(
        &mut self,
        text: &str,
        kit: Option<&Kit>,
    ) -> Result<Option<u64>, ClientError> {
        self.refresh()?;
        self.require_full()?;
        if let Some(kit) = kit {
            self.require_kit(kit)?;
        }
        let policy = check_policy(text)?;
        // Otherwise all devices would stop at once.
        let shown = log::shown(&self.log_remote, &self.clock)?;
        let cosigned_s = judge(&policy, &shown, (self.clock)())?;
        if policy.asks() && is_stale(cosigned_s, (self.clock)()) {
            return Err(Unwitnessed::Stale.into());
        }
        let in_force = self.profile.keys.account.pin();
        root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
            record.add_policy(text, &in_force, POLICIES_KEPT);
        })?;
        let keys = std::sync::Arc::clone(&self.profile.keys);
        let (now_s, pin) = ((self.clock)(), policy_hash(text));
        let actor = keys.actor(now_s)?;
        let act = match kit {
            Some(kit) => actor.set_pin(&keys.device, &kit.keys(), pin)?,
            None => actor.start_pin(&keys.device, pin)?,
        };
        account::act(
            &mut self.profile,
            &self.account_remote,
            PendingAct::new(act, None),
            &self.clock,
        )?;
        if kit.is_none() {
            // From when witnesses have seen it.
            self.wait_logged()?;
        }
        self.refresh()?;
        let waits_s = u64::from(keys.account.policy().delay_s);
        Ok(kit.is_none().then_some(now_s + waits_s))
    }

    /// Ends the waits of policies that this device has begun to set.
    pub(crate) fn finish_policies(&mut self, now_s: u64) -> Result<(), ClientError> {
        if self.is_limited() {
            return Ok(());
        }
        let is_pin = |change: &Change| matches!(change, Change::Pin(_));
        let keys = std::sync::Arc::clone(&self.profile.keys);
        let pins = keys.account.changes().filter(|(_, change)| is_pin(change));
        let pins: Vec<u64> = pins.map(|(seq, _)| seq).collect();
        let is_over =
            |request: &crate::Request| pins.contains(&request.number) && request.until_s <= now_s;
        for request in self.known_requests().into_iter().filter(is_over) {
            // Only the device that began it may.
            let actor = keys.actor((self.clock)())?;
            let act = actor.finish_change(&keys.device, request.number, &mut os_rng());
            let Ok(act) = act else { continue };
            let act = PendingAct::new(act, None);
            return account::act(&mut self.profile, &self.account_remote, act, &self.clock);
        }
        Ok(())
    }

    /// Refuses what must not be built on a log that may be an old one: new devices, kits, contacts and policies.
    ///
    /// **Errors** [`ClientError::Unwitnessed`].
    pub(crate) fn require_witnessed(&self) -> Result<(), ClientError> {
        let state = &self.log_state;
        if state.level > Level::G0 && is_stale(state.cosigned_s, (self.clock)()) {
            return Err(state.unwitnessed.unwrap_or(Unwitnessed::Stale).into());
        }
        Ok(())
    }

    /// Returns whether the kit in force was made before the policy was set: who restores from it, is shown as
    /// little as the policy of then asks for.
    ///
    /// **Errors** those of the local state.
    pub fn kit_is_older(&self) -> Result<bool, ClientError> {
        let (mut kit, mut policy) = (None, None);
        let mut waiting = BTreeMap::new();
        for (seq, block) in (0_u64..).zip(self.profile.blocks()?) {
            let Ok(block) = Block::parse(&block) else { continue };
            let change = match block.body.op {
                Op::DelayStart { change } => {
                    waiting.insert(seq, change);
                    continue;
                }
                Op::Set { change, .. } => Some(change),
                Op::DelayFinish { start, .. } => waiting.remove(&start),
                _ => None,
            };
            match change {
                Some(Change::Recovery(_)) => kit = Some(seq),
                Some(Change::Pin(_)) => policy = Some(seq),
                _ => {}
            }
        }
        Ok(kit.is_some() && kit < policy)
    }
}

impl Profile {
    /// Returns the policy that the account asks for: the one that its chain pins, or else the one of the card
    /// that it began with.
    ///
    /// **Errors** [`Unwitnessed::PolicyUnknown`].
    pub(crate) fn policy(&self, cards: &[SignedCard]) -> Result<Policy, ClientError> {
        let text = if self.is_pinned() {
            self.pinned_policy()?.map(String::into_bytes)
        } else {
            policy_of_home(&self.keys.account, cards)?
        };
        text.as_deref().and_then(parse).ok_or(ClientError::Unwitnessed(Unwitnessed::PolicyUnknown))
    }

    /// Returns the policy that the chain pins: as the account's devices know it, or as this one was told when it
    /// was linked. `None` when the chain pins none, or another.
    pub(crate) fn pinned_policy(&self) -> Result<Option<String>, ClientError> {
        let pin = self.keys.account.pin();
        let text = self.record()?.and_then(|record| record.policy(&pin));
        let told =
            || self.get("policy").ok().flatten().and_then(|text| String::from_utf8(text).ok());
        Ok(text.or_else(told).filter(|text| policy_hash(text) == pin))
    }

    /// Returns whether the account has chosen its policy itself.
    pub(crate) fn is_pinned(&self) -> bool {
        self.keys.account.pin() != [0; 32]
    }

    /// Returns whether this device has never accepted a log.
    pub(crate) fn is_unasked(&self) -> Result<bool, ClientError> {
        Ok(self.get("unasked")?.is_some())
    }
}

/// Reads a witness policy that a person gives.
///
/// **Errors** [`ClientError::PolicyWrong`] for what is none, is too long, or has an address that is no witness's.
pub fn check_policy(text: &str) -> Result<Policy, ClientError> {
    let policy: Policy = text.parse().map_err(|_| ClientError::PolicyWrong)?;
    let is_url = |url: &String| url.parse::<WitnessUrl>().is_ok();
    let are_urls = policy.witnesses().all(|(_, witness)| witness.url.as_ref().is_none_or(is_url));
    let fits = text.len() <= limits::POLICY_LEN_MAX;
    if are_urls && fits { Ok(policy) } else { Err(ClientError::PolicyWrong) }
}

/// Returns the text of the policy of the card that an account began with; `None` without any card.
pub(crate) fn policy_of_home(
    account: &Account,
    cards: &[SignedCard],
) -> Result<Option<Vec<u8>>, Misbehaviour> {
    let card = cards.iter().find(|signed| card_hash(&signed.card) == account.home());
    // SR-010: who the account began with, is one of the server's cards.
    Misbehaviour::CardMismatch.refuse_if(card.is_none() && !cards.is_empty())?;
    let text = card.map(|signed| signed.card.policy.as_slice().to_vec());
    Ok(text.or((!cards.is_empty()).then(Vec::new)))
}

/// Reads a policy as a card has it: one that is empty asks nobody.
pub(crate) fn parse(text: &[u8]) -> Option<Policy> {
    match std::str::from_utf8(text).ok()? {
        "" => Some(Policy::none()),
        text => text.parse().ok(),
    }
}
