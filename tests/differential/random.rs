//! Random policies and flows from a small universe, so that they meet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use clawgress::policy::lists::{MAX_RULES, Reader};
use clawgress::policy::model::{ListFormat, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::reference::{Flow, Protocol};
use clawgress::policy::{normalised, parse};
use serde_json::{Value, json};

/// xorshift64*: small, seeded, the same everywhere.
pub struct Random(u64);

const NAMES: [&str; 10] = [
    "a.test-site.com",
    "b.test-site.com",
    "deep.a.test-site.com",
    "test-site.com",
    "other.net",
    "x.other.net",
    "y.x.other.net",
    "single",
    "third.org",
    "www.third.org",
];
const PATTERNS: [&str; 9] = [
    "a.test-site.com",
    "*.test-site.com",
    "*.a.test-site.com",
    "test-site.com",
    "*.other.net",
    "x.other.net",
    "*.x.other.net",
    "third.org",
    "single",
];
const SOURCES: [&str; 9] = [
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.7/32",
    "10.1.2.0/25",
    "10.0.0.0/8",
    "fd00::/16",
    "fd00:1::/32",
    "fd00:1::7/128",
    "10.1.1.6/31",
];
const NETS: [&str; 10] = [
    "93.184.0.0/16",
    "93.184.216.0/24",
    "93.184.216.34/32",
    "45.60.1.1/32",
    "10.9.0.0/16",
    "2606:4700::/32",
    "2606:4700:1::/48",
    "2606:4700:1::5/128",
    "0.0.0.0/0",
    "::/0",
];
/// Files with lists of names, by format.
const LISTS: [(&str, ListFormat, &str); 7] = [
    ("/names", ListFormat::Domains, "a.test-site.com\n*.x.other.net\nthird.org\n"),
    ("/empty", ListFormat::Domains, "# nothing\n"),
    ("/hosts", ListFormat::Hosts, "0.0.0.0 b.test-site.com x.other.net\n"),
    ("/filter", ListFormat::Adblock, "||test-site.com^\n@@||a.test-site.com^\n||third.org^\n@@||third.org^\n"),
    ("/filter2", ListFormat::Adblock, "||other.net^\n@@||*.other.net^\n||x.other.net^\n||www.third.org^\n"),
    (
        "/zone",
        ListFormat::Rpz,
        "*.test-site.com CNAME .\na.test-site.com CNAME rpz-passthru.\n*.a.test-site.com CNAME *.\n\
         *.other.net CNAME rpz-passthru.\nx.other.net A 127.0.0.1\n16.0.0.184.93.rpz-ip CNAME .\n\
         32.34.216.184.93.rpz-ip CNAME rpz-passthru.\n32.1.1.60.45.rpz-ip CNAME .\n",
    ),
    ("/zone2", ListFormat::Rpz, "single CNAME rpz-passthru.\n*.third.org CNAME .\n48.zz.1.4700.2606.rpz-ip CNAME .\n"),
];
const PORTS: [u16; 5] = [53, 80, 443, 22, 8443];

/// The policy of a document, with what the files say.
pub fn read(document: &Value) -> Policy {
    let policy = parse(&document.to_string()).unwrap_or_else(|errors| panic!("{errors:?}\n{document}"));
    let contents = |text: &str, format| {
        let mut reader = Reader::new(format, 0, MAX_RULES);
        reader.feed(text.as_bytes()).expect("a list");
        Arc::new(reader.finish().expect("a list"))
    };
    let lists = LISTS.map(|(file, format, text)| ((file.to_owned(), format), contents(text, format)));
    policy.with_contents(&BTreeMap::from(lists))
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }

    pub fn some<T: Copy + Into<Value>>(&mut self, from: &[T], percent: u64) -> Value {
        from.iter().filter(|_| self.chance(percent)).map(|item| (*item).into()).collect()
    }

    fn allow(&mut self) -> Value {
        let mut allow = json!({});
        if self.chance(75) {
            allow["domains"] = self.some(&PATTERNS, 40);
        }
        if self.chance(40) {
            allow["domain_lists"] = self.lists(25);
        }
        if self.chance(50) {
            // Everything at once is rare, or nothing would ever be refused.
            let few = if self.chance(10) { &NETS[..] } else { &NETS[..8] };
            allow["ips"] = self.some(few, 25);
        }
        if self.chance(50) {
            allow["ports"] = self.some(&PORTS, 60);
        }
        allow
    }

    /// Some of the lists in files.
    fn lists(&mut self, percent: u64) -> Value {
        let lists = LISTS.iter().filter(|_| self.chance(percent));
        lists.map(|(file, format, _)| json!({ "name": &file[1..], "file": file, "format": format.word() })).collect()
    }

    fn deny(&mut self) -> Value {
        let mut deny = json!({});
        if self.chance(50) {
            deny["domains"] = self.some(&PATTERNS, 12);
        }
        if self.chance(50) {
            deny["ips"] = self.some(&NETS[..8], 10);
        }
        if self.chance(40) {
            deny["domain_lists"] = self.lists(15);
        }
        deny
    }

    /// A window, often of some hours, sometimes across midnight, sometimes of whole days.
    fn window(&mut self) -> Value {
        let days = self.some(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 60);
        let mut window = json!({});
        if days != json!([]) {
            window["days"] = days;
        }
        if self.chance(80) || window == json!({}) {
            let (start, length) = (self.below(1440), 1 + self.below(1200));
            let time = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
            window["start"] = json!(time(start));
            window["end"] = json!(time(start + length));
        }
        window
    }

    /// Some instant; every second one is close to a clock change of New York.
    pub fn start(&mut self) -> DateTime<Utc> {
        let seconds =
            if self.chance(50) { 1_793_500_000 + self.below(100_000) } else { 1_780_000_000 + self.below(40_000_000) };
        DateTime::from_timestamp(i64::try_from(seconds).expect("small"), 0).expect("in range")
    }

    fn windows(&mut self, at: &mut Value) {
        if self.chance(25) {
            at["time_window"] = self.window();
        }
        if self.chance(25) {
            let patterns: Vec<&str> = PATTERNS.iter().copied().filter(|_| self.chance(30)).collect();
            at["domain_time_windows"] =
                patterns.into_iter().map(|pattern| (pattern.to_owned(), self.window())).collect();
        }
    }

    /// Limits and caps of a host.
    fn limits(&mut self, at: &mut Value) {
        if self.chance(25) {
            at["limits"] = json!({ "egress_kbps": 1000 + self.below(1000) });
        }
        if self.chance(50) {
            let patterns: Vec<&str> = PATTERNS.iter().copied().filter(|_| self.chance(30)).collect();
            let mut cap = || json!({ "bytes": 1000 << self.below(20), "period": "day" });
            let domains: serde_json::Map<String, Value> =
                patterns.into_iter().map(|pattern| (pattern.to_owned(), cap())).collect();
            at["exfil"] = json!({ "domains": domains });
        }
    }

    fn document(&mut self) -> Value {
        let mut policy = json!({ "version": 1, "allow": self.allow() });
        if self.chance(15) {
            policy["mode"] = json!("monitor");
        }
        if self.chance(20) {
            policy["limits"] = json!({ "egress_kbps": 1000 + self.below(1000) });
        }
        if self.chance(50) {
            policy["deny"] = self.deny();
        }
        if self.chance(40) {
            let mut scope = json!({});
            if self.chance(60) {
                scope["sources"] = json!(["10.1.0.0/16", "fd00::/16"]);
            }
            if self.chance(50) || scope == json!({}) {
                scope["interfaces"] = json!(["lan1", "lan2"]);
            }
            policy["scope"] = scope;
        }
        self.windows(&mut policy);
        if self.chance(50) {
            policy["time_zone"] = json!(self.pick(&["America/New_York", "Europe/Berlin", "Asia/Kolkata"]));
        }
        let mut hosts = json!({});
        let mut free: Vec<&str> = SOURCES.to_vec();
        for host in ["agent-1", "agent.2", "three"] {
            if self.chance(75) && free.len() > 2 {
                let mut sources = Vec::new();
                for _ in 0..1 + self.below(2) {
                    let index = usize::try_from(self.below(free.len() as u64)).unwrap_or(0);
                    sources.push(free.swap_remove(index));
                }
                hosts[host] = json!({ "sources": sources });
                if self.chance(70) {
                    hosts[host]["allow"] = self.allow();
                }
                if self.chance(30) {
                    hosts[host]["deny"] = self.deny();
                }
                let mut block = hosts[host].take();
                self.windows(&mut block);
                self.limits(&mut block);
                if self.chance(25) {
                    block["mode"] = json!(self.pick(&["monitor", "enforce"]));
                }
                hosts[host] = block;
            }
        }
        if hosts != json!({}) {
            policy["hosts"] = hosts;
        }
        policy
    }

    pub fn policy(&mut self) -> Policy {
        let document = self.document();
        read(&document)
    }

    /// A policy that differs from `old` in one or two places, sometimes in all.
    pub fn policy_like(&mut self, old: &Policy) -> Policy {
        if self.chance(20) {
            return self.policy();
        }
        let mut document = normalised(old);
        let fresh = self.document();
        let parts = ["allow", "deny", "hosts", "scope", "time_window", "domain_time_windows", "mode"];
        let part = self.pick(&parts);
        let hosts: Vec<String> =
            document["hosts"].as_object().map(|hosts| hosts.keys().cloned().collect()).unwrap_or_default();
        if part == "hosts" && !hosts.is_empty() && self.chance(70) {
            let host = &hosts[usize::try_from(self.below(hosts.len() as u64)).unwrap_or(0)];
            if self.chance(40) {
                document["hosts"][host]["allow"] = self.allow();
            } else if self.chance(40) {
                let mut block = document["hosts"][host].take();
                self.limits(&mut block);
                document["hosts"][host] = block;
            } else {
                document["hosts"][host]["deny"] = self.deny();
            }
        } else if let Some(value) = fresh.get(part) {
            document[part] = value.clone();
        }
        read(&document)
    }

    pub fn name(&mut self) -> Name {
        let text = self.pick(&NAMES);
        Name::from_wire_labels(text.split('.').map(str::as_bytes)).expect("a name")
    }

    pub fn source(&mut self) -> IpAddr {
        let all =
            ["10.1.1.7", "10.1.1.6", "10.1.1.9", "10.1.2.1", "10.1.2.200", "10.200.0.1", "fd00:1::7", "fd00:2::1"];
        self.pick(&all).parse().expect("an address")
    }

    /// An address of the same family.
    pub fn destination(&mut self, source: IpAddr) -> IpAddr {
        let v4 = ["93.184.216.34", "93.184.216.35", "93.184.1.1", "45.60.1.1", "45.60.1.2", "10.9.1.1", "192.168.1.1"];
        let v6 = ["2606:4700:1::5", "2606:4700:1::6", "2606:4700:2::1", "2a00::1", "fd00:9::1"];
        let text = if source.is_ipv4() { self.pick(&v4) } else { self.pick(&v6) };
        text.parse().expect("an address")
    }

    /// A flow, more often than not to an address that somebody was told.
    pub fn flow(&mut self, told: &[IpAddr]) -> Flow<'static> {
        let source = self.source();
        let fitting: Vec<IpAddr> = told.iter().copied().filter(|a| a.is_ipv4() == source.is_ipv4()).collect();
        let destination =
            if !fitting.is_empty() && self.chance(60) { self.pick(&fitting) } else { self.destination(source) };
        let protocol = match self.below(10) {
            0..=4 => Protocol::Tcp(self.pick(&PORTS)),
            5..=7 => Protocol::Udp(self.pick(&PORTS)),
            8 => Protocol::Echo,
            _ => Protocol::Other(47),
        };
        let interface = if self.chance(70) { "lan1" } else { "lan3" };
        Flow { source, interface, destination, protocol }
    }
}
