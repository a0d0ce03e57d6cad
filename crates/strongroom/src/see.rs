//! `what-they-see` and `verify-disclosure`.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use sr_client::{Seen, SeenSpace};
use sr_crypto::text::to_hex;
use sr_trust::Block;
use sr_wire::encode;

use crate::{
    args::Args,
    failure::{Failure, exit},
    output::{Done, plural, time},
    status::client,
};

/// Every column that a server of this version has. A test holds it against the data dictionary.
const COLUMNS: [&str; 35] = [
    "vouchers.hash",
    "spaces.space",
    "spaces.keys",
    "spaces.packs",
    "spaces.bytes",
    "heads.space",
    "heads.seq",
    "heads.head",
    "accounts.account",
    "accounts.key_block",
    "blocks.account",
    "blocks.seq",
    "blocks.block",
    "envelopes.lookup",
    "envelopes.account",
    "envelopes.envelope",
    "packs.pack",
    "packs.space",
    "packs.len",
    "packs.days_left",
    "log.place",
    "log.entry",
    "checkpoints.note",
    "freshness.name",
    "freshness.seq",
    "freshness.value",
    "witnesses.url",
    "witnesses.keys",
    "policies.card",
    "policies.policy",
    "put_back.note",
    "owed.name",
    "owed.seq",
    "owed.value",
    "days.day",
];

pub(crate) fn what_they_see(args: &Args) -> Result<Done, Failure> {
    let seen = client(args)?.what_they_see()?;
    let mut text = format!(
        "What the server can see, worked out from what your own devices have signed and stored.\n\n\
         Account {}\n  {}, {}: their public keys, not their names\n  {}\n",
        seen.account,
        plural(seen.blocks.len() as u64, "change"),
        plural(seen.devices as u64, "device"),
        match seen.kits {
            0 => "no recovery kit".to_owned(),
            kits => format!(
                "{}: a public key and a ciphertext each",
                plural(kits as u64, "recovery kit")
            ),
        }
    );
    if seen.has_contacts {
        text.push_str("  that you have recovery contacts, not who or how many\n");
    }
    for (seq, bytes) in seen.blocks.iter().enumerate() {
        if let Ok(block) = Block::parse(bytes) {
            text.push_str(&format!("  change {seq}: made {}\n", time(block.body.time_s)));
        }
    }
    for space in &seen.spaces {
        text.push_str(&format!(
            "\nSpace {} (your {}, which it can't tell)\n  {}, {} or a few more: ciphertext of five sizes\n",
            space.space,
            space.what,
            plural(space.heads.len() as u64, "change"),
            plural(space.packs.len() as u64, "pack"),
        ));
    }
    text.push_str(
        "\nNothing that it stores ties account and spaces together. While you are connected, it sees your \
         network address,\nand when you come; a modified server can write that down, and tie them so.\n\
         To compare with what an operator has handed over: strongroom verify-disclosure FILE",
    );
    let spaces: Vec<Value> = seen.spaces.iter().map(space_json).collect();
    let data = json!({
        "account": seen.account.to_string(),
        "changes": seen.blocks.len(),
        "devices": seen.devices,
        "kits": seen.kits,
        "contacts": seen.has_contacts,
        "spaces": spaces,
    });
    Ok(Done::new(text, data))
}

fn space_json(space: &SeenSpace) -> Value {
    let packs: Vec<String> = space.packs.iter().map(ToString::to_string).collect();
    json!({ "space": space.space.to_string(), "changes": space.heads.len(), "packs": packs })
}

/// Compares a disclosure, as `operator disclose --json` writes it, with what this account has stored.
pub(crate) fn verify_disclosure(args: &Args, file: &Path) -> Result<Done, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::usage(
            format!("{}: {error}", file.display()),
            "Name the file that was handed over.",
        )
    })?;
    let parsed: Value = serde_json::from_str(&text).map_err(|_| malformed(file))?;
    let disclosure = Disclosure::parse(&parsed["data"]["tables"]).ok_or_else(|| malformed(file))?;
    let seen = client(args)?.what_they_see()?;
    let (compared, findings) = compare(&disclosure, &seen);
    let mut lines: Vec<String> = findings.iter().map(|finding| format!("!!  {finding}")).collect();
    let code = if !findings.is_empty() {
        exit::INVALID
    } else if compared == 0 {
        lines.push(
            "..  nothing in it is about your account or your spaces: nothing was compared".into(),
        );
        exit::INCOMPLETE
    } else {
        lines.push(format!(
            "ok  {} about your account or your spaces, and each is one that your devices have stored",
            plural(compared, "row")
        ));
        0
    };
    lines.push(
        "This compares what was handed over. Whether the operator keeps more and did not hand it over, \
         nobody can see from here."
            .into(),
    );
    let data = json!({ "compared": compared, "findings": findings });
    Ok(Done::new(lines.join("\n"), data).with_warnings(Vec::new(), code))
}

/// The rows of a disclosure: table, column and value.
struct Disclosure(Vec<(String, Vec<(String, String)>)>);

impl Disclosure {
    fn parse(tables: &Value) -> Option<Self> {
        let mut rows = Vec::new();
        for table in tables.as_array()? {
            let name = table["name"].as_str()?.to_owned();
            let columns: Option<Vec<&str>> =
                table["columns"].as_array()?.iter().map(|column| column["name"].as_str()).collect();
            let columns = columns?;
            for row in table["rows"].as_array()? {
                let cells: Option<Vec<&str>> = row.as_array()?.iter().map(Value::as_str).collect();
                let cells = cells.filter(|cells| cells.len() == columns.len())?;
                let named = columns.iter().zip(cells);
                let named = named.map(|(column, cell)| ((*column).to_owned(), cell.to_owned()));
                rows.push((name.clone(), named.collect()));
            }
            // A table without rows has columns all the same.
            rows.push((name, columns.iter().map(|c| ((*c).to_owned(), String::new())).collect()));
        }
        Some(Self(rows))
    }
}

fn compare(disclosure: &Disclosure, seen: &Seen) -> (u64, Vec<String>) {
    let mut findings = BTreeSet::new();
    let mut compared = 0;
    let account = seen.account.to_string();
    for (table, row) in &disclosure.0 {
        for (column, _) in row {
            let name = format!("{table}.{column}");
            if !COLUMNS.contains(&name.as_str()) {
                findings.insert(format!("{name} is nothing that a server of this version keeps"));
            }
        }
        let cell = |name: &str| {
            row.iter().find(|(column, _)| column == name).map_or("", |(_, value)| value.as_str())
        };
        let is_mine = cell("account") == account;
        let space = seen.spaces.iter().find(|space| space.space.to_string() == cell("space"));
        if !is_mine && space.is_none() {
            continue;
        }
        compared += 1;
        if is_mine && space.is_some() {
            findings.insert(format!("{table} ties your account to a space"));
        }
        let expected = match (table.as_str(), space) {
            ("blocks", _) => is_block(seen, cell("seq"), cell("block")),
            ("heads", Some(space)) => is_head(space, cell("seq"), cell("head")),
            ("packs", Some(space)) => {
                // What was pruned is known to nobody any more, and on its way out.
                let is_pruned = !cell("days_left").is_empty();
                is_pruned || space.packs.iter().any(|pack| pack.to_string() == cell("pack"))
            }
            _ => true,
        };
        if !expected {
            let which = [cell("seq"), cell("pack")].concat();
            findings.insert(format!("{table} {which} is not what your devices have stored"));
        }
    }
    (compared, findings.into_iter().collect())
}

fn is_block(seen: &Seen, seq: &str, block: &str) -> bool {
    let place = seq.parse::<usize>().ok();
    place.and_then(|place| seen.blocks.get(place)).is_some_and(|bytes| to_hex(bytes) == block)
}

fn is_head(space: &SeenSpace, seq: &str, head: &str) -> bool {
    space.heads.iter().any(|own| own.seq.to_string() == seq && to_hex(&encode(own)) == head)
}

fn malformed(file: &Path) -> Failure {
    Failure {
        code: "DISCLOSURE_MALFORMED",
        exit: exit::FAILED,
        title: format!("{} is no disclosure", file.display()),
        meaning: "It must be what `strongroom operator disclose --json` prints.",
        did: "Nothing was compared.",
        next: vec!["Ask for the file as the operator's program wrote it.".into()],
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_those_of_the_data_dictionary() {
        let dictionary: BTreeSet<String> = sr_store::DICTIONARY
            .iter()
            .filter(|entry| entry.table != "file")
            .map(|entry| format!("{}.{}", entry.table, entry.name))
            .collect();
        let here: BTreeSet<String> = COLUMNS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(here, dictionary);
    }
}
