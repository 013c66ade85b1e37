//! What an owner of a response-policy zone is about, and what its record does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::reader::pattern;
use super::report::{Aside, Fault};
use crate::policy::name::Pattern;

/// When a rule applies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The name asked for, or a name that the answer leads over.
    Name(Pattern),
    /// An address in the answer.
    Answer(IpNet),
    /// Something that is not seen here.
    Unseen(Aside),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// NXDOMAIN, NODATA or DROP: all of them refuse.
    Block,
    /// Another answer instead.
    Rewrite,
    /// No rule of the zone shall apply.
    Passthru,
    /// An answer over TCP only.
    TcpOnly,
}

impl Trigger {
    /// Reads an owner without its zone.
    pub fn read(owner: &str) -> Result<Self, Fault> {
        let (front, kind) = owner.rsplit_once('.').unwrap_or(("", owner));
        Ok(match kind.to_ascii_lowercase().as_str() {
            "rpz-ip" => Self::Answer(network(front).ok_or(Fault::Network)?),
            "rpz-client-ip" => Self::Unseen(Aside::ClientIp),
            "rpz-nsip" => Self::Unseen(Aside::NsIp),
            "rpz-nsdname" => Self::Unseen(Aside::NsDname),
            _ => Self::Name(pattern(owner)?),
        })
    }
}

impl Action {
    /// Reads the target of a CNAME. `owner`: that of the record, without its zone; `root`: relative names are absolute.
    pub fn of_cname(target: &str, owner: &str, root: bool) -> Self {
        let target = target.to_ascii_lowercase();
        let absolute = match target.strip_suffix('.') {
            Some(name) => name,
            None if root => target.as_str(),
            None => return Self::Rewrite,
        };
        match absolute {
            "" | "*" | "rpz-drop" => Self::Block,
            "rpz-passthru" => Self::Passthru,
            "rpz-tcp-only" => Self::TcpOnly,
            // How zones said PASSTHRU before there was a word for it.
            name if name == owner.to_ascii_lowercase() => Self::Passthru,
            _ => Self::Rewrite,
        }
    }
}

/// `24.0.2.0.192` is 192.0.2.0/24, `48.zz.1.db8.2001` is 2001:db8:1::/48: the length, then the address backwards.
fn network(text: &str) -> Option<IpNet> {
    let (length, address) = text.split_once('.')?;
    let parts: Vec<&str> = address.split('.').rev().collect();
    let address = v4(&parts).map(IpAddr::V4).or_else(|| v6(&parts).map(IpAddr::V6))?;
    let length = length.parse().ok()?;
    let net = IpNet::new(address, length).ok()?;
    (net.trunc() == net).then_some(net)
}

fn v4(parts: &[&str]) -> Option<Ipv4Addr> {
    let octets: Vec<u8> = parts.iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

fn v6(parts: &[&str]) -> Option<Ipv6Addr> {
    let gap = parts.iter().position(|part| part.eq_ignore_ascii_case("zz"));
    let text = match gap {
        Some(gap) => format!("{}::{}", parts[..gap].join(":"), parts[gap + 1..].join(":")),
        None => parts.join(":"),
    };
    // No more than the words of an address, none of them IPv4.
    text.parse().ok().filter(|_| parts.len() <= 8 && (gap.is_some() || parts.len() == 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_triggers() {
        let net = |text: &str| Ok(Trigger::Answer(text.parse().unwrap()));
        assert_eq!(Trigger::read("32.7.2.0.192.rpz-ip"), net("192.0.2.7/32"));
        assert_eq!(Trigger::read("24.0.2.0.192.RPZ-IP"), net("192.0.2.0/24"));
        assert_eq!(Trigger::read("48.zz.1.db8.2001.rpz-ip"), net("2001:db8:1::/48"));
        assert_eq!(Trigger::read("128.1.zz.db8.2001.rpz-ip"), net("2001:db8::1/128"));
        assert_eq!(Trigger::read("128.8.7.6.5.4.3.2.1.rpz-ip"), net("1:2:3:4:5:6:7:8/128"));
        for wrong in [
            "rpz-ip",
            "24.rpz-ip",
            "33.7.2.0.192.rpz-ip",
            "24.7.2.0.192.rpz-ip",
            "48.1.db8.2001.rpz-ip",
            "8.zz.zz.1.rpz-ip",
        ] {
            assert_eq!(Trigger::read(wrong), Err(Fault::Network), "{wrong}");
        }
        assert_eq!(Trigger::read("ns.example.rpz-nsdname"), Ok(Trigger::Unseen(Aside::NsDname)));
        assert_eq!(Trigger::read("*.example.net"), pattern("*.example.net").map(Trigger::Name));
        assert_eq!(Trigger::read("*"), Err(Fault::EveryName));
    }

    #[test]
    fn targets_are_actions() {
        for (target, root, action) in [
            (".", false, Action::Block),
            ("*.", false, Action::Block),
            ("rpz-drop.", false, Action::Block),
            ("RPZ-Passthru.", false, Action::Passthru),
            ("rpz-passthru", true, Action::Passthru),
            ("rpz-passthru", false, Action::Rewrite),
            ("rpz-tcp-only.", false, Action::TcpOnly),
            ("Bad.example.", false, Action::Passthru),
            ("*.garden.example.", false, Action::Rewrite),
            ("garden", false, Action::Rewrite),
        ] {
            assert_eq!(Action::of_cname(target, "bad.example", root), action, "{target} {root}");
        }
    }
}
