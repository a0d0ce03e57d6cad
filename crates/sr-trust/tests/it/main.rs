//! The account chain, by its public interface.
#![expect(clippy::expect_used, reason = "tests")]

mod chain;
mod house;
mod vectors;
