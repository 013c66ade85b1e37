//! Numbers, not promises: `cargo test --lib dns::tests::speed -- --ignored --nocapture --test-threads 1`, best with
//! `--config 'profile.dev.package.clawgress.opt-level=3'` before `test`.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::doubles::Table;
use super::fake::{Upstream, now};
use super::gateway::Gateway;
use super::wire::{a, question, reply};

/// Questions open at once.
const WINDOW: usize = 256;

/// Answers per second that one client with `WINDOW` open questions gets.
fn rate(gateway: std::net::SocketAddr, name: impl Fn(usize) -> String, time: Duration) -> (f64, f64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(gateway).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let packets: Vec<Vec<u8>> =
        (0..20_000).map(|number| question(&name(number), RecordType::A).to_vec().unwrap()).collect();
    let (start, mut sent, mut received, mut lost, mut buffer) = (Instant::now(), 0, 0_usize, 0_usize, [0; 1500]);
    while start.elapsed() < time {
        while sent < received + lost + WINDOW {
            socket.send(&packets[sent % packets.len()]).unwrap();
            sent += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(_) => received += 1,
            Err(_) => lost = sent - received,
        }
    }
    (received as f64 / start.elapsed().as_secs_f64(), lost as f64 / sent as f64)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_per_second() {
    let upstream =
        Upstream::start(|asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 300, "192.0.2.1")])))
            .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let address = gateway.address;
    let time = Duration::from_secs(2);
    let measure = move |name: fn(usize) -> String| tokio::task::spawn_blocking(move || rate(address, name, time));
    let echo = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let echo_address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = echo.recv_from(&mut buffer).await {
            let _ = echo.send_to(&buffer[..length], peer).await;
        }
    });
    for round in 0..3 {
        let floor = tokio::task::spawn_blocking(move || rate(echo_address, |_| "echo.example".to_owned(), time));
        let floor = floor.await.unwrap();
        let blocked = measure(|number| format!("n{number}.evil.example")).await.unwrap();
        let cached = measure(|number| format!("n{}.wild.example", number % 100)).await.unwrap();
        gateway.kernel.requests.lock().unwrap().clear();
        gateway.judge.load_full().unwrap().seen.lock().unwrap().clear();
        println!("round {round}: echo {floor:.3?}, blocked {blocked:.3?}, cached {cached:.3?} (answers/s, share lost)");
    }
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn memory_under_a_flood_for_a_silent_upstream() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let settings = super::gateway::settings("127.0.0.1:0", &[silent.local_addr().unwrap().to_string()]);
    let gateway = Gateway::with(Some(Table::default()), &settings);
    gateway.a("evil.example").await;
    let before = resident_kib();
    let address = gateway.address;
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.66:0").unwrap();
        let start = Instant::now();
        for number in 0..40_000 {
            let message = question(&format!("n{number}.wild.example"), RecordType::A);
            socket.send_to(&message.to_vec().unwrap(), address).unwrap();
            while start.elapsed() < Duration::from_micros(125) * number {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let mut slowest = Duration::ZERO;
    while !flood.is_finished() {
        let start = Instant::now();
        assert_eq!(gateway.a("evil.example").await.metadata.response_code, ResponseCode::NXDomain);
        slowest = slowest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kib = resident_kib() - before;
    println!("5 s of 8 000 queries/s: {kib} KiB more, slowest blocked answer {slowest:?}, {:?}", gateway.counters);
}
