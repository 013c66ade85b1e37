//! An upstream that answers by a script, over UDP, TCP, TLS and HTTPS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Udp,
    Tcp,
}

/// What the upstream does with a question: messages, each after a time. None: silence.
pub type Reaction = Vec<(Duration, Message)>;
type Script = dyn Fn(&Message, Via) -> Reaction + Send + Sync;

pub fn now(message: Message) -> Reaction {
    vec![(Duration::ZERO, message)]
}

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<(Message, Via)>>>,
    connections: Arc<Mutex<usize>>,
}

impl Upstream {
    /// One that answers over UDP and TCP.
    pub async fn start(script: impl Fn(&Message, Via) -> Reaction + Send + Sync + 'static) -> Self {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            let Ok(tcp) = TcpListener::bind(address).await else { continue };
            let upstream = Self::new(address, script);
            tokio::spawn(upstream.clone().serve_udp(Arc::new(udp)));
            tokio::spawn(upstream.clone().serve_tcp(tcp));
            return upstream;
        }
    }

    pub fn new(address: SocketAddr, script: impl Fn(&Message, Via) -> Reaction + Send + Sync + 'static) -> Self {
        Self { address, script: Arc::new(script), log: Arc::default(), connections: Arc::default() }
    }

    /// Names asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|(message, _)| message.queries[0].name.to_lowercase().to_ascii()).collect()
    }

    pub fn log(&self) -> Vec<(Message, Via)> {
        self.log.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub fn connected(&self) {
        *self.connections.lock().unwrap() += 1;
    }

    pub fn react(&self, packet: &[u8], via: Via) -> Reaction {
        let message = Message::from_vec(packet).unwrap();
        self.log.lock().unwrap().push((message.clone(), via));
        (self.script)(&message, via)
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            for (delay, message) in self.react(&buffer[..length], Via::Udp) {
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = socket.send_to(&message.to_vec().unwrap(), peer).await;
                });
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().converse(stream));
        }
    }

    /// Serves one stream of framed messages.
    pub async fn converse(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connected();
        while let Ok(length) = stream.read_u16().await {
            let mut packet = vec![0; usize::from(length)];
            stream.read_exact(&mut packet).await.unwrap();
            for (delay, message) in self.react(&packet, Via::Tcp) {
                tokio::time::sleep(delay).await;
                let bytes = message.to_vec().unwrap();
                let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
                framed.extend(bytes);
                stream.write_all(&framed).await.unwrap();
            }
        }
    }
}
