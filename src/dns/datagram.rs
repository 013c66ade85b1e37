//! Datagrams with the address they were sent to.
//!
//! A socket on a wildcard address learns from the kernel which address was asked and by which interface, and answers from
//! that address (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542 section 6). Without that, a gateway with several addresses
//! answers from another one than was asked, and the client drops the answer.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, sendmsg, setsockopt, sockopt,
};

/// One received datagram's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Octets received.
    pub length: usize,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address it was sent to, when known.
    pub local: Option<IpAddr>,
    /// The number of the interface it came in by; 0: not known.
    pub interface: u32,
}

/// Turns on the report of the address asked.
pub(super) fn report_destination(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Reads a received datagram's head.
pub(super) fn read_head(got: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Head> {
    let mut head = Head {
        length: if got.flags.contains(MsgFlags::MSG_TRUNC) { 0 } else { got.bytes },
        peer: got.address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?,
        local: None,
        interface: 0,
    };
    for message in got.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                head.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                head.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                head.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                head.interface = info.ipi6_ifindex;
            }
            _ => {}
        }
    }
    Ok(head)
}

/// What the kernel is told so that an answer leaves from `local`. No interface: the routes say where the client is, also
/// after an address moved.
pub(super) fn info4(local: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

/// As [`info4`]; an address that is good on one link only needs the link.
pub(super) fn info6(local: Ipv6Addr, interface: u32) -> libc::in6_pktinfo {
    libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
        ipi6_ifindex: if local.is_unicast_link_local() { interface } else { 0 },
    }
}

/// Sends an answer to the datagram with `head`; does not wait.
pub(super) fn answer(socket: &impl AsRawFd, head: &Head, bytes: &[u8]) -> io::Result<()> {
    Ok(send(socket, head, &[IoSlice::new(bytes)], None)?)
}

/// The same in parts. `cut`: as datagrams of so many octets, which the kernel makes of all of it (`UDP_SEGMENT`, udp(7)).
pub(super) fn send(socket: &impl AsRawFd, head: &Head, parts: &[IoSlice<'_>], cut: Option<u16>) -> nix::Result<()> {
    let (way4, way6);
    let way = match (head.peer, head.local) {
        (SocketAddr::V4(_), Some(IpAddr::V4(local))) => {
            way4 = info4(local);
            Some(ControlMessage::Ipv4PacketInfo(&way4))
        }
        (SocketAddr::V6(_), Some(IpAddr::V6(local))) => {
            way6 = info6(local, head.interface);
            Some(ControlMessage::Ipv6PacketInfo(&way6))
        }
        _ => None,
    };
    let cut = cut.as_ref().map(ControlMessage::UdpGsoSegments);
    let control = match (way, cut) {
        (Some(way), Some(cut)) => &[way, cut][..],
        (Some(one), None) | (None, Some(one)) => &[one],
        (None, None) => &[],
    };
    let peer = SockaddrStorage::from(head.peer);
    sendmsg(socket.as_raw_fd(), parts, control, MsgFlags::MSG_DONTWAIT, Some(&peer)).map(drop)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| {
        // The scope stays: a link-local client is found only on its own link.
        address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
    })
}
