//! What the gateway's own machine contributes: its addresses, and the way to its DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::core::state::World;
use crate::nft::Kernel;
use crate::plan::situation::{DnsDoor, Reports};
use crate::policy::Policy;

/// Looks at the machine. `listen` is where our DNS listens; `redirect` is the setting of that name.
pub fn look(
    kernel: &mut Kernel,
    listen: &[SocketAddr],
    redirect: bool,
    reports: Reports,
    policy: Option<&Policy>,
) -> World {
    World {
        dns4: door(listen, redirect, false),
        dns6: door(listen, redirect, true),
        dns_ports: listen.iter().map(SocketAddr::port).collect(),
        guarded: policy.map(guarded).unwrap_or_default(),
        // Unknown counts as yes: tracking that is held on needlessly costs a little, the other way around flows stop.
        keep_tracking: kernel.foreign_notrack().unwrap_or(true),
        reports,
        own: own_addresses(),
        zone: crate::store::system_zone(),
    }
}

/// A wildcard listener is reached at whatever address the packet came in by; a single address is named. Loopback is no
/// way in for packets of others.
fn door(listen: &[SocketAddr], redirect: bool, v6: bool) -> DnsDoor {
    let own = || listen.iter().filter(|address| address.is_ipv6() == v6);
    if !redirect {
        DnsDoor::Closed
    } else if let Some(wildcard) = own().find(|address| address.ip().is_unspecified()) {
        DnsDoor::Redirect(wildcard.port())
    } else {
        let single = own().find(|address| !address.ip().is_loopback());
        single.map_or(DnsDoor::Closed, |address| DnsDoor::To(address.ip(), address.port()))
    }
}

/// The interfaces behind which the sources of a policy live: those that the scope names, or those that have an address
/// inside a policed network or by which its ends are routed.
pub fn guarded(policy: &Policy) -> BTreeSet<String> {
    if let Some(interfaces) = &policy.scope.interfaces {
        return interfaces.entries.iter().cloned().collect();
    }
    let sources: Vec<IpNet> = match &policy.scope.sources {
        Some(list) => list.entries.to_vec(),
        None => policy.hosts.values().flat_map(|host| host.sources.entries.iter().copied()).collect(),
    };
    let interfaces = interfaces();
    let mut names: BTreeSet<String> = interfaces
        .iter()
        .filter(|(_, address)| sources.iter().any(|net| net.contains(address)))
        .map(|(name, _)| name.clone())
        .collect();
    for net in sources.iter().take(MAX_ROUTES) {
        for end in [net.network(), net.broadcast()] {
            let local = route_source(end);
            names.extend(interfaces.iter().filter(|(_, own)| Some(*own) == local).map(|(name, _)| name.clone()));
        }
    }
    names.remove("lo");
    names
}

/// Sources whose route is asked for; beyond it networks that hold one of our addresses are enough.
const MAX_ROUTES: usize = 256;

/// The address that this machine would use towards `address`: connecting a datagram socket sends nothing.
fn route_source(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn own_addresses() -> BTreeSet<IpAddr> {
    interfaces().into_iter().map(|(_, address)| address).collect()
}

/// Every address of this machine with its interface.
fn interfaces() -> Vec<(String, IpAddr)> {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    addresses
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let address = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            Some((interface.interface_name, address))
        })
        .collect()
}
