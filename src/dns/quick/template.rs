//! An upstream's answer made ready: written once, patched for each client.
//!
//! It is made by the same filter and the same writer as any answer, under a judge that lets everything through and notes
//! what it was asked. For a host whose own judge says the same to all of that, the filter's result is the same; for
//! others there is the long way.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use hickory_proto::rr::RecordType;

use super::question::{OPT, Question};
use super::write::{head, opt};
use crate::core::judge::{AddressVerdict, Judge};
use crate::core::lease::{Acked, HostId, MAX_LEASE};
use crate::dns::cache::Stored;
use crate::dns::filter::{Asked, Outcome, filter};
use crate::dns::query::{HEADER, Query, Transport};
use crate::dns::reply;
use crate::dns::upstream::KEY_HEAD;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::Mode;
use crate::policy::name::Name;

/// Octets of a record between its name and its data (RFC 1035 section 4.1.3): type, class, TTL, length.
const RECORD_HEAD: usize = 10;
/// Where a pointer to the name asked for points, with the two bits that make it a pointer (RFC 1035 section 4.1.4).
const ASKED: u16 = 0xc000 | HEADER as u16;

/// The answer to one question, for hosts that may see all of it.
pub(in crate::dns) struct Template {
    /// The response code.
    code: u8,
    /// The numbers of records in answer and authority.
    counts: [u16; 2],
    /// Everything behind the question.
    body: Box<[u8]>,
    /// The places of TTLs in `body`: the answers', then the authorities'.
    ttls: [Box<[u16]>; 2],
    /// The least TTL of the answers, and the TTL of the proof that there is nothing, when they were new.
    lives: [u32; 2],
    /// It fits whatever the spelling of the question.
    any_spelling: bool,
    /// Names that must not be denied.
    names: Box<[Name]>,
    /// The names on the way, as leases tell them.
    links: Box<[Name]>,
    /// Addresses that must be held.
    addresses: BTreeSet<IpAddr>,
}

/// Leave to let an answer go: the kernel holds its addresses, or none of them needs that.
pub(in crate::dns) struct Leave(());

/// How an answer fits a question of a host.
pub(in crate::dns) enum Fit {
    /// It may go: it has no address, or the policy itself opens all it has.
    Free(Leave),
    /// All its addresses must be held first.
    Held,
}

impl From<Acked> for Leave {
    fn from(_held: Acked) -> Self {
        Self(())
    }
}

/// Lets everything through and notes it.
#[derive(Default)]
struct Note {
    names: Mutex<Vec<Name>>,
    addresses: Mutex<BTreeSet<IpAddr>>,
}

impl Judge for Note {
    fn revision(&self) -> u64 {
        0
    }

    fn client(&self, _source: IpAddr, _interface: Option<&str>) -> Option<HostId> {
        None
    }

    fn decide_name(&self, _host: HostId, _name: Option<&Name>, _now: DateTime<Utc>) -> Decision {
        allowed()
    }

    fn denied_link(&self, _host: HostId, name: &Name) -> Option<Decision> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        None
    }

    fn judge_address(&self, _host: HostId, address: IpAddr) -> AddressVerdict {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        AddressVerdict::Lease
    }
}

fn allowed() -> Decision {
    let (verdict, reason, mode) = (Verdict::Allow, Reason::Allowed, Mode::Enforce);
    Decision { verdict, reason, path: None, host: None, domain: None, mode }
}

impl Template {
    /// Makes an answer ready. `None`: it cannot be told in this way.
    pub fn of(stored: &Stored) -> Option<Self> {
        if stored.stale || !is_served(stored.lookup.kind) {
            return None;
        }
        let lookup = &stored.lookup;
        let query = Query {
            id: 0,
            name: lookup.name.clone(),
            kind: lookup.kind,
            recursion_desired: false,
            checking_disabled: false,
            edns: None,
            limit: usize::from(u16::MAX),
            transport: Transport::Tcp,
        };
        let (allowed, note) = (allowed(), Note::default());
        let asked = Asked {
            name: &query.name,
            kind: query.kind,
            dnssec_ok: lookup.dnssec_ok,
            host: HostId::NOBODY,
            allowed: &allowed,
        };
        let Outcome::Pass(filtered) = filter(&stored.message, 0, asked, &note) else { return None };
        let asked_addresses = note.addresses.into_inner().unwrap_or_else(PoisonError::into_inner);
        let addresses = filtered.addresses().clone();
        // More than fit: which of them are told depends on the host's verdicts on the others.
        if addresses != asked_addresses {
            return None;
        }
        let links = filtered.links().into();
        let answers_live = filtered.least_ttl();
        let answer = filtered.unreleased();
        let code = answer.code;
        let proof_lives = answer.authorities.first().map_or(0, |soa| soa.ttl);
        let bytes = reply::answer(&query, answer, false);
        let question = HEADER + lookup.key().len() - KEY_HEAD + 4;
        let (header, body) = (bytes.first_chunk::<HEADER>()?, bytes.get(question..)?);
        let truncated = header[2] & 2 != 0;
        if code.high() > 0 || header[3] & 0x0f != code.low() || truncated || header[10..] != [0, 0] {
            return None;
        }
        let counts = [[header[6], header[7]], [header[8], header[9]]].map(u16::from_be_bytes);
        let mut places = Places { body, at: 0, any_spelling: true };
        let ttls = [places.ttls(counts[0])?, places.ttls(counts[1])?];
        let (at, any_spelling) = (places.at, places.any_spelling);
        (at == body.len()).then(|| Self {
            code: code.low(),
            counts,
            body: body.into(),
            ttls,
            lives: [answers_live, proof_lives],
            any_spelling,
            names: note.names.into_inner().unwrap_or_else(PoisonError::into_inner).into(),
            links,
            addresses,
        })
    }

    /// `None`: this is not the answer to `question` for a host.
    pub fn fit(&self, question: &Question<'_>, judge: &impl Judge, host: HostId) -> Option<Fit> {
        let room = HEADER + question.section.len() + self.body.len() + question.edns.map_or(0, |_| OPT);
        let fits = room <= question.limit
            && (question.lower || self.any_spelling)
            && self.names.iter().all(|name| judge.denied_link(host, name).is_none());
        let mut verdicts = self.addresses.iter().map(|address| judge.judge_address(host, *address));
        let first = verdicts.next().filter(|_| fits);
        match first {
            None => fits.then_some(Fit::Free(Leave(()))),
            // Some to be leased and some not: they are told apart on the long way.
            Some(first) if !verdicts.all(|verdict| verdict == first) => None,
            Some(AddressVerdict::Lease) => Some(Fit::Held),
            Some(AddressVerdict::Open) => Some(Fit::Free(Leave(()))),
            Some(_) => None,
        }
    }

    /// The addresses that must be held for the host.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// The names on the way to them.
    pub fn links(&self) -> &[Name] {
        &self.links
    }

    /// How long the answer is good for at an age, in seconds.
    pub fn ttl(&self, age: u32) -> u32 {
        self.lives[0].saturating_sub(age).min(MAX_LEASE.as_secs() as u32)
    }

    /// Writes the answer.
    pub fn write(&self, _leave: Leave, question: &Question<'_>, age: u32, out: &mut Vec<u8>) {
        head(question, self.code, self.counts, out);
        let body = out.len();
        out.extend_from_slice(&self.body);
        for (places, ttl) in self.ttls.iter().zip([self.ttl(age), self.lives[1].saturating_sub(age)]) {
            for place in places {
                out[body + usize::from(*place)..][..4].copy_from_slice(&ttl.to_be_bytes());
            }
        }
        opt(question, out);
    }
}

/// Walks through written records.
struct Places<'b> {
    body: &'b [u8],
    at: usize,
    /// No name refers to a part of the name asked for, and none could: there are only pointers to all of it.
    any_spelling: bool,
}

impl Places<'_> {
    /// The places of the TTLs of the next records.
    fn ttls(&mut self, count: u16) -> Option<Box<[u16]>> {
        (0..count)
            .map(|_| {
                self.name()?;
                let head = self.body.get(self.at..self.at + RECORD_HEAD)?;
                let place = u16::try_from(self.at + 4).ok()?;
                let kind = RecordType::from(u16::from_be_bytes([head[0], head[1]]));
                self.any_spelling &= matches!(kind, RecordType::A | RecordType::AAAA);
                self.at += RECORD_HEAD + usize::from(u16::from_be_bytes([head[8], head[9]]));
                Some(place)
            })
            .collect()
    }

    fn name(&mut self) -> Option<()> {
        if let Some([high, low]) = self.body.get(self.at..self.at + 2)
            && u16::from_be_bytes([*high, *low]) == ASKED
        {
            self.at += 2;
            return Some(());
        }
        self.any_spelling = false;
        loop {
            match *self.body.get(self.at)? {
                0 => {
                    self.at += 1;
                    return Some(());
                }
                length if length & 0xc0 == 0xc0 => {
                    self.at += 2;
                    return Some(());
                }
                length => self.at += 1 + usize::from(length),
            }
        }
    }
}

/// The types that hosts under a policy get from upstreams; ANY is minimal, and of others there is nothing.
pub(in crate::dns) fn is_served(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::A
            | RecordType::AAAA
            | RecordType::HTTPS
            | RecordType::SVCB
            | RecordType::CNAME
            | RecordType::SRV
            | RecordType::MX
            | RecordType::TXT
            | RecordType::PTR
    )
}
