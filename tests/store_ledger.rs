//! The ledger's promises: what was acknowledged is read again, a torn end is cut off, any change is seen, nothing is lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use clawgress::policy::model::Period;
use clawgress::store::StoreError;
use clawgress::store::ledger::journal::Sum;
use clawgress::store::ledger::{Entry, Ledger, Loaded};
use proptest::prelude::*;
use tempfile::TempDir;

/// The first line, which every ledger has.
const HEADER: &str = "{\"ledger\":1}\n";

fn entry(number: u32, granted: u64) -> Entry {
    Entry {
        number,
        host: format!("agent-{}", number % 2),
        domain: format!("*.n{number}.example.com"),
        period: Period::ALL[number as usize % 4],
        start: DateTime::from_timestamp(1_800_000_000 + i64::from(number), 0).unwrap(),
        granted,
        carried: granted / 3,
        passed: u64::MAX - granted,
        merged4: 7,
        merged6: 0,
    }
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a ledger of the appends, which is closed again.
    fn with(appends: &[&[Entry]]) -> Self {
        let place = Self::new();
        let (mut ledger, _) = place.open();
        for entries in appends {
            ledger.append(entries).unwrap();
        }
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn open(&self) -> (Ledger, Loaded) {
        Ledger::open(self.dir.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[track_caller]
fn no_damage(loaded: &Loaded) {
    assert_eq!((loaded.damage.as_deref(), loaded.fresh), (None, false));
}

#[test]
fn the_last_entry_of_a_cap_is_read_again() {
    let place = Place::new();
    let (mut ledger, loaded) = place.open();
    assert!(loaded.fresh && loaded.damage.is_none() && loaded.entries.is_empty());
    assert_eq!(loaded.next, 1);
    assert_eq!(fs::read_to_string(place.file()).unwrap(), HEADER);
    assert_eq!(mode(&place.file()), 0o600);
    ledger.append(&[entry(1, 10), entry(2, 20)]).unwrap();
    ledger.append(&[]).unwrap();
    ledger.append(&[entry(9, 5), entry(1, 30)]).unwrap();
    drop(ledger);
    let (mut ledger, loaded) = place.open();
    no_damage(&loaded);
    assert_eq!(loaded.entries, [entry(2, 20), entry(1, 30), entry(9, 5)], "by host and domain");
    assert_eq!(loaded.next, 10);

    ledger.compact(&[entry(9, 6), entry(1, 31)]).unwrap();
    assert_eq!(fs::read_to_string(place.file()).unwrap().lines().count(), 3);
    assert_eq!(mode(&place.file()), 0o600);
    ledger.append(&[entry(2, 40)]).unwrap();
    drop(ledger);
    let (_, loaded) = place.open();
    no_damage(&loaded);
    assert_eq!(loaded.entries, [entry(2, 40), entry(1, 31), entry(9, 6)]);
    assert_eq!(place.names(), ["ledger"], "no part of a file is left");
}

/// The form is a promise to later versions.
#[test]
fn a_line_is_json() {
    let place = Place::with(&[&[entry(3, 9)]]);
    let text = fs::read_to_string(place.file()).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let mut fields = line.as_object().unwrap().clone();
    let sum = fields.shift_remove("sum").unwrap();
    assert_eq!(sum.as_str().unwrap().len(), 16);
    let rest = r#"{"number":3,"host":"agent-1","domain":"*.n3.example.com","period":"day","start":"2027-01-15T08:00:03Z","granted":9,"carried":3,"passed":18446744073709551606,"merged4":7,"merged6":0}"#;
    assert_eq!(serde_json::Value::Object(fields).to_string(), rest);
}

#[test]
fn a_journal_with_four_lines_for_each_cap_is_worth_writing_anew() {
    let place = Place::new();
    let (mut ledger, _) = place.open();
    let caps = |count: u32, granted| (1..=count).map(|number| entry(number, granted)).collect::<Vec<_>>();
    ledger.append(&caps(1024, 1)).unwrap();
    assert!(!ledger.should_compact());
    for granted in 2..=4 {
        ledger.append(&caps(1024, granted)).unwrap();
        assert!(!ledger.should_compact(), "{granted} lines for each");
    }
    drop(ledger);
    let (mut ledger, loaded) = place.open();
    assert!(!ledger.should_compact());
    ledger.append(&caps(1, 5)).unwrap();
    assert!(ledger.should_compact());
    ledger.compact(&loaded.entries).unwrap();
    assert!(!ledger.should_compact());
    // Few caps: only when there are more than 1024 lines.
    ledger.compact(&[]).unwrap();
    for granted in 0..1024 {
        ledger.append(&caps(1, granted)).unwrap();
        assert!(!ledger.should_compact());
    }
    ledger.append(&caps(1, 9)).unwrap();
    assert!(ledger.should_compact());
}

#[test]
fn every_prefix_holds_what_was_acknowledged_before_its_end() {
    let entries = [entry(1, 10), entry(2, 20), entry(1, 30), entry(5, 50)];
    let place = Place::with(&[&entries[..1], &entries[1..3], &entries[3..]]);
    let whole = fs::read(place.file()).unwrap();
    for length in 0..=whole.len() {
        fs::write(place.file(), &whole[..length]).unwrap();
        let (mut ledger, loaded) = place.open();
        if length < HEADER.len() {
            assert!(loaded.damage.is_some(), "a ledger is never made without its first line: {length}");
            continue;
        }
        no_damage(&loaded);
        let lines = whole[..length].iter().filter(|octet| **octet == b'\n').count() - 1;
        let good = whole[..length].iter().rposition(|octet| *octet == b'\n').unwrap() + 1;
        assert_eq!(fs::read(place.file()).unwrap(), whole[..good], "what is torn is cut off");
        let mut due: Vec<Entry> = Vec::new();
        for entry in &entries[..lines] {
            due.retain(|old| old.number != entry.number);
            due.push(entry.clone());
        }
        due.sort_by_key(|entry| (entry.host.clone(), entry.domain.clone()));
        assert_eq!(loaded.entries, due, "{length} octets");
        // It goes on from there, and what comes next is not glued to what was torn.
        ledger.append(&[entry(7, 70)]).unwrap();
        drop(ledger);
        let (_, loaded) = place.open();
        no_damage(&loaded);
        assert_eq!((loaded.entries.len(), loaded.next), (due.len() + 1, 8));
    }
}

#[test]
fn every_changed_octet_is_damage() {
    let place = Place::with(&[&[entry(1, 10), entry(2, 20)], &[entry(1, 30)]]);
    let whole = fs::read(place.file()).unwrap();
    for at in 0..whole.len() {
        let other = u8::try_from(at % 255 + 1).unwrap();
        for mask in [1, 2, 4, 8, 16, 32, 64, 128, other, whole[at], whole[at] ^ b'\n'] {
            let mut changed = whole.clone();
            changed[at] ^= mask;
            if changed == whole {
                continue;
            }
            fs::write(place.file(), &changed).unwrap();
            let (_, loaded) = place.open();
            assert!(loaded.damage.is_some() && loaded.entries.is_empty(), "octet {at} with {mask}: {loaded:?}");
        }
    }
}

#[test]
fn lines_that_go_come_or_move_are_damage() {
    let place = Place::with(&[&[entry(1, 10), entry(2, 20), entry(3, 30)]]);
    let whole = fs::read_to_string(place.file()).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let other = Place::with(&[&[entry(4, 40)]]);
    let foreign = fs::read_to_string(other.file()).unwrap();
    for (what, order, line) in [
        ("went", vec![lines[0], lines[1], lines[3]], "line 3"),
        ("twice", vec![lines[0], lines[1], lines[1], lines[2], lines[3]], "line 3"),
        ("swapped", vec![lines[0], lines[2], lines[1], lines[3]], "line 2"),
        ("of another", vec![&whole, foreign.lines().nth(1).unwrap(), "\n"], "line 5"),
        ("two in one", vec![&whole, HEADER], "line 5 is a second first line"),
        ("empty line", vec![&whole, "\n"], "line 5"),
        ("no text", vec![&whole, "\u{0}\n"], "line 5"),
    ] {
        fs::write(place.file(), order.concat()).unwrap();
        let damage = place.open().1.damage.unwrap_or_default();
        assert!(damage.ends_with("is not as it was written") || damage.ends_with("first line"), "{what}: {damage}");
        assert!(damage.contains(line), "{what}: {damage}");
    }
}

#[test]
fn a_damaged_ledger_is_told_kept_and_not_written_to() {
    let place = Place::with(&[&[entry(1, 10), entry(2, 20), entry(6, 60)]]);
    let whole = fs::read_to_string(place.file()).unwrap();
    let broken = whole.replace("\"granted\":20", "\"granted\":21");
    fs::write(place.file(), &broken).unwrap();
    let (mut ledger, loaded) = place.open();
    let path = place.file().display().to_string();
    assert_eq!(loaded.damage, Some(format!("{path} is damaged: line 3 is not as it was written")));
    assert!(loaded.entries.is_empty() && !loaded.fresh);
    assert_eq!(loaded.next, 7, "no number of the damaged ledger is given again");
    for refused in [ledger.append(&[entry(1, 1)]), ledger.compact(&[])] {
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    }
    assert!(!ledger.should_compact());
    assert_eq!(fs::read_to_string(place.file()).unwrap(), broken);

    let kept = ledger.set_aside(1_800_000_000, &[entry(1, 99)]).unwrap();
    assert_eq!(kept, place.dir.path().join("ledger.broken-1800000000"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), broken);
    ledger.append(&[entry(2, 5)]).unwrap();
    drop(ledger);
    let (_, loaded) = place.open();
    no_damage(&loaded);
    assert_eq!(loaded.entries, [entry(2, 5), entry(1, 99)]);

    // Again within the second: the first one is not overwritten.
    fs::write(place.file(), "other\n").unwrap();
    let kept = place.open().0.set_aside(1_800_000_000, &[]).unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "other\n");
    assert_eq!(place.names(), ["ledger", "ledger.broken-1800000000", "ledger.broken-1800000000.2"]);
    assert_eq!(fs::read_to_string(place.file()).unwrap(), HEADER);
}

#[test]
fn what_is_no_ledger_is_told_in_words() {
    for (text, told) in [
        (&b""[..], "it is empty"),
        (b"{\"ledger\":2}\n", "it is of version 2, and this clawgress reads version 1"),
        (b"{\"ledger\":1}", "its first line does not say what it is"),
        (b"{\"ledger\": 1}\n", "its first line does not say what it is"),
        (b"\xff\xfe\n", "its first line does not say what it is"),
        (b"{\"ledger\":1}\n\xff\xfe\n", "line 2 is not as it was written"),
    ] {
        let place = Place::new();
        fs::write(place.file(), text).unwrap();
        let damage = place.open().1.damage.unwrap();
        assert!(damage.ends_with(&format!("ledger is damaged: {told}")), "{damage}");
    }
    let endless = Place::new();
    fs::write(endless.file(), [HEADER.as_bytes(), &[b' '; 5000]].concat()).unwrap();
    assert!(endless.open().1.damage.unwrap().ends_with("line 2 has no end"));
}

/// What a later version may write under the same header, and what nobody writes.
#[test]
fn fields_of_another_kind_are_damage() {
    let place = Place::with(&[&[entry(1, 10)]]);
    let whole = fs::read_to_string(place.file()).unwrap();
    let (sum, fields) = whole.lines().nth(1).unwrap().split_at("{\"sum\":\"0123456789abcdef".len());
    assert!(sum.as_bytes().ends_with(Sum::FIRST.after(fields.as_bytes()).digits()), "the sum is made like this");
    for (old, new) in [
        ("\"number\":1,", "\"number\":4294967295,"),
        ("\"number\":1,", "\"number\":1,\"more\":0,"),
        ("\"number\":1,", ""),
        ("\"number\":1,", "\"number\":1,\"number\":1,"),
        ("\"minute\"", "\"week\""),
        (":01Z", ":01.5Z"),
        ("}", ""),
    ] {
        let fields = fields.replacen(old, new, 1);
        let sum = String::from_utf8_lossy(Sum::FIRST.after(fields.as_bytes()).digits()).into_owned();
        fs::write(place.file(), format!("{HEADER}{{\"sum\":\"{sum}{fields}\n")).unwrap();
        let damage = place.open().1.damage.unwrap_or_default();
        assert!(damage.ends_with("line 2 is of a kind that this clawgress does not know"), "{fields}: {damage}");
    }
}

#[test]
fn links_pipes_and_directories_are_not_followed() {
    let real = Place::with(&[&[entry(1, 10)]]);
    let place = Place::new();
    symlink(real.file(), place.file()).unwrap();
    let (mut ledger, loaded) = place.open();
    assert!(loaded.damage.unwrap().ends_with("it is not a regular file"));
    let kept = ledger.set_aside(1, &[]).unwrap();
    assert_eq!(fs::read_link(kept).unwrap(), real.file());
    assert_eq!(real.open().1.entries, [entry(1, 10)], "nothing was written through the link");

    let pipe = Place::new();
    nix::unistd::mkfifo(&pipe.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(pipe.open().1.damage.unwrap().ends_with("it is not a regular file"));

    let place = Place::new();
    fs::create_dir(place.file()).unwrap();
    let (mut ledger, loaded) = place.open();
    assert!(loaded.damage.unwrap().ends_with("it is not a regular file"));
    ledger.set_aside(1, &[]).unwrap_err();
    ledger.append(&[entry(1, 1)]).unwrap_err();

    Ledger::open(Path::new("/proc/self/no such directory")).unwrap_err();
}

#[test]
fn the_rest_of_a_failed_write_is_cut_before_the_next_one() {
    let place = Place::with(&[&[entry(1, 10)]]);
    let (mut ledger, _) = place.open();
    let mut text = fs::read(place.file()).unwrap();
    let whole = text.len();
    text.extend_from_slice(&b"{\"sum\":\"0123\n".repeat(100));
    fs::write(place.file(), &text).unwrap();
    ledger.append(&[entry(2, 20)]).unwrap();
    assert_eq!(place.open().1.entries, [entry(2, 20), entry(1, 10)]);

    fs::write(place.file(), &text[..whole - 1]).unwrap();
    let error = ledger.append(&[entry(3, 30)]).unwrap_err().to_string();
    assert!(error.contains("shorter while it was in use"), "{error}");
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let place = Place::with(&[&[entry(1, 10)]]);
    let before = fs::read(place.file()).unwrap();
    let (mut ledger, _) = place.open();
    let long = Entry { domain: "x".repeat(5000), ..entry(1, 10) };
    for entries in [vec![entry(u32::MAX, 1)], vec![entry(2, 20), long]] {
        ledger.append(&entries).unwrap_err();
        ledger.compact(&entries).unwrap_err();
        assert_eq!(fs::read(place.file()).unwrap(), before);
    }
    ledger.append(&[entry(u32::MAX - 1, 1)]).unwrap();
    assert_eq!(place.open().1.next, u32::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Appends, compactions and starts in any order, against a map.
    #[test]
    fn the_ledger_is_a_map_that_survives(
        steps in prop::collection::vec((0u8..8, 1u32..6, any::<u64>(), "\\PC{0,20}"), 1..30),
    ) {
        let place = Place::new();
        let (mut ledger, _) = place.open();
        let mut model = std::collections::BTreeMap::new();
        for (step, number, granted, host) in steps {
            let entry = Entry { host: host.clone(), ..entry(number, granted) };
            let all: Vec<Entry> = model.values().cloned().collect();
            match step {
                0 => ledger.compact(&all).unwrap(),
                1 => {
                    let (opened, loaded) = place.open();
                    ledger = opened;
                    no_damage(&loaded);
                    prop_assert_eq!(loaded.entries, all);
                }
                _ => {
                    ledger.append(std::slice::from_ref(&entry)).unwrap();
                    model.insert((host, entry.domain.clone()), entry);
                }
            }
        }
        prop_assert_eq!(place.open().1.entries, model.into_values().collect::<Vec<_>>());
    }
}
