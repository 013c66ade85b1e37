//! What the sources promise about themselves, held by reading them. Each rule is a function from text to complaints,
//! and each is seen to complain about a small wrong example below.

#[path = "conventions/code.rs"]
mod code;
#[path = "conventions/rules.rs"]
mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use code::code;

/// Lines in one source file, tests included.
const MAX_LINES: usize = 400;
/// Files with `unsafe` in them.
const MAX_UNSAFE_FILES: usize = 2;

/// The pure ring, innermost first; each may use those before it. The drivers may use all of these.
const PURE: [&str; 4] = ["policy", "plan", "core", "settings"];
/// They know the pure ring, and nothing of each other.
const DRIVERS: [&str; 4] = ["nft", "dns", "store", "decisions"];
/// They may use everything.
const FACES: [&str; 5] = ["api", "daemon", "cli", "main", "lib"];
/// What only the outside world can answer: the pure ring gets it as arguments.
const OUTSIDE: [&str; 8] =
    ["std::fs", "std::process", "std::thread", "std::env", "tokio", "UdpSocket", "TcpStream", "TcpListener"];
const CLOCKS: [&str; 4] = ["Instant::now", "SystemTime::now", "Utc::now", "Local::now"];

/// A source file: its path below `src` (`plan/table/mod.rs`), as written, and its code alone.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code(text) }
    }

    /// `plan`, `table` for `plan/table/mod.rs` and `plan/table.rs`.
    fn module(&self) -> Vec<&str> {
        let stem = self.path.trim_end_matches(".rs");
        stem.strip_suffix("/mod").unwrap_or(stem).split('/').collect()
    }

    fn ring(&self) -> &str {
        self.module()[0]
    }

    /// Where the unit tests begin; they stand at the end of a file.
    fn tests_begin(&self) -> usize {
        if self.is_test() { 0 } else { self.code.find("#[cfg(test)]").unwrap_or(self.code.len()) }
    }

    /// A file that only tests have.
    fn is_test(&self) -> bool {
        self.module().contains(&"tests")
    }
}

/// The places of `word` in `text` where it is not a part of a longer word.
fn words(text: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let free = |at: &usize| {
        let end = at + word.len();
        !text[..*at].ends_with(part) && (word.ends_with([':', '!']) || !text[end..].starts_with(part))
    };
    text.match_indices(word).map(|(at, _)| at).filter(free).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn complain(source: &Source, at: usize, what: &str) -> String {
    format!("src/{}:{}: {what}", source.path, line_of(&source.code, at))
}

/// Imports go down only, whether they begin with `crate` or climb there with `super`.
fn rings(source: &Source) -> Vec<String> {
    let ring = source.ring();
    let allowed: Vec<&str> = match (PURE.iter().position(|name| *name == ring), DRIVERS.contains(&ring)) {
        // Settings are text about the gateway, not about plans and state.
        _ if ring == "settings" => vec!["settings", "policy"],
        (Some(depth), _) => PURE[..=depth].to_vec(),
        (None, true) => PURE.into_iter().chain([ring]).collect(),
        (None, false) if FACES.contains(&ring) => return Vec::new(),
        (None, false) => return vec![format!("src/{}: say in tests/conventions.rs which ring it is in", source.path)],
    };
    let known = || PURE.into_iter().chain(DRIVERS).chain(FACES);
    let used = top_modules(&source.code, source.module().len());
    let wrong = used.into_iter().filter(|(_, to)| known().any(|name| name == to) && !allowed.contains(&to.as_str()));
    wrong.map(|(at, to)| complain(source, at, &format!("{ring} may not use {to}"))).collect()
}

/// Every use of a top-level module from a module `depth` below the crate's root.
fn top_modules(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for at in words(code, "crate::") {
        out.extend(heads(&code[at + "crate::".len()..]).into_iter().map(|head| (at, head)));
    }
    for at in words(code, "super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let rest = code[at..].trim_start_matches("super::");
        let climbed = (code.len() - at - rest.len()) / "super::".len();
        if climbed >= depth {
            out.extend(heads(rest).into_iter().map(|head| (at, head)));
        }
    }
    out
}

/// The first segments of a path or of a group in braces.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 0;
    let mut start = 0;
    let mut out = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                out.push(word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    out
}

/// The pure ring asks nobody: no files, sockets, threads, and no clock.
fn purity(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.ring()) {
        return Vec::new();
    }
    let code = &source.code;
    let clocks = CLOCKS.iter().flat_map(|word| words(code, word).into_iter().map(move |at| (at, word)));
    let own = &code[..source.tests_begin()];
    let outside = OUTSIDE.iter().flat_map(|word| words(own, word).into_iter().map(move |at| (at, word)));
    clocks.chain(outside).map(|(at, word)| complain(source, at, &format!("the pure ring has no {word}"))).collect()
}

/// An answer may go only when the kernel has the address: few may say that it has.
fn the_lease_door(source: &Source) -> Vec<String> {
    let gate = source.path.starts_with("daemon/gate");
    let own = source.path == "core/lease.rs";
    if gate || own || source.is_test() {
        return Vec::new();
    }
    let end = if source.ring() == "core" { source.tests_begin() } else { source.code.len() };
    let found = words(&source.code[..end], "by_kernel");
    found.into_iter().map(|at| complain(source, at, "only the kernel's gate may say Acked::by_kernel")).collect()
}

/// `unsafe` is in few files, all of the netlink driver, and each use says why it is sound.
fn unsafety(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    let mut files = BTreeSet::new();
    for source in sources {
        for at in words(&source.code, "unsafe") {
            files.insert(&source.path);
            if source.ring() != "nft" {
                out.push(complain(source, at, "unsafe is for src/nft only"));
            }
            let declares = source.code[at..].trim_start_matches("unsafe").trim_start().starts_with("fn");
            if !declares && !has_safety(&source.text, line_of(&source.code, at)) {
                out.push(complain(source, at, "say in a SAFETY comment why this is sound"));
            }
        }
    }
    if files.len() > MAX_UNSAFE_FILES {
        out.push(format!("unsafe is in {files:?}; {MAX_UNSAFE_FILES} files are the most"));
    }
    out
}

/// Whether a SAFETY comment stands in front of the statement that has this line.
fn has_safety(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let mut above = lines[..line - 1].iter().rev().map(|line| line.trim());
    let mut in_comment = false;
    above
        .find_map(|line| {
            if line.starts_with("// SAFETY:") {
                return Some(true);
            }
            let comment = line.starts_with("//");
            let ends = line.is_empty() || line.ends_with([';', '}']) || in_comment && !comment;
            in_comment = comment;
            ends.then_some(false)
        })
        .unwrap_or(false)
}

/// Words that have no place in the sources, or in one place only.
fn forbidden_words(source: &Source) -> Vec<String> {
    let mut out = Vec::new();
    let speaks = matches!(source.ring(), "cli" | "main") || source.is_test();
    for (list, free, why) in [
        (&["println!", "eprintln!", "print!", "eprint!", "dbg!"][..], speaks, "only the command line prints"),
        (&["Command::new", "process::Command"], false, "no other program is started"),
        (&["todo!", "unimplemented!"], false, "what is not done is not there"),
    ] {
        for word in list.iter().filter(|_| !free) {
            out.extend(
                words(&source.code, word).into_iter().map(|at| complain(source, at, &format!("{word} ({why})"))),
            );
        }
    }
    out
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let long = lines > MAX_LINES;
    long.then(|| format!("src/{}: {lines} lines; {MAX_LINES} are the most", source.path)).into_iter().collect()
}

/// A golden case has the policy and what is expected of it, and nothing that no test reads.
fn golden_case(name: &str, files: &BTreeSet<String>) -> Vec<String> {
    const KNOWN: [&str; 5] = ["policy.json", "errors.json", "normalised.json", "table.nft", "zones.rpz"];
    let missing = KNOWN[..2].iter().filter(|file| !files.contains(**file));
    let missing = missing.map(|file| format!("tests/golden/{name}: {file} is missing"));
    let unknown = files.iter().filter(|file| !KNOWN.contains(&file.as_str()));
    missing.chain(unknown.map(|file| format!("tests/golden/{name}: no test reads {file}"))).collect()
}

/// Every `make` command that a text tells people to type is one that the Makefile has.
fn make_commands(readme: &str, makefile: &str) -> Vec<String> {
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target.trim()).collect();
    let typed = readme.lines().flat_map(|line| {
        let code = line.split('`').skip(1).step_by(2).chain(line.trim().strip_prefix("$ ")).chain([line.trim()]);
        code.filter_map(|text| text.strip_prefix("make ")?.split([' ', '#']).next()).collect::<Vec<_>>()
    });
    let wrong: BTreeSet<&str> = typed.filter(|target| !targets.contains(target)).collect();
    wrong.into_iter().map(|target| format!("the Makefile has no target {target:?}")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let files = files_below(&src).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    let sources: Vec<Source> = files
        .map(|path| {
            Source::new(&path.strip_prefix(&src).unwrap().to_string_lossy(), &fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(sources.len() > 20, "only {} sources were found", sources.len());
    sources
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_sources_keep_the_conventions() {
    let sources = sources();
    let each = [rings, purity, the_lease_door, forbidden_words, length];
    let complaints = sources.iter().flat_map(|source| each.iter().flat_map(move |rule| rule(source)));
    none(complaints.chain(unsafety(&sources)).collect());
}

#[test]
fn golden_cases_are_whole() {
    let mut complaints = Vec::new();
    for entry in fs::read_dir(root().join("tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        let files = files_below(&path);
        let names = files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
        complaints.extend(golden_case(&path.file_name().unwrap().to_string_lossy(), &names));
    }
    none(complaints);
}

#[test]
fn the_readme_tells_commands_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("make demo") && readme.contains("make test"), "the README tells how to begin");
    let Ok(makefile) = fs::read_to_string(root().join("Makefile")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no Makefile");
        eprintln!("SKIP: there is no Makefile, so the README's commands are not checked");
        return;
    };
    none(make_commands(&readme, &makefile));
}
