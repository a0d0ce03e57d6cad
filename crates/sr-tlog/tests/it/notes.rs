//! Notes, keys, checkpoints and cosignatures, beside `signed_note` and `sigsum`.

use proptest::prelude::{ProptestConfig, any, proptest};
use signed_note::{StandardVerifier, VerifierList};
use sr_crypto::{Secret32, sha256, text::to_hex};
use sr_tlog::{
    Checkpoint, KeyKind, LogError, LogKeys, LoggedProof, NOTE_LEN_MAX, Note, NoteKey, Policy,
    Quorum, SIGNATURES_MAX, Tree, VerifierKey, leaf_hash,
};

const ORIGIN: &str = "example.com/behind-the-sofa";

pub(crate) fn key(name: &str, kind: KeyKind, seed: u8) -> NoteKey {
    NoteKey::new(name, kind, &Secret32::init_with(|bytes| bytes.fill(seed))).expect("a name")
}

pub(crate) fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new(ORIGIN, size, [7; 32]).expect("an origin")
}

/// The two keys of a log.
pub(crate) fn log() -> [NoteKey; 2] {
    [key(ORIGIN, KeyKind::Ed25519, 1), key(ORIGIN, KeyKind::CosignMlDsa44, 2)]
}

pub(crate) fn log_keys() -> LogKeys {
    let [ed25519, ml_dsa] = log().map(|key| key.verifier());
    LogKeys::new(ed25519, ml_dsa).expect("a pair")
}

pub(crate) fn no_witness() -> Policy {
    "quorum none\n".parse().expect("a policy")
}

pub(crate) fn signed(checkpoint: &Checkpoint, keys: &[&NoteKey], time_s: u64) -> Note {
    let signatures = keys.iter().map(|key| key.sign(checkpoint, time_s)).collect();
    Note { text: checkpoint.to_string(), signatures }
}

fn open(note: &Note) -> Result<Quorum, LogError> {
    let opened = log_keys().open(note.to_string().as_bytes(), &no_witness(), u64::MAX);
    opened.map(|opened| opened.quorum)
}

/// The example of c2sp.org/tlog-cosignature: text and key ids are of its form.
#[test]
fn the_example_of_the_specification_reads_and_writes_back() {
    let example = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
                   — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
                   — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = Note::parse(example.as_bytes()).expect("parses");
    assert_eq!(note.to_string(), example);
    let checkpoint: Checkpoint = note.text.parse().expect("parses");
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 20_852_163));
    assert_eq!(checkpoint.to_string(), note.text);
    assert_eq!(note.signatures[1].signature.len(), 8 + 64);
    assert_eq!(note.signatures[1].signature[..8], 1_679_315_147u64.to_be_bytes());
}

#[test]
fn an_ed25519_note_is_that_of_a_second_implementation() {
    let (ours, checkpoint) = (key(ORIGIN, KeyKind::Ed25519, 1), checkpoint(5));
    let note = signed(&checkpoint, &[&ours], 0);
    let vkey = ours.verifier().to_string();
    let theirs = StandardVerifier::new(&vkey).expect("parses");
    let verified = signed_note::Note::from_bytes(note.to_string().as_bytes()).expect("parses");
    let known = VerifierList::new(vec![Box::new(theirs)]);
    assert_eq!(verified.verify(&known).expect("verifies").0.len(), 1);
    assert_eq!(vkey.parse::<VerifierKey>(), Ok(ours.verifier()));
}

/// A proof as sigsum has it: its tree, its checkpoint and its witness are ours, and its verifier is not.
#[test]
fn a_sigsum_proof_of_our_making_is_taken_by_its_verifier() {
    let (submitter, message) = (key("submitter", KeyKind::Ed25519, 9), [3; 32]);
    let checksum = sha256(&[&message]);
    // Only the raw keys are used: this format signs texts of its own.
    let raw = |seed: u8| {
        let secret = Secret32::init_with(|bytes| bytes.fill(seed));
        sr_crypto::PlainKey::from_seed(sr_crypto::PlainAlgorithm::Ed25519, &secret)
    };
    let leaf_signature = raw(9).sign(&[&b"sigsum.org/v1/tree-leaf\0"[..], &checksum].concat());
    let key_hash = sha256(&[submitter.verifier().public()]);
    let leaf = [&checksum[..], &leaf_signature, &key_hash].concat();
    let mut tree = Tree::new();
    for number in 0..5u8 {
        let entry = if number == 3 { leaf.clone() } else { vec![number] };
        tree.push(leaf_hash(&entry));
    }
    let log_public = key("x", KeyKind::Ed25519, 1).verifier().public().to_vec();
    let origin = format!("sigsum.org/v1/tree/{}", to_hex(&sha256(&[&log_public])));
    let (log, witness) = (key(&origin, KeyKind::Ed25519, 1), key("w", KeyKind::CosignEd25519, 2));
    let checkpoint = Checkpoint::new(&origin, 5, tree.root(5).expect("has one")).expect("a name");
    let (signed, cosigned) = (log.sign(&checkpoint, 0), witness.sign(&checkpoint, 1_770_193_051));
    let path = tree.prove_inclusion(3, 5).expect("proves");
    let path: String = path.iter().map(|hash| format!("node_hash={}\n", to_hex(hash))).collect();
    let proof = |signature: &[u8]| {
        format!(
            "version=2\nlog={}\nleaf={} {}\n\nsize=5\nroot_hash={}\nsignature={}\n\
             cosignature={} 1770193051 {}\n\nleaf_index=3\n{path}",
            to_hex(&sha256(&[&log_public])),
            to_hex(&key_hash),
            to_hex(&leaf_signature),
            to_hex(checkpoint.root()),
            to_hex(signature),
            to_hex(&sha256(&[witness.verifier().public()])),
            to_hex(&cosigned.signature[8..]),
        )
    };
    let policy = format!(
        "log {}\nwitness w {}\nquorum w\n",
        to_hex(&log_public),
        to_hex(witness.verifier().public())
    );
    let policy = sigsum::Policy::parse(&policy).expect("parses");
    let public: [u8; 32] = submitter.verifier().public().try_into().expect("32 bytes");
    let verify = |proof: &str| {
        let proof = sigsum::SigsumSignature::from_ascii(proof).expect("parses");
        sigsum::verify(&sigsum::Hash::from(message), &proof, &[public.into()], &policy)
    };
    assert!(verify(&proof(&signed.signature)).is_ok());
    let mut wrong = signed.signature.clone();
    wrong[0] ^= 1;
    assert!(verify(&proof(&wrong)).is_err());
}

/// The bytes of `cosigned_message`, field by field, signed with RustCrypto's ML-DSA in our tests of
/// sr-crypto: here that each field counts.
#[test]
fn a_signature_is_for_its_name_time_origin_size_and_root() {
    for kind in [KeyKind::Ed25519, KeyKind::CosignEd25519, KeyKind::CosignMlDsa44] {
        let signer = key("w", kind, 3);
        let line = signer.sign(&checkpoint(5), 1000);
        let verifier = signer.verifier();
        let time_s = if kind == KeyKind::Ed25519 { 0 } else { 1000 };
        assert_eq!(verifier.verify(&checkpoint(5), &line), Ok(time_s));
        let refused = |checkpoint: &Checkpoint| verifier.verify(checkpoint, &line).is_err();
        assert!(refused(&checkpoint(6)));
        assert!(refused(&Checkpoint::new("other", 5, [7; 32]).expect("a name")));
        assert!(refused(&Checkpoint::new(ORIGIN, 5, [8; 32]).expect("a name")));
        for place in [0, 7, 8, line.signature.len() - 1] {
            let mut other = line.clone();
            other.signature[place] ^= 1;
            assert_eq!(verifier.verify(&checkpoint(5), &other), Err(LogError::BadSignature));
        }
        for len in [0, 7, 8, line.signature.len() - 1] {
            let mut cut = line.clone();
            cut.signature.truncate(len);
            assert_eq!(verifier.verify(&checkpoint(5), &cut), Err(LogError::BadSignature));
        }
        assert!(!key("v", kind, 3).verifier().is_of(&line));
        assert!(!key("w", kind, 4).verifier().is_of(&line));
    }
    // Without a time, and with one that no clock shows.
    for time_s in [0, u64::MAX] {
        let line = key("w", KeyKind::CosignMlDsa44, 3).sign(&checkpoint(5), time_s);
        let verified = key("w", KeyKind::CosignMlDsa44, 3).verifier().verify(&checkpoint(5), &line);
        assert_eq!(verified, Err(LogError::BadSignature));
    }
}

#[test]
fn a_checkpoint_is_signed_by_both_keys_of_its_log() {
    let [ed25519, ml_dsa] = &log();
    let checkpoint = checkpoint(5);
    let good = signed(&checkpoint, &[ed25519, ml_dsa], 1000);
    assert_eq!(open(&good), Ok(Quorum::NotAsked));
    assert_eq!(open(&signed(&checkpoint, &[ed25519], 1000)), Err(LogError::NotSigned));
    assert_eq!(open(&signed(&checkpoint, &[ml_dsa], 1000)), Err(LogError::NotSigned));
    // A stranger's line is passed over; one that a known key should have made and did not is not.
    let stranger = key("stranger", KeyKind::Ed25519, 5);
    assert_eq!(open(&signed(&checkpoint, &[&stranger, ed25519, ml_dsa], 1)), Ok(Quorum::NotAsked));
    let impostor = key(ORIGIN, KeyKind::Ed25519, 5).sign(&checkpoint, 0);
    let mut with = good.clone();
    with.signatures.push(impostor.clone());
    assert_eq!(open(&with), Ok(Quorum::NotAsked), "another id is another key");
    let mut with = good.clone();
    with.signatures.push(sr_tlog::NoteSignature { id: good.signatures[0].id, ..impostor });
    assert_eq!(open(&with), Err(LogError::BadSignature));
    let other = Checkpoint::new("other", 5, [7; 32]).expect("a name");
    assert_eq!(open(&signed(&other, &[ed25519, ml_dsa], 1)), Err(LogError::OtherLog));
    let mut changed = good.clone();
    changed.text = changed.text.replace("\n5\n", "\n6\n");
    assert_eq!(open(&changed), Err(LogError::BadSignature));
    // A pair is one of each kind, under one name.
    let [a, b] = [ed25519.verifier(), ml_dsa.verifier()];
    assert!(LogKeys::new(b.clone(), a.clone()).is_err());
    assert!(LogKeys::new(a.clone(), a.clone()).is_err());
    assert!(LogKeys::new(a, key("other", KeyKind::CosignMlDsa44, 2).verifier()).is_err());
}

#[test]
fn a_checkpoint_has_one_form() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let parse = |text: &str| text.parse::<Checkpoint>();
    assert!(parse(&format!("a\n0\n{root}\n")).is_ok());
    for wrong in [
        format!("a\n0\n{root}"),
        format!("a\n0\n{root}\n\n"),
        format!("a\n0\n{root}\nextension\n"),
        format!("\n0\n{root}\n"),
        format!("a b\n0\n{root}\n"),
        format!("a+b\n0\n{root}\n"),
        format!("a\n00\n{root}\n"),
        format!("a\n+1\n{root}\n"),
        format!("a\n-1\n{root}\n"),
        format!("a\n 1\n{root}\n"),
        format!("a\n18446744073709551616\n{root}\n"),
        format!("a\n\n{root}\n"),
        format!("a\n1\n{}\n", &root[..40]),
        format!("a\n1\n{root}=\n"),
        format!("{}\n1\n{root}\n", "a".repeat(256)),
        String::new(),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_note_has_one_form() {
    let good = signed(&checkpoint(5), &[&log()[0]], 0).to_string();
    assert!(Note::parse(good.as_bytes()).is_ok());
    let line = good.lines().last().expect("has one").to_owned();
    let text = checkpoint(5).to_string();
    let wrong = [
        String::new(),
        text.clone(),
        good.trim_end().to_owned(),
        format!("{text}\n"),
        format!("{good}\n"),
        format!("{text}\n{line}"),
        format!("{text}\n{line}\n\n{line}\nx\n"),
        good.replace("— ", "- "),
        good.replace("— ", "—"),
        format!("{text}\n{line} \n"),
        format!("{text}\n— name\n"),
        format!("{text}\n— na+me AAAAAAA=\n"),
        format!("{text}\n— name AAAAAA==\n"),
        format!("{text}\n— name AAAAAAB=\n"),
        format!("{text}\n— name AAAAAAA\n"),
        good.replace("behind", "be\thind"),
        good.replace('5', "\u{0}"),
        format!("{text}\n{}", format!("{line}\n").repeat(SIGNATURES_MAX + 1)),
        format!("{}{good}", "x\n".repeat(NOTE_LEN_MAX / 2)),
    ];
    for wrong in wrong {
        assert!(Note::parse(wrong.as_bytes()).is_err(), "{:?}", &wrong[..wrong.len().min(200)]);
    }
    assert!(Note::parse(&[good.as_bytes(), &[0xff]].concat()).is_err());
    assert!(
        Note::parse(format!("{text}\n{}", format!("{line}\n").repeat(SIGNATURES_MAX)).as_bytes())
            .is_ok()
    );
}

#[test]
fn a_key_has_one_form() {
    let good = key("name", KeyKind::CosignMlDsa44, 1).verifier();
    let text = good.to_string();
    assert_eq!(text.parse::<VerifierKey>(), Ok(good));
    let ed25519 = key("name", KeyKind::Ed25519, 1).verifier().to_string();
    let (start, encoded) = ed25519.rsplit_once('+').expect("has one");
    for wrong in [
        String::new(),
        "name".into(),
        start.to_owned(),
        ed25519.replacen("name", "nane", 1),
        ed25519.replacen("name", "", 1),
        ed25519.replacen("name", "na me", 1),
        format!("{start}+{}", &encoded[..encoded.len() - 4]),
        format!("{start}+{encoded}AAAA"),
        // A kind that nobody knows, and one of another length.
        format!("{start}+/{}", &encoded[1..]),
        format!("{start}+Bg{}", &encoded[2..]),
        ed25519.to_uppercase(),
    ] {
        assert!(wrong.parse::<VerifierKey>().is_err(), "{wrong:?}");
    }
    for name in ["", "a b", "a+b", "a\nb", &"a".repeat(256)] {
        let made = NoteKey::new(name, KeyKind::Ed25519, &Secret32::init_with(|b| b.fill(1)));
        assert!(made.is_err(), "{name:?}");
    }
}

#[test]
fn a_proof_carries_all_that_it_needs() {
    let mut tree = Tree::new();
    (0..300u64).for_each(|number| tree.push(leaf_hash(&number.to_be_bytes())));
    let checkpoint =
        Checkpoint::new(ORIGIN, 300, tree.root(300).expect("has one")).expect("a name");
    let [ed25519, ml_dsa] = &log();
    let proof = |extra: Option<&[u8]>, index: u64| LoggedProof {
        extra: extra.map(<[u8]>::to_vec),
        index,
        hashes: tree.prove_inclusion(index, 300).expect("proves"),
        checkpoint: signed(&checkpoint, &[ed25519, ml_dsa], 1).to_string(),
    };
    for (extra, index) in [(None, 0), (Some(&b"more"[..]), 299), (Some(&b""[..]), 7)] {
        let proof = proof(extra, index);
        let read: LoggedProof = proof.to_string().parse().expect("parses");
        assert_eq!(read, proof);
        let verify = |entry: u64, proof: &LoggedProof| {
            let opened = proof.verify(&entry.to_be_bytes(), &log_keys(), &no_witness(), u64::MAX);
            opened.map(|opened| opened.checkpoint.size())
        };
        assert_eq!(verify(index, &read), Ok(300));
        assert_eq!(verify(index + 1, &read), Err(LogError::ProofWrong));
        let moved = LoggedProof { index: index + 1, ..read.clone() };
        assert_eq!(verify(index, &moved), Err(LogError::ProofWrong));
    }
    let good = proof(Some(b"more"), 7).to_string();
    for wrong in [
        good.replacen("@v1", "@v2", 1),
        good.replacen("index 7", "index 07", 1),
        good.replacen("index 7", "index -7", 1),
        good.replacen("index 7\n", "", 1),
        good.replacen("extra ", "extra  ", 1),
        good.replacen("index 7\n", "index 7\nAAAA\n", 1),
        good.replacen(
            "index 7\n",
            &format!("index 7\n{}", format!("{}=\n", "A".repeat(43)).repeat(64)),
            1,
        ),
        good.replace("\n\n", "\n"),
        String::new(),
    ] {
        assert!(wrong.parse::<LoggedProof>().is_err(), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes in, nothing panics, and what is read is written back as it was.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), text in "[a-z \n—+=0-9]{0,80}") {
        if let Ok(note) = Note::parse(&bytes) {
            assert_eq!(note.to_string().into_bytes(), bytes);
        }
        if let Ok(note) = Note::parse(text.as_bytes()) {
            assert_eq!(note.to_string(), text);
        }
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            assert_eq!(checkpoint.to_string(), text);
        }
        let _ = (text.parse::<VerifierKey>(), text.parse::<Policy>(), text.parse::<LoggedProof>());
    }
}

/// Found by the fuzzer: a library that reads base64 in pieces takes padding inside. Two texts of one
/// signature would be two notes.
#[test]
fn base64_has_one_form() {
    let note = signed(&checkpoint(1), &log().each_ref(), 7).to_string();
    assert!(Note::parse(note.as_bytes()).is_ok());
    // "AAAA" and "AA==AA==" are three and two bytes, and both are decoded.
    let (text, last) = note.trim_end().rsplit_once(' ').expect("has a line");
    let padded = format!("{text} AA=={last}\n");
    assert_eq!(Note::parse(padded.as_bytes()), Err(LogError::Malformed("note")));
    let root = "example.com/log\n1\nAA==AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    assert!(root.parse::<Checkpoint>().is_err());
}
