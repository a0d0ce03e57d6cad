//! `backup browse`, `diff`, `find`, and a file on standard output.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use serde_json::{Value, json};
use sr_client::{Change, ChangeKind, ClientError, EntryInfo, EntryKind, Found};

use crate::{
    args::Args,
    failure::Failure,
    output::{Done, bytes, plural, printable, time},
    status::client,
};

/// Splits `SNAPSHOT:PATH`.
pub(crate) fn split(what: &OsStr) -> (String, Option<&Path>) {
    let mut parts = what.as_bytes().splitn(2, |byte| *byte == b':');
    let which = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let path = parts.next().filter(|path| !path.is_empty());
    (which, path.map(|path| Path::new(OsStr::from_bytes(path))))
}

pub(crate) fn browse(args: &Args, what: &OsStr) -> Result<Done, Failure> {
    let (which, path) = split(what);
    let (_, entries) = client(args)?.browse(&which, path)?;
    let text: Vec<String> = entries.iter().map(line).collect();
    let text = if text.is_empty() { "The folder is empty.".into() } else { text.join("\n") };
    let entries: Vec<Value> = entries.iter().map(to_json).collect();
    Ok(Done::new(text, json!({ "entries": entries })))
}

/// Writes one file to standard output, and nothing else.
pub(crate) fn cat(args: &Args, what: &OsStr) -> Result<Done, Failure> {
    let (which, path) = split(what);
    let one =
        "Name one file, as in latest:letters/thesis.txt, and leave --json and --in-place out.";
    let path = path.filter(|_| !args.json);
    let path = path.ok_or_else(|| Failure::usage("standard output takes one file", one))?;
    let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let written = client(args)?.cat(&which, path, &mut out);
    let flushed = io::Write::flush(&mut out).map_err(|source| ClientError::Local {
        doing: "writing",
        path: "standard output".into(),
        source,
    });
    match written.and(flushed) {
        // A reader that has seen enough (`| head`) is no error.
        Err(ClientError::Local { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
        done => done?,
    }
    Ok(Done::new(String::new(), Value::Null))
}

pub(crate) fn diff(args: &Args, before: &str, after: &str) -> Result<Done, Failure> {
    let changes = client(args)?.diff(before, after)?;
    let sign = |change: &Change| match change.kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Changed => 'M',
        ChangeKind::Look => 'm',
    };
    let mut text = String::new();
    for change in &changes {
        text.push_str(&format!("{}  {}\n", sign(change), shown(&change.entry)));
    }
    let count = |kind| changes.iter().filter(|change| change.kind == kind).count() as u64;
    text.push_str(&format!(
        "{} added (+), {} removed (-), {} changed (M), {} with another time, owner, permission or \
         attribute only (m)",
        count(ChangeKind::Added),
        count(ChangeKind::Removed),
        count(ChangeKind::Changed),
        count(ChangeKind::Look),
    ));
    let list: Vec<Value> = changes
        .iter()
        .map(|change| {
            let mut entry = to_json(&change.entry);
            entry["change"] = sign(change).to_string().into();
            entry
        })
        .collect();
    Ok(Done::new(text, json!({ "changes": list })))
}

pub(crate) fn find(args: &Args, pattern: &str) -> Result<Done, Failure> {
    let found = client(args)?.find(pattern)?;
    let version = |found: &Found| {
        format!(
            "{}  in {}, the newest {} of {}",
            line(&found.entry),
            plural(found.snapshots, "snapshot"),
            &found.newest.id.to_string()[..9],
            time(found.newest.time_s),
        )
    };
    let lines: Vec<String> = found.iter().map(version).collect();
    let text = if lines.is_empty() {
        "Nothing fits. A pattern without `/` is for the name: '*.txt'; one with it for the whole \
         path: '/home/**/*.txt'."
            .into()
    } else {
        lines.join("\n")
    };
    let list: Vec<Value> = found
        .iter()
        .map(|found| {
            let mut entry = to_json(&found.entry);
            entry["snapshots"] = found.snapshots.into();
            entry["newest"] = found.newest.id.to_string().into();
            entry["newest_s"] = found.newest.time_s.into();
            entry
        })
        .collect();
    Ok(Done::new(text, json!({ "found": list })))
}

fn line(entry: &EntryInfo) -> String {
    let size = if entry.kind == EntryKind::File { bytes(entry.size) } else { String::new() };
    let changed = time(entry.mtime_s.max(0).unsigned_abs());
    format!("{size:>9}  {changed}  {}", shown(entry))
}

/// The path with a mark for what is no file.
fn shown(entry: &EntryInfo) -> String {
    let mark = match entry.kind {
        EntryKind::Folder => "/",
        EntryKind::Symlink => "@",
        EntryKind::File | EntryKind::Other => "",
    };
    format!("{}{mark}", printable(&entry.path.to_string_lossy()))
}

fn to_json(entry: &EntryInfo) -> Value {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink => "link",
        EntryKind::Other => "other",
    };
    json!({
        "path": entry.path.to_string_lossy(),
        "kind": kind,
        "size": entry.size,
        "mtime_s": entry.mtime_s,
        "mode": entry.mode,
    })
}
