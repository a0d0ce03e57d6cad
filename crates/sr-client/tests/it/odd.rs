//! Every odd thing that a folder can hold, backed up, restored, and compared by rsync and by our own
//! comparer, which sees what rsync does not.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::FileExt, net::UnixListener},
    },
    path::Path,
    process::Command,
    sync::atomic::Ordering,
};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags,
    chmodat, fallocate, lsetxattr, makedev, mkdirat, mknodat, openat, utimensat,
};
use sr_client::{Client, Progress, compare};

use crate::world::{World, noise};

/// Entries of the big folder.
const MANY: usize = 100_000;

/// Whether this user may make device nodes and give files away.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_time(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("sets");
}

/// An access control list as the kernel has it: owner, user 1000, group, mask and others.
fn access_list() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let entries =
        [entry(1, 6, !0), entry(2, 4, 1000), entry(4, 4, !0), entry(16, 4, !0), entry(32, 0, !0)];
    [&2u32.to_le_bytes()[..], &entries.concat()].concat()
}

fn odd_things(dir: &Path) {
    let file = |name: &[u8], content: &[u8]| {
        let path = dir.join(OsStr::from_bytes(name));
        fs::write(&path, content).expect("writes");
        path
    };
    // Names that are no text, or dangerous to a shell or terminal.
    for name in [&b"not \xff\xfe utf-8"[..], b" ", b"new\nline", b"-rf", b"\x1b[2J", &[b'x'; 255]] {
        file(name, name);
    }
    // Kinds.
    fs::create_dir(dir.join("empty")).expect("makes");
    std::os::unix::fs::symlink("nowhere/../..", dir.join("dangling")).expect("links");
    std::os::unix::fs::symlink("somewhere", dir.join("link")).expect("links");
    let make = |name: &str, kind, device| {
        mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).expect("makes");
    };
    make("pipe", FileType::Fifo, 0);
    if is_root() {
        make("null", FileType::CharacterDevice, makedev(1, 3));
        make("disk", FileType::BlockDevice, makedev(259, 1_000_000));
        std::os::unix::fs::lchown(dir.join("dangling"), Some(1234), Some(5678)).expect("gives");
        std::os::unix::fs::chown(dir.join("pipe"), Some(1234), Some(5678)).expect("gives");
    }
    // Hard links, also of a link and a pipe, and across folders.
    let twin = file(b"twin", b"one file, three names");
    fs::hard_link(&twin, dir.join("a twin")).expect("links");
    fs::hard_link(&twin, dir.join("empty/twin")).expect("links");
    fs::hard_link(dir.join("dangling"), dir.join("dangling too")).expect("links");
    fs::hard_link(dir.join("pipe"), dir.join("pipe too")).expect("links");
    let big_twin = file(b"big twin", &noise(1, 3 << 20));
    fs::hard_link(&big_twin, dir.join("big twin 2")).expect("links");
    // Holes: at the beginning, between, at the end, everywhere, and zeros that are none.
    let sparse = File::create(dir.join("sparse")).expect("makes");
    sparse.write_all_at(&noise(2, 100_000), 10 << 20).expect("writes");
    sparse.write_all_at(b"x", 6 << 30).expect("writes");
    sparse.set_len(50 << 30).expect("sets");
    File::create(dir.join("hole")).expect("makes").set_len(123_456_789).expect("sets");
    file(b"zeros", &[0; 300_000]);
    let comb = File::create(dir.join("comb")).expect("makes");
    for tooth in 0..500 {
        comb.write_all_at(b"tooth", tooth * 16_384).expect("writes");
    }
    // Attributes and lists.
    let attributes = file(b"attributes", b"");
    let set = |path: &Path, name: &str, value: &[u8]| {
        lsetxattr(path, name, value, XattrFlags::empty()).expect("sets");
    };
    set(&attributes, "user.empty", b"");
    set(&attributes, "user.bytes", &[0, 255, 10]);
    set(&attributes, "system.posix_acl_access", &access_list());
    set(&dir.join("empty"), "user.of a folder", b"x");
    set(&dir.join("empty"), "system.posix_acl_default", &access_list());
    if is_root() {
        set(&dir.join("dangling"), "trusted.of-a-link", b"x");
        set(
            &attributes,
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    // Modes and times.
    let modes = [("nothing", 0), ("all", 0o777), ("special", 0o7755), ("group", 0o2070)];
    for (name, mode) in modes.iter().filter(|(_, mode)| is_root() || *mode & 0o400 != 0) {
        let path = file(name.as_bytes(), name.as_bytes());
        chmodat(CWD, &path, Mode::from_raw_mode(*mode), AtFlags::empty()).expect("sets");
    }
    for (name, s, ns) in [
        ("1901", -2_147_483_648, 1),
        ("1969", -1, 999_999_999),
        ("2038", 1 << 31, 0),
        ("2400", 1 << 33, 7),
    ] {
        set_time(&file(name.as_bytes(), b""), s, ns);
    }
    // A path of more than 5,000 bytes, and what is there.
    let mut folder: OwnedFd = File::open(dir).expect("opens").into();
    for _ in 0..21 {
        let name = "deep".repeat(60);
        mkdirat(&folder, &name, Mode::from_raw_mode(0o755)).expect("makes");
        folder = openat(&folder, &name, OFlags::DIRECTORY, Mode::empty()).expect("opens");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let deep = openat(&folder, "bottom", flags, Mode::from_raw_mode(0o600)).expect("makes");
    File::from(deep).write_all(b"found").expect("writes");
    // A big folder.
    let many = dir.join("many");
    fs::create_dir(&many).expect("makes");
    for number in 0..MANY {
        fs::write(many.join(format!("entry {number:06}")), b"").expect("writes");
    }
    set_time(&dir.join("empty"), 1, 1);
    set_time(&dir.join("dangling"), 2, 2);
}

/// What rsync would do to make the second folder like the first; `None` where there is no rsync.
fn rsync(a: &Path, b: &Path) -> Option<String> {
    let mut command = Command::new("rsync");
    command.args(["-aHAXSi", "--dry-run", "--checksum", "--delete", "--modify-window=-1"]);
    // What nobody backs up.
    command.arg("--exclude=/socket");
    let slash = |path: &Path| format!("{}/", path.display());
    let done = command.arg(slash(a)).arg(slash(b)).output().ok()?;
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    Some(String::from_utf8_lossy(&done.stdout).into_owned() + &errors)
}

#[test]
fn every_odd_thing_comes_back_as_it_was() {
    let world = World::new();
    let (original, restored) = (world.folder(), world.target());
    fs::create_dir(original.join("passing")).expect("makes");
    odd_things(&original);
    // What goes again lies among what stays, so that a prune has to pack that anew.
    for n in 0..20 {
        fs::write(original.join(format!("passing/{n}")), noise(900 + n, 1 << 19)).expect("writes");
    }
    let with_it = world.backup().snapshot.expect("snapshot").to_string();
    fs::remove_dir_all(original.join("passing")).expect("removes");
    set_time(&original, 1_600_000_000, 0);
    let _socket = UnixListener::bind(original.join("socket")).expect("binds");
    let report = world.backup();
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| &skipped.path).collect();
    assert_eq!(skipped, [&original.join("socket")], "{:?}", report.skipped);
    // A second run reads nothing, and stores the same tree.
    let backup = || {
        let mut client = Client::open(&world.profile(), world.clock()).expect("opens");
        client.backup(None, &Progress::default()).expect("backs up").remove(0)
    };
    // By then, no file can change again within the tick of its last change.
    world.ahead.store(10, Ordering::SeqCst);
    backup();
    let again = backup();
    assert_eq!((again.files_read, again.files), (0, report.files));
    let first = report.snapshot.expect("snapshot").to_string();
    crate::keep::client(&world).forget(&[with_it, first]).expect("forgets");
    crate::keep::days(&world, 2);
    world.ahead.fetch_add(crate::accounts::DAY_S, Ordering::SeqCst);
    let pruned = crate::keep::prune(&world);
    assert!(pruned.snapshots == 2 && pruned.repacked > 0, "{pruned:?}");
    let restore = world.restore("latest", None);
    assert!(restore.failed.is_empty() && restore.refused.is_empty(), "{restore:?}");
    assert_eq!(restore.files, report.files);

    let without = HashSet::from([original.join("socket")]);
    let found = compare(&original, &restored, &without).expect("compares");
    assert!(found.different.is_empty(), "{:?}", found.different);
    for folder in [&original, &restored] {
        // rsync gives up at paths that long, and reads every byte of a hole.
        fs::remove_dir_all(folder.join("deep".repeat(60))).expect("removes");
        fs::remove_file(folder.join("sparse")).expect("removes");
        set_time(folder, 1_600_000_000, 0);
    }
    let silent = rsync(&original, &restored);
    assert_eq!(silent.as_deref().unwrap_or_default(), "");

    for folder in [&original, &restored] {
        fs::remove_dir_all(folder.join("many")).expect("removes");
        set_time(folder, 1_600_000_000, 0);
    }
    // And now each notices a difference of the smallest kind.
    let noticed = |what: &str, by_rsync: bool, path: &str, act: &dyn Fn(&Path)| {
        let place = restored.join(path);
        let before = fs::symlink_metadata(&place).expect("is there");
        act(&place);
        if what != "its time" {
            use std::os::unix::fs::MetadataExt;
            set_time(&place, before.mtime(), before.mtime_nsec());
        }
        set_time(&restored, 1_600_000_000, 0);
        let found = compare(&original, &restored, &without).expect("compares").different;
        assert_eq!(found, [(path.into(), what)]);
        if let Some(said) = rsync(&original, &restored) {
            assert_eq!(!said.is_empty(), by_rsync, "{path}: {said}");
        }
        let again = world.restore("latest", Some(path));
        assert!(again.failed.is_empty(), "{again:?}");
        set_time(&restored, 1_600_000_000, 0);
    };
    noticed("its content", true, "zeros", &|path| {
        let file = File::options().write(true).open(path).expect("opens");
        file.write_all_at(&[1], 299_999).expect("writes");
    });
    noticed("its holes", false, "comb", &|path| {
        let file = File::options().write(true).open(path).expect("opens");
        file.write_all_at(&[0], 8192).expect("fills a hole with zeros");
    });
    noticed("its holes", false, "zeros", &|path| {
        let file = File::options().write(true).open(path).expect("opens");
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, 0, 4096).expect("punches");
    });
    noticed("its attributes", true, "attributes", &|path| {
        lsetxattr(path, "user.bytes", &[0, 255, 11], XattrFlags::empty()).expect("sets");
    });
    noticed("its time", true, "1969", &|path| set_time(path, -1, 999_999_998));
    noticed("its kind, permissions or owner", true, "all", &|path| {
        chmodat(CWD, path, Mode::from_raw_mode(0o776), AtFlags::empty()).expect("sets");
    });
    noticed("where it points to", true, "link", &|path| {
        fs::remove_file(path).expect("removes");
        std::os::unix::fs::symlink("elsewhere", path).expect("links");
    });
    noticed("its other names", true, "twin", &|path| {
        fs::remove_file(path).expect("removes");
        fs::write(path, "one file, three names").expect("writes");
    });
}

/// More folders than a process may have open, with a file in each.
#[test]
fn many_folders_take_few_open_files() {
    // What a shell has unless somebody asks for more.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let usual = rustix::process::Rlimit { current: Some(1024), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, usual).expect("sets");
    let world = World::new();
    for number in 0..2000 {
        // So long that they are listed faster than read.
        world.write(&format!("{number}/file"), noise(number, 32 << 10));
    }
    let report = world.backup();
    assert_eq!((report.files, report.skipped.len()), (2000, 0), "{:?}", report.skipped.first());
    let restore = world.restore("latest", None);
    assert_eq!((restore.files, restore.failed.len()), (2000, 0));
    let found = compare(&world.folder(), &world.target(), &HashSet::new()).expect("compares");
    assert!(found.different.is_empty(), "{:?}", found.different);
}

/// A file that a restore finds in place, under another name of somebody else's file, stays theirs.
#[test]
fn a_restore_never_writes_into_another_name_of_a_file() {
    let world = World::new();
    world.write("a", "ours");
    world.backup();
    fs::create_dir(world.target()).expect("makes");
    let theirs = world.dir.path().join("theirs");
    fs::write(&theirs, "ours").expect("writes");
    fs::hard_link(&theirs, world.target().join("a")).expect("links");
    chmodat(CWD, &theirs, Mode::from_raw_mode(0o600), AtFlags::empty()).expect("sets");
    world.restore("latest", None);
    use std::os::unix::fs::MetadataExt;
    let (theirs, ours) = (fs::metadata(&theirs), fs::metadata(world.target().join("a")));
    assert_ne!(theirs.expect("is there").ino(), ours.expect("is there").ino());
}
