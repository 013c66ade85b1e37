//! Upstreams that are slow, silent, broken or forged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::doubles::Table;
use super::fake::{Upstream, Via, now};
use super::gateway::{Gateway, settings};
use super::wire::{a, ede, n, question, reply, told};

async fn answering(address: &'static str) -> Upstream {
    Upstream::start(move |asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 300, address)]))).await
}

#[tokio::test]
async fn silence_ends_after_the_budget() {
    let upstream = Upstream::start(|_, _| vec![]).await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let start = Instant::now();
    let answer = gateway.a("allowed.example").await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!((answer.metadata.response_code, ede(&answer).unwrap().0), (ResponseCode::ServFail, 22));
    assert!((2..=4).contains(&upstream.asked().len()), "datagrams get lost: it is asked again, but not for ever");
    assert_eq!(gateway.counters.upstream_timeouts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_silent_upstream_is_helped_out_soon() {
    let (silent, other) = (Upstream::start(|_, _| vec![]).await, answering("192.0.2.2").await);
    let gateway = Gateway::start(Table::default(), &[&silent, &other]);
    for number in 0..4 {
        let start = Instant::now();
        assert_eq!(told(&gateway.a(&format!("n{number}.wild.example")).await), ["192.0.2.2"]);
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    }
    let start = Instant::now();
    gateway.a("last.wild.example").await;
    assert!(start.elapsed() < Duration::from_millis(100), "by now the silent one is asked last");
}

#[tokio::test]
async fn a_failing_upstream_is_left_at_once() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let failing = Upstream::start(move |asked, _| {
            let mut answer = reply(asked, vec![]);
            answer.metadata.response_code = code;
            now(answer)
        })
        .await;
        let other = answering("192.0.2.2").await;
        let gateway = Gateway::start(Table::default(), &[&failing, &other]);
        let start = Instant::now();
        assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.2"]);
        assert!(start.elapsed() < Duration::from_millis(100));
        let gateway = Gateway::start(Table::default(), &[&failing]);
        let answer = gateway.a("allowed.example").await;
        assert_eq!((answer.metadata.response_code, ede(&answer).unwrap().0), (ResponseCode::ServFail, 23));
    }
}

#[tokio::test]
async fn nobody_there_is_noticed_at_once() {
    let free = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = Gateway::with(Some(Table::default()), &settings("127.0.0.1:0", &[free.to_string()]));
    let start = Instant::now();
    let answer = gateway.a("allowed.example").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{answer:?}");
    assert_eq!((answer.metadata.response_code, ede(&answer).unwrap().0), (ResponseCode::ServFail, 23));
}

#[tokio::test]
async fn what_does_not_fit_is_fetched_by_tcp() {
    let upstream = Upstream::start(|asked, via| {
        let mut answer = reply(asked, vec![a("allowed.example", 300, "192.0.2.1")]);
        if via == Via::Udp {
            answer.metadata.truncation = true;
        } else {
            answer.answers.push(a("allowed.example", 300, "192.0.2.2"));
        }
        now(answer)
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let answer = gateway.a("allowed.example").await;
    assert_eq!(told(&answer), ["192.0.2.1", "192.0.2.2"]);
    assert!(!answer.metadata.truncation);
    assert_eq!(gateway.kernel.asked()[0].addresses.len(), 2, "never a part of the addresses");
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let upstream = Upstream::start(|asked, via| {
        assert_eq!(via, Via::Udp);
        let bad = |change: &dyn Fn(&mut hickory_proto::op::Message)| {
            let mut message = reply(asked, vec![a("allowed.example", 300, "192.0.2.66")]);
            change(&mut message);
            (Duration::ZERO, message)
        };
        vec![
            bad(&|message| message.metadata.id = message.metadata.id.wrapping_add(1)),
            bad(&|message| message.queries[0].name = n("other.example")),
            bad(&|message| message.queries[0].query_type = RecordType::AAAA),
            bad(&|message| message.queries.clear()),
            (Duration::from_millis(50), reply(asked, vec![a("allowed.example", 300, "192.0.2.1")])),
        ]
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1"]);
}

#[tokio::test]
async fn names_go_out_scrambled_and_a_changed_spelling_is_checked_by_tcp() {
    let upstream = Upstream::start(|asked, via| {
        let mut answer =
            reply(asked, vec![a("allowed.example", 300, if via == Via::Tcp { "192.0.2.1" } else { "192.0.2.66" })]);
        if via == Via::Udp {
            answer.queries[0].name = answer.queries[0].name.to_lowercase();
        }
        now(answer)
    })
    .await;
    let gateway = Gateway::start(Table { allow: vec!["*.example"], ..Table::default() }, &[&upstream]);
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1"]);
    let log = upstream.log();
    assert_eq!(log.iter().map(|(_, via)| *via).collect::<Vec<_>>(), [Via::Udp, Via::Tcp]);
    assert!(!log[0].0.queries[0].name.eq_case(&n("allowed.example")), "14 coins fell the same way");
    gateway.ask(&question("allowed.example", RecordType::TXT)).await;
    assert_eq!(upstream.log().len(), 3, "it is known now");
    assert!(upstream.log()[2].0.queries[0].name.eq_case(&n("allowed.example")));
}

#[tokio::test]
async fn equal_questions_share_one_look_up() {
    let upstream = Upstream::start(|asked, _| {
        vec![(Duration::from_millis(200), reply(asked, vec![a("allowed.example", 300, "192.0.2.1")]))]
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let answers = futures_util::future::join_all((0..50).map(|_| gateway.a("allowed.example"))).await;
    assert!(answers.iter().all(|answer| told(answer) == ["192.0.2.1"]));
    assert_eq!((upstream.asked().len(), gateway.kernel.asked().len()), (1, 50));
    let mut signed = question("allowed.example", RecordType::A);
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    gateway.ask(&signed).await;
    assert_eq!(upstream.asked().len(), 2, "DO is another question");
}

#[tokio::test]
async fn lives_count_down_in_the_cache() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked, _| {
        count.fetch_add(1, Ordering::Relaxed);
        now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 2, "192.0.2.1")]))
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    assert_eq!(gateway.a("allowed.example").await.answers[0].ttl, 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(gateway.a("ALLOWED.example").await.answers[0].ttl, 1);
    assert_eq!(upstream.asked().len(), 1);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(gateway.a("allowed.example").await.answers[0].ttl, 2);
    assert_eq!(upstream.asked().len(), 2);
}

#[tokio::test]
async fn an_answer_that_has_ended_is_told_where_no_upstream_answers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |question, _| {
        let name = question.queries[0].name.to_lowercase().to_ascii();
        let mut answer = reply(question, vec![a(&name, 1, "192.0.2.1")]);
        if asked.fetch_add(1, Ordering::Relaxed) > 0 {
            answer.answers.clear();
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        now(answer)
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1"]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        let late = gateway.a("allowed.example").await;
        assert_eq!((told(&late), late.answers[0].ttl), (vec!["192.0.2.1".to_owned()], 30));
        assert_eq!(ede(&late), Some((3, "no upstream has an answer now".to_owned())));
    }
    let leases = gateway.kernel.asked();
    assert_eq!(leases.len(), 3, "leased like any other");
    let never = gateway.a("never.wild.example").await;
    assert_eq!(never.metadata.response_code, ResponseCode::ServFail, "there is nothing to fall back on");
    let times = upstream.asked().iter().filter(|name| *name == "allowed.example.").count();
    assert!(times <= 5, "asked {times} times: for a while nobody asks again");
}

#[tokio::test]
async fn slow_names_do_not_hold_up_others_on_one_connection() {
    let upstream = Upstream::start(|asked, _| {
        let name = asked.queries[0].name.to_lowercase().to_ascii();
        let delay = if name.starts_with("slow") { 500 } else { 0 };
        vec![(Duration::from_millis(delay), reply(asked, vec![a(&name, 300, "192.0.2.1")]))]
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let mut connection = gateway.tcp().await;
    let start = Instant::now();
    for (id, name) in [(1, "slow.wild.example"), (2, "fast.wild.example"), (3, "evil.example")] {
        let mut message = question(name, RecordType::A);
        message.metadata.id = id;
        connection.send(&message).await;
    }
    let mut order = vec![connection.receive().await.metadata.id, connection.receive().await.metadata.id];
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    order.sort_unstable();
    assert_eq!(order, [2, 3]);
    assert_eq!(connection.receive().await.metadata.id, 1);
    connection.send(&question("slow2.wild.example", RecordType::A)).await;
    connection.0.shutdown().await.unwrap();
    assert_eq!(told(&connection.receive().await), ["192.0.2.1"], "who has said all may still listen");
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_given_up() {
    // Port 0 is free for UDP and may be taken for TCP: then it is tried again.
    let (udp, tcp) = loop {
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let gateway =
        Gateway::with(Some(Table::default()), &settings("127.0.0.1:0", &[udp.local_addr().unwrap().to_string()]));
    let cut = tokio::spawn(async move {
        let mut octets = [0; 512];
        loop {
            let (length, peer) = udp.recv_from(&mut octets).await.unwrap();
            octets[2] |= 0x82;
            udp.send_to(&octets[..length], peer).await.unwrap();
        }
    });
    let held = tokio::spawn(async move {
        let (mut stream, _) = tcp.accept().await.unwrap();
        let mut octets = Vec::new();
        tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut octets)).await.is_ok()
    });
    let answer = gateway.a("allowed.example").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(held.await.unwrap(), "the connection stands still");
    cut.abort();
}
