//! `backup forget`, `pin`, `tag`, `prune`, `undelete`.

use serde_json::{Value, json};
use sr_client::{Judged, Keep, PINNED, Progress, PruneReport, Reason, SnapshotInfo};

use crate::{
    args::{Args, ForgetArgs, TagArgs},
    backup::{SAFE, snapshot_json, snapshot_line},
    failure::Failure,
    interrupt::end_on_ctrl_c,
    output::{Done, Output, bytes, count, plural},
    status::{backup_command, client},
    terminal::with_progress,
};

const DAY_S: u64 = 86_400;

pub(crate) fn forget(args: &Args, wanted: &ForgetArgs) -> Result<Done, Failure> {
    let keep = keep_of(wanted);
    if wanted.undo {
        let back = client(args)?.unforget(&wanted.snapshots)?;
        let text = format!("ok  {} back", are(back.len() as u64, "snapshot"));
        return Ok(listed(text, &back));
    }
    match (wanted.snapshots.is_empty(), keep.is_empty()) {
        (false, true) if wanted.dry_run => {
            Err(Failure::usage("--dry-run is for rules", "Give --keep-… with it."))
        }
        (false, true) => {
            let gone = client(args)?.forget(&wanted.snapshots)?;
            let gone_text = are(gone.len() as u64, "snapshot");
            let text = format!("ok  {gone_text} marked\n{}", how_to_undo(args));
            Ok(listed(text, &gone))
        }
        (true, false) => {
            let judged = client(args)?.forget_by(&keep, wanted.dry_run)?;
            Ok(judged_done(args, &judged, wanted.dry_run))
        }
        _ => Err(Failure::usage(
            "which snapshots?",
            "Name them by their ids from `backup snapshots`, or give a rule: --keep-daily 7 \
             --keep-weekly 4 --keep-monthly 12.",
        )),
    }
}

fn how_to_undo(args: &Args) -> String {
    format!(
        "They can be had back with `{}` until a `{}` in three days or more.",
        backup_command(args, "forget --undo"),
        backup_command(args, "prune")
    )
}

pub(crate) fn tag(args: &Args, wanted: &TagArgs) -> Result<Done, Failure> {
    let tagged = client(args)?.tag(&wanted.snapshots, &wanted.tag, !wanted.remove)?;
    let how = if wanted.remove { "without" } else { "with" };
    let text = format!("ok  {} {how} that tag", plural(tagged.len() as u64, "snapshot"));
    Ok(listed(text, &tagged))
}

pub(crate) fn pin(args: &Args, snapshots: &[String], undo: bool) -> Result<Done, Failure> {
    let pinned = client(args)?.tag(snapshots, PINNED, !undo)?;
    let what = if undo { "pinned no longer" } else { "pinned: no rule and no command forgets it" };
    let text = format!("ok  {} {what}", are(pinned.len() as u64, "snapshot"));
    Ok(listed(text, &pinned))
}

pub(crate) fn prune(args: &Args, output: &Output, dry_run: bool) -> Result<Done, Failure> {
    let mut client = client(args)?;
    end_on_ctrl_c(SAFE);
    let server = client.server()?;
    let report =
        with_progress(output, &server, |progress: &Progress| client.prune(dry_run, progress))?;
    Ok(Done::new(prune_text(args, &report, dry_run), prune_json(&report)))
}

pub(crate) fn undelete(args: &Args) -> Result<Done, Failure> {
    let back = client(args)?.undelete()?;
    let text = if back.snapshots == 0 && back.packs == 0 {
        "The server keeps nothing that was pruned: there is nothing to bring back.".into()
    } else {
        format!(
            "ok  {} back in the list. Check them: {}",
            are(back.snapshots, "snapshot"),
            backup_command(args, "verify")
        )
    };
    Ok(Done::new(text, json!({ "snapshots": back.snapshots, "packs": back.packs })))
}

fn keep_of(wanted: &ForgetArgs) -> Keep {
    Keep {
        last: wanted.keep_last,
        hourly: wanted.keep_hourly,
        daily: wanted.keep_daily,
        weekly: wanted.keep_weekly,
        monthly: wanted.keep_monthly,
        yearly: wanted.keep_yearly,
        within_s: wanted.keep_within.unwrap_or(0),
        tags: wanted.keep_tag.clone(),
    }
}

fn judged_done(args: &Args, judged: &[Judged], dry_run: bool) -> Done {
    let mut text = String::new();
    for (snapshot, reasons) in judged {
        let why: Vec<&str> = reasons.iter().map(|reason| word(*reason)).collect();
        let why = if why.is_empty() { "goes".into() } else { format!("stays: {}", why.join(", ")) };
        text.push_str(&format!("{}  {why}\n", snapshot_line(snapshot)));
    }
    let going = judged.iter().filter(|(_, reasons)| reasons.is_empty()).count();
    text.push_str(&if dry_run {
        format!("{} would be marked; nothing was changed.", plural(going as u64, "snapshot"))
    } else if going == 0 {
        "ok  nothing to forget".into()
    } else {
        format!("ok  {} marked\n{}", are(going as u64, "snapshot"), how_to_undo(args))
    });
    let list: Vec<Value> = judged
        .iter()
        .map(|(snapshot, reasons)| {
            let mut object = snapshot_json(snapshot);
            let why: Vec<&str> = reasons.iter().map(|reason| word(*reason)).collect();
            object["stays"] = why.into();
            object
        })
        .collect();
    Done::new(text, json!({ "snapshots": list, "going": going, "dry_run": dry_run }))
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Last => "last",
        Reason::Hourly => "hourly",
        Reason::Daily => "daily",
        Reason::Weekly => "weekly",
        Reason::Monthly => "monthly",
        Reason::Yearly => "yearly",
        Reason::Within => "within",
        Reason::Tag => "tag",
        Reason::Time => "its time does not fit those before it",
    }
}

fn prune_text(args: &Args, report: &PruneReport, dry_run: bool) -> String {
    let mut text = if report.packs == 0 {
        "Nothing can be freed.".to_owned()
    } else {
        let goes = match (report.snapshots, dry_run) {
            (0, _) => String::new(),
            (n, true) => format!("{} would go. ", plural(n, "forgotten snapshot")),
            (n, false) => format!("{} gone. ", are(n, "forgotten snapshot")),
        };
        format!(
            "{goes}{} about {} of {} at the server, after it has kept that for three days more.",
            if dry_run { "It would free" } else { "It frees" },
            bytes(report.bytes),
            bytes(report.bytes + report.bytes_left),
        )
    };
    if report.repacked > 0 {
        let how = if dry_run { "would be" } else { "was" };
        text.push_str(&format!(" For that, {} {how} packed anew.", bytes(report.repacked)));
    }
    if report.waiting > 0 {
        text.push_str(&format!(
            "\n{} to be forgotten wait{}: run this each day, and in {} they go. Until then: {}",
            plural(report.waiting, "snapshot"),
            if report.waiting == 1 { "s" } else { "" },
            plural(report.wait_s.div_ceil(DAY_S), "day"),
            backup_command(args, "forget --undo"),
        ));
    }
    if report.unmarked > 0 {
        text.push_str(&format!(
            "\n{} marked stay{}: pinned, or marked by a device that was taken out since or that took \
             this one's name. Forget them again if that is what you want.",
            plural(report.unmarked, "snapshot"),
            if report.unmarked == 1 { "s" } else { "" },
        ));
    }
    text
}

fn prune_json(report: &PruneReport) -> Value {
    json!({
        "snapshots": report.snapshots,
        "waiting": report.waiting,
        "wait_s": report.wait_s,
        "of_removed_devices": report.unmarked,
        "packs": report.packs,
        "bytes": report.bytes,
        "repacked": report.repacked,
        "bytes_left": report.bytes_left,
    })
}

/// `1 snapshot is`, `2 snapshots are`.
fn are(number: u64, one: &str) -> String {
    format!("{} {}", plural(number, one), if number == 1 { "is" } else { "are" })
}

fn listed(text: String, snapshots: &[SnapshotInfo]) -> Done {
    let data: Vec<Value> = snapshots.iter().map(snapshot_json).collect();
    Done::new(text, json!({ "snapshots": data }))
}

/// Returns what to say of snapshots that other devices want gone.
pub(crate) fn mark_warning(marked: u64) -> Option<String> {
    (marked > 0).then(|| {
        format!(
            "another device has marked {} snapshot{} to be forgotten; if that was not you: strongroom \
             backup forget --undo, and strongroom device revoke",
            count(marked),
            if marked == 1 { "" } else { "s" }
        )
    })
}
