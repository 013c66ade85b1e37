//! The quick way: what a receiver answers by itself, without a task and almost without memory.
//!
//! Refusals, and answers that the cache has and whose addresses the kernel holds. Each answer is octet for octet the one
//! that [`Service::take`] would give (property tests compare them); whatever is not plain, or has to wait, goes there.

mod question;
mod template;
mod write;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use chrono::{DateTime, Utc};
use hickory_proto::rr::RecordType;

use self::question::{Question, Spelling};
use self::template::Leave;
pub(super) use self::template::{Template, is_served};
use super::budget::Grant;
use super::counters::Counters;
use super::service::{Service, over_budget};
use super::words::Refusal;
use crate::core::judge::Judge;
use crate::core::lease::{HostId, Leaser, Wanted};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quick {
    /// The answer is written.
    Told,
    /// It gets none.
    Dropped,
    /// It goes the long way ([`Service::take`]); nothing happened yet but that it was charged to its host's budget, if so.
    Long(Option<Grant>),
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

    /// Writes the answer to a packet that came by UDP.
    pub fn answer(&mut self, packet: &[u8], source: IpAddr, interface: Option<&str>, out: &mut Vec<u8>) -> Quick {
        let Some(question) = Question::read(packet, &mut self.spelling) else { return Quick::Long(None) };
        let Some(judge) = &*self.judge else { return Quick::Long(None) };
        let Some(host) = judge.client(source, interface) else { return Quick::Long(None) };
        let asker = Asker { source, host };
        match self.service.budget.charge(host, source, self.now) {
            Grant::Within if self.is_told(judge, asker, &question, out) => Quick::Told,
            Grant::Drop => {
                self.tell(judge, asker, &over_budget(&**judge, host, self.utc));
                add_one(&self.over);
                Quick::Dropped
            }
            grant => Quick::Long(Some(grant)),
        }
    }

    /// Writes the answer. False: nothing happened.
    fn is_told(&self, judge: &J, asker: Asker, question: &Question<'_>, out: &mut Vec<u8>) -> bool {
        let name = Name::from_normal(self.spelling.text());
        let decision = judge.decide_name(asker.host, Some(&name), self.utc);
        match (decision.verdict, decision.mode) {
            (Verdict::Block, Mode::Enforce) => {
                let reason = Refusal { decision: &decision, asked: self.spelling.text(), subject: None };
                let written = write::blocked(question, &reason, out);
                if written {
                    add_one(&self.blocked);
                    self.tell(judge, asker, &decision);
                }
                written
            }
            (Verdict::Allow, Mode::Enforce) => {
                let told = self.cached(judge, asker, question, &name, out);
                if told {
                    add_one(&self.answered);
                    self.tell(judge, asker, &decision);
                }
                told
            }
            _ => false,
        }
    }

    /// Writes the cached answer for an allowed name, if there is one and the kernel holds its addresses.
    fn cached(&self, judge: &J, asker: Asker, question: &Question<'_>, name: &Name, out: &mut Vec<u8>) -> bool {
        if !is_served(RecordType::from(question.kind)) {
            return false;
        }
        let resolver = &self.service.resolver;
        let Some(stored) = resolver.cache.get(self.spelling.key(), self.now) else { return false };
        let ready = stored.ready.get_or_init(|| Template::of(&stored));
        let Some(template) = ready.as_ref().filter(|ready| ready.fits(question, judge, asker.host)) else {
            return false;
        };
        let age = stored.age(self.now);
        let wanted = || Wanted {
            revision: judge.revision(),
            host: asker.host,
            name,
            links: template.links(),
            addresses: template.addresses(),
            ttl: Duration::from_secs(template.ttl(age).into()),
        };
        let held = || self.service.leaser.held(&wanted()).map(Leave::from);
        let Some(leave) = template.leave().or_else(held) else { return false };
        template.write(leave, question, age, out);
        resolver.keep_fresh(&stored, self.now);
        true
    }

    fn tell(&self, judge: &J, Asker { source, host }: Asker, decision: &Decision) {
        self.service.observer.answered(Answered {
            revision: judge.revision(),
            client: host,
            source,
            name: self.spelling.text(),
            address: None,
            leased: &Default::default(),
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
