//! Leases on their way into the kernel, in groups.

use super::Gate;
use crate::core::lease::{Acked, LeaseError, LeaseRequest};
use crate::daemon::handle::Group;
use crate::nft::{ErrorKind, KernelError};

impl Gate {
    /// Grants a group of leases, in one transaction if the kernel takes it.
    pub(in crate::daemon) fn lease(&mut self, group: Group) {
        if group.is_empty() {
            return;
        }
        if let Some(ops) = self.state.evict(self.now().ms)
            && self.kernel.commit(&ops).is_err()
        {
            // Memory and kernel differ now; the kernel is brought in line, or the drift is reported.
            let _ = self.repair();
        }
        if self.drift.is_none() {
            self.leases.open();
        }
        let results = self.lease_all(group.requests());
        group.finish(results.into_iter().map(|result| result.map(|()| Acked::by_kernel())));
    }

    /// Grants leases if that takes one transaction and nothing else. `None`: it takes more, which is for the gate's thread;
    /// whoever asks has other work to do.
    pub(in crate::daemon) fn lease_at_once(
        &mut self,
        requests: &[LeaseRequest],
    ) -> Option<Vec<Result<Acked, LeaseError>>> {
        if self.drift.is_some() || self.state.is_crowded(self.now().ms) {
            return None;
        }
        self.leases.open();
        let results = self.lease_together(requests).ok()?;
        Some(results.into_iter().map(|result| result.map(|()| Acked::by_kernel())).collect())
    }

    /// One transaction. If the kernel refuses it nothing of it is remembered.
    fn lease_together(&mut self, requests: &[LeaseRequest]) -> Result<Vec<Result<(), LeaseError>>, KernelError> {
        let now = self.now();
        let leased = self.state.lease(requests, now);
        let taken = if leased.ops.is_empty() { Ok(()) } else { self.kernel.commit(&leased.ops) };
        if leased.recharges {
            // Also if not: the state goes on knowing what the addresses are charged to.
            self.recharge.notify_one();
        }
        match taken {
            Ok(()) => {
                self.leases.say(&self.state, &leased, now);
                Ok(leased.results)
            }
            Err(error) => {
                self.leases.close();
                self.state.forget(leased);
                Err(error)
            }
        }
    }

    fn lease_all(&mut self, requests: &[LeaseRequest]) -> Vec<Result<(), LeaseError>> {
        let error = match self.lease_together(requests) {
            Ok(results) => return results,
            Err(error) => error,
        };
        if requests.len() > 1 {
            // One that the kernel refuses must not take the others with it.
            return requests.iter().flat_map(|request| self.lease_all(std::slice::from_ref(request))).collect();
        }
        if matches!(error.kind, ErrorKind::Refused | ErrorKind::Unknown) && self.repair().unwrap_or(false) {
            let leased = self.state.lease(requests, self.now());
            match self.kernel.commit(&leased.ops) {
                Ok(()) => {
                    self.recharge.notify_one();
                    return leased.results;
                }
                Err(_) => self.state.forget(leased),
            }
        }
        vec![Err(LeaseError::Kernel(error.what))]
    }
}
