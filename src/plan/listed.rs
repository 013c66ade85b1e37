//! Lists of names as the snapshot asks them: those that the policy writes, and those in files.

use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::lists::Contents;
use crate::policy::model::{DomainList, List, Pointer};
use crate::policy::name::{Name, Pattern, PatternRef};
use crate::policy::patterns::Domains;

/// The entry that covers `name` most closely.
fn closest(list: &Domains, name: &Name) -> Option<(Pointer, Pattern)> {
    let at = list.entries.closest(name)?;
    Some((list.entry_path(at), list.entries.get(at)?.to_pattern()))
}

/// One list, shared by all views that have it.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// In the policy, which can be asked by name.
    Written(Domains),
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
            Self::Written(list) => closest(list, name),
            Self::File(path, contents) => contents.allows(name).map(|entry| (path.clone(), entry.pattern)),
        }
    }

    /// The entry by which it denies a name.
    pub fn denies(&self, name: &Name) -> Option<(Pointer, Pattern)> {
        match self {
            Self::Written(list) => closest(list, name),
            Self::File(path, contents) => contents.denies(name).map(|entry| (path.clone(), entry.pattern)),
        }
    }

    /// Whether some entry covers a name, be it as an exception.
    pub fn mentions(&self, name: &Name) -> bool {
        match self {
            Self::Written(list) => list.entries.closest(name).is_some(),
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
            Self::Written(list) => Box::new(list.entries.iter().map(PatternRef::to_pattern).zip(0..)),
            Self::File(_, contents) => Box::new(contents.entries().map(|entry| (entry.pattern, entry.line))),
        }
    }

    /// Where an entry stands.
    pub fn line(&self, number: u32) -> String {
        match self {
            Self::Written(list) => list.entry_path(number as usize).to_string(),
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
