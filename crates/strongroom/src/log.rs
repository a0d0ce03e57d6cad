//! `log …`.

use serde_json::{Value, json};
use sr_client::{LogReader, LogStatus};
use sr_crypto::text::to_hex;

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, Output, plural, time},
    status::{client, clock},
    terminal::with_progress,
};

pub(crate) fn status(args: &Args, from: Option<&str>) -> Result<Done, Failure> {
    let status = reader(args, from)?.status()?;
    let text = format!(
        "Server   {}{}\nLog      {}\nEntries  {}\nRoot     {}\n\nThis is what the server has signed. Read \
         and checked is it by: strongroom log verify",
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
    let mut text = format!(
        "ok  server {}{}\nok  {} of {}, each follows from those before it, and they are what the server has \
         signed",
        log.status.server_name,
        compare(from),
        entries(log.status.size),
        plural(log.accounts, "account"),
    );
    if log.status.size > 0 {
        text.push_str(&format!(
            "\n..  the last one was added on {}, says the server",
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
        None => Ok(client(args)?.log()),
    }
}

/// Without a profile nothing says which server is meant.
fn compare(from: Option<&str>) -> &'static str {
    if from.is_some() { " (compare this name with one that you know to be right)" } else { "" }
}

fn entries(number: u64) -> String {
    if number == 1 { "1 entry".into() } else { format!("{number} entries") }
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
