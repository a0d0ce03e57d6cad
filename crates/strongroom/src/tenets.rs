//! `tenets`: five promises, whether each holds here, and a command that shows it without this program.

use serde_json::{Value, json};
use sr_client::{Client, Status};

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, plural},
    status::{clock, dir},
};

/// Whether a promise holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    /// As far as the text says.
    InPart,
}

struct Tenet {
    promise: &'static str,
    property: String,
    holds: Holds,
    /// What anybody can run or read.
    see: &'static str,
}

pub(crate) fn tenets(args: &Args) -> Result<Done, Failure> {
    let dir = dir(args)?;
    let status = if sr_client::is_joined(&dir) {
        // A profile that is in use or locked is no reason to say nothing.
        Client::open(&dir, clock()).ok().and_then(|mut client| client.status().ok())
    } else {
        None
    };
    let tenets = all(status.as_ref());
    let mut text = String::new();
    for (number, tenet) in (1..).zip(&tenets) {
        let holds = if tenet.holds == Holds::Yes { "holds" } else { "holds in part" };
        text.push_str(&format!(
            "{number}. {}: {holds}\n   {}\n   See for yourself: {}\n\n",
            tenet.promise, tenet.property, tenet.see
        ));
    }
    let list: Vec<Value> = tenets
        .iter()
        .map(|tenet| {
            json!({
                "promise": tenet.promise,
                "property": tenet.property,
                "holds": tenet.holds == Holds::Yes,
                "see": tenet.see,
            })
        })
        .collect();
    let in_part = tenets.iter().any(|tenet| tenet.holds == Holds::InPart);
    let code = if in_part { exit::PARTLY } else { 0 };
    Ok(Done::new(text.trim_end().to_owned(), json!({ "tenets": list })).with_warnings(vec![], code))
}

fn all(status: Option<&Status>) -> [Tenet; 5] {
    [
        Tenet {
            promise: "One grade for everybody",
            property: "There is one suite of algorithms, no setting that weakens it, and no switch for \
                       a region or a feature. A server that asks for anything else is refused."
                .into(),
            holds: Holds::Yes,
            see: "the source has no such switch: `grep -rniE 'region|feature_flag|downgrade' crates/*/src` \
                  finds only sentences like this one; `openssl s_client -connect HOST:PORT -tls1_2` is \
                  refused by the server",
        },
        Tenet {
            promise: "No backdoor",
            property: "Nothing that a server sends is executed or obeyed: its answers are read into \
                       closed forms, and what does not fit is refused. Releases are not logged and \
                       witnessed yet, so which program you run is on the word of who gave it to you."
                .into(),
            holds: Holds::InPart,
            see: "`strace -f -e trace=execve strongroom backup now` shows that nothing else is started; \
                  build the source yourself: `cargo build --release`",
        },
        Tenet {
            promise: "No third party",
            property: who_can_open(status),
            holds: Holds::Yes,
            see: "on the server: `strongroom operator disclose --all --json` has all that it holds; in \
                  each account's key_block, the number of boxes of 1,200 bytes is the number of those who \
                  can open it, and longer ones are for append-only devices. `strings` and `grep` over the server's directory find none of your words",
        },
        Tenet {
            promise: "No weakened standards",
            property: "AES-256-GCM-SIV, BLAKE3, HKDF, Argon2id, HPKE with X-Wing, Ed25519 with ML-DSA-65, \
                       TLS 1.3 with X25519MLKEM768: published, tested against their standards' vectors \
                       and second implementations, without negotiation."
                .into(),
            holds: Holds::Yes,
            see: "`cargo test -p sr-crypto` runs the vectors; spec/ has every byte, so that you can write a \
                  second program and compare; `openssl s_client -connect HOST:PORT -tls1_3 -groups X25519` \
                  is refused by the server",
        },
        Tenet {
            promise: "No private agreement",
            property: "Devices, keys and snapshots can't be changed without signatures by your devices, and \
                       a device notices when the server goes back behind what it has seen. Without a \
                       witness (`strongroom trust status`) a device that the server keeps in the past, or one \
                       that is restored from paper, has only the server's word that there is nothing newer. Releases \
                       of this program are not in a log yet."
                .into(),
            holds: Holds::InPart,
            see: "`strongroom demo` plays the operator; compare the number and letters of `strongroom device \
                  chain` on two of your devices",
        },
    ]
}

fn who_can_open(status: Option<&Status>) -> String {
    let who = match status {
        None => "the devices of an account, its recovery kit, and its contacts together".to_owned(),
        Some(status) => {
            let kit = if status.has_kit { "a recovery kit" } else { "no recovery kit" };
            let contacts =
                if status.has_contacts { ", enough of your contacts together" } else { "" };
            let full = plural(status.devices - status.limited_devices, "device");
            format!("{full}{contacts} and {kit} of your account")
        }
    };
    let own = match status {
        Some(status) if status.limited_devices > 0 => {
            "; an append-only device opens what it stored itself"
        }
        _ => "",
    };
    format!(
        "What is stored can be opened by {who}, and by nobody else{own}; the server holds no key that \
         decrypts anything."
    )
}
