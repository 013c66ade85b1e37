//! A thread that keeps look-ups open.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::flight::{Attempt, Due, Flight, Number};
use super::ports::{Ports, Received};
use super::{Arrivals, Inbox, Job, Landed, Opening, Outcome, Shared, Waiter};
use crate::dns::cache::Stored;
use crate::dns::counters::Counters;
use crate::dns::resolver::Found;
use crate::dns::upstream::{Asked, BUDGET, Failure, Lookup, Match, Reply, Way, ask_encrypted, good};

/// The largest datagram read, in octets; upstreams are told 1232.
const DATAGRAM: usize = 4096;
/// Sockets that are looked at in one round.
const EVENTS: usize = 256;
/// The mark of the inbox among the sockets.
const INBOX: u64 = u64::MAX;
/// Less than this nobody waits.
const TICK: Duration = Duration::from_millis(1);

/// Starts a thread; it ends with its inbox.
pub(super) fn start(shared: Arc<Shared>, inbox: Arc<Inbox>, opening: Opening) -> io::Result<()> {
    let runtime = Handle::current();
    let mut thread = Thread::new(shared, inbox, runtime.clone())?;
    let work = move || {
        let _inside = runtime.enter();
        let mut arrivals = opening();
        while catch_unwind(AssertUnwindSafe(|| thread.fly(&mut *arrivals))).is_err() {
            // Those who waited are told by their own ends.
            thread.crash();
            tracing::error!("a fault in clawgress, please report it: an answer made a look-up fail");
        }
    };
    std::thread::Builder::new().name("flights".into()).spawn(work).map(drop)
}

struct Thread {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    runtime: Handle,
    epoll: Epoll,
    ports: Ports,
    flights: HashMap<Number, Flight>,
    by_key: HashMap<Box<[u8]>, Number>,
    next: Number,
    /// When something is due in which look-up; it may have ended before.
    due: BinaryHeap<Reverse<(Instant, Number)>>,
    landed: Vec<Landed>,
}

impl Thread {
    fn new(shared: Arc<Shared>, inbox: Arc<Inbox>, runtime: Handle) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*inbox, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, INBOX))?;
        let ports = Ports::new(shared.pool.len(), Instant::now());
        Ok(Self {
            shared,
            inbox,
            runtime,
            epoll,
            ports,
            flights: HashMap::new(),
            by_key: HashMap::new(),
            next: 0,
            due: BinaryHeap::new(),
            landed: Vec::new(),
        })
    }

    /// Round by round until the end.
    fn fly(&mut self, arrivals: &mut dyn Arrivals) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut buffer = [0; DATAGRAM];
        let mut look = None;
        loop {
            let count = self.epoll.wait(&mut events, self.patience(look)).unwrap_or(0);
            if self.inbox.ended.load(Ordering::SeqCst) {
                return;
            }
            let now = Instant::now();
            for job in self.inbox.take() {
                self.work(job, arrivals, now);
            }
            for event in events[..count].iter().filter(|event| event.data() != INBOX) {
                self.receive(event.data() as usize, &mut buffer, now);
            }
            self.see_to_what_is_due(now);
            self.break_off(now);
            if !self.landed.is_empty() {
                arrivals.land(std::mem::take(&mut self.landed), now);
            }
            look = arrivals.look(now);
            arrivals.send();
            self.ports.look(now);
        }
    }

    /// For how long nothing is due.
    fn patience(&self, look: Option<Instant>) -> EpollTimeout {
        let due = self.due.peek().map(|Reverse((due, _))| *due);
        let Some(next) = [due, look, self.ports.next_look()].into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be a busy one.
        let left = if left.is_zero() { left } else { left + TICK };
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    /// A fault: every look-up is given up.
    fn crash(&mut self) {
        self.flights.clear();
        self.by_key.clear();
        self.due.clear();
        self.landed.clear();
        self.ports = Ports::new(self.shared.pool.len(), Instant::now());
    }

    fn work(&mut self, job: Job, arrivals: &mut dyn Arrivals, now: Instant) {
        match job {
            Job::Ask(key, lookup, waiter) => self.board(key, lookup, waiter, now),
            Job::Land(miss, stored) => {
                let found = Found::stored(&stored, now);
                self.landed.push(Landed { miss, outcome: Ok((found, Some(stored))) });
            }
            Job::Told(number, attempt, result) => self.told(number, attempt, result, now),
            Job::Granted(group, granted) => arrivals.granted(group, granted),
        }
    }

    /// Joins the open look-up for a question, or opens one.
    fn board(&mut self, key: Box<[u8]>, lookup: Option<Lookup>, waiter: Waiter, now: Instant) {
        if let Some(flight) = self.by_key.get(&key).and_then(|number| self.flights.get_mut(number)) {
            return flight.waiters.push(waiter);
        }
        if self.flights.len() >= self.shared.most {
            return self.arrive(waiter, &Err(Failure::Overload), None);
        }
        let Some(lookup) = lookup.or_else(|| Lookup::of_key(&key)) else {
            let failure = Failure::Network("the question has no name".to_owned());
            return self.arrive(waiter, &Err(failure), None);
        };
        let mut flight = Flight::new(lookup, key.clone(), &self.shared.pool, now);
        flight.waiters.push(waiter);
        let number = self.next;
        self.next += 1;
        self.by_key.insert(key, number);
        self.flights.insert(number, flight);
        self.go_on(number, now);
    }

    /// Does what is due in a look-up.
    fn go_on(&mut self, number: Number, now: Instant) {
        loop {
            let shared = Arc::clone(&self.shared);
            let Some(flight) = self.flights.get_mut(&number) else { return };
            match flight.due(&shared.pool, now) {
                Due::Wait(until) => return self.due.push(Reverse((until, number))),
                Due::Failed => {
                    let failure = flight.failure.clone();
                    return self.fail(number, failure, now);
                }
                Due::TooLate => {
                    Counters::bump(&shared.counters.upstream_timeouts);
                    flight.asked().for_each(|upstream| shared.pool.failed(upstream));
                    return self.fail(number, Failure::Timeout, now);
                }
                Due::Ask(upstream, attempt) => {
                    Counters::bump(&shared.counters.upstream_queries);
                    if let Err(failure) = self.ask(number, upstream, attempt, now) {
                        shared.pool.failed(upstream);
                        if let Some(flight) = self.flights.get_mut(&number) {
                            flight.failed(failure, now);
                        }
                    }
                }
            }
        }
    }

    fn ask(&mut self, number: Number, upstream: usize, attempt: u32, now: Instant) -> Result<(), Failure> {
        let Some(flight) = self.flights.get_mut(&number) else { return Ok(()) };
        let mut open = Attempt { number: attempt, upstream, since: now, asked: None, place: None };
        match self.shared.pool.way(upstream) {
            Way::Plain(plain) => {
                let coins = plain.keeps_case().then(|| self.ports.random());
                let mut asked = Asked::new(&flight.key, coins)?;
                let to = (upstream, plain.address());
                let place = self.ports.send(&self.epoll, to, &mut asked, number, now)?;
                open.place = Some(place.map_err(|error| plain.broken(&error))?);
                open.asked = Some(asked);
            }
            Way::Encrypted(encrypted) => {
                let work = ask_encrypted(Arc::clone(encrypted), flight.lookup.clone());
                let inbox = Arc::clone(&self.inbox);
                self.runtime.spawn(async move { inbox.push([Job::Told(number, attempt, work.await)]) });
            }
        }
        flight.open.push(open);
        Ok(())
    }

    /// Takes what came by a socket.
    fn receive(&mut self, slot: usize, buffer: &mut [u8], now: Instant) {
        let Received::Datagram(length) = self.ports.receive(slot, buffer) else { return };
        let datagram = &buffer[..length];
        // What is not the answer is not worth a word: anybody can send it.
        let Some([high, low, ..]) = datagram.get(..2) else { return };
        let id = u16::from_be_bytes([*high, *low]);
        let Some((place, number)) = self.ports.awaited(slot, id) else { return };
        let Some(flight) = self.flights.get_mut(&number) else { return self.ports.leave(place, number) };
        let Some(attempt) = flight.open.iter_mut().find(|attempt| attempt.place == Some(place)) else { return };
        let (Some(asked), Way::Plain(plain)) = (&attempt.asked, self.shared.pool.way(attempt.upstream)) else { return };
        let spelling = asked.answered(datagram);
        if spelling == Match::No {
            return;
        }
        let Ok(message) = Message::from_vec(datagram) else { return };
        self.ports.leave(place, number);
        attempt.place = None;
        let doubt = plain.keeps_case() && spelling == Match::Spelling;
        let attempt_number = attempt.number;
        if doubt || message.metadata.truncation {
            let (plain, asked, inbox) = (Arc::clone(plain), asked.clone(), Arc::clone(&self.inbox));
            self.runtime.spawn(async move {
                let told = timeout(BUDGET, plain.by_tcp(&asked, doubt)).await.unwrap_or(Err(Failure::Timeout));
                inbox.push([Job::Told(number, attempt_number, told)]);
            });
            return;
        }
        self.told(number, attempt_number, Ok(Reply { message, length }), now);
    }

    /// An upstream answered, or could not be asked.
    fn told(&mut self, number: Number, attempt: u32, result: Result<Reply, Failure>, now: Instant) {
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let Some(place) = flight.open.iter().position(|open| open.number == attempt) else { return };
        let attempt = flight.open.swap_remove(place);
        if let Some(place) = attempt.place {
            self.ports.leave(place, number);
        }
        match result.and_then(good) {
            Ok(reply) => {
                self.shared.pool.answered(attempt.upstream, now.saturating_duration_since(attempt.since));
                // Whoever was asked earlier and is still silent has had its time.
                flight.late(attempt.upstream).for_each(|upstream| self.shared.pool.failed(upstream));
                let message = Arc::new(reply.message);
                let stored = self.shared.cache.put(&flight.lookup, &message, reply.length, now);
                self.shared.pool.ended(Ok(()));
                self.end(number, &Ok(Found { message, age: 0, stale: false }), stored);
            }
            Err(failure) => {
                self.shared.pool.failed(attempt.upstream);
                flight.failed(failure, now);
                self.go_on(number, now);
            }
        }
    }

    /// Nobody answers: what was the answer until lately will do.
    fn fail(&mut self, number: Number, failure: Failure, now: Instant) {
        let Some(flight) = self.flights.get(&number) else { return };
        self.shared.pool.ended(Err(&failure));
        let old = self.shared.cache.stale(&flight.lookup, now);
        let outcome = match &old {
            Some(old) => {
                if old.stale {
                    Counters::bump(&self.shared.counters.stale);
                }
                Ok(Found::stored(old, now))
            }
            None => Err(failure),
        };
        self.end(number, &outcome, old);
    }

    fn end(&mut self, number: Number, outcome: &Outcome, stored: Option<Arc<Stored>>) {
        let Some(flight) = self.flights.remove(&number) else { return };
        self.by_key.remove(&flight.key);
        flight.open.iter().filter_map(|attempt| attempt.place).for_each(|place| self.ports.leave(place, number));
        for waiter in flight.waiters {
            self.arrive(waiter, outcome, stored.as_ref());
        }
    }

    fn arrive(&mut self, waiter: Waiter, outcome: &Outcome, stored: Option<&Arc<Stored>>) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Task(task) => {
                let _ = task.send(outcome.clone());
            }
            Waiter::Client(miss) => {
                let outcome = outcome.clone().map(|found| (found, stored.cloned()));
                self.landed.push(Landed { miss, outcome });
            }
        }
    }

    /// Those whose sockets lead nowhere ask somebody else, until there is nobody: each look-up has a few questions only.
    fn break_off(&mut self, now: Instant) {
        loop {
            let broken = self.ports.broken();
            if broken.is_empty() {
                return;
            }
            for (error, number) in broken {
                let Some(flight) = self.flights.get(&number) else { continue };
                let gone = |attempt: &&Attempt| attempt.place.is_some_and(|place| !self.ports.awaits(place, number));
                let Some(attempt) = flight.open.iter().find(gone) else { continue };
                let Way::Plain(plain) = self.shared.pool.way(attempt.upstream) else { continue };
                let failure = plain.broken(&error.into());
                self.told(number, attempt.number, Err(failure), now);
            }
        }
    }

    fn see_to_what_is_due(&mut self, now: Instant) {
        while let Some(Reverse((due, number))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            self.go_on(number, now);
        }
    }
}
