//! `server …` and `operator disclose`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::geteuid;
use serde_json::{Value, json};
use sr_server::{DataDir, DataError, Restoring, Server, TlsListener, add_invite};
use sr_store::{Caps, DICTIONARY, Disclosure, Fault, Faults, Faulty, Selection};
use sr_wire::{AccountId, Invite, SpaceId};
use tokio::runtime::Runtime;

use crate::{
    failure::Failure,
    interrupt::{asked_to_end, end_on_ctrl_c},
    output::{Done, Output, bytes, count, write_lines},
    status::clock,
};

const DEFAULT_PORT: u16 = 7443;

/// How a server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// As it was.
    AsItIs,
    /// It was put back from a backup.
    Restored,
    /// By an operator who rolls it back and wants nothing back.
    Deaf,
}

/// A server that runs in this process until it is dropped.
pub(crate) struct Running {
    runtime: Runtime,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whether this start made it.
    pub(crate) is_new: bool,
    /// The nine characters by which people compare servers.
    pub(crate) name: String,
    /// Whether it was put back from a backup and stores nothing new yet.
    pub(crate) is_restoring: bool,
    /// Witnesses that did not answer.
    silent: Vec<String>,
    _lock: sr_server::DataLock,
}

impl Running {
    /// Starts the server of `dir`.
    pub(crate) fn start(dir: &Path, listen: SocketAddr, how: Start) -> Result<Self, Failure> {
        let cannot_listen = |error: io::Error| {
            Failure::failed(
                format!("can't listen on {listen}: {error}"),
                "Choose another with `--listen ADDR:PORT`; port 0 takes any that is free.",
            )
        };
        let runtime = Runtime::new().map_err(cannot_listen)?;
        let listener = runtime.block_on(TlsListener::bind(listen)).map_err(cannot_listen)?;
        let address = listener.local_address().map_err(cannot_listen)?;
        // Only a server that can be reached is made.
        let mut data = DataDir::open(dir, &mut os_rng())?;
        if how == Start::Restored {
            sr_server::begin_restoring(&data.stores)?;
        }
        if how == Start::Deaf {
            let faults = Faults::default();
            faults.set(Fault::Deaf, 0);
            data.stores.meta = Arc::new(Faulty::new(data.stores.meta, faults));
        }
        let is_restoring = data.stores.meta.put_back().map_err(DataError::Store)?.is_some();
        let report = |what: &str| write_lines(&mut io::stderr().lock(), &format!("error: {what}"));
        let server =
            Server::new(data.identity, data.stores, Caps::default(), clock(), Box::new(report))
                .map_err(DataError::Store)?;
        // An operator who rolls it back does not ask.
        let silent = if how == Start::Deaf { Vec::new() } else { server.ask_witnesses()? };
        let name = server.card().short_name();
        runtime.spawn(Arc::new(server).serve(listener));
        let is_new = data.is_new;
        Ok(Self { runtime, address, is_new, name, is_restoring, silent, _lock: data.lock })
    }

    /// Stops it; what it acknowledged is durable.
    pub(crate) fn stop(self) {
        self.runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    }
}

pub(crate) fn up(
    output: &Output,
    data: Option<&Path>,
    listen: SocketAddr,
    restored: bool,
) -> Result<Done, Failure> {
    let dir = data_dir(data)?;
    let how = if restored { Start::Restored } else { Start::AsItIs };
    if restored {
        // None is made then.
        sr_server::restoring(&dir)?;
    }
    let running = Running::start(&dir, listen, how)?;
    let mut invites = Vec::new();
    if running.is_new {
        invites = add_invite(&dir, &reachable(running.address), &mut os_rng())?;
    }
    let made = if running.is_new { "made now" } else { "opened" };
    output.note(&format!(
        "ok  data directory   {} ({made})\n\
         ok  server identity  {}   (this is what clients pin)\n\
         ok  listening on     {}   Ctrl-C stops it",
        dir.display(),
        running.name,
        running.address,
    ));
    for url in &running.silent {
        output.note(&format!(
            "!!  the witness at {url} did not answer: whether this data directory is the newest, nobody has said.\n    \
             If it was put back from a backup, stop now, and start it with --restored"
        ));
    }
    if running.is_restoring {
        output.note(&format!(
            "!!  put back from a backup: nothing new is stored until its devices have given back what came\n    \
             after. Each does at its next command. See and finish: strongroom server log reseed --data {}",
            dir.display()
        ));
    } else if invites.is_empty() {
        output.note(&format!(
            "    For another person: strongroom server invite --data {} --address HOST:{}\n    \
             For another device of the same person: strongroom device link",
            dir.display(),
            running.address.port(),
        ));
    } else {
        output.note(
            "    One invite, in as many lines as this machine has addresses. Send the line whose \
             address\n    the other side can reach, over a channel you trust:",
        );
    }
    let lines: Vec<String> = invites.iter().map(Invite::to_string).collect();
    if output.json {
        let data = json!({ "data_dir": dir, "address": running.address.to_string(),
            "server_name": running.name, "invites": lines });
        let object = json!({ "ok": true, "v": 1, "data": data, "warnings": [] });
        write_lines(&mut io::stdout().lock(), &object.to_string());
    } else if !lines.is_empty() {
        write_lines(&mut io::stdout().lock(), &lines.join("\n"));
    }
    wait_for_stop(&running)?;
    running.stop();
    output.note("stopped; everything that was acknowledged is on the disk");
    Ok(Done::silent())
}

pub(crate) fn invite(data: Option<&Path>, addresses: &[String]) -> Result<Done, Failure> {
    let dir = data_dir(data)?;
    let everywhere = reachable(SocketAddr::new(IpAddr::from([0; 16]), DEFAULT_PORT));
    let addresses = if addresses.is_empty() { &everywhere } else { addresses };
    for address in addresses {
        let probe = Invite { address: address.clone(), card_hash: [0; 32], token: [0; 16] };
        probe.to_string().parse::<Invite>().map_err(|error| {
            let title = format!("--address {address}: {error}");
            Failure::usage(title, "Write --address as HOST:PORT or [IPV6]:PORT.")
        })?;
    }
    let invites = add_invite(&dir, addresses, &mut os_rng())?;
    let lines: Vec<String> = invites.iter().map(Invite::to_string).collect();
    Ok(Done::new(lines.join("\n"), json!({ "invites": lines })))
}

pub(crate) fn back_up(data: Option<&Path>, to: &Path) -> Result<Done, Failure> {
    let dir = data_dir(data)?;
    let copied = sr_server::back_up(&dir, to)?;
    let text = format!(
        "{} is a copy of {} now: {} packs, of which {} are new, {}.\n\
         It has the server's identity: keep it as safe as the server itself.\n\
         To put it back, copy it to where the server was, while none runs there, and start that with:\n\
         strongroom server up --restored --data {}",
        to.display(),
        dir.display(),
        count(copied.packs),
        count(copied.new_packs),
        bytes(copied.new_bytes),
        dir.display(),
    );
    let data = json!({ "packs": copied.packs, "new_packs": copied.new_packs,
        "new_bytes": copied.new_bytes });
    Ok(Done::new(text, data))
}

pub(crate) fn reseed(data: Option<&Path>, finish: bool) -> Result<Done, Failure> {
    let dir = data_dir(data)?;
    let restoring = sr_server::restoring(&dir)?;
    if finish {
        sr_server::finish_restoring(&dir)?;
    }
    let text = match restoring {
        None => "Nothing to do: this server stores what is new.".to_owned(),
        Some(Restoring { entries, owed, .. }) if finish => format!(
            "Finished: the server stores what is new again, from entry {} of its log on.{}",
            count(entries),
            if owed > 0 {
                format!(
                    "\nOf {} no device has come yet; what they changed comes back when one does.",
                    accounts(owed)
                )
            } else {
                String::new()
            }
        ),
        Some(Restoring { entries, had, owed }) => format!(
            "Put back from a backup: nothing new is stored yet.\n\
             Log       {} entries{}\n\
             Accounts  {}\n\
             Finish it when the devices that people use have run a command: \
             strongroom server log reseed --finish --data {}",
            count(entries),
            if had > entries {
                format!(", and {} that it has signed are missing", count(had - entries))
            } else {
                ", and none is known to be missing".to_owned()
            },
            if owed > 0 {
                format!("of {} no device has given back what the log has", accounts(owed))
            } else {
                "all have what the log has of them".to_owned()
            },
            dir.display()
        ),
    };
    let is_restoring = restoring.is_some() && !finish;
    let data = restoring.map_or(json!({ "restoring": false }), |r| {
        json!({ "restoring": is_restoring, "entries": r.entries, "missing": r.had - r.entries,
            "accounts_owed": r.owed })
    });
    Ok(Done::new(text, data))
}

fn accounts(n: u64) -> String {
    if n == 1 { "1 account".to_owned() } else { format!("{} accounts", count(n)) }
}

pub(crate) fn disclose(
    data: Option<&Path>,
    account: Option<AccountId>,
    space: Option<SpaceId>,
) -> Result<Done, Failure> {
    let dir = data_dir(data)?;
    let selection = match (account, space) {
        (Some(account), _) => Selection::Account(account),
        (None, Some(space)) => Selection::Space(space),
        (None, None) => Selection::All,
    };
    let disclosure = sr_store::disclose(&dir, selection).map_err(sr_server::DataError::from)?;
    Ok(Done::new(disclosure_text(&disclosure, selection), disclosure_json(&disclosure)))
}

fn wait_for_stop(running: &Running) -> Result<(), Failure> {
    let waited = running.runtime.block_on(asked_to_end());
    // A second Ctrl-C ends the process even while connections are being closed.
    end_on_ctrl_c("stopped at once");
    waited.map_err(|error| {
        Failure::failed(format!("can't wait for Ctrl-C: {error}"), "Start the server again.")
    })
}

pub(crate) fn data_dir(data: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = data {
        return Ok(dir.to_owned());
    }
    if geteuid().is_root() {
        return Ok("/var/lib/strongroom".into());
    }
    let absolute = |var: &str| std::env::var_os(var).map(PathBuf::from).filter(|p| p.is_absolute());
    let share = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    let none = || Failure::usage("there is no place for the server", "Name one: `--data DIR`.");
    Ok(share.ok_or_else(none)?.join("strongroom/server"))
}

/// Returns where a server that listens on `address` can be reached: an address of its own, or every
/// one of this machine but link-local ones.
pub(crate) fn reachable(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    if !address.ip().is_unspecified() {
        return vec![address.to_string()];
    }
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => address.is_ipv6() && !v6.is_unicast_link_local(),
        })
        .collect();
    // The loopback address last: it is good for trying only.
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    addresses.retain(|ip| !(ip.is_loopback() && ip.is_ipv6()));
    if addresses.is_empty() {
        addresses.push(IpAddr::from([127, 0, 0, 1]));
    }
    addresses.into_iter().map(|ip| SocketAddr::new(ip, port).to_string()).collect()
}

/// The first lines say to whom it is useful, and what it can't tell.
fn disclosure_head(disclosure: &Disclosure, selection: Selection) -> String {
    let (packs, size) = disclosure.packs;
    let all = format!(
        "This server holds {} spaces, and in them {} packs of ciphertext, {}, in the files packs/XX/ID.",
        count(disclosure.spaces),
        count(packs),
        bytes(size)
    );
    let limit = "It can't show whether a modified server keeps more than this one.";
    match selection {
        Selection::All => format!(
            "Everything that this server can hand over. It is of use to somebody who already knows \
             which space or account belongs to whom; it can't tell them that, nor what any of it \
             contains.\n{limit}\n\n{all}\n"
        ),
        Selection::Account(id) => format!(
            "Everything that this server can hand over of account {id}. It is of use to somebody who \
             already knows whose account it is: it tells how many devices that person has had, and when \
             each came and went by its own clock.\n{limit}\n\n\
             Packs can't be told by account: no table ties a space to one. {all}\n"
        ),
        Selection::Space(id) => format!(
            "Everything that this server can hand over of space {id}. It is of use to somebody who \
             already knows whose space it is: it tells how much was stored in it, and in how many \
             steps.\n{limit}\n\n\
             Accounts can't be told by space: no table ties one to it. {all}\n"
        ),
    }
}

fn disclosure_text(disclosure: &Disclosure, selection: Selection) -> String {
    let mut text = disclosure_head(disclosure, selection);
    for table in &disclosure.tables {
        text.push_str(&format!("\n{} ({} rows)\n", table.name, count(table.rows.len() as u64)));
        for column in &table.columns {
            text.push_str(&format!(
                "  {}: {}; kept {}\n",
                column.name, column.meaning, column.kept
            ));
        }
        for row in &table.rows {
            let row: Vec<String> = row.iter().map(|value| shortened(value)).collect();
            text.push_str(&format!("    {}\n", row.join("  ")));
        }
    }
    text.push_str("\nfiles\n");
    for entry in DICTIONARY.iter().filter(|entry| entry.table == "file") {
        text.push_str(&format!("  {}: {}; kept {}\n", entry.name, entry.meaning, entry.kept));
    }
    text.trim_end().to_owned()
}

/// Ciphertext says nothing at any length; JSON has it whole.
fn shortened(value: &str) -> String {
    match value.get(..64) {
        Some(start) if value.len() > 200 => format!("{start}… ({} bytes)", value.len() / 2),
        _ => value.to_owned(),
    }
}

fn disclosure_json(disclosure: &Disclosure) -> Value {
    let tables: Vec<Value> = disclosure
        .tables
        .iter()
        .map(|table| {
            let columns: Vec<Value> = table
                .columns
                .iter()
                .map(|c| json!({ "name": c.name, "meaning": c.meaning, "kept": c.kept }))
                .collect();
            json!({ "name": table.name, "columns": columns, "rows": table.rows })
        })
        .collect();
    let files: Vec<Value> = DICTIONARY
        .iter()
        .filter(|entry| entry.table == "file")
        .map(|e| json!({ "name": e.name, "meaning": e.meaning, "kept": e.kept }))
        .collect();
    let (packs, size) = disclosure.packs;
    json!({
        "spaces": disclosure.spaces,
        "packs": packs,
        "bytes": size,
        "tables": tables,
        "files": files,
    })
}

pub(crate) fn os_rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
