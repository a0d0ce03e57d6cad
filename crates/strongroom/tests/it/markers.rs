//! A person whose every name is a marker uses everything; then the server's files, its messages and its
//! memory are searched for them.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::Stdio,
};

use crate::World;

const MARKERS: [&str; 6] = [
    "Marker-Person-7341",
    "Marker-Laptop-7342",
    "marker-folder-7343",
    "marker-file-7344",
    "marker content 7345, which nobody else may read",
    "Marker-Renamed-7346",
];

/// Each marker raw, in hex, and as the middle of any base64.
fn needles() -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for marker in MARKERS {
        needles.push(marker.as_bytes().to_vec());
        needles.push(sr_crypto::text::to_hex(marker.as_bytes()).into_bytes());
        for shift in 0..3 {
            needles.push(base64_middle(&marker.as_bytes()[shift..]));
        }
        needles.push(marker.bytes().flat_map(|byte| [byte, 0]).collect());
    }
    needles
}

/// The characters that whole groups of three bytes give.
fn base64_middle(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (groups, _) = bytes.as_chunks::<3>();
    let letters = groups.iter().flat_map(|[a, b, c]| {
        let bits = u32::from(*a) << 16 | u32::from(*b) << 8 | u32::from(*c);
        [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize])
    });
    letters.collect()
}

fn hits(haystack: &[u8], needles: &[Vec<u8>]) -> Vec<String> {
    let is_in = |needle: &&Vec<u8>| {
        let first = needle[0];
        haystack
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == first)
            .any(|(place, _)| haystack[place..].starts_with(needle))
    };
    needles.iter().filter(is_in).map(|n| String::from_utf8_lossy(n).into_owned()).collect()
}

fn files(dir: &Path, contents: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).expect("dir").flatten() {
        contents.extend_from_slice(entry.file_name().as_encoded_bytes());
        if entry.path().is_dir() {
            files(&entry.path(), contents);
        } else {
            contents.extend(fs::read(entry.path()).expect("reads"));
        }
    }
}

/// All that a core dump would have, or `None` where the kernel does not even let its owner look.
fn memory(pid: u32) -> Option<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut contents = Vec::new();
    for line in
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|m| m.starts_with("rw")))
    {
        let range = line.split(' ').next().expect("range");
        let (from, to) = range.split_once('-').expect("range");
        let (from, to) = (
            u64::from_str_radix(from, 16).expect("number"),
            u64::from_str_radix(to, 16).expect("number"),
        );
        if memory.seek(SeekFrom::Start(from)).is_ok() {
            // Parts of a range may have no pages.
            let _ = (&memory).take(to - from).read_to_end(&mut contents);
        }
    }
    Some(contents)
}

/// Makes a kit as a person would, and returns its 28 characters.
fn kit(world: &World) -> String {
    let mut child = world
        .command(&["recovery", "kit"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut stdin, mut stderr) =
        (child.stdin.take().expect("stdin"), child.stderr.take().expect("stderr"));
    let (mut page, mut byte) = (String::new(), [0]);
    while !page.ends_with("group 3 of the 7 groups: ") {
        assert_eq!(stderr.read(&mut byte).expect("reads"), 1, "{page}");
        page.push(char::from(byte[0]));
    }
    let line = page
        .lines()
        .find(|line| line.split_whitespace().count() == 7 && line.starts_with("    "))
        .expect("the characters");
    let groups: Vec<&str> = line.split_whitespace().collect();
    writeln!(stdin, "{}\n{}", groups[2], groups[5]).expect("types");
    drop(stdin);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("reads");
    assert!(child.wait().expect("ends").success(), "{page}{rest}");
    groups.join("-")
}

#[test]
fn no_marker_reaches_the_servers_files_messages_or_memory() {
    let world = World::new();
    let folder = world.path("marker-folder-7343");
    fs::create_dir(&folder).expect("makes");
    fs::write(folder.join("marker-file-7344"), MARKERS[4].repeat(2000)).expect("writes");
    let invite = world.invite.clone();
    world.done(&["join", &invite, "--name", MARKERS[0], "--device-name", MARKERS[1]]);
    world.done(&["backup", "add", folder.to_str().expect("text")]);
    world.done(&["backup", "now"]);
    let code = kit(&world);
    world.done(&["device", "rename", MARKERS[1], MARKERS[5]]);
    let listed = world.done(&["device", "ls"]);
    assert!(listed.contains(MARKERS[5]));
    world.done(&["backup", "verify", "--read-data"]);
    world.done(&["status"]);

    let mut needles = needles();
    needles.push(code.clone().into_bytes());
    needles.push(code.replace('-', "").into_bytes());
    let mut held = Vec::new();
    files(&world.path("server"), &mut held);
    assert_eq!(hits(&held, &needles), Vec::<String>::new(), "files");
    let pid = world.server.as_ref().expect("runs").id();
    if let Some(memory) = memory(pid) {
        assert!(memory.len() > 1 << 20, "{} bytes of memory", memory.len());
        assert_eq!(hits(&memory, &needles), Vec::<String>::new(), "memory");
        // The same search finds what the server does know.
        let known = vec![b"strongroom.db".to_vec()];
        assert_eq!(hits(&memory, &known).len(), 1, "control");
    }
    // And in files: each form of a marker, planted.
    for needle in &needles {
        let planted = [b"before ", &needle[..], b" after"].concat();
        assert!(!hits(&planted, &needles).is_empty());
    }
    // The process writes no core, whatever the shell allows.
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("line");
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
}
