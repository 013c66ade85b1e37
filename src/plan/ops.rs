//! Changes to the table, and the difference between two of its states.
//!
//! A list of [`Op`]s is one kernel transaction: all of it takes effect at once or nothing does. Hash sets change by
//! difference and chains by "flush and add again". Interval sets never change: their names hold a digest of their
//! content, so a change is a new set beside the old one (docs/decisions/0003).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::ir::{
    Base, Chain, Data, DataType, Elements, Ident, Key, Object, ObjectKind, Rule, Set, SetSpec, Value, Verdict,
};

/// Elements of one transaction of the preparations.
const PIECE: usize = 2048;
/// A range takes the time of so many single addresses.
const RANGE: usize = 4;

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
    /// Makes an object that is not there.
    AddObject(Ident, Object),
    /// Gives a quota that is there another limit; what it has charged stays.
    SetQuota(Ident, u64),
    /// Removes an object that no rule refers to any more.
    DelObject(Ident, ObjectKind),
    /// Makes a set if it is not there.
    AddSet(Ident, SetSpec),
    /// Removes a set that no rule refers to any more.
    DelSet(Ident),
    /// Removes all elements.
    FlushSet(Ident),
    /// Fills a set that is new and will never change; see [`SetSpec::is_replaced`].
    Fill(Ident, Elements),
    /// Adds elements that are not there.
    AddElements(Ident, Vec<(Key, Value)>),
    /// Removes elements that are there, or that ended by themselves.
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
    /// Quotas and counters by name.
    pub objects: BTreeMap<Ident, Object>,
}

/// The difference between two tables, in up to four transactions.
///
/// A packet meets rules and sets one after the other, and a transaction may take effect in between. So the first one
/// only adds and switches, and whatever the old rules still lead to stays until the next: a packet on its way finds
/// its path whole, whichever rules it started by.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New sets that will never change, and the chains that their elements lead to, still empty. Nothing refers to them
    /// yet, so they are there or not without any consequence, and may come piece by piece. The kernel can search a set of
    /// ranges only when the transaction that made it is over; then the switch may lead to it.
    pub prepare: Vec<Op>,
    /// New chains, sets and elements; changed rules and elements. With it the new table is in force.
    pub switch: Vec<Op>,
    /// Elements that are no longer in sets that stay.
    pub remove: Vec<Op>,
    /// Chains and sets that nothing refers to any more; there is no hurry about them.
    pub litter: Vec<Op>,
}

impl Delta {
    /// All of it as one transaction, for a table that no packet passes yet.
    #[must_use]
    pub fn into_ops(self) -> Vec<Op> {
        [self.prepare, self.switch, self.remove, self.litter].concat()
    }

    /// The transactions that are not empty, in their order.
    pub fn transactions(&self) -> impl Iterator<Item = &[Op]> {
        let all = [&self.prepare, &self.switch, &self.remove, &self.litter];
        all.into_iter().map(Vec::as_slice).filter(|ops| !ops.is_empty())
    }

    /// Each transaction that adds something begins by making the table if it is not there, and so says it is ours.
    pub fn add_table(&mut self) {
        self.switch.insert(0, Op::AddTable);
        if !self.prepare.is_empty() {
            self.prepare.insert(0, Op::AddTable);
        }
    }

    /// What takes the preparations back where the switch is refused.
    #[must_use]
    pub fn undo_prepare(&self) -> Vec<Op> {
        // Elements refer to chains, so sets go first.
        let sets = self.prepare.iter().filter_map(|op| match op {
            Op::AddSet(name, spec) => Some(del_set(name, spec)),
            _ => None,
        });
        let chains = self.prepare.iter().filter_map(|op| match op {
            Op::AddChain(name, _) => Some(Op::DelChain(name.clone())),
            _ => None,
        });
        sets.flatten().chain(chains).collect()
    }

    /// Moves what can be made before the switch to the preparations. Through a table without chains no packet passes;
    /// there only what comes in pieces is of use, and begins with all sets, by which a table of ours is known.
    fn prepare(&mut self, current: &Table, desired: &Table) {
        let fresh = current.chains.is_empty();
        let new: BTreeMap<&Ident, &Set> = (desired.sets.iter())
            .filter(|(name, set)| set.spec.is_replaced() && !current.sets.contains_key(*name))
            .collect();
        if fresh && new.values().all(|set| set.elements.len() <= PIECE) {
            return;
        }
        let values = new.values().flat_map(|set| set.elements.iter());
        let chains: BTreeSet<&Ident> = values
            .filter_map(|(_, value)| match &value.data {
                Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
                _ => None,
            })
            .collect();
        let first = |op: &mut Op| match op {
            Op::AddChain(name, base) => base.is_none() && chains.contains(name),
            Op::AddSet(name, _) => fresh || new.contains_key(name),
            Op::Fill(name, _) => new.contains_key(name),
            _ => false,
        };
        self.prepare = self.switch.extract_if(.., first).collect();
    }

    /// Whether the preparations are more than one piece.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let all = |op: &Op| if let Op::Fill(_, elements) = op { elements.len() * cost(elements) } else { 0 };
        self.prepare.iter().map(all).sum::<usize>() > PIECE
    }

    /// The preparations in transactions of at most so many elements, each operation with its place among them, without
    /// the sets in `loaded`.
    /// For each element the kernel keeps a message of some kilobytes until its transaction is over, if anybody listens.
    pub fn pieces(&self, loaded: &BTreeSet<Ident>) -> impl Iterator<Item = Vec<(usize, Op)>> {
        // The operation that comes next, and what is left of its elements once some have gone.
        let (mut place, mut rest) = (0, None);
        std::iter::from_fn(move || {
            let (mut piece, mut room) = (Vec::new(), PIECE);
            while let Some(op) = self.prepare.get(place) {
                let done = matches!(op, Op::AddSet(name, _) | Op::Fill(name, _) if loaded.contains(name));
                if let Op::Fill(name, elements) = op
                    && !done
                {
                    let cost = cost(elements);
                    if room < cost {
                        break;
                    }
                    let rest = rest.get_or_insert_with(|| elements.iter());
                    let now: Vec<_> =
                        rest.by_ref().take(room / cost).map(|(key, value)| (*key, value.clone())).collect();
                    room -= now.len() * cost;
                    piece.push((place, Op::AddElements(name.clone(), now)));
                    if rest.len() > 0 {
                        break;
                    }
                } else if !done {
                    piece.push((place, op.clone()));
                }
                (place, rest) = (place + 1, None);
            }
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Removals of elements, in transactions of at most so many elements.
pub fn in_pieces(removals: Vec<Op>) -> Vec<Vec<Op>> {
    let (mut pieces, mut room) = (vec![Vec::new()], PIECE);
    let mut put = |op: Op, elements: usize| {
        if elements > room {
            pieces.push(Vec::new());
            room = PIECE;
        }
        room -= elements;
        if let Some(last) = pieces.last_mut() {
            last.push(op);
        }
    };
    for op in removals {
        match op {
            Op::DelElements(name, keys) => {
                keys.chunks(PIECE).for_each(|some| put(Op::DelElements(name.clone(), some.to_vec()), some.len()));
            }
            op => put(op, 1),
        }
    }
    pieces
}

/// What an element takes of [`PIECE`]: a range is two for the kernel, which keeps them sorted.
fn cost(elements: &Elements) -> usize {
    match elements.first_key_value() {
        Some((Key::Range(..), _)) => RANGE,
        _ => 1,
    }
}

/// The transactions that turn `current` into `desired`.
pub fn diff(current: &Table, desired: &Table) -> Delta {
    let mut delta = Delta::default();
    for (name, chain) in &desired.chains {
        if !current.chains.contains_key(name) {
            delta.switch.push(Op::AddChain(name.clone(), chain.base));
        }
    }
    // The kernel looks for a set from the first that was made to the last, so those that leases go to come first.
    for leased in [true, false] {
        let new = desired.sets.iter().filter(|(name, _)| !current.sets.contains_key(*name));
        let new = new.filter(|(_, set)| set.spec.timeout == leased);
        delta.switch.extend(new.map(|(name, set)| Op::AddSet(name.clone(), set.spec)));
    }
    for (name, object) in &desired.objects {
        match (current.objects.get(name), object) {
            (None, _) => delta.switch.push(Op::AddObject(name.clone(), object.clone())),
            (Some(Object::Quota { limit: old, .. }), Object::Quota { limit, .. }) if old != limit => {
                delta.switch.push(Op::SetQuota(name.clone(), *limit));
            }
            // What they have counted is the kernel's business.
            (Some(_), _) => {}
        }
    }
    for (name, chain) in &desired.chains {
        let old = current.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        if old == chain.rules {
            continue;
        }
        if !old.is_empty() {
            delta.switch.push(Op::FlushChain(name.clone()));
        }
        delta.switch.extend(chain.rules.iter().map(|rule| Op::AddRule(name.clone(), rule.clone())));
    }
    let nothing = Elements::default();
    for (name, set) in &desired.sets {
        let old = current.sets.get(name).map_or(&nothing, |set| &set.elements);
        if old.is_empty() && set.spec.is_replaced() && !set.elements.is_empty() {
            delta.switch.push(Op::Fill(name.clone(), set.elements.clone()));
        } else {
            element_diff(name, set, old, &mut delta);
        }
    }
    delta.prepare(current, desired);
    // Rules refer to sets and chains, elements to chains: so they go in this order.
    for (name, chain) in &current.chains {
        if !desired.chains.contains_key(name) && !chain.rules.is_empty() {
            delta.litter.push(Op::FlushChain(name.clone()));
        }
    }
    for (name, set) in &current.sets {
        if !desired.sets.contains_key(name) {
            delta.litter.extend(del_set(name, &set.spec));
        }
    }
    for name in current.chains.keys() {
        if !desired.chains.contains_key(name) {
            delta.litter.push(Op::DelChain(name.clone()));
        }
    }
    for (name, object) in &current.objects {
        if !desired.objects.contains_key(name) {
            delta.litter.push(Op::DelObject(name.clone(), object.kind()));
        }
    }
    delta
}

/// Elements that lead to chains go first, so that the chains can. Of others nobody need be told one by one.
fn del_set(name: &Ident, spec: &SetSpec) -> impl Iterator<Item = Op> + use<> {
    let flush = (spec.data == DataType::Verdict).then(|| Op::FlushSet(name.clone()));
    flush.into_iter().chain([Op::DelSet(name.clone())])
}

fn element_diff(set: &Ident, desired: &Set, old: &Elements, delta: &mut Delta) {
    if desired.elements.is_same(old) {
        return;
    }
    let (mut gone, mut replaced, mut come) = (Vec::new(), Vec::new(), Vec::new());
    // Both are sorted, so one walk along both finds everything.
    let (mut before, mut after) = (old.iter().peekable(), desired.elements.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let left = if order.is_le() { before.next() } else { None };
        let right = if order.is_ge() { after.next() } else { None };
        match (left, right) {
            (Some((key, old)), Some((_, new))) if old != new => {
                replaced.push(*key);
                come.push((*key, new.clone()));
            }
            (Some((key, _)), None) => gone.push(*key),
            (None, Some((key, new))) => come.push((*key, new.clone())),
            _ => {}
        }
    }
    if desired.spec.interval {
        // Only a repair changes ranges in place. New ones must not overlap those that somebody else put there.
        replaced.append(&mut gone);
    }
    if !replaced.is_empty() {
        delta.switch.push(Op::DelElements(set.clone(), replaced));
    }
    if !come.is_empty() {
        delta.switch.push(Op::AddElements(set.clone(), come));
    }
    if !gone.is_empty() {
        delta.remove.push(Op::DelElements(set.clone(), gone));
    }
}
