//! The key block: the account's secrets, sealed to everybody who may have them. See
//! `spec/key-block.md`.

use sr_crypto::{CryptoRng, Hash, SealError, SealingKey, Secret32, open_box, seal_box, seal_to};
use sr_trust::{
    Account, DeviceInfo, DeviceKind, Policy, RecoveryKey, Verified, key_block_hash, seed_commit,
};
use sr_wire::{DeviceId, Misbehaviour, VLBytes, decode, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use crate::{AccountKeys, Removal, account::root_commit};

const VERSION: u8 = 1;
/// The newest removals whose heads a key block carries. By then every space has a newer head.
const REMOVALS_MAX: usize = 64;

/// A key block as it travels. The chain commits to its hash.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct KeyBlock {
    version: u8,
    generation: u32,
    /// The genesis' salt, or the hash of the block before.
    bound_to: Hash,
    /// The root, sealed to each.
    recipients: Vec<Recipient>,
    /// The seed, the earlier roots and the removals' heads, sealed under the root.
    inside: VLBytes,
}

#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Recipient {
    key: DeviceId,
    sealed: VLBytes,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Inside {
    seed: [u8; 32],
    roots: Vec<[u8; 32]>,
    removals: Vec<Removal>,
}

/// To whom a root is sealed.
pub(crate) struct Recipients(Vec<(DeviceId, Vec<u8>)>);

impl Recipients {
    /// The live full devices, and those whom the policy names. What a block is about to change is
    /// given beside the verified state: who comes, who goes, which policy holds then.
    pub(crate) fn of(
        account: &Verified<Account>,
        comes: Option<&DeviceInfo>,
        goes: Option<DeviceId>,
        policy: &Policy,
    ) -> Self {
        let live = account.live().filter(|device| Some(device.id) != goes).map(|d| &d.info);
        Self::from_parts(live.chain(comes), policy)
    }

    pub(crate) fn from_parts<'a>(
        devices: impl Iterator<Item = &'a DeviceInfo>,
        policy: &Policy,
    ) -> Self {
        let devices = devices
            .filter(|info| info.kind == DeviceKind::Full)
            .map(|info| (info.id(), info.sealing.as_slice().to_vec()));
        let recovery = [&policy.kit, &policy.contacts]
            .into_iter()
            .flatten()
            .map(|key: &RecoveryKey| (key.id(), key.sealing.as_slice().to_vec()));
        Self(devices.chain(recovery).collect())
    }
}

impl KeyBlock {
    /// Seals the account's secrets.
    ///
    /// **Errors** [`SealError`] for a recipient whose key is none, which no verified block names.
    pub(crate) fn seal(
        keys: &AccountKeys,
        recipients: &Recipients,
        bound_to: Hash,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, SealError> {
        let (version, generation) = (VERSION, keys.generation());
        let ids: Vec<DeviceId> = recipients.0.iter().map(|(id, _)| *id).collect();
        let aad = associated_data(version, generation, &bound_to, &ids);
        let recipients = recipients
            .0
            .iter()
            .map(|(id, public)| {
                let root = keys.root().expose();
                let sealed = seal_to(public, labels::KEY_BLOCK_SEAL, &aad, root)?;
                Ok(Recipient { key: *id, sealed: sealed.into() })
            })
            .collect::<Result<Vec<_>, SealError>>()?;
        let earlier = &keys.roots[..keys.roots.len() - 1];
        let newest = keys.removals.len().saturating_sub(REMOVALS_MAX);
        let inside = Zeroizing::new(encode(&Inside {
            seed: *keys.seed.expose(),
            roots: earlier.iter().map(|root| *root.expose()).collect(),
            removals: keys.removals[newest..].to_vec(),
        }));
        let inside = seal_box(keys.root(), labels::KEY_BLOCK_BOX, &aad, &inside, rng).into();
        Ok(Self { version, generation, bound_to, recipients, inside })
    }

    /// Returns the bytes that travel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Opens the key block that a verified chain names, by the sealing key of one of its recipients.
    /// All that it holds is compared with what the chain commits to.
    ///
    /// **Errors** [`Misbehaviour::KeyBlockSwapped`], [`Misbehaviour::ObjectMalformed`],
    /// [`Misbehaviour::RootMismatch`], [`Misbehaviour::SeedMismatch`],
    /// [`Misbehaviour::AnchorsMismatch`].
    pub fn open(
        bytes: &[u8],
        account: &Verified<Account>,
        recipient: DeviceId,
        key: &SealingKey,
    ) -> Result<AccountKeys, Misbehaviour> {
        let named = account.key();
        // SR-023
        Misbehaviour::KeyBlockSwapped.refuse_if(key_block_hash(bytes) != named.key_block)?;
        let malformed = |_| Misbehaviour::ObjectMalformed;
        let block: Self =
            decode("key block", bytes, limits::KEY_BLOCK_LEN_MAX).map_err(malformed)?;
        if block.version != VERSION {
            return Err(Misbehaviour::ObjectMalformed);
        }
        let ids: Vec<DeviceId> = block.recipients.iter().map(|r| r.key).collect();
        let aad = associated_data(block.version, block.generation, &block.bound_to, &ids);
        let mismatch = Misbehaviour::RootMismatch;
        let sealed = block.recipients.iter().find(|r| r.key == recipient).ok_or(mismatch)?;
        let root = key
            .open(labels::KEY_BLOCK_SEAL, &aad, sealed.sealed.as_slice())
            .map_err(|_| mismatch)?;
        let root = secret(&root).ok_or(mismatch)?;
        let inside = open_box(&root, labels::KEY_BLOCK_BOX, &aad, block.inside.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| mismatch)?;
        let inside: Inside =
            decode("key block", &inside, limits::KEY_BLOCK_LEN_MAX).map_err(malformed)?;
        let mut roots: Vec<Secret32> = inside.roots.iter().filter_map(|r| secret(r)).collect();
        roots.push(root);
        let seed = secret(&inside.seed).ok_or(Misbehaviour::SeedMismatch)?;
        let keys = AccountKeys { seed, roots, removals: inside.removals };
        keys.check(account)?;
        Ok(keys)
    }
}

impl AccountKeys {
    /// Compares every secret with what the chain commits to, so that nobody can give two devices two
    /// roots.
    fn check(&self, account: &Verified<Account>) -> Result<(), Misbehaviour> {
        let named = account.key();
        let committed = |(number, root): (usize, &Secret32)| {
            let generation = u32::try_from(number + 1).unwrap_or(u32::MAX);
            account.key_of(generation).is_some_and(|key| key.root_commit == root_commit(root))
        };
        let roots_match = self.generation() == named.generation
            && self.roots.iter().enumerate().all(committed)
            && self.sealing().public_key() == named.sealing.as_slice();
        // SR-024
        Misbehaviour::RootMismatch.refuse_if(!roots_match)?;
        // SR-025
        Misbehaviour::SeedMismatch.refuse_if(seed_commit(&self.seed) != account.seed_commit())?;
        // All of the newest, and none that was not.
        let mut committed: Vec<(u64, Hash)> = account
            .devices()
            .iter()
            .filter_map(|device| device.removed)
            .filter(|(_, anchors)| *anchors != [0; 32])
            .collect();
        committed.sort_unstable();
        let newest = committed.len().saturating_sub(REMOVALS_MAX);
        let held: Vec<(u64, Hash)> =
            self.removals.iter().map(|removal| (removal.seq, removal.commit())).collect();
        let anchors_match = held == committed[newest..];
        // SR-027
        Misbehaviour::AnchorsMismatch.refuse_if(!anchors_match)
    }
}

fn associated_data(
    version: u8,
    generation: u32,
    bound_to: &Hash,
    recipients: &Vec<DeviceId>,
) -> Vec<u8> {
    let mut aad = vec![version];
    aad.extend_from_slice(&generation.to_be_bytes());
    aad.extend_from_slice(bound_to);
    aad.extend_from_slice(&encode(recipients));
    aad
}

fn secret(bytes: &[u8]) -> Option<Secret32> {
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    Some(Secret32::init_with(|secret| secret.copy_from_slice(bytes)))
}
