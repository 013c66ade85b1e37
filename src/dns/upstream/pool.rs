//! Which upstream is asked when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustls::ClientConfig;

use super::address::{Protocol, Upstream};
use super::encrypted::Encrypted;
use super::plain::Plain;
use super::{Failure, Lookup, Reply};
use crate::dns::counters::Counters;

/// A client's patience: after this SERVFAIL goes back. Stub resolvers give up or repeat after 2 to 5 s.
pub(in crate::dns) const BUDGET: Duration = Duration::from_secs(2);
/// Questions sent for one look-up at most, over all upstreams.
pub(in crate::dns) const MAX_ATTEMPTS: usize = 4;
/// The next upstream is asked after twice the usual time of this one, but never before this.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);
/// The same upstream is asked again no sooner than this: a resolver may have to walk the tree first.
const SAME_PATIENCE: Duration = Duration::from_millis(400);
/// The usual time of an upstream that has not answered yet.
const FIRST_GUESS: Duration = Duration::from_millis(100);
/// An upstream that failed this often in a row is asked last, for `QUARANTINE`.
const FAILURES: u32 = 3;
/// See [`FAILURES`]; then it gets its chance again.
const QUARANTINE: Duration = Duration::from_secs(10);

/// The upstreams in the order of the settings.
pub(in crate::dns) struct Pool {
    members: Vec<Member>,
    counters: Arc<Counters>,
    start: Instant,
}

struct Member {
    way: Way,
    /// Smoothed answer time in microseconds (RFC 6298: 1/8 of each new one); 0: none yet.
    usual: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after the pool's start at which the last failure was.
    failed_at: AtomicU64,
}

/// How an upstream is asked.
pub(in crate::dns) enum Way {
    /// By UDP and TCP.
    Plain(Arc<Plain>),
    /// Over an encrypted connection.
    Encrypted(Arc<Encrypted>),
}

impl Pool {
    /// `tls` is asked only if an upstream is encrypted.
    ///
    /// # Errors
    /// What `tls` says.
    pub fn new(
        upstreams: &[Upstream],
        counters: Arc<Counters>,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
    ) -> Result<Self, String> {
        let encrypted = upstreams.iter().any(|upstream| upstream.protocol != Protocol::Plain);
        let tls = if encrypted { Some(tls()?) } else { None };
        let members = upstreams.iter().map(|upstream| Member {
            way: match &tls {
                Some(tls) if upstream.protocol != Protocol::Plain => Way::Encrypted(Arc::new(Encrypted::new(
                    upstream.address,
                    upstream.protocol.clone(),
                    Arc::clone(tls),
                ))),
                _ => Way::Plain(Arc::new(Plain::new(upstream.address))),
            },
            usual: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            failed_at: AtomicU64::new(0),
        });
        Ok(Self { members: members.collect(), counters, start: Instant::now() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// How an upstream is asked.
    pub fn way(&self, index: usize) -> &Way {
        &self.members[index].way
    }

    /// Whom to ask, in which order, and again if need be. Each is asked once before any is asked again.
    pub fn plan(&self) -> Vec<usize> {
        let order = self.order();
        order.iter().copied().cycle().take(MAX_ATTEMPTS).collect()
    }

    /// How long to wait for an upstream before the next is asked, or, if all were asked, one is asked again. `attempt`
    /// counts from zero.
    pub fn patience(&self, index: usize, attempt: usize) -> Duration {
        self.members[index].patience(attempt + 1 >= self.members.len()) * (1 << attempt.min(MAX_ATTEMPTS))
    }

    /// Notes that an upstream answered.
    pub fn answered(&self, index: usize, took: Duration) {
        self.members[index].answered(took);
    }

    /// Notes how a look-up ended.
    pub fn ended(&self, result: Result<(), &Failure>) {
        match result {
            Ok(()) | Err(Failure::Upstream(_)) => self.counters.upstream_silence.store(0, Ordering::Relaxed),
            Err(Failure::Timeout | Failure::Network(_)) => Counters::bump(&self.counters.upstream_silence),
            Err(Failure::Overload) => {}
        }
    }

    /// The settings' order, but who failed lately comes last.
    fn order(&self) -> Vec<usize> {
        let now = self.start.elapsed().as_millis() as u64;
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|&index| {
            let member = &self.members[index];
            member.failures.load(Ordering::Relaxed) >= FAILURES
                && now.saturating_sub(member.failed_at.load(Ordering::Relaxed)) < QUARANTINE.as_millis() as u64
        });
        order
    }

    /// Notes that an upstream failed or was silent for too long.
    pub fn failed(&self, index: usize) {
        let member = &self.members[index];
        member.failures.fetch_add(1, Ordering::Relaxed);
        member.failed_at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// Asks over an encrypted connection. It goes on in a task of its own: a connection that is slow to stand must go on
/// becoming one when another upstream wins this look-up, or it would be given up every time.
pub(in crate::dns) async fn ask_encrypted(encrypted: Arc<Encrypted>, lookup: Lookup) -> Result<Reply, Failure> {
    tokio::time::timeout(BUDGET, encrypted.ask(&lookup)).await.unwrap_or(Err(Failure::Timeout))
}

/// An answer that says what there is or that there is nothing; others are failures of the upstream.
pub(in crate::dns) fn good(reply: Reply) -> Result<Reply, Failure> {
    match reply.message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(reply),
        code => Err(Failure::Upstream(code.to_string())),
    }
}

impl Member {
    /// How long to wait for this upstream before the next is asked, or, if all were asked, one is asked again.
    fn patience(&self, all_asked: bool) -> Duration {
        let usual = match self.usual.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            micros => Duration::from_micros(micros.into()),
        };
        (2 * usual).max(if all_asked { SAME_PATIENCE } else { LEAST_PATIENCE })
    }

    fn answered(&self, took: Duration) {
        self.failures.store(0, Ordering::Relaxed);
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let usual = match self.usual.load(Ordering::Relaxed) {
            0 => took,
            usual => usual - usual / 8 + took / 8,
        };
        self.usual.store(usual.max(1), Ordering::Relaxed);
    }
}
