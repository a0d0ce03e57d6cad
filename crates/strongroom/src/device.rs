//! `device …`

use serde_json::{Value, json};
use sr_client::{DeviceEntry, DeviceKind, Linking};
use sr_crypto::text::to_hex;

use crate::{
    args::{Args, DeviceCommand},
    ask::ask_words,
    failure::{Failure, exit},
    output::{Done, Output, plural, printable, time},
    status::{client, clock, dir, host_name},
};

pub(crate) fn run(args: &Args, output: &Output, command: &DeviceCommand) -> Result<Done, Failure> {
    match command {
        DeviceCommand::Chain { .. } => chain(args),
        DeviceCommand::Link { code: Some(code), .. } => link_old(args, output, code),
        DeviceCommand::Link { server, device_name, append_only, .. } => {
            let server = server.as_deref().ok_or_else(|| {
                Failure::usage(
                    "`device link` needs a code, or the server's address",
                    "On the new device: `strongroom device link --server HOST:PORT`. It shows the code \
                     to type on a device that you have already.",
                )
            })?;
            let kind = if *append_only { DeviceKind::Limited } else { DeviceKind::Full };
            link_new(args, output, server, kind, device_name.as_deref())
        }
        DeviceCommand::Compare { words } => compare(args, words),
        DeviceCommand::Ls => ls(args, false),
        DeviceCommand::Rename { device, name } => rename(args, device, name),
        DeviceCommand::Revoke { device } => revoke(args, device),
        DeviceCommand::Show => ls(args, true),
    }
}

fn ls(args: &Args, all: bool) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let devices = client.devices()?;
    let shown: Vec<_> = devices.iter().filter(|d| all || d.removed.is_none()).collect();
    let mut text = String::new();
    for device in &shown {
        let id = device.id.to_string();
        let id = if all { id.as_str() } else { &id[..9] };
        let only = if device.is_limited { "  append-only" } else { "" };
        let this = if device.is_this { "  (this one)" } else { "" };
        let gone =
            device.removed.map_or_else(String::new, |seq| format!("  taken out by change {seq}"));
        text.push_str(&format!("{id}  {}{only}{this}{gone}\n", name(device)));
    }
    let list: Vec<Value> = shown.iter().map(|device| to_json(device)).collect();
    let warnings = waiting_warnings(&client);
    Ok(Done::new(text.trim_end().to_owned(), json!({ "devices": list })).with_warnings(warnings, 0))
}

fn chain(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let chain = client.chain()?;
    let text = format!(
        "ok  {} of account {} verified, from the first on\n\
         ok  the newest is number {}, {}\n\
         ok  {} in the account; its key was changed {}\n\
         Compare number and letters on your other devices: a server that keeps a device in the past \
         shows it\nanother number.",
        plural(chain.seq + 1, "change"),
        chain.account,
        chain.seq,
        &to_hex(&chain.hash)[..16],
        plural(chain.devices as u64, "device"),
        plural(u64::from(chain.generation) - 1, "time"),
    );
    let data = json!({
        "account": chain.account.to_string(),
        "seq": chain.seq,
        "hash": to_hex(&chain.hash),
        "generation": chain.generation,
        "devices": chain.devices,
    });
    Ok(Done::new(text, data).with_warnings(waiting_warnings(&client), 0))
}

fn compare(args: &Args, typed: &[String]) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let state = client.state()?;
    let words = state.words();
    let data = json!({ "words": words, "changes": state.seq + 1 });
    if typed.is_empty() {
        let text = format!(
            "What this device has been shown of your account and its backups, in six words:\n\n    {0}\n\n\
             Next, on another device: strongroom device compare {0}",
            words.join(" ")
        );
        return Ok(Done::new(text, data).with_warnings(waiting_warnings(&client), 0));
    }
    let typed: Vec<String> =
        typed.iter().flat_map(|word| word.split_whitespace()).map(str::to_lowercase).collect();
    if typed.len() != words.len() {
        return Err(Failure::usage(
            format!("six words are compared, and these are {}", typed.len()),
            "Type all six words that the other device shows.",
        ));
    }
    if typed != words {
        return Err(Failure {
            code: "DEVICES_DIFFER",
            exit: exit::INVALID,
            title: format!("this device shows other words: {}", words.join(" ")),
            meaning: "A word was mistyped, one of the two has changed something in between, or the server shows them two \
                      histories.",
            did: "Nothing was changed.",
            next: vec![
                "Run it on both again, one right after the other, without words on the first. If they still differ, ask the \
                 operator over another channel, and do not delete your own files."
                    .into(),
            ],
        });
    }
    let text = "ok  both devices have been shown the same account, with the same backups";
    Ok(Done::new(text.into(), data))
}

fn rename(args: &Args, device: &str, name: &str) -> Result<Done, Failure> {
    let device = client(args)?.rename_device(device, name)?;
    let text = format!("ok  {} is now {}", &device.id.to_string()[..9], printable(name));
    Ok(Done::new(text, to_json(&device)))
}

fn revoke(args: &Args, device: &str) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let revoked = client.revoke_device(device)?;
    let could_read = match revoked.newest_s {
        None => "!   It could read nothing: there is no snapshot yet.".to_owned(),
        Some(newest) => format!(
            "!   What it could read, it may have copied: {}, up to the one of {}.",
            plural(revoked.snapshots, "snapshot"),
            time(newest)
        ),
    };
    let left_out: Vec<String> = revoked.left_out.iter().map(|device| device.to_string()).collect();
    let mut warnings: Vec<String> = left_out.iter().map(|device| {
        format!(
            "{} got no new keys, because the log does not show yet that it was added: take it out, too, and \
             link it again, or find out who has added it",
            &device[..9]
        )
    }).collect();
    if client.kept_shares().is_ok_and(|shares| !shares.is_empty()) {
        let warning = "you keep shares for other people (`strongroom recovery contacts ls`), and whoever has that device could \
                       open them: tell these people to choose their contacts anew";
        warnings.push(warning.into());
    }
    let text = format!(
        "ok  {} is taken out: it reads nothing that is stored from now on, and writes nothing\n\
         {could_read}\n\
         !   It still can see that this backup grows, and by how much.\n\
         !   Your other devices refuse it from the next time on that they reach the server.",
        name(&revoked.device)
    );
    let data = json!({
        "device": to_json(&revoked.device),
        "could_read_snapshots": revoked.snapshots,
        "could_read_until_s": revoked.newest_s,
        "left_out": left_out,
    });
    Ok(Done::new(text, data).with_warnings(warnings, 0))
}

/// The side of the device that is in the account already.
fn link_old(args: &Args, output: &Output, code: &str) -> Result<Done, Failure> {
    let mut client = client(args)?;
    output.tell("..  meeting the new device at the server");
    let offer = client.link(code)?;
    if offer.limited().is_some() {
        output.tell(
            "..  it is to be append-only: it backs up to a vault of its own, and reads no other",
        );
    }
    let limited = offer.limited();
    let is_limited = limited.is_some();
    let words = ask_words("Type the three words that the new device shows: ")?;
    let words = client.link_finish(offer, &words)?;
    let mut next = limited.map_or_else(String::new, |device| {
        format!("\n\nGive it a name: strongroom device rename {} NAME", &device.to_string()[..9])
    });
    if is_limited && client.has_kit() {
        next.push_str(
            "\nTry your kit (`strongroom recovery drill`), so that it can overrule a thief there, too.",
        );
    }
    let what = if is_limited { "append-only device" } else { "device" };
    output.tell(&format!("Type these three words on the new device:\n\n    {}\n", words.join(" ")));
    let text = format!(
        "ok  the new {what} is in your account\n\
         If it does not take the words, take it out again: `strongroom device ls` and \
         `strongroom device revoke`.{next}"
    );
    Ok(Done::new(text, json!({ "words": words, "append_only": is_limited })))
}

/// The side of the new device.
fn link_new(
    args: &Args,
    output: &Output,
    server: &str,
    kind: DeviceKind,
    device_name: Option<&str>,
) -> Result<Done, Failure> {
    let dir = dir(args)?;
    if sr_client::is_joined(&dir) {
        return Err(sr_client::ClientError::AlreadyJoined.into());
    }
    let device = device_name.map_or_else(host_name, str::to_owned);
    let mut linking = Linking::begin(server, kind, clock())?;
    output.tell(&format!(
        "On a device that you have already, run:\n\n    strongroom device link {}\n\n\
         ..  waiting for it (up to ten minutes)",
        linking.code()
    ));
    let words = linking.words()?;
    output.tell(&format!("Type these three words there:\n\n    {}\n", words.join(" ")));
    linking.wait()?;
    let words = ask_words("Type the three words that it shows now: ")?;
    let mut client = linking.finish(&words, &dir, &device)?;
    let chain = client.chain()?;
    let text = format!(
        "ok  this device, {}, is one of {} of your account\n\
         ok  {}\n\
         Next: strongroom backup add PATH{}",
        printable(&device),
        chain.devices,
        match kind {
            DeviceKind::Full =>
                "it knows what your other device had seen: nothing older is taken from the server",
            DeviceKind::Limited =>
                "it is append-only: what it has stored, nobody can take away from here; prune on another device",
        },
        if kind == DeviceKind::Full { ", or strongroom backup snapshots" } else { "" },
    );
    Ok(Done::new(text, json!({ "device": device, "account": chain.account.to_string() })))
}

/// Says what waits, wherever a person looks, so that it can be stopped in time.
pub(crate) fn waiting_warnings(client: &sr_client::Client) -> Vec<String> {
    let begun = client.known_requests().into_iter().map(|request| {
        format!(
            "somebody has begun to act for your account, and it counts from {} on. If that is not you, \
             stop it: strongroom recovery requests, strongroom recovery veto {}",
            time(request.until_s),
            request.number
        )
    });
    let gated = client.waiting().map(|waiting| {
        format!(
            "the account was changed after a wait that this device did not see: its change {} counts \
             here from {} on",
            waiting.seq,
            time(waiting.until_s)
        )
    });
    let new = client.new_devices().unwrap_or_default().into_iter().map(|(device, name)| {
        let device = &device.to_string()[..9];
        let name = name.map_or_else(String::new, |name| format!("{}, ", printable(&name)));
        format!(
            "a device was added to your account within a week: {name}{device}. If it is not yours, take it out: \
             strongroom device revoke {device}"
        )
    });
    begun.chain(gated).chain(new).collect()
}

fn name(device: &DeviceEntry) -> String {
    device
        .name
        .as_deref()
        .map_or_else(|| "(no name)".to_owned(), |name| printable(name).to_string())
}

fn to_json(device: &DeviceEntry) -> Value {
    json!({
        "id": device.id.to_string(),
        "name": device.name,
        "is_this": device.is_this,
        "append_only": device.is_limited,
        "added": device.added,
        "removed": device.removed,
    })
}
