//! Changes to the table, and the difference between two of its states.
//!
//! A list of [`Op`]s is one kernel transaction: all of it takes effect at once or nothing does. Sets change by
//! difference and chains by "flush and add again", because both leave no packet unjudged; a set replaced whole does
//! (measured: docs/decisions/0003).

use std::collections::BTreeMap;

use super::ir::{Base, Chain, Ident, Key, Rule, Set, SetSpec, Value};

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the table if it is not there.
    AddTable,
    /// Removes the table and all in it.
    DelTable,
    /// Makes a chain if it is not there.
    AddChain(Ident, Option<Base>),
    /// Removes a chain that nothing refers to any more.
    DelChain(Ident),
    /// Removes the rules of a chain.
    FlushChain(Ident),
    /// Appends a rule.
    AddRule(Ident, Rule),
    /// Makes a set if it is not there.
    AddSet(Ident, SetSpec),
    /// Removes a set that no rule refers to any more.
    DelSet(Ident),
    /// Removes all elements.
    FlushSet(Ident),
    /// Adds elements that are not there.
    AddElements(Ident, Vec<(Key, Value)>),
    /// Removes elements that are there.
    DelElements(Ident, Vec<Key>),
    /// Puts elements whether or not there is one of that key (which may be expiring at this moment).
    PutElements(Ident, Vec<(Key, Value)>),
}

/// The whole table, or the part of it that one revision decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<Ident, Chain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<Ident, Set>,
}

/// The difference between two tables, in two parts, so that what somebody else adds and removes in the same
/// transaction can stand between them.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New chains and sets, changed rules, changed elements.
    pub build: Vec<Op>,
    /// Chains and sets that nothing refers to any more.
    pub remove: Vec<Op>,
}

impl Delta {
    /// Both parts as one transaction. Empty if the tables were equal.
    #[must_use]
    pub fn into_ops(mut self) -> Vec<Op> {
        self.build.append(&mut self.remove);
        self.build
    }
}

/// The transaction that turns `current` into `desired`.
pub fn diff(current: &Table, desired: &Table) -> Delta {
    let mut ops = Vec::new();
    for (name, chain) in &desired.chains {
        if !current.chains.contains_key(name) {
            ops.push(Op::AddChain(name.clone(), chain.base));
        }
    }
    for (name, set) in &desired.sets {
        if !current.sets.contains_key(name) {
            ops.push(Op::AddSet(name.clone(), set.spec));
        }
    }
    for (name, chain) in &desired.chains {
        let old = current.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        if old == chain.rules {
            continue;
        }
        if !old.is_empty() {
            ops.push(Op::FlushChain(name.clone()));
        }
        ops.extend(chain.rules.iter().map(|rule| Op::AddRule(name.clone(), rule.clone())));
    }
    // Rules of chains that go are flushed before elements and sets go, because they refer to both.
    for (name, chain) in &current.chains {
        if !desired.chains.contains_key(name) && !chain.rules.is_empty() {
            ops.push(Op::FlushChain(name.clone()));
        }
    }
    let nothing = BTreeMap::new();
    for (name, set) in &desired.sets {
        let old = current.sets.get(name).map_or(&nothing, |set| &set.elements);
        element_diff(name, old, &set.elements, &mut ops);
    }
    let build = ops;
    let mut ops = Vec::new();
    for (name, set) in &current.sets {
        if !desired.sets.contains_key(name) {
            if !set.elements.is_empty() {
                ops.push(Op::FlushSet(name.clone()));
            }
            ops.push(Op::DelSet(name.clone()));
        }
    }
    for name in current.chains.keys() {
        if !desired.chains.contains_key(name) {
            ops.push(Op::DelChain(name.clone()));
        }
    }
    Delta { build, remove: ops }
}

/// Removals first: a range that grows must not overlap its former self.
fn element_diff(set: &Ident, old: &BTreeMap<Key, Value>, new: &BTreeMap<Key, Value>, ops: &mut Vec<Op>) {
    let gone: Vec<Key> = old.iter().filter(|(key, value)| new.get(*key) != Some(*value)).map(|(key, _)| *key).collect();
    let come: Vec<(Key, Value)> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, value)| (*key, value.clone()))
        .collect();
    if !gone.is_empty() {
        ops.push(Op::DelElements(set.clone(), gone));
    }
    if !come.is_empty() {
        ops.push(Op::AddElements(set.clone(), come));
    }
}
