//! Questions that only a person answers.

use std::io::{self, BufRead, Write};

use crate::failure::Failure;

/// Asks on stderr and reads one line of stdin.
pub(crate) fn ask(question: &str) -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut stderr = io::stderr().lock();
    let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut line = zeroize::Zeroizing::new(String::new());
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut line));
    match read {
        Ok(0) => Err(Failure::needs_a_person("there was no answer on standard input")),
        Ok(_) => Ok(line),
        Err(error) => Err(Failure::needs_a_person(&error.to_string())),
    }
}

/// Asks for words, divided by spaces.
pub(crate) fn ask_words(question: &str) -> Result<Vec<String>, Failure> {
    Ok(ask(question)?.split_whitespace().map(str::to_owned).collect())
}

/// Asks for something that is not shown while it is typed.
pub(crate) fn ask_secret(question: &str) -> Result<zeroize::Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    let shown = rustix::termios::tcgetattr(&stdin).ok();
    let set = |modes: &rustix::termios::Termios| {
        // Where it can't be hidden, it is asked for all the same.
        let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, modes);
    };
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        set(&hidden);
    }
    let answer = ask(question);
    if let Some(shown) = &shown {
        set(shown);
        let _ = io::stderr().lock().write_all(b"\n");
    }
    let mut answer = answer?;
    let len = answer.trim_end_matches(['\r', '\n']).len();
    answer.truncate(len);
    Ok(answer)
}

/// Reads a file, or standard input for `-`.
#[cfg(feature = "server")]
pub(crate) fn read(path: &std::path::Path) -> io::Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::stdin(), &mut text).map(|_| text)
}
