//! Metrics in Prometheus' text format (exposition format 0.0.4). Labels are bounded by the policy and by this program:
//! hosts, capped domains, reasons, directions. No address is ever a label.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Counts, Tally, usage};
use crate::core::caps::CapUse;

/// What is not counted but measured, or counted elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// The version of the program.
    pub version: &'static str,
    /// The state in one word, and all words there are.
    pub state: String,
    /// All words that the state can be.
    pub states: Vec<String>,
    /// The revision in force.
    pub revision: u64,
    /// The checks of `health`, and whether each is well.
    pub checks: BTreeMap<String, bool>,
    /// The caps.
    pub caps: Vec<CapUse>,
    /// What DNS counted since the start.
    pub dns: BTreeMap<String, u64>,
    /// What the kernel and the process hold.
    pub holds: BTreeMap<String, u64>,
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, about: &str) {
        let _ = writeln!(self.0, "# HELP {name} {about}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The text. `tally`: since the start of the process.
pub fn exposition(tally: &Tally, gauges: &Gauges) -> String {
    let mut text = Text(String::new());
    let info = "clawgress_build_info";
    text.head(info, "gauge", "Always 1; the version of the program.");
    text.value(info, &[("version", gauges.version)], 1);
    let state = "clawgress_state";
    text.head(state, "gauge", "1 for the state that clawgress is in.");
    for word in &gauges.states {
        text.value(state, &[("state", word)], u64::from(*word == gauges.state));
    }
    let revision = "clawgress_revision";
    text.head(revision, "gauge", "The revision in force; 0: none.");
    text.value(revision, &[], gauges.revision);
    let check = "clawgress_check_ok";
    text.head(check, "gauge", "1 where a check of `clawgress health` is well.");
    for (name, ok) in &gauges.checks {
        text.value(check, &[("check", name)], u64::from(*ok));
    }
    hosts(&mut text, tally);
    let denies = "clawgress_denies_total";
    text.head(denies, "counter", "Refused queries and packets.");
    for (reason, count) in &tally.reasons {
        text.value(denies, &[("reason", reason)], *count);
    }
    caps(&mut text, &gauges.caps);
    for (word, count) in &gauges.dns {
        let name = format!("clawgress_dns_{word}_total");
        text.head(&name, "counter", "Counted by the DNS server.");
        text.value(&name, &[], *count);
    }
    for (word, count) in &gauges.holds {
        let name = format!("clawgress_{word}");
        text.head(&name, "gauge", "Held now.");
        text.value(&name, &[], *count);
    }
    text.0
}

fn hosts(text: &mut Text, tally: &Tally) {
    type Field = fn(&Counts) -> u64;
    let up_down: [(&str, &str, Field, Field); 2] = [
        ("clawgress_host_bytes_total", "Octets of IP packets forwarded.", |c| c.bytes_up, |c| c.bytes_down),
        ("clawgress_host_packets_total", "Packets forwarded.", |c| c.packets_up, |c| c.packets_down),
    ];
    for (name, about, up, down) in up_down {
        text.head(name, "counter", about);
        for (host, counts) in &tally.hosts {
            text.value(name, &[("host", host), ("direction", "up")], up(counts));
            text.value(name, &[("host", host), ("direction", "down")], down(counts));
        }
    }
    let single: [(&str, &str, Field); 3] = [
        ("clawgress_host_queries_total", "DNS queries on which the policy was asked.", |c| c.queries),
        ("clawgress_host_allows_total", "DNS queries that it allowed.", |c| c.allows),
        ("clawgress_host_denies_total", "Refused queries and packets of which the host is known.", |c| c.denies),
    ];
    for (name, about, field) in single {
        text.head(name, "counter", about);
        for (host, counts) in &tally.hosts {
            text.value(name, &[("host", host)], field(counts));
        }
    }
    let total = usage(tally);
    for (name, about, value) in [
        ("clawgress_bytes_up_total", "Octets that all agents sent.", total.bytes_up),
        ("clawgress_bytes_down_total", "Octets towards all agents.", total.bytes_down),
    ] {
        text.head(name, "counter", about);
        text.value(name, &[], value);
    }
}

fn caps(text: &mut Text, caps: &[CapUse]) {
    type Field = fn(&CapUse) -> u64;
    let fields: [(&str, &str, Field); 3] = [
        ("clawgress_cap_bytes", "Octets of an exfil cap in a period.", |cap| cap.bytes),
        ("clawgress_cap_used_bytes", "Octets of it used.", |cap| cap.used),
        ("clawgress_cap_remaining_bytes", "Octets of it left.", |cap| cap.remaining),
    ];
    for (name, about, field) in fields {
        text.head(name, "gauge", about);
        for cap in caps {
            text.value(name, &[("host", &cap.host), ("domain", &cap.domain), ("period", &cap.period)], field(cap));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sample() -> String {
        let mut tally = Tally::default();
        let counts = Counts { bytes_up: 1, bytes_down: 2, packets_up: 3, queries: 4, ..Counts::default() };
        tally.count(&"agent-1".into(), Some(&"api.example.com".into()), &counts);
        tally.count(&"q\"\\".into(), None, &counts);
        tally.reasons.insert("no-lease".into(), 9);
        let gauges = Gauges {
            version: "0.1.0",
            state: "enforcing".into(),
            states: vec!["enforcing".into(), "degraded".into()],
            revision: 7,
            checks: BTreeMap::from([("dns".into(), true), ("caps".into(), false)]),
            caps: Vec::new(),
            dns: BTreeMap::from([("queries".into(), 12)]),
            holds: BTreeMap::from([("leases".into(), 2)]),
        };
        exposition(&tally, &gauges)
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let text = sample();
        for line in [
            "clawgress_build_info{version=\"0.1.0\"} 1",
            "clawgress_state{state=\"enforcing\"} 1",
            "clawgress_state{state=\"degraded\"} 0",
            "clawgress_revision 7",
            "clawgress_check_ok{check=\"caps\"} 0",
            "clawgress_host_bytes_total{host=\"agent-1\",direction=\"up\"} 1",
            "clawgress_host_packets_total{host=\"q\\\"\\\\\",direction=\"up\"} 3",
            "clawgress_denies_total{reason=\"no-lease\"} 9",
            "clawgress_dns_queries_total 12",
            "clawgress_leases 2",
            "clawgress_bytes_up_total 2",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
        assert!(!text.contains("api.example.com"), "domains of agents are no labels");
    }

    #[test]
    fn names_follow_the_rules_and_each_is_told_once() {
        let text = sample();
        let mut told = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(told.insert(name.to_owned()), "{name} is told twice");
            assert!(name.starts_with("clawgress_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit()),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(told.contains(name), "{line} has a head");
            for label in line.split(['{', ',']).skip(1).filter_map(|part| part.split_once('=')) {
                let known = ["version", "state", "check", "host", "direction", "reason", "domain", "period"];
                assert!(known.contains(&label.0), "{line}");
            }
        }
    }
}
