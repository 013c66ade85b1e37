//! The listener: sockets, TLS, and limits on how long a client may take.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::body::Room;
use super::brake::Brake;
use super::call::{Desk, Peer, router};
use super::connections::{Connections, Place};
use super::keys::Keys;
use super::{Ask, State, tls};
use crate::settings::Api;

/// How long the head of a call may take, and before it the TLS handshake.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may last, its answer included: a large policy on a slow router, and a client that reads slowly.
const CONNECTION_TIME: Duration = Duration::from_secs(180);
/// The longest head of a call, bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Header lines of one call.
const MAX_HEADERS: usize = 64;
/// How long after a failure to listen the next try comes: an address may not be there yet.
const AGAIN: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted.
const NEXT_ACCEPT: Duration = Duration::from_millis(100);
/// How long the end waits for answers on their way.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Answers until `stopped` is over. What is missing (a port, a certificate) is told in `state`, and tried again. Settings
/// that are sent take effect at once, for calls that come after them; their files are read again even if they are the same.
pub async fn serve(mut settings: watch::Receiver<Api>, ask: Ask, state: Arc<State>, stopped: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let house =
        House { ask, brake: Arc::default(), room: Room::default(), connections: Connections::default(), stopping };
    let work = async {
        let mut listener = None;
        loop {
            let wanted = settings.borrow_and_update().clone();
            if wanted.keys.is_empty() && !wanted.metrics {
                listener = None;
                state.is_off();
                if settings.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match open(&wanted, listener.take(), &house).await {
                Ok(door) => {
                    let how = if door.tls.is_some() { "https" } else { "http" };
                    let told = format!("listening on {how}://{}", wanted.listen);
                    info!("REST API: {told}");
                    state.tell(Ok(told));
                    tokio::select! {
                        () = accept(&door, &house) => {}
                        _ = settings.changed() => {}
                    }
                    listener = Some(door.listener);
                }
                Err(why) => {
                    if state.tell(Err(why.clone())) {
                        warn!("no REST API: {why}; trying again");
                    }
                    let _ = timeout(AGAIN, settings.changed()).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
    // A change on its way is ended and answered; who has not asked yet is not waited for.
    let _ = stop.send(true);
    let empty = async {
        while !house.connections.is_empty() {
            sleep(LOOK).await;
        }
    };
    let _ = timeout(LAST_ANSWERS, empty).await;
}

/// What outlives a change of settings.
struct House {
    ask: Ask,
    brake: Arc<Brake>,
    room: Room,
    connections: Connections,
    stopping: watch::Receiver<bool>,
}

/// All that a connection needs.
struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
}

/// `listener`: the one so far.
async fn open(settings: &Api, listener: Option<TcpListener>, house: &House) -> Result<Door, String> {
    let (keys, odd) = Keys::load(&settings.keys)?;
    let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
    let listen = settings.listen;
    let same = listener.filter(|listener| listener.local_addr().is_ok_and(|address| address == listen));
    let listener = match same {
        Some(listener) => listener,
        None => TcpListener::bind(listen).await.map_err(|error| unbound(listen, &error))?,
    };
    for sentence in odd {
        warn!("REST API: {sentence}");
    }
    if tls.is_none() && !listen.ip().is_loopback() {
        warn!("REST API: keys travel in the clear on {listen}; set api.tls, or listen on 127.0.0.1 behind a proxy");
    }
    let (brake, room, ask) = (Arc::clone(&house.brake), house.room.clone(), Arc::clone(&house.ask));
    Ok(Door { listener, tls, router: router(&Arc::new(Desk { keys, brake, room, ask }), settings.metrics) })
}

fn unbound(listen: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{listen} is taken by another program; stop it or choose another api.listen")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine (yet); see api.listen", listen.ip())
        }
        _ => format!("cannot listen on {listen}: {}", crate::store::words(error)),
    }
}

async fn accept(door: &Door, house: &House) {
    loop {
        let Ok((stream, peer)) = door.listener.accept().await else {
            sleep(NEXT_ACCEPT).await;
            continue;
        };
        let source = peer.ip().to_canonical();
        // Closed without a word: an answer would cost what there is too little of.
        let Some(place) = house.connections.admit(source) else { continue };
        let (router, tls) = (door.router.clone(), door.tls.clone());
        tokio::spawn(attend(stream, peer, source, place, router, tls, house.stopping.clone()));
    }
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    source: IpAddr,
    place: Place,
    router: Router,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
) {
    let _place = place;
    let _ = stream.set_nodelay(true);
    let router = router.layer(Extension(Peer(source)));
    let work = async {
        match tls {
            None => converse(stream, router, stopping).await,
            Some(tls) => match timeout(HEAD_TIME, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, router, stopping).await,
                Ok(Err(error)) => tracing::debug!("no TLS with {peer}: {error}"),
                Err(_) => {}
            },
        }
    };
    let _ = timeout(CONNECTION_TIME, work).await;
}

/// One call and its answer. A connection is for one call: who has nothing to say has no place.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let stopped = async {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}
