//! Other name servers follow the zones of the daemon (`[rpz]` of the settings): they hear of a change and of the edge of a
//! window, answer as the gateway does, and find the same serials after a restart. Who may not have them gets nothing.

use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Agent, Over, World};
use crate::{A, AGENTS, B, SITE};

/// A transfer, an answer, a state: the machine may be busy. Secondaries ask by themselves each minute.
const SOON: Duration = Duration::from_secs(45);
const SECRET: &str = "c2l4dGVlbiBvY3RldHMgYW5kIG1vcmU=";
const ALLOW: &str = "global.allow.rpz.clawgress";
const HOST: &str = "a.allow.rpz.clawgress";
const REST: &str = "deny.rpz.clawgress";

/// Where the bystander finds the zones, and where agents would.
const PRIMARY: &str = "192.168.12.1";
const INSIDE: &str = "192.168.10.1";

/// `c` follows, with a key (dig) and without one (Unbound, at port 53); `a` is an agent that has the key.
fn settings(world: &World) {
    let secret = world.gateway.path("transfer.key");
    std::fs::write(&secret, SECRET).expect("the temporary directory is writable");
    let key = format!("key = \"transfer\"\nsecret_file = \"{}\"", secret.display());
    world.gateway.settings(&format!(
        "[rpz]\nlisten = [\"{PRIMARY}:5300\", \"{INSIDE}:5300\"]\n\
         [[rpz.secondary]]\naddress = \"192.168.12.10\"\nunsigned = true\n\
         [[rpz.secondary]]\naddress = \"192.168.12.10:9\"\n{key}\n\
         [[rpz.secondary]]\naddress = \"192.168.10.10:9\"\n{key}\n"
    ));
}

fn policy(domains: &[&str], window: Option<Value>) -> Value {
    let mut policy = json!({ "version": 1, "time_zone": "UTC", "scope": { "sources": AGENTS },
        "allow": { "domains": domains },
        "hosts": { "a": { "sources": A, "allow": { "domains": ["own.example.com"] } }, "b": { "sources": B } } });
    if let Some(window) = window {
        policy["domain_time_windows"] = json!({ "timed.example.com": window });
    }
    policy
}

fn dig(agent: &Agent, server: &str, arguments: &[&str], signed: bool) -> String {
    let mut command = agent.netns.command("dig");
    command.arg(format!("@{server}")).args(["-p", "5300", "+tries=1", "+time=10"]);
    if signed {
        command.args(["-y", &format!("hmac-sha256:transfer:{SECRET}")]);
    }
    let out = command.args(arguments).output().expect("dig is installed: run `make setup`");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn serial(world: &World, zone: &str) -> u32 {
    let soa = dig(&world.c, PRIMARY, &[zone, "SOA", "+short"], true);
    soa.split(' ').nth(2).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{zone}: {soa}"))
}

/// Unbound at the bystander's, ended with the test.
struct Unbound(Child);

impl Unbound {
    fn start(world: &World) -> Self {
        let dir = world.gateway.path("unbound");
        std::fs::create_dir(&dir).expect("the temporary directory is writable");
        let place = dir.display();
        let zones: String = [ALLOW, REST]
            .iter()
            .map(|zone| format!("rpz:\n name: {zone}\n master: {PRIMARY}@5300\n allow-notify: {PRIMARY}\n"))
            .collect();
        let conf = format!(
            "server:\n interface: 192.168.12.10\n username: \"\"\n chroot: \"\"\n directory: \"{place}\"\n use-syslog: no\n \
             pidfile: \"{place}/pid\"\n do-daemonize: no\n module-config: \"respip iterator\"\n \
             access-control: 192.168.12.0/24 allow\n cache-max-ttl: 1\n cache-max-negative-ttl: 1\n\
             remote-control:\n control-enable: no\n{zones}forward-zone:\n name: \".\"\n forward-addr: 9.9.9.9\n"
        );
        std::fs::write(dir.join("conf"), conf).expect("the temporary directory is writable");
        let mut command = world.c.netns.command("unbound");
        command.arg("-dp").arg("-c").arg(dir.join("conf")).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("unbound is installed: run `make setup`"))
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the follower and the gateway say of a name; the gateway is asked by an agent that has the global lists.
fn both(world: &World, name: &str) -> [String; 2] {
    let follower: std::net::IpAddr = "192.168.12.10".parse().expect("an address");
    let code = |agent: &Agent, server| {
        agent
            .dig(name, RecordType::A, server, Over::Udp)
            .map_or_else(|other| format!("{other:?}"), |reply| reply.code())
    };
    [code(&world.c, follower), code(&world.b, world.b.router4)]
}

#[track_caller]
fn both_say(world: &World, name: &str, code: &str) {
    let agreed = || both(world, name) == [code, code];
    let end = std::time::Instant::now() + SOON;
    while !agreed() {
        assert!(std::time::Instant::now() < end, "{name} should be {code}: {:?}", both(world, name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S").to_string()
}

#[test]
fn a_follower_answers_as_the_gateway_does_through_changes_edges_and_restarts() {
    let mut world = world!();
    for name in ["one.example.com", "two.example.com", "timed.example.com", "x.wild.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
    }
    settings(&world);
    world.gateway.enforce(policy(&["one.example.com", "*.wild.example.com"], None));
    let _unbound = Unbound::start(&world);
    both_say(&world, "one.example.com", "NOERROR");
    both_say(&world, "x.wild.example.com", "NOERROR");
    for name in ["two.example.com", "wild.example.com", "nowhere.test", "own.example.com"] {
        both_say(&world, name, "NXDOMAIN");
    }
    let first = serial(&world, ALLOW);

    // A change is told, and only the zone that it is about.
    let rest = serial(&world, REST);
    world.gateway.import(policy(&["two.example.com"], None));
    both_say(&world, "two.example.com", "NOERROR");
    both_say(&world, "one.example.com", "NXDOMAIN");
    let second = serial(&world, ALLOW);
    assert!(second > first && serial(&world, REST) == rest);

    // A window that opens and closes.
    let opens = (Utc::now() + TimeDelta::seconds(8)).trunc_subsecs(0);
    let window = json!({ "start": time(opens), "end": time(opens + TimeDelta::seconds(12)) });
    world.gateway.import(policy(&["two.example.com", "timed.example.com"], Some(window)));
    both_say(&world, "timed.example.com", "NXDOMAIN");
    assert!(Utc::now() < opens, "the machine is too slow for this test");
    both_say(&world, "timed.example.com", "NOERROR");
    both_say(&world, "timed.example.com", "NXDOMAIN");
    both_say(&world, "two.example.com", "NOERROR");

    // Who has what.
    let told = |gateway: &crate::world::Gateway| gateway.status()["secondaries"][0].clone();
    let is_current = |zone: &Value| zone["confirmed"] == zone["serial"];
    world.gateway.wait_until("the follower has all that it follows", SOON, |gateway| {
        let zones = told(gateway)["zones"].as_array().cloned().unwrap_or_default();
        zones.iter().filter(|zone| zone["zone"] != format!("{HOST}.")).all(is_current) && zones.len() == 3
    });
    assert_eq!(told(&world.gateway)["signed"], false);

    // A restart keeps serials; a policy that changed meanwhile gets newer ones.
    let before = [serial(&world, ALLOW), serial(&world, HOST), serial(&world, REST)];
    world.gateway.terminate();
    world.gateway.start();
    let after = |world: &World| [serial(world, ALLOW), serial(world, HOST), serial(world, REST)];
    world.gateway.wait_until("the zones are served", SOON, |_| {
        dig(&world.c, PRIMARY, &[ALLOW, "SOA"], true).contains("NOERROR")
    });
    assert_eq!(after(&world), before);
    world.gateway.kill9();
    world.gateway.store(policy(&["one.example.com"], None));
    world.gateway.start();
    both_say(&world, "one.example.com", "NOERROR");
    both_say(&world, "two.example.com", "NXDOMAIN");
    let last = after(&world);
    assert!(last[0] > before[0] && last[1..] == before[1..], "{before:?} {last:?}");
}

#[test]
fn a_list_that_changes_is_told_to_followers() {
    let mut world = world!();
    for name in ["one.example.com", "two.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
    }
    let file = world.gateway.path("names.txt");
    let save = |names: &str| std::fs::write(&file, names).expect("the temporary directory is writable");
    save("one.example.com\n");
    settings(&world);
    let list = json!([{ "name": "names", "file": file, "format": "domains" }]);
    let mut policy = policy(&[], None);
    policy["allow"] = json!({ "domain_lists": list });
    world.gateway.enforce(policy);
    let _unbound = Unbound::start(&world);
    both_say(&world, "one.example.com", "NOERROR");
    both_say(&world, "two.example.com", "NXDOMAIN");
    let first = serial(&world, ALLOW);
    let told = |gateway: &crate::world::Gateway| {
        let zones = gateway.status()["secondaries"][0]["zones"].as_array().cloned().unwrap_or_default();
        zones.into_iter().find(|zone| zone["zone"] == format!("{ALLOW}.")).expect("it follows the zone")
    };
    // Nobody says anything but the file. By itself a follower asks a minute later.
    save("two.example.com\n");
    both_say(&world, "two.example.com", "NOERROR");
    both_say(&world, "one.example.com", "NXDOMAIN");
    assert!(serial(&world, ALLOW) > first);
    world.gateway.wait_until("it answered NOTIFY", SOON, |gateway| {
        let zone = told(gateway);
        zone["notified"] == zone["serial"] && zone["confirmed"] == zone["serial"]
    });
}

#[test]
fn only_who_may_have_the_zones_gets_them() {
    let mut world = world!();
    settings(&world);
    world.gateway.enforce(policy(&["one.example.com"], None));
    let whole = dig(&world.c, PRIMARY, &[HOST, "AXFR"], true);
    assert!(whole.contains("own.example.com.a.allow.rpz.clawgress."), "{whole}");
    assert!(!whole.contains("could not be validated"), "{whole}");
    // An agent with the key: the kernel refuses the port to it, on every address of the gateway.
    for server in [INSIDE, PRIMARY] {
        let refused = dig(&world.a, server, &[HOST, "AXFR"], true);
        assert!(refused.contains("refused") && !refused.contains("CNAME"), "{refused}");
    }
    let secondaries = world.gateway.status()["secondaries"].clone();
    assert_eq!(secondaries[2]["ok"], false, "an agent as a secondary is a mistake: {secondaries}");
    assert!(world.gateway.tool(&["health"]).stdout.contains("among the sources of a host"));
    // A stranger, from the internet.
    let stranger = dig(&world.internet.peer, PRIMARY, &[HOST, "AXFR"], true);
    assert!(!stranger.contains("CNAME") && stranger.contains("Transfer failed"), "{stranger}");
    let log = world.gateway.log();
    assert!(log.contains("its address is that of no secondary"), "{log}");
}
