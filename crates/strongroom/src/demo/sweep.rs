//! Looks for plaintext in everything that a server holds: raw, hex, base64 at any offset, UTF-16,
//! and inside zstd and deflate.
//!
//! Instead of encoding every needle in every way, each haystack is decoded in every way and searched
//! for the plain needles once. A table of the needles' first eight bytes makes that one pass, however
//! many needles there are.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use flate2::read::{DeflateDecoder, ZlibDecoder};

/// Names shorter than this are in random bytes by chance.
const NAME_LEN_MIN: usize = 8;
const WINDOW_LEN: usize = 24;
const WINDOW_DIFFERENT_MIN: usize = 12;
const KEY_LEN: usize = 8;
/// Runs of hex digits or base64 characters that are shorter hide no needle.
const RUN_MIN: usize = 11;
const EXPANDED_MAX: u64 = 64 << 20;
const FILTER_BITS: u32 = 26;

/// What to look for.
pub(crate) struct Needles {
    filter: Vec<u64>,
    by_key: HashMap<u64, Vec<Vec<u8>>>,
    count: usize,
}

impl Needles {
    /// Takes the names and three windows of the content of every file below `dir`. Names that the
    /// data dictionary uses itself are left out.
    pub(crate) fn of_folder(dir: &Path, known: &HashSet<String>) -> io::Result<Self> {
        let mut needles = Self::empty();
        let mut stack = vec![dir.to_owned()];
        while let Some(folder) = stack.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.len() >= NAME_LEN_MIN && !known.contains(&*name.to_string_lossy()) {
                    needles.add(name.as_bytes());
                }
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    stack.push(entry.path());
                } else if kind.is_file() {
                    for window in windows(&entry.path()) {
                        needles.add(&window);
                    }
                }
            }
        }
        Ok(needles)
    }

    /// Takes one needle.
    pub(crate) fn one(needle: &[u8]) -> Self {
        let mut needles = Self::empty();
        needles.add(needle);
        needles
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn empty() -> Self {
        Self { filter: vec![0; 1 << (FILTER_BITS - 6)], by_key: HashMap::new(), count: 0 }
    }

    fn add(&mut self, needle: &[u8]) {
        let Some(first) = needle.first_chunk::<KEY_LEN>() else { return };
        let key = u64::from_le_bytes(*first);
        let (word, bit) = place(key);
        self.filter[word] |= bit;
        let same_key = self.by_key.entry(key).or_default();
        if !same_key.iter().any(|n| n == needle) {
            same_key.push(needle.to_vec());
            self.count += 1;
        }
    }

    /// Returns the needles in `haystack`.
    fn find<'a>(&'a self, haystack: &[u8], found: &mut HashSet<&'a [u8]>) {
        for (at, window) in haystack.windows(KEY_LEN).enumerate() {
            let Some(first) = window.first_chunk::<KEY_LEN>() else { continue };
            let key = u64::from_le_bytes(*first);
            let (word, bit) = place(key);
            if self.filter[word] & bit == 0 {
                continue;
            }
            let candidates = self.by_key.get(&key).into_iter().flatten();
            found.extend(candidates.filter(|n| haystack[at..].starts_with(n)).map(Vec::as_slice));
        }
    }

    /// Returns how many needles are in the file's bytes, in whatever form.
    pub(crate) fn find_in_any_form(&self, bytes: &[u8]) -> usize {
        let mut found = HashSet::new();
        self.find(bytes, &mut found);
        for form in [hex(bytes), base64(bytes), utf16(bytes)] {
            for view in form {
                self.find(&view, &mut found);
            }
        }
        for view in expanded(bytes) {
            self.find(&view, &mut found);
        }
        found.len()
    }
}

/// Returns how many needles are found in the files below `dir`, file names included, and how many
/// bytes were searched.
pub(crate) fn sweep(dir: &Path, needles: &Needles) -> io::Result<(u64, u64)> {
    let (mut hits, mut searched) = (0, 0);
    let mut stack = vec![dir.to_owned()];
    while let Some(path) = stack.pop() {
        hits += needles.find_in_any_form(path_name(&path)) as u64;
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                stack.push(entry?.path());
            }
        } else {
            let bytes = fs::read(&path)?;
            searched += bytes.len() as u64;
            hits += needles.find_in_any_form(&bytes) as u64;
        }
    }
    Ok((hits, searched))
}

/// The forms in which the control hides its needle, each of which must be found.
pub(crate) fn control_forms(needle: &str) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    use io::Write;
    let plain = needle.as_bytes();
    let mut deflate =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(plain)?;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(plain)?;
    let utf16: Vec<u16> = needle.encode_utf16().collect();
    let base64_at = |offset: usize| {
        let mut shifted = vec![b'.'; offset];
        shifted.extend_from_slice(plain);
        to_base64(&shifted).into_bytes()
    };
    let hex = sr_crypto::text::to_hex(plain);
    Ok(vec![
        ("raw", plain.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("hex in capitals", hex.to_uppercase().into_bytes()),
        ("base64", base64_at(0)),
        ("base64 at offset 1", base64_at(1)),
        ("base64 at offset 2", base64_at(2)),
        ("UTF-16, little end first", utf16.iter().flat_map(|c| c.to_le_bytes()).collect()),
        ("UTF-16, big end first", utf16.iter().flat_map(|c| c.to_be_bytes()).collect()),
        ("zstd", zstd::bulk::compress(plain, 3)?),
        ("deflate", deflate.finish()?),
        ("zlib", zlib.finish()?),
    ])
}

fn path_name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], OsStrExt::as_bytes)
}

fn place(key: u64) -> (usize, u64) {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    (usize::try_from(hash >> 6).unwrap_or(0), 1 << (hash & 63))
}

/// Windows from the beginning, the middle and the end of a file, as far as they are no filler.
fn windows(path: &PathBuf) -> Vec<Vec<u8>> {
    let Ok(content) = fs::read(path) else { return Vec::new() };
    let Some(last) = content.len().checked_sub(WINDOW_LEN) else { return Vec::new() };
    let mut windows = Vec::new();
    for start in [0, last / 2, last] {
        // The first window from there on that is no filler.
        let found = content[start..]
            .windows(WINDOW_LEN)
            .take(4096)
            .find(|window| window.iter().collect::<HashSet<_>>().len() >= WINDOW_DIFFERENT_MIN);
        windows.extend(found.map(<[u8]>::to_vec));
    }
    windows
}

/// What runs of hex digits stand for, at both alignments.
fn hex(bytes: &[u8]) -> Vec<Vec<u8>> {
    let digit = |b: &u8| (*b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    runs(bytes, |b| b.is_ascii_hexdigit(), 2 * KEY_LEN)
        .flat_map(|run| (0..2).map(move |at| &run[at..]))
        .map(|run| {
            run.chunks_exact(2).filter_map(|p| Some(digit(&p[0])? << 4 | digit(&p[1])?)).collect()
        })
        .collect()
}

/// What runs of base64 characters stand for, at all four alignments; both alphabets.
fn base64(bytes: &[u8]) -> Vec<Vec<u8>> {
    runs(bytes, |b| sextet(b).is_some(), RUN_MIN)
        .flat_map(|run| (0..4).map(move |at| &run[at..]))
        .map(|run| {
            let bits = |group: &[u8]| {
                group.iter().filter_map(|b| sextet(*b)).fold(0u32, |n, s| n << 6 | u32::from(s))
            };
            let mut out: Vec<u8> = Vec::with_capacity(run.len() / 4 * 3 + 3);
            for group in run.chunks(4) {
                let padded = bits(group) << (6 * (4 - group.len()));
                out.extend_from_slice(&padded.to_be_bytes()[1..]);
            }
            out
        })
        .collect()
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

fn to_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 3];
        padded[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for i in 0..=group.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

/// What text in UTF-16 stands for when every other byte is zero, at both alignments.
fn utf16(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut views = Vec::new();
    for at in 0..2 {
        let mut view = Vec::new();
        for pair in bytes.get(at..).unwrap_or_default().chunks_exact(2) {
            match pair {
                [0, letter] | [letter, 0] if *letter != 0 => view.push(*letter),
                _ if view.len() >= KEY_LEN => views.push(std::mem::take(&mut view)),
                _ => view.clear(),
            }
        }
        views.push(view);
    }
    views
}

/// What is in zstd frames and zlib streams anywhere, and in a deflate stream at the beginning.
fn expanded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut views = Vec::new();
    let mut keep = |mut reader: Box<dyn Read + '_>| {
        let mut view = Vec::new();
        // What expands before an error is searched too.
        let _ = reader.by_ref().take(EXPANDED_MAX).read_to_end(&mut view);
        if view.len() >= KEY_LEN {
            views.push(view);
        }
    };
    keep(Box::new(DeflateDecoder::new(bytes)));
    for at in 0..bytes.len().saturating_sub(4) {
        match bytes[at..at + 4] {
            [0x28, 0xb5, 0x2f, 0xfd] => {
                if let Ok(decoder) = zstd::stream::read::Decoder::new(&bytes[at..]) {
                    keep(Box::new(decoder));
                }
            }
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => keep(Box::new(ZlibDecoder::new(&bytes[at..]))),
            // The body of a gzip member is a deflate stream behind 10 bytes.
            [0x1f, 0x8b, 8, _] if bytes.len() > at + 10 => {
                keep(Box::new(DeflateDecoder::new(&bytes[at + 10..])));
            }
            _ => {}
        }
    }
    views
}

fn runs(
    bytes: &[u8],
    wanted: impl Fn(u8) -> bool + Copy,
    len_min: usize,
) -> impl Iterator<Item = &[u8]> {
    bytes.split(move |b| !wanted(*b)).filter(move |run| run.len() >= len_min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_control_is_found_and_noise_is_not() {
        let name = "a very private name.txt";
        let needles = Needles::one(name.as_bytes());
        for (form, bytes) in control_forms(name).expect("forms") {
            assert_eq!(needles.find_in_any_form(&bytes), 1, "{form}");
            let mut within = vec![b'='; 1001];
            within.extend_from_slice(&bytes);
            within.extend_from_slice(&[b'='; 100]);
            if form != "deflate" {
                assert_eq!(needles.find_in_any_form(&within), 1, "{form} within a file");
            }
        }
        assert_eq!(needles.find_in_any_form(b"a very private nam"), 0);
        assert_eq!(needles.find_in_any_form(&[]), 0);
    }
}
