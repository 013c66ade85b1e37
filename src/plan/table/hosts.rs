//! Who sent it: `host4` and `host6` map a source to its host, the most specific CIDR first, and every other address to
//! nobody; `sources4` and `sources6` are all of the former (nft can look a map up but not compare what it gives).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::ir::{Data, DataType, Family, Key, KeyType, Value};
use super::build::{Build, member};
use super::names;
use crate::plan::ids::HostId;

pub(super) fn add(build: &mut Build<'_>) {
    let sources: Vec<(IpNet, HostId)> = build
        .policy
        .hosts
        .iter()
        .flat_map(|(name, host)| {
            let id = build.situation.id(Some(name));
            host.sources.entries.iter().map(move |net| (*net, id))
        })
        .collect();
    for family in Family::BOTH {
        let nets = sources.iter().filter(|(net, _)| Family::of(net.addr()) == family).copied();
        let owned = segments(nets);
        let all: Vec<_> = owned.keys().map(|(first, last)| member(Key::Range(*first, *last))).collect();
        build.plain_set(names::of("sources", family), KeyType::Address(family), DataType::None, true, all);
        for id in build.situation.recheck.clone() {
            let own = owned.iter().filter(|(_, owner)| **owner == id);
            let own: Vec<_> = own.map(|((first, last), _)| member(Key::Range(*first, *last))).collect();
            let name = names::sources_of(family, id);
            build.plain_set(name, KeyType::Address(family), DataType::None, true, own);
        }
        let elements: Vec<_> = everybody(build, family)
            .into_iter()
            .map(|((first, last), id)| (Key::Range(first, last), Value::plain(Data::Mark(u32::from(id.0)))))
            .collect();
        build.plain_set(names::of("host", family), KeyType::Address(family), DataType::Mark, true, elements);
    }
    let registry: Vec<_> = build
        .situation
        .hosts
        .iter()
        .map(|(name, id)| {
            let comment = Some(name.as_str().into());
            (Key::Mark(u32::from(id.0)), Value { comment, ..Value::plain(Data::None) })
        })
        .collect();
    build.plain_set(names::HOSTS, KeyType::Mark, DataType::None, false, registry);
    for (name, classes) in [
        (names::NET_CLASS, &build.situation.net_classes),
        (names::INBOUND_CLASS, &build.situation.inbound_classes),
        (names::MONITOR_CLASS, &build.situation.monitored),
    ] {
        let elements: Vec<_> =
            classes.iter().map(|(id, class)| (Key::Mark(u32::from(id.0)), Value::plain(Data::Mark(*class)))).collect();
        build.plain_set(name, KeyType::Mark, DataType::Mark, false, elements);
    }
}

/// All addresses of a family as disjoint ranges, each with its host or nobody.
pub(super) fn everybody(build: &Build<'_>, family: Family) -> BTreeMap<(IpAddr, IpAddr), HostId> {
    let all: IpNet = match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    };
    let hosts = build.policy.hosts.iter().flat_map(|(name, host)| {
        let id = build.situation.id(Some(name));
        host.sources.entries.iter().map(move |net| (*net, id))
    });
    // Nobody first: of equal networks the later one is the inner one.
    let nobody = std::iter::once((all, HostId::NOBODY));
    segments(nobody.chain(hosts.filter(|(net, _)| Family::of(net.addr()) == family)))
}

/// Cuts nested networks of one family into disjoint ranges, each with the value of the smallest network around it.
///
/// Two networks nest or are disjoint, so a stack of the networks around the current address is enough.
pub fn segments<T: Copy>(nets: impl IntoIterator<Item = (IpNet, T)>) -> BTreeMap<(IpAddr, IpAddr), T> {
    let mut sorted: Vec<(IpNet, T)> = nets.into_iter().collect();
    sorted.sort_by_key(|(net, _)| (net.network(), net.prefix_len()));
    let mut out = BTreeMap::new();
    let mut around: Vec<(IpNet, T)> = Vec::new();
    // The first address that is not yet covered by a range, within the innermost network of the stack.
    let mut next: Option<IpAddr> = None;
    for (net, value) in sorted {
        while let Some(&(outer, outer_value)) = around.last() {
            if outer.contains(&net) {
                break;
            }
            next = close(&mut out, outer, outer_value, next);
            around.pop();
        }
        if let (Some(&(_, outer_value)), Some(from)) = (around.last(), next)
            && from < net.network()
        {
            out.insert((from, before(net.network())), outer_value);
        }
        next = Some(net.network());
        around.push((net, value));
    }
    while let Some((outer, outer_value)) = around.pop() {
        next = close(&mut out, outer, outer_value, next);
    }
    out
}

/// Ends `net`: what is left of it becomes a range. Gives the first address behind it, if there is one.
fn close<T>(out: &mut BTreeMap<(IpAddr, IpAddr), T>, net: IpNet, value: T, next: Option<IpAddr>) -> Option<IpAddr> {
    let last = net.broadcast();
    if let Some(from) = next
        && from <= last
    {
        out.insert((from, last), value);
    }
    // `next` is `None` only behind the very last address, where nothing can follow.
    next.and_then(|_| after(last))
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) - 1).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) - 1).into()),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}
