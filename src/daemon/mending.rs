//! When the kernel holds something else than it should: difference by difference, or all of it anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::gate::{Applied, Gate, Refused};
use super::held;
use crate::core::classes::Classes;
use crate::core::state::State;
use crate::nft::KernelError;
use crate::plan::meter::CapId;
use crate::plan::ops::{Op, Table, diff};
use crate::plan::prepared::Prepared;
use crate::plan::table::names;
use crate::policy::Policy;

impl Gate {
    /// The table of the earlier process cannot become ours step by step, because somebody changed it meanwhile: a new one
    /// takes its place in one transaction. What was learned is lost, so live flows are judged anew.
    pub(super) fn start_over(
        &mut self,
        policy: &Arc<Policy>,
        prepared: &Arc<Prepared>,
        revision: u64,
    ) -> Result<Applied, Refused> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.state.caps.presume(self.state.caps.ids());
        let mut state = State::new(Classes::first_of_table(seconds));
        state.caps = self.state.caps.clone().retire();
        let mut pending = state.enforce_prepared(policy, prepared, &self.world, revision, self.now());
        if self.keep_records(&pending.records, || pending.cap_records()).is_err() {
            return Err(Refused::plain("the ledger of exfil caps cannot be written".into()));
        }
        let all = std::mem::take(&mut pending.delta).into_ops();
        let ops = [vec![Op::AddTable, Op::DelTable], all].concat();
        self.change(&ops).map_err(|error| Refused::plain(error.what))?;
        (self.state, self.inherited) = (state, None);
        Ok(self.took(pending, policy, prepared))
    }

    /// After the first policy: what somebody did to the table of the earlier process while nobody watched it, and no
    /// difference mends. True: there was something.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn reshape(&mut self) -> Result<bool, KernelError> {
        let Some(found) = self.inherited.take().filter(|_| self.policy.is_some()) else { return Ok(false) };
        let expected = self.state.expected(self.now());
        if !held::is_deformed(&found, &expected) {
            return Ok(false);
        }
        self.rewrite().map(|()| true)
    }

    /// Makes the kernel hold what it should. True: something was wrong.
    ///
    /// # Errors
    /// The kernel refused; [`Gate::drift`] says so until a later repair succeeds.
    pub fn repair(&mut self) -> Result<bool, KernelError> {
        self.repair_after(false)
    }

    /// As [`Gate::repair`]. `changed`: somebody else is known to have changed the table. Then something was wrong even
    /// where nothing is found any more: what we wrote since, or while we read, may have mended it.
    ///
    /// # Errors
    /// As [`Gate::repair`].
    pub fn repair_after(&mut self, changed: bool) -> Result<bool, KernelError> {
        if self.state.revision == 0 {
            return Ok(false);
        }
        // Somebody may have taken away what was said to be there.
        self.leases.close();
        let result = self.try_repair().map(|differed| differed || changed);
        match &result {
            Ok(changed) => {
                self.drift = None;
                self.repairs += u64::from(*changed);
            }
            Err(error) => self.drift = Some(error.what.clone()),
        }
        result
    }

    fn try_repair(&mut self) -> Result<bool, KernelError> {
        let now = self.now();
        let read = self.kernel.read()?.unwrap_or_default();
        let expected = self.state.expected(now);
        if held::is_deformed(&read, &expected) {
            return self.rewrite().map(|()| true);
        }
        let lost: BTreeSet<CapId> = (self.state.fixed_objects())
            .filter(|name| !read.objects.contains_key(*name))
            .filter_map(|name| names::read_cap(name))
            .collect();
        // Objects of one cap tell of the same packets, so none is of use without the others.
        if read.objects.keys().filter_map(|name| names::read_cap(name)).any(|cap| lost.contains(&cap)) {
            return self.rewrite().map(|()| true);
        }
        let are_lost = !lost.is_empty();
        self.state.caps.presume(lost);
        let (held, rules_differ) = (held::table(&read), held::has_other_rules(&read, &expected));
        let delta = self.state.repair(&held, now);
        // Chains are always written again; that alone is no difference.
        let rules = |op: &Op| matches!(op, Op::AddTable | Op::FlushChain(_) | Op::AddRule(..));
        let differs = rules_differ || !delta.transactions().flatten().all(rules);
        let rest = [&delta.switch, &delta.remove, &delta.litter];
        if self.prepare(&delta, &BTreeSet::new()).is_ok() && rest.into_iter().all(|ops| self.change(ops).is_ok()) {
            if are_lost {
                self.look_at_caps();
            }
            return Ok(differs);
        }
        self.rewrite().map(|()| true)
    }

    /// A new table in the old one's place, in one transaction: the only help where something has another type now. What
    /// the old one counted since it was last read is lost.
    fn rewrite(&mut self) -> Result<(), KernelError> {
        self.state.caps.presume(self.state.caps.ids());
        let all = diff(&Table::default(), &self.state.expected(self.now())).into_ops();
        let ops: Vec<Op> = [Op::AddTable, Op::DelTable, Op::AddTable].into_iter().chain(all).collect();
        self.change(&ops)?;
        // All that was granted is used up now; the next packet need not wait until it is missed.
        self.look_at_caps();
        Ok(())
    }
}
