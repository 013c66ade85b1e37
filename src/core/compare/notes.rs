//! Changes as they are found, and those of the fields that a policy has once.

use std::collections::BTreeMap;

use chrono_tz::Tz;

use super::entries::{Entry, Item, difference, listed, placed};
use super::{Change, Effect, Field, Kind, windows};
use crate::policy::model::{HostName, List, Located, Pointer, Policy, Window};

/// The changes found so far. What is found again, for other sources, adds its effect.
#[derive(Default)]
pub(super) struct Notes {
    found: BTreeMap<(Option<String>, Field, Option<String>, Kind), Change>,
}

/// Where a change is.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    /// Whose.
    pub host: Option<&'p HostName>,
    /// The part of the policy.
    pub field: Field,
}

/// A value in words, and where it is written.
pub(super) type Said = (String, Option<Pointer>);

impl Notes {
    pub fn add(&mut self, change: Change) {
        let key = (change.host.clone(), change.field, change.item.clone(), change.change);
        let effect = change.effect;
        let known = self.found.entry(key).or_insert(change);
        known.effect = known.effect.and(effect);
    }

    /// An entry of a list. `opens`: the list is of what may be reached.
    pub fn item(&mut self, place: Place<'_>, item: &Item, opens: bool) {
        self.add(Change {
            effect: item_effect(item, opens),
            change: item.kind,
            host: place.host.map(ToString::to_string),
            field: place.field,
            item: Some(item.text.clone()),
            before: None,
            after: None,
            path: item.path.as_ref().map(ToString::to_string),
        });
    }

    /// A value that may be there or not.
    pub fn value(
        &mut self,
        place: Place<'_>,
        item: Option<String>,
        old: Option<Said>,
        new: Option<Said>,
        effect: Effect,
    ) {
        let change = match (&old, &new) {
            (None, None) => return,
            (None, Some(_)) => Kind::Added,
            (Some(_), None) => Kind::Removed,
            (Some(_), Some(_)) => Kind::Changed,
        };
        let path = new.as_ref().or(old.as_ref()).and_then(|(_, path)| path.as_ref().map(ToString::to_string));
        self.add(Change {
            effect,
            change,
            host: place.host.map(ToString::to_string),
            field: place.field,
            item,
            before: old.map(|(words, _)| words),
            after: new.map(|(words, _)| words),
            path,
        });
    }

    /// What widens first, then what does both, narrows, or nothing.
    pub fn into_changes(self) -> Vec<Change> {
        let rank = |effect| match effect {
            Effect::Widens => 0,
            Effect::Both => 1,
            Effect::Narrows => 2,
            Effect::None => 3,
        };
        let mut changes: Vec<Change> = self.found.into_values().collect();
        changes.sort_by_key(|change| rank(change.effect));
        changes
    }
}

/// What an entry does that came to a list or went.
pub(super) fn item_effect(item: &Item, opens: bool) -> Effect {
    let widens = (item.kind == Kind::Added) == opens;
    Effect::of(item.counts && widens, item.counts && !widens)
}

/// What a smaller or greater number does; none at all is the greatest.
pub(super) fn limit_effect(old: Option<u64>, new: Option<u64>) -> Effect {
    let (old, new) = (old.unwrap_or(u64::MAX), new.unwrap_or(u64::MAX));
    Effect::of(new > old, new < old)
}

/// `8000 kbit/s`
pub(super) fn rate(kbps: &Located<u64>) -> Said {
    (format!("{} kbit/s", kbps.value), Some(kbps.path.clone()))
}

/// A window in words.
pub(super) fn window(window: &Located<Window>) -> Said {
    (windows::words(&window.value), Some(window.path.clone()))
}

/// The fields that only the policy as a whole has.
pub(super) fn top(old: &Policy, new: &Policy, zone: Tz, notes: &mut Notes) {
    let (before, after) = (old.scope.sources.as_ref(), new.scope.sources.as_ref());
    scope(notes, Field::ScopeSources, before, after, "every source");
    let (before, after) = (old.scope.interfaces.as_ref(), new.scope.interfaces.as_ref());
    scope(notes, Field::ScopeInterfaces, before, after, "every interface");
    time_zone(old, new, zone, notes);
    let place = Place { host: None, field: Field::Labels };
    for pattern in old.labels.keys().chain(new.labels.keys()) {
        let label = |policy: &Policy| policy.labels.get(pattern).map(|label| (label.clone(), None));
        if label(old) != label(new) {
            notes.value(place, Some(pattern.to_string()), label(old), label(new), Effect::None);
        }
    }
}

/// What leaves the scope is open.
fn scope<E: Entry>(notes: &mut Notes, field: Field, old: Option<&List<E>>, new: Option<&List<E>>, all: &str) {
    let place = Place { host: None, field };
    if let (Some(old), Some(new)) = (old, new) {
        for item in difference(&placed(old), &placed(new)) {
            notes.item(place, &item, false);
        }
    } else if old.is_some() != new.is_some() {
        let said = |list: Option<&List<E>>| match list {
            Some(list) => (listed(list.entries.iter().map(Entry::text)), Some(list.path.clone())),
            None => (all.to_owned(), None),
        };
        // No list is taken to be of all sources.
        notes.value(place, None, Some(said(old)), Some(said(new)), Effect::of(new.is_some(), old.is_some()));
    }
}

/// Another zone moves every window and the turns of caps.
fn time_zone(old: &Policy, new: &Policy, zone: Tz, notes: &mut Notes) {
    let written = |policy: &Policy| policy.time_zone.as_ref().map(|zone| zone.value);
    if written(old) == written(new) {
        return;
    }
    let moves = written(old).unwrap_or(zone) != written(new).unwrap_or(zone) && has_times(old) && has_times(new);
    let said = |policy: &Policy| match &policy.time_zone {
        Some(zone) => (zone.value.to_string(), Some(zone.path.clone())),
        None => (format!("{zone} (the gateway's)"), None),
    };
    let place = Place { host: None, field: Field::TimeZone };
    notes.value(place, None, Some(said(old)), Some(said(new)), Effect::of(moves, moves));
}

/// Whether anything in the policy depends on the clock on the wall.
fn has_times(policy: &Policy) -> bool {
    policy.time_window.is_some()
        || !policy.domain_time_windows.is_empty()
        || policy
            .hosts
            .values()
            .any(|host| host.time_window.is_some() || !host.domain_time_windows.is_empty() || !host.caps.is_empty())
}
