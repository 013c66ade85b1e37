//! The messages of an answer, one after the other: a zone of a million names is never in memory as messages.

use std::sync::Arc;

use super::request::{Asked, HEADER, IN, NS, OPT, SOA};
use crate::plan::rpz::{Action, Delta, EXPIRE, Edition, Image, REFRESH, TTL};

/// A message that is this long is sent, octets. Pointers reach 16 383 octets far (RFC 1035 section 4.1.4), and every name
/// in a message can point into what is shorter.
const FULL: usize = 16_000;
/// The size of datagrams that our answers tell, octets.
const PAYLOAD: u16 = 1232;
const CNAME: u16 = 5;
/// The names of the SOA record, as in the printed zones: nobody ever asks for them.
const PRIMARY: &[u8] = b"\x09localhost\0";
const MAILBOX: &[u8] = b"\x06nobody\x07invalid\0";

/// A part of what is sent.
enum Part {
    Soa(u32),
    Ns,
    Records(Arc<Image>),
}

/// What is left to send.
pub(super) struct Stream {
    parts: std::vec::IntoIter<Part>,
    /// Records that a message has begun with, and the place of the next one.
    open: Option<(Arc<Image>, usize)>,
    asked: Asked,
    first: bool,
    done: bool,
}

impl Stream {
    /// The whole zone (RFC 5936 section 2.2).
    pub fn whole(edition: &Edition, asked: &Asked) -> Self {
        let soa = || Part::Soa(edition.serial);
        Self::of(vec![soa(), Part::Ns, Part::Records(Arc::clone(&edition.image)), soa()], asked)
    }

    /// The steps from one serial to the other (RFC 1995 section 4).
    pub fn differences(edition: &Edition, deltas: &[Arc<Delta>], asked: &Asked) -> Self {
        let soa = || Part::Soa(edition.serial);
        let steps = deltas.iter().flat_map(|delta| {
            let [removed, added] = [&delta.removed, &delta.added].map(|image| Part::Records(Arc::clone(image)));
            [Part::Soa(delta.from), removed, Part::Soa(delta.to), added]
        });
        Self::of([soa()].into_iter().chain(steps).chain([soa()]).collect(), asked)
    }

    /// The SOA record alone: the answer to who asks for it, and to who has it already.
    pub fn soa(edition: &Edition, asked: &Asked) -> Self {
        Self::of(vec![Part::Soa(edition.serial)], asked)
    }

    /// The name servers, which a zone must have.
    pub fn ns(asked: &Asked) -> Self {
        Self::of(vec![Part::Ns], asked)
    }

    fn of(parts: Vec<Part>, asked: &Asked) -> Self {
        Self { parts: parts.into_iter(), open: None, asked: asked.clone(), first: true, done: false }
    }

    /// The next message, without a signature; `None`: that was all.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        let mut message = Message::begin(&self.asked, self.first);
        self.first = false;
        while message.bytes.len() < FULL {
            if let Some((image, place)) = &mut self.open {
                if let Some((owner, action, next)) = image.record(*place) {
                    message.cname(owner, action);
                    *place = next;
                    continue;
                }
                self.open = None;
            }
            match self.parts.next() {
                Some(Part::Soa(serial)) => message.soa(serial),
                Some(Part::Ns) => message.ns(),
                Some(Part::Records(image)) => self.open = Some((image, 0)),
                None => {
                    self.done = true;
                    break;
                }
            }
        }
        // The end may have come just when the message was full.
        (message.answers > 0).then(|| message.end())
    }
}

/// A message that is being written.
struct Message<'a> {
    bytes: Vec<u8>,
    zone: &'a [u8],
    /// Where the zone's name and the target of what passes stand already.
    zone_at: Option<u16>,
    passthru_at: Option<u16>,
    answers: u16,
    additionals: u16,
}

impl<'a> Message<'a> {
    /// The first message has the question; those behind it need none (RFC 5936 section 2.2.1).
    fn begin(asked: &'a Asked, first: bool) -> Self {
        let mut bytes = Vec::with_capacity(FULL + 1024);
        bytes.extend(header(asked, 0, true));
        let mut this = Self { bytes, zone: &asked.name, zone_at: None, passthru_at: None, answers: 0, additionals: 0 };
        if first {
            this.bytes[4..6].copy_from_slice(&[0, 1]);
            this.zone_name();
            this.bytes.extend(asked.kind.to_be_bytes());
            this.bytes.extend(asked.class.to_be_bytes());
            this.additionals = u16::from(asked.edns);
        }
        this
    }

    fn zone_name(&mut self) {
        match self.zone_at {
            Some(at) => self.bytes.extend((0xc000 | at).to_be_bytes()),
            None => {
                self.zone_at = pointer(self.bytes.len());
                self.bytes.extend(self.zone);
            }
        }
    }

    /// Type, class and time to live; the data's length is written behind them by `data`.
    fn record(&mut self, kind: u16, data: impl FnOnce(&mut Self)) {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(IN.to_be_bytes());
        self.bytes.extend(TTL.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend([0; 2]);
        data(self);
        let length = u16::try_from(self.bytes.len() - length_at - 2).unwrap_or(0);
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.answers += 1;
    }

    fn soa(&mut self, serial: u32) {
        self.zone_name();
        self.record(SOA, |this| {
            this.bytes.extend(PRIMARY);
            this.bytes.extend(MAILBOX);
            for number in [serial, REFRESH, REFRESH, EXPIRE, TTL] {
                this.bytes.extend(number.to_be_bytes());
            }
        });
    }

    fn ns(&mut self) {
        self.zone_name();
        self.record(NS, |this| this.bytes.extend(PRIMARY));
    }

    fn cname(&mut self, owner: &str, action: Action) {
        for label in owner.split('.') {
            self.bytes.push(u8::try_from(label.len()).unwrap_or(0));
            self.bytes.extend(label.as_bytes());
        }
        self.zone_name();
        self.record(CNAME, |this| match (action, this.passthru_at) {
            (Action::Nxdomain, _) => this.bytes.push(0),
            (Action::Passthru, Some(at)) => this.bytes.extend((0xc000 | at).to_be_bytes()),
            (Action::Passthru, None) => {
                this.passthru_at = pointer(this.bytes.len());
                this.bytes.extend(b"\x0crpz-passthru\0");
            }
        });
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes[6..8].copy_from_slice(&self.answers.to_be_bytes());
        if self.additionals > 0 {
            opt(&mut self.bytes);
        }
        self.bytes
    }
}

fn pointer(at: usize) -> Option<u16> {
    u16::try_from(at).ok().filter(|at| *at < 0x4000)
}

/// The header of an answer, without a question yet. `authoritative`: it speaks of a zone of ours.
pub(super) fn header(asked: &Asked, code: u8, authoritative: bool) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&asked.id.to_be_bytes());
    header[2] = 0x80 | asked.opcode << 3 | u8::from(authoritative) << 2;
    header[3] = code;
    header
}

/// The record that answers EDNS (RFC 6891 section 6.1.1).
pub(super) fn opt(message: &mut Vec<u8>) {
    message.push(0);
    message.extend(OPT.to_be_bytes());
    message.extend(PAYLOAD.to_be_bytes());
    message.extend([0; 6]);
    let additionals = u16::from_be_bytes([message[10], message[11]]).wrapping_add(1);
    message[10..12].copy_from_slice(&additionals.to_be_bytes());
}
