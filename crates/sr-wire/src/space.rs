//! Spaces and the rights on them.

use sr_crypto::{CAPABILITY_KEY_LEN, Hash, hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{PackId, SealedHead, SpaceId, encode, labels};

/// A right on a space, proven by a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Right {
    /// Read packs and heads.
    Read = 1,
    /// Store packs and swap the head.
    Append = 2,
    /// Delete packs, and take them back.
    Prune = 3,
    /// Rotate the other keys.
    Owner = 4,
}

/// The public keys of a space's four rights. An owner key of zeros is nobody's: there is no owner
/// before there is a recovery kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SpaceKeys {
    /// Generation of the account key that append and prune are derived from.
    pub generation: u32,
    /// Key of [`Right::Read`].
    pub read: [u8; CAPABILITY_KEY_LEN],
    /// Key of [`Right::Append`].
    pub append: [u8; CAPABILITY_KEY_LEN],
    /// Key of [`Right::Prune`].
    pub prune: [u8; CAPABILITY_KEY_LEN],
    /// Key of [`Right::Owner`].
    pub owner: [u8; CAPABILITY_KEY_LEN],
}

impl SpaceKeys {
    /// Returns the key of `right`, or `None` for an owner that does not exist.
    #[must_use]
    pub fn of(&self, right: Right) -> Option<&[u8; CAPABILITY_KEY_LEN]> {
        match right {
            Right::Read => Some(&self.read),
            Right::Append => Some(&self.append),
            Right::Prune => Some(&self.prune),
            Right::Owner => Some(&self.owner).filter(|key| **key != [0; CAPABILITY_KEY_LEN]),
        }
    }
}

/// What stands beside a signed act: which of this connection it is, and the right's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SwapProof {
    /// Rises with every signed act of the connection.
    pub counter: u64,
    /// Signature by the right's key over [`swap_bytes`], [`rotate_bytes`], [`delete_bytes`] or
    /// [`undelete_bytes`].
    pub signature: [u8; sr_crypto::CAPABILITY_SIGNATURE_LEN],
}

/// Returns what proves `right` once per connection: `binding ‖ space ‖ right`.
#[must_use]
pub fn prove_bytes(binding: &[u8; 32], space: SpaceId, right: Right) -> Vec<u8> {
    let mut bytes = binding.to_vec();
    bytes.extend_from_slice(&encode(&space));
    bytes.extend_from_slice(&encode(&right));
    bytes
}

/// Returns what the append key of a new space signs: `binding ‖ space ‖ keys ‖ voucher`.
#[must_use]
pub fn create_bytes(
    binding: &[u8; 32],
    space: SpaceId,
    keys: &SpaceKeys,
    voucher: &Hash,
) -> Vec<u8> {
    let mut bytes = binding.to_vec();
    bytes.extend_from_slice(&encode(&space));
    bytes.extend_from_slice(&encode(keys));
    bytes.extend_from_slice(voucher);
    bytes
}

/// Returns what the append key signs for one swap: `binding ‖ counter ‖ H(head)`; the head names
/// its space.
#[must_use]
pub fn swap_bytes(binding: &[u8; 32], counter: u64, head: &SealedHead) -> Vec<u8> {
    let mut bytes = binding.to_vec();
    bytes.extend_from_slice(&counter.to_be_bytes());
    bytes.extend_from_slice(&hash(labels::SWAP, &[&encode(head)]));
    bytes
}

/// Returns what the prune or owner key signs for one rotation: `binding ‖ counter ‖ space ‖ keys`.
#[must_use]
pub fn rotate_bytes(binding: &[u8; 32], counter: u64, space: SpaceId, keys: &SpaceKeys) -> Vec<u8> {
    let mut bytes = binding.to_vec();
    bytes.extend_from_slice(&counter.to_be_bytes());
    bytes.extend_from_slice(&encode(&space));
    bytes.extend_from_slice(&encode(keys));
    bytes
}

/// Returns what the prune key signs for one deletion: `binding ‖ counter ‖ space ‖ packs`.
#[must_use]
pub fn delete_bytes(
    binding: &[u8; 32],
    counter: u64,
    space: SpaceId,
    packs: &Vec<PackId>,
) -> Vec<u8> {
    let mut bytes = undelete_bytes(binding, counter, space);
    bytes.extend_from_slice(&encode(packs));
    bytes
}

/// Returns what the prune key signs to have back what was deleted: `binding ‖ counter ‖ space`.
#[must_use]
pub fn undelete_bytes(binding: &[u8; 32], counter: u64, space: SpaceId) -> Vec<u8> {
    let mut bytes = binding.to_vec();
    bytes.extend_from_slice(&counter.to_be_bytes());
    bytes.extend_from_slice(&encode(&space));
    bytes
}
