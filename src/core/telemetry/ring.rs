//! What was counted, kept for a day: in short pieces for a while, then in longer ones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Counts, OTHER, Tally};

/// The most domains of one host that are told apart in a day, of those that it may reach.
pub const MAX_REACHED: usize = 256;
/// The same of those that were refused: an agent that asks for ever new names fills up these and no others.
pub const MAX_DENIED: usize = 256;
/// The most hosts that are told apart in a day.
pub const MAX_HOSTS: usize = 4096;

/// The last while, in words and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// `1m`
    #[serde(rename = "1m")]
    Minute,
    /// `5m`
    #[serde(rename = "5m")]
    FiveMinutes,
    /// `1h`
    #[serde(rename = "1h")]
    Hour,
    /// `24h`
    #[serde(rename = "24h")]
    Day,
}

impl Window {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Minute, Self::FiveMinutes, Self::Hour, Self::Day];
    /// What is asked for where nothing is said.
    pub const USUAL: Self = Self::Hour;

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "24h",
        }
    }

    /// The one with that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.word() == word)
    }

    fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::FiveMinutes => 300,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }

    /// Where its pieces are.
    fn tier(self) -> usize {
        match self {
            Self::Minute | Self::FiveMinutes => 0,
            Self::Hour => 1,
            Self::Day => 2,
        }
    }
}

/// Seconds of one piece in each tier, and how many pieces are kept: the window, and the one that it begins in.
const TIERS: [(i64, usize); 3] = [(5, 61), (60, 61), (900, 97)];

/// The domains of one host that are told apart.
#[derive(Clone, Debug, Default)]
struct Known {
    reached: HashSet<Arc<str>>,
    denied: HashSet<Arc<str>>,
}

/// The ring; see the module.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The pieces of each tier by their number since 1970.
    pieces: [BTreeMap<i64, Tally>; TIERS.len()],
    known: HashMap<Arc<str>, Known>,
}

impl Ring {
    /// Puts what comes beyond the bounds under [`OTHER`], so that whoever keeps it has bounds as well.
    #[must_use]
    pub fn admit(&mut self, tally: Tally) -> Tally {
        let mut out = Tally { reasons: tally.reasons, ..Tally::default() };
        for (host, counts) in tally.hosts {
            let host = self.host(host);
            out.hosts.entry(host).or_default().add(&counts);
        }
        for ((host, domain), counts) in tally.domains {
            let host = self.host(host);
            let domain = self.domain(&host, domain, &counts);
            out.domains.entry((host, domain)).or_default().add(&counts);
        }
        out
    }

    fn host(&mut self, host: Arc<str>) -> Arc<str> {
        if !self.known.contains_key(&host) {
            if self.known.len() >= MAX_HOSTS {
                return OTHER.into();
            }
            self.known.insert(Arc::clone(&host), Known::default());
        }
        host
    }

    fn domain(&mut self, host: &Arc<str>, domain: Arc<str>, counts: &Counts) -> Arc<str> {
        let known = self.known.entry(Arc::clone(host)).or_default();
        let (names, most) =
            if counts.is_reached() { (&mut known.reached, MAX_REACHED) } else { (&mut known.denied, MAX_DENIED) };
        if names.contains(&domain) || (names.len() < most && names.insert(Arc::clone(&domain))) {
            return domain;
        }
        OTHER.into()
    }

    /// Counts what was counted up to an instant.
    pub fn add(&mut self, at: DateTime<Utc>, tally: &Tally) {
        let mut forgotten = false;
        for (pieces, (width, keep)) in self.pieces.iter_mut().zip(TIERS) {
            pieces.entry(at.timestamp().div_euclid(width)).or_default().add(tally);
            while pieces.len() > keep {
                pieces.pop_first();
            }
            let oldest = at.timestamp().div_euclid(width) - i64::try_from(keep).unwrap_or(0);
            forgotten = pieces.first_key_value().is_some_and(|(piece, _)| *piece <= oldest);
            if forgotten {
                pieces.retain(|piece, _| *piece > oldest);
            }
        }
        // The last tier remembers longest: what it has forgotten makes room.
        if forgotten {
            self.recall();
        }
    }

    /// The names that are still in some piece, and no others.
    fn recall(&mut self) {
        self.known.clear();
        for tally in self.pieces.iter().flat_map(BTreeMap::values) {
            for host in tally.hosts.keys() {
                self.known.entry(Arc::clone(host)).or_default();
            }
            for ((host, domain), counts) in &tally.domains {
                let known = self.known.entry(Arc::clone(host)).or_default();
                let names = if counts.is_reached() { &mut known.reached } else { &mut known.denied };
                names.insert(Arc::clone(domain));
            }
        }
    }

    /// What was counted in a window, and when the first piece of it began: up to one piece more than was asked for.
    pub fn window(&self, window: Window, now: DateTime<Utc>) -> (DateTime<Utc>, Tally) {
        let (pieces, (width, _)) = (&self.pieces[window.tier()], TIERS[window.tier()]);
        let first = (now.timestamp() - window.seconds()).div_euclid(width);
        let mut sum = Tally::default();
        // Pieces from a clock that was ahead count as well: they did happen.
        for (_, tally) in pieces.range(first..) {
            sum.add(tally);
        }
        (DateTime::from_timestamp(first * width, 0).unwrap_or(now), sum)
    }

    /// The hosts and domains that are told apart now.
    pub fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.known.values().map(|known| known.reached.len() + known.denied.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn up(host: &str, domain: &str, bytes: u64) -> Tally {
        let mut tally = Tally::default();
        let counts = Counts { bytes_up: bytes, packets_up: 1, ..Counts::default() };
        tally.count(&host.into(), Some(&domain.into()), &counts);
        tally
    }

    fn denied(host: &str, domain: &str) -> Tally {
        let mut tally = Tally::default();
        let counts = Counts { queries: 1, denies: 1, ..Counts::default() };
        tally.count(&host.into(), Some(&domain.into()), &counts);
        tally
    }

    #[test]
    fn each_window_has_what_was_counted_in_it() {
        let mut ring = Ring::default();
        for second in 0..90_000 {
            ring.add(at(second), &up("a", "x.example", 1));
        }
        let now = at(89_999);
        for (window, least, most) in [
            (Window::Minute, 60, 65),
            (Window::FiveMinutes, 300, 305),
            (Window::Hour, 3600, 3660),
            (Window::Day, 86_400, 87_300),
        ] {
            let (since, tally) = ring.window(window, now);
            let bytes = tally.hosts["a"].bytes_up;
            assert!((least..=most).contains(&bytes), "{window:?}: {bytes}");
            assert_eq!((now - since).num_seconds() + 1, bytes as i64, "{window:?} begins when it says");
        }
        assert!(ring.pieces.iter().zip(TIERS).all(|(pieces, (_, keep))| pieces.len() <= keep));
        let (_, later) = ring.window(Window::Minute, at(90_100));
        assert!(later.is_empty(), "nothing happened since");
    }

    #[test]
    fn a_clock_that_is_set_loses_nothing_and_fills_nothing_up() {
        let mut ring = Ring::default();
        ring.add(at(10_000), &up("a", "x.example", 1));
        ring.add(at(0), &up("a", "x.example", 2));
        assert_eq!(ring.window(Window::Hour, at(0)).1.hosts["a"].bytes_up, 3);
        for hour in 0..1000 {
            ring.add(at(1_000_000 - hour * 3600), &up("a", "x.example", 1));
        }
        assert!(ring.pieces.iter().zip(TIERS).all(|(pieces, (_, keep))| pieces.len() <= keep));
    }

    #[test]
    fn names_beyond_the_bound_are_other_and_nothing_is_lost() {
        let mut ring = Ring::default();
        for number in 0..1000 {
            let tally = ring.admit(denied("a", &format!("n{number}.example")));
            ring.add(at(0), &tally);
        }
        let tally = ring.admit(up("a", "x.example", 7));
        ring.add(at(0), &tally);
        let (_, sum) = ring.window(Window::Day, at(0));
        assert_eq!(sum.hosts["a"].denies, 1000);
        assert_eq!(sum.domains[&("a".into(), OTHER.into())].denies, 1000 - MAX_DENIED as u64);
        assert_eq!(sum.domains[&("a".into(), "x.example".into())].bytes_up, 7, "refusals take nobody's room");
        assert_eq!(sum.domains.len(), MAX_DENIED + 2);
        // A day later there is room again.
        let tally = ring.admit(up("a", "x.example", 7));
        ring.add(at(200_000), &tally);
        assert_eq!(ring.sizes(), (1, 1));
        for number in 0..2 * MAX_HOSTS {
            let tally = ring.admit(up(&format!("h{number}"), "x.example", 1));
            ring.add(at(200_000), &tally);
        }
        let (_, sum) = ring.window(Window::Minute, at(200_000));
        assert_eq!(sum.hosts.values().map(|counts| counts.bytes_up).sum::<u64>(), 7 + 2 * MAX_HOSTS as u64);
        assert!(sum.hosts.len() <= MAX_HOSTS + 1 && sum.hosts.contains_key(OTHER));
    }
}
