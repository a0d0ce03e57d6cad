//! `witness …` and `server witness …`.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use sr_tlog::LogKeys;
use sr_witness::{Watched, Witness, WitnessError};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    args::{ServerWitnessCommand, WitnessCommand},
    ask::read,
    failure::Failure,
    interrupt::{asked_to_end, end_on_ctrl_c},
    output::{Done, Output, count, time, write_lines},
    server::{data_dir, os_rng, reachable},
    status::clock,
};

pub(crate) fn command(output: &Output, command: &WitnessCommand) -> Result<Done, Failure> {
    match command {
        WitnessCommand::Up { data, listen } => up(output, &dir(data.as_deref())?, *listen),
        WitnessCommand::Add { card, data } => add(&dir(data.as_deref())?, card),
        WitnessCommand::Ls { data } => ls(&dir(data.as_deref())?),
    }
}

pub(crate) fn of_server(command: &ServerWitnessCommand) -> Result<Done, Failure> {
    match command {
        ServerWitnessCommand::Add { url, keys, data } => {
            let dir = data_dir(data.as_deref())?;
            sr_server::add_witness(&dir, url, &keys.join("\n"))?;
            let text = format!(
                "ok  the server asks the witness at {url} from its next start on\n\
                 Next: give the witness's operator what `strongroom server witness ls` prints, and start the \
                 server again."
            );
            Ok(Done::new(text, json!({ "url": url })))
        }
        ServerWitnessCommand::Ls { data } => witnesses_of(&data_dir(data.as_deref())?),
        ServerWitnessCommand::Rm { url, data } => {
            sr_server::remove_witness(&data_dir(data.as_deref())?, url)?;
            let text = format!(
                "ok  the server does not ask the witness at {url} from its next start on\n\
                 Accounts that ask it do so until `strongroom trust policy set`."
            );
            Ok(Done::new(text, json!({ "url": url })))
        }
    }
}

fn witnesses_of(dir: &Path) -> Result<Done, Failure> {
    let (keys, witnesses) = (sr_server::log_keys(dir)?, sr_server::witnesses(dir)?);
    let origin = keys.split('+').next().unwrap_or_default().to_owned();
    let keys: String = keys.lines().map(|key| format!("log {key}\n")).collect();
    let mut text = format!("For `strongroom witness add`, on the witness's machine:\n{keys}");
    if witnesses.is_empty() {
        text.push_str("\nThis server has no witness: nobody else would notice if its log were shown in two ways.");
        return Ok(Done::new(text, json!({ "log": keys, "witnesses": [] })));
    }
    let mut list = Vec::new();
    text.push_str("\nWitnesses\n");
    for witness in &witnesses {
        let size = witness.cosigned_size(&origin);
        let state = match &size {
            Ok(size) => format!("has cosigned {} entries", count(*size)),
            Err(error) => error.to_string(),
        };
        text.push_str(&format!("  {}  {}: {state}\n", witness.name(), witness.url()));
        list.push(json!({ "name": witness.name(), "url": witness.url(), "entries": size.ok() }));
    }
    let policy = sr_server::policy(&witnesses);
    text.push_str(&format!("\nPolicy, for `strongroom trust policy set`:\n{}", policy.trim_end()));
    Ok(Done::new(text, json!({ "log": keys, "witnesses": list, "policy": policy })))
}

fn up(output: &Output, dir: &Path, listen: SocketAddr) -> Result<Done, Failure> {
    let cannot_listen = |error: io::Error| {
        Failure::failed(
            format!("can't listen on {listen}: {error}"),
            "Choose another with `--listen ADDR:PORT`; port 0 takes any that is free.",
        )
    };
    let runtime = Runtime::new().map_err(cannot_listen)?;
    let listener = runtime.block_on(TcpListener::bind(listen)).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let witness = Arc::new(Witness::open(dir, Some(&mut os_rng()), clock())?);
    let (keys, watched) = (keys_of(&witness), witness.watched()?);
    let host = reachable(address).into_iter().next().unwrap_or_default();
    output.note(&format!(
        "ok  witness          {} in {}\n\
         ok  watches          {}\n\
         ok  listening on     {address}   Ctrl-C stops it",
        witness.verifiers()[0].name(),
        dir.display(),
        logs(watched.len()),
    ));
    output.note(
        "    To watch a server: strongroom witness add FILE, with what `strongroom server witness ls` prints there.\n    \
         That server asks this witness from this command and its next start on:",
    );
    let line = format!("strongroom server witness add http://{host} {}", keys.join(" "));
    if output.json {
        let data = json!({ "data_dir": dir, "address": address.to_string(), "keys": keys });
        let object = json!({ "ok": true, "v": 1, "data": data, "warnings": [] });
        write_lines(&mut io::stdout().lock(), &object.to_string());
    } else {
        write_lines(&mut io::stdout().lock(), &line);
    }
    let report = |what: &str| write_lines(&mut io::stderr().lock(), &format!("error: {what}"));
    runtime.spawn(witness.serve(listener, report));
    let waited = runtime.block_on(asked_to_end());
    end_on_ctrl_c("stopped at once");
    waited.map_err(|error| {
        Failure::failed(format!("can't wait for Ctrl-C: {error}"), "Start the witness again.")
    })?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    output.note("stopped; what was cosigned is on the disk");
    Ok(Done::silent())
}

fn add(dir: &Path, card: &Path) -> Result<Done, Failure> {
    let text = read(card).map_err(|error| {
        Failure::usage(format!("{}: {error}", card.display()), "Name a file that can be read.")
    })?;
    let keys = log_keys(&text).ok_or_else(|| {
        Failure::usage(
            format!("{} has not the two keys of one server's log", card.display()),
            "Copy both `log` lines that `strongroom server witness ls` prints.",
        )
    })?;
    let is_new = Witness::open(dir, None, clock())?.add(&keys)?;
    let what = if is_new { "is watched from now on" } else { "was watched already" };
    let text = format!("ok  the log {} {what}", keys.origin());
    Ok(Done::new(text, json!({ "origin": keys.origin(), "new": is_new })))
}

fn ls(dir: &Path) -> Result<Done, Failure> {
    let witness = Witness::open(dir, None, clock())?;
    let (keys, watched) = (keys_of(&witness), witness.watched()?);
    let mut text =
        format!("Keys, for `strongroom server witness add URL`:\n{}\n\n", keys.join("\n"));
    text.push_str(&format!("Watches {}", logs(watched.len())));
    text.extend(watched.iter().map(|log| format!("\n  {}", line(log))));
    let list: Vec<Value> = watched
        .iter()
        .map(|log| json!({ "origin": log.origin, "entries": log.size, "cosigned_s": log.cosigned_s }))
        .collect();
    Ok(Done::new(text, json!({ "keys": keys, "logs": list })))
}

fn line(log: &Watched) -> String {
    let state = match log.size {
        None => "nothing cosigned yet".to_owned(),
        Some(size) => format!("{} entries, cosigned last {}", count(size), time(log.cosigned_s)),
    };
    format!("{}: {state}", log.origin)
}

fn logs(number: usize) -> String {
    if number == 1 { "1 log".to_owned() } else { format!("{} logs", count(number as u64)) }
}

fn keys_of(witness: &Witness) -> Vec<String> {
    witness.verifiers().iter().map(ToString::to_string).collect()
}

/// Reads the keys of a log from what `server witness ls` prints, or from its two lines alone.
fn log_keys(text: &str) -> Option<LogKeys> {
    let mut keys = text.lines().filter_map(|line| line.trim().strip_prefix("log "));
    let pair = (keys.next()?.trim().parse().ok()?, keys.next()?.trim().parse().ok()?);
    LogKeys::new(pair.0, pair.1).ok().filter(|_| keys.next().is_none())
}

fn dir(data: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(match data {
        Some(dir) => dir.to_owned(),
        // Beside the server's, and never in it.
        None => {
            let server = data_dir(None)?;
            let is_system = server.starts_with("/var/lib");
            if is_system {
                server.with_file_name("strongroom-witness")
            } else {
                server.with_file_name("witness")
            }
        }
    })
}

impl From<WitnessError> for Failure {
    fn from(error: WitnessError) -> Self {
        let title = crate::failure::with_causes(&error);
        match error {
            WitnessError::Missing(_) => Self::usage(title, "Make one: `strongroom witness up`."),
            _ => {
                Self::failed(title, "Mend what the message names, then run the same command again.")
            }
        }
    }
}
