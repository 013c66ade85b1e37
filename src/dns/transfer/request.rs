//! Reading a question of another name server: what is asked, and the signature with the octets that it is over.
//!
//! Read by hand and not by the library that the rest of the driver uses: a signature (RFC 8945) is over the octets as they
//! came, up to the place at which its record begins.

/// The longest name in wire form, octets (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// Octets of a header (RFC 1035 section 4.1.1).
pub(super) const HEADER: usize = 12;

pub(super) const SOA: u16 = 6;
pub(super) const NS: u16 = 2;
pub(super) const OPT: u16 = 41;
pub(super) const TSIG: u16 = 250;
pub(super) const IXFR: u16 = 251;
pub(super) const AXFR: u16 = 252;
pub(super) const IN: u16 = 1;
pub(super) const ANY: u16 = 255;
pub(super) const QUERY: u8 = 0;
pub(super) const NOTIFY: u8 = 4;

/// A message with one question, or an answer to ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub id: u16,
    pub is_answer: bool,
    pub opcode: u8,
    pub code: u8,
    /// The name asked for, wire form, lower case.
    pub name: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    /// The serial of the SOA record in the authority section: what an IXFR begins with (RFC 1995 section 3).
    pub serial: Option<u32>,
    pub edns: bool,
    pub signature: Option<Signature>,
}

/// A TSIG record (RFC 8945 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// The key's name, wire form, lower case.
    pub key: Vec<u8>,
    /// The algorithm's name, likewise.
    pub algorithm: Vec<u8>,
    /// Seconds since 1970.
    pub time: u64,
    /// Seconds by which the clocks may differ.
    pub fudge: u16,
    pub mac: Vec<u8>,
    pub original_id: u16,
    pub error: u16,
    pub other: Vec<u8>,
    /// Where the record begins in the message.
    pub begins: usize,
}

/// Why a message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Not even a header: nothing can be answered.
    NoMessage,
    /// FORMERR.
    Malformed,
}

/// A record without its name; where its data are.
struct Record {
    kind: u16,
    class: u16,
    ttl: u32,
    data: std::ops::Range<usize>,
}

/// Octets and a place in them.
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

/// Reads a message.
pub(super) fn read(message: &[u8]) -> Result<Asked, Unread> {
    if message.len() < HEADER {
        return Err(Unread::NoMessage);
    }
    let mut reader = Reader { message, at: 0 };
    reader.whole().ok_or(Unread::Malformed)
}

impl<'m> Reader<'m> {
    fn whole(&mut self) -> Option<Asked> {
        let (id, flags) = (self.number()?, self.number()?);
        let [questions, answers, authorities, additionals] =
            [self.number()?, self.number()?, self.number()?, self.number()?];
        if questions != 1 {
            return None;
        }
        let name = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let mut asked = Asked {
            id,
            is_answer: flags & 0x8000 != 0,
            opcode: (flags >> 11) as u8 & 15,
            code: flags as u8 & 15,
            name,
            kind,
            class,
            serial: None,
            edns: false,
            signature: None,
        };
        for _ in 0..answers {
            self.record()?;
        }
        for _ in 0..authorities {
            let Record { kind, data, .. } = self.record()?;
            if kind == SOA && asked.serial.is_none() {
                asked.serial = Some(soa_serial(self.message, data)?);
            }
        }
        for index in 0..additionals {
            let begins = self.at;
            let Record { kind, class, ttl, data } = self.record()?;
            match kind {
                OPT => asked.edns = true,
                // It is the last record, or none (RFC 8945 section 5.1), and of this class and time (section 4.2).
                TSIG if index + 1 == additionals && class == ANY && ttl == 0 => {
                    asked.signature = Some(self.signature(begins, data)?);
                }
                TSIG => return None,
                _ => {}
            }
        }
        // What stands behind the last record is under no signature.
        (self.at == self.message.len()).then_some(asked)
    }

    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name in lower case, pointers followed; they lead backwards only, and never into the header: what is asked for is
    /// then as long as the octets that ask, and so is an answer that repeats it.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut resume = None;
        let mut limit = self.at;
        loop {
            match *self.take(1)?.first()? {
                0 => break,
                length @ 1..=63 => {
                    name.push(length);
                    name.extend(self.take(length.into())?.iter().map(u8::to_ascii_lowercase));
                }
                high @ 0xc0.. => {
                    let low = *self.take(1)?.first()?;
                    let target = usize::from(high & 0x3f) << 8 | usize::from(low);
                    resume = resume.or(Some(self.at));
                    if !(HEADER..limit).contains(&target) {
                        return None;
                    }
                    (self.at, limit) = (target, target);
                }
                _ => return None,
            }
            if name.len() >= MAX_NAME {
                return None;
            }
        }
        name.push(0);
        self.at = resume.unwrap_or(self.at);
        Some(name)
    }

    fn record(&mut self) -> Option<Record> {
        self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let ttl = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let length = self.number()?;
        let begins = self.at;
        self.take(length.into())?;
        Some(Record { kind, class, ttl, data: begins..self.at })
    }

    fn signature(&self, begins: usize, data: std::ops::Range<usize>) -> Option<Signature> {
        let key = Reader { message: self.message, at: begins }.name()?;
        let mut reader = Reader { message: self.message.get(..data.end)?, at: data.start };
        let algorithm = reader.name()?;
        let time = reader.take(6)?.iter().fold(0, |time, octet| time << 8 | u64::from(*octet));
        let fudge = reader.number()?;
        let length = reader.number()?;
        let mac = reader.take(length.into())?.to_vec();
        let (original_id, error, length) = (reader.number()?, reader.number()?, reader.number()?);
        let other = reader.take(length.into())?.to_vec();
        let whole = reader.at == data.end;
        whole.then_some(Signature { key, algorithm, time, fudge, mac, original_id, error, other, begins })
    }
}

fn soa_serial(message: &[u8], data: std::ops::Range<usize>) -> Option<u32> {
    let mut reader = Reader { message: message.get(..data.end)?, at: data.start };
    reader.name()?;
    reader.name()?;
    Some(u32::from_be_bytes(reader.take(4)?.try_into().ok()?))
}

/// A name as text, with or without the trailing dot, in wire form and lower case. `None`: it is none.
pub(super) fn wire_name(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut name = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        name.push(length);
        name.extend(label.bytes().map(|octet| octet.to_ascii_lowercase()));
    }
    name.push(0);
    (name.len() <= MAX_NAME).then_some(name)
}

/// A name in wire form for people to read, with the trailing dot.
pub(super) fn text_name(wire: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = wire;
    while let Some((&length, behind)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, behind) = behind.split_at(usize::from(length).min(behind.len()));
        out.extend(label.iter().map(|&octet| if octet.is_ascii_graphic() { char::from(octet) } else { '?' }));
        out.push('.');
        rest = behind;
    }
    if out.is_empty() { ".".to_owned() } else { out }
}
