//! `lock` and `unlock`.

use serde_json::json;
use sr_client::KeyLock;
use sr_crypto::Cost;

use crate::{args::Args, ask::ask_secret, failure::Failure, output::Done, status::dir};

pub(crate) fn lock(args: &Args) -> Result<Done, Failure> {
    let dir = dir(args)?;
    if sr_client::key_lock(&dir)? == KeyLock::None {
        let passphrase = ask_secret("A passphrase for the keys of this device: ")?;
        if passphrase.trim().is_empty() {
            return Err(Failure::usage("a passphrase has characters", "Nothing was changed."));
        }
        if *ask_secret("Once more: ")? != *passphrase {
            return Err(Failure::usage("these are two passphrases", "Nothing was changed."));
        }
        sr_client::set_passphrase(&dir, &passphrase, Cost::DEFAULT)?;
    }
    sr_client::lock(&dir)?;
    let text = "ok  the keys of this device are locked\n\
                !   Nobody can open them without the passphrase. Your recovery kit and your other \
                devices do not need it.\n\
                Next: strongroom unlock, before the next backup";
    Ok(Done::new(text.into(), json!({ "locked": true, "passphrase": true })))
}

pub(crate) fn unlock(args: &Args, for_good: bool) -> Result<Done, Failure> {
    let dir = dir(args)?;
    let is_locked = sr_client::key_lock(&dir)? != KeyLock::None;
    if !is_locked {
        let text = "The keys of this device have no passphrase.".to_owned();
        return Ok(Done::new(text, json!({ "locked": false, "passphrase": false })));
    }
    let passphrase = ask_secret("The passphrase of this device: ")?;
    let text = if for_good {
        sr_client::remove_passphrase(&dir, &passphrase)?;
        "ok  the keys of this device have no passphrase any more"
    } else {
        sr_client::unlock(&dir, &passphrase)?;
        "ok  the keys of this device are open until `strongroom lock`, or until it is switched off"
    };
    Ok(Done::new(text.into(), json!({ "locked": false, "passphrase": !for_good })))
}
