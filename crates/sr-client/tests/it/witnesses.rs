//! Witnesses: what an operator can't show to an account that asks some, and what goes on when they are silent.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use sr_client::{
    Client, ClientError, DeviceKind, Level, LogState, Progress, Unwitnessed, evidence_files,
};
use sr_server::{DataDir, DataError, Server, add_witness, begin_restoring, finish_restoring};
use sr_store::{Caps, MetaStore, Sqlite};
use sr_wire::Misbehaviour;
use sr_witness::Witness;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    attacks::{ONE_AT_A_TIME, attack},
    log::copy,
    world::{World, clock},
};

const DAY_S: u64 = 86_400;

/// A witness that runs.
pub(crate) struct Watch {
    runtime: Option<Runtime>,
    witness: Arc<Witness>,
    pub(crate) address: SocketAddr,
}

impl Watch {
    pub(crate) fn start(dir: &Path, world: &World, address: SocketAddr) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let witness = Witness::open(dir, Some(&mut rng), world.clock()).expect("opens");
        let witness = Arc::new(witness);
        let listener = runtime.block_on(TcpListener::bind(address)).expect("binds");
        let address = listener.local_addr().expect("address");
        runtime.spawn(Arc::clone(&witness).serve(listener, |_| {}));
        Self { runtime: Some(runtime), witness, address }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn keys(&self) -> String {
        self.witness.verifiers().map(|key| key.to_string()).join("\n")
    }

    fn has_cosigned(&self) -> Option<u64> {
        self.witness.watched().expect("lists")[0].size
    }
}

impl World {
    /// Has a new witness watch the server, which asks it from then on.
    pub(crate) fn watch(&mut self, name: &str) -> Watch {
        let watch = Watch::start(&self.dir.path().join(name), self, ([127, 0, 0, 1], 0).into());
        let keys = sr_server::log_keys(&self.data()).expect("has keys");
        let mut keys = keys.lines().map(|line| line.parse().expect("a key"));
        let pair = sr_tlog::LogKeys::new(keys.next().expect("one"), keys.next().expect("two"));
        watch.witness.add(&pair.expect("a pair")).expect("adds");
        self.put_back(|data| add_witness(data, &watch.url(), &watch.keys()).expect("adds"));
        watch
    }

    /// Makes an account of whoever has an invite of now.
    fn joined(&mut self) -> Client {
        let invite = self.invite();
        Client::join(&self.profile(), &invite, None, "laptop", clock()).expect("joins")
    }

    fn copied_to(&mut self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        self.put_back(|data| copy(data, &to));
        to
    }

    /// Puts a copy into the place of the server's directory, whose operator wants nothing back.
    fn rolled_back_to(&mut self, from: &Path) {
        self.tamper(|data| {
            fs::remove_dir_all(data).expect("deletes");
            copy(from, data);
        });
    }

    /// Waits until the laptop has accepted a log with all that it knows of itself.
    pub(crate) fn settled(&self) -> LogState {
        self.settled_as(&self.profile())
    }

    /// Waits until the log that is shown is not one to rely on.
    fn unwitnessed(&self, profile: &Path) -> LogState {
        let shown = || log_of(&mut Client::open(profile, clock()).expect("opens"));
        until("it is relied on", || Some(shown()).filter(|log| log.unwitnessed.is_some()))
    }

    pub(crate) fn settled_as(&self, profile: &Path) -> LogState {
        let shown = || log_of(&mut Client::open(profile, clock()).expect("opens"));
        let is_settled = |log: &LogState| log.missing == 0 && log.withheld.is_none();
        until("the log lacks something, or is not relied on", || Some(shown()).filter(is_settled))
    }
}

/// A server with a witness, and an account with a folder.
pub(crate) fn watched() -> (World, Watch) {
    let mut world = World::bare();
    let watch = world.watch("witness");
    world.joined();
    fs::create_dir(world.folder()).expect("makes");
    world.client().add_folder(&world.folder()).expect("adds");
    (world, watch)
}

/// Waits for what a server or a witness does within seconds, and asserts that it does.
pub(crate) fn until<T>(otherwise: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{otherwise}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn log_of(client: &mut Client) -> LogState {
    client.status().expect("reads").log.expect("was reached")
}

fn is_unwitnessed<T>(done: Result<T, ClientError>, why: Unwitnessed) {
    let refused = done.map(drop);
    assert!(matches!(refused, Err(ClientError::Unwitnessed(w)) if w == why), "{refused:?}");
}

#[test]
fn an_account_asks_the_witnesses_that_its_invite_names() {
    let (mut world, watch) = watched();
    let log = world.settled();
    assert_eq!((log.level, log.unwitnessed), (Level::G2, None));
    assert!(clock()().abs_diff(log.cosigned_s.expect("they have")) < 60);
    assert_eq!(watch.has_cosigned(), Some(log.size));
    let trust = world.client().trust().expect("asks");
    assert_eq!(trust.witnesses.len(), 1);
    assert_eq!(trust.witnesses[0].size, Ok(log.size));
    assert!(!trust.server_differs && !trust.kit_is_older);
    // So do its other devices, one that can only add among them.
    for (kind, name) in [(DeviceKind::Full, "phone"), (DeviceKind::Limited, "cam")] {
        drop(world.link_as(kind, name));
        let log = world.settled_as(&world.other(name));
        assert_eq!((log.level, log.unwitnessed), (Level::G2, None));
    }
    let kit = world.with_kit();
    world.settled();
    let mut paper = world.restore_kit(&kit, "paper", clock()).expect("restores");
    assert_eq!(log_of(&mut paper).level, Level::G2);
    // Each hour it is cosigned again, though nothing came.
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    let now = world.clock();
    let mut client = Client::open(&world.profile(), world.clock()).expect("opens");
    until("it is not cosigned again", || {
        let cosigned_s = log_of(&mut client).cosigned_s.expect("they have");
        (now() - cosigned_s <= 60).then_some(())
    });
    drop(client);
    // The operator names somebody else: nothing changes for who has joined.
    world.put_back(|data| {
        let other = Sqlite::open(data).expect("opens");
        other.set_witness(&watch.url(), None).expect("forgets");
    });
    let trust = world.client().trust().expect("asks");
    assert_eq!((trust.level, trust.server_differs), (Level::G2, true));
    assert_eq!(world.client().policy_of_server().expect("reads"), "");
    assert_eq!(evidence_files(&world.profile()).expect("lists"), Vec::<PathBuf>::new());
}

/// ID-04: two histories. A copy of the server goes its own way, and who has not seen the first is shown the second.
/// Returns what the phone makes of it.
fn split(is_watched: bool) -> (LogState, u64, Result<(), ClientError>) {
    let mut world = World::bare();
    let watch = is_watched.then(|| world.watch("witness"));
    world.joined();
    drop(world.link("phone"));
    world.settled();
    let before = world.settled_as(&world.other("phone"));
    let fork = world.copied_to("fork");
    drop(world.with_kit());
    world.settled();
    world.rolled_back_to(&fork);
    // On the fork the log grows by somebody else.
    let (invite, stranger) = (world.invite(), world.other("stranger"));
    let joined = Client::join(&stranger, &invite, None, "stranger", clock()).map(drop);
    // For an hour it could show what all had cosigned before the fork.
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    let mut phone = world.open("phone");
    let log = until("the phone is shown nothing of the fork", || {
        let is_shown = |log: &LogState| log.size != before.size || log.unwitnessed.is_some();
        Some(log_of(&mut phone)).filter(is_shown)
    });
    drop(watch);
    (log, before.size, joined)
}

#[test]
fn a_second_history_is_not_relied_on_with_a_witness() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (log, before, joined) = split(true);
    assert_eq!((log.size, log.unwitnessed), (before, Some(Unwitnessed::TooFew)));
    // Who is new there learns from the witness that it is not all.
    assert!(matches!(
        joined,
        Err(ClientError::Misbehaviour(Misbehaviour::LogRolledBack | Misbehaviour::LogForked)
            | ClientError::Unwitnessed(_))
    ));
    // Without one it is taken, until the two meet.
    let (log, before, joined) = split(false);
    assert!(log.size > before && log.unwitnessed.is_none() && joined.is_ok());
}

/// Two witnesses, each of which sees one of two histories: neither is relied on.
#[test]
fn each_of_two_witnesses_can_be_shown_another_history_and_neither_counts() {
    let mut world = World::bare();
    let (mut one, mut other) = (world.watch("one"), world.watch("other"));
    world.joined();
    drop(world.link("phone"));
    let before = world.settled();
    world.settled_as(&world.other("phone"));
    let fork = world.copied_to("fork");
    other.stop();
    drop(world.with_kit());
    let has_grown = |seen: &Watch| (seen.has_cosigned() > Some(before.size)).then_some(());
    until("the first witness has seen no more", || has_grown(&one));
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    let log = world.unwitnessed(&world.profile());
    assert_eq!((log.size, log.unwitnessed), (before.size, Some(Unwitnessed::TooFew)));
    one.stop();
    let other = Watch::start(&world.dir.path().join("other"), &world, other.address);
    world.rolled_back_to(&fork);
    let (invite, stranger) = (world.invite(), world.other("stranger"));
    // The server takes the account; whether its log is relied on, is another question.
    let joined = Client::join(&stranger, &invite, None, "stranger", clock());
    assert!(joined.is_err(), "{joined:?}");
    until("the other witness has seen no more", || has_grown(&other));
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    let log = world.unwitnessed(&world.other("phone"));
    assert_eq!((log.size, log.unwitnessed), (before.size, Some(Unwitnessed::TooFew)));
}

/// AV-02: a log that is frozen, with nothing wrong in it.
#[test]
fn on_a_frozen_log_nothing_new_is_built() {
    let (world, _watch) = watched();
    world.settled();
    let later: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(|| clock()() + DAY_S + 3600);
    let mut client = Client::open(&world.profile(), Arc::clone(&later)).expect("opens");
    is_unwitnessed(client.new_kit(), Unwitnessed::Stale);
    is_unwitnessed(client.link("aaaaaaaa"), Unwitnessed::Stale);
    // Backups go on.
    world.write("a", "b");
    client.backup(None, &Progress::default()).expect("backs up");
    drop(client);
    // With the right clock, and when they cosign again, all is well.
    world.client().new_kit().expect("makes");
    // Who is new can't know it for an old one otherwise, and refuses.
    let kit = world.with_kit();
    is_unwitnessed(world.restore_kit(&kit, "paper", later), Unwitnessed::Stale);
}

/// AV-05 for logs: an older state for somebody who comes with a kit.
#[test]
fn sr_036_who_restores_from_a_kit_asks_the_witnesses() {
    attack(&[Misbehaviour::LogRolledBack], || {
        let (mut world, watch) = watched();
        let kit = world.with_kit();
        world.settled();
        let before = world.copied_to("before");
        drop(world.link("phone"));
        world.settled();
        world.rolled_back_to(&before);
        let mut paper = world.restore_kit(&kit, "paper", clock())?;
        assert!(log_of(&mut paper).size < watch.has_cosigned().expect("has"));
        Ok(())
    });
}

/// The same with two histories of one length, and with a log that is hidden.
#[test]
fn who_links_or_joins_asks_the_witnesses() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut world, mut watch) = watched();
    world.settled();
    let before = world.copied_to("before");
    let joined = |world: &mut World, name: &str| {
        let (invite, dir) = (world.invite(), world.other(name));
        Client::join(&dir, &invite, None, name, clock()).map(drop)
    };
    joined(&mut world, "one").expect("joins");
    world.settled_as(&world.other("one"));
    world.rolled_back_to(&before);
    // It refuses each time, not only the first.
    let refused = joined(&mut world, "other");
    assert!(refused.is_err(), "{refused:?}");
    let mut again = world.open("other");
    let refused = again.status();
    assert!(refused.is_err(), "{refused:?}");
    // Hidden: the operator shows no checkpoint at all.
    world.tamper(|data| {
        let database = rusqlite::Connection::open(data.join("strongroom.db")).expect("opens");
        database
            .execute("UPDATE log SET entry = zeroblob(114) WHERE place = 1", [])
            .expect("damages");
    });
    let refused = joined(&mut world, "third");
    assert!(
        matches!(refused, Err(ClientError::NoLog | ClientError::ServerRefused(_))),
        "{refused:?}"
    );
    watch.stop();
}

#[test]
fn a_server_that_is_behind_its_witness_does_not_start() {
    let (mut world, _watch) = watched();
    world.write("first", "of yesterday");
    world.backup();
    world.settled();
    let copy_of_yesterday = world.copied_to("copy");
    drop(world.link("phone"));
    let size = world.settled().size;
    world.stop();
    let open = |data: &Path| {
        let data =
            DataDir::open(data, &mut rand_core::UnwrapErr(getrandom::SysRng)).expect("opens");
        let stores = data.stores.clone();
        let server =
            Server::new(data.identity, data.stores, Caps::default(), clock(), Box::new(|_| {}));
        (server.expect("begins").ask_witnesses(), stores)
    };
    open(&world.data()).0.expect("is where its witness is");
    fs::remove_dir_all(world.data()).expect("deletes");
    copy(&copy_of_yesterday, &world.data());
    let behind = open(&world.data()).0;
    assert!(matches!(behind, Err(DataError::BehindWitness { missing: 1, .. })), "{behind:?}");
    // As one that was put back it starts, and knows what it misses.
    begin_restoring(&{ open(&world.data()).1 }).expect("begins");
    open(&world.data()).0.expect("starts");
    let short = finish_restoring(&world.data());
    assert!(matches!(short, Err(DataError::LogShort { missing: 1 })), "{short:?}");
    world.start();
    world.client().devices().expect("gives back");
    finish_restoring(&world.data()).expect("has all");
    assert_eq!(world.settled().size, size);
    world.backup();
    assert_eq!(evidence_files(&world.profile()).expect("lists"), Vec::<PathBuf>::new());
    // Another history of the same length.
    let other = world.copied_to("other");
    drop(world.with_kit());
    world.settled();
    world.stop();
    let meta = Sqlite::open(&other).expect("opens");
    let mut entry = meta.log_entries(0, 1).expect("reads").remove(0);
    entry.value = [7; 32];
    drop(meta);
    let database = rusqlite::Connection::open(other.join("strongroom.db")).expect("opens");
    let place = size;
    let insert = "INSERT INTO log VALUES (?1, ?2)";
    database.execute(insert, rusqlite::params![place, entry.to_bytes()]).expect("forks");
    drop(database);
    let forked = open(&other).0;
    assert!(matches!(forked, Err(DataError::OtherThanWitness { .. })), "{forked:?}");
    world.start();
}

#[test]
fn an_account_asks_others_when_a_device_and_the_kit_say_so() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("a", "b");
    world.backup();
    drop(world.link("phone"));
    let cam = {
        world.link_as(DeviceKind::Limited, "cam");
        world.other("cam")
    };
    let kit = world.with_kit();
    let watch = world.watch("witness");
    let log = world.settled();
    assert_eq!((log.level, log.cosigned_s), (Level::G0, None));
    let policy = world.client().policy_of_server().expect("names it");
    let set = |world: &World, text: &str, kit| world.client().set_witness_policy(text, kit);
    for wrong in ["", "nonsense", "quorum nobody\n", &"#".repeat(20_000)] {
        assert!(matches!(set(&world, wrong, Some(&kit)), Err(ClientError::PolicyWrong)), "{wrong}");
    }
    // A witness that has not cosigned this log would stop every device.
    let stranger = Watch::start(&world.dir.path().join("x"), &world, ([127, 0, 0, 1], 0).into());
    let key = &stranger.witness.verifiers()[0];
    let unknown = format!("witness x {key}\nquorum x\n");
    is_unwitnessed(set(&world, &unknown, Some(&kit)), Unwitnessed::TooFew);
    let (other, _) = world.client().new_kit().expect("makes");
    assert!(matches!(set(&world, &policy, Some(&other)), Err(ClientError::KitWrong { .. })));
    assert_eq!(set(&world, &policy, Some(&kit)).expect("sets"), None);
    let log = world.settled();
    assert_eq!((log.level, log.unwitnessed), (Level::G2, None));
    assert!(world.client().trust().expect("asks").kit_is_older);
    assert_eq!(world.settled_as(&world.other("phone")).level, Level::G2);
    // One that only adds was not told: it adds.
    let mut limited = Client::open(&cam, clock()).expect("opens");
    assert_eq!(log_of(&mut limited).unwitnessed, Some(Unwitnessed::PolicyUnknown));
    limited.add_folder(&world.folder()).expect("adds");
    limited.backup(None, &Progress::default()).expect("backs up");
    drop(limited);
    // One that is linked from now on is told.
    drop(world.link_as(DeviceKind::Limited, "new-cam"));
    assert_eq!(world.settled_as(&world.other("new-cam")).unwitnessed, None);
    // A new kit is protected by it.
    let mut client = world.client();
    let (new, _) = client.new_kit().expect("makes");
    client.set_kit(&new, Some(&kit)).expect("sets");
    assert!(!client.trust().expect("asks").kit_is_older);
    drop(client);
    world.settled();
    let before = world.copied_to("before");
    drop(world.link("tablet"));
    world.settled();
    world.rolled_back_to(&before);
    let restored = world.restore_kit(&new, "paper", clock()).map(drop);
    assert!(
        matches!(restored, Err(ClientError::Misbehaviour(Misbehaviour::LogRolledBack))),
        "{restored:?}"
    );
    // If it is lost for good, a person says so, and reads what there is.
    let mut paper = world.open("paper");
    let rollback = paper.rollback().expect("says why");
    assert_eq!(rollback.unwitnessed, Some(Unwitnessed::Behind));
    paper.accept_rollback(rollback).expect("goes on");
    assert_eq!(paper.snapshots().expect("reads").len(), 1);
    drop(paper);
    drop(watch);
}

/// Without the kit it waits, and another device can stop it.
#[test]
fn a_policy_without_the_kit_waits() {
    let mut world = World::new();
    drop(world.link("phone"));
    let _watch = world.watch("witness");
    world.settled();
    let policy = world.client().policy_of_server().expect("names it");
    let until_s = world.client().set_witness_policy(&policy, None).expect("begins").expect("waits");
    assert!(until_s >= clock()() + 3 * DAY_S - 60);
    assert_eq!(world.settled().level, Level::G0);
    let mut phone = world.open("phone");
    let request = phone.requests().expect("reads").remove(0);
    phone.veto(request.number).expect("stops it");
    assert!(phone.requests().expect("reads").is_empty());
    drop(phone);
    world.client().set_witness_policy(&policy, None).expect("begins");
    drop(world.link_as(DeviceKind::Limited, "cam"));
    world.ahead.fetch_add(3 * DAY_S + 3600, Ordering::SeqCst);
    // One that can only add has no say in it, and is not stopped by it.
    let mut cam = Client::open(&world.other("cam"), world.clock()).expect("opens");
    cam.snapshots().expect("reads");
    drop(cam);
    let mut client = Client::open(&world.profile(), world.clock()).expect("opens");
    log_of(&mut client);
    log_of(&mut client);
    assert_eq!(log_of(&mut client).level, Level::G2);
}

/// What witnesses' clocks show, and what they don't.
#[test]
fn a_server_whose_clock_is_off_its_witnesses_shows_nothing_new() {
    let (mut world, watch) = watched();
    let before = world.settled().size;
    world.stop();
    // The server's clock jumps; that of the witness is another one's.
    drop(watch);
    let far = World::bare();
    far.ahead.store(3 * DAY_S, Ordering::SeqCst);
    let mut watch =
        Watch::start(&world.dir.path().join("witness"), &far, ([127, 0, 0, 1], 0).into());
    world.put_back(|data| {
        let meta = Sqlite::open(data).expect("opens");
        let (url, keys) = meta.witnesses().expect("lists").remove(0);
        meta.set_witness(&url, None).expect("forgets");
        meta.set_witness(&watch.url(), Some(&keys)).expect("moves");
    });
    // The card that names the moved witness is in the log, and nobody is shown that.
    let reader = sr_client::LogReader::new(&world.address(), clock()).expect("reads");
    assert_eq!(reader.status().expect("has a log").size, before);
    let log = log_of(&mut world.client());
    assert_eq!(log.size, before, "{log:?}");
    watch.stop();
}

/// The backup is from before the witness: the operator names it again, and all comes back.
#[test]
fn a_server_that_was_put_back_from_before_its_witness_gets_everything_back() {
    let mut world = World::new();
    world.write("a", "b");
    world.backup();
    world.settled();
    let old = world.copied_to("old");
    let watch = world.watch("witness");
    world.settled();
    drop(world.link("phone"));
    let size = world.settled().size;
    let put_back = |world: &mut World, begin: bool| {
        world.put_back(|data| {
            fs::remove_dir_all(data).expect("deletes");
            copy(&old, data);
            add_witness(data, &watch.url(), &watch.keys()).expect("adds");
            if begin {
                Sqlite::open(data).expect("opens").set_put_back(b"").expect("begins");
            }
        });
    };
    // Named again, but not said to be put back: it does not add to its log what would contradict that.
    put_back(&mut world, false);
    let log = Sqlite::open(&world.data()).expect("opens").log_len().expect("counts");
    assert_eq!(log, Sqlite::open(&old).expect("opens").log_len().expect("counts"));
    put_back(&mut world, true);
    assert_eq!(world.client().devices().expect("gives back").len(), 2);
    finish_restoring(&world.data()).expect("has all");
    world.put_back(|_| {});
    assert_eq!(world.settled().size, size);
    assert_eq!(world.settled_as(&world.other("phone")).size, size);
    assert_eq!(Sqlite::open(&world.data()).expect("opens").policies().expect("lists").len(), 1);
    assert_eq!(evidence_files(&world.profile()).expect("lists"), Vec::<PathBuf>::new());
}

/// A witness is named once, and no policy goes into a card that nobody can read.
#[test]
fn a_witness_is_named_once() {
    let (world, watch) = watched();
    let again = add_witness(&world.data(), "http://127.0.0.1:9", &watch.keys());
    assert!(matches!(again, Err(DataError::WitnessTwice)), "{again:?}");
    let url = watch.url();
    add_witness(&world.data(), &url, &watch.keys()).expect("is the same");
    let key = watch.witness.verifiers()[0].to_string();
    for (url, keys) in [
        ("https://a", watch.keys()),
        ("a:80", watch.keys()),
        (url.as_str(), String::new()),
        (url.as_str(), format!("{key}\n{key}")),
        (url.as_str(), sr_server::log_keys(&world.data()).expect("has keys")),
    ] {
        let refused = add_witness(&world.data(), url, &keys);
        assert!(matches!(refused, Err(DataError::WitnessText)), "{refused:?}");
    }
}

/// A witness that is down for a while: what all had cosigned goes on being shown.
#[test]
fn while_a_witness_is_down_the_cosigned_log_is_shown() {
    let (world, mut watch) = watched();
    let kit = world.with_kit();
    world.settled();
    watch.stop();
    drop(world.link("phone"));
    // The server has signed a newer one by then, and shows it to nobody.
    let meta = Sqlite::open(&world.data()).expect("opens");
    let size = meta.log_len().expect("counts");
    until("the server has signed nothing newer", || {
        let note = String::from_utf8(meta.checkpoint().expect("reads")?).expect("text");
        (note.lines().nth(1) == Some(&size.to_string())).then_some(())
    });
    let log = log_of(&mut world.client());
    assert_eq!((log.unwitnessed, log.missing), (None, 1));
    drop(world.restore_kit(&kit, "paper", clock()).expect("restores"));
    // Hours later it is shown no more, and who comes from paper needs a person's word.
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    assert!(world.unwitnessed(&world.profile()).unwitnessed.is_some(), "it is shown for ever");
    is_unwitnessed(world.restore_kit(&kit, "later", clock()), Unwitnessed::TooFew);
    let mut later = world.open("later");
    is_unwitnessed(later.snapshots(), Unwitnessed::TooFew);
    let rollback = later.rollback().expect("says why");
    assert_eq!(rollback.unwitnessed, Some(Unwitnessed::TooFew));
    later.accept_rollback(rollback).expect("goes on");
    later.snapshots().expect("reads");
}

/// A device that is linked while a witness is down, in an account with a kit, goes on when the witness is back.
#[test]
fn who_was_linked_while_a_witness_was_down_goes_on_later() {
    let (mut world, mut watch) = watched();
    drop(world.with_kit());
    world.settled();
    watch.stop();
    let (invite, other) = (world.invite(), world.other("other"));
    drop(Client::join(&other, &invite, None, "other", clock()).expect("joins"));
    world.ahead.fetch_add(2 * 3600, Ordering::SeqCst);
    assert!(world.unwitnessed(&world.profile()).unwitnessed.is_some());
    let (linking, words) = world.link_to_the_end(DeviceKind::Full);
    let refused = linking.finish(&words, &world.other("phone"), "phone").map(drop);
    is_unwitnessed(refused, Unwitnessed::TooFew);
    let dir = world.dir.path().join("witness");
    let _watch = Watch::start(&dir, &world, watch.address);
    world.ahead.fetch_add(120, Ordering::SeqCst);
    let mut laptop = Client::open(&world.profile(), world.clock()).expect("opens");
    until("it does not come back", || log_of(&mut laptop).unwitnessed.is_none().then_some(()));
    drop(laptop);
    world.write("a", "b");
    let mut phone = Client::open(&world.other("phone"), world.clock()).expect("opens");
    phone.add_folder(&world.folder()).expect("adds");
    phone.backup(None, &Progress::default()).expect("backs up");
}

/// A witness comes back to a server that was started from an older copy meanwhile.
#[test]
fn a_server_that_runs_behind_its_witness_stops_adding() {
    let (mut world, mut watch) = watched();
    world.settled();
    let old = world.copied_to("old");
    drop(world.link("phone"));
    world.settled();
    watch.stop();
    world.put_back(|data| {
        fs::remove_dir_all(data).expect("deletes");
        copy(&old, data);
    });
    let dir = world.dir.path().join("witness");
    let _watch = Watch::start(&dir, &world, watch.address);
    world.ahead.fetch_add(120 + 3600, Ordering::SeqCst);
    until("it goes on", || Sqlite::open(&world.data()).expect("opens").put_back().expect("reads"));
}
