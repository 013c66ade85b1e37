//! The sockets that other name servers ask, and what each of them may take.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Protocol, SockRef, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::listen::socket;
use super::answer::{Answer, Transfer};
use super::{Settings, TransferError, Transfers, notify, seconds};

/// The longest question that is read, octets: name, signature and two long names fit.
const MAX_QUESTION: usize = 2048;
/// Octets that the system may hold for a reader; without it megabytes for each that does not read.
const SEND_BUFFER: usize = 256 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long somebody who is no secondary may take to ask.
const STRANGER: Duration = Duration::from_secs(5);
/// A pause after a failed accept or read, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets, not yet served.
pub struct Bound {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    transfers: Arc<Transfers>,
}

/// Takes the sockets.
///
/// # Errors
/// One of the addresses cannot be had.
pub fn bind(settings: Settings) -> Result<Bound, TransferError> {
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for &address in &settings.listen {
        let failed = |protocol| move |source| TransferError::Listen { address, protocol, source };
        let socket = bind_udp(address).map_err(failed("UDP"))?;
        // Port 0 (tests): TCP takes the port that UDP got.
        let address = socket.local_addr().unwrap_or(address);
        tcp.push(bind_tcp(address).map_err(failed("TCP"))?);
        udp.push(socket);
    }
    Ok(Bound { udp, tcp, transfers: Arc::new(Transfers::new(settings.secondaries, settings.limits)) })
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not wait for the old connections' last minutes.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Bound {
    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// What is served here.
    pub fn transfers(&self) -> Arc<Transfers> {
        Arc::clone(&self.transfers)
    }

    /// Answers, and tells of changes, until `shutdown` is over.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        let sources: Vec<IpAddr> = self.addresses().iter().map(SocketAddr::ip).collect();
        for peer in &self.transfers.peers {
            // A secondary listens to the address that it asks.
            let own = sources.iter().find(|source| source.is_ipv4() == peer.address.is_ipv4()).copied();
            tasks.spawn(notify::keep(Arc::clone(&self.transfers), Arc::clone(peer), own));
        }
        for socket in self.udp {
            tasks.spawn(datagrams(socket, Arc::clone(&self.transfers)));
        }
        let connections = Connections::default();
        for listener in self.tcp {
            tasks.spawn(accept(listener, Arc::clone(&self.transfers), connections.clone()));
        }
        tokio::select! {
            () = shutdown => {}
            () = async { while tasks.join_next().await.is_some() {} } => {}
        }
    }
}

async fn datagrams(socket: UdpSocket, transfers: Arc<Transfers>) {
    let mut packet = [0; MAX_QUESTION];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let answer = transfers.answer(&packet[..length], from.ip().to_canonical(), false, seconds());
        if let Answer::One(bytes) = answer {
            // What finds no room is asked for again.
            let _ = socket.try_send_to(&bytes, from);
        }
    }
}

async fn accept(listener: TcpListener, transfers: Arc<Transfers>, connections: Connections) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let source = from.ip().to_canonical();
                let known = transfers.is_known(source);
                let stranger = (!known).then(|| Arc::clone(&transfers.strangers).try_acquire_owned());
                let Ok(stranger) = stranger.transpose() else { continue };
                let Some(place) = connections.admit(source, transfers.limits.connections) else { continue };
                open.spawn(converse(stream, source, Arc::clone(&transfers), (place, stranger)));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whoever is no secondary has one question, and is told that it is refused.
async fn converse(
    mut stream: TcpStream,
    source: IpAddr,
    transfers: Arc<Transfers>,
    (_place, stranger): (Place, Option<OwnedSemaphorePermit>),
) {
    let limits = transfers.limits;
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let patience = if stranger.is_some() { STRANGER.min(limits.idle) } else { limits.idle };
    while let Ok(Some(question)) = timeout(patience, question(&mut stream)).await {
        let sent = match transfers.answer(&question, source, true, seconds()) {
            Answer::Nothing => return,
            Answer::One(message) => write(&mut stream, &message, limits.stall).await,
            Answer::Zone(transfer) => {
                let (peer, zone) = (Arc::clone(&transfer.peer), transfer.edition.name.clone());
                let sent = match timeout(limits.whole, send(&mut stream, *transfer, limits.stall)).await {
                    Ok(sent) => sent,
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long as a whole")),
                };
                if let Err(error) = &sent {
                    peer.trouble(format!("the transfer of {zone} did not end: {error}"));
                }
                sent
            }
        };
        if sent.is_err() || stranger.is_some() {
            return;
        }
    }
}

/// One question with its length in front (RFC 1035 section 4.2.2); `None`: there is no other one, or it is too long.
async fn question(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > MAX_QUESTION {
        return None;
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await.ok()?;
    Some(question)
}

async fn write(stream: &mut TcpStream, message: &[u8], stall: Duration) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("a message is too long"))?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    let written = timeout(stall, stream.write_all(&framed)).await;
    written.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read")))
}

async fn send(stream: &mut TcpStream, mut transfer: Transfer, stall: Duration) -> io::Result<()> {
    let slots = Arc::clone(&transfer.peer.slots);
    let Ok(Ok(_slot)) = timeout(stall, slots.acquire()).await else {
        transfer.peer.trouble("it asked for too many transfers at once".to_owned());
        return write(stream, &transfer.fail(seconds()), stall).await;
    };
    while let Some(mut message) = transfer.stream.next() {
        if let Some(signer) = &mut transfer.signer {
            signer.sign(&mut message, seconds());
        }
        write(stream, &message, stall).await?;
    }
    transfer.peer.has(&transfer.edition.name, transfer.edition.serial);
    Ok(())
}

/// The connections that are open, by source.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open connection; free again when dropped.
struct Place(Connections, IpAddr);

impl Connections {
    fn admit(&self, source: IpAddr, most: usize) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        (*count < most).then(|| {
            *count += 1;
            Place(self.clone(), source)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}
