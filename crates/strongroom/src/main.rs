//! The one binary: commands, output, wiring.
//!
//! stdout has the result, stderr progress and notes. Exit codes and the JSON of every command are a
//! contract; `docs/errors.md` lists both.

#[cfg(feature = "server")]
mod adversary;
mod args;
mod ask;
mod backup;
mod contacts;
#[cfg(feature = "server")]
mod demo;
mod device;
mod evidence;
mod failure;
mod folders;
mod interrupt;
mod keep;
mod keys;
mod kit_page;
mod log;
mod look;
mod output;
mod recovery;
mod see;
#[cfg(feature = "server")]
mod server;
mod status;
mod tenets;
mod terminal;
mod trust;
#[cfg(feature = "server")]
mod witness;

use std::process::ExitCode;

use args::{Args, BackupCommand, Command};
use clap::{CommandFactory, Parser};
use output::{Done, Output};
use sr_client::ReadData;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage_error(&error),
    };
    no_core_dumps();
    let output = Output { json: args.json, quiet: args.quiet };
    let result = run(&args, &output);
    interrupt::wait_if_ending();
    output.finish(result)
}

/// Keys must not end up in a file because a process died. What can't be switched off is no reason to
/// stop: the machine may have no dumps at all.
fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn run(args: &Args, output: &Output) -> Result<Done, failure::Failure> {
    match &args.command {
        Command::Backup { command, of } => match command {
            BackupCommand::Add(_)
            | BackupCommand::Ls
            | BackupCommand::Now { .. }
            | BackupCommand::Rm { .. }
                if of.is_some() =>
            {
                Err(failure::Failure::usage(
                    "--of is for the backups that another device has made",
                    "Run this on that device, without --of.",
                ))
            }
            BackupCommand::Add(wanted) => folders::add(args, wanted),
            BackupCommand::Browse { what } => look::browse(args, what),
            BackupCommand::Diff { before, after } => look::diff(args, before, after),
            BackupCommand::Find { pattern } => look::find(args, pattern),
            BackupCommand::Forget(wanted) => keep::forget(args, wanted),
            BackupCommand::Ls => folders::ls(args),
            BackupCommand::Now { folder, compression, auto, stdin, tag, limits, .. } => {
                let how = backup::How {
                    compression: *compression,
                    automatic: *auto,
                    tags: tag,
                    stdin: stdin.as_deref(),
                    limits: *limits,
                };
                backup::now(args, output, folder.as_deref(), &how)
            }
            BackupCommand::Pin { snapshots, undo } => keep::pin(args, snapshots, *undo),
            BackupCommand::Prune { dry_run } => keep::prune(args, output, *dry_run),
            BackupCommand::Restore { what, to: Some(to), .. } if to.as_os_str() == "-" => {
                look::cat(args, what)
            }
            BackupCommand::Restore { what, to, in_place, limits } => {
                backup::restore(args, output, what, to.as_deref(), *in_place, *limits)
            }
            BackupCommand::Rm { path } => folders::rm(args, path),
            BackupCommand::Snapshots { forgotten } => backup::snapshots(args, *forgotten),
            BackupCommand::Tag(wanted) => keep::tag(args, wanted),
            BackupCommand::Undelete => keep::undelete(args),
            BackupCommand::Verify { read_data, limits } => {
                let read_data = match read_data {
                    None => ReadData::Nothing,
                    Some(100) => ReadData::All,
                    Some(percent) => ReadData::Part(*percent),
                };
                backup::verify(args, output, read_data, *limits)
            }
        },
        #[cfg(feature = "server")]
        Command::Adversary(command) => adversary::command(output, command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "strongroom", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            Ok(Done::new(script.trim_end().to_owned(), serde_json::json!({ "script": script })))
        }
        #[cfg(feature = "server")]
        Command::Demo { dir } => demo::run(output, dir.as_deref()),
        Command::Device(command) => device::run(args, output, command),
        Command::Evidence(command) => evidence::command(args, command),
        Command::Join { invite, name, device_name } => {
            status::join(args, invite, name.as_deref(), device_name.as_deref())
        }
        Command::Lock => keys::lock(args),
        Command::Log(args::LogCommand::Status { from, card }) => {
            log::status(args, from.as_deref(), *card)
        }
        Command::Log(args::LogCommand::Verify { from, card }) => {
            log::verify(args, output, from.as_deref(), *card)
        }
        Command::Unlock { for_good } => keys::unlock(args, *for_good),
        Command::Recovery(command) => recovery::run(args, output, command),
        #[cfg(feature = "server")]
        Command::Operator(args::OperatorCommand::Disclose { account, space, data, .. }) => {
            server::disclose(data.as_deref(), *account, *space)
        }
        #[cfg(feature = "server")]
        Command::Server(command) => match command {
            args::ServerCommand::Up { data, listen, restored } => {
                server::up(output, data.as_deref(), *listen, *restored)
            }
            args::ServerCommand::Backup { data, to } => server::back_up(data.as_deref(), to),
            args::ServerCommand::Log(args::ServerLogCommand::Reseed { data, finish }) => {
                server::reseed(data.as_deref(), *finish)
            }
            args::ServerCommand::Witness(command) => witness::of_server(command),
            args::ServerCommand::Invite { data, address } => {
                server::invite(data.as_deref(), address)
            }
        },
        Command::Status => status::status(args),
        Command::Trust(command) => trust::command(args, output, command),
        Command::VerifyDisclosure { file } => see::verify_disclosure(args, file),
        #[cfg(feature = "server")]
        Command::Witness(command) => witness::command(output, command),
        Command::WhatTheySee => see::what_they_see(args),
        Command::Tenets => tenets::tenets(args),
    }
}
