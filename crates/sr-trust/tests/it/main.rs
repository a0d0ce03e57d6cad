//! The account chain, by its public interface.
#![expect(clippy::expect_used, reason = "tests")]

mod chain;
mod corpus;
mod evidence;
mod house;
#[path = "../../../../fuzz/log_targets.rs"]
mod targets;
mod vectors;
