//! The text form of a table.

mod nft_tables;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use clawgress::plan::ir::{Action, DataType, KeyType, SetSpec};
use clawgress::plan::ir::{
    Base, Chain, ChainType, Cond, Data, Direction, Field, Hook, Key, Op, Rule, Set, States, Value, Verdict,
};
use clawgress::plan::ops::Table;
use clawgress::plan::text::{render, render_element, render_key, render_rule};
use nft_tables::{at, ident};
use proptest::prelude::*;

#[test]
fn a_table_reads_well() {
    let spec = SetSpec {
        key: KeyType::Mark,
        data: DataType::Verdict,
        interval: false,
        timeout: true,
        counter: true,
        size: Some(1024),
    };
    let element = Value {
        data: Data::Verdict(Verdict::Goto(ident("capped"))),
        timeout_ms: Some(3_661_001),
        comment: Some("builder site.org".into()),
    };
    let set = Set { spec, elements: [(Key::Mark(0x8000_0001), element)].into_iter().collect() };
    let rule = Rule {
        conds: vec![
            Cond::State(States::NEW.or(States::ESTABLISHED)),
            Cond::Direction(Direction::Original),
            Cond::Mark(Op::Ge, 0x8000_0000),
        ],
        actions: vec![Action::Counter, Action::Vmap(Field::CtMark, ident("up"))],
        comment: "known flows".to_owned(),
    };
    let base = Base { kind: ChainType::Filter, hook: Hook::Forward, priority: -5 };
    let table = Table {
        sets: BTreeMap::from([(ident("up"), set)]),
        chains: BTreeMap::from([
            (ident("capped"), Chain { base: None, rules: Vec::new() }),
            (ident("pass"), Chain { base: Some(base), rules: vec![rule] }),
        ]),
        ..Table::default()
    };
    let expected = "\
table inet clawgress {
\tmap up {
\t\ttype mark : verdict
\t\tsize 1024
\t\tflags timeout
\t\tcounter
\t\telements = { 0x80000001 timeout 1h1m1s1ms comment \"builder site.org\" : goto capped }
\t}

\tchain capped {
\t}

\tchain pass {
\t\ttype filter hook forward priority -5; policy accept;
\t\tct state established,new ct direction original ct mark >= 0x80000000 counter ct mark vmap @up comment \"known flows\"
\t}
}
";
    assert_eq!(render(&table), expected);
}

#[test]
fn elements_are_wrapped() {
    let text = render(&nft_tables::everything());
    let longest = text.lines().filter(|line| !line.contains("comment")).map(str::len).max();
    assert!(longest.is_some_and(|longest| longest < 125), "{longest:?}");
}

#[test]
fn keys_take_their_shortest_form() {
    let range = |first, last| render_key(&Key::Range(at(first), at(last)));
    assert_eq!(range("10.0.0.0", "10.255.255.255"), "10.0.0.0/8");
    assert_eq!(range("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
    assert_eq!(range("10.0.0.7", "10.0.0.7"), "10.0.0.7");
    assert_eq!(range("10.0.0.1", "10.0.0.2"), "10.0.0.1-10.0.0.2");
    assert_eq!(range("fd00::", "fd00::ffff"), "fd00::/112");
    assert_eq!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
    assert_eq!(render_key(&Key::MarkAddress(7, at("192.0.2.1"))), "0x00000007 . 192.0.2.1");
    assert_eq!(
        render_element(&Key::Port(53), &Value { timeout_ms: Some(0), ..Value::plain(Data::None) }),
        "53 timeout 0s"
    );
    assert_eq!(render_rule(&nft_tables::rule(vec![Cond::State(States(0x28))], Vec::new())), "ct state new,0x20");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A range is written as a prefix exactly if it is one.
    #[test]
    fn prefixes_are_exact(first in any::<u32>(), length in 0u32..=32, more in prop_oneof![Just(0u32), any::<u32>()]) {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let low = first & mask;
        let high = (low | !mask).saturating_add(more);
        let text = render_key(&Key::Range(IpAddr::V4(Ipv4Addr::from(low)), IpAddr::V4(Ipv4Addr::from(high))));
        if let Some((address, bits)) = text.split_once('/') {
            let mask = u32::MAX.checked_shl(32 - bits.parse::<u32>().unwrap()).unwrap_or(0);
            prop_assert_eq!(u32::from(address.parse::<Ipv4Addr>().unwrap()), low);
            prop_assert_eq!((low & mask, low | !mask), (low, high));
        } else if let Some((start, end)) = text.split_once('-') {
            prop_assert_eq!(u32::from(start.parse::<Ipv4Addr>().unwrap()), low);
            prop_assert_eq!(u32::from(end.parse::<Ipv4Addr>().unwrap()), high);
            prop_assert!(more != 0);
        } else {
            prop_assert_eq!(low, high);
        }
    }
}
