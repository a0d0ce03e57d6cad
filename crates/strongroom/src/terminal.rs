//! Progress on stderr: a line that renews itself on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use sr_client::{Phase, Progress};

use crate::output::{Output, bytes, count, write_lines};

const TICK: Duration = Duration::from_millis(100);
/// Elsewhere than on a terminal, a line is printed this often at most.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Runs `work` while its progress is shown.
pub(crate) fn with_progress<T>(
    output: &Output,
    server: &str,
    work: impl FnOnce(&Progress) -> T,
) -> T {
    let progress = Progress::default();
    if output.quiet || output.json {
        return work(&progress);
    }
    let done = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let shown = scope.spawn({
            let (done, progress) = (Arc::clone(&done), progress.clone());
            move || show(&progress, server, &done)
        });
        let result = work(&progress);
        done.store(true, Ordering::Relaxed);
        // Showing can't fail in a way that matters.
        let _ = shown.join();
        result
    })
}

fn show(progress: &Progress, server: &str, done: &AtomicBool) {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    let is_terminal = io::stderr().is_terminal();
    let started = Instant::now();
    let mut printed = Instant::now();
    while !done.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        let line = line(progress, server, started.elapsed());
        if is_terminal {
            bar.set_message(line);
            bar.tick();
        } else if printed.elapsed() >= LINE_INTERVAL {
            printed = Instant::now();
            write_lines(&mut io::stderr().lock(), &line);
        }
    }
    bar.finish_and_clear();
}

fn line(progress: &Progress, server: &str, elapsed: Duration) -> String {
    let (done, total) = progress.items();
    let of =
        if total > 0 { format!("{} of {} files", count(done), count(total)) } else { count(done) };
    match progress.phase() {
        Phase::Connecting if elapsed < Duration::from_secs(2) => "connecting".into(),
        Phase::Connecting => format!("waiting for {server}"),
        Phase::Storing => format!(
            "storing: {of}, {} read, {} sent{}",
            bytes(progress.bytes()),
            bytes(progress.sent()),
            left(done, total, elapsed),
        ),
        Phase::Finishing => "making the snapshot durable".into(),
        Phase::Restoring => {
            format!("restoring: {of}, {}{}", bytes(progress.bytes()), left(done, total, elapsed))
        }
        Phase::Checking => {
            format!("checking: {} of {} packs", count(done), count(total.max(done)))
        }
    }
}

/// After ten seconds, says how long it may take, and that it may be stopped.
fn left(done: u64, total: u64, elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(10) || done == 0 || total <= done {
        return String::new();
    }
    let seconds = elapsed.as_secs() * (total - done) / done;
    format!(", about {} min left; Ctrl-C is safe", seconds / 60 + 1)
}
