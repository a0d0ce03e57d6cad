//! `backup …`

use std::{ffi::OsStr, path::Path};

use serde_json::{Value, json};
use sr_client::{
    BackupReport, ClientError, Compression, ReadData, RefusedFile, SnapshotInfo, Target,
    VerifyReport,
};

use crate::{
    args::{Args, HowSmall, LimitArgs},
    failure::{Failure, exit},
    interrupt::end_on_ctrl_c,
    look::split,
    output::{Done, Output, bytes, count, plural, printable, time},
    status::{client, of, overreach_warning},
    terminal::with_progress,
};

pub(crate) const SAFE: &str = "interrupted; run the same command again to go on";
/// Lines of a list on a terminal; JSON has them all.
const LINES_MAX: usize = 20;

/// How a backup is made.
pub(crate) struct How<'a> {
    pub(crate) compression: HowSmall,
    pub(crate) automatic: bool,
    pub(crate) tags: &'a [String],
    /// The name of a file, whose content comes from standard input.
    pub(crate) stdin: Option<&'a str>,
    pub(crate) limits: LimitArgs,
}

pub(crate) fn now(
    args: &Args,
    output: &Output,
    folder: Option<&Path>,
    how: &How<'_>,
) -> Result<Done, Failure> {
    let mut client = client(args)?;
    client.set_tags(how.tags)?;
    client.set_automatic(how.automatic);
    how.limits.apply(&mut client);
    client.set_compression(match how.compression {
        HowSmall::Fast => Compression::Fast,
        HowSmall::Default => Compression::Default,
        HowSmall::Best => Compression::Best,
    });
    end_on_ctrl_c(SAFE);
    let server = client.server()?;
    let reports = with_progress(output, &server, |progress| match how.stdin {
        Some(name) => client.backup_stream(name, &mut std::io::stdin(), progress),
        None => client.backup(folder, progress),
    })?;
    let mut lines: Vec<String> = reports.iter().map(report_line).collect();
    let skipped = reports.iter().flat_map(|report| &report.skipped);
    let warnings: Vec<String> =
        skipped.map(|skipped| format!("{}: {}", shown(&skipped.path), skipped.why)).collect();
    let data: Vec<Value> = reports.iter().map(report_json).collect();
    let mut code = if warnings.is_empty() { 0 } else { exit::PARTLY };
    let lost = client.lost_packs();
    if lost > 0 {
        code = exit::SECURITY;
        lines.push(format!(
            "LOST: the server has lost {} of this backup, by its own word. What they held was stored again \
             just now, as far as it is still on this device. What is not: strongroom backup verify. If \
             another device pruned by mistake: strongroom backup undelete",
            plural(lost, "object")
        ));
    } else if client.unmended() > 0 {
        code = exit::SECURITY;
        lines.push(format!(
            "LOST: {} of older backups that the server has lost or damaged are not on this device. Which \
             files that concerns: strongroom backup verify",
            plural(client.unmended(), "piece")
        ));
    }
    let mut warnings = [warnings, crate::device::waiting_warnings(&client)].concat();
    warnings.extend(crate::keep::mark_warning(client.marked_by_others()));
    let data = json!({
        "folders": data,
        "lost_objects": lost,
        "lost_pieces_not_here": client.unmended(),
    });
    Ok(Done::new(lines.join("\n"), data).with_warnings(warnings, code))
}

pub(crate) fn snapshots(args: &Args, forgotten: bool) -> Result<Done, Failure> {
    let mut client = client(args)?;
    let snapshots = if forgotten { client.forgotten()? } else { client.snapshots()? };
    let names = if forgotten { client.devices()? } else { Vec::new() };
    let by = |snapshot: &SnapshotInfo| {
        let Some(mark) = snapshot.forgotten else { return String::new() };
        let device = names.iter().find(|device| device.id == mark.by);
        let name = device.and_then(|device| device.name.clone());
        let removed = device.is_none_or(|device| device.removed.is_some());
        format!(
            "\n           marked {} on {}{}",
            time(mark.time_s),
            printable(&name.unwrap_or_else(|| short(&mark.by.to_string()).to_owned())),
            if removed { ", which was taken out since: prune leaves it" } else { "" }
        )
    };
    let lines: Vec<String> =
        snapshots.iter().map(|snapshot| snapshot_line(snapshot) + &by(snapshot)).collect();
    let apart = match client.limited_devices() {
        0 => "",
        _ if of(args).is_some() || client.is_limited() => "",
        _ => {
            "\nThe backups of your append-only devices are apart: strongroom backup snapshots --of DEVICE"
        }
    };
    let text = if lines.is_empty() && forgotten {
        "No snapshot is marked to be forgotten.".into()
    } else if lines.is_empty() {
        "There is no snapshot yet. Make one: strongroom backup now".into()
    } else {
        lines.join("\n")
    };
    let text = text + apart;
    let data: Vec<Value> = snapshots.iter().map(snapshot_json).collect();
    let warnings = overreach_warning(&client)?.into_iter().collect();
    Ok(Done::new(text, json!({ "snapshots": data })).with_warnings(warnings, 0))
}

pub(crate) fn restore(
    args: &Args,
    output: &Output,
    what: &OsStr,
    to: Option<&Path>,
    in_place: bool,
    limits: LimitArgs,
) -> Result<Done, Failure> {
    let (which, path) = split(what);
    let target = match to {
        Some(to) if !in_place => Target::Folder(to.to_owned()),
        _ => Target::InPlace,
    };
    let mut client = client(args)?;
    limits.apply(&mut client);
    end_on_ctrl_c(SAFE);
    let server = client.server()?;
    let (snapshot, report) =
        with_progress(output, &server, |progress| client.restore(&which, path, &target, progress))?;
    let place = to.map_or_else(|| "its place".into(), shown);
    let mut text = format!(
        "Restored {}, {}, to {place}, from {} as it was on {}.",
        plural(report.files, "file"),
        bytes(report.bytes),
        shown(&snapshot.path),
        time(snapshot.time_s),
    );
    if !report.refused.is_empty() {
        text.push_str(&format!(
            "\nREFUSED: {}: what the server stores of them is not what was backed up. The rest is \
             in place.",
            plural(report.refused.len() as u64, "entry").replace("entrys", "entries")
        ));
    }
    let warnings = refused_lines(output, report.refused.iter().chain(&report.failed));
    let code = if !report.refused.is_empty() {
        exit::SECURITY
    } else if !report.failed.is_empty() {
        exit::PARTLY
    } else {
        0
    };
    let data = json!({
        "snapshot": snapshot_json(&snapshot),
        "files": report.files,
        "bytes": report.bytes,
        "refused": refused_json(&report.refused),
        "failed": refused_json(&report.failed),
    });
    Ok(Done::new(text, data).with_warnings(warnings, code))
}

/// Checks, and stores anew what is damaged and still here.
pub(crate) fn verify(
    args: &Args,
    output: &Output,
    read_data: ReadData,
    limits: LimitArgs,
) -> Result<Done, Failure> {
    let mut client = client(args)?;
    limits.apply(&mut client);
    end_on_ctrl_c(SAFE);
    let server = client.server()?;
    let report = with_progress(output, &server, |progress| client.verify(read_data, progress))?;
    if report.is_whole() {
        return Ok(Done::new(whole_text(&report), verify_json(&report, None)));
    }
    let text = refused_text(&report);
    let found = refused_lines(output, report.files.iter());
    // Before anything is sent for it: what is found, and that it is refused.
    if !output.json {
        output.tell(&format!("{text}\n{}", found.join("\n")));
    }
    let repaired = with_progress(output, &server, |progress| {
        match client.backup(None, progress) {
            // There is nothing on this device to mend it from.
            Err(ClientError::NotFound(_)) => return Ok(None),
            done => done?,
        };
        client.verify(ReadData::Nothing, progress).map(Some)
    })?;
    let left = repaired.as_ref().map_or(&report.files, |repaired| &repaired.files);
    let mended = report.files.len().saturating_sub(left.len()) as u64;
    let outcome = if repaired.as_ref().is_some_and(sr_client::VerifyReport::is_whole) {
        "From this device, everything was stored again just now: all of it can be had back.".into()
    } else {
        format!(
            "From this device, {} stored again just now; {} can't be had back. Another device that still \
             has {}: run this there.",
            match mended {
                1 => "1 file was".into(),
                n => format!("{n} files were"),
            },
            plural(left.len() as u64, "file"),
            if left.len() == 1 { "it" } else { "them" },
        )
    };
    let warnings = if repaired.is_some() { refused_lines(output, left.iter()) } else { Vec::new() };
    let data = verify_json(&report, Some(left));
    Ok(Done::new(outcome, data).with_warnings(warnings, exit::SECURITY))
}

/// What of a check a person wants to hear, and nothing more than is known.
fn whole_text(report: &VerifyReport) -> String {
    if report.snapshots == 0 {
        return "There is no snapshot yet. Make one: strongroom backup now".into();
    }
    let snapshots = match report.snapshots {
        1 => "The one snapshot".into(),
        n => format!("All {} snapshots", count(n)),
    };
    let before = match report.all_read_s {
        Some(when_s) => {
            format!("On {} all content that there was then was read.", time(when_s))
        }
        None => {
            "This device has never read all of it back: strongroom backup verify --read-data".into()
        }
    };
    let mut text = if report.packs_read == 0 {
        format!(
            "{snapshots} can be had back, by the word of the server: it has everything that they need, \
             and the lists are whole. No content was read. {before}"
        )
    } else if report.packs_read == report.packs {
        format!(
            "{snapshots} can be had back: all content was read again just now, {}.",
            bytes(report.bytes_read)
        )
    } else {
        format!(
            "{snapshots} can be had back, as far as was looked: the lists are whole, and {:.0} % of the \
             content, drawn by lot, was read again just now. Had the server lost or changed 1 object in \
             100, this would have found it with a probability of {:.0} %. {before}",
            100.0 * ratio(report.bytes_read, report.bytes),
            // Never rounded up to certainty.
            (100.0 * report.probability(100)).min(99.0),
        )
    };
    if !report.bad_packs.is_empty() {
        let n = report.bad_packs.len() as u64;
        text.push_str(&format!(
            " On the server, {} damaged or missing that nothing needs any more.",
            if n == 1 { "1 object is".into() } else { format!("{n} objects are") }
        ));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "for a person's eyes")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn refused_text(report: &VerifyReport) -> String {
    format!(
        "REFUSED: {} in {} of {} can't be had back whole. Damaged or missing on the server: {}.",
        plural(report.files.len() as u64, "file"),
        count(report.bad_snapshots.len() as u64),
        plural(report.snapshots, "snapshot"),
        plural(report.bad_packs.len() as u64, "object"),
    )
}

fn verify_json(report: &VerifyReport, left: Option<&Vec<RefusedFile>>) -> Value {
    let packs: Vec<Value> = report
        .bad_packs
        .iter()
        .map(|(pack, why)| json!({ "pack": pack.to_string(), "why": why.to_string() }))
        .collect();
    let bad_snapshots: Vec<String> = report.bad_snapshots.iter().map(ToString::to_string).collect();
    json!({
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "bytes": report.bytes,
        "all_read_s": report.all_read_s,
        "finds_1_in_100_with": report.probability(100),
        "bad_packs": packs,
        "bad_snapshots": bad_snapshots,
        "lists_damaged": report.lists_damaged,
        "files": refused_json(&report.files),
        "files_after_repair": left.map(|left| refused_json(left)),
    })
}

fn report_line(report: &BackupReport) -> String {
    let skipped = match report.skipped.len() as u64 {
        0 => String::new(),
        n => format!(
            ", {} not as they are (listed below)",
            plural(n, "entry").replace("entrys", "entries")
        ),
    };
    let Some(snapshot) = report.snapshot else {
        return format!("!   {}: not backed up, it can't be read", shown(&report.path));
    };
    if !report.is_new {
        return format!(
            "ok  {}: nothing changed since snapshot {}",
            shown(&report.path),
            short(&snapshot.to_string())
        );
    }
    let left_out = match report.left_out {
        0 => String::new(),
        n => format!(", {} left out by your rules", count(n)),
    };
    format!(
        "ok  {}: {}, {}; {} read{skipped}{left_out}. Snapshot {}",
        shown(&report.path),
        plural(report.files, "file"),
        bytes(report.bytes),
        plural(report.files_read, "file"),
        short(&snapshot.to_string()),
    )
}

fn report_json(report: &BackupReport) -> Value {
    let skipped: Vec<Value> = report
        .skipped
        .iter()
        .map(|skipped| json!({ "path": skipped.path.to_string_lossy(), "why": skipped.why }))
        .collect();
    json!({
        "path": report.path.to_string_lossy(),
        "snapshot": report.snapshot.map(|id| id.to_string()),
        "is_new": report.is_new,
        "files": report.files,
        "bytes": report.bytes,
        "files_read": report.files_read,
        "left_out": report.left_out,
        "skipped": skipped,
    })
}

pub(crate) fn snapshot_line(snapshot: &SnapshotInfo) -> String {
    let skipped = match snapshot.skipped {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    let tags = match snapshot.tags.len() {
        0 => String::new(),
        _ => format!("  [{}]", printable(&snapshot.tags.join(", "))),
    };
    format!(
        "{}  {}  {}, {}{skipped}  {} on {}{tags}",
        short(&snapshot.id.to_string()),
        time(snapshot.time_s),
        plural(snapshot.files, "file"),
        bytes(snapshot.bytes),
        shown(&snapshot.path),
        printable(&snapshot.device),
    )
}

pub(crate) fn snapshot_json(snapshot: &SnapshotInfo) -> Value {
    json!({
        "id": snapshot.id.to_string(),
        "time_s": snapshot.time_s,
        "device": snapshot.device,
        "path": snapshot.path.to_string_lossy(),
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "skipped": snapshot.skipped,
        "tags": snapshot.tags,
        "forgotten": snapshot.forgotten.map(|mark| {
            json!({ "by": mark.by.to_string(), "time_s": mark.time_s })
        }),
    })
}

fn refused_lines<'a>(
    output: &Output,
    refused: impl Iterator<Item = &'a RefusedFile>,
) -> Vec<String> {
    let mut lines: Vec<String> =
        refused.map(|file| format!("{}: {}", shown(&file.path), file.why)).collect();
    if !output.json && lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {more} more; --json lists them all"));
    }
    lines
}

fn refused_json(refused: &[RefusedFile]) -> Vec<Value> {
    refused
        .iter()
        .map(|file| json!({ "path": file.path.to_string_lossy(), "why": file.why }))
        .collect()
}

pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Eight characters and the letter suffice in commands.
fn short(id: &str) -> &str {
    id.get(..9).unwrap_or(id)
}
