//! What the kernel was read to hold, as a table that can be compared with what it should hold.

use crate::nft::{Held, HeldObject, HeldRule, HeldSet};
use crate::plan::ir::{Chain, Ident, Object, Rule, Set, SetSpec, Value};
use crate::plan::ops::Table;
use crate::plan::table::names;
use crate::plan::text::render as render_table;

/// Whether the table is one of ours: it has the maps that every version of ours has.
pub fn is_ours(held: &Held) -> bool {
    [names::HOSTS, names::UP, names::DOWN].iter().all(|name| held.sets.contains_key(*name))
}

/// What is said where [`is_ours`] is not so.
pub const NOT_OURS: &str = "there is a table \"inet clawgress\" that is not ours; look at it (nft list table inet \
     clawgress) and remove it (nft delete table inet clawgress) or rename it, then try again";

/// Whether something is wrong that no difference mends, because neither chains nor sets change their kind: the table is
/// switched off, a chain has another hook, a set of ours other types, or there are sets that cannot be read.
pub fn is_deformed(held: &Held, ours: &Table) -> bool {
    let chain = |(name, chain): (&Ident, &Chain)| {
        held.chains.get(name).is_some_and(|found| found.strange || found.base != chain.base)
    };
    let set = |(name, found): (&Ident, &HeldSet)| match (found.spec, ours.sets.get(name)) {
        // Not every kernel tells the size.
        (Some(spec), Some(set)) => SetSpec { size: set.spec.size, ..spec } != set.spec,
        (Some(_), None) => false,
        (None, _) => true,
    };
    held.dormant || ours.chains.iter().any(chain) || held.sets.iter().any(set)
}

/// The table without what is in it: enough for [`is_deformed`].
pub fn shape(mut held: Held) -> Held {
    held.chains.values_mut().for_each(|chain| chain.rules.clear());
    held.sets.values_mut().for_each(|set| set.elements.clear());
    held
}

/// Whether the rules are, by number and comment, not the ones that we wrote.
pub fn has_other_rules(held: &Held, ours: &Table) -> bool {
    ours.chains.iter().any(|(name, chain)| {
        let found = held.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        !is_same(found, &chain.rules)
    })
}

fn is_same(found: &[HeldRule], wrote: &[Rule]) -> bool {
    found.len() == wrote.len() && found.iter().zip(wrote).all(|(found, wrote)| found.comment == wrote.comment)
}

/// Rules are not read back into the language; of each only the comment is here, and as every rule of ours does something
/// it equals none of them, so that every difference empties and fills the chain. Timeouts are what is left of them.
pub fn table(held: &Held) -> Table {
    let unread = |rule: &HeldRule| Rule { conds: Vec::new(), actions: Vec::new(), comment: rule.comment.clone() };
    let chains = held.chains.iter().map(|(name, chain)| {
        (name.clone(), Chain { base: chain.base, rules: chain.rules.iter().map(unread).collect() })
    });
    let sets = held.sets.iter().filter_map(|(name, set)| {
        let elements = set
            .elements
            .iter()
            .map(|(key, element)| (*key, Value { timeout_ms: element.left_ms, ..element.value.clone() }))
            .collect();
        Some((name.clone(), Set { spec: set.spec?, elements }))
    });
    let objects = held.objects.iter().filter_map(|(name, object)| Some((name.clone(), read_object(object)?)));
    Table { chains: chains.collect(), sets: sets.collect(), objects: objects.collect() }
}

fn read_object(object: &HeldObject) -> Option<Object> {
    match *object {
        HeldObject::Quota { limit, used } => Some(Object::Quota { limit, used: used.min(limit) }),
        HeldObject::Counter { packets, bytes } => Some(Object::Counter { packets, bytes }),
        HeldObject::Strange => None,
    }
}

/// The text of what the kernel holds. A chain whose rules are not, by number and comment, the ones that we wrote is
/// marked, because its rules are not read back into the language.
pub fn render(held: &Held, ours: &Table) -> String {
    let mut shown = table(held);
    let mut foreign = String::new();
    for (name, chain) in &mut shown.chains {
        let read = held.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        let wrote = ours.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        let same = is_same(read, wrote);
        chain.rules = if same { wrote.to_vec() } else { Vec::new() };
        if !same {
            foreign.push_str(&format!(
                "# chain {name} has rules that are not ours; see: nft list chain inet clawgress {name}\n"
            ));
        }
    }
    foreign + &render_table(&shown)
}
