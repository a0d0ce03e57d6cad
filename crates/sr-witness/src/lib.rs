//! Floor 4: the witness, which cosigns checkpoints of logs, each only if it continues the one before
//! (c2sp.org/tlog-witness), and how servers and clients ask one.
//!
//! It speaks plain HTTP: what it says is public, and signed. It keeps the newest checkpoint of each log
//! that its operator has added, and knows nothing of accounts.

mod ask;
mod serve;
mod witness;

pub use ask::{AskError, WitnessUrl, add_checkpoint, checkpoint};
pub use witness::{Answer, Clock, Refused, WATCHED_FILE, Watched, Witness, WitnessError};
