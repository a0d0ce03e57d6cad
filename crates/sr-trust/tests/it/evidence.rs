//! Files of evidence: what proves something to a stranger, and what does not.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sr_crypto::{Hash, Secret32, SigningKey};
use sr_tlog::{Checkpoint, Frontier, KeyKind, Note, NoteKey, leaf_hash};
use sr_trust::{Block, Change, Evidence, NotProven, Op, Proof, Role, SignedLog, disowned_bytes};
use sr_wire::{
    AccountId, Card, HeadAnswer, SignedAnswer, SignedCard, SpaceId, VLBytes, encode, labels,
    log::{Entry, Key, LOGGED_WITHIN_S, Newest, SignedReceipt, block_commit},
    nonce_of,
};

use crate::house::{House, Keys, device, sign};

/// A server, with the keys of which it signs everything here.
struct Operator {
    identity: SigningKey,
    cards: Vec<SignedCard>,
    log: [NoteKey; 2],
}

const ACCOUNT: AccountId = AccountId([5; 32]);
const SPACE: SpaceId = SpaceId([6; 16]);

impl Operator {
    fn new(byte: u8) -> Self {
        let seed = |byte: u8| Secret32::init_with(|seed| seed.fill(byte));
        let identity = SigningKey::from_seed(&seed(byte));
        let first = Card::first(identity.public_key());
        let origin = std::str::from_utf8(first.origin.as_slice()).expect("text").to_owned();
        let log = [(KeyKind::Ed25519, 2), (KeyKind::CosignMlDsa44, 3)]
            .map(|(kind, other)| NoteKey::new(&origin, kind, &seed(byte + other)).expect("a name"));
        let lines: String = log.iter().map(|key| format!("{}\n", key.verifier())).collect();
        let second = first.with_log(&lines);
        let cards = [first, second].map(|card| SignedCard::sign(card, &identity)).to_vec();
        Self { identity, cards, log }
    }

    fn note(&self, size: u64, root: Hash, time_s: u64) -> VLBytes {
        let name = self.log[0].verifier();
        let checkpoint = Checkpoint::new(name.name(), size, root).expect("an origin");
        let signatures = self.log.iter().map(|key| key.sign(&checkpoint, time_s)).collect();
        Note { text: checkpoint.to_string(), signatures }.to_string().into_bytes().into()
    }

    fn log(&self, entries: &[Entry], time_s: u64) -> SignedLog {
        let mut frontier = Frontier::new();
        entries.iter().for_each(|entry| frontier.push(leaf_hash(&entry.to_bytes())));
        let note = self.note(entries.len() as u64, frontier.root(), time_s);
        SignedLog { note, entries: entries.iter().map(|e| e.to_bytes().into()).collect() }
    }

    fn answer(&self, seq: u64, head: u8, nonce: Hash) -> SignedAnswer {
        let answer = HeadAnswer { space: SPACE, seq, head_hash: [head; 32], nonce };
        let signature = self.identity.sign(labels::HEAD_ANSWER, &encode(&answer)).into();
        SignedAnswer { answer, signature }
    }

    fn evidence(&self, proof: Proof) -> Evidence {
        Evidence { made_s: 9, cards: self.cards.clone(), proof }
    }
}

/// The first changes of an account, as an honest log has them.
fn entries(values: &[u8]) -> Vec<Entry> {
    let mut before = None;
    let entry = |(number, value): (usize, &u8)| {
        let value = block_commit(ACCOUNT, &[*value; 32]);
        let entry =
            Entry::following(before.as_ref(), Key::account(ACCOUNT), value, 100 + number as u64);
        before = Some(Newest { seq: entry.seq, value });
        entry
    };
    values.iter().enumerate().map(entry).collect()
}

/// All cases: name, evidence, and what is found.
fn cases() -> Vec<(&'static str, Evidence, Result<(), NotProven>)> {
    let (operator, other) = (Operator::new(1), Operator::new(50));
    let mut cases = Vec::new();
    let mut case = |name, proof, found| cases.push((name, operator.evidence(proof), found));
    let none = Err(NotProven::NoContradiction);

    let (one, second) = (operator.note(3, [1; 32], 200), operator.note(3, [2; 32], 300));
    let fork =
        |one: &VLBytes, other: &VLBytes| Proof::Fork { one: one.clone(), other: other.clone() };
    case("fork", fork(&one, &second), Ok(()));
    case("fork-of-one-root", fork(&one, &operator.note(3, [1; 32], 300)), none);
    case("fork-of-two-sizes", fork(&one, &operator.note(4, [2; 32], 300)), none);
    case("fork-by-another-log", fork(&one, &other.note(3, [2; 32], 300)), Err(NotProven::Unsigned));

    let prefix = |old: &[u8], new: &[u8]| Proof::ForkByPrefix {
        old: operator.log(&entries(old), 200).note,
        new: operator.log(&entries(new), 300),
    };
    case("fork-by-prefix", prefix(&[1, 2], &[1, 3, 4]), Ok(()));
    case("prefix-that-goes-on", prefix(&[1, 2], &[1, 2, 4]), none);
    case("prefix-of-a-shorter-log", prefix(&[1, 2, 4], &[1, 3]), none);
    let mut altered = operator.log(&entries(&[1, 3, 4]), 300);
    altered.entries[2] = entries(&[1, 3, 5])[2].to_bytes().into();
    let old = operator.log(&entries(&[1, 2]), 200).note;
    case("entries-not-signed", Proof::ForkByPrefix { old, new: altered }, Err(NotProven::Entries));

    let mut gap = entries(&[1, 2, 3]);
    gap.remove(1);
    case("rule-broken", Proof::RuleBroken { log: operator.log(&gap, 300) }, Ok(()));
    let honest = Proof::RuleBroken { log: operator.log(&entries(&[1, 2, 3]), 300) };
    case("rule-kept", honest, none);

    let promise =
        |operator: &Operator| SignedReceipt::sign(ACCOUNT, 1, &[2; 32], 200, &operator.identity);
    let late = 200 + LOGGED_WITHIN_S + 1;
    let broken = |receipt, values: &[u8], time_s| Proof::ReceiptBroken {
        receipt,
        log: operator.log(&entries(values), time_s),
    };
    case("receipt-broken", broken(promise(&operator), &[1], late), Ok(()));
    case("receipt-kept", broken(promise(&operator), &[1, 2], late), none);
    case("receipt-still-in-time", broken(promise(&operator), &[1], late - 1), none);
    let forged = broken(promise(&other), &[1], late);
    case("receipt-by-another", forged, Err(NotProven::Unsigned));

    let random = [7; 32];
    let earlier = operator.answer(5, 1, [1; 32]);
    let back = |later, random| Proof::RolledBack { earlier: earlier.clone(), later, random };
    let to = nonce_of(&random, Some(&earlier));
    case("rolled-back", back(operator.answer(4, 2, to), random), Ok(()));
    case("two-heads-at-one-place", back(operator.answer(5, 2, [3; 32]), random), Ok(()));
    case("answer-that-goes-on", back(operator.answer(6, 2, to), random), none);
    case("answer-to-an-older-question", back(operator.answer(4, 2, [3; 32]), random), none);
    case("nonce-opened-by-another", back(operator.answer(4, 2, to), [8; 32]), none);
    let forged = back(other.answer(4, 2, to), random);
    case("answer-by-another", forged, Err(NotProven::Unsigned));

    cases.extend(ghost_heads(&operator));
    cases.extend(signed_twice(&operator));
    let mut case = |name, proof, found| cases.push((name, operator.evidence(proof), found));
    let two = |lines: &str| {
        let second = operator.cards[0].card.with_log(lines);
        let second = SignedCard::sign(second, &operator.identity);
        Proof::TwoCards { other: vec![operator.cards[0].clone(), second] }
    };
    case("two-cards", two("other keys"), Ok(()));
    case("cards-that-go-on", Proof::TwoCards { other: operator.cards[..1].to_vec() }, none);
    case("cards-of-another", Proof::TwoCards { other: other.cards.clone() }, none);
    let mut forged = vec![operator.cards[0].clone()];
    forged.push(SignedCard::sign(operator.cards[0].card.with_log("others"), &other.identity));
    case("card-by-another", Proof::TwoCards { other: forged }, Err(NotProven::Cards));

    let accused =
        |cards: Vec<SignedCard>| Evidence { cards, ..operator.evidence(fork(&one, &second)) };
    let cards = Err(NotProven::Cards);
    cases.push(("no-cards", accused(Vec::new()), cards));
    let mixed = vec![operator.cards[0].clone(), other.cards[1].clone()];
    cases.push(("cards-of-two-servers", accused(mixed), cards));
    cases.push((
        "card-without-a-log",
        accused(operator.cards[..1].to_vec()),
        Err(NotProven::Unsigned),
    ));
    cases
}

/// Logs with a change that the account's devices disown, and such that prove nothing.
fn ghost_heads(operator: &Operator) -> Vec<(&'static str, Evidence, Result<(), NotProven>)> {
    let (house, key) = (House::furnished(), Keys::new(1));
    let id = house.account.id();
    let log = |values: &[Hash]| {
        let mut before = None;
        let entry = |value: &Hash| {
            let entry = Entry::following(before.as_ref(), Key::account(id), *value, 100);
            before = Some(Newest { seq: entry.seq, value: *value });
            entry
        };
        operator.log(&values.iter().map(entry).collect::<Vec<_>>(), 200)
    };
    let own = |seq| block_commit(id, &house.account.block_hash(seq).expect("is there"));
    let evidence = |values: &[Hash], disowned: Hash, key: &Keys| {
        let seq = values.len() as u64 - 1;
        let bytes = disowned_bytes(id, &Newest { seq, value: disowned });
        operator.evidence(Proof::GhostHead {
            chain: house.blocks.iter().map(|block| encode(block).into()).collect(),
            log: log(values),
            key: key.info().signing,
            disowned: key.signing.sign(labels::DISOWNED, &bytes).into(),
        })
    };
    let ghost = [7; 32];
    let mut cut = evidence(&[own(0), ghost], ghost, &key);
    if let Proof::GhostHead { chain, .. } = &mut cut.proof {
        chain.remove(1);
    }
    let ahead = [own(0), own(1), own(2), ghost];
    let (none, unsigned) = (Err(NotProven::NoContradiction), Err(NotProven::Unsigned));
    vec![
        ("ghost-head", evidence(&[own(0), ghost], ghost, &key), Ok(())),
        ("ghost-head-that-is-own", evidence(&[own(0), own(1)], own(1), &key), none),
        ("ghost-head-above-the-chain", evidence(&ahead, ghost, &key), none),
        (
            "ghost-head-disowned-by-a-stranger",
            evidence(&[own(0), ghost], ghost, &Keys::new(3)),
            unsigned,
        ),
        ("ghost-head-other-disowned", evidence(&[own(0), ghost], [8; 32], &key), unsigned),
        ("ghost-head-with-a-cut-chain", cut, unsigned),
    ]
}

/// Blocks that one device has signed at one place, and such that prove nothing.
fn signed_twice(operator: &Operator) -> Vec<(&'static str, Evidence, Result<(), NotProven>)> {
    let (house, key) = (House::furnished(), Keys::new(1));
    let by = |key: &Keys, pin: u8| -> Block {
        let op = Op::DelayStart { change: Change::Pin([pin; 32]) };
        house.make(op, &[device(key)]).expect("makes")
    };
    let (one, other) = (by(&key, 1), by(&key, 2));
    let evidence = |one: &Block, other: &Block| Evidence {
        made_s: 9,
        cards: Vec::new(),
        proof: Proof::SignedTwice {
            key: key.info().signing,
            one: encode(one).into(),
            other: encode(other).into(),
        },
    };
    let mut forged = other.clone();
    forged.signatures[0].signature = one.signatures[0].signature.clone();
    let mut begun = house.blocks[0].body.clone();
    if let Op::Genesis { salt, .. } = &mut begun.op {
        *salt = [3; 32];
    }
    let begun = begun.sign(&[(Role::Device, &key.signing)], Vec::new());
    let mut elsewhere = other.clone();
    elsewhere.body.seq += 1;
    let elsewhere = sign(elsewhere.body, house.account.id(), &[device(&key)]);
    let (none, unsigned) = (Err(NotProven::NoContradiction), Err(NotProven::Unsigned));
    vec![
        ("signed-twice", evidence(&one, &other), Ok(())),
        ("signed-once", evidence(&one, &one), none),
        ("signed-at-two-places", evidence(&one, &elsewhere), none),
        ("two-beginnings", evidence(&house.blocks[0], &begun), none),
        ("signed-by-two-devices", evidence(&one, &by(&Keys::new(2), 2)), unsigned),
        ("signed-for-another-block", evidence(&one, &forged), unsigned),
        (
            "signed-twice-against-a-server",
            Evidence { cards: operator.cards.clone(), ..evidence(&one, &other) },
            Err(NotProven::Cards),
        ),
    ]
}

#[test]
fn evidence_proves_what_was_signed_and_no_more() {
    for (name, evidence, found) in cases() {
        assert_eq!(evidence.verify().map(|_| ()), found, "{name}");
        assert_eq!(evidence.missing().is_some(), evidence.kind() == 5, "{name}");
        let bytes = evidence.to_bytes();
        assert_eq!(Evidence::parse(&bytes).as_ref(), Ok(&evidence), "{name}");
    }
}

fn dir(kind: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors/evidence");
    PathBuf::from(root).join(kind)
}

#[test]
fn every_vector_is_judged_as_its_folder_says() {
    if std::env::var_os("SR_MAKE_VECTORS").is_some() {
        make();
    }
    let mut counts = BTreeMap::new();
    for kind in ["valid", "invalid"] {
        for file in fs::read_dir(dir(kind)).expect("vectors") {
            let path = file.expect("a file").path();
            let evidence = Evidence::parse(&fs::read(&path).expect("reads"));
            let is_proven = evidence.is_ok_and(|evidence| evidence.verify().is_ok());
            assert_eq!(is_proven, kind == "valid", "{}", path.display());
            *counts.entry(kind).or_insert(0) += 1;
        }
    }
    assert!(counts["invalid"] > counts["valid"], "{counts:?}");
}

fn make() {
    let write = |kind: &str, name: &str, file: &[u8]| {
        fs::create_dir_all(dir(kind)).expect("makes");
        fs::write(dir(kind).join(name), file).expect("writes");
    };
    let cases = cases();
    for (name, evidence, found) in &cases {
        let kind = if found.is_ok() { "valid" } else { "invalid" };
        write(kind, name, &evidence.to_bytes());
    }
    let fork = cases[0].1.to_bytes();
    write("invalid", "trailing-byte", &[&fork[..], &[0]].concat());
    write("invalid", "cut", &fork[..fork.len() - 1]);
    write("invalid", "other-magic", &[&b"strongroom-evidence/v2\n"[..], &fork[23..]].concat());
    write("invalid", "empty", b"");
}

/// A witness that has cosigned two logs is named, if the server's cards name it, and for nothing less.
#[test]
fn a_witness_of_two_logs_is_named() {
    let mut operator = Operator::new(1);
    let seed = |byte: u8| Secret32::init_with(|seed| seed.fill(byte));
    let witness = NoteKey::new("w", KeyKind::CosignEd25519, &seed(9)).expect("a name");
    let cosigned = |note: &VLBytes, by: &NoteKey| -> VLBytes {
        let mut note = Note::parse(note.as_slice()).expect("parses");
        let checkpoint: Checkpoint = note.text.parse().expect("parses");
        note.signatures.push(by.sign(&checkpoint, 300));
        note.to_string().into_bytes().into()
    };
    let (one, other) = (operator.note(3, [1; 32], 200), operator.note(3, [2; 32], 300));
    let named = |operator: &Operator, one: &VLBytes, other: &VLBytes| {
        let proof = Proof::Fork { one: one.clone(), other: other.clone() };
        operator.evidence(proof).two_faced().len()
    };
    let both = (cosigned(&one, &witness), cosigned(&other, &witness));
    // No card names it.
    assert_eq!(named(&operator, &both.0, &both.1), 0);
    let policy = format!("witness w {}\nquorum w\n", witness.verifier());
    let third = operator.cards[1].card.with_policy(&policy);
    operator.cards.push(SignedCard::sign(third, &operator.identity));
    assert_eq!(named(&operator, &both.0, &both.1), 1);
    assert_eq!(named(&operator, &both.0, &other), 0);
    // Somebody else under its name.
    let forged = NoteKey::new("w", KeyKind::CosignEd25519, &seed(8)).expect("a name");
    assert_eq!(named(&operator, &both.0, &cosigned(&other, &forged)), 0);
    // Twice the same is no lie.
    assert_eq!(named(&operator, &both.0, &cosigned(&one, &witness)), 0);
    let (short, long) =
        (operator.log(&entries(&[1, 2]), 200), operator.log(&entries(&[1, 3]), 300));
    let longer = operator.log(&entries(&[1, 3, 4]), 300);
    for (old, new, count) in [(&short, &longer, 1), (&long, &longer, 0)] {
        let new = SignedLog { note: cosigned(&new.note, &witness), ..new.clone() };
        let proof = Proof::ForkByPrefix { old: cosigned(&old.note, &witness), new };
        assert_eq!(operator.evidence(proof).two_faced().len(), count);
    }
}
