//! Refusals: by reason exactly what the kernel and DNS counted.

use std::collections::BTreeMap;

use clawgress::plan::table::refusals::REFUSALS;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use super::telemetry;
use crate::world::Gateway;
use crate::{A, AGENTS, OTHER, SITE};

/// What the counters of the chains that refuse say, by reason.
pub fn counted(gateway: &Gateway) -> BTreeMap<String, u64> {
    let text = gateway.nft(&["list", "table", "inet", "clawgress"]).stdout;
    let mut out = BTreeMap::new();
    for chain in text.split("chain ") {
        let Some(refusal) = REFUSALS.iter().find(|refusal| chain.starts_with(&format!("{} {{", refusal.chain))) else {
            continue;
        };
        let packets =
            chain.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        *out.entry(refusal.reasons[0].as_str().to_owned()).or_default() += packets.unwrap_or(0);
    }
    out.retain(|_, count| *count > 0);
    out
}

#[test]
fn denials_by_reason_are_what_was_counted() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let policy = json!({ "version": 1, "scope": { "sources": AGENTS }, "deny": { "ips": ["45.60.1.0/24"] },
        "hosts": { "a": { "sources": A, "allow": { "domains": ["api.example.com"], "ports": [443] },
                          "deny": { "domains": ["bad.example"] } } } });
    world.gateway.unlimited_icmp();
    world.gateway.enforce(policy);
    world.a.addresses("api.example.com");
    for _ in 0..7 {
        world.a.tcp(OTHER, 443).must_be_reset();
        world.a.tcp(SITE, 80).must_be_reset();
        world.b.tcp("45.60.1.1", 443).must_be_reset();
    }
    let _ = world.a.udp(SITE, 25);
    for n in 0..300 {
        let _ = world.a.lookup(&format!("n{n}.elsewhere.example"), RecordType::A);
        let _ = world.b.lookup("pastebin.example", RecordType::A);
    }
    let _ = world.a.lookup("bad.example", RecordType::A);
    let told = telemetry(&world.gateway, &[]);
    let before = counted(&world.gateway);
    let mut expected = before.clone();
    assert!(expected["no-lease"] >= 7 && expected["port-not-allowed"] >= 8 && expected["denied"] >= 7, "{expected:?}");
    *expected.entry("not-allowlisted".into()).or_default() += 600;
    *expected.entry("denied".into()).or_default() += 1;
    let by_reason: BTreeMap<String, u64> =
        serde_json::from_value(told["denies"]["by_reason"].clone()).expect("numbers by reason");
    assert_eq!(by_reason, expected);
    assert_eq!(told["usage"]["denies"], json!(expected.values().sum::<u64>()));
    let by_domain = &told["denies"]["by_domain"];
    assert_eq!((&by_domain["pastebin.example"], &by_domain["bad.example"]), (&json!(300), &json!(1)), "{by_domain}");
    let names = by_domain.as_object().expect("an object");
    assert!(names.len() < 300, "bounded, and what is beyond is said: {}", names.len());
    assert!(names["(other)"].as_u64().expect("a number") >= 40, "{by_domain}");
    let (a, nobody) = (&told["agents"]["a"], &told["agents"]["*"]);
    assert_eq!((&nobody["queries"], &nobody["allows"]), (&json!(300), &json!(0)), "{nobody}");
    assert_eq!((&a["queries"], &a["allows"]), (&json!(302), &json!(1)), "{a}");
    let sum = |agent: &Value| agent["denies"].as_u64().expect("a number");
    assert_eq!(sum(a) + sum(nobody), expected.values().sum::<u64>(), "all are known by their host");
    // What is refused while nobody is there is counted as well; the new daemon's chains count from the beginning.
    world.gateway.kill9();
    for _ in 0..5 {
        world.a.tcp(OTHER, 443).must_be_reset();
    }
    let dead = counted(&world.gateway)["no-lease"] - before["no-lease"];
    assert_eq!(dead, 5);
    world.gateway.start();
    world.a.tcp(OTHER, 443).must_be_reset();
    *expected.entry("no-lease".into()).or_default() += dead + 1;
    let told = telemetry(&world.gateway, &["denies"]);
    let by_reason: BTreeMap<String, u64> =
        serde_json::from_value(told["denies"]["by_reason"].clone()).expect("numbers by reason");
    assert_eq!(by_reason, expected, "after kill -9");
    let exported = world.gateway.tool(&["telemetry", "export"]);
    let exported = exported.must_succeed();
    assert!(!exported.contains("192.168.10.10") && exported.contains("\"redacted\": true"), "{exported}");
    let whole = world.gateway.tool(&["telemetry", "export", "--no-redact"]);
    assert!(whole.must_succeed().contains(&world.a.v4.to_string()), "{}", whole.stdout);
}
