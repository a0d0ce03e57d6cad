//! By which time waits are over. An account that asks witnesses waits by their time, which neither the server nor
//! whoever sets this device's clock moves; any other by this device's clock.

use sr_trust::Account;

use crate::{ClientError, profile::Profile};

impl Profile {
    /// Returns the time by which waits are counted, in Unix seconds: that of the newest log that this device has
    /// accepted, if witnesses have cosigned it, else `now_s`.
    pub(crate) fn waits_s(&self, now_s: u64) -> Result<u64, ClientError> {
        if self.is_alone()? {
            return Ok(now_s);
        }
        Ok(self.cosigned_s()?.unwrap_or(now_s))
    }

    /// Returns whether this device goes on without its witnesses, as a person has said, who knows them lost.
    pub(crate) fn is_alone(&self) -> Result<bool, ClientError> {
        Ok(self.get(ALONE)?.is_some())
    }

    /// Goes on without witnesses until they are there again.
    pub(crate) fn set_alone(&self) -> Result<(), ClientError> {
        self.unset("heard")?;
        self.unset("unasked")?;
        self.set(ALONE, b"")
    }

    /// Returns when a wait began that block `seq` has begun, by that time: when this device first saw the block.
    pub(crate) fn wait_began_s(&self, seq: u64, now_s: u64) -> Result<u64, ClientError> {
        if self.is_alone()? || self.cosigned_s()?.is_none() {
            return Ok(self.block_seen_s(seq)?.unwrap_or(now_s));
        }
        let began_s = self.get(&began(seq))?.and_then(|bytes| bytes.try_into().ok());
        // Witnesses have not cosigned it yet, as far as this device can tell: so it begins now at the earliest.
        Ok(began_s.map_or(self.waits_s(now_s)?.max(now_s), u64::from_be_bytes))
    }

    /// Takes note of the waits of `account` that witnesses have cosigned for the first time, at `cosigned_s`, which is
    /// today, in a log that has `logged` changes of it.
    pub(crate) fn note_waits(
        &self,
        account: &Account,
        logged: u64,
        cosigned_s: u64,
    ) -> Result<(), ClientError> {
        self.unset(ALONE)?;
        // What a wait holds back may hold back its beginning, too.
        let opened = self.waiting.map(|waiting| waiting.opened);
        for seq in account.waits().chain(opened).filter(|seq| *seq < logged) {
            let key = began(seq);
            if self.get(&key)?.is_none() {
                self.set(&key, &cosigned_s.to_be_bytes())?;
            }
        }
        Ok(())
    }
}

const ALONE: &str = "alone";

fn began(seq: u64) -> String {
    format!("wait/{seq}")
}
