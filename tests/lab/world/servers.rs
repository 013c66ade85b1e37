//! Echo servers: every port of every address of a namespace, TCP and UDP, IPv4 and IPv6.
//!
//! One IPv6 socket per port serves both families. What arrives is written down, so that a test can say that
//! a packet never came.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::cmsg_space;
use nix::libc::in6_pktinfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Socket, Type};

use super::netns::Netns;

/// How often an idle server looks whether it should end.
pub const IDLE: Duration = Duration::from_millis(100);
/// Waiting connections of one listener.
const BACKLOG: i32 = 1024;
/// Largest datagram that is echoed, bytes.
const DATAGRAM: usize = 65_535;

/// One datagram or connection that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// IP protocol number: 6 or 17, or what [`Servers::sniff`] listens for.
    pub protocol: u8,
    /// Who sent it.
    pub from: IpAddr,
    /// The address it was sent to.
    pub to: IpAddr,
    /// The port it was sent to; 0 where the protocol has none.
    pub port: u16,
}

/// The servers of one namespace; they end with the value.
pub struct Servers {
    netns: Arc<Netns>,
    over: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    taken: Arc<AtomicU64>,
}

impl Servers {
    /// No server yet.
    pub fn new(netns: Arc<Netns>) -> Self {
        Self { netns, over: Arc::default(), arrivals: Arc::default(), taken: Arc::default() }
    }

    /// Serves these TCP and UDP ports on every address of the namespace, from when this returns.
    pub fn echo(&self, ports: &[u16]) {
        for &port in ports {
            let (listener, datagrams) = self.netns.enter(|| (listener(port), datagrams(port)));
            let (over, arrivals) = (self.over.clone(), self.arrivals.clone());
            self.netns.spawn(move || serve_tcp(&listener, port, &over, &arrivals));
            let (over, arrivals) = (self.over.clone(), self.arrivals.clone());
            self.netns.spawn(move || serve_udp(&datagrams, port, &over, &arrivals));
        }
    }

    /// Takes in what comes to these TCP and UDP ports on every address of the namespace and says nothing, from when this
    /// returns.
    pub fn sink(&self, ports: &[u16]) {
        for &port in ports {
            let (listener, datagrams) = self.netns.enter(|| (listener(port), datagrams(port)));
            let (over, taken) = (self.over.clone(), self.taken.clone());
            self.netns.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else { continue };
                    let (over, taken) = (over.clone(), taken.clone());
                    std::thread::spawn(move || swallow(stream, &over, &taken));
                }
            });
            let (over, taken) = (self.over.clone(), self.taken.clone());
            self.netns.spawn(move || {
                let mut buffer = vec![0; DATAGRAM];
                while !over.load(Ordering::Relaxed) {
                    let length = datagrams.recv(&mut buffer).unwrap_or(0);
                    taken.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
    }

    /// Takes in what comes over a connection, like a sink.
    pub fn take_in(&self, stream: TcpStream) {
        let (over, taken) = (self.over.clone(), self.taken.clone());
        std::thread::spawn(move || swallow(stream, &over, &taken));
    }

    /// Octets that the sinks took in.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Writes down every IPv4 packet of another protocol (47 is GRE, 132 SCTP), from when this returns.
    pub fn sniff(&self, protocol: u8) {
        let socket = self.netns.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(i32::from(protocol).into())));
        let mut socket = socket.expect("root may open a raw socket");
        socket.set_read_timeout(Some(IDLE)).expect("a timeout is legal");
        let (over, arrivals) = (self.over.clone(), self.arrivals.clone());
        std::thread::spawn(move || {
            let mut packet = [0; DATAGRAM];
            while !over.load(Ordering::Relaxed) {
                if let Ok(20..) = socket.read(&mut packet) {
                    let address =
                        |at: usize| IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
                    note(&arrivals, Arrival { protocol, from: address(12), to: address(16), port: 0 });
                }
            }
        });
    }

    /// Everything that arrived, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().expect("servers do not panic").clone()
    }

    /// How much arrived that `wanted` is true for.
    pub fn count(&self, wanted: impl Fn(&Arrival) -> bool) -> usize {
        self.arrivals().iter().filter(|arrival| wanted(arrival)).count()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn note(arrivals: &Mutex<Vec<Arrival>>, arrival: Arrival) {
    arrivals.lock().expect("servers do not panic").push(arrival);
}

fn dual_stack(kind: Type, port: u16) -> Socket {
    let make = || {
        let socket = Socket::new(Domain::IPV6, kind, None)?;
        socket.set_only_v6(false)?;
        socket.set_reuse_address(true)?;
        socket.set_read_timeout(Some(IDLE))?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok::<_, std::io::Error>(socket)
    };
    make().unwrap_or_else(|e| panic!("the lab cannot serve port {port}: {e}"))
}

fn listener(port: u16) -> TcpListener {
    let socket = dual_stack(Type::STREAM, port);
    socket.listen(BACKLOG).expect("a bound socket listens");
    socket.into()
}

fn datagrams(port: u16) -> UdpSocket {
    let socket = dual_stack(Type::DGRAM, port);
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).expect("packet info exists on Linux");
    // The probes send a packet each millisecond; a busy machine must not make the server lose one.
    let _ = socket.set_recv_buffer_size(8 << 20);
    socket.into()
}

fn serve_tcp(listener: &TcpListener, port: u16, over: &Arc<AtomicBool>, arrivals: &Mutex<Vec<Arrival>>) {
    while !over.load(Ordering::Relaxed) {
        // The listener has a receive timeout, which on Linux is also that of accept(2).
        let Ok((stream, from)) = listener.accept() else { continue };
        let to = stream.local_addr().map(|here| here.ip().to_canonical()).unwrap_or(IpAddr::from([0; 4]));
        note(arrivals, Arrival { protocol: 6, from: from.ip().to_canonical(), to, port });
        let over = over.clone();
        std::thread::spawn(move || echo_stream(stream, &over));
    }
}

fn swallow(mut stream: TcpStream, over: &AtomicBool, taken: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    let _ = stream.set_read_timeout(Some(IDLE));
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => drop(taken.fetch_add(length as u64, Ordering::Relaxed)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn echo_stream(mut stream: TcpStream, over: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(IDLE));
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) if buffer[..n].starts_with(b"GET ") => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
                return;
            }
            Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Echoes from the address that was asked: the namespace answers for whole networks.
fn serve_udp(socket: &UdpSocket, port: u16, over: &AtomicBool, arrivals: &Mutex<Vec<Arrival>>) {
    let mut buffer = vec![0; DATAGRAM];
    while !over.load(Ordering::Relaxed) {
        let Some((length, from, asked)) = receive(socket, &mut buffer) else { continue };
        let to = IpAddr::V6(Ipv6Addr::from(asked.ipi6_addr.s6_addr)).to_canonical();
        let peer = IpAddr::V6(*from.ip()).to_canonical();
        note(arrivals, Arrival { protocol: 17, from: peer, to, port });
        let source = in6_pktinfo { ipi6_ifindex: 0, ..asked };
        let data = [std::io::IoSlice::new(&buffer[..length])];
        let address = SockaddrIn6::from(from);
        let control = [ControlMessage::Ipv6PacketInfo(&source)];
        let _ = sendmsg(socket.as_raw_fd(), &data, &control, MsgFlags::empty(), Some(&address));
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddrV6, in6_pktinfo)> {
    let mut space = cmsg_space!(in6_pktinfo);
    let mut data = [std::io::IoSliceMut::new(buffer)];
    let got = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty()).ok()?;
    let asked = got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    })?;
    Some((got.bytes, got.address?.into(), asked))
}
