//! For how long an address is charged to a cap: a day after the last answer that gave it for the capped name, longer than
//! any lease.

use std::time::Duration;

use clawgress::core::classes::Classes;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::state::{State, World};
use clawgress::plan::ids::HostId;
use clawgress::policy::name::Name;
use clawgress::policy::parse;
use serde_json::json;

const MINUTE: u64 = 60_000;
/// `core::metering::REMEMBERED`.
const DAY: u64 = 24 * 60 * MINUTE;

/// Leases an address for a name; whether its flows meet a cap.
fn is_charged(state: &mut State, host: HostId, name: &str, address: &str, now: u64) -> bool {
    state.sweep(now);
    let request = LeaseRequest {
        revision: 1,
        host,
        name: Name::from_wire_labels(name.split('.').map(str::as_bytes)).expect("a name"),
        links: Vec::new(),
        addresses: vec![address.parse().expect("an address")],
        ttl: Duration::from_secs(60),
    };
    let leased = state.lease(&[request], now);
    assert_eq!(leased.results, [Ok(())]);
    format!("{:?}", leased.ops).contains("meter_")
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
