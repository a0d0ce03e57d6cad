//! Additions wait until they are in the log, where everybody can see them; removals don't.

use std::{
    thread,
    time::{Duration, Instant},
};

use sr_trust::{Block, Device};
use sr_wire::DeviceId;

use crate::{Client, ClientError};

/// How long a server that adds to its log each second is waited for, its witnesses included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a device that was added is news to the others.
const NEWS_S: u64 = 7 * 86_400;

impl Client {
    /// Refuses what must not be built on more than the log shows, or on one that may be an old one: new devices, kits
    /// and contacts.
    ///
    /// **Errors** [`ClientError::Unwitnessed`], [`ClientError::NotLogged`].
    pub(crate) fn require_logged(&mut self) -> Result<(), ClientError> {
        self.require_witnessed()?;
        if self.wait_logged()? {
            return Ok(());
        }
        Err(ClientError::NotLogged { why: self.log_state.withheld.clone() })
    }

    /// Returns whether the log that this device has accepted has all that the account did.
    fn is_logged(&self) -> Result<bool, ClientError> {
        let logged = self.profile.own_logged()?.unwrap_or_default();
        Ok(logged > self.profile.keys.account.seq())
    }

    /// Waits a moment until it has. A device that goes on without lost witnesses, as a person said, has no log to wait for.
    pub(crate) fn wait_logged(&mut self) -> Result<bool, ClientError> {
        if self.profile.is_alone()? {
            return Ok(true);
        }
        let began = Instant::now();
        while !self.is_logged()? {
            if began.elapsed() > PATIENCE {
                return Ok(false);
            }
            thread::sleep(LOOK_INTERVAL);
            self.sync()?;
        }
        Ok(true)
    }

    /// Returns the live devices that get no keys when something is taken away now, as `goes`: those whose addition the log does not
    /// have, though it was waited for.
    pub(crate) fn left_out(
        &mut self,
        goes: Option<DeviceId>,
    ) -> Result<Vec<DeviceId>, ClientError> {
        if self.wait_logged()? {
            return Ok(Vec::new());
        }
        let logged = self.profile.own_logged()?.unwrap_or_default();
        let (keys, blocks) = (&self.profile.keys, self.profile.blocks()?);
        let own_added = keys.account.device(keys.device.id()).map(|own| own.added);
        let is_left_out = |device: &&Device| {
            // It was there when this device came, or this device has added it: nothing was hidden from it.
            let is_known =
                own_added >= Some(device.added) || self.is_by_this(&blocks, device.added);
            Some(device.id) != goes && device.added >= logged && !is_known
        };
        Ok(keys.account.live().filter(is_left_out).map(|device| device.id).collect())
    }

    /// Returns whether this device has signed a block.
    fn is_by_this(&self, blocks: &[Vec<u8>], seq: u64) -> bool {
        let place = usize::try_from(seq).unwrap_or(usize::MAX);
        let block = blocks.get(place).and_then(|block| Block::parse(block).ok());
        let this = self.profile.keys.device.id();
        block.is_some_and(|block| block.signatures.iter().any(|signature| signature.key == this))
    }

    /// Returns the live devices that another one has added within a week, as far as this device saw it happen, with
    /// their names.
    ///
    /// **Errors** those of the local state.
    pub fn new_devices(&self) -> Result<Vec<(DeviceId, Option<String>)>, ClientError> {
        let record = self.profile.record()?;
        let name = |id| record.as_ref().and_then(|record| record.name(id));
        let keys = &self.profile.keys;
        let Some(own) = keys.account.device(keys.device.id()) else { return Ok(Vec::new()) };
        let (now_s, blocks) = ((self.clock)(), self.profile.blocks()?);
        let mut news = Vec::new();
        for device in keys.account.live().filter(|device| device.added > own.added) {
            let seen_s = self.profile.block_seen_s(device.added)?.unwrap_or(now_s);
            let is_new = now_s.saturating_sub(seen_s) < NEWS_S;
            if is_new && !self.is_by_this(&blocks, device.added) {
                news.push((device.id, name(device.id)));
            }
        }
        Ok(news)
    }
}
