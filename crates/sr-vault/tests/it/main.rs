//! The vectors of `spec/vectors`: one file for each case. Valid ones are read, invalid ones refused.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod heads;
mod house;
mod make;
mod vectors;
