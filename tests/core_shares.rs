//! What one host can use up is its own share: addresses, classes, names of one address, numbers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use clawgress::core::classes::{Class, Classes, MAX_CLASSES_PER_HOST, MAX_LINKS, Way};
use clawgress::core::lease::{LeaseError, LeaseRequest};
use clawgress::core::state::{MAX_LEASES_PER_HOST, MAX_NAMES, State, World};
use clawgress::plan::ids::HostId;
use clawgress::policy::name::Name;
use clawgress::policy::parse;
use serde_json::json;

fn world() -> World {
    World::listening(53)
}

/// A state in which hosts `a` and `b` may have every name below example.com.
fn state() -> (State, HostId, HostId) {
    let policy = json!({ "version": 1, "allow": { "domains": ["*.example.com"] }, "hosts": {
        "a": { "sources": ["192.168.10.10/32"] }, "b": { "sources": ["192.168.11.10/32"] } } });
    let policy = parse(&policy.to_string()).expect("a legal policy");
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy, &world(), 1, 0);
    state.enforced(pending);
    let id = |name: &str| *state.hosts.iter().find(|(host, _)| host.as_str() == name).expect("a host").1;
    let (a, b) = (id("a"), id("b"));
    (state, a, b)
}

fn request(host: HostId, name: usize, addresses: std::ops::Range<usize>) -> LeaseRequest {
    let name = format!("n{name}.example.com");
    LeaseRequest {
        revision: 1,
        host,
        name: Name::from_wire_labels(name.split('.').map(str::as_bytes)).expect("a name"),
        links: Vec::new(),
        addresses: addresses.map(|n| IpAddr::V6(Ipv6Addr::from((0x2606_4700 << 96) + n as u128))).collect(),
        ttl: Duration::from_secs(60),
    }
}

fn lease(state: &mut State, request: LeaseRequest, now: u64) -> Result<(), LeaseError> {
    let mut leased = state.lease(&[request], now);
    leased.results.remove(0)
}

#[test]
fn a_host_that_is_given_ever_new_addresses_starves_no_other() {
    let (mut state, a, b) = state();
    for n in (0..MAX_LEASES_PER_HOST).step_by(256) {
        assert_eq!(lease(&mut state, request(a, 0, n..n + 256), 0), Ok(()), "{n}");
    }
    let more = || request(a, 0, MAX_LEASES_PER_HOST..MAX_LEASES_PER_HOST + 1);
    assert_eq!(lease(&mut state, more(), 1), Err(LeaseError::Full));
    assert_eq!(lease(&mut state, request(a, 0, 0..256), 2), Ok(()), "what it holds it may keep");
    assert_eq!(lease(&mut state, request(b, 0, 0..256), 3), Ok(()));
    state.sweep(61_002);
    assert_eq!(lease(&mut state, more(), 61_000), Ok(()), "the share is free again");
}

#[test]
fn a_host_that_asks_for_ever_new_names_starves_no_other() {
    let (mut state, a, b) = state();
    for n in 0..MAX_CLASSES_PER_HOST {
        assert_eq!(lease(&mut state, request(a, n, n..n + 1), 0), Ok(()), "{n}");
    }
    let more = || request(a, MAX_CLASSES_PER_HOST, MAX_CLASSES_PER_HOST..MAX_CLASSES_PER_HOST + 1);
    assert!(state.evict(1).is_none(), "none is idle");
    assert_eq!(lease(&mut state, more(), 1), Err(LeaseError::Full));
    assert_eq!(lease(&mut state, request(b, 0, 0..1), 1), Ok(()));
    state.sweep(61_002);
    assert!(state.evict(61_002).is_some());
    assert_eq!(lease(&mut state, more(), 61_002), Ok(()), "classes whose leases ended make room");
    assert_eq!(state.names_of(b, request(b, 0, 0..1).addresses[0], 2).len(), 0, "and b's lease ended by itself");
    assert_eq!(state.counts(61_002).0, MAX_CLASSES_PER_HOST - MAX_CLASSES_PER_HOST / 4 + 2, "b lost no class");
}

#[test]
fn many_names_of_one_address_cost_no_square() {
    let (mut state, a, _) = state();
    let address = request(a, 0, 0..1).addresses[0];
    for n in 0..10 * MAX_NAMES {
        assert_eq!(lease(&mut state, request(a, n, 0..1), n as u64), Ok(()));
        let names = state.names_of(a, address, n as u64);
        assert!(names.contains(&request(a, n, 0..1).name), "the name just asked for is kept");
        assert!(names.len() <= MAX_NAMES);
    }
}

#[test]
fn hosts_that_come_and_go_never_share_a_number() {
    /// More than there are numbers, over all turns.
    const TURNS: usize = 5;
    const HOSTS: usize = 14_000;
    let mut state = State::new(Classes::first_of_table(0));
    for turn in 0..TURNS {
        let hosts: serde_json::Map<String, serde_json::Value> = (0..HOSTS)
            .map(|n| (format!("h{turn}-{n}"), json!({ "sources": [format!("10.{}.{}.1/32", n / 250, n % 250)] })))
            .collect();
        let policy = parse(&json!({ "version": 1, "hosts": hosts }).to_string()).expect("a legal policy");
        let pending = state.enforce(&policy, &world(), turn as u64 + 1, 0);
        state.enforced(pending);
        let numbers: BTreeSet<HostId> = state.hosts.values().copied().collect();
        assert_eq!(numbers.len(), HOSTS, "turn {turn}");
        assert!(numbers.first() >= Some(&HostId::FIRST));
    }
}

#[test]
fn a_name_server_that_leads_over_ever_new_names_fills_no_memory() {
    let (_, a, _) = state();
    let name = |text: String| Name::from_wire_labels(text.split('.').map(str::as_bytes)).expect("a name");
    let mut classes = Classes::new(0);
    let class = Class::new(a, Way::Named, BTreeSet::from([name("n.example.com".into())]), BTreeSet::new());
    let (id, _) = classes.of(class).expect("a number is left");
    for turn in 0..10_000 {
        let links: Vec<Name> = (0..8).map(|n| name(format!("l{turn}-{n}.example.net"))).collect();
        classes.extend(id, 0, &links);
        let known = &classes.get(id).expect("it lives").links;
        assert!(links.iter().all(|link| known.contains(link)), "the latest answer's are known");
    }
    let known = classes.get(id).expect("it lives").links.len();
    assert!(known <= MAX_LINKS, "{known} names are remembered");
}
