//! `trust …`: what only a person can decide about a server.

use std::path::Path;

use serde_json::json;
use sr_client::{Level, Rollback};

use crate::{
    args::{Args, PolicyCommand, TrustCommand},
    ask::ask,
    backup::snapshot_line,
    failure::{Failure, exit},
    output::{Done, Output, count, plural, printable, time},
    status::client,
};

pub(crate) fn command(
    args: &Args,
    output: &Output,
    command: &TrustCommand,
) -> Result<Done, Failure> {
    match command {
        TrustCommand::AcceptRollback => accept_rollback(args, output),
        TrustCommand::Policy(PolicyCommand::Set { file, without_kit }) => {
            set_policy(args, file, *without_kit)
        }
        TrustCommand::Policy(PolicyCommand::Show { of_server }) => show_policy(args, *of_server),
        TrustCommand::Status => status(args),
    }
}

fn status(args: &Args) -> Result<Done, Failure> {
    let trust = client(args)?.trust()?;
    let mut text = format!("Level      {}", level_line(trust.level));
    if let Some(cosigned_s) = trust.cosigned_s {
        text.push_str(&format!("\nCosigned   {}, by as many as are needed", time(cosigned_s)));
    }
    for witness in &trust.witnesses {
        let said = match &witness.size {
            Ok(size) => format!("has cosigned {} entries", count(*size)),
            Err(why) => why.clone(),
        };
        text.push_str(&format!(
            "\nWitness    {} at {}: {}",
            printable(&witness.name),
            printable(&witness.url),
            printable(&said)
        ));
    }
    let mut warnings = Vec::new();
    if trust.level > Level::G0 {
        let state = trust.state_s.map_or_else(|| "none of this device yet".to_owned(), time);
        text.push_str(&format!("\nBackups    their state is in the log since: {state}"));
        if !trust.is_pinned {
            warnings.push(
                "these witnesses are those that the server's invite named: see that they are not the operator's own. \
                 Choose with `strongroom trust policy set`"
                    .to_owned(),
            );
        }
    }
    warnings.extend(trust.unwitnessed.map(|why| {
        format!("what the server shows of its log is not relied on: {why}. What was accepted before stays")
    }));
    if trust.server_differs {
        warnings.push(
            "the server names other witnesses now than this account asks. To ask those: `strongroom trust policy \
             show --of-server > policy`, read it, `strongroom trust policy set policy`"
                .to_owned(),
        );
    }
    warnings.extend(trust.kit_is_older.then(kit_warning));
    let silent = trust.witnesses.iter().any(|witness| witness.size.is_err());
    let witnesses: Vec<_> = trust
        .witnesses
        .iter()
        .map(|w| json!({ "name": w.name, "url": w.url, "entries": w.size.as_ref().ok(), "why": w.size.as_ref().err() }))
        .collect();
    let data = json!({
        "level": level_name(trust.level),
        "cosigned_s": trust.cosigned_s,
        "witnesses": witnesses,
        "server_differs": trust.server_differs,
        "kit_is_older": trust.kit_is_older,
        "pinned": trust.is_pinned,
        "state_s": trust.state_s,
    });
    Ok(Done::new(text, data).with_warnings(
        warnings,
        if silent || trust.unwitnessed.is_some() { exit::PARTLY } else { 0 },
    ))
}

pub(crate) fn kit_warning() -> String {
    "the recovery kit is older than the account's witness policy: who restores from it is protected as before. Make \
     a new one: `strongroom recovery kit`"
        .into()
}

pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::G0 => "G0",
        Level::G1 => "G1",
        Level::G2 => "G2",
        Level::G3 => "G3",
    }
}

/// What a level means, in words.
pub(crate) fn level_line(level: Level) -> &'static str {
    match level {
        Level::G0 => "G0: no witness is asked. A frozen log can't be noticed without a witness",
        Level::G1 => "G1: devices of your contacts must have cosigned the log",
        Level::G2 => "G2: witnesses must have cosigned the log (`strongroom trust status`)",
        Level::G3 => "G3: witnesses must have cosigned the log, one of which checks every entry",
    }
}

fn show_policy(args: &Args, of_server: bool) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let policy = if of_server { client.policy_of_server()? } else { client.trust()?.policy };
    let shown = if policy.is_empty() { "quorum none\n".to_owned() } else { policy };
    // What the server wrote, it wrote for this terminal.
    let lines: Vec<String> = shown.lines().map(printable).collect();
    Ok(Done::new(lines.join("\n"), json!({ "policy": shown })))
}

fn set_policy(args: &Args, file: &Path, without_kit: bool) -> Result<Done, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("{}: {error}", file.display()), "Name a file that can be read.")
    })?;
    let policy = sr_client::check_policy(&text)?;
    let mut client = client(args)?;
    let kit = match (without_kit, client.has_kit()) {
        (true, _) | (_, false) => None,
        (false, true) => Some(crate::recovery::ask_kit("The 28 characters of your kit: ")?),
    };
    let until_s = client.set_witness_policy(&text, kit.as_ref())?;
    let said = match until_s {
        None if !policy.asks() => {
            "ok  the account asks no witness any more: a frozen log, or two histories, can't be noticed".to_owned()
        }
        None => "ok  the account asks the witnesses of this policy, on each of its devices at the next command\n\
                 Next: a new recovery kit, which is protected by it: strongroom recovery kit"
            .to_owned(),
        Some(until_s) => format!(
            "ok  begun. It counts after {}, when this device runs a command. Until then your other devices can \
             stop it.",
            time(until_s)
        ),
    };
    let warning = "append-only devices know the policy that they were linked with: once this one counts, link each again";
    let warnings = (client.limited_devices() > 0).then(|| warning.to_owned()).into_iter().collect();
    Ok(Done::new(said, json!({ "until_s": until_s })).with_warnings(warnings, 0))
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
    if let Some(why) = rollback.unwitnessed {
        output.tell(&format!(
            "{why}. Without them nobody tells this device whether what the server shows is the newest, or another\n\
             history than others are shown. Go on only if the witnesses are gone for good, and the operator has\n\
             said so over another channel. They are asked for as before when they are back.\n"
        ));
        let typed = ask("Type `without` to go on without the witnesses: ")?;
        if typed.trim() != "without" {
            return Err(Failure::rollback_not_accepted());
        }
        client.accept_rollback(rollback)?;
        let text = "ok  this device goes on with what the server shows";
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
        0 if rollback.is_by_log => {
            "Only the log says that there were such; this device has never seen them.".into()
        }
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
