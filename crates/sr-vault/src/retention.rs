//! Which snapshots a rule keeps.
//!
//! Each device's snapshots of each folder are judged by themselves, so that none pushes another's out.
//! Hours, days and weeks are those of UTC, weeks begin on Monday.

use std::collections::BTreeMap;

use sr_wire::DeviceId;
use time::OffsetDateTime;

use crate::manifest::{Listed, PINNED};

/// A rule. Of each hour, day, week, month and year that counts, the last snapshot stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest ones.
    pub last: usize,
    /// Hours with snapshots.
    pub hourly: usize,
    /// Days with snapshots.
    pub daily: usize,
    /// Weeks with snapshots.
    pub weekly: usize,
    /// Months with snapshots.
    pub monthly: usize,
    /// Years with snapshots.
    pub yearly: usize,
    /// Those that are at most so many seconds older than the newest.
    pub within_s: u64,
    /// Those with one of these tags.
    pub tags: Vec<String>,
}

/// Why a snapshot stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest, or among the last.
    Last,
    /// The last of its hour.
    Hourly,
    /// The last of its day.
    Daily,
    /// The last of its week.
    Weekly,
    /// The last of its month.
    Monthly,
    /// The last of its year.
    Yearly,
    /// It is recent.
    Within,
    /// It has a tag that stays, or is pinned.
    Tag,
    /// Its time is in the future, or before that of one that was stored earlier. Such a one stays, and
    /// takes nobody's place: whoever sets a clock pushes nothing out (attack ST-12).
    Time,
}

impl Keep {
    /// Returns whether this rule names nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns for each snapshot why it stays; one without a reason is to be forgotten. The newest of
    /// each group always stays. Those that are forgotten already have no say.
    #[must_use]
    pub fn judge(&self, snapshots: &[Listed], now_s: u64) -> Vec<Vec<Reason>> {
        let mut groups: BTreeMap<(DeviceId, &[u8]), Vec<usize>> = BTreeMap::new();
        for (number, listed) in snapshots.iter().enumerate() {
            if listed.forgotten.is_none() {
                let group = (listed.snapshot.by, listed.snapshot.path.as_slice());
                groups.entry(group).or_default().push(number);
            }
        }
        let mut reasons = vec![Vec::new(); snapshots.len()];
        for group in groups.values() {
            let mut newest_s = 0;
            let (fits, odd): (Vec<usize>, Vec<usize>) = group.iter().partition(|number| {
                let time_s = snapshots[**number].snapshot.time_s;
                let fits = time_s <= now_s && time_s >= newest_s;
                newest_s = if fits { time_s } else { newest_s };
                fits
            });
            odd.iter().for_each(|number| reasons[*number].push(Reason::Time));
            self.judge_group(snapshots, &fits, newest_s, &mut reasons);
        }
        reasons
    }

    /// Judges the snapshots of a group, in which times rise.
    fn judge_group(
        &self,
        snapshots: &[Listed],
        group: &[usize],
        newest_s: u64,
        reasons: &mut [Vec<Reason>],
    ) {
        let mut rules = [
            Buckets::new(Reason::Hourly, self.hourly, |time| time.unix_timestamp() / 3600),
            Buckets::new(Reason::Daily, self.daily, |time| i64::from(time.to_julian_day())),
            Buckets::new(Reason::Weekly, self.weekly, |time| {
                let (year, week, _) = time.to_iso_week_date();
                i64::from(year) * 100 + i64::from(week)
            }),
            Buckets::new(Reason::Monthly, self.monthly, |time| {
                i64::from(time.year()) * 100 + i64::from(u8::from(time.month()))
            }),
            Buckets::new(Reason::Yearly, self.yearly, |time| i64::from(time.year())),
        ];
        for (age, number) in group.iter().rev().enumerate() {
            let listed = &snapshots[*number];
            let (reasons, time_s) = (&mut reasons[*number], listed.snapshot.time_s);
            if age < self.last.max(1) {
                reasons.push(Reason::Last);
            }
            if self.within_s > 0 && newest_s - time_s <= self.within_s {
                reasons.push(Reason::Within);
            }
            if listed.has_tag(PINNED) || self.tags.iter().any(|tag| listed.has_tag(tag)) {
                reasons.push(Reason::Tag);
            }
            let time = i64::try_from(time_s).unwrap_or(i64::MAX);
            // A year beyond 9999 is in the future of any clock.
            let Ok(time) = OffsetDateTime::from_unix_timestamp(time) else { continue };
            reasons.extend(rules.iter_mut().filter_map(|rule| rule.take(time)));
        }
    }
}

/// Counts the hours, days or weeks of which a snapshot stays.
struct Buckets {
    reason: Reason,
    left: usize,
    bucket: fn(OffsetDateTime) -> i64,
    newest: Option<i64>,
}

impl Buckets {
    fn new(reason: Reason, left: usize, bucket: fn(OffsetDateTime) -> i64) -> Self {
        Self { reason, left, bucket, newest: None }
    }

    /// Takes the next older snapshot, and keeps the first of each bucket.
    fn take(&mut self, time: OffsetDateTime) -> Option<Reason> {
        let bucket = (self.bucket)(time);
        if self.left == 0 || self.newest == Some(bucket) {
            return None;
        }
        self.left -= 1;
        self.newest = Some(bucket);
        Some(self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Forgotten, Manifest};

    const DAY: u64 = 86_400;
    /// 2026-01-01, a Thursday.
    const NEW_YEAR: u64 = 1_767_225_600;

    /// The snapshot of the vector, by this device at this time.
    fn listed(by: u8, time_s: u64) -> Listed {
        let vector = include_bytes!("../../../spec/vectors/manifest/valid/one-snapshot");
        let mut listed = Manifest::parse(vector).expect("is valid").snapshots.remove(0);
        (listed.snapshot.by, listed.snapshot.time_s) = (DeviceId([by; 32]), time_s);
        listed
    }

    fn kept(keep: &Keep, times: &[u64], now_s: u64) -> Vec<u64> {
        let all: Vec<Listed> = times.iter().map(|time| listed(1, *time)).collect();
        let reasons = keep.judge(&all, now_s);
        times.iter().zip(&reasons).filter(|(_, why)| !why.is_empty()).map(|(t, _)| *t).collect()
    }

    #[test]
    fn the_last_of_each_hour_day_week_month_and_year_stays() {
        // Every six hours from 2026-01-01 on, for 400 days.
        let times: Vec<u64> = (0..1600).map(|n| NEW_YEAR + n * DAY / 4).collect();
        let now_s = NEW_YEAR + 400 * DAY;
        let last = times[1599];
        let of = |keep: Keep| kept(&keep, &times, now_s);
        assert_eq!(of(Keep::default()), [last]);
        assert_eq!(of(Keep { last: 3, ..Keep::default() }), times[1597..]);
        assert_eq!(of(Keep { hourly: 2, ..Keep::default() }), times[1598..]);
        assert_eq!(of(Keep { daily: 2, ..Keep::default() }), [last - DAY, last]);
        assert_eq!(of(Keep { within_s: DAY / 2, ..Keep::default() }), times[1597..]);
        // 2027-02-04 is a Thursday; Sundays end the weeks before.
        assert_eq!(
            of(Keep { weekly: 3, ..Keep::default() }),
            [last - 11 * DAY, last - 4 * DAY, last]
        );
        assert_eq!(of(Keep { monthly: 2, ..Keep::default() }), [last - 4 * DAY, last]);
        assert_eq!(of(Keep { yearly: 9, ..Keep::default() }), [last - 35 * DAY, last]);
        assert_eq!(of(Keep { daily: 9999, ..Keep::default() }).len(), 400);
    }

    #[test]
    fn pinned_and_tagged_ones_stay_and_forgotten_ones_take_no_place() {
        let mut all: Vec<Listed> = (0..5).map(|n| listed(1, NEW_YEAR + n)).collect();
        all[0].set_tag(PINNED, true);
        all[1].set_tag("taxes", true);
        all[4].forgotten = Some(Forgotten { by: DeviceId([1; 32]), time_s: 0 });
        let keep = Keep { last: 1, tags: vec!["taxes".into()], ..Keep::default() };
        let reasons = keep.judge(&all, NEW_YEAR + 9);
        let wanted: [&[Reason]; 5] = [&[Reason::Tag], &[Reason::Tag], &[], &[Reason::Last], &[]];
        assert_eq!(reasons, wanted);
    }

    /// ST-12: snapshots of a device whose clock, or whose thief, lies.
    #[test]
    fn st_12_wrong_times_and_other_devices_push_nothing_out() {
        let now_s = NEW_YEAR + 30 * DAY;
        let real: Vec<u64> = (0..30).map(|day| NEW_YEAR + day * DAY).collect();
        let keep = Keep { daily: 30, ..Keep::default() };
        // One at the end of each day but the last, stored afterwards; one each of the next thousand days.
        let back_dated = (0..29).map(|day| NEW_YEAR + day * DAY + DAY - 1);
        let from_tomorrow = (1..1000).map(|day| now_s + day * DAY);
        let times: Vec<u64> = real.iter().copied().chain(back_dated).chain(from_tomorrow).collect();
        let stay = kept(&keep, &times, now_s);
        assert!(real.iter().all(|time| stay.contains(time)));
        // Another device floods a rule that counts.
        let keep = Keep { last: 2, ..Keep::default() };
        let mut all: Vec<Listed> = real.iter().map(|time| listed(1, *time)).collect();
        all.extend((0..100).map(|n| listed(2, now_s - 200 + n)));
        let reasons = keep.judge(&all, now_s);
        assert!(!reasons[28].is_empty() && !reasons[29].is_empty());
        assert_eq!(reasons.iter().filter(|why| !why.is_empty()).count(), 4);
    }
}
