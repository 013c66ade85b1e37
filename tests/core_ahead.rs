//! What is done before a revision that has many live flows judged at each packet leads to the same table as the revision
//! alone, and leaves the revision little to do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clawgress::core::classes::Classes;
use clawgress::core::doors::Now;
use clawgress::core::lease::LeaseRequest;
use clawgress::core::state::{State, World};
use clawgress::plan::ids::HostId;
use clawgress::plan::ir::{Data, Key, Verdict};
use clawgress::plan::ops::{Op, Table, in_pieces};
use clawgress::policy::name::Name;
use clawgress::policy::{Policy, parse};
use serde_json::json;

/// Names that host a has leased.
const NAMES: u32 = 300;
const PIECE: usize = 100;
/// An end that no class reaches.
const ALL: u32 = u32::MAX;
/// An instant at which [`windowed`] shuts and one at which it is open again, milliseconds.
const SHUT: u64 = 2 * 3_600_000;
const OPEN_AGAIN: u64 = 24 * 3_600_000 + 1;
/// What each such revision writes anew: the two classes for networks that hosts and nobody have, in both registries.
const OF_NETWORKS: usize = 16;

fn policy(denied: &[&str]) -> Policy {
    let policy = json!({ "version": 1, "allow": { "domains": ["*.example.com"] }, "deny": { "ips": denied }, "hosts": {
        "a": { "sources": ["192.168.10.10/32"] }, "b": { "sources": ["192.168.11.10/32"] }, "c": { "sources": ["192.168.12.10/32"] } } });
    parse(&policy.to_string()).expect("a legal policy")
}

fn enforce(state: &mut State, policy: &Policy, revision: u64) {
    let pending = state.enforce(policy, &World::listening(53), revision, 1);
    state.enforced(pending);
}

fn host_id(state: &State, host: &str) -> HostId {
    *state.hosts.iter().find(|(name, _)| name.as_str() == host).expect("a host").1
}

fn lease(state: &mut State, host: &str, number: u32) {
    let host = host_id(state, host);
    let name = format!("n{number}.example.com");
    let request = LeaseRequest {
        revision: state.revision,
        host,
        name: Name::from_wire_labels(name.split('.').map(str::as_bytes)).expect("a name"),
        links: Vec::new(),
        addresses: vec![IpAddr::from((0x9700_0000 + number).to_be_bytes())],
        ttl: Duration::from_secs(60),
    };
    assert_eq!(state.lease(&[request], 1).results, [Ok(())]);
}

/// Both hosts have leases; a's are many.
fn state() -> State {
    let mut state = State::new(Classes::first_of_table(0));
    enforce(&mut state, &policy(&[]), 1);
    (0..NAMES).for_each(|number| lease(&mut state, "a", number));
    lease(&mut state, "b", 0);
    state
}

/// Elements that a transaction writes into the registries.
fn written(ops: &[Op]) -> usize {
    let written = |op: &Op| match op {
        Op::AddElements(name, elements) if ["up", "down"].contains(&&**name) => elements.len(),
        _ => 0,
    };
    ops.iter().map(written).sum()
}

fn expected(state: &State) -> Table {
    state.expected(1)
}

#[test]
fn piece_by_piece_leads_where_the_revision_alone_leads() {
    let denied = policy(&["203.0.113.1"]);
    let mut alone = state();
    lease(&mut alone, "b", NAMES);
    let pending = alone.enforce(&denied, &World::listening(53), 2, 1);
    let all = NAMES as usize + 2;
    assert_eq!((pending.rechecks, written(&pending.delta.switch)), (all, 2 * all + OF_NETWORKS), "all at once");
    alone.enforced(pending);

    let mut state = state();
    let pending = state.enforce(&denied, &World::listening(53), 2, 1);
    assert_eq!(pending.rechecked, BTreeSet::from([host_id(&state, "a"), host_id(&state, "b")]), "c has no classes");
    state.recheck_soon(pending.rechecked.clone());
    let chains = state.enforce(&policy(&[]), &World::listening(53), 1, 1);
    assert_eq!((chains.rechecks, chains.cut, written(&chains.delta.switch)), (0, 0, 0));
    state.enforced(chains);
    let (mut after, mut pieces) = (0, 0);
    while let Some(some) = state.recheck(after, ALL, PIECE, DateTime::<Utc>::UNIX_EPOCH) {
        assert!(some.last > after && written(&some.ops) <= 2 * PIECE, "{}", some.last);
        after = some.last;
        state.rechecked(some);
        pieces += 1;
        if pieces == 1 {
            lease(&mut state, "b", NAMES);
        }
    }
    assert_eq!(pieces, 4, "302 classes");
    state.recheck_soon(BTreeSet::new());
    let pending = state.enforce(&denied, &World::listening(53), 2, 1);
    assert_eq!((pending.rechecks, written(&pending.delta.switch)), (0, OF_NETWORKS), "nothing is left of it");
    state.enforced(pending);
    assert_eq!(expected(&state), expected(&alone));
}

#[test]
fn only_the_classes_of_those_hosts() {
    let mut state = state();
    let b = host_id(&state, "b");
    state.recheck_soon(BTreeSet::from([b]));
    enforce(&mut state, &policy(&[]), 1);
    let some = state.recheck(0, ALL, PIECE, DateTime::<Utc>::UNIX_EPOCH).expect("b has a class");
    assert_eq!(written(&some.ops), 2);
    state.rechecked(some);
    assert!(state.recheck(0, ALL, PIECE, DateTime::<Utc>::UNIX_EPOCH).is_none(), "each once");
}

/// Names go in the first hour of each day only.
fn windowed(rate: Option<u64>) -> Policy {
    let hour = json!({ "*.example.com": { "start": "00:00", "end": "01:00" } });
    let mut policy = json!({ "version": 1, "time_zone": "UTC", "allow": { "domains": ["*.example.com"] },
        "domain_time_windows": hour, "hosts": { "a": { "sources": ["192.168.10.10/32"] } } });
    if let Some(rate) = rate {
        policy["hosts"]["a"]["limits"] = json!({ "egress_kbps": rate });
    }
    parse(&policy.to_string()).expect("a legal policy")
}

/// A host with a name that its window has shut; told it to the kernel, or not yet.
fn shut(policy: &Policy, told: bool) -> State {
    let mut state = State::new(Classes::first_of_table(0));
    enforce(&mut state, policy, 1);
    lease(&mut state, "a", 0);
    if told {
        let (_, _, doors) = state.tick(SHUT);
        state.ticked(doors);
    }
    state.recheck_soon(BTreeSet::from([host_id(&state, "a")]));
    let pending = state.enforce(policy, &World::listening(53), 1, if told { SHUT } else { 1 });
    state.enforced(pending);
    state
}

#[test]
fn what_its_window_has_shut_is_not_opened_for_a_moment() {
    let mut state = shut(&windowed(None), false);
    let at = |ms: u64| Now::from(ms).utc;
    assert!(state.recheck(0, ALL, PIECE, at(SHUT)).is_none());
    let some = state.recheck(0, ALL, PIECE, at(1)).expect("it is open before");
    state.rechecked(some);
}

#[test]
fn limits_behind_a_shut_window_find_their_chain_when_it_opens() {
    let mut state = shut(&windowed(Some(100)), true);
    while let Some(some) = state.recheck(0, ALL, PIECE, Now::from(SHUT).utc) {
        state.rechecked(some);
    }
    let (_, _, doors) = state.tick(OPEN_AGAIN);
    state.ticked(doors);
    let table = state.expected(OPEN_AGAIN);
    let up = &table.sets.iter().find(|(name, _)| &***name == "up").expect("the registry").1.elements;
    let led = up.values().filter_map(|value| match &value.data {
        Data::Verdict(Verdict::Goto(chain)) => Some(chain),
        _ => None,
    });
    let led: Vec<_> = led.collect();
    assert!(led.len() == 2 && led.iter().all(|chain| table.chains.contains_key(*chain)), "{led:?}");
}

#[test]
fn who_asks_for_ever_new_names_holds_nothing_up() {
    let mut state = state();
    state.recheck_soon(BTreeSet::from([host_id(&state, "a")]));
    enforce(&mut state, &policy(&[]), 1);
    let (mut after, end, mut pieces) = (0, state.next_class(), 0);
    while let Some(some) = state.recheck(after, end, PIECE, DateTime::<Utc>::UNIX_EPOCH) {
        after = some.last;
        state.rechecked(some);
        pieces += 1;
        lease(&mut state, "a", NAMES + pieces);
        assert!(pieces <= NAMES.div_ceil(PIECE as u32), "{pieces} pieces");
    }
}

#[test]
fn many_removals_come_in_pieces_and_each_once() {
    let keys: Vec<Key> = (0..5000).map(Key::Mark).collect();
    let all = ["up", "down"].map(|name| Op::DelElements(name.into(), keys.clone()));
    let pieces = in_pieces(all.to_vec());
    let size = |ops: &Vec<Op>| -> usize {
        ops.iter().map(|op| if let Op::DelElements(_, keys) = op { keys.len() } else { 0 }).sum()
    };
    assert!(pieces.len() >= 5 && pieces.iter().all(|piece| (1..=2048).contains(&size(piece))), "{}", pieces.len());
    for name in ["up", "down"] {
        let of = |op: &Op| match op {
            Op::DelElements(set, keys) if &**set == name => keys.clone(),
            _ => Vec::new(),
        };
        assert_eq!(pieces.iter().flatten().flat_map(of).collect::<Vec<_>>(), keys);
    }
    let few = vec![all[0].clone(), Op::DelSet("old".into())];
    let few: Vec<Op> = few
        .into_iter()
        .map(|op| if let Op::DelElements(name, keys) = op { Op::DelElements(name, keys[..9].to_vec()) } else { op })
        .collect();
    assert_eq!(in_pieces(few.clone()), [few], "one transaction is enough");
}
