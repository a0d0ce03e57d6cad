//! The vault as the newest accepted head has it: verified, or not at all.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use sr_crypto::text;
use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId,
    block::{self, Kind},
    head::{self, HeadPlace},
    index::{ChunkIndex, INDEX_LEN_MAX, Index, IndexPack},
    manifest::{IndexRef, MANIFEST_LEN_MAX, Manifest, index_hash},
    pack::{OpenSlots, Slots},
};
use sr_wire::{Misbehaviour, PackId};

use crate::{ClientError, heads, profile::Profile, profile::write_durably, remote::Remote};

/// A verified vault.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) place: HeadPlace,
    pub(crate) manifest: Manifest,
    pub(crate) index: ChunkIndex,
    /// Chunks whose newest place counts as lost.
    pub(crate) distrusted: Vec<ChunkId>,
    /// Indexes that lie in damaged packs, to be stored again.
    pub(crate) to_index_anew: Vec<Index>,
    /// Packs that the server has lost, as far as opening a limited device's vault has asked.
    pub(crate) gone: Vec<PackId>,
    /// Lists that the server has not or not whole, and whether this device's cache made up for it.
    pub(crate) bad_lists: Vec<(PackId, Misbehaviour, bool)>,
}

/// What a view is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For<'a> {
    /// Reading; lists come from the cache when it has them.
    Reading,
    /// Checking; lists come from the server, whatever the cache has.
    Checking,
    /// Writing the next head; what is in these packs counts as not stored.
    Writing(&'a [PackId]),
}

impl View {
    /// Asks the server for the newest head and takes it if it may be shown to this client.
    pub(crate) fn open(
        profile: &mut Profile,
        remote: &Remote,
        purpose: For<'_>,
    ) -> Result<Self, ClientError> {
        let keys = Arc::clone(&profile.keys);
        if profile.space_generation(keys.vault.space())?.is_none() {
            return Ok(Self::empty());
        }
        let writing = matches!(purpose, For::Writing(_));
        let newest = heads::newest(profile, remote, &keys.vault, writing)?;
        let Some(head) = newest.head else {
            return Ok(Self { place: newest.tip, ..Self::empty() });
        };
        let without = if let For::Writing(without) = purpose { without } else { &[] };
        let mut fetch = Fetch::new(profile, remote, purpose)?;
        let mut manifest = match fetch.manifest(head.manifest, &head) {
            // The server's fault, or that of whoever has stolen the device: taking it out mends it.
            Err(ClientError::Misbehaviour(_)) if keys.vault.limited() == Some(head.signer) => {
                profile.set_overreach(keys.vault.space(), head.signer)?;
                return Err(Misbehaviour::LimitedOverreach.into());
            }
            manifest => manifest?,
        };
        fetch.cache.keep_only(&manifest, head.manifest);
        if keys.vault.limited().is_some() {
            if !writing || !keys.is_limited() {
                manifest.keep_first_listed();
            }
            return Self::of_limited(fetch, newest.tip, manifest, without);
        }
        let (mut index, mut to_index_anew) = (ChunkIndex::default(), Vec::new());
        for index_ref in &manifest.indexes {
            // Without a damaged index, what only it knows is refused file by file.
            let Some(list) = fetch.index(index_ref)? else { continue };
            list.packs.iter().for_each(|pack| index.add(pack));
            if without.contains(&index_ref.pack) {
                to_index_anew.push(list);
            }
        }
        let (place, bad_lists) = (newest.tip, fetch.bad_lists);
        let distrusted = index.distrust(without);
        Ok(Self { place, manifest, index, distrusted, to_index_anew, gone: Vec::new(), bad_lists })
    }

    /// The vault of a limited device: of a chunk that is listed twice, the first place counts that the
    /// server has, and no list is stored anew.
    fn of_limited(
        mut fetch: Fetch<'_>,
        place: HeadPlace,
        manifest: Manifest,
        without: &[PackId],
    ) -> Result<Self, ClientError> {
        let mut packs = Vec::new();
        for index_ref in &manifest.indexes {
            packs.extend(fetch.index(index_ref)?.unwrap_or_default().packs);
        }
        let ids: BTreeSet<PackId> = packs.iter().map(|pack| pack.id).collect();
        let ids: Vec<PackId> = ids.into_iter().collect();
        let mut gone = match ids.is_empty() {
            true => Vec::new(),
            false => fetch.remote.lost(&fetch.profile.keys.vault, &ids)?,
        };
        // What a check has found damaged counts as not there, for reading too.
        let damaged = fetch.profile.damaged_packs()?;
        let not_there: HashSet<PackId> =
            gone.iter().chain(without).chain(&damaged).copied().collect();
        let (lost, there): (Vec<_>, Vec<_>) =
            packs.iter().partition(|pack| not_there.contains(&pack.id));
        let mut index = ChunkIndex::default();
        there.into_iter().for_each(|pack| index.add_new(pack));
        let chunks = lost.iter().flat_map(|pack| &pack.blocks).flat_map(|block| &block.chunks);
        let chunks = chunks.map(|chunk| chunk.id).filter(|id| *id != ChunkId::PRUNED);
        let distrusted: Vec<_> = chunks.filter(|id| index.find(id).is_none()).collect();
        let needed: HashSet<ChunkId> = distrusted.iter().copied().collect();
        let holds = |pack: &&&IndexPack| {
            pack.blocks.iter().flat_map(|b| &b.chunks).any(|chunk| needed.contains(&chunk.id))
        };
        let mut in_use: HashSet<PackId> = lost.iter().filter(holds).map(|pack| pack.id).collect();
        in_use.extend(manifest.indexes.iter().map(|index| index.pack));
        gone.retain(|pack| in_use.contains(pack));
        let (to_index_anew, bad_lists) = (Vec::new(), fetch.bad_lists);
        Ok(Self { place, manifest, index, distrusted, to_index_anew, gone, bad_lists })
    }

    /// A view of which only the lists are wanted.
    pub(crate) fn of_lists(manifest: Manifest) -> Self {
        Self { manifest, ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            place: HeadPlace::EMPTY,
            manifest: Manifest::default(),
            index: ChunkIndex::default(),
            distrusted: Vec::new(),
            to_index_anew: Vec::new(),
            gone: Vec::new(),
            bad_lists: Vec::new(),
        }
    }

    /// Returns the packs that the server, by its signed word, has lost, and that are needed, as far as the
    /// lists say. It is asked once in each run, so that this is found at the next backup, and not at the
    /// restore.
    pub(crate) fn lost(
        &self,
        remote: &Remote,
        keys: &VaultKeys,
    ) -> Result<Vec<PackId>, ClientError> {
        let packs: BTreeSet<PackId> = self.index.packs().collect();
        if packs.is_empty() || keys.limited().is_some() {
            return Ok(self.gone.clone());
        }
        let mut lost = remote.lost(keys, &packs.into_iter().collect::<Vec<_>>())?;
        if !lost.is_empty() {
            let mut in_use = self.index.packs_in_use();
            in_use.extend(self.manifest.indexes.iter().map(|index| index.pack));
            lost.retain(|pack| in_use.contains(pack));
        }
        Ok(lost)
    }

    /// Returns what each pack holds, by all lists, which must be there.
    pub(crate) fn packs(
        &self,
        profile: &Profile,
        remote: &Remote,
    ) -> Result<Vec<IndexPack>, ClientError> {
        let mut fetch = Fetch::new(profile, remote, For::Reading)?;
        let mut packs: Vec<IndexPack> = Vec::new();
        let mut places: HashMap<PackId, usize> = HashMap::new();
        for index_ref in &self.manifest.indexes {
            let Some(list) = fetch.index(index_ref)? else {
                // What it names is not deleted. A limited device may name lists that never were.
                if profile.keys.vault.limited().is_some() {
                    continue;
                }
                // SR-013
                return Err(Misbehaviour::IndexSetMismatch.into());
            };
            for pack in list.packs {
                // One with many chunks is part of several lists.
                match places.get(&pack.id) {
                    Some(place) => packs[*place].blocks.extend(pack.blocks),
                    None => {
                        places.insert(pack.id, packs.len());
                        packs.push(pack);
                    }
                }
            }
        }
        Ok(packs)
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

/// Fetches the lists.
struct Fetch<'a> {
    profile: &'a Profile,
    remote: &'a Remote,
    cache: Cache,
    purpose: For<'a>,
    bad_lists: Vec<(PackId, Misbehaviour, bool)>,
}

/// Returns the manifest that a head names.
pub(crate) fn manifest_of(
    profile: &Profile,
    remote: &Remote,
    head: &head::Head,
) -> Result<Manifest, ClientError> {
    Fetch::new(profile, remote, For::Reading)?.manifest(head.manifest, head)
}

impl<'a> Fetch<'a> {
    fn new(
        profile: &'a Profile,
        remote: &'a Remote,
        purpose: For<'a>,
    ) -> Result<Self, ClientError> {
        let cache = Cache { dir: profile.cache_dir()? };
        Ok(Self { profile, remote, cache, purpose, bad_lists: Vec::new() })
    }

    fn manifest(&mut self, pack: PackId, head: &head::Head) -> Result<Manifest, ClientError> {
        let parse = |raw: &[u8]| Manifest::verify(raw, &head.snapshot_set, &head.index_set);
        let keys = Arc::clone(&self.profile.keys);
        let fetch = |remote: &Remote| {
            let (len, bytes) = remote.get_pack(&keys.vault, pack, Slots::ALL)?;
            let opened = OpenSlots::open(&keys.vault, pack, None, len, 0, bytes)?;
            Ok(parse_manifest_blob(opened.only(Kind::Manifest)?)?)
        };
        self.list(&manifest_name(pack), pack, parse, fetch)
    }

    /// Returns `None` for an index that neither server nor cache has whole.
    fn index(&mut self, index: &IndexRef) -> Result<Option<Index>, ClientError> {
        // SR-013: an index counts only if the signed set names its bytes.
        let parse = |raw: &[u8]| {
            Misbehaviour::IndexSetMismatch.refuse_if(index_hash(raw) != index.hash)?;
            Index::parse(raw).map_err(|_| Misbehaviour::ObjectMalformed)
        };
        let keys = Arc::clone(&self.profile.keys);
        let fetch = |remote: &Remote| {
            let slots = Slots::of_range(index.offset as usize, index.stored_len as usize);
            let (len, bytes) = remote.get_pack(&keys.vault, index.pack, slots)?;
            let seal = Some(&index.seal);
            let opened = OpenSlots::open(&keys.vault, index.pack, seal, len, slots.first, bytes)?;
            let malformed = Misbehaviour::ObjectMalformed;
            let stored = opened.bytes(index.offset, index.stored_len).ok_or(malformed)?;
            let raw = block::expand(stored, index.raw_len as usize, INDEX_LEN_MAX);
            Ok(raw.map_err(|_| malformed)?.into_owned())
        };
        match self.list(&index_name(index), index.pack, parse, fetch) {
            Ok(index) => Ok(Some(index)),
            Err(ClientError::Misbehaviour(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a list from the cache or the server, verified either way, and notes what is wrong with
    /// the server's.
    fn list<T>(
        &mut self,
        name: &str,
        pack: PackId,
        parse: impl Fn(&[u8]) -> Result<T, Misbehaviour>,
        fetch: impl Fn(&Remote) -> Result<Vec<u8>, ClientError>,
    ) -> Result<T, ClientError> {
        let cached = || self.cache.read(name).and_then(|raw| parse(&raw).ok());
        if self.purpose != For::Checking
            && let Some(list) = cached()
        {
            return Ok(list);
        }
        let fetched = fetch(self.remote).and_then(|raw| Ok((parse(&raw)?, raw)));
        match fetched {
            Ok((list, raw)) => {
                self.cache.write(name, &raw)?;
                Ok(list)
            }
            Err(ClientError::Misbehaviour(misbehaviour)) => {
                let cached = cached();
                self.bad_lists.push((pack, misbehaviour, cached.is_some()));
                cached.ok_or(misbehaviour.into())
            }
            Err(error) => Err(error),
        }
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
    let raw = block::expand(stored, raw_len, MANIFEST_LEN_MAX).map_err(|_| malformed)?;
    Ok(raw.into_owned())
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
