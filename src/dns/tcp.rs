//! The TCP side of the listener: hickory's framing, queue and idle timeout under an accept loop of our own.
//!
//! hickory's own `Server` accepts connections without limit and answers the queries of one connection in turn, so that
//! one slow name holds up all others (measured in 0.26.3); here every query has its own task and a source has few
//! connections. The answers are the same octets that UDP would send.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::tcp::TcpStream as Framed;
use hickory_net::{BufDnsStreamHandle, DnsStreamHandle};
use hickory_proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::counters::Counters;
use super::interfaces::by_route;
use super::query::Transport;
use super::service::{Client, Service, Step};
use crate::core::judge::Judge;
use crate::core::lease::{HostId, Leaser};

/// Connections at most, over all sources.
const MAX_CONNECTIONS: usize = 4096;
/// Connections of one host at most: a host may own more addresses than there are connections.
const MAX_PER_HOST: usize = 256;
/// The same for all clients together that belong to no host, and for those outside the scope.
const MAX_PER_REST: usize = 1024;
/// Connections of one source address at most.
const MAX_PER_SOURCE: usize = 32;
/// A connection without a new query for this long is closed (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Answers that wait on one connection for a client that does not read; further ones are lost.
const MAX_UNREAD: usize = 256;
/// A pause after a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one listener for ever.
pub(super) async fn serve<J: Judge, L: Leaser>(
    listener: TcpListener,
    service: Arc<Service<J, L>>,
    connections: Connections,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let client = Client { source: peer.ip().to_canonical(), interface: by_route(peer) };
                match connections.admit(peer.ip(), service.host(&client)) {
                    Some(place) => {
                        tokio::spawn(converse(stream, peer, client, Arc::clone(&service), place));
                    }
                    None => Counters::bump(&service.counters.dropped_overload),
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse<J: Judge, L: Leaser>(
    stream: TcpStream,
    peer: SocketAddr,
    client: Client,
    service: Arc<Service<J, L>>,
    _place: Place,
) {
    let _ = stream.set_nodelay(true);
    let (framed, answers) = Framed::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), peer, MAX_UNREAD);
    let mut queries = TimeoutStream::new(framed, IDLE);
    // They end with the connection: nobody reads their answers any more.
    let mut waiting = JoinSet::new();
    while let Some(packet) = queries.next().await {
        let Ok(packet) = packet else { return };
        while waiting.try_join_next().is_some() {}
        match service.take(packet.bytes(), client.clone(), Transport::Tcp, None) {
            // Whoever sends what is no query has no business here.
            Step::Drop => return,
            Step::Ready(bytes) => send(answers.clone(), peer, bytes),
            Step::Later(work) => {
                let answers = answers.clone();
                waiting.spawn(async move { send(answers, peer, work.await) });
            }
        }
    }
    // The client has nothing more to ask but may still listen; the last poll writes what is left.
    while waiting.join_next().await.is_some() {}
    let _ = queries.next().await;
}

fn send(mut answers: BufDnsStreamHandle, peer: SocketAddr, bytes: Vec<u8>) {
    if let Err(error) = answers.send(SerialMessage::new(bytes, peer)) {
        tracing::debug!(%error, %peer, "an answer was not sent");
    }
}

/// The connections that are open.
#[derive(Clone, Default)]
pub(super) struct Connections {
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
    by_host: HashMap<HostId, usize>,
}

/// One open connection; free again when dropped.
pub(super) struct Place {
    connections: Connections,
    source: IpAddr,
    host: HostId,
}

impl Connections {
    fn admit(&self, source: IpAddr, host: HostId) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let by_source = open.by_source.get(&source).copied().unwrap_or(0);
        let by_host = open.by_host.get(&host).copied().unwrap_or(0);
        let most = if host >= HostId::FIRST { MAX_PER_HOST } else { MAX_PER_REST };
        if open.total >= MAX_CONNECTIONS || by_source >= MAX_PER_SOURCE || by_host >= most {
            return None;
        }
        open.total += 1;
        open.by_source.insert(source, by_source + 1);
        open.by_host.insert(host, by_host + 1);
        Some(Place { connections: self.clone(), source, host })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        one_less(&mut open.by_source, self.source);
        one_less(&mut open.by_host, self.host);
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
