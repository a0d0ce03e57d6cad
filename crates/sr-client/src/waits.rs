//! By which time waits are over. An account that asks witnesses waits by their time, which neither the server nor
//! whoever sets this device's clock moves; any other by this device's clock.

use sr_trust::Account;

use crate::{ClientError, profile::Profile};

impl Profile {
    /// Returns the time by which waits are counted, in Unix seconds: that of the newest log that this device has
    /// accepted, if witnesses have cosigned it, else `now_s`.
    pub(crate) fn waits_s(&self, now_s: u64) -> Result<u64, ClientError> {
        Ok(self.cosigned_s()?.unwrap_or(now_s))
    }

    /// Returns when a wait began that block `seq` has begun, by that time: when this device first saw the block.
    pub(crate) fn wait_began_s(&self, seq: u64, now_s: u64) -> Result<u64, ClientError> {
        if self.cosigned_s()?.is_none() {
            return Ok(self.block_seen_s(seq)?.unwrap_or(now_s));
        }
        let began_s = self.get(&began(seq))?.and_then(|bytes| bytes.try_into().ok());
        // Witnesses have not cosigned it yet, as far as this device can tell.
        Ok(began_s.map_or(now_s, u64::from_be_bytes))
    }

    /// Takes note of the waits of `account` that witnesses have cosigned for the first time, at `cosigned_s`, in a log
    /// that has `logged` changes of it.
    pub(crate) fn note_waits(
        &self,
        account: &Account,
        logged: u64,
        cosigned_s: u64,
    ) -> Result<(), ClientError> {
        for seq in account.waits().filter(|seq| *seq < logged) {
            let key = began(seq);
            if self.get(&key)?.is_none() {
                self.set(&key, &cosigned_s.to_be_bytes())?;
            }
        }
        Ok(())
    }
}

fn began(seq: u64) -> String {
    format!("wait/{seq}")
}
