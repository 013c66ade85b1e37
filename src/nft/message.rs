//! Netlink messages as octets: writing and reading attributes.
//!
//! Layout: linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h. Headers and attribute lengths are in host
//! byte order, nf_tables' numbers in network byte order. The reader trusts nothing: whatever the octets, it yields
//! slices of its input or stops.

/// `NFNL_SUBSYS_NFTABLES` in the upper octet of a message type.
const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The low bits of an attribute's type; the high ones say "nested" and "network byte order".
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// `NLM_F_ACK`: the kernel answers this message also when all is well.
pub(super) const ACK: u16 = libc::NLM_F_ACK as u16;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// `NLM_F_ECHO`: the sender gets the events that this message causes, as if it had subscribed to them.
pub(super) const ECHO: u16 = libc::NLM_F_ECHO as u16;
/// `NFPROTO_INET`.
pub(super) const INET: u8 = libc::NFPROTO_INET as u8;
/// `NFPROTO_UNSPEC`: a dump of every family.
pub(super) const ANY: u8 = libc::NFPROTO_UNSPEC as u8;

/// Appends messages to a buffer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) octets: Vec<u8>,
    start: usize,
    sequence: u32,
}

impl Writer {
    /// A writer whose first message has this sequence number.
    pub(super) fn new(first_sequence: u32) -> Self {
        Self { octets: Vec::with_capacity(4096), start: 0, sequence: first_sequence }
    }

    /// The same in a buffer that is there already; what is in it goes.
    pub(super) fn within(mut octets: Vec<u8>, first_sequence: u32) -> Self {
        octets.clear();
        Self { octets, start: 0, sequence: first_sequence }
    }

    /// The sequence number of the next message.
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Starts a message of the nf_tables subsystem; returns its sequence number.
    pub(super) fn begin(&mut self, kind: i32, flags: u16, family: u8) -> u32 {
        self.header(SUBSYSTEM | kind as u16, flags, family, 0)
    }

    /// Starts a message of another subsystem, whose type is given whole, about a resource (such as an NFLOG group).
    pub(super) fn begin_other(&mut self, kind: u16, flags: u16, resource: u16) -> u32 {
        self.header(kind, flags, ANY, resource)
    }

    /// Starts a message of another subsystem about something of an address family.
    pub(super) fn begin_about(&mut self, kind: u16, family: u8) -> u32 {
        self.header(kind, 0, family, 0)
    }

    /// `NFNL_MSG_BATCH_BEGIN` or `_END`.
    pub(super) fn batch_mark(&mut self, kind: i32) {
        self.header(kind as u16, 0, ANY, libc::NFNL_SUBSYS_NFTABLES as u16);
        self.end();
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.start = self.octets.len();
        self.octets.extend_from_slice(&[0; 4]);
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.octets.extend_from_slice(&sequence.to_ne_bytes());
        self.octets.extend_from_slice(&[0; 4]);
        self.octets.extend_from_slice(&[family, libc::NFNETLINK_V0 as u8]);
        self.octets.extend_from_slice(&resource.to_be_bytes());
        sequence
    }

    /// Ends the message begun last.
    pub(super) fn end(&mut self) {
        let length = (self.octets.len() - self.start) as u32;
        self.octets[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Takes over a whole message that was written elsewhere with [`Writer::next_sequence`]; `ACK` is taken off it.
    pub(super) fn whole(&mut self, message: &[u8]) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.start = self.octets.len();
        self.octets.extend_from_slice(message);
        if let Some([low, high]) = self.octets.get_mut(self.start + 6..self.start + 8) {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) & !ACK).to_ne_bytes();
        }
        sequence
    }

    /// Asks for an answer to the message begun last.
    pub(super) fn acknowledge_last(&mut self) {
        let flags = self.start + 6;
        if let Some([low, high]) = self.octets.get_mut(flags..flags + 2) {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) | ACK).to_ne_bytes();
        }
    }

    /// An attribute; values are far below the 64 KiB that its length can say.
    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.octets.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.pad();
    }

    /// A string with its final zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.octets.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value.as_bytes());
        self.octets.push(0);
        self.pad();
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Opens a nested attribute; [`Writer::close`] takes the returned place.
    pub(super) fn open(&mut self, kind: u16) -> usize {
        let place = self.octets.len();
        self.octets.extend_from_slice(&[0, 0]);
        self.octets.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        place
    }

    pub(super) fn close(&mut self, place: usize) {
        let length = (self.octets.len() - place) as u16;
        self.octets[place..place + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// The type with its subsystem.
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// The netlink port of the process that caused an event.
    pub(super) port: u32,
    /// All behind `struct nlmsghdr`.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The `NFT_MSG_*` number, if the message is of nf_tables.
    pub(super) fn nft(&self) -> Option<i32> {
        (self.kind & 0xff00 == SUBSYSTEM).then_some(i32::from(self.kind & 0xff))
    }

    /// `NFPROTO_*` of the object.
    pub(super) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or(ANY)
    }

    /// Appends the message as it was received.
    pub(super) fn copy_to(&self, out: &mut Vec<u8>) {
        let length = (HEADER + self.payload.len()) as u32;
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&self.sequence.to_ne_bytes());
        out.extend_from_slice(&self.port.to_ne_bytes());
        out.extend_from_slice(self.payload);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// The attributes behind `struct nfgenmsg`.
    pub(super) fn attrs(&self) -> Attrs<'a> {
        Attrs(self.payload.get(4..).unwrap_or_default())
    }
}

/// The messages of a datagram; stops at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = word(self.0, 0)? as usize;
        let half = |at: usize| Some(u16::from_ne_bytes(self.0.get(at..at + 2)?.try_into().ok()?));
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(self.0, 8)?,
            port: word(self.0, 12)?,
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes in a row; stops at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attrs<'a>(pub(super) &'a [u8]);

impl<'a> Attrs<'a> {
    /// The value of the first attribute of that type.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        { self }.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(super) fn nested(self, kind: u16) -> Option<Attrs<'a>> {
        self.get(kind).map(Attrs)
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A string up to its final zero.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.split(|octet| *octet == 0).next()?).ok()
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A number in host byte order.
pub(super) fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}
