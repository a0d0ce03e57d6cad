//! A small cache in which each value is made once, however many threads ask for it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

type Slot<V, E> = Arc<OnceLock<Result<Arc<V>, E>>>;

/// Keeps the `capacity` values that were used last.
pub(crate) struct Lru<K, V, E> {
    capacity: usize,
    slots: Mutex<Vec<(K, Slot<V, E>)>>,
}

impl<K: Copy + PartialEq, V, E: Clone> Lru<K, V, E> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, slots: Mutex::new(Vec::new()) }
    }

    /// Returns the value of `key`; the first to ask makes it, the others wait for that.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let found = slots.iter().position(|(k, _)| *k == key).map(|at| slots.remove(at));
            let (_, slot) = found.unwrap_or_else(|| (key, Slot::default()));
            slots.push((key, Arc::clone(&slot)));
            if slots.len() > self.capacity {
                slots.remove(0);
            }
            slot
        };
        slot.get_or_init(|| make().map(Arc::new)).clone()
    }
}
