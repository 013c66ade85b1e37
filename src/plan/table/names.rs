//! Every name the kernel sees is made here.

use super::super::ir::{Direction, Family, Ident};
use crate::plan::ids::HostId;
use crate::plan::meter::{CapCounters, CapId};

/// Chains, sets and maps with fixed names.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

fixed! {
    /// Base chain: forwarded packets.
    FORWARD = "forward";
    /// Base chain: packets to the gateway itself.
    INPUT = "input";
    /// Base chain (nat): first packets; spoofed sources out, port 53 to our DNS.
    PREROUTING = "prerouting";
    /// Base chain: holds tracking on where another table switches it off.
    TRACK_IN = "track_in";
    /// The same for our own answers.
    TRACK_OUT = "track_out";
    /// Packets of flows that have a class.
    KNOWN = "known";
    /// Packets that a source in scope sends.
    EGRESS = "egress";
    /// Packets towards a source in scope.
    INGRESS = "ingress";
    /// Replies that a source in scope sends to somebody outside the scope.
    INBOUND = "inbound";
    /// First packets, and packets of flows whose class is gone.
    CLASSIFY = "classify";
    /// What a host may use of the gateway itself.
    GATEWAY = "gateway";
    /// `allow.ips` covers the address; see [`open`].
    OPEN = "open";
    /// The end of refused packets.
    DENY = "deny";
    /// Host ids with names as comments, for a daemon that starts again.
    HOSTS = "hosts";
    /// Host id to the class of its `allow.ips` flows.
    NET_CLASS = "net_class";
    /// Class to verdict, packets from the side that opened the flow.
    UP = "up";
    /// Class to verdict, packets from the other side.
    DOWN = "down";
    /// The end of packets that are accepted behind the limits and checks of their class: it counts them.
    SENT = "sent";
    /// Class to "accept": packets of the side that opened the flow, behind the limits and checks of their class.
    SENT_UP = "sent_up";
    /// The same for packets from the other side.
    SENT_DOWN = "sent_down";
    /// Host id to the class of flows that `allow.ips` lets somebody open to it.
    INBOUND_CLASS = "inbound_class";
    /// Host id to the class of what would have been refused, where nothing is enforced.
    MONITOR_CLASS = "monitor_class";
    /// Source to that class; with a family.
    MONITORED = "monitored";
    /// The same sources, for packets that belong to no flow; with a family.
    UNTRACKED = "monitored_raw";
    /// The end of packets that are refused for real.
    REFUSE = "refuse";
    /// How the sets and maps of charged addresses begin.
    CAPPED = "capped";
    /// How the chains of meters begin.
    METER = "meter_";
    /// How the objects of caps begin.
    CAP = "cap_";
}

/// A name with a family at its end, such as `host4`.
pub fn of(stem: &str, family: Family) -> Ident {
    Ident::from(format!("{stem}{}", family.digit()))
}

/// The set of that name in a table; interval sets have a digest behind it.
pub fn find<'t, T>(sets: &'t std::collections::BTreeMap<Ident, T>, stem: &str) -> Option<&'t T> {
    sets.get(stem).or_else(|| {
        let (name, set) = sets.range(Ident::from(format!("{stem}."))..).next()?;
        (name.strip_prefix(stem)?.starts_with('.')).then_some(set)
    })
}

/// Whose list a set or chain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The built-in default.
    Default,
    /// The policy's top level.
    Global,
    /// A host.
    Host(HostId),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Global => f.write_str("global"),
            Self::Host(id) => write!(f, "h{}", id.0),
        }
    }
}

/// `view4_h7`: what one host (or the top level) may reach.
pub fn view(family: Family, owner: Owner) -> Ident {
    Ident::from(format!("view{}_{owner}", family.digit()))
}

/// `guard4_h7`: the part of a view that only refuses.
pub fn guard(family: Family, owner: Owner) -> Ident {
    Ident::from(format!("guard{}_{owner}", family.digit()))
}

/// `reply4_h7`: the view of answers to flows that were opened from outside.
pub fn reply_view(family: Family, owner: Owner) -> Ident {
    Ident::from(format!("reply{}_{owner}", family.digit()))
}

/// `recheck_h7`: live flows of a host whose rules changed.
pub fn recheck(id: HostId) -> Ident {
    Ident::from(format!("recheck_h{}", id.0))
}

/// `sources4_h7`: the sources of one host.
pub fn sources_of(family: Family, id: HostId) -> Ident {
    Ident::from(format!("sources{}_h{}", family.digit(), id.0))
}

/// `recheck4_h7`.
pub fn recheck_of(family: Family, id: HostId) -> Ident {
    Ident::from(format!("recheck{}_h{}", family.digit(), id.0))
}

/// `protocols4_h7`: what comes back from it may be judged by address; the rest is refused in it.
pub fn protocols(family: Family, owner: Owner) -> Ident {
    Ident::from(format!("protocols{}_{owner}", family.digit()))
}

/// `rate_h7`: a bucket.
pub fn rate(owner: Owner) -> Ident {
    Ident::from(format!("rate_{owner}"))
}

/// `cap_12`: the quota of a cap.
pub fn cap(id: CapId) -> Ident {
    Ident::from(format!("{CAP}{}", id.0))
}

/// `cap_12_rest`: the quota of what comes beyond the first.
pub fn rest(id: CapId) -> Ident {
    Ident::from(format!("{CAP}{}_rest", id.0))
}

/// The number in the name of a cap's object.
pub fn read_cap(name: &str) -> Option<CapId> {
    let number = name.strip_prefix(CAP)?;
    number.split('_').next()?.parse().ok().map(CapId)
}

/// The counters of a cap; see [`CapCounters`]. The kernel dumps objects in the order in which they were made, which is that
/// of their names, so the names are in the order of [`CapCounters::into_array`].
pub fn cap_counters(id: CapId) -> CapCounters<Ident> {
    let name = |what: &str| Ident::from(format!("{CAP}{}_{what}", id.0));
    CapCounters {
        passed: name("passed"),
        spilled: name("blocked"),
        over: name("over"),
        merged4: name("split4"),
        merged6: name("split6"),
    }
}

/// `over_12`: packets beyond the first limit of a cap.
pub fn over(id: CapId) -> Ident {
    Ident::from(format!("over_{}", id.0))
}

/// `meter_…_o1`: the same for a cap that is charged behind others.
pub fn over_behind(meter: &str, index: usize) -> Ident {
    Ident::from(format!("{meter}_o{index}"))
}

/// `stop_12`: packets beyond both limits of a cap.
pub fn stop(id: CapId) -> Ident {
    Ident::from(format!("stop_{}", id.0))
}

/// The end of a meter for packets that are several in one.
pub fn merged(meter: &str) -> Ident {
    Ident::from(format!("{meter}_m"))
}

/// `open4`, `open4_h7`: `allow.ips` covers the peer; `open_reply4` where the peer opened the flow.
pub fn open(family: Family, agent: Direction, host: Option<HostId>) -> Ident {
    let reply = if agent == Direction::Reply { "_reply" } else { "" };
    let of = host.map_or_else(String::new, |id| format!("_h{}", id.0));
    Ident::from(format!("{OPEN}{reply}{}{of}", family.digit()))
}

/// `capped4_h7`: addresses in `allow.ips` that caps of the host are charged for; `capped_in…`: of peers that open flows.
pub fn capped(family: Family, inbound: bool, host: HostId) -> Ident {
    Ident::from(format!("{CAPPED}{}{}_h{}", if inbound { "_in" } else { "" }, family.digit(), host.0))
}

/// `cappedclass4_h7`: those addresses to their classes.
pub fn capped_class(family: Family, inbound: bool, host: HostId) -> Ident {
    Ident::from(format!("{CAPPED}class{}{}_h{}", if inbound { "_in" } else { "" }, family.digit(), host.0))
}

/// Whether somebody outside opens the flow, and the host, in [`capped_class`].
pub fn read_capped_class(name: &str) -> Option<(bool, HostId)> {
    let (kind, host) = name.strip_prefix(CAPPED)?.strip_prefix("class")?.split_once("_h")?;
    Some((kind.starts_with("_in"), HostId(host.parse().ok()?)))
}

/// `ports_h7`.
pub fn ports(owner: Owner) -> Ident {
    Ident::from(format!("ports_{owner}"))
}

/// `allow4_h7` (single addresses) or `allow4n_h7` (networks); `deny…` likewise.
pub fn addresses(list: &str, family: Family, networks: bool, owner: Owner) -> Ident {
    Ident::from(format!("{list}{}{}_{owner}", family.digit(), if networks { "n" } else { "" }))
}
