//! The data directory: durability, the dictionary, and what a disclosure lists.

use std::fs;

use sr_store::{
    BlobStore, Caps, Copied, Files, IDENTITY_FILE, MetaStore, Selection, Sqlite, StoreError, copy,
    disclose,
};
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

/// Ends a process in the middle of a pack.
fn leave_part(dir: &std::path::Path, pack: PackId) {
    let files = Files::open(dir).expect("opens");
    let mut writer = files.begin(pack, 0).expect("begins");
    writer.write(b"half").expect("writes");
    std::mem::forget(writer);
}

fn parts(dir: &std::path::Path) -> usize {
    fs::read_dir(dir.join("incoming")).expect("dir").count()
}

#[test]
fn half_written_blobs_wait_a_day_for_the_rest() {
    let dir = tempfile::tempdir().expect("dir");
    leave_part(dir.path(), PackId([1; 32]));
    leave_part(dir.path(), PackId([2; 32]));
    fs::write(dir.path().join("incoming/0"), b"an identity key that never got its name")
        .expect("writes");
    let files = Files::open(dir.path()).expect("opens again");
    assert_eq!(parts(dir.path()), 2);
    assert!(files.list().expect("lists").is_empty());
    let old = dir.path().join("incoming").join(PackId([2; 32]).to_string());
    let time = std::time::SystemTime::now() - std::time::Duration::from_secs(86_410);
    let file = fs::File::options().write(true).open(old).expect("opens");
    file.set_modified(time).expect("changes");
    files.drop_old_parts().expect("deletes");
    assert_eq!(parts(dir.path()), 1);
    assert_eq!(files.read_part(PackId([1; 32]), 0, 9).expect("reads"), b"half");
    assert!(files.begin(PackId([2; 32]), 4).is_err());
}

#[test]
fn only_so_many_half_written_blobs_are_kept() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open(dir.path()).expect("opens");
    for n in 0..70 {
        let mut writer = files.begin(PackId([n; 32]), 0).expect("begins");
        writer.write(&vec![n; 1 << 20]).expect("writes");
    }
    // What is less than a slot takes no place.
    drop(files.begin(PackId([99; 32]), 0).expect("begins"));
    assert_eq!(parts(dir.path()), 64);
    assert!(files.begin(PackId([69; 32]), 9).is_ok() && files.begin(PackId([0; 32]), 1).is_err());
    drop(files);
    for n in 80..85 {
        let mut writer =
            Files::open(dir.path()).expect("opens").begin(PackId([n; 32]), 0).expect("begins");
        writer.write(&vec![n; 1 << 20]).expect("writes");
    }
    leave_part(dir.path(), PackId([70; 32]));
    leave_part(dir.path(), PackId([71; 32]));
    drop(Files::open(dir.path()).expect("opens"));
    assert_eq!(parts(dir.path()), 64);
}

#[test]
fn file_times_say_the_day_only() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open(dir.path()).expect("opens");
    files.begin(PackId([7; 32]), 0).expect("begins").finish().expect("stores");
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

/// Stores a pack, and notes it.
fn store(dir: &std::path::Path, meta: &Sqlite, byte: u8) {
    let (files, pack) = (Files::open(dir).expect("opens"), PackId([byte; 32]));
    let mut writer = files.begin(pack, 0).expect("begins");
    writer.write(&[byte; 100]).expect("writes");
    writer.finish().expect("stores");
    meta.add_pack(SpaceId([1; 16]), pack, 100, &Caps::default()).expect("adds");
}

#[test]
fn a_copy_is_a_server_and_the_next_costs_what_is_new() {
    let dir = tempfile::tempdir().expect("dir");
    let (from, to) = (dir.path().join("server"), dir.path().join("copy"));
    fs::create_dir_all(&from).expect("makes");
    fs::create_dir_all(&to).expect("makes");
    fs::write(from.join(IDENTITY_FILE), [7; 32]).expect("writes");
    let meta = Sqlite::open(&from).expect("opens");
    meta.add_vouchers(&[[1; 32]]).expect("adds");
    meta.create_space(SpaceId([1; 16]), &KEYS, &[1; 32], &Caps::default()).expect("creates");
    store(&from, &meta, 1);
    store(&from, &meta, 2);
    leave_part(&from, PackId([9; 32]));
    let copied = |packs, new_packs| Copied { packs, new_packs, new_bytes: 100 * new_packs };
    assert_eq!(copy(&from, &to).expect("copies"), copied(2, 2));
    assert_eq!(copy(&from, &to).expect("copies"), copied(2, 0));
    store(&from, &meta, 3);
    // One that is gone by now, and one that an interrupted copy left.
    meta.delete_packs(SpaceId([1; 16]), &[PackId([1; 32])], 1).expect("deletes");
    meta.count_day(5).expect("counts");
    meta.count_day(6).expect("counts");
    leave_part(&to, PackId([3; 32]));
    assert_eq!(copy(&from, &to).expect("copies"), copied(2, 1));
    let (there, files) = (Sqlite::open(&to).expect("opens"), Files::open(&to).expect("opens"));
    let mut packs = there.packs(SpaceId([1; 16])).expect("lists");
    packs.sort();
    assert_eq!(packs, [PackId([2; 32]), PackId([3; 32])]);
    assert_eq!(sr_store::sweep(&there, &files).expect("sweeps"), 0);
    assert_eq!(files.read(PackId([3; 32]), 0, 999).expect("reads"), [3; 100]);
    assert_eq!(fs::read(to.join(IDENTITY_FILE)).expect("reads"), [7; 32]);
    assert_eq!(parts(&to), 0, "what is still being uploaded is no part of a copy");
    // The copy was put back, and has gone on: the older server does not replace it.
    let entry = sr_wire::log::Entry::following(
        None,
        sr_wire::log::Key { kind: 1, index: [1; 32] },
        [1; 32],
        1,
    );
    there.begin_log(&[entry]).expect("begins");
    assert!(matches!(copy(&from, &to), Err(StoreError::CopyNewer)));
    assert_eq!(there.log_entries(0, 9).expect("reads"), [entry]);
}
