//! A host that asks too often.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;

use super::doubles::Table;
use super::fake::Upstream;
use super::gateway::{Gateway, settings};
use super::wire::{ede, question};

/// What is no question costs its sender as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packets_are_charged() {
    let upstream = Upstream::start(|_, _| vec![]).await;
    let mut settings = settings("127.0.0.1:0", &[upstream.address.to_string()]);
    settings.queries_per_second = NonZeroU32::new(1);
    let gateway = Gateway::with(Some(Table::default()), &settings);
    let flood = UdpSocket::bind("127.0.0.66:0").await.unwrap();
    flood.connect(gateway.address).await.unwrap();
    let mut packet = question("evil.example", RecordType::A).to_vec().unwrap();
    packet[5] = 2;
    for _ in 0..100 {
        flood.send(&packet).await.unwrap();
    }
    let (mut answered, mut buffer) = (0, [0; 1500]);
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(500), flood.recv(&mut buffer)).await {
        assert_eq!((length.unwrap(), buffer[3] & 15), (12, 1), "a header that says FORMERR");
        answered += 1;
    }
    assert!((2..20).contains(&answered), "{answered} of 100");
    assert_eq!(gateway.counters.over_budget.load(Ordering::Relaxed), 100 - answered);
    assert_eq!(gateway.a("evil.example").await.metadata.response_code, ResponseCode::NXDomain, "others pay nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_host_is_cut_and_others_are_answered() {
    const RATE: usize = 20;
    const FLOOD: usize = 400;
    let upstream = Upstream::start(|_, _| vec![]).await;
    let mut settings = settings("127.0.0.1:0", &[upstream.address.to_string()]);
    settings.queries_per_second = NonZeroU32::new(RATE as u32);
    let gateway = Gateway::with(Some(Table::default()), &settings);
    let flood = UdpSocket::bind("127.0.0.66:0").await.unwrap();
    flood.connect(gateway.address).await.unwrap();
    // Half of them for a name that only the full reader takes.
    for number in 0..FLOOD {
        let name = if number % 2 == 0 { "evil.example" } else { "evil.invalid" };
        flood.send(&question(name, RecordType::A).to_vec().unwrap()).await.unwrap();
    }
    let (mut blocked, mut refused, mut buffer) = (0, Vec::new(), [0; 1500]);
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(500), flood.recv(&mut buffer)).await {
        let answer = Message::from_vec(&buffer[..length.unwrap()]).unwrap();
        match answer.metadata.response_code {
            ResponseCode::NXDomain => blocked += 1,
            _ => refused.push(answer),
        }
    }
    assert!((2 * RATE..4 * RATE).contains(&blocked), "{blocked} were answered");
    assert!((5..FLOOD / 8).contains(&refused.len()), "{} of them are told why", refused.len());
    for answer in &refused {
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert_eq!(ede(answer), Some((18, "rate-limited: agent-2 asks too often".to_owned())));
    }
    assert_eq!(gateway.counters.over_budget.load(Ordering::Relaxed) as usize, FLOOD - blocked);
    for _ in 0..RATE {
        assert_eq!(gateway.a("evil.example").await.metadata.response_code, ResponseCode::NXDomain);
    }
}
