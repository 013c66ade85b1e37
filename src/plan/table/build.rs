//! The table under construction.

use std::collections::BTreeMap;

use super::super::ir::{
    Action, Base, Chain, Cond, Data, DataType, Elements, Family, Ident, Key, KeyType, Object, Rule, Set, SetSpec,
    Value, Verdict,
};
use super::super::ops::Table;
use super::super::situation::Situation;
use super::lists::Lists;
use super::names;
use crate::policy::model::Policy;

/// The most classes and leases the kernel will hold; a lease beyond it is refused, never an older one dropped.
const MAX_DYNAMIC: u32 = 1 << 20;
/// A map of classes to what becomes of their packets, which counts them.
pub const CLASSES: SetSpec = SetSpec {
    key: KeyType::Mark,
    data: DataType::Verdict,
    interval: false,
    timeout: true,
    counter: true,
    size: Some(MAX_DYNAMIC),
};

/// A map of hosts and addresses of a family to classes.
pub const fn leases(family: Family) -> SetSpec {
    SetSpec { key: KeyType::MarkAddress(family), data: DataType::Mark, counter: false, ..CLASSES }
}

pub(super) struct Build<'a> {
    pub policy: &'a Policy,
    pub lists: &'a Lists,
    pub situation: &'a Situation,
    table: Table,
}

impl<'a> Build<'a> {
    pub fn new(policy: &'a Policy, lists: &'a Lists, situation: &'a Situation) -> Self {
        let mut build = Self { policy, lists, situation, table: Table::default() };
        build.dynamic_sets();
        build
    }

    /// Whether packets must not pass without a class that measures them.
    pub fn is_metered(&self) -> bool {
        super::meters::is_metered(self.policy)
    }

    pub fn finish(self) -> Table {
        versioned(self.table)
    }

    /// Sets that leases fill.
    fn dynamic_sets(&mut self) {
        for family in Family::BOTH {
            self.set(names::of("dst", family), leases(family), Elements::default());
        }
        for name in [names::UP, names::DOWN, names::SENT_UP, names::SENT_DOWN] {
            self.set(name.into(), CLASSES, Elements::default());
        }
    }

    pub fn chain(&mut self, name: impl Into<Ident>, base: Option<Base>) {
        self.table.chains.insert(name.into(), Chain { base, rules: Vec::new() });
    }

    /// Appends a rule; the chain is made if it is not there.
    pub fn rule(&mut self, chain: &str, conds: Vec<Cond>, actions: Vec<Action>, comment: impl Into<String>) {
        self.table
            .chains
            .entry(chain.into())
            .or_insert_with(|| Chain { base: None, rules: Vec::new() })
            .rules
            .push(Rule { conds, actions, comment: comment.into() });
    }

    /// Appends a rule that stands already.
    pub fn push(&mut self, chain: &Ident, rule: Rule) {
        self.rule(chain, rule.conds, rule.actions, rule.comment);
    }

    pub fn object(&mut self, name: Ident, object: Object) {
        self.table.objects.insert(name, object);
    }

    pub fn set(&mut self, name: Ident, spec: SetSpec, elements: Elements) {
        self.table.sets.insert(name, Set { spec, elements });
    }

    /// A static hash or interval set or map.
    pub fn plain_set(
        &mut self,
        name: impl Into<Ident>,
        key: KeyType,
        data: DataType,
        interval: bool,
        elements: impl IntoIterator<Item = (Key, Value)>,
    ) {
        let spec = SetSpec { key, data, interval, timeout: false, counter: false, size: None };
        self.set(name.into(), spec, elements.into_iter().collect());
    }
}

/// `goto CHAIN`.
pub(super) fn goto(chain: impl Into<Ident>) -> Vec<Action> {
    vec![Action::Verdict(Verdict::Goto(chain.into()))]
}

/// `jump CHAIN`.
pub(super) fn jump(chain: impl Into<Ident>) -> Vec<Action> {
    vec![Action::Verdict(Verdict::Jump(chain.into()))]
}

/// A single verdict.
pub(super) fn verdict(verdict: Verdict) -> Vec<Action> {
    vec![Action::Verdict(verdict)]
}

/// A set element without data.
pub(super) fn member(key: Key) -> (Key, Value) {
    (key, Value::plain(Data::None))
}

/// Gives sets that are replaced names that hold a digest of their content, in rules too. While a transaction is on its
/// way the kernel may miss a range next to one that is coming or going, so such a set is never changed: another content
/// is another set, and the rules switch from one to the other. Large sets are filled piece by piece before that.
fn versioned(mut table: Table) -> Table {
    let mut names: BTreeMap<Ident, Ident> = BTreeMap::new();
    table.sets = std::mem::take(&mut table.sets)
        .into_iter()
        .map(|(name, set)| {
            let digest = if set.spec.is_replaced() { set.elements.digest() } else { None };
            // Every set that is replaced is one of addresses, and those have a digest.
            let Some(digest) = digest else { return (name, set) };
            let full = Ident::from(format!("{name}.{}", short(&digest)));
            names.insert(name, full.clone());
            (full, set)
        })
        .collect();
    let full = |name: &mut Ident| {
        if let Some(full) = names.get(name) {
            *name = full.clone();
        }
    };
    for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
        for cond in &mut rule.conds {
            if let Cond::In { set, .. } = cond {
                full(set);
            }
        }
        for action in &mut rule.actions {
            if let Action::SetMarkFrom(_, map) | Action::Vmap(_, map) = action {
                full(map);
            }
        }
    }
    table
}

/// 75 bits of a digest, five in a character: with the longest stem that is as long as a name may be, and too many for
/// whoever feeds a list to find two contents of one name.
fn short(digest: &[u8; 32]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    const LENGTH: usize = 15;
    let bits = digest.iter().take(10).fold(0_u128, |bits, octet| bits << 8 | u128::from(*octet));
    (0..LENGTH).map(|place| char::from(LETTERS[(bits >> (place * 5) & 31) as usize])).collect()
}
