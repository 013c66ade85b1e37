//! The service manager's watchdog: it hears of the daemon only while the thread lives that writes to the kernel.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::SITE;
use crate::world::{World, binary};

/// After this time without a sign of life the manager would kill.
const LIMIT: Duration = Duration::from_millis(600);
/// For everything else that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon and the manager that listens to it.
struct Managed {
    daemon: Child,
    manager: UnixDatagram,
}

impl Managed {
    fn start(world: &World) -> Self {
        let path = world.gateway.path("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut command = world.gateway.netns.command(binary());
        command.args(["run", "--config"]).arg(world.gateway.path("clawgress.toml"));
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { daemon, manager }
    }

    /// Whether the manager is told that within the time.
    fn says(&self, what: &str, within: Duration) -> bool {
        let end = Instant::now() + within;
        let mut notice = [0; 1024];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.manager.set_read_timeout(Some(left)).unwrap();
            let length = self.manager.recv(&mut notice).unwrap_or(0);
            if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == what) {
                return true;
            }
        }
    }

    /// The thread of that name.
    fn thread(&self, name: &str) -> Pid {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.daemon.id())).unwrap();
        let found = tasks
            .flatten()
            .find(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        Pid::from_raw(found.expect("a thread of that name").file_name().to_str().unwrap().parse().unwrap())
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn signs_of_life_end_with_the_gate_though_everything_else_lives() {
    let world = world!();
    world.gateway.store(json!({ "version": 1, "allow": { "ips": [SITE] } }));
    let managed = Managed::start(&world);
    assert!(managed.says("READY=1", PATIENCE));
    let end = Instant::now() + 2 * LIMIT;
    while Instant::now() < end {
        assert!(managed.says("WATCHDOG=1", LIMIT), "the manager would have killed a daemon that works");
    }
    let gate = managed.thread("gate");
    ptrace::seize(gate, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(gate).unwrap();
    waitpid(gate, Some(WaitPidFlag::__WALL)).unwrap();
    // What was under way before.
    managed.says("WATCHDOG=1", LIMIT / 2);
    assert!(!managed.says("WATCHDOG=1", 2 * LIMIT), "the gate hangs and the manager hears that all is well");
    world.a.tcp(SITE, 443).must_reach();
    ptrace::detach(gate, None).unwrap();
    assert!(managed.says("WATCHDOG=1", PATIENCE), "the gate works again");
}
