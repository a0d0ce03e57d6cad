//! Which witnesses are enough.

use sr_tlog::{KeyKind, LogError, NoteKey, Policy, Quorum};

use crate::notes::{checkpoint, key, log, log_keys, signed};

fn witness(seed: u8) -> NoteKey {
    let kind = if seed.is_multiple_of(2) { KeyKind::CosignEd25519 } else { KeyKind::CosignMlDsa44 };
    key(&format!("w{seed}"), kind, seed)
}

fn policy(rules: &str) -> Result<Policy, LogError> {
    let witnesses: String =
        (11..=16).map(|seed| format!("witness w{seed} {}\n", witness(seed).verifier())).collect();
    format!("{witnesses}{rules}").parse()
}

/// What a policy says to a checkpoint that these witnesses cosigned, each at its time.
fn says(rules: &str, cosigned: &[(u8, u64)], until_s: u64) -> Result<Quorum, LogError> {
    let checkpoint = checkpoint(5);
    let [ed25519, ml_dsa] = &log();
    let mut note = signed(&checkpoint, &[ed25519, ml_dsa], 1);
    for (seed, time_s) in cosigned {
        note.signatures.push(witness(*seed).sign(&checkpoint, *time_s));
    }
    let policy = policy(rules).expect("a policy");
    let opened = log_keys().open(note.to_string().as_bytes(), &policy, until_s);
    opened.map(|opened| opened.quorum)
}

#[test]
fn groups_count_as_they_say() {
    let short = Err(LogError::QuorumShort);
    assert_eq!(says("quorum none\n", &[], 100), Ok(Quorum::NotAsked));
    assert_eq!(says("quorum w11\n", &[(11, 50)], 100), Ok(Quorum::At(50)));
    assert_eq!(says("quorum w11\n", &[(12, 50)], 100), short);
    let two_of_three = "group x 2 w11 w12 w13\nquorum x\n";
    assert_eq!(says(two_of_three, &[(11, 50)], 100), short);
    // The second newest: by then, there were two.
    assert_eq!(says(two_of_three, &[(11, 50), (13, 70)], 100), Ok(Quorum::At(50)));
    assert_eq!(says(two_of_three, &[(11, 50), (12, 60), (13, 70)], 100), Ok(Quorum::At(60)));
    let nested = "group x 2 w11 w12 w13\ngroup y any w14 w15\ngroup z all x y\nquorum z\n";
    assert_eq!(says(nested, &[(11, 50), (12, 60)], 100), short);
    assert_eq!(says(nested, &[(11, 50), (12, 60), (15, 55)], 100), Ok(Quorum::At(50)));
    assert_eq!(says(nested, &[(14, 50), (15, 60), (11, 55)], 100), short);
    assert_eq!(says(nested, &[(16, 50), (15, 60), (11, 55), (12, 58)], 100), Ok(Quorum::At(55)));
}

/// What a witness dates into the future does not count, and one that cosigns twice counts once.
#[test]
fn a_cosignature_counts_from_its_time_on_and_once() {
    let short = Err(LogError::QuorumShort);
    assert_eq!(says("quorum w11\n", &[(11, 101)], 100), short);
    assert_eq!(says("quorum w11\n", &[(11, 100)], 100), Ok(Quorum::At(100)));
    // One from the future does not hide the one before it.
    assert_eq!(says("quorum w11\n", &[(11, 50), (11, 101)], 100), Ok(Quorum::At(50)));
    let two = "group x 2 w11 w12\nquorum x\n";
    assert_eq!(says(two, &[(11, 50), (11, 60)], 100), short);
}

#[test]
fn one_bad_line_of_a_known_witness_spoils_the_note() {
    let checkpoint = checkpoint(5);
    let [ed25519, ml_dsa] = &log();
    let mut note = signed(&checkpoint, &[ed25519, ml_dsa, &witness(11), &witness(12)], 1);
    note.signatures[3].signature[20] ^= 1;
    let open = |policy: &Policy| {
        log_keys().open(note.to_string().as_bytes(), policy, 100).map(|opened| opened.quorum)
    };
    let policy = policy("quorum w11\n").expect("a policy");
    assert_eq!(open(&policy), Err(LogError::BadSignature));
    // To who does not know it, it is nothing.
    let without = format!("witness w11 {}\nquorum w11\n", witness(11).verifier());
    assert_eq!(open(&without.parse().expect("a policy")), Ok(Quorum::At(1)));
}

#[test]
fn a_policy_has_one_form() {
    let w = |seed| witness(seed).verifier().to_string();
    let good = format!(
        "# of 2026\n\n\tlog {} https://example.com/\n witness a {}  https://w.example \nwitness b {}\ngroup g any a b\nquorum g\n",
        log()[0].verifier(),
        w(11),
        w(12)
    );
    let parsed: Policy = good.parse().expect("parses");
    assert_eq!((parsed.logs().len(), parsed.witnesses().count()), (1, 2));
    assert_eq!((parsed.text(), parsed.asks()), (good.as_str(), true));
    let twice = |line: &str| good.replacen(line, &format!("{line}{line}"), 1);
    let wrong = [
        String::new(),
        good.replace("quorum g\n", ""),
        good.trim_end().to_owned(),
        twice("quorum g\n"),
        good.replace("quorum g", "quorum h"),
        good.replace("quorum g", "quorum"),
        good.replace("any a b", "any"),
        good.replace("any a b", "0 a b"),
        good.replace("any a b", "3 a b"),
        good.replace("any a b", "01 a b"),
        good.replace("any a b", "some a b"),
        good.replace("any a b", "any a a"),
        good.replace("any a b", "any a c"),
        good.replace("any a b", "any a none"),
        good.replace("any a b", "any g b"),
        good.replace("group g", "group a"),
        good.replace("group g", "group none"),
        good.replace("witness b", "witness a"),
        // The same key under two names, and under two kinds.
        good.replace(&w(12), &w(11)),
        good.replace(&w(12), &log()[0].verifier().to_string()),
        good.replace(&w(12), "b+00000000+AAAA"),
        good.replace("group", "gruop"),
        good.replace("# of", "#\r of"),
        good.replace("quorum g\n", "group h any a\nquorum g\n"),
        format!("{}{good}", "#\n".repeat(33_000)),
    ];
    for wrong in wrong {
        assert!(wrong.parse::<Policy>().is_err(), "{}", &wrong[wrong.len().saturating_sub(200)..]);
    }
    let key = key("same", KeyKind::CosignEd25519, 21).verifier().to_string();
    let log = format!("log {}\n", crate::notes::key("same", KeyKind::Ed25519, 21).verifier());
    assert!(format!("{log}witness x {key}\nquorum x\n").parse::<Policy>().is_err());
}
