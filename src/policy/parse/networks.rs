//! Addresses and networks.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::diagnostic::{At, Mistake, Report};
use crate::policy::json::Value;
use crate::policy::model::{List, Pointer};
use crate::policy::reader::text;
use crate::policy::wording::quoted;

use super::lists::{list_of, warn_of_doubles};

/// Where the `::ffff:0:0/96` of RFC 4291 section 2.5.5.2 begins to be IPv4: the prefix length of all of it.
const MAPPED_PREFIX: u8 = 96;

/// A list of networks.
pub(super) fn list(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<List<IpNet>> {
    let list = raw(value, at, report)?;
    warn_of_doubles(&list, at, report);
    Some(list)
}

/// The sources of a host: never empty, and nowhere else in the policy.
pub(super) fn sources(
    value: &Value<'_>,
    at: &At<'_>,
    owners: &mut HashMap<IpNet, Pointer>,
    report: &mut Report,
) -> Option<List<IpNet>> {
    let list = list_of(value, at, "addresses or networks", report, |value, at, report| {
        let network = entry(value, at, report)?;
        if let Some(first) = owners.get(&network) {
            report.error(
                at,
                format!("{network} is a source already, at {first}"),
                "a source belongs to one host: remove one of the two",
            );
            return None;
        }
        owners.insert(network, at.pointer());
        Some(network)
    })?;
    if matches!(value, Value::Array(entries) if entries.is_empty()) {
        report.error(at, "this host has no sources", r#"name its addresses, such as ["192.168.10.10/32"]"#);
        return None;
    }
    Some(list)
}

fn raw(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<List<IpNet>> {
    list_of(value, at, "addresses or networks", report, entry)
}

fn entry(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<IpNet> {
    let text = text(value, at, "an address or network", report)?;
    network(text).map_err(|mistake| report.mistake(at, mistake)).ok()
}

/// Reads a CIDR or a bare address (the network of that one address).
///
/// # Errors
/// What is wrong with it and what to write instead.
pub(crate) fn network(text: &str) -> Result<IpNet, Mistake> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return Err(no_address(text, address)) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match prefix {
        None => most,
        Some(digits) => length(digits, most).ok_or_else(|| no_length(text, address, digits, most))?,
    };
    let network = IpNet::new(address, length).map_err(|_| no_length(text, address, &length.to_string(), most))?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
        && length >= MAPPED_PREFIX
    {
        let meant = IpNet::new(v4.into(), length - MAPPED_PREFIX).map(|v4| v4.trunc().to_string()).unwrap_or_default();
        return Err(Mistake::new(
            format!("{} is IPv4 written as IPv6", quoted(text)),
            format!("write {}", quoted(&meant)),
        ));
    }
    if network.trunc() != network {
        return Err(Mistake::new(
            format!("{} has bits set behind its prefix", quoted(text)),
            format!("did you mean {}?", network.trunc()),
        ));
    }
    Ok(network)
}

/// A prefix length in digits, without sign and leading zeros.
fn length(digits: &str, most: u8) -> Option<u8> {
    let plain =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten().filter(|length| *length <= most)
}

fn no_length(text: &str, address: IpAddr, digits: &str, most: u8) -> Mistake {
    let mask = digits.parse::<IpAddr>().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok());
    match mask {
        Some(length) if length <= most => Mistake::new(
            format!("{} has a netmask instead of a prefix length", quoted(text)),
            format!("write {}", quoted(&format!("{address}/{length}"))),
        ),
        _ => Mistake::new(
            format!("{} has no valid prefix length", quoted(text)),
            format!("prefix lengths of IPv{} are 0 to {most}", if most == 32 { 4 } else { 6 }),
        ),
    }
}

fn no_address(text: &str, address: &str) -> Mistake {
    let shown = quoted(text);
    if text.trim() != text {
        return Mistake::new(
            format!("{shown} has a space at its beginning or end"),
            format!("write {}", quoted(text.trim())),
        );
    }
    if let Some((bare, _)) = address.split_once('%')
        && bare.parse::<IpAddr>().is_ok()
    {
        return Mistake::new(format!("{shown} has a zone"), "remove % and what follows");
    }
    if let Some((first, last)) = text.split_once('-')
        && first.trim().parse::<IpAddr>().is_ok()
    {
        let hint = format!("write the networks that make up {} to {}", first.trim(), last.trim());
        return Mistake::new(format!("{shown} is a range of addresses"), hint);
    }
    if crate::policy::domain::pattern(text).is_ok() {
        return Mistake::new(
            format!("{shown} is a name, not an address"),
            "names go into allow.domains (or deny.domains)",
        );
    }
    let dotted = address.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let hint = if dotted {
        "write all four numbers, each 0 to 255 without leading zeros: 10.0.0.0/8"
    } else {
        "write an address or a network such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
    };
    Mistake::new(format!("{shown} is not an IP address"), hint)
}
