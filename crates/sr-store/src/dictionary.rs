//! The data dictionary: all that a server holds, and the disclosure that is generated from it.
//!
//! A server with a table, column or file that is not in here does not start, so `operator disclose`
//! can't forget anything that this program stores.

use std::{fs, path::Path};

use rusqlite::{Connection, types::ValueRef};
use sr_crypto::text;
use sr_wire::{AccountId, PackId, SpaceId, log::Key};

use crate::{StoreError, sqlite::connect};

/// The database in a data directory.
pub const DATABASE_FILE: &str = "strongroom.db";
/// The seed of the server's identity key.
pub const IDENTITY_FILE: &str = "identity.key";
/// Held by the one process that serves a data directory.
pub const LOCK_FILE: &str = "lock";

/// One column or one kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictionaryEntry {
    /// The table, or `file`.
    pub table: &'static str,
    /// The column, or the path's pattern.
    pub name: &'static str,
    /// What it is, and what it tells the operator.
    pub meaning: &'static str,
    /// How long it is kept.
    pub kept: &'static str,
}

const fn entry(
    table: &'static str,
    name: &'static str,
    meaning: &'static str,
    kept: &'static str,
) -> DictionaryEntry {
    DictionaryEntry { table, name, meaning, kept }
}

const FILE: &str = "file";
const LOGGED: &str = "life of the server";
const OWED: &str = "after a backup was put back, until the change comes back";
const WITNESSED: &str = "until `server witness rm`";
const PRUNED: &str = "until its owner deletes it, and four days";

/// All of it.
pub const DICTIONARY: &[DictionaryEntry] = &[
    entry("vouchers", "hash", "hash of an unspent voucher of some invite", "until it is spent"),
    entry(
        "spaces",
        "space",
        "random id that the client chose; tied to no person",
        "life of the space",
    ),
    entry(
        "spaces",
        "keys",
        "four public keys that nothing else has: read, append, prune, owner; and a counter of changes",
        "life of the space",
    ),
    entry("spaces", "packs", "how many packs the space has", "life of the space"),
    entry("spaces", "bytes", "how many bytes those packs have", "life of the space"),
    entry("heads", "space", "the space", "life of the space"),
    entry("heads", "seq", "the how-manieth change of the space", "life of the space"),
    entry(
        "heads",
        "head",
        "a counter, a key generation, the hash of the head before, 8 KiB of ciphertext",
        "life of the space",
    ),
    entry(
        "accounts",
        "account",
        "hash that is the account's id; tied to no name, address or space",
        "life of the account",
    ),
    entry(
        "accounts",
        "key_block",
        "ciphertext for each device, the recovery kit and the contacts: how many they are",
        "until the next change of the account",
    ),
    entry("blocks", "account", "the account", "life of the account"),
    entry("blocks", "seq", "the how-manieth change of the account", "life of the account"),
    entry(
        "blocks",
        "block",
        "a signed change: public keys of a device, of the recovery kit or contacts, or which device goes; the \
         second at which the device says it was made",
        "life of the account",
    ),
    entry("envelopes", "lookup", "id that only the recovery kit gives", "life of the account"),
    entry("envelopes", "account", "the account", "life of the account"),
    entry(
        "envelopes",
        "envelope",
        "ciphertext that only the recovery kit opens",
        "life of the account",
    ),
    entry("packs", "pack", "random id that the client chose", PRUNED),
    entry("packs", "space", "the space", PRUNED),
    entry("packs", "len", "one of five sizes", PRUNED),
    entry(
        "packs",
        "days_left",
        "for a pack that its owner deleted: on how many more days it can be had back",
        "four days at most that the server sees",
    ),
    entry("log", "place", "the how-manieth entry of the log; anyone may read it", LOGGED),
    entry(
        "log",
        "entry",
        "a hash that stands for an account, a hash that stands for a change of it, and the second of the change; \
         anyone may read it",
        LOGGED,
    ),
    entry(
        "checkpoints",
        "note",
        "size and root of the log, signed; anyone may read it",
        "until the next one",
    ),
    entry(
        "freshness",
        "name",
        "the hash of a key that signs entries of the log; anyone may read it",
        LOGGED,
    ),
    entry("freshness", "seq", "how many entries it has signed; anyone may read it", LOGGED),
    entry(
        "freshness",
        "value",
        "the newest of them: a hash that stands for a state of backups; anyone may read it",
        LOGGED,
    ),
    entry("witnesses", "url", "where a witness is asked to cosign the log", WITNESSED),
    entry("witnesses", "keys", "the keys by which its cosignatures are verified", WITNESSED),
    entry("policies", "card", "which of the server's cards, counted from the third", LOGGED),
    entry("policies", "policy", "which witnesses that card names; anyone may read it", LOGGED),
    entry(
        "put_back",
        "note",
        "only in a server that was put back from a backup: the newest size and root of the log that a device has \
         shown, signed",
        "until its operator says that all came back",
    ),
    entry("owed", "name", "the hash that stands for an account in the log", OWED),
    entry("owed", "seq", "the how-manieth change of the account", OWED),
    entry("owed", "value", "the hash that stands for the change in the log", OWED),
    entry("days", "day", "the last day on which the server looked for what may go", "a day"),
    entry(
        FILE,
        "packs/XX/ID",
        "a pack: ciphertext of one of five sizes; its time says the day",
        PRUNED,
    ),
    entry(
        FILE,
        "incoming/ID",
        "what was received of a pack until now, ciphertext; its time says when its last bytes came",
        "until the rest is received, or a day and an hour without",
    ),
    entry(
        FILE,
        "strongroom.db",
        "the tables above; -wal and -shm are SQLite's journal",
        "life of the server",
    ),
    entry(FILE, "strongroom.db-wal", "journal of the database", "until it is folded in"),
    entry(
        FILE,
        "strongroom.db-journal",
        "journal of the database, before -wal is in use",
        "seconds",
    ),
    entry(FILE, "strongroom.db-shm", "index of the journal", "while the server runs"),
    entry(
        FILE,
        "identity.key",
        "seed of the keys by which the server signs its card, its answers and its log; it decrypts nothing",
        "life of the server",
    ),
    entry(FILE, "lock", "empty", "life of the server"),
];

/// What a server holds, or what it holds of one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosure {
    /// One part for each table, with all rows.
    pub tables: Vec<DisclosedTable>,
    /// How many spaces the whole server has.
    pub spaces: u64,
    /// Number and bytes of all packs of the whole server.
    pub packs: (u64, u64),
}

/// All rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisclosedTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: Vec<&'static DictionaryEntry>,
    /// Its rows, bytes as hex; heads and keys whole.
    pub rows: Vec<Vec<String>>,
}

/// Of whom a disclosure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    All,
    /// One account: no table ties it to a space.
    Account(AccountId),
    /// One space: no table ties it to an account.
    Space(SpaceId),
}

impl Selection {
    /// Returns which rows of a table are asked for; `None` when the table can't tell them from the rest.
    fn rows_of(&self, table: &DisclosedTable) -> Option<Rows> {
        let has = |name| table.columns.iter().any(|entry| entry.name == name);
        match self {
            Self::All => Some(Rows::All),
            Self::Account(id) if table.name == "log" => {
                // Its index lies behind version, type and time.
                Some(Rows::With("substr(entry, 11, 32)", Key::account(*id).index.to_vec()))
            }
            Self::Account(id) => has("account").then(|| Rows::With("account", id.0.to_vec())),
            Self::Space(id) => has("space").then(|| Rows::With("space", id.0.to_vec())),
        }
    }
}

/// Rows of a table: all, or those in which an expression has a value.
enum Rows {
    All,
    With(&'static str, Vec<u8>),
}

/// Returns what the server of `dir` holds, by walking the dictionary. The server may be running.
/// Tables that can't tell what is asked for from the rest are left out.
///
/// **Errors** [`StoreError::NotInDictionary`], [`StoreError::NotFound`] without a server,
/// [`StoreError::Failed`].
pub fn disclose(dir: &Path, selection: Selection) -> Result<Disclosure, StoreError> {
    check_files(dir)?;
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(StoreError::NotFound);
    }
    let reading = |e| StoreError::sql("reading for a disclosure", e);
    let connection = connect(&path).map_err(reading)?;
    check_schema(&connection)?;
    let mut tables: Vec<DisclosedTable> = Vec::new();
    for entry in DICTIONARY.iter().filter(|entry| entry.table != FILE) {
        match tables.iter_mut().find(|table| table.name == entry.table) {
            Some(table) => table.columns.push(entry),
            None => tables.push(DisclosedTable {
                name: entry.table,
                columns: vec![entry],
                rows: Vec::new(),
            }),
        }
    }
    tables.retain(|table| selection.rows_of(table).is_some());
    for table in &mut tables {
        let wanted = selection.rows_of(table).unwrap_or(Rows::All);
        table.rows = rows(&connection, table, &wanted).map_err(reading)?;
    }
    let totals = "SELECT (SELECT count(*) FROM spaces), count(*), coalesce(sum(len), 0) FROM packs";
    let (spaces, packs, bytes) = connection
        .query_row(totals, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(reading)?;
    Ok(Disclosure { tables, spaces, packs: (packs, bytes) })
}

/// Refuses a database with a table, column, index, view or trigger that is not in the dictionary.
pub(crate) fn check_schema(connection: &Connection) -> Result<(), StoreError> {
    let mut found = columns(connection).map_err(|e| StoreError::sql("reading the schema", e))?;
    found.retain(|(table, column)| {
        !DICTIONARY.iter().any(|entry| entry.table == table && entry.name == column)
    });
    match found.first() {
        None => Ok(()),
        Some((table, column)) => {
            Err(StoreError::NotInDictionary { what: format!("{table}.{column}") })
        }
    }
}

/// Refuses a data directory with a file that is not in the dictionary.
///
/// **Errors** [`StoreError::NotInDictionary`], [`StoreError::Failed`].
pub fn check_files(dir: &Path) -> Result<(), StoreError> {
    let top: Vec<&str> = DICTIONARY
        .iter()
        .filter(|e| e.table == FILE)
        .filter_map(|e| e.name.split('/').next())
        .collect();
    each_name(dir, &mut |name, path| {
        if !top.contains(&name) {
            return Err(unknown(name));
        }
        match name {
            "packs" => each_name(path, &mut |folder, path| {
                let is_folder = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_hexdigit());
                if !is_folder {
                    return Err(unknown(&format!("packs/{folder}")));
                }
                each_name(path, &mut |file, _| match file.parse::<PackId>() {
                    Ok(id) if id.to_string() == file && text::to_hex(&id.0[..1]) == folder => {
                        Ok(())
                    }
                    _ => Err(unknown(&format!("packs/{folder}/{file}"))),
                })
            }),
            "incoming" => each_name(path, &mut |file, _| match file.parse::<PackId>() {
                Ok(id) if id.to_string() == file => Ok(()),
                // The identity key before it has its name.
                // The same, and the database, of a copy that is being made.
                _ if ["0", "1", "copy"].contains(&file) => Ok(()),
                _ => Err(unknown(&format!("incoming/{file}"))),
            }),
            _ => Ok(()),
        }
    })
}

fn unknown(what: &str) -> StoreError {
    StoreError::NotInDictionary { what: what.to_owned() }
}

fn each_name(
    dir: &Path,
    check: &mut dyn FnMut(&str, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |e| StoreError::io("reading the data directory", e);
    for file in fs::read_dir(dir).map_err(failed)? {
        let file = file.map_err(failed)?;
        check(&file.file_name().to_string_lossy(), &file.path())?;
    }
    Ok(())
}

fn columns(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut objects = connection.prepare("SELECT type, name FROM sqlite_master")?;
    let objects: Vec<(String, String)> =
        objects.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut columns = Vec::new();
    for (kind, name) in objects {
        if kind != "table" {
            columns.push((kind, name));
            continue;
        }
        let mut query = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        for column in query.query_map([&name], |row| row.get(0))? {
            columns.push((name.clone(), column?));
        }
    }
    Ok(columns)
}

fn rows(
    connection: &Connection,
    table: &DisclosedTable,
    wanted: &Rows,
) -> rusqlite::Result<Vec<Vec<String>>> {
    let columns: Vec<&str> = table.columns.iter().map(|entry| entry.name).collect();
    let mut query = format!("SELECT {} FROM {}", columns.join(", "), table.name);
    let mut values: Vec<&[u8]> = Vec::new();
    if let Rows::With(expression, value) = wanted {
        query.push_str(&format!(" WHERE {expression} = ?1"));
        values.push(value);
    }
    let mut query = connection.prepare(&query)?;
    let rows = query.query_map(rusqlite::params_from_iter(values), |row| {
        let value = |(i, name): (usize, &&str)| row.get_ref(i).map(|value| to_text(name, value));
        columns.iter().enumerate().map(value).collect::<rusqlite::Result<_>>()
    })?;
    rows.collect()
}

/// Ids are shown in the form in which people and file names have them.
fn to_text(column: &str, value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Blob(bytes) if column == "pack" => {
            PackId::from_slice(bytes).map_or_else(|| text::to_hex(bytes), |id| id.to_string())
        }
        ValueRef::Blob(bytes) if column == "space" => {
            SpaceId::from_slice(bytes).map_or_else(|| text::to_hex(bytes), |id| id.to_string())
        }
        ValueRef::Blob(bytes) if column == "account" => {
            AccountId::from_slice(bytes).map_or_else(|| text::to_hex(bytes), |id| id.to_string())
        }
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => text::to_hex(bytes),
    }
}
