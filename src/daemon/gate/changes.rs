//! Transactions that are not leases, and what is tidied up between them.

use super::Gate;
use crate::nft::KernelError;
use crate::plan::ops::{Delta, Op};

impl Gate {
    /// One transaction that is not a lease: what was said of leases ends with it.
    pub(in crate::daemon) fn change(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        if ops.is_empty() {
            return Ok(());
        }
        self.leases.close();
        self.kernel.commit(ops)
    }

    /// What a change needs and nothing refers to yet. It takes no lease away, so what is said of leases goes on.
    pub(in crate::daemon) fn prepare(&mut self, delta: &Delta) -> Result<(), KernelError> {
        for (nth, piece) in delta.pieces().enumerate() {
            let (places, ops): (Vec<usize>, Vec<Op>) = piece.into_iter().unzip();
            if let Err(mut error) = self.kernel.commit(&ops) {
                error.op_index = error.op_index.and_then(|index| places.get(index).copied());
                // All sets and chains are in the first piece.
                if nth > 0 {
                    self.take_back(delta);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing refers to what was prepared, so there is no hurry if it cannot be removed now.
    pub(super) fn take_back(&mut self, delta: &Delta) {
        let undo = delta.undo_prepare();
        if self.kernel.commit(&undo).is_err() {
            self.litter.extend(undo);
        }
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
