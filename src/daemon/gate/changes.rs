//! Transactions that are not leases, and what is tidied up between them.

use super::Gate;
use crate::nft::KernelError;
use crate::plan::ops::Op;

impl Gate {
    /// One transaction that is not a lease: what was said of leases ends with it.
    pub(in crate::daemon) fn change(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        if ops.is_empty() {
            return Ok(());
        }
        self.leases.close();
        self.kernel.commit(ops)
    }

    /// Removes what no packet can need any more. A refusal means that somebody else was there, and that is repaired.
    pub(super) fn tidy(&mut self) {
        let litter = std::mem::take(&mut self.litter);
        if self.change(&litter).is_err() {
            let _ = self.repair();
        }
    }

    /// Forgets leases that have ended.
    pub fn sweep(&mut self, now: u64) {
        self.state.sweep(now);
        self.leases.sweep(now);
    }

    /// What can wait until a change is over: its litter, and memory.
    pub fn settle(&mut self) {
        self.tidy();
        if std::mem::take(&mut self.swollen) {
            self.kernel.give_back_memory();
        }
    }
}
