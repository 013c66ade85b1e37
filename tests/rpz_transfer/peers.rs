//! Other programs: found, started as secondaries, asked.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::primary::SECRET;

/// How long a peer may take to settle: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long one answer may take before the query counts as lost.
const ANSWER: Duration = Duration::from_millis(500);

/// Where a program is; `None`, said loudly: it is not installed.
pub fn program(name: &str, package: &str, optional: bool) -> Option<PathBuf> {
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

/// What `dig` prints. `key`: `ALGORITHM:NAME:SECRET`.
pub fn dig(binary: &Path, server: SocketAddr, arguments: &[&str], key: Option<&str>) -> String {
    let mut command = Command::new(binary);
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string(), "+tries=1", "+time=60"]);
    if let Some(key) = key {
        command.args(["-y", key]);
    }
    let out = command.args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A port that is free now, for UDP and TCP.
pub fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An upstream that knows every name: one address.
pub fn upstream() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let mut end = 12;
            while end < length && packet[end] > 0 {
                end += usize::from(packet[end]) + 1;
            }
            end += 5;
            if end > length {
                continue;
            }
            let is_address = packet[end - 4..end - 2] == [0, 1];
            let mut answer = packet[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
            if is_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 93, 184, 216, 34]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// What came of a question for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Address,
    NoName,
    Other,
}

/// A running secondary, ended with the test.
pub struct Peer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Peer {
    fn start(mut command: Command, port: u16, dir: tempfile::TempDir) -> Self {
        let out = fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: command.spawn().unwrap(), port, dir }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Unbound with these zones, which it fetches from `primary`. It cannot sign.
    pub fn unbound(binary: &Path, port: u16, primary: SocketAddr, zones: &[&str], upstream: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display();
        let mut conf = format!(
            "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{place}\"\n \
             pidfile: \"{place}/pid\"\n use-syslog: no\n verbosity: 2\n do-ip6: no\n do-daemonize: no\n \
             do-not-query-localhost: no\n module-config: \"respip iterator\"\n access-control: 127.0.0.0/8 allow\n \
             cache-max-ttl: 1\n cache-max-negative-ttl: 1\nremote-control:\n control-enable: no\n"
        );
        for zone in zones {
            let master = format!("{}@{}", primary.ip(), primary.port());
            writeln!(conf, "rpz:\n name: {zone}\n master: {master}\n allow-notify: 127.0.0.1").unwrap();
        }
        writeln!(conf, "forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{upstream}").unwrap();
        fs::write(dir.path().join("unbound.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg("-dp").arg("-c").arg(dir.path().join("unbound.conf"));
        Self::start(command, port, dir)
    }

    /// BIND with these zones, signed both ways.
    pub fn bind(binary: &Path, port: u16, primary: SocketAddr, zones: &[&str], upstream: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display();
        let list: String = zones.iter().map(|zone| format!("zone \"{zone}\"; ")).collect();
        let mut conf = format!(
            "key \"transfer\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             options {{ directory \"{place}\"; pid-file \"{place}/pid\"; session-keyfile \"{place}/key\";\n \
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }};\n \
             forward only; forwarders {{ 127.0.0.1 port {upstream}; }}; dnssec-validation no; empty-zones-enable no;\n \
             max-cache-ttl 1; max-ncache-ttl 1;\n \
             response-policy {{ {list}}} qname-wait-recurse no break-dnssec yes min-update-interval 0; }};\n\
             controls {{ }};\n"
        );
        let (ip, primary_port) = (primary.ip(), primary.port());
        for zone in zones {
            writeln!(
                conf,
                "zone \"{zone}\" {{ type secondary; primaries {{ {ip} port {primary_port} key \"transfer\"; }}; \
                 allow-notify {{ key \"transfer\"; }}; file \"{place}/{zone}\"; }};"
            )
            .unwrap();
        }
        fs::write(dir.path().join("named.conf"), conf).unwrap();
        let mut command = Command::new(binary);
        command.arg("-g").arg("-n").arg("1").arg("-c").arg(dir.path().join("named.conf"));
        Self::start(command, port, dir)
    }

    /// Asks for the address of a name.
    pub fn ask(&self, name: &str) -> Asked {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        let mut query = vec![0x77, 0x77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let mut answer = [0; 1500];
        let sent = socket.send_to(&query, (Ipv4Addr::LOCALHOST, self.port));
        match sent.and_then(|_| socket.recv(&mut answer)) {
            Ok(length) if length > 12 && answer[3] & 15 == 3 => Asked::NoName,
            Ok(length) if length > 12 && answer[3] & 15 == 0 && answer[7] > 0 => Asked::Address,
            _ => Asked::Other,
        }
    }
}

/// Waits until something is so; panics with the peer's log where it does not become so.
#[track_caller]
pub fn wait(what: &str, peer: &mut Peer, mut is: impl FnMut(&Peer) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is(peer) {
        if let Ok(Some(status)) = peer.child.try_wait() {
            panic!("{what}: the peer ended ({status}):\n{}", peer.log());
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}:\n{}", peer.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
