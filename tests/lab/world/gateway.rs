//! The machine under test: the real daemon in the gateway's namespace, and the real tool beside it.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::netns::{DIRECTORIES, Netns};
use super::servers::Servers;

/// How long the daemon may take until it says READY; the promise for small policies is far below.
const READY: Duration = Duration::from_secs(10);
/// How long the daemon may take to end after SIGTERM, or to give up.
const END: Duration = Duration::from_secs(10);

/// The settings the lab's daemon runs with; `{dir}` is the daemon's own directory.
const SETTINGS: &str = r#"
policy      = "{dir}/policy.json"
state_dir   = "{dir}/state"
runtime_dir = "{dir}/run"

[dns]
listen    = ["0.0.0.0:53", "[::]:53"]
upstreams = ["9.9.9.9"]
"#;

/// What a call of the tool gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit status; `None`: killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Panics unless the exit status is 0; gives standard output.
    #[track_caller]
    pub fn must_succeed(&self) -> &str {
        assert_eq!(self.code, Some(0), "the tool should succeed, it said: {}{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// Standard output as JSON; panics where it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("the tool should print JSON ({e}), it said: {}{}", self.stdout, self.stderr))
    }
}

/// The gateway's namespace and files, with or without a running daemon.
pub struct Gateway {
    /// Where it lives.
    pub netns: Arc<Netns>,
    /// Its own listeners (none at first), such as a management SSH.
    pub servers: Servers,
    dir: TempDir,
    daemon: Option<Child>,
}

impl Gateway {
    pub(super) fn new(netns: Arc<Netns>) -> Self {
        let prefix = format!("{DIRECTORIES}{}-", netns.name);
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("the temporary directory is writable");
        let this = Self { servers: Servers::new(netns.clone()), netns, dir, daemon: None };
        for part in ["state", "run"] {
            std::fs::create_dir(this.path(part)).expect("the temporary directory is writable");
        }
        this.settings("");
        this
    }

    /// A path in the daemon's own directory: `policy.json`, `state`, `run`, `clawgress.toml`, `daemon.log`.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Writes the settings file: the lab's settings and `more` (whole TOML lines; the last table is `[dns]`).
    pub fn settings(&self, more: &str) {
        let text = SETTINGS.replace("{dir}", &self.dir.path().display().to_string()) + more;
        std::fs::write(self.path("clawgress.toml"), text).expect("the temporary directory is writable");
    }

    /// Writes the stored policy, as a user's editor would.
    pub fn store(&self, policy: impl Display) {
        std::fs::write(self.path("policy.json"), policy.to_string()).expect("the temporary directory is writable");
    }

    /// Stores the policy and starts the daemon; returns when it says that it enforces.
    #[track_caller]
    pub fn enforce(&mut self, policy: impl Display) {
        self.store(policy);
        self.start();
    }

    /// Starts the daemon with what is stored; returns when it says READY, panics with its log where it does not.
    #[track_caller]
    pub fn start(&mut self) {
        let ready = self.path("notify");
        let _ = std::fs::remove_file(&ready);
        let notices = UnixDatagram::bind(&ready).expect("the temporary directory is writable");
        notices.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout is legal");
        self.launch();
        let end = Instant::now() + READY;
        let mut notice = [0; 1024];
        loop {
            let length = notices.recv(&mut notice).unwrap_or(0);
            if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == "READY=1") {
                return;
            }
            let ended = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > end {
                let what = ended.map_or("is not ready after 10 s".to_owned(), |status| format!("ended ({status})"));
                panic!("the daemon {what}; its log:\n{}", self.log());
            }
        }
    }

    /// Starts the daemon without waiting for anything.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.daemon.is_none(), "the test starts the daemon twice");
        require_daemon();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log"));
        let child = self
            .netns
            .command(binary())
            .args(["run", "--config"])
            .arg(self.path("clawgress.toml"))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the temporary directory is writable"))
            .spawn();
        self.daemon = Some(child.expect("iproute2 is installed"));
    }

    /// Starts the daemon and waits until it gives up; panics where it does not. Standard error is the log.
    #[track_caller]
    pub fn fail_to_start(&mut self) -> Ran {
        self.launch();
        let status = self.wait_for_end("does not give up");
        Ran { code: status.code(), stdout: String::new(), stderr: self.log() }
    }

    /// Everything the daemon logged so far, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// `kill -9` and wait until the process is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; panics where the daemon does not end in time. Enforcement is supposed to stay.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_for_end("does not end on SIGTERM")
    }

    #[track_caller]
    fn wait_for_end(&mut self, otherwise: &str) -> ExitStatus {
        let mut child = self.daemon.take().expect("the daemon runs");
        let end = Instant::now() + END;
        loop {
            if let Some(status) = child.try_wait().expect("the daemon is our child") {
                return status;
            }
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the daemon {otherwise}; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGHUP: read settings and policy again.
    #[track_caller]
    pub fn hangup(&self) {
        self.signal(Signal::SIGHUP);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let child = self.daemon.as_ref().expect("the test started the daemon");
        let pid = i32::try_from(child.id()).expect("pids are small");
        kill(Pid::from_raw(pid), signal).expect("the daemon is our child");
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Runs the tool with the daemon's settings, in the gateway's namespace.
    pub fn tool(&self, arguments: &[&str]) -> Ran {
        self.tool_reading(arguments, "")
    }

    /// [`Gateway::tool`] with something on standard input.
    pub fn tool_reading(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.netns.command(binary());
        command.args(arguments).arg("--config").arg(self.path("clawgress.toml"));
        run(command, input)
    }

    /// `clawgress import --policy -`; panics where it is refused.
    #[track_caller]
    pub fn import(&self, policy: impl Display) {
        self.tool_reading(&["import", "--policy", "-"], &policy.to_string()).must_succeed();
    }

    /// `clawgress explain --json` for a source and further arguments.
    #[track_caller]
    pub fn explain(&self, source: std::net::IpAddr, arguments: &[&str]) -> Value {
        let source = source.to_string();
        self.tool(&[&["explain", "--json", "--source", &source], arguments].concat()).json()
    }

    /// `clawgress status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.tool(&["status", "--json"]).json()
    }

    /// Asks again and again, panics when it is not true in time.
    #[track_caller]
    pub fn wait_until(&self, what: &str, patience: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + patience;
        while !holds(self) {
            assert!(Instant::now() < end, "{what} is not so after {patience:?}; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Loads a ruleset with `nft -f -`; panics where it is refused.
    #[track_caller]
    pub fn nft_load(&self, ruleset: &str) {
        let mut command = self.netns.command("nft");
        command.args(["-f", "-"]);
        run(command, ruleset).must_succeed();
    }

    /// Runs `nft` with these words.
    pub fn nft(&self, arguments: &[&str]) -> Ran {
        let mut command = self.netns.command("nft");
        command.args(arguments);
        run(command, "")
    }

    /// The connection table, one flow a line.
    pub fn conntrack(&self) -> Vec<String> {
        let mut command = self.netns.command("conntrack");
        command.arg("-L");
        run(command, "").stdout.lines().map(str::to_owned).collect()
    }

    /// Lifts the kernel's own limit on ICMP errors (six at once, then one a second for each destination). The lab
    /// leaves it as every router has it; tests with many refusals of one agent need it out of the way.
    pub fn unlimited_icmp(&self) {
        for (key, value) in
            [("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0"), ("net.ipv4.icmp_ratemask", "0")]
        {
            self.netns.sysctl(key, value);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill9();
        let log = self.log();
        if std::thread::panicking() && !log.is_empty() {
            eprintln!("the daemon's log:\n{log}");
        }
    }
}

fn run(mut command: std::process::Command, input: &str) -> Ran {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("iproute2 is installed");
    // A program that does not read its input is free to do so.
    let _ = child.stdin.take().expect("was piped").write_all(input.as_bytes());
    let done = child.wait_with_output().expect("a child can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: done.status.code(), stdout: text(&done.stdout), stderr: text(&done.stderr) }
}

/// The daemon under test: what cargo built for this test, or (the demo) what lies beside the running program.
/// `CLAWGRESS_BIN` names another one, such as an installed package's.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CLAWGRESS_BIN") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_clawgress") {
        return path.into();
    }
    let mut path = std::env::current_exe().expect("a program knows its path");
    path.pop();
    if path.ends_with("examples") || path.ends_with("deps") {
        path.pop();
    }
    path.join("clawgress")
}

#[track_caller]
fn require_daemon() {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    let answers = ANSWERS.get_or_init(|| {
        let said = std::process::Command::new(binary()).arg("--version").output();
        said.is_ok_and(|done| done.status.success() && done.stdout.starts_with(b"clawgress"))
    });
    assert!(answers, "daemon not built yet: {} does not answer --version", binary().display());
}
