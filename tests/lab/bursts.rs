//! Many questions from one port: each answer comes as a datagram of its own from the address that was asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{Address, FOREIGN, World, question};
use crate::{SITE, SITE6};

/// Questions of one burst; both families of each name.
const QUESTIONS: u16 = 60;

/// Counts the datagrams with answers as the gateway's network stack sees them.
const SCALES: &str = "table inet scales {\n counter answers { }\n chain out {\n \
                      type filter hook output priority 300\n udp sport 53 counter name answers\n }\n}\n";

fn packets(world: &World) -> u64 {
    let text = world.gateway.nft(&["reset", "counter", "inet", "scales", "answers"]).stdout;
    let number = text.split("packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("nft tells the counter")
}

/// Asks for names of many lengths, half of them allowed and half not, all at once and from one port.
fn burst(world: &World, server: IpAddr) {
    let socket = world.a.netns.enter(|| UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }));
    let socket = socket.expect("an agent has sockets");
    // What comes from another address is not for a connected socket.
    socket.connect(SocketAddr::new(server, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout is legal");
    let mut open = BTreeMap::new();
    let packets: Vec<Vec<u8>> = (0..QUESTIONS)
        .map(|id| {
            let place = id / 2;
            let label = "x".repeat(usize::from(1 + place % 23));
            let allowed = place % 2 == 0;
            let name = if allowed { format!("{label}.example.com") } else { format!("{label}.example.net") };
            let kind = if id % 2 == 0 { RecordType::A } else { RecordType::AAAA };
            let mut packet = question(&name, kind);
            packet[..2].copy_from_slice(&id.to_be_bytes());
            open.insert(id, (name, kind, allowed));
            packet
        })
        .collect();
    for packet in &packets {
        socket.send(packet).expect("a question can be sent");
    }
    let mut buffer = [0; 1500];
    while !open.is_empty() {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{server}: {error}, {} open", open.len()));
        let answer = Message::from_vec(&buffer[..length]).expect("one whole answer");
        let (name, kind, allowed) = open.remove(&answer.metadata.id).expect("each question has one answer");
        assert_eq!((&answer.queries[0].name.to_ascii(), answer.queries[0].query_type), (&format!("{name}."), kind));
        if allowed {
            let site = if kind == RecordType::A { SITE } else { SITE6 };
            let addresses: Vec<IpAddr> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
            assert_eq!(addresses, [site.address()], "{name}");
        } else {
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
        }
    }
}

#[test]
fn each_answer_of_a_burst_comes_for_itself() {
    let mut world = world!();
    for length in 1..=23 {
        world.internet.upstream.host(&format!("{}.example.com", "x".repeat(length)), &[SITE, SITE6]);
    }
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    world.gateway.nft_load(SCALES);
    let routers = [world.a.router4, world.a.router6];
    let foreign = FOREIGN.map(|server| server.address());
    // Some rounds, so that names are new in the first and known in the others.
    for server in routers.into_iter().chain(foreign).cycle().take(12) {
        packets(&world);
        burst(&world, server);
        let seen = packets(&world);
        // Whoever is behind a veth pair may read frames with a network stack of its own, which cuts nothing.
        assert_eq!(
            seen,
            u64::from(QUESTIONS),
            "{server}: answers left as one packet by an interface that does not cut"
        );
    }
    // A way that is too narrow for some of the answers.
    world.gateway.netns.ip("link set dev lan1 mtu 100\n");
    for server in [world.a.router4, FOREIGN[0].address()] {
        burst(&world, server);
    }
}
