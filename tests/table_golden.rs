//! Each directory below `tests/golden_table` is one policy with what it becomes: `table.nft`, the packet filter's table
//! of a first start with it, and `zones.rpz`, its names. A change of the ruleset shows here as a difference to be read
//! like code. `UPDATE_GOLDEN=1` writes what is missing or has changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clawgress::core::classes::Classes;
use clawgress::core::state::{State, World};
use clawgress::plan::rpz;
use clawgress::plan::text;
use clawgress::policy::parse;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_table");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// A gateway whose agents are behind `lan1`, with nothing odd about it.
fn world() -> World {
    World { guarded: BTreeSet::from(["lan1".to_owned()]), ..World::listening(53) }
}

#[test]
fn every_policy_becomes_its_table_and_zones() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let policy = fs::read_to_string(case.join("policy.json")).unwrap();
        let policy = parse(&policy).unwrap_or_else(|errors| panic!("{}: {errors:?}", case.display()));
        let mut state = State::new(Classes::first_of_table(0));
        let pending = state.enforce(&policy, &world(), 1, 0);
        state.enforced(pending);
        let table = text::render(&state.expected(0));
        let zones = rpz::render(&policy, 1, None, None);
        for (file, got) in [("table.nft", table), ("zones.rpz", zones)] {
            let path = case.join(file);
            if update {
                fs::write(&path, &got).unwrap();
                continue;
            }
            let due = fs::read_to_string(&path).unwrap_or_default();
            if let Some(line) = first_difference(&due, &got) {
                wrong.push(format!("{}:{line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these changed (UPDATE_GOLDEN=1 writes them anew):\n{}", wrong.join("\n"));
}

/// The first line that differs, with both readings.
fn first_difference(due: &str, got: &str) -> Option<String> {
    if due == got {
        return None;
    }
    let (mut due, mut got) = (due.lines(), got.lines());
    let mut number = 1;
    loop {
        match (due.next(), got.next()) {
            (Some(one), Some(other)) if one == other => number += 1,
            (one, other) => {
                return Some(format!("{number}\n  - {}\n  + {}", one.unwrap_or("(end)"), other.unwrap_or("(end)")));
            }
        }
    }
}

#[test]
fn the_cases_are_whole() {
    let cases = cases();
    assert!(cases.len() >= 8, "{} cases", cases.len());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        // The other test is about to write what is missing.
        return;
    }
    for case in cases {
        let files: BTreeSet<String> = fs::read_dir(&case)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            ["policy.json", "table.nft", "zones.rpz"],
            "{}",
            case.display()
        );
    }
}
