//! What was counted, in the shape that scripts rely on (SPEC section 3), whole or by view.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, Tally, Window};
use crate::core::caps::CapUse;

/// What stands for names under which addresses are looked up, where addresses are not to be told.
const REVERSE: &str = "(reverse look-ups)";
/// The zones of such names.
const REVERSE_ZONES: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

/// A part of the report, or all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Usage, agents, domains, denies.
    #[default]
    All,
    /// The agents.
    Agents,
    /// The domains.
    Domains,
    /// One agent.
    Agent(String),
    /// One domain, and who reached it.
    Domain(String),
    /// What was refused.
    Denies,
    /// All of it for other programs.
    Export {
        /// Without source addresses.
        redact: bool,
    },
}

/// `telemetry --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The window: `1m`, `5m`, `1h`, `24h`.
    pub window: String,
    /// When the window begins, RFC 3339; up to one piece (5 seconds, a minute, a quarter of an hour) more than asked for.
    pub since: DateTime<Utc>,
    /// When this was made, RFC 3339.
    pub generated_at: DateTime<Utc>,
    /// The revision in force.
    pub revision: Option<u64>,
    /// All agents together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Counts>,
    /// By agent: the hosts of the policy, and `*` for sources of no host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<BTreeMap<String, Agent>>,
    /// By domain, what was reached. What an address carries that serves several domains counts for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<BTreeMap<String, Traffic>>,
    /// What was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denies: Option<Denies>,
    /// In an export: what else it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// What is not as it should be with the numbers, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// What it used, and what it was refused.
    #[serde(flatten)]
    pub counts: Counts,
    /// By domain, what it reached.
    pub domains: BTreeMap<String, Traffic>,
    /// Its exfil caps by domain, as the policy says it.
    pub caps: BTreeMap<String, CapLine>,
}

/// One domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// The policy's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// One exfil cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapLine {
    /// Octets in a period.
    pub bytes: u64,
    /// How often it turns.
    pub period: String,
    /// Octets used.
    pub used: u64,
    /// Octets left.
    pub remaining: u64,
    /// When it turns, RFC 3339.
    pub resets_at: DateTime<Utc>,
}

/// What was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Denies {
    /// Queries and packets by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Queries and packets by domain, where it is known.
    pub by_domain: BTreeMap<String, u64>,
}

/// What an export has besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Export {
    /// Whether source addresses were left out.
    pub redacted: bool,
    /// The source addresses of each host; empty where they were left out.
    pub sources: BTreeMap<String, Vec<String>>,
}

/// Nothing was seen of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing was seen of {what} in the last {window}")]
pub struct Unseen {
    what: String,
    window: &'static str,
}

/// What a report is made of.
#[derive(Clone)]
pub struct Facts<'a> {
    /// The window.
    pub window: Window,
    /// Its begin.
    pub since: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
    /// The revision in force.
    pub revision: Option<u64>,
    /// What was counted.
    pub tally: &'a Tally,
    /// The hosts of the policy with their sources.
    pub hosts: &'a BTreeMap<String, Vec<String>>,
    /// The caps.
    pub caps: &'a [CapUse],
    /// The label of a domain.
    pub label: &'a dyn Fn(&str) -> Option<String>,
    /// What is wrong with the numbers.
    pub trouble: Vec<String>,
}

/// Makes the report.
///
/// # Errors
/// One agent or domain was asked for of which nothing is known.
pub fn report(facts: &Facts<'_>, view: &View) -> Result<Report, Unseen> {
    let unseen = |what: String| Unseen { what, window: facts.window.word() };
    let mut out = Report {
        window: facts.window.word().into(),
        since: facts.since,
        generated_at: facts.now,
        revision: facts.revision,
        usage: None,
        agents: None,
        domains: None,
        denies: None,
        export: None,
        trouble: facts.trouble.clone(),
    };
    match view {
        View::Agents => out.agents = Some(agents(facts)),
        View::Domains => out.domains = Some(domains(facts)),
        View::Denies => out.denies = Some(denies(facts.tally)),
        View::Agent(name) => {
            let agent = agents(facts).remove(name).ok_or_else(|| unseen(format!("an agent named {name}")))?;
            out.agents = Some(BTreeMap::from([(name.clone(), agent)]));
        }
        View::Domain(name) => {
            let (domain, agents) = one_domain(facts, name).ok_or_else(|| unseen(format!("the domain {name}")))?;
            out.domains = Some(BTreeMap::from([(name.clone(), domain)]));
            out.agents = Some(agents);
        }
        View::All | View::Export { .. } => {
            out.usage = Some(usage(facts.tally));
            out.agents = Some(agents(facts));
            out.domains = Some(domains(facts));
            out.denies = Some(denies(facts.tally));
        }
    }
    if let View::Export { redact } = view {
        out.export = Some(export(facts, *redact, &mut out));
    }
    Ok(out)
}

fn export(facts: &Facts<'_>, redacted: bool, out: &mut Report) -> Export {
    if !redacted {
        return Export { redacted, sources: facts.hosts.clone() };
    }
    // The name of a reverse look-up is an address.
    if let Some(denies) = &mut out.denies {
        let all = std::mem::take(&mut denies.by_domain);
        for (name, count) in all {
            let reverse = REVERSE_ZONES.iter().any(|zone| name.ends_with(zone));
            let name = if reverse { REVERSE.to_owned() } else { name };
            *denies.by_domain.entry(name).or_default() += count;
        }
    }
    let hidden = |domains: &mut BTreeMap<String, Traffic>| {
        for (name, traffic) in std::mem::take(domains) {
            let reverse = REVERSE_ZONES.iter().any(|zone| name.ends_with(zone));
            let name = if reverse { REVERSE.to_owned() } else { name };
            let own = domains.entry(name).or_default();
            own.counts.add(&traffic.counts);
            own.label = own.label.take().or(traffic.label);
        }
    };
    out.domains.iter_mut().for_each(hidden);
    out.agents.iter_mut().flat_map(BTreeMap::values_mut).for_each(|agent| hidden(&mut agent.domains));
    Export { redacted, sources: BTreeMap::new() }
}

/// All agents together. Refusals also count where nobody knows whose they were.
pub fn usage(tally: &Tally) -> Counts {
    let mut usage = Counts::default();
    tally.hosts.values().for_each(|counts| usage.add(counts));
    usage.denies = tally.reasons.values().sum();
    usage
}

fn agents(facts: &Facts<'_>) -> BTreeMap<String, Agent> {
    let mut out: BTreeMap<String, Agent> = facts.hosts.keys().map(|host| (host.clone(), Agent::default())).collect();
    for (host, counts) in &facts.tally.hosts {
        out.entry(host.to_string()).or_default().counts = *counts;
    }
    for ((host, domain), counts) in facts.tally.domains.iter().filter(|(_, counts)| counts.is_reached()) {
        let traffic = Traffic { counts: *counts, label: (facts.label)(domain) };
        out.entry(host.to_string()).or_default().domains.insert(domain.to_string(), traffic);
    }
    for cap in facts.caps {
        out.entry(cap.host.clone()).or_default().caps.insert(cap.domain.clone(), line(cap));
    }
    out
}

fn line(cap: &CapUse) -> CapLine {
    let CapUse { bytes, period, used, remaining, resets_at, .. } = cap.clone();
    CapLine { bytes, period, used, remaining, resets_at }
}

fn domains(facts: &Facts<'_>) -> BTreeMap<String, Traffic> {
    let mut out: BTreeMap<String, Traffic> = BTreeMap::new();
    for ((_, domain), counts) in facts.tally.domains.iter().filter(|(_, counts)| counts.is_reached()) {
        out.entry(domain.to_string()).or_default().counts.add(counts);
    }
    for (domain, traffic) in &mut out {
        traffic.label = (facts.label)(domain);
    }
    out
}

/// A domain, and each agent that tried it with what it did there.
fn one_domain(facts: &Facts<'_>, name: &str) -> Option<(Traffic, BTreeMap<String, Agent>)> {
    let mut all = Traffic { label: (facts.label)(name), ..Traffic::default() };
    let mut agents = BTreeMap::new();
    for ((host, _), counts) in facts.tally.domains.iter().filter(|((_, domain), _)| **domain == *name) {
        all.counts.add(counts);
        let traffic = Traffic { counts: *counts, label: all.label.clone() };
        let caps = facts.caps.iter().filter(|cap| cap.host == **host && cap.domain == name);
        let caps = caps.map(|cap| (cap.domain.clone(), line(cap))).collect();
        let domains = BTreeMap::from([(name.to_owned(), traffic)]);
        agents.insert(host.to_string(), Agent { counts: *counts, domains, caps });
    }
    (!agents.is_empty()).then_some((all, agents))
}

pub(super) fn denies(tally: &Tally) -> Denies {
    let mut denies = Denies::default();
    for (reason, count) in &tally.reasons {
        denies.by_reason.insert(reason.to_string(), *count);
    }
    for ((_, domain), counts) in tally.domains.iter().filter(|(_, counts)| counts.denies > 0) {
        *denies.by_domain.entry(domain.to_string()).or_default() += counts.denies;
    }
    denies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        let sent = Counts { bytes_up: 1000, bytes_down: 5000, packets_up: 10, packets_down: 4, ..Counts::default() };
        let asked = Counts { queries: 1, allows: 1, ..Counts::default() };
        let refused = Counts { queries: 1, denies: 1, ..Counts::default() };
        tally.count(&"a".into(), Some(&"api.example.com".into()), &sent);
        tally.count(&"a".into(), Some(&"api.example.com".into()), &asked);
        tally.count(&"*".into(), Some(&"pastebin.com".into()), &refused);
        tally.count(&"a".into(), Some(&"10.10.168.192.in-addr.arpa".into()), &refused);
        tally.reasons.insert("not-allowlisted".into(), 2);
        tally.reasons.insert("no-lease".into(), 7);
        tally
    }

    fn made(view: &View) -> Result<Report, Unseen> {
        let hosts =
            BTreeMap::from([("a".to_owned(), vec!["192.168.10.10/32".to_owned()]), ("b".to_owned(), Vec::new())]);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let cap = CapUse {
            host: "a".into(),
            domain: "api.example.com".into(),
            bytes: 1_048_576,
            period: "hour".into(),
            used: 1000,
            remaining: 1_047_576,
            resets_at: now,
        };
        let tally = tally();
        let facts = Facts {
            window: Window::Hour,
            since: now,
            now,
            revision: Some(7),
            tally: &tally,
            hosts: &hosts,
            caps: &[cap],
            label: &|name| (name == "api.example.com").then(|| "llm-provider".into()),
            trouble: Vec::new(),
        };
        report(&facts, view)
    }

    #[test]
    fn the_report_is_the_object_of_the_contract() {
        let value = serde_json::to_value(made(&View::All).unwrap()).unwrap();
        let api = serde_json::json!({ "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4,
            "queries": 1, "allows": 1, "denies": 0, "label": "llm-provider" });
        let zero = serde_json::json!({ "bytes_up": 0, "bytes_down": 0, "packets_up": 0, "packets_down": 0, "queries": 0,
            "allows": 0, "denies": 0, "domains": {}, "caps": {} });
        assert_eq!(
            value,
            serde_json::json!({ "window": "1h", "since": "2027-01-15T08:00:00Z", "generated_at": "2027-01-15T08:00:00Z",
                "revision": 7,
                "usage": { "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4, "queries": 3,
                           "allows": 1, "denies": 9 },
                "agents": {
                    "a": { "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4, "queries": 2,
                           "allows": 1, "denies": 1, "domains": { "api.example.com": api },
                           "caps": { "api.example.com": { "bytes": 1_048_576, "period": "hour", "used": 1000,
                                     "remaining": 1_047_576, "resets_at": "2027-01-15T08:00:00Z" } } },
                    "*": { "bytes_up": 0, "bytes_down": 0, "packets_up": 0, "packets_down": 0, "queries": 1,
                           "allows": 0, "denies": 1, "domains": {}, "caps": {} },
                    "b": zero },
                "domains": { "api.example.com": api },
                "denies": { "by_reason": { "not-allowlisted": 2, "no-lease": 7 },
                            "by_domain": { "pastebin.com": 1, "10.10.168.192.in-addr.arpa": 1 } } })
        );
        let back: Report = serde_json::from_value(value).unwrap();
        assert_eq!(back, made(&View::All).unwrap());
    }

    #[test]
    fn views_are_parts() {
        let agent = made(&View::Agent("a".into())).unwrap();
        assert!(agent.usage.is_none() && agent.domains.is_none() && agent.agents.unwrap().len() == 1);
        let domain = made(&View::Domain("api.example.com".into())).unwrap();
        assert_eq!(domain.domains.unwrap()["api.example.com"].counts.bytes_up, 1000);
        assert_eq!(domain.agents.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
        assert!(made(&View::Domain("pastebin.com".into())).is_ok(), "tried is seen");
        let unseen = made(&View::Agent("nobody".into())).unwrap_err().to_string();
        assert_eq!(unseen, "nothing was seen of an agent named nobody in the last 1h");
        made(&View::Domain("elsewhere.example".into())).unwrap_err();
        let denies = made(&View::Denies).unwrap();
        assert!(denies.agents.is_none() && denies.denies.is_some());
    }

    #[test]
    fn an_export_hides_addresses_unless_told_otherwise() {
        let told = serde_json::to_string(&made(&View::Export { redact: true }).unwrap()).unwrap();
        assert!(
            !told.contains("192") && !told.contains("in-addr.arpa") && told.contains("\"redacted\":true"),
            "{told}"
        );
        assert!(told.contains("pastebin.com") && told.contains("\"(reverse look-ups)\":1"), "{told}");
        let whole = made(&View::Export { redact: false }).unwrap();
        assert_eq!(whole.export.unwrap().sources["a"], ["192.168.10.10/32"]);
        assert_eq!(whole.denies.unwrap().by_domain["10.10.168.192.in-addr.arpa"], 1);
    }
}
