//! What an earlier process left is judged as whose it is, whatever else the table says.

use std::net::IpAddr;
use std::time::Duration;

use clawgress::core::classes::Classes;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::state::{State, World};
use clawgress::plan::ir::{Data, Key, Value};
use clawgress::policy::name::Name;
use clawgress::policy::{Policy, parse};
use serde_json::json;

fn policy() -> Policy {
    let policy = json!({ "version": 1, "hosts": {
        "a": { "sources": ["192.168.10.10/32"], "allow": { "domains": ["only-a.example.com"] } },
        "b": { "sources": ["192.168.11.10/32"] } } });
    parse(&policy.to_string()).expect("a legal policy")
}

#[test]
fn a_lease_that_leads_to_the_class_of_another_host_ends() {
    let (policy, world) = (policy(), World::listening(53));
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy, &world, 1, 1);
    state.enforced(pending);
    let host = |name: &str| *state.hosts.iter().find(|(host, _)| host.as_str() == name).expect("a host").1;
    let (a, b) = (host("a"), host("b"));
    let address = IpAddr::from([203, 0, 113, 1]);
    let request = LeaseRequest {
        revision: 1,
        host: a,
        name: Name::from_wire_labels("only-a.example.com".split('.').map(str::as_bytes)).expect("a name"),
        links: Vec::new(),
        addresses: vec![address],
        ttl: Duration::from_secs(60),
    };
    assert_eq!(state.lease(&[request], 1).results, [Ok(())]);
    let mut held = state.expected(1);
    let leases = |table: &mut clawgress::plan::ops::Table| {
        table.sets.iter_mut().find(|(name, _)| &***name == "dst4").expect("leases").1.elements.clone()
    };
    let own = leases(&mut held);
    let (_, value) = own.iter().next().expect("a lease");
    let Data::Mark(class) = value.data else { panic!("no class") };
    let strange = Key::MarkAddress(u32::from(b.0), address);
    let lease = Value { timeout_ms: Some(30_000), ..Value::plain(Data::Mark(class)) };
    let set = held.sets.iter_mut().find(|(name, _)| &***name == "dst4").expect("leases").1;
    set.elements.insert(strange, lease);

    let mut state = State::adopt(&held, Some((&policy, &world)), 1, 1);
    let pending = state.enforce(&policy, &world, 1, 1);
    state.enforced(pending);
    let left = leases(&mut state.expected(1));
    assert!(left.keys().copied().eq([Key::MarkAddress(u32::from(a.0), address)]), "{left:?}");
}
