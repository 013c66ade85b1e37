//! The configurations of other name servers that filter by response-policy zones.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use super::{Peer, free_port};

/// The key with which primaries and secondaries sign: its name, algorithm and secret.
pub const KEY: [&str; 3] = ["transfer", "hmac-sha256", "c2l4dGVlbiBvY3RldHMgYW5kIG1vcmU="];

/// What a resolver filters by, and where it asks.
pub struct Setup<'a> {
    /// Where it listens.
    pub port: u16,
    /// The names of all zones, in an order that is right for everybody.
    pub zones: &'a [String],
    /// The zones of each client, in their order; empty: all zones are everybody's.
    pub views: &'a [(Ipv4Addr, Vec<String>)],
    /// Who has the zones; `None`: each is in a file of its name in the peer's directory.
    pub primary: Option<SocketAddr>,
    /// The port of the upstream.
    pub upstream: u16,
}

impl<'a> Setup<'a> {
    /// These zones for everybody, from a primary.
    pub fn following(primary: SocketAddr, zones: &'a [String], port: u16, upstream: u16) -> Self {
        Self { port, zones, views: &[], primary: Some(primary), upstream }
    }

    /// These zones from files, each client with its own.
    pub fn loading(zones: &'a [String], views: &'a [(Ipv4Addr, Vec<String>)], upstream: u16) -> Self {
        Self { port: free_port(), zones, views, primary: None, upstream }
    }
}

impl Peer {
    /// Unbound: one list of zones, each with the tags of the clients that have it. It cannot sign.
    pub fn unbound(binary: &Path, dir: tempfile::TempDir, setup: &Setup<'_>) -> Self {
        let Setup { port, upstream, .. } = setup;
        let place = dir.path().display();
        let mut conf = format!(
            "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{place}\"\n \
             pidfile: \"{place}/pid\"\n use-syslog: no\n verbosity: 1\n do-ip6: no\n do-daemonize: no\n \
             do-not-query-localhost: no\n module-config: \"respip iterator\"\n access-control: 127.0.0.0/8 allow\n \
             cache-max-ttl: 1\n cache-max-negative-ttl: 1\n"
        );
        let tags: Vec<String> = (0..setup.views.len()).map(|index| format!("v{index}")).collect();
        if !tags.is_empty() {
            writeln!(conf, " define-tag: \"{}\"", tags.join(" ")).unwrap();
        }
        for ((client, _), tag) in setup.views.iter().zip(&tags) {
            writeln!(conf, " access-control-tag: {client}/32 \"{tag}\"").unwrap();
        }
        conf.push_str("remote-control:\n control-enable: no\n");
        for zone in setup.zones {
            writeln!(conf, "rpz:\n name: {zone}").unwrap();
            match setup.primary {
                Some(from) => {
                    let master = format!("{}@{}", from.ip(), from.port());
                    writeln!(conf, " master: {master}\n allow-notify: {}", from.ip()).unwrap();
                }
                None => writeln!(conf, " zonefile: \"{place}/{zone}\"").unwrap(),
            }
            let users = setup.views.iter().zip(&tags).filter(|((_, zones), _)| zones.contains(zone));
            let users: Vec<&str> = users.map(|(_, tag)| tag.as_str()).collect();
            if !setup.views.is_empty() {
                writeln!(conf, " tags: \"{}\"", users.join(" ")).unwrap();
            }
        }
        writeln!(conf, "forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{upstream}").unwrap();
        fs::write(dir.path().join("unbound.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg("-dp").arg("-c").arg(dir.path().join("unbound.conf"));
        Self::start(command, *port, dir)
    }

    /// BIND: a view for each client. With a primary all is signed, both ways.
    pub fn bind(binary: &Path, dir: tempfile::TempDir, setup: &Setup<'_>) -> Self {
        let Setup { port, upstream, .. } = setup;
        let place = dir.path().display();
        let [key, algorithm, secret] = KEY;
        let mut conf = format!(
            "key \"{key}\" {{ algorithm {algorithm}; secret \"{secret}\"; }};\n\
             options {{ directory \"{place}\"; pid-file \"{place}/pid\"; session-keyfile \"{place}/key\";\n \
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }};\n \
             forward only; forwarders {{ 127.0.0.1 port {upstream}; }}; dnssec-validation no; empty-zones-enable no;\n \
             max-cache-ttl 1; max-ncache-ttl 1; }};\ncontrols {{ }};\n"
        );
        let filter = |conf: &mut String, zones: &[String]| {
            let list: String = zones.iter().map(|zone| format!("zone \"{zone}\"; ")).collect();
            let more = "qname-wait-recurse no break-dnssec yes min-update-interval 0";
            writeln!(conf, " response-policy {{ {list}}} {more};").unwrap();
            for zone in zones {
                let from = match setup.primary {
                    Some(from) => format!(
                        "type secondary; primaries {{ {} port {} key \"{key}\"; }}; allow-notify {{ key \"{key}\"; }}",
                        from.ip(),
                        from.port()
                    ),
                    None => "type primary".to_owned(),
                };
                writeln!(conf, " zone \"{zone}\" {{ {from}; file \"{place}/{zone}\"; }};").unwrap();
            }
        };
        if setup.views.is_empty() {
            conf.push_str("view \"all\" {\n");
            filter(&mut conf, setup.zones);
            conf.push_str("};\n");
        }
        for (client, zones) in setup.views {
            writeln!(conf, "view \"{client}\" {{ match-clients {{ {client}; }};").unwrap();
            filter(&mut conf, zones);
            conf.push_str("};\n");
        }
        fs::write(dir.path().join("named.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg("-g").arg("-n").arg("1").arg("-c").arg(dir.path().join("named.conf"));
        Self::start(command, *port, dir)
    }

    /// PowerDNS Recursor with zones from a primary, signed, for everybody. It asks each `refresh` seconds.
    pub fn recursor(binary: &Path, dir: tempfile::TempDir, setup: &Setup<'_>, refresh: u32) -> Self {
        let Setup { port, upstream, .. } = setup;
        let place = dir.path().display();
        let [key, algorithm, secret] = KEY;
        let primary = setup.primary.expect("files are not what it is tried with");
        let mut lua = String::new();
        for zone in setup.zones {
            writeln!(
                lua,
                "rpzPrimary(\"{primary}\", \"{zone}\", {{ policyName=\"{zone}\", refresh={refresh}, tsigname=\"{key}\", \
                 tsigalgo=\"{algorithm}\", tsigsecret=\"{secret}\" }})"
            )
            .unwrap();
        }
        fs::write(dir.path().join("policy.lua"), lua).unwrap();
        let conf = format!(
            "local-address=127.0.0.1:{port}\nforward-zones-recurse=.=127.0.0.1:{upstream}\n\
             lua-config-file={place}/policy.lua\nsocket-dir={place}\nthreads=1\ndaemon=no\ndisable-syslog=yes\n\
             quiet=yes\nloglevel=6\ndnssec=off\nsecurity-poll-suffix=\nallow-from=127.0.0.0/8\ndont-query=\n\
             write-pid=no\nmax-cache-ttl=1\nmax-negative-ttl=1\npacketcache-ttl=0\n\
             allow-notify-from=127.0.0.0/8\n"
        );
        fs::write(dir.path().join("recursor.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg(format!("--config-dir={place}"));
        Self::start(command, *port, dir)
    }

    /// Knot DNS, which serves the zones on, from a primary, signed both ways.
    pub fn knot(binary: &Path, dir: tempfile::TempDir, setup: &Setup<'_>) -> Self {
        let place = dir.path().display();
        let [key, algorithm, secret] = KEY;
        let primary = setup.primary.expect("files are not what it is tried with");
        let (address, from) = (primary.ip(), primary.port());
        let mut conf = format!(
            "server:\n  listen: 127.0.0.1@{}\n  rundir: {place}\n  udp-workers: 1\n  tcp-workers: 1\n\
             log:\n  - target: stderr\n    any: info\ndatabase:\n  storage: {place}\n\
             key:\n  - id: {key}\n    algorithm: {algorithm}\n    secret: {secret}\n\
             remote:\n  - id: primary\n    address: {address}@{from}\n    key: {key}\n\
             acl:\n  - id: told\n    address: {address}\n    key: {key}\n    action: notify\n\
             template:\n  - id: default\n    storage: {place}\n    master: primary\n    acl: told\nzone:\n",
            setup.port
        );
        for zone in setup.zones {
            writeln!(conf, "  - domain: {zone}").unwrap();
        }
        fs::write(dir.path().join("knot.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg("-c").arg(dir.path().join("knot.conf"));
        Self::start(command, setup.port, dir)
    }
}
