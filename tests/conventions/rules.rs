//! The rules themselves, on small wrong examples.

use super::*;

#[track_caller]
fn complains(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, count: usize) {
    let complaints = rule(&Source::new(path, text));
    assert_eq!(complaints.len(), count, "{path}: {text}\n{complaints:?}");
}

#[test]
fn code_is_told_from_comments_and_text() {
    let text = "a /* b */ c // d\n\"e \\\" f\" r#\"g \" h\"# 'i' '\\'' &'j k r\"l\" m";
    let left: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(left, ["a", "c", "&'j", "k", "m"]);
    assert_eq!(code(text).matches('\n').count(), 1);
}

#[test]
fn imports_go_down() {
    complains(rings, "policy/name.rs", "use crate::policy::model;", 0);
    complains(rings, "policy/name.rs", "use crate::plan::ids;", 1);
    complains(rings, "policy/name.rs", "/// [`crate::plan`]", 0);
    complains(rings, "policy/name.rs", "use super::super::core::State;", 1);
    complains(rings, "plan/table/mod.rs", "use super::super::core;", 1);
    complains(rings, "plan/table/build.rs", "use super::super::core;", 0);
    complains(rings, "plan/ops.rs", "use crate::{policy::{a, b}, core::State};", 1);
    complains(rings, "core/state.rs", "fn f(x: crate::nft::Kernel) {}", 1);
    complains(rings, "dns/udp.rs", "use crate::nft::Kernel; use crate::core::lease;", 1);
    complains(rings, "nft/mod.rs", "use crate::{dns, daemon};", 2);
    complains(rings, "settings.rs", "use crate::store::Store;", 1);
    complains(rings, "settings/mod.rs", "use crate::plan::ops;", 1);
    complains(rings, "daemon/mod.rs", "use crate::nft::Kernel; use crate::cli;", 0);
    complains(rings, "helpers.rs", "", 1);
}

#[test]
fn the_pure_ring_asks_nobody() {
    complains(purity, "core/state.rs", "let now = Instant::now();", 1);
    complains(purity, "policy/mod.rs", "let now = chrono::Utc::now(); use std::fs;", 2);
    complains(purity, "plan/mod.rs", "async fn f() { tokio::spawn(g()); }", 1);
    complains(purity, "plan/mod.rs", "// Instant::now\nlet text = \"std::fs\";", 0);
    complains(purity, "dns/udp.rs", "let now = Instant::now();", 0);
    // Unit tests may read files of the repository, but no clock either.
    complains(purity, "plan/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; }", 0);
    complains(purity, "plan/mod.rs", "#[cfg(test)]\nmod tests { Instant::now() }", 1);
}

#[test]
fn few_speak_for_the_kernel() {
    complains(the_lease_door, "dns/service.rs", "Acked::by_kernel()", 1);
    complains(the_lease_door, "core/state.rs", "Acked::by_kernel()\n#[cfg(test)]\nmod tests {}", 1);
    complains(the_lease_door, "core/state.rs", "#[cfg(test)]\nmod tests { Acked::by_kernel() }", 0);
    complains(the_lease_door, "daemon/mod.rs", "#[cfg(test)]\nmod tests { Acked::by_kernel() }", 1);
    complains(the_lease_door, "daemon/gate.rs", "Acked::by_kernel()", 0);
    complains(the_lease_door, "daemon/gate/writer.rs", "Acked::by_kernel()", 0);
    complains(the_lease_door, "dns/tests/doubles.rs", "Acked::by_kernel()", 0);
}

#[test]
fn unsafe_is_rare_and_explained() {
    let rule = |source: &Source| unsafety(std::slice::from_ref(source));
    let sound = "// SAFETY: it is live,\n// and stays so.\nlet x =\n    unsafe { f() };";
    complains(rule, "nft/socket.rs", sound, 0);
    complains(rule, "dns/udp.rs", sound, 1);
    complains(rule, "nft/socket.rs", "let x = unsafe { f() };", 1);
    complains(rule, "nft/socket.rs", "// SAFETY: of the other\nf();\nlet x = unsafe { f() };", 1);
    complains(rule, "nft/socket.rs", "// SAFETY: far away\n\nunsafe impl Send for X {}", 1);
    complains(rule, "nft/socket.rs", "#![deny(unsafe_code)] // unsafe", 0);
    let three = ["nft/a.rs", "nft/b.rs", "nft/c.rs"].map(|path| Source::new(path, sound));
    assert_eq!(unsafety(&three).len(), 1);
}

#[test]
fn words_that_have_no_place() {
    complains(forbidden_words, "daemon/mod.rs", "println!(\"x\"); eprintln!(\"x\");", 2);
    complains(forbidden_words, "cli/show.rs", "println!(\"x\");", 0);
    complains(forbidden_words, "dns/tests/load.rs", "eprintln!(\"SKIP: x\");", 0);
    complains(forbidden_words, "main.rs", "eprintln!(\"x\");", 0);
    complains(forbidden_words, "nft/mod.rs", "Command::new(\"nft\")", 1);
    complains(forbidden_words, "nft/mod.rs", "let c = MyCommand::new();", 0);
    complains(forbidden_words, "plan/mod.rs", concat!("to", "do!() + un", "implemented!()"), 2);
}

#[test]
fn files_are_short() {
    complains(length, "plan/mod.rs", &"\n".repeat(MAX_LINES), 0);
    complains(length, "plan/mod.rs", &"\n".repeat(MAX_LINES + 1), 1);
}

#[test]
fn golden_cases_are_complete() {
    let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(golden_case("x", &files(&["policy.json", "errors.json"])).len(), 0);
    assert_eq!(golden_case("x", &files(&["policy.json"])).len(), 1);
    assert_eq!(golden_case("x", &files(&["policy.json", "errors.json", "error.json"])).len(), 1);
    assert_eq!(golden_case("x", &files(&[])).len(), 2);
}

#[test]
fn readme_commands_exist() {
    let makefile = ".PHONY: a\ndemo: setup ## x\ntest:\n\tmake nothing\n";
    assert_eq!(make_commands("run `make demo` and\n    make test # all\n$ make demo", makefile).len(), 0);
    assert_eq!(make_commands("run `make demos`, `make demo`\n```\nmake bench\n```", makefile).len(), 2);
    assert_eq!(make_commands("this will make sense", makefile).len(), 0);
}
