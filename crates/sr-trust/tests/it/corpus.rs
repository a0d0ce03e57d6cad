//! Plays what the fuzzer has found and kept for the log, on any compiler.

use std::{fs, path::Path};

use sr_tlog::{Checkpoint, Note, bundle, leaf_hash};
use sr_wire::log::{ACCOUNT, Entry, Key, Newest};

use crate::targets::{TARGETS, keys, run};

#[test]
fn corpora_are_played_without_a_panic() {
    for target in TARGETS {
        let mut played = 0;
        for file in fs::read_dir(corpus(target)).expect("folder") {
            run(target, &fs::read(file.expect("entry").path()).expect("reads"));
            played += 1;
        }
        assert!(played >= 10, "{target}: {played}");
    }
}

fn corpus(target: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// What a fuzzer would not come upon by itself: `SR_MAKE_SEEDS=1 cargo test -p sr-trust` writes it.
#[test]
fn seeds_of_the_corpora_are_taken() {
    let key = Key { kind: ACCOUNT, index: [1; 32] };
    let first = Entry::following(None, key, [2; 32], 5);
    let second = Entry::following(Some(&Newest { seq: 0, value: [2; 32] }), key, [3; 32], 6);
    let entries = [first.to_bytes(), second.to_bytes()];
    let bundle = [&[2][..], &bundle(&entries).expect("short")].concat();
    let checkpoint =
        Checkpoint::new("example.org/log", 1, leaf_hash(&entries[0])).expect("an origin");
    let signatures = keys().iter().map(|key| key.sign(&checkpoint, 7)).collect();
    let text = checkpoint.to_string();
    let note = Note { text: text.clone(), signatures }.to_string();
    let proof = format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{note}");
    let [_, witness] = keys().map(|key| key.verifier());
    let policy = format!("witness w {witness}\ngroup g any w\nquorum g\n");
    let seeds: [(&str, &[u8]); 7] = [
        ("log-entries", &bundle),
        ("log-note", note.as_bytes()),
        ("log-note", proof.as_bytes()),
        ("log-note", text.as_bytes()),
        ("log-policy", policy.as_bytes()),
        ("log-policy", b"tile/entries/x001/234.p/5"),
        ("log-policy", b"tile/1/x001/234"),
    ];
    for (number, (target, seed)) in seeds.into_iter().enumerate() {
        run(target, seed);
        if std::env::var_os("SR_MAKE_SEEDS").is_some() {
            fs::create_dir_all(corpus(target)).expect("makes");
            fs::write(corpus(target).join(format!("seed-{number}")), seed).expect("writes");
        }
    }
}
