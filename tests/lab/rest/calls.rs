//! Each call does what it says.

use std::process::Stdio;
use std::time::Duration;

use clawgress::policy::{not_yet_enforced, parse};
use serde_json::{Value, json};

use super::{JSON, LISTEN, READ, WRITE, call, post, serve};
use crate::world::World;
use crate::{OTHER, SITE};

fn only(address: &str) -> Value {
    json!({ "version": 1, "allow": { "ips": [address] } })
}

#[test]
fn a_policy_is_in_force_and_stored_when_the_answer_says_so() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    for (path, address, shut) in [("/clawgress/policy", OTHER, SITE), ("/api/clawgress/policy", SITE, OTHER)] {
        let answer = post(&world, path, WRITE, json!({ "policy": only(address) }));
        let data = answer.done();
        assert_eq!((&data["applied"], &data["stored"]), (&json!(true), &json!(true)), "{data}");
        assert!(data["changes"].as_u64().expect("a number") > 0);
        world.a.tcp(address, 443).must_reach();
        world.a.tcp(shut, 443).must_be_reset();
        let status = post(&world, "/clawgress/status", READ, json!({}));
        let status = status.done();
        for field in ["revision", "sha256"] {
            assert_eq!(status[field], data[field]);
        }
        assert_eq!((&status["origin"], &status["state"]), (&json!("api"), &json!("enforcing")), "{status}");
        let stored = std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is stored");
        assert_eq!(serde_json::from_str::<Value>(&stored).expect("JSON"), only(address));
    }
    let history = world.gateway.tool(&["history", "--json"]).json();
    assert_eq!(history["revisions"][0]["key_id"], "automation", "{history}");
    assert!(!world.gateway.log().contains(WRITE), "no key is ever logged");
}

#[test]
fn a_policy_for_later_changes_nothing_now() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let answer = post(&world, "/clawgress/policy", WRITE, json!({ "policy": only(OTHER), "apply": false }));
    let data = answer.done();
    assert_eq!(
        (&data["revision"], &data["applied"], &data["changes"]),
        (&json!(1), &json!(false), &json!(0)),
        "{data}"
    );
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.tool(&["apply"]).must_succeed();
    world.a.tcp(OTHER, 443).must_reach();
    assert_eq!(world.gateway.status()["sha256"], data["sha256"]);
    // Not valid is not valid, applied or not.
    let wrong = json!({ "policy": { "version": 1, "allow": { "ports": [0] } }, "apply": false });
    post(&world, "/clawgress/policy", WRITE, wrong).refused(400);
    world.gateway.tool(&["apply"]).must_succeed();
    world.a.tcp(OTHER, 443).must_reach();
}

#[test]
fn an_unconfirmed_policy_is_not_stored_and_goes_back() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let stored = || std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is stored");
    let try_out = |seconds: u64| {
        let body = json!({ "policy": only(OTHER), "confirm_seconds": seconds });
        let answer = post(&world, "/clawgress/policy", WRITE, body);
        assert_eq!((&answer.done()["applied"], &answer.done()["stored"]), (&json!(true), &json!(false)));
        assert!(answer.done()["confirm_by"].is_string(), "{answer:?}");
        world.a.tcp(OTHER, 443).must_reach();
        assert_eq!(stored(), only(SITE).to_string());
        answer.done()["revision"].as_u64().expect("a number")
    };
    try_out(1);
    let unconfirmed = |gateway: &crate::world::Gateway| gateway.log().contains("was not confirmed in time");
    world.gateway.wait_until("it goes back", Duration::from_secs(15), unconfirmed);
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    post(&world, "/clawgress/confirm", WRITE, json!({})).refused(409);

    let revision = try_out(60);
    post(&world, "/clawgress/confirm", WRITE, json!({ "revision": revision - 1 })).refused(409);
    let answer = post(&world, "/clawgress/confirm", WRITE, json!({ "revision": revision }));
    assert_eq!(answer.done(), &json!({ "revision": revision, "stored": true }));
    assert_eq!(serde_json::from_str::<Value>(&stored()).expect("JSON"), only(OTHER));
}

#[test]
fn a_policy_on_trial_where_none_is_stored_is_in_good_health() {
    let mut world = world!();
    world.gateway.settings(&super::keys());
    world.gateway.launch();
    super::await_listener(&world);
    let first = json!({ "policy": only(SITE), "confirm_seconds": 60 });
    assert!(post(&world, "/clawgress/policy", WRITE, first).refused(409).contains("none to go back to"));
    world.gateway.tool_reading(&["apply", "--policy", "-"], &only(SITE).to_string()).must_succeed();
    let body = json!({ "policy": only(OTHER), "confirm_seconds": 60 });
    post(&world, "/clawgress/policy", WRITE, body).done();
    let health = post(&world, "/clawgress/health", READ, json!({}));
    assert_eq!(health.done()["healthy"], true, "{health:?}");
    post(&world, "/clawgress/confirm", WRITE, json!({})).done();
    assert_eq!(world.gateway.status()["drift"], false);
}

#[test]
fn rollback_returns_to_an_earlier_revision() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    post(&world, "/clawgress/rollback", WRITE, json!({})).refused(409);
    post(&world, "/clawgress/policy", WRITE, json!({ "policy": only(OTHER) })).done();
    post(&world, "/clawgress/rollback", WRITE, json!({ "revision": 9 })).refused(404);
    post(&world, "/clawgress/rollback", WRITE, json!({ "expect_revision": 1 })).refused(409);
    world.a.tcp(OTHER, 443).must_reach();
    let answer = post(&world, "/clawgress/rollback", WRITE, json!({ "expect_revision": 2 }));
    assert_eq!((&answer.done()["to"], &answer.done()["revision"]), (&json!(1), &json!(3)), "{answer:?}");
    world.a.tcp(SITE, 443).must_reach();
    let history = world.gateway.tool(&["history", "--json"]).json();
    let newest = &history["revisions"][0];
    assert_eq!((&newest["origin"], &newest["key_id"]), (&json!("rollback"), &json!("automation")), "{history}");
}

#[test]
fn reading_calls_say_what_the_tool_says() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let health = post(&world, "/clawgress/health", READ, json!({}));
    assert_eq!(health.done(), &world.gateway.tool(&["health", "--json"]).json());
    let checks = health.done()["checks"].as_array().expect("a list").clone();
    assert!(checks.iter().any(|check| check["name"] == "api" && check["ok"] == true), "{checks:?}");
    for (ip, verdict) in [(SITE, "allow"), (OTHER, "block")] {
        let source = world.a.v4.to_string();
        let answer = post(&world, "/clawgress/explain", READ, json!({ "source": source, "ip": ip, "port": 443 }));
        let told = world.gateway.explain(world.a.v4, &["--ip", ip, "--port", "443"]);
        assert_eq!((answer.done(), &answer.done()["verdict"]), (&told, &json!(verdict)));
    }
    let domain = json!({ "source": world.a.v4.to_string(), "domain": "API.Example.com." });
    assert_eq!(post(&world, "/clawgress/explain", READ, domain).done()["verdict"], "block");
    for wrong in [json!({ "source": "1.1.1.1" }), json!({ "source": "1.1.1.1", "domain": "a b" })] {
        post(&world, "/clawgress/explain", READ, wrong).refused(400);
    }
    let document = call(&world, "GET", "/openapi.json", "", "");
    let committed = std::fs::read_to_string("schema/openapi.json").expect("it is committed");
    assert_eq!((document.status, document.body), (200, serde_json::from_str(&committed).expect("JSON")));
}

#[test]
fn a_plan_and_the_log_are_those_of_the_tool() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    world.a.tcp(OTHER, 443).must_be_reset();
    let mut logged = Value::Null;
    world.gateway.wait_until("the refusal is recorded", super::super::log::PATIENCE, |_| {
        logged = post(&world, "/clawgress/log", READ, json!({ "action": "block", "protocol": "tcp" })).done().clone();
        logged["records"].as_array().is_some_and(|records| !records.is_empty())
    });
    assert_eq!((&logged["records"][0]["address"], &logged["records"][0]["port"]), (&json!(OTHER), &json!(443)));
    let by_tool = world.gateway.tool(&["log", "--json", "--limit", "1", "--action", "block"]).json();
    assert_eq!(by_tool, logged["records"].as_array().expect("records").last().expect("one").clone());
    let none = post(&world, "/clawgress/log", READ, json!({ "host": "nobody", "limit": 5 }));
    assert_eq!(none.done(), &json!({ "records": [] }));

    let body = json!({ "policy": only(OTHER), "hours": 1 });
    let mut planned = Value::Null;
    world.gateway.wait_until("the record is in a file", super::super::log::PATIENCE, |_| {
        planned = post(&world, "/clawgress/plan", READ, body.clone()).done().clone();
        planned["replay"]["opens"]["decisions"].as_u64() >= Some(1)
    });
    let place = &planned["replay"]["opens"]["listed"][0]["listed"][0];
    assert_eq!((&place["address"], &place["reason"]), (&json!(OTHER), &json!("not-allowlisted")), "{planned:#}");
    let arguments = ["plan", "--policy", "-", "--hours", "1", "--json"];
    let by_tool = world.gateway.tool_reading(&arguments, &only(OTHER).to_string()).json();
    assert_eq!((&by_tool["changes"], &by_tool["sha256"]), (&planned["changes"], &planned["sha256"]));
    assert_eq!(planned["changes"]["widen"], 1);
    let wrong = json!({ "policy": { "version": 1, "allow": { "ports": [0], "domains": ["*.com"] } } });
    let wrong = post(&world, "/clawgress/plan", READ, wrong);
    wrong.refused(400);
    assert_eq!(wrong.body["errors"].as_array().map(Vec::len), Some(2), "{wrong:?}");
    assert_eq!(world.gateway.status()["revision"], 1);
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn agents_cannot_reach_the_api() {
    let mut world = world!();
    world.gateway.settings(&format!("{}listen = \"0.0.0.0:8787\"\n", super::keys()));
    world.gateway.enforce(json!({ "version": 1, "hosts": { "a": { "sources": crate::A } } }));
    super::await_listener(&world);
    assert!(!world.a.tcp("192.168.10.1", 8787).reached(), "the source of a host");
    assert!(world.c.netns.enter(|| std::net::TcpStream::connect("192.168.12.1:8787")).is_ok(), "administrators can");
}

/// The calls that the first system's users have in their scripts, as they were printed there.
#[test]
fn the_calls_of_old_scripts_work() {
    const POLICY: &str = r#"curl -sS -X POST http://<vyos-host>/api/clawgress/policy \
  -H "Content-Type: application/json" \
  -d '{
    "key": "id_key",
    "policy": {
      "version": 1,
      "allow": {
        "domains": ["api.openai.com"],
        "ports": [443]
      },
      "labels": {
        "api.openai.com": "llm-provider"
      },
      "limits": {
        "egress_kbps": 4000
      }
    },
    "apply": true
  }'"#;
    const HEALTH: &str = r#"curl -sS -X POST http://<vyos-host>/api/clawgress/health \
  -H "Content-Type: application/json" \
  -d '{"key":"id_key"}'"#;
    const TELEMETRY: &str = r#"curl -sS -X POST http://<vyos-host>/api/clawgress/telemetry \
  -H "Content-Type: application/json" \
  -d '{"key":"id_key"}'"#;
    let mut world = world!();
    serve(&mut world, &only(SITE));
    world.internet.upstream.host("api.openai.com", &[OTHER]);
    let policy =
        POLICY.split_once("\"policy\": ").and_then(|(_, rest)| rest.rsplit_once(",\n    \"apply\"")).unwrap().0;
    let missing = not_yet_enforced(&parse(policy).expect("a policy"));
    let answer = curl(&world, POLICY);
    if missing.is_empty() {
        assert_eq!((&answer["success"], &answer["data"]["applied"]), (&json!(true), &json!(true)), "{answer}");
        world.a.reach("api.openai.com", 443).must_reach();
        world.a.tcp(SITE, 443).must_be_reset();
    } else {
        // What this version does not enforce yet is refused, whichever way it comes.
        assert_eq!(answer["errors"], serde_json::to_value(missing).expect("JSON"), "{answer}");
        world.a.tcp(SITE, 443).must_reach();
    }
    let answer = curl(&world, HEALTH);
    assert_eq!((&answer["success"], &answer["data"]["healthy"]), (&json!(true), &json!(true)), "{answer}");
    let answer = curl(&world, TELEMETRY);
    let data = &answer["data"];
    assert_eq!((&answer["success"], &data["window"]), (&json!(true), &json!("1h")), "{answer}");
    assert_eq!(data["domains"]["api.openai.com"]["label"], "llm-provider", "{answer}");
    assert!(data["agents"]["*"]["bytes_up"].as_u64() > Some(0), "{answer}");
}

fn curl(world: &World, line: &str) -> Value {
    let line = line.replace("<vyos-host>", LISTEN).replace("id_key", WRITE);
    let mut command = world.gateway.netns.command("sh");
    let done = command.args(["-c", &line]).stdin(Stdio::null()).output().expect("curl is installed: `make setup`");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn the_key_may_stand_in_the_head() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let with = |key: &str| format!("{JSON}Authorization: Bearer {key}\r\n");
    call(&world, "POST", "/clawgress/status", &with(READ), "{}").done();
    call(&world, "POST", "/clawgress/policy", &with(READ), "{}").refused(403);
    let body = json!({ "policy": only(OTHER) }).to_string();
    call(&world, "POST", "/clawgress/policy", &with(WRITE), &body).done();
    // Two keys must both be right.
    let both = json!({ "key": READ }).to_string();
    call(&world, "POST", "/clawgress/status", &with("wrong"), &both).refused(401);
}

#[test]
fn metrics_answer_without_a_key_where_the_settings_say_so() {
    let mut world = world!();
    world.gateway.settings("[api]\nmetrics = true\n");
    world.gateway.enforce(only(SITE));
    super::await_listener(&world);
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    let text = super::exchange(super::connect(&world), super::request("GET", "/metrics", "", "").as_bytes());
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("text/plain; version=0.0.4"), "{head}");
    let value = |name: &str| -> u64 {
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("{name} in {body}"))
    };
    assert_eq!(value("clawgress_state{state=\"enforcing\"}"), 1);
    assert_eq!((value("clawgress_denies_total{reason=\"no-lease\"}"), value("clawgress_revision")), (1, 1), "{body}");
    assert!(value("clawgress_host_bytes_total{host=\"*\",direction=\"up\"}") > 100);
    for address in [SITE, OTHER, "192.168.10.10"] {
        assert!(!body.contains(address), "no address is told: {body}");
    }
    // There is no key, so nobody may ask for anything else.
    post(&world, "/clawgress/status", READ, json!({})).refused(401);
}

#[test]
fn telemetry_is_what_the_tool_prints() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    // One packet each way, and none after it.
    world.a.udp(SITE, 443).must_reach();
    for path in ["/clawgress/telemetry", "/api/clawgress/telemetry"] {
        let answer = post(&world, path, READ, json!({}));
        let data = answer.done();
        let told = world.gateway.tool(&["telemetry", "--json"]).json();
        assert_eq!((&data["window"], &data["revision"]), (&json!("1h"), &told["revision"]));
        assert_eq!(data["agents"], told["agents"], "no packet comes any more");
        assert!(data["usage"]["bytes_up"].as_u64() > Some(50), "{data}");
    }
    let one = post(&world, "/clawgress/telemetry", READ, json!({ "view": "agent", "target": "*", "window": "5m" }));
    assert_eq!((&one.done()["window"], one.done()["agents"].as_object().expect("one").len()), (&json!("5m"), 1));
    post(&world, "/clawgress/telemetry", READ, json!({ "view": "agent", "target": "nobody" })).refused(404);
    post(&world, "/clawgress/telemetry", READ, json!({ "window": "2h" })).refused(400);
    assert!(post(&world, "/clawgress/stats", READ, json!({})).done()["usage_24h"]["bytes_up"].as_u64() > Some(50));
}
