//! How results leave: text or one JSON object on stdout, notes on stderr.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::failure::{Failure, exit};

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// A command that was done, wholly or in part.
#[derive(Debug)]
pub(crate) struct Done {
    text: String,
    data: Value,
    warnings: Vec<String>,
    exit: u8,
}

impl Done {
    pub(crate) fn new(text: String, data: Value) -> Self {
        Self { text, data, warnings: Vec::new(), exit: 0 }
    }

    /// Makes a result that was printed already.
    #[cfg(feature = "server")]
    pub(crate) fn silent() -> Self {
        Self::new(String::new(), Value::Null)
    }

    /// Adds what is not as it should be, and the exit code that says so.
    pub(crate) fn with_warnings(mut self, warnings: Vec<String>, exit: u8) -> Self {
        self.warnings = warnings;
        self.exit = exit;
        self
    }
}

impl Output {
    /// Writes a line for people to stderr.
    #[cfg(feature = "server")]
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet && !self.json {
            write_lines(&mut io::stderr().lock(), line);
        }
    }

    /// Writes to stderr what a person must see to go on, whatever was asked for.
    pub(crate) fn tell(&self, line: &str) {
        write_lines(&mut io::stderr().lock(), line);
    }

    /// Prints the result and returns the exit code.
    pub(crate) fn finish(&self, result: Result<Done, Failure>) -> ExitCode {
        match result {
            Ok(done) => self.done(&done),
            Err(failure) => self.failed(&failure),
        }
    }

    fn done(&self, done: &Done) -> ExitCode {
        if self.json && !done.data.is_null() {
            let ok = done.exit == 0 || done.exit == exit::PARTLY;
            let object = json!({ "ok": ok, "v": 1, "data": done.data, "warnings": done.warnings });
            if let Err(code) = print(&object.to_string()) {
                return code;
            }
        } else if !self.json {
            let is_wanted = !self.quiet || done.exit != 0;
            if is_wanted
                && !done.text.is_empty()
                && let Err(code) = print(&done.text)
            {
                return code;
            }
            for warning in &done.warnings {
                write_lines(&mut io::stderr().lock(), &format!("warning: {warning}"));
            }
        }
        ExitCode::from(done.exit)
    }

    fn failed(&self, failure: &Failure) -> ExitCode {
        if self.json {
            let object = json!({ "ok": false, "v": 1, "error": {
                "code": failure.code,
                "title": failure.title,
                "what_it_means": failure.meaning,
                "what_we_did": failure.did,
                "what_you_can_do": failure.next,
                "docs": format!("docs/errors.md#{}", failure.code.to_lowercase()),
            }});
            write_lines(&mut io::stdout().lock(), &object.to_string());
        } else {
            let mut text = format!("error: {}\n", failure.title);
            text.push_str(&format!("  {}\n  {}\n", failure.meaning, failure.did));
            for next in &failure.next {
                text.push_str(&format!("hint: {next}\n"));
            }
            write_lines(&mut io::stderr().lock(), text.trim_end());
        }
        ExitCode::from(failure.exit)
    }
}

/// Prints the result. A reader that went away (`| head`) is no error; a full disk is.
fn print(text: &str) -> Result<(), ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(format!("{text}\n").as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            write_lines(&mut io::stderr().lock(), &format!("error: the result: {error}"));
            Err(ExitCode::from(exit::FAILED))
        }
        _ => Ok(()),
    }
}

/// Prints what the command line's parser has to say: help, a version, or an error, which is a JSON
/// object when one is asked for.
pub(crate) fn usage_error(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if json && error.use_stderr() {
        let text = error.to_string();
        let said = text.split("\n\n").next().unwrap_or_default();
        let title = said.trim_start_matches("error: ").replace('\n', " ");
        let next = "`strongroom help` shows the commands, and `--help` after one its arguments.";
        return Output { json, quiet: false }.finish(Err(Failure::usage(title, next)));
    }
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 })
}

/// Writes text and a line end. A reader that went away (`| head`) is no error.
pub(crate) fn write_lines(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
    let _ = to.write_all(b"\n");
    let _ = to.flush();
}

/// Returns a number with commas: `1,204`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes in the unit that fits: `1.5 GB`.
pub(crate) fn bytes(number: u64) -> String {
    let (mut whole, mut unit) = (number, 0);
    let mut rest = 0;
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    while whole >= 1000 && unit + 1 < UNITS.len() {
        rest = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} {}", UNITS[0])
    } else {
        format!("{whole}.{rest} {}", UNITS[unit])
    }
}

/// Returns one of something, or many: `1 file`, `2 files`.
pub(crate) fn plural(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", count(number)) }
}

/// Returns text from a file name or another source that may hold anything, fit for a terminal:
/// control characters are shown, not obeyed.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let shown: Vec<char> =
                if c.is_control() { c.escape_default().collect() } else { vec![c] };
            shown
        })
        .collect()
}

/// Returns a UTC time to the minute: `2026-11-22 14:05 UTC`.
pub(crate) fn time(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second % 3600 / 60)
}

/// Returns the date of a day counted from 1970-01-01. Source: Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`, for days that are not negative.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(count(1204), "1,204");
        assert_eq!(count(12), "12");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_540_000), "1.5 MB");
        assert_eq!(plural(1, "file"), "1 file");
        assert_eq!(time(0), "1970-01-01 00:00 UTC");
        assert_eq!(time(951_827_640), "2000-02-29 12:34 UTC");
        assert_eq!(time(1_795_314_945), "2026-11-22 02:35 UTC");
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
