//! A plan for people: short, what opens first.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::super::output::{columns, count};
use super::super::state::time;
use crate::core::compare::{Change, Effect, Field, Kind};
use crate::daemon::protocol::plan::{Changes, Differing, Flow, Flows, Leases, Plan, Replay};
use crate::settings::Decisions;

/// Lines of one group; `--json` has more.
const LINES: usize = 20;
/// Places of one host.
const PLACES: usize = 5;

/// The whole plan.
pub(super) fn all(name: &str, plan: &Plan) -> String {
    let Some(revision) = plan.revision else {
        return format!(
            "no policy is in force, so everything passes; with {name} everything in its scope is refused but what it allows\n"
        );
    };
    let mut text = String::new();
    if plan.same {
        let _ = writeln!(text, "{name} is the policy in force (revision {revision})");
    } else if plan.changes.count == 0 {
        let _ = writeln!(text, "{name} says the same as revision {revision}, in other words");
    } else {
        let Changes { count: number, widen, narrow, .. } = plan.changes;
        let number = count(number, "change", "changes");
        let _ = writeln!(text, "{name} against revision {revision}: {number}, {widen} open more, {narrow} open less");
    }
    changes(&mut text, &plan.changes);
    if let Some(flows) = &plan.flows {
        self::flows(&mut text, flows);
    }
    leases(&mut text, &plan.leases);
    if let Some(replay) = &plan.replay {
        self::replay(&mut text, replay);
    }
    text
}

/// The lines of a group under its head, and how many were left out.
fn group(text: &mut String, head: &str, rows: &[Vec<String>], all: usize) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{head}");
    for line in columns(&rows[..rows.len().min(LINES)]).lines() {
        let _ = writeln!(text, "  {line}");
    }
    let more = all.saturating_sub(rows.len().min(LINES));
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more; --json lists more");
    }
}

fn is_limit(change: &Change) -> bool {
    matches!(change.field, Field::EgressKbps | Field::Exfil)
}

fn changes(text: &mut String, changes: &Changes) {
    let of = |wanted: &dyn Fn(&Change) -> bool| -> Vec<Vec<String>> {
        changes.listed.iter().filter(|change| wanted(change)).map(row).collect()
    };
    let by_effect = |effect: Effect| of(&|change| !is_limit(change) && change.effect == effect);
    for (head, rows) in [
        ("opens more:", by_effect(Effect::Widens)),
        ("opens more here or now, and less there or then:", by_effect(Effect::Both)),
        ("opens less:", by_effect(Effect::Narrows)),
        ("limits:", of(&is_limit)),
        ("changes nothing by itself:", by_effect(Effect::None)),
    ] {
        group(text, head, &rows, rows.len());
    }
    let unlisted = changes.count - changes.listed.len();
    if unlisted > 0 {
        let _ = writeln!(text, "\n… and {}", count(unlisted, "further change", "further changes"));
    }
}

/// `+ agent-1  allow.domains  api.example.com`
fn row(change: &Change) -> Vec<String> {
    let sign = match change.change {
        Kind::Added => "+",
        Kind::Removed => "-",
        Kind::Changed => "~",
    };
    let field = serde_json::to_value(change.field).ok().and_then(|field| field.as_str().map(str::to_owned));
    // A host stands in the column of hosts, and its sources where others have their entry.
    let (host, item) = match (change.field, &change.host) {
        (Field::Hosts, _) => (change.item.clone().unwrap_or_default(), String::new()),
        (_, host) => (host.clone().unwrap_or_else(|| "all".to_owned()), change.item.clone().unwrap_or_default()),
    };
    let said = match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (Some(said), None) | (None, Some(said)) if *said != item => said.clone(),
        _ => String::new(),
    };
    let what = [item, said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    vec![sign.to_owned(), host, field.unwrap_or_default(), what]
}

fn flows(text: &mut String, flows: &Flows) {
    if flows.cut == 0 {
        let _ = writeln!(text, "\nno live flow is cut, of {}", flows.live);
    }
    let of = |later: bool| -> Vec<Vec<String>> {
        flows.listed.iter().filter(|flow| flow.at.is_some() == later).map(flow).collect()
    };
    let reasons: Vec<String> = flows.by_reason.iter().map(|(reason, number)| format!("{number} {reason}")).collect();
    let head = format!(
        "cuts {} of {} at once ({}):",
        flows.cut,
        count(flows.live, "live flow", "live flows"),
        reasons.join(", ")
    );
    group(text, &head, &of(false), flows.cut);
    let head = format!("windows cut {} later:", count(flows.later, "live flow", "live flows"));
    group(text, &head, &of(true), flows.later);
}

/// `agent-1  192.168.10.10  tcp 93.184.216.34:443  api.example.com  window-closed  at 18:00`
fn flow(flow: &Flow) -> Vec<String> {
    let place =
        flow.port.map_or_else(|| flow.address.to_string(), |port| SocketAddr::new(flow.address, port).to_string());
    vec![
        flow.host.clone().unwrap_or_else(|| "-".to_owned()),
        flow.source.to_string(),
        format!("{} {place}", flow.protocol),
        if flow.domains.is_empty() { "-".to_owned() } else { flow.domains.join(",") },
        flow.reason.as_str().to_owned(),
        flow.at.map(|at| format!("at {}", time(at))).unwrap_or_default(),
    ]
}

fn leases(text: &mut String, leases: &Leases) {
    let row = |lease: &crate::daemon::protocol::plan::Lease| {
        vec![lease.host.clone().unwrap_or_else(|| "-".to_owned()), lease.domain.clone(), lease.address.to_string()]
    };
    let rows: Vec<Vec<String>> = leases.listed.iter().map(row).collect();
    let head = format!("ends {}:", count(leases.ended, "lease", "leases"));
    group(text, &head, &rows, leases.ended);
}

fn replay(text: &mut String, replay: &Replay) {
    let (records, since) = (replay.records, time(replay.since));
    let _ = writeln!(text, "\nthe {} decisions recorded since {since} ({records} records):", replay.decisions);
    for (head, differing) in [("would break", &replay.breaks), ("would open", &replay.opens)] {
        // None where nothing is recorded that could break is no news.
        if differing.decisions > 0 || replay.recorded == Decisions::All || head == "would open" {
            hosts(text, head, differing);
        }
    }
    if replay.recorded != Decisions::All {
        text.push_str("  what would break is not known: what passes is not recorded (log.decisions = \"all\" does)\n");
    }
    if replay.unclear > 0 {
        let _ = writeln!(text, "  {} of them do not tell enough to be decided again", replay.unclear);
    }
    if replay.damaged > 0 {
        let _ = writeln!(text, "  {} of the log are no records", count_lines(replay.damaged));
    }
}

fn count_lines(number: u64) -> String {
    if number == 1 { "one line".to_owned() } else { format!("{number} lines") }
}

fn hosts(text: &mut String, head: &str, differing: &Differing) {
    let Differing { decisions, hosts, listed } = differing;
    if *decisions == 0 {
        let _ = writeln!(text, "  none {head}");
        return;
    }
    let _ = writeln!(text, "  {decisions} {head}");
    for host in listed.iter().take(LINES) {
        let name = host.host.as_deref().unwrap_or("(no host)");
        let _ = writeln!(text, "    {name}: {}", host.decisions);
        let rows: Vec<Vec<String>> = host.listed.iter().take(PLACES).map(place).collect();
        for line in columns(&rows).lines() {
            let _ = writeln!(text, "      {line}");
        }
        let more = host.places.saturating_sub(rows.len());
        if more > 0 {
            let _ = writeln!(text, "      … and {}", count(more, "further place", "further places"));
        }
    }
    let more = hosts.saturating_sub(listed.len().min(LINES));
    if more > 0 {
        let _ = writeln!(text, "    … and {}; --json lists more", count(more, "further host", "further hosts"));
    }
}

/// `12  dns pastebin.com  not-allowlisted`
fn place(place: &crate::daemon::protocol::plan::Place) -> Vec<String> {
    let name = place.domain.clone();
    let target = match (place.address, place.port) {
        (None, _) => format!("dns {}", name.as_deref().unwrap_or("-")),
        (Some(address), port) => {
            let protocol = place.protocol.as_deref().unwrap_or("-");
            let to = port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string());
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{protocol} {to}{name}")
        }
    };
    vec![place.decisions.to_string(), target, place.reason.as_str().to_owned()]
}
