//! What the gateway's own machine contributes: its addresses, and the way to its DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::core::state::World;
use crate::nft::Kernel;
use crate::plan::situation::DnsDoor;

/// Looks at the machine. `listen` is where our DNS listens; `redirect` is the setting of that name.
pub fn look(kernel: &mut Kernel, listen: &[SocketAddr], redirect: bool) -> World {
    World {
        dns4: door(listen, redirect, false),
        dns6: door(listen, redirect, true),
        dns_ports: listen.iter().map(SocketAddr::port).collect(),
        // Unknown counts as yes: tracking that is held on needlessly costs a little, the other way around flows stop.
        keep_tracking: kernel.foreign_notrack().unwrap_or(true),
        own: own_addresses(),
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

fn own_addresses() -> BTreeSet<IpAddr> {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return BTreeSet::new() };
    addresses
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}
