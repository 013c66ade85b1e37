//! Other servers with the same policy: an allowlist, and NXDOMAIN for the rest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How many rules there are, and which names they allow.
#[derive(Clone, Copy)]
pub struct Rules(pub u32);

impl Rules {
    /// Rule `number`: four of five are one name, the fifth is a wildcard (then `*.` goes before what this gives).
    pub fn rule(self, number: u32) -> (bool, String) {
        let (wild, zone) = (number.is_multiple_of(5), number % 1000);
        (wild, format!("{}{number}.z{zone}.example.com", if wild { 'w' } else { 'n' }))
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = (bool, String)> {
        (0..self.0).map(move |number| self.rule(number))
    }

    /// As entries of a policy.
    pub fn patterns(self) -> Vec<String> {
        self.all().map(|(wild, name)| if wild { format!("*.{name}") } else { name }).collect()
    }
}

/// A server of another project.
pub struct Peer {
    /// Its name in tables.
    pub name: &'static str,
    /// The address it answers at.
    pub address: &'static str,
    write: fn(Rules, &Path, &str, &str),
    program: &'static str,
    arguments: fn(&Path) -> Vec<String>,
}

/// All that are known; those that are not installed are left out by [`Peer::start`].
pub const PEERS: [Peer; 5] = [
    Peer {
        name: "Unbound, RPZ",
        address: "127.0.0.1:5301",
        write: unbound,
        program: "/usr/sbin/unbound",
        arguments: |dir| vec!["-d".to_owned(), "-c".to_owned(), show(dir.join("unbound.conf"))],
    },
    Peer {
        name: "BIND, RPZ",
        address: "127.0.0.1:5305",
        write: bind,
        program: "/usr/sbin/named",
        arguments: |dir| ["-g", "-n", "1", "-c", &show(dir.join("named.conf"))].map(str::to_owned).to_vec(),
    },
    Peer {
        name: "PowerDNS Recursor, RPZ, packet cache",
        address: "127.0.0.1:5302",
        write: recursor,
        program: "/usr/sbin/pdns_recursor",
        arguments: |dir| vec![format!("--config-dir={}", show(dir.to_owned()))],
    },
    Peer {
        name: "dnsdist, suffixes, packet cache",
        address: "127.0.0.1:5303",
        write: dnsdist,
        program: "/usr/bin/dnsdist",
        arguments: |dir| {
            ["--supervised", "--disable-syslog", "-C", &show(dir.join("dnsdist.conf"))].map(str::to_owned).to_vec()
        },
    },
    Peer {
        name: "dnsmasq, server=/x/",
        address: "127.0.0.1:5304",
        write: dnsmasq,
        program: "/usr/sbin/dnsmasq",
        arguments: |dir| {
            vec!["--keep-in-foreground".to_owned(), format!("--conf-file={}", show(dir.join("dnsmasq.conf")))]
        },
    },
];

fn show(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a plain path")
}

impl Peer {
    /// Starts it; `None`: it is not installed. `wrap` makes the command that runs a program where the peers live.
    pub fn start(&self, rules: Rules, dir: &Path, upstream: &str, wrap: impl Fn(&str) -> Command) -> Option<Child> {
        if !Path::new(self.program).exists() {
            return None;
        }
        (self.write)(rules, dir, self.address, upstream);
        let log = std::fs::File::create(dir.join("log")).expect("the temporary directory is writable");
        let mut command = wrap(self.program);
        command.args((self.arguments)(dir)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().ok()
    }
}

fn save(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join(file), text).expect("the temporary directory is writable");
}

/// Two zones, because a default in the zone of the exceptions lets their neighbours through.
fn zones(rules: Rules, dir: &Path) {
    let head = "$TTL 60\n@ SOA localhost. root.localhost. 1 3600 600 86400 60\n@ NS localhost.\n";
    let mut allow = head.to_owned();
    for (wild, name) in rules.all() {
        let _ = writeln!(allow, "{}{name} CNAME rpz-passthru.", if wild { "*." } else { "" });
    }
    save(dir, "allow.zone", &allow);
    save(dir, "deny.zone", &format!("{head}* CNAME .\n"));
}

fn unbound(rules: Rules, dir: &Path, address: &str, upstream: &str) {
    zones(rules, dir);
    let text = format!(
        "server:\n directory: \"{dir}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n interface: {address}\n \
         do-daemonize: no\n use-syslog: no\n num-threads: 1\n module-config: \"respip iterator\"\n do-ip6: no\n \
         access-control: 127.0.0.0/8 allow\n msg-cache-size: 64m\n rrset-cache-size: 128m\n outgoing-range: 8192\n \
         num-queries-per-thread: 4096\n so-rcvbuf: 8m\n so-sndbuf: 4m\n qname-minimisation: no\n \
         minimal-responses: yes\nrpz:\n name: allow.\n zonefile: allow.zone\nrpz:\n name: deny.\n \
         zonefile: deny.zone\nforward-zone:\n name: \".\"\n forward-addr: {upstream}\n",
        dir = dir.display(),
        address = address.replace(':', "@"),
        upstream = upstream.replace(':', "@"),
    );
    save(dir, "unbound.conf", &text);
}

fn bind(rules: Rules, dir: &Path, address: &str, upstream: &str) {
    zones(rules, dir);
    let (ip, port) = address.split_once(':').expect("address and port");
    let (upstream, upstream_port) = upstream.split_once(':').expect("address and port");
    let dir_text = dir.display();
    let text = format!(
        "options {{ directory \"{dir_text}\"; pid-file none; session-keyfile \"{dir_text}/key\";\n \
         listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }};\n \
         forward only; forwarders {{ {upstream} port {upstream_port}; }}; dnssec-validation no;\n \
         recursive-clients 10000; minimal-responses yes; querylog no;\n \
         response-policy {{ zone \"allow\"; zone \"deny\"; }} qname-wait-recurse no break-dnssec yes; }};\n\
         controls {{ }};\nlogging {{ category rpz {{ null; }}; category default {{ default_stderr; }}; }};\n\
         zone \"allow\" {{ type primary; file \"{dir_text}/allow.zone\"; notify no; }};\n\
         zone \"deny\" {{ type primary; file \"{dir_text}/deny.zone\"; notify no; }};\n"
    );
    save(dir, "named.conf", &text);
}

fn recursor(rules: Rules, dir: &Path, address: &str, upstream: &str) {
    zones(rules, dir);
    let dir_text = dir.display();
    let lua = format!(
        "rpzFile(\"{dir_text}/allow.zone\", {{policyName=\"allow\"}})\nrpzFile(\"{dir_text}/deny.zone\", {{policyName=\"deny\"}})\n"
    );
    save(dir, "policy.lua", &lua);
    let text = format!(
        "local-address={address}\nforward-zones-recurse=.={upstream}\nlua-config-file={dir_text}/policy.lua\n\
         socket-dir={dir_text}\nthreads=1\npdns-distributes-queries=no\nreuseport=no\ndaemon=no\ndisable-syslog=yes\n\
         quiet=yes\nloglevel=3\ndnssec=off\nsecurity-poll-suffix=\nallow-from=127.0.0.0/8\ndont-query=\n\
         max-mthreads=4096\nwrite-pid=no\n"
    );
    save(dir, "recursor.conf", &text);
}

fn dnsdist(rules: Rules, dir: &Path, address: &str, upstream: &str) {
    let names: String = rules.all().map(|(_, name)| name + "\n").collect();
    save(dir, "names", &names);
    let text = format!(
        "setLocal(\"{address}\")\nsetSecurityPollSuffix(\"\")\nsetMaxUDPOutstanding(65535)\n\
         newServer{{address=\"{upstream}\", sockets=8}}:setUp()\n\
         getPool(\"\"):setCache(newPacketCache(200000))\n\
         names = newSuffixMatchNode()\nfor line in io.lines(\"{}/names\") do names:add(newDNSName(line)) end\n\
         addAction(NotRule(SuffixMatchNodeRule(names)), RCodeAction(DNSRCode.NXDOMAIN))\n",
        dir.display()
    );
    save(dir, "dnsdist.conf", &text);
}

fn dnsmasq(rules: Rules, dir: &Path, address: &str, upstream: &str) {
    let (ip, port) = address.split_once(':').expect("address and port");
    let mut text = format!(
        "port={port}\nlisten-address={ip}\nbind-interfaces\nno-hosts\nno-resolv\nuser=root\npid-file=\n\
         cache-size=20000\ndns-forward-max=10000\naddress=/#/\n"
    );
    let upstream = upstream.replace(':', "#");
    for (_, name) in rules.all() {
        let _ = writeln!(text, "server=/{name}/{upstream}");
    }
    save(dir, "dnsmasq.conf", &text);
}
