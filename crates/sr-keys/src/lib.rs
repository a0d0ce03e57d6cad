//! Floor 4, CLIENT ONLY: the keys of this device and of its vault.
//!
//! Before there is an account, everything lies in one key file of the profile: the device's signing
//! seed, the vault's key and seed, and the seeds of three rights. A lost device is then a lost
//! backup, and `strongroom status` says so. No I/O: the client reads and writes the bytes.

mod file;
mod vault;

pub use file::{KEY_FILE_LEN, Keys, KeysError, device_id};
pub use vault::{GENERATION, VaultKeys};
