//! `[rpz]`: the zones for other name servers.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::reader::{Entry, Notes, Section};
use crate::policy::wording::quoted;

/// The port of DNS.
const PORT: u16 = 53;
/// Each keeps connections, and holds on to the zones that it is being sent.
const MAX_SECONDARIES: usize = 16;
/// The keys of `[[rpz.secondary]]`.
const KEYS: &[&str] = &["address", "key", "algorithm", "secret_file", "unsigned", "hosts"];

/// `[rpz]`: served if somebody may have the zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpz {
    /// Addresses to listen on, each a single one; changes are told from them. Not empty if there is a secondary.
    pub listen: Vec<SocketAddr>,
    /// Who may have the zones.
    pub secondaries: Vec<Secondary>,
}

/// `[[rpz.secondary]]`: a name server that follows the zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secondary {
    /// Where it asks from, and the port at which it is told of changes.
    pub address: SocketAddr,
    /// The key that signs (TSIG, RFC 8945); `None`: the settings say that the address suffices.
    pub key: Option<TransferKey>,
    /// The hosts whose zones it may have, `*`: sources in no host; `None`: all.
    pub hosts: Option<Vec<String>>,
}

/// A key that two name servers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferKey {
    /// Its name, a domain name.
    pub name: String,
    /// The hash.
    pub algorithm: Hash,
    /// The file with the secret in base 64. Absolute.
    pub secret_file: PathBuf,
}

/// A hash for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// HMAC-SHA-256
    Sha256,
    /// HMAC-SHA-384
    Sha384,
    /// HMAC-SHA-512
    Sha512,
}

pub(super) fn rpz(section: &Section<'_>, dns: &[SocketAddr], notes: &mut Notes<'_>) -> Rpz {
    let mut rpz = Rpz::default();
    let example = "[\"192.168.10.1:5300\"]";
    for item in section.get("listen").and_then(|entry| entry.list(notes, example)).unwrap_or_default() {
        let Some(address) = item.listener(notes, "192.168.10.1:5300").map(canonical) else { continue };
        if address.ip().is_unspecified() {
            let hint = "name each address: secondaries are told of changes from it, and know us by it";
            item.wrong(notes, format!("{address} is every address"), hint);
        } else if dns.iter().any(|taken| collide(*taken, address)) {
            let hint = "agents ask there; give the zones another port, as in \"192.168.10.1:5300\"";
            item.wrong(notes, format!("{address} is in dns.listen already"), hint);
        } else if dns.iter().any(|taken| taken.port() == address.port()) {
            // The packet filter lets agents reach the ports of dns.listen at every address of the gateway.
            let port = address.port();
            let hint = "give the zones a port of their own, as in \"192.168.10.1:5300\"";
            item.wrong(
                notes,
                format!("dns.listen has port {port} too, which is open to agents at every address"),
                hint,
            );
        } else if rpz.listen.contains(&address) {
            item.wrong(notes, format!("{address} is there already"), "remove one of the two");
        }
        rpz.listen.push(address);
    }
    let list = section.get("secondary");
    let entries = list.as_ref().and_then(|entry| entry.list(notes, "[ { address = \"192.0.2.53\", … } ]"));
    let entries = entries.unwrap_or_default();
    if entries.len() > MAX_SECONDARIES
        && let Some(list) = &list
    {
        let hint = "let further servers follow one of these";
        list.wrong(notes, format!("has {} entries; {MAX_SECONDARIES} are the most", entries.len()), hint);
    }
    for entry in &entries {
        let Some(secondary) = secondary(entry, notes) else { continue };
        let same = |other: &Secondary| {
            let name = |secondary: &Secondary| secondary.key.as_ref().map(|key| key.name.clone());
            other.address == secondary.address
                || other.address.ip() == secondary.address.ip() && name(other) == name(&secondary)
        };
        if rpz.secondaries.iter().any(same) {
            let message = format!("{} is there already", secondary.address);
            entry.wrong(notes, message, "remove one of the two; several at one address need a key and a port each");
        }
        if !rpz.listen.iter().any(|own| own.is_ipv4() == secondary.address.is_ipv4()) {
            let family = if secondary.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let hint = "add one to listen in [rpz], as in listen = [\"192.168.10.1:5300\"]";
            entry.wrong(notes, format!("it could not ask: rpz.listen has no {family} address"), hint);
        }
        rpz.secondaries.push(secondary);
    }
    rpz
}

/// The address itself where it is an IPv4 address in the form of an IPv6 address: as such nobody ever asks from it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether both cannot be listened on.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let every = a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4();
    a.port() == b.port() && (a.ip() == b.ip() || every)
}

fn secondary(entry: &Entry<'_>, notes: &mut Notes<'_>) -> Option<Secondary> {
    let section = entry.section(KEYS, notes)?;
    let address = section.required("address", "address = \"192.0.2.53\", from which it asks", notes);
    let address = address.and_then(|entry| peer_address(&entry, notes));
    let unsigned = section.get("unsigned").and_then(|entry| entry.boolean(notes)).unwrap_or(false);
    let key = key(entry, &section, unsigned, notes);
    let hosts = section.get("hosts").and_then(|entry| {
        let list = entry.list(notes, "[\"agent-1\", \"*\"]")?;
        if list.is_empty() {
            entry.wrong(notes, "is empty: it would follow nothing", "remove the line to let it have all zones");
        }
        Some(list.iter().filter_map(|item| item.text(notes, "agent-1").map(str::to_owned)).collect())
    });
    Some(Secondary { address: address?, key: key?, hosts })
}

/// Outer `None`: a mistake was noted.
fn key(entry: &Entry<'_>, section: &Section<'_>, unsigned: bool, notes: &mut Notes<'_>) -> Option<Option<TransferKey>> {
    let name = section.get("key");
    let parts = ["key", "algorithm", "secret_file"];
    if unsigned {
        return match parts.iter().find_map(|part| section.get(part)) {
            None => Some(None),
            Some(part) => {
                part.wrong(notes, "unsigned = true says that no key is needed", "remove one of the two");
                None
            }
        };
    }
    if name.is_none() {
        let hint =
            "write key = \"NAME\" and secret_file = \"/…\", or unsigned = true where its address is proof enough";
        entry.wrong(notes, "key is missing", hint);
    }
    let name = name?.text(notes, "transfer.example").map(str::to_owned);
    let words = [("hmac-sha256", Hash::Sha256), ("hmac-sha384", Hash::Sha384), ("hmac-sha512", Hash::Sha512)];
    let algorithm = match section.get("algorithm") {
        Some(entry) => entry.word(notes, &words),
        None => Some(Hash::Sha256),
    };
    let file = section.required("secret_file", "secret_file = \"/…\", made by: openssl rand -base64 32", notes);
    let secret_file = file.and_then(|entry| entry.path(notes, "/etc/clawgress/transfer.key"));
    Some(Some(TransferKey { name: name?, algorithm: algorithm?, secret_file: secret_file? }))
}

/// An address with or without a port.
fn peer_address(entry: &Entry<'_>, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let text = entry.text(notes, "192.0.2.53")?;
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)).or_else(|_| text.parse());
    match address.map(canonical) {
        Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 => {
            entry.wrong(notes, format!("{} is no address of one server", quoted(text)), "for example \"192.0.2.53\"");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let hint = "write an IP address, with a port if it is not 53, as in \"192.0.2.53:5353\"";
            entry.wrong(notes, format!("{} is no address", quoted(text)), hint);
            None
        }
    }
}
