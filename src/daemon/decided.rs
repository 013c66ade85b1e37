//! What the kernel and DNS noticed, put into the words of the policy: host, name, line, label.
//!
//! The reason is [`crate::policy::reference`]'s, the one that `explain` gives, as long as it is one with which a packet
//! can come to the chain that refused it. Else the policy changed meanwhile, and the chain has the last word.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};

use super::gate::Gate;
use super::handle::Handle;
use super::telemetry::Notes;
use super::told::Told;
use crate::core::lease::HostId;
use crate::core::observe::{Answered, Observer};
use crate::decisions::{Action, Cause, Key, Layer, Record, Sender, Sighting, Who};
use crate::nft::nflog::{Copied, Headers};
use crate::plan::ir::proto;
use crate::plan::snapshot::Snapshot;
use crate::plan::table::refusals::{CAP_EXHAUSTED, Origin, RATE_LIMITED, REFUSALS, SPOOFED};
use crate::policy::Policy;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::{HostName, Mode};
use crate::policy::name::{Name, Pattern};
use crate::policy::reference::{self, Flow, Leased, Protocol};
use crate::policy::schedule::Moment;

/// The chain of what an agent may not use of the gateway itself, of which no list of the policy speaks.
const GATEWAY: &str = "b_gateway";
/// The counter of flows that passed, in a [`Cause`].
const PASSED: u8 = u8::MAX;

/// Tells the decision log.
#[derive(Clone)]
pub struct Decided {
    judge: Arc<ArcSwapOption<Snapshot>>,
    gate: Handle,
    runtime: tokio::runtime::Handle,
    sender: Sender,
    told: Arc<Mutex<Told>>,
    notes: Arc<Notes>,
}

/// A flow as seen from the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    agent: IpAddr,
    peer: IpAddr,
    /// The port that the flow was opened to.
    port: Option<u16>,
    /// The peer opened it.
    called: bool,
}

/// What the gate knows.
struct Facts {
    policy: Option<Arc<Policy>>,
    revision: u64,
    zone: chrono_tz::Tz,
    /// The names under which the host holds the address.
    names: Vec<Name>,
    /// The caps that the address is charged to, used-up ones first.
    caps: Vec<Pattern>,
}

/// The cause of what a chain refuses.
pub fn cause(place: usize, mode: Mode) -> Cause {
    let reason = REFUSALS[place].reasons[0];
    let counter = u8::try_from(place).unwrap_or(PASSED);
    // A source that it cannot have is no agent's.
    let monitored = mode == Mode::Monitor && REFUSALS[place].chain != SPOOFED;
    let action = if monitored { Action::Monitor } else { Action::Block };
    Cause { layer: Layer::Packet, action, reason, counter }
}

impl Decided {
    /// Must be made inside the runtime.
    pub fn new(judge: Arc<ArcSwapOption<Snapshot>>, gate: Handle, sender: Sender, notes: Arc<Notes>) -> Self {
        Self { judge, gate, runtime: tokio::runtime::Handle::current(), sender, told: Arc::default(), notes }
    }

    /// The way to the log.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Tells of a packet that was copied.
    pub fn packet(&self, copied: &Copied) {
        let Some(snapshot) = self.judge.load_full() else { return };
        let way = way(copied, &snapshot);
        let id = snapshot.host_of(way.agent);
        let (cause, chain) = match copied.origin {
            Origin::Refused(place) => (cause(place, snapshot.mode(id)), Some(place)),
            Origin::Passed => {
                let (action, reason) = (Action::Allow, Reason::Allowed);
                (Cause { layer: Layer::Packet, action, reason, counter: PASSED }, None)
            }
        };
        let spoofed = chain.is_some_and(|place| REFUSALS[place].chain == SPOOFED);
        // A host is not to blame for what somebody sends in its name.
        let host = if spoofed { None } else { snapshot.host_name(id).cloned() };
        if chain.is_some() && !spoofed {
            let name = self.told_earlier(host.as_ref(), way);
            self.notes.refused(host.as_ref(), way.peer, name.as_ref().map(Name::as_str));
        }
        let protocol = copied.headers.protocol;
        let key = Key {
            who: host.map_or(Who::Source(way.agent), Who::Host),
            cause,
            revision: snapshot.revision,
            domain: None,
            address: Some(way.peer),
            port: way.port,
            protocol,
        };
        let (own, headers, time) = (self.clone(), copied.headers, Utc::now());
        let describe = Box::new(move || own.describe(cause, chain.filter(|_| !spoofed), spoofed, way, &headers, time));
        self.sender.packet(Sighting { key, time, describe });
    }

    fn describe(
        &self,
        cause: Cause,
        chain: Option<usize>,
        spoofed: bool,
        way: Way,
        headers: &Headers,
        time: DateTime<Utc>,
    ) -> Option<Record> {
        let facts = self.facts(way)?;
        let mut record = Record::new(time, facts.revision, cause.action, cause.layer, cause.reason);
        record.source = Some(way.agent);
        record.address = Some(way.peer);
        record.port = way.port;
        record.protocol = Some(word(headers.protocol));
        let Some(policy) = facts.policy.filter(|_| !spoofed) else { return Some(record) };
        record.host = reference::host_of(&policy, way.agent).map(|host| host.as_str().into());
        let moment = Moment::of(&policy, time, facts.zone);
        let allowed = decide(&policy, way, protocol(headers, way), &facts.names, &moment);
        let limit = chain.and_then(|place| limited(&policy, way, REFUSALS[place].chain, &facts.caps));
        let decision = limit.filter(|_| allowed.verdict == Verdict::Allow).unwrap_or(allowed);
        let fits = match chain {
            Some(place) => {
                let refusal = &REFUSALS[place];
                refusal.chain != GATEWAY && refusal.reasons.contains(&decision.reason)
            }
            // The copy was made before the kernel looked whether a window is open.
            None if decision.verdict != Verdict::Allow => return None,
            None => true,
        };
        if fits {
            record.reason = decision.reason;
            record.path = decision.path.as_ref().map(|path| path.as_str().into());
        }
        let matching = |name: &&Name| decision.domain.as_ref().is_none_or(|pattern| pattern.matches(name));
        let earlier = || self.told_earlier(reference::host_of(&policy, way.agent), way);
        let leased = facts.names.iter().find(matching).or(facts.names.first()).cloned();
        if let Some(name) = leased.or_else(earlier) {
            record.label = label(&policy, &name);
            record.domain = Some(name.as_str().into());
        }
        Some(record)
    }

    /// What the gate says about the agent's flow; `None`: the daemon is stopping.
    fn facts(&self, way: Way) -> Option<Facts> {
        let Way { agent, peer, called, .. } = way;
        let work = move |gate: &mut Gate| {
            let host = gate.policy.as_ref().and_then(|policy| reference::host_of(policy, agent));
            let id = host.and_then(|host| gate.state.hosts.get(host).copied()).unwrap_or(HostId::NOBODY);
            let names = if called { Vec::new() } else { gate.state.names_of(id, peer, gate.now().ms) };
            let ids = gate.state.caps_of_address(id, peer);
            let mut caps: Vec<_> = ids.into_iter().filter_map(|id| gate.state.caps.get(id)).collect();
            caps.sort_by_key(|cap| (!cap.spent, !cap.state().last));
            let caps = caps.into_iter().map(|cap| cap.pattern.clone()).collect();
            Facts { policy: gate.policy.clone(), revision: gate.state.revision, zone: gate.world.zone, names, caps }
        };
        self.runtime.block_on(self.gate.run(work)).ok()
    }

    fn told_earlier(&self, host: Option<&HostName>, way: Way) -> Option<Name> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.name(host, way.peer).filter(|_| !way.called).cloned()
    }

    /// The policy's label of a name that was asked for.
    fn label_of(&self, text: &str) -> Option<Arc<str>> {
        let name = crate::policy::domain::name(text).ok()?;
        let policy = self.runtime.block_on(self.gate.run(|gate| gate.policy.clone())).ok()??;
        label(&policy, &name)
    }
}

impl Observer for Decided {
    fn answered(&self, query: Answered<'_>) {
        let Decision { verdict, reason, path, host, mode, .. } = query.decision;
        if !query.leased.is_empty()
            && let Ok(name) = crate::policy::domain::name(query.name)
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.learn(host.as_ref(), &name, query.leased);
        }
        let (reason, action) = match (verdict, mode) {
            (Verdict::Allow, _) => (*reason, Action::Allow),
            (Verdict::Block, Mode::Enforce) => (*reason, Action::Block),
            (Verdict::Block, Mode::Monitor) => (*reason, Action::Monitor),
            // The policy is not about it, so nobody writes it down.
            (Verdict::OutOfScope, _) => return,
        };
        self.notes.query(host.as_ref(), query.name, action, reason);
        self.sender.query(action, reason, || {
            let cause = Cause { layer: Layer::Dns, action, reason, counter: 0 };
            let domain: Arc<str> = query.name.into();
            let key = Key {
                who: host.clone().map_or(Who::Source(query.source), Who::Host),
                cause,
                revision: query.revision,
                domain: Some(Arc::clone(&domain)),
                address: None,
                port: None,
                protocol: 0,
            };
            let time = Utc::now();
            let mut record = Record::new(time, query.revision, action, Layer::Dns, reason);
            record.host = host.as_ref().map(|host| host.as_str().into());
            record.source = Some(query.source);
            record.address = query.address;
            record.protocol = Some(word(if query.tcp { proto::TCP } else { proto::UDP }));
            record.path = path.as_ref().map(|path| path.as_str().into());
            let own = self.clone();
            let describe = Box::new(move || {
                record.label = own.label_of(&domain);
                record.domain = Some(domain);
                Some(record)
            });
            Sighting { key, time, describe }
        });
    }
}

/// Who is the agent, and what did it want.
fn way(copied: &Copied, snapshot: &Snapshot) -> Way {
    let Headers { source, destination, ports, .. } = copied.headers;
    if !copied.reply {
        return Way { agent: source, peer: destination, port: ports.map(|(_, port)| port), called: false };
    }
    let port = ports.map(|(port, _)| port);
    let left = copied.left.and_then(interface);
    if snapshot.client(destination, left.as_deref()).is_some() {
        return Way { agent: destination, peer: source, port, called: false };
    }
    Way { agent: source, peer: destination, port, called: true }
}

/// The name of an interface. The system is asked each time: names change, and few packets come here.
fn interface(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}

fn protocol(headers: &Headers, way: Way) -> Protocol {
    /// Echo request and reply of ICMP and of ICMPv6.
    const ECHO: [(u8, [u8; 2]); 2] = [(proto::ICMP, [8, 0]), (proto::ICMPV6, [128, 129])];
    match (headers.protocol, way.port, headers.icmp) {
        (proto::TCP, Some(port), _) => Protocol::Tcp(port),
        (proto::UDP, Some(port), _) => Protocol::Udp(port),
        (number, _, Some(kind)) if ECHO.iter().any(|(own, kinds)| *own == number && kinds.contains(&kind)) => {
            Protocol::Echo
        }
        (number, ..) => Protocol::Other(number),
    }
}

fn decide(policy: &Policy, way: Way, protocol: Protocol, names: &[Name], moment: &Moment) -> Decision {
    if way.called {
        let flow = Flow { source: way.peer, interface: "", destination: way.agent, protocol };
        return reference::decide_answer_at(policy, &flow, Some(moment));
    }
    let host = reference::host_of(policy, way.agent);
    let leases: Vec<Leased<'_>> = names.iter().map(|name| Leased { host, name, address: way.peer }).collect();
    reference::decide_address_at(policy, host, way.peer, Some(protocol), &leases, Some(moment))
}

/// The limit that a chain stands for.
fn limited(policy: &Policy, way: Way, chain: &str, caps: &[Pattern]) -> Option<Decision> {
    let host = reference::host_of(policy, way.agent);
    match chain {
        CAP_EXHAUSTED => reference::decide_cap(policy, host, caps.first()?),
        RATE_LIMITED => reference::decide_rate(policy, host),
        _ => None,
    }
}

/// The label of the entry that is closest to the name.
pub(super) fn label(policy: &Policy, name: &Name) -> Option<Arc<str>> {
    let fitting = policy.labels.iter().filter(|(pattern, _)| pattern.matches(name));
    fitting.max_by_key(|(pattern, _)| pattern.closeness()).map(|(_, label)| label.as_str().into())
}

fn word(protocol: u8) -> Arc<str> {
    match protocol {
        proto::TCP => "tcp".into(),
        proto::UDP => "udp".into(),
        proto::ICMP => "icmp".into(),
        proto::ICMPV6 => "icmpv6".into(),
        other => other.to_string().into(),
    }
}
