//! Lists of names as the snapshot asks them: those that the policy writes, and those in files.

use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::lists::{Contents, Table};
use crate::policy::model::{DomainList, List, Pointer};
use crate::policy::name::{Name, Pattern};

/// A list that the policy writes, by name. The names stay where they are, in the policy; here is only where.
#[derive(Debug)]
pub(super) struct NameIndex {
    table: Table,
    list: List<Pattern>,
}

impl NameIndex {
    pub fn new(list: &List<Pattern>) -> Self {
        let mut index = Self { table: Table::with_room(list.entries.len()), list: list.clone() };
        for (number, pattern) in (0u32..).zip(list.entries.iter()) {
            let (name, below) = key(pattern);
            // Of equal entries the first one speaks.
            if index.at(name, below).is_none() {
                index.table.insert(index.table.hash((name, below)), number);
            }
        }
        index
    }

    fn at(&self, name: &str, below: bool) -> Option<u32> {
        self.table.find(self.table.hash((name, below)), |at| key(&self.list.entries[at as usize]) == (name, below))
    }

    /// The entry that covers `name` most closely.
    fn find(&self, name: &Name) -> Option<(Pointer, Pattern)> {
        let exact = self.at(name.as_str(), false);
        let at = exact.or_else(|| name.parents().find_map(|apex| self.at(apex, true)))? as usize;
        Some((self.list.entry_path(at), self.list.entries[at].clone()))
    }
}

fn key(pattern: &Pattern) -> (&str, bool) {
    match pattern {
        Pattern::Exact(name) => (name.as_str(), false),
        Pattern::Below(apex) => (apex.as_str(), true),
    }
}

/// One list, shared by all views that have it.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// In the policy.
    Written(Arc<NameIndex>),
    /// In a file, with its place in the policy.
    File(Pointer, Arc<Contents>),
}

impl Names {
    /// The lists in files; one that was not read is left out, and no policy with such a one is enforced.
    pub fn in_files(lists: Option<&List<DomainList>>) -> impl Iterator<Item = Self> {
        lists.into_iter().flat_map(|list| {
            let entries = list.entries.iter().enumerate();
            entries.filter_map(|(index, entry)| Some(Self::File(list.entry_path(index), entry.contents.clone()?)))
        })
    }

    /// The entry by which it allows a name.
    pub fn allows(&self, name: &Name) -> Option<(Pointer, Pattern)> {
        match self {
            Self::Written(index) => index.find(name),
            Self::File(path, contents) => contents.allows(name).map(|entry| (path.clone(), entry.pattern)),
        }
    }

    /// The entry by which it denies a name.
    pub fn denies(&self, name: &Name) -> Option<(Pointer, Pattern)> {
        match self {
            Self::Written(index) => index.find(name),
            Self::File(path, contents) => contents.denies(name).map(|entry| (path.clone(), entry.pattern)),
        }
    }

    /// Whether some entry covers a name, be it as an exception.
    pub fn mentions(&self, name: &Name) -> bool {
        match self {
            Self::Written(index) => index.find(name).is_some(),
            Self::File(_, contents) => contents.closest(name).is_some(),
        }
    }

    /// Whether some entries take names out of it.
    pub fn has_exceptions(&self) -> bool {
        matches!(self, Self::File(_, contents) if contents.report().exceptions > 0)
    }

    /// All entries, each with a number that [`Names::line`] puts into words.
    pub fn patterns(&self) -> Box<dyn Iterator<Item = (Pattern, u32)> + '_> {
        match self {
            Self::Written(index) => Box::new(index.list.entries.iter().cloned().zip(0..)),
            Self::File(_, contents) => Box::new(contents.entries().map(|entry| (entry.pattern, entry.line))),
        }
    }

    /// Where an entry stands.
    pub fn line(&self, number: u32) -> String {
        match self {
            Self::Written(index) => index.list.entry_path(number as usize).to_string(),
            Self::File(path, _) => format!("{path} line {number}"),
        }
    }

    /// Its place, if it denies an address.
    pub fn denies_address(&self, address: IpAddr) -> Option<Pointer> {
        match self {
            Self::Written(_) => None,
            Self::File(path, contents) => contents.denies_address(address).map(|_| path.clone()),
        }
    }
}
