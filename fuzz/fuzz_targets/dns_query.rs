#![no_main]
//! See `checks/dns_query.rs`.

#[path = "../checks/dns_query.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
