//! The quick way: what a receiver answers by itself, without a task and almost without memory.
//!
//! Refusals, and answers that the cache has and whose addresses the kernel holds. An answer that has to be found first is
//! told in the same way once it is there ([`super::arrivals`]). Each answer is octet for octet the one
//! that [`Service::take`] would give (property tests compare them); whatever is not plain, or has to wait, goes there.

mod question;
mod template;
mod write;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use chrono::{DateTime, Utc};
use hickory_proto::rr::RecordType;

use self::question::{Question, Spelling};
use self::template::{Fit, Leave};
pub(super) use self::template::{Template, is_served};
use super::budget::{Grant, over_budget};
use super::cache::Stored;
use super::counters::Counters;
use super::service::Service;
use super::words::Refusal;
use crate::core::judge::Judge;
use crate::core::lease::{Acked, HostId, LeaseRequest, Leaser, Wanted};
use crate::core::observe::Answered;
use crate::policy::decision::{Decision, Verdict};
use crate::policy::model::Mode;
use crate::policy::name::Name;

/// A receiver's work on one batch: one look at the policy in force and at the clocks.
pub(super) struct Turn<'s, J: Judge, L: Leaser> {
    service: &'s Arc<Service<J, L>>,
    judge: Guard<Option<Arc<J>>>,
    now: Instant,
    utc: DateTime<Utc>,
    spelling: Spelling,
    blocked: Cell<u64>,
    answered: Cell<u64>,
    over: Cell<u64>,
}

/// What became of a packet.
#[must_use]
pub(super) enum Quick {
    /// The answer is written.
    Told,
    /// It gets none.
    Dropped,
    /// An allowed question that has to wait: for an upstream, or, if the answer is known, for the kernel. Nothing happened
    /// yet but that it was charged to its host's budget.
    Waits(HostId, Option<Arc<Stored>>),
    /// It goes the long way ([`Service::take`]); nothing happened yet but that it was charged to its host's budget, if so.
    Long(Option<Grant>),
}

/// What became of a question whose answer has been found.
#[must_use]
pub(super) enum Landing {
    /// The answer is written.
    Told,
    /// It is to be written when the kernel has the addresses ([`Turn::tell_leased`]).
    Leases(LeaseRequest, Decided),
    /// It goes the long way; nothing happened yet.
    Long,
}

/// The decision by which addresses are leased.
pub(super) struct Decided {
    asker: Asker,
    revision: u64,
    decision: Decision,
}

impl Decided {
    /// The revision that decided.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// Who asked.
#[derive(Clone, Copy)]
struct Asker {
    source: IpAddr,
    host: HostId,
}

impl<'s, J: Judge, L: Leaser> Turn<'s, J, L> {
    pub fn begin(service: &'s Arc<Service<J, L>>) -> Self {
        Self {
            service,
            judge: service.judge.load(),
            now: Instant::now(),
            utc: Utc::now(),
            spelling: Spelling::default(),
            blocked: Cell::default(),
            answered: Cell::default(),
            over: Cell::default(),
        }
    }

    /// When the batch was looked at.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The key of the question that was read last.
    pub fn key(&self) -> &[u8] {
        self.spelling.key()
    }

    /// Writes the answer to a packet that came by UDP.
    pub fn answer(&mut self, packet: &[u8], source: IpAddr, interface: Option<&str>, out: &mut Vec<u8>) -> Quick {
        let Some(question) = Question::read(packet, &mut self.spelling) else { return Quick::Long(None) };
        let Some(judge) = &*self.judge else { return Quick::Long(None) };
        let Some(host) = judge.client(source, interface) else { return Quick::Long(None) };
        let asker = Asker { source, host };
        match self.service.budget.charge(host, source, self.now) {
            Grant::Within => self.decide(judge, asker, &question, out),
            Grant::Drop => {
                self.tell(judge, asker, &over_budget(&**judge, host, self.utc));
                add_one(&self.over);
                Quick::Dropped
            }
            grant => Quick::Long(Some(grant)),
        }
    }

    fn decide(&self, judge: &J, asker: Asker, question: &Question<'_>, out: &mut Vec<u8>) -> Quick {
        let name = Name::from_normal(self.spelling.text());
        let decision = judge.decide_name(asker.host, Some(&name), self.utc);
        let long = Quick::Long(Some(Grant::Within));
        match (decision.verdict, decision.mode) {
            (Verdict::Block, Mode::Enforce) => {
                if !self.is_refused(judge, asker, question, &decision, out) {
                    return long;
                }
                add_one(&self.blocked);
                Quick::Told
            }
            (Verdict::Allow, Mode::Enforce) if is_served(RecordType::from(question.kind)) => {
                let resolver = &self.service.resolver;
                let Some(stored) = resolver.cache.get(self.spelling.key(), self.now) else {
                    return Quick::Waits(asker.host, None);
                };
                match self.tell_stored(judge, asker, question, &name, &stored, out) {
                    Some(Ok(())) => {
                        resolver.keep_fresh(&stored, self.now);
                        add_one(&self.answered);
                        self.tell(judge, asker, &decision);
                        Quick::Told
                    }
                    Some(Err(_)) => Quick::Waits(asker.host, Some(stored)),
                    None => long,
                }
            }
            _ => long,
        }
    }

    /// Writes the answer to a packet whose answer has been found. The policy may have changed meanwhile: the one in force
    /// now has the say.
    pub fn land(
        &mut self,
        packet: &[u8],
        source: IpAddr,
        interface: Option<&str>,
        stored: &Stored,
        out: &mut Vec<u8>,
    ) -> Landing {
        let Some(question) = Question::read(packet, &mut self.spelling) else { return Landing::Long };
        let Some(judge) = &*self.judge else { return Landing::Long };
        let Some(host) = judge.client(source, interface) else { return Landing::Long };
        let asker = Asker { source, host };
        let name = Name::from_normal(self.spelling.text());
        let decision = judge.decide_name(host, Some(&name), self.utc);
        match (decision.verdict, decision.mode) {
            (Verdict::Block, Mode::Enforce) if self.is_refused(judge, asker, &question, &decision, out) => {
                Counters::bump(&self.service.counters.blocked);
                Landing::Told
            }
            (Verdict::Allow, Mode::Enforce) => match self.tell_stored(judge, asker, &question, &name, stored, out) {
                Some(Ok(())) => {
                    self.tell(judge, asker, &decision);
                    Landing::Told
                }
                Some(Err(request)) => Landing::Leases(request, Decided { asker, revision: judge.revision(), decision }),
                None => Landing::Long,
            },
            _ => Landing::Long,
        }
    }

    /// Writes the answer to a packet whose addresses the kernel has now.
    pub fn tell_leased(
        &mut self,
        packet: &[u8],
        decided: &Decided,
        stored: &Stored,
        acked: Acked,
        out: &mut Vec<u8>,
    ) -> bool {
        let (Some(question), Some(template)) = (Question::read(packet, &mut self.spelling), stored.template()) else {
            return false;
        };
        template.write(acked.into(), &question, stored.age(self.now), out);
        let Decided { asker, revision, decision } = decided;
        self.tell_of(*asker, *revision, decision, template.addresses());
        true
    }

    /// Writes a refusal. False: nothing happened.
    fn is_refused(
        &self,
        judge: &J,
        asker: Asker,
        question: &Question<'_>,
        decision: &Decision,
        out: &mut Vec<u8>,
    ) -> bool {
        let reason = Refusal { decision, asked: self.spelling.text(), subject: None };
        let written = write::blocked(question, &reason, out);
        if written {
            self.tell(judge, asker, decision);
        }
        written
    }

    /// Writes the answer for an allowed name if the kernel holds its addresses; else gives what it should hold. `None`: the
    /// answer is not for this host as it is.
    fn tell_stored(
        &self,
        judge: &J,
        asker: Asker,
        question: &Question<'_>,
        name: &Name,
        stored: &Stored,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), LeaseRequest>> {
        let template = stored.template()?;
        let fit = template.fit(question, judge, asker.host)?;
        let age = stored.age(self.now);
        let wanted = Wanted {
            revision: judge.revision(),
            host: asker.host,
            name,
            links: template.links(),
            addresses: template.addresses(),
            ttl: Duration::from_secs(template.ttl(age).into()),
        };
        let leave = match fit {
            Fit::Free(leave) => Some(leave),
            Fit::Held => self.service.leaser.held(&wanted).map(Leave::from),
        };
        let Some(leave) = leave else { return Some(Err(wanted.into())) };
        template.write(leave, question, age, out);
        Some(Ok(()))
    }

    fn tell(&self, judge: &J, asker: Asker, decision: &Decision) {
        self.tell_of(asker, judge.revision(), decision, &BTreeSet::new());
    }

    fn tell_of(&self, Asker { source, host }: Asker, revision: u64, decision: &Decision, leased: &BTreeSet<IpAddr>) {
        self.service.observer.answered(Answered {
            revision,
            client: host,
            source,
            name: self.spelling.text(),
            address: None,
            leased,
            tcp: false,
            decision,
        });
    }
}

impl<J: Judge, L: Leaser> Drop for Turn<'_, J, L> {
    fn drop(&mut self) {
        let counters = &self.service.counters;
        let (blocked, answered, over) = (self.blocked.get(), self.answered.get(), self.over.get());
        Counters::add(&counters.queries, blocked + answered + over);
        Counters::add(&counters.over_budget, over);
        Counters::add(&counters.blocked, blocked);
        Counters::add(&counters.allowed, answered);
        Counters::add(&counters.cache_hits, answered);
    }
}

fn add_one(count: &Cell<u64>) {
    count.set(count.get() + 1);
}
