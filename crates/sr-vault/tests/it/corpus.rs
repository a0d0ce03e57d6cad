//! Plays what the fuzzer has found and kept, and the vectors, on any compiler.

use std::{fs, path::Path};

use crate::targets::{TARGETS, run};

#[test]
fn corpora_are_played_without_a_panic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for target in TARGETS {
        let corpus = root.join("fuzz/corpus").join(target);
        let vectors = if target == "snapshot" { "manifest" } else { target };
        let vectors = root.join("spec/vectors").join(vectors);
        let mut played = 0;
        for folder in [corpus, vectors.join("valid"), vectors.join("invalid")] {
            for file in fs::read_dir(&folder).expect("folder") {
                run(target, &fs::read(file.expect("entry").path()).expect("reads"));
                played += 1;
            }
        }
        assert!(played >= 10, "{target}: {played}");
    }
}
