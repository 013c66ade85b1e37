//! The blocks of `hosts`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::diagnostic::{At, Report};
use crate::policy::json::Value;
use crate::policy::model::{Cap, Host, HostName, Located, Period, Pointer};
use crate::policy::name::Pattern;
use crate::policy::reader::{Fields, entries, given_name, whole_number, word};

use super::{lists, networks, top, windows};

/// The largest cap, bytes per period: 2^53 - 1, the largest whole number that every JSON tool keeps exactly.
pub const MAX_CAP_BYTES: u64 = (1 << 53) - 1;

/// How many hosts one policy can have: they are numbered in 16 bits, of which two values mean something else.
const MAX_HOSTS: usize = 65_534;

const FIELDS: &[&str] = &["sources", "allow", "deny", "mode", "time_window", "domain_time_windows", "limits", "exfil"];

/// All hosts.
pub(super) fn hosts(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> BTreeMap<HostName, Host> {
    let blocks = entries(value, at, report).unwrap_or_default();
    if blocks.len() > MAX_HOSTS {
        report.error(
            at,
            format!("{} hosts are more than the {MAX_HOSTS} of one policy", blocks.len()),
            "put agents with the same rights into one host",
        );
    }
    let mut owners = HashMap::new();
    let mut hosts = BTreeMap::new();
    for (name, block) in blocks {
        let at = at.key(name);
        let good = given_name(name, &at, "host name", report);
        if let Some(host) = host(block, &at, &mut owners, report)
            && good
        {
            hosts.insert(HostName(Arc::from(name)), host);
        }
    }
    hosts
}

fn host(value: &Value<'_>, at: &At<'_>, owners: &mut HashMap<IpNet, Pointer>, report: &mut Report) -> Option<Host> {
    let fields = Fields::read(value, at, FIELDS, report)?;
    let part = |name: &'static str| fields.get(name).map(|value| (value, at.key(name)));
    let sources = fields
        .required("sources", at, r#"name the host's addresses: "sources": ["192.168.10.10/32"]"#, report)
        .and_then(|value| networks::sources(value, &at.key("sources"), owners, report));
    let allow = part("allow").map(|(v, at)| top::allow(v, &at, report)).unwrap_or_default();
    let deny = part("deny").map(|(v, at)| top::deny(v, &at, report)).unwrap_or_default();
    let mode = part("mode").and_then(|(v, at)| top::mode(v, &at, report));
    let time_window = part("time_window").and_then(|(v, at)| windows::window(v, &at, report));
    let domain_time_windows =
        part("domain_time_windows").map(|(v, at)| windows::by_domain(v, &at, report)).unwrap_or_default();
    let egress_kbps = part("limits").and_then(|(v, at)| top::limits(v, &at, report));
    let caps = part("exfil").map(|(v, at)| caps(v, &at, report)).unwrap_or_default();
    Some(Host {
        path: at.pointer(),
        sources: sources?,
        allow,
        deny,
        mode,
        time_window,
        domain_time_windows,
        egress_kbps,
        caps,
    })
}

fn caps(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> BTreeMap<Pattern, Located<Cap>> {
    let Some(fields) = Fields::read(value, at, &["domains"], report) else { return BTreeMap::new() };
    let Some(value) = fields.get("domains") else { return BTreeMap::new() };
    lists::by_domain(value, &at.key("domains"), report, cap)
}

fn cap(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Located<Cap>> {
    const WHOLE: &str = r#"a cap is {"bytes": 1048576, "period": "hour"}"#;
    let fields = Fields::read(value, at, &["bytes", "period"], report)?;
    let bytes = fields.required("bytes", at, WHOLE, report);
    let period = fields.required("period", at, WHOLE, report);
    let bytes = bytes.and_then(|v| whole_number(v, &at.key("bytes"), "a number of bytes", (1, MAX_CAP_BYTES), report));
    let period =
        period.and_then(|v| word(v, &at.key("period"), "a period", &["second", "minute", "hour", "day"], report));
    let period = [Period::Second, Period::Minute, Period::Hour, Period::Day][period?];
    Some(Located { value: Cap { bytes: bytes?, period }, path: at.pointer() })
}
