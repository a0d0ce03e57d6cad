//! Looking into snapshots: listed, found, compared, and one file handed out.

use std::{fs, os::unix::fs::FileExt, path::Path};

use sr_client::{ChangeKind, ClientError, EntryKind};
use sr_wire::Misbehaviour;

use crate::world::{World, noise};

#[test]
fn a_snapshot_is_listed_and_a_file_handed_out() {
    let world = World::new();
    world.write("a", "first");
    world.write("sub/b", noise(1, 3 << 20));
    let sparse = fs::File::create(world.folder().join("sparse")).expect("makes");
    sparse.write_all_at(b"x", 200_000).expect("writes");
    sparse.set_len(300_000).expect("sets");
    world.backup();
    let mut client = world.client();
    let (snapshot, entries) = client.browse("latest", None).expect("lists");
    assert_eq!(snapshot.files, 3);
    let names: Vec<_> = entries.iter().map(|e| (e.path.to_str().expect("text"), e.kind)).collect();
    let (file, folder) = (EntryKind::File, EntryKind::Folder);
    assert_eq!(names, [("a", file), ("sparse", file), ("sub", folder)]);
    let (_, entries) = client.browse("latest", Some(Path::new("sub"))).expect("lists");
    assert_eq!((entries.len(), entries[0].size), (1, 3 << 20));
    for name in ["a", "sub/b", "sparse"] {
        let mut out = Vec::new();
        client.cat("latest", Path::new(name), &mut out).expect("writes");
        assert!(out == fs::read(world.folder().join(name)).expect("reads"), "{name}");
    }
    for wrong in ["sub", "nothing", "a/b"] {
        let refused = client.cat("latest", Path::new(wrong), &mut Vec::new());
        assert!(matches!(refused, Err(ClientError::NotFound(_))), "{refused:?}");
    }
    drop(client);
    // What is damaged is not handed out.
    let pack = world.packs().remove(0);
    let mut bytes = fs::read(&pack).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).expect("writes");
    let mut out = Vec::new();
    let refused = world.client().cat("latest", Path::new("sub/b"), &mut out);
    let altered = Misbehaviour::PackAltered;
    assert!(matches!(refused, Err(ClientError::Misbehaviour(m)) if m == altered), "{refused:?}");
    assert!(fs::read(world.folder().join("sub/b")).expect("reads").starts_with(&out));
}

#[test]
fn two_snapshots_are_compared_and_all_are_searched() {
    let world = World::new();
    for (name, content) in [("same", "1"), ("other", "1"), ("gone/x", "1"), ("look", "1")] {
        world.write(name, content);
    }
    world.write("deep/er/thesis.txt", "draft");
    let first = world.backup().snapshot.expect("made").to_string();
    world.write("other", "22");
    world.write("new/y", "1");
    world.write("deep/er/thesis.txt", "final");
    fs::remove_dir_all(world.folder().join("gone")).expect("removes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(world.folder().join("look"), mode).expect("sets");
    let second = world.backup().snapshot.expect("made").to_string();
    world.backup();
    let mut client = world.client();
    let changes = client.diff(&first, &second).expect("compares");
    let mut found: Vec<_> =
        changes.iter().map(|c| (c.entry.path.to_str().expect("text"), c.kind)).collect();
    // Folders in which something came or went have another time.
    found.retain(|(path, kind)| !(*kind == ChangeKind::Look && path.starts_with("deep")));
    let (added, removed, changed) = (ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed);
    let expected = [
        ("deep/er/thesis.txt", changed),
        ("gone", removed),
        ("look", ChangeKind::Look),
        ("new", added),
        ("other", changed),
    ];
    assert_eq!(found, expected);
    assert!(client.diff(&first, &first).expect("compares").is_empty());
    assert!(matches!(client.diff(&first, "zzz"), Err(ClientError::NotFound(_))));

    let found = client.find("*.txt").expect("finds");
    let versions: Vec<_> = found.iter().map(|f| (f.snapshots, f.entry.size)).collect();
    assert_eq!(versions, [(2, 5), (1, 5)], "each version once, the newest first");
    assert_eq!(found[0].entry.path, world.folder().join("deep/er/thesis.txt"));
    assert_eq!(client.find("**/deep/**/thes?s.*").expect("finds").len(), 2);
    assert_eq!(client.find("gone").expect("finds").len(), 1);
    assert!(client.find("deep/*").expect("finds").is_empty());
    assert!(matches!(client.find("["), Err(ClientError::Pattern(_))));
}
