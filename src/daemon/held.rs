//! What the kernel was read to hold, as a table that can be compared with what it should hold.

use crate::nft::Held;
use crate::plan::ir::{Chain, Rule, Set, Value};
use crate::plan::ops::Table;
use crate::plan::table::names;
use crate::plan::text::render as render_table;

/// Whether the table is one of ours: it has the maps that every version of ours has.
pub fn is_ours(held: &Held) -> bool {
    [names::HOSTS, names::UP, names::DOWN].iter().all(|name| held.sets.contains_key(*name))
}

/// Rules are not read back into the language; a chain that has any gets one that equals none of ours, so that every
/// difference empties and fills it. Timeouts are what is left of them.
pub fn table(held: &Held) -> Table {
    let unread = || Rule { conds: Vec::new(), actions: Vec::new(), comment: "as held".into() };
    let chains = held.chains.iter().map(|(name, chain)| {
        let rules = if chain.rules.is_empty() { Vec::new() } else { vec![unread()] };
        (name.clone(), Chain { base: chain.base, rules })
    });
    let sets = held.sets.iter().filter_map(|(name, set)| {
        let elements = set
            .elements
            .iter()
            .map(|(key, element)| (*key, Value { timeout_ms: element.left_ms, ..element.value.clone() }))
            .collect();
        Some((name.clone(), Set { spec: set.spec?, elements }))
    });
    Table { chains: chains.collect(), sets: sets.collect() }
}

/// The text of what the kernel holds. A chain whose rules are not, by number and comment, the ones that we wrote is
/// marked, because its rules are not read back into the language.
pub fn render(held: &Held, ours: &Table) -> String {
    let mut shown = table(held);
    let mut foreign = String::new();
    for (name, chain) in &mut shown.chains {
        let read = held.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        let wrote = ours.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        let same =
            read.len() == wrote.len() && read.iter().zip(wrote).all(|(read, wrote)| read.comment == wrote.comment);
        chain.rules = if same { wrote.to_vec() } else { Vec::new() };
        if !same {
            foreign.push_str(&format!(
                "# chain {name} has rules that are not ours; see: nft list chain inet clawgress {name}\n"
            ));
        }
    }
    foreign + &render_table(&shown)
}
