#![no_main]
//! See `checks/dns_filter.rs`.

#[path = "../checks/dns_filter.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
