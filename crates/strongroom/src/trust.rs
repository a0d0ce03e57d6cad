//! `trust …`: what only a person can decide about a server.

use serde_json::json;
use sr_client::Rollback;

use crate::{
    args::{Args, TrustCommand},
    ask::ask,
    backup::snapshot_line,
    failure::Failure,
    output::{Done, Output, plural},
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
        // What else it was caught at, nobody can accept.
        client.require_unsealed()?;
        let text =
            "ok  the server shows everything that this device knows; there is nothing to accept";
        return Ok(Done::new(text.to_owned(), json!({ "states": 0, "snapshots": 0 })));
    }
    let (number, what) = if lost > 0 { (lost, "snapshots") } else { (states, "changes") };
    output.tell(&told(&rollback));
    let typed = ask(&format!("Type how many {what} are forgotten ({number}) to go on: "))?;
    if typed.trim() != number.to_string() {
        return Err(Failure::rollback_not_accepted());
    }
    client.accept_rollback(rollback)?;
    let text = format!(
        "ok  {} {} forgotten on this device; it goes on with what the server shows.\n\
         Another device that knows them refuses the server until it has accepted that too.\n\
         Next: strongroom backup now",
        plural(number, what.trim_end_matches('s')),
        if number == 1 { "is" } else { "are" }
    );
    Ok(Done::new(text, json!({ "states": states, "snapshots": lost })))
}

fn told(rollback: &Rollback) -> String {
    let snapshots: String = rollback
        .snapshots
        .iter()
        .map(|snapshot| format!("\n  {}", snapshot_line(snapshot)))
        .collect();
    let named = match rollback.snapshots.len() {
        0 => {
            "This device can't name the snapshots in them: some of other devices may be among them."
                .into()
        }
        count => format!("In them {}:{snapshots}", plural(count as u64, "snapshot")),
    };
    format!(
        "The server does not show {}, or has lost their lists, and this device can't give them back.\n\
         {named}\n\
         If another device of yours may know them, run `strongroom backup now` there first: then nothing is\n\
         forgotten. If the operator has no explanation, do not go on: your backups may be cut on purpose.\n",
        plural(rollback.states, "change"),
    )
}
