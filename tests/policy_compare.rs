//! What `core::compare` tells of two policies, against what the reference decides under each: nothing that comes to pass
//! goes unsaid.

#[allow(dead_code)]
#[path = "differential/random.rs"]
mod random;

use std::net::IpAddr;

use chrono_tz::Tz;
use ipnet::IpNet;

use clawgress::core::compare::{Change, Field, compare};
use clawgress::policy::decision::{Decision, Verdict};
use clawgress::policy::model::{Mode, Policy};
use clawgress::policy::name::{Name, Pattern};
use clawgress::policy::normalised;
use clawgress::policy::reference::{self, Flow, Leased, Protocol};
use clawgress::policy::schedule::Moment;
use random::Random;

const PAIRS: u64 = 1500;
const QUESTIONS: usize = 40;

/// One question: a query, or a flow to an address that may have been leased for names.
struct Asked<'a> {
    flow: &'a Flow<'a>,
    /// `None`: it is a query.
    names: &'a [Name],
    query: Option<&'a Name>,
}

fn passes(decision: &Decision) -> bool {
    decision.verdict != Verdict::Block || decision.mode == Mode::Monitor
}

fn decide(policy: &Policy, asked: &Asked<'_>, moment: &Moment) -> Decision {
    let Flow { source, interface, .. } = *asked.flow;
    let host = reference::host_of(policy, source);
    match asked.query {
        Some(name) => reference::decide_scope(policy, source, interface)
            .unwrap_or_else(|| reference::decide_name_at(policy, host, Some(name), Some(moment))),
        None => {
            let leases: Vec<Leased<'_>> =
                asked.names.iter().map(|name| Leased { host, name, address: asked.flow.destination }).collect();
            reference::decide_flow_at(policy, asked.flow, &leases, Some(moment))
        }
    }
}

/// Whether the question lies under a change: it is about this host, and about this name, address, port or source.
fn lies_under(asked: &Asked<'_>, change: &Change, old: &Policy, new: &Policy) -> bool {
    let Flow { source, interface, destination, protocol } = *asked.flow;
    let item = change.item.as_deref();
    let host_is = |word: &str| {
        [old, new]
            .into_iter()
            .any(|policy| reference::host_of(policy, source).is_some_and(|host| host.as_str() == word))
    };
    let net = |address: IpAddr| item.is_some_and(|item| item.parse::<IpNet>().unwrap().contains(&address));
    let named = || {
        let pattern = Pattern::from_record(item.unwrap()).unwrap();
        asked.query.into_iter().chain(asked.names).any(|name| pattern.matches(name))
    };
    if change.host.as_deref().is_some_and(|host| !host_is(host)) {
        return false;
    }
    match change.field {
        Field::ScopeSources => item.is_none() || net(source),
        Field::ScopeInterfaces => item.is_none_or(|item| item == interface),
        Field::Hosts => host_is(item.unwrap()),
        Field::Sources => net(source),
        Field::AllowDomains | Field::DenyDomains | Field::DomainTimeWindows => named(),
        Field::AllowIps | Field::DenyIps => asked.query.is_none() && net(destination),
        Field::AllowPorts => match protocol {
            Protocol::Tcp(port) | Protocol::Udp(port) => asked.query.is_none() && item == Some(&port.to_string()),
            Protocol::Echo | Protocol::Other(_) => false,
        },
        Field::Mode | Field::TimeZone | Field::TimeWindow => true,
        // What is in the files is not told name by name.
        Field::AllowDomainLists | Field::DenyDomainLists => asked.query.is_some() || !asked.names.is_empty(),
        Field::EgressKbps | Field::Exfil | Field::Labels => false,
    }
}

/// Some policies let everything pass that they would refuse.
fn with_mode(policy: &Policy, random: &mut Random) -> Policy {
    let mut document = normalised(policy);
    if random.chance(10) {
        document["mode"] = "monitor".into();
    }
    if random.chance(10)
        && let Some(host) = document["hosts"].as_object_mut().and_then(|hosts| hosts.values_mut().next())
    {
        host["mode"] = if random.chance(50) { "enforce" } else { "monitor" }.into();
    }
    if document["hosts"].is_null() {
        document.as_object_mut().unwrap().shift_remove("hosts");
    }
    random::read(&document)
}

#[test]
fn whatever_is_decided_otherwise_lies_under_a_change_that_says_so() {
    let (mut opened, mut shut, mut silent) = (0, 0, 0);
    for seed in 0..PAIRS {
        let mut random = Random::new(seed);
        let old = random.policy();
        let old = with_mode(&old, &mut random);
        let new = random.policy_like(&old);
        let new = if random.chance(20) { with_mode(&new, &mut random) } else { new };
        assert_eq!(compare(&old, &old, Tz::UTC), [], "seed {seed}");
        let changes = compare(&old, &new, Tz::UTC);
        let back = compare(&new, &old, Tz::UTC);
        assert_eq!(changes.is_empty(), back.is_empty(), "seed {seed}");
        silent += usize::from(changes.is_empty());
        for _ in 0..QUESTIONS {
            let flow = random.flow(&[]);
            let names: Vec<Name> = (0..random.below(3)).map(|_| random.name()).collect();
            let name = random.name();
            let query = random.chance(40).then_some(&name);
            let names = if query.is_some() { &[] } else { &names[..] };
            let asked = Asked { flow: &flow, names, query };
            let start = random.start();
            let at = |policy: &Policy| Moment::of(policy, start, Tz::UTC);
            let (before, after) = (decide(&old, &asked, &at(&old)), decide(&new, &asked, &at(&new)));
            let (was, is) = (passes(&before), passes(&after));
            if was == is {
                continue;
            }
            let told = changes.iter().any(|change| {
                let effect = if is { change.effect.widens() } else { change.effect.narrows() };
                effect && lies_under(&asked, change, &old, &new)
            });
            assert!(
                told,
                "seed {seed}: {flow:?} {names:?} {query:?}\n{before:?}\n{after:?}\n{changes:#?}\n{}\n{}",
                normalised(&old),
                normalised(&new)
            );
            if is { opened += 1 } else { shut += 1 }
        }
    }
    println!("{opened} opened, {shut} shut, {silent} pairs without a change");
    assert!(opened > 1000 && shut > 500, "{opened} opened, {shut} shut: the questions are too few");
}
