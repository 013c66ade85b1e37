//! Which zone gets which serial.

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

#[test]
fn what_was_written_is_read_and_what_cannot_be_written_is_not_believed_later() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(store::read_serials(dir.path()).unwrap(), Serials::default());
    let (_, told) = next(&BTreeMap::new(), &Serials::default(), vec![zone("a.", &["x"])], 1000);
    write(dir.path(), &told).unwrap();
    assert_eq!(store::read_serials(dir.path()).unwrap(), told);
    std::fs::write(dir.path().join("serials.json"), "{").unwrap();
    assert!(store::read_serials(dir.path()).is_err());
    // A directory in its place: neither can it be written nor removed, and both are told.
    std::fs::remove_file(dir.path().join("serials.json")).unwrap();
    std::fs::create_dir(dir.path().join("serials.json")).unwrap();
    let why = write(dir.path(), &told).unwrap_err();
    assert!(why.contains("not written down") && why.contains("cannot remove"), "{why}");
}
