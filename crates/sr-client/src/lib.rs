//! Floor 6: the engine of the client. [`Client`] is its whole API.
//!
//! It reads the files, moves the packs, and remembers what the server may show next. Formats and
//! checks are those of the rooms below; all I/O of the client is here.

mod backup;
mod cache;
mod client;
mod dial;
mod error;
mod lru;
mod profile;
mod progress;
mod read;
mod remote;
mod restore;
mod scan;
mod sink;
mod verify;
mod view;

pub use backup::{BackupReport, Skipped};
pub use client::{Client, MakeDialer, SnapshotInfo, Status};
pub use dial::{Channel, Clock, Dial, Io, TlsDialer};
pub use error::{ClientError, RefusedFile};
pub use profile::{Folder, profile_dir};
pub use progress::{Phase, Progress};
pub use restore::{RestoreReport, Target};
pub use sr_keys::{Keys, KeysError};
pub use verify::VerifyReport;
