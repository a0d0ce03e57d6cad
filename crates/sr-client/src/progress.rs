//! How far a run is, for whoever wants to show it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the server.
    Connecting,
    /// Looking for what changed, reading and sending it; the total grows as more is found.
    Storing,
    /// Making the snapshot durable.
    Finishing,
    /// Writing files.
    Restoring,
    /// Reading what is stored.
    Checking,
}

const PHASES: [Phase; 5] =
    [Phase::Connecting, Phase::Storing, Phase::Finishing, Phase::Restoring, Phase::Checking];

/// Counters of a run. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
}

impl Progress {
    /// Returns the phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let number = usize::from(self.0.phase.load(Ordering::Relaxed));
        PHASES.get(number).copied().unwrap_or(Phase::Connecting)
    }

    /// Returns how many of how many items of the phase are done; a total of 0 is not known yet.
    #[must_use]
    pub fn items(&self) -> (u64, u64) {
        (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }

    /// Returns the bytes of content that were read or written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes that were sent to the server.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn start(&self, phase: Phase, total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Adds to the total, as more becomes known.
    pub(crate) fn expect(&self, items: u64) {
        self.0.total.fetch_add(items, Ordering::Relaxed);
    }

    pub(crate) fn did(&self, items: u64, bytes: u64) {
        self.0.done.fetch_add(items, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn did_send(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
