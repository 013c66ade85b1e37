#![no_main]
//! See `checks/ledger.rs`.

#[path = "../checks/ledger.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
