//! Sets and their elements as messages.

use std::net::IpAddr;

use super::message::{CREATE, INET, Writer};
use super::uapi::{LIST_ELEM, counter, data, element, list, msg, rule, set, udata, verdict};
use crate::plan::ir::{Data, DataType, Family, Key, KeyType, SetSpec, TABLE, Value, Verdict};

/// nft's numbers of types: the kernel only hands them back, nft reads keys by them.
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const TYPE_MARK: u32 = 19;
/// Bits of a type's number in the number of a concatenation.
const CONCAT_BITS: u32 = 6;
pub(super) const TYPE_MARK_IPV4: u32 = TYPE_MARK << CONCAT_BITS | TYPE_IPV4;
pub(super) const TYPE_MARK_IPV6: u32 = TYPE_MARK << CONCAT_BITS | TYPE_IPV6;

/// Octets of elements in one message; the list's length is a u16, and the largest element takes less than the rest.
const CHUNK: usize = 60_000;
/// Longest comment of an element, so that its userdata stays below the kernel's 256 octets.
pub(super) const MAX_COMMENT: usize = 200;

/// `NFT_MSG_NEWSET`.
pub(super) fn declare(writer: &mut Writer, name: &str, spec: &SetSpec, id: u32) {
    writer.begin(msg::NEW_SET, CREATE, INET);
    writer.text(set::TABLE, TABLE);
    writer.text(set::NAME, name);
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let flags = flag(spec.interval, set::INTERVAL)
        | flag(spec.timeout, set::TIMEOUT)
        | flag(spec.data != DataType::None, set::MAP);
    writer.u32(set::FLAGS, flags);
    let (kind, length, order) = match spec.key {
        KeyType::Mark => (TYPE_MARK, 4, udata::ORDER_HOST),
        KeyType::Address(Family::V4) => (TYPE_IPV4, 4, udata::ORDER_NETWORK),
        KeyType::Address(Family::V6) => (TYPE_IPV6, 16, udata::ORDER_NETWORK),
        KeyType::Port => (TYPE_PORT, 2, udata::ORDER_NETWORK),
        KeyType::MarkAddress(Family::V4) => (TYPE_MARK_IPV4, 8, 0),
        KeyType::MarkAddress(Family::V6) => (TYPE_MARK_IPV6, 20, 0),
    };
    writer.u32(set::KEY_TYPE, kind);
    writer.u32(set::KEY_LENGTH, length);
    writer.u32(set::ID, id);
    match spec.data {
        DataType::None => {}
        DataType::Mark => {
            writer.u32(set::DATA_TYPE, TYPE_MARK);
            writer.u32(set::DATA_LENGTH, 4);
        }
        DataType::Verdict => writer.u32(set::DATA_TYPE, set::VERDICT),
    }
    if let Some(size) = spec.size {
        let desc = writer.open(set::DESC);
        writer.u32(set::DESC_SIZE, size);
        writer.close(desc);
    }
    // nft lists marks in the wrong byte order without these.
    let mut orders = Vec::with_capacity(12);
    tlv(&mut orders, udata::SET_KEY_ORDER, &order.to_ne_bytes());
    match spec.data {
        DataType::None => {}
        DataType::Mark => tlv(&mut orders, udata::SET_DATA_ORDER, &udata::ORDER_HOST.to_ne_bytes()),
        DataType::Verdict => tlv(&mut orders, udata::SET_DATA_ORDER, &0u32.to_ne_bytes()),
    }
    writer.attr(set::USERDATA, &orders);
    if spec.counter {
        let expr = writer.open(set::EXPR);
        writer.text(rule::EXPR_NAME, "counter");
        let fields = writer.open(rule::EXPR_DATA);
        writer.u64(counter::BYTES, 0);
        writer.u64(counter::PACKETS, 0);
        writer.close(fields);
        writer.close(expr);
    }
    writer.end();
}

/// A message without an element list: all elements for `DEL_ELEMENTS`, a dump for `GET_ELEMENTS`.
pub(super) fn whole_set(writer: &mut Writer, kind: i32, flags: u16, name: &str) {
    head(writer, kind, flags, name);
    writer.end();
}

fn head(writer: &mut Writer, kind: i32, flags: u16, name: &str) {
    writer.begin(kind, flags, INET);
    writer.text(list::TABLE, TABLE);
    writer.text(list::SET, name);
}

/// Writes elements into as many messages as they take.
pub(super) struct Elements<'a> {
    writer: &'a mut Writer,
    kind: i32,
    flags: u16,
    name: &'a str,
    list: Option<usize>,
    messages: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(writer: &'a mut Writer, kind: i32, flags: u16, name: &'a str) -> Self {
        Self { writer, kind, flags, name, list: None, messages: 0 }
    }

    /// Adds an element; `value` is `None` for removals.
    pub(super) fn push(&mut self, key: &Key, value: Option<&Value>) {
        if self.list.is_some_and(|place| self.writer.octets.len() - place > CHUNK) {
            self.end_message();
        }
        if self.list.is_none() {
            head(self.writer, self.kind, self.flags, self.name);
            self.list = Some(self.writer.open(list::ELEMENTS));
        }
        let mut octets = KeyOctets::default();
        let mut open = false;
        match key {
            Key::Mark(mark) => octets.add(&mark.to_ne_bytes()),
            Key::Port(port) => octets.add(&port.to_be_bytes()),
            Key::Address(address) => octets.add_address(*address),
            Key::MarkAddress(mark, address) => {
                octets.add(&mark.to_ne_bytes());
                octets.add_address(*address);
            }
            Key::Range(first, last) => {
                octets.add_address(*first);
                open = behind(*last).is_none();
            }
        }
        one(self.writer, octets.get(), 0, value, open);
        if let Key::Range(_, last) = key
            && let Some(end) = behind(*last)
        {
            let mut octets = KeyOctets::default();
            octets.add_address(end);
            one(self.writer, octets.get(), element::INTERVAL_END, None, false);
        }
    }

    fn end_message(&mut self) {
        if let Some(place) = self.list.take() {
            self.writer.close(place);
            self.writer.end();
            self.messages += 1;
        }
    }

    /// Ends the last message; returns how many there are.
    pub(super) fn finish(mut self) -> usize {
        self.end_message();
        self.messages
    }
}

fn one(writer: &mut Writer, key: &[u8], flags: u32, value: Option<&Value>, open: bool) {
    let place = writer.open(LIST_ELEM);
    if flags != 0 {
        writer.u32(element::FLAGS, flags);
    }
    let nest = writer.open(element::KEY);
    writer.attr(data::VALUE, key);
    writer.close(nest);
    if let Some(value) = value {
        if let Some(timeout) = value.timeout_ms {
            writer.u64(element::TIMEOUT, timeout);
        }
        match &value.data {
            Data::None => {}
            Data::Mark(mark) => {
                let nest = writer.open(element::DATA);
                writer.attr(data::VALUE, &mark.to_ne_bytes());
                writer.close(nest);
            }
            Data::Verdict(verdict) => {
                let nest = writer.open(element::DATA);
                let inner = writer.open(data::VERDICT);
                let (code, chain) = verdict_code(verdict);
                writer.u32(data::VERDICT_CODE, code as u32);
                if let Some(chain) = chain {
                    writer.text(data::VERDICT_CHAIN, chain);
                }
                writer.close(inner);
                writer.close(nest);
            }
        }
        if open || value.comment.is_some() {
            let mut user = Vec::new();
            if let Some(comment) = &value.comment {
                user = self::comment(comment);
            }
            if open {
                tlv(&mut user, udata::ELEMENT_FLAGS, &udata::ELEMENT_OPEN.to_ne_bytes());
            }
            writer.attr(element::USERDATA, &user);
        }
    }
    writer.close(place);
}

/// The kernel's number of a verdict, and its chain.
pub(super) fn verdict_code(word: &Verdict) -> (i32, Option<&str>) {
    match word {
        Verdict::Accept => (verdict::ACCEPT, None),
        Verdict::Drop => (verdict::DROP, None),
        Verdict::Return => (verdict::RETURN, None),
        Verdict::Jump(chain) => (verdict::JUMP, Some(chain)),
        Verdict::Goto(chain) => (verdict::GOTO, Some(chain)),
    }
}

/// The address behind `last`; `None`: there is none.
fn behind(last: IpAddr) -> Option<IpAddr> {
    match last {
        IpAddr::V4(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// Userdata with a comment, of a rule or an element alike.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    tlv(&mut out, udata::COMMENT, &[text.as_bytes(), &[0]].concat());
    out
}

/// An entry of userdata: type, length, value.
fn tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.push(value.len() as u8);
    out.extend_from_slice(value);
}

/// A key without a heap allocation.
#[derive(Default)]
struct KeyOctets {
    octets: [u8; 20],
    length: usize,
}

impl KeyOctets {
    fn add(&mut self, part: &[u8]) {
        self.octets[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(&address.octets()),
            IpAddr::V6(address) => self.add(&address.octets()),
        }
    }

    fn get(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}
