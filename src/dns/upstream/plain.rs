//! A resolver without encryption: by UDP (`flights` sends), and by TCP where an answer does not fit or its spelling raises
//! doubt.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{Asked, Match};
use super::{Failure, Reply};

/// A resolver asked by UDP and TCP.
#[derive(Debug)]
pub(in crate::dns) struct Plain {
    address: SocketAddr,
    /// It was seen to change the spelling of names over UDP: there is no use in scrambling them.
    changes_case: AtomicBool,
}

impl Plain {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, changes_case: AtomicBool::new(false) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it repeats names as they were spelled, as far as is known.
    pub fn keeps_case(&self) -> bool {
        !self.changes_case.load(Ordering::Relaxed)
    }

    /// Asks again by TCP. `doubt`: because the answer by UDP spelled the name in another way. Ends by itself only with an
    /// answer or an error of the network: the caller sets the time.
    pub async fn by_tcp(&self, asked: &Asked, doubt: bool) -> Result<Reply, Failure> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let octets = asked.octets();
            let mut framed = u16::try_from(octets.len()).map_err(std::io::Error::other)?.to_be_bytes().to_vec();
            framed.extend(octets);
            stream.write_all(&framed).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        let answer = exchange.await.map_err(|error| self.broken(&error))?;
        let told = (asked.answered(&answer) != Match::No).then(|| Message::from_vec(&answer).ok()).flatten();
        let Some(message) = told else {
            return Err(Failure::Network(format!("{} does not answer the question", self.address)));
        };
        if doubt {
            self.changes_case.store(true, Ordering::Relaxed);
        }
        Ok(Reply { message, length: answer.len() })
    }

    /// What it means that the network failed.
    pub fn broken(&self, error: &std::io::Error) -> Failure {
        Failure::Network(format!("{} cannot be asked: {error}", self.address))
    }
}
