//! A device's own keys, and the key file's bytes.

use sr_crypto::{
    BOX_OVERHEAD, Cost, CryptoRng, PASSPHRASE_SALT_LEN, SealingKey, Secret32, SigningKey, hash,
    open_box, seal_box, stretch,
};
use sr_trust::{DeviceInfo, DeviceKind};
use sr_wire::{DeviceId, labels};
use thiserror::Error;
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"strongroom keys2";
const CHECK_LEN: usize = 32;
/// Length of the key file.
pub const KEY_FILE_LEN: usize = MAGIC.len() + 2 * 32 + CHECK_LEN;

const LOCKED_MAGIC: &[u8; 16] = b"strongroom keyp2";
/// Magic, memory, passes and salt.
const LOCKED_HEAD_LEN: usize = LOCKED_MAGIC.len() + 4 + 4 + PASSPHRASE_SALT_LEN;
/// Length of a key file under a passphrase.
pub const LOCKED_FILE_LEN: usize = LOCKED_HEAD_LEN + BOX_OVERHEAD + KEY_FILE_LEN;
/// A damaged file must not ask for more than a machine has.
const COST_MAX: Cost = Cost { memory_kib: 1024 * 1024, passes: 16 };

/// The bytes are no key file, or not one that this passphrase opens.
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

    /// Returns what the chain says of it if it is a limited one.
    #[must_use]
    pub fn limited_info(&self) -> DeviceInfo {
        DeviceInfo { kind: DeviceKind::Limited, ..self.info() }
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

    /// Returns the bytes of the key file under a passphrase.
    ///
    /// **Shape** `"strongroom keyp2" ‖ u32 memory in KiB ‖ u32 passes ‖ salt[16] ‖ box`; the box is
    /// around the bytes of [`DeviceKeys::to_file`], under Argon2id of the passphrase, with all before
    /// it as associated data.
    ///
    /// **Errors** [`KeysError`] for a cost that Argon2 does not have.
    pub fn to_locked_file(
        &self,
        passphrase: &[u8],
        cost: Cost,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<u8>, KeysError> {
        let mut salt = [0; PASSPHRASE_SALT_LEN];
        rng.fill_bytes(&mut salt);
        let mut bytes = LOCKED_MAGIC.to_vec();
        bytes.extend_from_slice(&cost.memory_kib.to_be_bytes());
        bytes.extend_from_slice(&cost.passes.to_be_bytes());
        bytes.extend_from_slice(&salt);
        let key = stretch(passphrase, &salt, cost).ok_or(KeysError)?;
        let sealed = seal_box(&key, labels::KEY_FILE_LOCK, &bytes, &self.to_file(), rng);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// Returns whether the bytes are those of a key file under a passphrase.
    #[must_use]
    pub fn is_locked_file(bytes: &[u8]) -> bool {
        bytes.starts_with(LOCKED_MAGIC)
    }

    /// Opens a key file that is under a passphrase.
    ///
    /// **Errors** [`KeysError`] for another passphrase, and for anything but the exact form.
    pub fn from_locked_file(bytes: &[u8], passphrase: &[u8]) -> Result<Self, KeysError> {
        if bytes.len() != LOCKED_FILE_LEN || !Self::is_locked_file(bytes) {
            return Err(KeysError);
        }
        let (head, sealed) = bytes.split_at(LOCKED_HEAD_LEN);
        let number = |from: usize| {
            let bytes = head.get(from..from + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        let (memory_kib, passes) = number(16).zip(number(20)).ok_or(KeysError)?;
        let salt = head[24..].try_into().map_err(|_| KeysError)?;
        if memory_kib > COST_MAX.memory_kib || passes > COST_MAX.passes {
            return Err(KeysError);
        }
        let key = stretch(passphrase, salt, Cost { memory_kib, passes }).ok_or(KeysError)?;
        let plain = open_box(&key, labels::KEY_FILE_LOCK, head, sealed).map_err(|_| KeysError)?;
        Self::from_file(&Zeroizing::new(plain))
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
    fn a_locked_file_opens_for_its_passphrase_only() {
        let mut rng: rand_chacha::ChaCha20Rng =
            rand_chacha::rand_core::SeedableRng::seed_from_u64(2);
        let cost = Cost { memory_kib: 64, passes: 1 };
        let locked = keys().to_locked_file(b"long words", cost, &mut rng).expect("locks");
        assert_eq!(locked.len(), LOCKED_FILE_LEN);
        assert!(DeviceKeys::is_locked_file(&locked) && DeviceKeys::from_file(&locked).is_err());
        let opened = DeviceKeys::from_locked_file(&locked, b"long words").expect("opens");
        assert_eq!(opened.info(), keys().info());
        assert!(DeviceKeys::from_locked_file(&locked, b"other words").is_err());
        // Places where a change would ask for more memory than a test should take are left out.
        for place in (0..locked.len()).filter(|place| !(16..24).contains(place)).step_by(3) {
            let mut wrong = locked.clone();
            wrong[place] ^= 1;
            assert!(DeviceKeys::from_locked_file(&wrong, b"long words").is_err(), "byte {place}");
        }
        let mut greedy = locked.clone();
        greedy[16] = 0xff;
        assert!(DeviceKeys::from_locked_file(&greedy, b"long words").is_err());
        assert!(DeviceKeys::from_locked_file(&locked[1..], b"long words").is_err());
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
