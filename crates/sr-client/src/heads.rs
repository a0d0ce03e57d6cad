//! The newest head of a space: asked for, judged, followed, and swapped for the next.

use sr_keys::VaultKeys;
use sr_trust::Device;
use sr_vault::head::{self, Before, HeadPlace, Judged};
use sr_wire::{
    Misbehaviour, SealedHead,
    api::{ErrorCode, HeadResponse},
};

use crate::{
    ClientError,
    accepted::Accepted,
    account::Keys,
    evidence::{self, InDoubt},
    profile::Profile,
    remote::Remote,
};

/// So many earlier heads are asked for at once.
const HEADS_AT_ONCE: u64 = 64;
/// So many heads of a limited device's vault are read though nobody is known to have signed the last.
const UNOPENED_MAX: u64 = 10_000;

/// A space as far as this client accepts it.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    /// What the next head follows.
    pub(crate) tip: HeadPlace,
    /// Where the newest head that counts stands.
    pub(crate) place: HeadPlace,
    /// The newest head that counts, opened; `None` for an empty space.
    pub(crate) head: Option<head::Head>,
}

/// What became of a head that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is the newest.
    Accepted,
    /// Another device was faster.
    Overtaken,
}

/// Asks the server for the newest head of a space that exists, and takes it if it may be shown to
/// this client. A head that was sent and whose answer was lost is accepted if it arrived, and sent
/// again, byte for byte, if it did not.
pub(crate) fn newest(
    profile: &mut Profile,
    remote: &Remote,
    keys: &VaultKeys,
    writing: bool,
) -> Result<Newest, ClientError> {
    let space = keys.space();
    if writing {
        profile.require_unsealed()?;
        // Whoever has to take a device out does not go on as if that were done.
        if profile.pending_act()?.is_some() {
            return Err(ClientError::ServerRefused(ErrorCode::PutBack));
        }
    }
    if let Some(waiting) = profile.waiting.filter(|_| writing) {
        // Others go on under a key that this device does not take yet: what it would write under the
        // old one, somebody who was taken out could read.
        return Err(ClientError::AccountWaits { until_s: waiting.until_s });
    }
    let (response, random) = match remote.read_head(keys, profile.answer(space)?.as_ref()) {
        // SR-006: a space that was made is not there any more.
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            return Err(Misbehaviour::HeadRolledBack.into());
        }
        response => response?,
    };
    let accepted = accept(profile, remote, keys, &response, writing);
    // Who may have been put back from a backup is not accused before it got back what it lost.
    let may_accuse = |why| why != Misbehaviour::HeadRolledBack || profile.gave_back;
    match accepted {
        Err(ClientError::Misbehaviour(why)) if may_accuse(why) => {
            evidence::about_head(profile, remote, &response.answer, random);
        }
        Err(ClientError::Misbehaviour(_)) => {
            profile.in_doubt.push(InDoubt { answer: response.answer.clone(), random });
        }
        _ => {}
    }
    match accepted {
        // The newest state is by somebody who counts only after a wait: until then the last accepted
        // one stays in use for reading.
        Err(ClientError::Misbehaviour(Misbehaviour::HeadAltered | Misbehaviour::PlaceMismatch))
            if profile.waiting.is_some() =>
        {
            return current(profile, keys);
        }
        accepted => accepted?,
    }
    recount(profile, remote, keys)?;
    let sealed = profile.sealed()?;
    if let Some(sent) = profile.sent(space)?.filter(|_| sealed.is_none()) {
        match send(profile, remote, keys, &sent) {
            // A server that can't write now can be read all the same.
            Err(ClientError::ServerRefused(_)) if !writing => {}
            done => {
                done?;
            }
        }
    }
    current(profile, keys)
}

/// Remembers a head, sends it, and accepts what is the newest then.
pub(crate) fn swap(
    profile: &mut Profile,
    remote: &Remote,
    keys: &VaultKeys,
    head: &SealedHead,
) -> Result<Sent, ClientError> {
    profile.require_unsealed()?;
    profile.set_sent(head)?;
    send(profile, remote, keys, head)
}

/// Returns the space as it was accepted last.
pub(crate) fn current(profile: &Profile, keys: &VaultKeys) -> Result<Newest, ClientError> {
    let accepted = profile.accepted(keys.space())?;
    let account = &profile.keys.account;
    let place = HeadPlace::of(accepted.head.as_ref());
    let head = accepted.head.map(|sealed| head::open(&sealed, keys, account)).transpose()?;
    Ok(Newest { tip: accepted.tip.unwrap_or(HeadPlace::EMPTY), place, head })
}

/// Sends a head that is remembered as sent.
fn send(
    profile: &mut Profile,
    remote: &Remote,
    keys: &VaultKeys,
    head: &SealedHead,
) -> Result<Sent, ClientError> {
    let space = keys.space();
    let accepted = profile.accepted(space)?.tip.unwrap_or(HeadPlace::EMPTY);
    if head.seq <= accepted.seq {
        // Its place is taken by another.
        profile.clear_sent(space, false)?;
        return Ok(Sent::Overtaken);
    }
    let response = remote.swap_head(keys, head, profile.answer(space)?.as_ref())?;
    let shown = HeadPlace::of(response.head.as_ref());
    if shown.seq <= accepted.seq {
        head::judge(accepted, space, profile.keys.removals(), shown)?;
        // The server keeps the old head and gives no reason: it breaks the protocol. SR-016
        return Err(Misbehaviour::ResponseMalformed.into());
    }
    accept(profile, remote, keys, &response, false)?;
    if profile.sent(space)?.is_none() {
        return Ok(Sent::Accepted);
    }
    profile.clear_sent(space, false)?;
    Ok(Sent::Overtaken)
}

/// Takes the head that the server shows, if it follows what this client has accepted.
fn accept(
    profile: &mut Profile,
    remote: &Remote,
    keys: &VaultKeys,
    response: &HeadResponse,
    writing: bool,
) -> Result<(), ClientError> {
    let space = keys.space();
    let own = std::sync::Arc::clone(&profile.keys);
    let removals = own.removals();
    let accepted = profile.accepted(space)?;
    let shown = HeadPlace::of(response.head.as_ref());
    let floor = accepted.tip.unwrap_or(HeadPlace::EMPTY);
    head::judge(floor, space, removals, shown)?;
    let is_known = shown == floor && (accepted.head.is_some() || shown.seq == 0);
    if !is_known && let Some(newest) = &response.head {
        // A device has signed its place, or it is not far: a server can't give a chain without end.
        let opened = head::open(newest, keys, &own.account);
        if keys.limited().is_none() || newest.seq > floor.seq.saturating_add(UNOPENED_MAX) {
            opened?;
        }
        let (place, chain) = chain_to(remote, &own, keys, &accepted, newest)?;
        let known = accepted.head.as_ref().map(|known| head::open(known, keys, &own.account));
        let known = known.transpose()?;
        let before = Before { place, chain_seq: accepted.chain_seq, head: known.as_ref() };
        let judged = head::follow(before, &chain, keys, &own.account, removals)?;
        if let Some(device) = judged.overreach {
            profile.set_overreach(space, device)?;
        }
        let counting = newest_counting(&judged, &chain).or(accepted.head);
        profile.keep_heads(&chain)?;
        profile.set_accepted(space, shown, judged.chain_seq, counting)?;
        if profile.sent(space)?.is_some_and(|sent| chain.contains(&sent)) {
            profile.clear_sent(space, true)?;
        }
        // Once: what is asked again then knows the account as it is now.
        Misbehaviour::PlaceMismatch.refuse_if(judged.is_ahead && writing)?;
    } else if accepted.tip.is_none() {
        profile.set_accepted(space, shown, 0, None)?;
    }
    profile.set_answer(space, &response.answer)
}

/// A head that was accepted may count no more: its signer was taken out since, at an earlier one. The
/// newest that does is looked for from the beginning. What a limited device adds counts by what was
/// there before, so its vault is judged again whenever the account has moved on.
fn recount(profile: &mut Profile, remote: &Remote, keys: &VaultKeys) -> Result<(), ClientError> {
    let own = std::sync::Arc::clone(&profile.keys);
    let removals = own.removals();
    let accepted = profile.accepted(keys.space())?;
    let Some(tip) = accepted.tip.filter(|tip| tip.seq > 0) else { return Ok(()) };
    let is_judged =
        keys.limited().is_none() || profile.judged(keys.space())? == Some(own.account.seq());
    let counts = |sealed: &SealedHead| -> Result<bool, ClientError> {
        let (head, place) = (head::open(sealed, keys, &own.account)?, HeadPlace::of(Some(sealed)));
        Ok(head::counts(&head, place, keys.space(), &own.account, removals))
    };
    if is_judged && accepted.head.as_ref().map(counts).transpose()?.unwrap_or(true) {
        return Ok(());
    }
    let chain = remote.heads(keys, 1, tip.seq)?;
    // SR-007: the heads must be the ones that were accepted.
    Misbehaviour::HeadForked.refuse_if(HeadPlace::of(chain.last()) != tip)?;
    let judged = head::follow(Before::NOTHING, &chain, keys, &own.account, removals)?;
    let counting = newest_counting(&judged, &chain);
    if let Some(device) = judged.overreach {
        profile.set_overreach(keys.space(), device)?;
    }
    profile.set_judged(keys.space(), own.account.seq())?;
    profile.set_accepted(keys.space(), tip, judged.chain_seq, counting)
}

pub(crate) fn newest_counting(judged: &Judged, chain: &[SealedHead]) -> Option<SealedHead> {
    let newest = judged.counting.last()?;
    chain.iter().find(|head| HeadPlace::of(Some(head)) == newest.place).cloned()
}

/// Returns the heads that lead to `newest`, and the place that they follow: what this client has
/// accepted, or, where it has seen no head of the space yet, the place before the first that it
/// needs.
fn chain_to(
    remote: &Remote,
    own: &Keys,
    keys: &VaultKeys,
    accepted: &Accepted,
    newest: &SealedHead,
) -> Result<(HeadPlace, Vec<SealedHead>), ClientError> {
    let anchored = own
        .removals()
        .iter()
        .flat_map(|removal| &removal.anchors)
        .filter(|anchor| anchor.space == keys.space())
        .map(|anchor| anchor.seq)
        .max();
    let (from, before) = match (accepted.tip, &accepted.head) {
        (Some(tip), Some(_)) => (tip.seq + 1, Some(tip)),
        // Pinned by the device that linked this one, or seen empty.
        (Some(tip), None) => {
            (anchored.unwrap_or(tip.seq).min(tip.seq).max(1), (tip.seq == 0).then_some(tip))
        }
        (None, _) => (anchored.unwrap_or(newest.seq).min(newest.seq).max(1), None),
    };
    let mut chain = Vec::new();
    if from < newest.seq {
        chain = remote.heads(keys, from, newest.seq - 1)?;
    }
    chain.push(newest.clone());
    if accepted.head.is_none() {
        chain = down_to_full(remote, own, keys, chain)?;
    }
    // SR-007: what was pinned is not there.
    if let (Some(tip), None) = (accepted.tip, &accepted.head) {
        let is_pinned = tip.seq == 0 || chain.iter().any(|head| HeadPlace::of(Some(head)) == tip);
        Misbehaviour::HeadForked.refuse_if(!is_pinned)?;
    }
    let before = before.filter(|before| before.seq + 1 == chain[0].seq).unwrap_or_else(|| {
        let first = &chain[0];
        HeadPlace { seq: first.seq.saturating_sub(1), hash: first.previous }
    });
    Ok((before, chain))
}

/// What a limited device adds is judged by what was there before: back to a head by a full device that
/// counts, or to the first.
fn down_to_full(
    remote: &Remote,
    own: &Keys,
    keys: &VaultKeys,
    mut chain: Vec<SealedHead>,
) -> Result<Vec<SealedHead>, ClientError> {
    let is_base = |sealed: &SealedHead| {
        let Ok(head) = head::open(sealed, keys, &own.account) else { return false };
        let place = HeadPlace::of(Some(sealed));
        let is_full = own.account.device(head.signer).is_some_and(Device::is_full);
        let (space, removals) = (keys.space(), own.removals());
        head::is_anchor(place, space, removals)
            || is_full && head::counts(&head, place, space, &own.account, removals)
    };
    while chain[0].seq > 1 && !is_base(&chain[0]) {
        let end = chain[0].seq - 1;
        let mut earlier = remote.heads(keys, end.saturating_sub(HEADS_AT_ONCE - 1).max(1), end)?;
        // SR-007: each answer leads further down, so that this ends.
        let leads_down = earlier.first().is_some_and(|first| first.seq <= end);
        Misbehaviour::HeadForked.refuse_if(!leads_down)?;
        earlier.append(&mut chain);
        chain = earlier;
    }
    Ok(chain)
}
