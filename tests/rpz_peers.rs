//! The exported response-policy zones mean what the policy means: `named-checkzone` reads every one of them, and real
//! resolvers that load them (Unbound, BIND) answer as the reference evaluator decides, for every name in a zone, the
//! names above and below it, and names nobody wrote.
//!
//! The peers are Debian packages (`bind9-utils`, `unbound`, `bind9`). One that is missing is skipped loudly, and with
//! `CI=true` that is a failure, but for `bind9`: its installation takes port 53 of the machine, which not every machine
//! can give. Everything here stays on the loopback interface, at ports that are free.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clawgress::plan::rpz::{Zone, order, zones};
use clawgress::policy::decision::Verdict;
use clawgress::policy::model::{HostName, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::{parse, reference};

#[allow(dead_code, reason = "the flows of the differential test are not needed here")]
#[path = "differential/random.rs"]
mod random;
use random::Random;

/// Random policies that each peer loads.
const POLICIES: u64 = 10;
/// How long a peer may take to load and to settle on an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one answer may take before the query is sent again.
const ANSWER: Duration = Duration::from_millis(500);
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// Where a program is; `None`, said loudly: it is not installed.
fn program(name: &str, package: &str, optional: bool) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    let found = places.find_map(|place| Some(Path::new(place).join(name)).filter(|file| file.is_file()));
    if found.is_none() {
        let may_miss = optional || std::env::var("CI").as_deref() != Ok("true");
        assert!(may_miss, "{name} is missing: apt-get install {package}");
        eprintln!("SKIP: {name} is not installed (apt-get install {package}), so its part is not tested");
    }
    found
}

/// The policies: random ones, and one with everything that zones get wrong.
fn policies() -> Vec<Policy> {
    let hard = r#"{"version": 1,
        "allow": {"domains": ["*.clo.net", "m.clo.net", "u.v.clo.net", "*.w.v.clo.net", "single", "bücher.org"]},
        "deny": {"domains": ["*.m.clo.net", "q.m.clo.net", "v.clo.net", "z.y.clo.net"]},
        "hosts": {
            "A.b": {"sources": ["10.0.0.1"], "allow": {"domains": ["clo.net", "*.y.clo.net"]}},
            "a.b": {"sources": ["10.0.0.2"], "deny": {"domains": ["*.clo.net"]}},
            "global": {"sources": ["10.0.0.3"], "allow": {"domains": []}}
        }}"#;
    let hard = parse(hard).unwrap_or_else(|errors| panic!("{errors:?}"));
    (1..=POLICIES).map(|seed| Random::new(seed * 77).policy()).chain([hard]).collect()
}

/// Sources in no host, then the hosts; each with the loopback address from which it asks.
fn views(policy: &Policy) -> Vec<(Option<&HostName>, Ipv4Addr)> {
    let hosts = [None].into_iter().chain(policy.hosts.keys().map(Some));
    hosts.zip(1..).map(|(host, last)| (host, Ipv4Addr::new(127, 0, 77, last))).collect()
}

/// Names worth asking for: all in the zones, those above and below, and others.
fn questions(zones: &[Zone], seed: u64) -> BTreeSet<Name> {
    let mut texts = BTreeSet::new();
    for line in zones.iter().flat_map(|zone| zone.text.lines()).filter(|line| line.contains(" CNAME ")) {
        let owner = line.split(' ').next().unwrap_or_default();
        let mut rest = owner.strip_prefix("*.").unwrap_or(owner);
        while rest != "*" {
            texts.insert(rest.to_owned());
            texts.insert(format!("kid.{rest}"));
            texts.insert(format!("two.deep.{rest}"));
            let Some((_, above)) = rest.split_once('.') else { break };
            rest = above;
        }
    }
    let mut random = Random::new(seed);
    for _ in 0..40 {
        texts.insert(random.name().to_string());
        texts.insert(format!("r{}.{}", random.below(1000), random.name()));
        texts.insert(format!("r{}.nowhere{}.org", random.below(1000), random.below(1000)));
    }
    texts.iter().filter_map(|text| Name::from_wire_labels(text.split('.').map(str::as_bytes))).collect()
}

/// An upstream that knows every name: one address, whoever asks.
fn upstream() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let Some(end) = question_end(&packet[..length]) else { continue };
            let asks_for_address = packet[end - 4..end - 2] == [0, 1];
            let mut answer = packet[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(asks_for_address), 0, 0, 0, 0]);
            if asks_for_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 93, 184, 216, 34]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// Where the question section of a message with one question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    while *message.get(at)? > 0 {
        at += usize::from(message[at]) + 1;
    }
    Some(at + 5).filter(|end| *end <= message.len())
}

/// Asks for the address of a name; `None`: no answer in time. The response code, and whether an address came.
fn ask(from: Ipv4Addr, server: SocketAddr, name: &Name) -> Option<(u8, bool)> {
    let socket = UdpSocket::bind(SocketAddrV4::new(from, 0)).unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    let mut query = vec![0x77, 0x77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.as_str().split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, server).ok()?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).ok()?;
    (length > 12).then(|| (answer[3] & 15, answer[7] > 0))
}

/// A running resolver, ended with the test.
struct Peer {
    child: Child,
    server: SocketAddr,
    log: PathBuf,
}

impl Peer {
    fn start(mut command: Command, port: u16, log: PathBuf) -> Self {
        let out = fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: command.spawn().unwrap(), server: (Ipv4Addr::LOCALHOST, port).into(), log }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now, for UDP and TCP.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn write_zones(dir: &Path, zones: &[Zone]) {
    for zone in zones {
        fs::write(dir.join(&zone.name), &zone.text).unwrap();
    }
}

/// Unbound: one list of zones, each with the tags of the views that use it.
fn unbound(binary: &Path, policy: &Policy, zones: &[Zone], dir: &Path, upstream: u16) -> Peer {
    let port = free_port();
    let views = views(policy);
    let tags: Vec<String> = (0..views.len()).map(|index| format!("v{index}")).collect();
    let dir_text = dir.display();
    let mut conf = format!(
        "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{dir_text}\"\n \
         pidfile: \"{dir_text}/pid\"\n use-syslog: no\n do-ip6: no\n do-daemonize: no\n do-not-query-localhost: no\n \
         module-config: \"respip iterator\"\n access-control: 127.0.0.0/8 allow\n define-tag: \"{}\"\n",
        tags.join(" ")
    );
    for ((_, client), tag) in views.iter().zip(&tags) {
        writeln!(conf, " access-control-tag: {client}/32 \"{tag}\"").unwrap();
    }
    conf.push_str("remote-control:\n control-enable: no\n");
    for zone in zones {
        let users = views.iter().zip(&tags).filter(|((host, _), _)| order(policy, *host, false).contains(&zone.name));
        let users: Vec<&str> = users.map(|(_, tag)| tag.as_str()).collect();
        let (name, users) = (&zone.name, users.join(" "));
        writeln!(conf, "rpz:\n name: {name}\n zonefile: \"{dir_text}/{name}\"\n tags: \"{users}\"").unwrap();
    }
    writeln!(conf, "forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{upstream}").unwrap();
    fs::write(dir.join("unbound.conf"), conf).unwrap();
    let mut command = Command::new(binary);
    command.arg("-dp").arg("-c").arg(dir.join("unbound.conf"));
    Peer::start(command, port, dir.join("log"))
}

/// BIND: a view for each view, with its zones in their order.
fn bind(binary: &Path, policy: &Policy, dir: &Path, upstream: u16) -> Peer {
    let port = free_port();
    let dir_text = dir.display();
    let mut conf = format!(
        "options {{ directory \"{dir_text}\"; pid-file \"{dir_text}/pid\"; session-keyfile \"{dir_text}/key\";\n \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }};\n \
         forward only; forwarders {{ 127.0.0.1 port {upstream}; }}; dnssec-validation no; empty-zones-enable no; }};\n\
         controls {{ }};\n"
    );
    for (host, client) in views(policy) {
        let names = order(policy, host, false);
        let list: String = names.iter().map(|name| format!("zone \"{name}\"; ")).collect();
        writeln!(conf, "view \"{client}\" {{ match-clients {{ {client}; }};").unwrap();
        writeln!(conf, " response-policy {{ {list}}} qname-wait-recurse no break-dnssec yes;").unwrap();
        for name in names {
            writeln!(conf, " zone \"{name}\" {{ type primary; file \"{dir_text}/{name}\"; }};").unwrap();
        }
        conf.push_str("};\n");
    }
    fs::write(dir.join("named.conf"), conf).unwrap();
    let mut command = Command::new(binary);
    command.arg("-g").arg("-n").arg("1").arg("-c").arg(dir.join("named.conf"));
    Peer::start(command, port, dir.join("log"))
}

/// Asks everything and compares; how many names were allowed and how many blocked.
fn compare(peer: &mut Peer, policy: &Policy, questions: &BTreeSet<Name>) -> [usize; 2] {
    let mut seen = [0, 0];
    let deadline = Instant::now() + PATIENCE;
    for (host, client) in views(policy) {
        for name in questions {
            let allowed = reference::decide_name(policy, host, Some(name)).verdict == Verdict::Allow;
            let expected = if allowed { (NOERROR, true) } else { (NXDOMAIN, false) };
            // While it loads, a peer is silent, or answers unfiltered (BIND does): it may settle for a while.
            let mut got = ask(client, peer.server, name);
            while got != Some(expected) && Instant::now() < deadline {
                if let Ok(Some(status)) = peer.child.try_wait() {
                    panic!("the peer ended ({status}):\n{}", fs::read_to_string(&peer.log).unwrap_or_default());
                }
                std::thread::sleep(Duration::from_millis(50));
                got = ask(client, peer.server, name);
            }
            let log = || fs::read_to_string(&peer.log).unwrap_or_default();
            assert_eq!(got, Some(expected), "{name} for {host:?} in {policy:#?}\n{}", log());
            seen[usize::from(allowed)] += 1;
        }
    }
    seen
}

fn check_peer(start: impl Fn(&Policy, &[Zone], &Path, u16) -> Peer) {
    let upstream = upstream();
    let mut seen = [0, 0];
    for (policy, seed) in policies().iter().zip(1..) {
        let zones = zones(policy, seed, None);
        let dir = tempfile::tempdir().unwrap();
        write_zones(dir.path(), &zones);
        let mut peer = start(policy, &zones, dir.path(), upstream);
        let questions = questions(&zones, seed);
        let [blocked, allowed] = compare(&mut peer, policy, &questions);
        seen = [seen[0] + blocked, seen[1] + allowed];
    }
    assert!(seen.iter().all(|count| *count > 500), "too little was asked: blocked, allowed = {seen:?}");
}

#[test]
fn every_zone_is_a_valid_zone_file() {
    let Some(binary) = program("named-checkzone", "bind9-utils", false) else { return };
    for policy in policies() {
        for zone in zones(&policy, 3, None) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("zone");
            fs::write(&file, &zone.text).unwrap();
            let out = Command::new(&binary).arg(&zone.name).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success() && said.contains("loaded serial 3"), "{said}\n{}", zone.text);
            assert!(!said.to_lowercase().contains("warning"), "{said}\n{}", zone.text);
        }
    }
}

#[test]
fn unbound_answers_as_the_policy_decides() {
    let Some(binary) = program("unbound", "unbound", false) else { return };
    check_peer(|policy, zones, dir, upstream| unbound(&binary, policy, zones, dir, upstream));
}

#[test]
fn bind_answers_as_the_policy_decides() {
    let Some(binary) = program("named", "bind9", true) else { return };
    check_peer(|policy, _, dir, upstream| bind(&binary, policy, dir, upstream));
}
