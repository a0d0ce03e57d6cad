//! `cargo xtask torture`: seeded rounds of everything that can go wrong, in simulated networks and with
//! the real program, which is killed at system calls.

use std::{fs, path::Path, process::Command};

use crate::run::{cargo, output, root, run, say};

/// One in so many rounds is played with the real program.
const REAL_EVERY: u64 = 10;
/// Rounds of one life; the next seed begins another.
const ROUNDS_PER_LIFE: u64 = 50;
const TMPFS: &str = "size=256m,mode=700";

/// Plays part `shard` of `rounds` rounds from `seed`.
pub(crate) fn run_command(args: &[&str]) -> Result<(), String> {
    let (mut rounds, mut seed, mut shard) = (500, 1, (1, 1));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{arg} {text}: {e}"));
        match *arg {
            "--rounds" => rounds = number(value)?,
            "--seed" => seed = number(value)?,
            "--shard" => {
                let (part, of) = value.split_once('/').ok_or("--shard is as in 1/4")?;
                shard = (number(part)?, number(of)?);
            }
            _ => return Err(format!("{arg} is not known")),
        }
    }
    run(&mut cargo(&["build", "--release", "--package", "strongroom"]))?;
    let real = rounds / REAL_EVERY;
    let lives = (rounds - real).div_ceil(ROUNDS_PER_LIFE);
    let mine = |number: u64| number % shard.1 == shard.0 - 1;
    let binary = root().join("target/release/strongroom");
    for life in (0..lives).filter(|life| mine(*life)) {
        let rounds = ROUNDS_PER_LIFE.min(rounds - real - life * ROUNDS_PER_LIFE);
        say(&format!("life {} of {lives}: {rounds} rounds from seed {}", life + 1, seed + life));
        let mut test = cargo(&["test", "--quiet", "--package", "sr-client", "--test", "it"]);
        test.args(["--", "torture::"])
            .env("SR_TORTURE_ROUNDS", rounds.to_string())
            .env("SR_TORTURE_SEED", (seed + life).to_string());
        output(&mut test)?;
    }
    if mine(lives) {
        crate::kill::syscalls(&binary, real, seed)?;
        small_disk(&binary, seed)?;
    }
    Ok(())
}

/// Some rounds on a disk that is too small, where the machine lets us have one.
fn small_disk(binary: &Path, seed: u64) -> Result<(), String> {
    let dir = std::env::temp_dir().join(format!("strongroom-small-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mounted =
        output(Command::new("mount").args(["-t", "tmpfs", "-o", TMPFS, "tmpfs"]).arg(&dir));
    let result = match mounted {
        Ok(_) => {
            let played = crate::kill::full_disk(binary, &dir, seed);
            output(Command::new("umount").arg(&dir))?;
            played
        }
        Err(why) => {
            say(&format!("no small disk here, so none was filled: {why}"));
            Ok(())
        }
    };
    fs::remove_dir(&dir).map_err(|e| e.to_string())?;
    result
}
