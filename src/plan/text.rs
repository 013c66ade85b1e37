//! The table as the text that `nft -f` reads (nft 1.0.6 and later).
//!
//! For people, for the rescue path without the daemon, and as the second opinion about the netlink encoder: a table
//! sent by netlink and its text loaded by `nft` list identically (`tests/nft_encoder.rs`).
//!
//! nft finds the names of protocols in `/etc/protocols` (Debian: package netbase). nft 1.0.6 reads `ct original proto-dst` only behind a `meta l4proto` in the same rule.

use std::fmt::Write;
use std::net::IpAddr;

use super::ir::{
    Action, Base, Chain, ChainType, Cond, Data, DataType, Direction, End, Family, Field, Hook, Key, KeyType, Lookup,
    Object, Op, Rule, Set, SetSpec, States, TABLE, Value, Verdict, proto,
};
use super::ops::Table;

/// Elements are wrapped before this column.
const WIDTH: usize = 110;

/// The names nft has for the state bits, in the order it lists them.
const STATE_NAMES: [(States, &str); 5] = [
    (States::INVALID, "invalid"),
    (States::ESTABLISHED, "established"),
    (States::RELATED, "related"),
    (States::NEW, "new"),
    (States::UNTRACKED, "untracked"),
];

/// The whole table. Loading it into a namespace without the table makes an equal table; it flushes nothing.
#[must_use]
pub fn render(table: &Table) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    let mut first = true;
    for (name, set) in &table.sets {
        separate(&mut out, &mut first);
        set_block(&mut out, name, set);
    }
    for (name, object) in &table.objects {
        separate(&mut out, &mut first);
        object_block(&mut out, name, object);
    }
    for (name, chain) in &table.chains {
        separate(&mut out, &mut first);
        chain_block(&mut out, name, chain);
    }
    out.push_str("}\n");
    out
}

fn separate(out: &mut String, first: &mut bool) {
    if !std::mem::take(first) {
        out.push('\n');
    }
}

fn set_block(out: &mut String, name: &str, set: &Set) {
    let spec = &set.spec;
    let word = if spec.data == DataType::None { "set" } else { "map" };
    put(out, format_args!("\t{word} {name} {{\n\t\ttype {}\n", set_type(spec)));
    if let Some(size) = spec.size {
        put(out, format_args!("\t\tsize {size}\n"));
    }
    match (spec.interval, spec.timeout) {
        (true, true) => out.push_str("\t\tflags interval,timeout\n"),
        (true, false) => out.push_str("\t\tflags interval\n"),
        (false, true) => out.push_str("\t\tflags timeout\n"),
        (false, false) => {}
    }
    if spec.counter {
        out.push_str("\t\tcounter\n");
    }
    if !set.elements.is_empty() {
        elements(out, set);
    }
    out.push_str("\t}\n");
}

fn elements(out: &mut String, set: &Set) {
    const LEAD: &str = "\t\telements = { ";
    const NEXT: &str = "\t\t\t     ";
    out.push_str(LEAD);
    let mut column = 0;
    let mut first = true;
    for (key, value) in &set.elements {
        let text = render_element(key, value);
        if first {
            column = LEAD.len();
        } else if column + text.len() > WIDTH {
            out.push_str(",\n");
            out.push_str(NEXT);
            column = NEXT.len();
        } else {
            out.push_str(", ");
        }
        column += text.len() + 2;
        first = false;
        out.push_str(&text);
    }
    out.push_str(" }\n");
}

/// A set's `type` line: `mark . ipv4_addr : verdict`.
fn set_type(spec: &SetSpec) -> String {
    let key = match spec.key {
        KeyType::Mark => "mark",
        KeyType::Address(Family::V4) => "ipv4_addr",
        KeyType::Address(Family::V6) => "ipv6_addr",
        KeyType::Port => "inet_service",
        KeyType::MarkAddress(Family::V4) => "mark . ipv4_addr",
        KeyType::MarkAddress(Family::V6) => "mark . ipv6_addr",
    };
    match spec.data {
        DataType::None => key.to_owned(),
        DataType::Mark => format!("{key} : mark"),
        DataType::Verdict => format!("{key} : verdict"),
    }
}

/// An element with its timeout, comment and data.
#[must_use]
pub fn render_element(key: &Key, value: &Value) -> String {
    let mut out = render_key(key);
    if let Some(timeout) = value.timeout_ms {
        put(&mut out, format_args!(" timeout {}", duration(timeout)));
    }
    if let Some(comment) = &value.comment {
        put(&mut out, format_args!(" comment \"{comment}\""));
    }
    match &value.data {
        Data::None => {}
        Data::Mark(mark) => put(&mut out, format_args!(" : {mark:#010x}")),
        Data::Verdict(verdict) => put(&mut out, format_args!(" : {}", render_verdict(verdict))),
    }
    out
}

/// A key as nft writes it; a range that is a prefix is written as one, a range of one address as the address.
#[must_use]
pub fn render_key(key: &Key) -> String {
    match key {
        Key::Mark(mark) => format!("{mark:#010x}"),
        Key::Address(address) => address.to_string(),
        Key::Range(first, last) if first == last => first.to_string(),
        Key::Range(first, last) => match prefix_length(*first, *last) {
            Some(length) => format!("{first}/{length}"),
            None => format!("{first}-{last}"),
        },
        Key::Port(port) => port.to_string(),
        Key::MarkAddress(mark, address) => format!("{mark:#010x} . {address}"),
    }
}

/// The length of the prefix that covers exactly `first..=last`.
fn prefix_length(first: IpAddr, last: IpAddr) -> Option<u32> {
    let (low, high, bits) = match (first, last) {
        (IpAddr::V4(low), IpAddr::V4(high)) => (u128::from(low.to_bits()), u128::from(high.to_bits()), 32),
        (IpAddr::V6(low), IpAddr::V6(high)) => (low.to_bits(), high.to_bits(), 128),
        _ => return None,
    };
    let host = low ^ high;
    // The differing bits must be the lowest ones, all zero in the first address and all one in the last.
    let whole = host & host.wrapping_add(1) == 0 && low & host == 0;
    whole.then(|| bits - (u128::BITS - host.leading_zeros()))
}

/// Milliseconds in nft's `1d2h3m4s5ms`; zero parts are left out.
fn duration(milliseconds: u64) -> String {
    let mut out = String::new();
    let mut rest = milliseconds;
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= size {
            put(&mut out, format_args!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

fn object_block(out: &mut String, name: &str, object: &Object) {
    match object {
        Object::Quota { limit, used } => {
            put(out, format_args!("\tquota {name} {{\n\t\tover {limit} bytes"));
            if *used > 0 {
                put(out, format_args!(" used {used} bytes"));
            }
        }
        Object::Counter { packets, bytes } => {
            put(out, format_args!("\tcounter {name} {{\n\t\tpackets {packets} bytes {bytes}"));
        }
    }
    out.push_str("\n\t}\n");
}

fn chain_block(out: &mut String, name: &str, chain: &Chain) {
    put(out, format_args!("\tchain {name} {{\n"));
    if let Some(base) = &chain.base {
        put(out, format_args!("\t\t{}\n", base_line(base)));
    }
    for rule in &chain.rules {
        put(out, format_args!("\t\t{}\n", render_rule(rule)));
    }
    out.push_str("\t}\n");
}

fn base_line(base: &Base) -> String {
    let kind = match base.kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
    };
    format!("type {kind} hook {hook} priority {}; policy accept;", base.priority)
}

/// One rule on one line.
#[must_use]
pub fn render_rule(rule: &Rule) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(rule.conds.iter().map(condition));
    words.extend(rule.actions.iter().map(action));
    if !rule.comment.is_empty() {
        words.push(format!("comment \"{}\"", rule.comment));
    }
    words.join(" ")
}

fn condition(cond: &Cond) -> String {
    match cond {
        Cond::Mark(op, value) => format!("ct mark {}{value:#010x}", operator(*op)),
        Cond::State(states) => format!("ct state {}", state_list(*states)),
        Cond::Direction(direction) => format!("ct direction {}", direction_word(*direction)),
        Cond::Family(family) => format!("meta nfproto {family}"),
        Cond::Proto(number) => format!("meta l4proto {}", protocol(*number)),
        Cond::Iif(name) => format!("iifname \"{name}\""),
        Cond::Oif(name) => format!("oifname \"{name}\""),
        Cond::In { field, set, negate } => {
            format!("{} {}@{set}", field_words(*field), if *negate { "!= " } else { "" })
        }
        Cond::FlowPort(port) => format!("ct original proto-dst {port}"),
        Cond::Dport(port) => format!("th dport {port}"),
        Cond::IcmpType(Family::V4, kind) => format!("icmp type {kind}"),
        Cond::IcmpType(Family::V6, kind) => format!("icmpv6 type {kind}"),
        Cond::NoReversePath => "fib saddr . iif oif missing".to_owned(),
        Cond::DestinationLocal(true) => "fib daddr type local".to_owned(),
        Cond::DestinationLocal(false) => "fib daddr type != local".to_owned(),
        Cond::RouteLeavesBy(name) => format!("fib daddr oifname \"{name}\""),
        Cond::Longer(octets) => format!("meta length > {octets}"),
        Cond::OverQuota(name) => format!("quota name \"{name}\""),
        Cond::OverRate { rate, burst } => format!("limit rate over {rate} bytes/second burst {burst} bytes"),
        Cond::Within { rate, burst } => format!("limit rate {rate}/second burst {burst} packets"),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Counter => "counter".to_owned(),
        Action::CountIn(name) => format!("counter name \"{name}\""),
        Action::Log { group, prefix, snaplen } => {
            format!("log prefix \"{prefix}\" group {group} snaplen {snaplen}")
        }
        Action::SetMark(mark) => format!("ct mark set {mark:#010x}"),
        Action::SetMarkFrom(key, map) => format!("ct mark set {} map @{map}", lookup_words(*key)),
        Action::Vmap(field, map) => format!("{} vmap @{map}", field_words(*field)),
        Action::KeepTracking => "ct zone set 0".to_owned(),
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Dnat(IpAddr::V4(address), port) => format!("dnat ip to {address}:{port}"),
        Action::Dnat(IpAddr::V6(address), port) => format!("dnat ip6 to [{address}]:{port}"),
        Action::Reset => "reject with tcp reset".to_owned(),
        Action::Prohibit => "reject with icmpx admin-prohibited".to_owned(),
        Action::Verdict(verdict) => render_verdict(verdict),
    }
}

/// A verdict as in a rule or a map.
#[must_use]
pub fn render_verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn lookup_words(lookup: Lookup) -> String {
    match lookup {
        Lookup::One(field) => field_words(field).to_owned(),
        Lookup::MarkAnd(field) => format!("ct mark . {}", field_words(field)),
    }
}

fn field_words(field: Field) -> &'static str {
    use Direction::{Original, Reply};
    use End::{Destination, Source};
    match field {
        Field::CtMark => "ct mark",
        Field::Ct(Original, Family::V4, Source) => "ct original ip saddr",
        Field::Ct(Original, Family::V4, Destination) => "ct original ip daddr",
        Field::Ct(Original, Family::V6, Source) => "ct original ip6 saddr",
        Field::Ct(Original, Family::V6, Destination) => "ct original ip6 daddr",
        Field::Ct(Reply, Family::V4, Source) => "ct reply ip saddr",
        Field::Ct(Reply, Family::V4, Destination) => "ct reply ip daddr",
        Field::Ct(Reply, Family::V6, Source) => "ct reply ip6 saddr",
        Field::Ct(Reply, Family::V6, Destination) => "ct reply ip6 daddr",
        Field::CtOriginalPort => "ct original proto-dst",
        Field::Packet(Family::V4, Source) => "ip saddr",
        Field::Packet(Family::V4, Destination) => "ip daddr",
        Field::Packet(Family::V6, Source) => "ip6 saddr",
        Field::Packet(Family::V6, Destination) => "ip6 daddr",
    }
}

fn operator(op: Op) -> &'static str {
    match op {
        Op::Eq => "",
        Op::Ne => "!= ",
        Op::Ge => ">= ",
    }
}

fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Original => "original",
        Direction::Reply => "reply",
    }
}

/// The states by name, bits without a name as numbers.
fn state_list(states: States) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut rest = states.0;
    for (state, name) in STATE_NAMES {
        if rest & state.0 != 0 {
            names.push(name.to_owned());
            rest &= !state.0;
        }
    }
    if rest != 0 || names.is_empty() {
        names.push(format!("{rest:#x}"));
    }
    names.join(",")
}

fn protocol(number: u8) -> String {
    match number {
        proto::ICMP => "icmp".to_owned(),
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::ICMPV6 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}
