#![no_main]

#[path = "../../crates/sr-vault/tests/it/house.rs"]
mod house;
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("pack", bytes));
