//! What developers and CI run: `cargo xtask ci`, `bench trust|vault`, `fuzz`, `kill`, `torture`.

mod bench;
mod ci;
mod fuzz;
mod kill;
mod network;
mod peers;
mod run;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  ci                      everything that must hold before a change lands
  bench trust             what accounts cost: making, linking, restoring, verifying a long chain
  bench network [MBIT]    how much of a line a backup fills: 1 to 100 Mbit/s, 10 to 200 ms
  bench vault [PEER,PEER] strongroom and its peers side by side; all that are installed, or these
  kill [ROUNDS] [SEED]    kill -9 at random moments of backups, restores and the server
  fuzz [--minutes M] [--jobs J]
                          the fuzzer on every parser of what a server can send; needs nightly
  torture [--rounds N] [--seed S] [--shard I/N]
                          everything that can go wrong, in seeded rounds";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["ci"] => ci::all(),
        ["bench", "trust"] => bench::trust(),
        ["bench", "network", mbit @ ..] if mbit.len() <= 1 => network::bench(mbit.first().copied()),
        ["bench", "vault", peer @ ..] if peer.len() <= 1 => bench::vault(peer.first().copied()),
        ["fuzz", options @ ..] => fuzz::run_command(options),
        ["torture", options @ ..] => torture::run_command(options),
        ["kill", numbers @ ..] if numbers.len() <= 2 => kill::run_command(numbers),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            run::say(&message);
            ExitCode::FAILURE
        }
    }
}
