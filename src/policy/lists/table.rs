//! A hash table of numbers whose keys are kept elsewhere: eight octets a slot, whatever the keys are.

use std::hash::{BuildHasher as _, Hash, RandomState};

/// Slots for each entry, as a fraction: three of four slots are used at most, so that searches end soon.
const FULL: (usize, usize) = (3, 4);
/// The fewest slots of a table that is not empty.
const FEWEST: usize = 16;

/// An open-addressing table. It keeps 32 bits of each key's hash and the entry's number; whether an entry is the one
/// that is looked for is asked of whoever has the keys, so nothing is ever found that is not there.
///
/// The hash is keyed: whoever writes a list cannot choose names that meet in one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// 0: free. Else the hash in the upper half and the number plus one in the lower.
    slots: Vec<u64>,
    len: usize,
    keys: RandomState,
}

impl Table {
    /// A table that takes so many entries without growing.
    pub fn with_room(entries: usize) -> Self {
        let mut table = Self::default();
        if entries > 0 {
            table.slots = vec![0; (entries * FULL.1 / FULL.0 + 1).max(FEWEST)];
        }
        table
    }

    /// The hash of a key.
    pub fn hash(&self, key: impl Hash) -> u32 {
        u32::try_from(self.keys.hash_one(key) >> 32).unwrap_or(0)
    }

    /// The number under a hash that `is` says yes to.
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.start(hash)?;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            let (found, number) = halves(slot);
            if found == hash && is(number - 1) {
                return Some(number - 1);
            }
            at = self.after(at);
        }
    }

    /// Adds a number under a hash. It must not be there already, and be less than `u32::MAX`.
    pub fn insert(&mut self, hash: u32, number: u32) {
        if (self.len + 1) * FULL.1 > self.slots.len() * FULL.0 {
            self.grow();
        }
        self.len += 1;
        self.put(u64::from(hash) << 32 | u64::from(number + 1));
    }

    fn put(&mut self, slot: u64) {
        let Some(mut at) = self.start(halves(slot).0) else { return };
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    /// Half as large again. The place follows from the hash alone, so no key is asked for.
    fn grow(&mut self) {
        let slots = (self.slots.len() + self.slots.len() / 2).max(FEWEST);
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        old.into_iter().filter(|slot| *slot != 0).for_each(|slot| self.put(slot));
    }

    /// Where the search for a hash begins; `None`: the table is empty.
    fn start(&self, hash: u32) -> Option<usize> {
        let slots = self.slots.len() as u64;
        // The upper half of the product: the hash as a fraction of the table.
        (slots > 0).then(|| usize::try_from((u64::from(hash) * slots) >> 32).unwrap_or(0))
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Octets in memory.
    pub fn size(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }
}

fn halves(slot: u64) -> (u32, u32) {
    (u32::try_from(slot >> 32).unwrap_or(0), u32::try_from(slot & u64::from(u32::MAX)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        for room in [0, 1, 5000] {
            let mut table = Table::with_room(room);
            assert_eq!(table.find(7, |_| true), None);
            for number in 0..5000u32 {
                let hash = table.hash(number);
                assert_eq!(table.find(hash, |found| found == number), None);
                table.insert(hash, number);
            }
            for number in 0..5000u32 {
                assert_eq!(table.find(table.hash(number), |found| found == number), Some(number));
            }
            assert!((5000..9000).all(|number: u32| table.find(table.hash(number), |found| found == number).is_none()));
        }
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_keys() {
        let mut table = Table::default();
        // The last place as well, so that the search goes round the end.
        for hash in [u32::MAX, 5] {
            (0..40).for_each(|number| table.insert(hash, number));
            (0..40).for_each(|number| assert_eq!(table.find(hash, |found| found == number), Some(number)));
            assert_eq!(table.find(hash, |found| found == 99), None);
        }
    }
}
