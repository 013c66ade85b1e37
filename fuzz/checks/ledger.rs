//! Any octets as a ledger: reading ends and says the same twice, what is believed can be written again, and no octet of
//! it can change unseen.

use clawgress::store::ledger::Entry;
use clawgress::store::ledger::journal::{Reading, Sum, read, write};

/// The first line of every ledger.
const HEADER: &[u8] = b"{\"ledger\":1}\n";

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let reading = read(data).expect("octets can be read");
    assert_eq!(reading, read(data).expect("octets can be read"));
    if reading.damage.is_none() {
        believed(data, &reading);
    }
    resealed(data);
}

fn number(length: u64) -> usize {
    usize::try_from(length).expect("a length in memory")
}

/// A ledger without damage: `data`, but for a torn end.
fn believed(data: &[u8], reading: &Reading) {
    let (whole, torn) = data.split_at(number(reading.length));
    assert!(whole.ends_with(b"\n") && !torn.contains(&b'\n'), "only the last line can be torn");
    assert_eq!(whole.iter().filter(|octet| **octet == b'\n').count(), reading.records + 1);
    let again = read(whole).expect("octets can be read");
    assert_eq!(&again, reading, "what is cut off says nothing");
    assert!(reading.entries.values().all(|entry| entry.number <= reading.highest && entry.number < u32::MAX));

    let entries: Vec<Entry> = reading.entries.values().cloned().collect();
    let (lines, _) = write(&entries, Sum::FIRST).expect("what was read can be written");
    let anew = read(&[HEADER, &lines].concat()[..]).expect("octets can be read");
    assert_eq!((anew.damage, anew.entries), (None, reading.entries.clone()));

    let draw = data.iter().fold(7_usize, |sum, octet| sum.wrapping_mul(31).wrapping_add(usize::from(*octet)));
    let mut changed = whole.to_vec();
    let at = draw % changed.len();
    changed[at] ^= u8::try_from(draw % 255 + 1).expect("an octet");
    assert!(read(&changed[..]).expect("octets can be read").damage.is_some(), "octet {at} changed unseen");
    let cut = read(&whole[..at]).expect("octets can be read");
    assert_eq!(cut.damage.is_some(), at < HEADER.len(), "cut to {at}");
    assert!(cut.records <= reading.records);
}

/// Each line of `data` as the fields of an entry, with a sum that agrees: damage to the text behind the sums.
fn resealed(data: &[u8]) {
    let mut journal = HEADER.to_vec();
    let mut sum = Sum::FIRST;
    for line in data.split(|octet| *octet == b'\n') {
        // {"sum":"0123456789abcdef","number":…}
        let fields = line.strip_prefix(b"{\"sum\":\"").and_then(|rest| rest.get(16..)).unwrap_or(line);
        sum = sum.after(fields);
        journal.extend([b"{\"sum\":\"", sum.digits(), fields, b"\n"].concat());
    }
    let reading = read(&journal[..]).expect("octets can be read");
    if reading.damage.is_none() {
        believed(&journal, &reading);
    }
}
