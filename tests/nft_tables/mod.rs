//! Tables to try: one with every construct of the language, and random ones.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod random;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use clawgress::plan::ir::{
    Action, Base, Chain, ChainType, Cond, Data, DataType, Direction, End, Family, Field, Hook, Ident, Key, KeyType,
    Lookup, Object, Op, Rule, Set, SetSpec, States, Value, Verdict, proto,
};
use clawgress::plan::ops::{self, Table};

pub const KEYS: [KeyType; 6] = [
    KeyType::Mark,
    KeyType::Address(Family::V4),
    KeyType::Address(Family::V6),
    KeyType::Port,
    KeyType::MarkAddress(Family::V4),
    KeyType::MarkAddress(Family::V6),
];
/// A plain chain that is always there, to jump to.
pub const LEAF: &str = "leaf";
/// A quota and a counter that are always there.
pub const QUOTA: &str = "spent";
pub const COUNTER: &str = "passed";

pub fn ident(name: &str) -> Ident {
    Arc::from(name)
}

pub fn rule(conds: Vec<Cond>, actions: Vec<Action>) -> Rule {
    Rule { conds, actions, comment: String::new() }
}

/// The transaction that makes a table from nothing.
pub fn from_nothing(table: &Table) -> Vec<ops::Op> {
    let all = ops::diff(&Table::default(), table).into_ops();
    std::iter::once(ops::Op::AddTable).chain(all).collect()
}

pub fn at(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The name of the set of that type: rules need one of each.
pub fn set_name(key: KeyType, data: DataType, interval: bool) -> Ident {
    let key = match key {
        KeyType::Mark => "mark",
        KeyType::Address(Family::V4) => "a4",
        KeyType::Address(Family::V6) => "a6",
        KeyType::Port => "port",
        KeyType::MarkAddress(Family::V4) => "ma4",
        KeyType::MarkAddress(Family::V6) => "ma6",
    };
    let data = match data {
        DataType::None => "set",
        DataType::Mark => "tomark",
        DataType::Verdict => "verdict",
    };
    Arc::from(format!("{key}_{data}{}", if interval { "_i" } else { "" }))
}

/// One set of each type.
pub fn types() -> Vec<(KeyType, DataType, bool)> {
    let mut all = Vec::new();
    for key in KEYS {
        for data in [DataType::None, DataType::Mark, DataType::Verdict] {
            all.push((key, data, false));
            if matches!(key, KeyType::Address(_)) {
                all.push((key, data, true));
            }
        }
    }
    all
}

pub fn key_of(field: Field) -> KeyType {
    match field {
        Field::CtMark => KeyType::Mark,
        Field::Ct(_, family, _) | Field::Packet(family, _) => KeyType::Address(family),
        Field::CtOriginalPort => KeyType::Port,
    }
}

fn fields() -> Vec<Field> {
    let mut all = vec![Field::CtMark, Field::CtOriginalPort];
    for family in Family::BOTH {
        for end in [End::Source, End::Destination] {
            all.push(Field::Packet(family, end));
            all.push(Field::Ct(Direction::Original, family, end));
            all.push(Field::Ct(Direction::Reply, family, end));
        }
    }
    all
}

/// Behind a protocol where nft's text needs one.
pub fn with_protocol(cond: Cond) -> Vec<Cond> {
    match cond {
        Cond::IcmpType(Family::V4, _) => vec![Cond::Proto(proto::ICMP), cond],
        Cond::IcmpType(Family::V6, _) => vec![Cond::Proto(proto::ICMPV6), cond],
        Cond::FlowPort(_) | Cond::Dport(_) | Cond::In { field: Field::CtOriginalPort, .. } => {
            vec![Cond::Proto(proto::UDP), cond]
        }
        cond => vec![cond],
    }
}

pub fn all_conditions() -> Vec<Cond> {
    let mut all = vec![
        Cond::Mark(Op::Eq, 0),
        Cond::Mark(Op::Ne, 7),
        Cond::Mark(Op::Ge, 0x8000_0001),
        Cond::State(States::NEW.or(States::ESTABLISHED)),
        Cond::State(States::INVALID.or(States::UNTRACKED)),
        Cond::State(States::RELATED),
        Cond::Direction(Direction::Original),
        Cond::Direction(Direction::Reply),
        Cond::Family(Family::V4),
        Cond::Family(Family::V6),
        Cond::Proto(proto::TCP),
        Cond::Proto(proto::ICMPV6),
        Cond::Proto(47),
        Cond::Iif(ident("lan0.4000")),
        Cond::Oif(ident("fifteen_octets_")),
        Cond::FlowPort(443),
        Cond::Dport(53),
        Cond::IcmpType(Family::V4, 8),
        Cond::IcmpType(Family::V6, 135),
        Cond::NoReversePath,
        Cond::DestinationLocal(true),
        Cond::DestinationLocal(false),
        Cond::RouteLeavesBy(ident("wan0")),
        Cond::Longer(1500),
        Cond::OverQuota(ident(QUOTA)),
        Cond::OverRate { rate: 125_000, burst: 64_000 },
        Cond::OverRate { rate: 1, burst: 0 },
        Cond::Within { rate: 1, burst: 1 },
        Cond::Within { rate: 100_000, burst: 7 },
    ];
    for field in fields() {
        for negate in [false, true] {
            all.push(Cond::In { field, set: set_name(key_of(field), DataType::None, false), negate });
            if let KeyType::Address(_) = key_of(field) {
                all.push(Cond::In { field, set: set_name(key_of(field), DataType::None, true), negate });
            }
        }
    }
    all
}

pub fn all_actions() -> Vec<Action> {
    let mut all = vec![
        Action::Counter,
        Action::CountIn(ident(COUNTER)),
        Action::Log { group: 0, prefix: ident("p"), snaplen: 1 },
        Action::Log { group: u16::MAX, prefix: ident("a prefix, of/words"), snaplen: 128 },
        Action::SetMark(0x8000_1234),
        Action::KeepTracking,
        Action::Reset,
        Action::Prohibit,
        Action::Verdict(Verdict::Accept),
        Action::Verdict(Verdict::Drop),
        Action::Verdict(Verdict::Return),
        Action::Verdict(Verdict::Jump(ident(LEAF))),
        Action::Verdict(Verdict::Goto(ident(LEAF))),
    ];
    for field in fields().into_iter().filter(|field| *field != Field::CtOriginalPort) {
        let key = key_of(field);
        all.push(Action::Vmap(field, set_name(key, DataType::Verdict, false)));
        all.push(Action::SetMarkFrom(Lookup::One(field), set_name(key, DataType::Mark, false)));
        if let KeyType::Address(family) = key {
            all.push(Action::Vmap(field, set_name(key, DataType::Verdict, true)));
            all.push(Action::SetMarkFrom(Lookup::One(field), set_name(key, DataType::Mark, true)));
            let both = set_name(KeyType::MarkAddress(family), DataType::Mark, false);
            all.push(Action::SetMarkFrom(Lookup::MarkAnd(field), both));
        }
    }
    all
}

pub fn nat_chain() -> Chain {
    let rules = vec![
        rule(vec![Cond::Proto(proto::UDP), Cond::Dport(53)], vec![Action::Redirect(5353)]),
        rule(vec![Cond::Proto(proto::TCP)], vec![Action::Dnat(at("192.0.2.1"), 53)]),
        rule(vec![Cond::Proto(proto::UDP)], vec![Action::Dnat(at("2001:db8::1"), 53)]),
    ];
    Chain { base: Some(Base { kind: ChainType::Nat, hook: Hook::Prerouting, priority: -105 }), rules }
}

fn plain_spec(key: KeyType, data: DataType, interval: bool) -> SetSpec {
    SetSpec { key, data, interval, timeout: false, counter: false, size: None }
}

/// One table with every condition, action, key and data type there is.
pub fn everything() -> Table {
    let mut table = Table::default();
    for (key, data, interval) in types() {
        let set = Set { spec: plain_spec(key, data, interval), elements: some_elements(key, data, interval).into() };
        table.sets.insert(set_name(key, data, interval), set);
    }
    let spec = SetSpec {
        timeout: true,
        counter: true,
        size: Some(1 << 20),
        ..plain_spec(KeyType::Mark, DataType::Verdict, false)
    };
    let value = |data, timeout_ms| Value { data, timeout_ms, comment: Some(Arc::from("host=builder 1; ~x@y")) };
    let elements = BTreeMap::from([
        (Key::Mark(0x8000_0000), value(Data::Verdict(Verdict::Jump(ident(LEAF))), Some(90_061_004))),
        (Key::Mark(u32::MAX), value(Data::Verdict(Verdict::Goto(ident(LEAF))), None)),
    ]);
    table.sets.insert(ident("registry"), Set { spec, elements: elements.into() });
    // 31 octets, the longest name.
    let small = Set { spec: SetSpec { size: Some(16), ..spec }, elements: Default::default() };
    table.sets.insert(ident("a_name_of_thirty_one_octets_abc"), small);

    table.objects.insert(ident(QUOTA), Object::Quota { limit: 5_000_000_000, used: 7 });
    table.objects.insert(ident("unused"), Object::Quota { limit: 0, used: 0 });
    table.objects.insert(ident(COUNTER), Object::Counter { packets: 3, bytes: 1 << 40 });

    let mut rules: Vec<Rule> = all_conditions()
        .into_iter()
        .map(|cond| rule(with_protocol(cond), vec![Action::Counter, Action::Verdict(Verdict::Accept)]))
        .collect();
    rules.extend(all_actions().into_iter().map(|action| match action {
        Action::Reset => rule(vec![Cond::Proto(proto::TCP)], vec![action]),
        action => rule(vec![Cond::Mark(Op::Eq, 1)], vec![action]),
    }));
    rules.push(Rule {
        conds: Vec::new(),
        actions: vec![Action::Counter, Action::SetMark(1), Action::Verdict(Verdict::Drop)],
        comment: "c".repeat(127),
    });
    table.chains.insert(ident("trials"), Chain { base: None, rules });
    table.chains.insert(ident(LEAF), Chain { base: None, rules: Vec::new() });
    for (name, hook, priority) in [
        ("hook_in", Hook::Input, -5),
        ("hook_pass", Hook::Forward, 5),
        ("hook_out", Hook::Output, 0),
        ("hook_pre", Hook::Prerouting, -310),
    ] {
        let base = Base { kind: ChainType::Filter, hook, priority };
        let rules = vec![rule(vec![Cond::Mark(Op::Ne, 0)], vec![Action::Verdict(Verdict::Accept)])];
        table.chains.insert(ident(name), Chain { base: Some(base), rules });
    }
    table.chains.insert(ident("hook_nat"), nat_chain());
    table
}

pub fn some_elements(key: KeyType, data: DataType, interval: bool) -> BTreeMap<Key, Value> {
    let value = Value::plain(match data {
        DataType::None => Data::None,
        DataType::Mark => Data::Mark(0x0102_0304),
        DataType::Verdict => Data::Verdict(Verdict::Drop),
    });
    let range = |first, last| Key::Range(at(first), at(last));
    let keys = match (key, interval) {
        (KeyType::Mark, _) => vec![Key::Mark(0), Key::Mark(5), Key::Mark(u32::MAX)],
        (KeyType::Port, _) => vec![Key::Port(0), Key::Port(443), Key::Port(u16::MAX)],
        (KeyType::Address(Family::V4), true) => vec![
            range("0.0.0.0", "9.255.255.255"),
            range("10.0.0.0", "10.0.0.0"),
            range("10.0.0.1", "10.0.0.4"),
            range("192.0.2.0", "192.0.2.255"),
            range("224.0.0.0", "255.255.255.255"),
        ],
        (KeyType::Address(Family::V6), true) => vec![range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")],
        (KeyType::Address(Family::V4), false) => vec![Key::Address(at("0.0.0.0")), Key::Address(at("192.0.2.7"))],
        (KeyType::Address(Family::V6), false) => vec![Key::Address(at("::")), Key::Address(at("2001:db8::7"))],
        (KeyType::MarkAddress(Family::V4), _) => vec![Key::MarkAddress(7, at("192.0.2.7"))],
        (KeyType::MarkAddress(Family::V6), _) => vec![Key::MarkAddress(0x8000_0007, at("2001:db8::7"))],
    };
    keys.into_iter().map(|key| (key, value.clone())).collect()
}
