//! The elements of a set.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::ir::{Key, Value};

/// The elements of a set, shared until they are changed: a table may hold a hundred thousand, and revisions, their
/// comparison and the daemon's picture of the kernel all hold the same ones.
#[derive(Clone, Debug, Default)]
pub struct Elements(Arc<BTreeMap<Key, Value>>);

impl Elements {
    /// Whether both are one and the same, so that nothing need be compared.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0 == other.0
    }
}

impl Eq for Elements {}

impl From<BTreeMap<Key, Value>> for Elements {
    fn from(elements: BTreeMap<Key, Value>) -> Self {
        Self(Arc::new(elements))
    }
}

impl FromIterator<(Key, Value)> for Elements {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(elements: I) -> Self {
        Self(Arc::new(elements.into_iter().collect()))
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = (&'a Key, &'a Value);
    type IntoIter = std::collections::btree_map::Iter<'a, Key, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Deref for Elements {
    type Target = BTreeMap<Key, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Elements {
    /// Copies the elements first if others hold them too.
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}
