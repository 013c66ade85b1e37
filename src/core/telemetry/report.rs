//! What was counted, in the shape that scripts rely on (SPEC section 3), whole or by view.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, Tally, Window};
use crate::core::caps::CapUse;

/// What stands for names under which addresses are looked up, where addresses are not to be told.
const REVERSE: &str = "(reverse look-ups)";
/// The zones of such names.
const REVERSE_ZONES: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];
/// Entries of a list in `stats`.
const TOP: usize = 10;

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

fn denies(tally: &Tally) -> Denies {
    let mut denies = Denies::default();
    for (reason, count) in &tally.reasons {
        denies.by_reason.insert(reason.to_string(), *count);
    }
    for ((_, domain), counts) in tally.domains.iter().filter(|(_, counts)| counts.denies > 0) {
        *denies.by_domain.entry(domain.to_string()).or_default() += counts.denies;
    }
    denies
}

/// `stats --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// When this was made, RFC 3339.
    pub generated_at: DateTime<Utc>,
    /// When the daemon was started, RFC 3339; `dns` counts from then on.
    pub started_at: DateTime<Utc>,
    /// The revision in force.
    pub revision: Option<u64>,
    /// All agents together in the last 24 hours.
    pub usage_24h: Counts,
    /// What was refused in the last 24 hours, by reason.
    pub denies_24h: BTreeMap<String, u64>,
    /// What DNS counted since the start.
    pub dns: BTreeMap<String, u64>,
    /// What the kernel and this process hold.
    pub holds: BTreeMap<String, u64>,
    /// The agents with the most octets in the last 24 hours.
    pub top_agents: BTreeMap<String, Counts>,
    /// The domains with the most octets.
    pub top_domains: BTreeMap<String, Counts>,
    /// The domains refused most often.
    pub top_denied: BTreeMap<String, u64>,
}

/// Makes the statistics of a tally; what else belongs to them is for the caller to add.
pub fn stats(tally: &Tally, started_at: DateTime<Utc>, now: DateTime<Utc>, revision: Option<u64>) -> Stats {
    let mut domains: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
    for ((_, domain), counts) in &tally.domains {
        domains.entry(Arc::clone(domain)).or_default().add(counts);
    }
    let Denies { by_reason, by_domain } = denies(tally);
    let octets = |counts: &Counts| counts.bytes_up.saturating_add(counts.bytes_down);
    let agents = tally.hosts.iter().map(|(host, counts)| (host.to_string(), *counts));
    let domains = domains.into_iter().filter(|(_, counts)| counts.is_reached());
    let domains = domains.map(|(domain, counts)| (domain.to_string(), counts));
    Stats {
        generated_at: now,
        started_at,
        revision,
        usage_24h: usage(tally),
        denies_24h: by_reason,
        dns: BTreeMap::new(),
        holds: BTreeMap::new(),
        top_agents: top(agents, octets),
        top_domains: top(domains, octets),
        top_denied: top(by_domain.into_iter(), |count| *count),
    }
}

fn top<T>(entries: impl Iterator<Item = (String, T)>, size: impl Fn(&T) -> u64) -> BTreeMap<String, T> {
    let mut all: Vec<(String, T)> = entries.filter(|(_, value)| size(value) > 0).collect();
    all.sort_by_key(|(_, value)| std::cmp::Reverse(size(value)));
    all.truncate(TOP);
    all.into_iter().collect()
}

#[cfg(test)]
mod tests;
