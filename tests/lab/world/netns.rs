//! Network namespaces by name: made with `ip`, entered by threads that are thrown away afterwards.
//!
//! Names are `lab-<pid>-<n>-<role>`, so that several test processes, and several worlds in one, never meet, and
//! whatever a killed run left behind is known by the pid that is gone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// First part of every name this lab gives to a namespace.
const PREFIX: &str = "lab-";
/// What comes before it in the names of temporary directories.
pub const DIRECTORIES: &str = "clawgress-";
/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

static WORLDS: AtomicU32 = AtomicU32::new(0);
/// `ip netns add` of several processes at once is a race over the mount of [`NAMES`] in older iproute2.
static MAKING: Mutex<()> = Mutex::new(());

/// The common part of the names of one world.
pub fn fresh_stem() -> String {
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(sweep);
    format!("{PREFIX}{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed))
}

/// Runs `ip` with lines for its batch mode; panics with what `ip` said if a line fails.
pub fn ip_batch(netns: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(name) = netns {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iproute2 is not installed: run `make setup`");
    child.stdin.take().expect("was piped").write_all(lines.as_bytes()).expect("ip reads its lines");
    let done = child.wait_with_output().expect("ip ends");
    assert!(done.status.success(), "ip -batch failed: {}\n{lines}", String::from_utf8_lossy(&done.stderr));
}

/// One namespace; its name is removed on drop, the namespace itself goes with its last socket.
#[derive(Debug)]
pub struct Netns {
    /// The name `ip netns` knows it by.
    pub name: String,
    handle: File,
}

impl Netns {
    /// Makes the namespaces `stem-role`, in the order of the roles.
    pub fn make<const N: usize>(stem: &str, roles: [&str; N]) -> [Self; N] {
        let lines: String = roles.iter().map(|role| format!("netns add {stem}-{role}\n")).collect();
        {
            let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            ip_batch(None, &lines);
        }
        roles.map(|role| {
            let name = format!("{stem}-{role}");
            let handle = File::open(Path::new(NAMES).join(&name)).expect("ip made the namespace");
            Self { name, handle }
        })
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay there, wherever they go.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.move_this_thread();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`Netns::enter`] for work that goes on after the call.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let handle = self.handle.try_clone().expect("file descriptors are left");
        std::thread::spawn(move || {
            setns(&handle, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            drop(handle);
            work()
        })
    }

    fn move_this_thread(&self) {
        setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }

    /// Sets `net.…` (given with dots) in this namespace.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("sysctl {key}={value}: {e}"));
    }

    /// Lines for `ip -batch` in this namespace.
    pub fn ip(&self, lines: &str) {
        ip_batch(Some(&self.name), lines);
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    // Best effort: another process that sweeps may have been faster.
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Removes what killed runs left: their namespaces, what still runs in those, and their temporary directories.
fn sweep() {
    let of_the_dead = |name: &str| {
        let rest = name.strip_prefix(DIRECTORIES).unwrap_or(name).strip_prefix(PREFIX);
        let owner = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        // A process that nobody waited for still has its directory in /proc, but no program any more.
        owner.is_some_and(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_err())
    };
    for name in names_in(Path::new(NAMES)).filter(|name| of_the_dead(name)) {
        for pid in processes_in(&name) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        remove(&name);
    }
    let directories = std::env::temp_dir();
    for name in names_in(&directories).filter(|name| name.starts_with(DIRECTORIES) && of_the_dead(name)) {
        let _ = std::fs::remove_dir_all(directories.join(name));
    }
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The processes (not threads) that live in the namespace.
fn processes_in(name: &str) -> BTreeSet<i32> {
    let said = Command::new("ip").args(["netns", "pids", name]).output();
    let said = said.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
    said.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// What stands for an address in a test: text or the address itself.
pub trait Address {
    /// The address; panics where the text is none.
    fn address(&self) -> IpAddr;
}

impl Address for IpAddr {
    fn address(&self) -> IpAddr {
        *self
    }
}

impl Address for &str {
    fn address(&self) -> IpAddr {
        self.parse().unwrap_or_else(|_| panic!("the test says {self:?} where an address is due"))
    }
}
