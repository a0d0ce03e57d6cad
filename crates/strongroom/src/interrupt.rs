//! Ctrl-C: everything that was acknowledged is durable, so the process may end at once.

use std::{
    io,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{failure::exit, output::write_lines};

/// What goes before the process does.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Five seconds in all.
const REMOVE_TRIES: u32 = 100;
const REMOVE_INTERVAL: Duration = Duration::from_millis(50);

/// Set when the process is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends the process with exit code 130 and one line at Ctrl-C and at SIGTERM.
pub(crate) fn end_on_ctrl_c(message: &'static str) {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(asked_to_end()).is_ok()) {
            ENDING.store(true, Ordering::SeqCst);
            let scratch = SCRATCH.lock().ok().and_then(|scratch| scratch.clone());
            let said = match scratch.filter(|dir| !remove(dir)) {
                None => message.to_owned(),
                Some(dir) => format!("interrupted; remove {} yourself", dir.display()),
            };
            write_lines(&mut io::stderr().lock(), &said);
            process::exit(i32::from(exit::INTERRUPTED));
        }
    };
    // Without the thread, Ctrl-C ends the process as it does any other.
    let _ = thread::Builder::new().name("ctrl-c".into()).spawn(wait);
}

/// Removes what the other threads may still be writing to: under another name, they find it no more, and what
/// they make anew goes in the next round.
fn remove(dir: &Path) -> bool {
    let beside = dir.with_extension("ending");
    let mut rounds_without = 0;
    (0..REMOVE_TRIES).any(|_| {
        let _ = std::fs::rename(dir, &beside);
        let _ = std::fs::remove_dir_all(&beside);
        thread::sleep(REMOVE_INTERVAL);
        let is_gone = !dir.exists() && !beside.exists();
        rounds_without = if is_gone { rounds_without + 1 } else { 0 };
        rounds_without == 3
    })
}

/// Waits for the end if it is near, so that nothing is said of what the ending itself breaks.
pub(crate) fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// Returns at the first signal that asks a process to end. A hang-up is left to `nohup`.
pub(crate) async fn asked_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

/// Names a directory that is deleted when Ctrl-C ends the process.
#[cfg(feature = "server")]
pub(crate) fn delete_on_ctrl_c(dir: PathBuf) {
    if let Ok(mut scratch) = SCRATCH.lock() {
        *scratch = Some(dir);
    }
}
