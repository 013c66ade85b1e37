//! What the kernel holds, read from the messages of a dump. Pure: any octets give some [`Held`], never a panic.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::elements::{TYPE_IPV4, TYPE_IPV6, TYPE_MARK, TYPE_MARK_IPV4, TYPE_MARK_IPV6, TYPE_PORT};
use super::message::{Attrs, INET, Message, Messages};
use super::objects::{self, HeldObject};
use super::uapi::{LIST_ELEM, chain, counter, data, element, list, msg, rule, set, table, udata, verdict};
use crate::plan::ir::{
    Base, ChainType, Data, DataType, Family, Hook, Ident, Key, KeyType, SetSpec, TABLE, Value, Verdict,
};

/// The table as the kernel holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// It has an owner, or had one and outlived it: it can be owned. As long as the owner lives, only it changes it.
    pub owned: bool,
    /// Somebody switched it off: no packet meets its chains.
    pub dormant: bool,
    /// Chains by name.
    pub chains: BTreeMap<Ident, HeldChain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<Ident, HeldSet>,
    /// Quotas and counters by name.
    pub objects: BTreeMap<Ident, HeldObject>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldChain {
    /// Its hook, if it has one that the language knows.
    pub base: Option<Base>,
    /// It has a hook, type or policy that the language does not know: somebody else made or changed it.
    pub strange: bool,
    /// In order.
    pub rules: Vec<HeldRule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldRule {
    /// The kernel's number of the rule; a new one each time it is added.
    pub handle: u64,
    /// Its comment, or empty.
    pub comment: String,
    /// A hash of its expressions without the values of counters. Equal for equal rules on one kernel.
    pub fingerprint: u64,
}

/// A set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldSet {
    /// Its declaration; `None`: it is of a kind that the language does not know, and its elements are not read.
    pub spec: Option<SetSpec>,
    /// Its elements.
    pub elements: BTreeMap<Key, HeldElement>,
}

/// An element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldElement {
    /// What was put there. The timeout is rounded down to the kernel's tick (1 to 10 ms).
    pub value: Value,
    /// Milliseconds until it expires; `None`: it stays.
    pub left_ms: Option<u64>,
    /// Packets counted, in sets with counters.
    pub packets: u64,
    /// Octets counted: IP packets as forwarded, a merged packet's headers once.
    pub bytes: u64,
}

impl Held {
    /// Reads recorded messages ([`super::Kernel::dump`]); `None`: they tell of no table. Malformed messages and what
    /// follows them are left out.
    #[must_use]
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::default();
        for message in Messages(octets) {
            reader.take(&message);
        }
        reader.finish()
    }
}

/// Collects messages in the order table, chains, rules, sets, elements.
#[derive(Debug, Default)]
pub(super) struct Reader {
    held: Option<Held>,
    /// Elements of sets with intervals, paired at the end: the kernel tells starts and ends apart.
    edges: BTreeMap<Ident, Vec<Edge>>,
}

#[derive(Debug)]
struct Edge {
    bits: u128,
    element: Option<HeldElement>,
}

impl Reader {
    pub(super) fn take(&mut self, message: &Message<'_>) {
        let attrs = message.attrs();
        // The table's name is attribute 1 of every kind.
        if message.family() != INET || attrs.text(table::NAME) != Some(TABLE) {
            return;
        }
        match message.nft() {
            Some(msg::NEW_TABLE) => {
                let flags = attrs.u32(table::FLAGS).unwrap_or(0);
                let held = self.held.get_or_insert_default();
                // The kernel takes the first flag away when the owner ends; the second one stays.
                held.owned = flags & (table::OWNER | table::PERSIST) != 0;
                held.dormant = flags & table::DORMANT != 0;
            }
            Some(msg::NEW_CHAIN) => self.chain(attrs),
            Some(msg::NEW_RULE) => self.rule(attrs),
            Some(msg::NEW_SET) => self.set(attrs),
            Some(msg::NEW_ELEMENTS) => self.elements(attrs),
            Some(msg::NEW_OBJECT) => {
                if let (Some(held), Some((name, object))) = (&mut self.held, objects::read(attrs)) {
                    held.objects.insert(name.into(), object);
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(self) -> Option<Held> {
        let mut held = self.held?;
        for (name, edges) in self.edges {
            if let Some(set) = held.sets.get_mut(&name)
                && let Some(SetSpec { key: KeyType::Address(family), .. }) = set.spec
            {
                set.elements = ranges(family, edges);
            }
        }
        Some(held)
    }

    fn chain(&mut self, attrs: Attrs<'_>) {
        let Some((held, name)) = self.held.as_mut().zip(attrs.text(chain::NAME)) else { return };
        let chain = held.chains.entry(Arc::from(name)).or_default();
        if let Some(hook) = attrs.nested(chain::HOOK) {
            chain.base = base(attrs, hook);
            chain.strange = chain.base.is_none();
        }
    }

    fn rule(&mut self, attrs: Attrs<'_>) {
        let Some((held, name)) = self.held.as_mut().zip(attrs.text(rule::CHAIN)) else { return };
        let Some(chain) = held.chains.get_mut(name) else { return };
        chain.rules.push(HeldRule {
            handle: attrs.u64(rule::HANDLE).unwrap_or(0),
            comment: attrs.get(rule::USERDATA).and_then(comment).unwrap_or_default().to_owned(),
            fingerprint: fingerprint(attrs.nested(rule::EXPRESSIONS).unwrap_or(Attrs(&[]))),
        });
    }

    fn set(&mut self, attrs: Attrs<'_>) {
        let Some((held, name)) = self.held.as_mut().zip(attrs.text(set::NAME)) else { return };
        let (set, spec) = (held.sets.entry(Arc::from(name)).or_default(), spec(attrs));
        if set.spec != spec {
            // Elements of another type that came before it are no elements of this one.
            set.elements.clear();
            self.edges.remove(name);
        }
        set.spec = spec;
    }

    fn elements(&mut self, attrs: Attrs<'_>) {
        let Some((held, name)) = self.held.as_mut().zip(attrs.text(list::SET)) else { return };
        let Some((name, set)) = held.sets.get_key_value(name) else { return };
        let (name, Some(spec)) = (name.clone(), set.spec) else { return };
        for (_, one) in attrs.nested(list::ELEMENTS).into_iter().flatten().filter(|(kind, _)| *kind == LIST_ELEM) {
            let one = Attrs(one);
            let Some(key) = one.nested(element::KEY).and_then(|key| key.get(data::VALUE)) else { continue };
            if let (KeyType::Address(family), true) = (spec.key, spec.interval) {
                let Some(address) = address(family, key) else { continue };
                let end = one.u32(element::FLAGS).unwrap_or(0) & element::INTERVAL_END != 0;
                let element = if end { None } else { value(one) };
                if end || element.is_some() {
                    self.edges.entry(name.clone()).or_default().push(Edge { bits: bits(address), element });
                }
            } else if let Some(key) = single(spec.key, key)
                && let Some(element) = value(one)
                && let Some(set) = held.sets.get_mut(&name)
            {
                set.elements.insert(key, element);
            }
        }
    }
}

/// The elements of a message that have marks as keys.
pub(super) fn marked(attrs: Attrs<'_>) -> impl Iterator<Item = (u32, HeldElement)> {
    let list = attrs.nested(list::ELEMENTS).into_iter().flatten().filter(|(kind, _)| *kind == LIST_ELEM);
    list.filter_map(|(_, one)| {
        let one = Attrs(one);
        let key = one.nested(element::KEY)?.get(data::VALUE)?;
        Some((u32::from_ne_bytes(key.try_into().ok()?), value(one)?))
    })
}

fn base(attrs: Attrs<'_>, hook: Attrs<'_>) -> Option<Base> {
    /// `NF_ACCEPT`.
    const ACCEPT: u32 = 1;
    if attrs.u32(chain::POLICY)? != ACCEPT {
        return None;
    }
    let place = match hook.u32(chain::HOOK_NUMBER)? as i32 {
        libc::NF_INET_PRE_ROUTING => Hook::Prerouting,
        libc::NF_INET_LOCAL_IN => Hook::Input,
        libc::NF_INET_FORWARD => Hook::Forward,
        libc::NF_INET_LOCAL_OUT => Hook::Output,
        _ => return None,
    };
    let kind = match attrs.text(chain::TYPE)? {
        "filter" => ChainType::Filter,
        "nat" => ChainType::Nat,
        _ => return None,
    };
    Some(Base { kind, hook: place, priority: hook.u32(chain::HOOK_PRIORITY)? as i32 })
}

fn spec(attrs: Attrs<'_>) -> Option<SetSpec> {
    let flags = attrs.u32(set::FLAGS).unwrap_or(0);
    let key = match attrs.u32(set::KEY_TYPE)? {
        TYPE_MARK => KeyType::Mark,
        TYPE_IPV4 => KeyType::Address(Family::V4),
        TYPE_IPV6 => KeyType::Address(Family::V6),
        TYPE_PORT => KeyType::Port,
        TYPE_MARK_IPV4 => KeyType::MarkAddress(Family::V4),
        TYPE_MARK_IPV6 => KeyType::MarkAddress(Family::V6),
        _ => return None,
    };
    let data = match (flags & set::MAP != 0, attrs.u32(set::DATA_TYPE)) {
        (false, _) => DataType::None,
        (true, Some(TYPE_MARK)) => DataType::Mark,
        (true, Some(set::VERDICT)) => DataType::Verdict,
        (true, _) => return None,
    };
    let interval = flags & set::INTERVAL != 0;
    if flags & !(set::INTERVAL | set::MAP | set::TIMEOUT) != 0 || interval && !matches!(key, KeyType::Address(_)) {
        return None;
    }
    Some(SetSpec {
        key,
        data,
        interval,
        timeout: flags & set::TIMEOUT != 0,
        counter: attrs.nested(set::EXPR).is_some_and(|expr| expr.text(rule::EXPR_NAME) == Some("counter")),
        size: attrs.nested(set::DESC).and_then(|desc| desc.u32(set::DESC_SIZE)),
    })
}

fn value(one: Attrs<'_>) -> Option<HeldElement> {
    let data = match one.nested(element::DATA) {
        None => Data::None,
        Some(data) => match data.nested(data::VERDICT) {
            Some(verdict) => Data::Verdict(self::verdict(verdict)?),
            None => Data::Mark(u32::from_ne_bytes(data.get(data::VALUE)?.try_into().ok()?)),
        },
    };
    let count = one
        .nested(element::EXPR)
        .filter(|expr| expr.text(rule::EXPR_NAME) == Some("counter"))
        .and_then(|expr| expr.nested(rule::EXPR_DATA));
    let number = |kind| count.and_then(|count| count.u64(kind)).unwrap_or(0);
    Some(HeldElement {
        value: Value {
            data,
            timeout_ms: one.u64(element::TIMEOUT).filter(|timeout| *timeout != 0),
            comment: one.get(element::USERDATA).and_then(comment).map(Arc::from),
        },
        left_ms: one.u64(element::EXPIRATION),
        packets: number(counter::PACKETS),
        bytes: number(counter::BYTES),
    })
}

fn verdict(attrs: Attrs<'_>) -> Option<Verdict> {
    let chain = || attrs.text(data::VERDICT_CHAIN).map(Arc::from);
    match attrs.u32(data::VERDICT_CODE)? as i32 {
        verdict::ACCEPT => Some(Verdict::Accept),
        verdict::DROP => Some(Verdict::Drop),
        verdict::RETURN => Some(Verdict::Return),
        verdict::JUMP => chain().map(Verdict::Jump),
        verdict::GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}

fn single(kind: KeyType, octets: &[u8]) -> Option<Key> {
    match kind {
        KeyType::Mark => Some(Key::Mark(u32::from_ne_bytes(octets.try_into().ok()?))),
        KeyType::Port => Some(Key::Port(u16::from_be_bytes(octets.try_into().ok()?))),
        KeyType::Address(family) => address(family, octets).map(Key::Address),
        KeyType::MarkAddress(family) => {
            let (mark, rest) = octets.split_first_chunk::<4>()?;
            Some(Key::MarkAddress(u32::from_ne_bytes(*mark), address(family, rest)?))
        }
    }
}

fn address(family: Family, octets: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(IpAddr::V4(<[u8; 4]>::try_from(octets).ok()?.into())),
        Family::V6 => Some(IpAddr::V6(<[u8; 16]>::try_from(octets).ok()?.into())),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Pairs starts and ends; a start without an end reaches the last address.
fn ranges(family: Family, mut edges: Vec<Edge>) -> BTreeMap<Key, HeldElement> {
    let make = |bits: u128| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    // An end stands before the start of an adjacent range.
    edges.sort_by_key(|edge| (edge.bits, edge.element.is_some()));
    let mut out = BTreeMap::new();
    let mut open: Option<(u128, HeldElement)> = None;
    for edge in edges {
        if let Some((first, element)) = open.take() {
            // Equal only in octets that no kernel wrote.
            let last = edge.bits.saturating_sub(1).max(first);
            out.insert(Key::Range(make(first), make(last)), element);
        }
        open = edge.element.map(|element| (edge.bits, element));
    }
    if let Some((first, element)) = open {
        out.insert(Key::Range(make(first), make(u128::MAX)), element);
    }
    out
}

/// The comment in userdata of a rule or element.
fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == udata::COMMENT {
            return std::str::from_utf8(value.split(|octet| *octet == 0).next()?).ok();
        }
        userdata = &rest[usize::from(*length)..];
    }
    None
}

/// FNV-1a over names and data of the expressions; it only has to notice changes by accident or by another tool.
fn fingerprint(expressions: Attrs<'_>) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = BASIS;
    let mut add = |octets: &[u8]| {
        for octet in octets {
            hash = (hash ^ u64::from(*octet)).wrapping_mul(PRIME);
        }
    };
    for (_, expression) in expressions {
        let expression = Attrs(expression);
        let name = expression.get(rule::EXPR_NAME).unwrap_or_default();
        add(name);
        if name != b"counter\0" {
            add(expression.get(rule::EXPR_DATA).unwrap_or_default());
        }
    }
    hash
}
