//! Each directory below `tests/golden` is one case, named by what it proves: `policy.json` as somebody wrote it,
//! `errors.json` with the diagnostics it earns (`[]`: none), and for valid ones `normalised.json`, what `show` prints.
//! `UPDATE_GOLDEN=1` writes what is missing or has changed; read the difference before you commit it. Cases of other
//! layers that have no `policy.json` are passed over.

use std::fs;
use std::path::{Path, PathBuf};

use clawgress::policy::{normalised, parse};

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

/// Compares with the file, or writes it; says what differs.
fn compare(file: &Path, got: &impl serde::Serialize) -> Option<String> {
    let got = serde_json::to_string_pretty(got).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file, &got).unwrap();
    }
    let same = fs::read_to_string(file).unwrap_or_default() == got;
    (!same).then(|| format!("{}:\n{got}", file.display()))
}

#[test]
fn every_case_earns_its_diagnostics() {
    let mut wrong = Vec::new();
    for case in cases() {
        let parsed = parse::parse_bytes(&fs::read(case.join("policy.json")).unwrap());
        let valid = case.file_name().unwrap().to_string_lossy().starts_with("valid-");
        assert_eq!(parsed.is_ok(), valid, "{}: valid cases, and only they, are named valid-…", case.display());
        let errors = match &parsed {
            Ok(parsed) => {
                wrong.extend(compare(&case.join("normalised.json"), &normalised(&parsed.policy)));
                &Vec::new()
            }
            Err(errors) => errors,
        };
        wrong.extend(compare(&case.join("errors.json"), errors));
    }
    assert!(wrong.is_empty(), "these cases changed (UPDATE_GOLDEN=1 rewrites them):\n{}", wrong.join("\n"));
}

#[test]
fn the_cases_are_there() {
    assert!(cases().len() >= 40, "{} cases", cases().len());
}
