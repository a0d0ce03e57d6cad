//! Floor 3: who an account is, as its own devices have signed it. See `spec/account-chain.md`.
//!
//! An account is a chain of blocks from its genesis. Whether a block is valid is a function of the
//! chain alone; time only decides when a client acts on it ([`Account::gate`]). The server keeps the
//! chain and can't write one block of it. No I/O, no clock.

mod account;
mod act;
mod block;
mod evidence;
mod log;
mod verified;

pub use account::{Account, Device, Gate, PastKit};
pub use block::{
    AccountKey, Block, Body, Change, DELAY_DEFAULT_S, DeviceInfo, DeviceKind, Op, Policy,
    RecoveryKey, Role, Signature, account_id, block_hash, device_id, key_block_hash, policy_hash,
    pop, seed_commit,
};
pub use evidence::{
    Accused, EVIDENCE_LEN_MAX, EVIDENCE_MAGIC, Evidence, NotProven, Proof, SignedLog,
    disowned_bytes, log_keys,
};
pub use log::{Fold, Mirror, Taken};
pub use verified::Verified;
