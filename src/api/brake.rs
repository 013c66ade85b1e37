//! Those who guess keys are slowed down, by where they come from.
//!
//! While a source has to wait, its keys are not looked at, right or wrong: an answer to the right one would make the wait
//! useless. So the wait is short enough that an administrator behind the same address is not locked out for long.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong keys that cost nothing: typing errors.
const FREE: u32 = 5;
/// The first wait; it doubles with each wrong key.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: with it a source tries some 1 400 keys a day.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A source that shows no wrong key for this long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Sources that are remembered; beyond it the one that was quiet for longest is forgotten.
const SOURCES: usize = 4096;
/// Whoever has one IPv6 address has its whole segment.
const SEGMENT: u32 = 64;

/// The wrong keys of each source.
#[derive(Default)]
pub(super) struct Brake(Mutex<HashMap<IpAddr, Guesses>>);

struct Guesses {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Brake {
    /// How long this source has to wait yet.
    pub fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let guesses = sources.get(&segment(source))?;
        guesses.until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// This source showed a wrong key. Gives how many it were and how long it waits now.
    pub fn wrong(&self, source: IpAddr, now: Instant) -> (u32, Option<Duration>) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = segment(source);
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, guesses| now.saturating_duration_since(guesses.last) < FORGOTTEN);
            let oldest = sources.iter().min_by_key(|(_, guesses)| guesses.last).map(|(source, _)| *source);
            if let Some(oldest) = oldest.filter(|_| sources.len() >= SOURCES) {
                sources.remove(&oldest);
            }
        }
        let guesses = sources.entry(source).or_insert(Guesses { count: 0, last: now, until: now });
        if now.saturating_duration_since(guesses.last) >= FORGOTTEN {
            guesses.count = 0;
        }
        guesses.count = guesses.count.saturating_add(1);
        guesses.last = now;
        let wait = guesses
            .count
            .checked_sub(FREE + 1)
            .map(|over| FIRST_WAIT.saturating_mul(1u32.checked_shl(over).unwrap_or(u32::MAX)).min(LONGEST_WAIT));
        guesses.until = now + wait.unwrap_or_default();
        (guesses.count, wait)
    }

    /// This source showed a key that opens everything: it has nothing left to guess.
    pub fn right(&self, source: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment(source));
    }
}

fn segment(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - SEGMENT))).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn guessing_gets_slower_and_is_forgotten() {
        let (brake, start) = (Brake::default(), Instant::now());
        for n in 1..=FREE {
            assert_eq!(brake.wrong(SOURCE, start), (n, None));
            assert_eq!(brake.wait(SOURCE, start), None);
        }
        let waits: Vec<u64> = (0..8).map(|_| brake.wrong(SOURCE, start).1.unwrap().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(brake.wait(SOURCE, after(start, 59)), Some(Duration::from_secs(1)));
        assert_eq!(brake.wait(SOURCE, after(start, 60)), None);
        for _ in 0..100 {
            brake.wrong(SOURCE, start);
        }
        assert_eq!(brake.wrong(SOURCE, start).1, Some(LONGEST_WAIT), "no overflow");
        assert_eq!(brake.wrong(SOURCE, start + FORGOTTEN), (1, None));
        assert_eq!(brake.wait("192.0.2.2".parse().unwrap(), start), None, "others do not wait");
    }

    #[test]
    fn a_right_key_ends_it() {
        let (brake, start) = (Brake::default(), Instant::now());
        for _ in 0..4 {
            brake.wrong(SOURCE, start);
        }
        brake.right(SOURCE);
        assert_eq!(brake.wrong(SOURCE, start), (1, None));
    }

    #[test]
    fn a_segment_is_one_source() {
        let (brake, start) = (Brake::default(), Instant::now());
        for host in 0..=u128::from(FREE) {
            brake.wrong(Ipv6Addr::from_bits((0x2001_0db8 << 96) + host).into(), start);
        }
        assert!(brake.wait("2001:db8::ffff".parse().unwrap(), start).is_some());
        assert!(brake.wait("2001:db8:0:1::1".parse().unwrap(), start).is_none());
        assert_eq!(segment("::ffff:192.0.2.1".parse().unwrap()), SOURCE);
    }

    #[test]
    fn the_table_has_an_end() {
        let (brake, start) = (Brake::default(), Instant::now());
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        for n in 0..u32::try_from(SOURCES).unwrap() + 10 {
            brake.wrong(address(n), start + Duration::from_millis(n.into()));
        }
        assert_eq!(brake.0.lock().unwrap().len(), SOURCES);
        assert_eq!(brake.wrong(address(5000), start).0, 1);
        assert_eq!(brake.wrong(address(4000), start).0, 2, "the newest are remembered");
    }
}
