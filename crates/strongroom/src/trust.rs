//! `trust …`: what only a person can decide about a server.

use serde_json::json;

use crate::{
    args::{Args, TrustCommand},
    ask::ask,
    backup::snapshot_line,
    failure::Failure,
    output::{Done, Output, count, plural},
    status::client,
};

pub(crate) fn command(
    args: &Args,
    output: &Output,
    command: &TrustCommand,
) -> Result<Done, Failure> {
    match command {
        TrustCommand::AcceptRollback => accept_rollback(args, output),
    }
}

fn accept_rollback(args: &Args, output: &Output) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let rollback = client.rollback()?;
    let (lost, states) = (rollback.snapshots.len() as u64, rollback.states);
    if rollback.is_nothing() {
        client.accept_rollback(rollback)?;
        let text =
            "ok  the server shows everything that this device knows; there is nothing to accept";
        return Ok(Done::new(text.to_owned(), json!({ "states": 0, "snapshots": 0 })));
    }
    let lines: Vec<String> = rollback.snapshots.iter().map(snapshot_line).collect();
    output.tell(&format!(
        "The server does not show {} that this device knows, and this device can't give them back.\n\
         Going on with what it shows forgets {}{}\n{}\n\
         If the operator has an older copy of the server only, that is all there is. If the operator has no \n\
         explanation, do not go on: your backups may be cut on purpose.\n",
        plural(states, "change"),
        plural(lost, "snapshot"),
        if lost == 0 { ", as far as this device can tell." } else { ":" },
        lines.join("\n"),
    ));
    let typed =
        ask(&format!("Type the number of snapshots that are forgotten ({lost}) to go on: "))?;
    if typed.trim() != lost.to_string() {
        return Err(Failure::rollback_not_accepted());
    }
    client.accept_rollback(rollback)?;
    let text = format!(
        "ok  {} forgotten on this device; it goes on with what the server shows.\n\
         Your other devices refuse the server until each has accepted that too.\n\
         Next: strongroom backup now",
        if lost == 1 {
            "1 snapshot is".to_owned()
        } else {
            format!("{} snapshots are", count(lost))
        }
    );
    Ok(Done::new(text, json!({ "states": states, "snapshots": lost })))
}
