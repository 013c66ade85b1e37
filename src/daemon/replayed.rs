//! The decision log, decided again by another policy: what would newly break and what would newly open, by host and place.
//!
//! Records that are alike are decided once for each way their windows can stand, so ten million of them cost little more
//! than reading them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::protocol::plan::{Differing, OfHost, Place};
use crate::core::replay::{self, Answer, Outcome, Replay, Seen};
use crate::decisions::{self, Action, Layer, Line, Record};
use crate::plan::ir::proto;
use crate::policy::decision::Reason;
use crate::policy::reference::Protocol;

/// Kinds of records that are remembered; of more, all are forgotten and learned again. Some forty octets each.
const MOST_KINDS: usize = 1 << 20;
/// Places that are told apart; further ones are counted for their host.
const MOST_PLACES: usize = 1 << 14;
/// Hosts that are listed.
const HOSTS: usize = 100;
/// Places that are listed for a host.
const PLACES: usize = 20;

/// What came of it.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Records.
    pub records: u64,
    /// Decisions that they stand for.
    pub decisions: u64,
    /// Decisions of which the record does not tell enough.
    pub unclear: u64,
    /// Lines that are no records.
    pub damaged: u64,
    /// What would newly be refused.
    pub breaks: Differing,
    /// What would newly pass.
    pub opens: Differing,
    /// Files that could not be read.
    pub unread: Vec<String>,
}

/// Decides all records since then again.
pub fn replay(dir: &Path, since: DateTime<Utc>, replay: Replay<'_>) -> Replayed {
    let mut tally = Tally::new(replay);
    for path in decisions::parts(dir, since) {
        match decisions::scan(&path, since, |line| tally.take(line)) {
            Ok(damaged) => tally.done.damaged += damaged,
            // It was old enough to be removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tally.done.unread.push(format!("{}: {}", path.display(), crate::store::words(&error))),
        }
    }
    tally.finish()
}

/// The name, address, port and protocol of a record.
type Target = (Option<Arc<str>>, Option<IpAddr>, Option<u16>, Option<Arc<str>>);

/// Where an agent went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Where {
    host: Option<Arc<str>>,
    /// `None`: one of too many.
    place: Option<Target>,
}

/// A kind of records.
struct Known {
    answer: Answer,
    /// Its number among the places, once something differs.
    place: Option<usize>,
}

struct Tally<'p> {
    replay: Replay<'p>,
    hash: RandomState,
    known: HashMap<u64, Known, BuildHasherDefault<Hashed>>,
    numbers: HashMap<Where, usize>,
    places: Vec<(Where, Vec<(Outcome, u64)>)>,
    /// The second of the last line, and the moment that it is.
    moment: ([u8; 19], DateTime<Utc>),
    done: Replayed,
}

/// What is hashed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl<'p> Tally<'p> {
    fn new(replay: Replay<'p>) -> Self {
        Self {
            replay,
            hash: RandomState::new(),
            known: HashMap::default(),
            numbers: HashMap::new(),
            places: Vec::new(),
            moment: ([0; 19], DateTime::UNIX_EPOCH),
            done: Replayed::default(),
        }
    }

    fn take(&mut self, line: &Line<'_>) {
        let decisions = line.suppressed.saturating_add(1);
        if line.second() != self.moment.0 {
            let (Some(time), Ok(second)) = (line.time(), line.second().try_into()) else {
                self.done.damaged += 1;
                return;
            };
            self.moment = (second, time);
        }
        self.done.records += 1;
        self.done.decisions += decisions;
        let kind = self.hash.hash_one(line.kind);
        if !self.known.contains_key(&kind) {
            if self.known.len() == MOST_KINDS {
                self.known.clear();
            }
            let record = line.record();
            let seen = record.as_ref().and_then(seen);
            let answer = seen.map_or(Answer::UNCLEAR, |seen| self.replay.answer(&seen));
            self.known.insert(kind, Known { answer, place: None });
        }
        let Some(known) = self.known.get_mut(&kind) else { return };
        match self.replay.outcome(known.answer, self.moment.1) {
            Outcome::Same => {}
            Outcome::Unclear => self.done.unclear += decisions,
            outcome => {
                let number = match known.place {
                    Some(number) => number,
                    None => {
                        let number = place(line.record(), &mut self.numbers, &mut self.places);
                        *known.place.insert(number)
                    }
                };
                let counts = &mut self.places[number].1;
                match counts.iter_mut().find(|(known, _)| *known == outcome) {
                    Some((_, count)) => *count += decisions,
                    None => counts.push((outcome, decisions)),
                }
            }
        }
    }

    fn finish(self) -> Replayed {
        let (mut breaks, mut opens) = (HashMap::new(), HashMap::new());
        for (at, outcomes) in self.places {
            for (outcome, count) in outcomes {
                match outcome {
                    Outcome::Breaks(reason) => add(&mut breaks, &at, reason, count),
                    Outcome::Opens(reason) => add(&mut opens, &at, reason, count),
                    Outcome::Same | Outcome::Unclear => {}
                }
            }
        }
        Replayed { breaks: differing(breaks), opens: differing(opens), ..self.done }
    }
}

/// The number of the place that a record is about.
fn place(
    record: Option<Record>,
    numbers: &mut HashMap<Where, usize>,
    places: &mut Vec<(Where, Vec<(Outcome, u64)>)>,
) -> usize {
    let host = record.as_ref().and_then(|record| record.host.clone());
    let at = record.map(|record| {
        // The address in a record about a name is the reason's, not where the agent went.
        let address = record.address.filter(|_| record.layer != Layer::Dns);
        (record.domain, address, record.port, record.protocol)
    });
    let mut at = Where { host, place: at };
    if numbers.len() >= MOST_PLACES && !numbers.contains_key(&at) {
        at.place = None;
    }
    *numbers.entry(at.clone()).or_insert_with(|| {
        places.push((at, Vec::new()));
        places.len() - 1
    })
}

/// A record as a question; `None`: it does not tell enough.
fn seen(record: &Record) -> Option<Seen<'_>> {
    let name = record.domain.as_deref().and_then(|name| crate::policy::domain::name(name).ok());
    let refused = (record.action != Action::Allow).then_some(record.reason);
    let target = match record.layer {
        Layer::Dns => {
            // Without a name it stands for several queries, or for one of a name that no policy can write.
            record.domain.as_ref()?;
            replay::Target::Query(record.address)
        }
        Layer::Packet | Layer::Name => replay::Target::Flow(record.address?, protocol(record)?),
    };
    Some(Seen {
        source: record.source?,
        name,
        target,
        refused,
        path: record.path.as_deref(),
        revision: record.revision,
    })
}

fn protocol(record: &Record) -> Option<Protocol> {
    match (record.protocol.as_deref()?, record.port) {
        ("tcp", port) => port.map(Protocol::Tcp),
        ("udp", port) => port.map(Protocol::Udp),
        // Echo is what may pass; the record does not tell it from other kinds, but its refusal does.
        ("icmp" | "icmpv6", _) if record.reason != Reason::PortNotAllowed => Some(Protocol::Echo),
        ("icmp", _) => Some(Protocol::Other(proto::ICMP)),
        ("icmpv6", _) => Some(Protocol::Other(proto::ICMPV6)),
        (number, _) => number.parse().ok().map(Protocol::Other),
    }
}

fn add(hosts: &mut HashMap<Option<Arc<str>>, OfHost>, at: &Where, reason: Reason, decisions: u64) {
    let host = hosts.entry(at.host.clone()).or_insert_with(|| OfHost {
        host: at.host.as_deref().map(str::to_owned),
        decisions: 0,
        places: 0,
        listed: Vec::new(),
    });
    host.decisions += decisions;
    host.places += 1;
    if let Some((domain, address, port, protocol)) = &at.place {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let (domain, protocol) = (text(domain), text(protocol));
        host.listed.push(Place { domain, address: *address, port: *port, protocol, reason, decisions });
    }
}

fn differing(hosts: HashMap<Option<Arc<str>>, OfHost>) -> Differing {
    let mut listed: Vec<OfHost> = hosts.into_values().collect();
    listed.sort_by(|a, b| (b.decisions, &a.host).cmp(&(a.decisions, &b.host)));
    let (decisions, hosts) = (listed.iter().map(|host| host.decisions).sum(), listed.len());
    listed.truncate(HOSTS);
    for host in &mut listed {
        let place = |place: &Place| (place.domain.clone(), place.address, place.port);
        host.listed.sort_by(|a, b| b.decisions.cmp(&a.decisions).then_with(|| place(a).cmp(&place(b))));
        host.listed.truncate(PLACES);
    }
    Differing { decisions, hosts, listed }
}
