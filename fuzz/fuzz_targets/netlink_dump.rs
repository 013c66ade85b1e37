#![no_main]
//! See `checks/netlink_dump.rs`.

#[path = "../checks/netlink_dump.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
