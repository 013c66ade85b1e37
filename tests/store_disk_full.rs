//! A disk with no room left: the old files stay, the message says it, and with room again all goes on.
//!
//! The disk is a tmpfs with a file that takes all of it, mounted in a mount namespace of its own, which takes root.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::DateTime;
use clawgress::store::{Origin, Revision, RevisionMeta, Store};

/// Tells the test inside the namespace where the small disk is.
const SMALL_DISK: &str = "CLAWGRESS_TEST_SMALL_DISK";

#[test]
fn a_full_disk_changes_nothing() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return on_a_small_disk(Path::new(&disk));
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP: a_full_disk_changes_nothing needs root to mount a small disk");
        assert!(std::env::var_os("CI").is_none(), "no skipping in a pipeline");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=256k tmpfs \"$1\" && exec \"$2\" --exact a_full_disk_changes_nothing --nocapture";
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

fn on_a_small_disk(disk: &Path) {
    let revision = |number: u64, policy: String| Revision {
        meta: RevisionMeta {
            revision: number,
            sha256: "0".repeat(64),
            origin: Origin::Cli,
            applied_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            key_id: None,
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
