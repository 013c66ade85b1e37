//! For how long an address is charged to a cap: a day after the last answer that gave it for the capped name, longer than
//! any lease.

use std::time::Duration;

use clawgress::core::classes::Classes;
use clawgress::core::forecast::Live;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::recharge::Recharged;
use clawgress::core::state::{State, World};
use clawgress::plan::apply::apply;
use clawgress::plan::ids::HostId;
use clawgress::plan::ir::{Data, Key, Verdict};
use clawgress::plan::ops::Op;
use clawgress::policy::name::Name;
use clawgress::policy::parse;
use clawgress::policy::reference::Protocol;
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

#[test]
fn open_flows_follow_when_their_address_comes_to_be_charged() {
    let policy = |denied: &str| {
        let policy = json!({ "version": 1, "hosts": { "a": { "sources": ["192.168.10.10/32"],
            "allow": { "domains": ["*.example.com"] }, "deny": { "ips": [denied] },
            "exfil": { "domains": { "capped.example.com": { "bytes": 1000, "period": "day" } } } } } });
        parse(&policy.to_string()).expect("a legal policy")
    };
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy("45.60.0.0/24"), &World::listening(53), 1, 0);
    state.enforced(pending);
    let a = *state.hosts.values().next().expect("a host");
    let (here, there) = ("93.184.216.34", "93.184.216.99");
    for address in [here, there] {
        lease(&mut state, a, "plain.example.com", address, 1);
    }
    let plain = class_of(&state, a, here, 1);
    assert!(!way_of(&state, plain, 1).contains("meter_"));
    for recheck in [false, true] {
        if recheck {
            let pending = state.enforce(&policy("45.61.0.0/24"), &World::listening(53), 2, 1);
            state.enforced(pending);
            assert!(way_of(&state, plain, 1).contains("recheck"), "{}", way_of(&state, plain, 1));
        }
        let charged = if recheck { there } else { here };
        lease(&mut state, a, "capped.example.com", charged, 1);
        let mut kernel = state.expected(1);
        let flows = [flow(plain, "45.60.1.1"), flow(plain, charged), flow(7, charged)];
        let Recharged { leased, moves, failed } = state.recharge(&flows, 1);
        apply(&mut kernel, &leased.ops).expect("a legal transaction");
        assert_eq!((kernel == state.expected(1), failed), (true, 0));
        let [(1, class)] = moves[..] else { panic!("one flow is moved: {moves:?}") };
        let way = way_of(&state, class, 1);
        assert!(way.contains("meter_") && way.contains("recheck") == recheck, "{way}");
        assert!(state.recharge(&[flow(class, charged)], 1).moves.is_empty(), "it is charged now");
        // The same flows again get the same class, and leases another one where it is judged at each packet.
        assert_eq!(state.recharge(&flows, 1).moves, [(1, class)]);
        assert_ne!(class_of(&state, a, charged, 1), class);
    }
}

#[test]
fn an_address_is_charged_when_the_lease_of_the_capped_name_has_ended() {
    let policy = json!({ "version": 1, "hosts": { "a": { "sources": ["192.168.10.10/32"],
        "allow": { "domains": ["*.example.com"] },
        "exfil": { "domains": { "capped.example.com": { "bytes": 1000, "period": "day" } } } } } });
    let policy = parse(&policy.to_string()).expect("a legal policy");
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy, &World::listening(53), 1, 0);
    state.enforced(pending);
    let a = *state.hosts.values().next().expect("a host");
    assert!(!is_charged(&mut state, a, "plain.example.com", "93.184.216.34", 0), "nothing is known yet");
    assert!(is_charged(&mut state, a, "capped.example.com", "93.184.216.34", MINUTE));
    assert!(is_charged(&mut state, a, "plain.example.com", "93.184.216.34", 10 * MINUTE), "the lease has ended");
    assert!(!is_charged(&mut state, a, "plain.example.com", "93.184.216.99", 10 * MINUTE), "another address");
    assert!(is_charged(&mut state, a, "other.example.com", "93.184.216.34", DAY), "nearly a day later");
    assert!(!is_charged(&mut state, a, "third.example.com", "93.184.216.34", DAY + 2 * MINUTE), "a day later");
}
