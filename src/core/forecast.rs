//! What a revision on its way would do to what is open now: flows that it cuts, or that a window or a cap of it will, and
//! leases that end.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::classes::Way;
use super::doors::Now;
use super::state::State;
use crate::plan::meter::CapId;
use crate::plan::passage::{Passage, Windows};
use crate::plan::snapshot::Snapshot;
use crate::policy::decision::Reason;
use crate::policy::model::{HostName, Mode, Policy};
use crate::policy::name::Name;
use crate::policy::reference::Protocol;

/// A flow as the kernel tracks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// The class in its mark.
    pub class: u32,
    /// Who opened it.
    pub opener: IpAddr,
    /// To whom, behind every translation of addresses.
    pub opened: IpAddr,
    /// What.
    pub protocol: Protocol,
}

/// A flow that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Whose; `None`: a source of no host.
    pub host: Option<HostName>,
    /// The agent.
    pub agent: IpAddr,
    /// The other end.
    pub peer: IpAddr,
    /// What.
    pub protocol: Protocol,
    /// The names for which the host was given the address.
    pub names: Vec<Name>,
    /// Why.
    pub reason: Reason,
    /// When; `None`: at once.
    pub at: Option<DateTime<Utc>>,
}

/// A lease that ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndedLease {
    /// Whose; `None`: of sources of no host.
    pub host: Option<HostName>,
    /// The name.
    pub name: Name,
    /// The address.
    pub address: IpAddr,
}

/// The state now, and as it would be under another revision.
pub struct Forecast<'s> {
    before: &'s State,
    after: &'s State,
    snapshot: &'s Snapshot,
    policy: &'s Policy,
    now: Now,
}

impl<'s> Forecast<'s> {
    /// `after` is the state in which `policy` is in force, compiled to `snapshot`, since `now`.
    pub fn new(before: &'s State, after: &'s State, policy: &'s Policy, snapshot: &'s Snapshot, now: Now) -> Self {
        Self { before, after, snapshot, policy, now }
    }

    /// How a flow ends; `None`: it goes on, or is shut out already.
    pub fn of(&self, live: &Live) -> Option<Ending> {
        let door = self.before.doors.get(&live.class)?;
        if self.is_spent(self.before, self.caps_of_class(self.before, live.class)) {
            return None;
        }
        let by_opener = || self.before.snapshot.as_ref().is_some_and(|old| old.host_of(live.opener) == door.host);
        let called = door.way == Way::Inbound || door.way == Way::Monitored && !by_opener();
        let (agent, peer) = if called { (live.opened, live.opener) } else { (live.opener, live.opened) };
        let class = self.before.classes.get(live.class);
        let opened_for: Vec<Name> = class.map(|class| class.names.iter().cloned().collect()).unwrap_or_default();

        let interface = self.policy.scope.interfaces.as_ref().and_then(|list| list.entries.first());
        let host = self.snapshot.client(agent, interface.map(String::as_str))?;
        if self.snapshot.mode(host) == Mode::Monitor {
            return None;
        }
        let goes_on = self.after.classes.get(live.class).is_some_and(|class| class.host == host);
        let mut names = if goes_on { opened_for.clone() } else { Vec::new() };
        if !called {
            names.extend(self.after.names_of(host, peer, self.now.ms));
        }
        let rules = self.policy.effective(self.snapshot.host_name(host));
        let (reason, at) = match self.snapshot.flow(host, &rules, peer, live.protocol, &names) {
            Passage::Refused(reason) => (reason, None),
            Passage::While(windows) => {
                let of_address = self.after.caps_of_address(host, peer);
                let caps = self.caps_of_class(self.after, live.class).chain(of_address.iter());
                if self.is_spent(self.after, caps) {
                    (Reason::CapExhausted, None)
                } else {
                    let at = self.shuts(&windows)?;
                    (Reason::WindowClosed, Some(at).filter(|at| *at > self.now.utc))
                }
            }
        };
        let host = self.before.host_name(door.host).cloned();
        Some(Ending { host, agent, peer, protocol: live.protocol, names: opened_for, reason, at })
    }

    fn caps_of_class<'c>(&self, state: &'c State, class: u32) -> impl Iterator<Item = &'c CapId> {
        state.classes.get(class).into_iter().flat_map(|class| &class.caps)
    }

    fn is_spent<'c>(&self, state: &State, mut caps: impl Iterator<Item = &'c CapId>) -> bool {
        caps.any(|id| state.caps.get(*id).is_some_and(|cap| cap.remaining() == 0))
    }

    /// When the last of these shuts; `None`: one of them never does.
    fn shuts(&self, ways: &[Windows<'_>]) -> Option<DateTime<Utc>> {
        let moment = self.snapshot.moment(self.now.utc);
        let mut last = self.now.utc;
        for windows in ways {
            let mut first = None;
            for window in windows.iter().flatten() {
                let end = if moment.opens(Some(window)) {
                    window.value.next_change(moment.zone, moment.utc)
                } else {
                    Some(moment.utc)
                };
                first = [first, end].into_iter().flatten().min();
            }
            last = last.max(first?);
        }
        Some(last)
    }

    /// Every lease that is good now and would not be any more, in order.
    pub fn ended_leases(&self) -> Vec<EndedLease> {
        let mut ended = Vec::new();
        for ((id, address), lease) in &self.before.leases {
            let left = self.after.leases.get(&(*id, *address));
            let gone = lease.names.iter().filter(|(name, until)| {
                **until > self.now.ms && left.is_none_or(|left| !left.names.contains_key(*name))
            });
            let host = self.before.host_name(*id);
            ended.extend(gone.map(|(name, _)| EndedLease {
                host: host.cloned(),
                name: name.clone(),
                address: *address,
            }));
        }
        ended.sort_unstable();
        ended
    }
}
