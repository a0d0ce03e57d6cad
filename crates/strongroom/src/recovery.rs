//! `recovery …`

use std::path::{Path, PathBuf};

use serde_json::json;
use sr_client::{Client, Kit, KitPage, RequestKind};

use crate::{
    args::{Args, RecoveryCommand},
    ask::ask,
    contacts,
    failure::Failure,
    kit_page,
    output::{Done, Output, plural, printable, time},
    status::{client, clock, dir, host_name},
};

/// The groups of a kit's characters that are typed back, counted from 1.
const TYPED_BACK: [usize; 2] = [3, 6];

pub(crate) fn run(
    args: &Args,
    output: &Output,
    command: &RecoveryCommand,
) -> Result<Done, Failure> {
    match command {
        RecoveryCommand::Kit { pdf, without_old, .. } => {
            kit(args, output, pdf.as_deref(), *without_old)
        }
        RecoveryCommand::Drill => drill(args),
        RecoveryCommand::Contacts(command) => contacts::run(args, command),
        RecoveryCommand::Help { request, out, owner } => {
            contacts::help(args, request, out, owner.as_deref())
        }
        RecoveryCommand::Request { out } => contacts::request(args, out),
        RecoveryCommand::Restore { server, answers, device_name, stolen } => {
            let from = server.as_deref().map_or(From::Contacts(answers), From::Kit);
            restore(args, output, &from, device_name.as_deref(), stolen.as_deref())
        }
        RecoveryCommand::Requests => requests(args),
        RecoveryCommand::TakeBack => take_back(args),
        RecoveryCommand::Veto { number } => veto(args, *number),
    }
}

/// Makes a kit: shown or printed first, typed back in part, and only then in force.
fn kit(
    args: &Args,
    output: &Output,
    pdf: Option<&Path>,
    without_old: bool,
) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let (kit, page) = client.new_kit()?;
    let has_kit = client.has_kit();
    let old = match (has_kit, without_old) {
        (true, false) => {
            output.tell(
                "There is a recovery kit already. The new one replaces it at once if you type the old \
                 one here;\nwithout it (`--without-old`), the new one counts after a wait, in which your \
                 other devices can stop it.",
            );
            Some(ask_kit("The 28 characters of the kit in force: ")?)
        }
        _ => None,
    };
    let mut warnings = Vec::new();
    match pdf {
        Some(path) => {
            kit_page::write_pdf(path, &kit, &page)?;
            output.tell(&format!("ok  {} is written. Print it.", path.display()));
            warnings.extend(backed_up_warning(&client, path)?);
            warnings.push(format!(
                "{} opens your whole backup to whoever has it: delete it when it is printed",
                path.display()
            ));
        }
        None => output.tell(&kit_page::text(&kit, &page)),
    }
    if let Err(failure) = type_back(&kit) {
        // A kit that does not count is worth nothing, and its file a danger.
        if let Some(path) = pdf {
            let _ = std::fs::remove_file(path);
        }
        return Err(failure);
    }
    if has_kit && without_old {
        let until_s = client.set_kit_later(&kit)?;
        let text = format!(
            "ok  kit {} counts from {} on, unless another device stops it.\n    Run any command here \
             after that. Until then the old kit is the one in force.",
            kit.id(),
            time(until_s)
        );
        let data = json!({ "kit": kit.id(), "in_force": false, "from_s": until_s });
        return Ok(Done::new(text, data).with_warnings(warnings, 0));
    }
    client.set_kit(&kit, old.as_ref())?;
    let burn = if has_kit {
        "\n!   The old kit is replaced. Burn the old page: what it opened, somebody may have copied."
    } else {
        ""
    };
    let text = format!(
        "ok  kit {} is in force. Keep the page where you keep what must not be lost or stolen.{burn}\n\
         Next: strongroom recovery drill, now and every three months",
        kit.id()
    );
    let data = json!({ "kit": kit.id(), "in_force": true, "pdf": pdf });
    Ok(Done::new(text, data).with_warnings(warnings, 0))
}

/// Whoever can't type two groups back has no page.
fn type_back(kit: &Kit) -> Result<(), Failure> {
    let code = kit.code();
    let groups: Vec<&str> = code.split('-').collect();
    for group in TYPED_BACK {
        let question = format!("From the page, type group {group} of the 7 groups: ");
        let typed = ask(&question)?.trim().to_uppercase();
        if groups.get(group - 1) != Some(&typed.as_str()) {
            return Err(Failure::kit_not_typed_back(group));
        }
    }
    Ok(())
}

fn drill(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let kit = ask_kit("The 28 characters of your kit: ")?;
    client.drill(&kit)?;
    let text = format!(
        "ok  kit {} is the one in force: with it and the server's address alone, all your snapshots \
         can be had back",
        kit.id()
    );
    Ok(Done::new(text, json!({ "kit": kit.id(), "opens": true })))
}

fn take_back(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let kit = ask_kit("The 28 characters of your kit: ")?;
    client.take_back(&kit)?;
    let text = format!(
        "ok  your devices, and no other, write at the server again, by kit {}\n\
         Next: strongroom backup now",
        kit.id()
    );
    Ok(Done::new(text, json!({ "kit": kit.id() })))
}

/// What an account is brought back from.
enum From<'a> {
    /// The page, and this server.
    Kit(&'a str),
    /// These files.
    Contacts(&'a [PathBuf]),
}

/// On a device without anything: from the page, or the contacts, to the account.
fn restore(
    args: &Args,
    output: &Output,
    from: &From<'_>,
    device_name: Option<&str>,
    stolen: Option<&str>,
) -> Result<Done, Failure> {
    let dir = dir(args)?;
    let device = device_name.map_or_else(host_name, str::to_owned);
    let mut client = match from {
        _ if sr_client::is_joined(&dir) => client(args)?,
        From::Kit(server) => {
            let kit = ask_kit("The 28 characters of your kit: ")?;
            output.tell(&format!("ok  kit {}", kit.id()));
            Client::restore_kit(&dir, server, &kit, &device, clock())?
        }
        From::Contacts(files) => {
            let answers: Result<Vec<String>, Failure> =
                files.iter().map(|file| contacts::read(file)).collect();
            Client::restore_contacts(&dir, &answers?, &device, clock())?
        }
    };
    let stolen = match stolen {
        None => None,
        Some(which) => Some(client.find_device(which)?.id),
    };
    let until_s = client.start_recovery(stolen)?;
    let snapshots = client.snapshots()?;
    let newest = snapshots.iter().map(|s| s.time_s).max();
    let newest_said = newest.map_or_else(|| "none".to_owned(), time);
    let newest_said = if client.is_fresh()? {
        format!(
            "ok  The newest is of {newest_said}. It is no older than what your devices have put into the server's log, \
             which\n    witnesses hold; what was backed up in the day after that, a server could still hide.\n"
        )
    } else {
        format!(
            "!   The newest state that this server admits is of {newest_said}. Is it the one you remember? A \
             server\n    can hide newer ones from a device that never saw them.\n"
        )
    };
    let text = format!(
        "ok  your account is here, and {} can be read\n\
         {newest_said}\
         !   This device may act for the account (back up, add, take out) from {} on,\n    unless one of \
         your other devices stops it. Run any command here after that.\n\
         Next: strongroom backup restore latest --to DIR",
        plural(snapshots.len() as u64, "snapshot"),
        time(until_s)
    );
    let data = json!({
        "device": device,
        "snapshots": snapshots.len(),
        "newest_snapshot_s": newest,
        "acts_from_s": until_s,
    });
    Ok(Done::new(text, data))
}

fn requests(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let requests = client.requests()?;
    let mut text = String::new();
    for request in &requests {
        let what = match request.kind {
            RequestKind::Device(id) => {
                format!(
                    "a new device, {}, by the recovery kit or by contacts",
                    &id.to_string()[..9]
                )
            }
            RequestKind::Policy => "another recovery kit, without the one in force".into(),
            RequestKind::Witnesses => "other witnesses for the account, without the kit".into(),
            _ => "a change of the account without the kit".into(),
        };
        text.push_str(&format!(
            "{}  {what}; counts from {} on\n",
            request.number,
            time(request.until_s)
        ));
    }
    if requests.is_empty() {
        text.push_str("Nothing waits.\n");
    } else {
        text.push_str("If that is not you: strongroom recovery veto NUMBER\n");
    }
    let list: Vec<_> =
        requests.iter().map(|r| json!({ "number": r.number, "until_s": r.until_s })).collect();
    Ok(Done::new(text.trim_end().to_owned(), json!({ "requests": list })))
}

fn veto(args: &Args, number: u64) -> Result<Done, Failure> {
    client(args)?.veto(number)?;
    let text = format!(
        "ok  {number} is stopped\n\
         !   Whoever began it has your kit, enough of your contacts, or one of your devices: make a new \
         kit\n    (`strongroom recovery kit`), choose new contacts, or take the device out \
         (`strongroom device revoke`)."
    );
    Ok(Done::new(text, json!({ "number": number })))
}

/// Asks for a kit. What can be none is found before anything is sent.
pub(crate) fn ask_kit(question: &str) -> Result<Kit, Failure> {
    let typed = ask(question)?;
    Kit::from_text(&typed).map_err(|error| Failure::kit_mistyped(&error))
}

/// A page in a folder that is backed up travels with every backup, which nobody wants.
fn backed_up_warning(client: &Client, path: &Path) -> Result<Option<String>, Failure> {
    let path = path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let folders = client.folders()?;
    let inside = folders.iter().find(|folder| path.starts_with(&folder.path));
    Ok(inside.map(|folder| {
        format!(
            "the page lies in {}, which is backed up: move it out of there",
            printable(&folder.path.to_string_lossy())
        )
    }))
}

/// Returns who the page is for.
pub(crate) fn owner(page: &KitPage) -> String {
    page.name.clone().unwrap_or_else(|| "the owner of this account".into())
}
