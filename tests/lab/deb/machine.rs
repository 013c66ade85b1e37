//! The gateway as a Debian machine: systemd and dpkg at work, in the lab's namespace. See `boot` beside this file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world::{Ran, World, binary};

/// How long a machine may take to boot; three seconds are usual.
const BOOT: Duration = Duration::from_secs(60);

/// How the names of machines begin; the lab's name for their gateway follows.
const NAMES: &str = "clawgress-";

/// A package of that version, built once for all tests.
pub fn package(version: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deb");
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb/build");
        let mut command = Command::new(build);
        command.arg("--binary").arg(binary()).arg("--output").arg(output).args(["--quick", "--version", version]);
        let done = command.output().expect("bash starts");
        assert!(done.status.success(), "no package: {}", String::from_utf8_lossy(&done.stderr));
        PathBuf::from(String::from_utf8(done.stdout).expect("a path").trim_end())
    };
    built.entry(version.to_owned()).or_insert_with(make).clone()
}

/// A running machine; gone on drop.
pub struct Machine {
    outer: Child,
    directory: TempDir,
    cgroup: PathBuf,
}

impl Machine {
    /// Boots in the gateway's namespace.
    #[track_caller]
    pub fn boot(world: &World) -> Self {
        let name = format!("{NAMES}{}", world.gateway.netns.name);
        let cgroup = cgroup2().join(&name);
        sweep();
        let directory = tempfile::Builder::new().prefix(&name).tempdir().expect("the temporary directory is writable");
        // Not `ip netns exec`, which has a /sys of its own, without the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", world.gateway.netns.name)).args(["--", "unshare", "--mount", "--"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/deb/boot"));
        let log = std::fs::File::create(directory.path().with_extension("log")).expect("writable");
        command.arg(directory.path()).arg(&cgroup).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let outer = command.spawn().expect("iproute2 is installed");
        let machine = Self { outer, directory, cgroup };
        machine.wait_for_boot(0);
        machine
    }

    /// Ends everything and starts again, as a router that restarts: the packet filter is empty then.
    #[track_caller]
    pub fn reboot(&self) {
        let before = self.init();
        // Not `systemctl reboot`: who asks is ended before it is answered.
        let _ = self.command(&["systemctl", "--no-block", "reboot"]).status();
        self.wait_for_boot(before);
    }

    #[track_caller]
    fn wait_for_boot(&self, before: i32) {
        let end = Instant::now() + BOOT;
        let up = || {
            self.init() != before
                && matches!(self.run(&["systemctl", "is-system-running"]).stdout.trim(), "running" | "degraded")
        };
        while !up() {
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            // A process that ended and was not waited for has no program.
            let ended = std::fs::read_link(format!("/proc/{}/exe", self.outer.id())).is_err();
            assert!(!ended && Instant::now() < end, "the machine does not boot: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().with_extension("log")
    }

    /// The machine's first process, as this machine numbers it; 0: there is none.
    fn init(&self) -> i32 {
        // boot, then unshare, then systemd.
        let child = |of: i32| {
            let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
            children.split(' ').next().and_then(|pid| pid.parse::<i32>().ok()).unwrap_or(0)
        };
        let init = child(child(i32::try_from(self.outer.id()).expect("pids are small")));
        let name = std::fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
        if name.trim_end() == "systemd" { init } else { 0 }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init().to_string()]);
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]).args(words);
        command
    }

    /// Runs a command on the machine.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_reading(words, b"")
    }

    /// [`Machine::run`] with something on standard input.
    pub fn run_reading(&self, words: &[&str], input: &[u8]) -> Ran {
        let child = self.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("util-linux is installed");
        let mut stdin = child.stdin.take().expect("was piped");
        let (input, writer) = (input.to_vec(), std::thread::spawn);
        let writer = writer(move || {
            // A program that does not read its input is free to do so.
            let _ = stdin.write_all(&input);
        });
        let Output { status, stdout, stderr } = child.wait_with_output().expect("a child can be waited for");
        writer.join().expect("writing does not panic");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
    }

    /// Runs a line of shell; panics where it fails; gives its output.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.run(&["sh", "-c", line]).must_succeed().to_owned()
    }

    /// Writes a file, with its directories; `mode` as chmod takes it.
    #[track_caller]
    pub fn write(&self, path: &str, mode: &str, text: impl AsRef<[u8]>) {
        let place = format!("mkdir -p \"$(dirname '{path}')\" && cat > '{path}' && chmod {mode} '{path}'");
        self.run_reading(&["sh", "-c", &place], text.as_ref()).must_succeed();
    }

    /// `dpkg --install` of a package of this machine; gives what it and the package said.
    #[track_caller]
    pub fn install(&self, package: &Path) -> String {
        self.write("/root/clawgress.deb", "644", std::fs::read(package).expect("the package was built"));
        self.sh("dpkg --install --force-confold /root/clawgress.deb 2>&1")
    }

    /// A property of a unit.
    #[track_caller]
    pub fn unit(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl show --value --property {property} {unit}")).trim_end().to_owned()
    }

    /// `clawgress import`.
    #[track_caller]
    pub fn import(&self, policy: &serde_json::Value) {
        self.run_reading(&["clawgress", "import", "--policy", "-"], policy.to_string().as_bytes()).must_succeed();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init() != 0 {
            eprintln!("the machine's journal:\n{}", self.run(&["journalctl", "--no-pager", "--lines", "60"]).stdout);
        }
        remove(&self.cgroup);
        let _ = self.outer.wait();
        let _ = std::fs::remove_file(self.log());
    }
}

/// Ends the machines of test runs that were killed; their names tell the process.
fn sweep() {
    for cgroup in std::fs::read_dir(cgroup2()).into_iter().flatten().flatten() {
        let name = cgroup.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(NAMES).and_then(|rest| rest.strip_prefix("lab-")?.split('-').next()?.parse().ok());
        let dead = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_err();
        if owner.is_some_and(dead) {
            remove(&cgroup.path());
        }
    }
}

/// Ends every process of a cgroup and those below it, and removes them.
fn remove(cgroup: &Path) {
    let end = Instant::now() + BOOT;
    while cgroup.exists() && Instant::now() < end {
        let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
        // Below first; what still ends is tried again.
        let tree =
            Command::new("find").arg(cgroup).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
        tree.expect("findutils are installed");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where the cgroup2 hierarchy is mounted.
fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("procfs is mounted");
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    found.expect("a cgroup2 hierarchy: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}
