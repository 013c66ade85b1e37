//! Beside other tables: masquerading, marks and connection helpers of others open nothing and break nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::world::PATIENCE;
use crate::{AGENTS, OTHER, SITE, SITE6};

const MASQUERADE: &str = "table ip nat {
    chain postrouting {
        type nat hook postrouting priority 100
        oifname wan masquerade
    }
}
table ip6 nat {
    chain postrouting {
        type nat hook postrouting priority 100
        oifname wan masquerade
    }
}";

/// The helper is put on port 443 because the lab serves that.
const FTP: &str = "table inet helpers {
    ct helper ftp-lab {
        type \"ftp\" protocol tcp
        l3proto ip
    }
    chain prerouting {
        type filter hook prerouting priority -150
        tcp dport 443 ct helper set \"ftp-lab\"
    }
}";

#[test]
fn everything_holds_behind_masquerading() {
    let mut world = world!();
    world.gateway.nft_load(MASQUERADE);
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    let policy =
        |names: &[&str]| json!({ "version": 1, "scope": { "sources": AGENTS }, "allow": { "domains": names } });
    world.gateway.enforce(policy(&["api.example.com"]));
    world.a.reach("api.example.com", 443).must_reach();
    world.a.reach6("api.example.com", 443).must_reach();
    world.a.udp(SITE, 443).must_reach();
    world.a.ping(SITE).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.a.udp(OTHER, 443).must_be_prohibited();
    let mut flows = [world.a.flow(SITE, 443), world.a.flow(SITE6, 443)];
    assert!(flows.iter_mut().all(|flow| flow.alive()));
    world.gateway.import(policy(&[]));
    assert!(!flows.iter_mut().any(|flow| flow.alive()));
    assert_eq!(world.internet.servers.count(|arrival| arrival.from == world.a.v4), 0, "masquerading was on");
}

#[test]
fn marks_of_others_open_nothing_and_break_nothing() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS }, "allow": { "ips": [SITE] } }));
    // Numbers of hosts, and the ends of the range of classes.
    for mark in ["1", "2", "0x7fffffff", "0x80000000", "0xffffffff"] {
        world.gateway.nft_load(&format!(
            "table inet marks {{\nchain prerouting {{\ntype filter hook prerouting priority -150\nct mark set {mark}\n}}\n}}\n"
        ));
        world.a.tcp(SITE, 443).must_reach();
        world.a.tcp(OTHER, 443).must_be_reset();
        world.c.tcp(OTHER, 22).must_reach();
        world.gateway.nft(&["delete", "table", "inet", "marks"]).must_succeed();
    }
}

#[test]
fn an_expected_connection_inherits_no_class() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.nft_load(FTP);
    world.gateway.enforce(json!({
        "version": 1, "scope": { "sources": AGENTS }, "allow": { "domains": ["api.example.com"] }
    }));
    world.a.reach("api.example.com", 443).must_reach();
    let mut flow = world.a.flow(SITE, 443);
    let inside = world.a.netns.enter(|| TcpListener::bind((world.a.v4, 2000))).unwrap();
    // The helper reads from the second line on. 7 * 256 + 208 = 2000.
    for line in ["hello\r\n", "PORT 192,168,10,10,7,208\r\n"] {
        flow.stream.write_all(line.as_bytes()).unwrap();
        flow.stream.read_exact(&mut vec![0; line.len()]).unwrap();
    }
    std::thread::spawn(move || inside.accept().map(|(mut stream, _)| stream.write_all(b"leak")));
    let got = world.internet.peer.netns.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(SITE.parse().unwrap(), 0).into())?;
        socket.connect_timeout(&SocketAddr::new(world.a.v4, 2000).into(), PATIENCE)?;
        socket.set_read_timeout(Some(Duration::from_millis(700)))?;
        TcpStream::from(socket).read_exact(&mut [0; 4])
    });
    assert!(got.is_err(), "the agent answers a connection from outside by the class of another flow");
}
