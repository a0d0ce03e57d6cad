//! The log's formats: against second implementations, and against forgers.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod notes;
mod policies;
mod trees;
