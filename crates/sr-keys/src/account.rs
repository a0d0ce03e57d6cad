//! The secrets of an account, and what is derived from them.

use sr_crypto::{CryptoRng, Hash, Label, SealingKey, Secret32, derive, hash};
use sr_trust::AccountKey;
use sr_wire::{DeviceId, SpaceId, VaultId, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::VaultKeys;

/// A head that the device which removed another had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Anchor {
    /// The space.
    pub space: SpaceId,
    /// The head's place.
    pub seq: u64,
    /// The head's hash.
    pub hash: Hash,
}

/// The heads that a removal was made at.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Removal {
    /// The block that removed.
    pub seq: u64,
    /// Random, so that the commitment says nothing.
    pub salt: Hash,
    /// The heads, of every space that the remover knew.
    pub anchors: Vec<Anchor>,
}

impl Removal {
    /// Returns what the block commits to: `H("anchors", salt ‖ list)`.
    #[must_use]
    pub fn commit(&self) -> Hash {
        hash(labels::ANCHORS, &[&self.salt, &encode(&self.anchors)])
    }
}

/// The account's seed, for life, and its root of each generation.
///
/// *For life*, from the seed: ids of chunks, chunkers' tables, the root space's id, read rights.
/// *Per generation*, from the root: vault keys, append and prune rights, the sealing key.
#[derive(Debug)]
pub struct AccountKeys {
    pub(crate) seed: Secret32,
    /// The first is generation 1. There is always one.
    pub(crate) roots: Vec<Secret32>,
    pub(crate) removals: Vec<Removal>,
}

impl AccountKeys {
    /// Makes the secrets of a new account.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            seed: Secret32::random(rng),
            roots: vec![Secret32::random(rng)],
            removals: Vec::new(),
        }
    }

    /// Returns the newest generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        u32::try_from(self.roots.len()).unwrap_or(u32::MAX)
    }

    /// Returns the heads at which devices were removed.
    #[must_use]
    pub fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// Returns the same secrets with a root of one generation more.
    pub fn next(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut next = self.duplicate();
        next.roots.push(Secret32::random(rng));
        next
    }

    /// Returns the account key that a block names.
    #[must_use]
    pub fn account_key(&self, key_block: Hash) -> AccountKey {
        AccountKey {
            generation: self.generation(),
            sealing: self.sealing().public_key().to_vec().into(),
            root_commit: root_commit(self.root()),
            key_block,
        }
    }

    /// Returns the account's sealing key.
    #[must_use]
    pub fn sealing(&self) -> SealingKey {
        sealing_of(self.root())
    }

    /// Returns the account's sealing keys of all generations.
    pub(crate) fn sealing_keys(&self) -> impl DoubleEndedIterator<Item = SealingKey> + '_ {
        self.roots.iter().map(sealing_of)
    }

    /// Returns the keys of the root space, in which the account's vaults are listed.
    #[must_use]
    pub fn root_space(&self) -> VaultKeys {
        let (vault, space) = self.ids(labels::ROOT_SPACE, b"");
        self.vault(vault, space)
    }

    /// Returns the keys of the vault of a limited device, with all rights.
    #[must_use]
    pub fn limited_vault(&self, device: DeviceId) -> VaultKeys {
        let ids = self.ids(labels::LIMITED_VAULT, &device.0);
        VaultKeys::of(&self.seed, &self.roots, ids, Some(device))
    }

    /// Returns the keys of one of the account's own vaults, of all generations.
    #[must_use]
    pub fn vault(&self, vault: VaultId, space: SpaceId) -> VaultKeys {
        VaultKeys::of(&self.seed, &self.roots, (vault, space), None)
    }

    /// Returns the ids of a vault and its space that nobody has to note down.
    fn ids(&self, label: Label, of: &[u8]) -> (VaultId, SpaceId) {
        let id = derive(&self.seed, b"", label, of);
        let (mut vault, mut space) = ([0; 16], [0; 16]);
        vault.copy_from_slice(&id.expose()[..16]);
        space.copy_from_slice(&id.expose()[16..]);
        (VaultId(vault), SpaceId(space))
    }

    pub(crate) fn root(&self) -> &Secret32 {
        &self.roots[self.roots.len() - 1]
    }

    /// Returns a second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            seed: copy(&self.seed),
            roots: self.roots.iter().map(copy).collect(),
            removals: self.removals.clone(),
        }
    }
}

fn sealing_of(root: &Secret32) -> SealingKey {
    SealingKey::from_seed(&derive(root, b"", labels::ACCOUNT_KEM, b""))
}

/// Returns what a block commits to of a root.
pub(crate) fn root_commit(root: &Secret32) -> Hash {
    hash(labels::ROOT_COMMIT, &[root.expose()])
}

pub(crate) fn copy(secret: &Secret32) -> Secret32 {
    Secret32::init_with(|bytes| bytes.copy_from_slice(secret.expose()))
}
