//! What the policy is about, as conditions on a packet.
//!
//! A scope is a list of alternatives; each becomes one rule. Few prefixes are compared one by one elsewhere in the
//! kernel's own way (a set look-up of an interval set costs more than the rest of the fast path), so the rules that
//! every packet meets stand behind the class check.

use super::super::ir::Key;
use super::super::ir::{Cond, DataType, Direction, End, Family, Field, Ident, KeyType};
use super::build::{Build, member};
use super::hosts::segments;
use super::names;

/// Which end of the packet (or flow) must be in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The packet's sender: source address and incoming interface.
    Sender,
    /// The packet's receiver, before routing: the route to it is asked.
    ReceiverBeforeRouting,
    /// The packet's receiver in the forward path: destination address and outgoing interface.
    Receiver,
    /// The side that opened the flow, seen on a reply in the forward path.
    Opener,
}

/// Adds the sets that the scope conditions look into.
pub(super) fn add_sets(build: &mut Build<'_>) {
    let Some(sources) = &build.policy.scope.sources else { return };
    let nets: Vec<_> = sources.entries.iter().map(|net| (*net, ())).collect();
    for family in Family::BOTH {
        let own = nets.iter().filter(|(net, ())| Family::of(net.addr()) == family).copied();
        let elements: Vec<_> = segments(own).into_keys().map(|(first, last)| member(Key::Range(first, last))).collect();
        build.plain_set(names::of("scope", family), KeyType::Address(family), DataType::None, true, elements);
    }
}

/// Whether the policy leaves anything out.
pub(super) fn is_given(build: &Build<'_>) -> bool {
    build.policy.scope.sources.is_some() || build.policy.scope.interfaces.is_some()
}

/// The alternatives of the scope for one side. `[[]]`: always in scope.
pub(super) fn conditions(build: &Build<'_>, side: Side) -> Vec<Vec<Cond>> {
    alternatives(build, side, &Family::BOTH)
}

/// The same for packets of one family.
pub(super) fn conditions_of(build: &Build<'_>, side: Side, family: Family) -> Vec<Vec<Cond>> {
    alternatives(build, side, &[family])
}

fn alternatives(build: &Build<'_>, side: Side, families: &[Family]) -> Vec<Vec<Cond>> {
    let scope = &build.policy.scope;
    let interfaces: Vec<Option<Cond>> = match &scope.interfaces {
        None => vec![None],
        Some(list) => list.entries.iter().map(|name| Some(interface(side, name.as_str().into()))).collect(),
    };
    let sources: Vec<Option<Cond>> = match &scope.sources {
        None => vec![None],
        Some(_) => families.iter().map(|family| Some(source(side, *family))).collect(),
    };
    interfaces
        .iter()
        .flat_map(|interface| sources.iter().map(move |source| interface.iter().chain(source).cloned().collect()))
        .collect()
}

fn interface(side: Side, name: Ident) -> Cond {
    match side {
        Side::Sender => Cond::Iif(name),
        Side::ReceiverBeforeRouting => Cond::RouteLeavesBy(name),
        Side::Receiver | Side::Opener => Cond::Oif(name),
    }
}

fn source(side: Side, family: Family) -> Cond {
    let field = match side {
        Side::Sender => Field::Packet(family, End::Source),
        Side::ReceiverBeforeRouting | Side::Receiver => Field::Packet(family, End::Destination),
        Side::Opener => Field::Ct(Direction::Original, family, End::Source),
    };
    Cond::In { field, set: names::of("scope", family), negate: false }
}
