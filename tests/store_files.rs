//! The store's promises: whole files or old files, private modes, damage told and passed over.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use clawgress::store::{
    KEPT_REVISIONS, Look, Origin, Revision, RevisionMeta, Store, StoreError, Unconfirmed, Wait, read_policy,
};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    fn open(&self) -> Store {
        Store::open(&self.path("config/policy.json"), &self.path("state")).unwrap()
    }
}

fn revision(number: u64) -> Revision {
    let meta = RevisionMeta {
        revision: number,
        sha256: format!("{number:064x}"),
        origin: Origin::Import,
        applied_at: DateTime::from_timestamp(1_800_000_000 + i64::try_from(number).unwrap(), 0).unwrap(),
        key_id: None,
        lists: Vec::new(),
    };
    Revision { meta, policy: format!("{{\n  \"version\": 1,\n  \"x\": \"ü {number}\"\n}}\n") }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn what_is_written_is_read_again() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.stored_policy().unwrap(), None);
    assert!(store.last_good().unwrap().value.is_none());
    assert_eq!(store.next_revision(), 1);
    store.write_policy("{ \"version\": 1 }\n").unwrap();
    assert_eq!(store.stored_policy().unwrap().as_deref(), Some("{ \"version\": 1 }\n"));
    for number in 1..=3 {
        assert_eq!(store.next_revision(), number);
        store.record(&revision(number)).unwrap();
    }
    drop(store);
    let store = place.open();
    assert_eq!(store.next_revision(), 4);
    let last = store.last_good().unwrap();
    assert_eq!(last.value, Some(revision(3)));
    assert!(last.damage.is_empty());
    let history = store.history().unwrap();
    assert_eq!(history.value, [revision(3).meta, revision(2).meta, revision(1).meta]);
    assert_eq!(store.revision(2).unwrap(), Some(revision(2)));
    assert_eq!(store.revision(9).unwrap(), None);
}

#[test]
fn files_are_private_and_nothing_else_is_left() {
    let place = Place::new();
    let mut store = place.open();
    store.write_policy("{}").unwrap();
    store.write_policy("{ }").unwrap();
    store.record(&revision(1)).unwrap();
    let all = files(place.dir.path());
    let expected = ["config/policy.json", "state/enforced.json", "state/lock", "state/revisions/000001.json"];
    assert_eq!(all, expected.map(|part| place.path(part)));
    for file in all {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for dir in ["config", "state", "state/revisions"] {
        assert_eq!(mode(&place.path(dir)), 0o700, "{dir}");
    }
}

#[test]
fn the_last_fifty_are_kept() {
    let place = Place::new();
    let mut store = place.open();
    let last = KEPT_REVISIONS as u64 + 7;
    for number in 1..=last {
        store.record(&revision(number)).unwrap();
    }
    let numbers: Vec<u64> = store.history().unwrap().value.iter().map(|meta| meta.revision).collect();
    assert_eq!(numbers, (8..=last).rev().collect::<Vec<_>>());
}

#[test]
fn a_staged_policy_is_not_stored_until_it_is_committed() {
    let place = Place::new();
    let store = place.open();
    store.write_policy("old").unwrap();
    let staged = store.stage_policy("new").unwrap();
    assert_eq!(store.stored_policy().unwrap().as_deref(), Some("old"));
    drop(staged);
    assert_eq!(files(&place.path("config")).len(), 1, "a dropped one leaves nothing");
    store.stage_policy("newer").unwrap().commit().unwrap();
    assert_eq!(store.stored_policy().unwrap().as_deref(), Some("newer"));
}

#[test]
fn what_a_crash_left_half_written_is_swept_and_nothing_else_is() {
    let place = Place::new();
    let mut store = place.open();
    store.write_policy("whole").unwrap();
    store.record(&revision(1)).unwrap();
    // The crash: files are half-written beside their places, exactly as the store makes them.
    std::mem::forget(store.stage_policy("hal").unwrap());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let left = files(&place.path("config")).into_iter().find(|path| name(path) != "policy.json").unwrap();
    for part in ["state", "state/revisions"] {
        fs::copy(&left, place.path(part).join(name(&left))).unwrap();
    }
    let foreign = [
        place.path("config/.other.json.abc.clawgress-unfinished"),
        place.path("config/.policy.json.swp"),
        place.path("config/policy.json.clawgress-unfinished"),
    ];
    for file in &foreign {
        fs::write(file, "not ours").unwrap();
    }
    drop(store);
    let before = files(place.dir.path()).len();
    let store = place.open();
    assert_eq!(files(place.dir.path()).len(), before - 3);
    assert!(foreign.iter().all(|file| file.exists()));
    assert_eq!(store.stored_policy().unwrap().as_deref(), Some("whole"));
    assert_eq!(store.last_good().unwrap().value, Some(revision(1)));
}

#[test]
fn damaged_revisions_are_told_and_passed_over() {
    let place = Place::new();
    let mut store = place.open();
    for number in 1..=6 {
        store.record(&revision(number)).unwrap();
    }
    let file = |number: u64| place.path(&format!("state/revisions/{number:06}.json"));
    let text = fs::read_to_string(file(6)).unwrap();
    // Cut off; edited by hand; empty; under another's name; no text. Also names that are none of ours.
    fs::write(file(6), &text[..text.len() - 5]).unwrap();
    fs::write(file(5), fs::read_to_string(file(5)).unwrap().replace("ü 5", "ü 7")).unwrap();
    fs::write(file(4), "").unwrap();
    fs::copy(file(1), file(3)).unwrap();
    fs::write(place.path("state/revisions/7.json"), "").unwrap();
    fs::write(place.path("state/revisions/notes.txt"), "").unwrap();
    fs::write(place.path("state/enforced.json"), b"{\"revision\":\xff}\n").unwrap();
    let last = store.last_good().unwrap();
    assert_eq!(last.value, Some(revision(2)));
    let told: Vec<String> = last.damage.iter().map(ToString::to_string).collect();
    let expected = [
        "enforced.json is damaged: it is not a text in UTF-8",
        "000006.json is damaged: it is cut off",
        "000005.json is damaged: its policy is not the one that was written",
        "000004.json is damaged: its first line does not say what it is",
        "000003.json is damaged: it holds revision 1, which is not the one of its name",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.ends_with(expected), "{told}");
    }
    let history = store.history().unwrap();
    // The list looks at lengths only, so the edit that keeps the length shows when the revision is read.
    let numbers: Vec<u64> = history.value.iter().map(|meta| meta.revision).collect();
    assert_eq!((numbers, history.damage.len()), (vec![5, 2, 1], 3));
    drop(store);
    assert_eq!(place.open().next_revision(), 7, "the number of a damaged file is not used again");
}

#[test]
fn one_daemon_at_a_time() {
    let place = Place::new();
    let store = place.open();
    let second = Store::open(&place.path("config/policy.json"), &place.path("state")).unwrap_err();
    assert!(matches!(second, StoreError::Busy { .. }));
    assert!(second.to_string().starts_with("another clawgress runs and holds /"), "{second}");
    drop(store);
    place.open();
}

#[test]
fn a_link_to_the_policy_stays_a_link() {
    let place = Place::new();
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    fs::create_dir_all(place.path("config")).unwrap();
    symlink("../elsewhere/real.json", place.path("config/policy.json")).unwrap();
    for text in ["first, which makes the file", "second, which replaces it"] {
        place.open().write_policy(text).unwrap();
        assert!(fs::symlink_metadata(place.path("config/policy.json")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(place.path("elsewhere/real.json")).unwrap(), text);
    }
}

#[test]
fn what_cannot_be_read_is_told_in_words() {
    let place = Place::new();
    let told = |path: &Path| read_policy(path).unwrap_err().to_string();
    assert!(read_policy(&place.path("absent")).unwrap().is_none());
    assert!(told(place.dir.path()).ends_with(": it is a directory"));
    fs::write(place.path("binary"), b"\xff\xfe").unwrap();
    assert!(told(&place.path("binary")).ends_with("is damaged: it is not a text in UTF-8"));
    assert!(told(&place.path("binary/x")).ends_with("a part of the path is a file, not a directory"));
    assert!(told(Path::new("/dev/zero")).ends_with("it is not a regular file"));
    let store = place.open();
    fs::create_dir_all(place.path("config/policy.json")).unwrap();
    let error = store.write_policy("x").unwrap_err().to_string();
    assert!(error.starts_with("cannot write /") && error.ends_with(": it is a directory"), "{error}");
}

#[test]
fn what_waits_is_kept_until_it_is_forgotten() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.unconfirmed().unwrap(), None);
    store.forget_unconfirmed().unwrap();
    let deadline = DateTime::from_timestamp(1_800_000_000, 123_000_000).unwrap();
    let wait = Wait { revision: 8, sha256: "a".repeat(64), deadline, seconds: 300, store: true };
    let unconfirmed = Unconfirmed { wait, back_to: revision(7) };
    store.write_unconfirmed(&unconfirmed).unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.unconfirmed().unwrap().as_ref(), Some(&unconfirmed));
    let file = place.path("state/unconfirmed.json");
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for damaged in
        [String::new(), "x".into(), lines[0].into(), lines[..2].concat(), lines[1..].concat(), text.clone() + " "]
    {
        fs::write(&file, &damaged).unwrap();
        let error = store.unconfirmed().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{damaged:?}: {error}");
    }
    store.write_unconfirmed(&unconfirmed).unwrap();
    store.forget_unconfirmed().unwrap();
    assert_eq!(store.unconfirmed().unwrap(), None);
    assert_eq!(store.history().unwrap().value, [], "it is no revision");
}

#[test]
fn looking_takes_makes_and_sweeps_nothing() {
    let place = Place::new();
    let look = || Look::at(&place.path("config/policy.json"), &place.path("state"));
    assert!(matches!(look(), Look::Never));
    assert_eq!(files(place.dir.path()), [] as [PathBuf; 0]);
    assert!(!place.path("state").exists());

    let mut store = place.open();
    assert!(matches!(look(), Look::InUse));
    store.record(&revision(1)).unwrap();
    store.write_policy("{}").unwrap();
    drop(store);
    fs::write(place.path("state/.x.clawgress-unfinished"), "half").unwrap();
    let before = files(place.dir.path());
    let Look::Remains(found) = look() else { panic!("a policy was in force") };
    assert_eq!((found.last, found.stored.as_deref(), found.damage.len()), (Some(revision(1)), Some("{}"), 0));
    assert_eq!(files(place.dir.path()), before);
    // Two may look at once, and who looked is not in the way.
    let (one, other) = (look(), look());
    assert!(matches!((&one, &other), (Look::Remains(_), Look::Remains(_))));
    place.open();
}

#[test]
fn every_trace_of_a_policy_is_one() {
    for trace in ["config/policy.json", "state/enforced.json", "state/unconfirmed.json", "state/revisions/000001.json"]
    {
        let place = Place::new();
        let path = place.path(trace);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"\xff").unwrap();
        let Look::Remains(found) = Look::at(&place.path("config/policy.json"), &place.path("state")) else {
            panic!("{trace} is a trace");
        };
        assert!(found.last.is_none() && found.stored.is_none() && found.unconfirmed.is_none());
        assert_eq!(found.damage.len(), 1, "{trace}: {:?}", found.damage);
    }
}
