//! Which upstream is asked when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};

use super::address::{Protocol, Upstream};
use super::encrypted::Encrypted;
use super::plain::Plain;
use super::{Failure, Lookup, Reply};
use crate::dns::counters::Counters;

/// A client's patience: after this SERVFAIL goes back. Stub resolvers give up or repeat after 2 to 5 s.
pub(super) const BUDGET: Duration = Duration::from_secs(2);
/// Questions sent for one look-up at most, over all upstreams.
const MAX_ATTEMPTS: usize = 4;
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

enum Way {
    Plain(Plain),
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
                _ => Way::Plain(Plain::new(upstream.address)),
            },
            usual: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            failed_at: AtomicU64::new(0),
        });
        Ok(Self { members: members.collect(), counters, start: Instant::now() })
    }

    /// The first good answer, within [`BUDGET`].
    pub async fn ask(&self, lookup: &Lookup) -> Result<Reply, Failure> {
        let result = self.ask_all(lookup).await;
        match &result {
            Ok(_) | Err(Failure::Upstream(_)) => self.counters.upstream_silence.store(0, Ordering::Relaxed),
            Err(Failure::Timeout | Failure::Network(_)) => Counters::bump(&self.counters.upstream_silence),
            Err(Failure::Overload) => {}
        }
        result
    }

    async fn ask_all(&self, lookup: &Lookup) -> Result<Reply, Failure> {
        let deadline = Instant::now() + BUDGET;
        let order = self.order();
        let plan: Vec<usize> = order.iter().copied().cycle().take(MAX_ATTEMPTS).collect();
        let mut open = FuturesUnordered::new();
        let mut failure = Failure::Network("there is no upstream".to_owned());
        let (mut sent, mut next_at, mut spacing) = (0, Instant::now(), 0);
        loop {
            if let Some(&index) = plan.get(sent)
                && (open.is_empty() || Instant::now() >= next_at)
            {
                Counters::bump(&self.counters.upstream_queries);
                open.push(self.attempt(index, lookup));
                sent += 1;
                spacing = (spacing * 2).max(1);
                let all_asked = sent >= order.len();
                next_at = Instant::now() + self.members[index].patience(all_asked) * spacing;
                continue;
            }
            if open.is_empty() {
                return Err(failure);
            }
            let another = sent < plan.len() && next_at < deadline;
            tokio::select! {
                biased;
                Some((index, result)) = open.next() => match result {
                    Ok(reply) => {
                        // Whoever was asked earlier and is still silent has had its time.
                        let late = plan[..sent].iter().take_while(|&&earlier| earlier != index);
                        late.for_each(|&earlier| self.failed(earlier));
                        return Ok(reply);
                    }
                    Err(error) => {
                        failure = error;
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at), if another => {}
                () = sleep_until(deadline) => {
                    Counters::bump(&self.counters.upstream_timeouts);
                    plan[..sent].iter().for_each(|&index| self.failed(index));
                    return Err(Failure::Timeout);
                }
            }
        }
    }

    async fn attempt(&self, index: usize, lookup: &Lookup) -> (usize, Result<Reply, Failure>) {
        let member = &self.members[index];
        let start = Instant::now();
        let reply = match &member.way {
            Way::Plain(plain) => plain.ask(lookup).await,
            Way::Encrypted(encrypted) => ask_apart(encrypted, lookup).await,
        };
        let reply = reply.and_then(|reply| match reply.message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(reply),
            code => Err(Failure::Upstream(code.to_string())),
        });
        match &reply {
            Ok(_) => member.answered(start.elapsed()),
            Err(_) => self.failed(index),
        }
        (index, reply)
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

    fn failed(&self, index: usize) {
        let member = &self.members[index];
        member.failures.fetch_add(1, Ordering::Relaxed);
        member.failed_at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// Asks in a task of its own: a connection that is slow to stand must go on becoming one when another upstream wins this
/// look-up, or it would be given up every time.
async fn ask_apart(encrypted: &Arc<Encrypted>, lookup: &Lookup) -> Result<Reply, Failure> {
    let (encrypted, lookup) = (Arc::clone(encrypted), lookup.clone());
    let asking = tokio::spawn(async move {
        tokio::time::timeout(BUDGET, encrypted.ask(&lookup)).await.unwrap_or(Err(Failure::Timeout))
    });
    asking.await.unwrap_or_else(|error| Err(Failure::Network(error.to_string())))
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
