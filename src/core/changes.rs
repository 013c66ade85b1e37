//! Whose live flows a revision concerns.

use std::collections::{BTreeSet, HashMap};

use crate::plan::ids::HostId;
use crate::plan::ir::{Action, Cond, Data, Elements, Family, Ident, Rule, Verdict};
use crate::plan::ops::Table;
use crate::plan::table::names;

/// Whose rules differ between two tables.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Sources, denied addresses or ports.
    pub guards: BTreeSet<HostId>,
    /// Those, or allowed networks.
    pub any: BTreeSet<HostId>,
}

impl Changes {
    pub fn between(old: &Table, new: &Table, hosts: impl Iterator<Item = HostId>) -> Self {
        let mut guards = BTreeSet::new();
        for family in Family::BOTH {
            moved_sources(old, new, family, &mut guards);
        }
        let mut any = guards.clone();
        // Hosts that inherit share their chains, so each pair of chains is compared once.
        let mut seen: HashMap<(Option<&Ident>, Option<&Ident>, bool), bool> = HashMap::new();
        let hosts: Vec<HostId> = hosts.chain([HostId::NOBODY]).collect();
        for family in Family::BOTH {
            for stem in ["view", "reply"] {
                let (before, after) = (starts(old, stem, family), starts(new, stem, family));
                for id in &hosts {
                    let (before, after) = (before.get(id).copied(), after.get(id).copied());
                    for whole in [false, true] {
                        let differs = *seen
                            .entry((before, after, whole))
                            .or_insert_with(|| reach(old, before, whole) != reach(new, after, whole));
                        if differs {
                            any.insert(*id);
                            if !whole {
                                guards.insert(*id);
                            }
                        }
                    }
                }
            }
        }
        Self { guards, any }
    }
}

/// Hosts that gained or lost source addresses; nobody is among them if any did.
fn moved_sources(old: &Table, new: &Table, family: Family, into: &mut BTreeSet<HostId>) {
    let map = names::of("host", family);
    let nothing = Elements::default();
    let before = names::find(&old.sets, &map).map_or(&nothing, |set| &set.elements);
    let after = names::find(&new.sets, &map).map_or(&nothing, |set| &set.elements);
    let lost = before.iter().filter(|(key, value)| after.get(*key) != Some(*value));
    let gained = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    for (_, value) in lost.chain(gained) {
        into.insert(HostId::NOBODY);
        if let Data::Mark(id) = value.data {
            into.extend(u16::try_from(id).ok().map(HostId));
        }
    }
}

/// The chains in which the views of hosts begin; a host without sources of the family has none.
fn starts<'t>(table: &'t Table, stem: &str, family: Family) -> HashMap<HostId, &'t Ident> {
    let find = |stem: &str| names::find(&table.sets, &names::of(stem, family));
    let (Some(hosts), Some(views)) = (find("host"), find(stem)) else { return HashMap::new() };
    let found =
        hosts.elements.iter().filter_map(|(range, host)| match (&host.data, &views.elements.get(range)?.data) {
            (Data::Mark(id), Data::Verdict(Verdict::Jump(chain))) => Some((HostId(u16::try_from(*id).ok()?), chain)),
            _ => None,
        });
    found.collect()
}

/// Everything that a view says: its rules and the elements of the sets they look into. Not `whole`: only the part
/// that refuses.
fn reach<'t>(table: &'t Table, start: Option<&'t Ident>, whole: bool) -> Vec<(&'t Rule, Vec<&'t Elements>)> {
    let mut out = Vec::new();
    let mut chains: Vec<&Ident> = start.into_iter().collect();
    while let Some(name) = chains.pop() {
        for rule in table.chains.get(name).map_or(&[][..], |chain| &chain.rules) {
            match rule.actions.last() {
                Some(Action::Verdict(Verdict::Jump(to))) => chains.push(to),
                Some(Action::Verdict(Verdict::Goto(to))) if !whole && to.starts_with(names::OPEN) => continue,
                _ => {}
            }
            let sets = rule.conds.iter().filter_map(|cond| match cond {
                Cond::In { set, .. } => table.sets.get(set).map(|set| &set.elements),
                _ => None,
            });
            out.push((rule, sets.collect()));
        }
    }
    out
}
