//! How many queries may wait at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::neighbour;
use crate::core::lease::HostId;

/// Queries that wait, over all hosts: bounds memory when upstreams are silent.
const MAX_WAITING: usize = 8192;
/// Queries that wait for one host, or one source of no host: one agent does not starve the others.
const MAX_WAITING_PER_HOST: usize = 256;
/// Queries that wait for all sources of no host together: an agent may send in the names of many, and must not take the
/// places of hosts with that.
const MAX_WAITING_OF_NOBODY: usize = MAX_WAITING / 2;

/// The count of queries that wait for an upstream or for the kernel.
#[derive(Clone, Default)]
pub(super) struct Pending {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    total: usize,
    of_nobody: usize,
    per_host: HashMap<Who, usize>,
}

/// Whose places are counted together, as queries are for their budget: those of a host, or those of a source of no host.
type Who = (HostId, Option<IpAddr>);

/// A place among the waiting; free again when dropped.
pub(super) struct Ticket {
    waiting: Arc<Mutex<Waiting>>,
    who: Who,
}

impl Pending {
    /// A place, if there is one.
    pub fn admit(&self, host: HostId, source: IpAddr) -> Option<Ticket> {
        let who = (host, (host < HostId::FIRST).then(|| neighbour(source)));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waiting.per_host.get(&who).copied().unwrap_or(0);
        let is_nobody = who.1.is_some();
        if waiting.total >= MAX_WAITING
            || own >= MAX_WAITING_PER_HOST
            || is_nobody && waiting.of_nobody >= MAX_WAITING_OF_NOBODY
        {
            return None;
        }
        waiting.total += 1;
        waiting.of_nobody += usize::from(is_nobody);
        waiting.per_host.insert(who, own + 1);
        Some(Ticket { waiting: Arc::clone(&self.waiting), who })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.total -= 1;
        waiting.of_nobody -= usize::from(self.who.1.is_some());
        if let Some(own) = waiting.per_host.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                waiting.per_host.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_source_of_no_host_leaves_places_for_others_and_a_host_is_one_whatever_its_sources() {
        let pending = Pending::default();
        let admit = |host, last| pending.admit(host, source(last));
        let tickets: Vec<_> = (0..MAX_WAITING_PER_HOST).map(|_| admit(HostId::NOBODY, 1).unwrap()).collect();
        assert!(admit(HostId::NOBODY, 1).is_none());
        assert!(admit(HostId::NOBODY, 2).is_some());
        drop(tickets);
        assert!(admit(HostId::NOBODY, 1).is_some());
        let _tickets: Vec<_> = (0..MAX_WAITING_PER_HOST).map(|_| admit(HostId::FIRST, 1).unwrap()).collect();
        assert!(admit(HostId::FIRST, 2).is_none());
    }

    #[test]
    fn however_many_sources_of_no_host_flood_hosts_have_places() {
        let pending = Pending::default();
        let flood = || (0..=u8::MAX).flat_map(|last| (0..MAX_WAITING_PER_HOST).map(move |_| last));
        let tickets: Vec<_> = flood().map_while(|last| pending.admit(HostId::NOBODY, source(last))).collect();
        assert_eq!(tickets.len(), MAX_WAITING_OF_NOBODY);
        assert!(pending.admit(HostId::FIRST, source(1)).is_some());
        drop(tickets);
        assert!(pending.admit(HostId::NOBODY, source(9)).is_some());
    }

    #[test]
    fn a_host_and_everybody_together_are_limited() {
        let pending = Pending::default();
        let mut tickets: Vec<_> =
            (0..MAX_WAITING_PER_HOST).map(|_| pending.admit(HostId(2), source(1)).unwrap()).collect();
        assert!(pending.admit(HostId(2), source(1)).is_none());
        for host in 3.. {
            let before = tickets.len();
            tickets.extend((0..MAX_WAITING_PER_HOST).map_while(|_| pending.admit(HostId(host), source(1))));
            if tickets.len() == before {
                break;
            }
        }
        assert_eq!(tickets.len(), MAX_WAITING);
        tickets.clear();
        assert!(pending.admit(HostId(2), source(1)).is_some());
        assert!(pending.waiting.lock().unwrap().per_host.is_empty());
    }
}
