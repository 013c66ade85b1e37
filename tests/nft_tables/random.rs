//! Random tables that nft and the kernel both accept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use clawgress::plan::ir::{
    Action, Base, Chain, ChainType, Cond, Data, DataType, Family, Field, Hook, Ident, Key, KeyType, Lookup, Object,
    Rule, Set, SetSpec, Value, Verdict, proto,
};
use clawgress::plan::ops::Table;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{COUNTER, LEAF, QUOTA, all_actions, all_conditions, ident, nat_chain, set_name, types, with_protocol};

fn make(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

fn address(family: Family) -> impl Strategy<Value = IpAddr> {
    let near = (0u128..16).prop_map(move |low| match family {
        Family::V4 => 0xc000_0200 + low,
        Family::V6 => (0x2001_0db8 << 96) + low,
    });
    prop_oneof![any::<u128>(), near].prop_map(move |bits| make(family, bits))
}

/// Disjoint ranges, often adjacent, often prefixes, often reaching the ends: cuts part the space, each part is in or
/// out.
fn ranges(family: Family) -> impl Strategy<Value = Vec<Key>> {
    let bits: u32 = if family == Family::V4 { 32 } else { 128 };
    let last = u128::MAX >> (128 - bits);
    let cut = prop_oneof![any::<u128>(), (0..bits).prop_map(|bits| (1u128 << bits) - 1)];
    vec((cut.prop_map(move |cut| cut & last), any::<bool>()), 0..8).prop_map(move |mut cuts| {
        cuts.push((last, cuts.len() % 2 == 0));
        cuts.sort_unstable();
        cuts.dedup_by_key(|(cut, _)| *cut);
        let mut first = 0u128;
        let mut keys = Vec::new();
        for (cut, taken) in cuts {
            if taken {
                keys.push(Key::Range(make(family, first), make(family, cut)));
            }
            first = cut.wrapping_add(1);
        }
        keys
    })
}

fn keys(key: KeyType, interval: bool) -> BoxedStrategy<Vec<Key>> {
    let mark = prop_oneof![any::<u32>(), 0..8u32];
    match key {
        KeyType::Address(family) if interval => ranges(family).boxed(),
        KeyType::Mark => vec(mark.prop_map(Key::Mark), 0..12).boxed(),
        KeyType::Port => vec(any::<u16>().prop_map(Key::Port), 0..12).boxed(),
        KeyType::Address(family) => vec(address(family).prop_map(Key::Address), 0..12).boxed(),
        KeyType::MarkAddress(family) => {
            vec((mark, address(family)).prop_map(|(mark, at)| Key::MarkAddress(mark, at)), 0..12).boxed()
        }
    }
}

fn value(data: DataType, timeout: bool) -> impl Strategy<Value = Value> {
    let verdict = select(vec![
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Jump(ident(LEAF)),
        Verdict::Goto(ident(LEAF)),
    ]);
    let data = match data {
        DataType::None => Just(Data::None).boxed(),
        DataType::Mark => any::<u32>().prop_map(Data::Mark).boxed(),
        DataType::Verdict => verdict.prop_map(Data::Verdict).boxed(),
    };
    // Long enough not to run out during the test; shorter ones have tests of their own.
    let timeout = if timeout { proptest::option::of(100_000..10_000_000_000u64).boxed() } else { Just(None).boxed() };
    (data, timeout, proptest::option::of("[ !#-~]{1,40}")).prop_map(|(data, timeout_ms, comment)| Value {
        data,
        timeout_ms,
        comment: comment.map(Arc::from),
    })
}

fn set((key, data, interval): (KeyType, DataType, bool)) -> impl Strategy<Value = (Ident, Set)> {
    let size = proptest::option::of(select(vec![64u32, 65536]));
    (any::<bool>(), any::<bool>(), size, keys(key, interval))
        .prop_flat_map(move |(timeout, counter, size, keys)| {
            let spec = SetSpec { key, data, interval, timeout: timeout && !interval, counter, size };
            let values = vec(value(data, spec.timeout), keys.len());
            (Just(spec), Just(keys), values)
        })
        .prop_map(move |(spec, keys, values)| {
            (set_name(key, data, interval), Set { spec, elements: keys.into_iter().zip(values).collect() })
        })
}

fn field_family(field: Field) -> Option<Family> {
    match field {
        Field::Packet(family, _) | Field::Ct(_, family, _) => Some(family),
        Field::CtMark | Field::CtOriginalPort => None,
    }
}

fn cond_family(cond: &Cond) -> Option<Family> {
    match cond {
        Cond::Family(family) => Some(*family),
        Cond::In { field, .. } => field_family(*field),
        _ => None,
    }
}

fn action_family(action: &Action) -> Option<Family> {
    match action {
        Action::Vmap(field, _) | Action::SetMarkFrom(Lookup::One(field) | Lookup::MarkAnd(field), _) => {
            field_family(*field)
        }
        _ => None,
    }
}

/// Puts conditions and actions together as far as nft accepts them: it refuses rules that can never match.
fn assemble(conds: Vec<Cond>, actions: Vec<Action>, comment: String) -> Rule {
    let mut rule = Rule { conds: Vec::new(), actions: Vec::new(), comment };
    let mut family = None;
    let mut protocol = None;
    for group in conds.into_iter().map(with_protocol) {
        let groups_family = group.iter().find_map(cond_family);
        let groups_protocol = group.iter().find_map(|cond| match cond {
            Cond::Proto(number) => Some(*number),
            _ => None,
        });
        let twice = matches!(group[..], [Cond::Family(_) | Cond::Proto(_)]) && (family.is_some() || protocol.is_some());
        let fits = |known: Option<u8>, new: Option<u8>| known.is_none() || new.is_none() || known == new;
        let same_family = family.is_none() || groups_family.is_none() || family == groups_family;
        if twice || !same_family || !fits(protocol, groups_protocol) {
            continue;
        }
        let known = protocol.is_some();
        family = family.or(groups_family);
        protocol = protocol.or(groups_protocol);
        rule.conds.extend(group.into_iter().filter(|cond| !(known && matches!(cond, Cond::Proto(_)))));
    }
    for action in actions {
        let new = action_family(&action);
        let same = family.is_none() || new.is_none() || family == new;
        if same && (action != Action::Reset || protocol == Some(proto::TCP)) {
            family = family.or(new);
            rule.actions.push(action);
        }
    }
    if rule.actions.is_empty() {
        rule.actions.push(Action::Counter);
    }
    rule
}

fn random_rule() -> impl Strategy<Value = Rule> {
    let (last, middle): (Vec<_>, Vec<_>) = all_actions()
        .into_iter()
        .partition(|action| matches!(action, Action::Verdict(_) | Action::Vmap(..) | Action::Reset | Action::Prohibit));
    (vec(select(all_conditions()), 0..5), vec(select(middle), 0..3), select(last), "[ !#-~]{0,127}").prop_map(
        |(conds, mut actions, last, comment)| {
            actions.push(last);
            assemble(conds, actions, comment)
        },
    )
}

/// The kernel allows some constructs in some hooks only.
fn fits(rule: &Rule, base: Option<&Base>) -> bool {
    let Some(base) = base else { return true };
    let early = base.hook == Hook::Prerouting;
    rule.conds.iter().all(|cond| match cond {
        Cond::NoReversePath | Cond::DestinationLocal(_) | Cond::RouteLeavesBy(_) => early,
        Cond::Oif(_) => !matches!(base.hook, Hook::Prerouting | Hook::Input),
        Cond::Iif(_) => base.hook != Hook::Output,
        _ => true,
    }) && rule.actions.iter().all(|action| match action {
        Action::KeepTracking => early,
        _ => true,
    })
}

fn base() -> impl Strategy<Value = Option<Base>> {
    let hook = select(vec![Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output]);
    proptest::option::of((hook, -400..400i32).prop_map(|(hook, priority)| Base {
        kind: ChainType::Filter,
        hook,
        priority,
    }))
}

/// A random table: up to five chains, the sets that their rules need and some others.
pub fn table() -> impl Strategy<Value = Table> {
    let sets: Vec<_> = types().into_iter().map(|kind| set(kind).boxed()).collect();
    let names = subsequence(vec!["one", "two", "three"], 0..=3);
    let chains = vec((base(), vec(random_rule(), 0..6)), 3);
    let quota =
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Object::Quota { limit: a.max(b) >> 1, used: a.min(b) >> 1 });
    (sets, names, chains, any::<bool>(), quota).prop_map(|(sets, names, chains, nat, quota)| {
        let objects = BTreeMap::from([(ident(QUOTA), quota), (ident(COUNTER), Object::COUNTER)]);
        let mut table = Table { sets: sets.into_iter().collect(), chains: BTreeMap::new(), objects };
        table.chains.insert(ident(LEAF), Chain { base: None, rules: Vec::new() });
        for (name, (base, mut rules)) in names.into_iter().zip(chains) {
            rules.retain(|rule| fits(rule, base.as_ref()));
            table.chains.insert(ident(name), Chain { base, rules });
        }
        if nat {
            table.chains.insert(ident("nat"), nat_chain());
        }
        let used = used_sets(&table);
        table.sets.retain(|name, set| used.contains(name) || set.elements.len() % 2 == 1);
        table
    })
}

fn used_sets(table: &Table) -> BTreeSet<Ident> {
    let mut used = BTreeSet::new();
    for rule in table.chains.values().flat_map(|chain| &chain.rules) {
        used.extend(rule.conds.iter().filter_map(|cond| match cond {
            Cond::In { set, .. } => Some(set.clone()),
            _ => None,
        }));
        used.extend(rule.actions.iter().filter_map(|action| match action {
            Action::SetMarkFrom(_, map) | Action::Vmap(_, map) => Some(map.clone()),
            _ => None,
        }));
    }
    used
}

/// `after` with what a transition keeps: the declaration of a set or chain never changes under its name.
pub fn reachable(before: &Table, mut after: Table) -> Table {
    for (name, set) in &mut after.sets {
        if let Some(old) = before.sets.get(name) {
            set.spec = old.spec;
            if !set.spec.timeout {
                set.elements.values_mut().for_each(|value| value.timeout_ms = None);
            }
        }
    }
    // What was counted stays; a limit may change.
    for (name, object) in &mut after.objects {
        match (before.objects.get(name), object) {
            (Some(Object::Quota { used: old, .. }), Object::Quota { limit, used }) => {
                *used = *old;
                *limit = (*limit).max(*old);
            }
            (Some(old), object) => *object = old.clone(),
            (None, _) => {}
        }
    }
    for (name, chain) in &mut after.chains {
        if let Some(old) = before.chains.get(name) {
            chain.base = old.base;
            chain.rules.retain(|rule| fits(rule, old.base.as_ref()));
        }
    }
    after
}
