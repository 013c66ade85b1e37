//! A zone as it was told to others: with its serial, and how it came from earlier ones.

use std::sync::Arc;

use super::{Image, Served};

/// Differences that are remembered of one zone at most.
const MAX_DELTAS: usize = 64;
/// Octets that small zones may remember all the same.
const SMALL: usize = 64 * 1024;

/// Whether serial `a` is newer than `b` (RFC 1982 section 3.2). Of two that are half the circle apart neither is.
#[must_use]
pub fn serial_is_newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

/// The serial that follows `last`: the time (seconds since 1970) where that is newer, so that serials grow even if what was
/// written down about the last one is lost; one more where the clock went back.
#[must_use]
pub fn next_serial(last: Option<u32>, seconds: u64) -> u32 {
    // The last 32 bits: serials wrap.
    let now = (seconds & u64::from(u32::MAX)) as u32;
    match last {
        Some(last) if !serial_is_newer(now, last) => last.wrapping_add(1),
        _ => now,
    }
}

/// One step of a zone.
#[derive(Debug, PartialEq, Eq)]
pub struct Delta {
    /// The serial before.
    pub from: u32,
    /// The serial after.
    pub to: u32,
    /// Records that went.
    pub removed: Arc<Image>,
    /// Records that came.
    pub added: Arc<Image>,
}

impl Delta {
    fn size(&self) -> usize {
        self.removed.size() + self.added.size()
    }
}

/// One zone under one serial. Immutable: who reads it reads the same zone to the end, whatever comes meanwhile.
#[derive(Clone, Debug)]
pub struct Edition {
    /// Whose view it is of, as [`Zone::view`](super::Zone::view).
    pub view: String,
    /// The zone's name with the trailing dot.
    pub name: String,
    /// The serial (RFC 1982).
    pub serial: u32,
    /// The records.
    pub image: Arc<Image>,
    /// How it came from earlier serials, oldest first; each begins where the one before ends, and the last ends here.
    deltas: Vec<Arc<Delta>>,
}

impl Edition {
    /// A zone without a past.
    #[must_use]
    pub fn first(served: Served, serial: u32) -> Self {
        let Served { view, name, image } = served;
        Self { view, name, serial, image: Arc::new(image), deltas: Vec::new() }
    }

    /// The same zone with other records. What it remembers takes no more room than the zone itself: to send more than
    /// that would be worse than to send the zone.
    #[must_use]
    pub fn follow(&self, image: Image, serial: u32) -> Self {
        let (removed, added) = self.image.difference(&image);
        let delta = Delta { from: self.serial, to: serial, removed: Arc::new(removed), added: Arc::new(added) };
        let mut deltas = self.deltas.clone();
        deltas.push(Arc::new(delta));
        let most = image.size().max(SMALL);
        while deltas.len() > MAX_DELTAS || deltas.iter().map(|delta| delta.size()).sum::<usize>() > most {
            deltas.remove(0);
        }
        Self { view: self.view.clone(), name: self.name.clone(), serial, image: Arc::new(image), deltas }
    }

    /// The steps from a serial to this one; `None`: not remembered that far.
    pub fn since(&self, serial: u32) -> Option<&[Arc<Delta>]> {
        let first = self.deltas.iter().position(|delta| delta.from == serial)?;
        self.deltas.get(first..)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::rpz::Action;

    fn image(owners: &[String]) -> Image {
        let action = |owner: &str| if owner.len().is_multiple_of(2) { Action::Passthru } else { Action::Nxdomain };
        Image::from_records(owners.iter().map(|owner| (owner.as_str(), action(owner))))
    }

    fn first(image: Image) -> Edition {
        Edition::first(Served { view: "*".into(), name: "z.".into(), image }, 7)
    }

    #[test]
    fn serials_go_round_and_on() {
        assert!(serial_is_newer(1, 0) && !serial_is_newer(0, 1) && !serial_is_newer(5, 5));
        assert!(serial_is_newer(0, u32::MAX) && serial_is_newer(3, u32::MAX - 9));
        assert!(!serial_is_newer(1 << 31, 0) && !serial_is_newer(0, 1 << 31), "half the circle is undefined");
        assert_eq!(next_serial(None, 1_800_000_000), 1_800_000_000);
        assert_eq!(next_serial(Some(1_700_000_000), 1_800_000_000), 1_800_000_000);
        assert_eq!(next_serial(Some(1_800_000_000), 1_800_000_000), 1_800_000_001);
        assert_eq!(next_serial(Some(1_800_000_000), 5), 1_800_000_001, "the clock went back");
        assert_eq!(next_serial(Some(u32::MAX), 1 << 32), 0, "both wrap in 2106");
    }

    #[test]
    fn what_is_remembered_is_no_more_than_the_zone() {
        let owners: Vec<String> = (0..20_000).map(|number| format!("name-{number}.example.org")).collect();
        let mut edition = first(image(&owners));
        for serial in 8..18 {
            edition = edition.follow(image(&owners[(serial as usize - 8) * 1000..]), serial);
        }
        assert!(edition.since(7).is_some(), "small steps are all remembered");
        let gone = edition.follow(Image::default(), 18);
        assert!(gone.since(17).is_none(), "the empty zone is shorter than what went");
        let mut edition = first(image(&owners));
        for serial in 8..200 {
            edition = edition.follow(image(&owners[serial as usize % 2..]), serial);
        }
        assert!(edition.since(199 - 64).is_some() && edition.since(199 - 65).is_none());
        assert!(edition.since(199).is_none() && edition.since(1).is_none());
    }

    proptest! {
        #[test]
        fn serials_always_grow(last in any::<u32>(), seconds in any::<u64>()) {
            prop_assert!(serial_is_newer(next_serial(Some(last), seconds), last));
        }

        /// The steps applied in turn to the old zone give the new one.
        #[test]
        fn steps_lead_to_the_zone(
            zones in proptest::collection::vec(proptest::collection::btree_set("[a-d]{1,3}", 0..12), 2..6)
        ) {
            let zones: Vec<Vec<String>> = zones.into_iter().map(|zone| zone.into_iter().collect()).collect();
            let mut edition = first(image(&zones[0]));
            for (zone, serial) in zones[1..].iter().zip(8..) {
                edition = edition.follow(image(zone), serial);
            }
            let mut records: std::collections::BTreeMap<String, Action> =
                image(&zones[0]).records().map(|(owner, action)| (owner.to_owned(), action)).collect();
            let mut at = 7;
            for delta in edition.since(7).unwrap() {
                prop_assert_eq!(delta.from, at);
                for (owner, action) in delta.removed.records() {
                    prop_assert_eq!(records.remove(owner), Some(action));
                }
                for (owner, action) in delta.added.records() {
                    prop_assert_eq!(records.insert(owner.to_owned(), action), None);
                }
                at = delta.to;
            }
            prop_assert_eq!(at, edition.serial);
            let expected: Vec<(String, Action)> =
                edition.image.records().map(|(owner, action)| (owner.to_owned(), action)).collect();
            prop_assert_eq!(records.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
