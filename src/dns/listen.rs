//! The sockets.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::budget::Budget;
use super::counters::Counters;
use super::datagram::report_destination;
use super::interfaces::is_local;
use super::pending::Pending;
use super::resolver::Resolver;
use super::service::{JudgeSource, Service};
use super::settings::{OutOfScope, Settings};
use super::tcp;
use super::tcp::Connections;
use super::udp::Receivers;
use super::upstream::{Pool, from_resolv_conf, tls_config};
use crate::core::judge::Judge;
use crate::core::lease::Leaser;
use crate::core::observe::Observer;

/// Room for queries that arrive while the others are answered, in octets: some 10 000 of them.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Room for answers on their way out, in octets.
const SEND_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// File descriptors wanted: one or two for every look-up that waits, and the connections.
const DESCRIPTORS: u64 = 32_768;
/// Where the system's name servers are written, if the settings name no upstream.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Another program has the port.
    #[error(
        "cannot listen on {address} ({protocol}): another program has the port; see who with: {command}, \
         then stop it or give clawgress other addresses in dns.listen"
    )]
    InUse {
        /// The address that is taken.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// What shows the other program.
        command: String,
    },
    /// The address cannot be had for another reason.
    #[error("cannot listen on {address} ({protocol}): {source}{hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// What the system said.
        source: io::Error,
        /// What to do about it, if known.
        hint: &'static str,
    },
    /// The settings name no address to listen on.
    #[error("dns.listen is empty: name at least one address, such as 0.0.0.0:53")]
    NoAddress,
    /// Nobody to ask.
    #[error("no upstream: name one in dns.upstreams, such as \"tls://9.9.9.9#dns.quad9.net\" ({0})")]
    NoUpstream(String),
    /// An upstream is this daemon.
    #[error("dns.upstreams: {0} is this daemon itself, so no name could be resolved; name another server")]
    Circle(SocketAddr),
    /// Encrypted upstreams cannot be verified.
    #[error(
        "tls:// and https:// upstreams need certificates to trust: {0}; install ca-certificates or set SSL_CERT_FILE"
    )]
    NoCertificates(String),
}

/// The sockets, taken but not served yet.
pub struct Bound {
    /// For each address as many as there are receivers.
    udp: Vec<Vec<UdpSocket>>,
    tcp: Vec<TcpListener>,
    pool: Pool,
    threads: usize,
    out_of_scope: OutOfScope,
    budget: Budget,
    counters: Arc<Counters>,
    observer: Arc<dyn Observer>,
}

/// Takes the sockets; called inside a tokio runtime, before privileges are dropped and before readiness is announced.
///
/// # Errors
/// An address cannot be had, or there is no upstream to ask.
pub fn bind(settings: &Settings, counters: Arc<Counters>) -> Result<Bound, DnsError> {
    bind_with(settings, counters, tls_config)
}

/// [`bind`] with a TLS of the caller's for encrypted upstreams.
pub(super) fn bind_with(
    settings: &Settings,
    counters: Arc<Counters>,
    tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
) -> Result<Bound, DnsError> {
    if settings.listen.is_empty() {
        return Err(DnsError::NoAddress);
    }
    raise_descriptors();
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for &address in &settings.listen {
        let sockets = bind_udp(address, settings.receivers.get()).map_err(|error| explain(address, "UDP", error))?;
        // Port 0 (tests): TCP takes the port that UDP got.
        let address = sockets[0].local_addr().unwrap_or(address);
        tcp.push(bind_tcp(address).map_err(|error| explain(address, "TCP", error))?);
        udp.push(sockets);
    }
    let mut upstreams = settings.upstreams.clone();
    if let Some(own) = upstreams.iter().find(|upstream| is_ours(upstream.address(), &settings.listen)) {
        return Err(DnsError::Circle(own.address()));
    }
    if upstreams.is_empty() {
        upstreams = from_resolv_conf(Path::new(RESOLV_CONF), |server| is_ours(server, &settings.listen))
            .map_err(|error| DnsError::NoUpstream(format!("{RESOLV_CONF}: {error}")))?;
    }
    if upstreams.is_empty() {
        return Err(DnsError::NoUpstream(format!("{RESOLV_CONF} names none but this machine")));
    }
    let pool = Pool::new(&upstreams, Arc::clone(&counters), tls).map_err(DnsError::NoCertificates)?;
    let budget = Budget::new(settings.queries_per_second);
    // Fewer than receivers: the more answers come to one thread at a time, the more leases go to the kernel together.
    let (threads, out_of_scope) = (settings.receivers.get().div_ceil(2), settings.out_of_scope);
    Ok(Bound { udp, tcp, pool, threads, out_of_scope, budget, counters, observer: Arc::new(()) })
}

impl Bound {
    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|sockets| sockets.first()?.local_addr().ok()).collect()
    }

    /// Has somebody told what is decided; without it nobody is.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Answers queries until `shutdown` is over.
    pub async fn serve<J: Judge, L: Leaser>(
        self,
        judge: JudgeSource<J>,
        leaser: Arc<L>,
        shutdown: impl Future<Output = ()>,
    ) {
        let resolver = match Resolver::new(self.pool, Arc::clone(&self.counters), self.threads) {
            Ok(resolver) => resolver,
            Err(error) => return tracing::error!("DNS is not served: {error}"),
        };
        let service = Arc::new(Service {
            judge,
            leaser,
            resolver,
            pending: Pending::default(),
            budget: self.budget,
            counters: self.counters,
            out_of_scope: self.out_of_scope,
            observer: self.observer,
        });
        let mut tasks = JoinSet::new();
        let _receivers = match Receivers::start(self.udp.into_iter().flatten(), &service) {
            Ok(receivers) => receivers,
            Err(error) => return tracing::error!("DNS over UDP is not served: {error}"),
        };
        let connections = Connections::default();
        for listener in self.tcp {
            tasks.spawn(tcp::serve(listener, Arc::clone(&service), connections.clone()));
        }
        tokio::select! {
            () = shutdown => {}
            () = async { while tasks.join_next().await.is_some() {} } => {}
        }
    }
}

/// As many sockets on one address as there are receivers: the kernel gives each client's port to one of them
/// (`SO_REUSEPORT`, socket(7)).
fn bind_udp(address: SocketAddr, receivers: usize) -> io::Result<Vec<UdpSocket>> {
    let first = udp_socket(address)?;
    // The first one alone finds out whether another program has the port: it does not share.
    first.bind(&address.into())?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    if receivers > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..receivers {
        let socket = udp_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// A socket that waits for what it is asked for and not for what it sends, not bound yet.
fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    report_destination(&socket, address.is_ipv6())?;
    // As much as the system lets us have; root may have all of it.
    let forced = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER);
    if forced.is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not wait for the old connections' last minutes.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket of the address's family and of no other.
pub(super) fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn explain(address: SocketAddr, protocol: &'static str, source: io::Error) -> DnsError {
    let option = if protocol == "UDP" { "-lunp" } else { "-ltnp" };
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            let command = format!("ss {option} 'sport = :{}'", address.port());
            return DnsError::InUse { address, protocol, command };
        }
        io::ErrorKind::AddrNotAvailable => "; no interface has this address: give it to one, or correct dns.listen",
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_NET_BIND_SERVICE",
        _ => "",
    };
    DnsError::Listen { address, protocol, source, hint }
}

/// Whether asking `server` would be asking ourselves.
fn is_ours(server: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|own| {
        own.port() == server.port()
            && (own.ip() == server.ip()
                || own.ip().is_unspecified() && own.is_ipv4() == server.is_ipv4() && is_local(server.ip()))
    })
}

/// Raises the limit of open files as far as it may go; less only means fewer look-ups at once.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(DESCRIPTORS.min(hard)), hard);
    }
}
