//! Lists of names, one a line, and hosts files.

use std::net::IpAddr;

use super::contents::Contents;
use super::reader::pattern;
use super::report::Fault;

/// What every hosts file has for the machine itself: neither a rule nor a mistake.
const OWN: [&str; 14] = [
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
];
/// Likewise.
const OWN_HOSTS: &str = "ip6-allhosts";

/// A name or wildcard; comments begin with `#`, `;`, `!` or `//` at the beginning of a line, `#` or `;` after a space.
pub(super) fn domains(contents: &mut Contents, number: u32, text: &str) {
    let text = text.trim();
    if text.is_empty() || text.starts_with(['#', ';', '!']) || text.starts_with("//") {
        return;
    }
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else { return };
    if words.next().is_some_and(|second| !second.starts_with(['#', ';'])) {
        return contents.reject(number, Fault::MoreWords);
    }
    match pattern(first) {
        Ok(found) => contents.add(&found, number, false),
        Err(fault) => contents.reject(number, fault),
    }
}

/// An address and names (hosts(5)). Which address it is does not matter: the file lists names.
pub(super) fn hosts(contents: &mut Contents, number: u32, text: &str) {
    let text = text.split('#').next().unwrap_or_default();
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else { return };
    // fe80::1%lo0
    let address = first.split('%').next().unwrap_or_default();
    if address.parse::<IpAddr>().is_err() && !is_short(address) {
        return contents.reject(number, Fault::NoAddress);
    }
    let mut any = false;
    for word in words {
        any = true;
        let lower = word.to_ascii_lowercase();
        // `0.0.0.0 0.0.0.0` stands in widely used lists.
        if OWN.contains(&lower.as_str()) || lower == OWN_HOSTS || lower == address {
            contents.report_mut().skipped += 1;
            continue;
        }
        match pattern(word) {
            // There are no wildcards in hosts files.
            Ok(crate::policy::name::Pattern::Below(_)) => contents.reject(number, Fault::Wildcard),
            Ok(found) => contents.add(&found, number, false),
            Err(fault) => contents.reject(number, fault),
        }
    }
    if !any {
        contents.reject(number, Fault::NoName);
    }
}

/// Whether a text is an IPv4 address as inet_aton(3) takes them besides the usual four parts: `0`, `127.1`, `127.0.1`. A
/// number alone is none unless it is zero: it would be that of a line.
fn is_short(text: &str) -> bool {
    let parts: Option<Vec<u32>> = text
        .split('.')
        .map(|part| part.parse().ok().filter(|_| part.bytes().all(|octet| octet.is_ascii_digit())))
        .collect();
    match parts.as_deref() {
        Some([0]) => true,
        Some([a, rest]) => *a < 1 << 8 && *rest < 1 << 24,
        Some([a, b, rest]) => *a < 1 << 8 && *b < 1 << 8 && *rest < 1 << 16,
        _ => false,
    }
}
