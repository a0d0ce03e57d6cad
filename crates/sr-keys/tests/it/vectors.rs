//! `spec/vectors`: what every reader of key blocks, kits, linkings and contacts' texts must take, and
//! what none may. HPKE draws its own randomness, so making them again gives other bytes.

use std::{fs, path::PathBuf, sync::PoisonError};

use sr_keys::{
    ContactCard, DeviceKeys, Envelope, HelpRequest, KeyBlock, Kit, LinkAnswer, LinkCommit,
    LinkOpening, Pins, Share, ShareTemplate, Transcript,
};
use sr_trust::{Block, DeviceKind, Policy, Verified};
use sr_wire::{AccountId, VLBytes, decode, encode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::keys::{Forged, House, ONE_AT_A_TIME, rng};

const FILE_LEN_MAX: usize = 1 << 20;

/// A device's key file, a chain, and the key block that its newest block names.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct KeyBlockFile {
    keys: VLBytes,
    account: AccountId,
    blocks: Vec<VLBytes>,
    key_block: VLBytes,
}

impl KeyBlockFile {
    fn is_valid(&self) -> Option<()> {
        let device = DeviceKeys::from_file(self.keys.as_slice()).ok()?;
        let blocks: Result<Vec<Block>, _> =
            self.blocks.iter().map(|block| Block::parse(block.as_slice())).collect();
        let account = Verified::verify(self.account, &blocks.ok()?).ok()?;
        let (key_block, id, key) = (self.key_block.as_slice(), device.id(), device.sealing());
        if account.device(id).is_some_and(|device| !device.is_full()) {
            return KeyBlock::open_grant(key_block, &account, id, &key).ok().map(|_| ());
        }
        KeyBlock::open(key_block, &account, id, &key).ok().map(|_| ())
    }
}

/// The new device's key file, what the two send each other, the words, and the sealed pins.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct LinkFile {
    keys: VLBytes,
    commit: LinkCommit,
    answer: LinkAnswer,
    opening: LinkOpening,
    words: VLBytes,
    pins: VLBytes,
}

impl LinkFile {
    fn read(self) -> Option<()> {
        let device = DeviceKeys::from_file(self.keys.as_slice()).ok()?;
        let transcript = Transcript::new(&self.commit, self.answer, self.opening).ok()?;
        let words = [transcript.words_of_new(), transcript.words_of_old()].concat().join(" ");
        Pins::open(self.pins.as_slice(), &transcript, &device.sealing()).ok()?;
        (words.as_bytes() == self.words.as_slice()).then_some(())
    }
}

/// The key file of the device that asks, and the answers that it was given.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct AnswersFile {
    keys: VLBytes,
    answers: Vec<VLBytes>,
}

impl AnswersFile {
    fn is_valid(&self) -> Option<()> {
        let device = DeviceKeys::from_file(self.keys.as_slice()).ok()?;
        let open = |answer: &VLBytes| {
            Share::open_answer(std::str::from_utf8(answer.as_slice()).ok()?, &device).ok()
        };
        let shares: Option<Vec<Share>> = self.answers.iter().map(open).collect();
        Share::join(&shares?).map(|_| ())
    }
}

fn is_valid(format: &str, file: &[u8]) -> bool {
    let text = std::str::from_utf8(file).unwrap_or_default();
    let taken = match format {
        "key-block" => {
            decode::<KeyBlockFile>("file", file, FILE_LEN_MAX).ok().and_then(|file| file.is_valid())
        }
        "link" => decode::<LinkFile>("file", file, FILE_LEN_MAX).ok().and_then(LinkFile::read),
        "answers" => {
            decode::<AnswersFile>("file", file, FILE_LEN_MAX).ok().and_then(|file| file.is_valid())
        }
        "envelope" => file.split_first_chunk::<34>().and_then(|(code, sealed)| {
            let kit = Kit::from_text(std::str::from_utf8(code).ok()?).ok()?;
            kit.open(sealed).ok().map(|_| ())
        }),
        "contact-card" => text.parse::<ContactCard>().ok().map(|_| ()),
        "help-request" => text.parse::<HelpRequest>().ok().map(|_| ()),
        _ => unreachable!("{format}"),
    };
    taken.is_some()
}

fn dir(format: &str, kind: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors");
    PathBuf::from(root).join(format).join(kind)
}

#[test]
fn every_vector_is_judged_as_its_folder_says() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var_os("SR_MAKE_VECTORS").is_some() {
        key_blocks();
        links();
        answers();
        envelopes();
        texts();
    }
    for format in ["key-block", "link", "answers", "envelope", "contact-card", "help-request"] {
        let count = |kind: &str| {
            let files = fs::read_dir(dir(format, kind)).expect("vectors").flatten();
            files.map(|entry| (entry.path(), kind == "valid")).collect::<Vec<_>>()
        };
        let (valid, invalid) = (count("valid"), count("invalid"));
        assert!(!valid.is_empty() && invalid.len() > valid.len(), "{format}");
        for (path, is_good) in valid.into_iter().chain(invalid) {
            let file = fs::read(&path).expect("reads");
            assert_eq!(is_valid(format, &file), is_good, "{}", path.display());
        }
    }
}

fn write(format: &str, kind: &str, name: &str, file: &[u8]) {
    fs::create_dir_all(dir(format, kind)).expect("makes");
    fs::write(dir(format, kind).join(name), file).expect("writes");
}

/// Writes a good text, and the ways in which every text is bad.
fn write_text(format: &str, text: &str) {
    write(format, "valid", "one", text.as_bytes());
    let capitals = text.split_once(':').map(|(prefix, code)| {
        let code: String = code.to_uppercase();
        format!("  {prefix}:{} {}\n", &code[..8], &code[8..])
    });
    write(format, "valid", "capitals-and-spaces", capitals.expect("a prefix").as_bytes());
    write(format, "invalid", "cut", &text.as_bytes()[..text.len() - 1]);
    let flipped = if text.as_bytes()[40] == b'0' { "1" } else { "0" };
    let mistyped = format!("{}{flipped}{}", &text[..40], &text[41..]);
    write(format, "invalid", "mistyped", mistyped.as_bytes());
    write(
        format,
        "invalid",
        "other-prefix",
        text.replacen("strongroom", "strongbox", 1).as_bytes(),
    );
    write(format, "invalid", "nothing", b"");
}

fn key_blocks() {
    let to_file = |house: &House, device: &DeviceKeys| KeyBlockFile {
        keys: device.to_file().to_vec().into(),
        account: house.account.id(),
        blocks: house.blocks.iter().map(|block| block.clone().into()).collect(),
        key_block: house.key_block.clone().into(),
    };
    let write = |kind: &str, name: &str, file: &KeyBlockFile| {
        write("key-block", kind, name, &encode(file));
    };
    let mut house = House::new();
    let (one, two) = (DeviceKeys::generate(&mut rng(1)), DeviceKeys::generate(&mut rng(2)));
    write("valid", "genesis", &to_file(&house, &one));
    house.add(&two);
    let policy = Policy {
        kit: Some(Kit::generate(&mut rng(5)).keys().public()),
        contacts: None,
        delay_s: 1000,
    };
    let act =
        house.actor().set_recovery(&house.one, None, (policy, &[]), &mut rng(6)).expect("sets");
    house.take(&act);
    let before = to_file(&house, &two);
    write("valid", "two-devices-and-a-kit", &before);
    house.remove(two.id());
    let good = to_file(&house, &one);
    write("valid", "removal", &good);

    write("invalid", "removed-device", &to_file(&house, &two));
    write("invalid", "stranger", &to_file(&house, &DeviceKeys::generate(&mut rng(9))));
    let older = KeyBlockFile { key_block: before.key_block, ..good.clone() };
    write("invalid", "of-the-generation-before", &older);
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.key_block.as_slice().to_vec();
        change(&mut bytes);
        write("invalid", name, &KeyBlockFile { key_block: bytes.into(), ..good.clone() });
    };
    changed("cut", &|bytes| bytes.truncate(bytes.len() - 1));
    changed("trailing-byte", &|bytes| bytes.push(0));
    changed("one-bit", &|bytes| bytes[2000] ^= 1);
    changed("version-1", &|bytes| bytes[0] = 1);
    let nas = DeviceKeys::generate(&mut rng(8));
    house.add_as(&nas, &nas.limited_info());
    let granted = to_file(&house, &nas);
    write("valid", "limited-device", &granted);
    let mut bytes = granted.key_block.as_slice().to_vec();
    *bytes.last_mut().expect("long") ^= 1;
    let altered = KeyBlockFile { key_block: bytes.into(), ..granted };
    write("invalid", "limited-device-one-bit", &altered);
    house.remove(nas.id());
    write("invalid", "limited-device-removed", &to_file(&house, &nas));
    // Made by a device of the account, and named by its chain.
    let house = House::new();
    let forged = |kind: &str, name: &str, forged: Forged| {
        let (account, genesis, key_block) = forged.named(&house);
        let file = KeyBlockFile {
            account: account.id(),
            blocks: vec![genesis.into()],
            key_block: key_block.into(),
            ..to_file(&house, &house.one)
        };
        write(kind, name, &file);
    };
    forged("valid", "by-hand", Forged::of(&house));
    forged("invalid", "other-root", Forged { root: [1; 32], ..Forged::of(&house) });
    forged("invalid", "other-seed", Forged { seed: [1; 32], ..Forged::of(&house) });
    forged("invalid", "root-too-many", Forged { earlier: vec![[1; 32]], ..Forged::of(&house) });
    let removal = sr_keys::Removal { seq: 0, salt: [0; 32], anchors: Vec::new() };
    forged(
        "invalid",
        "removal-of-nobody",
        Forged { removals: vec![removal], ..Forged::of(&house) },
    );
}

fn links() {
    let device = DeviceKeys::generate(&mut rng(1));
    let opening = LinkOpening { random: [1; 32], device: device.info() };
    let pins = Pins {
        name: b"Ana".to_vec().into(),
        answers: Vec::new(),
        places: Vec::new(),
        log: Vec::new().into(),
        policy: b"quorum none\n".to_vec().into(),
    };
    let answer = LinkAnswer {
        account: AccountId([1; 32]),
        seq: 2,
        block: [3; 32],
        card: [4; 32],
        random: [5; 32],
        pins: pins.hash(),
    };
    let transcript =
        Transcript::new(&opening.commit(), answer.clone(), opening.clone()).expect("fits");
    let words = [transcript.words_of_new(), transcript.words_of_old()].concat().join(" ");
    let good = LinkFile {
        keys: device.to_file().to_vec().into(),
        commit: opening.commit(),
        answer,
        opening,
        words: words.into_bytes().into(),
        pins: pins.seal(&transcript).expect("seals").into(),
    };
    write("link", "valid", "one", &encode(&good));
    let changed = |name: &str, change: &dyn Fn(&mut LinkFile)| {
        let mut file = good.clone();
        change(&mut file);
        write("link", "invalid", name, &encode(&file));
    };
    changed("other-commitment", &|file| file.commit.commit[0] ^= 1);
    changed("opening-changed-later", &|file| file.opening.random[0] ^= 1);
    changed("other-kind", &|file| file.commit.kind = DeviceKind::Limited);
    changed("other-account", &|file| file.answer.account.0[0] ^= 1);
    changed("other-card", &|file| file.answer.card[0] ^= 1);
    changed("other-pins-promised", &|file| file.answer.pins[0] ^= 1);
    changed("other-words", &|file| file.words = b"zoo zoo zoo zoo zoo zoo".to_vec().into());
    changed("pins-of-another", &|file| {
        let other = Pins {
            name: b"Eve".to_vec().into(),
            answers: Vec::new(),
            places: Vec::new(),
            log: Vec::new().into(),
            policy: Vec::new().into(),
        };
        file.pins = other.seal(&transcript).expect("seals").into();
    });
    let other = DeviceKeys::generate(&mut rng(2));
    changed("other-device", &|file| file.keys = other.to_file().to_vec().into());
    let long = [encode(&good), vec![0]].concat();
    write("link", "invalid", "trailing-byte", &long);
}

fn answers() {
    let asker = DeviceKeys::generate(&mut rng(1));
    let request = HelpRequest::of(&asker);
    let deal = |seed, need| {
        let template = ShareTemplate {
            account: AccountId([1; 32]),
            name: "Ana".into(),
            address: "localhost:7443".into(),
            card: [2; 32],
            log: Vec::new(),
        };
        Share::deal(&template, need, 3, &mut rng(seed)).1
    };
    let file = |shares: &[&Share], request: &HelpRequest| AnswersFile {
        keys: asker.to_file().to_vec().into(),
        answers: shares
            .iter()
            .map(|share| share.answer(request).expect("seals").into_bytes().into())
            .collect(),
    };
    let write = |kind: &str, name: &str, file: &AnswersFile| {
        write("answers", kind, name, &encode(file));
    };
    let (shares, others) = (deal(3, 2), deal(4, 2));
    write("valid", "two-of-three", &file(&[&shares[0], &shares[2]], &request));
    write("valid", "all", &file(&[&shares[2], &shares[0], &shares[1]], &request));
    write("invalid", "too-few", &file(&[&shares[0]], &request));
    write("invalid", "one-twice", &file(&[&shares[0], &shares[0]], &request));
    write("invalid", "none", &file(&[], &request));
    write("invalid", "of-two-sets", &file(&[&shares[0], &others[1]], &request));
    let stranger = HelpRequest::of(&DeviceKeys::generate(&mut rng(9)));
    write("invalid", "for-another-device", &file(&[&shares[0], &shares[1]], &stranger));
    let mut elsewhere = shares[1].clone();
    elsewhere.card = [9; 32];
    write("invalid", "two-servers", &file(&[&shares[0], &elsewhere], &request));
    let mut cut = file(&[&shares[0], &shares[1]], &request);
    let text = cut.answers[1].as_slice();
    cut.answers[1] = text[..text.len() - 9].to_vec().into();
    write("invalid", "cut", &cut);
}

fn envelopes() {
    let kit = Kit::generate(&mut rng(1));
    let envelope =
        Envelope { account: AccountId([1; 32]), card: [2; 32], seq: 3, block: [4; 32], made_s: 5 };
    let sealed = kit.seal(&envelope, &mut rng(2));
    let file = |kit: &Kit, sealed: &[u8]| [kit.code().as_bytes(), sealed].concat();
    write("envelope", "valid", "one", &file(&kit, &sealed));
    let other = Kit::generate(&mut rng(3));
    write("envelope", "invalid", "of-another-kit", &file(&other, &sealed));
    write("envelope", "invalid", "cut", &file(&kit, &sealed[..sealed.len() - 1]));
    write("envelope", "invalid", "trailing-byte", &file(&kit, &[&sealed[..], &[0]].concat()));
    for (name, place) in [("salt", 0), ("commitment", 32), ("ciphertext", 64), ("tag", 191)] {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        write("envelope", "invalid", &format!("one-bit-of-{name}"), &file(&kit, &changed));
    }
    let mistyped = [b"0000-0000-0000-0000-0000-0000-0001", &sealed[..]].concat();
    write("envelope", "invalid", "mistyped-kit", &mistyped);
}

fn texts() {
    let house = House::new();
    let card = ContactCard {
        account: house.account.id(),
        address: b"cloud.example:7443".to_vec().into(),
        card: [2; 32],
        policy: Vec::new().into(),
        log: Vec::new().into(),
        salt: [3; 16],
    };
    write_text("contact-card", &card.to_string());
    let policy = b"witness w w+00000000+AQ==\nquorum none\n".to_vec().into();
    let with_policy = ContactCard { policy, ..card.clone() };
    write("contact-card", "valid", "with-a-policy", with_policy.to_string().as_bytes());
    let no_text = || vec![0xff, 0xfe].into();
    let odd = ContactCard { address: no_text(), ..card.clone() };
    write("contact-card", "invalid", "address-is-no-text", odd.to_string().as_bytes());
    let odd = ContactCard { policy: no_text(), ..card };
    write("contact-card", "invalid", "policy-is-no-text", odd.to_string().as_bytes());
    write_text("help-request", &HelpRequest::of(&house.one).to_string());
}
