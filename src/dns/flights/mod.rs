//! Look-ups that are open: who waits for them, whom they have asked, when the next is asked.
//!
//! A few threads, each with its own share of the names, ask upstreams by UDP over sockets of their own and take whole
//! rounds of answers at once, so that the leases of a round go to the kernel together. Nothing here decides: what is found
//! goes to whoever waits, and clients by UDP that wait are handed over to an [`Arrivals`].

mod flight;
mod ports;
mod thread;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

use super::cache::{Cache, Stored};
use super::counters::Counters;
use super::datagram::Head;
use super::pending::Ticket;
use super::resolver::Found;
use super::service::Client;
use super::upstream::{Failure, Lookup, Pool, Reply, part};
use crate::core::lease::{Acked, LeaseError};

/// Look-ups open at once at most, over all threads. Each holds a little memory while it waits.
const MAX_FLIGHTS: usize = 8192;

/// What a look-up found.
pub(super) type Outcome = Result<Found, Failure>;

/// A plain question that came by UDP and has to wait.
pub(super) struct Miss {
    /// By which of the driver's sockets it came.
    pub socket: usize,
    /// Where it came from.
    pub head: Head,
    /// Its octets.
    pub packet: Box<[u8]>,
    /// Who asked.
    pub client: Client,
    /// Its place among those that wait.
    pub _ticket: Ticket,
}

/// Who waits for a look-up.
pub(super) enum Waiter {
    /// Nobody: the cache wants it fresh.
    Nobody,
    /// A task.
    Task(oneshot::Sender<Outcome>),
    /// A client by UDP.
    Client(Box<Miss>),
}

/// A client's question with what was found.
pub(super) struct Landed {
    /// The question.
    pub miss: Box<Miss>,
    /// The end of the look-up, and what the cache keeps of it.
    pub outcome: Result<(Found, Option<Arc<Stored>>), Failure>,
}

/// What the kernel said to a group of leases.
pub(super) type Granted = Vec<Result<Acked, LeaseError>>;

/// What a thread is asked for.
pub(super) enum Job {
    /// To look a name up; its key, and itself if it is made already.
    Ask(Box<[u8]>, Option<Lookup>, Waiter),
    /// To see to a client whose answer the cache has.
    Land(Box<Miss>, Arc<Stored>),
    /// To take an answer that came by another way than UDP.
    Told(flight::Number, u32, Result<Reply, Failure>),
    /// To let the answers go whose leases the kernel has, or has not.
    Granted(u64, Granted),
}

/// Makes a thread's [`Arrivals`], in that thread.
pub(super) type Opening = Box<dyn FnOnce() -> Box<dyn Arrivals> + Send>;

/// Sees to clients whose questions have landed. Each thread has one of its own.
pub(super) trait Arrivals {
    /// A round of questions.
    fn land(&mut self, landed: Vec<Landed>, now: Instant);
    /// The kernel's word on a group that [`Arrivals::land`] asked for.
    fn granted(&mut self, group: u64, granted: Granted);
    /// Looks whether the kernel was silent for too long; says when to look again.
    fn look(&mut self, now: Instant) -> Option<Instant>;
    /// Sends what was written.
    fn send(&mut self);
}

/// The way to a thread.
pub(super) struct Inbox {
    jobs: Mutex<Vec<Job>>,
    wake: EventFd,
    ended: AtomicBool,
}

impl Inbox {
    fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { jobs: Mutex::default(), wake, ended: AtomicBool::new(false) })
    }

    /// Leaves jobs for the thread. Those that come after its end are dropped.
    pub fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut waiting = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        let slept = waiting.is_empty();
        waiting.extend(jobs);
        if slept && !waiting.is_empty() {
            drop(waiting);
            self.ring();
        }
    }

    fn ring(&self) {
        // It fails only when it has been rung 2^64 times.
        let _ = self.wake.write(1);
    }

    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(self.take());
        self.ring();
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The threads' inboxes, and what they share.
pub(super) struct Flights {
    inboxes: Vec<Arc<Inbox>>,
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
    /// Look-ups that one thread has open at most.
    most: usize,
}

/// Threads at work; they end when it is dropped, and whoever waits for them is told so.
pub(super) struct Flying(Vec<Arc<Inbox>>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.iter().for_each(|inbox| inbox.end());
    }
}

impl Flights {
    /// `threads`: how many there will be, at least one.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(pool: Pool, cache: Arc<Cache>, counters: Arc<Counters>, threads: usize) -> io::Result<Self> {
        let inboxes: Vec<_> = (0..threads.max(1)).map(|_| Inbox::new().map(Arc::new)).collect::<Result<_, _>>()?;
        let most = MAX_FLIGHTS / inboxes.len();
        Ok(Self { inboxes, shared: Arc::new(Shared { pool, cache, counters, most }) })
    }

    /// Starts the threads. `arrivals` makes what sees to their clients. Called inside the runtime that asks over TCP.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start(&self, arrivals: impl Fn(Arc<Inbox>) -> Opening) -> io::Result<Flying> {
        let flying = Flying(self.inboxes.clone());
        for inbox in &self.inboxes {
            thread::start(Arc::clone(&self.shared), Arc::clone(inbox), arrivals(Arc::clone(inbox)))?;
        }
        Ok(flying)
    }

    /// Asks for a name. Equal questions that are open at the same time go upstream once.
    pub fn ask(&self, lookup: &Lookup, waiter: Waiter) {
        let key: Box<[u8]> = lookup.key().into();
        self.inboxes[self.share(&key)].push([Job::Ask(key, Some(lookup.clone()), waiter)]);
    }

    /// Whose share a key is.
    pub fn share(&self, key: &[u8]) -> usize {
        part(key, self.inboxes.len())
    }

    /// Room for the jobs of a batch.
    pub fn departures(&self) -> Departures<'_> {
        Departures { flights: self, jobs: self.inboxes.iter().map(|_| Vec::new()).collect() }
    }
}

/// Jobs that go to the threads together.
pub(super) struct Departures<'f> {
    flights: &'f Flights,
    jobs: Vec<Vec<Job>>,
}

impl Departures<'_> {
    /// Adds a question, with its answer if the cache has it.
    pub fn add(&mut self, key: &[u8], stored: Option<Arc<Stored>>, miss: Miss) {
        let miss = Box::new(miss);
        self.jobs[self.flights.share(key)].push(match stored {
            Some(stored) => Job::Land(miss, stored),
            None => Job::Ask(key.into(), None, Waiter::Client(miss)),
        });
    }

    /// Hands all of them over.
    pub fn go(&mut self) {
        for (inbox, jobs) in self.flights.inboxes.iter().zip(&mut self.jobs) {
            if !jobs.is_empty() {
                inbox.push(jobs.drain(..));
            }
        }
    }
}
