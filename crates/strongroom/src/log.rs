//! `log …`.

use serde_json::{Value, json};
use sr_client::{Client, ClientError, LogReader, LogStatus};
use sr_crypto::{Hash, text::to_hex};

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, Output, plural, time},
    status::{clock, dir},
    terminal::with_progress,
};

pub(crate) fn status(args: &Args, from: Option<&str>, card: Option<Hash>) -> Result<Done, Failure> {
    let status = reader(args, from, card)?.status()?;
    let text = format!(
        "Server   {}\nCard     {}\nLog      {}\nEntries  {}\nRoot     {}\n\nThis is what the server has signed. \
         `strongroom log verify` reads every entry and checks it.",
        status.server_name,
        to_hex(&status.card),
        status.origin,
        status.size,
        to_hex(&status.root)
    );
    Ok(Done::new(text, json_of(&status)))
}

pub(crate) fn verify(
    args: &Args,
    output: &Output,
    from: Option<&str>,
    card: Option<Hash>,
) -> Result<Done, Failure> {
    let reader = reader(args, from, card)?;
    // Nothing else says which server is meant.
    let unknown = from.filter(|_| card.is_none());
    let server = from.unwrap_or("the server");
    let log = with_progress(output, server, |progress| reader.verify(progress))?;
    let what = match log.status.size {
        0 => "the log has no entry yet, and the server has signed that".to_owned(),
        1 => "the log has 1 entry, and it is what the server has signed".to_owned(),
        size => format!(
            "{size} entries of {}: each follows from those before it, and they are what the server has signed",
            plural(log.accounts, "account")
        ),
    };
    let mut text = format!("{}\nok  {what}", server_line(&log.status, unknown));
    if log.status.size > 0 {
        text.push_str(&format!(
            "\n..  the last was added on {}, says the server",
            time(log.last_s)
        ));
    }
    let mut data = json_of(&log.status);
    data["accounts"] = log.accounts.into();
    data["last_time"] = log.last_s.into();
    data["unknown_from"] = log.unknown_from.into();
    data["missing"] = log.missing.into();
    let mut warnings = Vec::new();
    if let Some(place) = log.unknown_from {
        warnings.push(format!(
            "entry {place} is of a kind that this version does not know: what such entries say was not judged. \
             Update this program"
        ));
    }
    if log.missing > 0 {
        warnings.push(format!(
            "{} of your account {} not in it. The newest takes a second or two: run this again. If it stays, \
             the server hides from others what your devices have signed: ask the operator why",
            plural(log.missing, "change"),
            if log.missing == 1 { "is" } else { "are" }
        ));
    }
    let exit = if warnings.is_empty() { 0 } else { exit::INCOMPLETE };
    Ok(Done::new(text, data).with_warnings(warnings, exit))
}

fn reader(args: &Args, from: Option<&str>, card: Option<Hash>) -> Result<LogReader, Failure> {
    match from {
        Some(address) => {
            let reader = LogReader::new(address, clock())?;
            Ok(match card {
                Some(card) => reader.of_card(card),
                None => reader,
            })
        }
        None => match Client::open(&dir(args)?, clock()) {
            Err(ClientError::NotJoined) => Err(Failure::usage(
                "this device has not joined a server",
                "Name one: `--from HOST:PORT`.",
            )),
            client => Ok(client?.log()?),
        },
    }
}

/// Without a profile nothing says which server is meant; its short name could be another's.
fn server_line(status: &LogStatus, from: Option<&str>) -> String {
    let card = to_hex(&status.card);
    match from {
        None => format!("ok  server {}", status.server_name),
        Some(_) => format!(
            "..  server {}, card {card}: compare it with what `strongroom log status` says on a device that \
             has joined it",
            status.server_name
        ),
    }
}

fn json_of(status: &LogStatus) -> Value {
    json!({
        "server": status.server_name,
        "card": to_hex(&status.card),
        "origin": status.origin,
        "entries": status.size,
        "root": to_hex(&status.root),
    })
}
