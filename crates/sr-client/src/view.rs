//! The vault as the newest accepted head has it: verified, or not at all.

use std::{fs, path::PathBuf};

use sr_crypto::text;
use sr_vault::{
    ChunkIds,
    block::{self, Kind},
    head::{self, HeadPlace, Shown},
    index::{ChunkIndex, INDEX_LEN_MAX, Index, IndexPack},
    manifest::{IndexRef, MANIFEST_LEN_MAX, Manifest, index_hash},
    pack::{OpenSlots, Slots},
};
use sr_wire::{
    Misbehaviour, PackId, SealedHead,
    api::{ErrorCode, HeadResponse},
};

use crate::{ClientError, profile::Profile, profile::write_durably, remote::Remote};

/// A verified vault.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) place: HeadPlace,
    pub(crate) manifest: Manifest,
    /// The packs that hold the manifest and the indexes.
    pub(crate) list_packs: Vec<PackId>,
    /// Whether an index could not be read.
    pub(crate) lists_damaged: bool,
    pub(crate) index: ChunkIndex,
    /// What indexes in damaged packs say, for a new index; the manifest names those no more.
    pub(crate) to_index_anew: Vec<IndexPack>,
}

impl View {
    /// Asks the server for the newest head and takes it if it may be shown to this client. What is
    /// in the packs `without` counts as not stored.
    pub(crate) fn open(
        profile: &mut Profile,
        remote: &Remote,
        ids: &ChunkIds,
        without: &[PackId],
    ) -> Result<Self, ClientError> {
        if !profile.has_space()? {
            return Ok(Self::empty());
        }
        let response = remote.read_head(&profile.keys.vault, profile.answer()?.as_ref());
        let response = match response {
            Err(ClientError::ServerRefused(ErrorCode::NotFound))
                if profile.takes_first_head()? =>
            {
                return Err(ClientError::NotFound("backup of these keys on this server".into()));
            }
            // SR-006: a space that this client made is not there any more.
            Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
                return Err(Misbehaviour::HeadRolledBack.into());
            }
            response => response?,
        };
        let Some(sealed) = accept(profile, remote, response)? else { return Ok(Self::empty()) };
        let device = profile.keys.device();
        let head = head::open(&sealed, &profile.keys.vault, device.public_key())?;
        let cache = Cache { dir: profile.cache_dir()? };
        let fetch = Fetch { profile, remote, cache };
        let mut manifest = fetch.manifest(head.manifest, ids, &head)?;
        fetch.cache.keep_only(&manifest, head.manifest);
        let mut list_packs: Vec<_> = manifest.indexes.iter().map(|index| index.pack).collect();
        list_packs.push(head.manifest);
        let mut index = ChunkIndex::default();
        let (mut to_index_anew, mut indexed_anew) = (Vec::new(), Vec::new());
        let mut lists_damaged = false;
        for index_ref in &manifest.indexes {
            // Without a damaged index, what only it knows is refused file by file.
            let packs = match fetch.index(index_ref) {
                Ok(index) => index.packs,
                Err(ClientError::Misbehaviour(_)) => {
                    lists_damaged = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            packs
                .iter()
                .filter(|pack| !without.contains(&pack.id))
                .for_each(|pack| index.add(pack));
            if without.contains(&index_ref.pack) {
                to_index_anew.extend(packs);
                indexed_anew.push(index_ref.hash);
            }
        }
        manifest.indexes.retain(|index| !indexed_anew.contains(&index.hash));
        let place = HeadPlace::of(Some(&sealed));
        Ok(Self { place, manifest, list_packs, lists_damaged, index, to_index_anew })
    }

    fn empty() -> Self {
        Self {
            place: HeadPlace::EMPTY,
            manifest: Manifest::default(),
            list_packs: Vec::new(),
            lists_damaged: false,
            index: ChunkIndex::default(),
            to_index_anew: Vec::new(),
        }
    }

    /// Adds what an interrupted run stored, as far as the server has it.
    pub(crate) fn adopt_pending(
        &mut self,
        profile: &Profile,
        remote: &Remote,
    ) -> Result<Vec<IndexPack>, ClientError> {
        let mut pending = profile.pending()?;
        if pending.is_empty() {
            return Ok(pending);
        }
        let ids: Vec<PackId> = pending.iter().map(|pack| pack.id).collect();
        let missing = remote.missing(&profile.keys.vault, &ids)?;
        profile.remove_pending(&missing)?;
        pending.retain(|pack| !missing.contains(&pack.id));
        for pack in &pending {
            self.index.add(pack);
        }
        Ok(pending)
    }
}

/// Judges the head that the server shows. One that was sent and whose answer was lost is accepted
/// if it arrived, and sent again, byte for byte, if it did not.
fn accept(
    profile: &mut Profile,
    remote: &Remote,
    response: HeadResponse,
) -> Result<Option<SealedHead>, ClientError> {
    if profile.takes_first_head()? {
        if let Some(head) = &response.head {
            let device = profile.keys.device();
            head::open(head, &profile.keys.vault, device.public_key())?;
        }
        profile.set_answer(&response.answer)?;
        profile.accept_first(response.head.as_ref())?;
        return Ok(response.head);
    }
    let accepted = profile.accepted()?;
    let sent = profile.sent()?;
    let sent_place = sent.as_ref().map(|head| HeadPlace::of(Some(head)));
    let shown = head::judge(accepted, sent_place, HeadPlace::of(response.head.as_ref()))?;
    profile.set_answer(&response.answer)?;
    match (shown, sent) {
        (Shown::Sent, Some(sent)) => {
            profile.accept_sent(&sent)?;
            Ok(Some(sent))
        }
        (Shown::Accepted, Some(sent)) => send(profile, remote, &sent).map(|()| Some(sent)),
        (_, None) => Ok(response.head),
    }
}

/// Sends a head that is remembered as sent, and accepts it when the server shows it.
pub(crate) fn send(
    profile: &mut Profile,
    remote: &Remote,
    head: &SealedHead,
) -> Result<(), ClientError> {
    let response = remote.swap_head(&profile.keys.vault, head, profile.answer()?.as_ref())?;
    let shown = HeadPlace::of(response.head.as_ref());
    if shown != HeadPlace::of(Some(head)) {
        head::judge(profile.accepted()?, None, shown)?;
        // The server keeps the old head and gives no reason: it breaks the protocol. SR-016
        return Err(Misbehaviour::ResponseMalformed.into());
    }
    profile.set_answer(&response.answer)?;
    profile.accept_sent(head)
}

/// Fetches small objects, from the cache when it has them.
struct Fetch<'a> {
    profile: &'a Profile,
    remote: &'a Remote,
    cache: Cache,
}

impl Fetch<'_> {
    fn manifest(
        &self,
        pack: PackId,
        ids: &ChunkIds,
        head: &head::Head,
    ) -> Result<Manifest, ClientError> {
        let verify = |raw: &[u8]| Manifest::verify(raw, ids, &head.snapshot_set, &head.index_set);
        let name = manifest_name(pack);
        if let Some(raw) = self.cache.read(&name)
            && let Ok(manifest) = verify(&raw)
        {
            return Ok(manifest);
        }
        let (len, bytes) = self.remote.get_pack(&self.profile.keys.vault, pack, Slots::ALL)?;
        let opened = OpenSlots::open(&self.profile.keys.vault, pack, None, len, 0, bytes)?;
        let raw = parse_manifest_blob(opened.only(Kind::Manifest)?)?;
        let manifest = verify(&raw)?;
        self.cache.write(&name, &raw)?;
        Ok(manifest)
    }

    fn index(&self, index: &IndexRef) -> Result<Index, ClientError> {
        let name = index_name(index);
        // SR-013: an index counts only if the signed set names its bytes.
        let parse = |raw: &[u8]| {
            Misbehaviour::IndexSetMismatch.refuse_if(index_hash(raw) != index.hash)?;
            Index::parse(raw).map_err(|_| Misbehaviour::ObjectMalformed)
        };
        if let Some(raw) = self.cache.read(&name)
            && let Ok(parsed) = parse(&raw)
        {
            return Ok(parsed);
        }
        let keys = &self.profile.keys.vault;
        let slots = Slots::of_range(index.offset as usize, index.stored_len as usize);
        let (len, bytes) = self.remote.get_pack(keys, index.pack, slots)?;
        let commitment = Some(&index.commitment);
        let opened = OpenSlots::open(keys, index.pack, commitment, len, slots.first, bytes)?;
        let stored =
            opened.bytes(index.offset, index.stored_len).ok_or(Misbehaviour::ObjectMalformed)?;
        let raw = block::expand(stored, index.raw_len as usize, INDEX_LEN_MAX)
            .map_err(|_| Misbehaviour::ObjectMalformed)?;
        let parsed = parse(&raw)?;
        self.cache.write(&name, &raw)?;
        Ok(parsed)
    }
}

/// Returns the blob of a manifest: its raw length, then its stored form.
pub(crate) fn manifest_blob(raw: &[u8], stored: &[u8]) -> Vec<u8> {
    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    [&raw_len.to_be_bytes(), stored].concat()
}

fn parse_manifest_blob(blob: &[u8]) -> Result<Vec<u8>, Misbehaviour> {
    let malformed = Misbehaviour::ObjectMalformed;
    let (raw_len, stored) = blob.split_first_chunk::<4>().ok_or(malformed)?;
    let raw_len = u32::from_be_bytes(*raw_len) as usize;
    block::expand(stored, raw_len, MANIFEST_LEN_MAX).map_err(|_| malformed)
}

/// Raw manifests and indexes. What is read from it is checked like what comes from the server.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) dir: PathBuf,
}

impl Cache {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join(name)).ok()
    }

    pub(crate) fn write(&self, name: &str, raw: &[u8]) -> Result<(), ClientError> {
        write_durably(&self.dir.join(name), raw)
    }

    /// Deletes what no head names any more.
    pub(crate) fn keep_only(&self, manifest: &Manifest, pack: PackId) {
        let mut wanted: Vec<String> = manifest.indexes.iter().map(index_name).collect();
        wanted.push(manifest_name(pack));
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.starts_with("index-") || name.starts_with("manifest-");
            if is_ours && !wanted.iter().any(|w| *w == name) {
                // A cache entry that stays costs disk space only.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

pub(crate) fn manifest_name(pack: PackId) -> String {
    format!("manifest-{pack}")
}

pub(crate) fn index_name(index: &IndexRef) -> String {
    format!("index-{}", text::to_base32(&index.hash))
}
