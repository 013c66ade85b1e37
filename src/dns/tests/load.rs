//! More than there is room for.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;

use super::doubles::Table;
use super::fake::Upstream;
use super::gateway::Gateway;
use super::wire::{ede, question};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_names_for_a_silent_upstream_is_bounded_and_blocked_names_are_answered() {
    let upstream = Upstream::start(|_, _| vec![]).await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let flood = UdpSocket::bind("127.0.0.66:0").await.unwrap();
    flood.connect(gateway.address).await.unwrap();
    for number in 0..4000 {
        let message = question(&format!("n{number}.wild.example"), RecordType::A);
        flood.send(&message.to_vec().unwrap()).await.unwrap();
        if number % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let start = Instant::now();
    assert_eq!(gateway.a("evil.example").await.metadata.response_code, ResponseCode::NXDomain);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    let mut buffer = [0; 1500];
    let length = flood.recv(&mut buffer).await.unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(ede(&answer), Some((0, "too many questions wait for upstreams".to_owned())));
    assert!(upstream.asked().len() <= 256 * 4, "{}", upstream.asked().len());
    let start = Instant::now();
    gateway.a("allowed.example").await;
    assert!(start.elapsed() > Duration::from_secs(1), "another host still has room to wait");
    assert!(gateway.counters.dropped_overload.load(Ordering::Relaxed) > 2000);
}

#[tokio::test]
async fn a_source_has_few_connections_and_idle_ones_are_closed() {
    let upstream = Upstream::start(|_, _| vec![]).await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let mut connections = Vec::new();
    for _ in 0..32 {
        let mut connection = gateway.tcp().await;
        connection.send(&question("evil.example", RecordType::A)).await;
        assert_eq!(connection.receive().await.metadata.response_code, ResponseCode::NXDomain);
        connections.push(connection);
    }
    let mut surplus = gateway.tcp().await;
    let closed = tokio::time::timeout(Duration::from_secs(1), surplus.0.read(&mut [0; 1])).await;
    assert_eq!(closed.expect("it was let in").unwrap_or(0), 0);
    connections.pop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut again = gateway.tcp().await;
    again.send(&question("evil.example", RecordType::A)).await;
    again.receive().await;
    let start = Instant::now();
    assert_eq!(connections[0].0.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(12));
}
