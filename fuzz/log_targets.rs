//! What the fuzzer calls, and what `cargo test` calls with the corpora: parsers of what a log and its
//! witnesses can send. None panics, and what one takes has one form.

use std::{str::FromStr, sync::OnceLock};

use sr_crypto::Secret32;
use sr_tlog::{
    Checkpoint, KeyKind, LogKeys, LoggedProof, Note, NoteKey, Policy, Tile, VerifierKey, bundle,
    entries_of,
};
use sr_trust::{Evidence, Mirror, Taken};
use sr_wire::{decode, log::Entry};

/// All targets.
pub(crate) const TARGETS: [&str; 4] = ["evidence", "log-entries", "log-note", "log-policy"];

/// Gives `bytes` to a target.
pub(crate) fn run(target: &str, bytes: &[u8]) {
    match target {
        "evidence" => evidence(bytes),
        "log-entries" => entries(bytes),
        "log-note" => note(bytes),
        "log-policy" => policy(bytes),
        other => panic!("no target {other}"),
    }
}

/// The keys of a log, which the seeds of `log-note` are signed by.
pub(crate) fn keys() -> [NoteKey; 2] {
    let key = |kind, byte| {
        NoteKey::new("example.org/log", kind, &Secret32::init_with(|seed| seed.fill(byte)))
    };
    [key(KeyKind::Ed25519, 1), key(KeyKind::CosignMlDsa44, 2)].map(|key| key.expect("a name"))
}

fn log_keys() -> &'static LogKeys {
    static KEYS: OnceLock<LogKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let [ed25519, ml_dsa] = keys().map(|key| key.verifier());
        LogKeys::new(ed25519, ml_dsa).expect("a pair")
    })
}

/// A file of evidence, and its verification.
fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = Evidence::parse(bytes) {
        assert_eq!(evidence.to_bytes(), bytes);
        let _ = evidence.verify();
    }
}

/// A count, then a bundle of so many entries, which are folded.
fn entries(bytes: &[u8]) {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let Ok(entries) = entries_of(bytes, usize::from(*count)) else { return };
    assert_eq!(bundle(&entries).as_deref(), Ok(bytes));
    let mut mirror = Mirror::default();
    for (taken, bytes) in entries.iter().enumerate() {
        assert_eq!(mirror.size(), taken as u64);
        match mirror.take(bytes) {
            Ok(Taken::Folded(_)) => {}
            Ok(Taken::UpdateNeeded) => continue,
            Err(_) => break,
        }
        let entry: Entry = decode("entry", bytes, bytes.len()).expect("was taken");
        assert_eq!(entry.to_bytes(), *bytes);
        let newest = mirror.fold().newest(&entry.key()).expect("is known");
        assert_eq!((newest.seq, newest.value), (entry.seq, entry.value));
    }
}

/// A note, its checkpoint, a proof around it, and its verification.
fn note(bytes: &[u8]) {
    let policy: Policy = "quorum none\n".parse().expect("a policy");
    let _ = log_keys().open(bytes, &policy, u64::MAX);
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        round_trips::<Checkpoint>(&note.text);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    round_trips::<Checkpoint>(text);
    round_trips::<LoggedProof>(text);
}

/// A policy, a key, and the path of a tile.
fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(policy) = text.parse::<Policy>() {
        assert_eq!(policy.text(), text);
        let checkpoint = Checkpoint::new("example.org/log", 1, [0; 32]).expect("an origin");
        let note = Note { text: checkpoint.to_string(), signatures: Vec::new() };
        let _ = policy.quorum(&checkpoint, &note, u64::MAX);
    }
    round_trips::<VerifierKey>(text);
    if let Some((tile, is_entries)) = Tile::parse_path(text) {
        assert_eq!(if is_entries { tile.entries_path() } else { tile.path() }, text);
    }
}

/// What is read is written the same.
fn round_trips<T: FromStr + std::fmt::Display>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}
