//! A list of names as the policy holds it: there may be a million, so they stand one behind the other in one text.

use std::fmt;
use std::sync::Arc;

use super::lists::Table;
use super::model::Pointer;
use super::name::{Name, PatternRef};

/// In the place of an entry: it is a wildcard.
const BELOW: u32 = 1 << 31;

/// Domain patterns in the order written, and where each is: some 15 octets for each besides the name, for the look-ups
/// of the DNS server as well.
#[derive(Default)]
pub struct Patterns {
    /// The names, without what a wildcard has in front.
    text: String,
    /// Where each begins.
    places: Vec<u32>,
    /// By name; of equal entries the first one.
    table: Table,
}

impl Patterns {
    /// An empty list with room for so many.
    pub(super) fn with_room(entries: usize) -> Self {
        Self { text: String::new(), places: Vec::with_capacity(entries), table: Table::with_room(entries) }
    }

    /// Adds an entry at the end; false: it stands in the list before. Doubles are kept, so that numbers are the
    /// document's.
    pub(super) fn push(&mut self, pattern: PatternRef<'_>) -> bool {
        let (name, below) = pattern.parts();
        // A document is read up to a length at which neither number comes near its end.
        let (Ok(number), Ok(place)) = (u32::try_from(self.places.len()), u32::try_from(self.text.len())) else {
            return true;
        };
        let hash = self.table.hash((name, below));
        let double = self.table.find(hash, |at| self.at(at).is_some_and(|entry| entry == pattern)).is_some();
        self.text.push_str(name);
        self.places.push(if below { place | BELOW } else { place });
        if !double {
            self.table.insert(hash, number);
        }
        !double
    }

    /// Gives back spare memory.
    pub(super) fn finish(mut self) -> Arc<Self> {
        self.text.shrink_to_fit();
        self.places.shrink_to_fit();
        Arc::new(self)
    }

    /// How many there are, doubles included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Entry `index`.
    pub fn get(&self, index: usize) -> Option<PatternRef<'_>> {
        let place = *self.places.get(index)?;
        let end = self.places.get(index + 1).map_or(self.text.len(), |next| (next & !BELOW) as usize);
        let name = self.text.get((place & !BELOW) as usize..end)?;
        Some(if place & BELOW == 0 { PatternRef::Exact(name) } else { PatternRef::Below(name) })
    }

    fn at(&self, number: u32) -> Option<PatternRef<'_>> {
        self.get(number as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = PatternRef<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The first entry that says just this.
    pub fn find(&self, pattern: PatternRef<'_>) -> Option<usize> {
        let hash = self.table.hash(pattern.parts());
        let number = self.table.find(hash, |at| self.at(at).is_some_and(|entry| entry == pattern))?;
        Some(number as usize)
    }

    /// The entry that covers `name` most closely: the name itself, else the longest wildcard.
    pub fn closest(&self, name: &Name) -> Option<usize> {
        let exact = self.find(PatternRef::Exact(name.as_str()));
        exact.or_else(|| name.parents().find_map(|apex| self.find(PatternRef::Below(apex))))
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places && self.text == other.text
    }
}

impl Eq for Patterns {}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Names that the policy wrote (possibly none, which means "none"), with their place; as [`super::model::List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domains {
    /// The entries.
    pub entries: Arc<Patterns>,
    /// Where the list is.
    pub path: Pointer,
}

impl Domains {
    /// The place of entry `index`.
    pub fn entry_path(&self, index: usize) -> Pointer {
        self.path.entry(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[PatternRef<'_>]) -> Patterns {
        let mut list = Patterns::with_room(0);
        for pattern in patterns {
            list.push(*pattern);
        }
        list
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        use PatternRef::{Below, Exact};
        let written = [Exact("a.example"), Below("a.example"), Exact("a.example"), Below("b.example")];
        let found = list(&written);
        assert_eq!(found.iter().collect::<Vec<_>>(), written);
        assert_eq!((found.len(), found.get(4)), (4, None));
        assert_eq!(found, list(&written));
        assert_ne!(found, list(&written[..3]));
    }

    #[test]
    fn the_first_of_equal_entries_is_found() {
        use PatternRef::{Below, Exact};
        let mut found = list(&[Exact("a.example"), Below("example")]);
        assert!(!found.push(Exact("a.example")));
        assert!(found.push(Exact("example")));
        assert_eq!(found.find(Exact("a.example")), Some(0));
        assert_eq!(found.find(Below("a.example")), None);
        let closest = |name| found.closest(&Name::from_normal(name));
        assert_eq!((closest("a.example"), closest("b.a.example"), closest("example")), (Some(0), Some(1), Some(3)));
    }
}
