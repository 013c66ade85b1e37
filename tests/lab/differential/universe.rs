//! The small universe of the live differential test: names with their addresses, and random policies about them.

use std::net::IpAddr;

use clawgress::policy::model::Policy;
use clawgress::policy::name::Name;
use clawgress::policy::{normalised, parse};
use serde_json::{Value, json};

use super::random::Random;
use crate::world::{OUTSIDE, Servers, World};

/// A name of the lab's upstream.
pub struct Entry {
    pub name: &'static str,
    /// Where it leads, for an alias.
    pub alias: Option<&'static str>,
    /// IPv4 and IPv6 addresses, in the order they are answered.
    pub addresses: &'static [&'static str],
}

const fn entry(name: &'static str, alias: Option<&'static str>, addresses: &'static [&'static str]) -> Entry {
    Entry { name, alias, addresses }
}

/// Addresses of two names, private ones alone and among others, aliases to names that can be denied, one family only.
pub const ZONE: [Entry; 10] = [
    entry("a.test-site.com", None, &["93.184.216.34", "2606:4700::34"]),
    entry("b.test-site.com", None, &["93.184.216.35", "151.101.0.1", "2606:4700::35"]),
    entry("deep.a.test-site.com", None, &["93.184.216.34", "2606:4700:0:1::5"]),
    entry("test-site.com", None, &["45.60.1.1"]),
    entry("other.net", None, &["10.66.0.1", "fd66::1"]),
    entry("x.other.net", None, &["10.66.0.2", "151.101.7.7", "fd66::2", "2606:4700::99"]),
    entry("y.x.other.net", Some("cdn.third.org"), &["151.101.9.9", "2606:4700::9"]),
    entry("third.org", None, &["93.184.216.99", "2606:4700:1::5"]),
    entry("www.third.org", Some("edge.other.net"), &["151.101.8.8", "2606:4700::88"]),
    entry("single", None, &["45.60.1.2", "2606:4700:1::6"]),
];
/// What the other resolver, which nobody in scope reaches, answers to everything.
pub const ELSEWHERE: [&str; 2] = ["93.184.216.200", "2606:4700::200"];
/// Addresses that no name has.
const NAMELESS: [&str; 6] = ["93.184.216.7", "45.60.1.77", "10.66.9.9", "2606:4700::7", "2606:4700:1::7", "fd66::9"];
/// Served everywhere; 53 is never one to connect to.
pub const OPEN: [u16; 4] = [22, 80, 443, 8443];
const PORTS: [u16; 5] = [53, 80, 443, 22, 8443];
const PATTERNS: [&str; 11] = [
    "other.net",
    "a.test-site.com",
    "*.test-site.com",
    "*.a.test-site.com",
    "test-site.com",
    "*.other.net",
    "x.other.net",
    "*.x.other.net",
    "third.org",
    "*.third.org",
    "single",
];
const SOURCES: [&str; 12] = [
    "192.168.0.0/16",
    "192.168.10.0/24",
    "192.168.10.10/32",
    "192.168.10.8/29",
    "192.168.11.0/24",
    "192.168.11.10/31",
    "192.168.12.10/32",
    "fd00::/16",
    "fd00:10::/64",
    "fd00:10::10/128",
    "fd00:11::/32",
    "fd00:12::10/127",
];
/// Networks inside and around what the names have; the last two are rare, or nothing would ever be refused.
const NETS: [&str; 16] = [
    "93.184.216.0/24",
    "93.184.216.34/32",
    "93.184.216.32/29",
    "151.101.0.0/16",
    "151.101.8.8/32",
    "45.60.1.1/32",
    "45.60.255.2/32",
    "10.66.0.0/16",
    "192.168.11.0/24",
    "2606:4700::/64",
    "2606:4700:1::/48",
    "2606:4700::34/128",
    "2606:4700:ffff::2/128",
    "fd66::/64",
    "0.0.0.0/0",
    "::/0",
];
const SCOPES: [&[&str]; 3] = [
    &["192.168.10.0/23", "fd00:10::/31"],
    &["192.168.0.0/16", "fd00::/16"],
    &["192.168.10.10/32", "fd00:10::10/128", "192.168.12.0/24"],
];

/// Teaches both resolvers the universe, and lets the agents serve what the internet serves.
pub fn furnish(world: &World) -> Vec<Servers> {
    for entry in &ZONE {
        let owner = entry.alias.unwrap_or(entry.name);
        if let Some(target) = entry.alias {
            world.internet.upstream.alias(entry.name, target);
        }
        // Longer than any run, so that no lease ends meanwhile.
        world.internet.upstream.host_for(owner, entry.addresses, 3600);
        world.internet.foreign.host(entry.name, &ELSEWHERE);
    }
    let agents = [&world.a, &world.b, &world.c];
    agents.map(|agent| Servers::new(agent.netns.clone())).into_iter().inspect(|inside| inside.echo(&OPEN)).collect()
}

pub fn name(text: &str) -> Name {
    Name::from_wire_labels(text.split('.').map(str::as_bytes)).expect("a name")
}

impl Random {
    fn lab_allow(&mut self) -> Value {
        let mut allow = json!({});
        if self.chance(80) {
            allow["domains"] = self.some(&PATTERNS, 45);
        }
        if self.chance(60) {
            let nets = if self.chance(8) { &NETS[..] } else { &NETS[..14] };
            allow["ips"] = self.some(nets, 20);
            if self.chance(35) {
                // Somebody who may call.
                allow["ips"].as_array_mut().expect("a list").extend(OUTSIDE.map(Value::from));
            }
        }
        if self.chance(50) {
            allow["ports"] = self.some(&PORTS, 65);
        }
        allow
    }

    fn lab_deny(&mut self) -> Value {
        let mut deny = json!({});
        if self.chance(50) {
            deny["domains"] = self.some(&PATTERNS, 12);
        }
        if self.chance(70) {
            deny["ips"] = self.some(&NETS[..14], 15);
        }
        deny
    }

    fn lab_document(&mut self) -> Value {
        let mut policy = json!({ "version": 1, "allow": self.lab_allow() });
        if self.chance(60) {
            policy["deny"] = self.lab_deny();
        }
        if self.chance(40) {
            let mut scope = json!({});
            if self.chance(70) {
                scope["sources"] = json!(self.pick(&SCOPES));
            }
            if self.chance(40) || scope == json!({}) {
                scope["interfaces"] = json!(self.pick(&[&["lan1"][..], &["lan1", "lan2"], &["lan3", "lan2"]]));
            }
            policy["scope"] = scope;
        }
        let mut hosts = json!({});
        let mut free: Vec<&str> = SOURCES.to_vec();
        for host in ["agent-1", "agent.2", "three"] {
            if !self.chance(75) {
                continue;
            }
            let mut sources = Vec::new();
            for _ in 0..1 + self.below(3) {
                let index = usize::try_from(self.below(free.len() as u64)).unwrap_or(0);
                sources.push(free.swap_remove(index));
            }
            hosts[host] = json!({ "sources": sources });
            if self.chance(65) {
                hosts[host]["allow"] = self.lab_allow();
            }
            if self.chance(30) {
                hosts[host]["deny"] = self.lab_deny();
            }
        }
        if hosts != json!({}) {
            policy["hosts"] = hosts;
        }
        policy
    }

    pub fn lab_policy(&mut self) -> Policy {
        let document = self.lab_document();
        parse(&document.to_string()).unwrap_or_else(|errors| panic!("{errors:?}\n{document}"))
    }

    /// A policy that differs from `old` in one part, sometimes in all.
    pub fn lab_policy_like(&mut self, old: &Policy) -> Policy {
        if self.chance(25) {
            return self.lab_policy();
        }
        let mut document = normalised(old);
        let fresh = self.lab_document();
        let part = self.pick(&["allow", "deny", "scope", "hosts", "hosts"]);
        let hosts: Vec<String> =
            document["hosts"].as_object().map(|hosts| hosts.keys().cloned().collect()).unwrap_or_default();
        if part == "hosts" && !hosts.is_empty() && self.chance(70) {
            let host = &hosts[usize::try_from(self.below(hosts.len() as u64)).unwrap_or(0)];
            let (field, value) = if self.chance(60) { ("allow", self.lab_allow()) } else { ("deny", self.lab_deny()) };
            document["hosts"][host][field] = value;
        } else if let Some(value) = fresh.get(part) {
            document[part] = value.clone();
        }
        parse(&document.to_string()).unwrap_or_else(|errors| panic!("{errors:?}\n{document}"))
    }

    /// Somewhere to go: an address that somebody was told, one that a name has, one that no name has.
    pub fn lab_destination(&mut self, v4: bool, told: &[IpAddr]) -> IpAddr {
        let fits = |address: &IpAddr| address.is_ipv4() == v4;
        let told: Vec<IpAddr> = told.iter().copied().filter(fits).collect();
        if !told.is_empty() && self.chance(60) {
            return self.pick(&told);
        }
        let nameless = self.chance(25);
        let texts = ZONE.iter().flat_map(|entry| entry.addresses).filter(|_| !nameless);
        let all = texts.chain(&NAMELESS).map(|text| text.parse().expect("an address"));
        let all: Vec<IpAddr> = all.filter(fits).collect();
        self.pick(&all)
    }
}
