//! The sample that ships with the program: 1,204 files with odd names, made from a fixed seed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use sr_crypto::{KeyedHasher, Secret32};

/// How many files the sample has.
pub(crate) const FILES: usize = 1204;

const ODD_NAMES: [&[u8]; 14] = [
    "Übung macht den Meister.txt".as_bytes(),
    "日本語の名前.txt".as_bytes(),
    "emoji 🗝️ and spaces.txt".as_bytes(),
    b"-rf",
    b"--help",
    b"name with \"quotes\" and 'more'",
    b"tab\tand\nnewline",
    b"not utf-8 \xff\xfe",
    b"$(reboot)",
    b"back\\slash",
    b"  leading and trailing  ",
    b"...",
    b".hidden file",
    b"star*question?",
];

const WORDS: [&str; 16] = [
    "source",
    "meeting",
    "letter",
    "archive",
    "photo",
    "interview",
    "ledger",
    "contract",
    "draft",
    "evidence",
    "translation",
    "invoice",
    "minutes",
    "statement",
    "witness",
    "recipe",
];

/// Makes the sample in `dir`.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let noise = KeyedHasher::new(Secret32::init_with(|key| key.fill(0x5a)));
    for (number, name) in ODD_NAMES.iter().enumerate() {
        write(&dir.join("odd names").join(OsStr::from_bytes(name)), number, &text(&noise, number))?;
    }
    let long = "long name ".repeat(25);
    write(&dir.join("odd names").join(&long[..250]), 14, b"a name of 250 bytes")?;
    for number in ODD_NAMES.len() + 1..FILES - 4 {
        let folder = format!("{}/{} {}", number % 7 + 2020, WORDS[number % 16], number / 160);
        let name = format!("{} {number:04}.txt", WORDS[(number / 16) % 16]);
        write(&dir.join(folder).join(name), number, &text(&noise, number))?;
    }
    for (number, len) in [(1200usize, 0), (1201, 1), (1202, 3_000_000), (1203, 7_000_001)] {
        let mut content = vec![0; len];
        noise.expand(&number.to_be_bytes(), &mut content);
        write(&dir.join(format!("big/film {number}.bin")), number, &content)?;
    }
    symlink("../odd names/...", dir.join("big/link to a file"))?;
    symlink("/nowhere", dir.join("dangling link"))?;
    fs::create_dir(dir.join("empty folder"))?;
    fs::set_permissions(dir.join("big/film 1203.bin"), fs::Permissions::from_mode(0o600))
}

fn write(path: &Path, number: usize, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)?;
    // Times of every year since 1990, to the nanosecond.
    let time = UNIX_EPOCH
        + Duration::from_nanos(631_152_000_123_456_789 + number as u64 * 900_001_000_007_919);
    File::options().write(true).open(path)?.set_modified(time)
}

fn text(noise: &KeyedHasher, number: usize) -> Vec<u8> {
    let mut seed = [0; 1024];
    noise.expand(&number.to_be_bytes(), &mut seed);
    let mut text = format!("Note {number}\n\n");
    for (i, byte) in seed[..64 + number % 960].iter().enumerate() {
        text.push_str(WORDS[usize::from(*byte) % 16]);
        text.push(if i % 12 == 11 { '\n' } else { ' ' });
    }
    text.into_bytes()
}
