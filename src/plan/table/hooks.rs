//! The base chains and the way through them; see the drawing in [`super`].

use super::super::ir::{
    Action, Base, CLASS_BASE, ChainType, Cond, DataType, Direction, End, Family, Field, Hook, Key, KeyType, Lookup, Op,
    States, Verdict, proto,
};
use super::super::situation::{DnsDoor, Reports};
use super::build::{Build, goto, jump, member, verdict};
use super::names;
use super::refusals;
use super::scope::{self, Side};
use crate::policy::reference::{SPECIAL_V4, SPECIAL_V6};

/// Before anybody's `notrack` in raw (−300).
const BEFORE_RAW: i32 = -310;
/// Before anybody's destination NAT (−100), so that nobody sends port 53 elsewhere first.
const BEFORE_DNAT: i32 = -105;
/// After the router's own filter (0): both must accept.
const AFTER_FILTER: i32 = 5;
/// Before the router's own input filter.
const BEFORE_FILTER: i32 = -5;

pub(super) fn add(build: &mut Build<'_>) {
    scope::add_sets(build);
    forward(build);
    classify(build);
    inbound(build);
    refusals::add(build);
    prerouting(build);
    input(build);
    tracking(build);
}

fn filter(hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind: ChainType::Filter, hook, priority })
}

/// One rule for each alternative of the scope.
fn scoped(build: &mut Build<'_>, chain: &str, before: &[Cond], side: Side, to: &str, comment: &str) {
    for conds in scope::conditions(build, side) {
        let all = before.iter().cloned().chain(conds).collect();
        build.rule(chain, all, goto(to), comment);
    }
}

fn forward(build: &mut Build<'_>) {
    build.chain(names::FORWARD, filter(Hook::Forward, AFTER_FILTER));
    // First of all, so that a packet of a known flow costs one look-up whatever the scope is.
    build.rule(names::FORWARD, vec![Cond::Mark(Op::Ne, 0)], goto(names::KNOWN), "flow with a class");
    sides(build, names::FORWARD);

    // Not `related`: a connection helper's expectation inherits the mark of its master.
    let (sent, answered) = (Cond::State(States::NEW.or(States::ESTABLISHED)), Cond::State(States::ESTABLISHED));
    let (original, reply) = (Cond::Direction(Direction::Original), Cond::Direction(Direction::Reply));
    let alive = |map: &str| vec![Action::Vmap(Field::CtMark, map.into())];
    // Nothing but addresses and ports ties a datagram to its flow, so an agent on another interface who knows them could
    // speak in it. TCP has sequence numbers, and is spared the route look-up; so is everybody where agents have one
    // interface only, because the look-up is the dearest step that a small packet meets (docs/decisions/0004).
    let neighbours = build.situation.guarded.len() > 1;
    if neighbours {
        let tcp = vec![sent.clone(), original.clone(), Cond::Proto(proto::TCP)];
        build.rule(names::KNOWN, tcp, alive(names::UP), "class is alive");
        let ours = vec![Cond::Mark(Op::Ge, CLASS_BASE), original.clone(), Cond::NoReversePath];
        build.rule(names::KNOWN, ours, spoofed(), "spoofed source in a flow");
    }
    build.rule(names::KNOWN, vec![sent, original], alive(names::UP), "class is alive");
    build.rule(names::KNOWN, vec![answered, reply], alive(names::DOWN), "class is alive");
    for icmp in [proto::ICMP, proto::ICMPV6] {
        for (direction, map) in [(Direction::Original, names::UP), (Direction::Reply, names::DOWN)] {
            build.rule(
                names::KNOWN,
                vec![Cond::State(States::RELATED), Cond::Proto(icmp), Cond::Direction(direction)],
                vec![Action::Vmap(Field::CtMark, map.into())],
                "errors of a live flow",
            );
        }
    }
    sides(build, names::KNOWN);

    if has_scope(build) {
        build.rule(names::EGRESS, vec![Cond::NoReversePath], spoofed(), "spoofed source in a flow");
    }
    scoped(
        build,
        names::EGRESS,
        &[Cond::Direction(Direction::Reply)],
        Side::Opener,
        names::CLASSIFY,
        "opened by a source in scope",
    );
    build.rule(names::EGRESS, vec![Cond::Direction(Direction::Reply)], goto(names::INBOUND), "opened from outside");
    build.rule(names::EGRESS, vec![], goto(names::CLASSIFY), "");
    build.rule(names::INGRESS, vec![Cond::Direction(Direction::Reply)], goto(names::CLASSIFY), "reply to the scope");
    let lent = vec![Cond::State(States::RELATED), Cond::Mark(Op::Ge, CLASS_BASE)];
    build.rule(names::INGRESS, lent, vec![Action::SetMark(0)], "a helper's expectation inherits no class");
}

/// Whether there is anything that the policy is not about.
fn has_scope(build: &Build<'_>) -> bool {
    build.policy.scope.sources.is_some() || build.policy.scope.interfaces.is_some()
}

/// What becomes of a packet with a source that it cannot have.
fn spoofed() -> Vec<Action> {
    goto(refusals::SPOOFED)
}

/// Sends packets from and towards the scope on their way; the rest falls through, untouched.
fn sides(build: &mut Build<'_>, chain: &str) {
    scoped(build, chain, &[], Side::Sender, names::EGRESS, "sender in scope");
    if has_scope(build) {
        // A flow of somebody else may exist already, and the nat chain sees first packets only.
        for interface in build.situation.guarded.clone() {
            let conds = vec![Cond::Iif(interface.as_str().into()), Cond::NoReversePath];
            build.rule(chain, conds, spoofed(), "spoofed source in a flow");
        }
        scoped(build, chain, &[], Side::Receiver, names::INGRESS, "receiver in scope");
    }
}

fn classify(build: &mut Build<'_>) {
    let lost = States::INVALID.or(States::UNTRACKED);
    build.rule(names::CLASSIFY, vec![Cond::State(lost)], goto("b_malformed"), "invalid or untracked");
    for family in Family::BOTH {
        let chain = names::of(names::CLASSIFY, family);
        build.rule(names::CLASSIFY, vec![Cond::Family(family)], goto(chain.clone()), "");
        let sender = Field::Ct(Direction::Original, family, End::Source);
        let receiver = Field::Ct(Direction::Original, family, End::Destination);
        build.rule(&chain, vec![], vec![Action::Vmap(sender, names::of("view", family))], "most specific source");
        let special = names::of("special", family);
        let cond = Cond::In { field: receiver, set: special, negate: false };
        build.rule(&chain, vec![cond], goto("b_special"), "never leased");
        who(build, &chain, family, sender);
        let map = names::of("dst", family);
        build.rule(&chain, vec![], vec![Action::SetMarkFrom(Lookup::MarkAnd(receiver), map)], "leased to this host");
        for icmp in [proto::ICMP, proto::ICMPV6] {
            let error = [Cond::State(States::RELATED), Cond::Proto(icmp), Cond::Mark(Op::Ge, CLASS_BASE)];
            errors(build, &chain, &error, Direction::Original);
        }
        let class = || vec![Cond::Mark(Op::Ge, CLASS_BASE)];
        passed(build, &chain, &[]);
        let answers = class().into_iter().chain([Cond::Direction(Direction::Reply)]).collect();
        build.rule(&chain, answers, vec![Action::Vmap(Field::CtMark, names::DOWN.into())], "towards the agent");
        build.rule(&chain, class(), vec![Action::Vmap(Field::CtMark, names::UP.into())], "");
        build.rule(&chain, class(), goto("b_window"), "leased, but its door is shut");
        build.rule(&chain, vec![], goto("b_lease"), "");
    }
    let block = |family, elements: Vec<(Key, _)>, build: &mut Build<'_>| {
        let name = names::of("special", family);
        build.plain_set(name, KeyType::Address(family), DataType::None, true, elements);
    };
    let v4 = SPECIAL_V4.iter().map(|&(net, len)| {
        let first = u32::from(net);
        let last = first | (u32::MAX >> len);
        member(Key::Range(net.into(), std::net::IpAddr::V4(last.into())))
    });
    block(Family::V4, v4.collect(), build);
    let v6 = SPECIAL_V6.iter().filter(|(net, len)| !SPECIAL_V6.iter().any(|(n, l)| l < len && covers(*n, *l, *net)));
    let v6 = v6.map(|&(net, len)| {
        let first = u128::from(net);
        let last = first | (u128::MAX >> len);
        member(Key::Range(net.into(), std::net::IpAddr::V6(last.into())))
    });
    block(Family::V6, v6.collect(), build);
}

/// The flow has got its class: the one place that a flow comes by once. Whether its door is open is seen next, so whoever
/// reads the copy has to look as well.
pub(super) fn passed(build: &mut Build<'_>, chain: &str, conds: &[Cond]) {
    if build.situation.reports == Reports::All {
        let conds = conds.iter().cloned().chain([Cond::Mark(Op::Ge, CLASS_BASE)]).collect();
        build.rule(chain, conds, jump(refusals::PASSED), "for the decision log");
    }
}

/// An ICMP error is judged by the address of its flow, not by port and protocol. So it may pass, but the flow gets no
/// class by it: else an agent could open a flow to a closed port by an error of its own making. Without a class no
/// limit could count it, so where there are limits an agent (which sends in direction `agent`) cannot send one.
pub(super) fn errors(build: &mut Build<'_>, chain: &str, conds: &[Cond], agent: Direction) {
    if build.is_metered() {
        let sent = conds.iter().cloned().chain([Cond::Direction(agent)]).collect();
        let refused = vec![Action::SetMark(0), Action::Counter, Action::Verdict(Verdict::Drop)];
        build.rule(chain, sent, refused, "an error that no limit could count");
    }
    let passing = vec![Action::SetMark(0), Action::Verdict(Verdict::Accept)];
    build.rule(chain, conds.to_vec(), passing, "errors give no class");
}

fn covers(net: std::net::Ipv6Addr, len: u8, inner: std::net::Ipv6Addr) -> bool {
    u128::from(net) >> (128 - u32::from(len)) == u128::from(inner) >> (128 - u32::from(len))
}

/// Puts the host id into the mark. Only what opens follows, nothing that refuses: another packet of the flow may be
/// judged at the same time and change the mark, and that may cost this packet its way but must not open one.
pub(super) fn who(build: &mut Build<'_>, chain: &str, family: Family, sender: Field) {
    let map = names::of("host", family);
    build.rule(chain, vec![], vec![Action::SetMarkFrom(Lookup::One(sender), map)], "most specific source");
}

/// An agent answers somebody outside the scope who connected to it: its packets are its egress, so the opener's
/// address must be in `allow.ips`.
fn inbound(build: &mut Build<'_>) {
    let lost = States::INVALID.or(States::UNTRACKED);
    build.rule(names::INBOUND, vec![Cond::State(lost)], goto("b_malformed"), "invalid or untracked");
    for family in Family::BOTH {
        let chain = names::of(names::INBOUND, family);
        build.rule(names::INBOUND, vec![Cond::Family(family)], goto(chain.clone()), "");
        let sender = Field::Ct(Direction::Reply, family, End::Source);
        build.rule(&chain, vec![], vec![Action::Vmap(sender, names::of("reply", family))], "most specific source");
        build.rule(&chain, vec![], goto("b_inbound"), "");
    }
}

/// A nat chain: it sees only the first packet of a flow, so it costs known flows nothing.
fn prerouting(build: &mut Build<'_>) {
    let base = Base { kind: ChainType::Nat, hook: Hook::Prerouting, priority: BEFORE_DNAT };
    build.chain(names::PREROUTING, Some(base));
    let chain = "first_packet";
    build.chain(chain, None);
    for interface in build.situation.guarded.clone() {
        let conds = vec![Cond::Iif(interface.as_str().into()), Cond::NoReversePath];
        build.rule(names::PREROUTING, conds, spoofed(), "spoofed source");
    }
    for conds in first_packets(build) {
        build.rule(names::PREROUTING, conds, goto(chain), "sender in scope");
    }
    build.rule(chain, vec![Cond::NoReversePath], spoofed(), "spoofed source");
    for (family, door) in [(Family::V4, build.situation.dns4), (Family::V6, build.situation.dns6)] {
        let action = match door {
            DnsDoor::Redirect(port) => Action::Redirect(port),
            DnsDoor::To(address, port) => Action::Dnat(address, port),
            DnsDoor::Closed => continue,
        };
        for protocol in [proto::UDP, proto::TCP] {
            let conds = vec![Cond::Family(family), Cond::Proto(protocol), Cond::Dport(53)];
            build.rule(chain, conds, vec![action.clone()], "port 53 is our own DNS");
        }
    }
}

/// First packets of the scope. Without a scope that is what a host sends, and what is not for this machine.
fn first_packets(build: &Build<'_>) -> Vec<Vec<Cond>> {
    let scope = &build.policy.scope;
    if scope.sources.is_some() || scope.interfaces.is_some() {
        return scope::conditions(build, Side::Sender);
    }
    let hosts = Family::BOTH.map(|family| vec![from_host(family)]);
    hosts.into_iter().chain([vec![Cond::DestinationLocal(false)]]).collect()
}

fn from_host(family: Family) -> Cond {
    Cond::In { field: Field::Packet(family, End::Source), set: names::of("sources", family), negate: false }
}

/// The gateway's own services: closed for the sources of hosts, untouched for everybody else.
fn input(build: &mut Build<'_>) {
    build.chain(names::INPUT, filter(Hook::Input, BEFORE_FILTER));
    build.chain(names::GATEWAY, None);
    // An agent must not answer our own queries in the upstream's name. Neighbour discovery has sources without a route.
    for interface in build.situation.guarded.clone() {
        let conds = vec![Cond::Proto(proto::UDP), Cond::Iif(interface.as_str().into()), Cond::NoReversePath];
        build.rule(names::INPUT, conds, spoofed(), "spoofed source in a flow");
    }
    for family in Family::BOTH {
        for scope in scope::conditions_of(build, Side::Sender, family) {
            let conds = scope.into_iter().chain([from_host(family)]).collect();
            build.rule(names::INPUT, conds, goto(names::GATEWAY), "from a host");
        }
    }
    let accept = || verdict(Verdict::Accept);
    let reply = vec![Cond::State(States::ESTABLISHED), Cond::Direction(Direction::Reply)];
    build.rule(names::GATEWAY, reply, accept(), "answers to the gateway");
    build.rule(names::GATEWAY, vec![Cond::State(States::RELATED), Cond::Proto(proto::ICMP)], accept(), "errors");
    build.rule(names::GATEWAY, vec![Cond::State(States::RELATED), Cond::Proto(proto::ICMPV6)], accept(), "errors");
    for port in build.situation.dns_ports.clone() {
        for protocol in [proto::UDP, proto::TCP] {
            build.rule(names::GATEWAY, vec![Cond::Proto(protocol), Cond::Dport(port)], accept(), "DNS");
        }
    }
    for port in [67, 547] {
        build.rule(names::GATEWAY, vec![Cond::Proto(proto::UDP), Cond::Dport(port)], accept(), "DHCP");
    }
    build.rule(names::GATEWAY, vec![Cond::Proto(proto::ICMP), Cond::IcmpType(Family::V4, 8)], accept(), "echo");
    // Echo, multicast listener reports, and neighbour discovery (RFC 4443, 2710, 3810, 4861).
    for kind in [128, 131, 132, 133, 135, 136, 143] {
        let conds = vec![Cond::Proto(proto::ICMPV6), Cond::IcmpType(Family::V6, kind)];
        build.rule(names::GATEWAY, conds, accept(), "echo, neighbour discovery");
    }
    build.rule(names::GATEWAY, vec![], goto("b_gateway"), "");
}

/// Where another table says `notrack`, a tracking template attached earlier keeps tracking on for the scope.
fn tracking(build: &mut Build<'_>) {
    // Even an empty chain costs each packet its hook.
    if !build.situation.keep_tracking {
        return;
    }
    build.chain(names::TRACK_IN, filter(Hook::Prerouting, BEFORE_RAW));
    build.chain(names::TRACK_OUT, filter(Hook::Output, BEFORE_RAW));
    for side in [Side::Sender, Side::ReceiverBeforeRouting] {
        for conds in scope::conditions(build, side) {
            build.rule(names::TRACK_IN, conds, vec![Action::KeepTracking], "in scope");
        }
    }
    for conds in scope::conditions(build, Side::Receiver) {
        build.rule(names::TRACK_OUT, conds, vec![Action::KeepTracking], "our own answers");
    }
}
