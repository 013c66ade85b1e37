//! The gate: the one thread that writes to the kernel.
//!
//! It owns the kernel's writer socket and the [`State`] that mirrors the kernel, so nothing about enforcement can race.
//! Leases come in by a bounded queue and go out in groups, one transaction for all that wait; everything else is a job
//! that runs between two groups.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};

use crate::core::Pending;
use crate::core::classes::Classes;
use crate::core::doors::Now;
use crate::core::lease::{Acked, LeaseError, LeaseRequest, Leaser};
use crate::core::state::{State, World};
use crate::nft::{ErrorKind, Kernel, KernelError};
use crate::plan::ops::{Delta, Op, Table, diff};
use crate::plan::snapshot::Snapshot;
use crate::policy::Policy;
use crate::policy::schedule::Moment;

use super::{blame, held, world};

/// Requests that may wait for the gate; beyond it answers fail at once instead of piling up.
const QUEUE: usize = 8192;
/// Leases that go into one transaction.
const GROUP: usize = 256;

type Job = Box<dyn FnOnce(&mut Gate) + Send>;

enum Message {
    Lease(LeaseRequest, oneshot::Sender<Result<Acked, LeaseError>>),
    Job(Job),
    Stop,
}

/// A way to reach the gate from any thread.
#[derive(Clone)]
pub struct Handle {
    queue: SyncSender<Message>,
}

/// The gate is gone; the process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

impl Handle {
    /// Runs `job` on the gate's thread and gives its result.
    ///
    /// # Errors
    /// The gate has stopped.
    pub async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Gate) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (done, result) = oneshot::channel();
        let message = Message::Job(Box::new(move |gate| {
            let _ = done.send(job(gate));
        }));
        let queue = self.queue.clone();
        // The queue is full only in a flood of leases; waiting for a place must not hold up the runtime.
        tokio::task::spawn_blocking(move || queue.send(message)).await.map_err(|_| Stopped)?.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// Ends the gate's thread. What the kernel enforces stays.
    pub fn stop(&self) {
        let _ = self.queue.send(Message::Stop);
    }
}

impl Leaser for Handle {
    async fn lease(&self, request: LeaseRequest) -> Result<Acked, LeaseError> {
        let (done, result) = oneshot::channel();
        match self.queue.try_send(Message::Lease(request, done)) {
            Ok(()) => result.await.unwrap_or_else(|_| Err(LeaseError::Kernel(Stopped.to_string()))),
            Err(TrySendError::Full(_)) => Err(LeaseError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(LeaseError::Kernel(Stopped.to_string())),
        }
    }
}

/// Ends the process when its thread panics: without that thread nothing works, and a supervisor restarts only what has
/// ended. The kernel goes on enforcing.
pub struct EndsTheProcess(pub &'static str);

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} failed, so the daemon ends; the kernel goes on enforcing", self.0);
            std::process::abort();
        }
    }
}

/// Why a revision is not in force. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// What the kernel said, in words.
    pub what: String,
    /// The line of the policy that the kernel refused, if it was one line.
    pub path: Option<String>,
}

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
    kernel: Kernel,
    /// The mirror of the kernel.
    pub state: State,
    /// What the machine contributes.
    pub world: World,
    /// The policy in force.
    pub policy: Option<Arc<Policy>>,
    /// The kernel holds something else than it should and refused to be repaired; why.
    pub drift: Option<String>,
    /// The table could not follow a change of the machine; why.
    pub behind: Option<String>,
    /// What the last change left over.
    litter: Vec<Op>,
    /// How often somebody else's change was undone.
    pub repairs: u64,
    /// The kernel's table of our name, if any, is known to be ours.
    ours: bool,
    judge: Arc<ArcSwapOption<Snapshot>>,
    /// Told whenever another policy comes into force.
    changed: Arc<Notify>,
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
    ) -> Result<Self, KernelError> {
        let start = Instant::now();
        let first = Classes::first_of_table(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
        let held = kernel.read()?;
        let ours = held.is_some();
        let state = match held {
            None => State::new(first),
            Some(held) => {
                let now = Now { ms: 0, utc: Utc::now() };
                State::adopt(&held::table(&held), last.map(|policy| (policy, &world)), first, now)
            }
        };
        Ok(Self {
            kernel,
            state,
            world,
            policy: None,
            drift: None,
            behind: None,
            litter: Vec::new(),
            repairs: 0,
            ours,
            judge,
            changed: Arc::default(),
            start,
        })
    }

    /// Where the DNS server finds the policy in force.
    pub fn judge(&self) -> Arc<ArcSwapOption<Snapshot>> {
        Arc::clone(&self.judge)
    }

    /// Told whenever another policy comes into force.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
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
        let Some(policy) = self.policy.clone() else { return Ok(false) };
        let revision = self.state.revision;
        match self.enforce(&policy, revision) {
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

    /// Starts the gate's thread.
    pub fn spawn(self) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
        let (queue, requests) = sync_channel(QUEUE);
        let work = move || {
            let _guard = EndsTheProcess("the gate");
            self.serve(&requests);
        };
        let thread = std::thread::Builder::new().name("gate".into()).spawn(work)?;
        Ok((Handle { queue }, thread))
    }

    fn serve(mut self, requests: &Receiver<Message>) {
        let mut leases = Vec::with_capacity(GROUP);
        while let Ok(first) = requests.recv() {
            let mut job = None;
            let mut next = Some(first);
            // Leases that wait go together and first; a job ends the group.
            while let Some(message) = next.take() {
                match message {
                    Message::Lease(request, done) => leases.push((request, done)),
                    Message::Job(work) => job = Some(work),
                    Message::Stop => return,
                }
                if job.is_none() && leases.len() < GROUP {
                    next = requests.try_recv().ok();
                }
            }
            self.lease(&mut leases);
            if let Some(job) = job {
                job(&mut self);
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
    pub fn enforce(&mut self, policy: &Arc<Policy>, revision: u64) -> Result<Applied, Refused> {
        self.refuse_foreign()?;
        let now = self.now();
        let world = World { guarded: world::guarded(policy), ..self.world.clone() };
        let pending = self.state.enforce(policy, &world, revision, now);
        self.world = world;
        match self.switch(&pending.delta) {
            Ok(()) => Ok(self.took(pending, policy)),
            Err(error) => self.refused(pending, error, policy),
        }
    }

    /// A table of our name may have come from elsewhere as long as we enforce nothing.
    fn refuse_foreign(&mut self) -> Result<(), Refused> {
        let plain = |what: String| Refused { what, path: None };
        if self.ours {
            return Ok(());
        }
        match self.kernel.read() {
            Ok(Some(found)) if !held::is_ours(&found) => Err(plain(held::NOT_OURS.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(plain(error.what)),
        }
    }

    /// The first transaction of a change. What the change before left over goes before it.
    fn switch(&mut self, delta: &Delta) -> Result<(), KernelError> {
        self.tidy();
        self.kernel.commit(&delta.switch)
    }

    /// Removes what no packet can need any more. A refusal means that somebody else was there, and that is repaired.
    pub fn tidy(&mut self) {
        let litter = std::mem::take(&mut self.litter);
        if !litter.is_empty() && self.kernel.commit(&litter).is_err() {
            let _ = self.repair();
        }
    }

    fn took(&mut self, pending: Pending, policy: &Arc<Policy>) -> Applied {
        let Delta { switch, remove, litter } = pending.delta.clone();
        let operations = switch.len() + remove.len() + litter.len();
        let applied = Applied { operations, cut: pending.cut };
        let snapshot = pending.snapshot.clone();
        self.state.enforced(pending);
        self.ours = true;
        self.policy = Some(policy.clone());
        self.judge.store(Some(snapshot));
        self.changed.notify_one();
        self.state.sweep(self.now().ms);
        if !remove.is_empty() && self.kernel.commit(&remove).is_err() {
            let _ = self.repair();
        }
        self.litter = litter;
        applied
    }

    /// A refused transaction changed nothing, unless somebody else changed the table before: then the whole table is
    /// written again, in one transaction, and the refusal counts only if that fails too.
    fn refused(&mut self, pending: Pending, error: KernelError, policy: &Arc<Policy>) -> Result<Applied, Refused> {
        let path = error
            .op_index
            .and_then(|index| pending.delta.switch.get(index))
            .and_then(|op| blame::policy_line(op, policy, &self.state.hosts));
        let refused = Refused { what: error.what, path };
        if !matches!(error.kind, ErrorKind::Refused | ErrorKind::Unknown) || self.repair().is_err() {
            return Err(refused);
        }
        let pending = self.state.enforce(policy, &self.world, pending.snapshot.revision, self.now());
        match self.switch(&pending.delta) {
            Ok(()) => Ok(self.took(pending, policy)),
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
            if let Err(error) = self.kernel.commit(&ops)
                && (error.kind == ErrorKind::NotPermitted
                    || self.repair().is_err()
                    || self.kernel.commit(&ops).is_err())
            {
                return Err(error);
            }
        }
        self.state.ticked(doors);
        Ok(Moment::of(&policy, now.utc, self.world.zone).next_change(&policy))
    }

    /// Makes the kernel hold what it should. True: something was wrong.
    ///
    /// # Errors
    /// The kernel refused; [`Gate::drift`] says so until a later repair succeeds.
    pub fn repair(&mut self) -> Result<bool, KernelError> {
        if self.state.revision == 0 {
            return Ok(false);
        }
        let result = self.try_repair();
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
            return self.rewrite(&expected).map(|()| true);
        }
        let (held, rules_differ) = (held::table(&read), held::has_other_rules(&read, &expected));
        let Delta { switch, remove, litter } = self.state.repair(&held, now);
        // Chains are always written again; that alone is no difference.
        let rules = |op: &Op| matches!(op, Op::AddTable | Op::FlushChain(_) | Op::AddRule(..));
        let differs = rules_differ || !remove.is_empty() || !litter.is_empty() || !switch.iter().all(rules);
        let steps = [switch, remove, litter];
        if steps.iter().all(|ops| self.kernel.commit(ops).is_ok()) {
            return Ok(differs);
        }
        self.rewrite(&expected).map(|()| true)
    }

    /// A new table in the old one's place, in one transaction: the only help where something has another type now.
    fn rewrite(&mut self, expected: &Table) -> Result<(), KernelError> {
        let all = diff(&Table::default(), expected).into_ops();
        let ops: Vec<Op> = [Op::AddTable, Op::DelTable, Op::AddTable].into_iter().chain(all).collect();
        self.kernel.commit(&ops)
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
        self.kernel.commit(&[Op::AddTable, Op::DelTable]).map_err(refused)?;
        (self.drift, self.behind, self.ours) = (None, None, false);
        self.judge.store(None);
        self.policy = None;
        self.litter.clear();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // Flows still carry the marks of this table, and it may have used numbers faster than the clock sets them aside.
        self.state = State::new(Classes::first_of_table(seconds).max(self.state.next_class()));
        Ok(())
    }

    fn lease(&mut self, group: &mut Vec<(LeaseRequest, oneshot::Sender<Result<Acked, LeaseError>>)>) {
        if group.is_empty() {
            return;
        }
        if let Some(ops) = self.state.evict(self.now().ms)
            && self.kernel.commit(&ops).is_err()
        {
            // Memory and kernel differ now; the kernel is brought in line, or the drift is reported.
            let _ = self.repair();
        }
        let (requests, waiting): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let results = self.lease_all(&requests);
        for (done, result) in waiting.into_iter().zip(results) {
            let _ = done.send(result.map(|()| Acked::by_kernel()));
        }
    }

    fn lease_all(&mut self, requests: &[LeaseRequest]) -> Vec<Result<(), LeaseError>> {
        let leased = self.state.lease(requests, self.now());
        if leased.ops.is_empty() {
            return leased.results;
        }
        let Err(error) = self.kernel.commit(&leased.ops) else { return leased.results };
        self.state.forget(leased);
        if requests.len() > 1 {
            // One that the kernel refuses must not take the others with it.
            return requests.iter().flat_map(|request| self.lease_all(std::slice::from_ref(request))).collect();
        }
        if matches!(error.kind, ErrorKind::Refused | ErrorKind::Unknown) && self.repair().unwrap_or(false) {
            let leased = self.state.lease(requests, self.now());
            match self.kernel.commit(&leased.ops) {
                Ok(()) => return leased.results,
                Err(_) => self.state.forget(leased),
            }
        }
        vec![Err(LeaseError::Kernel(error.what))]
    }
}
