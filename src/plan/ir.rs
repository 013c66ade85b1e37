//! The language of the table: exactly what the gateway needs of nf_tables, and nothing else.
//!
//! Three readers share it: [`super::text`] (the form `nft` reads), the netlink encoder in the nft driver, and
//! [`super::simulate`]. A construct is added here only together with all three.

use std::net::IpAddr;
use std::sync::Arc;

pub use super::elements::Elements;
pub use super::object::{Object, ObjectKind};

/// The name of the table; its family is `inet`.
pub const TABLE: &str = "clawgress";

/// Connection marks from here up are classes (bit 31 set); below are host ids, used while a packet is judged.
pub const CLASS_BASE: u32 = 0x8000_0000;

/// A short name that the kernel sees: a chain, set or map (at most 31 octets, `[a-z0-9_]`).
pub type Ident = Arc<str>;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `4` or `6`, as names of chains and sets end.
    pub fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// One end of a packet or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `saddr`.
    Source,
    /// `daddr`.
    Destination,
}

/// Direction of a packet within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the side that opened the flow.
    Original,
    /// From the other side.
    Reply,
}

/// What a rule can load and compare or look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `ct mark`.
    CtMark,
    /// `ct original|reply ip|ip6 saddr|daddr`: an end of the flow's tuple, whatever the packet's direction or NAT.
    Ct(Direction, Family, End),
    /// `ct original proto-dst`: the destination port of the flow.
    CtOriginalPort,
    /// `ip|ip6 saddr|daddr`: an end of the packet itself.
    Packet(Family, End),
}

/// Comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// At least (unsigned).
    Ge,
}

/// Connection tracking states as bits (`NF_CT_STATE_*`, linux/netfilter/nf_conntrack_common.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct States(pub u32);

impl States {
    /// `invalid`.
    pub const INVALID: States = States(1);
    /// `established`.
    pub const ESTABLISHED: States = States(2);
    /// `related`.
    pub const RELATED: States = States(4);
    /// `new`.
    pub const NEW: States = States(8);
    /// `untracked`.
    pub const UNTRACKED: States = States(64);

    /// Either of the two.
    pub const fn or(self, other: States) -> States {
        States(self.0 | other.0)
    }
}

/// A condition. A field that a packet does not have (`ct` of an untracked packet, the other family's address, a map
/// without the key) makes the condition false, as the kernel's `NFT_BREAK` does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cond {
    /// `ct mark OP value`.
    Mark(Op, u32),
    /// `ct state a,b`: any of the states.
    State(States),
    /// `ct direction`.
    Direction(Direction),
    /// `meta nfproto`.
    Family(Family),
    /// `meta l4proto N` (IANA protocol number).
    Proto(u8),
    /// `iifname "…"`.
    Iif(Ident),
    /// `oifname "…"`.
    Oif(Ident),
    /// `FIELD @set`, or `FIELD != @set`.
    In {
        /// What is looked up.
        field: Field,
        /// In which set.
        set: Ident,
        /// True: the condition holds when the set lacks it.
        negate: bool,
    },
    /// `ct original proto-dst N`.
    FlowPort(u16),
    /// `th dport N` of a TCP or UDP packet (a `Proto` condition stands before it).
    Dport(u16),
    /// `icmp type N` / `icmpv6 type N` (a `Proto` condition stands before it).
    IcmpType(Family, u8),
    /// `fib saddr . iif oif missing`: no route back to the source by the interface it came from.
    NoReversePath,
    /// `fib daddr type local`, or `!= local`: the destination is an address of this machine.
    DestinationLocal(bool),
    /// `fib daddr oifname "…"`: the route to the destination leaves by this interface.
    RouteLeavesBy(Ident),
    /// `meta length > N`: the IP packet has more octets. A packet that the network card merged counts as one.
    Longer(u32),
    /// `quota name "…"`: charges the packet to the quota, and holds if the quota is over with it.
    OverQuota(Ident),
    /// `limit rate over N bytes/second burst M bytes`: the packet finds too few tokens in this rule's bucket. The bucket
    /// holds the tokens of one second and of the burst.
    OverRate {
        /// Octets of IP packets per second. Never 0.
        rate: u64,
        /// Octets besides.
        burst: u32,
    },
    /// `limit rate N/second burst M packets`: holds for so many packets and not for those beyond. Asked only where the
    /// conditions before it hold.
    Within {
        /// Packets a second.
        rate: u32,
        /// Packets at once, after a pause.
        burst: u32,
    },
}

/// A key that is looked up before an action: one field, or mark and flow address together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// A single field.
    One(Field),
    /// `ct mark . FIELD`.
    MarkAnd(Field),
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// This hook is done with the packet; others still see it.
    Accept,
    /// Gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Into a chain, and back at its end.
    Jump(Ident),
    /// Into a chain, for good.
    Goto(Ident),
}

/// What a rule does once its conditions hold. At most one action ends the rule, and it stands last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `counter`.
    Counter,
    /// `counter name "…"`.
    CountIn(Ident),
    /// `log prefix "…" group N snaplen M`: a copy of the packet's beginning goes to whoever listens to the group; if
    /// nobody does, nothing happens.
    Log {
        /// The NFLOG group.
        group: u16,
        /// What comes with the copy: at most 127 octets of printable ASCII without `"`.
        prefix: Ident,
        /// Octets copied, from the network header on.
        snaplen: u32,
    },
    /// `ct mark set N`.
    SetMark(u32),
    /// `ct mark set KEY map @map`; a missing key ends the rule without effect.
    SetMarkFrom(Lookup, Ident),
    /// `FIELD vmap @map`; a missing key ends the rule without effect.
    Vmap(Field, Ident),
    /// `ct zone set 0`: attaches a tracking template, so that a later `notrack` has no effect.
    KeepTracking,
    /// `redirect to :port` (nat chains only).
    Redirect(u16),
    /// `dnat ip|ip6 to address:port` (nat chains only).
    Dnat(IpAddr, u16),
    /// `reject with tcp reset`.
    Reset,
    /// `reject with icmpx admin-prohibited`.
    Prohibit,
    /// A plain verdict.
    Verdict(Verdict),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// All must hold.
    pub conds: Vec<Cond>,
    /// Done in order.
    pub actions: Vec<Action>,
    /// The policy line or the reason; at most 127 octets of printable ASCII without `"`.
    pub comment: String,
}

/// Where a base chain hooks into the stack; all are of family `inet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `prerouting`.
    Prerouting,
    /// `input`.
    Input,
    /// `forward`.
    Forward,
    /// `output`.
    Output,
}

/// The kind of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainType {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each flow.
    Nat,
}

/// A base chain's place. Its policy is always `accept`: what the table is not about, it does not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// Filter or nat.
    pub kind: ChainType,
    /// Which hook.
    pub hook: Hook,
    /// Priority: lower is earlier.
    pub priority: i32,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// `None`: reached by jump or goto only.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// The type of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `mark`.
    Mark,
    /// `ipv4_addr` or `ipv6_addr`.
    Address(Family),
    /// `inet_service`.
    Port,
    /// `mark . ipv4_addr` or `mark . ipv6_addr`.
    MarkAddress(Family),
}

/// What a map gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// A plain set.
    None,
    /// `mark`.
    Mark,
    /// `verdict`.
    Verdict,
}

/// The declaration of a set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// Type of the keys.
    pub key: KeyType,
    /// What a look-up gives.
    pub data: DataType,
    /// `flags interval`: keys are ranges (disjoint). Only for address keys.
    pub interval: bool,
    /// `flags timeout`: elements may have one.
    pub timeout: bool,
    /// Every element counts packets and bytes.
    pub counter: bool,
    /// The most elements it can hold; `None`: the kernel's default (no limit).
    pub size: Option<u32>,
}

impl SetSpec {
    /// Another content is another set: its name holds a digest of what is in it, and once that is all there it never
    /// changes. So are sets of ranges (see [`super::ops`]), and sets made for a certain number of elements.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.interval || (self.size.is_some() && !self.timeout)
    }
}

/// The key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A mark.
    Mark(u32),
    /// One address, in a set without intervals.
    Address(IpAddr),
    /// First and last address (inclusive, same family), in a set with intervals.
    Range(IpAddr, IpAddr),
    /// A port.
    Port(u16),
    /// Mark and address.
    MarkAddress(u32, IpAddr),
}

/// What an element gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: a plain set.
    None,
    /// A mark.
    Mark(u32),
    /// A verdict.
    Verdict(Verdict),
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The data of a map element.
    pub data: Data,
    /// Milliseconds from now; `None`: stays.
    pub timeout_ms: Option<u64>,
    /// For people who list the table, and for a daemon that starts again; at most 200 octets, no `"`.
    pub comment: Option<Arc<str>>,
}

impl Value {
    /// A value that stays, without a comment.
    pub fn plain(data: Data) -> Self {
        Self { data, timeout_ms: None, comment: None }
    }
}

/// A set or map with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The declaration.
    pub spec: SetSpec,
    /// The elements.
    pub elements: Elements,
}

/// IANA protocol numbers that the table tells apart.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}
