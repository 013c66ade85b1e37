//! The way to the gate from any thread: a bounded queue, and for leases, when nothing waits there, no way at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::oneshot;

use super::gate::{Gate, Leases};
use crate::core::lease::{Acked, Done, LeaseError, LeaseRequest, Leaser, Wanted};

/// Requests that may wait for the gate; beyond it answers fail at once instead of piling up.
const QUEUE: usize = 8192;

/// The way to a gate. What comes by it goes to `waiting`.
pub(super) fn to(gate: &Arc<Mutex<Gate>>, leases: Arc<Leases>, waiting: &Mutex<Waiting>) -> Handle {
    let (queue, requests) = sync_channel(QUEUE);
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.queue = Some(requests);
    Handle { queue, leases, gate: Arc::downgrade(gate), wanted: Arc::clone(&waiting.wanted) }
}

pub(super) type Job = Box<dyn FnOnce(&mut Gate) + Send>;

/// What waits for the gate.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) queue: Option<Receiver<Message>>,
    /// What was taken from the queue while only leases were looked for.
    behind: VecDeque<Message>,
    /// Messages that have not been seen to.
    pub(super) wanted: Arc<AtomicUsize>,
}

impl Waiting {
    /// Waits for the next request. `None`: there will be none any more.
    pub(super) fn next(&mut self) -> Option<Message> {
        self.behind.pop_front().or_else(|| self.queue.as_ref()?.recv().ok())
    }

    /// The next request that is there already.
    pub(super) fn try_next(&mut self) -> Option<Message> {
        self.behind.pop_front().or_else(|| self.queue.as_ref()?.try_recv().ok())
    }

    /// Leases that wait, about so many; they overtake everything else.
    pub(super) fn leases(&mut self, most: usize) -> Group {
        let mut group = Group::default();
        let Some(queue) = &self.queue else { return group };
        while group.len() < most
            && let Ok(message) = queue.try_recv()
        {
            match message {
                Message::Lease(requests, done) => {
                    group.add(requests, done);
                    self.wanted.fetch_sub(1, Ordering::SeqCst);
                }
                other => self.behind.push_back(other),
            }
        }
        group
    }
}

/// Leases that go to the kernel together.
#[derive(Default)]
pub(super) struct Group {
    requests: Vec<LeaseRequest>,
    /// Who gets how many of the answers, in order.
    done: Vec<(usize, Done)>,
}

impl Group {
    /// Adds some.
    pub(super) fn add(&mut self, requests: Vec<LeaseRequest>, done: Done) {
        self.done.push((requests.len(), done));
        self.requests.extend(requests);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// All of them.
    pub(super) fn requests(&self) -> &[LeaseRequest] {
        &self.requests
    }

    /// Gives the answers, one for each request, in order.
    pub(super) fn finish(self, mut results: impl Iterator<Item = Result<Acked, LeaseError>>) {
        for (count, done) in self.done {
            done(results.by_ref().take(count).collect());
        }
    }
}

/// What the gate is asked for.
pub(super) enum Message {
    /// Leases, and who gets the answer.
    Lease(Vec<LeaseRequest>, Done),
    /// Anything else.
    Job(Job),
    /// The end.
    Stop,
}

/// A way to reach the gate from any thread.
#[derive(Clone)]
pub struct Handle {
    queue: SyncSender<Message>,
    leases: Arc<Leases>,
    gate: Weak<Mutex<Gate>>,
    /// Messages that the gate has not seen to.
    wanted: Arc<AtomicUsize>,
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
        self.wanted.fetch_add(1, Ordering::SeqCst);
        // The queue is full only in a flood of leases; waiting for a place must not hold up the runtime.
        tokio::task::spawn_blocking(move || queue.send(message)).await.map_err(|_| Stopped)?.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// Ends the gate's thread. What the kernel enforces stays.
    pub fn stop(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        let _ = self.queue.send(Message::Stop);
    }

    /// Leaves leases for the gate's thread.
    fn submit(&self, requests: Vec<LeaseRequest>, done: Done) {
        let count = requests.len();
        self.wanted.fetch_add(1, Ordering::SeqCst);
        let (done, error) = match self.queue.try_send(Message::Lease(requests, done)) {
            Err(TrySendError::Full(Message::Lease(_, done))) => (done, LeaseError::Busy),
            Err(TrySendError::Disconnected(Message::Lease(_, done))) => (done, stopped()),
            _ => return,
        };
        self.wanted.fetch_sub(1, Ordering::SeqCst);
        done((0..count).map(|_| Err(error.clone())).collect());
    }

    /// Grants leases here and now, if nothing else waits for the gate and one transaction is enough: the way to its thread
    /// and back takes as long as the kernel does. Gives them back if not.
    fn grant(&self, requests: Vec<LeaseRequest>, done: Done) -> Result<(), (Vec<LeaseRequest>, Done)> {
        let gate = self.gate.upgrade();
        let gate = gate.as_ref().filter(|_| self.wanted.load(Ordering::SeqCst) == 0);
        let Some(mut gate) = gate.and_then(|gate| gate.try_lock().ok()) else { return Err((requests, done)) };
        let guard = EndsTheProcess("the gate");
        let results = gate.lease_at_once(&requests);
        drop((gate, guard));
        let Some(results) = results else { return Err((requests, done)) };
        done(results);
        Ok(())
    }
}

fn stopped() -> LeaseError {
    LeaseError::Kernel(Stopped.to_string())
}

impl Leaser for Handle {
    async fn lease(&self, request: LeaseRequest) -> Result<Acked, LeaseError> {
        let (done, result) = oneshot::channel();
        let tell = move |mut results: Vec<_>| {
            let _ = done.send(results.pop().unwrap_or_else(|| Err(stopped())));
        };
        self.submit(vec![request], Box::new(tell));
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn lease_all(self: &Arc<Self>, requests: Vec<LeaseRequest>, done: Done) {
        if let Err((requests, done)) = self.grant(requests, done) {
            self.submit(requests, done);
        }
    }

    fn held(&self, wanted: &Wanted<'_>) -> Option<Acked> {
        self.leases.held(wanted)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::name::Name;

    fn lease() -> Message {
        let request = LeaseRequest {
            revision: 1,
            host: crate::plan::ids::HostId::NOBODY,
            name: Name::from_normal("a.example"),
            links: Vec::new(),
            addresses: Vec::new(),
            ttl: Duration::ZERO,
        };
        Message::Lease(vec![request], Box::new(|_| ()))
    }

    #[test]
    fn leases_overtake_and_everything_else_keeps_its_order() {
        let (queue, requests) = sync_channel(QUEUE);
        let mut waiting = Waiting { queue: Some(requests), ..Waiting::default() };
        waiting.wanted.store(9, Ordering::SeqCst);
        for message in [Message::Job(Box::new(|_| ())), lease(), Message::Stop, lease(), lease()] {
            queue.send(message).expect("there is room");
        }
        assert_eq!((waiting.leases(2).len(), waiting.leases(2).len(), waiting.leases(2).len()), (2, 1, 0));
        queue.send(lease()).expect("there is room");
        let word = |message: Option<Message>| match message {
            Some(Message::Job(_)) => "job",
            Some(Message::Stop) => "stop",
            Some(Message::Lease(..)) => "lease",
            None => "none",
        };
        assert_eq!([0; 4].map(|_| word(waiting.try_next())), ["job", "stop", "lease", "none"]);
        drop(queue);
        assert_eq!(word(waiting.next()), "none");
    }
}
