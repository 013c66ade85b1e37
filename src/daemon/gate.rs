//! The gate: the one thread that writes to the kernel.
//!
//! It owns the kernel's writer socket and the [`State`] that mirrors the kernel, so nothing about enforcement can race.
//! Leases come in by a bounded queue and go out in groups, one transaction for all that wait; everything else is a job
//! that runs between two groups.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use crate::core::Pending;
use crate::core::classes::Classes;
use crate::core::lease::{Acked, LeaseError, LeaseRequest, Leaser};
use crate::core::state::{State, World};
use crate::nft::{ErrorKind, Kernel, KernelError};
use crate::plan::ops::{Delta, Op, Table, diff};
use crate::plan::prepared::Prepared;
use crate::plan::snapshot::Snapshot;
use crate::policy::Policy;

pub use super::blame::Refused;
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
    /// Its lists; table and snapshot share them, so that they take no further memory.
    prepared: Option<Arc<Prepared>>,
    /// The kernel holds something else than it should and refused to be repaired; why.
    pub drift: Option<String>,
    /// What the last change left over.
    litter: Vec<Op>,
    /// A change has needed memory for a moment that the allocator still keeps.
    swollen: bool,
    /// How often somebody else's change was undone.
    pub repairs: u64,
    judge: Arc<ArcSwapOption<Snapshot>>,
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
        let state = match kernel.read()? {
            None => State::new(first),
            Some(held) => State::adopt(&held::table(&held), last.map(|policy| (policy, &world)), first, 0),
        };
        Ok(Self {
            kernel,
            state,
            world,
            policy: None,
            prepared: None,
            drift: None,
            litter: Vec::new(),
            swollen: true,
            repairs: 0,
            judge,
            start,
        })
    }

    /// Where the DNS server finds the policy in force.
    pub fn judge(&self) -> Arc<ArcSwapOption<Snapshot>> {
        Arc::clone(&self.judge)
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
        let (Some(policy), Some(prepared)) = (self.policy.clone(), self.prepared.clone()) else { return Ok(true) };
        let revision = self.state.revision;
        match self.enforce(&policy, &prepared, revision) {
            Ok(_) => Ok(true),
            Err(refused) => {
                self.world = old;
                Err(refused)
            }
        }
    }

    /// Starts the gate's thread.
    pub fn spawn(self) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
        let (queue, requests) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("gate".into()).spawn(move || self.serve(&requests))?;
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
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts a policy in force.
    ///
    /// # Errors
    /// The kernel refused; what was enforced stays enforced.
    pub fn enforce(
        &mut self,
        policy: &Arc<Policy>,
        prepared: &Arc<Prepared>,
        revision: u64,
    ) -> Result<Applied, Refused> {
        let now = self.now();
        let world = World { guarded: world::guarded(policy), ..self.world.clone() };
        let pending = self.state.enforce_prepared(policy, prepared, &world, revision, now);
        self.world = world;
        match self.switch(&pending.delta) {
            Ok(()) => Ok(self.took(pending, policy, prepared)),
            Err(error) => self.refused(pending, error, policy, prepared),
        }
    }

    /// The first transaction of a change. What the change before left over goes before it.
    fn switch(&mut self, delta: &Delta) -> Result<(), KernelError> {
        self.tidy();
        self.kernel.commit(&delta.switch)
    }

    /// Removes what no packet can need any more. A refusal means that somebody else was there, and that is repaired.
    fn tidy(&mut self) {
        let litter = std::mem::take(&mut self.litter);
        if !litter.is_empty() && self.kernel.commit(&litter).is_err() {
            let _ = self.repair();
        }
    }

    fn took(&mut self, mut pending: Pending, policy: &Arc<Policy>, prepared: &Arc<Prepared>) -> Applied {
        let Delta { switch, remove, litter } = std::mem::take(&mut pending.delta);
        let operations = switch.len() + remove.len() + litter.len();
        let applied = Applied { operations, cut: pending.cut };
        let snapshot = pending.snapshot.clone();
        self.state.enforced(pending);
        self.policy = Some(policy.clone());
        self.prepared = Some(prepared.clone());
        self.judge.store(Some(snapshot));
        self.state.sweep(self.now());
        if !remove.is_empty() && self.kernel.commit(&remove).is_err() {
            let _ = self.repair();
        }
        self.litter = litter;
        self.swollen = true;
        applied
    }

    /// What can wait until a change is over: its litter, and memory.
    pub fn settle(&mut self) {
        self.tidy();
        if std::mem::take(&mut self.swollen) {
            self.kernel.give_back_memory();
        }
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
            .and_then(|index| pending.delta.switch.get(index))
            .and_then(|op| blame::policy_line(op, policy, &self.state.hosts));
        let refused = Refused { what: error.what, path };
        if !matches!(error.kind, ErrorKind::Refused | ErrorKind::Unknown) || self.repair().is_err() {
            return Err(refused);
        }
        let (revision, now) = (pending.snapshot.revision, self.now());
        let pending = self.state.enforce_prepared(policy, prepared, &self.world, revision, now);
        match self.switch(&pending.delta) {
            Ok(()) => Ok(self.took(pending, policy, prepared)),
            Err(_) => Err(refused),
        }
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
        let held = self.kernel.read()?.map(|held| held::table(&held)).unwrap_or_default();
        let Delta { switch, remove, litter } = self.state.repair(&held, now);
        // Chains are always written again, so only more than that is a difference.
        let rules = |op: &Op| matches!(op, Op::AddTable | Op::FlushChain(_) | Op::AddRule(..));
        let differs = !remove.is_empty() || !litter.is_empty() || !switch.iter().all(rules);
        let steps = [switch, remove, litter];
        if steps.iter().all(|ops| self.kernel.commit(ops).is_ok()) {
            return Ok(differs);
        }
        // Something of ours has another type now: only a new table helps.
        let all = diff(&Table::default(), &self.state.expected(now)).into_ops();
        let ops: Vec<Op> = [Op::AddTable, Op::DelTable, Op::AddTable].into_iter().chain(all).collect();
        self.kernel.commit(&ops).map(|()| true)
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
    /// The kernel refused; enforcement goes on.
    pub fn teardown(&mut self) -> Result<(), KernelError> {
        self.kernel.commit(&[Op::AddTable, Op::DelTable])?;
        self.judge.store(None);
        self.policy = None;
        self.prepared = None;
        self.litter.clear();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.state = State::new(Classes::first_of_table(seconds));
        Ok(())
    }

    fn lease(&mut self, group: &mut Vec<(LeaseRequest, oneshot::Sender<Result<Acked, LeaseError>>)>) {
        if group.is_empty() {
            return;
        }
        if let Some(ops) = self.state.evict(self.now())
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
