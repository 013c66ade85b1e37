//! Clients by UDP whose questions had to wait, once the answers are there.
//!
//! The answers of a round are decided and written as the quick way does it; what they need leased goes to the kernel as
//! one group, and they go out together when it has said yes. What is not plain goes the long way.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::runtime::Handle;

use super::answers::Answers;
use super::cache::Stored;
use super::flights::{self, Granted, Inbox, Job, Landed, Miss, Opening};
use super::query::{Parsed, Query, Transport, parse};
use super::quick::{Decided, Landing, Turn};
use super::resolver::Found;
use super::service::{LEASE_TIME, Service, silence};
use super::udp;
use crate::core::judge::Judge;
use crate::core::lease::{Acked, LeaseError, LeaseRequest, Leaser};

/// See the module.
pub(super) struct Arrivals<J, L> {
    service: Weak<Service<J, L>>,
    inbox: Arc<Inbox>,
    runtime: Handle,
    /// The driver's sockets, and the answers that go by them.
    ways: Vec<(Arc<UdpSocket>, Answers)>,
    /// Answers that wait for the kernel, the oldest first.
    groups: VecDeque<Group>,
    next: u64,
}

struct Group {
    number: u64,
    since: Instant,
    waiting: Vec<Waiting>,
}

struct Waiting {
    miss: Box<Miss>,
    stored: Arc<Stored>,
    found: Found,
    decided: Decided,
}

impl<J: Judge, L: Leaser> Arrivals<J, L> {
    /// What makes one. Called inside the runtime that long ways go in.
    pub fn opening(service: &Arc<Service<J, L>>, inbox: Arc<Inbox>, sockets: &[Arc<UdpSocket>]) -> Opening {
        let (service, runtime, sockets) = (Arc::downgrade(service), Handle::current(), sockets.to_vec());
        Box::new(|| {
            let ways = sockets.into_iter().map(|socket| (socket, Answers::new())).collect();
            Box::new(Self { service, inbox, runtime, ways, groups: VecDeque::new(), next: 0 })
        })
    }

    /// Writes an answer in another way than the quick one.
    fn reply(&mut self, miss: &Miss, answer: impl FnOnce(&Query) -> Vec<u8>) {
        let Some((_, answers)) = self.ways.get_mut(miss.socket) else { return };
        if let Parsed::Query(query) = parse(&miss.packet, Transport::Udp) {
            *answers.room() = answer(&query);
            answers.take(miss.head);
        }
    }

    /// Decides, filters and leases in a task. `before`: the revision by which that was done already, in vain.
    fn go_the_long_way(&self, service: &Arc<Service<J, L>>, miss: Box<Miss>, found: Found, before: Option<u64>) {
        let Some((socket, _)) = self.ways.get(miss.socket) else { return };
        let (service, socket) = (Arc::clone(service), Arc::clone(socket));
        self.runtime.spawn(async move {
            let Parsed::Query(query) = parse(&miss.packet, Transport::Udp) else { return };
            let answer = service.found(&query, &miss.client, &found, before).await;
            udp::send(&socket, &miss.head, &answer);
        });
    }

    fn lease(
        &mut self,
        service: &Arc<Service<J, L>>,
        requests: Vec<LeaseRequest>,
        waiting: Vec<Waiting>,
        now: Instant,
    ) {
        let (number, inbox) = (self.next, Arc::clone(&self.inbox));
        // What the kernel said before the question was out of hand.
        let at_once: Arc<Mutex<Option<Granted>>> = Arc::default();
        let slot = Arc::clone(&at_once);
        self.next += 1;
        self.groups.push_back(Group { number, since: now, waiting });
        let own = std::thread::current().id();
        let tell = move |granted| {
            // From here it need not go by the inbox, which would be another round.
            if std::thread::current().id() == own {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
            } else {
                inbox.push([Job::Granted(number, granted)]);
            }
        };
        service.leaser.lease_all(requests, Box::new(tell));
        let granted = at_once.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(granted) = granted {
            self.release(number, granted, service);
        }
    }

    /// Lets the answers go whose leases the kernel has.
    fn release(&mut self, group: u64, granted: Granted, service: &Arc<Service<J, L>>) {
        // It may have been given up.
        let Some(place) = self.groups.iter().position(|waiting| waiting.number == group) else { return };
        let Some(group) = self.groups.remove(place) else { return };
        let mut turn = Turn::begin(service);
        for (waiting, granted) in group.waiting.into_iter().zip(granted) {
            self.take(waiting, granted, &mut turn, service);
        }
    }

    fn take(
        &mut self,
        waiting: Waiting,
        granted: Result<Acked, LeaseError>,
        turn: &mut Turn<'_, J, L>,
        service: &Arc<Service<J, L>>,
    ) {
        let Waiting { miss, stored, found, decided } = waiting;
        match granted {
            Ok(acked) => {
                let Some((_, answers)) = self.ways.get_mut(miss.socket) else { return };
                if turn.tell_leased(&miss.packet, &decided, &stored, acked, answers.room()) {
                    answers.take(miss.head);
                }
            }
            // Another revision, or a window's edge: decide again.
            Err(LeaseError::Stale) => self.go_the_long_way(service, miss, found, Some(decided.revision())),
            Err(error) => self.reply(&miss, |query| service.not_leased(query, &error)),
        }
    }
}

impl<J: Judge, L: Leaser> flights::Arrivals for Arrivals<J, L> {
    fn land(&mut self, landed: Vec<Landed>, now: Instant) {
        let Some(service) = self.service.upgrade() else { return };
        let mut turn = Turn::begin(&service);
        let (mut requests, mut waiting) = (Vec::new(), Vec::new());
        for Landed { miss, outcome } in landed {
            let (found, stored) = match outcome {
                Ok((found, Some(stored))) => (found, stored),
                Ok((found, None)) => {
                    self.go_the_long_way(&service, miss, found, None);
                    continue;
                }
                Err(failure) => {
                    self.reply(&miss, |query| service.no_answer(query, &failure));
                    continue;
                }
            };
            let Some((_, answers)) = self.ways.get_mut(miss.socket) else { continue };
            let interface = miss.client.interface.as_deref();
            match turn.land(&miss.packet, miss.client.source, interface, &stored, answers.room()) {
                Landing::Told => answers.take(miss.head),
                Landing::Long => self.go_the_long_way(&service, miss, found, None),
                Landing::Leases(request, decided) => {
                    requests.push(request);
                    waiting.push(Waiting { miss, stored, found, decided });
                }
            }
        }
        drop(turn);
        if !requests.is_empty() {
            self.lease(&service, requests, waiting, now);
        }
    }

    fn granted(&mut self, group: u64, granted: Granted) {
        if let Some(service) = self.service.upgrade() {
            self.release(group, granted, &service);
        }
    }

    fn look(&mut self, now: Instant) -> Option<Instant> {
        while self.groups.front().is_some_and(|group| now >= group.since + LEASE_TIME) {
            let (Some(group), Some(service)) = (self.groups.pop_front(), self.service.upgrade()) else { break };
            for Waiting { miss, .. } in group.waiting {
                self.reply(&miss, |query| service.not_leased(query, &silence()));
            }
        }
        self.groups.front().map(|group| group.since + LEASE_TIME)
    }

    fn send(&mut self) {
        for (socket, answers) in &mut self.ways {
            answers.send(&**socket);
        }
    }
}
