//! The keys of one vault, and what is derived from them.

use sr_crypto::{CapabilityKey, CryptoRng, KeyedHasher, Label, Secret32, StreamKey, derive};
use sr_wire::{PackId, Right, SpaceId, SpaceKeys, VaultId, labels};

/// The generation of vault keys before there is an account that could rotate them.
pub const GENERATION: u32 = 0;

/// Keys of one vault.
///
/// *For life*, from `seed`: the ids of chunks and the chunker's table. *Per generation*, from
/// `key`: packs and heads. Rights are random.
#[derive(Debug)]
pub struct VaultKeys {
    pub(crate) vault: VaultId,
    pub(crate) space: SpaceId,
    pub(crate) key: Secret32,
    pub(crate) seed: Secret32,
    pub(crate) read: Secret32,
    pub(crate) append: Secret32,
    pub(crate) prune: Secret32,
}

impl VaultKeys {
    /// Makes the keys of a new vault.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            vault: VaultId::random(rng),
            space: SpaceId::random(rng),
            key: Secret32::random(rng),
            seed: Secret32::random(rng),
            read: Secret32::random(rng),
            append: Secret32::random(rng),
            prune: Secret32::random(rng),
        }
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

    /// Derives the key of one pack: `HKDF(vault key, pack id, "pack")`.
    #[must_use]
    pub fn pack_key(&self, pack: PackId) -> StreamKey {
        StreamKey::derive(&self.key, &pack.0, labels::PACK)
    }

    /// Derives the sealing key of heads.
    #[must_use]
    pub fn head_key(&self) -> Secret32 {
        derive(&self.key, b"", labels::HEAD, &self.vault.0)
    }

    /// Derives the hasher that names chunks or snapshots; `label` is one of `labels::CHUNK_*`.
    #[must_use]
    pub fn hasher(&self, label: Label) -> KeyedHasher {
        KeyedHasher::new(derive(&self.seed, b"", label, &self.vault.0))
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

    /// Returns the capability of a right, or `None` for the owner: there is none yet.
    #[must_use]
    pub fn capability(&self, right: Right) -> Option<CapabilityKey> {
        let seed = match right {
            Right::Read => &self.read,
            Right::Append => &self.append,
            Right::Prune => &self.prune,
            Right::Owner => return None,
        };
        Some(CapabilityKey::from_seed(seed))
    }

    /// Returns the public keys that the server holds of the space.
    #[must_use]
    pub fn space_keys(&self) -> SpaceKeys {
        let public = |seed| CapabilityKey::from_seed(seed).public_key();
        SpaceKeys {
            read: public(&self.read),
            append: public(&self.append),
            prune: public(&self.prune),
            owner: [0; 32],
        }
    }
}
