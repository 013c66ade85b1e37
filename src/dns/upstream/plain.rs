//! UDP, and TCP where an answer does not fit or its spelling raises doubt.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};

use super::wire::{Match, compare, question, random_id, scrambled};
use super::{Failure, Lookup, Reply};

/// The largest datagram read, in octets; upstreams are told 1232.
const DATAGRAM: usize = 4096;

/// A resolver asked by UDP and TCP.
#[derive(Debug)]
pub(super) struct Plain {
    address: SocketAddr,
    /// It was seen to change the spelling of names over UDP: there is no use in scrambling them.
    changes_case: AtomicBool,
}

impl Plain {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, changes_case: AtomicBool::new(false) }
    }

    /// Asks once. Ends by itself only with an answer or an error of the network: the caller sets the time.
    pub async fn ask(&self, lookup: &Lookup) -> Result<Reply, Failure> {
        let plain_case = self.changes_case.load(Ordering::Relaxed);
        let name = if plain_case { lookup.name.clone() } else { scrambled(&lookup.name)? };
        let asked = question(lookup, &name, random_id()?);
        let (told, length) = self.by_udp(&asked).await?;
        let doubt = !plain_case && compare(&asked, &told) != Match::Exact;
        if !doubt && !told.metadata.truncation {
            return Ok(Reply { message: told, length });
        }
        let reply = self.by_tcp(&asked).await?;
        if doubt {
            self.changes_case.store(true, Ordering::Relaxed);
        }
        Ok(reply)
    }

    /// A new socket for every question, so that its port cannot be known; connected, so that the kernel drops what comes
    /// from elsewhere and says if nobody is there.
    async fn by_udp(&self, asked: &Message) -> Result<(Message, usize), Failure> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(|error| self.broken(&error))?;
        socket.connect(self.address).await.map_err(|error| self.broken(&error))?;
        let bytes = asked.to_vec().map_err(|error| Failure::Network(error.to_string()))?;
        socket.send(&bytes).await.map_err(|error| self.broken(&error))?;
        loop {
            // "Nobody there" (ICMP) wakes only those who wait for errors too.
            let ready =
                socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(|error| self.broken(&error))?;
            if ready.is_error() {
                if let Ok(Some(error)) = socket.take_error() {
                    return Err(self.broken(&error));
                }
                // It was a false alarm: say so, or the next wait ends at once.
                let _ = socket.try_io(Interest::ERROR, || io::Result::<()>::Err(ErrorKind::WouldBlock.into()));
            }
            // The buffer lives between two awaits only: thousands of questions may wait at once.
            let mut buffer = [0_u8; DATAGRAM];
            let length = match socket.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            // What is not the answer is not worth a word: anybody can send it.
            if let Ok(told) = Message::from_vec(&buffer[..length])
                && compare(asked, &told) != Match::No
            {
                return Ok((told, length));
            }
        }
    }

    async fn by_tcp(&self, asked: &Message) -> Result<Reply, Failure> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let bytes = asked.to_vec().map_err(std::io::Error::other)?;
            let mut framed = u16::try_from(bytes.len()).map_err(std::io::Error::other)?.to_be_bytes().to_vec();
            framed.extend(bytes);
            stream.write_all(&framed).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        let answer = exchange.await.map_err(|error| self.broken(&error))?;
        match Message::from_vec(&answer) {
            Ok(message) if compare(asked, &message) != Match::No => Ok(Reply { message, length: answer.len() }),
            _ => Err(Failure::Network(format!("{} does not answer the question", self.address))),
        }
    }

    fn broken(&self, error: &std::io::Error) -> Failure {
        Failure::Network(format!("{} cannot be asked: {error}", self.address))
    }
}
