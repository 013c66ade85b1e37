//! Copies of packets that the kernel sends for a `log group` statement: linux/netfilter/nfnetlink_log.h. Pure: any octets
//! give some copies, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Attrs, Message, Messages};
use crate::plan::ir::proto;
use crate::plan::table::refusals::{Origin, origin};

/// `NFNL_SUBSYS_ULOG` in the upper octet of a message type, and `NFULNL_MSG_PACKET` in the lower.
const PACKET: u16 = (libc::NFNL_SUBSYS_ULOG as u16) << 8;
// `NFULA_*`.
const ENTERED: u16 = 4;
const LEFT: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const SEQUENCE: u16 = 12;
/// Extension headers of IPv6 that are followed; more is nobody's honest packet.
const MAX_EXTENSIONS: usize = 8;

/// One packet of ours that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The rule that sent it.
    pub origin: Origin,
    /// It answers the side that opened its flow.
    pub reply: bool,
    /// The number of the interface that it came in by.
    pub entered: Option<u32>,
    /// The number of the interface that it was about to leave by.
    pub left: Option<u32>,
    /// Its headers.
    pub headers: Headers,
}

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP; `None` also in later fragments.
    pub ports: Option<(u16, u16)>,
    /// The type of ICMP and ICMPv6.
    pub icmp: Option<u8>,
}

/// Reads a datagram. Each copy comes with its number in the kernel's sequence, which tells how many were lost before;
/// copies of rules that are not ours are left out, but keep their number.
pub fn parse(datagram: &[u8]) -> impl Iterator<Item = (u32, Option<Copied>)> {
    Messages(datagram).filter(|message| message.kind == PACKET).filter_map(|message| one(&message))
}

fn one(message: &Message<'_>) -> Option<(u32, Option<Copied>)> {
    let attrs = message.attrs();
    Some((attrs.u32(SEQUENCE)?, copied(attrs)))
}

fn copied(attrs: Attrs<'_>) -> Option<Copied> {
    let (origin, reply) = origin(attrs.text(PREFIX)?)?;
    let headers = headers(attrs.get(PAYLOAD)?)?;
    Some(Copied { origin, reply, entered: attrs.u32(ENTERED), left: attrs.u32(LEFT), headers })
}

/// Reads a packet from its network header on; `None`: it is neither IPv4 nor IPv6, or cut short in its header.
#[must_use]
pub fn headers(packet: &[u8]) -> Option<Headers> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

/// RFC 791 section 3.1.
fn v4(packet: &[u8]) -> Option<Headers> {
    let header = packet.first_chunk::<20>()?;
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let rest = packet.get(usize::from(header[0] & 0xf) * 4..).filter(|_| first).unwrap_or_default();
    Some(transport(address(12), address(16), header[9], rest))
}

/// RFC 8200 section 3, with the extension headers of section 4 and RFC 4302.
fn v6(packet: &[u8]) -> Option<Headers> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    let (header, mut rest) = packet.split_first_chunk::<40>()?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let (source, destination, mut next) = (address(8)?, address(24)?, header[6]);
    for _ in 0..MAX_EXTENSIONS {
        let (&[following, length], _) = match rest.split_first_chunk::<2>() {
            Some(found) => found,
            None => break,
        };
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => usize::from(length) * 8 + 8,
            AUTHENTICATION => usize::from(length) * 4 + 8,
            FRAGMENT => 8,
            _ => break,
        };
        let later = next == FRAGMENT && rest.get(2..4).is_some_and(|at| u16::from_be_bytes([at[0], at[1]]) & !7 != 0);
        next = following;
        rest = rest.get(length..).filter(|_| !later).unwrap_or_default();
    }
    Some(transport(source, destination, next, rest))
}

fn transport(source: IpAddr, destination: IpAddr, protocol: u8, rest: &[u8]) -> Headers {
    let half = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let ports = matches!(protocol, proto::TCP | proto::UDP).then(|| Some((half(0)?, half(2)?))).flatten();
    let icmp = matches!(protocol, proto::ICMP | proto::ICMPV6).then(|| rest.first().copied()).flatten();
    Headers { source, destination, protocol, ports, icmp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::message::Writer;

    fn v4_packet(fragment: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 192, 168, 10, 10, 93, 184, 216, 34]);
        packet.extend(rest);
        packet
    }

    fn v6_packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend("fd00:10::10".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2606:4700::34".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(rest);
        packet
    }

    #[test]
    fn ports_and_types_are_found_behind_options_and_extensions() {
        let ports = [0x9c, 0x40, 0x01, 0xbb, 0, 0];
        let plain = headers(&v4_packet(0, proto::TCP, &ports)).unwrap();
        assert_eq!(
            (plain.source.to_string(), plain.destination.to_string()),
            ("192.168.10.10".into(), "93.184.216.34".into())
        );
        assert_eq!((plain.ports, plain.icmp), (Some((40_000, 443)), None));
        let mut options = v4_packet(0, proto::UDP, &[&[1, 1, 1, 1][..], &ports].concat());
        options[0] = 0x46;
        assert_eq!(headers(&options).unwrap().ports, Some((40_000, 443)));
        assert_eq!(
            headers(&v4_packet(0x2000, proto::UDP, &ports)).unwrap().ports,
            Some((40_000, 443)),
            "a first fragment"
        );
        assert_eq!(headers(&v4_packet(7, proto::UDP, &ports)).unwrap().ports, None, "a later fragment has data there");
        assert_eq!(headers(&v4_packet(0, proto::ICMP, &[8, 0])).unwrap().icmp, Some(8));

        let extensions =
            [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 0, 0, 0, 0, 0, 0, 0], &[6, 0, 0, 1, 0, 0, 0, 9], &ports].concat();
        let found = headers(&v6_packet(0, &extensions)).unwrap();
        assert_eq!((found.protocol, found.ports), (proto::TCP, Some((40_000, 443))));
        let later = [&[6, 0, 0, 8, 0, 0, 0, 9][..], &ports].concat();
        let found = headers(&v6_packet(44, &later)).unwrap();
        assert_eq!((found.protocol, found.ports), (proto::TCP, None));
        assert_eq!(headers(&v6_packet(58, &[128])).unwrap().icmp, Some(128));
        assert_eq!(headers(&v6_packet(6, &ports)[..39]), None);
    }

    #[test]
    fn copies_are_read_with_their_numbers() {
        let mut writer = Writer::new(0);
        for (number, prefix) in [(7u32, "b_lease reply"), (9, "somebody else's")] {
            writer.begin_other(PACKET, 0, 0);
            writer.u32(ENTERED, 3);
            writer.text(PREFIX, prefix);
            writer.u32(SEQUENCE, number);
            writer.attr(PAYLOAD, &v4_packet(0, proto::TCP, &[1, 2, 3, 4]));
            writer.end();
        }
        let found: Vec<_> = parse(&writer.octets).collect();
        assert_eq!((found[0].0, found[1].0, found.len()), (7, 9, 2));
        assert_eq!(found[1].1, None);
        let copied = found[0].1.as_ref().unwrap();
        assert!(matches!(copied.origin, Origin::Refused(_)) && copied.reply);
        assert_eq!((copied.entered, copied.left, copied.headers.ports), (Some(3), None, Some((0x102, 0x304))));
    }
}
