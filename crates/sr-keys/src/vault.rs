//! The keys of one vault, and what is derived from them.

use sr_crypto::{CapabilityKey, CryptoRng, KeyedHasher, Label, Secret32, StreamKey, derive};
use sr_wire::{DeviceId, PackId, Right, SpaceId, SpaceKeys, VaultId, encode, labels};

use crate::account::copy;

/// Keys of one vault, of all generations.
///
/// *For life*: the ids of chunks, the chunker's table, the right to read. *Per generation*: packs,
/// heads, and the rights to append and to prune.
#[derive(Debug)]
pub struct VaultKeys {
    vault: VaultId,
    space: SpaceId,
    /// The limited device whose vault this is.
    pub(crate) limited: Option<DeviceId>,
    pub(crate) life: Secret32,
    pub(crate) read: Secret32,
    /// The first is generation 1. There is always one.
    pub(crate) generations: Vec<Generation>,
}

/// A limited device has the right to append of the newest generation, and none to prune.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) key: Secret32,
    pub(crate) append: Option<Secret32>,
    pub(crate) prune: Option<Secret32>,
}

impl VaultKeys {
    pub(crate) fn of(
        seed: &Secret32,
        roots: &[Secret32],
        (vault, space): (VaultId, SpaceId),
        limited: Option<DeviceId>,
    ) -> Self {
        let right = |secret: &Secret32, right: Right| {
            derive(secret, b"", labels::CAP, &[encode(&right), space.0.to_vec()].concat())
        };
        let generation = |root: &Secret32| Generation {
            key: derive(root, b"", labels::VAULT_KEY, &vault.0),
            append: Some(right(root, Right::Append)),
            prune: Some(right(root, Right::Prune)),
        };
        Self {
            vault,
            space,
            limited,
            life: derive(seed, b"", labels::VAULT_LIFE, &vault.0),
            read: right(seed, Right::Read),
            generations: roots.iter().map(generation).collect(),
        }
    }

    pub(crate) fn granted(
        (vault, space): (VaultId, SpaceId),
        limited: DeviceId,
        (life, read): (Secret32, Secret32),
        keys: Vec<Secret32>,
        append: Secret32,
    ) -> Self {
        let generation = |key| Generation { key, append: None, prune: None };
        let mut generations: Vec<Generation> = keys.into_iter().map(generation).collect();
        if let Some(newest) = generations.last_mut() {
            newest.append = Some(append);
        }
        Self { vault, space, limited: Some(limited), life, read, generations }
    }

    /// Makes the keys of a vault of an account of its own, for tests and benches.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let (vault, space) = (VaultId::random(rng), SpaceId::random(rng));
        crate::AccountKeys::generate(rng).vault(vault, space)
    }

    /// Returns the vault's id, which the server never sees.
    #[must_use]
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// Returns the id of the space that holds the vault.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Returns the limited device whose vault this is; `None` for one that full devices share.
    #[must_use]
    pub fn limited(&self) -> Option<DeviceId> {
        self.limited
    }

    /// Returns a second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let generation = |old: &Generation| Generation {
            key: copy(&old.key),
            append: old.append.as_ref().map(copy),
            prune: old.prune.as_ref().map(copy),
        };
        Self {
            vault: self.vault,
            space: self.space,
            limited: self.limited,
            life: copy(&self.life),
            read: copy(&self.read),
            generations: self.generations.iter().map(generation).collect(),
        }
    }

    /// Returns the newest generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        u32::try_from(self.generations.len()).unwrap_or(u32::MAX)
    }

    /// Derives the key of one pack, `HKDF(vault key, pack id, "pack")`; `None` for a generation that
    /// the account did not have.
    #[must_use]
    pub fn pack_key(&self, generation: u32, pack: PackId) -> Option<StreamKey> {
        Some(StreamKey::derive(&self.keys_of(generation)?.key, &pack.0, labels::PACK))
    }

    /// Derives the sealing key of heads; `None` as for [`VaultKeys::pack_key`].
    #[must_use]
    pub fn head_key(&self, generation: u32) -> Option<Secret32> {
        Some(derive(&self.keys_of(generation)?.key, b"", labels::HEAD, &self.vault.0))
    }

    fn keys_of(&self, generation: u32) -> Option<&Generation> {
        self.generations.get(usize::try_from(generation.checked_sub(1)?).ok()?)
    }

    /// Derives the hasher that names chunks or snapshots; `label` is one of `labels::CHUNK_*`.
    #[must_use]
    pub fn hasher(&self, label: Label) -> KeyedHasher {
        KeyedHasher::new(derive(&self.life, b"", label, &self.vault.0))
    }

    /// Returns the chunker's 256 gear values, which differ for each vault.
    #[must_use]
    pub fn gear(&self) -> [u64; 256] {
        let mut bytes = [0; 256 * 8];
        self.hasher(labels::CHUNKER).expand(b"gear", &mut bytes);
        let mut gear = [0; 256];
        for (value, chunk) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            *value = u64::from_be_bytes(word);
        }
        gear
    }

    /// Returns the capability of a right under the newest generation; `None` for the owner, whose
    /// key no device holds, and for what a limited device may not do.
    #[must_use]
    pub fn capability(&self, right: Right) -> Option<CapabilityKey> {
        self.capability_of(self.generation(), right)
    }

    /// Returns the capability of a right as it was under `generation`.
    #[must_use]
    pub fn capability_of(&self, generation: u32, right: Right) -> Option<CapabilityKey> {
        let keys = self.keys_of(generation)?;
        let seed = match right {
            Right::Read => &self.read,
            Right::Append => keys.append.as_ref()?,
            Right::Prune => keys.prune.as_ref()?,
            Right::Owner => return None,
        };
        Some(CapabilityKey::from_seed(seed))
    }

    /// Returns the public keys of the space under the newest generation, with this owner.
    #[must_use]
    pub fn space_keys(&self, owner: [u8; 32]) -> SpaceKeys {
        let public = |right| self.capability(right).map_or([0; 32], |key| key.public_key());
        SpaceKeys {
            generation: self.generation(),
            read: public(Right::Read),
            append: public(Right::Append),
            prune: public(Right::Prune),
            owner,
        }
    }
}
