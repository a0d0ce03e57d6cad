//! Accounts' keys, by the public interface.
#![expect(clippy::expect_used, reason = "tests")]

mod keys;
mod kit;
mod vectors;
