//! Which snapshots are kept: tags, pins, and marking what is to be forgotten.

use std::sync::Arc;

use sr_vault::{
    ChunkIds,
    head::{HeadPlace, NewHead},
    index::IndexPack,
    manifest::{Elements, Forgotten, Listed, Manifest, PINNED, TAG_LEN_MAX, TAGS_MAX},
    retention::{Keep, Reason},
};

use sr_wire::{PackId, SnapshotId};

use crate::{
    Client, ClientError, SnapshotInfo,
    backup::store_manifest,
    client::{choose, info},
    delay::{Delay, UptimeClock},
    devices::unless_overtaken,
    heads::{self, Sent},
    remote::os_rng,
    view::{For, View},
};

/// A snapshot, and why a rule keeps it; one without a reason goes.
pub type Judged = (SnapshotInfo, Vec<Reason>);

impl Client {
    /// Marks snapshots as to be forgotten. They can be restored, and the marks be taken back, until a
    /// [`Client::prune`] after the account's delay. Returns those that were not marked before.
    ///
    /// **Errors** [`ClientError::NotFound`], [`ClientError::Pinned`], and those of writing the vault.
    pub fn forget(&mut self, which: &[String]) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.mark(Some(which), true)
    }

    /// Takes the marks of these snapshots back, of all if none is named. Returns those that were marked.
    ///
    /// **Errors** as [`Client::forget`].
    pub fn unforget(&mut self, which: &[String]) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.mark((!which.is_empty()).then_some(which), false)
    }

    /// Judges all snapshots by a rule, and marks what it does not keep, unless `dry_run`.
    ///
    /// **Errors** those of writing the vault.
    pub fn forget_by(&mut self, keep: &Keep, dry_run: bool) -> Result<Vec<Judged>, ClientError> {
        let now_s = (self.clock)();
        self.change_manifest(|manifest, ids, mark| {
            let reasons = keep.judge(&manifest.snapshots, now_s);
            let mut judged = Vec::new();
            for (listed, reasons) in manifest.snapshots.iter_mut().zip(reasons) {
                if listed.forgotten.is_some() {
                    continue;
                }
                if reasons.is_empty() && !dry_run {
                    listed.forgotten = Some(mark);
                }
                judged.push((info(listed, ids), reasons));
            }
            Ok(judged)
        })
    }

    /// Gives snapshots a tag, or takes it away. Returns them all.
    ///
    /// **Errors** [`ClientError::NotFound`], [`ClientError::Tag`], and those of writing the vault.
    pub fn tag(
        &mut self,
        which: &[String],
        tag: &str,
        has: bool,
    ) -> Result<Vec<SnapshotInfo>, ClientError> {
        check_tag(tag)?;
        self.change_chosen(Some(which), |listed, _| {
            listed.set_tag(tag, has);
            if tag == PINNED && has {
                listed.forgotten = None;
            }
            if listed.tags.len() > TAGS_MAX { Err(ClientError::Tag) } else { Ok(true) }
        })
    }

    /// Returns the snapshots that are marked as to be forgotten.
    ///
    /// **Errors** those of reading the vault.
    pub fn forgotten(&mut self) -> Result<Vec<SnapshotInfo>, ClientError> {
        let (_, ids, view) = self.view(For::Reading)?;
        let forgotten = view.manifest.snapshots.iter().filter(|l| l.forgotten.is_some());
        Ok(forgotten.map(|listed| info(listed, &ids)).collect())
    }

    /// Says how long the machine has been running, in place of the system.
    pub fn set_uptime(&mut self, uptime: UptimeClock) {
        self.uptime = uptime;
    }

    fn mark(
        &mut self,
        which: Option<&[String]>,
        forget: bool,
    ) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.change_chosen(which, |listed, mark| {
            if forget && listed.has_tag(PINNED) {
                return Err(ClientError::Pinned);
            }
            let changes = listed.forgotten.is_some() != forget;
            if changes {
                listed.forgotten = forget.then_some(mark);
            }
            Ok(changes)
        })
    }

    /// Changes chosen snapshots, or all, and returns those of which `change` says so.
    fn change_chosen(
        &mut self,
        which: Option<&[String]>,
        change: impl Fn(&mut Listed, Forgotten) -> Result<bool, ClientError>,
    ) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.change_manifest(|manifest, ids, mark| {
            let id_of = |which: &String| {
                let (listed, _) = choose(manifest, ids, which, None)?;
                Ok(listed.snapshot.id(ids))
            };
            let chosen: Option<Vec<SnapshotId>> = which
                .map(|which| which.iter().map(id_of).collect::<Result<_, ClientError>>())
                .transpose()?;
            let mut changed = Vec::new();
            for listed in &mut manifest.snapshots {
                let id = listed.snapshot.id(ids);
                let is_chosen = chosen.as_ref().is_none_or(|chosen| chosen.contains(&id));
                if is_chosen && change(listed, mark)? {
                    changed.push(info(listed, ids));
                }
            }
            Ok(changed)
        })
    }

    /// Changes the manifest on top of whatever it is by then; without a change nothing is written.
    fn change_manifest<T>(
        &mut self,
        change: impl Fn(&mut Manifest, &ChunkIds, Forgotten) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        unless_overtaken(|| {
            self.fresh(|client| {
                client.require_full()?;
                let (mut view, stored) = client.view_to_write(&[])?;
                let keys = Arc::clone(&client.profile.keys);
                let mark = Forgotten { by: keys.device.id(), time_s: (client.clock)() };
                let ids = ChunkIds::new(&keys.vault);
                let before = view.manifest.clone();
                let done = change(&mut view.manifest, &ids, mark)?;
                if view.manifest != before {
                    let (manifest, place) = (view.manifest, view.place);
                    client.note_marks(&manifest, &ids, mark)?;
                    let (profile, remote) = (&mut client.profile, &client.remote);
                    let finished = store_manifest(profile, remote, manifest, stored)?;
                    client.swap_manifest(place, &finished)?;
                    client.count_delay(&finished.manifest)?;
                }
                Ok(done)
            })
        })
    }

    /// Takes note of the marks that this device is about to make.
    fn note_marks(
        &mut self,
        manifest: &Manifest,
        ids: &ChunkIds,
        mark: Forgotten,
    ) -> Result<(), ClientError> {
        let mut delay = self.profile.delay()?;
        for listed in manifest.snapshots.iter().filter(|l| l.forgotten == Some(mark)) {
            delay.mark(listed.snapshot.id(ids), mark);
        }
        self.profile.set_delay(&delay)
    }

    /// Returns whether this device has marked a snapshot.
    pub(crate) fn is_own_mark(&self, delay: &Delay, listed: &Listed, ids: &ChunkIds) -> bool {
        let is_own = |mark| delay.is_own(listed.snapshot.id(ids), mark);
        listed.forgotten.is_some_and(is_own)
    }

    /// Opens the vault for a new manifest, which also names what an interrupted backup has stored. What is
    /// in packs that are `damaged` counts as lost.
    pub(crate) fn view_to_write(
        &mut self,
        damaged: &[PackId],
    ) -> Result<(View, Vec<IndexPack>), ClientError> {
        let mut view = View::open(&mut self.profile, &self.remote, For::Writing(damaged))?;
        self.count_delay(&view.manifest)?;
        let stored = view.adopt_pending(&self.profile, &self.remote)?;
        Ok((view, stored))
    }

    /// Puts a head on a manifest that is stored.
    ///
    /// **Errors** [`ClientError::Overtaken`].
    pub(crate) fn swap_manifest(
        &mut self,
        previous: HeadPlace,
        finished: &crate::sink::Finished,
    ) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let head = NewHead {
            previous,
            snapshot_set: finished.manifest.snapshot_set(),
            index_set: finished.manifest.index_set(),
            manifest: finished.pack,
            time_s: (self.clock)(),
            adds: Elements::default(),
        }
        .seal(&keys.vault, &keys.account, &keys.device.signing(), &mut os_rng());
        match heads::swap(&mut self.profile, &self.remote, &keys.vault, &head)? {
            Sent::Accepted => Ok(()),
            Sent::Overtaken => Err(ClientError::Overtaken),
        }
    }

    /// Counts the time that marks have waited, as every run that writes does.
    pub(crate) fn count_delay(&mut self, manifest: &Manifest) -> Result<(), ClientError> {
        let ids = ChunkIds::new(&self.profile.keys.vault);
        let mut delay = self.profile.delay()?;
        let now_s = self.profile.waits_s((self.clock)())?;
        delay.count(manifest, &ids, now_s, (self.uptime)());
        self.profile.set_delay(&delay)
    }
}

/// Refuses what is no tag.
pub(crate) fn check_tag(tag: &str) -> Result<(), ClientError> {
    let is_tag = (1..=TAG_LEN_MAX).contains(&tag.len()) && !tag.chars().any(char::is_control);
    if is_tag { Ok(()) } else { Err(ClientError::Tag) }
}
