//! Each directory below `tests/golden` is one case, named by what it proves: `policy.json` as somebody wrote it, and
//! `errors.json` with the diagnostics it earns (`[]`: none). `UPDATE_GOLDEN=1` writes what is missing or has changed;
//! read the difference before you commit it. Cases of other layers that have no `policy.json` are passed over.

use std::fs;
use std::path::{Path, PathBuf};

use clawgress::policy::parse;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("policy.json").is_file())
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_earns_its_diagnostics() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let errors = match parse::parse_bytes(&fs::read(case.join("policy.json")).unwrap()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors,
        };
        let got = serde_json::to_string_pretty(&errors).unwrap() + "\n";
        let file = case.join("errors.json");
        if update {
            fs::write(&file, &got).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "these cases changed (UPDATE_GOLDEN=1 rewrites them):\n{}", wrong.join("\n"));
}

#[test]
fn the_cases_are_there() {
    assert!(cases().len() >= 40, "{} cases", cases().len());
}
