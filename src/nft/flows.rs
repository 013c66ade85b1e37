//! The flows that the kernel tracks and that carry a class of ours: linux/netfilter/nfnetlink_conntrack.h.

use std::net::IpAddr;

use nix::errno::Errno;

use super::error::KernelError;
use super::message::{Attrs, DUMP, Message, Writer};
use super::socket::{Outcome, Socket};
use crate::core::forecast::Live;
use crate::plan::ir::{CLASS_BASE, proto};
use crate::policy::reference::Protocol;

/// `NFNL_SUBSYS_CTNETLINK` in the upper octet of a message type; the lower: `IPCTNL_MSG_CT_GET`, `_NEW`.
const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = SUBSYSTEM | 1;
const NEW: u16 = SUBSYSTEM;
// `CTA_*`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const PROTOCOL_INFO: u16 = 4;
const MARK: u16 = 8;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
/// `CTA_PROTOINFO_TCP` and in it `CTA_PROTOINFO_TCP_STATE`.
const TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// From `TCP_CONNTRACK_LAST_ACK` on a connection is over and only remembered.
const TCP_OVER: u8 = 6;
// `CTA_TUPLE_*`, `CTA_IP_*`, `CTA_PROTO_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const V4_SOURCE: u16 = 1;
const V6_SOURCE: u16 = 3;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;

/// A flow as the kernel tracks it, with what tells it from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The flow.
    pub live: Live,
    family: u8,
    /// The attributes of the opener's direction, and of the zone if there is one.
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Every live flow that carries a class, by a socket of its own: the writer is not held up.
///
/// # Errors
/// The system has no socket left, or the kernel cannot tell.
pub fn flows() -> Result<Vec<Tracked>, KernelError> {
    let mut writer = Writer::new(1);
    writer.begin_other(GET, DUMP, 0);
    // The kernel leaves out what carries no class.
    writer.u32(MARK, CLASS_BASE);
    writer.u32(MARK_MASK, CLASS_BASE);
    writer.end();
    let mut found = Vec::new();
    let answer = Socket::open()?.ask(&writer.octets, |message| found.extend(tracked(message)))?;
    match answer {
        // A dump that was interrupted has missed flows that came or went meanwhile, and nothing else.
        Ok(_whole) => Ok(found),
        Err(refusal) => Err(KernelError::socket("list the flows that the kernel tracks", refusal.errno)),
    }
}

/// Flows that did not get the class they should have.
#[derive(Debug, Default)]
pub struct Left {
    /// How many.
    pub flows: usize,
    /// Why the first of them did not.
    pub why: Option<KernelError>,
}

/// Gives flows other classes. Flows that have ended meanwhile are passed over, and one that the kernel refuses takes
/// nothing from the others.
///
/// # Errors
/// The system has no socket left.
pub fn reclassify<'t>(flows: impl IntoIterator<Item = (&'t Tracked, u32)>) -> Result<Left, KernelError> {
    let mut socket = Socket::open()?;
    let mut sequence = 1;
    Ok(each(flows, |flow, class| {
        let mut writer = Writer::new(sequence);
        let begin = writer.begin_about(NEW, flow.family);
        writer.attr(ORIGINAL | libc::NLA_F_NESTED as u16, &flow.original);
        if let Some(zone) = &flow.zone {
            writer.attr(ZONE, zone);
        }
        writer.u32(MARK, class);
        writer.end();
        writer.acknowledge_last();
        sequence = writer.next_sequence();
        let refusals = match socket.transact(&writer.octets, begin, begin, |_| ())? {
            Outcome::Done => Vec::new(),
            Outcome::Refused(refusals) => refusals,
        };
        match refusals.iter().find(|refusal| refusal.errno != Errno::ENOENT) {
            Some(refusal) => Err(KernelError::socket("give a flow another class", refusal.errno)),
            None => Ok(()),
        }
    }))
}

fn each<'t>(
    flows: impl IntoIterator<Item = (&'t Tracked, u32)>,
    mut give: impl FnMut(&Tracked, u32) -> Result<(), KernelError>,
) -> Left {
    let mut left = Left::default();
    for (flow, class) in flows {
        if let Err(error) = give(flow, class) {
            left.flows += 1;
            left.why.get_or_insert(error);
        }
    }
    left
}

fn tracked(message: &Message<'_>) -> Option<Tracked> {
    let (live, attrs) = (live(message)?, message.attrs());
    let owned = |kind| attrs.get(kind).map(<[u8]>::to_vec);
    Some(Tracked { live, family: message.family(), original: owned(ORIGINAL)?, zone: owned(ZONE) })
}

fn live(message: &Message<'_>) -> Option<Live> {
    if message.kind != NEW {
        return None;
    }
    let attrs = message.attrs();
    let class = attrs.u32(MARK).filter(|mark| mark & CLASS_BASE != 0)?;
    let state = attrs.nested(PROTOCOL_INFO).and_then(|info| info.nested(TCP)?.get(TCP_STATE)?.first().copied());
    if state.is_some_and(|state| state >= TCP_OVER) {
        return None;
    }
    let (opener, ..) = sender(attrs.nested(ORIGINAL)?)?;
    // The side that answers: where the flow goes behind every translation.
    let (opened, number, port) = sender(attrs.nested(REPLY)?)?;
    let protocol = match (number, port) {
        (proto::TCP, Some(port)) => Protocol::Tcp(port),
        (proto::UDP, Some(port)) => Protocol::Udp(port),
        // Other kinds of ICMP open no flow.
        (proto::ICMP | proto::ICMPV6, _) => Protocol::Echo,
        (other, _) => Protocol::Other(other),
    };
    Some(Live { class, opener, opened, protocol })
}

/// The sending side of a tuple: address, protocol, port.
fn sender(tuple: Attrs<'_>) -> Option<(IpAddr, u8, Option<u16>)> {
    let addresses = tuple.nested(TUPLE_IP)?;
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(addresses.get(V4_SOURCE)?).ok()?));
    let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(addresses.get(V6_SOURCE)?).ok()?));
    let protocol = tuple.nested(TUPLE_PROTOCOL)?;
    let port = protocol.get(SOURCE_PORT).and_then(|port| Some(u16::from_be_bytes(port.try_into().ok()?)));
    Some((v4().or_else(v6)?, *protocol.get(NUMBER)?.first()?, port))
}

#[cfg(test)]
mod tests {
    use super::super::message::Messages;
    use super::*;

    /// A tuple as the kernel writes it.
    fn tuple(writer: &mut Writer, kind: u16, ends: [[u8; 4]; 2], number: u8, ports: [u16; 2]) {
        let tuple = writer.open(kind);
        let addresses = writer.open(TUPLE_IP);
        writer.attr(V4_SOURCE, &ends[0]);
        writer.attr(V4_SOURCE + 1, &ends[1]);
        writer.close(addresses);
        let protocol = writer.open(TUPLE_PROTOCOL);
        writer.attr(NUMBER, &[number]);
        writer.attr(SOURCE_PORT, &ports[0].to_be_bytes());
        writer.attr(SOURCE_PORT + 1, &ports[1].to_be_bytes());
        writer.close(protocol);
        writer.close(tuple);
    }

    fn entry(mark: u32, number: u8, state: Option<u8>) -> Vec<u8> {
        let mut writer = Writer::new(1);
        writer.begin_other(NEW, 0, 0);
        // The agent's address is translated on its way out, the other's on its way in.
        tuple(&mut writer, ORIGINAL, [[192, 168, 10, 10], [45, 60, 1, 1]], number, [40_000, 443]);
        tuple(&mut writer, REPLY, [[10, 9, 1, 1], [198, 51, 100, 1]], number, [8443, 40_000]);
        if let Some(state) = state {
            let info = writer.open(PROTOCOL_INFO);
            let tcp = writer.open(TCP);
            writer.attr(TCP_STATE, &[state]);
            writer.close(tcp);
            writer.close(info);
        }
        writer.u32(MARK, mark);
        writer.end();
        writer.octets
    }

    fn read(octets: &[u8]) -> Vec<Live> {
        Messages(octets).filter_map(|message| live(&message)).collect()
    }

    #[test]
    fn an_entry_is_read_from_the_agent_to_the_real_other_end() {
        let opener = IpAddr::from([192, 168, 10, 10]);
        let expected =
            Live { class: CLASS_BASE | 7, opener, opened: [10, 9, 1, 1].into(), protocol: Protocol::Tcp(8443) };
        assert_eq!(read(&entry(CLASS_BASE | 7, proto::TCP, Some(3))), [expected]);
        let udp = Live { protocol: Protocol::Udp(8443), ..expected };
        assert_eq!(read(&entry(CLASS_BASE | 7, proto::UDP, None)), [udp]);
    }

    #[test]
    fn a_flow_that_the_kernel_refuses_takes_nothing_from_the_others() {
        let octets = entry(CLASS_BASE | 7, proto::TCP, Some(3));
        let flow = Messages(&octets).find_map(|message| tracked(&message)).expect("a flow");
        let mut given = Vec::new();
        let left = each((0..4).map(|number| (&flow, CLASS_BASE | number)), |_, class| {
            given.push(class & !CLASS_BASE);
            let errno = if given.len() == 2 { Errno::EBUSY } else { Errno::EINVAL };
            if given.len() % 2 == 0 { Err(KernelError::socket("give it", errno)) } else { Ok(()) }
        });
        assert_eq!((given, left.flows), (vec![0, 1, 2, 3], 2));
        assert_eq!(left.why, Some(KernelError::socket("give it", Errno::EBUSY)), "the first is told");
    }

    #[test]
    fn what_is_over_or_not_ours_is_left_out() {
        assert_eq!(read(&entry(CLASS_BASE | 7, proto::TCP, Some(7))), []);
        assert_eq!(read(&entry(7, proto::TCP, Some(3))), []);
    }

    #[test]
    fn whatever_the_octets_nothing_breaks() {
        let whole = entry(CLASS_BASE | 7, proto::TCP, Some(3));
        for at in 0..whole.len() {
            let _ = read(&whole[..at]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut octets = whole.clone();
                octets[at] = value;
                let _ = read(&octets);
            }
        }
    }
}
