//! The Debian package on a machine with systemd: installed, upgraded, removed and purged under traffic, and the boot.

#[path = "deb/machine.rs"]
mod machine;

use std::time::Duration;

use serde_json::json;

use crate::{A, AGENTS, OTHER, OTHER6, SITE, SITE6, rounds};
use machine::{Machine, package};

/// Of two packages this one is the later.
const LATER: &str = "0.1.0+later";
const UNIT: &str = "clawgress.service";
const EARLY: &str = "clawgress-early.service";
/// How long systemd may take until something runs again.
const BACK: Duration = Duration::from_secs(20);

fn policy() -> serde_json::Value {
    json!({ "version": 1, "scope": { "sources": AGENTS }, "hosts": {
        "a": { "sources": A, "allow": { "ips": [SITE, SITE6] } } } })
}

#[test]
fn from_installation_to_purge_no_packet_goes_wrong() {
    let world = world!();
    world.gateway.unlimited_icmp();
    let machine = Machine::boot(&world);
    let said = machine.install(&package("0.1.0"));
    assert!(said.contains("nothing is enforced yet"), "{said}");
    world.a.tcp(OTHER, 443).must_reach();
    for unit in [UNIT, EARLY] {
        assert_eq!(machine.unit(unit, "UnitFileState"), "enabled");
        assert_eq!(machine.unit(unit, "ActiveState"), "active");
    }
    machine.import(&policy());
    machine.sh("clawgress health");
    machine.sh("echo '# mine' >> /etc/clawgress/clawgress.toml");

    let allowed = [world.a.probe_tcp(SITE, 443), world.a.probe_udp(SITE6, 443)];
    let denied = [world.a.probe_udp(OTHER, 443), world.b.probe_udp(OTHER6, 443)];
    let mut process = machine.unit(UNIT, "MainPID");
    for turn in 0..2 * rounds(1) {
        let version = [LATER, "0.1.0"][turn % 2];
        let said = machine.install(&package(version));
        assert!(!said.contains("nothing is enforced"), "{said}");
        assert_eq!(machine.sh("dpkg-query --show --showformat '${Version}' clawgress"), version);
        let before = std::mem::replace(&mut process, machine.unit(UNIT, "MainPID"));
        assert_ne!(process, before, "the new program runs");
        machine.sh("clawgress health && grep -q '# mine' /etc/clawgress/clawgress.toml");
    }
    let said = machine.sh("dpkg --remove clawgress 2>&1");
    assert!(said.contains("the kernel goes on enforcing"), "{said}");
    allowed.map(|probe| probe.stop()).iter().for_each(|report| report.must_be_whole());
    denied.map(|probe| probe.stop()).iter().for_each(|report| report.must_be_dead());
    world.a.tcp(OTHER, 443).must_be_reset();
    machine.sh("test -f /etc/clawgress/clawgress.toml && test -d /var/lib/clawgress && test ! -e /usr/bin/clawgress");

    let said = machine.sh("dpkg --purge clawgress 2>&1");
    assert!(said.contains("the gateway is open"), "{said}");
    world.a.tcp(OTHER, 443).must_reach();
    machine.sh("for p in /etc /var/lib /run /config; do test ! -e $p/clawgress || exit 1; done");
    assert_eq!(machine.sh("find / -xdev -name '*clawgress*' -path '/etc/systemd/*'"), "");
}

#[test]
fn after_a_reboot_the_last_policy_is_there_before_network_and_daemon() {
    let world = world!();
    let machine = Machine::boot(&world);
    machine.install(&package("0.1.0"));
    machine.import(&policy());
    machine.sh("systemctl disable --quiet clawgress.service && systemctl enable --quiet nftables.service");
    machine.reboot();
    assert_eq!(machine.unit(UNIT, "ActiveState"), "inactive");
    let began = |unit: &str| machine.unit(unit, "ActiveEnterTimestampMonotonic").parse::<u64>().unwrap();
    assert!(began("nftables.service") > 0, "it was there to be waited for");
    assert!(began("nftables.service") <= began(EARLY) && began(EARLY) <= began("network-pre.target"));
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.c.tcp(OTHER, 443).must_reach();
    let before = machine.unit(EARLY, "Before");
    for later in ["network-pre.target", "vyos-router.service", UNIT] {
        assert!(before.split(' ').any(|unit| unit == later), "{before}");
    }

    // It starts with "flush ruleset", and nobody but us has a reason to load our table again.
    for action in ["restart", "reload"] {
        machine.sh(&format!("systemctl {action} nftables.service"));
        // Without a daemon nobody owns the table, so it is gone for a moment.
        world.gateway.wait_until("the table is loaded again", BACK, |_| !world.a.tcp(OTHER, 443).reached());
        world.a.tcp(SITE, 443).must_reach();
    }
    machine.sh("systemctl start clawgress.service && clawgress health");
    world.a.tcp(OTHER, 443).must_be_reset();
    // Two of the rules of the house, told by those who know.
    machine
        .sh("systemd-analyze verify clawgress.service clawgress-early.service 2>&1 | grep clawgress && exit 1 || true");
}

#[test]
fn a_daemon_that_cannot_work_any_more_is_started_again() {
    let world = world!();
    let machine = Machine::boot(&world);
    machine.install(&package("0.1.0"));
    machine.import(&policy());
    let process = machine.unit(UNIT, "MainPID");
    machine.sh(&format!("kill -KILL {process}"));
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.wait_until("the daemon is back", BACK, |_| {
        machine.unit(UNIT, "MainPID") != process && machine.run(&["clawgress", "health"]).code == Some(0)
    });
    world.a.tcp(SITE, 443).must_reach();
    assert_eq!(machine.unit(UNIT, "NRestarts"), "1");
    // Capabilities and system calls as the unit says.
    let status = machine.sh("cat /proc/$(systemctl show --value --property MainPID clawgress.service)/status");
    for line in ["CapEff:\t0000000000001400", "CapBnd:\t0000000000001400", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
}

/// What the package finds on a VyOS router, as far as it looks at it.
fn like_a_router(machine: &Machine) {
    let reference = "/usr/lib/python3/dist-packages/vyos/xml_ref/update_cache.py";
    machine.write(reference, "644", "print('merged', file=open('/root/merged', 'a'))\n");
    machine.sh(&format!("mkdir -p {CONFIG}/scripts && ln -s {CONFIG} /config"));
    machine.write(
        "/usr/bin/cli-shell-api",
        "755",
        "#!/bin/sh\ntest -e /root/node && test \"$*\" = 'existsActive service clawgress'\n",
    );
    let configd = "[Service]\nExecStart=/bin/sleep infinity\n";
    machine.write("/etc/systemd/system/vyos-configd.service", "644", configd);
    machine.sh("systemctl daemon-reload && systemctl start vyos-configd.service");
}

/// Where VyOS keeps what outlives an image upgrade.
const CONFIG: &str = "/opt/vyatta/etc/config";

#[test]
fn on_a_router_the_commit_is_the_master_and_an_image_upgrade_keeps_the_package() {
    let world = world!();
    let machine = Machine::boot(&world);
    like_a_router(&machine);
    let configd = machine.unit("vyos-configd.service", "MainPID");
    machine.install(&package("0.1.0"));
    assert_eq!(machine.sh("cat /root/merged"), "merged\n");
    assert_ne!(machine.unit("vyos-configd.service", "MainPID"), configd, "it must read the merged cache");
    for unit in [UNIT, EARLY] {
        assert_eq!(
            (machine.unit(unit, "UnitFileState"), machine.unit(unit, "ActiveState")),
            ("disabled".into(), "inactive".into())
        );
    }
    machine.sh(&format!(
        "grep -qx '{CONFIG}/clawgress/pkg/restore-package || true' {CONFIG}/scripts/vyos-preconfig-bootup.script"
    ));

    // What a commit does, see conf-mode.
    machine.write("/run/clawgress/clawgress.toml", "600", "state_dir = \"/config/clawgress/state\"\n");
    machine.sh(
        "systemctl start clawgress.service && systemctl enable --quiet clawgress-early.service && touch /root/node",
    );
    machine.import(&policy());
    let daemon = machine.unit(UNIT, "MainPID");
    let probe = world.a.probe_tcp(SITE, 443);
    machine.install(&package(LATER));
    assert_ne!(machine.unit(UNIT, "MainPID"), daemon, "the new program runs");
    probe.stop().must_be_whole();
    let refused = machine.run(&["dpkg", "--remove", "clawgress"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("delete service clawgress"), "{}", refused.stderr);
    machine.sh("clawgress health && dpkg-query --status clawgress | grep -q '^Status: .* installed$'");
    let active = machine.sh("rm /root/node; cat /config/config.boot 2>/dev/null; true");
    machine.write(
        "/config/config.boot",
        "644",
        format!("{active}service {{\n    clawgress {{\n        enable\n    }}\n}}\n"),
    );
    assert_eq!(machine.run(&["dpkg", "--remove", "clawgress"]).code, Some(1), "saved, though not active");
    machine.sh("rm /config/config.boot");

    // The table of the last run is there before /config is.
    machine.sh("systemctl stop clawgress.service && rm -r /run/clawgress && rm /config");
    machine.sh("nft delete table inet clawgress && systemctl restart clawgress-early.service");
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();

    // A new image: only the configuration is taken along. Removing the package would tidy up there, so it is put aside.
    machine.sh(&format!(
        "cp -a {CONFIG} /root/config && dpkg --purge clawgress && rm -r {CONFIG} && mv /root/config {CONFIG}"
    ));
    world.a.tcp(OTHER, 443).must_reach();
    let said = machine.sh(&format!("{CONFIG}/scripts/vyos-preconfig-bootup.script 2>&1"));
    assert!(said.contains("without the package") && said.contains("revision 1 is in force"), "{said}");
    assert_eq!(
        machine.sh("dpkg-query --show --showformat '${db:Status-Status} ${Version}' clawgress"),
        format!("installed {LATER}")
    );
    world.a.tcp(OTHER, 443).must_be_reset();
    assert_eq!(machine.sh(&format!("{CONFIG}/scripts/vyos-preconfig-bootup.script 2>&1")), "", "once is enough");
    machine.sh("dpkg --verify clawgress");

    machine.sh("dpkg --remove clawgress");
    machine.sh(&format!(
        "! grep -q clawgress {CONFIG}/scripts/vyos-preconfig-bootup.script && test ! -e {CONFIG}/clawgress/pkg"
    ));
    machine.sh(&format!("test -e {CONFIG}/clawgress/state/enforced.json && dpkg --purge clawgress"));
    machine.sh(&format!("test -e {CONFIG}/clawgress/state/enforced.json"));
}
