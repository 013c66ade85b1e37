//! Between boot and daemon: the last policy alone, then the daemon over it (SPEC sections 4 and 6).

use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{HELLO, Over, World};
use crate::{A, AGENTS, OTHER, OTHER6, SITE, SITE6, rounds};

fn policy() -> serde_json::Value {
    json!({ "version": 1, "scope": { "sources": AGENTS }, "hosts": {
        "a": { "sources": A, "allow": { "ips": [SITE, SITE6], "domains": ["api.example.com"] } } } })
}

/// The router restarts: no daemon, no table, the files of the last run.
fn reboot(world: &mut World) {
    world.gateway.terminate();
    world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
    let _ = std::fs::remove_dir_all(world.gateway.path("run"));
}

fn early(world: &World) -> String {
    world.gateway.tool(&["early"]).must_succeed().to_owned()
}

#[test]
fn the_last_policy_is_enforced_before_the_daemon() {
    let world = world!();
    for resolver in [&world.internet.upstream, &world.internet.foreign] {
        resolver.host("api.example.com", &[OTHER]);
    }
    // Somebody else's resolver on the gateway: it must not serve agents meanwhile.
    world.gateway.servers.echo(&[53]);
    world.gateway.store(policy());
    world.gateway.tool(&["early"]).must_succeed();
    let unfiltered = world.a.udp(world.a.router4, 53);
    assert!(!unfiltered.reached(), "what was stored is enforced though no daemon ever ran: {unfiltered:?}");
    assert!(early(&world).contains("already"), "a second call changes nothing");

    for (agent, router) in [(&world.a, world.a.router4), (&world.b, world.b.router4)] {
        for server in [router, "8.8.8.8".parse().unwrap()] {
            assert!(!agent.udp(server, 53).reached(), "{server} answers");
            for over in [Over::Udp, Over::Tcp] {
                let asked = agent.dig("api.example.com", RecordType::A, server, over);
                assert!(asked.is_err(), "{server} resolves");
            }
        }
    }
    assert_eq!(world.internet.foreign.asked(), []);
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_reach();
        world.a.udp(site, 443).must_reach();
        world.a.tcp(other, 443).must_be_reset();
        world.b.tcp(site, 443).must_be_reset();
        // Out of scope.
        world.c.tcp(other, 443).must_reach();
    }
}

#[test]
fn what_was_in_force_counts_not_what_was_stored_for_later() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.store(json!({ "version": 1 }));
    reboot(&mut world);
    assert!(early(&world).starts_with("revision 1 is in force"));
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn the_daemon_starts_over_it_without_a_wrong_packet() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(policy());
    for locked in [true, false] {
        if !locked {
            world.gateway.settings("[kernel]\nlock_table = false\n");
        }
        for _ in 0..rounds(3) {
            reboot(&mut world);
            early(&world);
            let allowed = [world.a.probe_tcp(SITE, 443), world.a.probe_udp(SITE6, 443)];
            let denied = [world.a.probe_udp(OTHER, 443), world.b.probe_udp(OTHER6, 443)];
            world.gateway.start();
            std::thread::sleep(Duration::from_millis(100));
            allowed.map(|probe| probe.stop()).iter().for_each(|report| report.must_be_whole());
            denied.map(|probe| probe.stop()).iter().for_each(|report| report.must_be_dead());
        }
    }
    world.internet.upstream.host("api.example.com", &[OTHER]);
    world.a.reach("api.example.com", 443).must_reach();
    assert_eq!(world.gateway.status()["state"], "enforcing");
}

#[test]
fn a_daemon_without_the_lock_takes_over_a_table_with_it() {
    let mut world = world!();
    world.gateway.enforce(policy());
    reboot(&mut world);
    early(&world);
    world.gateway.settings("[kernel]\nlock_table = false\n");
    let probe = world.a.probe_tcp(SITE, 443);
    world.gateway.start();
    probe.stop().must_be_whole();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert_eq!(world.gateway.status()["state"], "enforcing");
}

#[test]
fn tracking_that_others_switch_off_afterwards_stays_on() {
    let mut world = world!();
    world.gateway.enforce(policy());
    reboot(&mut world);
    // What a router loads after us: tracking off unless somebody needs it.
    early(&world);
    world.gateway.nft_load(
        "table ip other {
           chain pre { type filter hook prerouting priority -300; notrack
           }
           chain out { type filter hook output priority -300; notrack
           }
         }",
    );
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn borrowed_sources_get_nowhere_though_no_interface_has_an_address_yet() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    let known = |gateway: &crate::world::Gateway| gateway.path("state/interfaces.json").exists();
    world.gateway.wait_until("the interfaces are written down", Duration::from_secs(5), known);
    reboot(&mut world);
    world.gateway.netns.ip("addr flush dev lan1\naddr flush dev lan2\n");
    early(&world);
    world.gateway.netns.ip("addr add 192.168.10.1/24 dev lan1\naddr add fd00:10::1/64 dev lan1 nodad\n\
         addr add 192.168.11.1/24 dev lan2\naddr add fd00:11::1/64 dev lan2 nodad\n");
    // c is out of scope, so the packet would be nobody's business.
    world.c.udp(SITE, 443).must_reach();
    let honest = world.internet.servers.arrivals().len();
    for (source, site) in [(world.c.v4, SITE), (world.c.v6, SITE6)] {
        assert!(!world.a.udp_from((source, 4242), (site, 443), HELLO).reached());
    }
    assert_eq!(world.internet.servers.arrivals().len(), honest, "nothing of it may arrive");
}

#[test]
fn caps_are_not_counted_afresh() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let capped = json!({ "version": 1, "time_zone": "UTC", "hosts": { "a": { "sources": A,
        "allow": { "domains": ["api.example.com"] },
        "exfil": { "domains": { "api.example.com": { "bytes": 1_000_000, "period": "day" } } } } } });
    world.gateway.enforce(capped);
    world.a.reach("api.example.com", 443).must_reach();
    let used = |world: &World| world.gateway.status()["caps"][0]["used"].as_u64().expect("a cap");
    let before = used(&world);
    assert!(before > 0);
    reboot(&mut world);
    early(&world);
    assert!(!world.a.tcp(SITE, 443).reached(), "there is no lease");
    let table = world.gateway.nft(&["list", "table", "inet", "clawgress"]);
    assert!(!table.must_succeed().contains("quota"), "{}", table.stdout);
    world.gateway.start();
    assert!(used(&world) >= before, "{} of {before}", used(&world));
    world.a.reach("api.example.com", 443).must_reach();
}

#[test]
fn where_nothing_was_ever_stored_nothing_is_enforced() {
    let mut world = world!();
    assert!(early(&world).contains("nothing is enforced"));
    world.a.tcp(OTHER, 443).must_reach();
    assert_ne!(world.gateway.nft(&["list", "table", "inet", "clawgress"]).code, Some(0));
    // A daemon that ran and was told of no policy leaves no policy behind.
    world.gateway.start();
    assert!(early(&world).contains("daemon runs"));
    world.gateway.terminate();
    assert!(early(&world).contains("nothing is enforced"));
    world.a.tcp(OTHER, 443).must_reach();
}

#[test]
fn what_cannot_be_read_or_enforced_closes_the_scope() {
    let mut world = world!();
    let damage = |world: &World, text: &str| {
        let _ = std::fs::remove_dir_all(world.gateway.path("state"));
        std::fs::create_dir(world.gateway.path("state")).unwrap();
        std::fs::write(world.gateway.path("state/enforced.json"), text).unwrap();
    };
    let delete = |world: &World| {
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
    };
    // Nobody knows any more whom it was about.
    damage(&world, "\0\0\0\0");
    let ran = world.gateway.tool(&["early"]);
    assert!(ran.must_succeed().contains("everything that this machine forwards is blocked"), "{}", ran.stdout);
    assert!(ran.stderr.contains("enforced.json is damaged"), "{}", ran.stderr);
    world.a.tcp(SITE, 443).must_be_reset();
    world.c.tcp(SITE6, 443).must_be_reset();
    delete(&world);

    // A policy of a later version: whom it is about can be told.
    let mut later = policy();
    later["quantum"] = json!(true);
    world.gateway.store(later);
    std::fs::remove_dir_all(world.gateway.path("state")).unwrap();
    let ran = world.gateway.tool(&["early"]);
    assert!(ran.must_succeed().contains("the scope of the last policy is blocked"), "{}", ran.stdout);
    assert!(ran.stderr.contains("/quantum"), "{}", ran.stderr);
    world.a.tcp(SITE, 443).must_be_reset();
    world.b.tcp(SITE6, 443).must_be_reset();
    world.c.tcp(SITE, 443).must_reach();
    world.gateway.start();
    world.a.tcp(SITE, 443).must_be_reset();
    assert_ne!(world.gateway.status()["state"], "enforcing", "it is said");
}

#[test]
fn mistakes_in_the_settings_open_nothing() {
    let mut world = world!();
    world.gateway.enforce(policy());
    reboot(&mut world);
    world.gateway.settings("upstraems = []\n");
    let ran = world.gateway.tool(&["early"]);
    assert!(ran.must_succeed().starts_with("revision 1 is in force"), "{}", ran.stdout);
    assert!(ran.stderr.contains("upstraems"), "{}", ran.stderr);
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn a_policy_on_trial_whose_time_is_over_is_not_what_the_router_starts_with() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let trial = json!({ "version": 1, "allow": { "ips": [OTHER] } }).to_string();
    world.gateway.tool_reading(&["apply", "--policy", "-", "--confirm", "3600"], &trial).must_succeed();
    reboot(&mut world);
    assert!(early(&world).starts_with("revision 2 is in force"), "its time is not over");
    world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();

    let file = world.gateway.path("state/unconfirmed.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    let mut wait: serde_json::Value = serde_json::from_str(head).unwrap();
    wait["deadline"] = json!("2026-01-01T00:00:00Z");
    std::fs::write(&file, format!("{wait}\n{rest}")).unwrap();
    assert!(early(&world).starts_with("revision 1 is in force"));
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
}
