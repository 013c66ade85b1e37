//! Agents that send to each other: what one of them answers is its egress too.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::PATIENCE;
use crate::{A, B};

/// Octets a second that the limit of this test lets through.
const LIMIT: u64 = 1000 * 125;
const SPAN: Duration = Duration::from_secs(3);

/// SPEC section 2, meaning 5: one bucket for all egress in scope; a host's is its own.
#[test]
fn what_an_agent_answers_to_another_is_limited() {
    let mut world = world!();
    world
        .gateway
        .enforce(json!({ "version": 1, "allow": { "ips": ["192.168.10.0/24", "192.168.11.0/24"], "ports": [443] },
        "hosts": { "a": { "sources": A }, "b": { "sources": B, "limits": { "egress_kbps": 1000 } } } }));
    let listener = world.b.netns.enter(|| TcpListener::bind(SocketAddr::new(world.b.v4, 443))).unwrap();
    world.b.netns.spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        while stream.write_all(&[7; 64 << 10]).is_ok() {}
    });
    let to = SocketAddr::new(world.b.v4, 443);
    let mut stream = world.a.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("it is allowed");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (begun, mut buffer, mut got) = (Instant::now(), vec![0; 256 << 10], 0_u64);
    while begun.elapsed() < SPAN {
        got += stream.read(&mut buffer).unwrap_or(0) as u64;
    }
    assert!(got < LIMIT * 2 * SPAN.as_secs(), "{got} octets in {SPAN:?}, the limit is {LIMIT} a second");
}
