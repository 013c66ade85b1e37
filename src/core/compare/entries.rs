//! Lists by what they cover.

use std::collections::BTreeMap;
use std::fmt::Display;

use ipnet::IpNet;

use super::Kind;
use crate::policy::model::{DomainList, List, Pointer};
use crate::policy::name::{PatternRef, parents};
use crate::policy::patterns::Domains;

/// An entry of a list.
pub(super) trait Entry: Ord + Clone {
    /// The lists of one policy, for [`Entry::is_covered`].
    type Cover;
    /// Indexes entries.
    fn cover<'e>(entries: impl Iterator<Item = &'e Self>) -> Self::Cover
    where
        Self: 'e;
    /// Whether these entries cover all that this one does.
    fn is_covered(&self, by: &Self::Cover) -> bool;
    /// As the policy says it.
    fn text(&self) -> String;
}

impl Entry for IpNet {
    type Cover = Vec<IpNet>;

    fn cover<'e>(entries: impl Iterator<Item = &'e Self>) -> Vec<IpNet> {
        // Neighbours become one, and what lies inside another goes.
        let mut nets = Self::aggregate(&entries.copied().collect());
        nets.sort_unstable_by_key(IpNet::network);
        nets
    }

    fn is_covered(&self, by: &Vec<IpNet>) -> bool {
        let behind = by.partition_point(|net| net.network() <= self.network());
        behind.checked_sub(1).is_some_and(|at| by[at].contains(self))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// A list whose entries cover nothing but themselves.
macro_rules! alone {
    ($entry:ty, $text:expr) => {
        impl Entry for $entry {
            type Cover = std::collections::BTreeSet<$entry>;

            fn cover<'e>(entries: impl Iterator<Item = &'e Self>) -> Self::Cover {
                entries.cloned().collect()
            }

            fn is_covered(&self, by: &Self::Cover) -> bool {
                by.contains(self)
            }

            fn text(&self) -> String {
                $text(self)
            }
        }
    };
}

alone!(u16, Self::to_string);
alone!(String, Self::clone);

/// Octets of a digest that tell two contents of one file apart.
const DIGEST: usize = 12;

/// The words for a list in a file, with what tells its contents from those before a change.
pub(super) fn file_words(list: &DomainList) -> String {
    let DomainList { name, file, format, contents } = list;
    let digest = contents.as_ref().and_then(|contents| contents.digest().get(..DIGEST));
    format!("{name} ({file}, {}, {})", format.word(), digest.unwrap_or("not read"))
}

/// What came to lists, or went.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub kind: Kind,
    pub text: String,
    /// Where it is written; `None`: nowhere, a default.
    pub path: Option<Pointer>,
    /// The others do not cover it.
    pub counts: bool,
}

/// An entry with its place.
pub(super) type Placed<E> = (E, Option<Pointer>);

/// The entries of a list with their places.
pub(super) fn placed<E: Clone>(list: &List<E>) -> Vec<Placed<E>> {
    list.entries.iter().enumerate().map(|(index, entry)| (entry.clone(), Some(list.entry_path(index)))).collect()
}

/// What is in one and not in the other.
pub(super) fn difference<E: Entry>(old: &[Placed<E>], new: &[Placed<E>]) -> Vec<Item> {
    let by_entry = |entries: &[Placed<E>]| {
        let mut map: BTreeMap<E, Option<Pointer>> = BTreeMap::new();
        for (entry, path) in entries {
            map.entry(entry.clone()).or_insert_with(|| path.clone());
        }
        map
    };
    let (before, after) = (by_entry(old), by_entry(new));
    let mut items = Vec::new();
    for (kind, these, others) in [(Kind::Added, &after, &before), (Kind::Removed, &before, &after)] {
        let mut cover = None;
        for (entry, path) in these.iter().filter(|(entry, _)| !others.contains_key(*entry)) {
            let cover = cover.get_or_insert_with(|| E::cover(others.keys()));
            items.push(Item { kind, text: entry.text(), path: path.clone(), counts: !entry.is_covered(cover) });
        }
    }
    items
}

/// [`difference`] of lists of names. They may be long, so they are asked as they are.
pub(super) fn names_difference(old: &[&Domains], new: &[&Domains]) -> Vec<Item> {
    let has = |lists: &[&Domains], pattern| lists.iter().any(|list| list.entries.find(pattern).is_some());
    let mut items = Vec::new();
    for (kind, these, others) in [(Kind::Added, new, old), (Kind::Removed, old, new)] {
        let mut found: BTreeMap<PatternRef<'_>, Pointer> = BTreeMap::new();
        for list in these {
            for (index, entry) in list.entries.iter().enumerate().filter(|(_, entry)| !has(others, *entry)) {
                found.entry(entry).or_insert_with(|| list.entry_path(index));
            }
        }
        items.extend(found.into_iter().map(|(entry, path)| {
            // Names have no end, so nothing but a wildcard covers a wildcard.
            let covered = parents(entry.parts().0).any(|apex| has(others, PatternRef::Below(apex)));
            Item { kind, text: entry.to_string(), path: Some(path), counts: !covered }
        }));
    }
    items
}

/// Words in a row.
pub(super) fn listed<T: Display>(entries: impl Iterator<Item = T>) -> String {
    entries.map(|entry| entry.to_string()).collect::<Vec<_>>().join(", ")
}
