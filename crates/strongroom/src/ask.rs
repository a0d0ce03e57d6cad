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
