//! The recovery kit: what one sheet of paper holds and opens. See `spec/recovery-kit.md`.

pub use sr_crypto::{CODE_LEN, CodeError};
use sr_crypto::{
    CapabilityKey, CryptoRng, Hash, SealError, SealingKey, Secret32, SigningKey, derive, from_code,
    open_box, seal_box, seal_to, text, to_code,
};
use sr_trust::{Policy, RecoveryKey, Role};
use sr_wire::{AccountId, Misbehaviour, Right, SpaceId, decode, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use crate::DeviceKeys;

/// An envelope is far shorter.
const ENVELOPE_LEN_MAX: usize = 1024;

/// The keys of a kit, or those that k contacts rebuild.
#[derive(Debug)]
pub struct RecoveryKeys {
    pub(crate) signing: SigningKey,
    sealing: SealingKey,
}

impl RecoveryKeys {
    /// Derives the keys from a secret.
    #[must_use]
    pub fn from_secret(secret: &Secret32) -> Self {
        Self {
            signing: SigningKey::from_seed(&derive(secret, b"", labels::KIT_SIGN, b"")),
            sealing: SealingKey::from_seed(&derive(secret, b"", labels::KIT_SEAL, b"")),
        }
    }

    /// Returns what the account's policy says of them.
    #[must_use]
    pub fn public(&self) -> RecoveryKey {
        RecoveryKey {
            signing: self.signing.public_key().to_vec().into(),
            sealing: self.sealing.public_key().to_vec().into(),
        }
    }

    /// Returns the signing key.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Returns the sealing key.
    #[must_use]
    pub fn sealing(&self) -> &SealingKey {
        &self.sealing
    }
}

/// A recovery kit.
#[derive(Debug)]
pub struct Kit(Secret32);

/// A kit as the owner of the account's spaces, whose rights overrule those that devices have.
#[derive(Debug)]
pub struct Owner(Secret32);

impl Owner {
    fn of(secret: &Secret32) -> Self {
        Self(derive(secret, b"", labels::KIT_OWNER, b""))
    }

    /// Returns the capability over one space; no two spaces have the same.
    #[must_use]
    pub fn capability(&self, space: SpaceId) -> CapabilityKey {
        let info = [encode(&Right::Owner), space.0.to_vec()].concat();
        CapabilityKey::from_seed(&derive(&self.0, b"", labels::CAP, &info))
    }
}

/// The kit that comes into force as owner, and the one before it, kept sealed to the device that
/// replaces it until each space has the new owner.
#[derive(Debug)]
pub struct Handover {
    /// The kit that was in force, if there was one.
    pub old: Option<Owner>,
    /// The kit that is.
    pub new: Owner,
}

impl Handover {
    /// Seals it to the device.
    ///
    /// **Errors** [`SealError`] never: a device's key is one.
    pub fn seal(&self, device: &DeviceKeys) -> Result<Vec<u8>, SealError> {
        let mut plain = Zeroizing::new(self.new.0.expose().to_vec());
        plain.extend(self.old.iter().flat_map(|old| old.0.expose()));
        seal_to(device.sealing().public_key(), labels::KIT_OWNER_KEPT, b"", &plain)
    }

    /// Opens what was kept.
    #[must_use]
    pub fn open(sealed: &[u8], device: &DeviceKeys) -> Option<Self> {
        let plain = device.sealing().open(labels::KIT_OWNER_KEPT, b"", sealed).ok()?;
        let (new, old) = plain.split_first_chunk::<32>()?;
        let owner =
            |bytes: &[u8; 32]| Owner(Secret32::init_with(|secret| secret.copy_from_slice(bytes)));
        let old = match old {
            [] => None,
            old => Some(owner(old.try_into().ok()?)),
        };
        Some(Self { old, new: owner(new) })
    }
}

/// What brought a device back, kept sealed to it until it counts as one of the account's.
#[derive(Debug)]
pub struct Kept {
    role: Role,
    secret: Secret32,
}

impl Kept {
    /// Takes the secret that contacts' shares have yielded.
    #[must_use]
    pub fn of_contacts(secret: Secret32) -> Self {
        Self { role: Role::Contacts, secret }
    }

    /// Returns as what its keys sign.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns its keys.
    #[must_use]
    pub fn keys(&self) -> RecoveryKeys {
        RecoveryKeys::from_secret(&self.secret)
    }

    /// Returns the kit as owner; contacts own nothing.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        (self.role == Role::Kit).then(|| Owner::of(&self.secret))
    }

    /// Returns whether a policy names its keys.
    #[must_use]
    pub fn is_in(&self, policy: &Policy) -> bool {
        let named = if self.role == Role::Kit { &policy.kit } else { &policy.contacts };
        *named == Some(self.keys().public())
    }

    /// Seals it to the device.
    ///
    /// **Errors** [`SealError`] never: a device's key is one.
    pub fn seal(&self, device: &DeviceKeys) -> Result<Vec<u8>, SealError> {
        let plain = Zeroizing::new([&encode(&self.role)[..], self.secret.expose()].concat());
        seal_to(device.sealing().public_key(), labels::KIT_KEPT, b"", &plain)
    }

    /// Opens what was kept.
    #[must_use]
    pub fn open(sealed: &[u8], device: &DeviceKeys) -> Option<Self> {
        let plain = device.sealing().open(labels::KIT_KEPT, b"", sealed).ok()?;
        let (role, bytes) = plain.split_first_chunk::<1>()?;
        let role = decode("role", role, 1).ok()?;
        let bytes: &[u8; 32] = bytes.try_into().ok()?;
        Some(Self { role, secret: Secret32::init_with(|secret| secret.copy_from_slice(bytes)) })
    }
}

/// What the server keeps for a kit, sealed, under an id that only the kit gives.
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Envelope {
    /// The account.
    pub account: AccountId,
    /// Hash of the home server's card, which the restoring client pins.
    pub card: Hash,
    /// The last block that was accepted before the kit was.
    pub seq: u64,
    /// That block's hash: the chain must contain it.
    pub block: Hash,
    /// Unix seconds when the kit was made.
    pub made_s: u64,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Envelope(..)")
    }
}

impl Kit {
    /// Makes a kit.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(Secret32::init_with(|bytes| rng.fill_bytes(&mut bytes[..sr_crypto::CODE_SECRET_LEN])))
    }

    /// Reads a kit's 28 characters.
    ///
    /// **Errors** [`CodeError`]; nothing was sent anywhere.
    pub fn from_text(text: &str) -> Result<Self, CodeError> {
        from_code(text).map(Self)
    }

    /// Returns the kit as a device that is restored from it keeps it.
    #[must_use]
    pub fn to_kept(&self) -> Kept {
        Kept { role: Role::Kit, secret: crate::account::copy(&self.0) }
    }

    /// Returns the 28 characters, in 7 groups of 4.
    #[must_use]
    pub fn code(&self) -> Zeroizing<String> {
        to_code(&self.0)
    }

    /// Returns the eight characters by which people tell kits apart.
    #[must_use]
    pub fn id(&self) -> String {
        let id = derive(&self.0, b"", labels::KIT_ID, b"");
        text::to_base32(&id.expose()[..5]).to_uppercase()
    }

    /// Returns the id under which the server keeps the envelope.
    #[must_use]
    pub fn lookup(&self) -> Hash {
        *derive(&self.0, b"", labels::KIT_LOOKUP, b"").expose()
    }

    /// Returns the kit's keys.
    #[must_use]
    pub fn keys(&self) -> RecoveryKeys {
        RecoveryKeys::from_secret(&self.0)
    }

    /// Returns the kit as owner of the account's spaces.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::of(&self.0)
    }

    /// Seals an envelope.
    pub fn seal(&self, envelope: &Envelope, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        let key = derive(&self.0, b"", labels::KIT_ENVELOPE, b"");
        seal_box(&key, labels::KIT_ENVELOPE, self.id().as_bytes(), &encode(envelope), rng)
    }

    /// Opens an envelope.
    ///
    /// **Errors** [`Misbehaviour::EnvelopeAltered`].
    pub fn open(&self, sealed: &[u8]) -> Result<Envelope, Misbehaviour> {
        // SR-028
        let altered = Misbehaviour::EnvelopeAltered;
        let key = derive(&self.0, b"", labels::KIT_ENVELOPE, b"");
        let plain = open_box(&key, labels::KIT_ENVELOPE, self.id().as_bytes(), sealed)
            .map_err(|_| altered)?;
        decode("envelope", &plain, ENVELOPE_LEN_MAX).map_err(|_| altered)
    }
}
