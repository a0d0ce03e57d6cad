//! Heads: the one signed sentence that says what a vault is now. See `spec/head.md`.

use sr_crypto::{CryptoRng, Hash, SigningKey, hash, open_box, seal_box, verify};
use sr_keys::{Anchor, Removal, VaultKeys};
use sr_trust::{Account, Device, Verified, device_id};
use sr_wire::{
    AccountId, DeviceId, EMPTY_HEAD_HASH, Malformed, Misbehaviour, PackId, SealedHead, SpaceId,
    VaultId,
    check::enforced,
    decode, decode_first, encode, labels,
    limits::{HEAD_LEN, SEALED_HEAD_LEN},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::manifest::{Elements, Manifest};

/// What a device signs about its vault.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Head {
    /// The vault.
    pub vault: VaultId,
    /// Place in the chain of heads, from 1.
    pub seq: u64,
    /// Hash of the sealed head before.
    pub previous: Hash,
    /// Root of the set of snapshots.
    pub snapshot_set: Hash,
    /// Root of the set of indexes.
    pub index_set: Hash,
    /// The pack that holds the manifest.
    pub manifest: PackId,
    /// Generation of the vault key.
    pub generation: u32,
    /// Root of those who may sign: the account, whose chain names its devices.
    pub members: Hash,
    /// Who signed.
    pub signer: DeviceId,
    /// The newest block of the account chain that the signer had accepted.
    pub chain_seq: u64,
    /// Its hash.
    pub chain_hash: Hash,
    /// Unix seconds by the signer's clock.
    pub time_s: u64,
    /// By a limited device: what it adds to the sets of the newest head before that counts.
    pub adds: Elements,
}

/// A limited device adds no more elements under one head, which has no room for them.
pub const ADDS_MAX: usize = 128;

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct SignedHead {
    head: VLBytes,
    signature: VLBytes,
}

/// A head that this client accepted, or sent and awaits an answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPlace {
    /// Its seq; 0 for a space without a head.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl HeadPlace {
    /// The place before the first head.
    pub const EMPTY: Self = Self { seq: 0, hash: EMPTY_HEAD_HASH };

    /// Returns the place of `head`, [`HeadPlace::EMPTY`] for none.
    #[must_use]
    pub fn of(head: Option<&SealedHead>) -> Self {
        head.map_or(Self::EMPTY, |head| Self { seq: head.seq, hash: head.hash() })
    }
}

/// What a new head says.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// The head before.
    pub previous: HeadPlace,
    /// Root of the set of snapshots.
    pub snapshot_set: Hash,
    /// Root of the set of indexes.
    pub index_set: Hash,
    /// The pack that holds the manifest.
    pub manifest: PackId,
    /// Unix seconds.
    pub time_s: u64,
    /// Of a limited device, what is added: [`ADDS_MAX`] elements at most.
    pub adds: Elements,
}

impl NewHead {
    /// Signs and seals the head that follows `previous`, by a device of `account`.
    #[must_use]
    pub fn seal(
        &self,
        keys: &VaultKeys,
        account: &Verified<Account>,
        device: &SigningKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> SealedHead {
        let head = Head {
            vault: keys.vault(),
            seq: self.previous.seq + 1,
            previous: self.previous.hash,
            snapshot_set: self.snapshot_set,
            index_set: self.index_set,
            manifest: self.manifest,
            generation: keys.generation(),
            members: members_root(account.id()),
            signer: device_id(device.public_key()),
            chain_seq: account.seq(),
            chain_hash: account.newest(),
            time_s: self.time_s,
            adds: self.adds.clone(),
        };
        seal(&head, keys, device, rng)
    }
}

/// Opens a head and verifies that a device of the account signed it, which was live at the place in
/// the account chain that the head names.
///
/// **Errors** [`Misbehaviour::HeadAltered`], [`Misbehaviour::PlaceMismatch`],
/// [`Misbehaviour::SignerUnknown`].
pub fn open(
    sealed: &SealedHead,
    keys: &VaultKeys,
    account: &Verified<Account>,
) -> Result<Head, Misbehaviour> {
    // SR-005
    let altered = Misbehaviour::HeadAltered;
    if sealed.sealed.as_slice().len() != SEALED_HEAD_LEN || sealed.space != keys.space() {
        return Err(altered);
    }
    let key = keys.head_key(sealed.generation).ok_or(altered)?;
    let aad = sealed.associated_data();
    let plain =
        open_box(&key, labels::HEAD, &aad, sealed.sealed.as_slice()).map_err(|_| altered)?;
    let (bytes, signature) = split(&plain).map_err(|_| altered)?;
    let head: Head = decode("head", &bytes, HEAD_LEN).map_err(|_| altered)?;
    let outside = (head.seq, head.previous, head.generation);
    if head.vault != keys.vault() || outside != (sealed.seq, sealed.previous, sealed.generation) {
        return Err(altered);
    }
    // SR-026: a place that the chain does not have.
    Misbehaviour::PlaceMismatch
        .refuse_if(account.block_hash(head.chain_seq) != Some(head.chain_hash))?;
    let signed = account.device(head.signer).is_some_and(|device| {
        let key = device.info.signing.as_slice();
        device.was_live(head.chain_seq)
            && verify(labels::HEAD_SIGN, key, &bytes, &signature).is_ok()
    });
    // SR-014
    Misbehaviour::SignerUnknown.refuse_if(!signed || head.members != members_root(account.id()))?;
    Ok(head)
}

/// Decides whether the head that the server shows may be one that follows what this client, and the
/// devices that removed others, had accepted.
///
/// **Errors** [`Misbehaviour::HeadRolledBack`], and [`Misbehaviour::HeadForked`] for another head at
/// the same place.
pub fn judge(
    accepted: HeadPlace,
    space: SpaceId,
    removals: &[Removal],
    shown: HeadPlace,
) -> Result<(), Misbehaviour> {
    let floor = anchors(space, removals).map(|anchor| anchor.seq).max().unwrap_or(0);
    // SR-006
    Misbehaviour::HeadRolledBack.refuse_if(shown.seq < accepted.seq.max(floor))?;
    // SR-007
    Misbehaviour::HeadForked.refuse_if(shown.seq == accepted.seq && shown != accepted)
}

/// A head, where it stands, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its place.
    pub place: HeadPlace,
    /// What it says.
    pub head: Head,
}

/// What a client has accepted of a space before the heads that it follows now.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The newest head, whoever signed it.
    pub place: HeadPlace,
    /// Its place in the account chain.
    pub chain_seq: u64,
    /// The newest head that counts; `None` for a space without one, and when it is not known.
    pub head: Option<&'a Head>,
}

impl Before<'_> {
    /// The beginning of a space.
    pub const NOTHING: Self = Self { place: HeadPlace::EMPTY, chain_seq: 0, head: None };

    fn sets(&self) -> Option<(Hash, Hash)> {
        match self.head {
            None if self.place == HeadPlace::EMPTY => {
                let nothing = Manifest::default();
                Some((nothing.snapshot_set(), nothing.index_set()))
            }
            head => head.map(|head| (head.snapshot_set, head.index_set)),
        }
    }
}

/// Verifies that `heads` are a chain that follows `before`, each by a device that might sign it, and
/// tells which count: not the ones by a device that was removed, above the heads at which it was, and
/// not those by a limited device that do more than add. In the vault of a limited device, one that does
/// not open does not count either.
///
/// **Errors** [`Misbehaviour::HeadForked`], [`Misbehaviour::PlaceMismatch`], those of [`open`].
pub fn follow(
    before: Before<'_>,
    heads: &[SealedHead],
    keys: &VaultKeys,
    account: &Verified<Account>,
    removals: &[Removal],
) -> Result<Judged, Misbehaviour> {
    let mut judged = Judged { chain_seq: before.chain_seq, ..Judged::default() };
    let mut previous = before.place;
    for sealed in heads {
        // SR-007: it does not follow the one before.
        let follows = sealed.seq == previous.seq + 1 && sealed.previous == previous.hash;
        Misbehaviour::HeadForked.refuse_if(!follows)?;
        let place = HeadPlace::of(Some(sealed));
        // SR-007: another history than the one that a device saw which removed another.
        let differs = anchors(keys.space(), removals)
            .any(|anchor| anchor.seq == place.seq && anchor.hash != place.hash);
        Misbehaviour::HeadForked.refuse_if(differs)?;
        previous = place;
        // SR-026: a head names no earlier place in the account chain than the head before.
        let opened = open(sealed, keys, account).and_then(|head| {
            Misbehaviour::PlaceMismatch.refuse_if(head.chain_seq < judged.chain_seq)?;
            Ok(head)
        });
        let head = match opened {
            Ok(head) => head,
            // Whoever has stolen a limited device can store any bytes as a head of its vault.
            Err(refused) if keys.limited().is_some() => {
                let is_newer = sealed.generation > keys.generation();
                judged.is_ahead |= is_newer || refused == Misbehaviour::PlaceMismatch;
                judged.overreach = keys.limited();
                continue;
            }
            Err(refused) => return Err(refused),
        };
        judged.chain_seq = head.chain_seq;
        let sets = match judged.counting.last() {
            Some(Opened { head, .. }) => Some((head.snapshot_set, head.index_set)),
            None => before.sets(),
        };
        let counts = counts(&head, place, keys.space(), account, removals);
        if !counts && enforced(Misbehaviour::SignerUnknown) {
            continue;
        }
        // SR-031; a remover has judged its anchor already.
        let may = is_anchor(place, keys.space(), removals) || may_sign(&head, sets, keys, account);
        if !may && enforced(Misbehaviour::LimitedOverreach) {
            judged.overreach = Some(head.signer);
            continue;
        }
        judged.counting.push(Opened { place, head });
    }
    Ok(judged)
}

/// A chain of heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The heads that count, oldest first.
    pub counting: Vec<Opened>,
    /// The newest place in the account chain that a head names.
    pub chain_seq: u64,
    /// A limited device in whose vault there is a head by it that does more than add, or one that does
    /// not open. It does not count.
    pub overreach: Option<DeviceId>,
    /// Whether a head that does not open may be of a later account than the one that is known.
    pub is_ahead: bool,
}

/// A limited device writes to its own vault only, and only adds (SR-031).
fn may_sign(
    head: &Head,
    before: Option<(Hash, Hash)>,
    keys: &VaultKeys,
    account: &Verified<Account>,
) -> bool {
    if account.device(head.signer).is_none_or(Device::is_full) {
        return true;
    }
    let adds_only = |sets| head.adds.added_to(sets) == (head.snapshot_set, head.index_set);
    keys.limited() == Some(head.signer) && before.is_some_and(adds_only)
}

/// The tip rule (SR-014): a head counts if its signer is live now, or if the device that removed the
/// signer had accepted it. So it does if it is the very head that some remover went on from, whoever
/// that one removed.
#[must_use]
pub fn counts(
    head: &Head,
    place: HeadPlace,
    space: SpaceId,
    account: &Verified<Account>,
    removals: &[Removal],
) -> bool {
    let Some(device) = account.device(head.signer) else { return false };
    let Some((removed, _)) = device.removed else { return true };
    let own = removals.iter().filter(|removal| removal.seq == removed);
    let mut own = own.flat_map(|removal| &removal.anchors).filter(|anchor| anchor.space == space);
    own.any(|anchor| place.seq <= anchor.seq) || is_anchor(place, space, removals)
}

/// Returns whether a head is the very one that some remover went on from.
#[must_use]
pub fn is_anchor(place: HeadPlace, space: SpaceId, removals: &[Removal]) -> bool {
    anchors(space, removals).any(|anchor| (anchor.seq, anchor.hash) == (place.seq, place.hash))
}

fn anchors(space: SpaceId, removals: &[Removal]) -> impl Iterator<Item = &Anchor> {
    removals.iter().flat_map(|removal| &removal.anchors).filter(move |a| a.space == space)
}

fn seal(
    head: &Head,
    keys: &VaultKeys,
    device: &SigningKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> SealedHead {
    let bytes = encode(head);
    let signature = device.sign(labels::HEAD_SIGN, &bytes);
    let mut plain = encode(&SignedHead { head: bytes.into(), signature: signature.into() });
    plain.resize(HEAD_LEN, 0);
    let mut sealed = SealedHead {
        space: keys.space(),
        seq: head.seq,
        generation: head.generation,
        previous: head.previous,
        sealed: Vec::new().into(),
    };
    let aad = sealed.associated_data();
    if let Some(key) = keys.head_key(head.generation) {
        sealed.sealed = seal_box(&key, labels::HEAD, &aad, &plain, rng).into();
    }
    sealed
}

fn split(plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let malformed = Malformed { what: "head" };
    let (signed, padding): (SignedHead, _) = decode_first("head", plain)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(malformed);
    }
    Ok((signed.head.into(), signed.signature.into()))
}

fn members_root(account: AccountId) -> Hash {
    hash(labels::MEMBERS, &[&account.0])
}
