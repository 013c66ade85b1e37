//! The system's resolvers, where the settings name none.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::address::Upstream;

/// The port that `resolv.conf(5)` means.
const PORT: u16 = 53;
/// Name servers read at most; more are of no use.
const MAX_SERVERS: usize = 8;

/// The name servers of a `resolv.conf(5)`, but for those that are ourselves.
///
/// # Errors
/// The file cannot be read.
pub fn from_resolv_conf(path: &Path, ours: impl Fn(SocketAddr) -> bool) -> std::io::Result<Vec<Upstream>> {
    Ok(parse(&std::fs::read_to_string(path)?, ours))
}

fn parse(text: &str, ours: impl Fn(SocketAddr) -> bool) -> Vec<Upstream> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else { return None };
        // A scope (`fe80::1%eth0`) would need an interface: such a server is passed over.
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT))
    });
    servers.filter(|&server| !ours(server)).take(MAX_SERVERS).map(Upstream::plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_in_order_without_ourselves() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.1\nnameserver 192.0.2.1 # one\r\n nameserver\t2001:db8::1\nnameserver fe80::1%eth0\nnameserver x\n";
        let servers = parse(text, |server| server.ip().is_loopback());
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}
