//! The gate of the netlink encoder: a table sent by netlink and its text loaded by `nft` must be the same to `nft` and
//! to the kernel, for every construct of the language and for random tables.

mod nft_namespace;
mod nft_tables;

use clawgress::nft::{Kernel, Options};
use clawgress::plan::ops::{Table, diff};
use clawgress::plan::text::render;
use nft_namespace::{Namespace, kernel, list, list_json, load, ready};
use nft_tables::from_nothing;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Random tables per property: each takes some 30 ms of namespaces and `nft`.
const CASES: u32 = 96;

/// Commits in one namespace, loads the text in another, and compares all views.
fn assert_same(committed: &Namespace, loaded: &Namespace, table: &Table) {
    committed.enter();
    let (text_a, json_a) = (list(), list_json());
    loaded.enter();
    load(&render(table));
    let (text_b, json_b) = (list(), list_json());
    assert!(text_a == text_b, "only by netlink:\n{}only by text:\n{}", only(&text_a, &text_b), only(&text_b, &text_a));
    assert_eq!(json_a, json_b, "left: netlink, right: text");
}

/// The lines of one text that the other lacks.
fn only(text: &str, other: &str) -> String {
    text.lines().filter(|line| !other.lines().any(|found| found == *line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_construct_lists_as_its_text() {
    if !ready() {
        return;
    }
    let table = nft_tables::everything();
    let committed = Namespace::new();
    kernel().commit(&from_nothing(&table)).expect("the kernel takes the table");
    let loaded = Namespace::new();
    assert_same(&committed, &loaded, &table);
}

#[test]
fn random_tables_list_as_their_text() {
    if !ready() {
        return;
    }
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
    runner
        .run(&nft_tables::random::table(), |table| {
            let committed = Namespace::new();
            if let Err(error) = kernel().commit(&from_nothing(&table)) {
                return Err(TestCaseError::fail(format!("{error}\n{}", render(&table))));
            }
            let loaded = Namespace::new();
            assert_same(&committed, &loaded, &table);
            Ok(())
        })
        .unwrap();
}

#[test]
fn transitions_end_in_the_desired_table() {
    if !ready() {
        return;
    }
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
    runner
        .run(
            &(nft_tables::random::table(), nft_tables::random::table(), any::<bool>()),
            |(before, after, old_kernel)| {
                let committed = Namespace::new();
                let mut kernel = Kernel::open(Options { old_kernel, own_table: false }).expect("the packet filter");
                kernel.commit(&from_nothing(&before)).expect("the first table");
                let after = nft_tables::random::reachable(&before, after);
                if let Err(error) = kernel.commit(&diff(&before, &after).into_ops()) {
                    return Err(TestCaseError::fail(format!("{error}\n{}\n{}", render(&before), render(&after))));
                }
                let loaded = Namespace::new();
                assert_same(&committed, &loaded, &after);
                Ok(())
            },
        )
        .unwrap();
}
