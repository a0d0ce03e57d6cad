//! Floor 6: the engine of the client. [`Client`] is its whole API.
//!
//! It reads the files, moves the packs, and remembers what the server may show next. Formats and
//! checks are those of the rooms below; all I/O of the client is here.

mod accepted;
mod account;
mod attributes;
mod backup;
mod beneath;
mod browse;
mod cache;
mod client;
mod compare;
mod contacts;
mod delay;
mod devices;
mod dial;
mod error;
mod evidence;
mod exclude;
mod file;
mod freshness;
mod give_back;
mod gossip;
mod heads;
#[cfg(test)]
mod hiding;
mod keep;
mod limit;
mod link;
mod lock;
mod log;
mod logged;
mod lru;
mod mirror;
mod others;
mod outgoing;
mod profile;
mod progress;
mod prune;
mod read;
mod recovery;
mod remote;
mod restore;
mod rollback;
mod root;
mod scan;
mod see;
mod sink;
mod spaces;
mod verify;
mod view;
mod waits;
mod walk;
mod witness;

pub use account::Waiting;
pub use backup::{BackupReport, Skipped};
pub use browse::{Change, ChangeKind, EntryInfo, EntryKind, Found};
pub use client::{Client, MakeDialer, SnapshotInfo, Status};
pub use compare::{Comparison, compare};
pub use contacts::KeptShare;
pub use delay::{Uptime, UptimeClock};
pub use devices::{ChainInfo, DeviceEntry, Revoked};
pub use dial::{Channel, Clock, Dial, Io, TlsDialer};
pub use error::{ClientError, RefusedFile};
pub use evidence::{Sealed, evidence_files};
pub use exclude::{LeftOut, Preview, Rules};
pub use give_back::PutBack;
pub use keep::Judged;
pub use link::{LinkOffer, Linking};
pub use lock::{KeyLock, key_lock, lock, remove_passphrase, set_passphrase, unlock};
pub use log::{LogReader, LogStatus, VerifiedLog};
pub use mirror::LogState;
pub use profile::{Folder, is_joined, profile_dir};
pub use progress::{Phase, Progress};
pub use prune::{PruneReport, Undeleted};
pub use recovery::{KitPage, Request, RequestKind};
pub use restore::{RestoreReport, Target};
pub use rollback::{AcceptedRollback, Rollback};
pub use see::{Seen, SeenSpace};
pub use sr_keys::{CodeError, Contact, ContactCard, HelpRequest, Kit, KitNote};
pub use sr_trust::DeviceKind;
pub use sr_vault::{
    block::Compression,
    manifest::{Forgotten, PINNED},
    retention::{Keep, Reason},
};
pub use verify::{ReadData, VerifyReport};
pub use witness::{Level, Trust, Unwitnessed, WitnessState, check_policy};
