//! Packs on their way over a slow line, as files: a run that was killed goes on where it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sr_vault::{
    index::IndexPack,
    pack::{OpenSlots, PackSeal},
};
use sr_wire::{PackId, limits};

use crate::{ClientError, profile::Profile, progress::Progress, remote::Remote};

/// A pack that is sent faster than this is as fast sent again.
pub(crate) const SLOW: Duration = Duration::from_millis(500);
const DIRECTORY: &str = "outgoing";
const PART: &str = "part-";

/// The files, by the ids of their packs.
pub(crate) struct Outgoing(PathBuf);

impl Outgoing {
    /// Returns those of a profile's directory.
    pub(crate) fn of(profile_dir: &Path) -> Self {
        Self(profile_dir.join(DIRECTORY))
    }

    /// Keeps a sealed pack, if there is room for it. One of a single slot is sent again as a whole.
    pub(crate) fn keep(&self, id: PackId, pack: &[u8]) {
        if pack.len() <= limits::SLOT_LEN {
            return;
        }
        // Two uploaders may keep theirs at once.
        let part = self.0.join(format!("{PART}{id}"));
        let write = || {
            fs::create_dir_all(&self.0)?;
            fs::write(&part, pack)?;
            fs::rename(&part, self.path(id))
        };
        // Without it, a run that is killed sends the pack from its start, and that is all.
        if write().is_err() {
            let _ = fs::remove_file(&part);
        }
    }

    /// Deletes a pack that is stored, or not wanted any more.
    pub(crate) fn remove(&self, id: PackId) {
        let _ = fs::remove_file(self.path(id));
    }

    fn path(&self, id: PackId) -> PathBuf {
        self.0.join(id.to_string())
    }

    fn ids(&self) -> io::Result<Vec<PackId>> {
        let mut ids = Vec::new();
        for file in fs::read_dir(&self.0)? {
            let file = file?;
            match file.file_name().to_str().and_then(|name| name.parse::<PackId>().ok()) {
                Some(id) => ids.push(id),
                // Half a file, of a run that was killed.
                None => fs::remove_file(file.path())?,
            }
        }
        Ok(ids)
    }
}

/// Sends what a killed run has left, before anything else.
pub(crate) fn send_rest(
    profile: &Profile,
    remote: &Remote,
    progress: &Progress,
) -> Result<(), ClientError> {
    let outgoing = Outgoing::of(profile.dir());
    let Ok(ids) = outgoing.ids() else { return Ok(()) };
    let pending = if ids.is_empty() { Vec::new() } else { profile.pending()? };
    for id in ids {
        if let Some(pack) = pending.iter().find(|pack| pack.id == id)
            && let Ok(bytes) = fs::read(outgoing.path(id))
            && is_sealed(profile, pack, &bytes)
        {
            let len = bytes.len() as u64;
            match remote.put_pack(&profile.keys.vault, id, bytes, true) {
                Ok(_) => progress.did_send(len),
                // It is not wanted there; whether what it holds is wanted, this run finds out.
                Err(ClientError::ServerRefused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        outgoing.remove(id);
    }
    Ok(())
}

/// Returns whether these are the bytes that were sealed: the power may have failed before they were on
/// the disk.
fn is_sealed(profile: &Profile, pack: &IndexPack, bytes: &[u8]) -> bool {
    let seal: &PackSeal = &pack.seal;
    let keys = &profile.keys.vault;
    OpenSlots::open(keys, pack.id, Some(seal), bytes.len(), 0, bytes.to_vec()).is_ok()
}
