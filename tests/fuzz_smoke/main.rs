//! The checks of the fuzz targets (`fuzz/checks`) on any compiler: every seed, and for a few seconds what a seeded
//! random generator makes of the seeds. `SEED` chooses the numbers, `FUZZ_SECONDS` the time for each target.

#[path = "../../fuzz/checks/dns_filter.rs"]
mod dns_filter;
#[path = "../../fuzz/checks/dns_query.rs"]
mod dns_query;
#[path = "../../fuzz/checks/ledger.rs"]
mod ledger;
#[path = "../../fuzz/checks/lists.rs"]
mod lists;
mod mutate;
#[path = "../../fuzz/checks/netlink_dump.rs"]
mod netlink_dump;
#[path = "../../fuzz/checks/nflog.rs"]
mod nflog;
#[path = "../../fuzz/checks/policy.rs"]
mod policy;
mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Seconds for each target where nothing else is said.
const SECONDS: u64 = 3;
/// The longest input, octets.
const LONGEST: usize = 64 << 10;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The seeds of a target: its own, and for policies every one that the repository has.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files_in(&root().join("fuzz/seeds").join(target));
    if target == "policy" {
        files.extend(files_in(&root().join("examples/policies")));
        for case in fs::read_dir(root().join("tests/golden")).expect("golden cases").flatten() {
            files.extend(files_in(&case.path()).into_iter().filter(|file| file.ends_with("policy.json")));
        }
    }
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(&file).expect("a seed"))).collect()
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Runs `check`; an input that breaks it is kept and named.
fn one(target: &str, check: fn(&[u8]), octets: &[u8], what: &str) {
    if catch_unwind(|| check(octets)).is_err() {
        let directory = root().join("fuzz/artifacts").join(target);
        let file = directory.join("smoke");
        fs::create_dir_all(&directory).and_then(|()| fs::write(&file, octets)).expect("the tree is writable");
        panic!("{target}: {what} breaks a promise; the input is in {}", file.display());
    }
}

fn smoke(target: &str, check: fn(&[u8]), at_least: u64) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 4, "{target} has {} seeds", corpus.len());
    for (file, octets) in &corpus {
        one(target, check, octets, &file.display().to_string());
    }
    let seed = number("SEED", 20_261_120);
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", SECONDS));
    let mut mutator = Mutator::new(seed, corpus.into_iter().map(|(_, octets)| octets).collect());
    let mut turns = 0;
    while Instant::now() < end {
        let octets = mutator.next(LONGEST);
        one(target, check, &octets, &format!("turn {turns} of SEED={seed}"));
        turns += 1;
    }
    println!("{target}: {turns} inputs");
    assert!(turns >= at_least, "{target}: only {turns} inputs, so the check is too slow to be of use");
}

#[test]
fn policies() {
    smoke("policy", policy::check, 100);
}

#[test]
fn answers_of_upstreams() {
    smoke("dns_filter", dns_filter::check, 1000);
}

#[test]
fn packets_of_clients() {
    smoke("dns_query", dns_query::check, 1000);
}

#[test]
fn copies_of_refused_packets() {
    smoke("nflog", nflog::check, 1000);
}

#[test]
fn lists_of_names_in_files() {
    smoke("lists", lists::check, 500);
}

#[test]
fn dumps_of_the_kernel() {
    smoke("netlink_dump", netlink_dump::check, 1000);
}

#[test]
fn journals_on_the_disk() {
    smoke("ledger", ledger::check, 1000);
}
