//! A foreign table that switches connection tracking off, as VyOS has it, changes nothing (DESIGN section 2).

use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{FOREIGN, Over};
use crate::{AGENTS, OTHER, OTHER6, SITE, SITE6};

const FOREIGN_TABLE: &str = "table inet vyos_like {
    chain prerouting {
        type filter hook prerouting priority -300
        notrack
    }
    chain output {
        type filter hook output priority -300
        notrack
    }
}";

#[test]
fn enforcement_holds_beside_a_foreign_notrack() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &["151.101.0.1"]);
    world.gateway.nft_load(FOREIGN_TABLE);
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS },
        "allow": { "ips": [SITE, SITE6], "domains": ["api.example.com"] } }));
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_reach();
        world.a.udp(site, 443).must_reach();
        world.a.ping(site).must_reach();
        world.a.tcp(other, 443).must_be_reset();
        world.a.udp(other, 443).must_be_prohibited();
    }
    world.a.reach("api.example.com", 443).must_reach();
    for over in [Over::Udp, Over::Tcp] {
        let reply = world.a.dig("api.example.com", RecordType::A, FOREIGN[0], over);
        reply.expect("the redirect needs tracking, and has it");
    }
    assert_eq!(world.internet.foreign.asked(), []);
    world.c.tcp(OTHER, 22).must_reach();
}

#[test]
fn flows_stay_known_beside_a_foreign_notrack() {
    let mut world = world!();
    world.gateway.nft_load(FOREIGN_TABLE);
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE] } }));
    let probe = world.a.probe_tcp(SITE, 443);
    world.gateway.import(json!({ "version": 1, "allow": { "ips": [OTHER, SITE] } }));
    std::thread::sleep(Duration::from_millis(100));
    probe.stop().must_be_whole();
    assert!(world.gateway.conntrack().iter().any(|flow| flow.contains(SITE)), "tracking is on");
}
