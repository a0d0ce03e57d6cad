//! Going on with an older state of a server that has lost the newer one for good: what would be forgotten, and a
//! person's word that it may be.

use std::sync::Arc;

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkIds,
    head::{self, Before, Head, HeadPlace, Judged},
    manifest::Manifest,
};
use sr_wire::{Misbehaviour, SealedHead, SignedAnswer, SpaceId, api::ErrorCode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, SnapshotInfo,
    accepted::Accepted,
    client::info,
    heads::{self, newest_counting},
    profile::Profile,
    remote::Remote,
    root,
    sink::Finished,
    view::manifest_of,
};

/// What a server does not show any more, and what no device could give back.
#[derive(Debug, Default)]
pub struct Rollback {
    backs: Vec<Back>,
    /// The newest state of the vault of which the lists can be read, if not those of the newest.
    readable: Option<(Head, Manifest)>,
    /// The snapshots that would be forgotten, as far as this device can name them.
    pub snapshots: Vec<SnapshotInfo>,
    /// How many changes of the account's spaces would be.
    pub states: u64,
}

impl Rollback {
    /// Returns whether the server shows all that this device knows.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.states == 0
    }
}

/// A rollback that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct AcceptedRollback {
    /// When, in Unix seconds.
    pub time_s: u64,
    /// How many snapshots were forgotten, as far as this device could name them.
    pub snapshots: u64,
}

/// A space of which the server shows another state than one that follows what this device has accepted.
#[derive(Debug)]
struct Back {
    space: SpaceId,
    shown: HeadPlace,
    answer: SignedAnswer,
    chain: Vec<SealedHead>,
    judged: Judged,
    states: u64,
}

impl Client {
    /// Returns what would be forgotten if this device went on with what the server shows. All that it can
    /// give back, it gives back first.
    ///
    /// **Errors** as [`Client::snapshots`]: an account, or a log, that is older than this device knows, is
    /// not gone on with; nor is a state from before a device was taken out.
    pub fn rollback(&mut self) -> Result<Rollback, ClientError> {
        self.refresh()?;
        self.require_full()?;
        self.give_back()?;
        let (mut rollback, vault) = (Rollback::default(), self.profile.keys.vault.space());
        let mut backs = Vec::new();
        self.each_space(|profile, keys, remote| {
            backs.extend(look_back(profile, keys, remote)?);
            Ok(())
        })?;
        rollback.states = backs.iter().map(|back| back.states).sum();
        let back = backs.iter().find(|back| back.space == vault);
        let goes_on = self.readable(back)?;
        if let Some((states, readable)) = goes_on.older {
            rollback.states += states;
            rollback.readable = readable;
        }
        let known = self.known_manifest();
        let ids = ChunkIds::new(&self.profile.keys.vault);
        let kept = rollback.readable.as_ref().map_or(&goes_on.manifest, |(_, manifest)| manifest);
        let is_lost = |listed: &&_| !kept.snapshots.contains(listed);
        let lost = known.snapshots.iter().filter(is_lost).map(|listed| info(listed, &ids));
        rollback.snapshots = lost.collect();
        rollback.backs = backs;
        Ok(rollback)
    }

    /// Forgets what [`Client::rollback`] has found, and goes on with what the server shows.
    ///
    /// **Errors** those of the local state, and of writing.
    pub fn accept_rollback(&mut self, rollback: Rollback) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let root = keys.root()?.space();
        let record = self.profile.record()?;
        let snapshots = rollback.snapshots.len() as u64;
        let is_root = rollback.backs.iter().any(|back| back.space == root);
        for back in rollback.backs {
            self.profile.go_back(back)?;
        }
        self.profile.unseal_rollback()?;
        if rollback.states > 0 {
            let accepted = AcceptedRollback { time_s: (self.clock)(), snapshots };
            self.profile.note_accepted_rollback(&accepted)?;
        }
        if let Some((head, manifest)) = rollback.readable {
            let tip = heads::current(&self.profile, &keys.vault)?.tip;
            self.swap_manifest(tip, &Finished { manifest, pack: head.manifest })?;
        }
        // What the devices have noted since, this one still knows.
        if let (true, Some(record)) = (is_root, record) {
            root::write(&mut self.profile, &self.root_remote, &self.clock, &record)?;
        }
        Ok(())
    }

    /// Returns the lists of the newest state that is gone on with, or the newest that can be read.
    fn readable(&self, back: Option<&Back>) -> Result<GoesOn, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let manifest = |head: &Head| manifest_of(&self.profile, &self.remote, head);
        let newest = match back {
            Some(back) => back.judged.counting.last().map(|opened| opened.head.clone()),
            None => heads::current(&self.profile, &keys.vault)?.head,
        };
        let Some(newest) = newest else { return Ok(GoesOn::default()) };
        match manifest(&newest) {
            Err(ClientError::Misbehaviour(_)) => {}
            manifest => return Ok(GoesOn { manifest: manifest?, older: None }),
        }
        let judged = match back {
            Some(back) => back.judged.clone(),
            None => {
                let chain = self.remote.heads(&keys.vault, 1, newest.seq)?;
                let removals = keys.removals();
                head::follow(Before::NOTHING, &chain, &keys.vault, &keys.account, removals)?
            }
        };
        for (states, opened) in (0..).zip(judged.counting.iter().rev()) {
            match manifest(&opened.head) {
                Err(ClientError::Misbehaviour(_)) => {}
                found => {
                    let found = Some((opened.head.clone(), found?));
                    let older = Some((states, found));
                    return Ok(GoesOn { older, ..GoesOn::default() });
                }
            }
        }
        // SR-003: no list is there at all.
        Err(Misbehaviour::PackMissing.into())
    }

    fn known_manifest(&self) -> Manifest {
        let current = heads::current(&self.profile, &self.profile.keys.vault);
        let head = current.ok().and_then(|current| current.head);
        let manifest = head.map(|head| manifest_of(&self.profile, &self.remote, &head));
        manifest.and_then(Result::ok).unwrap_or_default()
    }
}

/// What is gone on with.
#[derive(Default)]
struct GoesOn {
    manifest: Manifest,
    /// If the newest can't be read: how many states older it is, and what it is.
    older: Option<(u64, Option<(Head, Manifest)>)>,
}

/// Compares a space with what this device has accepted of it. What the server shows must have been made by the
/// account's devices, from the first head on.
fn look_back(
    profile: &Profile,
    keys: &VaultKeys,
    remote: &Remote,
) -> Result<Option<Back>, ClientError> {
    let (space, own) = (keys.space(), Arc::clone(&profile.keys));
    let Accepted { tip: Some(tip), .. } = profile.accepted(space)? else { return Ok(None) };
    let (response, _) = match remote.read_head(keys, profile.answer(space)?.as_ref()) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            return Err(Misbehaviour::HeadRolledBack.into());
        }
        response => response?,
    };
    let shown = HeadPlace::of(response.head.as_ref());
    if shown == tip {
        return Ok(None);
    }
    // SR-006: what a device knew that took another one out is not forgotten.
    head::judge(HeadPlace::EMPTY, space, own.removals(), shown)?;
    let chain = if shown.seq > 0 { remote.heads(keys, 1, shown.seq)? } else { Vec::new() };
    // SR-007
    Misbehaviour::HeadForked.refuse_if(HeadPlace::of(chain.last()) != shown)?;
    let is_in = |place: HeadPlace| chain.iter().any(|head| HeadPlace::of(Some(head)) == place);
    if tip.seq == 0 || is_in(tip) {
        return Ok(None);
    }
    let judged = head::follow(Before::NOTHING, &chain, keys, &own.account, own.removals())?;
    let kept = profile.heads(space, 0)?;
    let common =
        kept.iter().rev().map(|head| HeadPlace::of(Some(head))).find(|place| is_in(*place));
    let common = common.map_or(shown.seq.min(tip.seq - 1), |place| place.seq);
    let states = tip.seq - common;
    Ok(Some(Back { space, shown, answer: response.answer, chain, judged, states }))
}

impl Profile {
    fn go_back(&mut self, back: Back) -> Result<(), ClientError> {
        let Back { space, shown, answer, chain, judged, .. } = back;
        let counting = newest_counting(&judged, &chain);
        self.clear_sent(space, false)?;
        self.forget_heads(space)?;
        self.keep_heads(&chain)?;
        self.set_accepted(space, shown, judged.chain_seq, counting)?;
        self.set_answer(space, &answer)
    }
}
