//! The driver under test, and a client.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::doubles::{Kernel, Table};
use super::wire::question;
use crate::dns::{Bound, Counters, DnsError, OutOfScope, Settings, bind};

pub struct Gateway {
    pub address: SocketAddr,
    pub judge: Arc<ArcSwapOption<Table>>,
    pub kernel: Arc<Kernel>,
    pub counters: Arc<Counters>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn settings(listen: &str, upstreams: &[String]) -> Settings {
    Settings {
        listen: vec![listen.parse().unwrap()],
        upstreams: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
        out_of_scope: OutOfScope::Refuse,
        queries_per_second: None,
        receivers: NonZeroUsize::new(2).unwrap(),
    }
}

/// Port 0 is free for UDP and may be taken for TCP: then it is tried again.
pub fn bound(bind: impl Fn() -> Result<Bound, DnsError>) -> Bound {
    loop {
        match bind() {
            Err(DnsError::InUse { .. }) => {}
            result => return result.unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

impl Gateway {
    pub fn start(table: Table, upstreams: &[&super::fake::Upstream]) -> Self {
        let upstreams: Vec<String> = upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
        Self::with(Some(table), &settings("127.0.0.1:0", &upstreams))
    }

    pub fn with(table: Option<Table>, settings: &Settings) -> Self {
        let counters = Arc::new(Counters::default());
        Self::serve(table, bound(|| bind(settings, Arc::clone(&counters))), counters)
    }

    pub fn serve(table: Option<Table>, bound: Bound, counters: Arc<Counters>) -> Self {
        let kernel = Arc::new(Kernel::default());
        let address = bound.addresses()[0];
        let judge = Arc::new(ArcSwapOption::from(table.map(Arc::new)));
        let task = tokio::spawn(bound.serve(Arc::clone(&judge), Arc::clone(&kernel), std::future::pending()));
        Self { address, judge, kernel, counters, task }
    }

    /// Asks by UDP from 127.0.0.1.
    pub async fn ask(&self, message: &Message) -> Message {
        self.ask_from("127.0.0.1:0", message).await
    }

    pub async fn ask_from(&self, source: &str, message: &Message) -> Message {
        let bytes = self.exchange(source, &message.to_vec().unwrap()).await.expect("no answer within 5 s");
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        answer
    }

    /// Asks for the A records of a name.
    pub async fn a(&self, name: &str) -> Message {
        self.ask(&question(name, RecordType::A)).await
    }

    /// Sends one datagram; the answer, if one comes within 5 s.
    pub async fn exchange(&self, source: &str, packet: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind(source).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(packet).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.ok()?.ok()?;
        Some(buffer[..length].to_vec())
    }

    pub async fn tcp(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.unwrap())
    }
}

pub struct Connection(pub TcpStream);

impl Connection {
    pub async fn send(&mut self, message: &Message) {
        let bytes = message.to_vec().unwrap();
        let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(bytes);
        self.0.write_all(&framed).await.unwrap();
    }

    pub async fn receive(&mut self) -> Message {
        let read = async {
            let mut bytes = vec![0; usize::from(self.0.read_u16().await.unwrap())];
            self.0.read_exact(&mut bytes).await.unwrap();
            bytes
        };
        Message::from_vec(&timeout(Duration::from_secs(5), read).await.expect("no answer within 5 s")).unwrap()
    }
}
