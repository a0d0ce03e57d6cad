//! `recovery contacts …`, `recovery request` and `recovery help`.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use sr_client::{Client, ClientError, ContactCard, HelpRequest, KeptShare};

use crate::{
    args::{Args, ContactsCommand},
    ask::ask_words,
    failure::Failure,
    output::{Done, plural, printable},
    recovery::ask_kit,
    status::{client, dir},
};

/// A card with a witness policy and a checkpoint has some 30,000 characters, the others less.
const TEXT_LEN_MAX: u64 = 128 * 1024;

pub(crate) fn run(args: &Args, command: &ContactsCommand) -> Result<Done, Failure> {
    match command {
        ContactsCommand::Accept { share } => accept(args, share),
        ContactsCommand::Card { out } => card(args, out),
        ContactsCommand::Ls => ls(args),
        ContactsCommand::Rm => rm(args),
        ContactsCommand::Set { need, out, contacts } => set(args, *need, out, contacts),
    }
}

fn card(args: &Args, out: &Path) -> Result<Done, Failure> {
    let card = client(args)?.contact_card()?;
    write_new(out, &card.to_string())?;
    let words = card.words().join(" ");
    let text = format!(
        "ok  your card is in {}: give it to who wants you as a contact, any way you like\n\
         Its words, to be told by voice or face to face:\n\n    {words}",
        out.display()
    );
    Ok(Done::new(text, json!({ "file": out, "words": words })))
}

fn set(args: &Args, need: u8, out: &Path, contacts: &[String]) -> Result<Done, Failure> {
    let mut chosen = Vec::new();
    for contact in contacts {
        let (name, file) = contact.split_once('=').ok_or_else(|| {
            Failure::usage(
                format!("{contact} is no NAME=FILE"),
                "Name each contact with the file of their card, as in ben=ben.card.",
            )
        })?;
        if name.trim().is_empty() {
            return Err(Failure::usage(
                format!("{contact} names nobody"),
                "Name each contact, as in ben=ben.card.",
            ));
        }
        let card: ContactCard = read(Path::new(file))?.parse().map_err(|_| {
            let failure = Failure::from(ClientError::ContactText);
            Failure { title: format!("{}: {}", printable(file), failure.title), ..failure }
        })?;
        let question =
            format!("The six words that {}'s device shows for this card: ", printable(name));
        compare(&ask_words(&question)?, &card.words())?;
        chosen.push((name.to_owned(), card));
    }
    let mut client = client(args)?;
    let kit = ask_kit("The 28 characters of your kit: ")?;
    let files: Vec<PathBuf> = chosen
        .iter()
        .map(|(name, _)| out.join(format!("{}.strongroom-share", safe(name))))
        .collect();
    let different: BTreeSet<&PathBuf> = files.iter().collect();
    if different.len() < files.len() {
        let next = "Give each contact another name: their shares are written under it.";
        return Err(Failure::usage("two contacts have the same name", next));
    }
    fs::create_dir_all(out).map_err(|error| cannot(out, &error))?;
    let mut unwritten = None;
    let set = client.set_contacts(&kit, need, &chosen, |shares| {
        for (file, share) in files.iter().zip(shares) {
            if let Err(failure) = write(file, share) {
                unwritten = Some(failure);
                return Err(ClientError::ContactText);
            }
        }
        Ok(())
    });
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    set?;
    let mut text = format!(
        "ok  any {need} of {} can bring your account back together, after a wait in which your devices \
         can stop them\n!   Together they can read all that is backed up. Nobody else learns who they are.\n\
         Give each their share, any way you like; only they can open it:\n",
        plural(chosen.len() as u64, "contact")
    );
    for ((name, _), file) in chosen.iter().zip(&files) {
        text.push_str(&format!("    {}  {}\n", printable(name), file.display()));
    }
    text.push_str("Each keeps it with: strongroom recovery contacts accept FILE");
    let names: Vec<&String> = chosen.iter().map(|(name, _)| name).collect();
    Ok(Done::new(text, json!({ "need": need, "contacts": names })))
}

fn rm(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let kit = ask_kit("The 28 characters of your kit: ")?;
    client.remove_contacts(&kit)?;
    let text = "ok  nobody but you can bring your account back now; the shares count no more";
    Ok(Done::new(text.into(), json!({ "contacts": [] })))
}

fn ls(args: &Args) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let (need, contacts) = client.contacts()?;
    let kept = one_each(client.kept_shares()?);
    let names: Vec<String> = contacts.iter().map(sr_client::Contact::name).collect();
    let (mut warnings, mut code) = (Vec::new(), 0);
    for contact in &contacts {
        let name = printable(&contact.name()).to_string();
        match client.contact_has_removed(contact) {
            Ok(false) => {}
            Ok(true) => warnings.push(format!(
                "{name} has taken a device out since they are your contact. If it was stolen, choose your contacts \
                 anew: strongroom recovery contacts set"
            )),
            Err(error) => {
                let failure = Failure::from(error);
                code = code.max(failure.exit);
                warnings.push(format!("{name} could not be looked up: {}", failure.title));
            }
        }
    }
    let mut text = if names.is_empty() {
        "You have no contacts: strongroom recovery contacts set\n".to_owned()
    } else {
        let names: Vec<String> = names.iter().map(|name| printable(name).to_string()).collect();
        format!("Any {need} of these can bring your account back together: {}\n", names.join(", "))
    };
    for share in &kept {
        text.push_str(&format!("You are a contact of {}\n", who(share)));
    }
    let of: Vec<_> = kept
        .iter()
        .map(|share| json!({ "name": share.name, "account": share.account.to_string() }))
        .collect();
    let data = json!({ "need": need, "contacts": names, "contact_of": of });
    Ok(Done::new(text.trim_end().to_owned(), data).with_warnings(warnings, code))
}

fn accept(args: &Args, share: &Path) -> Result<Done, Failure> {
    let kept = client(args)?.accept_share(&read(share)?)?;
    let text = format!(
        "ok  you are a contact of {}. Alone, the share opens nothing; you may delete the file.\n\
         !   Use it only for them, and only after you have heard their voice or seen them: \
         strongroom recovery help",
        who(&kept)
    );
    Ok(Done::new(text, json!({ "name": kept.name, "account": kept.account.to_string() })))
}

/// On a device without anything.
pub(crate) fn request(args: &Args, out: &Path) -> Result<Done, Failure> {
    let request = Client::request_help(&dir(args)?)?;
    write_new(out, &request.to_string())?;
    let words = request.words().join(" ");
    let text = format!(
        "ok  your request is in {}: give it to your contacts, any way you like\n\
         Its words, which each of them asks you for by voice or face to face:\n\n    {words}\n\n\
         Next: strongroom recovery restore --answers FILE FILE, with what they give you",
        out.display()
    );
    Ok(Done::new(text, json!({ "file": out, "words": words })))
}

/// On the device of a contact.
pub(crate) fn help(
    args: &Args,
    request: &Path,
    out: &Path,
    owner: Option<&str>,
) -> Result<Done, Failure> {
    let request: HelpRequest = read(request)?.parse().map_err(|_| ClientError::ContactText)?;
    let mut client = client(args)?;
    let mut kept = one_each(client.kept_shares()?);
    let is_meant = |share: &KeptShare, owner: &str| {
        share.name == owner || (owner.len() >= 8 && share.account.to_string().starts_with(owner))
    };
    kept.retain(|share| owner.is_none_or(|owner| is_meant(share, owner)));
    let [share] = &kept[..] else {
        let who = if kept.is_empty() {
            "share for them here"
        } else {
            "single person: use --for NAME, or --for ACCOUNT"
        };
        return Err(ClientError::NotFound(who.into()).into());
    };
    let question = format!(
        "Whoever has enough shares reads all that {} has backed up, at once.\n\
         The six words that {} tells you, by voice or face to face: ",
        who(share),
        who(share)
    );
    compare(&ask_words(&question)?, &request.words())?;
    let answer = client.help(&request, share.account)?;
    write_new(out, &answer)?;
    let text = format!(
        "ok  your answer is in {}: give it to {}, any way you like; only they can open it",
        out.display(),
        who(share)
    );
    Ok(Done::new(text, json!({ "file": out, "for": share.name })))
}

/// Reads a text that another person's program wrote.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let meta = fs::metadata(path).map_err(|error| cannot(path, &error))?;
    if meta.len() > TEXT_LEN_MAX {
        return Err(ClientError::ContactText.into());
    }
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(ClientError::ContactText.into())
        }
        read => read.map_err(|error| cannot(path, &error)),
    }
}

/// Of several shares for one account, the newest.
fn one_each(mut shares: Vec<KeptShare>) -> Vec<KeptShare> {
    shares.reverse();
    shares.sort_by_key(|share| share.account.0);
    shares.dedup_by_key(|share| share.account);
    shares
}

/// Whose share it is; who has joined without a name is an account.
fn who(share: &KeptShare) -> String {
    let account = &share.account.to_string()[..9];
    if share.name.is_empty() {
        return format!("account {account}");
    }
    format!("{}, account {account}", printable(&share.name))
}

/// Writes a text where there is none, or the same.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let is_other = fs::read(path).is_ok_and(|there| there.trim_ascii_end() != text.as_bytes());
    if is_other {
        return Err(Failure::usage(
            format!("{} exists already", path.display()),
            "Name a file that does not.",
        ));
    }
    write(path, text)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    })
    .map_err(|error| cannot(path, &error))
}

fn compare(typed: &[String], words: &[&str]) -> Result<(), Failure> {
    let is_same = typed.iter().map(|word| word.to_lowercase()).eq(words.iter().copied());
    if is_same { Ok(()) } else { Err(ClientError::WrongWords.into()) }
}

/// A name as part of a file's name.
fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

fn cannot(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(
        format!("{}: {error}", path.display()),
        "Name a file that can be read, or a place that can be written.",
    )
}
