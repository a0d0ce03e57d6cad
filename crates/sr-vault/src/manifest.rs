//! Snapshots, and the manifest that lists them and the indexes. See `spec/manifest.md`.

use sr_crypto::{Hash, hash};
use sr_wire::{Malformed, Misbehaviour, PackId, SnapshotId, decode, encode, labels};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{ChunkIds, pack::PackSeal, tree::Node};

/// No manifest is longer than this before compression: 30,000 snapshots.
pub const MANIFEST_LEN_MAX: usize = 8 << 20;

/// One folder at one point in time.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Snapshot {
    /// Unix seconds at which the run began.
    pub time_s: u64,
    /// Snapshots of the vault before the run, which tells two runs in one second apart.
    pub number: u64,
    /// Name of the device.
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
    /// The snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The indexes.
    pub indexes: Vec<IndexRef>,
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
        ids: &ChunkIds,
        snapshot_set: &Hash,
        index_set: &Hash,
    ) -> Result<Self, Misbehaviour> {
        // SR-015
        let manifest = Self::parse(bytes).map_err(|_| Misbehaviour::ObjectMalformed)?;
        // SR-012
        Misbehaviour::SnapshotSetMismatch.refuse_if(manifest.snapshot_set(ids) != *snapshot_set)?;
        // SR-013
        Misbehaviour::IndexSetMismatch.refuse_if(manifest.index_set() != *index_set)?;
        Ok(manifest)
    }

    /// Reads a manifest.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let manifest: Self = decode("manifest", bytes, MANIFEST_LEN_MAX)?;
        if manifest.snapshots.iter().all(|snapshot| snapshot.root.is_root()) {
            Ok(manifest)
        } else {
            Err(Malformed { what: "manifest" })
        }
    }

    /// Returns the root of the set of snapshots: `H("snapshot-set", ids in order)`.
    #[must_use]
    pub fn snapshot_set(&self, ids: &ChunkIds) -> Hash {
        let list: Vec<u8> = self.snapshots.iter().flat_map(|s| s.id(ids).0).collect();
        hash(labels::SNAPSHOT_SET, &[&list])
    }

    /// Returns the root of the set of indexes: `H("index-set", references in order)`.
    #[must_use]
    pub fn index_set(&self) -> Hash {
        hash(labels::INDEX_SET, &[&encode(&self.indexes)])
    }
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
    use rand_chacha::rand_core::SeedableRng;
    use sr_keys::VaultKeys;

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
        Manifest { snapshots: vec![snapshot(1), snapshot(2)], indexes: vec![index] }
    }

    #[test]
    fn a_manifest_is_taken_under_its_own_roots_only() {
        let keys = VaultKeys::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(1));
        let ids = ChunkIds::new(&keys);
        let manifest = manifest();
        let (snapshots, indexes) = (manifest.snapshot_set(&ids), manifest.index_set());
        let verify = |m: &Manifest| Manifest::verify(&m.to_bytes(), &ids, &snapshots, &indexes);
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
        named.snapshots[0].root.name = b"x".to_vec().into();
        assert_eq!(verify(&named), Err(Misbehaviour::ObjectMalformed));
        let bytes = manifest.to_bytes();
        assert!(Manifest::parse(&bytes[1..]).is_err());
        assert!(Manifest::parse(&[]).is_err());
    }
}
