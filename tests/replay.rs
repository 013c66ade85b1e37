//! The decision log decided again, against the naive way: each record asked of the reference under both policies.

#[allow(dead_code)]
#[path = "differential/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::io::Write;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use clawgress::core::replay::Replay;
use clawgress::daemon::protocol::plan::Differing;
use clawgress::daemon::replayed::{Replayed, replay};
use clawgress::decisions::{Action, Layer, Record};
use clawgress::plan::ids::HostId;
use clawgress::plan::snapshot::Snapshot;
use clawgress::policy::decision::{Decision, Reason, Verdict};
use clawgress::policy::model::{Mode, Policy};
use clawgress::policy::parse;
use clawgress::policy::reference::{self, Leased, Protocol};
use clawgress::policy::schedule::Moment;
use random::Random;

const PAIRS: u64 = 80;
const RECORDS: i64 = 300;

fn snapshot(policy: &Policy, revision: u64) -> Snapshot {
    let ids: BTreeMap<_, _> = policy.hosts.keys().cloned().zip((HostId::FIRST.0..).map(HostId)).collect();
    Snapshot::compile(policy, &ids, [], Tz::UTC, revision)
}

fn run(records: &[Record], old: &Policy, new: &Policy) -> Replayed {
    let dir = tempfile::tempdir().unwrap();
    // Two files: what is known of the first must not mislead about the second.
    for (number, part) in (1..).zip(records.chunks(records.len() / 2 + 1)) {
        let mut file = std::fs::File::create(dir.path().join(format!("decisions-{number:06}.jsonl"))).unwrap();
        part.iter().for_each(|record| file.write_all(&record.line()).unwrap());
    }
    let (before, after) = (snapshot(old, 1), snapshot(new, 2));
    replay(dir.path(), DateTime::UNIX_EPOCH, Replay::new((old, &before), (new, &after)))
}

/// What a policy says, as simply as can be.
fn decide(policy: &Policy, record: &Record) -> Decision {
    let source = record.source.unwrap();
    let host = reference::host_of(policy, source);
    let interface = policy.scope.interfaces.as_ref().map_or("", |list| &list.entries[0]);
    let name = record.domain.as_deref().map(|name| clawgress::policy::domain::name(name).unwrap());
    let moment = Moment::of(policy, record.time, Tz::UTC);
    reference::decide_scope(policy, source, interface).unwrap_or_else(|| match record.layer {
        Layer::Dns => reference::decide_name_at(policy, host, name.as_ref(), Some(&moment)),
        Layer::Packet | Layer::Name => {
            let protocol = match (record.protocol.as_deref().unwrap(), record.port) {
                ("tcp", Some(port)) => Protocol::Tcp(port),
                ("udp", Some(port)) => Protocol::Udp(port),
                _ => Protocol::Echo,
            };
            let leased = !matches!(record.reason, Reason::NoLease | Reason::NotAllowlisted);
            let address = record.address.unwrap();
            let leases: Vec<Leased<'_>> =
                name.iter().filter(|_| leased).map(|name| Leased { host, name, address }).collect();
            reference::decide_address_at(policy, host, address, Some(protocol), &leases, Some(&moment))
        }
    })
}

fn refuses(decision: &Decision) -> bool {
    decision.verdict == Verdict::Block && decision.mode == Mode::Enforce
}

/// A record of what `old` decides.
fn record(random: &mut Random, old: &Policy, time: DateTime<Utc>, id: i64) -> Record {
    let flow = random.flow(&[]);
    let dns = random.chance(50);
    let layer = if dns { Layer::Dns } else { Layer::Packet };
    let mut record = Record::new(time, 1, Action::Allow, layer, Reason::Allowed);
    record.id = id.unsigned_abs();
    record.source = Some(flow.source);
    record.host = reference::host_of(old, flow.source).map(|host| host.as_str().into());
    record.domain = (dns || random.chance(50)).then(|| random.name().as_str().into());
    record.protocol = Some("udp".into());
    if !dns {
        record.address = Some(flow.destination);
        let (word, port) = match flow.protocol {
            Protocol::Tcp(port) => ("tcp", Some(port)),
            Protocol::Udp(port) => ("udp", Some(port)),
            Protocol::Echo | Protocol::Other(_) => ("icmp", None),
        };
        (record.protocol, record.port) = (Some(word.into()), port);
    }
    let decision = decide(old, &record);
    if refuses(&decision) {
        (record.action, record.reason) = (Action::Block, decision.reason);
        record.path = decision.path.map(|path| path.as_str().into());
    }
    record.suppressed = random.below(4);
    record
}

fn sum(differing: &Differing) -> BTreeMap<Option<String>, u64> {
    let listed = &differing.listed;
    assert_eq!(listed.iter().map(|host| host.decisions).sum::<u64>(), differing.decisions);
    listed.iter().map(|host| (host.host.clone(), host.decisions)).collect()
}

#[test]
fn counts_are_those_of_asking_the_reference_about_each_record() {
    let (mut broken, mut opened) = (0, 0);
    for seed in 0..PAIRS {
        let mut random = Random::new(seed);
        let old = random.policy();
        let new = random.policy_like(&old);
        let start = random.start();
        let records: Vec<Record> =
            (0..RECORDS).map(|id| record(&mut random, &old, start + TimeDelta::minutes(id * 7), id)).collect();
        let (mut breaks, mut opens) = (BTreeMap::new(), BTreeMap::new());
        for record in &records {
            let (was, is) = (refuses(&decide(&old, record)), refuses(&decide(&new, record)));
            let differs = if is { &mut breaks } else { &mut opens };
            if was != is {
                *differs.entry(record.host.as_deref().map(str::to_owned)).or_default() += record.suppressed + 1;
            }
        }
        let done = run(&records, &old, &new);
        assert_eq!(done.records, records.len() as u64);
        assert_eq!((done.unclear, done.damaged), (0, 0), "seed {seed}");
        assert_eq!((sum(&done.breaks), sum(&done.opens)), (breaks, opens), "seed {seed}");
        broken += done.breaks.decisions;
        opened += done.opens.decisions;
        let back = run(&records, &old, &old);
        assert_eq!((back.breaks.decisions, back.opens.decisions), (0, 0));
    }
    println!("{broken} would break, {opened} open");
    assert!(broken > 2000 && opened > 2000, "{broken} would break, {opened} open: too few to tell");
}

fn refused(name: &str, reason: Reason, path: &str) -> Record {
    let mut record = Record::new(DateTime::UNIX_EPOCH, 1, Action::Block, Layer::Dns, reason);
    record.source = Some([192, 0, 2, 1].into());
    record.host = Some("a".into());
    record.domain = Some(name.into());
    record.path = Some(path.into());
    record
}

/// Whether a decision under `old` would break or open under `new`, or cannot be told.
#[track_caller]
fn becomes(record: &Record, old: &str, new: &str, expected: &str) {
    let policy = |text: &str| parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let done = run(std::slice::from_ref(record), &policy(old), &policy(new));
    let word = match (done.breaks.decisions, done.opens.decisions, done.unclear) {
        (0, 0, 0) => "same",
        (1, 0, 0) => "breaks",
        (0, 1, 0) => "opens",
        (0, 0, 1) => "unclear",
        _ => "nonsense",
    };
    assert_eq!(word, expected, "{record:?}");
}

fn host(lists: &str) -> String {
    format!(
        r#"{{"version": 1, "hosts": {{"a": {{"sources": ["192.0.2.1"], "allow": {{"domains": ["*.example.com"]}} {lists} }}}}}}"#
    )
}

#[test]
fn an_alias_on_the_denylist_opens_with_the_line_that_refused_it() {
    let denied = refused("a.example.com", Reason::Denied, "/hosts/a/deny/domains/0");
    let old = host(r#", "deny": {"domains": ["*.cdn.example.net"]}"#);
    becomes(&denied, &old, &host(""), "opens");
    becomes(&denied, &old, &host(r#", "deny": {"domains": ["x.example.net", "*.example.net"]}"#), "same");
    let earlier = Record { revision: 0, ..denied };
    becomes(&earlier, &old, &host(""), "unclear");
}

#[test]
fn an_address_in_an_answer_opens_with_the_list_that_refused_it() {
    let mut rebound = refused("a.example.com", Reason::Rebinding, "");
    rebound.address = Some([10, 0, 0, 7].into());
    let open = host("").replace(r#""allow": {"#, r#""allow": {"ips": ["10.0.0.0/24"], "#);
    becomes(&rebound, &host(""), &open, "opens");
    becomes(&rebound, &host(""), &host(r#", "limits": {"egress_kbps": 1}"#), "same");
    let mut denied = refused("a.example.com", Reason::Denied, "/hosts/a/deny/ips/0");
    denied.address = Some([45, 60, 1, 1].into());
    let old = host(r#", "deny": {"ips": ["45.60.0.0/16"]}"#);
    becomes(&denied, &old, &host(""), "opens");
    becomes(&denied, &old, &host(r#", "deny": {"ips": ["45.0.0.0/8"]}"#), "same");
}

#[test]
fn what_a_limit_refused_opens_when_the_limit_goes() {
    let mut spent = refused("a.example.com", Reason::CapExhausted, "");
    spent.layer = Layer::Packet;
    (spent.address, spent.port, spent.protocol) = (Some([45, 60, 1, 1].into()), Some(443), Some("tcp".into()));
    let cap = |name: &str| host(&format!(r#", "exfil": {{"domains": {{"{name}": {{"bytes": 9, "period": "day"}}}}}}"#));
    becomes(&spent, &cap("a.example.com"), &host(""), "opens");
    becomes(&spent, &cap("a.example.com"), &cap("*.example.com"), "same");
    let slow = Record { reason: Reason::RateLimited, ..spent };
    let rate = host(r#", "limits": {"egress_kbps": 1}"#);
    becomes(&slow, &rate, &host(""), "opens");
    becomes(&slow, &rate, &rate.replace(": 1}", ": 2}"), "same");
}

#[test]
fn what_is_known_by_its_number_alone_cannot_be_told() {
    let mut number = refused("a.example.com", Reason::NoLease, "");
    (number.source, number.domain, number.layer) = (None, None, Layer::Packet);
    becomes(&number, &host(""), r#"{"version": 1}"#, "unclear");
    let mut spoofed = refused("a.example.com", Reason::Malformed, "");
    spoofed.layer = Layer::Packet;
    (spoofed.address, spoofed.port, spoofed.protocol) = (Some([45, 60, 1, 1].into()), Some(443), Some("tcp".into()));
    becomes(&spoofed, r#"{"version": 1}"#, r#"{"version": 1, "allow": {"ips": ["45.0.0.0/8"]}}"#, "same");
}
