//! Totals and top lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::{Denies, denies, usage};
use super::{Counts, Tally};

/// Entries of a list.
const TOP: usize = 10;

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
mod tests {
    use super::*;

    #[test]
    fn statistics_have_the_top_of_each_list() {
        let mut tally = Tally::default();
        let sent = Counts { bytes_up: 1000, packets_up: 10, ..Counts::default() };
        tally.count(&"a".into(), Some(&"api.example.com".into()), &sent);
        tally.reasons.insert("no-lease".into(), 9);
        for number in 0..30 {
            let counts = Counts { queries: number, denies: number, ..Counts::default() };
            tally.count(&"b".into(), Some(&format!("n{number}.example").into()), &counts);
        }
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let stats = stats(&tally, now, now, None);
        assert_eq!(stats.top_denied.len(), TOP);
        assert!(stats.top_denied.values().all(|count| *count >= 20), "{:?}", stats.top_denied);
        assert_eq!(stats.top_agents.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(stats.usage_24h.denies, 9);
    }
}
