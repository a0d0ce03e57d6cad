//! The key block: the account's secrets, sealed to everybody who may have them. See
//! `spec/key-block.md`.

use sr_crypto::{CryptoRng, Hash, SealError, SealingKey, Secret32, open_box, seal_box, seal_to};
use sr_trust::{
    Account, DeviceInfo, DeviceKind, Policy, RecoveryKey, Verified, key_block_hash, seed_commit,
};
use sr_wire::{DeviceId, Misbehaviour, SpaceId, VLBytes, VaultId, decode, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use crate::{AccountKeys, Removal, VaultKeys, account::root_commit};

const VERSION: u8 = 2;
/// The newest removals whose heads a key block carries. Each has the newest head that counts of every
/// space, so what an older one had is not lost with it.
const REMOVALS_MAX: usize = 16;
/// Those that a grant carries.
const GRANTED_REMOVALS_MAX: usize = 4;

/// A key block as it travels. The chain commits to its hash.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct KeyBlock {
    version: u8,
    generation: u32,
    /// The genesis' salt, or the hash of the block before.
    bound_to: Hash,
    /// The root, sealed to each.
    recipients: Vec<Recipient>,
    /// To each limited device, what it needs for its own vault.
    grants: Vec<Recipient>,
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

/// What a limited device gets.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Grant {
    vault: VaultId,
    space: SpaceId,
    life: [u8; 32],
    read: [u8; 32],
    /// The vault's keys of all generations.
    keys: Vec<[u8; 32]>,
    append: [u8; 32],
    /// Of each removal what concerns its space: the others it can't check, and need not know.
    removals: Vec<Removal>,
}

/// A limited device's keys.
#[derive(Debug)]
pub struct Granted {
    /// Of its vault, without the right to prune.
    pub vault: VaultKeys,
    /// The heads of its space at which devices were removed.
    pub removals: Vec<Removal>,
}

/// To whom a root is sealed, and to whom a grant.
pub(crate) struct Recipients {
    full: Vec<(DeviceId, Vec<u8>)>,
    limited: Vec<(DeviceId, Vec<u8>)>,
}

impl Recipients {
    /// The live devices, and those whom the policy names. What a block is about to change is
    /// given beside the verified state: who comes, which policy holds then; and who gets nothing.
    pub(crate) fn of(
        account: &Verified<Account>,
        comes: Option<&DeviceInfo>,
        without: &[DeviceId],
        policy: &Policy,
    ) -> Self {
        let live = account.live().filter(|device| !without.contains(&device.id)).map(|d| &d.info);
        Self::from_parts(live.chain(comes), policy)
    }

    pub(crate) fn from_parts<'a>(
        devices: impl Iterator<Item = &'a DeviceInfo>,
        policy: &Policy,
    ) -> Self {
        let (full, limited): (Vec<_>, Vec<_>) =
            devices.partition(|info| info.kind == DeviceKind::Full);
        let key = |info: &DeviceInfo| (info.id(), info.sealing.as_slice().to_vec());
        let recovery = [&policy.kit, &policy.contacts]
            .into_iter()
            .flatten()
            .map(|key: &RecoveryKey| (key.id(), key.sealing.as_slice().to_vec()));
        let full = full.into_iter().map(key).chain(recovery).collect();
        Self { full, limited: limited.into_iter().map(key).collect() }
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
        let ids = |of: &[(DeviceId, Vec<u8>)]| of.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let (full, limited) = (ids(&recipients.full), ids(&recipients.limited));
        let aad = associated_data(version, generation, &bound_to, [&full, &limited]);
        let root = |(id, public): &(DeviceId, Vec<u8>)| {
            let sealed = seal_to(public, labels::KEY_BLOCK_SEAL, &aad, keys.root().expose())?;
            Ok(Recipient { key: *id, sealed: sealed.into() })
        };
        let newest = keys.removals.len().saturating_sub(REMOVALS_MAX);
        let grant = |(id, public): &(DeviceId, Vec<u8>)| {
            let grant = Zeroizing::new(encode(&Grant::of(keys, *id)));
            let sealed = seal_to(public, labels::KEY_BLOCK_GRANT, &aad, &grant)?;
            Ok(Recipient { key: *id, sealed: sealed.into() })
        };
        let grants = recipients.limited.iter().map(grant).collect::<Result<_, SealError>>()?;
        let recipients = recipients.full.iter().map(root).collect::<Result<_, SealError>>()?;
        let earlier = &keys.roots[..keys.roots.len() - 1];
        let inside = Zeroizing::new(encode(&Inside {
            seed: bytes_of(&keys.seed),
            roots: earlier.iter().map(bytes_of).collect(),
            removals: keys.removals[newest..].to_vec(),
        }));
        let inside = seal_box(keys.root(), labels::KEY_BLOCK_BOX, &aad, &inside, rng).into();
        Ok(Self { version, generation, bound_to, recipients, grants, inside })
    }

    /// Returns the bytes that travel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Returns whether a device gets anything from the key block that a verified chain names.
    ///
    /// **Errors** [`Misbehaviour::KeyBlockSwapped`], [`Misbehaviour::ObjectMalformed`].
    pub fn is_for(
        bytes: &[u8],
        account: &Verified<Account>,
        device: DeviceId,
    ) -> Result<bool, Misbehaviour> {
        let block = Self::parse(bytes, account)?;
        Ok(block.recipients.iter().chain(&block.grants).any(|recipient| recipient.key == device))
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
        let block = Self::parse(bytes, account)?;
        let aad = block.associated_data();
        let mismatch = Misbehaviour::RootMismatch;
        let sealed = block.recipients.iter().find(|r| r.key == recipient).ok_or(mismatch)?;
        let root = key
            .open(labels::KEY_BLOCK_SEAL, &aad, sealed.sealed.as_slice())
            .map_err(|_| mismatch)?;
        let root = secret(&root).ok_or(mismatch)?;
        let inside = open_box(&root, labels::KEY_BLOCK_BOX, &aad, block.inside.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| mismatch)?;
        let inside: Inside = decode("key block", &inside, limits::KEY_BLOCK_LEN_MAX)
            .map_err(|_| Misbehaviour::ObjectMalformed)?;
        let mut roots: Vec<Secret32> = inside.roots.iter().filter_map(|r| secret(r)).collect();
        roots.push(root);
        let seed = secret(&inside.seed).ok_or(Misbehaviour::SeedMismatch)?;
        let keys = AccountKeys { seed, roots, removals: inside.removals };
        keys.check(account)?;
        Ok(keys)
    }

    /// Opens what a limited device gets. It has no root to compare with the chain: it believes the
    /// full device that made the key block, whose hash the chain names.
    ///
    /// **Errors** [`Misbehaviour::KeyBlockSwapped`], [`Misbehaviour::ObjectMalformed`],
    /// [`Misbehaviour::RootMismatch`].
    pub fn open_grant(
        bytes: &[u8],
        account: &Verified<Account>,
        device: DeviceId,
        key: &SealingKey,
    ) -> Result<Granted, Misbehaviour> {
        let block = Self::parse(bytes, account)?;
        let mismatch = Misbehaviour::RootMismatch;
        let sealed = block.grants.iter().find(|r| r.key == device).ok_or(mismatch)?;
        let grant = key
            .open(labels::KEY_BLOCK_GRANT, &block.associated_data(), sealed.sealed.as_slice())
            .map_err(|_| mismatch)?;
        let grant: Grant = decode("grant", &grant, limits::KEY_BLOCK_LEN_MAX)
            .map_err(|_| Misbehaviour::ObjectMalformed)?;
        // SR-024
        let is_of_now = u32::try_from(grant.keys.len()) == Ok(account.key().generation);
        mismatch.refuse_if(!is_of_now)?;
        Ok(Granted {
            vault: VaultKeys::granted(
                (grant.vault, grant.space),
                device,
                (secret_of(&grant.life), secret_of(&grant.read)),
                grant.keys.iter().map(secret_of).collect(),
                secret_of(&grant.append),
            ),
            removals: grant.removals,
        })
    }

    fn parse(bytes: &[u8], account: &Verified<Account>) -> Result<Self, Misbehaviour> {
        // SR-023
        let is_named = key_block_hash(bytes) == account.key().key_block;
        Misbehaviour::KeyBlockSwapped.refuse_if(!is_named)?;
        let malformed = Misbehaviour::ObjectMalformed;
        let block: Self =
            decode("key block", bytes, limits::KEY_BLOCK_LEN_MAX).map_err(|_| malformed)?;
        if block.version == VERSION { Ok(block) } else { Err(malformed) }
    }

    fn associated_data(&self) -> Vec<u8> {
        let ids = |of: &[Recipient]| of.iter().map(|r| r.key).collect::<Vec<_>>();
        let (full, limited) = (ids(&self.recipients), ids(&self.grants));
        associated_data(self.version, self.generation, &self.bound_to, [&full, &limited])
    }
}

impl Grant {
    fn of(keys: &AccountKeys, device: DeviceId) -> Self {
        let newest = keys.removals.len().saturating_sub(GRANTED_REMOVALS_MAX);
        let vault = keys.limited_vault(device);
        let space = vault.space();
        let removals = keys.removals[newest..].iter().map(|removal| Removal {
            seq: removal.seq,
            salt: [0; 32],
            anchors: removal.anchors.iter().filter(|a| a.space == space).copied().collect(),
        });
        let append = vault.generations.last().and_then(|newest| newest.append.as_ref());
        Self {
            vault: vault.vault(),
            space,
            life: bytes_of(&vault.life),
            read: bytes_of(&vault.read),
            keys: vault.generations.iter().map(|of| bytes_of(&of.key)).collect(),
            append: append.map_or([0; 32], bytes_of),
            removals: removals.collect(),
        }
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
    recipients: [&Vec<DeviceId>; 2],
) -> Vec<u8> {
    let mut aad = vec![version];
    aad.extend_from_slice(&generation.to_be_bytes());
    aad.extend_from_slice(bound_to);
    recipients.iter().for_each(|ids| aad.extend_from_slice(&encode(*ids)));
    aad
}

fn secret(bytes: &[u8]) -> Option<Secret32> {
    Some(secret_of(bytes.try_into().ok()?))
}

/// What is written down to be sealed.
fn bytes_of(secret: &Secret32) -> [u8; 32] {
    *secret.expose()
}

fn secret_of(bytes: &[u8; 32]) -> Secret32 {
    Secret32::init_with(|secret| secret.copy_from_slice(bytes))
}
