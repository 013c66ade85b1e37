//! `clawgress telemetry`, `clawgress stats`: who used how much, and what was refused.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use super::apply::understood;
use super::output::{columns, remark};
use super::state::{ask, time};
use super::{Context, Outcome};
use crate::core::telemetry::{self as core, Agent, CapLine, Counts, Denies, Report, Traffic, Window};
use crate::daemon::protocol::{Request, Telemetry, ViewWord};

const EXAMPLES: &str = "\
Examples:
  clawgress telemetry                                    usage and denials of the last hour
  clawgress telemetry --window 24h agents
  clawgress telemetry agent agent-1                      one host: its domains and exfil caps
  clawgress telemetry domain api.example.com --window 5m
  clawgress telemetry denies --json | jq .denies.by_reason
  clawgress telemetry export > usage.json                for other programs, without source addresses

\"*\" is everybody who belongs to no host. \"(allow.ips)\" are flows that allow.ips let through, which have no domain.
\"(other)\" are the domains beyond those that are told apart.";

/// Print who used how much, and what was refused
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    view: Option<View>,
    /// The last: 1m, 5m, 1h, 24h [default: 1h]
    #[arg(long, global = true, value_name = "WINDOW", value_parser = window, hide_default_value = true)]
    window: Option<Window>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum View {
    /// The agents
    Agents,
    /// The domains that were reached
    Domains,
    /// One agent: its domains and exfil caps
    Agent {
        /// The host, or "*"
        name: String,
    },
    /// One domain, and who reached it
    Domain {
        /// The domain
        name: String,
    },
    /// What was refused
    Denies,
    /// All of it as JSON for other programs
    Export {
        /// With source addresses
        #[arg(long)]
        no_redact: bool,
    },
}

fn window(word: &str) -> Result<Window, String> {
    Window::of(word).ok_or_else(|| "should be 1m, 5m, 1h or 24h".to_owned())
}

const STATS_EXAMPLES: &str = "\
Examples:
  clawgress stats
  clawgress stats --json | jq .dns";

/// Print totals and the top lists of the last 24 hours
#[derive(Debug, Args)]
#[command(after_help = STATS_EXAMPLES)]
pub(super) struct Stats {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn telemetry(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let (view, target, no_redact) = match &arguments.view {
        None => (None, None, false),
        Some(View::Agents) => (Some(ViewWord::Agents), None, false),
        Some(View::Domains) => (Some(ViewWord::Domains), None, false),
        Some(View::Agent { name }) => (Some(ViewWord::Agent), Some(name.clone()), false),
        Some(View::Domain { name }) => (Some(ViewWord::Domain), Some(name.clone()), false),
        Some(View::Denies) => (Some(ViewWord::Denies), None, false),
        Some(View::Export { no_redact }) => (Some(ViewWord::Export), None, *no_redact),
    };
    let request = Request::Telemetry(Telemetry { view, target, window: arguments.window, no_redact });
    let response = match ask(&request, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.json || view == Some(ViewWord::Export) {
        context.out.json(&response.data)?;
        return Ok(Outcome::Done);
    }
    let report: Report = understood(&response)?;
    context.out.text(&told(&report, view))?;
    for sentence in &report.trouble {
        remark(&format!("warning: {sentence}"));
    }
    Ok(Outcome::Done)
}

pub(super) fn stats(arguments: &Stats, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(&Request::Stats {}, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.json {
        context.out.json(&response.data)?;
        return Ok(Outcome::Done);
    }
    let stats: core::Stats = understood(&response)?;
    context.out.text(&statistics(&stats))?;
    Ok(Outcome::Done)
}

fn told(report: &Report, view: Option<ViewWord>) -> String {
    let revision = report.revision.map_or_else(|| "no revision in force".to_owned(), |own| format!("revision {own}"));
    let head = format!(
        "the last {}, from {} to {}, {revision}\n",
        report.window,
        time(report.since),
        time(report.generated_at)
    );
    let mut parts = vec![head];
    if let (Some(ViewWord::Domain), Some(agents)) = (view, &report.agents) {
        parts.push(rows("agent", agents.iter().map(|(name, agent)| (name.as_str(), &agent.counts))));
        return parts.join("\n");
    }
    if let Some(agents) = &report.agents {
        parts.push(of_agents(agents));
        if view == Some(ViewWord::Agent) {
            for agent in agents.values() {
                parts.push(of_domains(&agent.domains));
                parts.push(caps(&agent.caps));
            }
        }
    }
    parts.extend(report.domains.as_ref().map(of_domains));
    parts.extend(report.denies.as_ref().map(denies));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn of_agents(agents: &BTreeMap<String, Agent>) -> String {
    let mut sorted: Vec<(&str, &Counts)> = agents.iter().map(|(name, agent)| (name.as_str(), &agent.counts)).collect();
    sorted.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.bytes_up.saturating_add(counts.bytes_down)));
    if sorted.is_empty() {
        return "no agent was seen\n".to_owned();
    }
    rows("agent", sorted.into_iter())
}

fn of_domains(domains: &BTreeMap<String, Traffic>) -> String {
    let mut sorted: Vec<(String, &Counts)> = domains
        .iter()
        .map(|(name, traffic)| {
            let label = traffic.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
            (format!("{name}{label}"), &traffic.counts)
        })
        .collect();
    sorted.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.bytes_up.saturating_add(counts.bytes_down)));
    if sorted.is_empty() {
        return "no domain was reached\n".to_owned();
    }
    rows("domain", sorted.iter().map(|(name, counts)| (name.as_str(), *counts)))
}

fn rows<'a>(what: &str, entries: impl Iterator<Item = (&'a str, &'a Counts)>) -> String {
    let head = [what, "up", "down", "packets up", "packets down", "queries", "allowed", "denied"];
    let mut all = vec![head.map(str::to_owned).to_vec()];
    for (name, counts) in entries {
        let Counts { bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies } = counts;
        let numbers = [packets_up, packets_down, queries, allows, denies].map(ToString::to_string);
        all.push([name.to_owned(), size(*bytes_up), size(*bytes_down)].into_iter().chain(numbers).collect());
    }
    table(&all, 1)
}

fn caps(caps: &BTreeMap<String, CapLine>) -> String {
    if caps.is_empty() {
        return String::new();
    }
    let head = ["cap", "bytes", "used", "left", "period", "next period"];
    let mut all = vec![head.map(str::to_owned).to_vec()];
    for (domain, cap) in caps {
        let CapLine { bytes, period, used, remaining, resets_at } = cap;
        let numbers = [bytes, used, remaining].map(|bytes| size(*bytes));
        let rest = [period.clone(), time(*resets_at)];
        all.push(std::iter::once(domain.clone()).chain(numbers).chain(rest).collect());
    }
    columns(&all)
}

fn denies(denies: &Denies) -> String {
    let reasons = counted("reason", &denies.by_reason);
    let domains = counted("domain", &denies.by_domain);
    if reasons.is_empty() && domains.is_empty() {
        return "nothing was refused\n".to_owned();
    }
    [reasons, domains].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The most first; nothing where there is nothing.
fn counted(what: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut all = vec![vec![what.to_owned(), "denied".to_owned()]];
    all.extend(sorted.into_iter().map(|(name, count)| vec![name.clone(), count.to_string()]));
    if all.len() > 1 { table(&all, 1) } else { String::new() }
}

/// Columns, those from `first` on with their ends below each other.
fn table(rows: &[Vec<String>], first: usize) -> String {
    let width = |place: usize| rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count()).max();
    let aligned = rows.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(place, cell)| match width(place) {
            Some(width) if place >= first => format!("{cell:>width$}"),
            _ => cell.clone(),
        });
        cells.collect()
    });
    columns(&aligned.collect::<Vec<Vec<String>>>())
}

/// `1.5 MiB`
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be shown as 1024.0 is one of the next.
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{scaled:.1} {unit}")
}

fn statistics(stats: &core::Stats) -> String {
    let revision = stats.revision.map_or_else(|| "-".to_owned(), |own| own.to_string());
    let usage = &stats.usage_24h;
    let mut lines = vec![
        vec!["revision".to_owned(), revision],
        vec!["started at".to_owned(), time(stats.started_at)],
        vec!["up in 24 hours".to_owned(), format!("{} in {} packets", size(usage.bytes_up), usage.packets_up)],
        vec!["down in 24 hours".to_owned(), format!("{} in {} packets", size(usage.bytes_down), usage.packets_down)],
        vec!["queries".to_owned(), format!("{}, {} of them allowed", usage.queries, usage.allows)],
        vec!["denied".to_owned(), usage.denies.to_string()],
    ];
    let word = |word: &str| word.replace('_', " ");
    lines.extend(stats.holds.iter().map(|(name, count)| vec![word(name), count.to_string()]));
    lines.extend(stats.dns.iter().map(|(name, count)| vec![format!("dns {}", word(name)), count.to_string()]));
    let by_size = |counts: &BTreeMap<String, Counts>| -> Vec<(String, Counts)> {
        let mut all: Vec<_> = counts.iter().map(|(name, counts)| (name.clone(), *counts)).collect();
        all.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.bytes_up.saturating_add(counts.bytes_down)));
        all
    };
    let mut parts = vec![columns(&lines)];
    for (what, counts) in [("top agents", &stats.top_agents), ("top domains", &stats.top_domains)] {
        if !counts.is_empty() {
            let sorted = by_size(counts);
            parts.push(rows(what, sorted.iter().map(|(name, counts)| (name.as_str(), counts))));
        }
    }
    parts.push(counted("top denied", &stats.top_denied));
    parts.push(counted("reason", &stats.denies_24h));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_have_numbers_below_each_other() {
        let counts = |bytes_up| Counts { bytes_up, packets_up: 12, ..Counts::default() };
        let agents = BTreeMap::from([
            ("a".to_owned(), Agent { counts: counts(10), ..Agent::default() }),
            ("longer-name".to_owned(), Agent { counts: counts(5_000_000), ..Agent::default() }),
        ]);
        let text = of_agents(&agents);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("longer-name") && lines[2].starts_with("a  "), "the most first:\n{text}");
        let end = |line: &str, cell: &str| line.find(cell).map(|at| at + cell.len());
        assert_eq!(end(lines[0], " up"), end(lines[1], "4.8 MiB"), "{text}");
        assert_eq!(end(lines[1], "4.8 MiB"), end(lines[2], "10 B"), "{text}");
        assert_eq!(denies(&Denies::default()), "nothing was refused\n");
        assert_eq!(
            counted("reason", &BTreeMap::from([("x".into(), 1), ("y".into(), 20)])),
            "reason  denied\ny           20\nx            1\n"
        );
    }
}
