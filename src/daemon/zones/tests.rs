//! Which zone gets which serial.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::*;
use crate::plan::rpz::{Action, Image, Served, serial_is_newer};

fn zone(name: &str, owners: &[&str]) -> Served {
    let image = Image::from_records(owners.iter().map(|owner| (*owner, Action::Passthru)));
    Served { view: "*".into(), name: name.into(), image }
}

fn serials(editions: &BTreeMap<String, Arc<Edition>>) -> Vec<u32> {
    editions.values().map(|edition| edition.serial).collect()
}

#[test]
fn only_what_changed_gets_a_new_serial() {
    let (first, told) = next(&BTreeMap::new(), &Serials::default(), vec![zone("a.", &["x"]), zone("b.", &["y"])], 1000);
    assert_eq!(serials(&first), [1000, 1000]);
    let (second, told) = next(&first, &told, vec![zone("a.", &["x"]), zone("b.", &["z"])], 2000);
    assert_eq!(serials(&second), [1000, 2000]);
    assert_eq!(second["b."].since(1000).map(<[_]>::len), Some(1));
    assert_eq!(told.last, Some(2000));
}

#[test]
fn a_start_with_the_same_zones_keeps_their_serials_and_any_other_gets_newer_ones() {
    let (_, told) = next(&BTreeMap::new(), &Serials::default(), vec![zone("a.", &["x"]), zone("b.", &["y"])], 1000);
    let (after, told) = next(&BTreeMap::new(), &told, vec![zone("a.", &["x"]), zone("b.", &["z"])], 3000);
    assert_eq!(serials(&after), [1000, 3000]);
    // The clock went back, by however much.
    let (after, told) = next(&BTreeMap::new(), &told, vec![zone("a.", &["v"]), zone("b.", &["z"])], 5);
    assert_eq!(serials(&after), [3001, 3000]);
    // A zone that was gone and comes back with what it had may have been another in between.
    let (after, told) = next(&after, &told, vec![zone("a.", &["v"])], 6);
    let (after, _) = next(&after, &told, vec![zone("a.", &["v"]), zone("b.", &["z"])], 7);
    assert_eq!(serials(&after), [3001, 3002]);
}

#[test]
fn several_changes_in_one_second_are_several_serials() {
    let (mut editions, mut told) = next(&BTreeMap::new(), &Serials::default(), vec![zone("a.", &["0"])], 1000);
    for step in 1..5_u32 {
        let before = editions["a."].serial;
        (editions, told) = next(&editions, &told, vec![zone("a.", &[&step.to_string()])], 1000);
        assert!(serial_is_newer(editions["a."].serial, before));
    }
}

fn told(state: &Path, memory: &Path, boot: &str) -> Told {
    Told::new(state.to_owned(), memory.to_owned(), Some(boot.to_owned()))
}

/// The serial of the zone `a.` with these owners after a start.
fn start(told: &Told, owner: &str, seconds: u64) -> (u32, Serials) {
    let (editions, serials) = next(&BTreeMap::new(), &told.read(), vec![zone("a.", &[owner])], seconds);
    (editions["a."].serial, serials)
}

#[test]
fn what_was_written_is_read_in_the_same_boot_and_only_its_newest_serial_in_another() {
    let (state, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = told(state.path(), memory.path(), "first");
    assert_eq!(first.read().last, None);
    let (serial, serials) = start(&first, "x", 1000);
    first.write(&serials).unwrap();
    assert_eq!((serial, start(&first, "x", 2000).0), (1000, 1000));
    assert_eq!(start(&told(state.path(), memory.path(), "second"), "x", 2000).0, 2000);
    assert_eq!(start(&told(state.path(), memory.path(), "second"), "x", 5).0, 1001, "a clock that went back");
    assert_eq!(start(&Told { boot: None, ..first }, "x", 2000).0, 2000, "nobody knows which boot it is");
    // A file that is no good is like none, and what may be older than it is not believed.
    std::fs::write(memory.path().join("serials.json"), "{").unwrap();
    assert_eq!(start(&told(state.path(), memory.path(), "first"), "x", 2000).0, 2000);
}

#[test]
fn serials_never_go_back_on_a_disk_that_became_read_only() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP: a read-only disk needs root to mount it");
        assert!(std::env::var_os("CI").is_none(), "no skipping in a pipeline");
        return;
    }
    // Mounts of a thread of its own: nobody else sees them, and they end with it.
    std::thread::spawn(on_a_read_only_disk).join().unwrap();
}

fn on_a_read_only_disk() {
    let (state, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let none = None::<&str>;
    let remount = |flags| mount(none, state.path(), none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    mount(Some("tmpfs"), state.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let same = told(state.path(), memory.path(), "boot");
    let (first, serials) = start(&same, "x", 1000);
    same.write(&serials).unwrap();
    remount(MsFlags::MS_RDONLY);
    // Another zone is told meanwhile, and then the first one again.
    let (second, serials) = start(&same, "y", 2000);
    let Err(Unwritten::OnDisk(why)) = same.write(&serials) else { panic!("the disk takes it") };
    assert!(why.contains("after a reboot") && why.contains("read-only"), "{why}");
    let (third, _) = start(&same, "x", 3000);
    assert!(first < second && second < third, "{first} {second} {third}");
    // The disk can be written again: what it has is still the older one.
    remount(MsFlags::empty());
    assert_eq!(start(&same, "x", 3000).0, third);
    let (third, serials) = start(&same, "x", 3000);
    same.write(&serials).unwrap();
    assert_eq!(start(&same, "x", 4000).0, third);
    // After a boot what was in memory is gone.
    let (empty, _) = start(&told(state.path(), Path::new("/nowhere"), "other"), "x", 5000);
    assert_eq!(empty, 5000);
    // Neither disk nor memory.
    remount(MsFlags::MS_RDONLY);
    let nowhere = told(state.path(), &state.path().join("none"), "boot");
    let Err(Unwritten::Anywhere(why)) = nowhere.write(&serials) else { panic!("it is written") };
    assert!(why.contains("stay as they are"), "{why}");
}

#[test]
fn zones_whose_serials_cannot_be_written_down_are_not_told() {
    let (state, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let address = "192.0.2.53:53".parse().unwrap();
    let settings = transfer::Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        secondaries: vec![Secondary { address, key: None, views: None }],
        limits: transfer::Limits::default(),
    };
    let bound = transfer::bind(settings).unwrap();
    let outlet = Arc::new(Outlet { transfers: bound.transfers(), listen: Vec::new(), trouble: Mutex::default() });
    let mut press = Press::new(Arc::clone(&outlet), told(state.path(), memory.path(), "boot"));
    let mut print = |name: &str, seconds: i64| {
        let text = format!(r#"{{"version": 1, "allow": {{"domains": ["{name}.example.com"]}}}}"#);
        let policy = crate::policy::parse(&text).unwrap();
        let utc = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        press.print(&policy, &Moment::of(&policy, utc, chrono_tz::Tz::UTC));
        let zones = outlet.transfers.report().remove(0).zones;
        let serial = zones.iter().find(|zone| zone.zone.starts_with("global.allow")).unwrap().serial;
        (serial, outlet.checks()[0].clone())
    };
    assert_eq!(print("one", 1000).0, 1000);
    // A directory in its place cannot be overwritten.
    for dir in [&state, &memory] {
        let _ = std::fs::remove_file(dir.path().join("serials.json"));
        std::fs::create_dir(dir.path().join("serials.json")).unwrap();
    }
    let (serial, check) = print("two", 2000);
    assert!(serial == 1000 && !check.ok && check.message.contains("cannot be written down"), "{serial} {check:?}");
    std::fs::remove_dir(memory.path().join("serials.json")).unwrap();
    let (serial, check) = print("two", 3000);
    assert!(serial == 3000 && !check.ok && check.message.contains("after a reboot"), "{serial} {check:?}");
    std::fs::remove_dir(state.path().join("serials.json")).unwrap();
    let (serial, check) = print("two", 4000);
    assert!(serial == 3000 && check.ok, "{serial} {check:?}");
}
