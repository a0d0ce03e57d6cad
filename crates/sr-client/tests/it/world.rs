//! A server, a profile and a folder, all temporary.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sr_client::{Client, Progress, RestoreReport, SnapshotInfo, Target};
use sr_keys::{DeviceKeys, KeyBlock, RootRecord, VaultKeys};
use sr_server::{DataDir, Server, Stores, TlsListener, add_invite};
use sr_store::{Caps, Fault, Faults, Faulty};
use sr_trust::{Account, Block, Verified};
use sr_wire::{AccountId, SealedHead, SpaceId};
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
    /// Seconds that the server's clock, and that of [`World::clock`], are ahead.
    pub(crate) ahead: Arc<AtomicU64>,
    /// What the server does not do: one that was tampered with takes nothing back.
    pub(crate) faults: Faults,
    server: Option<(Runtime, std::net::SocketAddr)>,
}

impl World {
    /// A server, a joined profile, and a folder with a few files.
    pub(crate) fn new() -> Self {
        let mut world = Self::bare();
        let invite = world.invite();
        Client::join(&world.profile(), &invite, None, "laptop", clock()).expect("joins");
        fs::create_dir(world.folder()).expect("makes");
        world.client().add_folder(&world.folder()).expect("adds");
        world
    }

    pub(crate) fn bare() -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().expect("dir"),
            caps: Caps::default(),
            ahead: Arc::default(),
            faults: Faults::default(),
            server: None,
        };
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
        let meta = Arc::new(Faulty::new(data.stores.meta, self.faults.clone()));
        let stores = Stores { meta, ..data.stores };
        let server = Arc::new(
            Server::new(data.identity, stores, caps, self.clock(), Box::new(|_| {}))
                .expect("begins"),
        );
        runtime.spawn(server.serve(listener));
        // The lock is of the process, which in a test plays several servers one after another.
        self.server = Some((runtime, address));
    }

    /// A clock that a test moves.
    pub(crate) fn clock(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let (now, ahead) = (clock(), Arc::clone(&self.ahead));
        Arc::new(move || now() + ahead.load(Ordering::SeqCst))
    }

    pub(crate) fn stop(&mut self) {
        if let Some((runtime, address)) = self.server.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
            let _ = address;
        }
    }

    /// Plays the operator with the server switched off.
    pub(crate) fn tamper(&mut self, act: impl FnOnce(&Path)) {
        self.takes_nothing_back();
        self.put_back(act);
    }

    /// Whatever the server has forgotten, it does not want back.
    pub(crate) fn takes_nothing_back(&self) {
        self.faults.set(Fault::Deaf, 0);
    }

    /// The same of an honest one.
    pub(crate) fn put_back(&mut self, act: impl FnOnce(&Path)) {
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

    /// The files of the server that hold the vault's packs, the biggest first.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        self.packs_of(self.insider().vault.space())
    }

    pub(crate) fn packs_of(&self, space: SpaceId) -> Vec<PathBuf> {
        let database = self.database();
        let mut query =
            database.prepare("SELECT pack FROM packs WHERE space != ?1").expect("query");
        let others: Vec<String> = query
            .query_map([space.0], |row| Ok(sr_wire::PackId(row.get(0)?).to_string()))
            .expect("packs")
            .map(|id| id.expect("id"))
            .collect();
        let mut packs = self.all_packs();
        packs.retain(|path| !others.iter().any(|id| path.ends_with(id)));
        packs
    }

    /// The files of the server that hold packs of any space, the biggest first.
    pub(crate) fn all_packs(&self) -> Vec<PathBuf> {
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

/// What a device of the account knows: for attacks by somebody who has its disk.
pub(crate) struct Insider {
    pub(crate) device: DeviceKeys,
    pub(crate) account: Verified<Account>,
    pub(crate) vault: VaultKeys,
}

impl Insider {
    pub(crate) fn of(profile: &Path) -> Self {
        let device = DeviceKeys::from_file(&fs::read(profile.join("keys")).expect("reads"));
        let device = device.expect("parses");
        let database = rusqlite::Connection::open(profile.join("state.db")).expect("opens");
        let value = |key: &str| -> Vec<u8> {
            let query = "SELECT value FROM state WHERE key = ?1";
            database.query_row(query, [key], |row| row.get(0)).expect("has it")
        };
        let mut query = database.prepare("SELECT block FROM blocks ORDER BY seq").expect("query");
        let blocks: Vec<Block> = query
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .expect("blocks")
            .map(|block| Block::parse(&block.expect("block")).expect("parses"))
            .collect();
        let id = AccountId::from_slice(&value("account")).expect("id");
        let account = Verified::verify(id, &blocks).expect("verifies");
        let key_block = value("key-block");
        if account.device(device.id()).is_some_and(|device| !device.is_full()) {
            let granted =
                KeyBlock::open_grant(&key_block, &account, device.id(), &device.sealing());
            let vault = granted.expect("opens").vault;
            return Self { device, account, vault };
        }
        let secrets = KeyBlock::open(&key_block, &account, device.id(), &device.sealing());
        let record = RootRecord::parse(&value("record")).expect("parses");
        let entry = &record.vaults[0];
        let vault = secrets.expect("opens").vault(entry.vault, entry.space);
        Self { device, account, vault }
    }
}

impl World {
    pub(crate) fn insider(&self) -> Insider {
        Insider::of(&self.profile())
    }

    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.data().join("strongroom.db")).expect("opens")
    }

    /// The newest head of the vault, as the server has it.
    pub(crate) fn stored_head(&self) -> SealedHead {
        self.stored_head_of(self.insider().vault.space())
    }

    pub(crate) fn stored_head_of(&self, space: SpaceId) -> SealedHead {
        let query = "SELECT head FROM heads WHERE space = ?1 ORDER BY seq DESC LIMIT 1";
        let head: Vec<u8> =
            self.database().query_row(query, [space.0], |row| row.get(0)).expect("has a head");
        sr_wire::decode("head", &head, head.len()).expect("decodes")
    }

    /// Makes `head` the newest of its space, and forgets what comes after its place.
    pub(crate) fn show_head(&self, head: &SealedHead) {
        let (space, database) = (head.space, self.database());
        database
            .execute(
                "DELETE FROM heads WHERE space = ?1 AND seq >= ?2",
                rusqlite::params![space.0, head.seq],
            )
            .expect("deletes");
        database
            .execute(
                "INSERT INTO heads VALUES (?1, ?2, ?3)",
                rusqlite::params![space.0, head.seq, sr_wire::encode(head)],
            )
            .expect("inserts");
    }
}

/// The lists that a profile keeps whose names begin like this.
pub(crate) fn cached(profile: &Path, prefix: &str) -> Vec<Vec<u8>> {
    let cache = fs::read_dir(profile.join("cache")).expect("cache").flatten();
    let is_it = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    cache.filter(is_it).map(|entry| fs::read(entry.path()).expect("reads")).collect()
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
    let found = sr_client::compare(a, b, &std::collections::HashSet::new()).expect("compares");
    assert!(found.different.is_empty(), "{:?}", found.different);
}
