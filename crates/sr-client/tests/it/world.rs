//! A server, a profile and a folder, all temporary.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sr_client::{Client, Progress, RestoreReport, SnapshotInfo, Target};
use sr_server::{DataDir, Server, TlsListener, add_invite};
use sr_store::Caps;
use tokio::runtime::Runtime;

pub(crate) fn clock() -> Arc<dyn Fn() -> u64 + Send + Sync> {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    })
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) caps: Caps,
    server: Option<(Runtime, std::net::SocketAddr)>,
}

impl World {
    /// A server, a joined profile, and a folder with a few files.
    pub(crate) fn new() -> Self {
        let mut world = Self::bare();
        let invite = world.invite();
        Client::join(&world.profile(), &invite, None, "laptop", None, clock()).expect("joins");
        fs::create_dir(world.folder()).expect("makes");
        world.client().add_folder(&world.folder()).expect("adds");
        world
    }

    pub(crate) fn bare() -> Self {
        let mut world =
            Self { dir: tempfile::tempdir().expect("dir"), caps: Caps::default(), server: None };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
        let runtime = Runtime::new().expect("runtime");
        let data = DataDir::open(&self.data(), &mut rand_core::UnwrapErr(getrandom::SysRng))
            .expect("opens");
        // The port stays the same over restarts: it is in the invite.
        let port = self.server.as_ref().map_or(0, |(_, address)| address.port());
        let port = fs::read_to_string(self.dir.path().join("port"))
            .ok()
            .and_then(|p| p.parse().ok())
            .unwrap_or(port);
        let listener =
            runtime.block_on(TlsListener::bind(([127, 0, 0, 1], port).into())).expect("binds");
        let address = listener.local_address().expect("address");
        fs::write(self.dir.path().join("port"), address.port().to_string()).expect("writes");
        let caps = self.caps;
        let server =
            Arc::new(Server::new(data.identity, data.stores, caps, clock(), Box::new(|_| {})));
        runtime.spawn(server.serve(listener));
        // The lock is of the process, which in a test plays several servers one after another.
        self.server = Some((runtime, address));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((runtime, address)) = self.server.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
            let _ = address;
        }
    }

    /// Plays the operator with the server switched off.
    pub(crate) fn tamper(&mut self, act: impl FnOnce(&Path)) {
        self.stop();
        act(&self.data());
        self.start();
    }

    pub(crate) fn invite(&mut self) -> sr_wire::Invite {
        let address = self.server.as_ref().expect("runs").1.to_string();
        add_invite(&self.data(), &[address], &mut rand_core::UnwrapErr(getrandom::SysRng))
            .expect("invites")
            .remove(0)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.dir.path().join("profile")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(&self.profile(), clock()).expect("opens")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("makes");
        fs::write(path, content).expect("writes");
    }

    pub(crate) fn backup(&self) -> sr_client::BackupReport {
        self.client().backup(None, &Progress::default()).expect("backs up").remove(0)
    }

    pub(crate) fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.client().snapshots().expect("lists")
    }

    pub(crate) fn restore(&self, which: &str, path: Option<&str>) -> RestoreReport {
        let target = Target::Folder(self.target());
        self.client()
            .restore(which, path.map(Path::new), &target, &Progress::default())
            .expect("restores")
            .1
    }

    /// The files of the server that hold packs, the biggest first.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let mut packs = Vec::new();
        for folder in fs::read_dir(self.data().join("packs")).expect("dir").flatten() {
            packs.extend(fs::read_dir(folder.path()).expect("dir").flatten().map(|f| f.path()));
        }
        packs.sort_by_key(|path| {
            (std::cmp::Reverse(fs::metadata(path).expect("file").len()), path.clone())
        });
        packs
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Bytes that do not compress and differ for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Panics at the first difference of what a restore must bring back.
pub(crate) fn assert_same_tree(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) {
        panic!("{a:?} is not {b:?}");
    }
    assert_eq!(a.len(), b.len());
}

/// Every path below `root` with its mode, time and a hash of its content.
fn tree(root: &Path) -> Vec<(PathBuf, u32, i64, i64, [u8; 32])> {
    use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
    let hash = |bytes: &[u8]| sr_crypto::hash(sr_crypto::Label::new("test"), &[bytes]);
    let mut entries = Vec::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).expect("meta");
        let content = if meta.is_dir() {
            stack.extend(fs::read_dir(&path).expect("dir").flatten().map(|e| e.path()));
            [0; 32]
        } else if meta.is_symlink() {
            hash(fs::read_link(&path).expect("link").as_os_str().as_bytes())
        } else {
            hash(&fs::read(&path).expect("file"))
        };
        let relative = path.strip_prefix(root).expect("below").to_owned();
        entries.push((relative, meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
    }
    entries.sort();
    entries
}
