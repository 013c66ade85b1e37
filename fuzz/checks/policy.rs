//! Any octets as a policy: read, normal form, table, snapshot and zones must agree about it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clawgress::core::classes::Classes;
use clawgress::core::doors::Now;
use clawgress::core::state::{State, World};
use clawgress::plan::apply::apply;
use clawgress::plan::ids::HostId;
use clawgress::plan::ir::{Direction, Hook, States, proto};
use clawgress::plan::ops::{Delta, Table};
use clawgress::plan::rpz;
use clawgress::plan::simulate::{Ending, Packet, Tracked, Tuple, run};
use clawgress::plan::snapshot::Snapshot;
use clawgress::plan::text;
use clawgress::policy::decision::Verdict;
use clawgress::policy::model::{HostName, Mode, Policy};
use clawgress::policy::name::{Name, Pattern, PatternRef};
use clawgress::policy::reference::{self, Flow, Protocol};
use clawgress::policy::schedule::Moment;
use clawgress::policy::{normalised, parse, parse::parse_bytes};
use ipnet::IpNet;

/// Names, sources and destinations that are tried of one policy, so that a long one takes no longer than a short one.
const TRIED: usize = 12;

/// Seconds.
const TWO_YEARS: u64 = 2 * 365 * 86_400;
/// Edges of windows that are passed.
const EDGES: usize = 3;

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let policy = match parse_bytes(data) {
        Ok(parsed) => parsed.policy,
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            assert!(errors.iter().all(|error| error.path.is_empty() || error.path.starts_with('/')), "{errors:?}");
            assert!(errors.iter().all(|error| !error.message.is_empty()), "{errors:?}");
            return;
        }
    };
    let normal = normalised(&policy).to_string();
    let again = parse(&normal).unwrap_or_else(|errors| panic!("the normal form is refused: {errors:?}\n{normal}"));
    assert_eq!(normalised(&again).to_string(), normal);
    // Where two texts say the same, their entries stand at the same places, so the tables are equal to the octet.
    let policy = again;
    // Some moment within two years, by the text itself: windows open and shut, clocks are set forward and back.
    let seconds = data.iter().fold(17_u64, |sum, octet| sum.wrapping_mul(31).wrapping_add(u64::from(*octet)));
    tables(&policy, Now::from(seconds % TWO_YEARS * 1000));
    zones(&policy);
}

fn world() -> World {
    World { guarded: BTreeSet::from(["lan1".to_owned()]), keep_tracking: true, ..World::listening(53) }
}

fn commit(kernel: &mut Table, delta: &Delta) {
    for ops in [&delta.prepare, &delta.switch, &delta.remove, &delta.litter] {
        apply(kernel, ops).expect("a legal transaction");
    }
}

fn tables(policy: &Policy, start: Now) {
    let (world, mut kernel) = (world(), Table::default());
    let mut state = State::new(Classes::first_of_table(0));
    let pending = state.enforce(policy, &world, 1, start);
    commit(&mut kernel, &pending.delta);
    let snapshot = pending.snapshot.clone();
    state.enforced(pending);
    assert_eq!(kernel, state.expected(start), "the transactions give the table that is expected");
    for line in text::render(&kernel).lines() {
        assert!(line.chars().all(|c| c == '\t' || (' '..='~').contains(&c)), "nft reads no such line: {line:?}");
    }
    let mut now = start;
    for _ in 0..EDGES {
        let moment = Moment::of(policy, now.utc, world.zone);
        names(policy, &state, &snapshot, &moment);
        flows(policy, &kernel, &moment);
        let Some(edge) = moment.next_change(policy) else { break };
        let passed = u64::try_from((edge - now.utc).num_milliseconds()).expect("an edge lies ahead");
        assert!(passed > 0, "an edge that is not ahead: {edge} at {}", now.utc);
        now = Now { ms: now.ms + passed, utc: edge };
        let (open, shut, doors) = state.tick(now);
        for ops in [open, shut] {
            apply(&mut kernel, &ops).expect("a legal transaction");
        }
        state.ticked(doors);
    }

    // To another policy and back.
    let bare = parse(r#"{"version": 1}"#).expect("the smallest policy");
    for (revision, next) in [(2, &bare), (3, policy)] {
        let pending = state.enforce(next, &world, revision, now);
        commit(&mut kernel, &pending.delta);
        state.enforced(pending);
        assert_eq!(kernel, state.expected(now), "also by way of a change");
    }
}

fn hosts(policy: &Policy) -> impl Iterator<Item = Option<&HostName>> {
    [None].into_iter().chain(policy.hosts.keys().take(TRIED).map(Some))
}

fn patterns(policy: &Policy) -> impl Iterator<Item = Pattern> {
    let hosts = policy.hosts.values().take(TRIED);
    let lists = hosts.flat_map(|host| [&host.allow.domains, &host.deny.domains]);
    [&policy.allow.domains, &policy.deny.domains]
        .into_iter()
        .chain(lists)
        .flatten()
        .flat_map(|list| list.entries.iter().map(PatternRef::to_pattern))
}

/// Each named name, one below it, and the one above it.
fn questions(policy: &Policy) -> Vec<Name> {
    let read = |text: &str| Name::from_wire_labels(text.split('.').map(str::as_bytes));
    let mut names: Vec<Name> = ["com", "example.com"].into_iter().filter_map(read).collect();
    for pattern in patterns(policy).take(TRIED) {
        let (Pattern::Exact(name) | Pattern::Below(name)) = pattern;
        names.extend(read(&format!("x.{name}")));
        names.extend(name.parents().next().and_then(read));
        names.push(name.clone());
    }
    names
}

fn names(policy: &Policy, state: &State, snapshot: &Snapshot, moment: &Moment) {
    let names = questions(policy);
    for host in hosts(policy) {
        let id = host.map_or(HostId::NOBODY, |name| state.hosts[name]);
        for name in names.iter().map(Some).chain([None]) {
            assert_eq!(
                reference::decide_name_at(policy, host, name, Some(moment)),
                snapshot.decide_name_at(id, name, moment.utc),
                "{name:?} asked by {host:?}"
            );
        }
    }
    for source in ends(policy.hosts.values().flat_map(|host| host.sources.entries.iter())) {
        let due = reference::host_of(policy, source).map_or(HostId::NOBODY, |name| state.hosts[name]);
        let due = reference::in_scope(policy, source, "lan1").then_some(due);
        assert_eq!(snapshot.client(source, Some("lan1")), due, "{source}");
    }
}

/// First and last addresses of networks.
fn ends<'a>(nets: impl Iterator<Item = &'a IpNet>) -> Vec<IpAddr> {
    nets.take(TRIED).flat_map(|net| [net.network(), net.broadcast()]).collect()
}

fn flows(policy: &Policy, kernel: &Table, moment: &Moment) {
    let sources = policy.hosts.values().flat_map(|host| host.sources.entries.iter());
    let mut sources = ends(sources.chain(policy.scope.sources.iter().flat_map(|list| list.entries.iter())));
    sources.extend([IpAddr::from([192, 168, 10, 10]), IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0, 0x10])]);
    let lists = policy.hosts.values().flat_map(|host| [&host.allow.ips, &host.deny.ips]);
    let lists = [&policy.allow.ips, &policy.deny.ips].into_iter().chain(lists).flatten();
    let mut destinations = ends(lists.flat_map(|list| list.entries.iter()));
    destinations.extend([IpAddr::from([93, 184, 216, 34]), IpAddr::from([0x2606, 0x4700, 0, 0, 0, 0, 0, 0x34])]);
    let protocols = [Protocol::Tcp(443), Protocol::Udp(53), Protocol::Tcp(8443), Protocol::Echo, Protocol::Other(47)];
    let interfaces = policy.scope.interfaces.iter().flat_map(|list| list.entries.iter().map(String::as_str));
    let interfaces: Vec<&str> = ["lan1"].into_iter().chain(interfaces.take(2)).collect();
    for (turn, source) in sources.iter().take(2 * TRIED).enumerate() {
        for destination in destinations.iter().filter(|address| address.is_ipv4() == source.is_ipv4()) {
            let protocol = protocols[turn % protocols.len()];
            let interface = interfaces[turn % interfaces.len()];
            let flow = Flow { source: *source, interface, destination: *destination, protocol };
            let due = reference::decide_flow_at(policy, &flow, &[], Some(moment));
            let got = run(kernel, Hook::Forward, &packet(&flow)).end;
            let refused = if matches!(protocol, Protocol::Tcp(_)) { Ending::Reset } else { Ending::Prohibit };
            let passes = due.verdict != Verdict::Block || due.mode == Mode::Monitor;
            let wanted = if passes { Ending::Accept } else { refused };
            assert_eq!(got, wanted, "{flow:?} {due:?}");
        }
    }
}

fn packet(flow: &Flow<'_>) -> Packet {
    let tuple = Tuple { source: flow.source, destination: flow.destination };
    let reply = Tuple { source: flow.destination, destination: flow.source };
    let (protocol, port, icmp_type) = match flow.protocol {
        Protocol::Tcp(port) => (proto::TCP, port, 0),
        Protocol::Udp(port) => (proto::UDP, port, 0),
        Protocol::Echo if flow.source.is_ipv4() => (proto::ICMP, 0, 8),
        Protocol::Echo => (proto::ICMPV6, 0, 128),
        Protocol::Other(number) => (number, 0, 0),
    };
    let tracked = Tracked { state: States::NEW, direction: Direction::Original, original: tuple, reply, port, mark: 0 };
    Packet {
        iif: flow.interface.to_owned(),
        oif: Some("wan".to_owned()),
        tuple,
        protocol,
        dport: port,
        icmp_type,
        length: 100,
        tracked: Some(tracked),
        reverse_path: true,
        to_us: false,
    }
}

/// Every line of a zone is one that a resolver reads, and no owner is there twice.
fn zones(policy: &Policy) {
    let zones = rpz::zones(policy, 1, None);
    for host in hosts(policy) {
        for name in rpz::order(policy, host, false) {
            assert!(zones.iter().any(|zone| zone.name == name), "a view names a zone that is not there: {name}");
        }
    }
    for zone in &zones {
        let mut owners = BTreeSet::new();
        for line in zone.text.lines().filter(|line| line.contains(" CNAME ")) {
            let fields: Vec<&str> = line.split(' ').take(3).collect();
            let [owner, "CNAME", target] = fields[..] else { panic!("{}: {line:?}", zone.name) };
            assert!(target == "." || target == "rpz-passthru.", "{line}");
            assert!(owners.insert(owner.to_owned()), "{}: {owner} is there twice", zone.name);
            assert!(owner.len() + 1 + zone.name.len() <= 254, "too long with the zone's name: {owner}");
            assert!(owner.split('.').all(|label| (1..=63).contains(&label.len())), "{owner}");
        }
    }
}
