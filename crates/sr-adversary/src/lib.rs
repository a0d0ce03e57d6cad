//! The compelled operator. It owns the server, all of its files and its keys, and does with them what an
//! honest one does not; the real client, through its public API, is played against it.
//!
//! Every attack is played in a directory of its own, on copies. No hook for an attack is in the server:
//! what is bent is what it stores, its clock, or its identity.

mod catalogue;
pub mod operator;
mod play;
mod scene;

use thiserror::Error;

pub use catalogue::{Attack, CATALOGUE, Row, Verdict, Victim, Way, row};
pub use play::{Happened, Outcome, Played, Try, play, play_honest};
pub use scene::{Day, Scene, Server};

/// Why an attack could not be played.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdversaryError {
    /// A client failed where nobody attacked it.
    #[error("an honest client failed")]
    Client(#[from] sr_client::ClientError),
    /// A server's directory could not be used.
    #[error(transparent)]
    Data(#[from] sr_server::DataError),
    /// A file could not be read or written.
    #[error("a file of the play can't be used")]
    Io(#[from] std::io::Error),
    /// What was to be attacked is not there.
    #[error("there is nothing to attack: {0}")]
    Nothing(&'static str),
    /// A database could not be read or written.
    #[error("a database of the play can't be used")]
    Sql(#[from] rusqlite::Error),
    /// A store could not be used.
    #[error(transparent)]
    Store(#[from] sr_store::StoreError),
    /// A witness could not be started.
    #[error("the witness of the play can't be used")]
    Witness(#[from] sr_witness::WitnessError),
}
