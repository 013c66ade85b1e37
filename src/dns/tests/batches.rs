//! Many queries at once, of several clients, good and bad in one batch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::doubles::Table;
use super::fake::{Upstream, now};
use super::gateway::Gateway;
use super::wire::{a, question, reply};

/// Agent-1 twice, agent-2, and somebody out of scope.
const CLIENTS: [&str; 4] = ["127.0.0.1:0", "127.0.0.5:0", "127.0.0.66:0", "127.9.0.1:0"];
/// Packets of each client.
const PACKETS: u16 = 200;

/// What a packet with a number is, and the code of its answer; `None`: it gets none.
fn packet(number: u16, in_scope: bool) -> (Vec<u8>, Option<ResponseCode>) {
    let ask = |name: &str| {
        let mut message = question(name, RecordType::A);
        message.metadata.id = number;
        message.to_vec().unwrap()
    };
    let policed = |code| if in_scope { code } else { ResponseCode::Refused };
    let mut cached = ask("cached.wild.example");
    match number % 8 {
        0 => (ask("evil.example"), Some(policed(ResponseCode::NXDomain))),
        1 => (ask("evil.invalid"), Some(policed(ResponseCode::NXDomain))),
        2 => (ask(&format!("n{number}.wild.example")), Some(policed(ResponseCode::NoError))),
        // An answer, as somebody would forge it: whoever answers those makes loops.
        3 => {
            cached[2] |= 0x80;
            (cached, None)
        }
        // Another opcode; two questions, of which one is not there; half a header.
        4 => {
            cached[2] |= 0x10;
            (cached, Some(ResponseCode::NotImp))
        }
        5 => {
            cached[5] = 2;
            (cached, Some(ResponseCode::FormErr))
        }
        6 => (cached[..7].to_vec(), None),
        _ => (cached, Some(policed(ResponseCode::NoError))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_gets_the_answers_to_its_own_questions() {
    let upstream = Upstream::start(|asked, _| {
        let name = asked.queries[0].name.to_ascii();
        now(reply(asked, vec![a(&name, 300, "192.0.2.7")]))
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    gateway.kernel.holds.store(true, Ordering::Relaxed);
    gateway.a("cached.wild.example").await;
    let mut clients = Vec::new();
    for source in CLIENTS {
        let socket = UdpSocket::bind(source).await.unwrap();
        socket.connect(gateway.address).await.unwrap();
        let in_scope = !source.starts_with("127.9.");
        clients.push((socket, in_scope, BTreeMap::new()));
    }
    // In turn, so that one batch has packets of all of them.
    for number in 0..PACKETS {
        for (socket, in_scope, open) in &mut clients {
            let (bytes, code) = packet(number, *in_scope);
            socket.send(&bytes).await.unwrap();
            open.extend(code.map(|code| (number, code)));
        }
    }
    for (socket, in_scope, open) in &mut clients {
        let mut buffer = [0; 1500];
        while !open.is_empty() {
            let got = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
            let length = got.unwrap_or_else(|_| panic!("no answer to {open:?}")).unwrap();
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            let code = open.remove(&id).unwrap_or_else(|| panic!("nobody asked {id}, or it was answered before"));
            assert_eq!(ResponseCode::from(0, buffer[3] & 15), code, "{id}");
            if code == ResponseCode::NoError {
                let answer = Message::from_vec(&buffer[..length]).unwrap();
                let asked = if id % 8 == 2 { format!("n{id}.wild.example.") } else { "cached.wild.example.".into() };
                assert_eq!(answer.queries[0].name.to_ascii(), asked);
                assert_eq!(answer.answers[0].data.ip_addr(), Some(IpAddr::from([192, 0, 2, 7])));
            }
        }
        let more = timeout(Duration::from_millis(50), socket.recv(&mut buffer)).await;
        assert!(more.is_err(), "one answer more than questions, in scope: {in_scope}");
    }
    let asked: Vec<String> = upstream.asked().iter().map(|name| format!("{name:?}").to_lowercase()).collect();
    assert!(!asked.iter().any(|name| name.contains("evil")), "what is not allowed does not go upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_goes_on() {
    let gateway = Gateway::start(Table::default(), &[&Upstream::start(|_, _| vec![]).await]);
    let packet = question(super::doubles::FAULT, RecordType::A).to_vec().unwrap();
    // From several ports, so that both receivers meet it.
    for _ in 0..16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&packet, gateway.address).await.unwrap();
    }
    for _ in 0..16 {
        let mut answer = None;
        // Whatever was in one batch with such a packet is lost.
        for _ in 0..3 {
            answer = answer
                .or(gateway.exchange("127.0.0.1:0", &question("evil.example", RecordType::A).to_vec().unwrap()).await);
        }
        assert!(answer.is_some(), "a receiver has gone");
    }
}
