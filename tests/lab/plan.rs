//! `plan`: what it says of live flows is what becomes of them, and saying it changes nothing.

use serde_json::{Value, json};

use crate::world::Gateway;
use crate::{A, B, OTHER, OTHER6, SITE, SITE6};

/// What the tool says of a policy.
fn plan(gateway: &Gateway, policy: &Value) -> Value {
    gateway.tool_reading(&["plan", "--policy", "-", "--json"], &policy.to_string()).json()
}

fn policy(names: &[&str], ips: &[&str]) -> Value {
    json!({ "version": 1, "time_zone": "UTC", "hosts": {
        "agent-a": { "sources": A, "allow": { "domains": names, "ips": ips, "ports": [443] } } } })
}

/// What must stay as it is.
fn picture(gateway: &Gateway) -> (Value, String) {
    let status = gateway.status();
    let rules = gateway.nft(&["--stateless", "list", "table", "inet", "clawgress"]).stdout;
    // How long leases are good still.
    let rules = rules.lines().filter(|line| !line.contains("expires")).collect::<Vec<_>>().join("\n");
    (json!([status["revision"], status["sha256"], status["state"]]), rules)
}

#[test]
fn flows_end_as_planned_and_planning_ends_none() {
    let mut world = world!();
    world.internet.upstream.host("stays.example.com", &[SITE]);
    world.internet.upstream.host("goes.example.com", &[OTHER]);
    let old = policy(&["stays.example.com", "goes.example.com"], &[SITE6, OTHER6]);
    world.gateway.enforce(&old);
    world.a.reach("stays.example.com", 443).must_reach();
    world.a.reach("goes.example.com", 443).must_reach();
    let mut kept = [world.a.flow(SITE, 443), world.a.flow(SITE6, 443)];
    let mut cut = [world.a.flow(OTHER, 443), world.a.flow(OTHER6, 443)];
    let before = picture(&world.gateway);

    let same = plan(&world.gateway, &old);
    assert_eq!((&same["same"], &same["changes"]["count"], &same["flows"]["cut"]), (&json!(true), &json!(0), &json!(0)));
    assert!(same["flows"]["live"].as_u64() >= Some(4), "{}", same["flows"]);

    let new = policy(&["stays.example.com", "new.example.com"], &[SITE6]);
    let told = plan(&world.gateway, &new);
    let changes: Vec<Value> = told["changes"]["listed"].as_array().expect("changes").clone();
    let line =
        |change: &Value| json!([change["effect"], change["change"], change["host"], change["field"], change["item"]]);
    assert_eq!(
        changes.iter().map(line).collect::<Vec<_>>(),
        [
            json!(["widens", "added", "agent-a", "allow.domains", "new.example.com"]),
            json!(["narrows", "removed", "agent-a", "allow.domains", "goes.example.com"]),
            json!(["narrows", "removed", "agent-a", "allow.ips", format!("{OTHER6}/128")]),
        ]
    );
    let listed = told["flows"]["listed"].as_array().expect("flows");
    let of = |address: &str| listed.iter().filter(|flow| flow["address"] == address).collect::<Vec<_>>();
    assert!(of(SITE).is_empty() && of(SITE6).is_empty(), "{listed:#?}");
    // A connection that was closed may be tracked for some seconds still.
    let (named, by_list) = (of(OTHER)[0], of(OTHER6)[0]);
    assert_eq!(
        (&named["host"], &named["source"], &named["domains"], &named["port"], &named["protocol"], &named["at"]),
        (
            &json!("agent-a"),
            &json!("192.168.10.10"),
            &json!(["goes.example.com"]),
            &json!(443),
            &json!("tcp"),
            &Value::Null
        )
    );
    assert_eq!((&named["reason"], &by_list["reason"]), (&json!("no-lease"), &json!("no-lease")));
    assert_eq!(told["flows"]["cut"], listed.len());
    assert_eq!(
        told["leases"]["listed"],
        json!([{ "host": "agent-a", "domain": "goes.example.com", "address": OTHER }])
    );

    assert_eq!(picture(&world.gateway), before, "planning changes nothing");
    assert!(kept.iter_mut().chain(&mut cut).all(|flow| flow.alive()));
    world.gateway.import(&new);
    assert!(kept.iter_mut().all(|flow| flow.alive()), "what was not to be cut goes on");
    assert!(cut.iter_mut().all(|flow| !flow.alive()), "what was to be cut is");
}

#[test]
fn windows_and_lower_caps_are_foreseen() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let policy = |more: Value| {
        let mut policy = json!({ "version": 1, "time_zone": "UTC", "hosts": {
            "agent-a": { "sources": A, "allow": { "domains": ["api.example.com"], "ports": [443] } } } });
        let block = policy["hosts"]["agent-a"].as_object_mut().expect("a host");
        block.extend(more.as_object().expect("fields").clone());
        policy
    };
    let cap =
        |bytes: u64| json!({ "exfil": { "domains": { "api.example.com": { "bytes": bytes, "period": "day" } } } });
    world.gateway.enforce(policy(cap(100_000_000)));
    world.a.reach("api.example.com", 443).must_reach();
    let mut flow = world.a.flow(SITE, 443);
    assert!(flow.alive());
    let of = |told: &Value, field: &str| {
        let flow = told["flows"]["listed"].as_array().expect("flows").iter().find(|flow| flow["address"] == SITE);
        flow.map_or(Value::Null, |flow| flow[field].clone())
    };

    let lower = plan(&world.gateway, &policy(cap(1)));
    assert_eq!((of(&lower, "reason"), of(&lower, "at")), (json!("cap-exhausted"), Value::Null), "{}", lower["flows"]);
    let higher = plan(&world.gateway, &policy(cap(200_000_000)));
    assert_eq!(of(&higher, "reason"), Value::Null, "{}", higher["flows"]);
    assert_eq!(higher["changes"]["listed"][0]["effect"], "widens");

    // Open all day, but not on the day after tomorrow: an edge that is always ahead.
    let now = chrono::Utc::now();
    let day = |ahead: i64| (now + chrono::TimeDelta::days(ahead)).format("%a").to_string().to_lowercase();
    let window = plan(&world.gateway, &policy(json!({ "time_window": { "days": [day(0), day(1)] } })));
    assert_eq!(of(&window, "reason"), json!("window-closed"), "{}", window["flows"]);
    let at = of(&window, "at").as_str().expect("a time").parse::<chrono::DateTime<chrono::Utc>>().expect("RFC 3339");
    assert!(at > now && (at - now).num_hours() <= 48, "{at}");
    assert_eq!((&window["flows"]["cut"], window["flows"]["later"].as_u64() >= Some(1)), (&json!(0), true));
    let shut = plan(&world.gateway, &policy(json!({ "time_window": { "days": [day(3)] } })));
    assert_eq!((of(&shut, "reason"), of(&shut, "at")), (json!("window-closed"), Value::Null), "{}", shut["flows"]);
    assert!(flow.alive());
}

#[test]
fn what_agents_were_refused_is_decided_again() {
    let mut world = world!();
    world.gateway.settings("[log]\ndecisions = \"all\"\n");
    world.internet.upstream.host("used.example.com", &[SITE]);
    let policy = |names: &[&str]| {
        json!({ "version": 1, "hosts": {
            "agent-a": { "sources": A, "allow": { "domains": names } },
            "agent-b": { "sources": B, "allow": { "domains": ["used.example.com"] } } } })
    };
    world.gateway.enforce(policy(&["used.example.com"]));
    world.a.reach("used.example.com", 443).must_reach();
    world.a.reach("wanted.example.org", 443).must_be_blocked_by_name();
    world.a.reach("other.example.org", 443).must_be_blocked_by_name();
    let new = policy(&["wanted.example.org"]);
    let mut told = Value::Null;
    world.gateway.wait_until("the records are in the files", super::log::PATIENCE, |gateway| {
        told = plan(gateway, &new)["replay"].clone();
        told["opens"]["decisions"].as_u64() >= Some(1) && told["breaks"]["decisions"].as_u64() >= Some(1)
    });
    assert_eq!(told["recorded"], "all");
    let only = |part: &str| {
        let hosts = told[part]["listed"].as_array().expect("hosts").clone();
        assert_eq!(hosts.len(), 1, "{told:#}");
        assert_eq!(hosts[0]["host"], "agent-a");
        hosts[0]["listed"].as_array().expect("places").clone()
    };
    let (opens, breaks) = (only("opens"), only("breaks"));
    assert!(opens.iter().all(|place| place["domain"] == "wanted.example.org" && place["reason"] == "not-allowlisted"));
    assert!(breaks.iter().all(|place| place["domain"] == "used.example.com"), "{breaks:#?}");
    let words = world.gateway.tool_reading(&["plan", "--policy", "-"], &new.to_string());
    let words = words.must_succeed();
    for line in
        ["+  agent-a  allow.domains  wanted.example.org", "would open", "dns wanted.example.org", "ends one lease:"]
    {
        assert!(words.contains(line), "{line:?} is not in\n{words}");
    }
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused_with_every_mistake() {
    let mut world = world!();
    world.gateway.enforce(policy(&[], &[SITE]));
    let broken = r#"{ "version": 1, "alow": {}, "allow": { "ips": ["93.184.216.34/8"], "domains": ["*.com"] } }"#;
    let ran = world.gateway.tool_reading(&["plan", "--policy", "-"], broken);
    assert_eq!(ran.code, Some(1));
    for place in ["/alow", "/allow/ips/0", "/allow/domains/0"] {
        assert!(ran.stderr.contains(place), "{place} is not in {}", ran.stderr);
    }
    let lists = r#"{ "version": 1, "limits": { "egress_kbps": 100000001 } }"#;
    let ran = world.gateway.tool_reading(&["plan", "--policy", "-"], lists);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("/limits/egress_kbps"), "{}", ran.stderr);
}
