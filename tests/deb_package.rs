//! The Debian package as a file, and the units as text. What it does on a machine: `tests/lab/deb.rs`.

mod cli_program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cli_program::binary;

/// The exposure that `systemd-analyze security` may find in a unit, in tenths.
const EXPOSURE: &str = "25";
/// The same for the one that does without a mount namespace, because nothing may keep it from running.
const EXPOSURE_EARLY: &str = "35";

/// Whether there is such a program. Without it: a loud skip, or a failure where CI promises it.
fn has(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success()) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs {program}, and CI must have it");
    eprintln!("\nSKIP: this test needs {program} (packaging/setup package)\n");
    false
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

/// Builds the package in a shell of that mood.
fn build(output: &Path, mood: &str, arguments: &[&str]) -> PathBuf {
    let script = format!("{mood}; exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(root().join("packaging/deb/build"));
    command.arg("--binary").arg(binary()).arg("--output").arg(output).args(arguments);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    PathBuf::from(String::from_utf8(done.stdout).unwrap().trim_end())
}

fn dpkg_deb(arguments: &[&str], package: &Path) -> String {
    let done = Command::new("dpkg-deb").args(arguments).arg(package).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_same_sources_give_the_same_octets() {
    if !has("dpkg-deb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other/place"));
    let first = build(&one, "umask 022; cd /; export TZ=UTC SOURCE_DATE_EPOCH=1700000000", &["--quick"]);
    let mood = "umask 077; export TZ=Pacific/Auckland LANG=tr_TR.UTF-8 HOME=/nonexistent SOURCE_DATE_EPOCH=1700000000";
    let second = build(&other, mood, &["--quick"]);
    assert_eq!(first.file_name(), second.file_name());
    let (first, second) = (fs::read(first).unwrap(), fs::read(second).unwrap());
    assert!(first == second, "{} and {} octets, and they differ", first.len(), second.len());
}

#[test]
fn the_package_has_what_it_should_and_depends_on_three_libraries() {
    if !has("dpkg-deb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path(), ":", &["--quick"]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(package.to_string_lossy().contains(&format!("clawgress_{version}_")), "{}", package.display());
    let depends = dpkg_deb(&["--show", "--showformat=${Depends}"], &package);
    let names: Vec<&str> = depends.split(", ").filter_map(|one| one.split(' ').next()).collect();
    assert_eq!(names, ["libc6", "libmnl0", "libnftnl11"], "{depends}");

    let listing = dpkg_deb(&["--contents"], &package);
    let has = |path: &str| listing.lines().any(|line| line.ends_with(&format!(" .{path}")));
    for path in [
        "/usr/bin/clawgress",
        "/etc/clawgress/clawgress.toml",
        "/usr/lib/systemd/system/clawgress.service",
        "/usr/lib/systemd/system/clawgress-early.service",
        "/usr/share/man/man1/clawgress-early.1.gz",
        "/usr/share/bash-completion/completions/clawgress",
        "/usr/share/zsh/vendor-completions/_clawgress",
        "/usr/share/fish/vendor_completions.d/clawgress.fish",
        "/usr/share/clawgress/schema/policy.schema.json",
        "/usr/share/clawgress/schema/openapi.json",
        "/usr/share/doc/clawgress/debian.md",
        "/usr/share/doc/clawgress/copyright",
        "/usr/libexec/vyos/conf_mode/service_clawgress.py",
        "/usr/lib/python3/dist-packages/vyos/xml_ref/pkg_cache/clawgress_cache.py",
        "/opt/vyatta/share/vyatta-cfg/templates/service/clawgress/node.def",
    ] {
        assert!(has(path), "{path} is missing");
    }
    let pages = fs::read_dir(root().join("packaging/generated/man")).unwrap().count();
    assert_eq!(listing.matches(".1.gz\n").count(), pages);
    // Files that belong to VyOS, or would hide them.
    for path in
        ["/opt/vyatta/share/vyatta-cfg/templates/service/node.def", "/usr/lib/python3/dist-packages/vyos/__init__.py"]
    {
        assert!(!has(path), "{path} is another package's");
    }
    assert!(listing.lines().all(|line| line.contains(" root/root ") && !line.contains("__pycache__")), "{listing}");
}

#[test]
fn lintian_has_nothing_to_say() {
    if !has("lintian") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path(), ":", &["--quick"]);
    let done =
        Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(package).output().unwrap();
    assert!(done.status.success() && done.stdout.is_empty(), "{}", text(&done));
}

#[test]
fn the_units_leave_little_to_take_over() {
    if !has("systemd-analyze") {
        return;
    }
    for (unit, exposure) in [("clawgress.service", EXPOSURE), ("clawgress-early.service", EXPOSURE_EARLY)] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", &format!("--threshold={exposure}")]);
        let done = command.arg(root().join("systemd").join(unit)).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }
}

#[test]
fn nothing_but_the_program_can_fail_before_there_is_a_network() {
    let unit = std::fs::read_to_string(root().join("systemd/clawgress-early.service")).unwrap();
    for needs_mounts in ["ProtectSystem", "ProtectHome", "Private", "ProtectProc", "ProtectKernel", "ReadOnlyPaths"] {
        assert!(!unit.lines().any(|line| line.starts_with(needs_mounts)), "{needs_mounts}");
    }
    assert!(unit.contains("Restart=on-failure"));
}
