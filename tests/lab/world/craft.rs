//! Packets with headers of the test's own making, as root on an agent's machine can send them.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::agent::{Agent, HELLO};
use super::netns::Address;

/// `IPPROTO_RAW` (raw(7)): the packet brings its own IPv4 header.
const WHOLE_PACKET: i32 = 255;
/// Header of an IPv4 packet without options, bytes.
const IPV4_HEADER: usize = 20;

impl Agent {
    /// Sends an IPv4 packet as it is.
    pub fn send_packet(&self, packet: &[u8]) {
        let to = IpAddr::from([packet[16], packet[17], packet[18], packet[19]]);
        self.netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WHOLE_PACKET)));
            let socket = socket.expect("root may open a raw socket");
            socket.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0))).expect("the packet is well-formed");
        });
    }

    /// A datagram socket at an IPv4 port of the agent's own, which waits half a second for answers.
    pub fn datagrams(&self, port: u16) -> UdpSocket {
        let socket = self.netns.enter(|| UdpSocket::bind((self.v4, port))).expect("the port is free");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a timeout is legal");
        socket
    }
}

/// Whether what is sent to `address` comes back. An ICMP error of an earlier packet may take the first try.
pub fn echoes(socket: &UdpSocket, address: impl Address, port: u16) -> bool {
    let to = SocketAddr::new(address.address(), port);
    let _ = socket.send_to(HELLO, to).or_else(|_| socket.send_to(HELLO, to));
    socket.recv_from(&mut [0; 256]).is_ok()
}

/// An IPv4 packet.
pub fn ipv4(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(IPV4_HEADER + payload.len()).expect("short enough for one packet");
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => packet.extend(address.octets()),
            IpAddr::V6(_) => panic!("{address} in an IPv4 packet"),
        }
    }
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP datagram without checksum.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short enough for one packet");
    [&from.to_be_bytes(), &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// An ICMP error "port unreachable" about `packet`.
pub fn unreachable(packet: &[u8]) -> Vec<u8> {
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0], packet].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = octets.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
