//! Floor 0: the cryptography Strongroom composes, each part through a published library.
//!
//! One suite, `SR1`: AES-256-GCM-SIV (RFC 8452) in STREAM segments with key commitment,
//! HKDF-SHA-256 (RFC 5869), BLAKE3, and the hybrid of Ed25519 (RFC 8032) and ML-DSA-65
//! (FIPS 204). Nothing here performs I/O, reads a clock or finds its own randomness: each
//! function that needs randomness takes a [`CryptoRng`].
//!
//! Secrets are boxed, wiped on drop, and can be neither copied, compared, printed nor
//! serialised.

mod aead;
mod code;
mod hash;
mod kdf;
mod label;
mod passphrase;
mod plain;
mod seal;
mod secret;
mod shamir;
mod sign;
pub mod text;

pub use aead::{
    BOX_OVERHEAD, COMMITMENT_LEN, OpenError, SALT_LEN, StreamKey, TAG_LEN, open_box, seal_box,
};
pub use code::{CODE_LEN, CODE_SECRET_LEN, CodeError, from_code, to_code};
pub use hash::{HASH_LEN, Hash, KeyedHasher, hash};
pub use kdf::derive;
pub use label::{LABEL_PREFIX, Label};
pub use passphrase::{Cost, PASSPHRASE_SALT_LEN, stretch};
pub use plain::{PlainAlgorithm, PlainKey, sha256, verify_plain};
pub use rand_core::{CryptoRng, Rng};
pub use seal::{SEAL_OVERHEAD, SEALING_PUBLIC_LEN, SealError, SealingKey, seal_to};
pub use secret::Secret32;
pub use shamir::{SHARE_LEN, join, split};
pub use sign::{
    CAPABILITY_KEY_LEN, CAPABILITY_SIGNATURE_LEN, CapabilityKey, PUBLIC_KEY_LEN, SIGNATURE_LEN,
    SigningKey, VerifyError, verify, verify_capability,
};

/// Returns true when both slices are equal, in time that depends on their lengths only.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).into()
}
