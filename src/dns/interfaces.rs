//! By which interface a query came in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_indextoname;
use nix::sys::socket::SockaddrStorage;

/// How long the name of an interface number is remembered: asking is a system call per query otherwise.
const MEMORY: Duration = Duration::from_secs(1);

/// Names of interfaces by number, remembered for a moment. Few send queries, so they are looked through in turn.
#[derive(Default)]
pub(super) struct Interfaces {
    names: Vec<(u32, Known)>,
}

/// A name, if there is one, and when it was asked for.
type Known = (Option<Arc<str>>, Instant);

impl Interfaces {
    /// The name of interface `index`; `None`: there is none.
    pub fn name(&mut self, index: u32, now: Instant) -> Option<Arc<str>> {
        if let Some((_, (name, when))) = self.names.iter().find(|(known, _)| *known == index)
            && now.saturating_duration_since(*when) < MEMORY
        {
            return name.clone();
        }
        // nix 0.31 says "" for a number that nobody has.
        let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        let name: Option<Arc<str>> = name.filter(|name| !name.is_empty()).map(Arc::from);
        self.names.retain(|(_, (_, when))| now.saturating_duration_since(*when) < MEMORY);
        self.names.push((index, (name.clone(), now)));
        name
    }
}

/// The interface by which packets to `peer` leave, which is the one that its own come in by unless routes are lopsided.
pub(super) fn by_route(peer: SocketAddr) -> Option<Arc<str>> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a datagram socket sends nothing; it only asks the routes.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    let local = socket.local_addr().ok()?.ip();
    owners().find_map(|(name, address)| (address == local).then(|| Arc::from(name)))
}

/// Whether an address is one of this machine's.
pub(super) fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || owners().any(|(_, own)| own == address)
}

/// An IPv6 address of this machine that is good beyond one link.
#[cfg(test)]
pub(super) fn routable_v6() -> Option<Ipv6Addr> {
    owners().find_map(|(_, address)| match address {
        IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => Some(v6),
        _ => None,
    })
}

fn owners() -> impl Iterator<Item = (String, IpAddr)> {
    let all = getifaddrs().into_iter().flatten();
    all.filter_map(|entry| Some((entry.interface_name, ip(&entry.address?)?)))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_number_and_by_route() {
        let (mut names, now) = (Interfaces::default(), Instant::now());
        assert_eq!(names.name(1, now).as_deref(), Some("lo"));
        assert_eq!(names.name(1, now).as_deref(), Some("lo"));
        assert_eq!(names.name(u32::MAX, now), None);
        assert_eq!(by_route(([127, 0, 0, 1], 9).into()).as_deref(), Some("lo"));
        assert!(is_local(Ipv4Addr::LOCALHOST.into()) && !is_local([192, 0, 2, 1].into()));
    }
}
