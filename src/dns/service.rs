//! What happens to one query, whichever way it came.
//!
//! Source → host → decision on the name. A refused name ends there: no upstream hears of it and no one waits. An allowed
//! one is looked up, the answer is filtered, its addresses are leased, and only then it goes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use chrono::Utc;
use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;

use super::budget::{Budget, Grant, over_budget};
use super::cache::Stored;
use super::counters::Counters;
use super::filter::{Answer, Asked, Filtered, Outcome, filter};
use super::pending::{Pending, Ticket};
use super::query::{Parsed, Query, Transport, parse};
use super::reply::{self, Ede};
use super::resolver::{Found, Resolver};
use super::settings::OutOfScope;
use super::upstream::{Failure, Lookup};
use super::words::Refusal;
use crate::core::judge::Judge;
use crate::core::lease::{Acked, HostId, LeaseError, Leaser, Wanted};
use crate::core::observe::{Answered, Observer};
use crate::policy::decision::{Decision, Verdict};
use crate::policy::model::Mode;

/// How long the kernel may take over a lease; the usual time is a few microseconds.
pub(super) const LEASE_TIME: Duration = Duration::from_secs(1);
/// Decisions made at most for one query when the policy changes under it.
const MAX_DECISIONS: usize = 3;
/// A pause before deciding again by the same policy, so that a change that is under way can end.
const STALE_PAUSE: Duration = Duration::from_millis(20);
/// Under which number queries from outside the scope wait, when they are forwarded.
const OUTSIDERS: HostId = HostId(0);

/// Where the policy in force is read; `None`: none is in force yet.
pub type JudgeSource<J> = Arc<ArcSwapOption<J>>;

/// Who sent a query.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The source address, IPv4 in IPv4 form.
    pub source: IpAddr,
    /// The interface it came in by, when known.
    pub interface: Option<Arc<str>>,
}

/// The driver without its sockets.
pub(super) struct Service<J, L> {
    pub judge: JudgeSource<J>,
    pub leaser: Arc<L>,
    pub resolver: Resolver,
    pub pending: Pending,
    pub budget: Budget,
    pub counters: Arc<Counters>,
    pub out_of_scope: OutOfScope,
    pub observer: Arc<dyn Observer>,
}

/// What to do about a packet.
pub(super) enum Step {
    /// Nothing.
    Drop,
    /// This goes back at once.
    Ready(Vec<u8>),
    /// This goes back when it is there.
    Later(BoxFuture<'static, Vec<u8>>),
}

/// The decision on one query.
enum Ruling<J> {
    /// This goes back.
    Reply(Vec<u8>),
    /// No policy is enforced on this client: it may see anything.
    Unpoliced(HostId),
    /// It would be refused, but is only watched.
    Watched(Arc<J>, HostId, Decision),
    /// The name may be asked for.
    Allowed(Arc<J>, HostId, Decision),
}

/// Whose query it is, and by which revision it was decided.
#[derive(Clone, Copy)]
struct Asker<'a> {
    query: &'a Query,
    source: IpAddr,
    client: HostId,
    revision: u64,
}

impl<'a> Asker<'a> {
    fn new(query: &'a Query, client: &Client, host: HostId, judge: &impl Judge) -> Self {
        Self { query, source: client.source, client: host, revision: judge.revision() }
    }
}

impl<J: Judge, L: Leaser> Service<J, L> {
    /// Takes one packet. `grant`: it was charged to its host's budget already, with this result.
    pub fn take(self: &Arc<Self>, packet: &[u8], client: Client, transport: Transport, grant: Option<Grant>) -> Step {
        let parsed = parse(packet, transport);
        let grant = match grant {
            _ if matches!(parsed, Parsed::Drop) => return Step::Drop,
            Some(grant) => grant,
            None if !self.budget.is_bounded() => Grant::Within,
            None => self.budget.charge(self.host(&client), client.source, Instant::now()),
        };
        let query = match parsed {
            Parsed::Query(query) => query,
            // It asks for no name, so there is nothing to write down.
            _ if grant != Grant::Within => {
                Counters::bump(&self.counters.over_budget);
                return Step::Drop;
            }
            Parsed::Drop => return Step::Drop,
            Parsed::Malformed(bytes) => return Step::Ready(bytes),
            Parsed::Refused(query, code) => return Step::Ready(reply::plain(&query, code)),
        };
        Counters::bump(&self.counters.queries);
        if grant != Grant::Within {
            return self.over_budget(&query, &client, grant);
        }
        let (host, enforced) = match self.rule(&query, &client) {
            Ruling::Reply(bytes) => return Step::Ready(bytes),
            Ruling::Unpoliced(host) => (host, None),
            Ruling::Watched(judge, host, decision) => {
                self.tell(Asker::new(&query, &client, host, &*judge), &decision, None);
                (host, None)
            }
            Ruling::Allowed(judge, host, decision) => {
                (host, (decision.mode == Mode::Enforce).then_some((judge, decision)))
            }
        };
        Counters::bump(&self.counters.allowed);
        if let Some((judge, decision)) = enforced
            && let Some(bytes) = reply::without_upstream(&query)
        {
            self.tell(Asker::new(&query, &client, host, &*judge), &decision, None);
            return Step::Ready(bytes);
        }
        match self.pending.admit(host, client.source) {
            Some(ticket) => Step::Later(Box::pin(Arc::clone(self).look_up(query, client, ticket))),
            None => Step::Ready(self.no_answer(&query, &Failure::Overload)),
        }
    }

    /// A place to wait for a plain and allowed question by UDP, whose answer may be known already. `None`: there is none
    /// left, and nothing was counted.
    pub fn admit(&self, host: HostId, source: IpAddr, stored: Option<&Stored>, now: Instant) -> Option<Ticket> {
        let ticket = self.pending.admit(host, source)?;
        Counters::bump(&self.counters.queries);
        Counters::bump(&self.counters.allowed);
        if let Some(stored) = stored {
            Counters::bump(&self.counters.cache_hits);
            self.resolver.keep_fresh(stored, now);
        }
        Some(ticket)
    }

    fn over_budget(&self, query: &Query, client: &Client, grant: Grant) -> Step {
        Counters::bump(&self.counters.over_budget);
        let judge = self.judge.load();
        let host = judge.as_ref().and_then(|judge| judge.client(client.source, client.interface.as_deref()));
        let (Some(judge), Some(host)) = (&*judge, host) else {
            // The policy is not about it, so nobody writes it down.
            let text = "rate-limited: this source asks too often";
            return over(grant, || reply::failure(query, ResponseCode::Refused, Ede::Prohibited, text));
        };
        let decision = over_budget(&**judge, host, Utc::now());
        let asked = self.tell(Asker::new(query, client, host, &**judge), &decision, None);
        let reason = Refusal { decision: &decision, asked: &asked, subject: None }.to_string();
        over(grant, || reply::failure(query, ResponseCode::Refused, Ede::Prohibited, &reason))
    }

    /// Among whose connections and queries a client counts.
    pub fn host(&self, client: &Client) -> HostId {
        let judge = self.judge.load();
        let host = judge.as_ref().and_then(|judge| judge.client(client.source, client.interface.as_deref()));
        host.unwrap_or(OUTSIDERS)
    }

    /// Decides by the policy in force now.
    fn rule(&self, query: &Query, client: &Client) -> Ruling<J> {
        let Some(judge) = self.judge.load_full() else {
            return Ruling::Reply(self.failed(query, Ede::NotReady, "no policy is in force yet"));
        };
        let Some(host) = judge.client(client.source, client.interface.as_deref()) else {
            return self.outsider(query, client);
        };
        let name = query.policy_name();
        let decision = judge.decide_name(host, name.as_ref(), Utc::now());
        match (decision.verdict, decision.mode) {
            (Verdict::Allow, _) => match reply::not_served(query) {
                Some(bytes) => Ruling::Reply(bytes),
                None => Ruling::Allowed(judge, host, decision),
            },
            (Verdict::Block, Mode::Monitor) => Ruling::Watched(judge, host, decision),
            (Verdict::OutOfScope, _) => self.outsider(query, client),
            (Verdict::Block, Mode::Enforce) => {
                Ruling::Reply(self.blocked(Asker::new(query, client, host, &*judge), &decision, None))
            }
        }
    }

    fn outsider(&self, query: &Query, client: &Client) -> Ruling<J> {
        // Every agent has a link-local address besides the one by which it is in scope.
        let neighbour = match client.source {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        match self.out_of_scope {
            OutOfScope::Forward if !neighbour => match reply::not_served(query) {
                Some(bytes) => Ruling::Reply(bytes),
                None => Ruling::Unpoliced(OUTSIDERS),
            },
            OutOfScope::Forward | OutOfScope::Refuse => Ruling::Reply(reply::failure(
                query,
                ResponseCode::Refused,
                Ede::Prohibited,
                "out-of-scope: this resolver serves only the agents of its policy",
            )),
        }
    }

    async fn look_up(self: Arc<Self>, query: Query, client: Client, _ticket: Ticket) -> Vec<u8> {
        let lookup = Lookup { name: query.name.to_lowercase(), kind: query.kind, dnssec_ok: query.dnssec_ok() };
        match self.resolver.resolve(&lookup).await {
            Ok(found) => self.found(&query, &client, &found, None).await,
            Err(failure) => self.no_answer(&query, &failure),
        }
    }

    /// The answer to a query for which something was found. `before`: the revision that decided once already, in vain.
    pub async fn found(&self, query: &Query, client: &Client, found: &Found, mut before: Option<u64>) -> Vec<u8> {
        for _ in before.map_or(0, |_| 1)..MAX_DECISIONS {
            if let Some(pause) = before.and_then(|before| pause(before, self.judge.load().as_deref())) {
                tokio::time::sleep(pause).await;
            }
            // The policy may have changed while the upstream was asked: the one in force now has the say.
            let (judge, host, decision) = match self.rule(query, client) {
                Ruling::Reply(bytes) => return bytes,
                Ruling::Unpoliced(_) | Ruling::Watched(..) => {
                    return unpoliced(query, found);
                }
                Ruling::Allowed(judge, host, decision) => (judge, host, decision),
            };
            let asker = Asker::new(query, client, host, &*judge);
            match self.answer(asker, found, &*judge, &decision).await {
                Ok(bytes) => return bytes,
                // Nothing is enforced on the host: its packets pass without a lease.
                Err(_) if decision.mode == Mode::Monitor => {
                    return unpoliced(query, found);
                }
                Err(LeaseError::Stale) => before = Some(judge.revision()),
                Err(error) => return self.not_leased(query, &error),
            }
        }
        self.not_leased(query, &LeaseError::Stale)
    }

    async fn answer(
        &self,
        asker: Asker<'_>,
        found: &Found,
        judge: &J,
        decision: &Decision,
    ) -> Result<Vec<u8>, LeaseError> {
        let Asker { query, client: host, .. } = asker;
        let asked =
            Asked { name: &query.name, kind: query.kind, dnssec_ok: query.dnssec_ok(), host, allowed: decision };
        let filtered = match filter(&found.message, found.age, asked, judge) {
            Outcome::Pass(filtered) => filtered,
            Outcome::Block(decision, subject) => return Ok(self.blocked(asker, &decision, Some(&subject))),
        };
        let filtered = match filtered.release_unleased() {
            Ok(answer) => {
                self.tell(asker, decision, None);
                return Ok(reply::answer(query, answer, found.stale));
            }
            Err(filtered) => filtered,
        };
        let acked = self.lease(judge.revision(), host, query, &filtered).await?;
        self.tell_leased(asker, decision, None, filtered.addresses());
        Ok(reply::answer(query, filtered.release(acked), found.stale))
    }

    async fn lease(
        &self,
        revision: u64,
        host: HostId,
        query: &Query,
        filtered: &Filtered,
    ) -> Result<Acked, LeaseError> {
        let Some(name) = query.policy_name() else {
            return Err(LeaseError::Kernel("no policy can say the name that the address belongs to".to_owned()));
        };
        let wanted = Wanted {
            revision,
            host,
            name: &name,
            links: filtered.links(),
            addresses: filtered.addresses(),
            ttl: Duration::from_secs(filtered.ttl().into()),
        };
        if let Some(acked) = self.leaser.held(&wanted) {
            return Ok(acked);
        }
        match tokio::time::timeout(LEASE_TIME, self.leaser.lease(wanted.into())).await {
            Ok(result) => result,
            Err(_) => Err(silence()),
        }
    }

    fn blocked(&self, asker: Asker<'_>, decision: &Decision, subject: Option<&str>) -> Vec<u8> {
        Counters::bump(&self.counters.blocked);
        let asked = self.tell(asker, decision, subject.and_then(|subject| subject.parse().ok()));
        reply::blocked(asker.query, &Refusal { decision, asked: &asked, subject }.to_string())
    }

    /// Tells what was decided; gives the name asked for as it was told.
    fn tell(&self, asker: Asker<'_>, decision: &Decision, address: Option<IpAddr>) -> String {
        self.tell_leased(asker, decision, address, &BTreeSet::new())
    }

    fn tell_leased(
        &self,
        asker: Asker<'_>,
        decision: &Decision,
        address: Option<IpAddr>,
        leased: &BTreeSet<IpAddr>,
    ) -> String {
        let Asker { query, source, client, revision } = asker;
        let mut name = query.name.to_lowercase().to_ascii();
        if name.len() > 1 {
            name.pop();
        }
        let tcp = query.transport == Transport::Tcp;
        self.observer.answered(Answered { revision, client, source, name: &name, address, leased, tcp, decision });
        name
    }

    /// Nobody could be asked, or nobody answered.
    pub fn no_answer(&self, query: &Query, failure: &Failure) -> Vec<u8> {
        let ede = match failure {
            Failure::Timeout => Ede::NoReachableAuthority,
            Failure::Network(_) | Failure::Upstream(_) => Ede::NetworkError,
            Failure::Overload => {
                Counters::bump(&self.counters.dropped_overload);
                Ede::Other
            }
        };
        self.failed(query, ede, &failure.to_string())
    }

    /// The kernel does not have the addresses.
    pub fn not_leased(&self, query: &Query, error: &LeaseError) -> Vec<u8> {
        Counters::bump(&self.counters.lease_failures);
        let ede = match error {
            LeaseError::Kernel(_) => Ede::NetworkError,
            LeaseError::Stale | LeaseError::Busy => Ede::NotReady,
            LeaseError::Full => Ede::Other,
        };
        self.failed(query, ede, &error.to_string())
    }

    fn failed(&self, query: &Query, ede: Ede, text: &str) -> Vec<u8> {
        self.counters.servfail.fetch_add(1, Ordering::Relaxed);
        reply::failure(query, ResponseCode::ServFail, ede, text)
    }
}

/// The kernel took longer than [`LEASE_TIME`].
pub(super) fn silence() -> LeaseError {
    LeaseError::Kernel(format!("no word from it within {} s", LEASE_TIME.as_secs()))
}

fn over(grant: Grant, refusal: impl FnOnce() -> Vec<u8>) -> Step {
    if grant == Grant::Refuse { Step::Ready(refusal()) } else { Step::Drop }
}

/// How long to wait before deciding again what could not be leased by `before`; `None`: another policy is in force.
pub(super) fn pause(before: u64, now: Option<&impl Judge>) -> Option<Duration> {
    now.is_none_or(|now| now.revision() == before).then_some(STALE_PAUSE)
}

/// All that an upstream said.
fn unpoliced(query: &Query, found: &Found) -> Vec<u8> {
    reply::answer(query, Answer::unpoliced(&query.name, &found.message, found.age), found.stale)
}
