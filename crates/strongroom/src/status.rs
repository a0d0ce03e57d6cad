//! `join` and `status`.

use std::path::PathBuf;

use serde_json::json;
use sr_client::{Client, Clock, profile_dir};
use sr_wire::Invite;

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, plural, printable, time},
};

/// A backup that is older than this is reported as too old.
const OLD_S: u64 = 3 * 86_400;

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

/// Opens the profile.
pub(crate) fn client(args: &Args) -> Result<Client, Failure> {
    Ok(Client::open(&dir(args)?, clock())?)
}

pub(crate) fn join(
    args: &Args,
    invite: &str,
    name: Option<&str>,
    device_name: Option<&str>,
) -> Result<Done, Failure> {
    let invite: Invite = invite.parse().map_err(|error: sr_wire::InviteError| {
        Failure::usage(error.to_string(), "Copy the whole line that the server printed.")
    })?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let device = device_name.map_or(host, str::to_owned);
    let client = Client::join(&dir(args)?, &invite, name, &device, clock())?;
    let key_file = client.key_file();
    let text = format!(
        "ok  the server at {} is the one that the invite names\n\
         ok  the keys of this device, {}, were made; they never leave it\n\
         !   Your backup can be read with {} only.\n    \
         Keep a copy of that file in a safe place: if it is lost, everything is lost, and nobody, \
         the operator included, can reset it.\n\
         Next: strongroom backup add PATH",
        invite.address,
        printable(&device),
        key_file.display(),
    );
    Ok(Done::new(text, json!({ "server": invite.address, "device": device, "key_file": key_file })))
}

pub(crate) fn status(args: &Args) -> Result<Done, Failure> {
    let status = client(args)?.status()?;
    let name = status.server_name.as_deref().unwrap_or("not reached");
    let mut text = String::new();
    if let Some(name) = &status.name {
        text.push_str(&format!("You         {}\n", printable(name)));
    }
    text.push_str(&format!("Server      {} ({name})\n", status.server));
    text.push_str(&format!("Device      {}\n", printable(&status.device)));
    text.push_str(&format!(
        "Keys        {}, without a passphrase\n            A lost device is a lost backup: keep a \
         copy of this file in a safe place.\n            There is no recovery kit yet: whoever \
         steals this device can take the backup from you.\n",
        status.key_file.display()
    ));
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
    let code = if is_old {
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
        "key_file": status.key_file,
        "passphrase": false,
        "recovery_kit": false,
        "folders": status.folders,
        "snapshots": status.snapshots,
        "newest_snapshot_s": status.newest_s,
        "is_old": is_old,
    });
    Ok(Done::new(text, data).with_warnings(warnings, code))
}
