//! The root record: what the account's own devices know of it and nobody else. See
//! `spec/root-record.md`.

use sr_crypto::{Hash, hash};
use sr_trust::policy_hash;
use sr_wire::{DeviceId, Malformed, SpaceId, VLBytes, VaultId, decode, encode, labels};
use tls_codec::{DeserializeBytes, TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{ContactCard, Freshness};

/// No record is longer.
const RECORD_LEN_MAX: usize = 4 << 20;
/// So many devices tell what they were shown; it is about 4 KB each.
const TOLD_MAX: usize = 8;
/// No note that they tell is longer.
pub const TOLD_LEN_MAX: usize = 8 * 1024;

/// One of the account's vaults.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct VaultEntry {
    /// Its id.
    pub vault: VaultId,
    /// Its space.
    pub space: SpaceId,
}

#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct DeviceName {
    device: DeviceId,
    name: VLBytes,
}

#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Noted {
    id: VLBytes,
    made_s: u64,
    checked_s: u64,
}

/// What the devices know of the kit in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitNote {
    /// Its eight characters.
    pub id: String,
    /// Unix seconds when it was made.
    pub made_s: u64,
    /// Unix seconds when it was last tried.
    pub checked_s: u64,
}

/// A recovery contact.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Contact {
    name: VLBytes,
    /// Their card, whose words were compared.
    pub card: ContactCard,
    /// Number and hash of the newest change of their account when their share was sealed to it.
    pub seq: u64,
    /// See [`Contact::seq`].
    pub block: Hash,
}

impl Contact {
    /// Returns a contact by the name that the owner gives them.
    #[must_use]
    pub fn new(name: &str, card: ContactCard, (seq, block): (u64, Hash)) -> Self {
        Self { name: name.as_bytes().to_vec().into(), card, seq, block }
    }

    /// Returns the name that the owner gives them.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.name.as_slice()).into_owned()
    }
}

/// The root record.
#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct RootRecord {
    /// The vaults.
    pub vaults: Vec<VaultEntry>,
    names: Vec<DeviceName>,
    kit: Option<Noted>,
    /// The kit that owns the account's spaces, by the id of its signing key.
    pub owner: Option<DeviceId>,
    /// How many contacts are needed, and who they are.
    need: u8,
    contacts: Vec<Contact>,
    /// Shares of other people's accounts that this account keeps, sealed to it.
    shares: Vec<VLBytes>,
    /// What follows the rest, if there is something in it.
    #[tls_codec(skip)]
    later: Later,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Later {
    /// Witness policies, of which the chain names one by its hash; the newest last.
    policies: Vec<VLBytes>,
    /// The newest state that is in the log, or on its way there.
    freshness: Option<Freshness>,
    /// What devices have been shown of the server's log, the newest last.
    told: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Told {
    device: DeviceId,
    time_s: u64,
    /// A checkpoint, as the log has signed it.
    note: VLBytes,
}

impl RootRecord {
    /// Returns the canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        if self.later != Later::default() {
            bytes.extend(encode(&self.later));
        }
        bytes
    }

    /// Reads a record.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "root record" };
        if bytes.len() > RECORD_LEN_MAX {
            return Err(malformed);
        }
        let (mut record, rest) = Self::tls_deserialize_bytes(bytes).map_err(|_| malformed)?;
        if !rest.is_empty() {
            record.later = decode("root record", rest, RECORD_LEN_MAX)?;
        }
        let told = &record.later.told;
        let is_short = |told: &Told| told.note.as_slice().len() <= TOLD_LEN_MAX;
        let fits = told.len() <= TOLD_MAX && told.iter().all(is_short);
        // Its one form.
        if fits && record.to_bytes() == bytes { Ok(record) } else { Err(malformed) }
    }

    /// Returns what the head of the root space commits to.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(labels::ROOT_RECORD, &[&self.to_bytes()])
    }

    /// Returns the name of a device.
    #[must_use]
    pub fn name(&self, device: DeviceId) -> Option<String> {
        let entry = self.names.iter().find(|entry| entry.device == device)?;
        Some(String::from_utf8_lossy(entry.name.as_slice()).into_owned())
    }

    /// Returns what is known of the kit in force.
    #[must_use]
    pub fn kit(&self) -> Option<KitNote> {
        let kit = self.kit.as_ref()?;
        let id = String::from_utf8_lossy(kit.id.as_slice()).into_owned();
        Some(KitNote { id, made_s: kit.made_s, checked_s: kit.checked_s })
    }

    /// Notes the kit in force.
    pub fn set_kit(&mut self, note: &KitNote) {
        let id = note.id.as_bytes().to_vec().into();
        self.kit = Some(Noted { id, made_s: note.made_s, checked_s: note.checked_s });
    }

    /// Returns how many contacts are needed, and who they are.
    #[must_use]
    pub fn contacts(&self) -> (u8, &[Contact]) {
        (self.need, &self.contacts)
    }

    /// Notes the contacts.
    pub fn set_contacts(&mut self, need: u8, contacts: &[Contact]) {
        self.need = need;
        self.contacts = contacts.to_vec();
    }

    /// Returns the shares that this account keeps for others, sealed to it.
    pub fn shares(&self) -> impl Iterator<Item = String> + '_ {
        self.shares.iter().map(|share| String::from_utf8_lossy(share.as_slice()).into_owned())
    }

    /// Keeps a share.
    pub fn add_share(&mut self, share: &str) {
        let share: VLBytes = share.trim().as_bytes().to_vec().into();
        if !self.shares.contains(&share) {
            self.shares.push(share);
        }
    }

    /// Returns the text of a witness policy.
    #[must_use]
    pub fn policy(&self, pin: &Hash) -> Option<String> {
        let mut texts =
            self.later.policies.iter().filter_map(|text| str::from_utf8(text.as_slice()).ok());
        texts.find(|text| policy_hash(text) == *pin).map(str::to_owned)
    }

    /// Keeps the text of a witness policy. Of the others, the one in force and the newest stay, `max` in all.
    pub fn add_policy(&mut self, text: &str, in_force: &Hash, max: usize) {
        let in_force = self.policy(in_force);
        let is_new = |kept: &VLBytes| kept.as_slice() != text.as_bytes();
        self.later.policies.retain(|kept| is_new(kept));
        self.later.policies.push(text.as_bytes().to_vec().into());
        while self.later.policies.len() > max {
            let is_in_force =
                |kept: &VLBytes| in_force.as_deref().map(str::as_bytes) == Some(kept.as_slice());
            let oldest =
                self.later.policies.iter().position(|kept| !is_in_force(kept)).unwrap_or(0);
            self.later.policies.remove(oldest);
        }
    }

    /// Returns the newest state of the backups that is in the log, or on its way there.
    #[must_use]
    pub fn freshness(&self) -> Option<&Freshness> {
        self.later.freshness.as_ref()
    }

    /// Keeps a state in place of the one before.
    pub fn set_freshness(&mut self, state: Freshness) {
        self.later.freshness = Some(state);
    }

    /// Returns whether a device may tell again what it was shown of the log: it has not for `interval_s`, and nobody
    /// else's newer word goes for it.
    #[must_use]
    pub fn may_tell(&self, device: DeviceId, now_s: u64, interval_s: u64) -> bool {
        let is_old = |told: &&Told| now_s.abs_diff(told.time_s) >= interval_s;
        let (told, own) = (&self.later.told, |told: &&Told| told.device == device);
        match told.iter().find(own) {
            Some(own) => is_old(&own),
            None => told.len() < TOLD_MAX || told.first().is_some_and(|oldest| is_old(&oldest)),
        }
    }

    /// Returns what the other devices were shown of it.
    pub fn told(&self, this: DeviceId) -> impl Iterator<Item = &[u8]> {
        let others = self.later.told.iter().filter(move |told| told.device != this);
        others.map(|told| told.note.as_slice())
    }

    /// Tells the other devices what this one was shown, in place of what it told before.
    pub fn tell(&mut self, device: DeviceId, note: &[u8], time_s: u64) {
        self.later.told.retain(|told| told.device != device);
        self.later.told.push(Told { device, time_s, note: note.to_vec().into() });
        let too_many = self.later.told.len().saturating_sub(TOLD_MAX);
        self.later.told.drain(..too_many);
    }

    /// Gives a device a name.
    pub fn set_name(&mut self, device: DeviceId, name: &str) {
        self.names.retain(|entry| entry.device != device);
        self.names.push(DeviceName { device, name: name.as_bytes().to_vec().into() });
    }
}
