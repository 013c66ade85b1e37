//! Ten thousand caps turn together.

use std::io::Write as _;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Gateway, Outcome};
use crate::{A, SITE};

/// Hosts besides the agent's, and the caps of each.
const HOSTS: usize = 100;
const CAPS: usize = 100;
/// Where the upload goes, and what it is at least.
const SINK: u16 = 9000;
const SENT: usize = 300_000;

fn policy() -> Value {
    let caps = |names: Vec<String>| -> Value {
        let each = names.into_iter().map(|name| (name, json!({ "bytes": 10_000_000, "period": "minute" })));
        json!({ "domains": each.collect::<serde_json::Map<_, _>>() })
    };
    let mut hosts = serde_json::Map::new();
    for host in 0..HOSTS {
        let names: Vec<String> = (0..CAPS).map(|n| format!("n{n}.example.com")).collect();
        let block = json!({ "sources": [format!("10.77.{}.{}", host / 200, host % 200 + 1)],
            "allow": { "domains": names }, "exfil": caps(names) });
        hosts.insert(format!("host-{host}"), block);
    }
    // Behind all others in the order of their numbers.
    hosts.insert(
        "z".to_owned(),
        json!({ "sources": A, "allow": { "domains": ["api.example.com"], "ports": [SINK] },
        "exfil": caps(vec!["api.example.com".to_owned()]) }),
    );
    json!({ "version": 1, "time_zone": "UTC", "hosts": hosts })
}

fn used(gateway: &Gateway) -> (u64, String) {
    let status = gateway.status();
    let mut caps = status["caps"].as_array().expect("a list").iter();
    let own = caps.find(|cap| cap["host"] == "z").expect("the cap is in force");
    (own["used"].as_u64().expect("a number"), own["resets_at"].as_str().expect("a time").to_owned())
}

#[test]
fn what_was_used_before_a_turn_counts_in_no_later_period_however_many_turn() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.internet.servers.sink(&[SINK]);
    world.gateway.enforce(policy());
    // Not so close to a turn that the upload would be over it.
    while chrono::Utc::now().timestamp() % 60 > 50 {
        std::thread::sleep(Duration::from_millis(100));
    }
    world.a.resolve_and("api.example.com", RecordType::A, |_| Outcome::TimedOut);
    let mut flow = world.a.flow(SITE, SINK);
    flow.stream.write_all(&[7; SENT]).expect("less than the cap");
    world.gateway.wait_until("it is charged", Duration::from_secs(5), |gateway| used(gateway).0 >= SENT as u64);
    let (_, turns) = used(&world.gateway);
    // Seldom, because each look reads all caps.
    std::thread::sleep(Duration::from_secs(61 - (chrono::Utc::now().timestamp() % 60) as u64));
    let begun = Instant::now();
    while used(&world.gateway).1 == turns {
        assert!(begun.elapsed() < Duration::from_secs(50), "a cap does not turn");
        std::thread::sleep(Duration::from_secs(2));
    }
    println!("turned {:?} after a second into the minute", begun.elapsed());
    let (used, _) = used(&world.gateway);
    assert!(used < 10_000, "{used} octets of the period before count in this one");
}
