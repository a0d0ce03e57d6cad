//! What goes in comes out.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink},
    path::Path,
};

use rand_chacha::rand_core::{Rng, SeedableRng};
use sr_client::{Client, ClientError, Progress, Target};

use crate::world::{World, assert_same_tree, clock, noise};

fn fill(world: &World) {
    world.write("a.txt", "alpha");
    world.write("empty", "");
    world.write("deep/er/still/b.bin", noise(1, 5_000_000));
    world.write("deep/c.txt", "c".repeat(300_000));
    world.write("twin-1", noise(2, 400_000));
    world.write("twin-2", noise(2, 400_000));
    world.write(".hidden", "h");
    world.write("name with spaces, ümläuts and 日本", "odd");
    fs::create_dir(world.folder().join("empty folder")).expect("makes");
    fs::write(world.folder().join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), "x").expect("writes");
    symlink("../outside", world.folder().join("link")).expect("links");
    symlink("deep", world.folder().join("link to folder")).expect("links");
    let mode = |name: &str, mode| {
        let path = world.folder().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
    };
    mode("a.txt", 0o640);
    mode("deep", 0o750);
    mode("twin-1", 0o4711);
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(86_400, 123_456_789);
    let file = fs::File::options().write(true).open(world.folder().join("twin-2")).expect("opens");
    file.set_modified(old).expect("sets");
}

#[test]
fn a_folder_comes_back_identical() {
    let world = World::new();
    fill(&world);
    let report = world.backup();
    assert_eq!((report.files, report.skipped.len()), (9, 0));
    let restored = world.restore("latest", None);
    assert_eq!((restored.files, restored.refused.len(), restored.failed.len()), (9, 0, 0));
    assert_same_tree(&world.folder(), &world.target());
    // Again into the same place: everything is there and stays.
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn an_unchanged_folder_is_not_read_again_and_a_changed_file_is() {
    let world = World::new();
    fill(&world);
    // Files must have settled to be trusted: pretend that they were written long ago.
    let later = std::sync::Arc::new(|| clock()() + 100);
    let backup = || {
        let mut client = Client::open(&world.profile(), later.clone()).expect("opens");
        client.backup(None, &Progress::default()).expect("backs up").remove(0)
    };
    assert_eq!(backup().files_read, 8);
    assert_eq!(backup().files_read, 0);
    world.write("a.txt", "alpha, changed");
    assert_eq!(backup().files_read, 1);
    assert_eq!(world.snapshots().len(), 3);
    world.restore("latest", None);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn old_versions_single_files_and_folders_can_be_had() {
    let world = World::new();
    world.write("notes.txt", "first");
    world.write("deep/er/b", "b");
    let first = world.backup().snapshot.expect("made").to_string();
    world.write("notes.txt", "second");
    world.backup();

    world.restore(&first[..12], Some("notes.txt"));
    assert_eq!(fs::read_to_string(world.target().join("notes.txt")).expect("reads"), "first");
    let absolute = world.folder().canonicalize().expect("path").join("notes.txt");
    world.restore("latest", absolute.to_str());
    assert_eq!(fs::read_to_string(world.target().join("notes.txt")).expect("reads"), "second");
    world.restore("latest", Some("./deep"));
    assert_eq!(fs::read_to_string(world.target().join("er/b")).expect("reads"), "b");

    let mut client = world.client();
    let mut try_restore = |which: &str, path: &str| {
        let target = Target::Folder(world.target());
        client.restore(which, Some(Path::new(path)), &target, &Progress::default()).err()
    };
    for (which, path) in [
        ("latest", "no"),
        ("latest", "notes.txt/x"),
        ("latest", "../x"),
        ("nzzz", ""),
        ("latest", "/etc"),
    ] {
        let error = try_restore(which, path);
        assert!(matches!(error, Some(ClientError::NotFound(_))), "{which} {path}: {error:?}");
    }
    // Both ids begin with the same letter.
    assert!(matches!(try_restore("n", ""), Some(ClientError::NotFound(_))));
}

#[test]
fn in_place_brings_back_what_was_deleted_and_leaves_the_rest() {
    let world = World::new();
    world.write("a", "a");
    world.write("deep/b", "b");
    world.backup();
    fs::remove_dir_all(world.folder().join("deep")).expect("removes");
    world.write("new", "made since");
    world
        .client()
        .restore("latest", None, &Target::InPlace, &Progress::default())
        .expect("restores");
    assert_eq!(fs::read_to_string(world.folder().join("deep/b")).expect("reads"), "b");
    assert_eq!(fs::read_to_string(world.folder().join("new")).expect("reads"), "made since");
    fs::remove_file(world.folder().join("a")).expect("removes");
    let file = Some(Path::new("a"));
    world
        .client()
        .restore("latest", file, &Target::InPlace, &Progress::default())
        .expect("restores");
    assert_eq!(fs::read_to_string(world.folder().join("a")).expect("reads"), "a");
}

#[test]
fn a_link_in_the_target_is_never_followed() {
    let world = World::new();
    world.write("deep/b", "from the backup");
    world.write("a", "from the backup");
    world.backup();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).expect("makes");
    fs::write(outside.join("a"), "untouched").expect("writes");
    fs::create_dir(world.target()).expect("makes");
    symlink(&outside, world.target().join("deep")).expect("links");
    symlink(outside.join("a"), world.target().join("a")).expect("links");
    let report = world.restore("latest", None);
    assert_eq!(fs::read_dir(&outside).expect("dir").count(), 1);
    assert_eq!(fs::read_to_string(outside.join("a")).expect("reads"), "untouched");
    // A link in a file's place is replaced; one in a folder's place is refused.
    assert_eq!(fs::read_to_string(world.target().join("a")).expect("reads"), "from the backup");
    assert!(!report.failed.is_empty());
}

/// The name of the staging folder is the program's own; what an interrupted restore left is not
/// backed up, and a restore leaves no trace of it.
#[test]
fn staging_folders_are_not_backed_up() {
    let world = World::new();
    world.write("a", "a");
    world.write(".strongroom-restore/0", "half");
    assert_eq!(world.backup().files, 1);
}

#[test]
fn what_is_no_file_folder_or_link_is_listed() {
    let world = World::new();
    world.write("a", "a");
    let socket = world.folder().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    let report = world.backup();
    assert_eq!(report.skipped.len(), 1);
    assert!(report.skipped[0].path.ends_with("socket"));
    assert_eq!(world.snapshots()[0].skipped, 1);
}

#[test]
fn many_tiny_files_and_many_names_fit() {
    let world = World::new();
    for i in 0..20_000 {
        fs::write(world.folder().join(format!("file number {i} of many")), format!("{i}"))
            .expect("writes");
    }
    assert_eq!(world.backup().files, 20_000);
    let restored = world.restore("latest", None);
    assert_eq!(restored.files, 20_000);
    assert_same_tree(&world.folder(), &world.target());
}

#[test]
fn several_folders_have_snapshots_of_their_own() {
    let world = World::new();
    world.write("a", "a");
    let other = world.dir.path().join("other");
    fs::create_dir(&other).expect("makes");
    fs::write(other.join("b"), "b").expect("writes");
    let mut client = world.client();
    assert!(client.add_folder(&other).expect("adds"));
    assert!(!client.add_folder(&other).expect("adds once"));
    assert!(matches!(client.add_folder(&other.join("b")), Err(ClientError::Local { .. })));
    let all = client.backup(None, &Progress::default()).expect("backs up");
    assert_eq!(all.len(), 2);
    let one = client.backup(Some(&other), &Progress::default()).expect("backs up");
    assert_eq!(one.len(), 1);
    let unknown = client.backup(Some(world.dir.path()), &Progress::default());
    assert!(matches!(unknown, Err(ClientError::FolderUnknown(_))));
    assert_eq!(client.snapshots().expect("lists").len(), 3);
    // The newest of which folder?
    let target = Target::Folder(world.target());
    let ambiguous = client.restore("latest", None, &target, &Progress::default());
    assert!(matches!(ambiguous, Err(ClientError::FolderAmbiguous)), "{ambiguous:?}");
    // A folder on a disk that is not plugged in does not stop the other.
    fs::rename(&other, world.dir.path().join("unplugged")).expect("renames");
    let all = client.backup(None, &Progress::default()).expect("backs up");
    assert!(all[0].snapshot.is_some() && all[1].snapshot.is_none());
    assert_eq!(all[1].skipped.len(), 1);
    assert!(client.remove_folder(&other).expect("removes"));
    assert!(!client.remove_folder(&other).expect("removes once"));
    assert_eq!(client.backup(None, &Progress::default()).expect("backs up").len(), 1);
    // Two runs in one second are two snapshots.
    let ids: std::collections::BTreeSet<_> =
        client.snapshots().expect("lists").into_iter().map(|s| s.id).collect();
    assert_eq!(ids.len(), 5);
    drop(client);
    let path = world.folder().canonicalize().expect("path");
    world.restore("latest", path.to_str());
    assert!(world.target().join("a").exists());
}

#[test]
fn verify_counts_what_it_read() {
    let world = World::new();
    fill(&world);
    world.backup();
    let report =
        world.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.bad_packs.is_empty() && report.files.is_empty());
    assert!(report.bytes_read > 5_700_000, "{}", report.bytes_read);
    let report = world
        .client()
        .verify(sr_client::ReadData::Nothing, &Progress::default())
        .expect("verifies");
    assert_eq!(report.bytes_read, 0);
}

#[test]
fn a_profile_is_used_by_one_run_at_a_time() {
    let world = World::new();
    let client = world.client();
    assert!(matches!(Client::open(&world.profile(), clock()), Err(ClientError::Locked)));
    drop(client);
    let nobody = Client::open(&world.dir.path().join("nobody"), clock());
    assert!(matches!(nobody, Err(ClientError::NotJoined)));
}

/// What each rule leaves out, as the preview shows it, a backup leaves out, and nothing else.
#[test]
fn rules_leave_out_what_the_preview_shows() {
    let world = World::new();
    for (name, content) in [
        ("keep/letter.txt", "a letter"),
        ("keep/deep/letter.iso", "an image"),
        ("keep.iso", "wanted all the same"),
        ("build/out", "made"),
        ("sub/build/out", "made"),
        (".cache/thing", "cached"),
        ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# by a browser"),
        ("cache/thing", "cached"),
        ("no cache/CACHEDIR.TAG", "Signature: of something else"),
        ("no cache/thing", "kept"),
        ("marked/.nobackup", ""),
        ("marked/thing", "not wanted"),
        ("code/.gitignore", "*.o\n!needed.o\n/target/\n# a comment\n"),
        ("code/a.o", "object"),
        ("code/needed.o", "object"),
        ("code/target/x", "made"),
        ("code/lib/target/x", "kept: the pattern is for the top"),
        ("code/lib/b.o", "object"),
        ("code/lib/.gitignore", "!b.o\n"),
        ("a.o", "kept: no .gitignore here"),
    ] {
        world.write(name, content);
    }
    world.write("big", noise(1, 3000));
    let rules = sr_client::Rules {
        patterns: vec!["*.iso".into(), "!/keep.iso".into(), "/build/".into()],
        if_present: vec![".nobackup".into()],
        caches: true,
        gitignore: true,
        one_file_system: true,
        larger_than: Some(2999),
        no_dedup_across: false,
    };
    let mut client = world.client();
    let preview = client.preview(&world.folder(), &rules).expect("looks");
    let left_out: Vec<String> = preview
        .left_out
        .iter()
        .map(|left_out| {
            let path = left_out.path.strip_prefix(world.folder()).expect("below");
            path.to_str().expect("text").to_owned()
        })
        .collect();
    let wanted = [
        ".cache",
        "big",
        "build",
        "cache/thing",
        "code/a.o",
        "code/target",
        "keep/deep/letter.iso",
        "marked/thing",
    ];
    assert_eq!(left_out, wanted);
    assert!(!client.add_folder_with(&world.folder(), &rules).expect("gives it rules"));
    let wrong = sr_client::Rules { patterns: vec!["a{".into()], ..Default::default() };
    assert!(client.preview(&world.folder(), &wrong).is_err());
    assert!(client.add_folder_with(&world.folder(), &wrong).is_err());
    drop(client);
    let report = world.backup();
    assert_eq!((report.left_out, report.files), (wanted.len() as u64, preview.files));
    // One that can't be read leaves nothing out, and least of all the folder.
    symlink("nowhere", world.folder().join("keep/.gitignore")).expect("links");
    let report = world.backup();
    assert_eq!((report.skipped.len(), report.files), (0, preview.files));
    fs::remove_file(world.folder().join("keep/.gitignore")).expect("removes");
    world.backup();
    world.restore("latest", None);
    for name in wanted {
        assert!(!world.target().join(name).exists(), "{name}");
        let original = world.folder().join(name);
        if original.is_dir() {
            fs::remove_dir_all(original).expect("removes");
        } else {
            fs::remove_file(original).expect("removes");
        }
    }
    // Only the times of folders from which something was taken just now differ.
    let found = sr_client::compare(&world.folder(), &world.target(), &Default::default());
    let found = found.expect("compares").different;
    assert!(found.iter().all(|(_, what)| *what == "its time"), "{found:?}");
}

/// Without a change, an automatic run makes a snapshot on the first occasion of a day, and else none.
#[test]
fn automatic_runs_make_one_snapshot_a_day_without_a_change() {
    let world = World::new();
    world.write("a", "a");
    let run = || {
        let mut client = Client::open(&world.profile(), world.clock()).expect("opens");
        client.set_automatic(true);
        client.backup(None, &Progress::default()).expect("backs up").remove(0)
    };
    let day_s = crate::accounts::DAY_S;
    let noon = day_s - (world.clock())() % day_s + day_s / 2;
    world.ahead.store(noon, std::sync::atomic::Ordering::SeqCst);
    let first = run();
    let head = world.stored_head();
    let again = run();
    assert!(first.is_new && !again.is_new);
    assert_eq!(again.snapshot, first.snapshot);
    assert_eq!(world.stored_head(), head, "nothing was sent");
    world.write("a", "b");
    assert!(run().is_new);
    assert!(!run().is_new);
    world.ahead.fetch_add(day_s, std::sync::atomic::Ordering::SeqCst);
    assert!(run().is_new);
    assert!(!run().is_new);
    assert_eq!(world.snapshots().len(), 3);
    // By hand, each makes one.
    world.client().backup(None, &Progress::default()).expect("backs up");
    assert_eq!(world.snapshots().len(), 4);
}

/// A folder that shares nothing with others stores what they have, once, and is whole.
#[test]
fn a_folder_apart_shares_nothing_with_others() {
    let world = World::new();
    let secret = noise(1, 6 << 20);
    world.write("secret", &secret);
    world.backup();
    let apart = world.dir.path().join("downloads");
    fs::create_dir(&apart).expect("makes");
    fs::write(apart.join("probe"), &secret).expect("writes");
    let rules = sr_client::Rules { no_dedup_across: true, ..Default::default() };
    world.client().add_folder_with(&apart, &rules).expect("adds");
    let stored = || world.packs().iter().map(|p| fs::metadata(p).expect("file").len()).sum::<u64>();
    let run = || {
        let before = stored();
        world.client().backup(Some(&apart), &Progress::default()).expect("backs up");
        stored() - before
    };
    assert!(run() >= 6 << 20, "as if nobody had it");
    assert!(run() < 1 << 20, "but not again");
    // A file that grows does not go whole each time.
    let mut longer = secret.clone();
    longer.extend(noise(2, 1000));
    fs::write(apart.join("probe"), &longer).expect("writes");
    assert!(run() < 5 << 20);
    let target = Target::Folder(world.target());
    let mut client = world.client();
    client.restore("latest", Some(&apart), &target, &Progress::default()).expect("restores");
    assert_same_tree(&apart, &world.target());
    let report = client.verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
    assert!(report.is_whole() && report.bad_packs.is_empty());
}

/// A program's output, as a file; and nonsense as its name.
#[test]
fn a_stream_comes_back_as_a_file() {
    let world = World::new();
    let content = noise(1, 9_000_001);
    let mut client = world.client();
    let mut stream = &content[..];
    let report = client.backup_stream("dump.sql", &mut stream, &Progress::default());
    let report = report.expect("backs up").remove(0);
    assert_eq!((report.files, report.bytes), (1, 9_000_001));
    let target = Target::Folder(world.target());
    client.restore("latest", None, &target, &Progress::default()).expect("restores");
    assert_eq!(fs::read(world.target().join("dump.sql")).expect("reads"), content);
    for name in ["", ".", "..", "a/b"] {
        let refused = client.backup_stream(name, &mut &content[..], &Progress::default());
        assert!(matches!(refused, Err(ClientError::Name)), "{name}");
    }
    // One that breaks off is no snapshot.
    struct Breaks(usize);
    impl std::io::Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 {
                Err(std::io::Error::other("the program died"))
            } else {
                Ok(buffer.len())
            }
        }
    }
    let broken = client.backup_stream("b", &mut Breaks(0), &Progress::default());
    assert!(matches!(broken, Err(ClientError::Local { .. })), "{broken:?}");
    assert_eq!(client.snapshots().expect("lists").len(), 1);
    let empty = client.backup_stream("empty", &mut &b""[..], &Progress::default());
    assert_eq!(empty.expect("backs up")[0].bytes, 0);
}

/// What a stream of any length takes of memory, into a store that keeps nothing:
/// `SR_STREAM_GB=50 cargo test -p sr-client --test it a_long_stream -- --nocapture` says how much
/// that was at its height, server included.
#[test]
fn a_long_stream_takes_bounded_memory() {
    let gigabytes: u64 = std::env::var("SR_STREAM_GB").map_or(0, |n| n.parse().expect("a number"));
    let len = (gigabytes * 1_000_000_000).max(100_000_000);
    let (world, mut client) = crate::network::into_nothing();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut block = vec![0; 1 << 20];
    random.fill_bytes(&mut block);
    let mut stream = Numbered { block, number: 0 }.take(len);
    let report = client.backup_stream("stream", &mut stream, &Progress::default());
    assert_eq!(report.expect("backs up")[0].bytes, len);
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("is there");
    println!("{len} bytes: {peak}");
    drop(world);
}

/// Blocks of noise, each with its number in front of every 64 bytes, so that none is like another.
struct Numbered {
    block: Vec<u8>,
    number: u64,
}

impl std::io::Read for Numbered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(self.block.len());
        self.number += 1;
        buffer[..len].copy_from_slice(&self.block[..len]);
        for place in buffer[..len].chunks_mut(64) {
            let number = self.number.to_le_bytes();
            let end = place.len().min(8);
            place[..end].copy_from_slice(&number[..end]);
        }
        Ok(len)
    }
}
