//! A device's own keys, and the key file's bytes.

use sr_crypto::{CryptoRng, SealingKey, Secret32, SigningKey, hash};
use sr_trust::{DeviceInfo, DeviceKind};
use sr_wire::{DeviceId, labels};
use thiserror::Error;
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"strongroom keys2";
const CHECK_LEN: usize = 32;
/// Length of the key file.
pub const KEY_FILE_LEN: usize = MAGIC.len() + 2 * 32 + CHECK_LEN;

/// The bytes are no key file.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the key file is damaged or not one of this version")]
pub struct KeysError;

/// The keys that never leave the device.
#[derive(Debug)]
pub struct DeviceKeys {
    signing_seed: Secret32,
    sealing_seed: Secret32,
}

impl DeviceKeys {
    /// Makes the keys of a new device.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self { signing_seed: Secret32::random(rng), sealing_seed: Secret32::random(rng) }
    }

    /// Returns the signing key.
    #[must_use]
    pub fn signing(&self) -> SigningKey {
        SigningKey::from_seed(&self.signing_seed)
    }

    /// Returns the sealing key.
    #[must_use]
    pub fn sealing(&self) -> SealingKey {
        SealingKey::from_seed(&self.sealing_seed)
    }

    /// Returns what the account's chain says of the device.
    #[must_use]
    pub fn info(&self) -> DeviceInfo {
        DeviceInfo {
            signing: self.signing().public_key().to_vec().into(),
            sealing: self.sealing().public_key().to_vec().into(),
            kind: DeviceKind::Full,
        }
    }

    /// Returns the device's id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.info().id()
    }

    /// Returns the bytes of the key file, in memory that is wiped.
    ///
    /// **Shape** `"strongroom keys2" ‖ signing seed[32] ‖ sealing seed[32] ‖ BLAKE3 of all
    /// before[32]`.
    #[must_use]
    pub fn to_file(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.signing_seed.expose());
        bytes.extend_from_slice(self.sealing_seed.expose());
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
        let secret = |from: usize| {
            Secret32::init_with(|secret| secret.copy_from_slice(&body[from..from + 32]))
        };
        Ok(Self { signing_seed: secret(MAGIC.len()), sealing_seed: secret(MAGIC.len() + 32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> DeviceKeys {
        let mut rng: rand_chacha::ChaCha20Rng =
            rand_chacha::rand_core::SeedableRng::seed_from_u64(1);
        DeviceKeys::generate(&mut rng)
    }

    #[test]
    fn file_round_trips() {
        let keys = keys();
        let file = keys.to_file();
        assert_eq!(file.len(), KEY_FILE_LEN);
        let again = DeviceKeys::from_file(&file).expect("reads");
        assert_eq!(*again.to_file(), *file);
        assert_eq!(again.info(), keys.info());
    }

    #[test]
    fn every_change_of_the_file_is_found() {
        let file = keys().to_file();
        for place in 0..file.len() {
            let mut wrong = file.to_vec();
            wrong[place] ^= 1;
            assert_eq!(DeviceKeys::from_file(&wrong).err(), Some(KeysError), "byte {place}");
        }
        assert!(DeviceKeys::from_file(&file[1..]).is_err());
        assert!(DeviceKeys::from_file(&[]).is_err());
    }
}
