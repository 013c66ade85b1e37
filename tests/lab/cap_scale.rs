//! Ten thousand caps: what their turn, a change of policy, a status and a start cost. Figures for docs/benchmarks.md, best
//! with a release build: `CLAWGRESS_BIN=target/release/clawgress`.

use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Map, Value, json};

use crate::SITE;
use crate::world::World;

const HOSTS: usize = 100;
const CAPS: usize = 100;

fn policy(period: &str, changed: usize) -> Value {
    let host = |n: usize| {
        let caps: Map<String, Value> = (0..CAPS)
            .map(|cap| {
                let bytes = if n * CAPS + cap < changed { 2_000_000 } else { 1_000_000 };
                (format!("n{cap}.example.com"), json!({ "bytes": bytes, "period": period }))
            })
            .collect();
        (format!("host-{n}"), json!({ "sources": [format!("10.9.{n}.0/24")], "exfil": { "domains": caps } }))
    };
    let mut hosts: Map<String, Value> = (0..HOSTS).map(host).collect();
    hosts.insert("a".into(), json!({ "sources": crate::A }));
    json!({ "version": 1, "allow": { "domains": ["*.example.com"] }, "hosts": hosts })
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("| {what} | {:.0} ms |", start.elapsed().as_secs_f64() * 1000.0);
    done
}

/// How long answers take that need a lease of their own: the median and the longest.
fn answers(world: &World, what: &str, time: Duration) {
    let (end, mut all) = (Instant::now() + time, Vec::new());
    let mut name = 0_u32;
    while Instant::now() < end {
        let text = format!("x{name}.{}.example.com", what.len());
        world.internet.upstream.host(&text, &[&format!("151.101.{}.{}", name / 200 % 200, name % 200)]);
        let start = Instant::now();
        let reply = world.a.lookup(&text, RecordType::A).expect("an answer");
        assert!(!reply.addresses().is_empty(), "{}", reply.code());
        all.push(start.elapsed());
        name += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    all.sort();
    println!(
        "| {what}: {} answers | median {:.1?}, longest {:.1?} |",
        all.len(),
        all[all.len() / 2],
        all[all.len() - 1]
    );
}

#[test]
#[ignore = "prints figures"]
fn ten_thousand_caps() {
    let mut world = world!();
    world.internet.upstream.host("n1.example.com", &[SITE]);
    println!("| {} caps | |\n|---|---|", HOSTS * CAPS);
    world.gateway.store(policy("day", 0));
    timed("first start", || world.gateway.start());
    timed("policy with 1 % of the caps changed", || world.gateway.import(policy("day", HOSTS * CAPS / 100)));
    timed("policy without a change", || world.gateway.import(policy("day", HOSTS * CAPS / 100)));
    timed("status", || world.gateway.status());
    timed("firewall", || world.gateway.tool(&["firewall"]).must_succeed().len());
    answers(&world, "no turn", Duration::from_secs(3));
    world.gateway.terminate();
    timed("start with the table there", || world.gateway.start());
    timed("change of all periods", || world.gateway.import(policy("minute", 0)));
    let second = chrono::Utc::now().timestamp() % 60;
    std::thread::sleep(Duration::from_secs(u64::try_from(57 - second.min(57)).expect("small")));
    answers(&world, "before and behind a turn of all", Duration::from_secs(7));
    let turned = world.gateway.status();
    let now = chrono::Utc::now().to_rfc3339();
    let due = turned["caps"].as_array().expect("a list").iter();
    let late = due.filter(|cap| cap["resets_at"].as_str().is_some_and(|at| at < now.as_str())).count();
    assert_eq!(late, 0, "all have turned");
    println!("{}", std::fs::metadata(world.gateway.path("state/ledger")).expect("there is a ledger").len());
}
