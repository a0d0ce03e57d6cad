#![no_main]

#[path = "../log_targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("evidence", bytes));
