//! The catalogue of attacks: what the operator does, on whose eyes, and what has to come of it.

use std::{fmt, fs, path::Path};

use sr_wire::{Misbehaviour, limits, log::Entry};

use crate::{
    AdversaryError,
    operator::{self, Accounts, change, open, packs},
    scene::Day,
};

/// What has to come of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client refuses: no plaintext is shown, nothing is sealed, nothing wrong is written.
    Refuse,
    /// It refuses, and a file proves it to others.
    Alarm,
    /// The operator learns nothing, measured.
    Blind,
    /// It can't be prevented, and the client says so where it matters.
    Label,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "REFUSE",
            Self::Alarm => "ALARM",
            Self::Blind => "BLIND",
            Self::Label => "LABEL",
        })
    }
}

/// Who comes after the operator has acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The device that made the account, which knows all of today.
    Laptop,
    /// The same, whose person is asked to go on with less.
    Asked,
    /// A device that was linked to it, which knows all of today too.
    Phone,
    /// The phone, as it was yesterday.
    OldPhone,
    /// The phone as it was yesterday, two days later: it makes a new kit.
    Frozen,
    /// The phone, after it was shown another server's today.
    PhoneApart,
    /// Somebody who has nothing but the recovery kit.
    Paper,
    /// Somebody who makes the account a recovery contact.
    Neighbour,
    /// Somebody who reads the public log, without an account.
    Stranger,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Laptop => "laptop",
            Self::Asked => "laptop, whose person is asked",
            Self::Phone => "phone",
            Self::OldPhone => "phone that was off since yesterday",
            Self::Frozen => "phone of yesterday, two days later",
            Self::PhoneApart => "phone that was shown another day",
            Self::Paper => "device restored from the kit",
            Self::Neighbour => "neighbour who wants it as a contact",
            Self::Stranger => "reader of the log",
        })
    }
}

/// One row.
pub struct Row {
    /// Its number in the catalogue.
    pub id: &'static str,
    /// What the operator tries.
    pub name: &'static str,
    /// What has to come of it.
    pub verdict: Verdict,
    /// How it is played, or why it is not.
    pub attack: Result<Attack, &'static str>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({})", self.id)
    }
}

/// How an attack is played.
#[derive(Debug)]
pub struct Attack {
    /// Of which day the server is that the operator begins with.
    pub shows: Day,
    /// What is done to its directory, each way by itself.
    pub ways: fn(&Path) -> Result<Vec<Way>, AdversaryError>,
    /// Who comes then.
    pub victims: &'static [Victim],
    /// The checks without which something that is refused is not noticed. None where it is the cipher
    /// itself that refuses.
    pub checks: &'static [Misbehaviour],
}

type Bend = Box<dyn Fn(&Path) -> Result<(), AdversaryError>>;

/// One way of an attack.
pub struct Way {
    /// In words.
    pub what: String,
    /// What is done to a server's directory, while it is switched off.
    pub bend: Bend,
    /// By how many seconds the server's clock is wrong then.
    pub ahead_s: i64,
    /// Whether it changes nothing that anybody could notice.
    pub is_harmless: bool,
}

impl Way {
    pub(crate) fn new(
        what: impl Into<String>,
        bend: impl Fn(&Path) -> Result<(), AdversaryError> + 'static,
    ) -> Self {
        Self { what: what.into(), bend: Box::new(bend), ahead_s: 0, is_harmless: false }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.what)
    }
}

/// Returns the row of an id.
#[must_use]
pub fn row(id: &str) -> Option<&'static Row> {
    CATALOGUE.iter().find(|row| row.id.eq_ignore_ascii_case(id))
}

const fn played(id: &'static str, name: &'static str, verdict: Verdict, attack: Attack) -> Row {
    Row { id, name, verdict, attack: Ok(attack) }
}

const fn not_yet(id: &'static str, name: &'static str, verdict: Verdict, why: &'static str) -> Row {
    Row { id, name, verdict, attack: Err(why) }
}

use Misbehaviour as Is;
use Verdict::{Alarm, Blind, Label, Refuse};
use Victim::{Asked, Frozen, Laptop, Neighbour, OldPhone, Paper, Phone, PhoneApart};

const IN_TESTS: &str =
    "needs keys that an operator does not have; played in the tests of this project";
const LIAR: &str = "comes with a server that answers what it likes, not only what it stores";
const MEASURED: &str = "measured by `cargo test -p sr-client --lib hiding`, not played here";

/// All rows of the groups Storage, Identity, Availability, and one of Metadata.
pub const CATALOGUE: &[Row] = &[
    played(
        "ST-01",
        "change, cut or extend what is stored",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: changed_bytes,
            victims: &[Laptop, OldPhone],
            checks: &[Is::BlockForged, Is::KeyBlockSwapped],
        },
    ),
    played(
        "ST-02",
        "swap, repeat and exchange parts of what is stored",
        Refuse,
        Attack { shows: Day::Today, ways: swapped_packs, victims: &[Laptop], checks: &[] },
    ),
    not_yet(
        "ST-03",
        "swap names, move files, edit sizes and times",
        Refuse,
        "rests on absent code: the server has no names, sizes or times to edit",
    ),
    not_yet("ST-04", "plant files", Refuse, IN_TESTS),
    played(
        "ST-05",
        "put another key in the place of the account's",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: other_key_blocks,
            victims: &[OldPhone, Paper],
            checks: &[Is::KeyBlockSwapped, Is::RootMismatch, Is::SeedMismatch],
        },
    ),
    played(
        "ST-06",
        "change what the server keeps for the recovery kit",
        Refuse,
        Attack { shows: Day::Today, ways: changed_envelopes, victims: &[Paper], checks: &[] },
    ),
    not_yet("ST-07", "have the client use older or weaker formats", Refuse, LIAR),
    not_yet(
        "ST-08",
        "learn from how the client behaves after damage",
        Blind,
        "comes with the comparison of traffic after refusals",
    ),
    played(
        "ST-09",
        "put the server back to yesterday",
        Alarm,
        Attack {
            shows: Day::Yesterday,
            ways: rolled_back,
            victims: &[Laptop, Phone, Paper],
            checks: &[
                Is::HeadRolledBack,
                Is::HeadForked,
                Is::ChainRolledBack,
                Is::ChainForked,
                Is::LogRolledBack,
                Is::LogForked,
                Is::PlaceMismatch,
                Is::ReceiptBroken,
                Is::LogNotOwn,
                Is::OlderThanLogged,
            ],
        },
    ),
    played(
        "ST-10",
        "show two devices two histories",
        Alarm,
        Attack {
            shows: Day::Today,
            ways: as_it_is,
            victims: &[PhoneApart],
            checks: &[Is::HeadForked, Is::HeadRolledBack],
        },
    ),
    played(
        "ST-11",
        "hide a snapshot, lose what is stored",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: hidden,
            victims: &[Laptop],
            checks: &[Is::HeadRolledBack, Is::HeadForked, Is::PlaceMismatch],
        },
    ),
    not_yet("ST-12", "make the owner forget real snapshots by forged times", Refuse, IN_TESTS),
    not_yet("ST-13", "find known files by the sizes of what is stored", Blind, MEASURED),
    not_yet("ST-14", "find out by what is received whether something is there", Blind, MEASURED),
    not_yet("ST-15", "show what a removed device has written", Refuse, IN_TESTS),
    not_yet("ST-16", "have the owner prune what is in use", Refuse, IN_TESTS),
    played(
        "ID-01",
        "add a device of the operator's",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: ghosts,
            victims: &[Laptop, OldPhone, Paper, Neighbour],
            checks: &[Is::BlockForged, Is::KeyBlockSwapped, Is::LogNotOwn],
        },
    ),
    played(
        "ID-02",
        "cut, repeat and reorder the account's history",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: changed_chains,
            victims: &[Laptop, OldPhone],
            checks: &[
                Is::ChainRolledBack,
                Is::ChainForked,
                Is::LogNotOwn,
                Is::KeyBlockSwapped,
                Is::RootMismatch,
                Is::PlaceMismatch,
            ],
        },
    ),
    played(
        "ID-03",
        "show another log than before",
        Alarm,
        Attack {
            shows: Day::Today,
            ways: other_logs,
            victims: &[Laptop, Phone],
            checks: &[
                Is::LogForked,
                Is::LogRolledBack,
                Is::LogNotOwn,
                Is::ReceiptBroken,
                Is::LogRuleBroken,
            ],
        },
    ),
    played(
        "ID-04",
        "freeze a victim in the past",
        Refuse,
        Attack {
            shows: Day::Yesterday,
            ways: frozen,
            victims: &[Frozen, Paper],
            checks: &[Is::LogRolledBack],
        },
    ),
    not_yet(
        "ID-05",
        "have a person link the operator's device",
        Refuse,
        "comes with the tests of every place where something is typed",
    ),
    not_yet("ID-06", "capture a recovery by contacts", Refuse, IN_TESTS),
    not_yet("ID-07", "use one kind of key or message for another", Refuse, LIAR),
    not_yet("ID-08", "offer weak keys, or half of a hybrid one", Refuse, LIAR),
    not_yet(
        "ID-09",
        "ask for a key, by flag, code or redirect",
        Label,
        "comes with the closed list of what a client sends",
    ),
    not_yet("ID-10", "take over a name", Refuse, "no handles yet"),
    not_yet(
        "ID-11",
        "make a card and a log for one person",
        Label,
        "both are in order by themselves; found when two people are each other's contacts, which is played in the tests",
    ),
    not_yet("ID-12", "give two devices two roots", Refuse, IN_TESTS),
    not_yet("AV-01", "lock out, or delete, by order", Label, "comes with moving to another server"),
    played(
        "AV-02",
        "lie about the time",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: wrong_clocks,
            victims: &[Laptop, Phone, Paper],
            checks: &[Is::TlsKeyUnsigned],
        },
    ),
    not_yet("AV-03", "send bombs: what expands, counts or waits without end", Refuse, LIAR),
    played(
        "AV-04",
        "have another's envelope, or none, when all devices are lost",
        Refuse,
        Attack { shows: Day::Today, ways: other_envelopes, victims: &[Paper], checks: &[] },
    ),
    not_yet(
        "AV-05",
        "have a contact fork its own history, to stop all who know it",
        Refuse,
        "needs a contact's keys; played in the tests of this project",
    ),
    played(
        "AV-06",
        "roll back, then ask people to accept it",
        Refuse,
        Attack {
            shows: Day::Today,
            ways: newest_hidden,
            victims: &[Asked],
            checks: &[Is::HeadRolledBack, Is::HeadForked, Is::PlaceMismatch],
        },
    ),
    not_yet(
        "MD-01",
        "search everything for plaintext",
        Blind,
        "played by `strongroom demo` and by the marker test",
    ),
];

const NEWEST_HEAD: (&str, &str) = (
    "SELECT head FROM heads WHERE space = (SELECT space FROM spaces ORDER BY bytes DESC LIMIT 1)
     ORDER BY seq DESC LIMIT 1",
    "UPDATE heads SET head = ?2 WHERE head = ?1",
);
const KEY_BLOCKS: (&str, &str) =
    ("SELECT key_block FROM accounts", "UPDATE accounts SET key_block = ?2 WHERE key_block = ?1");
const ENVELOPES: (&str, &str) =
    ("SELECT envelope FROM envelopes", "UPDATE envelopes SET envelope = ?2 WHERE envelope = ?1");
/// Of the account that has changed most.
const NEWEST_BLOCK: (&str, &str) = (
    "SELECT block FROM blocks ORDER BY seq DESC LIMIT 1",
    "UPDATE blocks SET block = ?2 WHERE block = ?1",
);

fn as_it_is(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![Way::new("shows all of today", |_| Ok(()))])
}

fn frozen(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![Way::new("shows yesterday, for ever", |_| Ok(()))])
}

fn rolled_back(yesterday: &Path) -> Result<Vec<Way>, AdversaryError> {
    let yesterday = yesterday.to_owned();
    let mut ways = vec![Way::new("shows all of yesterday", |_| Ok(()))];
    // Somebody's own copy of a server has no other day beside it.
    let days = yesterday.parent().and_then(Path::parent);
    let today = days.map(|days| days.join(Day::Today.dir()).join("server"));
    if let Some(today) = today.filter(|today| today.exists()) {
        ways.push(Way::new("shows yesterday's backups under today's log", move |data| {
            fs::remove_dir_all(data)?;
            operator::copy_all(&today, data)?;
            operator::show_heads_of(data, &yesterday)
        }));
    }
    Ok(ways)
}

fn changed_bytes(data: &Path) -> Result<Vec<Way>, AdversaryError> {
    let mut ways = Vec::new();
    let all = packs(data)?;
    // The largest, one in the middle, and the smallest.
    let chosen = [0, all.len() / 2, all.len().saturating_sub(1)];
    for (len, path) in chosen.iter().filter_map(|place| all.get(*place)) {
        let name = below(data, path);
        let len = usize::try_from(*len).unwrap_or(usize::MAX);
        for at in [0, 16, 127, 128, len / 2, len - 1] {
            ways.push(on_file(format!("changes byte {at} of an object"), &name, move |bytes| {
                bytes[at] ^= 1;
            }));
        }
        ways.push(on_file("cuts an object in half".into(), &name, |bytes| {
            bytes.truncate(bytes.len() / 2);
        }));
        // The server sends as much as it was given.
        let extended = on_file("extends an object".into(), &name, |bytes| bytes.push(0));
        ways.push(Way { is_harmless: true, ..extended });
    }
    for (what, row) in [
        ("the newest state of the backup", NEWEST_HEAD),
        ("the newest change of the account", NEWEST_BLOCK),
        ("the account's key", KEY_BLOCKS),
    ] {
        ways.push(Way::new(format!("changes {what}"), move |data| {
            change(data, row, |bytes| flip(bytes))
        }));
        ways.push(Way::new(format!("cuts {what}"), move |data| {
            change(data, row, |bytes| bytes.truncate(bytes.len() / 2))
        }));
        ways.push(Way::new(format!("extends {what}"), move |data| {
            change(data, row, |bytes| bytes.push(0))
        }));
    }
    Ok(ways)
}

fn swapped_packs(data: &Path) -> Result<Vec<Way>, AdversaryError> {
    let all = packs(data)?;
    let mut ways = Vec::new();
    for pair in all.windows(2) {
        let names = [below(data, &pair[0].1), below(data, &pair[1].1)];
        ways.push(Way::new("gives two objects each other's name", {
            let [a, b] = names.clone();
            move |data| operator::swap(&data.join(&a), &data.join(&b))
        }));
        ways.push(Way::new("gives one object for two", {
            let [a, b] = names;
            move |data| Ok(fs::copy(data.join(&a), data.join(&b)).map(drop)?)
        }));
    }
    let (_, largest) = all.first().ok_or(AdversaryError::Nothing("a pack"))?;
    let name = below(data, largest);
    ways.push(on_file("exchanges two parts of an object".into(), &name, |bytes| {
        let (first, second) = bytes.split_at_mut(limits::SLOT_LEN);
        first[128..].swap_with_slice(&mut second[128..limits::SLOT_LEN]);
    }));
    ways.push(on_file("repeats a part of an object".into(), &name, |bytes| {
        bytes.copy_within(limits::SLOT_LEN..2 * limits::SLOT_LEN, 2 * limits::SLOT_LEN);
    }));
    Ok(ways)
}

fn other_key_blocks(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![
        Way::new("gives another account's key", |data| {
            let database = open(data)?;
            let keys: Vec<(Vec<u8>, Vec<u8>)> = {
                let mut query = database.prepare("SELECT account, key_block FROM accounts")?;
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<_>>()?
            };
            for ((account, _), (_, other)) in keys.iter().zip(keys.iter().cycle().skip(1)) {
                let give = "UPDATE accounts SET key_block = ?2 WHERE account = ?1";
                database.execute(give, [account, other])?;
            }
            Ok(())
        }),
        Way::new("changes the account's key", |data| change(data, KEY_BLOCKS, |bytes| flip(bytes))),
    ])
}

fn changed_envelopes(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    let places = 12;
    let mut ways: Vec<Way> = (0..places)
        .map(|place| {
            Way::new(format!("changes what the kit opens, at {place} of {places}"), move |data| {
                change(data, ENVELOPES, |bytes| {
                    let at = bytes.len() * place / places;
                    bytes[at] ^= 1;
                })
            })
        })
        .collect();
    ways.push(Way::new("cuts what the kit opens", |data| {
        change(data, ENVELOPES, |bytes| bytes.truncate(bytes.len() / 2))
    }));
    Ok(ways)
}

fn other_envelopes(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![
        Way::new("gives something else for the kit", |data| {
            change(data, ENVELOPES, |bytes| bytes.iter_mut().for_each(|byte| *byte = 7))
        }),
        Way::new("has nothing for the kit", |data| {
            Ok(open(data)?.execute("DELETE FROM envelopes", []).map(drop)?)
        }),
    ])
}

fn newest_hidden(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![Way::new("hides the newest snapshot", |data| operator::hide_newest(data).map(drop))])
}

fn hidden(data: &Path) -> Result<Vec<Way>, AdversaryError> {
    let mut ways = newest_hidden(data)?;
    for (_, path) in packs(data)? {
        let name = below(data, &path);
        ways.push(Way::new("loses an object", move |data| Ok(fs::remove_file(data.join(&name))?)));
    }
    Ok(ways)
}

fn ghosts(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    Ok(vec![
        Way::new("adds a device, signed by itself", |data| Accounts::read(data)?.add_ghost(data)),
        Way::new("logs a device that nobody has added", |data| {
            let next = |last: &Entry| Entry {
                seq: last.seq + 1,
                previous: last.value,
                value: [7; 32],
                ..*last
            };
            append_entry(data, next)
        }),
    ])
}

fn changed_chains(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    let newest = "(SELECT account FROM blocks ORDER BY seq DESC LIMIT 1)";
    let last = format!("(SELECT max(seq) FROM blocks WHERE account = {newest})");
    let run = |what: &str, statement: String| {
        Way::new(what, move |data| Ok(open(data)?.execute_batch(&statement)?))
    };
    Ok(vec![
        run(
            "leaves out the newest change",
            format!("DELETE FROM blocks WHERE account = {newest} AND seq = {last}"),
        ),
        run(
            "puts another change in the place of the newest",
            format!(
                "UPDATE blocks SET block = (SELECT block FROM blocks WHERE account = {newest} AND seq = 1)
                 WHERE account = {newest} AND seq = {last}"
            ),
        ),
        run(
            "repeats an older change",
            format!(
                "INSERT INTO blocks SELECT account, {last} + 1, block FROM blocks
                 WHERE account = {newest} AND seq = 1"
            ),
        ),
        run(
            "forgets the account",
            format!(
                "DELETE FROM accounts WHERE account = {newest};
                 DELETE FROM blocks WHERE account = {newest}"
            ),
        ),
    ])
}

fn other_logs(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    let shorter = |data: &Path| {
        let database = open(data)?;
        database.execute_batch(
            "DELETE FROM checkpoints;
             DELETE FROM log WHERE place = (SELECT max(place) FROM log);",
        )?;
        Ok(())
    };
    let other = |last: &Entry| Entry { index: [7; 32], seq: 0, previous: [0; 32], ..*last };
    Ok(vec![
        Way::new("shows a shorter log", shorter),
        Way::new("shows another log of the same length", move |data| {
            let database = open(data)?;
            let last = last_entry(data)?;
            shorter(data)?;
            add_entry(&database, &other(&last))
        }),
        Way::new("shows a longer log with another beginning", move |data| {
            let database = open(data)?;
            let last = last_entry(data)?;
            shorter(data)?;
            add_entry(&database, &other(&last))?;
            add_entry(&database, &Entry { index: [9; 32], ..other(&last) })
        }),
    ])
}

fn wrong_clocks(_: &Path) -> Result<Vec<Way>, AdversaryError> {
    const YEARS_S: i64 = 10 * 365 * 86_400;
    let by = |what: &str, ahead_s| Way { ahead_s, ..Way::new(what, |_| Ok(())) };
    Ok(vec![
        // Nothing is deleted by it, and nothing ends.
        Way { is_harmless: true, ..by("says that it is ten years later", YEARS_S) },
        by("says that it was ten years earlier", -YEARS_S),
    ])
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn on_file(what: String, name: &str, change: impl Fn(&mut Vec<u8>) + 'static) -> Way {
    let name = name.to_owned();
    Way::new(what, move |data| {
        let path = data.join(&name);
        let mut bytes = fs::read(&path)?;
        change(&mut bytes);
        Ok(fs::write(path, bytes)?)
    })
}

fn below(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).unwrap_or(path).to_string_lossy().into_owned()
}

fn parse(entry: &[u8]) -> Result<Entry, AdversaryError> {
    sr_wire::decode("entry", entry, entry.len()).map_err(|_| AdversaryError::Nothing("an entry"))
}

/// The newest entry of the account that has changed most.
fn last_entry(data: &Path) -> Result<Entry, AdversaryError> {
    let database = open(data)?;
    let mut query = database.prepare("SELECT entry FROM log ORDER BY place")?;
    let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    let mut newest: Option<Entry> = None;
    for row in rows {
        let entry = parse(&row?)?;
        if newest.is_none_or(|newest| entry.seq > newest.seq) {
            newest = Some(entry);
        }
    }
    newest.ok_or(AdversaryError::Nothing("an entry"))
}

fn append_entry(data: &Path, next: impl Fn(&Entry) -> Entry) -> Result<(), AdversaryError> {
    add_entry(&open(data)?, &next(&last_entry(data)?))
}

fn add_entry(database: &rusqlite::Connection, entry: &Entry) -> Result<(), AdversaryError> {
    let add = "INSERT INTO log SELECT max(place) + 1, ?1 FROM log";
    database.execute(add, [entry.to_bytes()])?;
    Ok(())
}
