//! Seeded rounds of everything that can go wrong at once with an honest server: what was acknowledged
//! is never lost, and no honest server is accused.
//!
//! `SR_TORTURE_ROUNDS` and `SR_TORTURE_SEED` choose how many and which; `cargo xtask torture` runs them
//! with the real program's rounds.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sr_client::{
    Client, ClientError, Clock, DeviceKind, Keep, Linking, Progress, ReadData, Target,
};
use sr_server::Stores;
use sr_store::{Caps, Fault, Faults, Faulty, MemoryBlobs, MemoryMeta, MetaStore, sweep};
use sr_wire::{Misbehaviour, SnapshotId};
use tokio::runtime::Runtime;

use crate::{
    network::{SimulatedNetwork, dialer, server, simulated_invite},
    world::{assert_same_tree, clock},
};

const DAY_S: i64 = 86_400;
const DEVICES: [&str; 2] = ["laptop", "desktop"];
/// Snapshots of each device that stay.
const KEPT: usize = 3;

#[test]
fn rounds_of_everything_that_can_go_wrong_lose_nothing() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (rounds, seed) = (number("SR_TORTURE_ROUNDS", 100), number("SR_TORTURE_SEED", 1));
    let mut torture = Torture::new(seed);
    for round in 0..rounds {
        torture.round(&format!("seed {seed}, round {round}"));
    }
    torture.everything_is_there("at the end");
}

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// A fault of the server's stores, so many calls from now.
    Store(Fault, u64),
    /// Connections that break after so many bytes.
    Network,
    /// A clock of a device that is so many seconds off.
    Clock(i64),
    /// The other device backs up at the same time.
    Both,
    /// Nothing.
    None,
}

/// What is done in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Backup,
    Forget,
    /// A day goes by, and what may go goes.
    Prune,
    /// What was pruned is wanted back.
    Undelete,
    Verify,
    Restore,
}

struct Torture {
    dir: tempfile::TempDir,
    rng: ChaCha8Rng,
    meta: Arc<MemoryMeta>,
    blobs: Arc<MemoryBlobs>,
    faults: Faults,
    network: Arc<SimulatedNetwork>,
    server: Option<Runtime>,
    /// Seconds that all clocks are ahead, and that of the devices besides.
    ahead_s: Arc<AtomicI64>,
    off_s: Arc<AtomicI64>,
    /// The snapshots that were acknowledged, and copies of what they are of.
    acknowledged: HashMap<SnapshotId, PathBuf>,
    copies: u64,
}

impl Torture {
    fn new(seed: u64) -> Self {
        let mut torture = Self {
            dir: tempfile::tempdir().expect("dir"),
            rng: ChaCha8Rng::seed_from_u64(seed),
            meta: Arc::default(),
            blobs: Arc::default(),
            faults: Faults::default(),
            network: SimulatedNetwork::new(),
            server: None,
            ahead_s: Arc::default(),
            off_s: Arc::default(),
            acknowledged: HashMap::new(),
            copies: 0,
        };
        let (invite, vouchers) = simulated_invite();
        torture.meta.add_vouchers(&vouchers).expect("adds");
        torture.restart();
        let (clock, dialer) = (torture.clock(), dialer(&torture.network));
        let first = torture.profile(0);
        Client::join_by(&first, &invite, None, DEVICES[0], clock, &dialer).expect("joins");
        torture.link();
        for device in 0..DEVICES.len() {
            fs::create_dir(torture.folder(device)).expect("makes");
            let folder = torture.folder(device);
            torture.client(device).add_folder(&folder).expect("adds");
        }
        torture
    }

    fn link(&self) {
        let dialer = dialer(&self.network);
        let mut linking = Linking::begin_by("simulated:1", DeviceKind::Full, self.clock(), &dialer)
            .expect("begins");
        let code = linking.code();
        let (send, receive) = std::sync::mpsc::channel::<Vec<&str>>();
        let (words, linking) = std::thread::scope(|scope| {
            let old = scope.spawn(move || {
                let mut client = self.client(0);
                let offer = client.link(&code).expect("meets");
                let words: Vec<String> =
                    receive.recv().expect("words").into_iter().map(str::to_owned).collect();
                client.link_finish(offer, &words).expect("adds")
            });
            send.send(linking.words().expect("shows")).expect("waits");
            let words = old.join().expect("joins");
            linking.wait().expect("is added");
            (words, linking)
        });
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        drop(linking.finish(&words, &self.profile(1), DEVICES[1]).expect("finishes"));
    }

    fn round(&mut self, name: &str) {
        let device = self.below(2);
        self.change_files(device);
        self.change_files(1 - device);
        let act = match self.below(12) {
            0..=4 => Act::Backup,
            5 => Act::Forget,
            6..=8 => Act::Prune,
            9 if self.below(3) == 0 => Act::Undelete,
            9 | 10 => Act::Verify,
            _ => Act::Restore,
        };
        let trouble = match self.below(10) {
            0..=2 => {
                let faults = [Fault::Once, Fault::Ends, Fault::Full, Fault::Unreadable];
                let fault = faults[self.below(4)];
                Trouble::Store(fault, self.below(40) as u64)
            }
            3 | 4 => Trouble::Network,
            5 => {
                let jumps = [-3650, -3, -1, 1, 3, 3650];
                Trouble::Clock(jumps[self.below(6)] * DAY_S)
            }
            6 | 7 => Trouble::Both,
            _ => Trouble::None,
        };
        let name = format!("{name}: {act:?} on {}, {trouble:?}", DEVICES[device]);
        if act == Act::Prune {
            self.ahead_s.fetch_add(DAY_S, Ordering::SeqCst);
        }
        self.begin(trouble);
        let other = (trouble == Trouble::Both).then(|| self.backup_in_background(1 - device));
        let result = self.act(act, device);
        self.end();
        if let Err(error) = &result {
            assert!(may_happen(trouble, error), "{name}: {error:?}");
        }
        if let Some(other) = other {
            let done = other.join().expect("joins");
            self.acknowledge(done.unwrap_or_else(|error| panic!("{name}: {error:?}")), 1 - device);
        }
        // Whatever happened, the same command works now.
        if result.is_err() {
            self.restart();
            self.act(act, device).unwrap_or_else(|error| panic!("{name}, again: {error:?}"));
        }
        self.is_clean(&name);
        let some = self.below(self.acknowledged.len().max(1));
        if let Some((id, copy)) = self.acknowledged.iter().nth(some) {
            self.restored_is(*id, copy, &name);
        }
    }

    fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Store(fault, calls) => self.faults.set(fault, calls),
            Trouble::Network => {
                let breaks: Vec<usize> =
                    (0..4).map(|_| [40, 3_000, 70_000, 900_000][self.below(4)]).collect();
                *self.network.breaks_after.lock().expect("lock") = breaks;
            }
            Trouble::Clock(off_s) => self.off_s.store(off_s, Ordering::SeqCst),
            Trouble::Both | Trouble::None => {}
        }
    }

    fn end(&mut self) {
        self.faults.clear();
        self.network.breaks_after.lock().expect("lock").clear();
        self.off_s.store(0, Ordering::SeqCst);
    }

    fn act(&mut self, act: Act, device: usize) -> Result<(), ClientError> {
        let progress = Progress::default();
        let mut client = self.client(device);
        match act {
            Act::Backup => {
                let reports = client.backup(None, &progress)?;
                drop(client);
                self.acknowledge(reports, device);
            }
            Act::Forget => {
                client.forget_by(&Keep { last: KEPT, ..Keep::default() }, false)?;
                let live: HashSet<SnapshotId> =
                    client.snapshots()?.iter().map(|snapshot| snapshot.id).collect();
                self.acknowledged.retain(|id, _| live.contains(id));
            }
            Act::Prune => drop(client.prune(false, &progress)?),
            Act::Undelete => drop(client.undelete()?),
            Act::Verify => drop(client.verify(ReadData::Part(30), &progress)?),
            Act::Restore => {
                if client.snapshots()?.is_empty() {
                    return Ok(());
                }
                let target = self.dir.path().join("somewhere");
                drop(fs::remove_dir_all(&target));
                let id = client.snapshots()?[0].id.to_string();
                client.restore(&id, None, &Target::Folder(target), &progress)?;
            }
        }
        Ok(())
    }

    fn backup_in_background(
        &self,
        device: usize,
    ) -> std::thread::JoinHandle<Result<Vec<sr_client::BackupReport>, ClientError>> {
        let mut client = self.client(device);
        std::thread::spawn(move || client.backup(None, &Progress::default()))
    }

    /// Keeps a copy of what a device has just backed up.
    fn acknowledge(&mut self, reports: Vec<sr_client::BackupReport>, device: usize) {
        self.copies += 1;
        let copy = self.dir.path().join(format!("copy-{}", self.copies));
        copy_folder(&self.folder(device), &copy);
        self.acknowledged.insert(reports[0].snapshot.expect("snapshot"), copy);
    }

    /// Everything that is read is whole, and nothing was marked as damaged for good.
    fn is_clean(&self, name: &str) {
        let report = self.client(0).verify(ReadData::All, &Progress::default());
        let report = report.unwrap_or_else(|error| panic!("{name}, checking: {error:?}"));
        assert!(report.is_whole() && report.bad_packs.is_empty(), "{name}: {report:?}");
    }

    fn everything_is_there(&self, name: &str) {
        for (id, copy) in &self.acknowledged {
            self.restored_is(*id, copy, name);
        }
    }

    fn restored_is(&self, id: SnapshotId, copy: &Path, name: &str) {
        let target = self.dir.path().join("restored");
        drop(fs::remove_dir_all(&target));
        let restored = self.client(1).restore(
            &id.to_string(),
            None,
            &Target::Folder(target.clone()),
            &Progress::default(),
        );
        let (_, report) =
            restored.unwrap_or_else(|error| panic!("{name}, restoring {id}: {error:?}"));
        assert!(report.refused.is_empty() && report.failed.is_empty(), "{name}: {report:?}");
        assert_same_tree(copy, &target);
    }

    /// Ends the server, and starts it anew on what it had stored.
    fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
        sweep(&*self.meta, &*self.blobs).expect("sweeps");
        let stores = Stores {
            meta: Arc::new(Faulty::new(Arc::clone(&self.meta), self.faults.clone())),
            blobs: Arc::new(Faulty::new(Arc::clone(&self.blobs), self.faults.clone())),
        };
        let ahead_s = Arc::clone(&self.ahead_s);
        let clock: Clock = Arc::new(move || later(ahead_s.load(Ordering::SeqCst)));
        self.server = Some(self.network.serve(server(&stores, Caps::default(), &clock)));
    }

    fn clock(&self) -> Clock {
        let (ahead_s, off_s) = (Arc::clone(&self.ahead_s), Arc::clone(&self.off_s));
        Arc::new(move || later(ahead_s.load(Ordering::SeqCst) + off_s.load(Ordering::SeqCst)))
    }

    fn client(&self, device: usize) -> Client {
        let opened = Client::open_by(&self.profile(device), self.clock(), &dialer(&self.network));
        let mut client = opened.expect("opens");
        client.set_uptime(Arc::new(|| None));
        client
    }

    fn profile(&self, device: usize) -> PathBuf {
        self.dir.path().join(format!("profile-{}", DEVICES[device]))
    }

    fn folder(&self, device: usize) -> PathBuf {
        self.dir.path().join(format!("folder-{}", DEVICES[device]))
    }

    fn change_files(&mut self, device: usize) {
        for _ in 0..self.below(4) {
            let name = format!("{}/{}", self.below(3), self.below(8));
            let path = self.folder(device).join(name);
            if self.below(5) == 0 {
                drop(fs::remove_file(&path));
                continue;
            }
            let len = [50, 5_000, 300_000, 1_500_000][self.below(4)];
            let mut content = vec![0; self.below(len)];
            self.rng.fill_bytes(&mut content);
            fs::create_dir_all(path.parent().expect("parent")).expect("makes");
            fs::write(path, content).expect("writes");
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.rng.next_u64() % limit as u64).expect("small")
    }
}

/// Whether a command may end so. An honest server is accused only by a device whose clock is wrong, or
/// when its disk gives nothing back.
fn may_happen(trouble: Trouble, error: &ClientError) -> bool {
    match (trouble, error) {
        (Trouble::Clock(_), ClientError::Misbehaviour(Misbehaviour::TlsKeyUnsigned)) => true,
        (Trouble::Clock(_), ClientError::AccountWaits { .. }) => true,
        (Trouble::Store(Fault::Unreadable | Fault::Once | Fault::Ends, _), error) => {
            matches!(
                error,
                ClientError::ServerRefused(_)
                    | ClientError::Misbehaviour(
                        Misbehaviour::PackMissing
                            | Misbehaviour::PackAltered
                            | Misbehaviour::IndexSetMismatch
                    )
            )
        }
        (Trouble::Store(..), error) => matches!(error, ClientError::ServerRefused(_)),
        _ => false,
    }
}

fn later(seconds: i64) -> u64 {
    clock()().saturating_add_signed(seconds)
}

fn copy_folder(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("runs").success());
}
