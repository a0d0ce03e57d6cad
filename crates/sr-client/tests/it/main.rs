//! The client against the real server, over TLS on this machine and over a simulated network.

mod attacks;
mod backup;
mod faults;
mod network;
mod world;
