//! A small world of network namespaces:
//!
//! ```text
//!   agent a  192.168.10.10  fd00:10::10 ──lan1─┐
//!   agent b  192.168.11.10  fd00:11::10 ──lan2─┤ gateway ──wan── internet
//!   bystander c 192.168.12.10 fd00:12::10 ─lan3┘  (the daemon)     (servers, two resolvers)
//! ```
//!
//! The gateway is `.1` (`::1`) on each segment and routes without NAT. The internet answers TCP and UDP on ports 22,
//! 80, 443 and 8443 of *every* address in [`PUBLIC`], and runs DNS on 9.9.9.9 (the gateway's upstream) and 8.8.8.8
//! (somebody's other resolver).
//!
//! The public addresses are public on purpose: answers with private ones are refused. No packet can leave for the
//! real owners: the namespaces are joined to each other only, none has a link to the machine's own network, and
//! [`World::build`] checks that.

mod agent;
mod dig;
mod gateway;
mod netns;
mod outcome;
mod probe;
mod resolver;
mod servers;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use agent::{Agent, Flow, HELLO, PATIENCE};
pub use dig::{Over, Reply, question};
pub use gateway::{Gateway, Ran, binary};
pub use netns::{Address, Netns};
pub use outcome::{FAST, Kind, Outcome};
pub use probe::{Probe, Report};
pub use resolver::{Asked, Resolver, address_record, fqdn};
pub use servers::{Arrival, Servers};

/// Everything that answers in the lab's internet besides the resolvers. 10.66.0.0/16 stands for a private network
/// that is reachable beyond the gateway.
pub const PUBLIC: [&str; 6] =
    ["93.184.216.0/24", "151.101.0.0/16", "45.60.0.0/17", "10.66.0.0/16", "2606:4700::/33", "fd66::/64"];
/// Ports that are served there, TCP and UDP.
pub const PORTS: [u16; 4] = [22, 80, 443, 8443];
/// The gateway's upstream resolver.
pub const UPSTREAM: [&str; 2] = ["9.9.9.9", "2620:fe::fe"];
/// Another resolver, which nobody but an agent would ask.
pub const FOREIGN: [&str; 2] = ["8.8.8.8", "2001:4860:4860::8888"];
/// The internet's end of the wan link: where connections to the agents come from.
pub const OUTSIDE: [&str; 2] = ["45.60.255.2", "2606:4700:ffff::2"];
/// How long fresh links may take until both families work on them.
const LINKS: Duration = Duration::from_secs(10);

/// The internet's side.
pub struct Internet {
    /// Acts from [`OUTSIDE`], for connections that are opened from beyond the gateway.
    pub peer: Agent,
    /// What arrived at its servers.
    pub servers: Servers,
    /// The gateway's upstream.
    pub upstream: Resolver,
    /// Should never be asked by a policed agent.
    pub foreign: Resolver,
}

/// The whole lab. Dropping it ends the daemon and the servers and removes the namespaces.
pub struct World {
    /// The gateway; no daemon runs at first, so everything is open.
    pub gateway: Gateway,
    /// Agent on lan1.
    pub a: Agent,
    /// Agent on lan2.
    pub b: Agent,
    /// Bystander on lan3: out of scope in the policies that have one.
    pub c: Agent,
    /// Beyond the gateway.
    pub internet: Internet,
}

impl World {
    /// A new world. Without root rights `None`, said loudly; where `CI=true` that is a panic, so that a pipeline
    /// cannot go green by skipping.
    #[track_caller]
    pub fn build() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "the lab needs root rights, and in CI it may not be skipped");
            // Past the capture of the test harness, which would swallow eprintln! of a passing test.
            let _ = std::io::stderr().write_all(b"\nSKIP: a lab test was NOT run, it needs root rights\n");
            return None;
        }
        Some(Self::make())
    }

    fn make() -> Self {
        let stem = netns::fresh_stem();
        let [gw, a, b, c, net] = Netns::make(&stem, ["gw", "a", "b", "c", "net"]).map(Arc::new);
        for namespace in [&gw, &a, &b, &c, &net] {
            // No duplicate address detection: addresses are usable at once.
            namespace.sysctl("net.ipv6.conf.default.accept_dad", "0");
            namespace.sysctl("net.ipv6.conf.default.accept_ra", "0");
            namespace.sysctl("net.ipv6.ip_nonlocal_bind", "1");
            // Ping sockets without further rights.
            namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647");
        }
        let mut links = String::new();
        for (name, other) in [("lan1", &a), ("lan2", &b), ("lan3", &c), ("wan", &net)] {
            links += &format!("link add {name} netns {} type veth peer name eth0 netns {}\n", gw.name, other.name);
        }
        netns::ip_batch(None, &links);
        for (namespace, link) in [(&gw, "lan1"), (&gw, "lan2"), (&gw, "lan3"), (&gw, "wan")]
            .into_iter()
            .chain([&a, &b, &c, &net].map(|namespace| (namespace, "eth0")))
        {
            // A lost neighbour solicitation (links need a moment after "up") costs 50 ms, not a second.
            namespace.sysctl(&format!("net.ipv6.neigh.{link}.retrans_time_ms"), "50");
            namespace.sysctl(&format!("net.ipv4.neigh.{link}.retrans_time_ms"), "50");
        }

        let mut lines = String::from("link set lo up\n");
        for (lan, n) in [("lan1", 10), ("lan2", 11), ("lan3", 12)] {
            lines += &format!("addr add 192.168.{n}.1/24 dev {lan}\naddr add fd00:{n}::1/64 dev {lan} nodad\n");
            lines += &format!("link set {lan} up\n");
        }
        lines += "addr add 45.60.255.1/30 dev wan\naddr add 2606:4700:ffff::1/64 dev wan nodad\nlink set wan up\n";
        lines += &format!("route add default via {}\nroute add default via {}\n", OUTSIDE[0], OUTSIDE[1]);
        gw.ip(&lines);
        gw.sysctl("net.ipv4.ip_forward", "1");
        gw.sysctl("net.ipv6.conf.all.forwarding", "1");

        let [a, b, c] = [(a, 10), (b, 11), (c, 12)].map(|(namespace, n)| lan_host(namespace, n));
        let internet = internet(net);
        let world = Self { gateway: Gateway::new(gw), a, b, c, internet };
        world.check_isolation();
        world.wait_for_links();
        world
    }

    /// Until every segment carries both families in both directions.
    fn wait_for_links(&self) {
        let end = Instant::now() + LINKS;
        for agent in [&self.a, &self.b, &self.c] {
            for (ours, theirs) in [(agent.v4, self.internet.peer.v4), (agent.v6, self.internet.peer.v6)] {
                while !(agent.ping(theirs).reached() && self.internet.peer.ping(ours).reached()) {
                    assert!(Instant::now() < end, "{ours} and {theirs} do not see each other");
                }
            }
        }
    }

    /// Every link of the gateway and of the internet is one that this file made.
    fn check_isolation(&self) {
        for (namespace, links) in [(&self.gateway.netns, 5), (&self.internet.peer.netns, 2)] {
            let names = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
            let names = names.expect("procfs is mounted");
            // Two lines of heading; tunnel devices that modules put into every namespace are down and have no address.
            let ours = |line: &&str| ["lo:", "lan", "wan:", "eth0:"].iter().any(|own| line.trim().starts_with(own));
            assert_eq!(names.lines().skip(2).filter(ours).count(), links, "unexpected links:\n{names}");
        }
    }
}

fn lan_host(netns: Arc<Netns>, n: u8) -> Agent {
    netns.ip(&format!(
        "link set lo up\naddr add 192.168.{n}.10/24 dev eth0\naddr add fd00:{n}::10/64 dev eth0 nodad\n\
         link set eth0 up\nroute add default via 192.168.{n}.1\nroute add default via fd00:{n}::1\n"
    ));
    let address = |text: String| text.as_str().address();
    Agent {
        netns,
        v4: address(format!("192.168.{n}.10")),
        v6: address(format!("fd00:{n}::10")),
        router4: address(format!("192.168.{n}.1")),
        router6: address(format!("fd00:{n}::1")),
    }
}

fn internet(netns: Arc<Netns>) -> Internet {
    let mut lines = String::from("link set lo up\n");
    lines +=
        &format!("addr add {}/30 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n", OUTSIDE[0], OUTSIDE[1]);
    lines += "route add default via 45.60.255.1\nroute add default via 2606:4700:ffff::1\n";
    // Whole networks are local here, so that a test may use any address without asking for it first.
    for network in PUBLIC.iter().chain(&UPSTREAM).chain(&FOREIGN) {
        lines += &format!("route add local {network} dev lo\n");
    }
    netns.ip(&lines);
    let servers = Servers::new(netns.clone());
    servers.echo(&PORTS);
    let peer = Agent {
        netns: netns.clone(),
        v4: OUTSIDE[0].address(),
        v6: OUTSIDE[1].address(),
        router4: "45.60.255.1".address(),
        router6: "2606:4700:ffff::1".address(),
    };
    let (upstream, foreign) = (Resolver::start(&netns, &UPSTREAM), Resolver::start(&netns, &FOREIGN));
    Internet { peer, servers, upstream, foreign }
}
