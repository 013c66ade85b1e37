//! Ten million recorded decisions, decided again by another policy, as `clawgress plan` does.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::json;

use clawgress::core::replay::Replay;
use clawgress::daemon::replayed::replay;
use clawgress::decisions::{Action, Layer, Record};
use clawgress::plan::ids::HostId;
use clawgress::plan::snapshot::Snapshot;
use clawgress::policy::decision::Reason;
use clawgress::policy::model::Policy;
use clawgress::policy::parse;
use measure::{Table, bar, first_in_line, median, quick, spread, timed};

/// Records, and the files that they are in (as many as the log cuts its room into, and two).
const MOST: u32 = 10_000_000;
const FILES: u32 = 10;
const HOSTS: u32 = 200;
const NAMES: u32 = 10_000;
/// The bar of the specification for all of them, seconds.
const BAR: f64 = 10.0;

/// How many there are.
fn records() -> u32 {
    if quick() { MOST / 10 } else { MOST }
}

/// Each host with its own ten names, half of them with a window; `shift` moves the names on.
fn policy(shift: u32) -> Policy {
    let host = |host: u32| {
        let names: Vec<String> =
            (0..10).map(|nth| format!("n{}.example.com", (host * 50 + nth + shift) % NAMES)).collect();
        let mut block = json!({
            "sources": [format!("10.1.{}.{}/32", host / 250, host % 250 + 1)],
            "allow": { "domains": names, "ips": ["93.184.0.0/16"], "ports": [443] },
        });
        if host.is_multiple_of(2) {
            block["time_window"] = json!({ "start": "06:00", "end": format!("{}:00", 12 + host % 12) });
        }
        (format!("agent-{host}"), block)
    };
    let hosts: serde_json::Map<_, _> = (0..HOSTS).map(host).collect();
    let text = json!({ "version": 1, "time_zone": "Europe/Berlin", "deny": { "domains": ["*.bad.example.com"] }, "hosts": hosts });
    parse(&text.to_string()).expect("a policy")
}

fn snapshot(policy: &Policy, revision: u64) -> Snapshot {
    let ids: BTreeMap<_, _> = policy.hosts.keys().cloned().zip((HostId::FIRST.0..).map(HostId)).collect();
    Snapshot::compile(policy, &ids, [], Tz::UTC, revision)
}

/// A day of refusals and answers: mostly what was there before, one in twenty a name that is never seen again.
fn record(nth: u32, start: DateTime<Utc>) -> Record {
    let mix = nth.wrapping_mul(0x9e37_79b9) >> 8;
    let host = mix % HOSTS;
    let time = start + TimeDelta::milliseconds(i64::from(nth) * 86_400_000 / i64::from(records() / FILES));
    let dns = !mix.is_multiple_of(3);
    let (action, reason) = match mix % 5 {
        0 | 1 => (Action::Allow, Reason::Allowed),
        2 | 3 => (Action::Block, Reason::NotAllowlisted),
        _ if dns => (Action::Block, Reason::WindowClosed),
        _ => (Action::Block, Reason::NoLease),
    };
    let mut record =
        Record::new(time, 6 + u64::from(mix % 2), action, if dns { Layer::Dns } else { Layer::Packet }, reason);
    record.id = u64::from(nth);
    record.host = Some(format!("agent-{host}").into());
    record.source = Some(IpAddr::from([10, 1, (host / 250) as u8, (host % 250 + 1) as u8]));
    let name = if nth.is_multiple_of(20) {
        format!("x{nth}.example.org")
    } else {
        format!("n{}.example.com", mix / 7 % 100 + host * 50)
    };
    record.domain = Some(name.into());
    record.protocol = Some(if dns { "udp" } else { "tcp" }.into());
    if !dns {
        record.address = Some(IpAddr::from([151, 101, (mix % 4) as u8, (mix % 16) as u8]));
        record.port = Some(443);
    }
    record.label = Some("llm-provider".into());
    record.path = Some(format!("/hosts/agent-{host}/allow/domains").into());
    record.suppressed = u64::from(mix % 4);
    record
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = Utc::now() - TimeDelta::hours(24);
    let first = dir.path().join("decisions-000001.jsonl");
    let mut to = BufWriter::new(std::fs::File::create(&first).expect("a file"));
    for nth in 0..records() / FILES {
        to.write_all(&record(nth, start).line()).expect("room");
    }
    to.flush().expect("room");
    drop(to);
    // One file under ten names: what is measured is the work, not the disk.
    for number in 2..=FILES {
        std::fs::hard_link(&first, dir.path().join(format!("decisions-{number:06}.jsonl"))).expect("a link");
    }
    let bytes = std::fs::metadata(&first).expect("a file").len() * u64::from(FILES);
    let (old, new) = (policy(0), policy(5));
    let (before, after) = (snapshot(&old, 7), snapshot(&new, 8));
    first_in_line();
    let mut seconds = Vec::new();
    let mut found = (0, 0);
    for _ in 0..if quick() { 1 } else { 5 } {
        let both = Replay::new((&old, &before), (&new, &after));
        let (done, ms) = timed(|| replay(dir.path(), start - TimeDelta::hours(1), both));
        assert_eq!(done.records, u64::from(records()));
        found = (done.breaks.decisions, done.opens.decisions);
        seconds.push(ms / 1e3);
    }
    let mut table = Table::new(
        &format!("{} recorded decisions ({} MB) decided again", records(), bytes / 1_000_000),
        &["what", "median s", "spread", "bar", "notes"],
    );
    table.row([
        "replay".to_owned(),
        format!("{:.2}", median(&seconds)),
        spread(&seconds, 2),
        bar(median(&seconds) < BAR, "< 10 s"),
        format!("{} decisions would break, {} open", found.0, found.1),
    ]);
    table.print();
}
