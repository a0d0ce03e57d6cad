//! Snapshots, and the manifest that lists them and the indexes. See `spec/manifest.md`.

use std::collections::HashSet;

use sr_crypto::{Hash, Label, hash};
use sr_wire::{DeviceId, Malformed, Misbehaviour, PackId, SnapshotId, decode, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{ChunkIds, pack::PackSeal, tree::Node};

/// No manifest is longer than this before compression: 30,000 snapshots.
pub const MANIFEST_LEN_MAX: usize = 8 << 20;
/// The tag of a snapshot that nobody may forget.
pub const PINNED: &str = "pinned";
/// No tag is longer.
pub const TAG_LEN_MAX: usize = 64;
/// No snapshot has more.
pub const TAGS_MAX: usize = 64;

/// One folder at one point in time.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Snapshot {
    /// Unix seconds at which the run began.
    pub time_s: u64,
    /// One more than the numbers before, which tells two runs in one second apart.
    pub number: u64,
    /// The device.
    pub by: DeviceId,
    /// Its name.
    pub device: VLBytes,
    /// The folder's absolute path on it.
    pub path: VLBytes,
    /// Files in it.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Entries that could not be read, or are of a kind that is not backed up.
    pub skipped: u64,
    /// The folder itself; its name is empty.
    pub root: Node,
}

impl Snapshot {
    /// Returns the snapshot's id: the keyed hash of its bytes.
    #[must_use]
    pub fn id(&self, ids: &ChunkIds) -> SnapshotId {
        SnapshotId(ids.snapshot(&encode(self)))
    }
}

/// A snapshot in the list, and what was said of it since.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Listed {
    /// The snapshot, which never changes.
    pub snapshot: Snapshot,
    /// Words in rising order; [`PINNED`] keeps it from being forgotten.
    pub tags: Vec<VLBytes>,
    /// That it is to be pruned after a wait, which can be undone until then.
    pub forgotten: Option<Forgotten>,
}

/// Who wants a snapshot gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Forgotten {
    /// The device.
    pub by: DeviceId,
    /// Unix seconds by its clock, to be shown; no wait is counted from it.
    pub time_s: u64,
}

impl Listed {
    /// Lists a snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, tags: Vec::new(), forgotten: None }
    }

    /// Returns whether it has a tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|has| has.as_slice() == tag.as_bytes())
    }

    /// Gives it a tag, or takes it away.
    pub fn set_tag(&mut self, tag: &str, has: bool) {
        self.tags.retain(|old| old.as_slice() != tag.as_bytes());
        if has {
            self.tags.push(tag.as_bytes().to_vec().into());
            self.tags.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        }
    }

    fn is_valid(&self) -> bool {
        self.snapshot.root.is_root()
            && self.tags.len() <= TAGS_MAX
            && self.tags.iter().all(|tag| (1..=TAG_LEN_MAX).contains(&tag.as_slice().len()))
            && self.tags.windows(2).all(|pair| pair[0].as_slice() < pair[1].as_slice())
    }
}

/// Where an index lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct IndexRef {
    /// The pack.
    pub pack: PackId,
    /// Offset in its plaintext.
    pub offset: u32,
    /// Length as stored.
    pub stored_len: u32,
    /// Length before compression.
    pub raw_len: u32,
    /// Under which key the pack is sealed.
    pub seal: PackSeal,
    /// `H("index", raw bytes)`.
    pub hash: Hash,
}

/// All snapshots and indexes under one head.
#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Manifest {
    /// The snapshots in the order in which they were stored, forgotten ones among them.
    pub snapshots: Vec<Listed>,
    /// The indexes.
    pub indexes: Vec<IndexRef>,
    /// Packs that nothing needs since the last prune, and that the server may have still.
    pub retired: Vec<PackId>,
}

impl Manifest {
    /// Returns the canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a manifest and checks it against the roots that a head commits to.
    ///
    /// **Errors** [`Misbehaviour::ObjectMalformed`], [`Misbehaviour::SnapshotSetMismatch`],
    /// [`Misbehaviour::IndexSetMismatch`].
    pub fn verify(
        bytes: &[u8],
        snapshot_set: &Hash,
        index_set: &Hash,
    ) -> Result<Self, Misbehaviour> {
        // SR-015
        let manifest = Self::parse(bytes).map_err(|_| Misbehaviour::ObjectMalformed)?;
        // SR-012
        Misbehaviour::SnapshotSetMismatch.refuse_if(manifest.snapshot_set() != *snapshot_set)?;
        // SR-013
        Misbehaviour::IndexSetMismatch.refuse_if(manifest.index_set() != *index_set)?;
        Ok(manifest)
    }

    /// Reads a manifest.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let manifest: Self = decode("manifest", bytes, MANIFEST_LEN_MAX)?;
        if manifest.snapshots.iter().all(Listed::is_valid) {
            Ok(manifest)
        } else {
            Err(Malformed { what: "manifest" })
        }
    }

    /// Returns the snapshots that were not forgotten, in the order in which they were stored.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Listed> + '_ {
        self.snapshots.iter().filter(|listed| listed.forgotten.is_none())
    }

    /// Leaves out snapshots that are listed again: whoever has stolen a limited device can list one
    /// twice.
    pub fn keep_first_listed(&mut self) {
        let mut seen = HashSet::new();
        self.snapshots.retain(|listed| seen.insert(encode(&listed.snapshot)));
    }

    /// Returns the number of the next run.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        let newest = self.snapshots.iter().map(|listed| listed.snapshot.number).max();
        newest.map_or(0, |number| number.saturating_add(1))
    }

    /// Returns the root of the set of snapshots.
    #[must_use]
    pub fn snapshot_set(&self) -> Hash {
        extend(labels::SNAPSHOT_SET, hash(labels::SNAPSHOT_SET, &[]), &self.elements().snapshots)
    }

    /// Returns the root of the set of indexes, and of what is retired.
    #[must_use]
    pub fn index_set(&self) -> Hash {
        let start = hash(labels::INDEX_SET, &[&encode(&self.retired)]);
        extend(labels::INDEX_SET, start, &self.elements().indexes)
    }

    /// Returns what this manifest adds to `before`; `None` when something of it is gone, changed, or
    /// in another place.
    #[must_use]
    pub fn adds_to(&self, before: &Self) -> Option<Elements> {
        let is_more = self.retired == before.retired
            && self.snapshots.starts_with(&before.snapshots)
            && self.indexes.starts_with(&before.indexes);
        let mut all = self.elements();
        all.snapshots.drain(..before.snapshots.len().min(all.snapshots.len()));
        all.indexes.drain(..before.indexes.len().min(all.indexes.len()));
        is_more.then_some(all)
    }

    fn elements(&self) -> Elements {
        let snapshot = |listed: &Listed| hash(labels::SET_SNAPSHOT, &[&encode(listed)]);
        let index = |index: &IndexRef| hash(labels::SET_INDEX, &[&encode(index)]);
        Elements {
            snapshots: self.snapshots.iter().map(snapshot).collect(),
            indexes: self.indexes.iter().map(index).collect(),
        }
    }
}

/// Elements of both sets, by their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Elements {
    /// Of snapshots as they are listed.
    pub snapshots: Vec<Hash>,
    /// Of indexes.
    pub indexes: Vec<Hash>,
}

impl Elements {
    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.snapshots.len() + self.indexes.len()
    }

    /// Returns the roots of both sets after these were added to sets with the roots `before`.
    #[must_use]
    pub fn added_to(&self, before: (Hash, Hash)) -> (Hash, Hash) {
        (
            extend(labels::SNAPSHOT_SET, before.0, &self.snapshots),
            extend(labels::INDEX_SET, before.1, &self.indexes),
        )
    }
}

/// A set's root is a chain of hashes over its elements, so that a head can show, without the lists,
/// that it only adds.
fn extend(label: Label, root: Hash, elements: &[Hash]) -> Hash {
    elements.iter().fold(root, |root, element| hash(label, &[&root, element]))
}

/// Returns the hash by which an [`IndexRef`] names an index's raw bytes.
#[must_use]
pub fn index_hash(raw: &[u8]) -> Hash {
    hash(labels::INDEX, &[raw])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn manifest() -> Manifest {
        let root = Node {
            name: vec![].into(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime_s: 1,
            mtime_ns: 2,
            links: None,
            attributes: vec![],
            content: Content::Folder { chunks: vec![] },
        };
        let snapshot = |time_s| Snapshot {
            time_s,
            number: 0,
            by: DeviceId([4; 32]),
            device: b"laptop".to_vec().into(),
            path: b"/home/ana".to_vec().into(),
            files: 0,
            bytes: 0,
            skipped: 0,
            root: root.clone(),
        };
        let index = IndexRef {
            pack: PackId([1; 32]),
            offset: 0,
            stored_len: 1,
            raw_len: 1,
            seal: PackSeal { generation: 1, commitment: [3; 32] },
            hash: [2; 32],
        };
        let snapshots = vec![Listed::new(snapshot(1)), Listed::new(snapshot(2))];
        Manifest { snapshots, indexes: vec![index], retired: vec![] }
    }

    #[test]
    fn a_manifest_is_taken_under_its_own_roots_only() {
        let manifest = manifest();
        let (snapshots, indexes) = (manifest.snapshot_set(), manifest.index_set());
        let verify = |m: &Manifest| Manifest::verify(&m.to_bytes(), &snapshots, &indexes);
        assert_eq!(verify(&manifest), Ok(manifest.clone()));

        let mut hidden = manifest.clone();
        hidden.snapshots.pop();
        assert_eq!(verify(&hidden), Err(Misbehaviour::SnapshotSetMismatch));
        let mut swapped = manifest.clone();
        swapped.snapshots.swap(0, 1);
        assert_eq!(verify(&swapped), Err(Misbehaviour::SnapshotSetMismatch));
        let mut hidden = manifest.clone();
        hidden.indexes.pop();
        assert_eq!(verify(&hidden), Err(Misbehaviour::IndexSetMismatch));
        let mut named = manifest.clone();
        named.snapshots[0].snapshot.root.name = b"x".to_vec().into();
        assert_eq!(verify(&named), Err(Misbehaviour::ObjectMalformed));
        let mut forgotten = manifest.clone();
        forgotten.snapshots[0].forgotten = Some(Forgotten { by: DeviceId([4; 32]), time_s: 1 });
        assert_eq!(verify(&forgotten), Err(Misbehaviour::SnapshotSetMismatch));
        let mut retired = manifest.clone();
        retired.retired.push(PackId([1; 32]));
        assert_eq!(verify(&retired), Err(Misbehaviour::IndexSetMismatch));
        let mut tagged = manifest.clone();
        tagged.snapshots[0].tags = vec![b"b".to_vec().into(), b"a".to_vec().into()];
        assert_eq!(verify(&tagged), Err(Misbehaviour::ObjectMalformed));
        let bytes = manifest.to_bytes();
        assert!(Manifest::parse(&bytes[1..]).is_err());
        assert!(Manifest::parse(&[]).is_err());
    }
    #[test]
    fn what_is_added_leads_from_root_to_root_and_nothing_else_does() {
        let after = manifest();
        let roots = |of: &Manifest| (of.snapshot_set(), of.index_set());
        for (snapshots, indexes) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
            let mut before = after.clone();
            before.snapshots.truncate(snapshots);
            before.indexes.truncate(indexes);
            let adds = after.adds_to(&before).expect("adds");
            assert_eq!(adds.count(), 3 - snapshots - indexes);
            assert_eq!(adds.added_to(roots(&before)), roots(&after));
            assert_eq!(before.adds_to(&after).is_some(), (snapshots, indexes) == (2, 1));
        }
        let differs = |change: fn(&mut Manifest)| {
            let mut before = after.clone();
            change(&mut before);
            assert_eq!(after.adds_to(&before), None);
            assert_ne!(Elements::default().added_to(roots(&before)), roots(&after));
        };
        differs(|before| before.snapshots.swap(0, 1));
        differs(|before| before.snapshots[1].set_tag(PINNED, true));
        differs(|before| before.indexes[0].hash[0] ^= 1);
        differs(|before| before.retired.push(PackId([1; 32])));
    }

    /// Known answers, so that another implementation finds the same roots.
    #[test]
    fn roots_have_known_answers() {
        let found = [Manifest::default(), manifest()].map(|of| {
            [of.snapshot_set(), of.index_set()].map(|root| sr_crypto::text::to_hex(&root[..8]))
        });
        assert_eq!(found, KNOWN);
    }

    const KNOWN: [[&str; 2]; 2] =
        [["a454b926efa4360c", "08a9f9c4fe81bd90"], ["8fcad34244c99c9e", "61a8854c7392393e"]];
}
