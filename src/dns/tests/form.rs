//! Form of questions and answers, sizes, addresses, scope.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, RData, RecordType};
use tokio::net::UdpSocket;

use super::doubles::Table;
use super::fake::{Upstream, now};
use super::gateway::{Gateway, settings};
use super::wire::{a, ede, plain_question, question, record, reply, told};
use crate::dns::{Counters, DnsError, OutOfScope, bind};

async fn usual() -> Upstream {
    Upstream::start(|asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 300, "192.0.2.1")]))).await
}

#[tokio::test]
async fn a_blocked_name_says_why_and_nobody_hears_of_it() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let answer = gateway.a("Evil.Example").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let (code, text) = ede(&answer).unwrap();
    assert_eq!(code, 15);
    assert_eq!(text, "not-allowlisted: evil.example is not on the allowlist of agent-1 (/hosts/agent-1/allow/domains)");
    let RData::SOA(soa) = &answer.authorities[0].data else { panic!("no SOA") };
    assert_eq!((answer.authorities[0].ttl, soa.minimum), (10, 10));
    assert!(answer.queries[0].name.eq_case(&super::wire::n("Evil.Example")), "the client's spelling");
    let quiet = gateway.ask(&plain_question("evil.example", RecordType::A)).await;
    assert!(quiet.edns.is_none() && quiet.metadata.response_code == ResponseCode::NXDomain);
    for kind in [RecordType::ANY, RecordType::PTR, RecordType::TXT, RecordType::Unknown(65280)] {
        let answer = gateway.ask(&question("other.example", kind)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{kind}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(upstream.asked(), Vec::<String>::new());
    assert_eq!(gateway.counters.blocked.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn names_that_no_policy_can_write_are_blocked() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    for label in [&b"a.b"[..], b"\x00", b"\xff", b"*", b" "] {
        let mut packet = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        for label in [label, b"wild", b"example"] {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label);
        }
        packet.extend([0, 0, 1, 0, 1]);
        let answer = gateway.exchange("127.0.0.1:0", &packet).await.unwrap();
        assert_eq!((answer[3] & 0x0f, &answer[12..packet.len()]), (3, &packet[12..]), "{label:?}");
    }
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn no_policy_no_answer() {
    let upstream = usual().await;
    let gateway = Gateway::with(None, &settings("127.0.0.1:0", &[upstream.address.to_string()]));
    let answer = gateway.a("allowed.example").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ede(&answer), Some((14, "no policy is in force yet".to_owned())));
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn out_of_scope_is_refused_or_forwarded_unfiltered() {
    let upstream =
        Upstream::start(|asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 300, "10.0.0.1")])))
            .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let answer = gateway.ask_from("127.9.0.1:0", &question("any.example", RecordType::A)).await;
    assert_eq!((answer.metadata.response_code, ede(&answer).unwrap().0), (ResponseCode::Refused, 18));
    assert!(upstream.asked().is_empty());
    let mut settings = settings("127.0.0.1:0", &[upstream.address.to_string()]);
    settings.out_of_scope = OutOfScope::Forward;
    let gateway = Gateway::with(Some(Table::default()), &settings);
    let answer = gateway.ask_from("127.9.0.1:0", &question("any.example", RecordType::A)).await;
    assert_eq!(told(&answer), ["10.0.0.1"]);
    assert!(gateway.kernel.asked().is_empty(), "nothing to lease for strangers");
    gateway.ask_from("127.9.0.1:0", &question("other.example", RecordType::NAPTR)).await;
    assert_eq!(upstream.asked(), ["any.example.", "other.example."], "whatever the type");
    let answer = gateway.a("any.example").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "the agent is policed all the same");
}

#[tokio::test]
async fn forms_that_are_not_served() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let mut notify = question("allowed.example", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(gateway.ask(&notify).await.metadata.response_code, ResponseCode::NotImp);
    let mut chaos = question("version.bind", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(gateway.ask(&chaos).await.metadata.response_code, ResponseCode::Refused);
    let mut two = question("allowed.example", RecordType::A);
    two.queries.push(two.queries[0].clone());
    assert_eq!(gateway.ask(&two).await.metadata.response_code, ResponseCode::FormErr);
    let mut later = question("allowed.example", RecordType::A);
    later.edns.as_mut().unwrap().set_version(1);
    assert_eq!(u16::from(gateway.ask(&later).await.metadata.response_code), 16, "BADVERS");
    for kind in [RecordType::AXFR, RecordType::IXFR, RecordType::NULL] {
        let answer = gateway.ask(&question("allowed.example", kind)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{kind}");
    }
    let any = gateway.ask(&question("allowed.example", RecordType::ANY)).await;
    assert_eq!((any.answers.len(), any.answers[0].record_type()), (1, RecordType::HINFO));
    let other = gateway.ask(&question("allowed.example", RecordType::NAPTR)).await;
    assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
    assert!(upstream.asked().is_empty());
    let mut answer = question("allowed.example", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&answer.to_vec().unwrap(), gateway.address).await.unwrap();
    socket.send_to(b"short", gateway.address).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut [0; 512])).await;
    assert!(silence.is_err(), "an answer was answered");
}

#[tokio::test]
async fn answers_fit_what_the_client_takes() {
    let upstream = Upstream::start(|asked, _| {
        let owner = asked.queries[0].name.to_ascii();
        let long = |number: u8| record(&owner, 60, RData::TXT(TXT::new(vec![format!("{number:0>200}")])));
        now(reply(asked, (0..4).map(long).collect()))
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let mut message = question("allowed.example", RecordType::TXT);
    assert_eq!(gateway.ask(&message).await.answers.len(), 4);
    message.edns.as_mut().unwrap().set_max_payload(600);
    let cut = gateway.ask(&message).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
    let cut = gateway.ask(&plain_question("allowed.example", RecordType::TXT)).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_none());
    let mut connection = gateway.tcp().await;
    connection.send(&plain_question("allowed.example", RecordType::TXT)).await;
    let whole = connection.receive().await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 4);
}

#[tokio::test]
async fn a_long_name_is_refused_within_512_octets() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let label = "x".repeat(61);
    let mut message = question(&format!("{label}.{label}.{label}.{label}"), RecordType::A);
    message.edns.as_mut().unwrap().set_max_payload(512);
    let bytes = gateway.exchange("127.0.0.1:0", &message.to_vec().unwrap()).await.unwrap();
    let answer = hickory_proto::op::Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= 512 && !answer.metadata.truncation);
    assert_eq!((answer.metadata.response_code, ede(&answer).unwrap().0), (ResponseCode::NXDomain, 15));
}

#[tokio::test]
async fn a_wildcard_socket_answers_from_the_address_asked() {
    let upstream = usual().await;
    let mut cases = vec![("0.0.0.0:0", "127.0.0.2".to_owned()), ("[::]:0", "::1".to_owned())];
    // Loopback has one IPv6 address only; to ask another one takes a machine that has one.
    match crate::dns::interfaces::routable_v6() {
        Some(address) => cases.push(("[::]:0", address.to_string())),
        None => eprintln!("SKIP: this machine has no IPv6 address besides ::1"),
    }
    for (listen, asked) in cases {
        let table = Table::default();
        let seen = table.seen.clone();
        let gateway = Gateway::with(Some(table), &settings(listen, &[upstream.address.to_string()]));
        let target = std::net::SocketAddr::new(asked.parse().unwrap(), gateway.address.port());
        let source = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        for name in ["evil.example", "allowed.example"] {
            let socket = UdpSocket::bind(source).await.unwrap();
            socket.send_to(&question(name, RecordType::A).to_vec().unwrap(), target).await.unwrap();
            let mut buffer = [0; 1500];
            let answer = tokio::time::timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await;
            assert_eq!(answer.expect("no answer").unwrap().1, target);
        }
        let mut stream = super::gateway::Connection(tokio::net::TcpStream::connect(target).await.unwrap());
        stream.send(&question("evil.example", RecordType::A)).await;
        assert_eq!(stream.receive().await.metadata.response_code, ResponseCode::NXDomain);
        // The kernel gives a machine's IPv6 traffic with itself the interface that owns the address.
        let expected = if target.ip().is_loopback() { |name: &str| name == "lo" } else { |name: &str| name != "lo" };
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|name| name.as_deref().is_some_and(expected)), "{asked}: {seen:?}");
        assert_eq!(seen.len(), 5, "the allowed name is judged twice, and a connection has a host");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let Err(error) = bind(&settings(&address.to_string(), &["192.0.2.1".to_owned()]), Counters::default().into())
    else {
        panic!("the port was taken twice")
    };
    let text = error.to_string();
    assert!(matches!(error, DnsError::InUse { .. }));
    let command = format!("ss -lunp 'sport = :{}'", address.port());
    assert!(text.contains(&address.to_string()) && text.contains(&command), "{text}");
    let Err(error) = bind(&settings("192.0.2.77:0", &["192.0.2.1".to_owned()]), Counters::default().into()) else {
        panic!("a foreign address was had")
    };
    assert!(error.to_string().contains("192.0.2.77") && error.to_string().contains("no interface"), "{error}");
}
