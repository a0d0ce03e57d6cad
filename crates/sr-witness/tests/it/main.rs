//! What a witness does, through its public API.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod witness;
