//! The scene: an account with two devices and a recovery kit, two days of backups, and a copy of everything
//! of either day. Each play begins from copies.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sr_client::{
    Client, ClientError, Clock, ContactCard, DeviceKind, Kit, Linking, LogReader, Progress,
};
use sr_crypto::{KeyedHasher, Secret32};
use sr_server::{
    DataDir, DataLock, Server as Routes, Stores, TlsListener, add_invite, add_witness, log_keys,
};
use sr_store::{Caps, Fault, Faults, Faulty, Sqlite};
use sr_tlog::LogKeys;
use sr_witness::Witness;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{AdversaryError, operator::copy_all};

/// A checkpoint comes once a second.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A server that runs in this process until it is dropped.
#[derive(Debug)]
pub struct Server {
    runtime: Option<Runtime>,
    /// Where it listens.
    pub address: SocketAddr,
    _lock: DataLock,
}

impl Server {
    /// Starts the server of a directory, with a clock that is wrong by so many seconds.
    ///
    /// **Errors** [`AdversaryError`].
    pub fn start(data: &Path, listen: SocketAddr, ahead_s: i64) -> Result<Self, AdversaryError> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TlsListener::bind(listen))?;
        let address = listener.local_address()?;
        let DataDir { identity, stores, lock, .. } = DataDir::open(data, &mut rng())?;
        let clock: Clock = Arc::new(move || now_s().saturating_add_signed(ahead_s));
        // An operator who rolls back does not want anything back.
        let faults = Faults::default();
        faults.set(Fault::Deaf, 0);
        let stores = Stores { meta: Arc::new(Faulty::new(stores.meta, faults)), ..stores };
        let routes = Routes::new(identity, stores, Caps::default(), clock, Box::new(|_| {}))?;
        runtime.spawn(Arc::new(routes).serve(listener));
        Ok(Self { runtime: Some(runtime), address, _lock: lock })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// A witness that runs in this process until it is dropped. Nobody bends it.
#[derive(Debug)]
pub(crate) struct Watch {
    runtime: Option<Runtime>,
    witness: Arc<Witness>,
    address: SocketAddr,
}

impl Watch {
    /// Starts the witness of a directory.
    ///
    /// **Errors** [`AdversaryError`].
    pub(crate) fn start(dir: &Path, listen: SocketAddr) -> Result<Self, AdversaryError> {
        let runtime = Runtime::new()?;
        let witness = Arc::new(Witness::open(dir, Some(&mut rng()), clock())?);
        let listener = runtime.block_on(TcpListener::bind(listen))?;
        let address = listener.local_addr()?;
        runtime.spawn(Arc::clone(&witness).serve(listener, |_| {}));
        Ok(Self { runtime: Some(runtime), witness, address })
    }

    /// Watches a server, which asks it from its next start on.
    fn of(&self, server: &Path) -> Result<(), AdversaryError> {
        let keys = log_keys(server)?;
        let mut keys = keys.lines().map(str::parse);
        let mut key = || keys.next()?.ok();
        let pair = key().zip(key()).and_then(|(one, other)| LogKeys::new(one, other).ok());
        self.witness.add(&pair.ok_or(AdversaryError::Nothing("the keys of a log"))?)?;
        let keys = self.witness.verifiers().map(|key| key.to_string()).join("\n");
        Ok(add_witness(server, &format!("http://{}", self.address), &keys)?)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// One of the two days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// The first: an account with two devices and a kit, one backup.
    Yesterday,
    /// The second: another backup, a device that came and went, and a neighbour.
    Today,
}

impl Day {
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::Yesterday => "yesterday",
            Self::Today => "today",
        }
    }
}

/// Everything that the plays begin with.
#[derive(Debug)]
pub struct Scene {
    dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) witness: SocketAddr,
    pub(crate) kit: Kit,
    /// How many snapshots there are today.
    pub(crate) snapshots: usize,
    /// How many devices there are today.
    pub(crate) devices: usize,
    /// A neighbour, who wants the account as a contact.
    pub(crate) neighbour: Neighbour,
}

/// Somebody with an account of their own.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) kit: Kit,
    /// The account, and somebody else.
    pub(crate) contacts: Vec<(String, ContactCard)>,
    /// The account's newest change, as its devices know it.
    pub(crate) seq: u64,
}

impl Scene {
    /// Makes the scene in an empty directory.
    ///
    /// **Errors** [`AdversaryError`]: an honest server was refused, or a file could not be used.
    pub fn make(dir: &Path) -> Result<Self, AdversaryError> {
        let now = dir.join("now");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(&now.join("server"), address, 0)?;
        let watch = Watch::start(&now.join("witness"), address)?;
        let (address, witness) = (server.address, watch.address);
        drop(server);
        watch.of(&now.join("server"))?;
        let server = Server::start(&now.join("server"), address, 0)?;
        let scene = Making { dir: dir.to_owned(), now, address };
        let kit = scene.first_day()?;
        drop(server);
        scene.keep(Day::Yesterday)?;
        let server = Server::start(&scene.now.join("server"), address, 0)?;
        let neighbour = scene.second_day()?;
        drop(server);
        scene.keep(Day::Today)?;
        scene.fork()?;
        let dir = dir.to_owned();
        Ok(Self { dir, address, witness, kit, snapshots: 2, devices: 2, neighbour })
    }

    /// Returns the folder that was backed up, as it is today.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join("folder")
    }

    /// Returns what was kept of a day.
    pub(crate) fn kept(&self, day: Day) -> PathBuf {
        self.dir.join(day.dir())
    }

    /// Returns the profile of the phone that was led apart.
    pub(crate) fn apart(&self) -> PathBuf {
        self.dir.join("apart/phone")
    }

    /// Returns an empty place for one try.
    pub(crate) fn place(&self) -> PathBuf {
        self.dir.join("try")
    }
}

struct Making {
    dir: PathBuf,
    now: PathBuf,
    address: SocketAddr,
}

impl Making {
    fn first_day(&self) -> Result<Kit, AdversaryError> {
        let folder = self.dir.join("folder");
        fs::create_dir_all(folder.join("letters"))?;
        fs::write(folder.join("letters/to-the-editor.txt"), "What nobody else may read.\n")?;
        // More than one slot, so that slots can be exchanged.
        fs::write(folder.join("photo"), noise(1, 3_000_000))?;
        let mut laptop = self.join("laptop")?;
        laptop.add_folder(&folder)?;
        laptop.backup(None, &Progress::default())?;
        let (kit, _) = laptop.new_kit()?;
        laptop.set_kit(&kit, None)?;
        drop(laptop);
        self.link("phone")?;
        self.all_know()?;
        Ok(kit)
    }

    fn second_day(&self) -> Result<Neighbour, AdversaryError> {
        self.link("tablet")?;
        self.open("laptop")?.revoke_device("tablet")?;
        fs::write(self.dir.join("folder/letters/answer.txt"), "Nor this.\n")?;
        fs::write(self.dir.join("folder/second photo"), noise(2, 3_000_000))?;
        self.open("laptop")?.backup(None, &Progress::default())?;
        let aunt = self.join("aunt")?.contact_card()?;
        let mut neighbour = self.join("neighbour")?;
        let (kit, _) = neighbour.new_kit()?;
        neighbour.set_kit(&kit, None)?;
        drop(neighbour);
        self.all_know()?;
        let mut laptop = self.open("laptop")?;
        let contacts = vec![("laptop".into(), laptop.contact_card()?), ("aunt".into(), aunt)];
        Ok(Neighbour { kit, contacts, seq: laptop.chain()?.seq })
    }

    /// The operator shows the phone yesterday's server, and takes what it writes there.
    fn fork(&self) -> Result<(), AdversaryError> {
        let (yesterday, apart) = (self.dir.join(Day::Yesterday.dir()), self.dir.join("apart"));
        copy_all(&yesterday, &apart)?;
        let server = Server::start(&apart.join("server"), self.address, 0)?;
        let mut phone = Client::open(&apart.join("phone"), clock())?;
        phone.add_folder(&self.dir.join("folder"))?;
        phone.backup(None, &Progress::default())?;
        drop(phone);
        drop(server);
        Ok(())
    }

    fn keep(&self, day: Day) -> Result<(), AdversaryError> {
        let kept = self.dir.join(day.dir());
        for what in ["server", "witness", "laptop", "phone", "neighbour"] {
            let from = self.now.join(what);
            if from.exists() {
                copy_all(&from, &kept.join(what))?;
            }
        }
        Ok(())
    }

    fn join(&self, name: &str) -> Result<Client, AdversaryError> {
        let addresses = [self.address.to_string()];
        let invites = add_invite(&self.now.join("server"), &addresses, &mut rng())?;
        let invite = invites.first().ok_or(AdversaryError::Nothing("an invite"))?;
        Ok(Client::join(&self.now.join(name), invite, None, name, clock())?)
    }

    fn open(&self, name: &str) -> Result<Client, ClientError> {
        Client::open(&self.now.join(name), clock())
    }

    fn link(&self, name: &str) -> Result<(), AdversaryError> {
        let own = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut linking = Linking::begin(&self.address.to_string(), DeviceKind::Full, clock())?;
        let code = linking.code();
        let (send, receive) = std::sync::mpsc::channel::<Vec<String>>();
        let words = thread::scope(|scope| {
            let old = scope.spawn(move || {
                let mut client = self.open("laptop")?;
                let offer = client.link(&code)?;
                let words = receive.recv().unwrap_or_default();
                client.link_finish(offer, &words)
            });
            // A receiver that is gone has an error to tell.
            let _ = send.send(own(linking.words()?));
            let words = old.join().map_err(|_| ClientError::LinkExpired)??;
            linking.wait()?;
            Ok::<_, ClientError>(own(words))
        })?;
        linking.finish(&words, &self.now.join(name), name)?;
        Ok(())
    }

    /// Waits until the log shows all that it has, and has both devices know of that.
    fn all_know(&self) -> Result<(), AdversaryError> {
        let entries = Sqlite::open(&self.now.join("server"))?.log_len()?;
        let reader = LogReader::new(&self.address.to_string(), clock())?;
        let began = Instant::now();
        while reader.status()?.size < entries {
            if began.elapsed() > PATIENCE {
                return Err(AdversaryError::Nothing("a log that grows"));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        for name in ["laptop", "phone"] {
            self.open(name)?.snapshots()?;
        }
        Ok(())
    }
}

/// Bytes that do not compress.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    KeyedHasher::new(Secret32::init_with(|key| key.fill(seed))).expand(b"", &mut bytes);
    bytes
}

pub(crate) fn clock() -> Clock {
    Arc::new(now_s)
}

fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
