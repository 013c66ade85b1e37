//! The elements of a set.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

use super::ir::{Data, Key, Value, Verdict};

/// The elements of a set, shared until they are changed: a table may hold a hundred thousand, and revisions, their
/// comparison and the daemon's picture of the kernel all hold the same ones.
#[derive(Clone, Debug, Default)]
pub struct Elements(Arc<Inner>);

#[derive(Clone, Debug, Default)]
struct Inner {
    all: BTreeMap<Key, Value>,
    /// Once somebody has asked for it.
    digest: OnceLock<Option<[u8; 32]>>,
}

impl Elements {
    /// Whether both are known to be the same, so that nothing need be compared: they are one, or their digests were made.
    pub fn is_same(&self, other: &Self) -> bool {
        let made = |elements: &Self| elements.0.digest.get().copied().flatten();
        // With the number of elements a digest is of one kind of key: a range is not two addresses.
        Arc::ptr_eq(&self.0, &other.0)
            || (self.len() == other.len() && made(self).is_some_and(|own| made(other) == Some(own)))
    }

    /// SHA-256 over the elements of a set of addresses or ranges; made once. `None`: other keys are among them, or values
    /// with more than data.
    pub fn digest(&self) -> Option<[u8; 32]> {
        *self.0.digest.get_or_init(|| digest(&self.0.all))
    }
}

fn digest(elements: &BTreeMap<Key, Value>) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for (key, value) in elements {
        match key {
            Key::Range(first, last) => {
                address(&mut hash, first);
                address(&mut hash, last);
            }
            Key::Address(only) => address(&mut hash, only),
            Key::Mark(_) | Key::Port(_) | Key::MarkAddress(..) => return None,
        }
        let Value { data, timeout_ms: None, comment: None } = value else { return None };
        match data {
            Data::None => {}
            Data::Mark(mark) => hash.update(mark.to_be_bytes()),
            Data::Verdict(Verdict::Jump(chain)) => {
                hash.update(chain.as_bytes());
                hash.update([0]);
            }
            Data::Verdict(_) => return None,
        }
    }
    Some(hash.finalize().into())
}

fn address(hash: &mut Sha256, address: &IpAddr) {
    match address {
        IpAddr::V4(v4) => hash.update(v4.octets()),
        IpAddr::V6(v6) => hash.update(v6.octets()),
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0.all == other.0.all
    }
}

impl Eq for Elements {}

impl From<BTreeMap<Key, Value>> for Elements {
    fn from(all: BTreeMap<Key, Value>) -> Self {
        Self(Arc::new(Inner { all, digest: OnceLock::new() }))
    }
}

impl FromIterator<(Key, Value)> for Elements {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(elements: I) -> Self {
        Self::from(elements.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = (&'a Key, &'a Value);
    type IntoIter = std::collections::btree_map::Iter<'a, Key, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.all.iter()
    }
}

impl Deref for Elements {
    type Target = BTreeMap<Key, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0.all
    }
}

impl DerefMut for Elements {
    /// Copies the elements first if others hold them too.
    fn deref_mut(&mut self) -> &mut Self::Target {
        let inner = Arc::make_mut(&mut self.0);
        // It is that of other elements in a moment.
        inner.digest = OnceLock::new();
        &mut inner.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: impl IntoIterator<Item = u8>) -> Elements {
        last.into_iter().map(|last| (Key::Address([192, 0, 2, last].into()), Value::plain(Data::None))).collect()
    }

    #[test]
    fn elements_that_were_made_apart_are_known_to_be_the_same_by_their_digests() {
        let (one, other, less) = (addresses([1, 2]), addresses([1, 2]), addresses([1]));
        assert!(!one.is_same(&other) && one == other, "nothing is known yet, so they are compared");
        assert!(one.digest().is_some() && one.digest() == other.digest() && one.digest() != less.digest());
        assert!(one.is_same(&other) && !one.is_same(&less) && one != less);
        let (first, last) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let range: Elements = [(Key::Range(first, last), Value::plain(Data::None))].into_iter().collect();
        assert_eq!(range.digest(), one.digest());
        assert!(!range.is_same(&one), "a range is not its ends");
    }

    #[test]
    fn a_change_ends_what_was_known() {
        let (one, mut other) = (addresses([1, 2]), addresses([1, 2]));
        let before = (one.digest(), other.digest());
        other.remove(&Key::Address([192, 0, 2, 1].into()));
        other.insert(Key::Address([192, 0, 2, 3].into()), Value::plain(Data::None));
        assert!(!one.is_same(&other) && one != other && other.digest() != before.1);
        assert_eq!(one.digest(), before.0);
    }

    #[test]
    fn no_digest_leaves_anything_out() {
        let plain = Value::plain(Data::None);
        for (key, value) in [
            (Key::Mark(1), plain.clone()),
            (Key::Address([192, 0, 2, 1].into()), Value { timeout_ms: Some(1), ..plain.clone() }),
            (Key::Address([192, 0, 2, 1].into()), Value { comment: Some("a".into()), ..plain }),
        ] {
            assert_eq!([(key, value)].into_iter().collect::<Elements>().digest(), None);
        }
    }
}
