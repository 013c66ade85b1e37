//! The gate: the one writer to the kernel.
//!
//! It owns the kernel's writer socket and the [`State`] that mirrors the kernel, and one at a time has it, so nothing about
//! enforcement can race. Its thread (`serve`) takes what comes by a bounded queue: leases in groups, one transaction for all
//! that wait, and jobs that run between two groups. Whoever needs leases when nothing waits there grants them itself.

mod ahead;
mod changes;
mod leases;
pub mod recharge;
mod serve;
mod standing;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

use crate::core::Pending;
use crate::core::classes::Classes;
use crate::core::doors::Now;
use crate::core::state::{State, World};
use crate::nft::{ErrorKind, Held, Kernel, KernelError};
use crate::plan::ops::{self, Delta, Op};
use crate::plan::prepared::Prepared;
use crate::plan::snapshot::Snapshot;
use crate::policy::Policy;
use crate::policy::schedule::Moment;

pub use self::standing::Leases;
pub use super::blame::Refused;
use super::caps::{Ahead, Book};
use super::handle::Waiting;
use super::{blame, held, world};

/// Leases that go into one transaction.
const GROUP: usize = 256;

/// What a revision did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Operations in the kernel's transaction.
    pub operations: usize,
    /// Classes of live flows that ended.
    pub cut: usize,
}

/// The owner of kernel and state; see the module.
pub struct Gate {
    pub(super) kernel: Kernel,
    /// The mirror of the kernel.
    pub state: State,
    /// What was used of exfil caps, on disk.
    pub book: Book,
    /// The turn of caps that comes next.
    pub(super) ahead: Ahead,
    /// What the machine contributes.
    pub world: World,
    /// The policy in force.
    pub policy: Option<Arc<Policy>>,
    /// Its lists; table and snapshot share them, so that they take no further memory.
    prepared: Option<Arc<Prepared>>,
    /// The kernel holds something else than it should and refused to be repaired; why.
    pub drift: Option<String>,
    /// The table could not follow a change of the machine; why.
    pub behind: Option<String>,
    /// What the last change left over.
    pub(super) litter: Vec<Op>,
    /// What the last change took the place of, for whoever asked for it to drop: a hundred thousand rules take some
    /// milliseconds, and leases wait for this thread.
    pub(super) past: Option<Box<dyn Send>>,
    /// A change has needed memory for a moment that the allocator still keeps.
    swollen: bool,
    /// How often somebody else's change was undone.
    pub repairs: u64,
    /// The kernel's table of our name, if any, is known to be ours.
    ours: bool,
    /// The shape of the earlier process' table, until it has been looked at.
    pub(super) inherited: Option<Held>,
    judge: Arc<ArcSwapOption<Snapshot>>,
    /// What the kernel holds, for all to see.
    pub(super) leases: Arc<Leases>,
    /// Told whenever another policy comes into force.
    changed: watch::Sender<()>,
    /// Told when live flows may have to be charged to more caps.
    recharge: Arc<Notify>,
    /// Requests.
    waiting: Arc<Mutex<Waiting>>,
    start: Instant,
}

impl Gate {
    /// Takes over the table of an earlier process, if there is one.
    ///
    /// # Errors
    /// The table cannot be read, or is not ours.
    pub fn open(
        mut kernel: Kernel,
        world: World,
        last: Option<&Policy>,
        judge: Arc<ArcSwapOption<Snapshot>>,
        state_dir: &Path,
    ) -> Result<Self, KernelError> {
        let start = Instant::now();
        let first = Classes::first_of_table(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
        let held = kernel.read()?;
        let ours = held.is_some();
        let utc = Utc::now();
        let zone = last.and_then(|policy| policy.time_zone.as_ref()).map_or(world.zone, |zone| zone.value);
        let (book, caps) = Book::open(state_dir, held.as_ref(), zone, utc);
        let mut state = match &held {
            None => State::new(first),
            Some(held) => {
                let now = Now { ms: 0, utc };
                State::adopt(&held::table(held), last.map(|policy| (policy, &world)), first, now)
            }
        };
        state.resume_caps(caps, last);
        let inherited = held.map(held::shape);
        Ok(Self {
            kernel,
            state,
            book,
            ahead: Ahead::default(),
            world,
            policy: None,
            prepared: None,
            drift: None,
            behind: None,
            litter: Vec::new(),
            past: None,
            swollen: true,
            repairs: 0,
            ours,
            inherited,
            judge,
            leases: Arc::new(Leases::new(start)),
            changed: watch::Sender::default(),
            recharge: Arc::default(),
            waiting: Arc::default(),
            start,
        })
    }

    /// Where the DNS server finds the policy in force.
    pub fn judge(&self) -> Arc<ArcSwapOption<Snapshot>> {
        Arc::clone(&self.judge)
    }

    /// Told whenever another policy comes into force.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Follows a change of the machine. True: there was one.
    ///
    /// # Errors
    /// The kernel refused; the old picture stays.
    pub fn meet(&mut self, world: World) -> Result<bool, Refused> {
        if world == self.world {
            return Ok(false);
        }
        let old = std::mem::replace(&mut self.world, world);
        let (Some(policy), Some(prepared)) = (self.policy.clone(), self.prepared.clone()) else { return Ok(false) };
        let revision = self.state.revision;
        match self.enforce(&policy, &prepared, revision) {
            Ok(_) => {
                self.behind = None;
                Ok(true)
            }
            Err(refused) => {
                self.world = old;
                self.behind = Some(refused.what.clone());
                Err(refused)
            }
        }
    }

    /// Milliseconds since the gate opened, on the clock that the kernel's timeouts use.
    pub fn now(&self) -> Now {
        Now { ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), utc: Utc::now() }
    }

    /// Puts a policy in force.
    ///
    /// # Errors
    /// The kernel refused, or a table of that name is not ours; what was enforced stays enforced.
    pub fn enforce(
        &mut self,
        policy: &Arc<Policy>,
        prepared: &Arc<Prepared>,
        revision: u64,
    ) -> Result<Applied, Refused> {
        self.refuse_foreign()?;
        self.read_touched(policy);
        let now = self.now();
        let world = self.world_of(policy);
        let mut pending = self.state.enforce_prepared(policy, prepared, &world, revision, now);
        if self.recheck_ahead(&pending, policy) {
            // Caps were used meanwhile.
            self.read_touched(policy);
            pending = self.state.enforce_prepared(policy, prepared, &world, revision, self.now());
        }
        self.world = world;
        let mut loaded = BTreeSet::new();
        if pending.delta.is_large() {
            loaded = match self.load(&pending.delta) {
                Ok(loaded) => loaded,
                Err(error) => return self.refused(pending, error, policy, prepared),
            };
            // Leases were granted meanwhile, and caps used.
            self.read_touched(policy);
            pending = self.state.enforce_prepared(policy, prepared, &self.world, revision, self.now());
        }
        if let Err(why) = self.keep_records(&pending.records, || pending.cap_records()) {
            if !loaded.is_empty() {
                self.take_back(&pending.delta);
            }
            return Err(Refused::plain(why));
        }
        match self.switch(&pending.delta, &loaded) {
            Ok(()) => Ok(self.took(pending, policy, prepared)),
            Err(error) => self.refused(pending, error, policy, prepared),
        }
    }

    /// The machine, with the interfaces that a policy guards. What was noted last may be of one that was refused since.
    fn world_of(&self, policy: &Policy) -> World {
        World { guarded: world::guarded(policy), ..self.world.clone() }
    }

    /// A table of our name may have come from elsewhere as long as we enforce nothing.
    fn refuse_foreign(&mut self) -> Result<(), Refused> {
        let plain = Refused::plain;
        if self.ours {
            return Ok(());
        }
        match self.kernel.read() {
            Ok(Some(found)) if !held::is_ours(&found) => Err(plain(held::NOT_OURS.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(plain(error.what)),
        }
    }

    pub(super) fn took(&mut self, mut pending: Pending, policy: &Arc<Policy>, prepared: &Arc<Prepared>) -> Applied {
        let Delta { prepare, switch, remove, litter } = std::mem::take(&mut pending.delta);
        let operations = prepare.len() + switch.len() + remove.len() + litter.len();
        let applied = Applied { operations, cut: pending.cut };
        let snapshot = pending.snapshot.clone();
        // Also where the kernel had nothing to change.
        self.leases.close();
        let past = self.state.enforced(pending);
        self.ours = true;
        let past = (past, self.policy.replace(policy.clone()), self.prepared.replace(prepared.clone()));
        let past = (past, self.judge.swap(Some(snapshot)));
        self.past = Some(Box::new(past));
        self.changed.send_replace(());
        if !policy.hosts.values().all(|host| host.caps.is_empty()) {
            self.recharge.notify_one();
        }
        self.state.sweep(self.now().ms);
        if ops::in_pieces(remove).iter().try_for_each(|piece| self.change(piece)).is_err() {
            let _ = self.repair();
        }
        self.litter = litter;
        self.swollen = true;
        applied
    }

    /// A refused transaction changed nothing, unless somebody else changed the table before: then the whole table is
    /// written again, in one transaction, and the refusal counts only if that fails too.
    fn refused(
        &mut self,
        pending: Pending,
        error: KernelError,
        policy: &Arc<Policy>,
        prepared: &Arc<Prepared>,
    ) -> Result<Applied, Refused> {
        let path = error
            .op_index
            .and_then(|index| pending.delta.prepare.iter().chain(&pending.delta.switch).nth(index))
            .and_then(|op| blame::policy_line(op, policy, &self.state.hosts));
        let refused = Refused { what: error.what, path };
        if !matches!(error.kind, ErrorKind::Refused | ErrorKind::Unknown) {
            return Err(refused);
        }
        if self.ours && self.state.revision == 0 {
            return self.start_over(policy, prepared, pending.snapshot.revision).map_err(|_| refused);
        }
        if self.repair().is_err() {
            return Err(refused);
        }
        let (revision, now) = (pending.snapshot.revision, self.now());
        let pending = self.state.enforce_prepared(policy, prepared, &self.world, revision, now);
        // The repair may have changed what counts as used, and with it what is granted.
        self.keep_records(&pending.records, || pending.cap_records()).map_err(Refused::plain)?;
        match self.switch(&pending.delta, &BTreeSet::new()) {
            Ok(()) => Ok(self.took(pending, policy, prepared)),
            Err(_) => Err(refused),
        }
    }

    /// Opens and shuts what windows open and shut now. Gives the instant of the next such change. `stepped`: the clock
    /// was set since the last call, so what the kernel counts down to has moved.
    ///
    /// # Errors
    /// The kernel refused; what it holds shuts by itself when it is due.
    pub fn tick(&mut self, stepped: bool) -> Result<Option<DateTime<Utc>>, KernelError> {
        let Some(policy) = self.policy.clone() else { return Ok(None) };
        if stepped {
            self.state.clock_stepped();
        }
        let now = self.now();
        let (open, shut, doors) = self.state.tick(now);
        for ops in [open, shut] {
            if let Err(error) = self.change(&ops)
                && (error.kind == ErrorKind::NotPermitted || self.repair().is_err() || self.change(&ops).is_err())
            {
                return Err(error);
            }
        }
        self.state.ticked(doors);
        let moment = Moment::of(&policy, now.utc, self.world.zone);
        Ok(moment.next_change(&policy))
    }

    /// The table as text: the kernel's sets with what is in them now, and our rules where the kernel has them.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&mut self) -> Result<String, KernelError> {
        let Some(read) = self.kernel.read()? else { return Ok("# there is no table: nothing is enforced\n".into()) };
        Ok(held::render(&read, &self.state.expected(self.now())))
    }

    /// The kernel's writer, for what is no transaction of the table.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Opens the gateway: the table goes, and what was learned with it.
    ///
    /// # Errors
    /// The kernel refused, or the table is not ours; enforcement goes on.
    pub fn teardown(&mut self) -> Result<(), Refused> {
        self.refuse_foreign()?;
        let refused = |error: KernelError| Refused { what: error.what, path: None };
        if self.read_all_caps().is_err() {
            self.state.caps.presume(self.state.caps.ids());
        }
        self.change(&[Op::AddTable, Op::DelTable]).map_err(refused)?;
        let caps = std::mem::take(&mut self.state.caps).retire();
        (self.drift, self.behind, self.ours) = (None, None, false);
        self.judge.store(None);
        self.policy = None;
        self.prepared = None;
        self.litter.clear();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // Flows still carry the marks of this table, and it may have used numbers faster than the clock sets them aside.
        self.state = State::new(Classes::first_of_table(seconds).max(self.state.next_class()));
        self.state.caps = caps;
        Ok(())
    }
}
