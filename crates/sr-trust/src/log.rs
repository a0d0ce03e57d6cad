//! What the log says: its entries, and the rule by which every reader folds them. See `spec/log.md`.
//!
//! Most entries have one shape: *this index has, at its next number, this value*. Whoever folds them all
//! knows the newest of each index, and that nothing was taken back or left out on the way. No reader
//! needs to know what a value is a hash of.

use std::collections::HashMap;

use sr_tlog::{Digest, Frontier, leaf_hash};
use sr_wire::{
    Misbehaviour, decode,
    log::{ENTRY_LEN, ENTRY_VERSION, Entry, Key, Newest},
};

/// Types that have the shape of an [`Entry`]. Others come with a newer version: [`Taken::UpdateNeeded`].
const KEYED: [std::ops::RangeInclusive<u8>; 2] = [1..=6, 9..=63];

/// All entries of a log, folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    time_s: u64,
    newest: HashMap<Key, Newest>,
}

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is folded, as the newest of its index.
    Folded(Key),
    /// It is of a type that this version does not know. Nothing is wrong; but what it says can't be judged
    /// without an update. Those of known types after it are folded as before.
    UpdateNeeded,
}

impl Fold {
    /// Returns the newest value of an index.
    #[must_use]
    pub fn newest(&self, key: &Key) -> Option<&Newest> {
        self.newest.get(key)
    }

    /// Returns all that have a value, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.newest.keys()
    }

    /// Returns the time of the last entry, in Unix seconds.
    #[must_use]
    pub fn time_s(&self) -> u64 {
        self.time_s
    }

    /// Folds the next entry.
    ///
    /// **Errors** [`Misbehaviour::LogRuleBroken`] for one that no honest log has at this place: of another
    /// form, with a time before the last one's, a number that is not the next, or another value
    /// before. Nothing is changed then.
    ///
    /// **Source** the design's fold rule F; the map of newest values is what its map root would be of.
    pub fn take(&mut self, entry: &[u8]) -> Result<Taken, Misbehaviour> {
        // SR-032
        let broken = Misbehaviour::LogRuleBroken;
        let [version, kind, ..] = *entry else { return Err(broken) };
        broken.refuse_if(version != ENTRY_VERSION || kind == 0)?;
        if !KEYED.iter().any(|kinds| kinds.contains(&kind)) {
            return Ok(Taken::UpdateNeeded);
        }
        let entry: Entry = decode("entry", entry, ENTRY_LEN).map_err(|_| broken)?;
        let newest = Newest { seq: entry.seq, value: entry.value };
        let before = self.newest.get(&entry.key());
        let follows = entry == Entry::following(before, entry.key(), entry.value, entry.time_s);
        broken.refuse_if(!follows || entry.time_s < self.time_s)?;
        self.time_s = entry.time_s;
        self.newest.insert(entry.key(), newest);
        Ok(Taken::Folded(entry.key()))
    }
}

/// A log as far as it was read: its entries folded, and what goes on with its tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    frontier: Frontier,
    fold: Fold,
}

impl Mirror {
    /// Puts together what was kept of a mirror.
    #[must_use]
    pub fn from_parts(frontier: Frontier, time_s: u64, newest: HashMap<Key, Newest>) -> Self {
        Self { frontier, fold: Fold { time_s, newest } }
    }

    /// Returns how many entries were read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Returns what goes on with the tree.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Returns the entries, folded.
    #[must_use]
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Reads the next entry. Whether it is one of the log's, [`Mirror::check`] says afterwards.
    ///
    /// **Errors** as [`Fold::take`].
    pub fn take(&mut self, entry: &[u8]) -> Result<Taken, Misbehaviour> {
        let taken = self.fold.take(entry)?;
        self.frontier.push(leaf_hash(entry));
        Ok(taken)
    }

    /// Reads the next entry without folding it, for the tree alone.
    pub fn pass(&mut self, entry: &[u8]) {
        self.frontier.push(leaf_hash(entry));
    }

    /// Compares what was read with a checkpoint of the same size.
    ///
    /// **Errors** [`Misbehaviour::LogForked`] when it is of another tree.
    pub fn check(&self, size: u64, root: &Digest) -> Result<(), Misbehaviour> {
        // SR-033
        Misbehaviour::LogForked.refuse_if(self.size() != size || self.frontier.root() != *root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sr_wire::log::ACCOUNT;

    fn entry(key: u8, seq: u64, value: u8, previous: u8, time_s: u64) -> Entry {
        let (index, value, previous) = ([key; 32], [value; 32], [previous; 32]);
        Entry { version: 1, kind: ACCOUNT, time_s, index, seq, value, previous }
    }

    #[test]
    fn an_entry_has_114_bytes_and_one_form() {
        let bytes = entry(1, 0, 2, 0, 5).to_bytes();
        assert_eq!(bytes.len(), ENTRY_LEN);
        assert_eq!(bytes[..2], [1, 1]);
        assert_eq!(
            decode::<Entry>("entry", &bytes, ENTRY_LEN).expect("parses"),
            entry(1, 0, 2, 0, 5)
        );
    }

    #[test]
    fn sr_032_what_does_not_follow_is_no_log() {
        let mut mirror = Mirror::default();
        for next in [entry(1, 0, 2, 0, 5), entry(2, 0, 9, 0, 5), entry(1, 1, 3, 2, 6)] {
            assert_eq!(mirror.take(&next.to_bytes()), Ok(Taken::Folded(next.key())));
        }
        let key = entry(1, 0, 0, 0, 0).key();
        assert_eq!(mirror.fold().newest(&key), Some(&Newest { seq: 1, value: [3; 32] }));
        let before = mirror.clone();
        let mut longer = entry(1, 2, 4, 3, 6).to_bytes();
        longer.push(0);
        let wrong = [
            entry(1, 3, 4, 3, 6).to_bytes(),
            entry(1, 1, 4, 3, 6).to_bytes(),
            entry(1, 2, 4, 2, 6).to_bytes(),
            entry(3, 0, 4, 1, 6).to_bytes(),
            entry(3, 1, 4, 0, 6).to_bytes(),
            entry(1, 2, 4, 3, 5).to_bytes(),
            Entry { version: 2, ..entry(1, 2, 4, 3, 6) }.to_bytes(),
            Entry { kind: 0, ..entry(3, 0, 4, 0, 6) }.to_bytes(),
            longer,
            entry(1, 2, 4, 3, 6).to_bytes()[..113].to_vec(),
            vec![1],
            vec![],
        ];
        for bytes in wrong {
            assert_eq!(mirror.take(&bytes), Err(Misbehaviour::LogRuleBroken), "{bytes:?}");
            assert_eq!(mirror, before);
        }
    }

    #[test]
    fn a_type_of_a_newer_version_is_passed_softly_and_a_reserved_one_is_folded() {
        let mut mirror = Mirror::default();
        for kind in [2, 13, 63] {
            let reserved = Entry { kind, ..entry(1, 0, 2, 0, 5) };
            let folded = Taken::Folded(reserved.key());
            assert_eq!(mirror.take(&reserved.to_bytes()), Ok(folded));
        }
        let before = mirror.clone();
        for (passed, kind) in (1..).zip([7, 8, 64, 255]) {
            assert_eq!(mirror.take(&[1, kind, 0, 0]), Ok(Taken::UpdateNeeded));
            assert_eq!(mirror.fold(), before.fold());
            assert_eq!(mirror.size(), before.size() + passed);
        }
        // It hides nothing that comes after it.
        let gap = Entry { kind: 13, ..entry(1, 5, 2, 0, 5) };
        assert_eq!(mirror.take(&gap.to_bytes()), Err(Misbehaviour::LogRuleBroken));
    }

    #[test]
    fn sr_033_a_root_over_other_entries_is_another_history() {
        let mut mirror = Mirror::default();
        let first = entry(1, 0, 2, 0, 5).to_bytes();
        mirror.take(&first).expect("follows");
        assert_eq!(mirror.check(1, &leaf_hash(&first)), Ok(()));
        let other = leaf_hash(&entry(1, 0, 3, 0, 5).to_bytes());
        assert_eq!(mirror.check(1, &other), Err(Misbehaviour::LogForked));
        assert_eq!(mirror.check(2, &leaf_hash(&first)), Err(Misbehaviour::LogForked));
    }
}
