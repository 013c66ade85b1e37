//! Any octets as a list of names in a file: reading ends, says the same whatever pieces it comes in, and what is kept of
//! it is the whole of it.

use std::net::IpAddr;

use clawgress::policy::domain;
use clawgress::policy::lists::{Contents, CopyReader, MAX_RULES, Reader};
use clawgress::policy::model::ListFormat;

/// Panics where a promise is broken. The first octet chooses the format and the size of the pieces.
pub fn check(data: &[u8]) {
    let Some((choice, octets)) = data.split_first() else { return };
    let format = ListFormat::ALL[usize::from(choice % 4)];
    let Some(list) = read(format, octets, octets.len().max(1)) else { return };
    assert_eq!(read(format, octets, usize::from(choice / 4) + 1).as_ref(), Some(&list), "pieces change nothing");

    let entries: Vec<_> = list.entries().collect();
    let report = list.report();
    assert_eq!(entries.len(), (report.names + report.exceptions) as usize);
    assert_eq!(list.networks().count(), report.networks as usize);
    for entry in &entries {
        let text = entry.pattern.to_string();
        assert_eq!(domain::pattern(&text).as_ref(), Ok(&entry.pattern), "only what a policy could write");
        assert_eq!(list.line_of(&entry.pattern), Some(entry.line));
        assert!((1..=report.lines).contains(&entry.line));
        // The apex, or a name below it.
        let name = text.replace('*', "x");
        if let Ok(name) = domain::name(&name) {
            let closest = list.closest(&name).expect("something covers it");
            assert!(closest.pattern.closeness() >= entry.pattern.closeness());
            assert!(list.denies(&name).is_none() == closest.exception);
        }
    }
    for network in list.networks() {
        let denied = list.denies_address(network.net.network());
        assert!(denied.is_none_or(|found| found.net.prefix_len() >= network.net.prefix_len()));
    }
    assert!(!list.denies_address(IpAddr::from([192, 0, 2, 1])).is_some_and(|found| found.exception));

    let mut copy = Vec::new();
    list.write_copy(&mut copy).expect("memory takes everything");
    let mut reader = CopyReader::default();
    reader.feed(&copy).expect("shorter than a file");
    let again = reader.finish(list.digest()).expect("a copy");
    assert_eq!((again.entries().collect::<Vec<_>>(), again.report()), (entries, report));
    // Octets of strangers are hardly ever a copy, and never one with that digest.
    let mut reader = CopyReader::default();
    assert!(reader.feed(octets).is_err() || reader.finish(list.digest()).is_none() || octets == copy);
}

fn read(format: ListFormat, octets: &[u8], pieces: usize) -> Option<Contents> {
    let mut reader = Reader::new(format, octets.len() as u64, MAX_RULES);
    for piece in octets.chunks(pieces) {
        reader.feed(piece).ok()?;
    }
    reader.finish().ok()
}
