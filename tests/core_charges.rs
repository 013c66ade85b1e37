//! For how long an address is charged to a cap: a day after the last answer that gave it for the capped name, longer than
//! any lease.

use std::time::Duration;

use clawgress::core::classes::{Classes, MAX_CLASSES_PER_HOST};
use clawgress::core::forecast::Live;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::recharge::Recharged;
use clawgress::core::state::{State, World};
use clawgress::plan::apply::apply;
use clawgress::plan::ids::HostId;
use clawgress::plan::ir::{Data, Key, Verdict};
use clawgress::plan::ops::Op;
use clawgress::policy::name::Name;
use clawgress::policy::reference::Protocol;
use clawgress::policy::{Policy, parse};
use serde_json::json;

const MINUTE: u64 = 60_000;
/// `core::metering::REMEMBERED`.
const DAY: u64 = 24 * 60 * MINUTE;

/// Leases an address for a name.
fn lease(state: &mut State, host: HostId, name: &str, address: &str, now: u64) -> Vec<Op> {
    let request = LeaseRequest {
        revision: state.revision,
        host,
        name: Name::from_wire_labels(name.split('.').map(str::as_bytes)).expect("a name"),
        links: Vec::new(),
        addresses: vec![address.parse().expect("an address")],
        ttl: Duration::from_secs(60),
    };
    let leased = state.lease(&[request], now);
    assert_eq!(leased.results, [Ok(())]);
    leased.ops
}

/// Leases an address for a name; whether its flows meet a cap.
fn is_charged(state: &mut State, host: HostId, name: &str, address: &str, now: u64) -> bool {
    state.sweep(now);
    format!("{:?}", lease(state, host, name, address, now)).contains("meter_")
}

/// The class that flows to a leased address get.
fn class_of(state: &State, host: HostId, address: &str, now: u64) -> u32 {
    let table = state.expected(now);
    let key = Key::MarkAddress(u32::from(host.0), address.parse().expect("an address"));
    match table.sets["dst4"].elements.get(&key).expect("a lease").data {
        Data::Mark(class) => class,
        ref other => panic!("{other:?}"),
    }
}

/// Where packets of a class go, with the rules there.
fn way_of(state: &State, class: u32, now: u64) -> String {
    let table = state.expected(now);
    let value = table.sets["up"].elements.get(&Key::Mark(class)).expect("its door is open");
    let chain = table.chains.iter().find(|(name, _)| value.data == Data::Verdict(Verdict::Goto((*name).clone())));
    format!("{:?} {chain:?}", value.data)
}

fn flow(class: u32, address: &str) -> Live {
    let opener = "192.168.10.10".parse().expect("an address");
    Live { class, opener, opened: address.parse().expect("an address"), protocol: Protocol::Tcp(443) }
}

fn policy(denied: &str) -> Policy {
    let policy = json!({ "version": 1, "hosts": { "a": { "sources": ["192.168.10.10/32"],
        "allow": { "domains": ["*.example.com"] }, "deny": { "ips": [denied] },
        "exfil": { "domains": { "capped.example.com": { "bytes": 1000, "period": "day" } } } } } });
    parse(&policy.to_string()).expect("a legal policy")
}

/// A state in which a policy is in force, and its host.
fn enforced() -> (State, HostId) {
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy("45.60.0.0/24"), &World::listening(53), 1, 0);
    state.enforced(pending);
    let a = *state.hosts.values().next().expect("a host");
    (state, a)
}

const HERE: &str = "93.184.216.34";

#[test]
fn open_flows_follow_when_their_address_comes_to_be_charged() {
    let (mut state, a) = enforced();
    lease(&mut state, a, "plain.example.com", HERE, 1);
    let plain = class_of(&state, a, HERE, 1);
    assert!(!way_of(&state, plain, 1).contains("meter_"));
    lease(&mut state, a, "capped.example.com", HERE, 1);
    let mut kernel = state.expected(1);
    let flows = [flow(plain, "45.60.1.1"), flow(plain, HERE), flow(7, HERE)];
    let Recharged { leased, moves, anew } = state.recharge(&flows, 1);
    apply(&mut kernel, &leased.ops).expect("a legal transaction");
    assert_eq!((kernel == state.expected(1), anew), (true, 0));
    let [(1, class)] = moves[..] else { panic!("one flow is moved: {moves:?}") };
    assert!(way_of(&state, class, 1).contains("meter_"));
    assert!(state.recharge(&[flow(class, HERE)], 1).moves.is_empty(), "it is charged now");
    assert_eq!(state.recharge(&flows, 1).moves, [(1, class)], "the same flows get the same class");
}

#[test]
fn flows_that_are_judged_at_each_packet_still_are_when_they_come_to_be_charged() {
    let (mut state, a) = enforced();
    lease(&mut state, a, "plain.example.com", HERE, 1);
    let plain = class_of(&state, a, HERE, 1);
    let pending = state.enforce(&policy("45.61.0.0/24"), &World::listening(53), 2, 1);
    state.enforced(pending);
    assert!(way_of(&state, plain, 1).contains("recheck"), "{}", way_of(&state, plain, 1));
    lease(&mut state, a, "capped.example.com", HERE, 1);
    // A later lease of the same name, with a class of the same caps that nobody need judge again.
    let later = 120 * MINUTE;
    state.sweep(later);
    lease(&mut state, a, "plain.example.com", HERE, later);
    let fresh = class_of(&state, a, HERE, later);
    let way = way_of(&state, fresh, later);
    assert!(way.contains("meter_") && !way.contains("recheck"), "{way}");
    let [(0, class)] = state.recharge(&[flow(plain, HERE)], later).moves[..] else { panic!("it is moved") };
    let way = way_of(&state, class, later);
    assert!(class != fresh && way.contains("meter_") && way.contains("recheck"), "{way}");
}

#[test]
fn an_address_is_charged_when_the_lease_of_the_capped_name_has_ended() {
    let (mut state, a) = enforced();
    assert!(!is_charged(&mut state, a, "plain.example.com", "93.184.216.34", 0), "nothing is known yet");
    assert!(is_charged(&mut state, a, "capped.example.com", "93.184.216.34", MINUTE));
    assert!(is_charged(&mut state, a, "plain.example.com", "93.184.216.34", 10 * MINUTE), "the lease has ended");
    assert!(!is_charged(&mut state, a, "plain.example.com", "93.184.216.99", 10 * MINUTE), "another address");
    assert!(is_charged(&mut state, a, "other.example.com", "93.184.216.34", DAY), "nearly a day later");
    assert!(!is_charged(&mut state, a, "third.example.com", "93.184.216.34", DAY + 2 * MINUTE), "a day later");
}

/// What an agent does to its classes keeps none of its flows out of a cap.
#[test]
fn flows_of_a_host_without_room_for_classes_are_judged_anew() {
    let (mut state, a) = enforced();
    lease(&mut state, a, "plain.example.com", HERE, 1);
    let plain = class_of(&state, a, HERE, 1);
    for nth in state.counts(1).0..MAX_CLASSES_PER_HOST - 1 {
        // As a group, and not more addresses than a host may have.
        let address = std::net::Ipv4Addr::from(0x5db8_0000 + u32::try_from(nth % 4000).expect("small")).to_string();
        lease(&mut state, a, &format!("n{nth}.example.com"), &address, 1);
    }
    lease(&mut state, a, "capped.example.com", HERE, 1);
    let Recharged { leased, moves, anew } = state.recharge(&[flow(plain, HERE), flow(plain, HERE)], 1);
    assert_eq!((leased.ops.len(), anew), (0, 2));
    let [(0, first), (1, second)] = moves[..] else { panic!("both are moved: {moves:?}") };
    assert!(first == second && !state.is_open(first), "a number without a door");
}
