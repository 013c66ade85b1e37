//! How many queries may wait at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::lease::HostId;

/// Queries that wait, over all hosts: bounds memory when upstreams are silent.
const MAX_WAITING: usize = 8192;
/// Queries that wait for one host: one agent does not starve the others.
const MAX_WAITING_PER_HOST: usize = 256;

/// The count of queries that wait for an upstream or for the kernel.
#[derive(Clone, Default)]
pub(super) struct Pending {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    total: usize,
    per_host: HashMap<HostId, usize>,
}

/// A place among the waiting; free again when dropped.
pub(super) struct Ticket {
    waiting: Arc<Mutex<Waiting>>,
    host: HostId,
}

impl Pending {
    /// A place, if there is one.
    pub fn admit(&self, host: HostId) -> Option<Ticket> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waiting.per_host.get(&host).copied().unwrap_or(0);
        if waiting.total >= MAX_WAITING || own >= MAX_WAITING_PER_HOST {
            return None;
        }
        waiting.total += 1;
        waiting.per_host.insert(host, own + 1);
        Some(Ticket { waiting: Arc::clone(&self.waiting), host })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.total -= 1;
        if let Some(own) = waiting.per_host.get_mut(&self.host) {
            *own -= 1;
            if *own == 0 {
                waiting.per_host.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_everybody_together_are_limited() {
        let pending = Pending::default();
        let mut tickets: Vec<_> = (0..MAX_WAITING_PER_HOST).map(|_| pending.admit(HostId(2)).unwrap()).collect();
        assert!(pending.admit(HostId(2)).is_none());
        for host in 3.. {
            let before = tickets.len();
            tickets.extend((0..MAX_WAITING_PER_HOST).map_while(|_| pending.admit(HostId(host))));
            if tickets.len() == before {
                break;
            }
        }
        assert_eq!(tickets.len(), MAX_WAITING);
        tickets.clear();
        assert!(pending.admit(HostId(2)).is_some());
        assert!(pending.waiting.lock().unwrap().per_host.is_empty());
    }
}
