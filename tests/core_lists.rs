//! A list in a file that comes to deny an address: what was leased of it ends with its flows, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clawgress::core::classes::Classes;
use clawgress::core::doors::Now;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::state::{State, World};
use clawgress::plan::apply::apply;
use clawgress::plan::ids::HostId;
use clawgress::plan::ir::{Data, Key};
use clawgress::plan::ops::{Op, Table};
use clawgress::plan::prepared::Prepared;
use clawgress::plan::snapshot::AddressVerdict;
use clawgress::policy::decision::Reason;
use clawgress::policy::lists::{MAX_RULES, Reader};
use clawgress::policy::model::{ListFormat, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::{digest, parse};

/// Allows everything below example.com, but what a zone of these records denies.
fn policy(zone: &str) -> Policy {
    let text = r#"{"version": 1, "allow": {"domains": ["*.example.com"]},
        "deny": {"domain_lists": [{"name": "z", "file": "/z", "format": "rpz"}]}}"#;
    let mut reader = Reader::new(ListFormat::Rpz, 0, MAX_RULES);
    reader.feed(zone.as_bytes()).unwrap();
    let contents = Arc::new(reader.finish().unwrap());
    parse(text).unwrap().with_contents(&BTreeMap::from([(("/z".to_owned(), ListFormat::Rpz), contents)]))
}

fn name(text: &str) -> Name {
    Name::from_wire_labels(text.split('.').map(str::as_bytes)).unwrap()
}

fn now() -> Now {
    Now { ms: 1000, utc: chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap() }
}

fn enforce(state: &mut State, kernel: &mut Table, policy: &Policy, revision: u64) -> usize {
    let pending = state.enforce(policy, &World::listening(53), revision, now());
    for ops in pending.delta.transactions() {
        apply(kernel, ops).expect("a legal transaction");
    }
    let cut = pending.cut;
    state.enforced(pending);
    assert_eq!(*kernel, state.expected(now()), "the kernel holds what it should");
    cut
}

/// The class of an address, if it is leased and its door is open.
fn class(kernel: &Table, address: &str) -> Option<u32> {
    let key = Key::MarkAddress(u32::from(HostId::NOBODY.0), address.parse().unwrap());
    match kernel.sets["dst4"].elements.get(&key)?.data {
        Data::Mark(class) => kernel.sets["up"].elements.contains_key(&Key::Mark(class)).then_some(class),
        _ => None,
    }
}

#[test]
fn a_denied_address_ends_its_lease_and_flows_and_leaves_the_others() {
    let (mut state, mut kernel) = (State::new(Classes::first_of_table(0)), Table::default());
    let first = policy("bad.example.com CNAME .\n");
    enforce(&mut state, &mut kernel, &first, 1);
    let lease = |name: &Name, addresses: &[&str]| LeaseRequest {
        revision: 1,
        host: HostId::NOBODY,
        name: name.clone(),
        links: Vec::new(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ttl: Duration::from_secs(300),
    };
    let requests = [
        lease(&name("site.example.com"), &["93.184.216.34", "93.184.216.35"]),
        lease(&name("other.example.com"), &["45.60.1.1"]),
    ];
    let leased = state.lease(&requests, now());
    apply(&mut kernel, &leased.ops).unwrap();
    let before = ["93.184.216.34", "93.184.216.35", "45.60.1.1"].map(|address| class(&kernel, address));
    assert!(before[0].is_some() && before[0] == before[1] && before[2].is_some(), "{before:?}");

    let second = policy("bad.example.com CNAME .\n32.34.216.184.93.rpz-ip CNAME .\n");
    assert_ne!(digest(&first), digest(&second), "contents are part of the revision");
    assert_eq!(enforce(&mut state, &mut kernel, &second, 2), 1, "one class is cut");
    assert_eq!(class(&kernel, "93.184.216.34"), None);
    let marks = kernel.sets["up"].elements.contains_key(&Key::Mark(before[0].unwrap()));
    assert!(!marks, "flows that carry the old class are judged anew");
    assert!(class(&kernel, "93.184.216.35").is_some_and(|class| Some(class) != before[1]), "leased under a new class");
    assert_eq!(class(&kernel, "45.60.1.1"), before[2], "nothing to do with it");

    let snapshot = state.enforce(&second, &World::listening(53), 3, now()).snapshot;
    let judge = |address: &str| snapshot.judge_address(HostId::NOBODY, address.parse::<IpAddr>().unwrap());
    let AddressVerdict::Denied(decision) = judge("93.184.216.34") else { panic!("denied") };
    assert_eq!((decision.reason, decision.path.unwrap().as_str()), (Reason::Denied, "/deny/domain_lists/0"));
    assert_eq!(judge("93.184.216.35"), AddressVerdict::Lease);
}

/// Nothing refers to a large set before it is whole, and no transaction has very many elements.
#[test]
fn a_large_list_of_addresses_comes_in_pieces_and_is_never_changed_in_place() {
    let addresses =
        |first: u32| (0..20_000).map(move |n| IpAddr::from(std::net::Ipv4Addr::from(0x2d00_0000 + first + n)));
    let policy = |first: u32| {
        let ips: Vec<String> = addresses(first).map(|address| address.to_string()).collect();
        parse(&serde_json::json!({ "version": 1, "allow": { "ips": ips } }).to_string()).expect("a legal policy")
    };
    let (mut state, mut kernel) = (State::new(Classes::first_of_table(0)), Table::default());
    for revision in 1..=2 {
        let pending =
            state.enforce(&policy(u32::try_from(revision).expect("small")), &World::listening(53), revision, now());
        let elements = |op: &Op| match op {
            Op::AddElements(_, elements) => elements.len(),
            Op::Fill(_, elements) => elements.len(),
            _ => 0,
        };
        assert!(pending.delta.switch.iter().chain(&pending.delta.remove).map(elements).sum::<usize>() < 100);
        let mut undone = kernel.clone();
        let pieces: Vec<_> = pending.delta.pieces(&BTreeSet::new()).collect();
        assert!(
            pieces.len() > 4
                && pieces.iter().all(|piece| piece.iter().map(|(_, op)| elements(op)).sum::<usize>() <= 2048)
        );
        for piece in &pieces {
            for (place, op) in piece {
                let whole = &pending.delta.prepare[*place];
                let is_part = matches!((whole, op), (Op::Fill(set, all), Op::AddElements(other, some))
                    if set == other && some.iter().all(|(key, value)| all.get(key) == Some(value)));
                assert!(is_part || whole == op, "its place is that of its operation");
                apply(&mut undone, std::slice::from_ref(op)).expect("a legal transaction");
            }
        }
        if revision > 1 {
            apply(&mut undone, &pending.delta.undo_prepare()).expect("a legal transaction");
            assert_eq!(undone, kernel, "what was prepared can be taken back");
        }
        for ops in pieces.into_iter().map(|piece| piece.into_iter().map(|(_, op)| op).collect::<Vec<_>>()) {
            apply(&mut kernel, &ops).expect("a legal transaction");
        }
        for ops in [&pending.delta.switch, &pending.delta.remove, &pending.delta.litter] {
            apply(&mut kernel, ops).expect("a legal transaction");
        }
        state.enforced(pending);
        assert_eq!(kernel, state.expected(now()), "the kernel holds what it should");
    }
}

/// The kernel keeps ranges sorted, so they take longer; a piece of them must not hold leases up for that much longer.
#[test]
fn of_ranges_a_piece_has_fewer() {
    let ips: Vec<String> = (0..2000).map(|n| format!("45.{}.{}.0/25", n >> 8, n & 255)).collect();
    let policy =
        parse(&serde_json::json!({ "version": 1, "allow": { "ips": ips } }).to_string()).expect("a legal policy");
    let mut state = State::new(Classes::first_of_table(0));
    let first = state.enforce(&parse(r#"{ "version": 1 }"#).expect("legal"), &World::listening(53), 1, now());
    state.enforced(first);
    let delta = state.enforce(&policy, &World::listening(53), 2, now()).delta;
    let ranges = |piece: &Vec<(usize, Op)>| -> usize {
        piece.iter().map(|(_, op)| if let Op::AddElements(_, ranges) = op { ranges.len() } else { 0 }).sum()
    };
    let pieces: Vec<usize> = delta.pieces(&BTreeSet::new()).map(|piece| ranges(&piece)).collect();
    assert!(
        delta.is_large() && pieces.iter().sum::<usize>() >= 2000 && pieces.iter().all(|piece| *piece <= 512),
        "{pieces:?}"
    );
}

/// A policy that is read again shares nothing with the one in force but its contents.
#[test]
fn a_list_that_is_read_again_is_known_without_a_look_at_its_elements() {
    let text = r#"{ "version": 1, "allow": { "ips": ["45.60.1.1", "45.61.0.0/16", "2001:db8::1"] } }"#;
    let tables = [0; 2].map(|_| {
        let mut state = State::new(Classes::first_of_table(0));
        let policy = parse(text).expect("legal");
        let prepared = Prepared::of(&policy);
        let pending = state.enforce_prepared(&policy, &prepared, &World::listening(53), 1, now());
        state.enforced(pending);
        state.expected(now())
    });
    let of_list = tables[0].sets.iter().filter(|(name, _)| name.starts_with("allow"));
    assert!(
        of_list.clone().count() == 3
            && of_list.into_iter().all(|(name, set)| {
                tables[1].sets.get(name).is_some_and(|other| set.elements.is_same(&other.elements))
            })
    );
}

/// The kernel looks for a set by its name from the first that was made to the last, and each lease needs three.
#[test]
fn sets_that_leases_go_to_are_made_first() {
    let hosts: serde_json::Map<String, serde_json::Value> = (0..50)
        .map(|number| {
            let host = serde_json::json!({ "sources": [format!("10.0.0.{number}")],
                "allow": { "ips": [format!("192.0.2.{number}")], "domains": ["a.example"] } });
            (format!("h{number}"), host)
        })
        .collect();
    let policy = parse(&serde_json::json!({ "version": 1, "hosts": hosts }).to_string()).unwrap();
    let state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(&policy, &World::listening(53), 1, now());
    let made: Vec<bool> = pending
        .delta
        .transactions()
        .flatten()
        .filter_map(|op| match op {
            Op::AddSet(_, spec) => Some(spec.timeout),
            _ => None,
        })
        .collect();
    let leased = made.iter().filter(|leased| **leased).count();
    assert!(leased >= 4 && made.len() > 50, "{made:?}");
    assert!(made[..leased].iter().all(|leased| *leased), "{made:?}");
}
