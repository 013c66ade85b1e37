//! `clawgress log`: who was refused what, and why.

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};

use super::apply::{refused, understood};
use super::output::{Tone, remark};
use super::{Context, Outcome};
use crate::daemon::protocol::{Logged, Request, Response};
use crate::decisions::{Action, Filter, Layer, Record};

const EXAMPLES: &str = "\
Examples:
  clawgress log                                        the last 100 decisions
  clawgress log --follow --host agent-1                what agent-1 is refused, as it happens
  clawgress log --since 10m --action block --limit 1000
  clawgress log --domain example.com --json            example.com and all below it, one JSON object a line
  clawgress log --grep /deny/domains/0                 whatever that line of the policy refused

A line that ends in (+12) stands for 13 decisions of the same kind within some seconds. A line without a source stands
for decisions of which only the number is known.";

/// Print decision records: who was refused what, when, why, and by which line of the policy
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only about this name and what is below it
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Only where this was done
    #[arg(long)]
    action: Option<Done>,
    /// Only of this protocol: tcp, udp, icmp, icmpv6, or an IANA number
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Only records with this text somewhere in their JSON, in whatever case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Not older than this: 30s, 10m, 2h, 7d, or a time such as 2026-11-20T09:00:00+01:00
    #[arg(long, value_name = "AGE", value_parser = a_since)]
    since: Option<DateTime<Utc>>,
    /// So many at most, the latest ones
    #[arg(long, value_name = "N", default_value_t = Filter::USUAL, value_parser = a_limit)]
    limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Done {
    Allow,
    Block,
    Monitor,
}

fn a_limit(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|limit| (1..=Filter::MOST).contains(limit));
    found.ok_or_else(|| format!("a number from 1 to {}", Filter::MOST))
}

fn a_since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let unit = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(24 * 3600),
        _ => None,
    };
    let mut characters = text.chars();
    let seconds = characters.next_back().and_then(unit);
    let age =
        seconds.and_then(|seconds| characters.as_str().parse::<u32>().ok().map(|count| i64::from(count) * seconds));
    age.and_then(|age| Utc::now().checked_sub_signed(TimeDelta::seconds(age)))
        .ok_or_else(|| "an age such as 30s, 10m, 2h, 7d, or a time such as 2026-11-20T09:00:00+01:00".to_owned())
}

pub(super) fn log(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let filter = Filter {
        host: arguments.host.clone(),
        domain: arguments.domain.clone(),
        action: arguments.action.map(|action| match action {
            Done::Allow => Action::Allow,
            Done::Block => Action::Block,
            Done::Monitor => Action::Monitor,
        }),
        protocol: arguments.protocol.clone(),
        text: arguments.grep.clone(),
        since: arguments.since,
        limit: Some(arguments.limit),
    };
    let mut daemon = context.daemon()?;
    let mut response = daemon.ask(Request::Log { follow: arguments.follow, filter })?;
    let mut printer = Printer { json: arguments.json, widths: [0; COLUMNS], headed: false };
    loop {
        if !response.success {
            return Ok(refused("clawgress", &response));
        }
        print(&response, &mut printer, context)?;
        context.out.finish()?;
        if !arguments.follow || !context.out.is_read() {
            return Ok(Outcome::Done);
        }
        response = match daemon.more()? {
            Some(response) => response,
            None => {
                remark("the daemon has ended");
                return Ok(Outcome::Refused);
            }
        };
    }
}

fn print(response: &Response, printer: &mut Printer, context: &mut Context) -> anyhow::Result<()> {
    let Logged { records, missed } = understood(response)?;
    if missed > 0 {
        remark(&format!("{missed} records came faster than they could be shown; `clawgress log` has them"));
    }
    if printer.json {
        return records.iter().try_for_each(|record| context.out.bytes(&record.line()));
    }
    let rows: Vec<[String; COLUMNS]> = records.iter().map(|record| row(record)).collect();
    for line in printer.lines(&rows, |word| context.out.toned(Tone::Bad, word)) {
        context.out.line(&line)?;
    }
    Ok(())
}

/// Columns of a line; the last one is as long as it likes.
const COLUMNS: usize = 7;
const HEAD: [&str; COLUMNS] = ["time", "action", "reason", "host", "source", "to", "policy"];

/// Lines in columns that get wider as they must, and never narrower.
struct Printer {
    json: bool,
    widths: [usize; COLUMNS],
    headed: bool,
}

impl Printer {
    fn lines(&mut self, rows: &[[String; COLUMNS]], bad: impl Fn(&str) -> String) -> Vec<String> {
        let head = HEAD.map(str::to_owned);
        let first = !rows.is_empty() && !self.headed;
        self.headed |= first;
        let head = first.then_some(&head);
        let all: Vec<_> = head.into_iter().chain(rows).collect();
        for row in &all {
            for (width, cell) in self.widths.iter_mut().zip(row.iter()) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &&[String; COLUMNS]| {
            let mut text = String::new();
            for (place, (cell, width)) in row.iter().zip(self.widths).enumerate() {
                let gap = " ".repeat(width - cell.chars().count() + 2);
                // Colours have no width.
                let shown = if place == 1 && cell == "block" { bad(cell) } else { cell.clone() };
                text.push_str(&shown);
                text.push_str(&gap);
            }
            text.trim_end().to_owned()
        };
        all.iter().map(line).collect()
    }
}

fn row(record: &Record) -> [String; COLUMNS] {
    let zone = crate::store::system_zone();
    let dash = || "-".to_owned();
    let mut end = record.path.as_deref().map_or_else(dash, str::to_owned);
    if record.suppressed > 0 {
        end.push_str(&format!(" (+{})", record.suppressed));
    }
    [
        record.time.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string(),
        record.action.as_str().to_owned(),
        record.reason.as_str().to_owned(),
        record.host.as_deref().map_or_else(dash, str::to_owned),
        record.source.map_or_else(dash, |source| source.to_string()),
        target(record),
        end,
    ]
}

/// `api.example.com`, `tcp 93.184.216.34:443 (api.example.com, llm-provider)`
fn target(record: &Record) -> String {
    let label = record.label.as_deref();
    if record.layer == Layer::Dns {
        let mut parts: Vec<String> = label.map(str::to_owned).into_iter().collect();
        parts.extend(record.address.map(|address| format!("at {address}")));
        let name = record.domain.as_deref().unwrap_or("-");
        return with(format!("dns {name}"), &parts);
    }
    let place = match (record.address, record.port) {
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) => "-".to_owned(),
    };
    let parts: Vec<String> = record.domain.as_deref().into_iter().chain(label).map(str::to_owned).collect();
    with(format!("{} {place}", record.protocol.as_deref().unwrap_or("-")), &parts)
}

fn with(text: String, parts: &[String]) -> String {
    if parts.is_empty() { text } else { format!("{text} ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::decision::Reason;

    fn record() -> Record {
        let time = DateTime::from_timestamp_millis(1_800_000_000_005).unwrap();
        let mut record = Record::new(time, 7, Action::Block, Layer::Packet, Reason::PortNotAllowed);
        record.host = Some("agent-1".into());
        record.source = Some("192.168.10.10".parse().unwrap());
        record.address = Some("2606:4700::34".parse().unwrap());
        record.port = Some(25);
        record.protocol = Some("tcp".into());
        record.domain = Some("mail.example".into());
        record.label = Some("mail".into());
        record.path = Some("/hosts/agent-1/allow/ports".into());
        record
    }

    #[test]
    fn lines_stand_in_columns() {
        let mut long = record();
        long.host = Some("a-host-with-a-longer-name".into());
        long.suppressed = 12;
        let mut bare = Record::new(long.time, 7, Action::Block, Layer::Dns, Reason::NotAllowlisted);
        bare.domain = Some("pastebin.com".into());
        let mut printer = Printer { json: false, widths: [0; COLUMNS], headed: false };
        let plain = |word: &str| word.to_owned();
        let lines = printer.lines(&[row(&record()), row(&long), row(&bare)], plain);
        let column = |line: &str, text: &str| line.find(text).unwrap_or_else(|| panic!("{text:?} in {line:?}"));
        assert_eq!(lines.len(), 4);
        assert_eq!(column(&lines[0], "to"), column(&lines[1], "tcp [2606:4700::34]:25 (mail.example, mail)"));
        assert_eq!(column(&lines[1], "192.168"), column(&lines[2], "192.168"));
        assert!(lines[2].ends_with("/hosts/agent-1/allow/ports (+12)"), "{}", lines[2]);
        assert!(lines[3].contains("dns pastebin.com") && lines[3].ends_with('-'), "{}", lines[3]);
        let later = printer.lines(&[row(&record())], plain);
        assert_eq!(later, [lines[1].clone()], "without a second head, as wide as before");
        assert_eq!(printer.lines(&[], plain), [""; 0]);
    }

    #[test]
    fn ages_and_times_are_read() {
        let now = Utc::now();
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604_800)] {
            let found = now - a_since(text).unwrap();
            assert!((found.num_seconds() - seconds).abs() <= 1, "{text}: {found}");
        }
        assert_eq!(a_since("2027-01-15T08:00:00Z").unwrap().timestamp(), 1_800_000_000);
        for wrong in ["", "10", "m", "-5m", "10 m", "1w", "5µ", "yesterday", "99999999999d"] {
            a_since(wrong).unwrap_err();
        }
    }
}
