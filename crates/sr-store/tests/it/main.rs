//! The contract of the stores, run on every back-end, and what SQLite and files add to it.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod contract;
mod directory;
