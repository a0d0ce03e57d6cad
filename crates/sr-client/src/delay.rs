//! How long this device has known that snapshots are to be forgotten, by its own count.
//!
//! A prune waits, and nobody can shorten that wait from outside: it is counted from when this device
//! first saw the mark and not from the time that the mark names, a clock that jumps counts as the
//! smaller step, and there must be runs on several days (attack ST-12).

use std::{fs, sync::Arc};

use sr_vault::{
    ChunkIds,
    manifest::{Forgotten, Listed, Manifest},
};
use sr_wire::SnapshotId;
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

const DAY_S: u64 = 86_400;
/// Runs on different days that a wait takes, the one that saw the mark first among them.
const DAYS_MIN: u64 = 3;

/// How long this machine has been running, which no clock that is set can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// Which start of the machine it is.
    pub boot: Vec<u8>,
    /// Seconds since then, sleep included.
    pub seconds: u64,
}

/// Tells the uptime, where it can be told.
pub type UptimeClock = Arc<dyn Fn() -> Option<Uptime> + Send + Sync>;

/// Returns the uptime of this machine.
pub(crate) fn uptime() -> Option<Uptime> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split('.').next()?.parse().ok()?;
    Some(Uptime { boot: fs::read("/proc/sys/kernel/random/boot_id").ok()?, seconds })
}

/// The count, as a profile keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Delay {
    /// What this device has counted, and on how many days it ran.
    seconds: u64,
    days: u64,
    /// When it counted last.
    now_s: u64,
    boot: Vec<u8>,
    uptime_s: u64,
    seen: Vec<Seen>,
    /// The marks that this device made.
    own: Vec<(SnapshotId, Forgotten)>,
}

/// A mark, and what was counted when it was seen first.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Seen {
    snapshot: SnapshotId,
    forgotten: Forgotten,
    seconds: u64,
    days: u64,
}

impl Delay {
    /// Counts the time since the last run, and takes note of the marks that are there now.
    pub(crate) fn count(
        &mut self,
        manifest: &Manifest,
        ids: &ChunkIds,
        now_s: u64,
        uptime: Option<Uptime>,
    ) {
        let mut step = now_s.saturating_sub(self.now_s).min(DAY_S);
        let uptime = uptime.unwrap_or(Uptime { boot: Vec::new(), seconds: 0 });
        if !uptime.boot.is_empty() && self.boot == uptime.boot {
            step = step.min(uptime.seconds.saturating_sub(self.uptime_s));
        }
        self.seconds += step;
        self.days += u64::from(now_s / DAY_S > self.now_s / DAY_S);
        (self.now_s, self.boot, self.uptime_s) = (now_s, uptime.boot, uptime.seconds);
        let marks: Vec<(SnapshotId, Forgotten)> = manifest
            .snapshots
            .iter()
            .filter_map(|listed| Some((listed.snapshot.id(ids), listed.forgotten?)))
            .collect();
        self.own.retain(|own| marks.contains(own));
        let old = std::mem::take(&mut self.seen);
        self.seen = marks
            .into_iter()
            .map(|(snapshot, forgotten)| {
                let same = |s: &&Seen| (s.snapshot, s.forgotten) == (snapshot, forgotten);
                let seen = old.iter().find(same).cloned();
                let new = Seen { snapshot, forgotten, seconds: self.seconds, days: self.days };
                seen.unwrap_or(new)
            })
            .collect();
    }

    /// Takes note that this device marks a snapshot.
    pub(crate) fn mark(&mut self, snapshot: SnapshotId, forgotten: Forgotten) {
        self.own.push((snapshot, forgotten));
    }

    /// Returns whether this device has made a mark. Another one may write any name into one.
    pub(crate) fn is_own(&self, snapshot: SnapshotId, forgotten: Forgotten) -> bool {
        self.own.contains(&(snapshot, forgotten))
    }

    /// Returns how many seconds a mark has to wait yet, of `delay_s`.
    pub(crate) fn left_s(&self, listed: &Listed, ids: &ChunkIds, delay_s: u64) -> u64 {
        let snapshot = listed.snapshot.id(ids);
        let Some(seen) = self.seen.iter().find(|seen| seen.snapshot == snapshot) else {
            return delay_s;
        };
        let days_left = DAYS_MIN.saturating_sub(1 + self.days - seen.days);
        delay_s.saturating_sub(self.seconds - seen.seconds).max(days_left * DAY_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_keys::VaultKeys;
    use sr_wire::DeviceId;

    const DELAY_S: u64 = 3 * DAY_S;
    const START_S: u64 = 20_000 * DAY_S;

    /// The vector with one snapshot, marked.
    fn manifest() -> Manifest {
        let vector = include_bytes!("../../../spec/vectors/manifest/valid/one-snapshot");
        let mut manifest = Manifest::parse(vector).expect("is valid");
        manifest.snapshots[0].forgotten = Some(Forgotten { by: DeviceId([2; 32]), time_s: 1 });
        manifest
    }

    /// Counts at each `(clock, uptime)`, in days from the start, and returns what is left then.
    fn left_after(runs: &[(f64, Option<f64>)]) -> u64 {
        let ids = ChunkIds::new(&VaultKeys::generate(&mut crate::remote::os_rng()));
        let (manifest, mut delay) = (manifest(), Delay::default());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few days")]
        let seconds = |days: f64| (days * DAY_S as f64) as u64;
        for (now, up) in runs {
            let up = up.map(|up| Uptime { boot: b"b".to_vec(), seconds: 1000 + seconds(up) });
            delay.count(&manifest, &ids, START_S + seconds(*now), up);
        }
        delay.left_s(&manifest.snapshots[0], &ids, DELAY_S)
    }

    #[test]
    fn st_12_a_wait_is_over_after_its_days_and_not_before() {
        assert_eq!(left_after(&[(0.0, None)]), DELAY_S);
        let daily = [(0.0, None), (1.0, None), (2.0, None), (3.0, None)];
        assert_eq!(left_after(&daily[..3]), DAY_S);
        assert_eq!(left_after(&daily), 0);
        // Runs in one day, however the clock jumps, when the machine knows better.
        let jumps = [(0.0, Some(0.0)), (400.0, Some(0.1)), (800.0, Some(0.2)), (9000.0, Some(0.3))];
        assert_eq!(left_after(&jumps), DELAY_S - 3 * DAY_S / 10);
        // And when it does not, because it was started anew: a jump is one day.
        assert_eq!(left_after(&[(0.0, None), (4000.0, None)]), 2 * DAY_S);
        // Back and forth.
        let forth = [(0.0, None), (5.0, None), (0.0, None), (0.5, None)];
        assert_eq!(left_after(&forth), DELAY_S - DAY_S - DAY_S / 2);
        // Two runs far apart are too few.
        assert_ne!(left_after(&[(0.0, None), (30.0, None)]), 0);
    }

    #[test]
    fn another_mark_waits_anew() {
        let ids = ChunkIds::new(&VaultKeys::generate(&mut crate::remote::os_rng()));
        let (mut manifest, mut delay) = (manifest(), Delay::default());
        for day in 0..4 {
            delay.count(&manifest, &ids, START_S + day * DAY_S, None);
        }
        assert_eq!(delay.left_s(&manifest.snapshots[0], &ids, DELAY_S), 0);
        manifest.snapshots[0].forgotten = Some(Forgotten { by: DeviceId([2; 32]), time_s: 2 });
        delay.count(&manifest, &ids, START_S + 4 * DAY_S, None);
        assert_eq!(delay.left_s(&manifest.snapshots[0], &ids, DELAY_S), DELAY_S);
    }
}
