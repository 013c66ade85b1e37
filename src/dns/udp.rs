//! The UDP side of the listener.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::datagram::{Head, answer, receive, report_space};
use super::interfaces::Interfaces;
use super::query::Transport;
use super::service::{Client, Service, Step};
use crate::core::judge::Judge;
use crate::core::lease::Leaser;

/// The largest query read, in octets; what is longer is no query.
const MAX_QUERY: usize = 4096;
/// Queries taken before others on the same worker get their turn.
const BATCH: usize = 64;

/// Serves one socket for ever. What can be answered without waiting is answered here; the rest gets a task, whose number
/// the service bounds.
pub(super) async fn serve<J: Judge, L: Leaser>(socket: UdpSocket, service: Arc<Service<J, L>>) {
    let socket = Arc::new(socket);
    let interfaces = Interfaces::default();
    let mut buffer = vec![0_u8; MAX_QUERY];
    let mut report = report_space();
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!(%error, "the DNS socket cannot be waited for");
            return;
        }
        for _ in 0..BATCH {
            match socket.try_io(Interest::READABLE, || receive(&*socket, &mut buffer, &mut report)) {
                Ok(head) => take(&socket, &service, &interfaces, head, &buffer[..head.length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Errors of earlier answers (nobody at the client's port) are reported here; they say nothing of the next.
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

fn take<J: Judge, L: Leaser>(
    socket: &Arc<UdpSocket>,
    service: &Arc<Service<J, L>>,
    interfaces: &Interfaces,
    head: Head,
    packet: &[u8],
) {
    if head.peer.port() == 0 {
        return;
    }
    let client = Client { source: head.peer.ip().to_canonical(), interface: interfaces.name(head.interface) };
    match service.take(packet, client, Transport::Udp) {
        Step::Drop => {}
        Step::Ready(bytes) => send(socket, &head, &bytes),
        Step::Later(mut work) => match (&mut work).now_or_never() {
            Some(bytes) => send(socket, &head, &bytes),
            None => {
                let socket = Arc::clone(socket);
                tokio::spawn(async move { send(&socket, &head, &work.await) });
            }
        },
    }
}

/// An answer that the kernel has no room for is lost, as any datagram may be: the client asks again.
fn send(socket: &UdpSocket, head: &Head, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Err(error) = answer(socket, head, bytes)
    {
        tracing::debug!(%error, peer = %head.peer, "an answer was not sent");
    }
}
