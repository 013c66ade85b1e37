//! What of an upstream's answer may be told to one host. Pure.
//!
//! Kept are the chain of CNAMEs that starts at the name asked for and the records of the type asked for at its end, in
//! the upstream's order; nothing else of the answer and nothing of the additional section. Every name the answer leads to
//! is held against the denylist, every address against the policy. TTLs are all brought down to the smallest of the
//! chain, so that no client remembers an address for longer than its lease. The AD bit is never passed on: the
//! path to the upstream does not vouch for it.

mod service;
mod told;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS};
use hickory_proto::rr::{DNSClass, Name as WireName, RData, Record, RecordType};

use super::query::policy_name;
use crate::core::judge::{AddressVerdict, Judge};
use crate::core::lease::{Acked, HostId, MAX_LEASE};
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::Mode;
use crate::policy::name::Name as PolicyName;

/// CNAMEs followed at most; real chains have up to eight or so.
const MAX_CHAIN: usize = 16;
/// Addresses told in one answer at most; more would let one name fill the kernel's sets.
const MAX_ADDRESSES: usize = 256;
/// For how long "there is nothing" may be remembered, in seconds: long minimums hide names that came back.
pub const NEGATIVE_TTL: std::ops::RangeInclusive<u32> = 1..=60;

/// The question that an answer belongs to, with what was decided on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The name asked for.
    pub name: &'a WireName,
    /// The type asked for.
    pub kind: RecordType,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
    /// Who asked.
    pub host: HostId,
    /// The decision that allowed the name.
    pub allowed: &'a Decision,
}

/// The result.
#[must_use]
#[derive(Debug)]
pub enum Outcome {
    /// This may be told, once its addresses are leased.
    Pass(Filtered),
    /// The answer is refused: why, and the name or address that gave the reason.
    Block(Decision, String),
}

/// An answer after filtering; its records come out only through [`Filtered::release`] or [`Filtered::release_unleased`].
#[derive(Debug)]
pub struct Filtered {
    answer: Answer,
    addresses: BTreeSet<IpAddr>,
    links: Vec<PolicyName>,
    ttl: u32,
    least_ttl: u32,
}

/// Records that may go to the client.
#[derive(Debug)]
pub struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Filtered {
    /// The addresses in it that have to be leased first.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// The names on the way from the one asked for to the addresses.
    pub fn links(&self) -> &[PolicyName] {
        &self.links
    }

    /// How long the answer is good for, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The smallest TTL of its records as the upstream gave it, in seconds.
    pub(super) fn least_ttl(&self) -> u32 {
        self.least_ttl
    }

    /// The records, to be written for later: whoever sends them needs the proof then.
    pub(super) fn unreleased(self) -> Answer {
        self.answer
    }

    /// The records; the kernel holds their addresses.
    pub fn release(self, _held: Acked) -> Answer {
        self.answer
    }

    /// The records, if there is no address in them that needs a lease.
    ///
    /// # Errors
    /// The answer back, if there is one.
    pub fn release_unleased(self) -> Result<Answer, Self> {
        if self.addresses.is_empty() { Ok(self.answer) } else { Err(self) }
    }
}

impl Answer {
    /// An answer to somebody whom no policy is enforced on: out of scope, or a host in monitor mode.
    pub(super) fn unpoliced(asked: &WireName, upstream: &Message, age: u32) -> Self {
        let aged = |records: &[Record]| {
            let mut records = records.to_vec();
            for record in &mut records {
                record.ttl = record.ttl.saturating_sub(age);
                respell(record, asked);
            }
            records
        };
        Self {
            code: upstream.metadata.response_code,
            records: aged(&upstream.answers),
            authorities: aged(&upstream.authorities),
        }
    }

    /// The records of the answer section.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

/// Filters an upstream's answer that has been in the cache for `age` seconds.
pub fn filter<J: Judge + ?Sized>(upstream: &Message, age: u32, asked: Asked<'_>, judge: &J) -> Outcome {
    match chain(&upstream.answers, &asked) {
        Some(chain) => {
            Filter { asked, judge, chain, addresses: BTreeSet::new(), changed: false, refused: None }.run(upstream, age)
        }
        None => Outcome::Block(asked.refusal(Reason::Malformed), "its chain of aliases has no end".to_owned()),
    }
}

/// The names from the one asked for to the last alias; `None`: a loop, or too long.
fn chain(answers: &[Record], asked: &Asked<'_>) -> Option<Vec<WireName>> {
    let mut chain = vec![asked.name.clone()];
    if asked.kind == RecordType::CNAME {
        return Some(chain);
    }
    loop {
        let last = chain.last()?;
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.dns_class == DNSClass::IN && record.name == *last => Some(&target.0),
            _ => None,
        });
        let Some(next) = next else { return Some(chain) };
        if chain.len() > MAX_CHAIN || chain.contains(next) {
            return None;
        }
        chain.push(next.clone());
    }
}

impl Asked<'_> {
    fn refusal(&self, reason: Reason) -> Decision {
        Decision { verdict: Verdict::Block, reason, path: None, ..self.allowed.clone() }
    }

    fn enforced(&self) -> bool {
        self.allowed.mode == Mode::Enforce
    }
}

struct Filter<'a, J: ?Sized> {
    asked: Asked<'a>,
    judge: &'a J,
    chain: Vec<WireName>,
    addresses: BTreeSet<IpAddr>,
    /// Something was taken out: signatures no longer fit.
    changed: bool,
    /// Why the first thing was taken out.
    refused: Option<(Decision, String)>,
}

impl<J: Judge + ?Sized> Filter<'_, J> {
    fn run(mut self, upstream: &Message, age: u32) -> Outcome {
        for link in self.chain.iter().skip(1) {
            if let Some((decision, subject)) = self.denied(link) {
                return Outcome::Block(decision, subject);
            }
        }
        let mut records: Vec<Record> = Vec::new();
        let mut data = 0_usize;
        for record in upstream.answers.iter().filter(|record| record.dns_class == DNSClass::IN) {
            if let Some(mut kept) = self.keep(record) {
                respell(&mut kept, self.asked.name);
                data += usize::from(kept.record_type() == self.asked.kind);
                records.push(kept);
            }
        }
        if data == 0
            && let Some((decision, subject)) = self.refused
        {
            return Outcome::Block(decision, subject);
        }
        if self.changed {
            records.retain(|record| record.record_type() != RecordType::RRSIG);
        }
        let authorities = if data == 0 { self.proof_of_nothing(upstream, age) } else { Vec::new() };
        let cap = MAX_LEASE.as_secs() as u32;
        let least_ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
        let ttl = least_ttl.saturating_sub(age).min(cap);
        records.iter_mut().for_each(|record| record.ttl = ttl);
        let answer = Answer { code: upstream.metadata.response_code, records, authorities };
        let links = self.chain.iter().skip(1).filter_map(policy_name).collect();
        Outcome::Pass(Filtered { answer, addresses: self.addresses, links, ttl, least_ttl })
    }

    /// The record as it may be told.
    fn keep(&mut self, record: &Record) -> Option<Record> {
        let place = self.chain.iter().position(|name| *name == record.name)?;
        let last = place + 1 == self.chain.len();
        let kind = record.record_type();
        if kind == RecordType::RRSIG {
            let wanted = self.asked.dnssec_ok
                && covered(record).is_some_and(|kind| kind == RecordType::CNAME || last && kind == self.asked.kind);
            return wanted.then(|| record.clone());
        }
        if let (RData::CNAME(target), false) = (&record.data, last) {
            return (target.0 == self.chain[place + 1]).then(|| record.clone());
        }
        if !last || kind != self.asked.kind {
            return None;
        }
        let told = match &record.data {
            RData::A(A(address)) => self.address(IpAddr::V4(*address)),
            RData::AAAA(AAAA(address)) => self.address(IpAddr::V6(*address)),
            RData::CNAME(target) => self.target(&target.0),
            RData::MX(mx) => self.target(&mx.exchange),
            RData::SRV(srv) => self.target(&srv.target),
            RData::HTTPS(HTTPS(service)) => {
                return self.service(record, service, |service| RData::HTTPS(HTTPS(service)));
            }
            RData::SVCB(service) => return self.service(record, service, RData::SVCB),
            _ => true,
        };
        self.changed |= !told;
        told.then(|| record.clone())
    }

    /// Whether an address may be told; it is put on the list of leases if it needs one.
    fn address(&mut self, address: IpAddr) -> bool {
        let refusal = match self.judge.judge_address(self.asked.host, address) {
            AddressVerdict::Lease | AddressVerdict::Charged
                if self.addresses.len() < MAX_ADDRESSES || self.addresses.contains(&address) =>
            {
                self.addresses.insert(address);
                return true;
            }
            AddressVerdict::Lease | AddressVerdict::Charged => return false,
            AddressVerdict::Open => return true,
            AddressVerdict::Denied(decision) => decision,
            AddressVerdict::Rebinding => self.asked.refusal(Reason::Rebinding),
        };
        self.refuse(refusal, address.to_string())
    }

    /// Whether a record that leads to `target` may be told.
    fn target(&mut self, target: &WireName) -> bool {
        match self.denied(target) {
            Some((decision, subject)) => self.refuse(decision, subject),
            None => true,
        }
    }

    /// Notes a refusal; what is refused stays only where nothing is enforced.
    fn refuse(&mut self, decision: Decision, subject: String) -> bool {
        self.refused.get_or_insert((decision, subject));
        !self.asked.enforced()
    }

    fn denied(&self, name: &WireName) -> Option<(Decision, String)> {
        if !self.asked.enforced() || name.is_root() {
            return None;
        }
        match policy_name(name) {
            Some(link) => self.judge.denied_link(self.asked.host, &link).map(|decision| (decision, link.to_string())),
            // No list can say anything about such a name, so a denylist's wildcard would miss it.
            None => Some((self.asked.refusal(Reason::Malformed), "it leads to a name that is no host name".to_owned())),
        }
    }

    /// The SOA of a negative answer (RFC 2308 section 3), with a short life.
    fn proof_of_nothing(&self, upstream: &Message, age: u32) -> Vec<Record> {
        let end = self.chain.last().unwrap_or(self.asked.name);
        let soa = upstream.authorities.iter().find(|record| {
            record.dns_class == DNSClass::IN && matches!(record.data, RData::SOA(_)) && record.name.zone_of(end)
        });
        let Some(mut soa) = soa.cloned() else { return Vec::new() };
        soa.ttl = negative_ttl(&soa).saturating_sub(age);
        if let RData::SOA(data) = &mut soa.data {
            data.minimum = data.minimum.clamp(*NEGATIVE_TTL.start(), *NEGATIVE_TTL.end());
        }
        vec![soa]
    }
}

/// For how long the SOA of a negative answer lets it be remembered, in seconds (RFC 2308 section 5), clamped.
pub(super) fn negative_ttl(soa: &Record) -> u32 {
    let minimum = if let RData::SOA(data) = &soa.data { data.minimum } else { 0 };
    soa.ttl.min(minimum).clamp(*NEGATIVE_TTL.start(), *NEGATIVE_TTL.end())
}

/// Gives the records of the name asked for the client's spelling: upstream saw a scrambled one.
fn respell(record: &mut Record, asked: &WireName) {
    if record.name == *asked {
        record.name = asked.clone();
    }
}

/// The type that a signature is for (RFC 4034 section 3.1.1); this build of hickory leaves signatures as octets.
fn covered(signature: &Record) -> Option<RecordType> {
    match &signature.data {
        RData::Unknown { rdata, .. } => rdata.anything.first_chunk().map(|kind| u16::from_be_bytes(*kind).into()),
        _ => None,
    }
}
