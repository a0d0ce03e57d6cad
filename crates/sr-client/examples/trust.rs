//! What accounts cost: making one, linking, restoring from the kit, verifying a long chain, and folding a
//! long log. Run by
//! `cargo xtask bench trust`; a server over TLS on this machine, SQLite and files, everything synced.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends at a fault"
)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sr_client::{Client, Clock, DeviceKind, Linking};
use sr_crypto::hash;
use sr_keys::{Actor, DeviceKeys, KeyBlock, begin};
use sr_server::{DataDir, Server, TlsListener, add_invite};
use sr_store::Caps;
use sr_trust::{Account, Block, Fold, Mirror, Verified, pop};
use sr_wire::{
    AccountId, labels,
    log::{Entry, Key, Newest},
};

const RUNS: usize = 5;
const BLOCKS: usize = 1000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..RUNS {
        let dir = tempfile::tempdir().expect("dir");
        let data = DataDir::open(&dir.path().join("server"), clock()(), &mut rng()).expect("opens");
        let listener =
            runtime.block_on(TlsListener::bind(([127, 0, 0, 1], 0).into())).expect("binds");
        let address = listener.local_address().expect("address").to_string();
        let (identity, stores) = (data.identity, data.stores);
        let server = Server::new(identity, stores, Caps::default(), clock(), Box::new(|_| {}));
        runtime.spawn(Arc::new(server).serve(listener));
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

/// Joins, links a second device, and restores from a kit; what a person takes to type is not counted.
fn life(dir: &Path, address: &str) -> [Duration; 3] {
    let invite = add_invite(&dir.join("server"), &[address.to_owned()], &mut rng())
        .expect("invites")
        .remove(0);
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
            actor.remove_device(&one, device.id(), Vec::new(), &mut rng()).expect("removes")
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
