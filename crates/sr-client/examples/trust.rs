//! What accounts cost: making one, linking, restoring from the kit, verifying a long chain; and what the log
//! costs: folding it, following it, appending to it. Run by `cargo xtask bench trust`; a server over TLS on
//! this machine, SQLite and files, everything synced.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends at a fault"
)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use sr_client::{Client, Clock, DeviceKind, Dial, Linking, LogReader, Progress, TlsDialer};
use sr_crypto::{Hash, Secret32, hash};
use sr_keys::{Act, Actor, DeviceKeys, KeyBlock, begin};
use sr_server::{DataDir, Server, TlsListener, add_invite};
use sr_store::{Caps, MetaStore, Sqlite};
use sr_tlog::{
    Checkpoint, KeyKind, LogKeys, Note, NoteKey, Policy, Tree, leaf_hash, verify_inclusion,
};
use sr_trust::{Account, Block, Fold, Mirror, Verified, pop};
use sr_wire::{
    AccountId, Card, Invite,
    api::{self, AccountAppend},
    decode, encode, labels,
    log::{ENTRY_LEN, Entry, Key, Newest, SignedReceipt},
    voucher_hash,
};
use tokio::runtime::Runtime;

const RUNS: usize = 5;
const BLOCKS: usize = 1000;

fn main() {
    let runtime = Runtime::new().expect("runtime");
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..RUNS {
        let dir = tempfile::tempdir().expect("dir");
        let (address, _) = serve(&runtime, dir.path());
        for (times, time) in times.iter_mut().zip(life(dir.path(), &address)) {
            times.push(time);
        }
    }
    for (name, times) in
        ["making an account", "linking a device", "restoring from the kit"].iter().zip(&mut times)
    {
        times.sort();
        println!("{name}: {} ms", times[RUNS / 2].as_millis());
    }
    let (blocks, account) = chain();
    let began = Instant::now();
    let parsed: Vec<Block> =
        blocks.iter().map(|block| Block::parse(block).expect("parses")).collect();
    let verified = Verified::<Account>::verify(account, &parsed).expect("verifies");
    println!(
        "verifying {} blocks: {} ms, {} bytes",
        verified.seq() + 1,
        began.elapsed().as_millis(),
        blocks.iter().map(Vec::len).sum::<usize>()
    );
    fold();
    follow(&runtime);
    append(&runtime);
    sizes();
}

/// Reads a log of a million entries, of 50,000 accounts that change again and again.
fn fold() {
    const ENTRIES: usize = 1_000_000;
    const ACCOUNTS: usize = 50_000;
    let mut newest: Vec<Option<Newest>> = vec![None; ACCOUNTS];
    let mut entries = Vec::new();
    for number in 0..ENTRIES {
        let place = number % ACCOUNTS;
        let key = Key::account(AccountId(hash(labels::ACCOUNT, &[&place.to_be_bytes()])));
        let value = hash(labels::BLOCK, &[&number.to_be_bytes()]);
        let entry = Entry::following(newest[place].as_ref(), key, value, number as u64);
        newest[place] = Some(Newest { seq: entry.seq, value });
        entries.push(entry.to_bytes());
    }
    let began = Instant::now();
    let mut folded = Fold::default();
    for entry in &entries {
        folded.take(entry).expect("follows");
    }
    println!("folding {ENTRIES} entries: {} ms", began.elapsed().as_millis());
    let began = Instant::now();
    let mut mirror = Mirror::default();
    for entry in &entries {
        mirror.take(entry).expect("follows");
    }
    println!("with the tree: {} ms", began.elapsed().as_millis());
}

/// What a device does at its start: 1,000 accounts, 20,000 entries, of which it knows all but 500.
fn follow(runtime: &Runtime) {
    const KNOWN: u64 = 19_500;
    const ALL: u64 = 20_000;
    let dir = tempfile::tempdir().expect("dir");
    let (address, _) = serve(runtime, dir.path());
    let log = |from: u64, to: u64| {
        let database =
            rusqlite::Connection::open(dir.path().join("server/strongroom.db")).expect("opens");
        let transaction = database.unchecked_transaction().expect("begins");
        let first: u64 =
            database.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).expect("counts");
        let now_s = clock()();
        for (place, number) in (first..).zip(from..to) {
            let before = number.checked_sub(1000).map(|before| Newest {
                seq: before / 1000,
                value: hash(labels::BLOCK, &[&before.to_be_bytes()]),
            });
            let account = hash(labels::ACCOUNT, &[&(number % 1000).to_be_bytes()]);
            let value = hash(labels::BLOCK, &[&number.to_be_bytes()]);
            let key = Key::account(AccountId(account));
            let entry = Entry::following(before.as_ref(), key, value, now_s);
            let row = rusqlite::params![place, entry.to_bytes()];
            transaction.execute("INSERT INTO log VALUES (?1, ?2)", row).expect("adds");
        }
        transaction.commit().expect("adds");
    };
    log(0, KNOWN);
    let invite = invite(dir.path(), &address);
    let profile = dir.path().join("a");
    drop(Client::join(&profile, &invite, None, "a", clock()).expect("joins"));
    let wait_for = |size: u64| {
        let reader = LogReader::new(&address, clock()).expect("reads");
        while reader.status().expect("has a log").size < size {
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let start = || {
        let began = Instant::now();
        let mut client = Client::open(&profile, clock()).expect("opens");
        let status = client.status().expect("asks");
        (began.elapsed(), status.log.expect("is reached").size)
    };
    // The cards, and the account's own.
    let others = 3;
    wait_for(KNOWN + others);
    start();
    let (nothing_new, _) = start();
    log(KNOWN, ALL);
    wait_for(ALL + others);
    let (new, size) = start();
    assert_eq!(size, ALL + others);
    println!("starting (status) with nothing new in the log: {} ms", nothing_new.as_millis());
    println!("with 500 new of {size} entries: {} ms", new.as_millis());
    let began = Instant::now();
    let reader = LogReader::new(&address, clock()).expect("reads");
    reader.verify(&Progress::default()).expect("verifies");
    println!("reading and folding all {size}: {} ms", began.elapsed().as_millis());
}

/// Appends as fast as the server takes them: accounts that begin, add a device and take it out again.
fn append(runtime: &Runtime) {
    const ACCOUNTS: usize = 10_000;
    const AT_ONCE: usize = 8;
    let dir = tempfile::tempdir().expect("dir");
    let (address, card) = serve(runtime, dir.path());
    let tokens: Vec<Hash> =
        (0..ACCOUNTS as u64).map(|n| hash(labels::VOUCHER, &[&n.to_be_bytes()])).collect();
    let hashes: Vec<Hash> = tokens.iter().map(voucher_hash).collect();
    let database = Sqlite::open(&dir.path().join("server")).expect("opens");
    database.add_vouchers(&hashes).expect("adds");
    let queue = Mutex::new(tokens.iter().map(small_chain).collect());
    let slowest = Mutex::new(Duration::ZERO);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| runtime.block_on(send(&address, &queue, &card, &slowest)));
        }
    });
    let took = began.elapsed();
    let appends = 3 * ACCOUNTS;
    println!(
        "{appends} appends, {AT_ONCE} at once: {:.1} s, {:.0} a second, the slowest receipt after {} ms",
        took.as_secs_f64(),
        appends as f64 / took.as_secs_f64(),
        slowest.into_inner().expect("lock").as_millis()
    );
}

/// An account, and the requests that make it.
type Chain = (AccountId, [Vec<u8>; 3]);

/// Sends what is left, chain by chain, and looks at nothing but how long each answer takes.
async fn send(address: &str, queue: &Mutex<Vec<Chain>>, card: &Card, slowest: &Mutex<Duration>) {
    let dialer = TlsDialer::new(address.to_owned()).expect("dials");
    let channel = dialer.dial().await.expect("connects");
    let io = hyper_util::rt::TokioIo::new(channel.io);
    let builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(io).await.expect("speaks");
    tokio::spawn(connection);
    loop {
        let Some((account, requests)) = queue.lock().expect("lock").pop() else { return };
        for body in requests {
            let request: AccountAppend =
                decode("request", &body, body.len()).expect("is what was made");
            let block = Block::parse(request.blocks[0].as_slice()).expect("parses");
            let request = http::Request::post(format!("https://strongroom{}", api::ACCOUNT_APPEND));
            let request = request.body(Full::new(Bytes::from(body))).expect("a request");
            let began = Instant::now();
            let response = sender.send_request(request).await.expect("answers");
            let reply = response.into_body().collect().await.expect("answers").to_bytes();
            let took = began.elapsed();
            let receipt: SignedReceipt = decode("answer", &reply, reply.len()).expect("a receipt");
            receipt.verify(card, account, block.body.seq, &block.hash()).expect("is signed");
            let mut slowest = slowest.lock().expect("lock");
            *slowest = took.max(*slowest);
        }
    }
}

/// The requests of an account that begins, adds a device, and takes it out again.
fn small_chain(token: &Hash) -> Chain {
    let (one, two) = (DeviceKeys::generate(&mut rng()), DeviceKeys::generate(&mut rng()));
    let (id, first, secrets) = begin(&one, 1000, [0; 32], 1, &mut rng()).expect("begins");
    let mut account =
        Verified::begin(id, &Block::parse(&first.block).expect("parses")).expect("is");
    let joins = pop(&two.signing(), id, &two.info(), &[0; 32]);
    let actor = Actor { account: &account, keys: &secrets, time_s: 1 };
    let added = actor.add_device(&one, &two.info(), [0; 32], joins, &mut rng()).expect("adds");
    account.extend(&Block::parse(&added.block).expect("parses")).expect("verifies");
    let key_block = added.key_block.clone().expect("has one");
    let secrets = KeyBlock::open(&key_block, &account, one.id(), &one.sealing()).expect("opens");
    let actor = Actor { account: &account, keys: &secrets, time_s: 1 };
    let removed =
        actor.remove_device(&one, (two.id(), &[]), Vec::new(), &mut rng()).expect("removes");
    let request = |act: Act, voucher: Option<Hash>| {
        encode(&AccountAppend {
            account: id,
            blocks: vec![act.block.into()],
            key_block: act.key_block.map(Into::into),
            envelope: None,
            voucher,
            receipts: Vec::new(),
        })
    };
    (id, [request(first, Some(*token)), request(added, None), request(removed, None)])
}

/// What a reader verifies, and how much it reads in a year.
fn sizes() {
    const TIMES: u32 = 1000;
    let seed = |byte| Secret32::init_with(|seed| seed.fill(byte));
    let keys = [(KeyKind::Ed25519, 1), (KeyKind::CosignMlDsa44, 2)]
        .map(|(kind, byte)| NoteKey::new("example.org/log", kind, &seed(byte)).expect("a name"));
    let mut tree = Tree::new();
    (0..1_000_000_u64).for_each(|n| tree.push(leaf_hash(&n.to_be_bytes())));
    let (size, root) = (tree.size(), tree.root(tree.size()).expect("has one"));
    let checkpoint = Checkpoint::new("example.org/log", size, root).expect("an origin");
    let signatures = keys.iter().map(|key| key.sign(&checkpoint, 1)).collect();
    let note = Note { text: checkpoint.to_string(), signatures }.to_string();
    let [ed25519, ml_dsa] = keys.map(|key| key.verifier());
    let keys = LogKeys::new(ed25519, ml_dsa).expect("a pair");
    let proof = tree.prove_inclusion(7, size).expect("is in it");
    let each = |what: &str, work: &dyn Fn()| {
        let began = Instant::now();
        (0..TIMES).for_each(|_| work());
        println!("{what}: {} µs", began.elapsed().as_micros() / u128::from(TIMES));
    };
    each("verifying a checkpoint, both signatures", &|| {
        keys.open(note.as_bytes(), &Policy::none(), 9).expect("verifies");
    });
    each("verifying a proof in a log of 1,000,000", &|| {
        let leaf = leaf_hash(&7_u64.to_be_bytes());
        verify_inclusion(&leaf, 7, size, &proof, &root).expect("verifies");
    });
    // Each entry has its length before it.
    let a_year = 10 * (ENTRY_LEN + 2);
    println!(
        "a checkpoint: {} bytes; an account that changes ten times a year: {a_year} bytes",
        note.len()
    );
}

/// A new server in `dir`.
fn serve(runtime: &Runtime, dir: &Path) -> (String, Card) {
    let data = DataDir::open(&dir.join("server"), &mut rng()).expect("opens");
    let listener = runtime.block_on(TlsListener::bind(([127, 0, 0, 1], 0).into())).expect("binds");
    let address = listener.local_address().expect("address").to_string();
    let (identity, stores) = (data.identity, data.stores);
    let card = identity.card().clone();
    let server =
        Server::new(identity, stores, Caps::default(), clock(), Box::new(|_| {})).expect("begins");
    runtime.spawn(Arc::new(server).serve(listener));
    (address, card)
}

fn invite(dir: &Path, address: &str) -> Invite {
    add_invite(&dir.join("server"), &[address.to_owned()], &mut rng()).expect("invites").remove(0)
}

/// Joins, links a second device, and restores from a kit; what a person takes to type is not counted.
fn life(dir: &Path, address: &str) -> [Duration; 3] {
    let invite = invite(dir, address);
    let began = Instant::now();
    let mut client =
        Client::join(&dir.join("a"), &invite, None, "a", clock()).expect("makes an account");
    let joined = began.elapsed();

    let began = Instant::now();
    let mut linking = Linking::begin(address, DeviceKind::Full, clock()).expect("begins");
    let code = linking.code();
    let own = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (send, receive) = std::sync::mpsc::channel::<Vec<String>>();
    let words = std::thread::scope(|scope| {
        let client = &mut client;
        let old = scope.spawn(move || {
            let offer = client.link(&code).expect("meets");
            client.link_finish(offer, &receive.recv().expect("words")).expect("adds")
        });
        send.send(own(linking.words().expect("words"))).expect("waits");
        let words = own(old.join().expect("joins"));
        linking.wait().expect("is added");
        words
    });
    linking.finish(&words, &dir.join("b"), "b").expect("finishes");
    let linked = began.elapsed();

    let (kit, _) = client.new_kit().expect("makes");
    client.set_kit(&kit, None).expect("sets");
    let began = Instant::now();
    let mut restored =
        Client::restore_kit(&dir.join("c"), address, &kit, "c", clock()).expect("restores");
    restored.snapshots().expect("reads");
    [joined, linked, began.elapsed()]
}

/// A chain in which devices come and go, as many as there may be at once.
fn chain() -> (Vec<Vec<u8>>, sr_wire::AccountId) {
    let one = DeviceKeys::generate(&mut rng());
    let (id, act, mut secrets) = begin(&one, 1000, [0; 32], 1, &mut rng()).expect("begins");
    let mut account = Verified::begin(id, &Block::parse(&act.block).expect("parses")).expect("is");
    let mut blocks = vec![act.block];
    let mut others: Vec<DeviceKeys> = Vec::new();
    while blocks.len() < BLOCKS {
        let actor = Actor { account: &account, keys: &secrets, time_s: 1 };
        let act = if others.len() < 4 {
            let device = DeviceKeys::generate(&mut rng());
            let joins = pop(&device.signing(), id, &device.info(), &[0; 32]);
            let act = actor.add_device(&one, &device.info(), [0; 32], joins, &mut rng());
            others.push(device);
            act.expect("adds")
        } else {
            let device = others.remove(0);
            actor.remove_device(&one, (device.id(), &[]), Vec::new(), &mut rng()).expect("removes")
        };
        account.extend(&Block::parse(&act.block).expect("parses")).expect("verifies");
        let key_block = act.key_block.expect("has one");
        secrets = KeyBlock::open(&key_block, &account, one.id(), &one.sealing()).expect("opens");
        blocks.push(act.block);
    }
    (blocks, id)
}

fn clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    })
}

fn rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
