//! The server's routes, called over an in-memory connection without the client.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod put_back;
mod rights;
