//! The specification, executable: what the policy means for one query or one flow, by the shortest code that says it.
//!
//! Nothing here is clever. Lists are searched from front to back. The compiled forms (the DNS snapshot, the kernel's
//! table, its simulator) are tested against these functions, and `explain` answers with them.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::decision::{Decision, Reason, Verdict};
use super::lists::{Contents, Network};
use super::model::{Cap, DEFAULT_PORTS, DomainList, Effective, HostName, List, Located, Pointer, Policy};
use super::name::{Name, Pattern};
use super::patterns::Domains;
use super::schedule::Moment;

/// The protocol of a flow, as far as the policy tells protocols apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP to a destination port.
    Tcp(u16),
    /// UDP to a destination port.
    Udp(u16),
    /// ICMP or ICMPv6 echo.
    Echo,
    /// Anything else, by IANA number.
    Other(u8),
}

/// A flow at its first packet, as the side that opened it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Who opened it.
    pub source: IpAddr,
    /// The interface it came in by.
    pub interface: &'a str,
    /// Where to.
    pub destination: IpAddr,
    /// What.
    pub protocol: Protocol,
}

/// An address that a host was given in an answer, and until when that is good is not asked here: pass live ones only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased<'a> {
    /// To whom; `None`: to sources that belong to no host.
    pub host: Option<&'a HostName>,
    /// The name asked for.
    pub name: &'a Name,
    /// The address in the answer.
    pub address: IpAddr,
}

/// The host that a source belongs to: the one with the most specific CIDR that contains it.
pub fn host_of(policy: &Policy, source: IpAddr) -> Option<&HostName> {
    policy
        .hosts
        .iter()
        .flat_map(|(name, host)| host.sources.entries.iter().map(move |net| (name, net)))
        .filter(|(_, net)| net.contains(&source))
        .max_by_key(|(_, net)| net.prefix_len())
        .map(|(name, _)| name)
}

/// Whether the policy is about what `source` sends in by `interface`.
pub fn in_scope(policy: &Policy, source: IpAddr, interface: &str) -> bool {
    let source_in = policy.scope.sources.as_ref().is_none_or(|list| covering(list, source).is_some());
    let interface_in = policy.scope.interfaces.as_ref().is_none_or(|list| list.entries.iter().any(|i| i == interface));
    source_in && interface_in
}

/// The verdict on what is out of scope, with the list that leaves it out; `None`: it is in scope.
pub fn decide_scope(policy: &Policy, source: IpAddr, interface: &str) -> Option<Decision> {
    if in_scope(policy, source, interface) {
        return None;
    }
    let sources = policy.scope.sources.as_ref().filter(|list| covering(list, source).is_none());
    let interfaces = policy.scope.interfaces.as_ref().map(|list| &list.path);
    Some(Decision {
        verdict: Verdict::OutOfScope,
        reason: Reason::OutOfScope,
        path: sources.map(|list| &list.path).or(interfaces).cloned(),
        host: None,
        domain: None,
        mode: policy.effective(None).mode,
    })
}

/// The verdict on a name asked for by `host`, whatever the time. `None` as a name: one that no policy can say.
pub fn decide_name(policy: &Policy, host: Option<&HostName>, name: Option<&Name>) -> Decision {
    decide_name_at(policy, host, name, None)
}

/// The verdict on a name at a moment; `None`: windows are not looked at.
pub fn decide_name_at(
    policy: &Policy,
    host: Option<&HostName>,
    name: Option<&Name>,
    moment: Option<&Moment>,
) -> Decision {
    let rules = policy.effective(host);
    let Some(name) = name else { return block(&rules, Reason::NotAllowlisted, names_path(&rules), None) };
    if let Some(denied) = denied_name(&rules, name) {
        return denied;
    }
    match allowed_name(&rules, name) {
        Some((path, pattern)) => closed(&rules, Some((name, &pattern)), moment).unwrap_or_else(|| Decision {
            verdict: Verdict::Allow,
            reason: Reason::Allowed,
            path: Some(path),
            host: rules.host.cloned(),
            domain: Some(pattern),
            mode: rules.mode,
        }),
        None => block(&rules, Reason::NotAllowlisted, names_path(&rules), None),
    }
}

/// The line that allows `name`: of `allow.domains`, else the first list in a file that has it.
fn allowed_name(rules: &Effective<'_>, name: &Name) -> Option<(Pointer, Pattern)> {
    let written = rules.domains.and_then(|list| {
        let index = best_match(list, name)?;
        Some((list.entry_path(index), list.entries.get(index)?.to_pattern()))
    });
    written.or_else(|| in_lists(rules.domain_lists, |contents| contents.allows(name).map(|entry| entry.pattern)))
}

/// What the first of some lists in files says that says anything, with the list's place. A list that was not read says
/// nothing; a policy that has one is not enforced.
fn in_lists<T>(lists: Option<&List<DomainList>>, ask: impl Fn(&Contents) -> Option<T>) -> Option<(Pointer, T)> {
    let list = lists?;
    let mut entries = list.entries.iter().enumerate();
    entries.find_map(|(index, entry)| Some((list.entry_path(index), ask(entry.contents.as_deref()?)?)))
}

/// The list in a file whose address trigger keeps `address` out of every answer.
pub fn denied_answer(rules: &Effective<'_>, address: IpAddr) -> Option<(Pointer, Network)> {
    rules.deny_lists.into_iter().find_map(|lists| in_lists(lists, |contents| contents.denies_address(address)))
}

/// The window that is closed, as a decision: the host's (or the global) one, then that of the name.
fn closed(rules: &Effective<'_>, name: Option<(&Name, &Pattern)>, moment: Option<&Moment>) -> Option<Decision> {
    let moment = moment?;
    let own = name.and_then(|(name, _)| rules.window_of(name));
    let window = [rules.window, own].into_iter().flatten().find(|window| !moment.opens(Some(window)))?;
    let domain = name.map(|(_, pattern)| pattern.clone());
    Some(block(rules, Reason::WindowClosed, Some(window.path.clone()), domain))
}

/// The denylist line that names `name`, as a decision; the host's own list speaks first.
pub fn denied_name(rules: &Effective<'_>, name: &Name) -> Option<Decision> {
    rules.deny_domains.into_iter().zip(rules.deny_lists).find_map(|(written, lists)| {
        let written = written.and_then(|list| {
            let index = best_match(list, name)?;
            Some((list.entry_path(index), list.entries.get(index)?.to_pattern()))
        });
        let in_files = || in_lists(lists, |contents| contents.denies(name).map(|entry| entry.pattern));
        let (path, pattern) = written.or_else(in_files)?;
        Some(block(rules, Reason::Denied, Some(path), Some(pattern)))
    })
}

/// The verdict on a flow, given the live leases, whatever the time.
pub fn decide_flow(policy: &Policy, flow: &Flow<'_>, leases: &[Leased<'_>]) -> Decision {
    decide_flow_at(policy, flow, leases, None)
}

/// The verdict on a flow at a moment; `None`: windows are not looked at.
pub fn decide_flow_at(policy: &Policy, flow: &Flow<'_>, leases: &[Leased<'_>], moment: Option<&Moment>) -> Decision {
    if let Some(outside) = decide_scope(policy, flow.source, flow.interface) {
        return outside;
    }
    decide_address_at(policy, host_of(policy, flow.source), flow.destination, Some(flow.protocol), leases, moment)
}

/// The verdict on what `host` sends to `address`, whatever the time; without a protocol, whether the address is open
/// at all.
pub fn decide_address(
    policy: &Policy,
    host: Option<&HostName>,
    address: IpAddr,
    protocol: Option<Protocol>,
    leases: &[Leased<'_>],
) -> Decision {
    decide_address_at(policy, host, address, protocol, leases, None)
}

/// The same at a moment; `None`: windows are not looked at.
pub fn decide_address_at(
    policy: &Policy,
    host: Option<&HostName>,
    address: IpAddr,
    protocol: Option<Protocol>,
    leases: &[Leased<'_>],
    moment: Option<&Moment>,
) -> Decision {
    let rules = policy.effective(host);
    if let Some(refused) = refused(&rules, address, protocol) {
        return refused;
    }
    let allow = |path: Pointer, domain: Option<Pattern>| Decision {
        verdict: Verdict::Allow,
        reason: Reason::Allowed,
        path: Some(path),
        host: rules.host.cloned(),
        domain,
        mode: rules.mode,
    };
    if let Some(list) = rules.ips
        && let Some(index) = covering(list, address)
    {
        return closed(&rules, None, moment).unwrap_or_else(|| allow(list.entry_path(index), None));
    }
    // What no answer may hold was given by an answer of an earlier policy, if at all.
    let barred = denied_answer(&rules, address).map(|(path, _)| path);
    let leases = if barred.is_some() { &[] } else { leases };
    let mut late = None;
    for lease in leases.iter().filter(|lease| lease.host == rules.host && lease.address == address) {
        let named = decide_name_at(policy, host, Some(lease.name), moment);
        match (named.verdict, &named.path) {
            (Verdict::Allow, Some(path)) => return allow(path.clone(), named.domain),
            _ if named.reason == Reason::WindowClosed => late = late.or(Some(named)),
            _ => {}
        }
    }
    if let Some(late) = late {
        return late;
    }
    // A special address can never be leased, so only allow.ips could have opened it.
    let leasable = has_names(&rules) && !is_special(address);
    if leasable {
        block(&rules, Reason::NoLease, barred.or(names_path(&rules)), None)
    } else {
        block(&rules, Reason::NotAllowlisted, list_path(rules.ips), None)
    }
}

/// The verdict on what an agent answers to somebody outside the scope who opened `flow` to it. The answers are the
/// agent's egress, so the opener's address must be in `allow.ips`; no name can stand for it.
pub fn decide_answer(policy: &Policy, flow: &Flow<'_>) -> Decision {
    decide_answer_at(policy, flow, None)
}

/// The same at a moment; `None`: windows are not looked at.
pub fn decide_answer_at(policy: &Policy, flow: &Flow<'_>, moment: Option<&Moment>) -> Decision {
    let host = host_of(policy, flow.destination);
    let rules = policy.effective(host);
    if let Some(refused) = refused(&rules, flow.source, Some(flow.protocol)) {
        return refused;
    }
    match rules.ips.and_then(|list| covering(list, flow.source).map(|index| list.entry_path(index))) {
        Some(path) => closed(&rules, None, moment).unwrap_or_else(|| Decision {
            verdict: Verdict::Allow,
            reason: Reason::Allowed,
            path: Some(path),
            host: rules.host.cloned(),
            domain: None,
            mode: rules.mode,
        }),
        None => block(&rules, Reason::NotAllowlisted, list_path(rules.ips), None),
    }
}

/// Every exfil cap of a host that what it sends to a peer is charged to, with its line. `names`: all for which the host
/// was given the peer's address, and the aliases on the way; it may belong to any of them.
pub fn charged_caps<'p>(
    policy: &'p Policy,
    host: Option<&HostName>,
    names: &[&Name],
) -> Vec<(&'p Pattern, &'p Located<Cap>)> {
    let caps = host.and_then(|name| policy.hosts.get(name)).into_iter().flat_map(|host| &host.caps);
    caps.filter(|(pattern, _)| names.iter().any(|name| pattern.matches(name))).collect()
}

/// The verdict of an exfil cap that is used up, on what is charged to it.
pub fn decide_cap(policy: &Policy, host: Option<&HostName>, pattern: &Pattern) -> Option<Decision> {
    let cap = host.and_then(|name| policy.hosts.get(name)).and_then(|host| host.caps.get(pattern))?;
    Some(block(&policy.effective(host), Reason::CapExhausted, Some(cap.path.clone()), Some(pattern.clone())))
}

/// The verdict on a packet that is over a rate limit, the host's own or that of all egress.
pub fn decide_rate(policy: &Policy, host: Option<&HostName>) -> Option<Decision> {
    let own = host.and_then(|name| policy.hosts.get(name)).and_then(|host| host.egress_kbps.as_ref());
    let limit = own.or(policy.egress_kbps.as_ref())?;
    Some(block(&policy.effective(host), Reason::RateLimited, Some(limit.path.clone()), None))
}

/// What refuses a peer whatever the allowlists say: a denied address, then the protocol and port.
fn refused(rules: &Effective<'_>, peer: IpAddr, protocol: Option<Protocol>) -> Option<Decision> {
    for list in rules.deny_ips.into_iter().flatten() {
        if let Some(index) = covering(list, peer) {
            return Some(block(rules, Reason::Denied, Some(list.entry_path(index)), None));
        }
    }
    protocol.and_then(|protocol| refused_port(rules, protocol))
}

/// The verdict on a protocol and port that are open to no destination at all.
pub fn refused_port(rules: &Effective<'_>, protocol: Protocol) -> Option<Decision> {
    match protocol {
        Protocol::Tcp(port) | Protocol::Udp(port) if port == 53 || !port_open(rules, port) => {
            // Port 53 never means "any resolver": whatever the list says, that traffic goes to our own DNS.
            Some(block(rules, Reason::PortNotAllowed, list_path(rules.ports), None))
        }
        Protocol::Other(_) => Some(block(rules, Reason::PortNotAllowed, None, None)),
        Protocol::Tcp(_) | Protocol::Udp(_) | Protocol::Echo => None,
    }
}

/// Whether the host's port list (or the default) has `port`.
fn port_open(rules: &Effective<'_>, port: u16) -> bool {
    match rules.ports {
        Some(list) => list.entries.contains(&port),
        None => DEFAULT_PORTS.contains(&port),
    }
}

/// The index of the entry that covers `name` most closely: the name itself, else the longest wildcard; of equal ones the
/// first.
fn best_match(list: &Domains, name: &Name) -> Option<usize> {
    let all = list.entries.iter().enumerate().filter(|(_, pattern)| pattern.matches(name));
    all.max_by_key(|(index, pattern)| (pattern.closeness(), Reverse(*index))).map(|(index, _)| index)
}

/// The index of the longest prefix that contains `address`; of equal ones the first.
fn covering(list: &List<IpNet>, address: IpAddr) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, net) in list.entries.iter().enumerate().filter(|(_, net)| net.contains(&address)) {
        if best.is_none_or(|old| net.prefix_len() > list.entries[old].prefix_len()) {
            best = Some(index);
        }
    }
    best
}

/// Whether any name may be reached at all.
pub fn has_names(rules: &Effective<'_>) -> bool {
    rules.domains.is_some_and(|list| !list.entries.is_empty())
        || in_lists(rules.domain_lists, |contents| contents.allows_some().then_some(())).is_some()
}

/// The list of names that lacks a name.
fn names_path(rules: &Effective<'_>) -> Option<Pointer> {
    rules.domains.map(|list| list.path.clone()).or_else(|| list_path(rules.domain_lists))
}

fn list_path<T>(list: Option<&List<T>>) -> Option<Pointer> {
    list.map(|list| list.path.clone())
}

fn block(rules: &Effective<'_>, reason: Reason, path: Option<Pointer>, domain: Option<Pattern>) -> Decision {
    Decision { verdict: Verdict::Block, reason, path, host: rules.host.cloned(), domain, mode: rules.mode }
}

/// The IPv4 blocks that no public name should point at: this network, private, shared (CGNAT), loopback, link-local
/// with the metadata address, IETF protocol assignments, benchmarking, multicast and reserved (RFC 6890, RFC 1918,
/// RFC 6598, RFC 3927, RFC 5771). Documentation blocks are not routed and harmless, but nobody's public name either.
pub const SPECIAL_V4: [(Ipv4Addr, u8); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The IPv6 blocks likewise: everything outside global unicast 2000::/3 (which takes in loopback, mapped, compatible,
/// NAT64, unique local, link-local, site-local and multicast), and inside it Teredo and the other protocol
/// assignments, documentation, and 6to4 (RFC 6890, RFC 4291, RFC 3056).
pub const SPECIAL_V6: [(Ipv6Addr, u8); 6] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x4000, 0, 0, 0, 0, 0, 0, 0), 2),
    (Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0), 1),
];

/// Whether an address can be opened by `allow.ips` only, never by an answer (SPEC section 2, meaning 7).
pub fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => SPECIAL_V4
            .iter()
            .any(|&(net, len)| u32::from(address) >> (32 - u32::from(len)) == u32::from(net) >> (32 - u32::from(len))),
        IpAddr::V6(address) => SPECIAL_V6.iter().any(|&(net, len)| {
            u128::from(address) >> (128 - u32::from(len)) == u128::from(net) >> (128 - u32::from(len))
        }),
    }
}
