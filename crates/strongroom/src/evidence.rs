//! `evidence …`: what proves to anybody that a server broke a rule. None of it needs the network or an account.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sr_client::evidence_files;
use sr_crypto::{Hash, text::to_hex};
use sr_trust::{Accused, EVIDENCE_LEN_MAX, Evidence, Proof};
use sr_wire::card_hash;

use crate::{
    args::{Args, EvidenceCommand},
    failure::{Failure, exit},
    output::{Done, printable, time},
    status::dir,
};

pub(crate) fn command(args: &Args, command: &EvidenceCommand) -> Result<Done, Failure> {
    match command {
        EvidenceCommand::Ls => ls(args),
        EvidenceCommand::Show { which, html } => show(args, which, *html),
        EvidenceCommand::Verify { file, card } => verify(file, *card),
        EvidenceCommand::Export { which, file } => export(args, which, file),
    }
}

const WHICH_SERVER: &str = "\nWhether the accused is the server that you mean, its card says: compare it with the one in\n\
     `strongroom log status` of somebody who uses that server, or give that one with `--card`.";

fn ls(args: &Args) -> Result<Done, Failure> {
    let mut lines = Vec::new();
    let mut rows: Vec<Value> = Vec::new();
    for path in evidence_files(&dir(args)?)? {
        let evidence = read(&path)?;
        lines.push(format!("{}  {}  {}", name(&path), time(evidence.made_s), title(&evidence)));
        rows.push(json!({ "id": name(&path), "file": path, "evidence": json_of(&evidence) }));
    }
    if lines.is_empty() {
        lines.push("This device has no evidence against its server.".into());
    }
    Ok(Done::new(lines.join("\n"), json!({ "evidence": rows })))
}

fn show(args: &Args, which: &str, as_html: bool) -> Result<Done, Failure> {
    let evidence = read(&find(args, which)?)?;
    let text = told(&evidence);
    let text = if as_html { html(&title(&evidence), &text) } else { text };
    Ok(Done::new(text, json_of(&evidence)))
}

/// Exits with 0 when it is proven, with 31 when it is not, and with 32 when it is in part.
fn verify(file: &Path, card: Option<Hash>) -> Result<Done, Failure> {
    let evidence = read(file)?;
    let is_meant =
        card.is_none_or(|card| evidence.cards.iter().any(|signed| card_hash(&signed.card) == card));
    let mut warnings = Vec::new();
    if !is_meant {
        warnings.push("this is about another server than the one whose card was given".into());
    }
    let is_proven = evidence.verify().is_ok() && is_meant;
    let exit = match (is_proven, evidence.missing()) {
        (false, _) => exit::INVALID,
        (true, Some(_)) => exit::INCOMPLETE,
        (true, None) => 0,
    };
    let text = told(&evidence);
    let text = if is_meant { text } else { format!("NOT ABOUT THE SERVER OF THAT CARD\n\n{text}") };
    Ok(Done::new(text, json_of(&evidence)).with_warnings(warnings, exit))
}

fn export(args: &Args, which: &str, file: &Path) -> Result<Done, Failure> {
    let path = find(args, which)?;
    if file.exists() {
        return Err(Failure::usage(
            format!("{} exists already", file.display()),
            "Name a file that does not.",
        ));
    }
    fs::copy(&path, file).map_err(|error| unreadable(file, &error))?;
    let text = format!(
        "ok  {} is written. It has hashes, keys and signatures, no content and no name. Anybody checks it with:\n    \
         strongroom evidence verify {}",
        file.display(),
        file.display()
    );
    Ok(Done::new(text, json!({ "file": file })))
}

/// Says what happened, whom it accuses, and what it is worth.
fn told(evidence: &Evidence) -> String {
    let (head, accused) = match evidence.verify() {
        Ok(Accused::Server(card)) => (
            match evidence.missing() {
                None => "PROVEN".to_owned(),
                Some(missing) => format!("PROVEN IN PART\nmissing   {missing}"),
            },
            format!("server {}, card {}", card.short_name(), to_hex(&card_hash(card))),
        ),
        Ok(Accused::Device(account, device)) => {
            ("PROVEN".to_owned(), format!("device {device} of account {account}"))
        }
        Err(why) => (format!("NOT PROVEN: {why}"), "nobody".into()),
    };
    format!(
        "{head}\nwhat      {}\naccused   {accused}\nmade      {}, by the clock of the device that made it\n\n\
         {}{}",
        title(evidence),
        time(evidence.made_s),
        meaning(evidence),
        if matches!(evidence.proof, Proof::SignedTwice { .. }) { "" } else { WHICH_SERVER },
    ) + &two_faced(evidence)
        .iter()
        .map(|name| format!("\nThe witness {name} has cosigned both: it lies, too."))
        .collect::<String>()
}

/// Returns the names of the witnesses that have cosigned both of two logs.
fn two_faced(evidence: &Evidence) -> Vec<String> {
    let mut names: Vec<String> =
        evidence.two_faced().iter().map(|key| printable(key.name())).collect();
    names.dedup();
    names
}

fn title(evidence: &Evidence) -> String {
    match &evidence.proof {
        Proof::Fork { .. } => "two logs of one length that are not the same".into(),
        Proof::ForkByPrefix { new, .. } => format!(
            "a log of {} that does not begin with what the same server signed before",
            plural_entries(new.entries.len())
        ),
        Proof::RuleBroken { log } => {
            format!("a log of {} in which one does not follow", plural_entries(log.entries.len()))
        }
        Proof::ReceiptBroken { receipt, .. } => format!(
            "a change of an account that was to be in the log by {} and is not",
            time(receipt.receipt.deadline_s)
        ),
        Proof::RolledBack { earlier, later, .. } => format!(
            "a backup shown at state {}, and later at state {}",
            earlier.answer.seq,
            if later.answer.seq == earlier.answer.seq {
                format!("{} with other content", later.answer.seq)
            } else {
                later.answer.seq.to_string()
            }
        ),
        Proof::GhostHead { .. } => {
            "a logged change of an account that its devices have not signed".into()
        }
        Proof::SignedTwice { .. } => "two changes at one place of an account's history".into(),
        Proof::TwoCards { .. } => "two cards that follow the same one".into(),
    }
}

fn meaning(evidence: &Evidence) -> &'static str {
    match evidence.proof {
        Proof::Fork { .. } | Proof::ForkByPrefix { .. } => {
            "Both are signed by the log's keys. A log only grows; so whoever has those keys showed two people two\n\
             histories, or took back what it had published."
        }
        Proof::RuleBroken { .. } => {
            "The log's keys have signed all of it, with an entry that no honest server adds."
        }
        Proof::ReceiptBroken { .. } => {
            "The server's identity key has signed the promise, and the log's keys a later log without the change:\n\
             it was kept from others."
        }
        Proof::RolledBack { .. } => {
            "Both are signed by the server's identity key, and the later answer contains the earlier one: the server\n\
             had forgotten, or hid, what it had said. One that was put back from an older copy does that too."
        }
        Proof::GhostHead { .. } => {
            "The log's keys have signed a change of the account at a place where its devices have signed another, and one of\n\
             them says that it is not theirs. Others who look the account up are shown that change."
        }
        Proof::SignedTwice { .. } => {
            "One device of the account has signed both, and no honest one signs two: it was stolen or copied, put back\n\
             from an image, or its owner shows people two histories. No server is accused."
        }
        Proof::TwoCards { .. } => {
            "Both are signed by the server's identity key. A card says which log is the server's; so whoever has that key\n\
             told two people of two logs."
        }
    }
}

fn json_of(evidence: &Evidence) -> Value {
    let verified = evidence.verify();
    json!({
        "kind": evidence.kind(),
        "two_faced_witnesses": two_faced(evidence),
        "what": title(evidence),
        "made_s": evidence.made_s,
        "proven": verified.is_ok(),
        "missing": evidence.missing(),
        "card": match verified {
            Ok(Accused::Server(card)) => Some(to_hex(&card_hash(card))),
            _ => None,
        },
        "device": match verified {
            Ok(Accused::Device(_, device)) => Some(device.to_string()),
            _ => None,
        },
        "why_not": verified.err().map(|why| why.to_string()),
    })
}

/// A page that needs nothing else.
fn html(title: &str, text: &str) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title>\n<style>body{{max-width:46em;margin:2em auto;padding:0 1em;font:1em/1.5 sans-serif}}\
         pre{{white-space:pre-wrap;overflow-wrap:anywhere}}</style>\n<h1>Evidence</h1>\n<pre>{}</pre>\n</html>",
        escaped(title),
        escaped(text)
    )
}

fn plural_entries(count: usize) -> String {
    if count == 1 { "1 entry".into() } else { format!("{count} entries") }
}

/// A file, or one of this device's by its name or the beginning of it.
fn find(args: &Args, which: &str) -> Result<PathBuf, Failure> {
    if Path::new(which).is_file() {
        return Ok(which.into());
    }
    let files = evidence_files(&dir(args)?)?;
    let mut found = files.into_iter().filter(|path| name(path).starts_with(which));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (None, _) => Err(Failure::usage(
            format!("there is no evidence {which}"),
            "`strongroom evidence ls` lists what this device has.",
        )),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several begin with {which}"), "Give more of it."))
        }
    }
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Evidence, Failure> {
    let len = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    let too_long = usize::try_from(len).map_or(true, |len| len > EVIDENCE_LEN_MAX);
    let bytes =
        if too_long { Vec::new() } else { fs::read(path).map_err(|e| unreadable(path, &e))? };
    Evidence::parse(&bytes).map_err(|_| {
        Failure::failed(
            format!("{} is no file of evidence, or of a later version", path.display()),
            "Have it sent again; a part may be missing.",
        )
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()), "Name a file that can be used.")
}
