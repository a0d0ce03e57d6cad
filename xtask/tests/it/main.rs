//! The house: which room may depend on which, and what the walls keep out.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod rooms;
mod tidy;
