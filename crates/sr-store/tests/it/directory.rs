//! The data directory: durability, the dictionary, and what a disclosure lists.

use std::fs;

use sr_store::{BlobStore, Caps, Files, MetaStore, Selection, Sqlite, StoreError, disclose};
use sr_wire::{PackId, SpaceId, SpaceKeys};

const KEYS: SpaceKeys =
    SpaceKeys { generation: 1, read: [1; 32], append: [2; 32], prune: [3; 32], owner: [0; 32] };

#[test]
fn records_outlive_the_process() {
    let dir = tempfile::tempdir().expect("dir");
    {
        let meta = Sqlite::open(dir.path()).expect("opens");
        meta.add_vouchers(&[[1; 32]]).expect("adds");
        meta.create_space(SpaceId([1; 16]), &KEYS, &[1; 32], &Caps::default()).expect("creates");
    }
    let meta = Sqlite::open(dir.path()).expect("opens again");
    assert_eq!(meta.space_keys(SpaceId([1; 16])).expect("keys"), KEYS);
}

#[test]
fn half_written_blobs_are_gone_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open(dir.path()).expect("opens");
    let mut writer = files.begin().expect("begins");
    writer.write(b"half").expect("writes");
    std::mem::forget(writer);
    assert_eq!(fs::read_dir(dir.path().join("incoming")).expect("dir").count(), 1);
    let files = Files::open(dir.path()).expect("opens again");
    assert_eq!(fs::read_dir(dir.path().join("incoming")).expect("dir").count(), 0);
    assert!(files.list().expect("lists").is_empty());
}

#[test]
fn file_times_say_the_day_only() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open(dir.path()).expect("opens");
    files.begin().expect("begins").finish(PackId([7; 32])).expect("stores");
    let path = dir.path().join("packs/07").join(PackId([7; 32]).to_string());
    let modified = fs::metadata(path).expect("file").modified().expect("time");
    let since_epoch = modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert_eq!(since_epoch.as_secs() % 86_400, 0);
}

#[test]
fn nothing_outside_the_dictionary_is_served() {
    let refused = |make: &dyn Fn(&std::path::Path)| {
        let dir = tempfile::tempdir().expect("dir");
        drop(Sqlite::open(dir.path()).expect("opens"));
        drop(Files::open(dir.path()).expect("opens"));
        make(dir.path());
        let error = Sqlite::open(dir.path()).expect_err("refuses");
        assert!(matches!(error, StoreError::NotInDictionary { .. }), "{error}");
        assert!(matches!(
            disclose(dir.path(), Selection::All),
            Err(StoreError::NotInDictionary { .. })
        ));
    };
    let sql = |dir: &std::path::Path, sql: &str| {
        let database = rusqlite::Connection::open(dir.join("strongroom.db")).expect("opens");
        database.execute_batch(sql).expect("runs");
    };
    refused(&|dir| sql(dir, "CREATE TABLE visits (ip TEXT)"));
    refused(&|dir| sql(dir, "ALTER TABLE spaces ADD COLUMN account BLOB"));
    refused(&|dir| sql(dir, "CREATE INDEX by_size ON packs (len)"));
    refused(&|dir| sql(dir, "CREATE VIEW v AS SELECT 1"));
    refused(&|dir| fs::write(dir.join("access.log"), "x").expect("writes"));
    refused(&|dir| fs::write(dir.join("packs/notes"), "x").expect("writes"));
    refused(&|dir| {
        fs::create_dir_all(dir.join("packs/aa")).expect("makes");
        fs::write(dir.join("packs/aa/x"), "x").expect("writes");
    });
    refused(&|dir| fs::write(dir.join("incoming/kept"), "x").expect("writes"));
}

#[test]
fn a_disclosure_lists_every_row() {
    let dir = tempfile::tempdir().expect("dir");
    let meta = Sqlite::open(dir.path()).expect("opens");
    meta.add_vouchers(&[[1; 32], [2; 32]]).expect("adds");
    meta.create_space(SpaceId([3; 16]), &KEYS, &[1; 32], &Caps::default()).expect("creates");
    meta.add_pack(SpaceId([3; 16]), PackId([4; 32]), 65_536, &Caps::default()).expect("adds");
    let disclosure = disclose(dir.path(), Selection::All).expect("discloses");
    let rows = |name| {
        let table = disclosure.tables.iter().find(|table| table.name == name).expect("table");
        table.rows.clone()
    };
    assert_eq!(rows("vouchers"), [["02".repeat(32)]]);
    assert_eq!(
        rows("packs"),
        [[
            PackId([4; 32]).to_string(),
            SpaceId([3; 16]).to_string(),
            "65536".into(),
            String::new()
        ]]
    );
    assert_eq!(rows("spaces").len(), 1);
    assert!(rows("heads").is_empty());
    assert_eq!(disclosure.packs, (1, 65_536));
    assert!(matches!(
        disclose(tempfile::tempdir().expect("dir").path(), Selection::All),
        Err(StoreError::NotFound)
    ));
}
