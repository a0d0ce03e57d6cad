//! Floor 4, CLIENT ONLY: the keys of a device, of its account, and of the account's vaults.
//!
//! A device's own two seeds lie in the profile's key file. Everything else opens from the account's
//! key block ([`KeyBlock`]), which is sealed to each live device, the recovery kit and the contacts,
//! and which the account chain commits to. No I/O: the client reads and writes the bytes.

mod account;
mod act;
mod contacts;
mod device;
mod freshness;
mod key_block;
mod kit;
mod link;
mod root;
mod state;
mod vault;

pub use account::{AccountKeys, Anchor, Removal};
pub use act::{Act, Actor, begin};
pub use contacts::{ContactCard, HelpRequest, Share, ShareTemplate};
pub use device::{DeviceKeys, KEY_FILE_LEN, KeysError, LOCKED_FILE_LEN};
pub use freshness::{Freshness, FreshnessKey};
pub use key_block::{Granted, KeyBlock};
pub use kit::{CODE_LEN, CodeError, Envelope, Handover, Kept, Kit, Owner, RecoveryKeys};
pub use link::{LinkAnswer, LinkCode, LinkCommit, LinkOpening, Pins, Transcript};
pub use root::{Contact, KitNote, RootRecord, TOLD_LEN_MAX, VaultEntry};
pub use state::State;
pub use vault::VaultKeys;
