//! What was decided once, decided again by two policies: the one in force and the one that may follow it.
//!
//! Both are asked the same question with the same knowledge, so what differs between the answers is what the new policy
//! would change. What a record does not tell (the address that an alias led to, the interface) is taken from what was
//! decided then, or the record counts as unclear.

use std::collections::HashMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::plan::passage::Passage;
use crate::plan::snapshot::{AddressVerdict, Snapshot};
use crate::policy::decision::Reason;
use crate::policy::model::{Located, Mode, Pointer, Policy, Window};
use crate::policy::name::{Name, Pattern, PatternRef};
use crate::policy::patterns::Domains;
use crate::policy::reference::{self, Protocol};

/// One decision as the log has it.
#[derive(Clone, Debug)]
pub struct Seen<'r> {
    /// The agent.
    pub source: IpAddr,
    /// The name asked for, or for which the host was given the address.
    pub name: Option<Name>,
    /// What it was about.
    pub target: Target,
    /// `None`: it passed.
    pub refused: Option<Reason>,
    /// The line of the policy that decided then.
    pub path: Option<&'r str>,
    /// The revision that was in force then.
    pub revision: u64,
}

/// A query or a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A query; with the address in the answer that gave the reason, if one did.
    Query(Option<IpAddr>),
    /// A flow to an address.
    Flow(IpAddr, Protocol),
}

/// What a new policy does to something that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It is decided as it is now.
    Same,
    /// It passes now and would be refused, and why.
    Breaks(Reason),
    /// It is refused now and would pass, and why it is refused.
    Opens(Reason),
    /// The record does not tell enough.
    Unclear,
}

/// What one policy says, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Refused(Reason),
    /// Both windows (by their numbers) must be open.
    While([Option<usize>; 2]),
}

/// The answer to one question, for any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(Result<(Gate, Gate), Outcome>);

impl Answer {
    /// To a record that does not tell enough.
    pub const UNCLEAR: Self = Self(Err(Outcome::Unclear));
}

/// One policy, and when its windows are open.
struct Side<'p> {
    policy: &'p Policy,
    snapshot: &'p Snapshot,
    clocks: Vec<Clock>,
    numbers: HashMap<Pointer, usize>,
}

/// A window, and what was found when it was looked at last.
struct Clock {
    window: Window,
    zone: Tz,
    open: bool,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Clock {
    fn is_open(&mut self, at: DateTime<Utc>) -> bool {
        if at < self.since && self.since != DateTime::<Utc>::MAX_UTC {
            // Records a little out of order; where the next change is takes longer to find out.
            return self.window.is_open(self.zone, at);
        }
        if self.until <= at {
            self.open = self.window.is_open(self.zone, at);
            self.since = at;
            self.until = self.window.next_change(self.zone, at).unwrap_or(DateTime::<Utc>::MAX_UTC);
        }
        self.open
    }
}

/// Two policies, to be asked the same.
pub struct Replay<'p> {
    old: Side<'p>,
    new: Side<'p>,
}

impl<'p> Replay<'p> {
    /// Each policy with what it was compiled to.
    pub fn new(old: (&'p Policy, &'p Snapshot), new: (&'p Policy, &'p Snapshot)) -> Self {
        Self { old: Side::new(old), new: Side::new(new) }
    }

    /// What both policies say of a decision.
    pub fn answer(&mut self, seen: &Seen<'_>) -> Answer {
        let aside = match seen.refused {
            // About the packet, not about where it went.
            Some(Reason::Malformed | Reason::NameMismatch | Reason::EncryptedDns | Reason::Threat) => true,
            _ => matches!(seen.target, Target::Flow(address, _) if self.old.snapshot.is_own(address)),
        };
        if aside {
            return Answer(Err(Outcome::Same));
        }
        let link = match self.denied_link(seen) {
            Ok(link) => link,
            Err(outcome) => return Answer(Err(outcome)),
        };
        Answer(Ok((self.old.gate(seen, link.as_ref()), self.new.gate(seen, link.as_ref()))))
    }

    /// What it means at a moment.
    pub fn outcome(&mut self, answer: Answer, at: DateTime<Utc>) -> Outcome {
        let (old, new) = match answer.0 {
            Ok(gates) => gates,
            Err(outcome) => return outcome,
        };
        match (self.old.refusal(old, at), self.new.refusal(new, at)) {
            (None, Some(reason)) => Outcome::Breaks(reason),
            (Some(reason), None) => Outcome::Opens(reason),
            (None, None) | (Some(_), Some(_)) => Outcome::Same,
        }
    }

    /// The entry of a denylist that an alias met on its way, where the name asked for is allowed.
    fn denied_link(&self, seen: &Seen<'_>) -> Result<Option<Pattern>, Outcome> {
        let (Some(Reason::Denied), Target::Query(None)) = (seen.refused, seen.target) else { return Ok(None) };
        let host = self.old.snapshot.host_of(seen.source);
        if seen.name.as_ref().is_some_and(|name| self.old.snapshot.denied_link(host, name).is_some()) {
            return Ok(None);
        }
        let known = seen.revision == self.old.snapshot.revision;
        let entry = seen.path.filter(|_| known).and_then(|path| denied_at(self.old.policy, path));
        // The line was another revision's: which name it was is not known any more.
        entry.map(Some).ok_or(Outcome::Unclear)
    }
}

/// The entry of a denylist at a place.
fn denied_at(policy: &Policy, path: &str) -> Option<Pattern> {
    let (list, index) = path.rsplit_once('/')?;
    let hosts = policy.hosts.values().filter_map(|host| host.deny.domains.as_ref());
    let found = hosts.chain(policy.deny.domains.as_ref()).find(|found| found.path.as_str() == list)?;
    found.entries.get(index.parse::<usize>().ok()?).map(PatternRef::to_pattern)
}

fn covers(list: &Domains, pattern: &Pattern) -> bool {
    list.entries.iter().any(|entry| match (entry, pattern) {
        (entry, Pattern::Exact(name)) => entry.matches(name),
        (PatternRef::Below(_), Pattern::Below(apex)) => entry == pattern.borrowed() || entry.matches(apex),
        (PatternRef::Exact(_), Pattern::Below(_)) => false,
    })
}

impl<'p> Side<'p> {
    fn new((policy, snapshot): (&'p Policy, &'p Snapshot)) -> Self {
        Self { policy, snapshot, clocks: Vec::new(), numbers: HashMap::new() }
    }

    fn gate(&mut self, seen: &Seen<'_>, link: Option<&Pattern>) -> Gate {
        const OPEN: Gate = Gate::While([None, None]);
        let snapshot = self.snapshot;
        // Records do not say by which interface a packet came; one of the scope's, or it would not have been decided on.
        let interface = self.policy.scope.interfaces.as_ref().and_then(|list| list.entries.first());
        let Some(host) = snapshot.client(seen.source, interface.map(String::as_str)) else { return OPEN };
        if snapshot.mode(host) == Mode::Monitor {
            return OPEN;
        }
        let rules = self.policy.effective(snapshot.host_name(host));
        let leased = !matches!(seen.refused, Some(Reason::NoLease | Reason::NotAllowlisted));
        let passage = match seen.target {
            Target::Query(_) => snapshot.query(host, seen.name.as_ref()),
            Target::Flow(address, protocol) => {
                snapshot.flow(host, &rules, address, protocol, seen.name.as_ref().filter(|_| leased))
            }
        };
        let windows = match passage {
            Passage::Refused(reason) => return Gate::Refused(reason),
            Passage::While(windows) => windows.first().copied().unwrap_or_default(),
        };
        if let Target::Query(Some(address)) = seen.target {
            match snapshot.judge_address(host, address) {
                AddressVerdict::Denied(denied) => return Gate::Refused(denied.reason),
                AddressVerdict::Rebinding => return Gate::Refused(Reason::Rebinding),
                AddressVerdict::Lease | AddressVerdict::Charged | AddressVerdict::Open => {}
            }
        }
        if link.is_some_and(|link| rules.deny_domains.into_iter().flatten().any(|list| covers(list, link))) {
            return Gate::Refused(Reason::Denied);
        }
        let limited = match seen.refused {
            Some(Reason::CapExhausted) => {
                let names: Vec<&Name> = seen.name.iter().collect();
                !reference::charged_caps(self.policy, rules.host, &names).is_empty()
            }
            Some(Reason::RateLimited) => reference::decide_rate(self.policy, rules.host).is_some(),
            _ => false,
        };
        match seen.refused.filter(|_| limited) {
            Some(reason) => Gate::Refused(reason),
            None => Gate::While(windows.map(|window| self.number(window))),
        }
    }

    /// The number of a window's clock.
    fn number(&mut self, window: Option<&Located<Window>>) -> Option<usize> {
        let window = window?;
        let next = self.clocks.len();
        let number = *self.numbers.entry(window.path.clone()).or_insert(next);
        if number == next {
            let (since, until) = (DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC);
            let zone = self.snapshot.zone();
            self.clocks.push(Clock { window: window.value.clone(), zone, open: false, since, until });
        }
        Some(number)
    }

    fn refusal(&mut self, gate: Gate, at: DateTime<Utc>) -> Option<Reason> {
        match gate {
            Gate::Refused(reason) => Some(reason),
            Gate::While(numbers) => {
                let shut = numbers.into_iter().flatten().any(|number| !self.clocks[number].is_open(at));
                shut.then_some(Reason::WindowClosed)
            }
        }
    }
}
