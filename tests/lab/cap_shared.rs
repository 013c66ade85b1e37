//! To which caps an address is charged: to every one that it could belong to, never to none (SPEC section 2, meaning 6).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scales::{SINK, Scales, TRYING, capped, connect, pour, upload, upload_datagrams};
use crate::world::{Address, World, ipv4, udp, unreachable};
use crate::{OTHER, SITE, SITE6};

/// In a private network beyond the gateway.
const PRIVATE: &str = "10.66.0.5";
const CAP: u64 = 2_000_000;

#[test]
fn an_address_with_another_name_is_charged_whichever_is_asked_for_first() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    for (name, address) in [("one", SITE), ("plain1", SITE), ("two", OTHER), ("plain2", OTHER)] {
        world.internet.upstream.host(&format!("{name}.example.com"), &[address]);
    }
    world.gateway.enforce(capped(&[("one.example.com", CAP), ("two.example.com", CAP)]));
    let scales = Scales::new(&world);
    world.a.resolved("one.example.com", SITE);
    world.a.resolved("plain1.example.com", SITE);
    world.a.resolved("plain2.example.com", OTHER);
    world.a.resolved("two.example.com", OTHER);
    for address in [SITE, OTHER] {
        upload(&world.a, address);
        scales.must_be_used_up(address, scales.sent_by(&world.a, &[address]), CAP);
        world.a.tcp(address, 80).must_be_reset();
    }
    // Asking again does not help.
    world.a.resolved("plain1.example.com", SITE);
    upload(&world.a, SITE);
    scales.must_be_used_up("asked again", scales.sent_by(&world.a, &[SITE]), CAP);
    world.b.resolved("one.example.com", SITE);
    world.b.tcp(SITE, 80).must_reach();
}

#[test]
fn a_cap_on_a_link_of_the_chain_is_charged() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.alias("www.example.com", "cdn.example.net");
    world.internet.upstream.host("cdn.example.net", &[SITE]);
    world.gateway.enforce(capped(&[("cdn.example.net", CAP)]));
    world.a.resolved("www.example.com", SITE);
    let scales = Scales::new(&world);
    upload(&world.a, SITE);
    scales.must_be_used_up("through a link", scales.sent_by(&world.a, &[SITE]), CAP);
}

#[test]
fn two_caps_on_an_address_are_both_charged_and_the_smaller_refuses() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    for (name, addresses) in [("small", &[SITE][..]), ("big", &[SITE, OTHER])] {
        world.internet.upstream.host(&format!("{name}.example.com"), addresses);
    }
    world.gateway.enforce(capped(&[("big.example.com", 3 * CAP), ("small.example.com", CAP)]));
    world.a.resolved("big.example.com", SITE);
    world.a.resolved("small.example.com", SITE);
    let scales = Scales::new(&world);
    upload(&world.a, SITE);
    let shared = scales.sent_by(&world.a, &[SITE]);
    scales.must_be_used_up("the smaller", shared, CAP);
    // What the smaller refuses is not charged to the bigger.
    for _ in 0..3 {
        upload(&world.a, SITE);
    }
    upload(&world.a, OTHER);
    scales.must_be_used_up("the bigger", shared + scales.sent_by(&world.a, &[OTHER]), 3 * CAP);
    world.a.tcp(OTHER, 80).must_be_reset();
}

/// Host a may reach two addresses by `allow.ips`, one of them private, that names with a cap lead to.
fn open_addresses(world: &mut World) {
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    world.internet.upstream.host("inside.example.com", &[PRIVATE]);
    let mut policy = capped(&[("api.example.com", CAP), ("inside.example.com", CAP)]);
    policy["scope"] = json!({ "sources": crate::AGENTS });
    policy["hosts"]["a"]["allow"] =
        json!({ "ips": [SITE, SITE6, OTHER, PRIVATE], "domains": ["*.example.com"], "ports": [80, 443, SINK] });
    world.gateway.enforce(policy);
}

#[test]
fn addresses_that_allow_ips_opens_are_charged_once_a_capped_name_led_there() {
    let mut world = world!();
    open_addresses(&mut world);
    let scales = Scales::new(&world);
    world.a.tcp(PRIVATE, 80).must_reach();
    let before = scales.sent_by(&world.a, &[PRIVATE]);
    world.a.resolved("inside.example.com", PRIVATE);
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("api.example.com", SITE6);
    upload(&world.a, PRIVATE);
    scales.must_be_used_up("private", scales.sent_by(&world.a, &[PRIVATE]) - before, CAP);
    let agent = &world.a;
    std::thread::scope(|scope| {
        for address in [SITE, SITE6] {
            scope.spawn(move || upload(agent, address));
        }
    });
    scales.must_be_used_up("public", scales.sent_by(agent, &[SITE, SITE6]), CAP);
    for address in [PRIVATE, SITE, SITE6] {
        agent.tcp(address, 80).must_be_reset();
    }
    agent.tcp(OTHER, 80).must_reach();
    world.gateway.kill9();
    world.gateway.start();
    let scales = Scales::of(&world);
    for address in [PRIVATE, SITE, SITE6] {
        // Less than a packet may be left.
        upload(&world.a, address);
        world.a.tcp(address, 80).must_be_reset();
    }
    scales.must_be_used_up("private", scales.sent_by(&world.a, &[PRIVATE]) - before, CAP);
    scales.must_be_used_up("after a restart", scales.sent_by(&world.a, &[SITE, SITE6]), CAP);
}

#[test]
fn what_an_agent_sends_in_flows_opened_from_outside_is_charged() {
    let mut world = world!();
    open_addresses(&mut world);
    world.a.resolved("inside.example.com", PRIVATE);
    let scales = Scales::new(&world);
    let listener = world.a.netns.enter(|| TcpListener::bind((world.a.v4, 443))).expect("the port is free");
    let serve = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody connects");
        pour(stream, TRYING);
    });
    let to = (world.a.v4, 443).into();
    let mut stream = world.internet.peer.netns.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&std::net::SocketAddr::new(PRIVATE.address(), 0).into()).expect("a local address");
        socket.connect_timeout(&std::net::SocketAddr::into(to), TRYING).expect("towards the agent is open");
        std::net::TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout is legal");
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    drop(stream);
    serve.join().expect("the agent's server ends");
    scales.must_be_used_up("answers", scales.sent_by(&world.a, &[PRIVATE]), CAP);
    world.a.tcp(PRIVATE, 80).must_be_reset();
}

/// Sends a little until it is charged to the first cap.
fn until_charged(world: &World, stream: &mut TcpStream) {
    let end = Instant::now() + TRYING;
    while world.gateway.status()["caps"][0]["used"] == 0 {
        assert!(Instant::now() < end, "an open flow to an address of a capped name is not charged");
        stream.write_all(&[7; 100]).expect("it is open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The answer for a capped name comes when flows to its address are open for other reasons.
#[test]
fn open_flows_are_charged_once_a_capped_name_led_to_their_address() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    for (name, address) in [("api", SITE), ("plain", SITE), ("plain6", SITE6), ("inside", PRIVATE)] {
        world.internet.upstream.host(&format!("{name}.example.com"), &[address]);
    }
    let _ = Scales::new(&world);
    for (name, address, asked) in [("api", SITE, Some("plain")), ("inside", PRIVATE, None)] {
        let name = format!("{name}.example.com");
        let mut policy = capped(&[(&name, CAP)]);
        policy["scope"] = json!({ "sources": crate::AGENTS });
        policy["hosts"]["a"]["allow"] =
            json!({ "ips": [PRIVATE], "domains": ["*.example.com"], "ports": [80, 443, SINK] });
        world.gateway.enforce(policy);
        if let Some(asked) = asked {
            world.a.resolved(&format!("{asked}.example.com"), address);
        }
        world.a.resolved("plain6.example.com", SITE6);
        let scales = Scales::of(&world);
        let mut streams: Vec<TcpStream> =
            (0..3).map(|_| connect(&world.a, None, address).expect("it is allowed")).collect();
        let mut other = world.a.flow(SITE6, 443);
        streams.iter_mut().for_each(|stream| stream.write_all(&[7; 100_000]).expect("it is open"));
        assert_eq!(world.gateway.status()["caps"][0]["used"], 0, "nobody asked for the capped name");
        world.a.resolved(&name, address);
        until_charged(&world, &mut streams[0]);
        let before = scales.sent_by(&world.a, &[address]);
        let already = world.gateway.status()["caps"][0]["used"].as_u64().expect("octets");
        std::thread::scope(|scope| {
            for stream in streams {
                scope.spawn(move || pour(stream, TRYING));
            }
        });
        let after = scales.sent_by(&world.a, &[address]) - before;
        // What was on its way when it was read may be counted twice here.
        scales.must_be_used_up(&name, after + already.saturating_sub(1000), CAP);
        world.a.tcp(address, 80).must_be_reset();
        assert!(other.alive(), "a flow to another address goes on");
        world.gateway.terminate();
        world.gateway.tool(&["teardown"]).must_succeed();
    }
}

/// They get their classes in groups, and none is left over.
#[test]
fn very_many_open_flows_are_all_charged() {
    const FLOWS: u16 = 600;
    let mut world = world!();
    for name in ["api", "plain"] {
        world.internet.upstream.host(&format!("{name}.example.com"), &[SITE]);
    }
    let mut policy = capped(&[("api.example.com", CAP)]);
    policy["hosts"]["a"]["allow"] = json!({ "domains": ["*.example.com"] });
    world.gateway.enforce(policy);
    world.a.resolved("plain.example.com", SITE);
    let own = world.a.v4;
    for port in 20_000..20_000 + FLOWS {
        world.a.udp_from((own, port), (SITE, 443), b"open").must_reach();
    }
    let classes = || -> Vec<u32> {
        let flows = world.gateway.netns.enter(clawgress::nft::flows).expect("the kernel tells");
        flows.iter().filter(|flow| flow.live.opened == SITE.address()).map(|flow| flow.live.class).collect()
    };
    let before = classes();
    assert!(before.len() == usize::from(FLOWS) && before.iter().all(|class| *class == before[0]), "{before:?}");
    world.a.resolved("api.example.com", SITE);
    let end = Instant::now() + TRYING;
    let left = || classes().into_iter().filter(|class| *class == before[0]).count();
    while left() > 0 {
        assert!(Instant::now() < end, "{} flows are not charged", left());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(classes().len() == usize::from(FLOWS), "they go on");
}

#[test]
fn errors_of_an_agents_own_making_carry_nothing_past_a_cap() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.servers.sniff(1);
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(capped(&[("api.example.com", 200_000)]));
    world.a.resolved("api.example.com", SITE);
    let socket = world.a.datagrams(5555);
    socket.send_to(b"hello", (SITE.address(), 443)).expect("it is allowed");
    socket.recv_from(&mut [0; 16]).expect("the echo");
    let scales = Scales::new(&world);
    upload_datagrams(&world.a, SITE, 1000);
    // Each quotes a datagram of the flow, as an honest error would, and carries a kilobyte of something else.
    let about = ipv4(SITE.address(), world.a.v4, 17, &udp(443, 5555, &[7; 1000]));
    for _ in 0..400 {
        world.a.send_packet(&ipv4(world.a.v4, SITE.address(), 1, &unreachable(&about)));
    }
    scales.must_be_used_up("with errors", scales.sent_by(&world.a, &[SITE]), 200_000);
    assert_eq!(world.internet.servers.count(|arrival| arrival.protocol == 1 && arrival.from == world.a.v4), 0);
}
