//! What an agent does: connect, send datagrams, ping, and the rest that a compromised one might try.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{Address, Netns};
use super::outcome::{Kind, Outcome};

/// How long an agent waits before it calls silence silence. Everything in the lab answers within milliseconds.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the echo over an open connection is waited for: refusals do not take long, a busy machine's servers may.
const ECHO: Duration = Duration::from_secs(5);
/// What is sent to be echoed.
pub const HELLO: &[u8] = b"the quick brown fox asks for an echo";

/// A machine behind the gateway (or, as [`super::Internet::peer`], beyond it).
pub struct Agent {
    /// Where it lives.
    pub netns: Arc<Netns>,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// The gateway's IPv4 address on its segment: its router, and its resolver unless the test says otherwise.
    pub router4: IpAddr,
    /// The same for IPv6.
    pub router6: IpAddr,
}

impl Agent {
    /// Connects, sends, waits for the echo.
    pub fn tcp(&self, address: impl Address, port: u16) -> Outcome {
        self.tcp_within(address, port, PATIENCE)
    }

    /// [`Agent::tcp`] with a patience of its own for the connection, and the same for the echo.
    pub fn tcp_within(&self, address: impl Address, port: u16, patience: Duration) -> Outcome {
        let to = SocketAddr::new(address.address(), port);
        let start = Instant::now();
        let stream = match self.netns.enter(|| TcpStream::connect_timeout(&to, patience)) {
            Ok(stream) => stream,
            Err(e) => return judge(&e, start.elapsed(), None),
        };
        match echo(&stream, patience.max(ECHO)) {
            Ok(bytes) => Outcome::Reached { after: start.elapsed(), bytes },
            Err(_) => Outcome::Cut { after: start.elapsed() },
        }
    }

    /// Opens a connection that stays; panics where it is refused.
    #[track_caller]
    pub fn flow(&self, address: impl Address, port: u16) -> Flow {
        let to = SocketAddr::new(address.address(), port);
        match self.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE)) {
            Ok(stream) => Flow { stream },
            Err(e) => panic!("a connection to {to} should be possible: {e}"),
        }
    }

    /// Sends one datagram and waits for the echo or the ICMP error.
    pub fn udp(&self, address: impl Address, port: u16) -> Outcome {
        let to = SocketAddr::new(address.address(), port);
        let socket = self.socket(to, Type::DGRAM, Some(Protocol::UDP), None);
        exchange(&socket, HELLO, PATIENCE, |reply| reply == HELLO)
    }

    /// One datagram from an address and port that need not be the agent's own. Its answer goes to the owner of the
    /// address, so that silence says nothing: look at what arrived.
    pub fn udp_from(&self, from: (impl Address, u16), to: (impl Address, u16), payload: &[u8]) -> Outcome {
        let from = SocketAddr::new(from.0.address(), from.1);
        let to = SocketAddr::new(to.0.address(), to.1);
        let socket = self.socket(to, Type::DGRAM, Some(Protocol::UDP), Some(from));
        exchange(&socket, payload, PATIENCE, |reply| reply == payload)
    }

    /// One echo request, IPv4 or IPv6 after the address.
    pub fn ping(&self, address: impl Address) -> Outcome {
        let address = address.address();
        let (protocol, request, reply) = match address {
            IpAddr::V4(_) => (Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Protocol::ICMPV6, 128, 129),
        };
        // The kernel fills in identifier and checksum of such a socket.
        let packet = [&[request, 0, 0, 0, 0, 0, 0, 1], HELLO].concat();
        let socket = self.socket(SocketAddr::new(address, 0), Type::DGRAM, Some(protocol), None);
        exchange(&socket, &packet, PATIENCE, |got| got.first() == Some(&reply) && got.ends_with(HELLO))
    }

    /// One packet of another IP protocol; no answer is expected, so success looks like silence.
    pub fn raw(&self, protocol: u8, address: impl Address, payload: &[u8]) -> Outcome {
        let to = SocketAddr::new(address.address(), 0);
        let socket = self.socket(to, Type::RAW, Some(i32::from(protocol).into()), None);
        exchange(&socket, payload, PATIENCE, |_| false)
    }

    /// A connected socket in the agent's namespace that keeps ICMP errors for us to read.
    fn socket(&self, to: SocketAddr, kind: Type, protocol: Option<Protocol>, from: Option<SocketAddr>) -> Socket {
        let make = || {
            let socket = Socket::new(Domain::for_address(to), kind, protocol)?;
            if to.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            }
            if let Some(from) = from {
                match from {
                    SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                    SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
                }
                socket.set_reuse_address(true)?;
                socket.bind(&from.into())?;
            }
            socket.connect(&to.into())?;
            Ok::<_, io::Error>(socket)
        };
        self.netns.enter(make).unwrap_or_else(|e| panic!("the agent cannot open a socket to {to}: {e}"))
    }
}

/// An open TCP connection to an echo server.
pub struct Flow {
    /// The connection; may be used directly.
    pub stream: TcpStream,
}

impl Flow {
    /// Sends and waits for the echo: whether the flow still works.
    pub fn alive(&mut self) -> bool {
        echo(&self.stream, ECHO).is_ok()
    }

    /// Sends and waits for the echo; the error is what the agent's program would see.
    pub fn send(&mut self, patience: Duration) -> io::Result<usize> {
        echo(&self.stream, patience)
    }
}

fn echo(mut stream: &TcpStream, patience: Duration) -> io::Result<usize> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(HELLO)?;
    let mut back = [0; HELLO.len()];
    stream.read_exact(&mut back)?;
    Ok(back.len())
}

/// Sends `packet` and waits for what `wanted` accepts, an error, or the end of patience.
fn exchange(mut socket: &Socket, packet: &[u8], patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Outcome {
    let start = Instant::now();
    if let Err(e) = socket.send(packet) {
        return judge(&e, start.elapsed(), icmp_error(socket));
    }
    let mut buffer = [0; 2048];
    loop {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return Outcome::TimedOut;
        }
        match socket.read(&mut buffer) {
            Ok(bytes) if wanted(&buffer[..bytes]) => return Outcome::Reached { after: start.elapsed(), bytes },
            Ok(_) => {}
            Err(e) => return judge(&e, start.elapsed(), icmp_error(socket)),
        }
    }
}

/// Type and code of the ICMP error that waits on the socket.
fn icmp_error(socket: &Socket) -> Option<Kind> {
    let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let mut packet = [0; 256];
    let mut data = [io::IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut data, Some(&mut space), flags).ok()?;
    got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(e, _) => Some(match (e.ee_type, e.ee_code) {
            (3, 9 | 10 | 13) => Kind::AdminProhibited,
            (3, 3) => Kind::Port,
            (kind, code) => Kind::Icmp { kind, code },
        }),
        ControlMessageOwned::Ipv6RecvErr(e, _) => Some(match (e.ee_type, e.ee_code) {
            (1, 1) => Kind::AdminProhibited,
            (1, 4) => Kind::Port,
            (kind, code) => Kind::Icmp { kind, code },
        }),
        _ => None,
    })
}

fn judge(error: &io::Error, after: Duration, icmp: Option<Kind>) -> Outcome {
    if let Some(kind) = icmp {
        return Outcome::Unreachable { after, kind };
    }
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::TimedOut,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Refused { after },
        _ => match error.raw_os_error() {
            // What an IPv6 socket makes of administratively-prohibited.
            Some(libc::EACCES) => Outcome::Unreachable { after, kind: Kind::AdminProhibited },
            Some(errno) if errno == Errno::ETIMEDOUT as i32 => Outcome::TimedOut,
            errno => Outcome::Unreachable { after, kind: Kind::Errno(errno.unwrap_or(0)) },
        },
    }
}
