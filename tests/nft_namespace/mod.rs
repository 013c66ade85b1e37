//! Network namespaces for tests that talk to the kernel; the machine's own packet filter is never touched.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use clawgress::nft::{Kernel, Options};
use nix::sched::{CloneFlags, setns, unshare};

/// Whether tests can have namespaces and `nft`. Without them: a loud skip, or a failure where CI promises them.
pub fn ready() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        "the nft command"
    } else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs {missing}, and CI must have it");
    eprintln!("\n*** SKIPPED: this test needs {missing} ***\n");
    false
}

/// The packet filter of the thread's namespace, whose tables are nobody's.
pub fn kernel() -> Kernel {
    Kernel::open(Options::default()).expect("the kernel's packet filter")
}

/// A network namespace of this thread; gone with its last user.
pub struct Namespace(File);

impl Namespace {
    /// Makes one and enters it. Only the calling thread and the processes it starts are in it.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        Self(File::open("/proc/thread-self/ns/net").expect("the namespace's file"))
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
    }
}

/// Gives the thread's namespace a working 127.0.0.1.
pub fn loopback_up() {
    let done = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip starts");
    assert!(done.success());
}

/// Runs `nft` in the thread's namespace; `Err`: what it complained of.
pub fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("nft writes UTF-8"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Loads a ruleset.
pub fn load(text: &str) {
    if let Err(complaint) = nft(&["-f", "-"], text) {
        panic!("nft refused:\n{complaint}\n{text}");
    }
}

/// The table as nft lists it, without what differs by the moment (remaining times) and by history (the order of sets
/// and chains).
pub fn list() -> String {
    let text = list_raw();
    let mut blocks: Vec<&str> =
        text.strip_suffix("}\n").unwrap_or(&text).split("\n\n").map(|block| block.trim_end()).collect();
    if let Some(first) = blocks.first_mut() {
        *first = first.trim_start_matches("table inet clawgress {").trim_start_matches('\n');
    }
    blocks.sort_unstable();
    blocks.join("\n\n")
}

fn list_raw() -> String {
    let text = nft(&["list", "table", "inet", "clawgress"], "").expect("the table is there");
    let mut out = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if word == "expires" {
            words.next();
            continue;
        }
        out.push_str(word);
        if words.peek().is_some() {
            out.push(' ');
        }
    }
    out
}

/// The same as JSON, without handles, remaining times and the tool's version.
pub fn list_json() -> serde_json::Value {
    let text = nft(&["-j", "list", "table", "inet", "clawgress"], "").expect("the table is there");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    strip(&mut value);
    // Stable: the rules of a chain keep their order.
    if let Some(list) = value["nftables"].as_array_mut() {
        list.sort_by_key(|entry| {
            let thing = entry.as_object().and_then(|entry| entry.iter().next());
            thing.map(|(kind, thing)| (kind.clone(), thing["chain"].to_string(), thing["name"].to_string()))
        });
    }
    value
}

fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for moment in ["handle", "expires", "metainfo"] {
                map.remove(moment);
            }
            map.values_mut().for_each(strip);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// How many sockets of the thread's namespace listen to changes of the packet filter.
pub fn listeners() -> usize {
    /// `NETLINK_NETFILTER`, and the group's bit (netlink(7), `/proc/net/netlink`).
    const PROTOCOL: &str = "12";
    const GROUP: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").expect("the kernel lists netlink sockets");
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let protocol = fields.next();
        let groups = fields.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
        protocol == Some(PROTOCOL) && groups.is_some_and(|groups| groups & GROUP != 0)
    };
    sockets.lines().filter(listens).count()
}
