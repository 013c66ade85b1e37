#![no_main]
//! See `checks/lists.rs`.

#[path = "../checks/lists.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
