//! The client against the real server, over TLS on this machine and over a simulated network.

#![expect(clippy::expect_used, reason = "a test that fails panics")]

mod accounts;
mod additions;
mod attacks;
mod backup;
mod browse;
mod faults;
mod freshness;
mod gossip;
mod hostile;
mod keep;
mod limited;
mod log;
mod model;
mod network;
mod odd;
mod put_back;
mod recovery;
mod resume;
mod torture;
mod twins;
mod witnesses;
mod world;
