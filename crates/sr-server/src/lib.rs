//! Floor 4: the server. It stores packs and heads it cannot read, for spaces it cannot name.
//!
//! Routes over HTTP/2 on a [`Channel`]; a [`Listen`] makes channels, over TLS 1.3 with
//! X25519MLKEM768 and nothing else ([`TlsListener`]) or in a simulated network. The server holds no
//! type that could hold a user's key, and writes no log of requests.

mod account;
mod connection;
mod data;
mod link;
mod listen;
mod log;
mod pack;
mod put_back;
mod routes;
mod server;
mod witness;

pub use data::{
    DataDir, DataError, DataLock, Restoring, add_invite, add_witness, back_up, begin_restoring,
    finish_restoring, log_keys, remove_witness, restoring, witnesses,
};
pub use listen::{Channel, Handshake, Io, Listen, TlsListener};
pub use log::Identity;
pub use server::{Clock, Server, Stores};
pub use witness::{Witness, policy};
