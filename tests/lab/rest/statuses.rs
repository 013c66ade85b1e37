//! A test for each status and each call: whoever may not, or asks wrongly, changes nothing.

use serde_json::{Value, json};

use super::{JSON, READ, WRITE, call, post, serve};
use crate::faults::Disk;
use crate::world::World;
use crate::{OTHER, SITE};

/// Every call, and whether it changes something.
const CALLS: [(&str, bool); 8] = [
    ("policy", true),
    ("rollback", true),
    ("confirm", true),
    ("status", false),
    ("health", false),
    ("explain", false),
    ("log", false),
    ("plan", false),
];

fn only(address: &str) -> Value {
    json!({ "version": 1, "allow": { "ips": [address] } })
}

/// A body that would be done with the right key.
fn body(name: &str) -> Value {
    match name {
        "policy" | "plan" => json!({ "policy": only(OTHER) }),
        "explain" => json!({ "source": "192.168.10.10", "ip": OTHER }),
        _ => json!({}),
    }
}

#[track_caller]
fn nothing_changed(world: &World) {
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert_eq!(world.gateway.status()["revision"], 1);
    let stored = std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is stored");
    assert_eq!(stored, only(SITE).to_string());
}

#[test]
fn every_call_wants_a_key_its_own_fields_and_json() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    for (name, writes) in CALLS {
        for prefix in ["/clawgress", "/api/clawgress"] {
            let path = format!("{prefix}/{name}");
            let body = body(name);
            let keyless = call(&world, "POST", &path, JSON, &body.to_string());
            assert!(keyless.refused(401).contains("missing"), "{keyless:?}");
            assert_eq!(keyless.header("www-authenticate").as_deref(), Some("bearer"));
            let wrong = post(&world, &path, "0123456789abcdef-wrong", body.clone());
            assert!(wrong.refused(401).contains("not known"), "{wrong:?}");
            // A right key ends the count of wrong ones, which are not what is tried here.
            let mut unknown = body.clone();
            unknown["polcy"] = json!(1);
            let told = post(&world, &path, WRITE, unknown);
            told.refused(400);
            assert_eq!(told.body["errors"][0]["path"], "/polcy", "{told:?}");
            assert!(told.body["errors"][0]["hint"].is_string());
            if writes {
                let read_only = post(&world, &path, READ, body.clone());
                assert!(read_only.refused(403).contains("dashboard"), "{read_only:?}");
            }
            for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let told = call(&world, method, &path, JSON, "");
                told.refused(405);
                assert_eq!(told.header("allow").as_deref(), Some("post"), "{told:?}");
            }
            let keyed = json!({ "key": WRITE }).to_string();
            for headers in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
                call(&world, "POST", &path, headers, &keyed).refused(415);
            }
            for text in ["", "{", "[]", "null", "{\"key\": \"\u{1}\"}", "key=x"] {
                call(&world, "POST", &path, JSON, text).refused(400);
            }
        }
    }
    nothing_changed(&world);
    assert!(world.gateway.log().contains("wrong API key from 127.0.0.1 for policy"), "{}", world.gateway.log());
    assert!(!world.gateway.log().contains("0123456789abcdef"), "no key is logged, right or wrong");
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    for path in ["/", "/clawgress", "/clawgress/", "/clawgress/reboot", "/clawgress/policy/", "/api/policy", "/metrics"]
    {
        for method in ["GET", "POST"] {
            call(&world, method, path, JSON, "{}").refused(404);
        }
    }
    call(&world, "POST", "/openapi.json", JSON, "{}").refused(405);
    nothing_changed(&world);
}

#[test]
fn an_invalid_policy_is_told_line_by_line() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let policy = json!({ "version": 1, "allow": { "ports": [0], "ips": ["10.0.0.1/8"] }, "hots": {} });
    let answer = post(&world, "/clawgress/policy", WRITE, json!({ "policy": policy }));
    answer.refused(400);
    let paths: Vec<&str> =
        answer.body["errors"].as_array().unwrap().iter().filter_map(|e| e["path"].as_str()).collect();
    assert_eq!(paths, ["/hots", "/allow/ips/0", "/allow/ports/0"], "{answer:?}");
    // Doubles within the policy are seen as well, though JSON readers like to hide them.
    let twice = format!("{{\"key\": \"{WRITE}\", \"policy\": {{\"version\": 1, \"version\": 1}}}}");
    let answer = call(&world, "POST", "/clawgress/policy", JSON, &twice);
    answer.refused(400);
    assert_eq!(answer.body["errors"][0]["path"], "/version", "{answer:?}");
    nothing_changed(&world);
}

#[test]
fn a_stale_revision_changes_nothing() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    for (expected, apply) in [(0, true), (2, true), (7, false)] {
        let body = json!({ "policy": only(OTHER), "expect_revision": expected, "apply": apply });
        let answer = post(&world, "/clawgress/policy", WRITE, body);
        assert!(answer.refused(409).contains("revision 1 is in force"), "{answer:?}");
    }
    nothing_changed(&world);
    let body = json!({ "policy": only(OTHER), "expect_revision": 1 });
    assert_eq!(post(&world, "/clawgress/policy", WRITE, body).done()["revision"], 2);
}

#[test]
fn where_the_disk_or_the_kernel_refuses_the_old_policy_is_enforced() {
    let mut world = world!();
    let disk = Disk::mount(&world.gateway.path("state"));
    serve(&mut world, &only(SITE));
    disk.fill();
    for more in [json!({}), json!({ "confirm_seconds": 60 })] {
        let mut body = json!({ "policy": only(OTHER) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = post(&world, "/clawgress/policy", WRITE, body);
        let told = answer.refused(500);
        assert!(told.contains("disk is full") && told.contains("still enforced"), "{told}");
        nothing_changed(&world);
    }
    world.gateway.kill9();
    // A table of our name that is not ours is one that the kernel will not have changed.
    disk.clear();
    world.gateway.tool(&["teardown"]).must_succeed();
    std::fs::remove_file(world.gateway.path("policy.json")).expect("it is there");
    std::fs::remove_dir_all(world.gateway.path("state/revisions")).expect("it is there");
    std::fs::remove_file(world.gateway.path("state/enforced.json")).expect("it is there");
    world.gateway.launch();
    super::await_listener(&world);
    world.gateway.nft_load("table inet clawgress {\n chain mine {\n type filter hook forward priority 10\n }\n}\n");
    let answer = post(&world, "/clawgress/policy", WRITE, json!({ "policy": only(OTHER) }));
    assert!(answer.refused(500).contains("not ours"), "{answer:?}");
    assert!(!world.gateway.path("policy.json").exists(), "what is not enforced is not stored");
    for name in ["confirm", "rollback"] {
        post(&world, &format!("/clawgress/{name}"), WRITE, json!({})).refused(409);
    }
    let asked = json!({ "source": "1.1.1.1", "ip": "1.1.1.1" });
    assert!(post(&world, "/clawgress/explain", WRITE, asked).refused(409).contains("no policy is in force"));
    world.gateway.kill9();
}
