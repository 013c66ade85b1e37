//! The UDP side of the listener: one thread for each socket, so that nothing that waits holds up what need not.

use std::io;
use std::net::{Shutdown, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::runtime::Handle;

use super::answers::Answers;
use super::arrivals::Arrivals;
use super::batch::Queries;
use super::budget::Grant;
use super::datagram::{Head, answer};
use super::flights::{Flying, Miss};
use super::interfaces::Interfaces;
use super::query::Transport;
use super::quick::{Quick, Turn};
use super::service::{Client, Service, Step};
use crate::core::judge::Judge;
use crate::core::lease::Leaser;

/// After this time without a query a receiver looks whether the end has come; the end itself wakes it sooner.
const LOOK: Duration = Duration::from_secs(1);
/// A pause after an error of the socket that says nothing about the next datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Receivers at work; they end when it is dropped.
pub(super) struct Receivers {
    ended: Arc<AtomicBool>,
    sockets: Vec<Arc<UdpSocket>>,
    _flying: Flying,
}

impl Receivers {
    /// Starts one thread for each socket. Called inside the runtime that queries wait in.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start<J: Judge, L: Leaser>(
        sockets: impl Iterator<Item = UdpSocket>,
        service: &Arc<Service<J, L>>,
    ) -> io::Result<Self> {
        let sockets: Vec<Arc<UdpSocket>> = sockets.map(Arc::new).collect();
        let flights = &service.resolver.flights;
        let flying = flights.start(|inbox| Arrivals::opening(service, inbox, &sockets))?;
        let receivers = Self { ended: Arc::default(), sockets, _flying: flying };
        for (number, socket) in receivers.sockets.iter().enumerate() {
            socket.set_read_timeout(Some(LOOK))?;
            let receiver = Receiver {
                number,
                socket: Arc::clone(socket),
                ended: Arc::clone(&receivers.ended),
                service: Arc::clone(service),
                runtime: Handle::current(),
            };
            std::thread::Builder::new().name("dns".into()).spawn(move || receiver.keep_serving())?;
        }
        Ok(receivers)
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for socket in &self.sockets {
            // Says "not connected", and wakes whoever waits. Answers that are on their way still go.
            let _ = SockRef::from(&**socket).shutdown(Shutdown::Read);
        }
    }
}

struct Receiver<J, L> {
    number: usize,
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    service: Arc<Service<J, L>>,
    runtime: Handle,
}

impl<J: Judge, L: Leaser> Receiver<J, L> {
    /// Serves the socket until the end, whatever a packet does to it: a socket that nobody reads would swallow the queries
    /// that the kernel still gives to it. The batch is lost; clients ask again.
    fn keep_serving(self) {
        let _inside = self.runtime.enter();
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            tracing::error!("a fault in clawgress, please report it: a query made a receiver fail");
        }
    }

    /// Serves the socket until the end. What can be answered without waiting is answered here, batch by batch; the rest
    /// gets a task, whose number the service bounds.
    fn serve(&self) {
        let mut interfaces = Interfaces::default();
        let (mut queries, mut answers) = (Queries::new(), Answers::new());
        let mut departures = self.service.resolver.flights.departures();
        loop {
            let received = queries.receive(self.socket.as_raw_fd(), || self.ended.load(Ordering::SeqCst));
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            if received.is_err() {
                // Errors of earlier answers (nobody at the client's port) come here, too.
                std::thread::sleep(ERROR_PAUSE);
                continue;
            }
            let mut turn = Turn::begin(&self.service);
            for (head, packet) in queries.iter().filter(|(head, _)| head.peer.port() != 0) {
                let source = head.peer.ip().to_canonical();
                let interface = interfaces.name(head.interface, turn.now());
                match turn.answer(packet, source, interface.as_deref(), answers.room()) {
                    Quick::Told => answers.take(head),
                    Quick::Dropped => {}
                    Quick::Waits(host, stored) => {
                        let client = Client { source, interface };
                        match self.service.admit(host, source, stored.as_deref(), turn.now()) {
                            Some(ticket) => {
                                let socket = self.number;
                                let miss = Miss { socket, head, packet: packet.into(), client, _ticket: ticket };
                                departures.add(turn.key(), stored, miss);
                            }
                            None => self.take(head, packet, client, Some(Grant::Within), &mut answers),
                        }
                    }
                    Quick::Long(grant) => {
                        self.take(head, packet, Client { source, interface }, grant, &mut answers);
                    }
                }
            }
            drop(turn);
            departures.go();
            answers.send(&*self.socket);
        }
    }

    fn take(&self, head: Head, packet: &[u8], client: Client, grant: Option<Grant>, answers: &mut Answers) {
        let mut reply = |bytes: Vec<u8>| {
            if !bytes.is_empty() {
                *answers.room() = bytes;
                answers.take(head);
            }
        };
        match self.service.take(packet, client, Transport::Udp, grant) {
            Step::Drop => {}
            Step::Ready(bytes) => reply(bytes),
            Step::Later(mut work) => match (&mut work).now_or_never() {
                Some(bytes) => reply(bytes),
                None => {
                    let socket = Arc::clone(&self.socket);
                    self.runtime.spawn(async move { send(&socket, &head, &work.await) });
                }
            },
        }
    }
}

/// An answer that the kernel has no room for is lost, as any datagram may be: the client asks again.
pub(super) fn send(socket: &UdpSocket, head: &Head, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Err(error) = answer(socket, head, bytes)
    {
        tracing::debug!(%error, peer = %head.peer, "an answer was not sent");
    }
}
