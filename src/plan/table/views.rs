//! What one host may reach: deny, protocol and port, allowed networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::ir::{
    Action, Cond, Data, DataType, Direction, End, Family, Field, Ident, Key, KeyType, Lookup, SetSpec, States, Value,
    Verdict, proto,
};
use super::build::{Build, goto, jump, member, verdict};
use super::hooks::{errors, passed, who};
use super::hosts::everybody;
use super::names::{self, Owner};
use super::scope::{self, Side};
use crate::plan::ids::HostId;
use crate::policy::model::{Allow, DEFAULT_PORTS, Deny, Host, List};

/// The lists of one view: whose they are, and whether there is anything in them.
struct Lists<'a> {
    ports: Owner,
    ips: Option<(Owner, &'a List<IpNet>)>,
    deny: Vec<(Owner, &'a List<IpNet>)>,
    /// The host has exfil caps.
    capped: bool,
}

pub(super) fn add(build: &mut Build<'_>) {
    let policy = build.policy;
    add_ports(build, Owner::Default, &DEFAULT_PORTS);
    add_lists(build, Owner::Global, &policy.allow, &policy.deny);
    let global = lists(build, None);
    add_view(build, Owner::Global, &global);
    let mut dispatch = vec![(HostId::NOBODY, Owner::Global)];
    for (name, host) in &policy.hosts {
        let id = build.situation.id(Some(name));
        let owner = Owner::Host(id);
        // A cap must know which of its addresses allow.ips opens.
        let charged = !host.caps.is_empty() && (host.allow.ips.is_some() || policy.allow.ips.is_some());
        if is_own(host) || charged {
            add_lists(build, owner, &host.allow, &host.deny);
            let own = lists(build, Some((id, host)));
            add_view(build, owner, &own);
            dispatch.push((id, owner));
        } else {
            dispatch.push((id, Owner::Global));
        }
    }
    // By source and not by a number kept in the mark: packets of one flow may be judged on several processors at once,
    // and what one of them writes into the mark must not lead another past its guard.
    let owners: BTreeMap<HostId, Owner> = dispatch.iter().copied().collect();
    for family in Family::BOTH {
        let everybody = everybody(build, family);
        for (stem, name) in [("view", names::view as fn(Family, Owner) -> _), ("reply", names::reply_view)] {
            let elements: Vec<_> = everybody
                .iter()
                .map(|(&(first, last), id)| {
                    let owner = owners.get(id).copied().unwrap_or(Owner::Global);
                    (Key::Range(first, last), Value::plain(Data::Verdict(Verdict::Jump(name(family, owner)))))
                })
                .collect();
            build.plain_set(names::of(stem, family), KeyType::Address(family), DataType::Verdict, true, elements);
        }
    }
    for id in build.situation.recheck.clone() {
        let owner = dispatch.iter().find(|(host, _)| *host == id).map_or(Owner::Global, |(_, owner)| *owner);
        add_recheck(build, id, owner);
    }
    for family in Family::BOTH {
        for agent in [Direction::Original, Direction::Reply] {
            open(build, &names::open(family, agent, None), family, agent, None);
        }
    }
}

/// `allow.ips` covers the peer: the flow gets the class of its host's networks, or of the caps that are charged for the
/// address. `agent`: the direction in which the agent sends. `capped`: the chain is that of one host, which has caps.
fn open(build: &mut Build<'_>, chain: &str, family: Family, agent: Direction, capped: Option<HostId>) {
    let inbound = agent == Direction::Reply;
    let (classes, alive, peer) = if inbound {
        (names::INBOUND_CLASS, names::DOWN, End::Source)
    } else {
        (names::NET_CLASS, names::UP, End::Destination)
    };
    for icmp in [proto::ICMP, proto::ICMPV6] {
        errors(build, chain, &[Cond::State(States::RELATED), Cond::Proto(icmp)], agent);
    }
    let alive = |build: &mut Build<'_>, conds: Vec<Cond>| {
        if !inbound {
            let answers = conds.iter().cloned().chain([Cond::Direction(Direction::Reply)]).collect();
            build.rule(chain, answers, vec![Action::Vmap(Field::CtMark, names::DOWN.into())], "towards the agent");
        }
        build.rule(chain, conds, vec![Action::Vmap(Field::CtMark, alive.into())], "");
    };
    let Some(host) = capped else {
        who(build, chain, family, Field::Ct(agent, family, End::Source));
        let class = Action::SetMarkFrom(Lookup::One(Field::CtMark), classes.into());
        build.rule(chain, vec![], vec![class], "allow.ips covers the address");
        passed(build, chain, &[]);
        alive(build, vec![]);
        build.rule(chain, vec![], goto("b_window"), "its door is shut");
        return;
    };
    // The mark is set to a class at once, never to a number first: two packets of a flow may be judged at the same time,
    // and neither must find its way past the cap by what the other one wrote.
    let set = names::capped(family, inbound, host);
    let own =
        build.situation.capped.iter().filter(|((owner, address, opened), _)| {
            *owner == host && *opened == inbound && Family::of(*address) == family
        });
    let own: Vec<(IpAddr, u32)> = own.map(|((_, address, _), class)| (*address, *class)).collect();
    let members = own.iter().map(|(address, _)| member(Key::Address(*address)));
    build.plain_set(set.clone(), KeyType::Address(family), DataType::None, false, members);
    let map = names::capped_class(family, inbound, host);
    let marks = own.iter().map(|(address, class)| (Key::Address(*address), Value::plain(Data::Mark(*class))));
    build.plain_set(map.clone(), KeyType::Address(family), DataType::Mark, false, marks);
    let peer = Field::Ct(Direction::Original, family, peer);
    let charged = || vec![Cond::In { field: peer, set: set.clone(), negate: false }];
    let class = Action::SetMarkFrom(Lookup::One(peer), map);
    build.rule(chain, charged(), vec![class], "allow.ips covers the address, and a cap is charged");
    passed(build, chain, &charged());
    alive(build, charged());
    build.rule(chain, charged(), goto("b_window"), "its door is shut");
    if let Some(class) = build.situation.net_class(host, inbound) {
        build.rule(chain, vec![], vec![Action::SetMark(class)], "allow.ips covers the address");
        passed(build, chain, &[]);
        alive(build, vec![]);
    }
    build.rule(chain, vec![], goto("b_window"), "its door is shut");
}

/// Whether a host has a list of its own that the kernel must know.
fn is_own(host: &Host) -> bool {
    host.allow.ips.is_some() || host.allow.ports.is_some() || host.deny.ips.is_some()
}

fn lists<'a>(build: &Build<'a>, host: Option<(HostId, &'a Host)>) -> Lists<'a> {
    let policy = build.policy;
    let global_ports = if policy.allow.ports.is_some() { Owner::Global } else { Owner::Default };
    let ports = match host {
        Some((id, own)) if own.allow.ports.is_some() => Owner::Host(id),
        _ => global_ports,
    };
    let ips = match host {
        Some((id, own)) if own.allow.ips.is_some() => own.allow.ips.as_ref().map(|list| (Owner::Host(id), list)),
        _ => policy.allow.ips.as_ref().map(|list| (Owner::Global, list)),
    };
    let own_deny = host.and_then(|(id, own)| own.deny.ips.as_ref().map(|list| (Owner::Host(id), list)));
    let global_deny = policy.deny.ips.as_ref().map(|list| (Owner::Global, list));
    let capped = host.is_some_and(|(_, own)| !own.caps.is_empty());
    Lists { ports, ips, deny: own_deny.into_iter().chain(global_deny).collect(), capped }
}

fn add_lists(build: &mut Build<'_>, owner: Owner, allow: &Allow, deny: &Deny) {
    if let Some(ports) = &allow.ports {
        add_ports(build, owner, &ports.entries);
    }
    for (list, nets) in [("allow", &allow.ips), ("deny", &deny.ips)] {
        if let Some(nets) = nets {
            add_addresses(build, list, owner, nets);
        }
    }
}

fn add_ports(build: &mut Build<'_>, owner: Owner, ports: &[u16]) {
    let elements: Vec<_> = ports.iter().map(|port| member(Key::Port(*port))).collect();
    build.plain_set(names::ports(owner), KeyType::Port, DataType::None, false, elements);
    for family in Family::BOTH {
        add_protocols(build, family, owner);
    }
}

/// A list of so many addresses is not changed in place, but replaced by another set.
const LARGE: u32 = 16_384;

fn add_addresses(build: &mut Build<'_>, list: &str, owner: Owner, nets: &List<IpNet>) {
    for (family, networks) in Family::BOTH.into_iter().flat_map(|family| [(family, false), (family, true)]) {
        let elements = build.lists.elements(nets, family, networks);
        if !elements.is_empty() {
            let spec = SetSpec {
                key: KeyType::Address(family),
                data: DataType::None,
                interval: networks,
                timeout: false,
                counter: false,
                size: u32::try_from(elements.len()).ok().filter(|count| !networks && *count >= LARGE),
            };
            build.set(names::addresses(list, family, networks, owner), spec, elements);
        }
    }
}

/// Rules "address in that list: CHAIN" for the sets that the list filled.
fn address_rules(
    build: &mut Build<'_>,
    chain: &str,
    family: Family,
    field: Field,
    list: &str,
    from: (Owner, &List<IpNet>),
    to: &str,
) {
    let (owner, nets) = from;
    for networks in [false, true] {
        let filled = !build.lists.elements(nets, family, networks).is_empty();
        if filled {
            let set = names::addresses(list, family, networks, owner);
            build.rule(chain, vec![Cond::In { field, set, negate: false }], goto(to), nets.path.to_string());
        }
    }
}

fn add_view(build: &mut Build<'_>, owner: Owner, lists: &Lists<'_>) {
    let capped = match owner {
        Owner::Host(id) if lists.capped && lists.ips.is_some() => Some(id),
        _ => None,
    };
    for family in Family::BOTH {
        for agent in [Direction::Original, Direction::Reply].into_iter().filter(|_| capped.is_some()) {
            open(build, &names::open(family, agent, capped), family, agent, capped);
        }
        let receiver = Field::Ct(Direction::Original, family, End::Destination);
        let opener = Field::Ct(Direction::Original, family, End::Source);
        let guard = names::guard(family, owner);
        build.chain(guard.clone(), None);
        for (deny_owner, deny) in &lists.deny {
            address_rules(build, &guard, family, receiver, "deny", (*deny_owner, deny), "b_denied");
        }
        build.rule(&guard, vec![], jump(names::protocols(family, lists.ports)), "");

        let view = names::view(family, owner);
        build.rule(&view, vec![], jump(guard), "");
        if let Some((ips_owner, ips)) = lists.ips {
            let open = names::open(family, Direction::Original, capped);
            address_rules(build, &view, family, receiver, "allow", (ips_owner, ips), &open);
        }

        // The same lists, asked about the side that opened the flow from outside.
        let reply = names::reply_view(family, owner);
        build.chain(reply.clone(), None);
        for (deny_owner, deny) in &lists.deny {
            address_rules(build, &reply, family, opener, "deny", (*deny_owner, deny), "b_denied");
        }
        build.rule(&reply, vec![], jump(names::protocols(family, lists.ports)), "");
        if let Some((ips_owner, ips)) = lists.ips {
            let open = names::open(family, Direction::Reply, capped);
            address_rules(build, &reply, family, opener, "allow", (ips_owner, ips), &open);
        }
    }
}

/// TCP and UDP by port, echo, errors that belong to a flow; nothing else.
fn add_protocols(build: &mut Build<'_>, family: Family, ports: Owner) {
    let chain = &names::protocols(family, ports);
    let (icmp, request, reply) = match family {
        Family::V4 => (proto::ICMP, 8, 0),
        Family::V6 => (proto::ICMPV6, 128, 129),
    };
    for protocol in [proto::TCP, proto::UDP] {
        let word = if protocol == proto::TCP { "tcp" } else { "udp" };
        build.rule(chain, vec![Cond::Proto(protocol), Cond::FlowPort(53)], goto("b_port"), "port 53 is our own DNS");
        let field = Field::CtOriginalPort;
        let set = names::ports(ports);
        build.rule(
            chain,
            vec![Cond::Proto(protocol), Cond::In { field, set, negate: false }],
            verdict(Verdict::Return),
            format!("{word} ports"),
        );
        build.rule(chain, vec![Cond::Proto(protocol)], goto("b_port"), format!("{word} ports"));
    }
    let kind = |number| Cond::IcmpType(family, number);
    build.rule(chain, vec![Cond::Proto(icmp), kind(request)], verdict(Verdict::Return), "echo");
    let answer = vec![Cond::Proto(icmp), kind(reply), Cond::Direction(Direction::Reply)];
    build.rule(chain, answer, verdict(Verdict::Return), "echo reply");
    let error = vec![Cond::Proto(icmp), Cond::State(States::RELATED)];
    build.rule(chain, error, verdict(Verdict::Return), "errors of a flow");
    build.rule(chain, vec![], goto("b_proto"), "neither TCP, UDP nor echo");
}

/// Live flows of a host whose sources, denied addresses or ports changed: judged by the new rules at each packet,
/// without asking for the lease that they were opened with.
fn add_recheck(build: &mut Build<'_>, id: HostId, owner: Owner) {
    let entry = names::recheck(id);
    for family in Family::BOTH {
        let chain = names::recheck_of(family, id);
        enter_recheck(build, &entry, family, &chain);
        let field = Field::Ct(Direction::Original, family, End::Source);
        if id == HostId::NOBODY {
            let taken = Cond::In { field, set: names::of("sources", family), negate: false };
            build.rule(&chain, vec![taken], goto("b_lease"), "the source belongs to a host now");
        } else {
            let left = Cond::In { field, set: names::sources_of(family, id), negate: true };
            build.rule(&chain, vec![left], goto("b_lease"), "the source left this host");
        }
        build.rule(&chain, vec![], jump(names::guard(family, owner)), "");
        build.rule(&chain, vec![], goto(names::SENT), "");
    }
    if scope::is_given(build) {
        build.rule(&entry, vec![], goto(names::SENT), "the flow left the scope");
    }
}

/// The way to the chain that judges: for flows whose opener is in scope.
fn enter_recheck(build: &mut Build<'_>, entry: &str, family: Family, chain: &Ident) {
    if !scope::is_given(build) {
        build.rule(entry, vec![Cond::Family(family)], goto(chain.clone()), "");
        return;
    }
    for (direction, side) in [(Direction::Original, Side::Sender), (Direction::Reply, Side::Opener)] {
        for inside in scope::conditions_of(build, side, family) {
            let conds = [Cond::Family(family), Cond::Direction(direction)].into_iter().chain(inside).collect();
            build.rule(entry, conds, goto(chain.clone()), "");
        }
    }
}
