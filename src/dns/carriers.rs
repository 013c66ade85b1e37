//! Where several answers may leave as one packet.
//!
//! A card of hardware gets datagrams: it cuts the packet itself, or the kernel does. On loopback there are only sockets, for
//! which the kernel cuts it. But through a veth pair, a bridge or a tap of this machine it goes whole to whoever is behind,
//! and a sandbox with a network stack of its own (gVisor, say) that reads frames there takes two answers for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::net::if_::if_indextoname;

/// How long it is remembered what an interface is.
const MEMORY: Duration = Duration::from_secs(5);
/// `ARPHRD_LOOPBACK` (linux/if_arp.h), as sysfs has it.
const LOOPBACK: &str = "772";
/// Kinds of interfaces that only pass on to those below them (`DEVTYPE` in sysfs).
const PASSING: [&str; 3] = ["vlan", "bond", "bridge"];
/// So many are stacked at most.
const DEPTH: usize = 8;

/// What interfaces are, remembered for a moment.
pub(super) struct Carriers {
    /// One directory for each interface (sysfs, `/sys/class/net`).
    root: PathBuf,
    known: Vec<(u32, bool, Instant)>,
}

impl Default for Carriers {
    fn default() -> Self {
        Self { root: "/sys/class/net".into(), known: Vec::new() }
    }
}

impl Carriers {
    /// Whether what leaves by an interface arrives as datagrams, whoever reads it. What is not known does not.
    pub fn cut(&mut self, interface: u32, now: Instant) -> bool {
        self.known.retain(|(_, _, when)| now.saturating_duration_since(*when) < MEMORY);
        if let Some((_, cuts, _)) = self.known.iter().find(|(known, ..)| *known == interface) {
            return *cuts;
        }
        let name = if_indextoname(interface).ok().and_then(|name| name.into_string().ok());
        let cuts = name.is_some_and(|name| !name.is_empty() && self.cuts(&name, DEPTH));
        self.known.push((interface, cuts, now));
        cuts
    }

    fn cuts(&self, name: &str, depth: usize) -> bool {
        let dir = self.root.join(name);
        let kind = read(&dir.join("uevent"));
        let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
        if read(&dir.join("type")).trim() == LOOPBACK
            || kind.is_none_or(|kind| kind == "wlan") && dir.join("device").exists()
        {
            return true;
        }
        let Some(left) = depth.checked_sub(1).filter(|_| kind.is_some_and(|kind| PASSING.contains(&kind))) else {
            return false;
        };
        let below: Vec<String> =
            entries(&dir).filter_map(|name| Some(name.strip_prefix("lower_")?.to_owned())).collect();
        !below.is_empty() && below.iter().all(|below| self.cuts(below, left))
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn entries(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_number_and_nothing_is_not() {
        let (mut carriers, now) = (Carriers::default(), Instant::now());
        assert!(carriers.cut(1, now) && carriers.cut(1, now));
        assert!(!carriers.cut(0, now) && !carriers.cut(u32::MAX, now));
        assert_eq!(carriers.known.len(), 3);
        let _ = carriers.cut(1, now + MEMORY);
        assert_eq!(carriers.known.len(), 1, "it is looked at again");
    }

    #[test]
    fn only_hardware_and_what_stands_on_it_cuts() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, kind: &str, below: &[&str]| {
            let dir = root.path().join(name);
            fs::create_dir(&dir).unwrap();
            let kind = if kind.is_empty() { String::new() } else { format!("DEVTYPE={kind}\n") };
            fs::write(dir.join("uevent"), format!("{kind}INTERFACE={name}\n")).unwrap();
            fs::write(dir.join("type"), "1\n").unwrap();
            for below in below {
                fs::create_dir(dir.join(format!("lower_{below}"))).unwrap();
            }
        };
        let stack = [
            ("eth0", "", &[][..]),
            ("wlan0", "wlan", &[]),
            ("eth0.10", "vlan", &["eth0"]),
            ("bond0", "bond", &["eth0", "wlan0"]),
            ("bond0.7", "vlan", &["bond0"]),
            ("br0", "bridge", &["eth0", "bond0.7"]),
            ("veth0", "", &[]),
            ("tap0", "", &[]),
            ("veth0.10", "vlan", &["veth0"]),
            ("br1", "bridge", &["eth0", "veth0"]),
            ("br2", "bridge", &[]),
            ("macvlan0", "macvlan", &["eth0"]),
            ("loop", "vlan", &["loop"]),
        ];
        for (name, kind, below) in stack {
            make(name, kind, below);
        }
        for hardware in ["eth0", "wlan0"] {
            fs::create_dir(root.path().join(hardware).join("device")).unwrap();
        }
        let carriers = Carriers { root: root.path().into(), known: Vec::new() };
        let cutting: Vec<&str> =
            stack.map(|(name, ..)| name).into_iter().filter(|name| carriers.cuts(name, DEPTH)).collect();
        assert_eq!(cutting, ["eth0", "wlan0", "eth0.10", "bond0", "bond0.7", "br0"]);
    }
}
