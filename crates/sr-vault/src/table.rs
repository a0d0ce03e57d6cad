//! Chunk ids in memory, by the million: 32 bytes each, and about eight to find them by.

use crate::ChunkId;

/// Entries of a page. Pages do not move when there are more, so growing needs no second copy.
const PAGE: usize = 4096;
const EMPTY: u32 = u32::MAX;

/// A list that grows by pages.
#[derive(Debug)]
pub(crate) struct Pages<T>(Vec<Vec<T>>);

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pages<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PAGE + last.len())
    }

    pub(crate) fn push(&mut self, value: T) {
        match self.0.last_mut() {
            Some(page) if page.len() < PAGE => page.push(value),
            // The first page grows as it must, so that little takes little.
            _ => {
                let mut page = Vec::with_capacity(if self.0.is_empty() { 1 } else { PAGE });
                page.push(value);
                self.0.push(page);
            }
        }
    }

    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.0.get(number / PAGE)?.get(number % PAGE)
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.0.get_mut(number / PAGE)?.get_mut(number % PAGE)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        self.0.iter().flatten()
    }
}

/// A set of chunk ids, in which each has the number of its coming.
#[derive(Debug, Default)]
pub struct IdTable {
    ids: Pages<ChunkId>,
    /// Numbers of ids, each at or after the place that its id says; a power of two of them.
    slots: Vec<u32>,
}

impl IdTable {
    /// Returns the number of an id.
    #[must_use]
    pub fn find(&self, id: &ChunkId) -> Option<u32> {
        if self.slots.is_empty() { None } else { self.slot(id).1 }
    }

    /// Adds an id, and returns its number and whether it is new.
    #[expect(clippy::cast_possible_truncation, reason = "no vault has 2^32 chunks: 128 GiB of ids")]
    pub fn insert(&mut self, id: ChunkId) -> (u32, bool) {
        if self.ids.len() * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        match self.slot(&id) {
            (_, Some(number)) => (number, false),
            (slot, None) => {
                let number = self.ids.len() as u32;
                self.slots[slot] = number;
                self.ids.push(id);
                (number, true)
            }
        }
    }

    /// Returns all ids by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &ChunkId> + '_ {
        self.ids.iter()
    }

    /// Returns the slot of an id, or the one that it would have, and its number.
    fn slot(&self, id: &ChunkId) -> (usize, Option<u32>) {
        let mask = self.slots.len() - 1;
        let mut slot = start(id) & mask;
        loop {
            let number = self.slots[slot];
            if number == EMPTY {
                return (slot, None);
            }
            if self.ids.get(number as usize) == Some(id) {
                return (slot, Some(number));
            }
            slot = (slot + 1) & mask;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "see insert")]
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(64);
        self.slots = vec![EMPTY; len];
        for (number, id) in self.ids.iter().enumerate() {
            let mut slot = start(id) & (len - 1);
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = number as u32;
        }
    }
}

/// Chunk ids are outputs of a keyed hash, so their first bytes are as good as a hash of them.
#[expect(clippy::cast_possible_truncation, reason = "it is masked anyway")]
fn start(id: &ChunkId) -> usize {
    id.0.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_keeps_its_number() {
        let mut table = IdTable::default();
        let id = |number: u32| {
            let mut id = [7; 32];
            // Many begin at the same place.
            id[..4].copy_from_slice(&(number / 16).to_le_bytes());
            id[28..].copy_from_slice(&number.to_le_bytes());
            ChunkId(id)
        };
        assert_eq!(table.find(&id(0)), None);
        for number in 0..20_000 {
            assert_eq!(table.insert(id(number)), (number, true));
        }
        for number in 0..20_000 {
            assert_eq!(table.find(&id(number)), Some(number));
            assert_eq!(table.insert(id(number)), (number, false));
        }
        assert_eq!(table.find(&id(20_000)), None);
        assert_eq!(table.iter().count(), 20_000);
        assert_eq!(table.iter().nth(9_999), Some(&id(9_999)));
    }
}
