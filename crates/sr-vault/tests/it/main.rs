//! The vectors of `spec/vectors`: one file for each case. Valid ones are read, invalid ones refused.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod corpus;
mod heads;
mod house;
mod make;
#[path = "../../../../fuzz/targets.rs"]
mod targets;
mod vectors;
