//! A disk with no room left: the old files stay, the message says it, and with room again all goes on.
//!
//! The disk is a tmpfs with a file that takes all of it, mounted in a mount namespace of its own, which takes root.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::DateTime;
use clawgress::policy::model::Period;
use clawgress::store::ledger::{Entry, Ledger};
use clawgress::store::{Origin, Revision, RevisionMeta, Store};

/// Tells the test inside the namespace where the small disk is.
const SMALL_DISK: &str = "CLAWGRESS_TEST_SMALL_DISK";

#[test]
fn a_full_disk_changes_nothing() {
    on_a_small_disk("a_full_disk_changes_nothing", policies_and_revisions);
}

#[test]
fn a_ledger_on_a_full_disk_keeps_what_it_has() {
    on_a_small_disk("a_ledger_on_a_full_disk_keeps_what_it_has", ledgers);
}

/// Runs the test of this name again, in a namespace with a small disk, where it does the work.
fn on_a_small_disk(test: &str, work: fn(&Path)) {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return work(Path::new(&disk));
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP: {test} needs root to mount a small disk");
        assert!(std::env::var_os("CI").is_none(), "no skipping in a pipeline");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" && exec \"$2\" --exact \"$3\" --nocapture";
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SMALL_DISK, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

fn policies_and_revisions(disk: &Path) {
    let revision = |number: u64, policy: String| Revision {
        meta: RevisionMeta {
            revision: number,
            sha256: "0".repeat(64),
            origin: Origin::Cli,
            applied_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            key_id: None,
            lists: Vec::new(),
        },
        policy,
    };
    let mut store = Store::open(&disk.join("policy.json"), &disk.join("state")).unwrap();
    let first = revision(1, "{\"version\": 1}".to_owned());
    store.write_policy(&first.policy).unwrap();
    store.record(&first).unwrap();
    let ballast = disk.join("ballast");
    let filled = fs::write(&ballast, vec![b'x'; 512 * 1024]);
    assert!(filled.is_err(), "the disk is small");

    let big = " ".repeat(64 * 1024);
    let error = store.write_policy(&big).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    let told = error.to_string();
    assert!(told.starts_with("cannot write /"), "{told}");
    assert!(told.ends_with("policy.json: the disk is full; make room and try again"), "{told}");
    assert!(store.record(&revision(2, big.clone())).unwrap_err().is_disk_full());

    assert_eq!(store.stored_policy().unwrap().as_deref(), Some(first.policy.as_str()));
    let last = store.last_good().unwrap();
    assert_eq!(last.value.as_ref(), Some(&first));
    assert!(last.damage.is_empty());
    assert_eq!(store.next_revision(), 3, "the number of what may be in force is used up");
    drop(store);
    let mut store = Store::open(&disk.join("policy.json"), &disk.join("state")).unwrap();
    assert_eq!(store.last_good().unwrap().value, Some(first));

    fs::remove_file(&ballast).unwrap();
    store.write_policy(&big).unwrap();
    store.record(&revision(3, big.clone())).unwrap();
    assert_eq!(store.stored_policy().unwrap(), Some(big));
    assert_eq!(fs::read_dir(disk).unwrap().count(), 2, "policy.json, state and no part of a file");
}

fn ledgers(disk: &Path) {
    let entry = |number: u32| Entry {
        number,
        host: "agent".to_owned(),
        domain: format!("n{number}.example.com"),
        period: Period::Day,
        start: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        granted: 65_536,
        carried: 0,
        passed: 0,
        merged4: 0,
        merged6: 0,
    };
    let (mut ledger, _) = Ledger::open(disk).unwrap();
    ledger.append(&[entry(1), entry(2)]).unwrap();
    let file = disk.join("ledger");
    let whole = fs::read(&file).unwrap();
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![b'x'; 512 * 1024]).unwrap_err();

    // More than the page that the file has already, so the write stops in the middle of a line.
    let many: Vec<Entry> = (3..100).map(entry).collect();
    let error = ledger.append(&many).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("cannot write {}: the disk is full; make room and try again", file.display())
    );
    assert_eq!(fs::read(&file).unwrap(), whole, "the part that went in is cut off");
    assert!(ledger.compact(&many).unwrap_err().is_disk_full());
    assert_eq!(fs::read_dir(disk).unwrap().count(), 2, "ledger, ballast and no part of a file");
    // There is room for one in the page that the file has.
    ledger.append(&[entry(100)]).unwrap();
    assert_eq!(Ledger::open(disk).unwrap().1.entries.len(), 3);

    // A damaged one stays in its place until the new one can be made.
    let before = fs::read(&file).unwrap();
    fs::write(&file, [&before[..], b"?\n"].concat()).unwrap();
    let (mut damaged, loaded) = Ledger::open(disk).unwrap();
    assert!(loaded.damage.is_some());
    assert!(damaged.set_aside(7, &many).unwrap_err().is_disk_full());
    assert_eq!(fs::read_dir(disk).unwrap().count(), 2, "ledger and ballast");
    damaged.append(&[entry(101)]).unwrap_err();
    fs::remove_file(&ballast).unwrap();
    damaged.set_aside(7, &many).unwrap();
    assert_eq!(Ledger::open(disk).unwrap().1.entries.len(), many.len());
}
