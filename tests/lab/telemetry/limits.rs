//! What limits refuse is not counted as sent: octets of hosts with rate limits and exfil caps.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Exchange, Scales, alike, telemetry};
use crate::world::Address;
use crate::{A, B, OTHER, SITE};

/// How long an agent sends against a limit.
const SENDING: Duration = Duration::from_secs(2);
const MIB: usize = 1 << 20;

#[test]
fn what_limits_refuse_is_not_counted() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.internet.upstream.host("slow.example.com", &[OTHER]);
    world.gateway.enforce(json!({ "version": 1, "time_zone": "UTC", "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com"] },
               "exfil": { "domains": { "api.example.com": { "bytes": 2 * MIB, "period": "day" } } } },
        "b": { "sources": B, "allow": { "domains": ["slow.example.com"] }, "limits": { "egress_kbps": 4000 } } } }));
    world.a.addresses("api.example.com");
    world.b.addresses("slow.example.com");
    let (a, b, site, slow) = (world.a.v4, world.b.v4, SITE.address(), OTHER.address());
    let scales = Scales::new(&world, &[(a, site), (b, slow)]);
    // Beyond the cap; the flow ends in the middle.
    let _ = Exchange::open(&world.a, site).try_turn(8 * MIB);
    // Datagrams know no congestion: most of them are over the rate.
    let end = Instant::now() + SENDING;
    let flood = world.b.netns.enter(|| std::net::UdpSocket::bind((b, 0))).expect("a port is free");
    let mut sent = 0_u64;
    while Instant::now() < end {
        sent += flood.send_to(&[7; 1200], (slow, 443)).map_or(0, |octets| octets as u64 + 28);
    }
    let told = telemetry(&world.gateway, &[]);
    let (capped, limited) = (scales.octets(a, site), scales.octets(b, slow));
    assert!(limited.0 > 0 && limited.0 * 2 < sent, "{} of {sent} passed", limited.0);
    assert!(capped.0 > MIB as u64 && capped.0 <= 2 * MIB as u64, "{capped:?}");
    alike("a, capped", &told["agents"]["a"]["bytes_up"], capped.0);
    alike("b, limited", &told["agents"]["b"]["domains"]["slow.example.com"]["bytes_up"], limited.0);
    assert!(told["denies"]["by_reason"]["rate-limited"].as_u64() > Some(0), "{}", told["denies"]);
    assert!(told["denies"]["by_reason"]["cap-exhausted"].as_u64() > Some(0), "{}", told["denies"]);
    let cap = &told["agents"]["a"]["caps"]["api.example.com"];
    assert_eq!((&cap["bytes"], &cap["period"]), (&json!(2 * MIB), &json!("day")), "{cap}");
    let (used, left) = (cap["used"].as_u64().expect("a number"), cap["remaining"].as_u64().expect("a number"));
    assert!(used > MIB as u64 && left < MIB as u64 && cap["resets_at"].is_string(), "{cap}");
}
