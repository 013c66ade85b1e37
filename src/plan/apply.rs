//! Transactions executed on a [`Table`] in memory: the kernel's rules for what is legal, without the kernel.
//!
//! The daemon keeps such a table as its picture of the kernel; tests compare the two.

use std::collections::btree_map::Entry;

use super::ir::{Chain, Key, Object, Set, Value};
use super::ops::{Op, Table};

/// Why a transaction cannot be applied: the index of the step, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// Index of the step in the transaction.
    pub step: usize,
    /// What is wrong.
    pub what: String,
}

/// Applies a transaction.
///
/// # Errors
/// The first step the kernel would refuse. The table is then half changed and to be thrown away.
pub fn apply(table: &mut Table, ops: &[Op]) -> Result<(), Illegal> {
    for (step, op) in ops.iter().enumerate() {
        one(table, op).map_err(|what| Illegal { step, what })?;
    }
    Ok(())
}

fn one(table: &mut Table, op: &Op) -> Result<(), String> {
    match op {
        Op::AddTable => {}
        Op::DelTable => *table = Table::default(),
        Op::AddChain(name, base) => {
            table.chains.entry(name.clone()).or_insert_with(|| Chain { base: *base, rules: Vec::new() });
        }
        Op::DelChain(name) => match table.chains.remove(name) {
            Some(chain) if chain.rules.is_empty() => {}
            Some(_) => return Err(format!("chain {name} still has rules")),
            None => return Err(format!("no chain {name}")),
        },
        Op::FlushChain(name) => table.chains.get_mut(name).ok_or(format!("no chain {name}"))?.rules.clear(),
        Op::AddRule(name, rule) => {
            table.chains.get_mut(name).ok_or(format!("no chain {name}"))?.rules.push(rule.clone());
        }
        Op::AddObject(name, object) => {
            if table.objects.insert(name.clone(), object.clone()).is_some() {
                return Err(format!("object {name} is there already"));
            }
        }
        Op::SetQuota(name, new) => match table.objects.get_mut(name) {
            Some(Object::Quota { limit, .. }) => *limit = *new,
            _ => return Err(format!("no quota {name}")),
        },
        Op::DelObject(name, _) => {
            table.objects.remove(name).ok_or(format!("no object {name}"))?;
        }
        Op::AddSet(name, spec) => {
            let set =
                table.sets.entry(name.clone()).or_insert_with(|| Set { spec: *spec, elements: Default::default() });
            if set.spec != *spec {
                return Err(format!("set {name} has another type"));
            }
        }
        Op::DelSet(name) => {
            table.sets.remove(name).ok_or(format!("no set {name}"))?;
        }
        Op::FlushSet(name) => set(table, name)?.elements.clear(),
        Op::Fill(name, elements) => {
            for (key, value) in elements {
                add(set(table, name)?, *key, value)?;
            }
        }
        Op::AddElements(name, elements) => {
            for (key, value) in elements {
                add(set(table, name)?, *key, value)?;
            }
        }
        Op::DelElements(name, keys) => {
            for key in keys {
                let set = set(table, name)?;
                // Elements with a timeout may have ended by themselves.
                if set.elements.remove(key).is_none() && !set.spec.timeout {
                    return Err(format!("no element {key:?} in {name}"));
                }
            }
        }
        Op::PutElements(name, elements) => {
            for (key, value) in elements {
                set(table, name)?.elements.insert(*key, value.clone());
            }
        }
    }
    Ok(())
}

fn set<'t>(table: &'t mut Table, name: &str) -> Result<&'t mut Set, String> {
    table.sets.get_mut(name).ok_or_else(|| format!("no set {name}"))
}

fn add(set: &mut Set, key: Key, value: &Value) -> Result<(), String> {
    if let Key::Range(first, last) = key {
        let before = set.elements.range(..=key).next_back();
        let after = set.elements.range(key..).next();
        for (other, _) in before.into_iter().chain(after) {
            if let Key::Range(f, l) = other
                && *f <= last
                && first <= *l
            {
                return Err(format!("{key:?} overlaps {other:?}"));
            }
        }
    }
    match set.elements.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(value.clone());
            Ok(())
        }
        Entry::Occupied(_) => Err(format!("{key:?} is there already")),
    }
}
