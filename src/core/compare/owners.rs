//! Hosts and the sources that belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::entries::{difference, listed, placed};
use super::notes::{Notes, Place, Said};
use super::views::Views;
use super::{Effect, Field, Kind};
use crate::plan::table::segments;
use crate::policy::model::{Host, HostName, Policy};

/// The host of an address, before and after.
type Owners<'p> = (Option<&'p HostName>, Option<&'p HostName>);
type Ranges<'p> = BTreeMap<(IpAddr, IpAddr), &'p HostName>;

/// Whose each address was and is: each entry holds from its address up to the next one.
struct Map<'p>(BTreeMap<IpAddr, Owners<'p>>);

impl<'p> Map<'p> {
    fn of(old: &'p Policy, new: &'p Policy) -> Self {
        let (before, after) = (ranges(old), ranges(new));
        let mut starts = BTreeSet::from([IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
        for (first, last) in before.keys().chain(after.keys()) {
            starts.insert(*first);
            starts.extend(next(*last));
        }
        Self(starts.into_iter().map(|address| (address, (find(&before, address), find(&after, address)))).collect())
    }

    /// Every change of host.
    fn moves(&self) -> impl Iterator<Item = Owners<'p>> {
        self.0.values().copied().filter(|(before, after)| before != after)
    }

    /// Every change of host in a network.
    fn moves_in(&self, net: IpNet) -> impl Iterator<Item = Owners<'p>> {
        let inside = self.0.range(net.network()..=net.broadcast()).map(|(_, owners)| *owners);
        inside.filter(|(before, after)| before != after)
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

fn ranges(policy: &Policy) -> Ranges<'_> {
    let sources = |v4: bool| {
        let all = policy.hosts.iter().flat_map(|(name, host)| host.sources.entries.iter().map(move |net| (*net, name)));
        all.filter(move |(net, _)| net.addr().is_ipv4() == v4)
    };
    let mut ranges = segments(sources(true));
    ranges.extend(segments(sources(false)));
    ranges
}

fn find<'p>(ranges: &Ranges<'p>, address: IpAddr) -> Option<&'p HostName> {
    let top = if address.is_ipv4() { IpAddr::from([255; 4]) } else { IpAddr::from([255; 16]) };
    let ((_, last), host) = ranges.range(..=(address, top)).next_back()?;
    // Families do not mix: all of IPv4 is less than all of IPv6.
    (address <= *last).then_some(*host)
}

/// Compares what holds for each host and for sources of none.
pub(super) fn hosts(old: &Policy, new: &Policy, notes: &mut Notes) {
    let views = Views::new(old, new);
    let _ = views.compare(None, None, Some(notes));
    for name in old.hosts.keys().filter(|name| new.hosts.contains_key(*name)) {
        let _ = views.compare(Some(name), Some(name), Some(notes));
    }
    let map = Map::of(old, new);
    let moved: BTreeSet<Owners<'_>> = map.moves().collect();
    let mut effects: BTreeMap<Owners<'_>, Effect> = BTreeMap::new();
    for (before, after) in moved {
        // Told in full is what a new host brings and what is left of one that goes; the lists of the others stay.
        let comes = after.is_some_and(|name| !old.hosts.contains_key(name));
        let goes = after.is_none() && before.is_some_and(|name| !new.hosts.contains_key(name));
        let effect = views.compare(before, after, Some(&mut *notes).filter(|_| comes || goes));
        effects.insert((before, after), effect);
    }
    let together = |pairs: &mut dyn Iterator<Item = Owners<'_>>| {
        pairs.filter_map(|pair| effects.get(&pair)).fold(Effect::None, |all, effect| all.and(*effect))
    };
    let place = Place { host: None, field: Field::Hosts };
    let said = |host: &Host| -> Option<Said> { Some((listed(host.sources.entries.iter()), Some(host.path.clone()))) };
    for (name, host) in &old.hosts {
        if !new.hosts.contains_key(name) {
            let effect = together(&mut effects.keys().copied().filter(|(before, _)| *before == Some(name)));
            notes.value(place, Some(name.to_string()), said(host), None, effect);
        }
    }
    for (name, host) in &new.hosts {
        let Some(before) = old.hosts.get(name) else {
            let effect = together(&mut effects.keys().copied().filter(|(_, after)| *after == Some(name)));
            notes.value(place, Some(name.to_string()), None, said(host), effect);
            continue;
        };
        for item in difference(&placed(&before.sources), &placed(&host.sources)) {
            let Ok(net) = item.text.parse() else { continue };
            let concerned = |(before, after): &Owners<'_>| match item.kind {
                Kind::Added => *after == Some(name),
                Kind::Removed | Kind::Changed => *before == Some(name),
            };
            let effect = together(&mut map.moves_in(net).filter(concerned));
            let said = Some((item.text.clone(), item.path.clone()));
            let (was, is) = if item.kind == Kind::Added { (None, said) } else { (said, None) };
            notes.value(Place { host: Some(name), field: Field::Sources }, Some(item.text.clone()), was, is, effect);
        }
    }
}
