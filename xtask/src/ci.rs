//! `cargo xtask ci`: what must hold before a change lands.

use std::process::Command;

use crate::run::{cargo, root, run, say};

/// Rounds of `kill -9`; `cargo xtask kill` does a hundred.
const KILL_ROUNDS: &str = "12";

pub(crate) fn all() -> Result<(), String> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    run_all(&clippy)?;
    // The one feature off: a client without a server builds.
    let without = ["clippy", "--quiet", "--package", "strongroom", "--no-default-features"];
    run(cargo(&without).args(["--", "--deny", "warnings"]))?;
    let mut doc =
        cargo(&["doc", "--workspace", "--no-deps", "--quiet", "--document-private-items"]);
    run(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    run_all(&["test", "--workspace"])?;
    run_all(&["build", "--quiet", "--package", "strongroom"])?;
    let binary = root().join("target/debug/strongroom");
    run(Command::new(&binary).args(["demo", "--json"]))?;
    run(Command::new(&binary).args(["adversary", "run", "--json"]))?;
    crate::kill::rounds(&binary, KILL_ROUNDS, "1")?;
    deny()
}

fn run_all(args: &[&str]) -> Result<(), String> {
    run(&mut cargo(args))
}

/// Licences, bans and sources, where cargo-deny is installed; it takes minutes to build.
fn deny() -> Result<(), String> {
    let installed = cargo(&["deny", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        say("cargo-deny is not installed: licences and bans were not checked");
        return Ok(());
    }
    run_all(&["deny", "--offline", "check", "bans", "licenses", "sources"])
}
