//! `cargo xtask fuzz`: the fuzzer on every parser of what a server can send.

use std::{fs, process::Command, sync::Mutex};

use crate::run::{output, root, run, say};

/// Files of a corpus that are kept, the smallest ones that cover what all cover.
const KEPT_MAX: usize = 200;

/// Runs each target for some minutes, `jobs` at once, and keeps the smallest corpora that cover as much.
pub(crate) fn run_command(args: &[&str]) -> Result<(), String> {
    let (mut minutes, mut jobs) = (5, 2);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = value.parse::<u64>().map_err(|e| format!("{arg} {value}: {e}"))?;
        match *arg {
            "--minutes" => minutes = number,
            "--jobs" => jobs = number,
            _ => return Err(format!("{arg} is not known")),
        }
    }
    if output(fuzz(&["--version"]).current_dir(root())).is_err() {
        return Err("install the fuzzer first: cargo install cargo-fuzz --locked, and a nightly \
                    toolchain: rustup toolchain install nightly"
            .into());
    }
    run(&mut fuzz(&["build"]))?;
    let targets = Mutex::new(targets()?);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = targets.lock().ok().and_then(|mut t| t.pop()) {
                    if let Err(error) = one(&target, minutes)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn one(target: &str, minutes: u64) -> Result<(), String> {
    let time = format!("-max_total_time={}", minutes * 60);
    let ran = output(&mut fuzz(&["run", target, "--", &time, "-max_len=65536", "-verbosity=0"]))?;
    let corpus = root().join("fuzz/corpus").join(target);
    output(&mut fuzz(&["cmin", target]))?;
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .map_err(|e| e.to_string())?
        .flatten()
        .filter_map(|file| Some((file.metadata().ok()?.len(), file.path())))
        .collect();
    files.sort();
    for (_, path) in files.iter().skip(KEPT_MAX) {
        fs::remove_file(path).map_err(|e| e.to_string())?;
    }
    let kept = files.len().min(KEPT_MAX);
    say(&format!("{target}: {minutes} minutes without a finding, {kept} files kept {ran}"));
    Ok(())
}

fn targets() -> Result<Vec<String>, String> {
    let files = fs::read_dir(root().join("fuzz/fuzz_targets")).map_err(|e| e.to_string())?;
    let names = files
        .flatten()
        .filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned()));
    Ok(names.collect())
}

fn fuzz(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // The toolchain that runs this has put its own name into the environment.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command.args(["+nightly", "fuzz"]).args(args).current_dir(root());
    command
}
