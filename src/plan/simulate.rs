//! The table, executed in memory on a packet that is described by values: what the kernel would do.
//!
//! Semantics follow nf_tables: a condition whose field the packet lacks is false; a map without the key ends the rule;
//! `goto` does not come back, `jump` does; a base chain that ends without a verdict accepts.

use std::net::IpAddr;

use super::ir::{
    Action, ChainType, Cond, Data, Direction, End, Family, Field, Hook, Ident, Key, Lookup, Object, Op, Set, States,
    Verdict, proto,
};
use super::ops::Table;

/// One direction of a flow's tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
}

/// What connection tracking knows about the packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// One state bit.
    pub state: States,
    /// The packet's direction.
    pub direction: Direction,
    /// From the side that opened the flow.
    pub original: Tuple,
    /// From the other side.
    pub reply: Tuple,
    /// Destination port of the original direction (TCP, UDP).
    pub port: u16,
    /// The mark.
    pub mark: u32,
}

/// A packet as a hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Incoming interface.
    pub iif: String,
    /// Outgoing interface, once routed.
    pub oif: Option<String>,
    /// Sender and receiver in the packet's header.
    pub tuple: Tuple,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port in the header (TCP, UDP).
    pub dport: u16,
    /// ICMP type in the header.
    pub icmp_type: u8,
    /// Octets of the IP packet.
    pub length: u32,
    /// Tracking; `None`: untracked (or invalid).
    pub tracked: Option<Tracked>,
    /// Whether a route back to the sender leaves by `iif`.
    pub reverse_path: bool,
    /// Whether the receiver is this machine.
    pub to_us: bool,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: Ending,
    /// The chain that refused it (`b_…`), if one did.
    pub refused_by: Option<Ident>,
    /// The mark its flow has now.
    pub mark: u32,
    /// The prefixes of the copies that were logged.
    pub logged: Vec<Ident>,
}

/// The ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Passed.
    Accept,
    /// Dropped without a word.
    Drop,
    /// TCP reset.
    Reset,
    /// ICMP administratively prohibited.
    Prohibit,
    /// Destination rewritten to our DNS.
    ToOurDns(u16),
}

/// Runs all chains of `hook` on the packet, in order of priority, until one ends it.
#[must_use]
pub fn run(table: &Table, hook: Hook, packet: &Packet) -> Outcome {
    let mut walk =
        Walk { table, packet, mark: packet.tracked.map_or(0, |t| t.mark), refused_by: None, logged: Vec::new() };
    let first = packet.tracked.is_some_and(|t| t.state == States::NEW && t.direction == Direction::Original);
    let mut bases: Vec<_> = table
        .chains
        .iter()
        .filter_map(|(name, chain)| Some((chain.base?, name)))
        .filter(|(base, _)| base.hook == hook && (base.kind == ChainType::Filter || first))
        .collect();
    bases.sort_by_key(|(base, _)| base.priority);
    let mut end = Ending::Accept;
    for (_, name) in bases {
        if let Some(ending) = walk.chain(name)
            && ending != Ending::Accept
        {
            end = ending;
            break;
        }
    }
    Outcome { end, refused_by: walk.refused_by, mark: walk.mark, logged: walk.logged }
}

struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet,
    mark: u32,
    refused_by: Option<Ident>,
    logged: Vec<Ident>,
}

/// What a rule leads to.
enum Step {
    Next,
    Return,
    End(Ending),
    Jump(Ident),
    Goto(Ident),
}

impl Walk<'_> {
    /// `None`: the end of the chain was reached (or `return`).
    fn chain(&mut self, name: &Ident) -> Option<Ending> {
        if name.starts_with("b_") {
            self.refused_by = Some(name.clone());
        }
        let chain = self.table.chains.get(name)?;
        for rule in &chain.rules {
            if !rule.conds.iter().all(|cond| self.holds(cond)) {
                continue;
            }
            match self.actions(&rule.actions) {
                Step::Next => {}
                Step::Return => return None,
                Step::End(ending) => return Some(ending),
                Step::Goto(to) => return self.chain(&to),
                Step::Jump(to) => {
                    if let Some(ending) = self.chain(&to) {
                        return Some(ending);
                    }
                }
            }
        }
        None
    }

    fn actions(&mut self, actions: &[Action]) -> Step {
        for action in actions {
            match action {
                Action::Counter | Action::CountIn(_) | Action::KeepTracking => {}
                Action::Log { prefix, .. } => self.logged.push(prefix.clone()),
                Action::SetMark(mark) => self.mark = *mark,
                Action::SetMarkFrom(lookup, map) => {
                    let key = match lookup {
                        Lookup::One(field) => self.key(*field),
                        Lookup::MarkAnd(field) => self.address(*field).map(|a| Key::MarkAddress(self.mark, a)),
                    };
                    match key.and_then(|key| find(self.table.sets.get(map)?, key)) {
                        Some(Data::Mark(mark)) => self.mark = mark,
                        _ => return Step::Next,
                    }
                }
                Action::Vmap(field, map) => {
                    match self.key(*field).and_then(|key| find(self.table.sets.get(map)?, key)) {
                        Some(Data::Verdict(verdict)) => return step(&verdict),
                        _ => return Step::Next,
                    }
                }
                Action::Redirect(port) | Action::Dnat(_, port) => return Step::End(Ending::ToOurDns(*port)),
                Action::Reset => return Step::End(Ending::Reset),
                Action::Prohibit => return Step::End(Ending::Prohibit),
                Action::Verdict(verdict) => return step(verdict),
            }
        }
        Step::Next
    }

    fn holds(&self, cond: &Cond) -> bool {
        let packet = self.packet;
        match cond {
            Cond::Mark(op, value) => packet.tracked.is_some() && compare(self.mark, *op, *value),
            Cond::State(states) => {
                let state = packet.tracked.map_or(States::INVALID, |t| t.state);
                state.0 & states.0 != 0
            }
            Cond::Direction(direction) => packet.tracked.is_some_and(|t| t.direction == *direction),
            Cond::Family(family) => Family::of(packet.tuple.source) == *family,
            Cond::Proto(number) => packet.protocol == *number,
            Cond::Iif(name) => packet.iif == **name,
            Cond::Oif(name) | Cond::RouteLeavesBy(name) => packet.oif.as_deref() == Some(name),
            Cond::In { field, set, negate } => match self.key(*field) {
                Some(key) => self.table.sets.get(set).is_some_and(|set| find(set, key).is_some() != *negate),
                None => false,
            },
            Cond::FlowPort(port) => packet.tracked.is_some_and(|t| t.port == *port),
            Cond::Dport(port) => matches!(packet.protocol, proto::TCP | proto::UDP) && packet.dport == *port,
            Cond::IcmpType(family, kind) => Family::of(packet.tuple.source) == *family && packet.icmp_type == *kind,
            Cond::NoReversePath => !packet.reverse_path,
            Cond::DestinationLocal(local) => packet.to_us == *local,
            Cond::Longer(octets) => packet.length > *octets,
            Cond::OverQuota(name) => match self.table.objects.get(name) {
                Some(Object::Quota { limit, used }) => used + u64::from(packet.length) > *limit,
                _ => false,
            },
            // One packet finds a full bucket.
            Cond::OverRate { rate, burst } => u64::from(packet.length) > rate + u64::from(*burst),
            // One packet by itself is never too many.
            Cond::Within { rate, burst } => rate.max(burst) > &0,
        }
    }

    fn key(&self, field: Field) -> Option<Key> {
        match field {
            Field::CtMark => self.packet.tracked.map(|_| Key::Mark(self.mark)),
            Field::CtOriginalPort => self.packet.tracked.map(|t| Key::Port(t.port)),
            Field::Ct(..) | Field::Packet(..) => self.address(field).map(Key::Address),
        }
    }

    fn address(&self, field: Field) -> Option<IpAddr> {
        let (tuple, family, end) = match field {
            Field::Packet(family, end) => (self.packet.tuple, family, end),
            Field::Ct(Direction::Original, family, end) => (self.packet.tracked?.original, family, end),
            Field::Ct(Direction::Reply, family, end) => (self.packet.tracked?.reply, family, end),
            Field::CtMark | Field::CtOriginalPort => return None,
        };
        let address = match end {
            End::Source => tuple.source,
            End::Destination => tuple.destination,
        };
        (Family::of(address) == family).then_some(address)
    }
}

fn step(verdict: &Verdict) -> Step {
    match verdict {
        Verdict::Accept => Step::End(Ending::Accept),
        Verdict::Drop => Step::End(Ending::Drop),
        Verdict::Return => Step::Return,
        Verdict::Jump(to) => Step::Jump(to.clone()),
        Verdict::Goto(to) => Step::Goto(to.clone()),
    }
}

fn compare(left: u32, op: Op, right: u32) -> bool {
    match op {
        Op::Eq => left == right,
        Op::Ne => left != right,
        Op::Ge => left >= right,
    }
}

/// Looks a key up; an address is looked up among ranges where the set has intervals.
fn find(set: &Set, key: Key) -> Option<Data> {
    let value = match key {
        Key::Address(address) if set.spec.interval => {
            let top = match address {
                IpAddr::V4(_) => IpAddr::from([255; 4]),
                IpAddr::V6(_) => IpAddr::from([255; 16]),
            };
            let (range, value) = set.elements.range(..=Key::Range(address, top)).next_back()?;
            match range {
                Key::Range(first, last) if *first <= address && address <= *last => value,
                _ => return None,
            }
        }
        key => set.elements.get(&key)?,
    };
    Some(value.data.clone())
}
