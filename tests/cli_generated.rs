//! Artefacts that packages ship are committed, and are what the program makes. `UPDATE_GOLDEN=1` writes them anew.

mod cli_program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cli_program::Program;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/generated")
}

fn made() -> BTreeMap<String, String> {
    let program = Program::new();
    let mut made = BTreeMap::new();
    let pages = program.path("man");
    program.run(&["generate", "man", "--dir", pages.to_str().unwrap()]).done();
    for entry in fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        made.insert(format!("man/{name}"), fs::read_to_string(&path).unwrap());
    }
    for (shell, file) in [("bash", "clawgress.bash"), ("zsh", "_clawgress"), ("fish", "clawgress.fish")] {
        let script = program.run(&["generate", "completions", shell]).done().stdout;
        made.insert(format!("completions/{file}"), script);
    }
    made
}

#[test]
fn the_committed_artefacts_are_what_the_program_makes() {
    let made = made();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(committed());
        for (name, text) in &made {
            let path = committed().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for part in ["man", "completions"] {
        for entry in fs::read_dir(committed().join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{part}/{}", path.file_name().unwrap().to_str().unwrap());
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&made), "UPDATE_GOLDEN=1 writes them anew");
    for (name, text) in &made {
        assert!(found[name] == *text, "{name} has changed; UPDATE_GOLDEN=1 writes it anew");
    }
}

#[test]
fn the_manual_on_stdout_is_all_the_pages() {
    let program = Program::new();
    let manual = program.run(&["generate", "man"]).done().stdout;
    let pages = made().keys().filter(|name| name.starts_with("man/")).count();
    assert_eq!(manual.lines().filter(|line| line.starts_with(".TH ")).count(), pages);
    assert!(manual.contains(".SH EXAMPLES\n.nf\nclawgress check "), "examples keep their lines");
}

#[test]
fn the_schemas_are_the_committed_ones() {
    for (word, name) in [("schema", "policy.schema.json"), ("openapi", "openapi.json")] {
        let made = Program::new().run(&["generate", word]).done().stdout;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &made).unwrap();
        }
        let committed = fs::read_to_string(file).unwrap();
        assert!(made == committed, "schema/{name} has changed; UPDATE_GOLDEN=1 writes it anew");
    }
}

#[test]
fn what_cannot_be_written_is_told() {
    let program = Program::new();
    let file = program.write("file", "");
    program.run(&["generate", "man", "--dir", &file]).refused(&format!("error: cannot write {file}: "));
}
