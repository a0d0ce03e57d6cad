//! `join` and `status`.

use std::path::PathBuf;

use serde_json::json;
use sr_client::{Client, Clock, KeyLock, Level, LogState, PutBack, Status, profile_dir};
use sr_wire::{DeviceId, Invite};

use crate::{
    args::{Args, Command},
    failure::{Failure, exit},
    output::{Done, plural, printable, time},
};

/// A backup that is older than this is reported as too old.
const OLD_S: u64 = 3 * 86_400;
/// A change that is not in the log by then is spoken of.
const LOGGED_S: u64 = 600;

/// The system's clock, which the client and the server get from here and nowhere else.
pub(crate) fn clock() -> Clock {
    std::sync::Arc::new(|| {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
    })
}

/// Returns the directory of the profile that the command line names.
pub(crate) fn dir(args: &Args) -> Result<PathBuf, Failure> {
    profile_dir(&args.profile).ok_or_else(|| {
        Failure::usage(
            "there is no place for the profile",
            "Set HOME or XDG_STATE_HOME to an absolute path.",
        )
    })
}

/// Opens the profile, and the vault that the command line names.
pub(crate) fn client(args: &Args) -> Result<Client, Failure> {
    let mut client = Client::open(&dir(args)?, clock())?;
    if let Some(device) = of(args) {
        client.use_vault_of(device)?;
    }
    Ok(client)
}

/// Returns the append-only device whose backups are meant.
pub(crate) fn of(args: &Args) -> Option<&str> {
    match &args.command {
        Command::Backup { of, .. } => of.as_deref(),
        _ => None,
    }
}

/// Returns a command about the same backups, for a person to type.
pub(crate) fn backup_command(args: &Args, what: &str) -> String {
    let of = of(args).map_or_else(String::new, |device| format!(" --of {}", printable(device)));
    format!("strongroom backup {what}{of}")
}

/// Says that an append-only device has tried what it may not.
pub(crate) fn overreach_warning(client: &Client) -> Result<Option<String>, Failure> {
    Ok(client.overreach()?.map(overreached))
}

fn overreached(device: DeviceId) -> String {
    let device = &device.to_string()[..9];
    format!(
        "SR-031: in the backups of the append-only device {device} there is a state that does more than add. \
         It does not count, and nothing is lost; somebody may have its keys. Take it out: strongroom device \
         revoke {device}"
    )
}

/// Returns the name that a device has unless it is given one.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(crate) fn join(
    args: &Args,
    invite: &str,
    name: Option<&str>,
    device_name: Option<&str>,
) -> Result<Done, Failure> {
    let mut line = invite.to_owned();
    if invite == "-" {
        line.clear();
        let read = std::io::stdin().read_line(&mut line);
        read.map_err(|error| Failure::usage(error.to_string(), "Give the invite on one line."))?;
    }
    let invite: Invite = line.parse().map_err(|error: sr_wire::InviteError| {
        Failure::usage(error.to_string(), "Copy the whole line that the server printed.")
    })?;
    let device = device_name.map_or_else(host_name, str::to_owned);
    let mut client = Client::join(&dir(args)?, &invite, name, &device, clock())?;
    let chain = client.chain()?;
    let mut text = format!(
        "ok  the server at {} is the one that the invite names\n\
         ok  the keys of this device are made; they never leave it\n\
         ok  your account is made, with {}\n",
        invite.address,
        plural(chain.devices as u64, "device"),
    );
    if !client.has_kit() {
        text.push_str(
            "!   There is no recovery kit: if this device breaks, everything is lost, and nobody, the \
             operator included,\n    can bring it back. Make one: strongroom recovery kit\n",
        );
    }
    text.push_str("Next: strongroom backup add PATH");
    let data = json!({
        "server": invite.address,
        "device": device,
        "account": chain.account.to_string(),
        "key_file": client.key_file(),
    });
    Ok(Done::new(text, data))
}

pub(crate) fn status(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let status = client.status()?;
    let name = status.server_name.as_deref().unwrap_or("not reached");
    let mut text = String::new();
    if let Some(name) = &status.name {
        text.push_str(&format!("You         {}\n", printable(name)));
    }
    text.push_str(&format!("Server      {} ({name})\n", status.server));
    let only = if status.is_limited { " (append-only)" } else { "" };
    text.push_str(&format!("Device      {}{only}\n", printable(&status.device)));
    text.push_str(&format!("Account     {}\n", account_line(&status)));
    text.push_str(&status.log.as_ref().map_or_else(String::new, log_line));
    text.push_str(&status.put_back.map_or_else(String::new, put_back_line));
    text.push_str(&status.accepted_rollback.map_or_else(String::new, |accepted| {
        let snapshots = plural(accepted.snapshots, "snapshot");
        format!("Forgotten   {}: {snapshots}, as was typed here\n", time(accepted.time_s))
    }));
    let lock = sr_client::key_lock(&dir(args)?)?;
    let lock = if lock == KeyLock::None { "without a passphrase" } else { "under a passphrase" };
    text.push_str(&format!("Keys        {}, {lock}\n", status.key_file.display()));
    text.push_str(&format!("Kit         {}\n", kit_line(&status)));
    let folders = status.folders.len() as u64;
    text.push_str(&format!("Folders     {}\n", plural(folders, "folder")));
    let snapshots = status.snapshots.map(|n| plural(n, "snapshot"));
    let newest = status.newest_s.map_or_else(|| "none yet".to_owned(), time);
    text.push_str(&format!(
        "Backup      {}newest {newest}",
        snapshots.map_or_else(String::new, |n| format!("{n}, "))
    ));
    let mut warnings = Vec::new();
    warnings.extend(status.unreachable.clone());
    warnings.extend(status.sealed.map(|sealed| {
        format!(
            "nothing is sent to this server since {}: it broke a rule, and this device has the proof \
             (`strongroom evidence ls`)",
            time(sealed.since_s)
        )
    }));
    warnings.extend(kit_warning(&status));
    warnings.extend(client.kit_is_older()?.then(crate::trust::kit_warning));
    warnings.extend(status.log.as_ref().and_then(|log| log_warning(log, status.now_s)));
    warnings.extend(crate::device::waiting_warnings(&client));
    warnings.extend(crate::keep::mark_warning(status.marked_by_others));
    warnings.extend(status.overreaching.iter().map(|device| overreached(*device)));
    let is_old = status.newest_s.is_none_or(|newest| status.now_s.saturating_sub(newest) > OLD_S);
    if is_old {
        warnings.push(match status.newest_s {
            None => "nothing is backed up yet; run `strongroom backup add PATH` and `strongroom \
                     backup now`"
                .into(),
            Some(_) => {
                "the newest snapshot is older than 3 days; run `strongroom backup now`".into()
            }
        });
    }
    let code = if status.sealed.is_some() {
        exit::SECURITY
    } else if is_old {
        exit::PARTLY
    } else if status.unreachable.is_some() {
        exit::UNREACHABLE
    } else {
        0
    };
    let data = json!({
        "name": status.name,
        "server": status.server,
        "server_name": status.server_name,
        "reached": status.unreachable.is_none(),
        "device": status.device,
        "append_only": status.is_limited,
        "key_file": status.key_file,
        "passphrase": lock == "under a passphrase",
        "account": status.account.to_string(),
        "account_seq": status.account_seq,
        "devices": status.devices,
        "recovery_kit": status.has_kit,
        "kit": status.kit.as_ref().map(|kit| kit.id.clone()),
        "kit_overrules": status.kit_owns,
        "kit_checked_s": status.kit.as_ref().map(|kit| kit.checked_s),
        "folders": status.folders,
        "snapshots": status.snapshots,
        "newest_snapshot_s": status.newest_s,
        "marked_by_other_devices": status.marked_by_others,
        "is_old": is_old,
        "sealed_since_s": status.sealed.map(|sealed| sealed.since_s),
        "accepted_rollback": status.accepted_rollback.map(|accepted| json!({
            "time_s": accepted.time_s,
            "snapshots": accepted.snapshots,
        })),
        "put_back": status.put_back.map(|event| json!({
            "time_s": event.time_s,
            "times": event.times,
        })),
        "log": status.log.as_ref().map(|log| json!({
            "entries": log.size,
            "missing": log.missing,
            "missing_since_s": log.missing_since_s,
            "withheld": log.withheld,
            "needs_update": log.needs_update,
            "level": crate::trust::level_name(log.level),
            "cosigned_s": log.cosigned_s,
        })),
    });
    Ok(Done::new(text, data).with_warnings(warnings, code))
}

/// A kit that was not tried for this long is spoken of.
const DRILL_S: u64 = 90 * 86_400;

fn account_line(status: &Status) -> String {
    let account = status.account.to_string();
    format!(
        "{}, {} at change {}",
        &account[..9],
        plural(status.devices, "device"),
        status.account_seq
    )
}

fn log_line(log: &LogState) -> String {
    let missing = match log.missing {
        0 => String::new(),
        missing => format!(", {} of your account not yet in it", plural(missing, "change")),
    };
    let checked = if log.withheld.is_some() || log.needs_update { "" } else { ", checked" };
    let entries = if log.size == 1 { "1 entry".into() } else { format!("{} entries", log.size) };
    let level = match log.unwitnessed {
        Some(sr_client::Unwitnessed::PolicyUnknown) => "this device does not know which",
        _ => crate::trust::level_line(log.level),
    };
    format!("Log         {entries}{checked}{missing}\nWitnesses   {level}\n")
}

/// A server that was put back from a backup is no alarm once it has everything again, and is not kept quiet.
fn put_back_line(event: PutBack) -> String {
    let times = if event.times > 1 { format!(", {} times", event.times) } else { String::new() };
    format!(
        "Put back    {}{times}: the server showed an older state than this device knew, as one does that was\n            \
         put back from a backup\n",
        time(event.time_s)
    )
}

fn log_warning(log: &LogState, now_s: u64) -> Option<String> {
    if let Some(why) = log.unwitnessed {
        return Some(format!(
            "the server's log can't be relied on ({why}). Backups go on; when it lasts for a day, new devices, kits and \
             contacts wait. `strongroom trust status` asks the witnesses"
        ));
    }
    let relied_s = now_s.saturating_sub(log.cosigned_s.unwrap_or_default());
    if log.level > Level::G0 && relied_s > 86_400 {
        return Some(
            "no witness has cosigned the server's log for a day, as far as this device was shown: it may be an old \
             one. Backups go on; new devices, kits and contacts wait"
                .into(),
        );
    }
    if let Some(why) = &log.withheld {
        return Some(format!(
            "the server's public log was not to be had ({why}). A server that hides it could hide changes of \
             accounts. Backups go on; if it stays, ask the operator why"
        ));
    }
    if log.missing_since_s.is_some_and(|since_s| now_s.saturating_sub(since_s) > LOGGED_S) {
        return Some(
            "the server has not put a change of your account into its public log, though minutes have passed: it \
             may be hiding it from others. Ask the operator why"
                .into(),
        );
    }
    log.needs_update.then(|| {
        "the server's public log has entries that this version does not know: update this program".into()
    })
}

fn kit_line(status: &Status) -> String {
    match (&status.kit, status.has_kit) {
        _ if status.is_limited => "kept by your other devices".into(),
        (Some(kit), true) => format!("{}, last tried {}", kit.id, time(kit.checked_s)),
        (None, true) => "there is one".into(),
        (_, false) => {
            "none: a lost device may be a lost backup, and whoever steals one can take it \
                       from you"
                .into()
        }
    }
}

fn kit_warning(status: &Status) -> Option<String> {
    if status.is_kit_lost {
        return Some(
            "the server was put back from a backup and has lost what your recovery kit opens: make a new kit with \
             the old one at hand, `strongroom recovery kit`"
                .into(),
        );
    }
    if status.is_limited {
        return None;
    }
    if !status.has_kit {
        return Some("there is no recovery kit; run `strongroom recovery kit`".into());
    }
    if !status.kit_owns {
        return Some(
            "the recovery kit can't overrule a thief who shuts your devices out: it was made without the \
             one before. `strongroom recovery drill` mends that unless the one before could"
                .into(),
        );
    }
    let checked_s = status.kit.as_ref()?.checked_s;
    (status.now_s.saturating_sub(checked_s) > DRILL_S).then(|| {
        "the recovery kit was not tried for 90 days; run `strongroom recovery drill`".into()
    })
}
