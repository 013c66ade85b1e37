#![no_main]
//! See `checks/nflog.rs`.

#[path = "../checks/nflog.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
