//! The key file's bytes.

use sr_crypto::{CryptoRng, Secret32, SigningKey, hash};
use sr_wire::{DeviceId, SpaceId, VaultId, labels};
use thiserror::Error;

use crate::VaultKeys;

const MAGIC: &[u8; 16] = b"strongroom keys1";
const CHECK_LEN: usize = 32;
/// Length of the key file.
pub const KEY_FILE_LEN: usize = MAGIC.len() + 32 + 16 + 16 + 5 * 32 + CHECK_LEN;

/// The bytes are no key file.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the key file is damaged or not one of this version")]
pub struct KeysError;

/// All keys of a profile.
#[derive(Debug)]
pub struct Keys {
    device_seed: Secret32,
    /// The one vault.
    pub vault: VaultKeys,
}

impl Keys {
    /// Makes the keys of a new profile.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self { device_seed: Secret32::random(rng), vault: VaultKeys::generate(rng) }
    }

    /// Returns the device's signing key.
    #[must_use]
    pub fn device(&self) -> SigningKey {
        SigningKey::from_seed(&self.device_seed)
    }

    /// Returns the bytes of the key file, in memory that is wiped.
    ///
    /// **Shape** `"strongroom keys1" ‖ device seed[32] ‖ vault[16] ‖ space[16] ‖ vault key[32] ‖
    /// vault seed[32] ‖ read[32] ‖ append[32] ‖ prune[32] ‖ BLAKE3 of all before[32]`.
    #[must_use]
    pub fn to_file(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(KEY_FILE_LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.device_seed.expose());
        bytes.extend_from_slice(&self.vault.vault.0);
        bytes.extend_from_slice(&self.vault.space.0);
        for secret in self.vault_secrets() {
            bytes.extend_from_slice(secret.expose());
        }
        let check = hash(labels::KEY_FILE, &[&bytes]);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// Reads a key file.
    ///
    /// **Errors** [`KeysError`] for anything but the exact form.
    pub fn from_file(bytes: &[u8]) -> Result<Self, KeysError> {
        if bytes.len() != KEY_FILE_LEN || !bytes.starts_with(MAGIC) {
            return Err(KeysError);
        }
        let (body, check) = bytes.split_at(KEY_FILE_LEN - CHECK_LEN);
        if hash(labels::KEY_FILE, &[body]) != *check {
            return Err(KeysError);
        }
        let mut rest = &body[MAGIC.len()..];
        let device_seed = take_secret(&mut rest);
        let vault = VaultId::from_slice(take(&mut rest, 16)).ok_or(KeysError)?;
        let space = SpaceId::from_slice(take(&mut rest, 16)).ok_or(KeysError)?;
        let vault = VaultKeys {
            vault,
            space,
            key: take_secret(&mut rest),
            seed: take_secret(&mut rest),
            read: take_secret(&mut rest),
            append: take_secret(&mut rest),
            prune: take_secret(&mut rest),
        };
        Ok(Self { device_seed, vault })
    }

    fn vault_secrets(&self) -> [&Secret32; 5] {
        let vault = &self.vault;
        [&vault.key, &vault.seed, &vault.read, &vault.append, &vault.prune]
    }
}

/// Returns the id of the device with this public signing key.
#[must_use]
pub fn device_id(public: &[u8]) -> DeviceId {
    DeviceId(hash(labels::DEVICE, &[public]))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    head
}

fn take_secret(rest: &mut &[u8]) -> Secret32 {
    let bytes = take(rest, 32);
    Secret32::init_with(|secret| secret.copy_from_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let mut rng: rand_chacha::ChaCha20Rng =
            rand_chacha::rand_core::SeedableRng::seed_from_u64(1);
        Keys::generate(&mut rng)
    }

    #[test]
    fn file_round_trips() {
        let keys = keys();
        let file = keys.to_file();
        assert_eq!(file.len(), KEY_FILE_LEN);
        let again = Keys::from_file(&file).expect("reads");
        assert_eq!(*again.to_file(), *file);
        assert_eq!(again.device().public_key(), keys.device().public_key());
    }

    #[test]
    fn every_change_of_the_file_is_found() {
        let file = keys().to_file();
        for place in 0..file.len() {
            let mut wrong = file.to_vec();
            wrong[place] ^= 1;
            assert_eq!(Keys::from_file(&wrong).err(), Some(KeysError), "byte {place}");
        }
        assert!(Keys::from_file(&file[1..]).is_err());
        assert!(Keys::from_file(&[]).is_err());
    }
}
