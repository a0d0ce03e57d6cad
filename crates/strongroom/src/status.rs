//! `join` and `status`.

use std::path::{Path, PathBuf};

use serde_json::json;
use sr_client::{Client, Clock, Keys, profile_dir};
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
    key_file: Option<&Path>,
    (name, device_name): (Option<&str>, Option<&str>),
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
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let device = device_name.map_or(host, str::to_owned);
    let keys = key_file.map(read_keys).transpose()?;
    let is_copy = keys.is_some();
    let client = Client::join(&dir(args)?, &invite, name, &device, keys, clock())?;
    let key_file = client.key_file();
    let server = format!("ok  the server at {} is the one that the invite names", invite.address);
    let text = if is_copy {
        format!(
            "{server}\n\
             ok  the keys were copied. The first state that the server shows is taken on its word: \
             look at\n    the date of the newest snapshot, and whether it is the one you remember.\n\
             !   Use these keys on one device only: stop using the old one.\n\
             Next: strongroom backup snapshots"
        )
    } else {
        format!(
            "{server}\n\
             ok  the keys of this device, {}, are in {}\n\
             !   Keep a copy of that file in a safe place. With it and an invite, your backup can be \
             restored on\n    another device (join --key-file); without it, nobody, the operator \
             included, can bring it back.\n\
             Next: strongroom backup add PATH",
            printable(&device),
            key_file.display(),
        )
    };
    Ok(Done::new(text, json!({ "server": invite.address, "device": device, "key_file": key_file })))
}

fn read_keys(path: &Path) -> Result<Keys, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()), "Name a copy of a key file.")
    })?;
    Keys::from_file(&zeroize::Zeroizing::new(bytes)).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()), "Name a copy of a key file.")
    })
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
        "Keys        {}, without a passphrase\n            Keep a copy of this file in a safe place: \
         without it, a lost device is a\n            lost backup. There is no recovery kit yet: whoever steals this \
         device can take\n            the backup from you.\n",
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
