//! The blocks of an account chain, and what is signed in them.

use sr_crypto::{
    Hash, PUBLIC_KEY_LEN, SEALING_PUBLIC_LEN, SIGNATURE_LEN, Secret32, SigningKey, hash, verify,
};
use sr_wire::{AccountId, DeviceId, Malformed, VLBytes, decode, encode, labels, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

/// How long an act that waits does so, unless the policy says otherwise: three days.
pub const DELAY_DEFAULT_S: u32 = 72 * 3600;

/// What a device may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum DeviceKind {
    /// The account key, and every right.
    Full = 1,
    /// Grants of its own, and no account key. It signs no block.
    Limited = 2,
}

/// The public keys of a device. Its name is known to the account's own devices only.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct DeviceInfo {
    /// Hybrid signing key, 1,984 bytes.
    pub signing: VLBytes,
    /// X-Wing sealing key, 1,216 bytes.
    pub sealing: VLBytes,
    /// What it may hold.
    pub kind: DeviceKind,
}

impl DeviceInfo {
    /// Returns the device's id: the hash of its signing key.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        device_id(self.signing.as_slice())
    }

    pub(crate) fn is_well_formed(&self) -> bool {
        are_keys(&self.signing, &self.sealing)
    }
}

/// The account's own key of one generation.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct AccountKey {
    /// Counts from 1.
    pub generation: u32,
    /// Its sealing key.
    pub sealing: VLBytes,
    /// `H("root-commit", root)`: nobody can give two devices two roots.
    pub root_commit: Hash,
    /// Hash of the key block that holds the root sealed to everyone who may have it.
    pub key_block: Hash,
}

/// A key from the kit, or from the contacts' shares.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct RecoveryKey {
    /// Hybrid signing key.
    pub signing: VLBytes,
    /// X-Wing sealing key.
    pub sealing: VLBytes,
}

impl RecoveryKey {
    /// Returns the id by which blocks name it as their signer.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        device_id(self.signing.as_slice())
    }
}

/// Who may bring the account back, and how long that waits.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Policy {
    /// The recovery kit's keys.
    pub kit: Option<RecoveryKey>,
    /// The keys that k contacts can rebuild.
    pub contacts: Option<RecoveryKey>,
    /// Seconds that acts without a live device, or without the kit, wait.
    pub delay_s: u32,
}

impl Policy {
    pub(crate) fn is_well_formed(&self) -> bool {
        self.delay_s > 0
            && [&self.kit, &self.contacts]
                .into_iter()
                .flatten()
                .all(|key| are_keys(&key.signing, &key.sealing))
    }
}

/// What may be changed at once with the kit, or by one device after a delay.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Change {
    /// Another recovery policy.
    #[tls_codec(discriminant = 1)]
    Recovery(Policy),
    /// Another home: the hash of its server's card.
    #[tls_codec(discriminant = 2)]
    Home(Hash),
    /// Another witness policy: its hash.
    #[tls_codec(discriminant = 3)]
    Pin(Hash),
    /// The end of the account.
    #[tls_codec(discriminant = 4)]
    Close,
}

/// What a block does.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Op {
    /// Begins an account.
    #[tls_codec(discriminant = 1)]
    Genesis {
        /// Random, so that the account's id says nothing.
        salt: Hash,
        /// The first device.
        device: DeviceInfo,
        /// `H("seed-commit", account seed)`.
        seed_commit: Hash,
        /// Generation 1.
        key: AccountKey,
        /// Seconds that acts wait.
        delay_s: u32,
        /// Hash of the home server's card.
        home: Hash,
    },
    /// Adds a device. Generation and root stay.
    #[tls_codec(discriminant = 2)]
    AddDevice {
        /// The device.
        device: DeviceInfo,
        /// Hash of the linking ceremony, which the device has signed too.
        transcript: Hash,
        /// The key, in a new key block.
        key: AccountKey,
    },
    /// Takes a device out.
    #[tls_codec(discriminant = 3)]
    RemoveDevice {
        /// The device.
        device: DeviceId,
        /// `H("anchors", salt ‖ list)`: the heads that the remover accepts.
        anchors: Hash,
        /// The next generation.
        key: AccountKey,
    },
    /// Gives a device new keys.
    #[tls_codec(discriminant = 4)]
    RotateDevice {
        /// The device by its old key.
        old: DeviceId,
        /// Its new keys.
        device: DeviceInfo,
        /// As for a removal.
        anchors: Hash,
        /// The next generation.
        key: AccountKey,
    },
    /// Changes something at once.
    #[tls_codec(discriminant = 5)]
    Set {
        /// What.
        change: Change,
        /// The next generation for another policy; else the key as it is.
        key: AccountKey,
    },
    /// Begins a change without the kit.
    #[tls_codec(discriminant = 6)]
    DelayStart {
        /// What.
        change: Change,
    },
    /// Ends a wait.
    #[tls_codec(discriminant = 7)]
    DelayFinish {
        /// The block that began it.
        start: u64,
        /// As for [`Op::Set`].
        key: AccountKey,
    },
    /// Begins a recovery: a new device by the kit, or by contacts.
    #[tls_codec(discriminant = 8)]
    RecoveryStart {
        /// The new device.
        device: DeviceInfo,
        /// A device that is in a thief's hands; it has no say, and goes when the wait is over.
        stolen: Option<DeviceId>,
    },
    /// Ends a recovery's wait.
    #[tls_codec(discriminant = 9)]
    RecoveryFinish {
        /// The block that began it.
        start: u64,
        /// As for a removal, if a device was named as stolen; else zeros.
        anchors: Hash,
        /// The next generation.
        key: AccountKey,
    },
    /// Stops something that waits.
    #[tls_codec(discriminant = 10)]
    Veto {
        /// The block that began it.
        start: u64,
    },
}

/// What a block's signatures cover.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Body {
    /// Always 1.
    pub version: u8,
    /// The account; zeros in the genesis, whose hash it is.
    pub account: AccountId,
    /// Place in the chain.
    pub seq: u64,
    /// Hash of the block before; zeros in the genesis.
    pub previous: Hash,
    /// Unix seconds by the signer's clock. No client depends on it; a server lets no wait begin or end
    /// at another time.
    pub time_s: u64,
    /// What it does.
    pub op: Op,
    /// Hash of the account's state after it.
    pub state: Hash,
}

/// As what a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Role {
    /// A device of the account.
    Device = 1,
    /// The recovery kit.
    Kit = 2,
    /// The contacts' key.
    Contacts = 3,
}

/// One signature over a body.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Signature {
    /// As what.
    pub role: Role,
    /// Which key.
    pub key: DeviceId,
    /// Hybrid signature, 3,373 bytes.
    pub signature: VLBytes,
}

/// A block of an account chain.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Block {
    /// What is signed.
    pub body: Body,
    /// By whom; one or two.
    pub signatures: Vec<Signature>,
    /// A new device's own signature, so that nobody can name a key that is not theirs; else empty.
    pub pop: VLBytes,
}

impl Block {
    /// Reads a block.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let block: Self = decode("block", bytes, limits::BLOCK_LEN_MAX)?;
        let lens = block.signatures.iter().all(|s| s.signature.as_slice().len() == SIGNATURE_LEN);
        let pop = block.pop.as_slice().len();
        let is_one = block.body.version == 1
            && (1..=2).contains(&block.signatures.len())
            && lens
            && (pop == 0 || pop == SIGNATURE_LEN);
        if is_one { Ok(block) } else { Err(Malformed { what: "block" }) }
    }

    /// Returns the block's hash, by which it is named: that of its body.
    #[must_use]
    pub fn hash(&self) -> Hash {
        block_hash(&self.body)
    }

    /// Returns the device that the block makes known, if it does.
    #[must_use]
    pub fn new_device(&self) -> Option<&DeviceInfo> {
        match &self.body.op {
            Op::Genesis { device, .. }
            | Op::AddDevice { device, .. }
            | Op::RotateDevice { device, .. }
            | Op::RecoveryStart { device, .. } => Some(device),
            _ => None,
        }
    }

    /// Returns the account key that the block names, if it names one.
    #[must_use]
    pub fn key(&self) -> Option<&AccountKey> {
        match &self.body.op {
            Op::Genesis { key, .. }
            | Op::AddDevice { key, .. }
            | Op::RemoveDevice { key, .. }
            | Op::RotateDevice { key, .. }
            | Op::Set { key, .. }
            | Op::DelayFinish { key, .. }
            | Op::RecoveryFinish { key, .. } => Some(key),
            Op::DelayStart { .. } | Op::RecoveryStart { .. } | Op::Veto { .. } => None,
        }
    }

    /// Returns whether `key` has signed as what `role` says.
    pub(crate) fn is_signed(&self, role: Role, key: &[u8]) -> bool {
        let id = device_id(key);
        let bytes = encode(&self.body);
        self.signatures.iter().any(|s| {
            s.role == role
                && s.key == id
                && verify(labels::BLOCK, key, &bytes, s.signature.as_slice()).is_ok()
        })
    }

    /// Returns whether a public key has signed the body.
    pub(crate) fn is_signed_by(&self, key: &[u8]) -> bool {
        let (id, bytes) = (device_id(key), encode(&self.body));
        let by = self.signatures.iter().find(|signature| signature.key == id);
        by.is_some_and(|s| verify(labels::BLOCK, key, &bytes, s.signature.as_slice()).is_ok())
    }

    /// Returns whether the new device has signed that it joins, in this ceremony.
    pub(crate) fn has_pop(&self, device: &DeviceInfo, transcript: &Hash) -> bool {
        let bytes = pop_bytes(self.body.account, device, transcript);
        let key = device.signing.as_slice();
        verify(labels::DEVICE_POP, key, &bytes, self.pop.as_slice()).is_ok()
    }
}

impl Body {
    /// Signs the body by each of `signers`.
    #[must_use]
    pub fn sign(self, signers: &[(Role, &SigningKey)], pop: Vec<u8>) -> Block {
        let bytes = encode(&self);
        let signatures = signers
            .iter()
            .map(|(role, key)| Signature {
                role: *role,
                key: device_id(key.public_key()),
                signature: key.sign(labels::BLOCK, &bytes).into(),
            })
            .collect();
        Block { body: self, signatures, pop: pop.into() }
    }
}

/// Signs that the device `info` joins `account`, in the ceremony `transcript` (zeros where there is
/// none). It names no place in the chain, so it survives another block in between.
#[must_use]
pub fn pop(key: &SigningKey, account: AccountId, info: &DeviceInfo, transcript: &Hash) -> Vec<u8> {
    key.sign(labels::DEVICE_POP, &pop_bytes(account, info, transcript))
}

/// Returns the id of the device, or the recovery key, with this public signing key.
#[must_use]
pub fn device_id(signing: &[u8]) -> DeviceId {
    DeviceId(hash(labels::DEVICE, &[signing]))
}

/// Returns the hash that names a block.
#[must_use]
pub fn block_hash(body: &Body) -> Hash {
    hash(labels::BLOCK, &[&encode(body)])
}

/// Returns the id of the account that a genesis begins.
#[must_use]
pub fn account_id(genesis: &Body) -> AccountId {
    AccountId(hash(labels::ACCOUNT, &[&encode(genesis)]))
}

/// Returns what a genesis commits to of the account's seed.
#[must_use]
pub fn seed_commit(seed: &Secret32) -> Hash {
    hash(labels::SEED_COMMIT, &[seed.expose()])
}

/// Returns the hash by which a block names a key block.
#[must_use]
pub fn key_block_hash(key_block: &[u8]) -> Hash {
    hash(labels::KEY_BLOCK, &[key_block])
}

/// Returns the hash by which a block names a witness policy.
#[must_use]
pub fn policy_hash(text: &str) -> Hash {
    hash(labels::WITNESS_POLICY, &[text.as_bytes()])
}

fn pop_bytes(account: AccountId, device: &DeviceInfo, transcript: &Hash) -> Vec<u8> {
    [encode(&account), encode(device), transcript.to_vec()].concat()
}

fn are_keys(signing: &VLBytes, sealing: &VLBytes) -> bool {
    signing.as_slice().len() == PUBLIC_KEY_LEN && sealing.as_slice().len() == SEALING_PUBLIC_LEN
}
