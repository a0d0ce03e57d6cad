//! `log …`.

use serde_json::{Value, json};
use sr_client::{Client, ClientError, LogReader, LogStatus};
use sr_crypto::text::to_hex;

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, Output, plural, time},
    status::{clock, dir},
    terminal::with_progress,
};

pub(crate) fn status(args: &Args, from: Option<&str>) -> Result<Done, Failure> {
    let status = reader(args, from)?.status()?;
    let text = format!(
        "Server   {}{}\nLog      {}\nEntries  {}\nRoot     {}\n\nThis is what the server has signed. \
         `strongroom log verify` reads every entry and checks it.",
        status.server_name,
        compare(from),
        status.origin,
        status.size,
        to_hex(&status.root)
    );
    Ok(Done::new(text, json_of(&status)))
}

pub(crate) fn verify(args: &Args, output: &Output, from: Option<&str>) -> Result<Done, Failure> {
    let reader = reader(args, from)?;
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
    let mut text = format!("ok  server {}{}\nok  {what}", log.status.server_name, compare(from));
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
    let Some(place) = log.unknown_from else { return Ok(Done::new(text, data)) };
    let text = format!("..  server {}{}", log.status.server_name, compare(from));
    let warning = format!(
        "entry {place} is of a kind that this version does not know: what comes from there on was not checked. \
         Update this program"
    );
    Ok(Done::new(text, data).with_warnings(vec![warning], exit::INCOMPLETE))
}

fn reader(args: &Args, from: Option<&str>) -> Result<LogReader, Failure> {
    match from {
        Some(address) => Ok(LogReader::new(address, clock())?),
        None => match Client::open(&dir(args)?, clock()) {
            Err(ClientError::NotJoined) => Err(Failure::usage(
                "this device has not joined a server",
                "Name one: `--from HOST:PORT`.",
            )),
            client => Ok(client?.log()),
        },
    }
}

/// Without a profile nothing says which server is meant.
fn compare(from: Option<&str>) -> &'static str {
    if from.is_some() { " (compare this name with one that you know to be right)" } else { "" }
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
