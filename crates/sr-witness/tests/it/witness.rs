//! What a witness cosigns, and what it does not.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sr_crypto::Secret32;
use sr_tlog::{
    Checkpoint, Digest, KeyKind, LogKeys, Note, NoteKey, Policy, Quorum, Tree, leaf_hash,
};
use sr_witness::{AskError, Refused, WATCHED_FILE, Witness, WitnessError};

/// A log, and what signs it.
struct Log {
    keys: [NoteKey; 2],
    tree: Tree,
}

impl Log {
    fn new(seed: u8, entries: u8) -> Self {
        let seed = |n| Secret32::init_with(|bytes| bytes.fill(seed ^ n));
        let keys = [(KeyKind::Ed25519, 1), (KeyKind::CosignMlDsa44, 2)]
            .map(|(kind, n)| NoteKey::new("example.org/log", kind, &seed(n)).expect("a name"));
        let mut tree = Tree::new();
        (0..entries).for_each(|n| tree.push(leaf_hash(&[n])));
        Self { keys, tree }
    }

    fn public(&self) -> LogKeys {
        let [ed25519, ml_dsa] = self.keys.each_ref().map(NoteKey::verifier);
        LogKeys::new(ed25519, ml_dsa).expect("a pair")
    }

    fn note(&self, size: u64) -> String {
        let root = self.tree.root(size).expect("has them");
        let checkpoint = Checkpoint::new("example.org/log", size, root).expect("an origin");
        let signatures = self.keys.iter().map(|key| key.sign(&checkpoint, 7)).collect();
        Note { text: checkpoint.to_string(), signatures }.to_string()
    }

    fn request(&self, old: u64, new: u64) -> Vec<u8> {
        let proof = match old {
            0 => Vec::new(),
            old => self.tree.prove_consistency(old, new).expect("has them"),
        };
        request(old, &proof, &self.note(new))
    }
}

fn request(old: u64, proof: &[Digest], note: &str) -> Vec<u8> {
    let lines: String =
        proof.iter().map(|hash| format!("{}\n", data_encoding::BASE64.encode(hash))).collect();
    format!("old {old}\n{lines}\n{note}").into_bytes()
}

fn open(dir: &Path) -> Witness {
    Witness::open(dir, Some(&mut ChaCha8Rng::seed_from_u64(1)), Arc::new(|| 100)).expect("opens")
}

fn cosigned(witness: &Witness, request: &[u8]) -> Result<(), Refused> {
    witness.add_checkpoint(request).expect("its file is there").map(drop)
}

#[test]
fn what_continues_the_log_is_cosigned_with_both_keys() {
    let dir = tempfile::tempdir().expect("dir");
    let (witness, log) = (open(dir.path()), Log::new(9, 20));
    assert!(witness.add(&log.public()).expect("adds"));
    assert!(!witness.add(&log.public()).expect("is there"));
    assert_eq!(witness.watched().expect("lists")[0].size, None);
    let [one, other] = witness.verifiers();
    let policy: Policy = format!("witness a {one}\nwitness b {other}\ngroup w all a b\nquorum w\n")
        .parse()
        .expect("policy");
    for (old, new) in [(0, 0), (0, 5), (5, 5), (5, 20), (20, 20)] {
        let lines = witness.add_checkpoint(&log.request(old, new)).expect("file").expect("cosigns");
        let note = format!("{}{}", log.note(new), String::from_utf8(lines).expect("text"));
        let opened = log.public().open(note.as_bytes(), &policy, 100).expect("both have signed");
        assert_eq!(opened.quorum, Quorum::At(100));
        let watched = &witness.watched().expect("lists")[0];
        assert_eq!((watched.size, watched.cosigned_s), (Some(new), 100));
    }
}

#[test]
fn what_does_not_continue_the_log_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let (witness, log, fork) = (open(dir.path()), Log::new(9, 20), {
        let mut fork = Log::new(9, 5);
        (0..20).for_each(|n| fork.tree.push(leaf_hash(&[n, 1])));
        fork
    });
    assert_eq!(cosigned(&witness, &log.request(0, 5)), Err(Refused::Unknown));
    witness.add(&log.public()).expect("adds");
    assert_eq!(cosigned(&witness, &log.request(0, 10)), Ok(()));
    // Shorter, or not from where it is; the answer says where.
    assert_eq!(cosigned(&witness, &log.request(0, 5)), Err(Refused::Conflict(10)));
    assert_eq!(cosigned(&witness, &log.request(5, 12)), Err(Refused::Conflict(10)));
    assert_eq!(cosigned(&witness, &log.request(12, 12)), Err(Refused::Conflict(10)));
    assert_eq!(cosigned(&witness, &request(12, &[], &log.note(10))), Err(Refused::Malformed));
    // Another log under the same keys: of the same size, and a longer one with its own proof.
    assert_eq!(cosigned(&witness, &fork.request(10, 10)), Err(Refused::Conflict(10)));
    assert_eq!(cosigned(&witness, &fork.request(10, 20)), Err(Refused::Inconsistent));
    assert_eq!(cosigned(&witness, &request(10, &[], &log.note(20))), Err(Refused::Inconsistent));
    // Somebody else's keys, one key, no form.
    let other = Log::new(8, 20);
    assert_eq!(cosigned(&witness, &other.request(10, 20)), Err(Refused::Unsigned));
    let proof = log.tree.prove_consistency(10, 20).expect("has them");
    let one: String = log.note(20).lines().take(5).map(|line| format!("{line}\n")).collect();
    assert_eq!(cosigned(&witness, &request(10, &proof, &one)), Err(Refused::Unsigned));
    for body in ["", "old 10\n", "old 010\n\n", "old +10\n\n", "old 10\nAAAA\n\n", "new 10\n\n"] {
        let body = [body.as_bytes(), log.note(20).as_bytes()].concat();
        assert_eq!(cosigned(&witness, &body), Err(Refused::Malformed));
    }
    let many = vec![[0; 32]; 64];
    assert_eq!(cosigned(&witness, &request(10, &many, &log.note(20))), Err(Refused::Malformed));
    // After all that, the honest log goes on.
    assert_eq!(cosigned(&witness, &log.request(10, 20)), Ok(()));
    let again = witness.add(&other.public());
    assert!(matches!(again, Err(WitnessError::OtherKeys(_))), "{again:?}");
}

#[test]
fn a_witness_remembers() {
    let dir = tempfile::tempdir().expect("dir");
    let none = Witness::open(dir.path(), None, Arc::new(|| 100));
    assert!(matches!(none, Err(WitnessError::Missing(_))));
    let (log, keys) = (Log::new(9, 20), {
        let witness = open(dir.path());
        witness.add(&Log::new(9, 1).public()).expect("adds");
        assert_eq!(cosigned(&witness, &Log::new(9, 20).request(0, 10)), Ok(()));
        witness.verifiers()
    });
    // Another seed does not make it another.
    let again = Witness::open(dir.path(), Some(&mut ChaCha8Rng::seed_from_u64(2)), Arc::new(|| 1));
    let again = again.expect("opens");
    assert_eq!(again.verifiers(), keys);
    assert_eq!(cosigned(&again, &log.request(0, 5)), Err(Refused::Conflict(10)));
    drop(again);
    std::fs::write(dir.path().join(WATCHED_FILE), "nonsense, and long enough to be read")
        .expect("writes");
    assert!(Witness::open(dir.path(), None, Arc::new(|| 1)).is_err());
}

#[test]
fn it_is_asked_over_http() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, now_s) = (Log::new(9, 20), Arc::new(AtomicU64::new(100)));
    let clock = Arc::clone(&now_s);
    let witness = Witness::open(
        dir.path(),
        Some(&mut ChaCha8Rng::seed_from_u64(1)),
        Arc::new(move || clock.load(Ordering::SeqCst)),
    );
    let witness = Arc::new(witness.expect("opens"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let url = url.parse().expect("a witness's address");
    runtime.spawn(Arc::clone(&witness).serve(listener, |_| {}));

    let notes = [10, 20].map(|size| log.note(size));
    let add = |old, proof: &[Digest], new: usize| {
        sr_witness::add_checkpoint(&url, old, proof, notes[new / 10 - 1].as_bytes())
    };
    assert!(matches!(add(0, &[], 10), Err(AskError::Unknown)));
    assert!(matches!(sr_witness::checkpoint(&url, "example.org/log"), Err(AskError::Unknown)));
    witness.add(&log.public()).expect("adds");
    assert!(matches!(sr_witness::checkpoint(&url, "example.org/log"), Err(AskError::Unknown)));
    let lines = add(0, &[], 10).expect("cosigns");
    let shown = sr_witness::checkpoint(&url, "example.org/log").expect("has it");
    assert_eq!(shown, [notes[0].as_bytes(), &lines].concat());
    assert!(matches!(add(0, &[], 20), Err(AskError::Conflict(10))));
    assert!(matches!(add(10, &[], 20), Err(AskError::Refused(422))));
    let proof = log.tree.prove_consistency(10, 20).expect("has them");
    now_s.store(200, Ordering::SeqCst);
    add(10, &proof, 20).expect("cosigns");
    assert_eq!(witness.watched().expect("lists")[0].cosigned_s, 200);
    drop(runtime);
    assert!(matches!(add(20, &[], 20), Err(AskError::Unreachable(_))));
    for text in
        ["https://a", "http://", "a:80", "http://a/?b", "http://a@b", "ftp://a", "http://a:99999"]
    {
        assert!(text.parse::<sr_witness::WitnessUrl>().is_err(), "{text}");
    }
}
