//! Going on with an older state of a server that has lost the newer one for good: what would be forgotten, and a
//! person's word that it may be.

use std::sync::Arc;

use sr_keys::VaultKeys;
use sr_vault::{
    ChunkIds,
    head::{self, Before, Head, HeadPlace, Judged},
    manifest::Manifest,
};
use sr_wire::{Misbehaviour, PackId, SealedHead, SignedAnswer, SpaceId, api::ErrorCode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, SnapshotInfo, Unwitnessed,
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
    /// The newest lists of the vault that can be read, and their pack, if not those of the newest state.
    readable: Option<(PackId, Manifest)>,
    /// The snapshots that would be forgotten, as far as this device can name them.
    pub snapshots: Vec<SnapshotInfo>,
    /// How many changes of the account's spaces would be.
    pub states: u64,
    /// Whether only the server's log has them: this device has come back from paper, or by contacts.
    pub is_by_log: bool,
    /// Why the log is not to be relied on, on a device that has never accepted one: what would be forgotten, nobody
    /// knows.
    pub unwitnessed: Option<Unwitnessed>,
}

impl Rollback {
    /// Returns whether the server shows all that this device knows.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.states == 0 && self.unwitnessed.is_none()
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
        match self.refresh() {
            Err(ClientError::Misbehaviour(Misbehaviour::OlderThanLogged)) => {
                let states = self.older_by.unwrap_or(1);
                return Ok(Rollback { states, is_by_log: true, ..Rollback::default() });
            }
            Err(ClientError::Unwitnessed(why)) if self.profile.is_unasked()? => {
                return Ok(Rollback { unwitnessed: Some(why), ..Rollback::default() });
            }
            Err(ClientError::Misbehaviour(Misbehaviour::LogRolledBack))
                if self.profile.is_unasked()? =>
            {
                return Ok(Rollback {
                    unwitnessed: Some(Unwitnessed::Behind),
                    ..Rollback::default()
                });
            }
            done => done?,
        }
        self.require_full()?;
        self.give_back()?;
        let (mut rollback, vault) = (Rollback::default(), self.profile.keys.vault.space());
        let mut backs = Vec::new();
        self.each_space(|profile, keys, remote| {
            backs.extend(look_back(profile, keys, remote)?);
            Ok(())
        })?;
        rollback.states = backs.iter().map(|back| back.states).sum();
        let goes_on = self.goes_on(backs.iter().find(|back| back.space == vault))?;
        rollback.states += goes_on.newer;
        let (known, ids) = (self.known_manifest(), ChunkIds::new(&self.profile.keys.vault));
        let is_lost = |listed: &&_| !goes_on.manifest.snapshots.contains(listed);
        let lost = known.snapshots.iter().filter(is_lost).map(|listed| info(listed, &ids));
        rollback.snapshots = lost.collect();
        rollback.readable = (goes_on.newer > 0).then_some((goes_on.pack, goes_on.manifest));
        rollback.backs = backs;
        Ok(rollback)
    }

    /// Refuses when this device sends its server nothing any more.
    ///
    /// **Errors** [`ClientError::Sealed`].
    pub fn require_unsealed(&self) -> Result<(), ClientError> {
        self.profile.require_unsealed()
    }

    /// Forgets what [`Client::rollback`] has found, and goes on with what the server shows.
    ///
    /// **Errors** those of the local state, and of writing.
    pub fn accept_rollback(&mut self, rollback: Rollback) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let root = keys.root()?.space();
        let record = self.profile.record()?;
        if rollback.is_by_log {
            self.accept_older()?;
        }
        if rollback.unwitnessed.is_some() {
            return self.profile.set_alone();
        }
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
        if let Some((pack, manifest)) = rollback.readable {
            let tip = heads::current(&self.profile, &keys.vault)?.tip;
            self.swap_manifest(tip, &Finished { manifest, pack })?;
        }
        // What the devices have noted since, this one still knows.
        if let (true, Some(record)) = (is_root, record) {
            root::write(&mut self.profile, &self.root_remote, &self.clock, &record)?;
        }
        Ok(())
    }

    /// Returns the newest lists that can be read, of what the server shows.
    fn goes_on(&self, back: Option<&Back>) -> Result<GoesOn, ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let counting = match back {
            Some(back) => back.judged.counting.clone(),
            None => {
                let Some(newest) = heads::current(&self.profile, &keys.vault)?.head else {
                    return Ok(GoesOn::default());
                };
                if let Some(found) = self.readable(&newest, 0)? {
                    return Ok(found);
                }
                let chain = self.remote.heads(&keys.vault, 1, newest.seq)?;
                let removals = keys.removals();
                head::follow(Before::NOTHING, &chain, &keys.vault, &keys.account, removals)?
                    .counting
            }
        };
        for (newer, opened) in (0..).zip(counting.iter().rev()) {
            if let Some(found) = self.readable(&opened.head, newer)? {
                return Ok(found);
            }
        }
        // SR-003: there was something, and no list of it is there.
        Misbehaviour::PackMissing.refuse_if(!counting.is_empty())?;
        Ok(GoesOn::default())
    }

    fn readable(&self, head: &Head, newer: u64) -> Result<Option<GoesOn>, ClientError> {
        match manifest_of(&self.profile, &self.remote, head) {
            Err(ClientError::Misbehaviour(_)) => Ok(None),
            manifest => Ok(Some(GoesOn { pack: head.manifest, manifest: manifest?, newer })),
        }
    }

    fn known_manifest(&self) -> Manifest {
        let current = heads::current(&self.profile, &self.profile.keys.vault);
        let head = current.ok().and_then(|current| current.head);
        let manifest = head.map(|head| manifest_of(&self.profile, &self.remote, &head));
        manifest.and_then(Result::ok).unwrap_or_default()
    }
}

/// What is gone on with: nothing, for a space without a head.
struct GoesOn {
    pack: PackId,
    manifest: Manifest,
    /// How many states are newer, and can't be read.
    newer: u64,
}

impl Default for GoesOn {
    fn default() -> Self {
        Self { pack: PackId([0; 32]), manifest: Manifest::default(), newer: 0 }
    }
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
