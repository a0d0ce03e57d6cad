//! What the sizes of packs tell an operator: the attacks ST-13 and ST-14 as games.
//!
//! In each trial a coin is thrown, something is stored by the real pipeline, from file to packs, and the
//! attacker, who knows the content, sees the lengths of the packs and guesses the coin. Half of the
//! trials are there to learn from. The advantage is 2 · P(right) − 1.
//!
//! `SR_HIDING_TRIALS` sets how many trials, `SR_HIDING_CHOSEN_MIB` how much chosen data the vault stores
//! before: `SR_HIDING_CHOSEN_MIB=1024 cargo test --release -p sr-client --lib hiding -- --nocapture`.

use std::{collections::HashMap, fs::File, path::Path};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sr_keys::VaultKeys;
use sr_vault::{
    ChunkId, ChunkIds, Chunker,
    block::{BlockBuilder, Compression, Kind},
    index::{ChunkIndex, IndexPack},
    manifest::Manifest,
    pack::PackBuilder,
};

use crate::{
    backup::compressor,
    file::{Apart, FileReader},
    scan::Opened,
    sink::{Adopted, Sink},
    view::Cache,
};

/// Advantage and 1.65 standard errors may be this together.
const BLIND_MAX: f64 = 0.05;
/// What the attacker must find when it is there.
const CONTROL_LEAK: f64 = 0.15;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A vault, and a folder on a disk of memory where files are put to be stored.
struct Lab {
    keys: VaultKeys,
    index: ChunkIndex,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let keys = VaultKeys::generate(rng);
        Self { keys, index: ChunkIndex::default(), dir: dir.expect("dir") }
    }

    /// Stores files in one run, and returns the lengths of its packs and what they hold.
    fn store(&self, files: &[&[u8]], apart: Option<&Apart>) -> (Vec<usize>, Vec<IndexPack>) {
        let (ids, chunker) = (ChunkIds::new(&self.keys), Chunker::new(&self.keys));
        let cache = Cache { dir: self.dir.path().join("cache") };
        let folder = self.dir.path().join("folder");
        for dir in [&cache.dir, &folder] {
            std::fs::create_dir_all(dir).expect("makes");
        }
        let opened = Opened {
            fd: File::open(&folder).expect("opens").into(),
            path: folder.clone(),
            device: 0,
        };
        let (sink, queue) = Sink::new(&self.keys, &self.index);
        std::thread::scope(|scope| {
            let received = scope.spawn(|| crate::sink::drain(&queue));
            let compressor_of = || compressor(Compression::Default).expect("memory");
            let mut reader = FileReader::new(&ids, &chunker, &sink, compressor_of());
            for (number, content) in files.iter().enumerate() {
                let name = number.to_string();
                std::fs::write(folder.join(&name), content).expect("writes");
                drop(reader.file(&opened, name.as_bytes(), apart).expect("reads"));
            }
            reader.flush().expect("adds");
            drop(reader);
            let mut trees = BlockBuilder::default();
            trees.push(ChunkId([9; 32]), &[0; 300]);
            let mut compressor = compressor_of();
            sink.add(Kind::Tree, &trees.compress(&mut compressor)).expect("adds");
            sink.finish(Adopted::default(), Manifest::default(), &mut compressor, &cache)
                .expect("finishes");
            let mut packs: Vec<(PackBuilder, IndexPack)> = received.join().expect("joins");
            // The operator sees them in whatever order two uploads end.
            packs.sort_by_key(|(builder, _)| builder.class().pack_len());
            packs.into_iter().map(|(builder, holds)| (builder.class().pack_len(), holds)).unzip()
        })
    }

    /// Stores files, for good.
    fn keep(&mut self, files: &[&[u8]]) {
        let (_, packs) = self.store(files, None);
        packs.iter().for_each(|pack| self.index.add(pack));
    }
}

/// Plays a game and returns the attacker's advantage, and a standard error.
#[expect(clippy::cast_precision_loss, reason = "thousands of trials")]
fn advantage(trials: usize, mut trial: impl FnMut(usize, bool) -> Vec<usize>) -> (f64, f64) {
    let mut coins = ChaCha8Rng::seed_from_u64(77);
    let (mut learned, mut right) = (Vec::new(), 0);
    let mut attacker = None;
    for number in 0..trials {
        let coin = coins.next_u32() & 1 == 1;
        let seen = trial(number, coin);
        if number < trials / 2 {
            learned.push((seen, coin));
        } else {
            let attacker = attacker.get_or_insert_with(|| Attacker::new(&learned));
            right += usize::from(attacker.guess(&seen) == coin);
        }
    }
    let tested = (trials - trials / 2) as f64;
    (2.0 * right as f64 / tested - 1.0, 1.0 / tested.sqrt())
}

/// Guesses by what was seen with the same lengths, and where that is new, by the total.
struct Attacker {
    by_lengths: HashMap<Vec<usize>, i64>,
    threshold: usize,
    above: bool,
}

impl Attacker {
    fn new(learned: &[(Vec<usize>, bool)]) -> Self {
        let mut by_lengths: HashMap<Vec<usize>, i64> = HashMap::new();
        for (seen, coin) in learned {
            *by_lengths.entry(seen.clone()).or_default() += if *coin { 1 } else { -1 };
        }
        let mut totals: Vec<(usize, bool)> =
            learned.iter().map(|(seen, coin)| (seen.iter().sum(), *coin)).collect();
        totals.sort_unstable();
        // The total from which on one side has the most right.
        let (mut sum, mut best) = (0_i64, (0, 0));
        for (total, coin) in &totals {
            sum += if *coin { -1 } else { 1 };
            if sum.abs() > i64::abs(best.0) {
                best = (sum, *total);
            }
        }
        Self { by_lengths, threshold: best.1, above: best.0 > 0 }
    }

    fn guess(&self, seen: &[usize]) -> bool {
        match self.by_lengths.get(seen) {
            Some(votes) if *votes != 0 => *votes > 0,
            _ => (seen.iter().sum::<usize>() > self.threshold) == self.above,
        }
    }
}

fn noise(rng: &mut ChaCha8Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// ST-13: two known files of one length, of which one is stored in a space where nothing else is. The
/// second is the first, turned by half, so that it is cut elsewhere.
#[test]
fn st_13_which_of_two_known_files_it_is_stays_hidden() {
    let (trials, mib) = (number("SR_HIDING_TRIALS", 10_000), number("SR_HIDING_CHOSEN_MIB", 4));
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut lab = Lab::new(&mut rng);
    for _ in 0..mib {
        // Data of the attacker's choice: random, repeating, and both by turns.
        let random = noise(&mut rng, 1 << 19);
        lab.keep(&[&[&random[..], &random[..4096].repeat(128)].concat()]);
    }
    let mut control = ChaCha8Rng::seed_from_u64(15);
    let mut observed = Vec::new();
    let (found, error) = advantage(trials, |_, coin| {
        let first = noise(&mut rng, 1 << 20);
        let turned = [&first[1 << 19..], &first[..1 << 19]].concat();
        let (seen, _) = lab.store(&[if coin { &turned } else { &first }], None);
        observed.push(seen.clone());
        seen
    });
    println!("ST-13: {trials} trials of 1 MiB after {mib} MiB: {found:.3} ± {error:.3}");
    assert!(found + 1.65 * error <= BLIND_MAX, "{found} ± {error}");
    // The same game with a leak: one more pack, in some trials of one side.
    let mut observed = observed.into_iter();
    let (found, _) = advantage(trials, |_, coin| {
        let mut seen = observed.next().unwrap_or_default();
        let leaks = f64::from(control.next_u32()) / f64::from(u32::MAX) < 2.0 * CONTROL_LEAK;
        seen.extend((coin && leaks).then_some(1 << 16));
        seen
    });
    assert!(found > 0.10, "a leak of {CONTROL_LEAK} must be found, and this was: {found}");
}

/// ST-14: content that somebody sends, in a space of its own, whether or not the owner's vault has it, and
/// whether or not it has the owner's secret in it.
#[test]
fn st_14_what_is_received_apart_tells_nothing_of_what_is_there() {
    let trials = number("SR_HIDING_TRIALS", 10_000);
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let owner = Lab::new(&mut rng);
    let received = Lab::new(&mut rng);
    let (found, error) = advantage(trials, |_, coin| {
        let guess = noise(&mut rng, 60_000);
        let secret = if coin { guess.clone() } else { noise(&mut rng, 60_000) };
        // The owner's own run is another one, in another space.
        drop(owner.store(&[&secret], None));
        received.store(&[&guess], None).0
    });
    println!("ST-14: {trials} trials of 60 kB apart: {found:.3} ± {error:.3}");
    assert!(found + 1.65 * error <= BLIND_MAX, "{found} ± {error}");
}

/// The label of `backup add`, in figures: a file that somebody puts into a backed-up folder, in a run with
/// other changes, is stored already or not. With `--no-dedup-across` that is hidden.
#[test]
fn whoever_puts_a_file_into_a_folder_learns_as_much_as_the_label_says() {
    let trials = number("SR_HIDING_TRIALS", 10_000) / 50;
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    for (len, name) in [
        (1 << 10, "1 KiB"),
        (1 << 14, "16 KiB"),
        (1 << 16, "64 KiB"),
        (1 << 18, "256 KiB"),
        (1 << 20, "1 MiB"),
        (1 << 22, "4 MiB"),
    ] {
        let mut game = |apart: Option<&Apart>| {
            advantage(trials, |_, coin| {
                let mut lab = Lab::new(&mut rng);
                let probe = noise(&mut rng, len);
                if coin {
                    lab.keep(&[&probe]);
                }
                // What else changed since the last run: up to 4 files of up to 100 kB.
                let others: Vec<Vec<u8>> = (0..rng.next_u32() % 5)
                    .map(|_| {
                        let len = rng.next_u32() % 100_000;
                        noise(&mut rng, len as usize)
                    })
                    .collect();
                let mut files: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
                files.push(&probe);
                lab.store(&files, apart).0
            })
        };
        let (shared, error) = game(None);
        let (apart, _) = game(Some(&Apart { folder: 1, before: Default::default() }));
        println!("{name}: {shared:.2} ± {error:.2}, apart {apart:.2}");
        assert!(apart <= 4.0 * error, "{name}: {apart} ± {error}");
        // The label does not say less than is true.
        let said = if len >= 1 << 18 { 0.9 } else { 0.0 };
        assert!(shared >= said - 3.0 * error, "{name}: {shared}");
    }
}
