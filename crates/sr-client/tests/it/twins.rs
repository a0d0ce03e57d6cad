//! Two worlds of the same shape with other people, names and content: what the server of one holds
//! differs from what that of the other holds in ciphertext, ids and times, and in nothing else.

use std::{collections::BTreeMap, fs, path::Path, sync::PoisonError};

use rusqlite::types::Value;
use sr_client::Client;

use crate::{
    attacks::ONE_AT_A_TIME,
    world::{World, clock, noise},
};

/// Columns whose bytes differ by nature: random ids, public keys, ciphertext. Their lengths do not.
const DIFFER: [&str; 15] = [
    "log.entry",
    "vouchers.hash",
    "spaces.space",
    "spaces.keys",
    "heads.space",
    "heads.head",
    "packs.pack",
    "packs.space",
    "accounts.account",
    "accounts.key_block",
    "blocks.account",
    "blocks.block",
    "envelopes.lookup",
    "envelopes.account",
    "envelopes.envelope",
];

struct People {
    name: &'static str,
    laptop: &'static str,
    phone: &'static str,
    files: [&'static str; 3],
    seed: u64,
}

const ANA: People = People {
    name: "Ana",
    laptop: "l",
    phone: "ana's telephone, the red one",
    files: ["a", "b/c", "d"],
    seed: 1,
};
const BARTHOLOMEW: People = People {
    name: "Bartholomew of the long name",
    laptop: "the laptop that was bought in Ljubljana",
    phone: "p",
    files: ["minutes of the meeting.txt", "sources/who must not be named", "ž"],
    seed: 2,
};

/// Joins, backs up, links, makes a kit, backs up again, takes the phone out, and backs up once more.
fn live(people: &People) -> World {
    let mut world = World::bare();
    let invite = world.invite();
    let mut client =
        Client::join(&world.profile(), &invite, Some(people.name), people.laptop, clock())
            .expect("joins");
    fs::create_dir(world.folder()).expect("makes");
    for (number, name) in (0..).zip(people.files) {
        world.write(name, noise(people.seed * 100 + number, 50_000));
    }
    client.add_folder(&world.folder()).expect("adds");
    drop(client);
    world.backup();
    drop(world.link(people.phone));
    drop(world.with_kit());
    world.write(people.files[0], noise(people.seed * 100 + 50, 50_000));
    world.backup();
    world.client().revoke_device(people.phone).expect("takes out");
    world.backup();
    world
}

/// Every row of every table but the checkpoint of the log, which comes once a second: numbers as they are, bytes by their length alone where they differ by
/// nature; and every file by its name's form and its size.
fn shape(world: &World) -> BTreeMap<String, Vec<String>> {
    let database = world.database();
    let mut shape = BTreeMap::new();
    let mut tables = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'checkpoints'")
        .expect("query");
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .expect("tables")
        .map(|name| name.expect("name"))
        .collect();
    for table in tables {
        let mut query = database.prepare(&format!("SELECT * FROM {table}")).expect("query");
        let columns: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
        let mut rows: Vec<String> = query
            .query_map([], |row| {
                let cells = columns.iter().enumerate().map(|(place, column)| {
                    let name = format!("{table}.{column}");
                    let differs = DIFFER.contains(&name.as_str());
                    match row.get(place).expect("value") {
                        Value::Blob(bytes) if differs => format!("{} bytes", bytes.len()),
                        value => format!("{value:?}"),
                    }
                });
                Ok(cells.collect::<Vec<_>>().join(" "))
            })
            .expect("rows")
            .map(|row| row.expect("row"))
            .collect();
        rows.sort();
        shape.insert(table, rows);
    }
    let mut files = Vec::new();
    list(&world.data(), &mut files);
    files.sort();
    shape.insert("files".into(), files);
    shape
}

fn list(dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("dir").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The journal's length depends on when it was folded in.
        if entry.path().is_dir() {
            list(&entry.path(), files);
        } else if !name.starts_with("strongroom.db") {
            let form = if name.starts_with('p') { "p…".to_owned() } else { name };
            files.push(format!("{form} {}", entry.metadata().expect("meta").len()));
        }
    }
}

#[test]
fn twin_worlds_differ_in_ciphertext_ids_and_times_only() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (one, two) = (shape(&live(&ANA)), shape(&live(&BARTHOLOMEW)));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    for (table, rows) in &one {
        assert_eq!(rows, &two[table], "{table}");
    }
    assert!(one["blocks"].len() == 4 && one["envelopes"].len() == 1 && one["packs"].len() > 3);
    // The same comparison finds a column that says more.
    let mut told = one.clone();
    told.get_mut("spaces").expect("has it")[0].push_str(" Text(\"Ana\")");
    assert_ne!(told, two);
}

/// No table has both an account and a space.
#[test]
fn no_table_ties_a_space_to_an_account() {
    let tables: Vec<&str> = sr_store::DICTIONARY.iter().map(|entry| entry.table).collect();
    for table in tables {
        let columns: Vec<&str> = sr_store::DICTIONARY
            .iter()
            .filter(|entry| entry.table == table)
            .map(|entry| entry.name)
            .collect();
        assert!(!(columns.contains(&"account") && columns.contains(&"space")), "{table}");
    }
}
