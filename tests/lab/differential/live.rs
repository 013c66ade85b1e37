//! Flows that outlive the policy they were opened under.

use std::net::IpAddr;

use clawgress::policy::decision::{Decision, Verdict};
use clawgress::policy::model::HostName;
use clawgress::policy::name::Name;
use clawgress::policy::reference::{self, Flow, Leased, Protocol};

use super::Trial;
use super::book::holds;
use super::universe::{Entry, name};
use crate::world;

/// Flows that are kept open at a time.
const MAX_LIVE: usize = 8;

/// A connection that is open.
pub struct Live {
    flow: Flow<'static>,
    stream: world::Flow,
    host: Option<HostName>,
    /// The names that it was opened under, each with the alias on its way; empty: `allow.ips` let it in.
    pub names: Vec<(Name, Option<Name>)>,
}

impl Trial {
    /// Opens an allowed flow once more, to stay.
    pub fn keep_open(&mut self, flow: Flow<'static>, decision: &Decision) {
        let scoped = reference::in_scope(&self.policy, flow.source, flow.interface);
        let (Verdict::Allow, Protocol::Tcp(port), true) = (decision.verdict, flow.protocol, scoped) else { return };
        if self.live.len() < MAX_LIVE {
            let opener = self.agents().into_iter().find(|(_, lan)| *lan == flow.interface).expect("an agent's flow").0;
            let stream = opener.flow(flow.destination, port);
            let host = reference::host_of(&self.policy, flow.source).cloned();
            let leased = decision.domain.is_some();
            let names = if leased { self.book.names(host.as_ref(), flow.destination) } else { Vec::new() };
            self.live.push(Live { flow, stream, host, names });
        }
    }

    /// An answer that was leased tells the daemon the alias on its way, also for flows of an earlier answer.
    pub fn learn_link(&mut self, source: IpAddr, entry: &Entry) {
        let host = reference::host_of(&self.policy, source);
        let asked = name(entry.name);
        if !self.book.told.iter().any(|told| told.host.as_ref() == host && told.name == asked && told.link.is_some()) {
            return;
        }
        for live in self.live.iter_mut().filter(|live| live.host.as_ref() == host) {
            for (_, link) in live.names.iter_mut().filter(|(own, _)| *own == asked) {
                *link = entry.alias.map(name);
            }
        }
    }

    /// A new policy is in force: what is open goes on where it may, and ends where not.
    pub fn go_on(&mut self) {
        for mut live in std::mem::take(&mut self.live) {
            let Flow { source, interface, destination, .. } = live.flow;
            let host = reference::host_of(&self.policy, source).cloned();
            let moved = host != live.host;
            let scoped = reference::in_scope(&self.policy, source, interface);
            if scoped && moved && !live.names.is_empty() {
                // Belongs to another host now, so what the old one was told is not its own: a flow like a new one, which
                // is not compared here.
                continue;
            }
            let holds = |(name, link): &(Name, Option<Name>)| holds(&self.policy, host.as_ref(), name, link.as_ref());
            let survives = live.names.iter().any(holds);
            let opened = live.names.iter().filter(|pair| survives && holds(pair));
            let mut leases: Vec<Leased<'_>> =
                opened.map(|(name, _)| Leased { host: host.as_ref(), name, address: destination }).collect();
            leases.extend(self.book.leases());
            let decision = reference::decide_flow(&self.policy, &live.flow, &leases);
            let case = format!("live {:?} opened under {:?}", live.flow, live.names);
            let sent = live.stream.send(world::PATIENCE);
            let word = if decision.verdict == Verdict::OutOfScope {
                assert!(sent.is_ok(), "{sent:?}, but the policy is not about it any more\n{}", self.context(&case));
                "left the scope"
            } else if decision.verdict == Verdict::Allow {
                assert!(sent.is_ok(), "{sent:?}, but it may go on: {decision:?}\n{}", self.context(&case));
                "goes on"
            } else {
                let error = sent.expect_err(&format!("it goes on, but {decision:?}\n{}", self.context(&case)));
                let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
                assert!(reset, "{error}, but it should be reset\n{}", self.context(&case));
                "cut"
            };
            if decision.verdict == Verdict::Allow {
                if !survives {
                    let leased = decision.domain.is_some();
                    live.names = if leased { self.book.names(host.as_ref(), destination) } else { Vec::new() };
                }
                live.host = host;
                self.live.push(live);
            }
            self.agreed("live flow", word);
        }
    }
}
