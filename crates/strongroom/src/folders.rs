//! `backup add`, `ls`, `rm`: which folders are backed up, and what of them is left out.

use std::path::Path;

use serde_json::{Value, json};
use sr_client::{ClientError, Preview, Rules};

use crate::{
    args::{AddArgs, Args},
    backup::shown,
    failure::{Failure, exit},
    output::{Done, bytes, count, plural, printable},
    status::client,
};

/// Lines of a list on a terminal; JSON has them all.
const LINES_MAX: usize = 40;

pub(crate) fn add(args: &Args, wanted: &AddArgs) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let (path, rules) = (&wanted.path, rules_of(wanted));
    if wanted.dry_run {
        return Ok(preview_done(args, &client.preview(path, &rules)?));
    }
    let added = client.add_folder_with(path, &rules)?;
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let text = match (added, rules.is_empty()) {
        (true, _) => {
            format!("ok  {} will be backed up. Start now: strongroom backup now", shown(&path))
        }
        (false, true) => format!("ok  {} is backed up already", shown(&path)),
        (false, false) => format!("ok  {} is backed up by these rules from now on", shown(&path)),
    };
    let data = json!({ "path": path.to_string_lossy(), "added": added, "rules": words(&rules) });
    Ok(Done::new(text, data))
}

pub(crate) fn rm(args: &Args, path: &Path) -> Result<Done, Failure> {
    if !client(args)?.remove_folder(path)? {
        return Err(ClientError::FolderUnknown(path.to_owned()).into());
    }
    let text = format!("ok  {} is backed up no longer; its snapshots stay", shown(path));
    Ok(Done::new(text, json!({ "path": path.to_string_lossy() })))
}

pub(crate) fn ls(args: &Args) -> Result<Done, Failure> {
    let folders = client(args)?.folders()?;
    let mut lines = Vec::new();
    let mut list = Vec::new();
    for folder in &folders {
        let words = words(&folder.rules);
        let without = match words.len() {
            0 => String::new(),
            _ => format!("  ({})", printable(&words.join(", "))),
        };
        lines.push(format!("{}{without}", shown(&folder.path)));
        list.push(json!({ "path": folder.path.to_string_lossy(), "rules": words }));
    }
    let text = if lines.is_empty() {
        "No folder is backed up yet. Add one: strongroom backup add PATH".into()
    } else {
        lines.join("\n")
    };
    Ok(Done::new(text, json!({ "folders": list })))
}

fn rules_of(wanted: &AddArgs) -> Rules {
    Rules {
        patterns: wanted.exclude.clone(),
        if_present: wanted.exclude_if_present.clone(),
        caches: wanted.exclude_caches,
        gitignore: wanted.gitignore,
        one_file_system: wanted.one_file_system,
        larger_than: wanted.exclude_larger_than,
        no_dedup_across: wanted.no_dedup_across,
    }
}

/// The rules, each as a person would say it.
fn words(rules: &Rules) -> Vec<String> {
    let mut words: Vec<String> =
        rules.patterns.iter().map(|pattern| format!("without {pattern}")).collect();
    words.extend(rules.if_present.iter().map(|name| format!("without folders with {name}")));
    words.extend(rules.caches.then(|| "without caches".into()));
    words.extend(rules.gitignore.then(|| "without what .gitignore names".into()));
    words.extend(rules.one_file_system.then(|| "on one file system".into()));
    words.extend(rules.larger_than.map(|max| format!("without files over {}", bytes(max))));
    words.extend(rules.no_dedup_across.then(|| "apart from other folders".into()));
    words
}

fn preview_done(args: &Args, preview: &Preview) -> Done {
    let mut lines: Vec<String> = preview
        .left_out
        .iter()
        .map(|left_out| format!("-   {}  ({})", shown(&left_out.path), left_out.why))
        .collect();
    if !args.json && lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {} more; --json lists them all", count(more as u64)));
    }
    lines.push(format!(
        "{}, {} would be backed up, {} left out by a rule; nothing was changed.",
        plural(preview.files, "file"),
        bytes(preview.bytes),
        plural(preview.left_out.len() as u64, "entry").replace("entrys", "entries"),
    ));
    let left_out: Vec<Value> = preview
        .left_out
        .iter()
        .map(|left_out| json!({ "path": left_out.path.to_string_lossy(), "why": left_out.why }))
        .collect();
    let data = json!({ "files": preview.files, "bytes": preview.bytes, "left_out": left_out });
    let skipped = preview.skipped.iter();
    let warnings: Vec<String> =
        skipped.map(|skipped| format!("{}: {}", shown(&skipped.path), skipped.why)).collect();
    let code = if warnings.is_empty() { 0 } else { exit::PARTLY };
    Done::new(lines.join("\n"), data).with_warnings(warnings, code)
}
