//! What the DNS driver counts since its start, for `stats` and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Events since the start of the process. Each field is read and written without ordering against the others.
#[derive(Debug, Default)]
pub struct Counters {
    /// Well-formed queries that were looked at.
    pub queries: AtomicU64,
    /// Queries answered with a refusal by policy.
    pub blocked: AtomicU64,
    /// Queries whose name may be asked for (monitor mode and `out_of_scope = "forward"` included).
    pub allowed: AtomicU64,
    /// Answers with SERVFAIL, whatever the cause.
    pub servfail: AtomicU64,
    /// Questions sent to an upstream; a repetition counts again.
    pub upstream_queries: AtomicU64,
    /// Look-ups for which no upstream gave an answer within the budget.
    pub upstream_timeouts: AtomicU64,
    /// Look-ups in a row for which no upstream could be reached or answered in time; 0 again with the next answer. An
    /// upstream that answers SERVFAIL is there: some names are broken.
    pub upstream_silence: AtomicU64,
    /// Look-ups answered from the cache.
    pub cache_hits: AtomicU64,
    /// Look-ups begun for popular answers that were about to end.
    pub prefetched: AtomicU64,
    /// Look-ups that no upstream answered and for which an answer was at hand that had ended lately.
    pub stale: AtomicU64,
    /// Answers withheld because the kernel did not take their addresses.
    pub lease_failures: AtomicU64,
    /// Queries turned away because their host asks too often.
    pub over_budget: AtomicU64,
    /// Queries or connections turned away because too many were waiting.
    pub dropped_overload: AtomicU64,
}

impl Counters {
    /// Adds one.
    pub(super) fn bump(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Adds what was counted elsewhere.
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}
