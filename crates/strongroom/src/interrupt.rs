//! Ctrl-C: everything that was acknowledged is durable, so the process may end at once.

use std::{io, path::PathBuf, process, sync::Mutex, thread};

use crate::{failure::exit, output::write_lines};

/// What goes before the process does.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Ends the process with exit code 130 and one line when Ctrl-C is pressed.
pub(crate) fn end_on_ctrl_c(message: &'static str) {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let pressed = runtime.map(|runtime| runtime.block_on(tokio::signal::ctrl_c()));
        if matches!(pressed, Ok(Ok(()))) {
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

/// Names a directory that is deleted when Ctrl-C ends the process.
#[cfg(feature = "server")]
pub(crate) fn delete_on_ctrl_c(dir: PathBuf) {
    if let Ok(mut scratch) = SCRATCH.lock() {
        *scratch = Some(dir);
    }
}
