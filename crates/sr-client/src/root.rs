//! The root space: the record of the account's vaults and of its devices' names.

use std::sync::Arc;

use sr_keys::{RootRecord, VaultEntry};
use sr_vault::{
    block::Kind,
    head::NewHead,
    manifest::Elements,
    pack::{OpenSlots, PackBuilder, Slots},
};
use sr_wire::{Misbehaviour, PackId, SpaceId, VaultId};

use crate::{
    ClientError, Clock,
    heads::{self, Sent},
    profile::Profile,
    remote::{Remote, os_rng},
};

/// Reads the newest record.
pub(crate) fn read(profile: &mut Profile, remote: &Remote) -> Result<RootRecord, ClientError> {
    newest(profile, remote, false)
}

fn newest(
    profile: &mut Profile,
    remote: &Remote,
    writing: bool,
) -> Result<RootRecord, ClientError> {
    let keys = Arc::clone(&profile.keys);
    let newest = heads::newest(profile, remote, keys.root()?, writing)?;
    let Some(head) = newest.head else { return Ok(RootRecord::default()) };
    let record = fetch(profile, remote, keys.root()?, head.manifest)?;
    // SR-012
    Misbehaviour::SnapshotSetMismatch.refuse_if(record.hash() != head.snapshot_set)?;
    profile.set_record(&record)?;
    Ok(record)
}

/// Changes the record, on top of whatever it is by then; without a change nothing is written.
pub(crate) fn update(
    profile: &mut Profile,
    remote: &Remote,
    clock: &Clock,
    change: impl Fn(&mut RootRecord),
) -> Result<RootRecord, ClientError> {
    loop {
        let old = newest(profile, remote, true)?;
        let mut record = old.clone();
        change(&mut record);
        if record == old {
            return Ok(record);
        }
        if write(profile, remote, clock, &record)? == Sent::Accepted {
            return Ok(record);
        }
    }
}

/// Writes a record on top of the newest that this client has accepted.
pub(crate) fn write(
    profile: &mut Profile,
    remote: &Remote,
    clock: &Clock,
    record: &RootRecord,
) -> Result<Sent, ClientError> {
    let keys = Arc::clone(&profile.keys);
    let mut pack = PackBuilder::new(PackId::random(&mut os_rng()));
    let id = pack.id();
    pack.push(Kind::Manifest, &record.to_bytes());
    let pack = pack.seal(keys.root()?);
    remote.put_pack(keys.root()?, id, pack.clone(), false)?;
    let head = NewHead {
        previous: heads::current(profile, keys.root()?)?.tip,
        snapshot_set: record.hash(),
        index_set: [0; 32],
        manifest: id,
        time_s: (clock)(),
        adds: Elements::default(),
    }
    .seal(keys.root()?, &keys.account, &keys.device.signing(), &mut os_rng());
    let sent = heads::swap(profile, remote, keys.root()?, &head)?;
    if sent == Sent::Accepted {
        profile.set_record_pack(id, pack)?;
        profile.set_record(record)?;
    }
    Ok(sent)
}

/// Returns a record's vault, or gives it its first.
pub(crate) fn with_vault(record: &mut RootRecord) {
    if record.vaults.is_empty() {
        let mut rng = os_rng();
        let (vault, space) = (VaultId::random(&mut rng), SpaceId::random(&mut rng));
        record.vaults.push(VaultEntry { vault, space });
    }
}

fn fetch(
    profile: &Profile,
    remote: &Remote,
    keys: &sr_keys::VaultKeys,
    pack: PackId,
) -> Result<RootRecord, ClientError> {
    let (len, bytes) = remote.get_pack(keys, pack, Slots::ALL)?;
    let opened = OpenSlots::open(keys, pack, None, len, 0, bytes.clone())?;
    let record = RootRecord::parse(opened.only(Kind::Manifest)?);
    // SR-015
    let record = record.map_err(|_| Misbehaviour::ObjectMalformed)?;
    profile.set_record_pack(pack, bytes)?;
    Ok(record)
}
