//! How many queries a second one host may ask: a flood from one must not take the receivers' time from the others.
//!
//! A bucket for each host, and for sources of no host one for each source (several sources may share one), without a lock:
//! each is the instant at which it would be full again (the generic cell rate algorithm, ITU-T I.371).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::core::judge::Judge;
use crate::core::lease::HostId;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::Mode;

/// Seconds' worth of queries that may come at once.
const BURST_SECONDS: u64 = 2;
/// One in so many queries over the budget is answered with a refusal, so that whoever asks learns why; the others are
/// dropped.
const REFUSED_SHARE: u64 = 16;
/// Buckets of hosts, one for each number.
const HOSTS: usize = 1 << 16;
/// Buckets of sources that are of no host.
const SOURCES: usize = 1 << 12;
const NANOS: u64 = 1_000_000_000;

/// What a query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// It is answered.
    Within,
    /// It is over the budget; its client is told so.
    Refuse,
    /// It is over the budget and gets no answer.
    Drop,
}

/// The buckets.
pub(super) struct Budget {
    /// Nanoseconds that one query costs; 0: nothing.
    price: u64,
    start: Instant,
    hasher: RandomState,
    /// By host, then by source: nanoseconds since `start` at which the bucket is full again.
    buckets: Box<[AtomicU64]>,
    /// Queries over the budget, to tell some of the clients.
    over: AtomicU64,
}

impl Budget {
    /// `None`: there is no bound.
    pub fn new(queries_per_second: Option<NonZeroU32>) -> Self {
        let price = queries_per_second.map_or(0, |rate| (NANOS / u64::from(rate.get())).max(1));
        let count = if price > 0 { HOSTS + SOURCES } else { 0 };
        Self {
            price,
            start: Instant::now(),
            hasher: RandomState::new(),
            buckets: std::iter::repeat_with(AtomicU64::default).take(count).collect(),
            over: AtomicU64::new(0),
        }
    }

    /// Whether there is a bound at all.
    pub fn is_bounded(&self) -> bool {
        self.price > 0
    }

    /// Charges one query.
    pub fn charge(&self, host: HostId, source: IpAddr, now: Instant) -> Grant {
        if !self.is_bounded() {
            return Grant::Within;
        }
        let place = match host {
            HostId(number) if host >= HostId::FIRST => usize::from(number),
            _ => HOSTS + self.hasher.hash_one(neighbour(source)) as usize % SOURCES,
        };
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let latest = now.saturating_add(BURST_SECONDS * NANOS - self.price);
        let charged = self.buckets[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let full = full.max(now);
            (full <= latest).then_some(full + self.price)
        });
        match charged {
            Ok(_) => Grant::Within,
            Err(_) if self.over.fetch_add(1, Ordering::Relaxed).is_multiple_of(REFUSED_SHARE) => Grant::Refuse,
            Err(_) => Grant::Drop,
        }
    }
}

/// Who shares a budget: an IPv6 subnet is one neighbour, which has as many addresses as it likes.
pub(super) fn neighbour(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// The decision on a query over its host's budget. It is not the policy's, so monitor mode changes nothing.
pub(super) fn over_budget(judge: &impl Judge, host: HostId, now: DateTime<Utc>) -> Decision {
    let host = judge.decide_name(host, None, now).host;
    let (verdict, reason, mode) = (Verdict::Block, Reason::RateLimited, Mode::Enforce);
    Decision { verdict, reason, path: None, host, domain: None, mode }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOST: HostId = HostId::FIRST;
    const OTHER: HostId = HostId(HostId::FIRST.0 + 1);

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn granted(budget: &Budget, host: HostId, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| budget.charge(host, source(1), now) == Grant::Within).count()
    }

    #[test]
    fn a_host_has_its_rate_and_a_burst_and_takes_nothing_from_others() {
        let budget = Budget::new(NonZeroU32::new(100));
        let start = Instant::now();
        assert_eq!(granted(&budget, HOST, start, 1000), 200, "two seconds' worth at once");
        assert_eq!(granted(&budget, OTHER, start, 1000), 200);
        assert_eq!(granted(&budget, HOST, start + Duration::from_millis(500), 1000), 50);
        assert_eq!(granted(&budget, HOST, start + Duration::from_secs(60), 1000), 200, "and no more for waiting");
    }

    #[test]
    fn some_of_what_is_over_is_told_so() {
        let budget = Budget::new(NonZeroU32::new(1));
        let now = Instant::now();
        assert_eq!(granted(&budget, HOST, now, 2), 2);
        let told = (0..160).filter(|_| budget.charge(HOST, source(1), now) == Grant::Refuse).count();
        assert_eq!(told, 160 / REFUSED_SHARE as usize);
    }

    #[test]
    fn sources_of_no_host_have_buckets_of_their_own() {
        let budget = Budget::new(NonZeroU32::new(10));
        let now = Instant::now();
        assert_eq!(granted(&budget, HostId::NOBODY, now, 100), 20);
        let others =
            (2..=250).filter(|last| budget.charge(HostId::NOBODY, source(*last), now) == Grant::Within).count();
        assert!(others >= 240, "{others} of 249 share a bucket with the first one");
    }

    #[test]
    fn without_a_bound_everything_is_within() {
        assert_eq!(granted(&Budget::new(None), HOST, Instant::now(), 100_000), 100_000);
    }
}
