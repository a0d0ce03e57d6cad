//! Ctrl-C: everything that was acknowledged is durable, so the process may end at once.

use std::{
    io,
    path::PathBuf,
    process,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{failure::exit, output::write_lines};

/// What goes before the process does.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Set when the process is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends the process with exit code 130 and one line at Ctrl-C and at SIGTERM.
pub(crate) fn end_on_ctrl_c(message: &'static str) {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(asked_to_end()).is_ok()) {
            ENDING.store(true, Ordering::SeqCst);
            write_lines(&mut io::stderr().lock(), message);
            if let Ok(scratch) = SCRATCH.lock()
                && let Some(dir) = scratch.as_ref()
            {
                let _ = std::fs::remove_dir_all(dir);
            }
            process::exit(i32::from(exit::INTERRUPTED));
        }
    };
    // Without the thread, Ctrl-C ends the process as it does any other.
    let _ = thread::Builder::new().name("ctrl-c".into()).spawn(wait);
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
