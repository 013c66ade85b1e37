//! Names: which are answered, which never leave the gateway (SPEC section 2, meanings 1, 7 and 8).

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::svcb::SvcParamValue;
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;

use crate::world::{FOREIGN, Over, World, address_record, question};
use crate::{A, AGENTS, B, OTHER, SITE, SITE6};

/// SPEC: the budget for an upstream is 2 s; the rest is the lab's.
const SERVFAIL: Duration = Duration::from_millis(2500);

#[test]
fn exact_names_and_wildcards() {
    let mut world = world!();
    let names = ["example.com", "www.example.com", "example.org", "a.example.org", "b.a.example.org"];
    for name in names {
        world.internet.upstream.host(name, &[SITE]);
    }
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com", "*.example.org"] } }));
    for allowed in ["example.com", "EXAMPLE.com.", "a.example.org", "b.a.Example.Org"] {
        world.a.reach(allowed, 443).must_reach();
    }
    for blocked in ["www.example.com", "example.org", "notexample.com"] {
        world.a.reach(blocked, 443).must_be_blocked_by_name();
        assert_eq!(world.internet.upstream.times_asked(blocked), 0, "{blocked} must not be asked for");
    }
}

#[test]
fn a_blocked_name_never_leaves_the_gateway() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"] } }));
    for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::HTTPS, RecordType::MX, RecordType::NULL]
    {
        for over in [Over::Udp, Over::Tcp] {
            let reply = world.a.dig("c2VjcmV0.tunnel.example", kind, world.a.router4, over).expect("an answer");
            assert_eq!(reply.code(), "NXDOMAIN");
            let (code, reason) = reply.ede().expect("an Extended DNS Error");
            assert!(code == 15 && !reason.is_empty() && !reason.contains('\n'), "{code} {reason:?}");
        }
    }
    assert_eq!(world.internet.upstream.asked(), [], "nothing may go upstream");
}

#[test]
fn whatever_resolver_is_asked_ours_answers() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE, SITE6]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"] } }));
    let own = [world.a.router4.to_string(), world.a.router6.to_string()];
    for server in FOREIGN.into_iter().chain(own.iter().map(String::as_str)).chain(["203.0.113.1", "2001:db8::1"]) {
        for over in [Over::Udp, Over::Tcp] {
            let reply = world.a.dig("example.com", RecordType::A, server, over);
            let reply = reply.unwrap_or_else(|outcome| panic!("{server} over {over:?}: {outcome}"));
            assert_eq!(reply.addresses().len(), 1, "{server} over {over:?}");
            let reply = world.a.dig("other.example", RecordType::A, server, over).expect("an answer");
            assert_eq!(reply.ede().map(|(code, _)| code), Some(15), "{server} over {over:?}");
        }
    }
    assert_eq!(world.internet.foreign.asked(), []);
}

#[test]
fn a_chain_from_an_allowed_name_is_followed() {
    let mut world = world!();
    let upstream = &world.internet.upstream;
    upstream.alias("www.example.com", "cdn.example.net");
    upstream.alias("cdn.example.net", "edge.example.org");
    upstream.host("edge.example.org", &[SITE, SITE6]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["www.example.com"] } }));
    world.a.reach("www.example.com", 443).must_reach();
    world.a.reach6("www.example.com", 443).must_reach();
    world.a.reach("cdn.example.net", 443).must_be_blocked_by_name();
}

#[test]
fn answers_that_point_inside_are_refused() {
    let mut world = world!();
    let inside = [
        "192.168.10.1",
        "192.168.11.10",
        "10.66.0.1",
        "172.16.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "45.60.255.1",
        "::1",
        "::",
        "fd00:11::10",
        "fe80::1",
        "ff02::1",
        "::ffff:192.168.11.10",
        "64:ff9b::c0a8:b0a",
        "2606:4700:ffff::1",
    ];
    for (n, address) in inside.iter().enumerate() {
        world.internet.upstream.host(&format!("r{n}.example.com"), &[address]);
    }
    world.internet.upstream.host("mixed.example.com", &["10.66.0.1", SITE]);
    world.gateway.enforce(json!({
        "version": 1, "scope": { "sources": AGENTS }, "allow": { "domains": ["*.example.com"] }
    }));
    for (n, address) in inside.iter().enumerate() {
        let kind = if address.contains(':') { RecordType::AAAA } else { RecordType::A };
        let reply = world.a.lookup(&format!("r{n}.example.com"), kind).expect("an answer");
        assert_eq!(reply.addresses(), [] as [IpAddr; 0], "{address} must not reach the agent");
        assert_eq!(reply.ede().map(|(code, _)| code), Some(15), "{address}: the refusal says so");
    }
    world.a.tcp("10.66.0.1", 443).must_be_reset();
    let mixed = world.a.lookup("mixed.example.com", RecordType::A).expect("an answer").addresses();
    assert!(!mixed.contains(&"10.66.0.1".parse().unwrap()), "{mixed:?}");
}

#[test]
fn private_answers_pass_where_the_policy_covers_them() {
    let mut world = world!();
    world.internet.upstream.host("intern.example.com", &["10.66.0.1", "fd66::1"]);
    let allow = json!({ "domains": ["intern.example.com"], "ips": ["10.66.0.0/16", "fd66::/64"] });
    world.gateway.enforce(json!({ "version": 1, "allow": allow }));
    world.a.reach("intern.example.com", 443).must_reach();
    world.a.reach6("intern.example.com", 443).must_reach();
}

#[test]
fn hints_that_are_not_leased_do_not_reach_the_agent() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE]);
    world.internet.upstream.https("example.com", &[OTHER, "10.66.0.1", SITE6]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"] } }));
    let reply = world.a.lookup("example.com", RecordType::HTTPS).expect("an answer");
    let mut hints: Vec<IpAddr> = Vec::new();
    for record in &reply.message.answers {
        let RData::HTTPS(service) = &record.data else { continue };
        for (_, value) in &service.0.svc_params {
            match value {
                SvcParamValue::EchConfigList(_) => panic!("ech must not reach the agent"),
                SvcParamValue::Ipv4Hint(list) => hints.extend(list.0.iter().map(|a| IpAddr::V4(a.0))),
                SvcParamValue::Ipv6Hint(list) => hints.extend(list.0.iter().map(|a| IpAddr::V6(a.0))),
                _ => {}
            }
        }
    }
    assert!(!hints.contains(&"10.66.0.1".parse().unwrap()), "a private hint");
    for hint in hints {
        world.a.tcp(hint, 443).must_reach();
    }
}

#[test]
fn nothing_of_the_agent_but_the_question_goes_upstream() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"] } }));
    // A channel out, were it passed on: an option of the agent's own making, and a client subnet (RFC 7871).
    let mut message = Message::from_vec(&question("ExAmPlE.com", RecordType::A)).expect("we made it");
    let edns = message.edns.as_mut().expect("we made it with EDNS");
    edns.options_mut().insert(EdnsOption::Unknown(65_001, b"secret".to_vec()));
    edns.options_mut().insert(EdnsOption::Unknown(8, vec![0, 1, 24, 0, 192, 168, 10]));
    let wire = message.to_vec().expect("a question has a wire form");
    let reply = world.a.dig_wire(&wire, world.a.router4, Over::Udp).expect("an answer");
    assert_eq!(reply.addresses().len(), 1);
    let asked = world.internet.upstream.asked();
    assert!(!asked.is_empty());
    for question in asked {
        assert!(!question.options.contains(&65_001) && !question.options.contains(&8), "{:?}", question.options);
        assert_eq!(question.from, "45.60.255.1".parse::<IpAddr>().unwrap(), "the gateway asks");
    }
}

#[test]
fn a_silent_upstream_costs_two_seconds_and_blocked_names_nothing() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"] } }));
    world.internet.upstream.silent(true);
    let (a, b) = (&world.a, &world.b);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.lookup("example.com", RecordType::A));
        std::thread::sleep(Duration::from_millis(200));
        b.reach("blocked.example", 443).must_be_blocked_by_name();
        let reply = waiting.join().expect("no panic").expect("an answer, not silence");
        assert_eq!(reply.code(), "SERVFAIL");
        assert!(reply.after < SERVFAIL, "{:?}", reply.after);
    });
}

#[test]
fn nonexistent_names_and_types_stay_so() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com", "gone.example.com"] } }));
    let reply = world.a.lookup("gone.example.com", RecordType::A).expect("an answer");
    assert_eq!((reply.code().as_str(), reply.ede()), ("NXDOMAIN", None), "this is not a block");
    let reply = world.a.lookup("example.com", RecordType::AAAA).expect("an answer");
    assert_eq!((reply.code().as_str(), reply.addresses().len()), ("NOERROR", 0));
}

#[test]
fn each_host_has_names_of_its_own() {
    let mut world = world!();
    world.internet.upstream.host("a.example.com", &[SITE]);
    world.internet.upstream.host("b.example.com", &[OTHER]);
    world.gateway.enforce(json!({
        "version": 1, "allow": { "domains": ["b.example.com"] },
        "hosts": { "a": { "sources": A, "allow": { "domains": ["a.example.com"] } } }
    }));
    // Twice, so that the second round meets whatever the first left in a cache.
    for _ in 0..2 {
        world.a.reach("a.example.com", 443).must_reach();
        world.b.reach("b.example.com", 443).must_reach();
        world.a.reach("b.example.com", 443).must_be_blocked_by_name();
        world.b.reach("a.example.com", 443).must_be_blocked_by_name();
    }
}

#[test]
fn queries_from_outside_the_scope_are_refused() {
    let mut world = world!();
    world.gateway.enforce(json!({
        "version": 1, "scope": { "sources": AGENTS }, "allow": { "domains": ["example.com"] }
    }));
    for over in [Over::Udp, Over::Tcp] {
        let reply = world.c.dig("example.com", RecordType::A, world.c.router4, over).expect("an answer");
        assert_eq!(reply.code(), "REFUSED");
    }
    assert_eq!(world.internet.upstream.asked(), []);
}

#[test]
fn a_link_local_source_is_not_out_of_scope() {
    let mut world = world!();
    world.gateway.settings("out_of_scope = \"forward\"\n");
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    world.internet.upstream.host("secret.example.net", &[SITE]);
    let reply = world.c.lookup("secret.example.net", RecordType::A).expect("an answer");
    assert_eq!(reply.addresses().len(), 1, "c is out of scope and served");
    let [here, there] = [(&world.a.netns, "eth0"), (&world.gateway.netns, "lan1")].map(|(netns, device)| {
        let said = netns.command("ip").args(["-6", "-o", "address", "show", "dev", device, "scope", "link"]).output();
        let said = String::from_utf8(said.expect("iproute2 is installed").stdout).expect("text");
        let address = said.split_whitespace().find(|word| word.starts_with("fe80")).expect("every link has one");
        address.split('/').next().expect("an address").parse().expect("an address")
    });
    let code = world.a.netns.enter(|| {
        let index = nix::net::if_::if_nametoindex("eth0").expect("the agent's only link");
        let socket = UdpSocket::bind(SocketAddrV6::new(here, 0, 0, index)).expect("its own address");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout is legal");
        let wire = question("secret.example.net", RecordType::A);
        socket.send_to(&wire, SocketAddrV6::new(there, 53, 0, index)).expect("a route on the link");
        let mut buffer = [0; 1500];
        socket.recv(&mut buffer).map(|_| buffer[3] & 0x0f)
    });
    assert_eq!(code.ok(), Some(5), "REFUSED");
    assert_eq!(world.internet.upstream.times_asked("secret.example.net"), 1);
}

#[test]
fn a_host_with_many_addresses_leaves_connections_for_others() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "a": { "sources": ["fd00:10::/64"] }, "b": { "sources": B } } }));
    let sources: Vec<Ipv6Addr> = (1..=140).map(|n| Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 1, n)).collect();
    world.a.netns.ip(&sources.iter().map(|a| format!("addr add {a}/64 dev eth0 nodad\n")).collect::<String>());
    let router = std::net::SocketAddr::new(world.a.router6, 53);
    let held: Vec<socket2::Socket> = world.a.netns.enter(|| {
        let connect = |source: &Ipv6Addr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).ok()?;
            socket.bind(&std::net::SocketAddr::new((*source).into(), 0).into()).ok()?;
            socket.connect_timeout(&router.into(), Duration::from_millis(300)).ok()?;
            Some(socket)
        };
        sources.iter().flat_map(|source| (0..30).filter_map(move |_| connect(source))).collect()
    });
    assert!(held.len() > 4096, "more than the gateway has for everybody: {}", held.len());
    let reply = world.b.dig("blocked.example", RecordType::A, world.b.router4, Over::Tcp);
    assert_eq!(reply.expect("an answer").code(), "NXDOMAIN");
}

/// Agent a asks for more than may wait, and no upstream answers from now on.
fn ask_for_what_nobody_answers(world: &World) {
    world.internet.upstream.silent(true);
    let socket = world.a.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("ports are left");
    for n in 0..3000 {
        let wire = question(&format!("n{n}.slow.example"), RecordType::A);
        socket.send_to(&wire, (world.a.router4, 53)).expect("a route");
    }
}

#[test]
fn a_source_of_no_host_that_floods_leaves_places_for_others() {
    let mut world = world!();
    world.internet.upstream.host("cached.example", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.slow.example", "cached.example"] } }));
    world.a.reach("cached.example", 443).must_reach();
    ask_for_what_nobody_answers(&world);
    // The other agent has no lease yet, so its answer has to wait for the kernel.
    let reply = world.b.lookup("cached.example", RecordType::A).expect("an answer");
    assert!(reply.code() == "NOERROR" && reply.after < Duration::from_millis(200), "{reply:?}");
}

#[test]
fn a_host_that_floods_leaves_places_for_others() {
    let mut world = world!();
    world.internet.upstream.host("cached.example", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.slow.example", "cached.example"] },
        "hosts": { "a": { "sources": A }, "b": { "sources": B } } }));
    world.b.reach("cached.example", 443).must_reach();
    ask_for_what_nobody_answers(&world);
    let reply = world.b.lookup("cached.example", RecordType::A).expect("an answer");
    assert!(reply.code() == "NOERROR" && reply.after < Duration::from_millis(200), "{:?}", reply.after);
    world.internet.upstream.silent(false);
    world.internet.upstream.host("fresh.slow.example", &[OTHER]);
    world.b.reach("fresh.slow.example", 443).must_reach();
}

#[test]
fn odd_messages_are_answered_and_go_nowhere() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com", "*.w.example.com"] } }));
    let head = |questions: u8| vec![7, 7, 1, 0, 0, questions, 0, 0, 0, 0, 0, 0];
    let names: [&[u8]; 8] = [
        b"\xc0\x0c",
        b"\x01a\xc0\x0c",
        b"\xc0\xff",
        b"\x0bexample.com\0",
        b"\x09evil\0.com\x07example\x03com\0",
        b"\x04a\xff b\x01w\x07example\x03com\0",
        b"\x01*\x01w\x07example\x03com\0",
        b"\x40",
    ];
    for name in names {
        let wire = [&head(1)[..], name, &[0, 1, 0, 1]].concat();
        let reply = world.a.dig_wire(&wire, world.a.router4, Over::Udp);
        let reply = reply.unwrap_or_else(|outcome| panic!("{name:?}: {outcome}"));
        assert!(["FORMERR", "NXDOMAIN"].contains(&reply.code().as_str()), "{name:?}: {}", reply.code());
    }
    let two = [&head(2)[..], b"\x07example\x03com\0", &[0, 1, 0, 1], b"\xc0\x0c", &[0, 1, 0, 1]].concat();
    let reply = world.a.dig_wire(&two, world.a.router4, Over::Udp).expect("an answer");
    assert_eq!(reply.code(), "FORMERR");
    assert_eq!(world.internet.upstream.asked(), [], "nothing may go upstream");
    world.a.reach("example.com", 443).must_reach();
}

#[test]
fn answers_without_measure_are_cut_to_measure() {
    let mut world = world!();
    let address = |n: u16| IpAddr::from([151, 101, (n >> 8) as u8, (n & 0xff) as u8]);
    let upstream = &world.internet.upstream;
    upstream.script("many.example.com", RecordType::A, move |_| {
        (0..300).map(|n| address_record("many.example.com", address(n), 300)).collect()
    });
    upstream.host_for("long.example.com", &[SITE], u32::MAX);
    upstream.host_for("short.example.com", &[OTHER], 0);
    upstream.alias("loop.example.com", "pool.example.com");
    upstream.alias("pool.example.com", "loop.example.com");
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    let reply = world.a.dig("many.example.com", RecordType::A, world.a.router4, Over::Tcp).expect("an answer");
    assert_eq!(reply.addresses().len(), 256);
    let last = reply.addresses()[255];
    world.a.tcp(last, 443).must_reach();
    let told: std::collections::BTreeSet<IpAddr> = reply.addresses().into_iter().collect();
    let left_out = (0..300).map(address).find(|address| !told.contains(address)).expect("some are left out");
    world.a.tcp(left_out, 443).must_be_reset();
    let ttl = |name| world.a.lookup(name, RecordType::A).expect("an answer").ttl();
    assert_eq!((ttl("long.example.com"), ttl("short.example.com")), (Some(3600), Some(0)));
    world.a.tcp(OTHER, 443).must_reach();
    world.a.reach("loop.example.com", 443).must_be_blocked_by_name();
}
