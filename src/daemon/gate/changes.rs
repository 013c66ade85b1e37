//! Transactions that are not leases, and what is tidied up between them.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use super::{GROUP, Gate};
use crate::nft::KernelError;
use crate::plan::ir::Ident;
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

    /// Puts a change in force. What the change before left over goes before it. `loaded`: sets that are there already. The
    /// operation that an error names counts from the first of the preparations.
    pub(super) fn switch(&mut self, delta: &Delta, loaded: &BTreeSet<Ident>) -> Result<(), KernelError> {
        self.tidy();
        self.prepare(delta, loaded)?;
        self.change(&delta.switch).map_err(|mut error| {
            error.op_index = error.op_index.map(|index| index + delta.prepare.len());
            self.take_back(delta);
            error
        })
    }

    /// What a change needs and nothing refers to yet. It takes no lease away, so what is said of leases goes on.
    /// `loaded`: sets that are there already.
    pub(in crate::daemon) fn prepare(&mut self, delta: &Delta, loaded: &BTreeSet<Ident>) -> Result<(), KernelError> {
        for (nth, piece) in delta.pieces(loaded).enumerate() {
            self.piece(delta, nth > 0 || !loaded.is_empty(), piece)?;
        }
        Ok(())
    }

    /// The preparations of a large change; leases that are asked for meanwhile are granted between the pieces. Gives the
    /// sets.
    pub(super) fn load(&mut self, delta: &Delta) -> Result<BTreeSet<Ident>, KernelError> {
        self.tidy();
        for (nth, piece) in delta.pieces(&BTreeSet::new()).enumerate() {
            let begin = Instant::now();
            self.piece(delta, nth > 0, piece)?;
            self.lease_between(begin);
        }
        let sets = delta.prepare.iter().filter_map(|op| match op {
            Op::AddSet(name, _) => Some(name.clone()),
            _ => None,
        });
        Ok(sets.collect())
    }

    /// Between two pieces of a change, of which the last one began then: leases that were asked for meanwhile. Half of the time
    /// at most: leases that never end must not hold the change up.
    pub(super) fn lease_between(&mut self, begin: Instant) {
        let (took, begin) = (begin.elapsed(), Instant::now());
        while begin.elapsed() < took {
            let group = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).leases(GROUP);
            if group.is_empty() {
                break;
            }
            self.lease(group);
        }
    }

    /// `begun`: sets and chains are there, which the first piece makes.
    fn piece(&mut self, delta: &Delta, begun: bool, piece: Vec<(usize, Op)>) -> Result<(), KernelError> {
        let (places, ops): (Vec<usize>, Vec<Op>) = piece.into_iter().unzip();
        self.kernel.commit(&ops).map_err(|mut error| {
            error.op_index = error.op_index.and_then(|index| places.get(index).copied());
            if begun {
                self.take_back(delta);
            }
            error
        })
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

    /// What can wait until a change is over: its litter. True: memory can be given back to the system since
    /// ([`crate::nft::give_back_memory`]), which others do, because it takes some milliseconds.
    #[must_use]
    pub fn settle(&mut self) -> bool {
        self.tidy();
        self.past = None;
        std::mem::take(&mut self.swollen)
    }
}
