//! What is done before a revision that has many live flows judged at each packet; see [`crate::core::ahead`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;

use super::Gate;
use crate::core::Pending;
use crate::plan::prepared::Prepared;
use crate::policy::Policy;

/// So many classes go with the revision itself: the kernel needs some milliseconds for them.
const FEW: usize = 2048;
/// Classes that go into one transaction before it.
const PIECE: usize = 2048;

impl Gate {
    /// Has the flows that a revision will have judged at each packet judged by the policy in force, piece by piece. True:
    /// something was done. What fails is left to the revision, which meets the same kernel and tells.
    pub(super) fn recheck_ahead(&mut self, revision: &Pending, policy: &Arc<Policy>) -> bool {
        let (Some(old), Some(prepared)) = (self.policy.clone(), self.prepared.clone()) else { return false };
        // The same policy again: the machine has changed, and that must not wait.
        if revision.rechecks <= FEW || Arc::ptr_eq(&old, policy) {
            return false;
        }
        self.state.recheck_soon(revision.rechecked.clone());
        let done = self.make_chains(&old, &prepared) && self.recheck_all();
        self.state.recheck_soon(BTreeSet::new());
        done
    }

    /// Has the table hold the chains that judge them; the policy in force stays what it is.
    fn make_chains(&mut self, policy: &Arc<Policy>, prepared: &Arc<Prepared>) -> bool {
        let begin = Instant::now();
        let world = self.world_of(policy);
        let pending = self.state.enforce_prepared(policy, prepared, &world, self.state.revision, self.now());
        let kept = self.keep_records(&pending.records, || pending.cap_records());
        if kept.is_err() || self.switch(&pending.delta, &BTreeSet::new()).is_err() {
            return false;
        }
        self.took(pending, policy, prepared);
        self.lease_between(begin);
        true
    }

    fn recheck_all(&mut self) -> bool {
        // What is leased meanwhile is left to the revision.
        let (mut after, end) = (0, self.state.next_class());
        while let Some(some) = self.state.recheck(after, end, PIECE, Utc::now()) {
            let begin = Instant::now();
            after = some.last;
            if self.kernel.commit(&some.ops).is_err() {
                break;
            }
            self.state.rechecked(some);
            self.lease_between(begin);
        }
        true
    }
}
