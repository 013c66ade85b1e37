//! What the kernel's elements count, made into what came since the last reading.
//!
//! An element counts from its making to its end, and the same class may get a new one at any time (its window or its
//! meter changes). What is read may be newer than what is heard of removals, in any order, so for each class it is kept
//! how much was taken for elements whose end was not heard of: the *lead*. What an element had counted at its end is
//! held against the lead, and so is each reading; whichever comes first, each octet is taken once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Counts, MONITORED, NETWORKS, OTHER, Tally};
use crate::core::classes::{Said, read_comment};
use crate::plan::table::names;

/// Readings in a row without an element after which it ended unheard: its window closed.
const ABSENT: u8 = 2;
/// Readings in a row with less than the lead after which it is another element, whose forerunner's end was lost.
const LESS: u8 = 2;

/// Which map an element is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counted {
    /// `up`
    Up,
    /// `down`
    Down,
    /// `sent_up`
    SentUp,
    /// `sent_down`
    SentDown,
}

impl Counted {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::SentUp, Self::SentDown];

    /// The name of the map.
    pub fn map(self) -> &'static str {
        match self {
            Self::Up => names::UP,
            Self::Down => names::DOWN,
            Self::SentUp => names::SENT_UP,
            Self::SentDown => names::SENT_DOWN,
        }
    }

    /// The one with that name.
    pub fn of(map: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counted| counted.map() == map)
    }

    /// Packets of the side that opened the flow.
    fn is_forth(self) -> bool {
        matches!(self, Self::Up | Self::SentUp)
    }
}

/// An element as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The map it is in.
    pub of: Counted,
    /// The class.
    pub class: u32,
    /// Its comment.
    pub comment: &'a str,
    /// Its packets are accepted by it, and not looked at further.
    pub accepts: bool,
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// What was taken of an element, as it is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The map.
    pub of: Counted,
    /// The class.
    pub class: u32,
    /// Packets; none of either: it is forgotten.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// The counter of a chain that refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainCount {
    /// The kernel's number of the rule; another rule counts from the beginning.
    pub handle: u64,
    /// Packets.
    pub packets: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lead {
    packets: u64,
    bytes: u64,
    absent: u8,
    less: u8,
}

/// The books; see the module.
#[derive(Debug, Default)]
pub struct Registry {
    leads: HashMap<(Counted, u32), Lead>,
    changed: BTreeSet<(Counted, u32)>,
    chains: BTreeMap<Arc<str>, ChainCount>,
    changed_chains: BTreeSet<Arc<str>>,
    /// What was counted before is nobody's: there is nothing on disk to hold it against.
    fresh: bool,
    fresh_chains: bool,
}

impl Registry {
    /// Counts from the first reading on.
    pub fn fresh() -> Self {
        Self { fresh: true, fresh_chains: true, ..Self::default() }
    }

    /// Goes on from what an earlier process took.
    pub fn resume(baselines: impl IntoIterator<Item = Baseline>, chains: BTreeMap<Arc<str>, ChainCount>) -> Self {
        let leads = baselines
            .into_iter()
            .map(|Baseline { of, class, packets, bytes }| ((of, class), Lead { packets, bytes, ..Lead::default() }));
        Self { leads: leads.collect(), chains, ..Self::default() }
    }

    /// Whether an element has counted something; if not, a reading may leave it out while it counts nothing.
    pub fn has_counted(&self, of: Counted, class: u32) -> bool {
        self.leads.contains_key(&(of, class))
    }

    /// A reading of all elements. Settled: the ends of all that were removed before it are heard of before the next one.
    /// If they are not, it says nothing about elements that are missing or have begun anew.
    pub fn read<'a>(&mut self, elements: impl IntoIterator<Item = Element<'a>>, settled: bool, tally: &mut Tally) {
        let mut seen = BTreeSet::new();
        for element in elements.into_iter().filter(is_counting) {
            let key = (element.of, element.class);
            seen.insert(key);
            let lead = self.leads.entry(key).or_default();
            lead.absent = 0;
            if element.bytes < lead.bytes {
                lead.less += u8::from(settled);
                if lead.less < LESS {
                    continue;
                }
                (lead.packets, lead.bytes) = (0, 0);
            }
            lead.less = 0;
            let packets = element.packets.saturating_sub(lead.packets);
            let bytes = element.bytes.saturating_sub(lead.bytes);
            if packets > 0 || bytes > 0 {
                (lead.packets, lead.bytes) = (element.packets, element.bytes);
                self.changed.insert(key);
                if !self.fresh {
                    attribute(&element, packets, bytes, tally);
                }
            }
        }
        let changed = &mut self.changed;
        self.leads.retain(|key, lead| {
            if !seen.contains(key) {
                lead.absent += u8::from(settled);
            }
            let stays = lead.absent < ABSENT;
            if !stays {
                changed.insert(*key);
            }
            stays
        });
        self.fresh = false;
    }

    /// An element was removed; it counts no further.
    pub fn removed(&mut self, element: &Element<'_>, tally: &mut Tally) {
        // Before the first reading nobody knows what was counted before.
        if self.fresh || !is_counting(element) {
            return;
        }
        let key = (element.of, element.class);
        let lead = self.leads.entry(key).or_default();
        let packets = element.packets.saturating_sub(lead.packets);
        let bytes = element.bytes.saturating_sub(lead.bytes);
        lead.packets = lead.packets.saturating_sub(element.packets);
        lead.bytes = lead.bytes.saturating_sub(element.bytes);
        lead.less = 0;
        self.changed.insert(key);
        if packets > 0 || bytes > 0 {
            attribute(element, packets, bytes, tally);
        }
    }

    /// The table was removed: every element counts anew.
    pub fn table_removed(&mut self) {
        self.changed.extend(self.leads.drain().map(|(key, _)| key));
        self.changed_chains.extend(std::mem::take(&mut self.chains).into_keys());
    }

    /// A reading of the counters of the chains that refuse, each with the word of its reason.
    pub fn read_chains<'a>(
        &mut self,
        counts: impl IntoIterator<Item = (&'a str, &'a str, ChainCount)>,
        tally: &mut Tally,
    ) {
        for (chain, reason, count) in counts {
            let last = self.chains.get(chain).copied();
            let grown = match last {
                Some(last) if last.handle == count.handle && last.packets <= count.packets => {
                    count.packets - last.packets
                }
                _ => count.packets,
            };
            if last != Some(count) {
                self.chains.insert(chain.into(), count);
                self.changed_chains.insert(chain.into());
            }
            if grown > 0 && !self.fresh_chains {
                *tally.reasons.entry(reason.into()).or_default() += grown;
            }
        }
        self.fresh_chains = false;
    }

    /// What changed since this was called the last time.
    pub fn changes(&mut self) -> (Vec<Baseline>, BTreeMap<Arc<str>, ChainCount>) {
        let changed = std::mem::take(&mut self.changed).into_iter().map(|(of, class)| {
            let Lead { packets, bytes, .. } = self.leads.get(&(of, class)).copied().unwrap_or_default();
            Baseline { of, class, packets, bytes }
        });
        let chains = std::mem::take(&mut self.changed_chains).into_iter().map(|chain| {
            let count = self.chains.get(&chain).copied().unwrap_or_default();
            (chain, count)
        });
        (changed.collect(), chains.collect())
    }

    /// All that is to be known when counting goes on elsewhere.
    pub fn all(&self) -> (Vec<Baseline>, BTreeMap<Arc<str>, ChainCount>) {
        let all = self.leads.iter().filter(|(_, lead)| lead.packets > 0 || lead.bytes > 0);
        let all = all.map(|(&(of, class), lead)| Baseline { of, class, packets: lead.packets, bytes: lead.bytes });
        (all.collect(), self.chains.clone())
    }
}

/// What goes on to a chain of limits is counted at that chain's end, where it has passed them.
fn is_counting(element: &Element<'_>) -> bool {
    element.accepts
}

fn attribute(element: &Element<'_>, packets: u64, bytes: u64, tally: &mut Tally) {
    let Some(Said { host, names, inbound, cut, monitored }) = read_comment(element.comment) else { return };
    let counts = if element.of.is_forth() != inbound {
        Counts { bytes_up: bytes, packets_up: packets, ..Counts::default() }
    } else {
        Counts { bytes_down: bytes, packets_down: packets, ..Counts::default() }
    };
    let host: Arc<str> = host.into();
    tally.count(&host, None, &counts);
    let rest = match (cut, monitored) {
        (true, _) => Some(OTHER),
        (_, true) => Some(MONITORED),
        _ => names.is_empty().then_some(NETWORKS),
    };
    for domain in names.iter().map(|name| name.as_str()).chain(rest) {
        tally.domains.entry((Arc::clone(&host), domain.into())).or_default().add(&counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(comment: &str, bytes: u64) -> Element<'_> {
        Element { of: Counted::Up, class: 7, comment, accepts: true, packets: bytes / 100, bytes }
    }

    /// Readings and removals in turn; gives the octets taken.
    fn taken(events: &[(char, u64)]) -> u64 {
        let mut registry = Registry::resume([], BTreeMap::new());
        let mut tally = Tally::default();
        for (kind, bytes) in events {
            match kind {
                'r' => registry.read([element("a x.example", *bytes)], true, &mut tally),
                '-' => registry.removed(&element("a x.example", *bytes), &mut tally),
                '~' => registry.read([], false, &mut tally),
                '?' => registry.read([element("a x.example", *bytes)], false, &mut tally),
                _ => registry.read([], true, &mut tally),
            }
        }
        tally.hosts.get("a").map_or(0, |counts| counts.bytes_up)
    }

    #[test]
    fn each_octet_is_taken_once_whatever_is_heard_first() {
        assert_eq!(taken(&[('r', 500), ('r', 800)]), 800);
        assert_eq!(taken(&[('r', 500), ('-', 1000), ('r', 700)]), 1700);
        // The reading is of the next element already, and the removal is heard of later.
        assert_eq!(taken(&[('r', 500), ('r', 700), ('-', 1000), ('r', 800)]), 1800);
        assert_eq!(taken(&[('r', 500), ('r', 1500), ('-', 1000), ('r', 1600)]), 2600);
        assert_eq!(taken(&[('r', 500), ('r', 100), ('-', 1000), ('r', 300)]), 1300);
        // Twice removed between two readings.
        assert_eq!(taken(&[('r', 500), ('-', 600), ('-', 50), ('r', 70)]), 720);
        assert_eq!(taken(&[('-', 600), ('r', 70)]), 670);
    }

    #[test]
    fn an_end_that_nobody_heard_of_begins_anew() {
        assert_eq!(taken(&[('r', 500), (' ', 0), (' ', 0), ('r', 700)]), 1200, "a window closed and opened");
        assert_eq!(taken(&[('r', 500), (' ', 0), ('-', 600), ('r', 50)]), 650, "heard of late");
        assert_eq!(taken(&[('r', 500), ('r', 100), ('r', 200)]), 700, "the removal was lost");
    }

    #[test]
    fn an_end_that_is_still_to_be_heard_of_is_waited_for() {
        assert_eq!(taken(&[('r', 500), ('~', 0), ('~', 0), ('~', 0), (' ', 0), ('-', 600), ('r', 50)]), 650);
        assert_eq!(taken(&[('r', 500), ('?', 10), ('?', 20), ('r', 30), ('-', 600), ('r', 50)]), 650);
    }

    #[test]
    fn counting_goes_on_where_an_earlier_process_ended() {
        let mut registry = Registry::resume([], BTreeMap::new());
        let mut tally = Tally::default();
        registry.read([element("a x.example", 500)], true, &mut tally);
        let (saved, chains) = registry.all();
        let mut next = Registry::resume(saved, chains);
        let mut tally = Tally::default();
        next.removed(&element("a x.example", 900), &mut tally);
        next.read([element("a x.example", 50)], true, &mut tally);
        assert_eq!(tally.hosts["a"].bytes_up, 450);
        let (changed, _) = next.changes();
        assert_eq!(changed, [Baseline { of: Counted::Up, class: 7, packets: 0, bytes: 50 }]);
        assert_eq!(next.changes().0, []);
    }

    #[test]
    fn without_an_earlier_process_what_was_before_is_nobodys() {
        let mut registry = Registry::fresh();
        let mut tally = Tally::default();
        registry.read([element("a x.example", 500)], true, &mut tally);
        registry.read_chains([("b_lease", "no-lease", ChainCount { handle: 3, packets: 9 })], &mut tally);
        assert!(tally.is_empty());
        registry.read([element("a x.example", 800)], true, &mut tally);
        registry.read_chains([("b_lease", "no-lease", ChainCount { handle: 3, packets: 10 })], &mut tally);
        assert_eq!((tally.hosts["a"].bytes_up, tally.reasons["no-lease"]), (300, 1));
        registry.read_chains([("b_lease", "no-lease", ChainCount { handle: 4, packets: 2 })], &mut tally);
        assert_eq!(tally.reasons["no-lease"], 3, "another rule");
    }

    #[test]
    fn the_comment_says_whose_it_is() {
        let mut tally = Tally::default();
        let mut registry = Registry::resume([], BTreeMap::new());
        let down = |class, comment| Element { of: Counted::Down, class, ..element(comment, 100) };
        let metered = Element { accepts: false, class: 1, ..element("a y.example", 900) };
        let sent = Element { of: Counted::SentUp, class: 1, ..element("a y.example", 600) };
        let elements = [
            element("a x.example,y.example", 100),
            down(8, "* <"),
            down(9, "b "),
            down(11, "b !"),
            down(10, "b long.example,+"),
            metered,
            sent,
        ];
        registry.read(elements, true, &mut tally);
        let of = |host: &str, domain: &str| tally.domains.get(&(host.into(), domain.into())).copied();
        assert_eq!(tally.hosts["a"].bytes_up, 700, "what a limit refused does not count");
        assert_eq!(of("a", "x.example").unwrap().bytes_up, 100);
        assert_eq!(of("a", "y.example").unwrap().bytes_up, 700, "each of the names");
        assert_eq!((tally.hosts["*"].bytes_up, tally.hosts["*"].bytes_down), (100, 0), "opened from outside");
        assert_eq!(of("*", NETWORKS).unwrap().bytes_up, 100);
        assert_eq!(of("b", NETWORKS).unwrap().bytes_down, 100);
        assert_eq!(of("b", OTHER).unwrap().bytes_down, 100, "names that found no room");
        assert_eq!(of("b", MONITORED).unwrap().bytes_down, 100);
        assert_eq!(tally.hosts["b"].bytes_down, 300);
    }
}
