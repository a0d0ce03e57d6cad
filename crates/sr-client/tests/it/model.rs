//! Random lives of an account against a reference model: up to five devices, a kit and three contacts,
//! a server that lies and stores that fail at random, and processes that die in between.
//!
//! `SR_MODEL_STEPS=100000 SR_MODEL_SEED=7 cargo test -p sr-client --test it model` goes on
//! for longer; a failure names its seed and step.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sr_client::{
    Client, ClientError, Clock, ContactCard, DeviceKind, Kit, Linking, MakeDialer, Progress,
    RequestKind,
};
use sr_crypto::Hash;
use sr_keys::{DeviceKeys, KeyBlock};
use sr_server::{Server, Stores};
use sr_store::{
    Blocks, Caps, MemoryBlobs, MemoryMeta, MetaStore, NewBlocks, PackRecord, StoreError, Swapped,
};
use sr_trust::{Account, Block, Verified};
use sr_wire::{
    AccountId, DeviceId, Invite, PackId, SealedHead, SpaceId, SpaceKeys, VLBytes, decode,
    log::Entry,
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    attacks::ONE_AT_A_TIME,
    network::{SimulatedNetwork, dialer, server, simulated_invite},
    world::clock,
};

const STEPS: u64 = 2_000;
const DEVICES: usize = 5;
const FRIENDS: [&str; 3] = ["ben", "cleo", "dan"];
const DAY_S: u64 = 86_400;

/// The truth, told with lies and lost answers as long as it is asked to lie.
#[derive(Debug, Default)]
struct Liar {
    truth: MemoryMeta,
    lies: AtomicBool,
    rng: Mutex<Option<ChaCha8Rng>>,
    accounts: Mutex<BTreeSet<AccountId>>,
    /// Every key block that was stored, with its account and the place of its block.
    key_blocks: Mutex<Vec<(AccountId, u64, Vec<u8>)>>,
}

impl Liar {
    fn random(&self, below: u64) -> u64 {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        rng.as_mut().map_or(0, |rng| rng.next_u64() % below)
    }

    /// True once in `times`, while the server lies.
    fn now_and_then(&self, times: u64) -> bool {
        self.lies.load(Ordering::SeqCst) && self.random(times) == 0
    }

    /// A failing disk: before the act, or after it, so that only its answer is lost.
    fn done<T>(&self, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fail = || StoreError::Failed { doing: "anything", source: "injected fault".into() };
        if self.now_and_then(12) {
            return Err(fail());
        }
        let done = act()?;
        if self.now_and_then(12) { Err(fail()) } else { Ok(done) }
    }

    fn chain(&self, account: AccountId) -> Vec<Block> {
        let (blocks, _) = self.truth.blocks(account, 0, usize::MAX).expect("has it");
        blocks.iter().map(|block| Block::parse(block).expect("parses")).collect()
    }
}

impl MetaStore for Liar {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        self.truth.add_vouchers(hashes)
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.done(|| self.truth.create_space(space, keys, voucher_hash, caps))
    }

    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError> {
        self.truth.space_keys(space)
    }

    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.done(|| self.truth.add_pack(space, pack, len, caps))
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        self.truth.pack(space, pack)
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        self.truth.packs(space)
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        self.truth.delete_packs(space, packs, days)
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        self.truth.undelete_packs(space)
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        self.truth.count_day(day)
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        self.truth.has_pack(pack)
    }

    /// Now and then, an earlier head, or none.
    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        let newest = self.truth.head(space)?;
        if !self.now_and_then(8) {
            return Ok(newest);
        }
        let Some(newest) = newest else { return Ok(None) };
        let heads = self.truth.heads(space, 1, usize::MAX)?;
        let place = usize::try_from(self.random(newest.seq + 1)).expect("few");
        Ok(place.checked_sub(1).and_then(|place| heads.get(place).cloned()))
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        self.done(|| self.truth.swap_head(head))
    }

    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError> {
        let mut heads = self.truth.heads(space, from, max)?;
        if self.now_and_then(8) {
            match self.random(3) {
                0 => heads.reverse(),
                1 => {
                    heads.pop();
                }
                _ => heads.extend(heads.clone()),
            }
        }
        Ok(heads)
    }

    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError> {
        self.done(|| self.truth.rotate_space(space, expected, keys))
    }

    fn append_blocks(&self, blocks: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
        self.done(|| {
            self.truth.append_blocks(blocks, caps)?;
            self.accounts.lock().expect("lock").insert(blocks.account);
            if let Some(key_block) = &blocks.key_block {
                let entry = (blocks.account, blocks.from, key_block.clone());
                self.key_blocks.lock().expect("lock").push(entry);
            }
            Ok(())
        })
    }

    /// Now and then: blocks left out, repeated, reordered, cut off, changed, or an older key block.
    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        // The server itself asks for all of them, and must not lie to itself.
        let (mut blocks, mut key_block) = self.truth.blocks(account, from, len_max)?;
        if len_max == usize::MAX || len_max == 1 || !self.now_and_then(6) {
            return Ok((blocks, key_block));
        }
        match self.random(7) {
            0 => blocks.reverse(),
            1 => {
                blocks.pop();
            }
            2 => blocks.extend(blocks.clone()),
            3 if !blocks.is_empty() => {
                blocks.remove(0);
            }
            4 => {
                if let Some(last) = blocks.last_mut() {
                    let place = usize::try_from(self.random(last.len() as u64)).expect("few");
                    last[place] ^= 1;
                }
            }
            5 => {
                let all = self.key_blocks.lock().expect("lock");
                key_block = all.iter().find(|(id, ..)| *id == account).map(|b| b.2.clone());
            }
            _ => {
                if let Some(bytes) = &mut key_block {
                    let place = usize::try_from(self.random(bytes.len() as u64)).expect("few");
                    bytes[place] ^= 1;
                }
            }
        }
        Ok((blocks, key_block))
    }

    fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        self.truth.accounts()
    }

    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.truth.begin_log(entries)
    }

    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError> {
        self.truth.log_entries(from, max)
    }

    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.truth.append_entry(entry)
    }

    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.truth.set_checkpoint(note)
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.truth.checkpoint()
    }

    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError> {
        self.truth.give_back_heads(heads)
    }

    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError> {
        self.truth.give_back_log(from, entries, note)
    }

    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError> {
        self.truth.set_put_back(note)
    }

    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.truth.put_back()
    }

    fn end_put_back(&self) -> Result<(), StoreError> {
        self.truth.end_put_back()
    }

    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.truth.witnesses()
    }

    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError> {
        self.truth.set_witness(url, keys)
    }

    fn policies(&self) -> Result<Vec<String>, StoreError> {
        self.truth.policies()
    }

    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError> {
        self.truth.add_policy(policy, entry)
    }

    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.truth.is_owed(entry)
    }

    fn owed(&self) -> Result<u64, StoreError> {
        self.truth.owed()
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        let mut envelope = self.truth.envelope(lookup)?;
        if self.now_and_then(4) {
            envelope[7] ^= 1;
        }
        Ok(envelope)
    }
}

#[derive(TlsDeserializeBytes, TlsSerialize, TlsSize, Debug)]
struct OpenKeyBlock {
    version: u8,
    generation: u32,
    bound_to: [u8; 32],
    recipients: Vec<Recipient>,
    grants: Vec<Recipient>,
    inside: VLBytes,
}

#[derive(TlsDeserializeBytes, TlsSerialize, TlsSize, Debug)]
struct Recipient {
    key: DeviceId,
    sealed: VLBytes,
}

/// A device as the model has it.
struct Modelled {
    dir: PathBuf,
    id: DeviceId,
}

struct Model {
    dir: tempfile::TempDir,
    liar: Arc<Liar>,
    rng: ChaCha8Rng,
    ahead: Arc<AtomicU64>,
    dialer: MakeDialer,
    invite: Invite,
    _runtime: tokio::runtime::Runtime,
    account: AccountId,
    devices: Vec<Modelled>,
    /// All that were made; which of them is in force, the truth says.
    kits: Vec<Kit>,
    /// Profiles of the contacts, and their cards.
    friends: Vec<PathBuf>,
    cards: Vec<(String, ContactCard)>,
    made: u64,
    /// How often each kind of step ended well, so that a test of nothing is noticed.
    done: BTreeMap<&'static str, u64>,
    key_blocks_checked: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let in_memory = Path::new("/dev/shm");
        let dir = if in_memory.is_dir() {
            tempfile::tempdir_in(in_memory).expect("dir")
        } else {
            tempfile::tempdir().expect("dir")
        };
        let liar = Arc::new(Liar::default());
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = moving(&ahead);
        let blobs = Arc::new(MemoryBlobs::default());
        let meta: Arc<dyn MetaStore> = Arc::clone(&liar) as Arc<dyn MetaStore>;
        let (invite, vouchers) = simulated_invite();
        meta.add_vouchers(&vouchers).expect("adds");
        let stores = Stores { meta, blobs };
        let server = Arc::new(server(&stores, Caps::default(), &clock));
        publish_quickly(&server);
        let network = SimulatedNetwork::new();
        let runtime = network.serve(server);
        let dialer = dialer(&network);
        let first = dir.path().join("0");
        std::fs::create_dir(dir.path().join("folder")).expect("makes");
        std::fs::write(dir.path().join("folder/a"), "a").expect("writes");
        let mut client =
            Client::join_by(&first, &invite, None, "0", clock, &dialer).expect("joins");
        client.add_folder(&dir.path().join("folder")).expect("adds");
        drop(client);
        let account = *liar.accounts.lock().expect("lock").first().expect("one account");
        let friends: Vec<_> = FRIENDS.map(|name| dir.path().join(name)).into();
        let cards = FRIENDS.iter().zip(&friends).map(|(name, dir)| {
            let join = Client::join_by(dir, &invite, Some(name), name, moving(&ahead), &dialer);
            let card = join.and_then(|mut friend| friend.contact_card()).expect("joins");
            ((*name).to_owned(), card)
        });
        let cards = cards.collect();
        *liar.rng.lock().expect("lock") = Some(ChaCha8Rng::seed_from_u64(seed ^ 1));
        let devices = vec![Modelled { id: device_id(&first), dir: first }];
        Self {
            dir,
            liar,
            rng: ChaCha8Rng::seed_from_u64(seed),
            ahead,
            dialer,
            invite,
            _runtime: runtime,
            account,
            devices,
            kits: Vec::new(),
            friends,
            cards,
            made: 1,
            done: BTreeMap::new(),
            key_blocks_checked: 0,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        usize::try_from(self.rng.next_u64() % below as u64).expect("few")
    }

    fn clock(&self) -> Clock {
        moving(&self.ahead)
    }

    fn open(&self, place: usize) -> Result<Client, ClientError> {
        Client::open_by(&self.devices[place].dir, self.clock(), &self.dialer)
    }

    /// The kit in force.
    fn kit(&self) -> Option<&Kit> {
        let truth = self.truth();
        let key = truth.policy().kit.as_ref()?;
        self.kits.iter().find(|kit| kit.keys().public() == *key)
    }

    fn truth(&self) -> Verified<Account> {
        Verified::verify(self.account, &self.liar.chain(self.account)).expect("the truth verifies")
    }

    /// One random step, which may end in any error while the server lies, and in few else.
    fn step(&mut self) {
        let is_lying = self.random(2) == 0;
        self.liar.lies.store(is_lying, Ordering::SeqCst);
        let actor = self.random(self.devices.len());
        let (name, result) = match self.random(27) {
            0 if self.devices.len() < DEVICES => ("link", self.link(actor)),
            1 | 2 => ("revoke", self.revoke(actor)),
            3 => ("kit", self.set_kit(actor)),
            4 if self.devices.len() < DEVICES => ("restore by kit", self.restore_kit()),
            5 => ("veto", self.veto(actor)),
            6 => ("new kit without the old", self.set_kit_later(actor)),
            7 => {
                let days = self.random(5) as u64;
                self.ahead.fetch_add(days * DAY_S, Ordering::SeqCst);
                ("days", Ok(()))
            }
            8..=14 => ("backup", self.backup(actor)),
            15 => ("contacts", self.set_contacts(actor)),
            16 if self.random(3) == 0 => ("no contacts", self.remove_contacts(actor)),
            17 if self.devices.len() < DEVICES => ("restore by contacts", self.restore_contacts()),
            _ => ("sync", self.open(actor).and_then(|mut client| client.chain().map(|_| ()))),
        };
        self.liar.lies.store(false, Ordering::SeqCst);
        match result {
            Ok(()) => *self.done.entry(name).or_default() += 1,
            Err(error) => {
                let kind = match &error {
                    ClientError::Misbehaviour(_) => {
                        assert!(is_lying, "{name}: a false alarm: {error}");
                        "refused a lie"
                    }
                    ClientError::DeviceRemoved => "removed",
                    ClientError::ServerRefused(_) => "refused by the server",
                    _ => "other",
                };
                *self.done.entry(kind).or_default() += 1;
            }
        }
        self.check();
    }

    fn link(&mut self, actor: usize) -> Result<(), ClientError> {
        let (name, dir) = self.new_device();
        // The ceremony's own lies are those of `accounts.rs`; here it is the account's.
        let mut linking =
            Linking::begin_by(&self.invite.address, DeviceKind::Full, self.clock(), &self.dialer)?;
        let code = linking.code();
        let mut client = self.open(actor)?;
        linking.set_patience(Duration::from_secs(2));
        client.set_link_patience(Duration::from_secs(2));
        let own = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let linked = std::thread::scope(|scope| {
            let new = scope.spawn(move || {
                let words = linking.words()?;
                Ok::<_, ClientError>((linking, words))
            });
            let offer = client.link(&code);
            let (mut linking, words) = new.join().expect("joins")?;
            let words = client.link_finish(offer?, &own(words))?;
            linking.wait()?;
            linking.finish(&own(words), &dir, &name)
        });
        match linked {
            Ok(mut client) => {
                client.add_folder(&self.dir.path().join("folder"))?;
                drop(client);
                self.devices.push(Modelled { id: device_id(&dir), dir });
                Ok(())
            }
            Err(error) => {
                // A half-made profile is thrown away, as a person would begin anew.
                let _ = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    fn revoke(&mut self, actor: usize) -> Result<(), ClientError> {
        let target = self.random(self.devices.len());
        let id = self.devices[target].id.to_string();
        self.open(actor)?.revoke_device(&id).map(|_| ())
    }

    fn set_kit(&mut self, actor: usize) -> Result<(), ClientError> {
        let mut client = self.open(actor)?;
        let (kit, _) = client.new_kit()?;
        let set = client.set_kit(&kit, self.kit());
        // Whether it counts is what the truth says, whatever the answer was.
        self.kits.push(kit);
        set
    }

    fn set_kit_later(&mut self, actor: usize) -> Result<(), ClientError> {
        let mut client = self.open(actor)?;
        let (kit, _) = client.new_kit()?;
        let begun = client.set_kit_later(&kit).map(|_| ());
        self.kits.push(kit);
        begun
    }

    fn set_contacts(&mut self, actor: usize) -> Result<(), ClientError> {
        let kit = self.kit().ok_or_else(nothing)?;
        let (mut client, mut shares) = (self.open(actor)?, Vec::new());
        let keep = |texts: &[String]| {
            shares = texts.to_vec();
            Ok(())
        };
        let set = client.set_contacts(kit, 2, &self.cards, keep);
        drop(client);
        // The server lies to the contacts at other times.
        let is_lying = self.liar.lies.swap(false, Ordering::SeqCst);
        for (place, share) in shares.iter().enumerate() {
            self.friend(place).accept_share(share).expect("keeps");
        }
        self.liar.lies.store(is_lying, Ordering::SeqCst);
        set
    }

    fn remove_contacts(&mut self, actor: usize) -> Result<(), ClientError> {
        let kit = self.kit().ok_or_else(nothing)?;
        self.open(actor)?.remove_contacts(kit)
    }

    fn friend(&self, place: usize) -> Client {
        Client::open_by(&self.friends[place], self.clock(), &self.dialer).expect("opens")
    }

    fn restore_kit(&mut self) -> Result<(), ClientError> {
        let (name, dir) = self.new_device();
        let kit = self.kit().ok_or_else(nothing)?;
        let address = &self.invite.address;
        let restored =
            Client::restore_kit_by(&dir, address, kit, &name, self.clock(), &self.dialer);
        self.restored(dir, restored)
    }

    fn restore_contacts(&mut self) -> Result<(), ClientError> {
        if self.truth().policy().contacts.is_none() {
            return Err(nothing());
        }
        let (name, dir) = self.new_device();
        let request = Client::request_help(&dir)?;
        let first = self.random(FRIENDS.len());
        let answers = [first, (first + 1) % FRIENDS.len()]
            .map(|place| self.friend(place).help(&request, self.account))
            .into_iter()
            .collect::<Result<Vec<_>, _>>();
        let restored = answers.and_then(|answers| {
            Client::restore_contacts_by(&dir, &answers, &name, self.clock(), &self.dialer)
        });
        self.restored(dir, restored)
    }

    fn new_device(&mut self) -> (String, PathBuf) {
        let name = self.made.to_string();
        self.made += 1;
        let dir = self.dir.path().join(&name);
        (name, dir)
    }

    fn restored(
        &mut self,
        dir: PathBuf,
        restored: Result<Client, ClientError>,
    ) -> Result<(), ClientError> {
        match restored {
            Ok(mut client) => {
                let begun = client.start_recovery(None);
                client.add_folder(&self.dir.path().join("folder"))?;
                drop(client);
                self.devices.push(Modelled { id: device_id(&dir), dir });
                begun.map(|_| ())
            }
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    fn veto(&mut self, actor: usize) -> Result<(), ClientError> {
        let mut client = self.open(actor)?;
        let requests = client.requests()?;
        let this = RequestKind::Device(self.devices[actor].id);
        let Some(other) = requests.iter().find(|request| request.kind != this) else {
            return Err(nothing());
        };
        client.veto(other.number)
    }

    fn backup(&mut self, actor: usize) -> Result<(), ClientError> {
        self.open(actor)?.backup(None, &Progress::default()).map(|_| ())
    }

    /// What must hold after each step.
    fn check(&mut self) {
        let truth = self.truth();
        // No key is encrypted to that the chain does not name.
        let chain = self.liar.chain(self.account);
        let stored = self.liar.key_blocks.lock().expect("lock");
        let new = &stored[self.key_blocks_checked..];
        for (account, seq, bytes) in new.iter().filter(|new| new.0 == self.account) {
            let len = usize::try_from(*seq + 1).expect("few");
            let then = Verified::verify(*account, &chain[..len]).expect("verifies");
            let block: OpenKeyBlock = decode("key block", bytes, 1 << 20).expect("parses");
            let all = block.recipients.iter().chain(&block.grants);
            let recipients: BTreeSet<DeviceId> = all.map(|r| r.key).collect();
            let mut named: BTreeSet<DeviceId> = then.live().map(|device| device.id).collect();
            let policy = then.policy();
            named.extend([&policy.kit, &policy.contacts].into_iter().flatten().map(|key| key.id()));
            assert_eq!(recipients, named, "block {seq}");
        }
        self.key_blocks_checked = stored.len();
        drop(stored);
        let (_, key_block) = self.liar.truth.blocks(self.account, u64::MAX, 1).expect("has it");
        let key_block = key_block.expect("has one");
        for device in &self.devices {
            // No two honest clients accept different states at one number.
            for (seq, hash) in accepted(&device.dir) {
                assert_eq!(truth.block_hash(seq), Some(hash), "{} at {seq}", device.dir.display());
            }
            // A device that is not live opens nothing newer.
            let keys = keys_of(&device.dir);
            let opened = KeyBlock::open(&key_block, &truth, keys.id(), &keys.sealing());
            assert_eq!(opened.is_ok(), truth.is_full(device.id), "{}", device.dir.display());
        }
    }

    /// Nothing is ever stuck: with an honest server every live device goes on, and all agree. Returns false
    /// when the only live devices are such whose profile was thrown away, and there is no kit.
    fn settle(&mut self) -> bool {
        self.ahead.fetch_add(10 * DAY_S, Ordering::SeqCst);
        for _ in 0..3 {
            for place in 0..self.devices.len() {
                let _ = self.open(place).and_then(|mut client| client.chain().map(|_| ()));
            }
            self.ahead.fetch_add(10 * DAY_S, Ordering::SeqCst);
        }
        if !self.devices.iter().any(|device| self.truth().is_full(device.id)) {
            if self.kit().is_none() {
                return false;
            }
            self.restore_kit().expect("the paper brings everything back");
            self.ahead.fetch_add(10 * DAY_S, Ordering::SeqCst);
            self.open(self.devices.len() - 1)
                .and_then(|mut client| client.chain())
                .expect("goes on");
        }
        let truth = self.truth();
        let (mut lists, mut backed_up) = (BTreeSet::new(), 0);
        for place in 0..self.devices.len() {
            if !truth.is_full(self.devices[place].id) {
                continue;
            }
            let mut client = self.open(place).expect("opens");
            let chain = client.chain().expect("a live device goes on");
            // A server that has lied is sent nothing until a person says so.
            let rollback = client.rollback().expect("the server shows all again");
            assert!(rollback.is_nothing(), "{rollback:?}");
            client.accept_rollback(rollback).expect("goes on");
            assert_eq!((chain.seq, chain.hash), (truth.seq(), truth.newest()));
            client.backup(None, &Progress::default()).expect("a live device backs up");
            backed_up += 1;
            lists.insert(client.devices().expect("lists").len());
        }
        assert!(backed_up > 0 && lists.len() == 1, "{backed_up} {lists:?}");
        self.check();
        // Who is out, or never came in, is thrown away, so that others can come.
        let truth = self.truth();
        self.devices.retain(|device| truth.is_full(device.id));
        true
    }
}

/// Has a server add to its log at once, as long as it runs: a life has hundreds of steps.
fn publish_quickly(server: &Arc<Server>) {
    let server = Arc::downgrade(server);
    std::thread::spawn(move || {
        while let Some(server) = server.upgrade() {
            server.publish();
            drop(server);
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn random_lives_keep_the_promises() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (steps, mut seed) = (number("SR_MODEL_STEPS", STEPS), number("SR_MODEL_SEED", 1));
    let mut done = BTreeMap::new();
    let mut left = steps;
    while left > 0 {
        // A life has so many steps that it stays quick, and that all things happen in it.
        let mut life = left.min(200);
        let mut model = Model::new(seed);
        for step in 0..life {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                model.step();
                step % 40 != 39 || model.settle()
            }));
            let goes_on = ran.unwrap_or_else(|_| panic!("seed {seed}, step {step}"));
            if !goes_on {
                life = step + 1;
                break;
            }
        }
        for (name, times) in model.done {
            *done.entry(name).or_insert(0) += times;
        }
        (seed, left) = (seed + 1, left - life);
    }
    println!("{done:?}");
    if steps >= STEPS {
        for name in [
            "link",
            "revoke",
            "kit",
            "restore by kit",
            "contacts",
            "restore by contacts",
            "backup",
            "sync",
            "refused a lie",
            "removed",
        ] {
            assert!(done.get(name).is_some_and(|times| *times > 0), "no {name}: {done:?}");
        }
    }
}

/// A step for which there is nothing to act on.
fn nothing() -> ClientError {
    ClientError::NotFound("anything".into())
}

fn moving(ahead: &Arc<AtomicU64>) -> Clock {
    let (now, ahead) = (clock(), Arc::clone(ahead));
    Arc::new(move || now() + ahead.load(Ordering::SeqCst))
}

fn keys_of(profile: &Path) -> DeviceKeys {
    DeviceKeys::from_file(&std::fs::read(profile.join("keys")).expect("reads")).expect("parses")
}

fn device_id(profile: &Path) -> DeviceId {
    keys_of(profile).id()
}

/// The blocks that a profile has accepted, by their hashes.
fn accepted(profile: &Path) -> Vec<(u64, Hash)> {
    let database = rusqlite::Connection::open(profile.join("state.db")).expect("opens");
    let mut query = database.prepare("SELECT seq, block FROM blocks").expect("query");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)));
    rows.expect("blocks")
        .map(|row| {
            let (seq, block) = row.expect("row");
            (seq, Block::parse(&block).expect("parses").hash())
        })
        .collect()
}
