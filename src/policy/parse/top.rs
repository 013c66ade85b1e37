//! The document as a whole: version, mode, zone, scope, limits, and the parts that hosts share with it.

use std::collections::BTreeMap;

use chrono_tz::{TZ_VARIANTS, Tz};

use crate::policy::diagnostic::{At, Report};
use crate::policy::json::Value;
use crate::policy::model::{Allow, Deny, Located, Mode, Policy, Scope};
use crate::policy::reader::{Fields, text, whole_number, word};
use crate::policy::wording::{nearest, quoted};

use super::{hosts, lists, networks, windows};

/// The fastest rate limit, kilobits per second: 1 Pbit/s, beyond any link. As bytes per second it stays far inside
/// the kernel's 64 bits.
pub const MAX_EGRESS_KBPS: u64 = 1_000_000_000_000;

const FIELDS: &[&str] = &[
    "version",
    "mode",
    "time_zone",
    "scope",
    "allow",
    "deny",
    "labels",
    "time_window",
    "domain_time_windows",
    "limits",
    "hosts",
];

/// Reads the document. `None` only after a mistake was reported.
pub(super) fn policy(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Policy> {
    let fields = Fields::read(value, at, FIELDS, report)?;
    version(&fields, at, report);
    let part = |name: &'static str| fields.get(name).map(|value| (value, at.key(name)));
    Some(Policy {
        mode: part("mode").and_then(|(v, at)| mode(v, &at, report)),
        time_zone: part("time_zone").and_then(|(v, at)| time_zone(v, &at, report)),
        scope: part("scope").map(|(v, at)| scope(v, &at, report)).unwrap_or_default(),
        allow: part("allow").map(|(v, at)| allow(v, &at, report)).unwrap_or_default(),
        deny: part("deny").map(|(v, at)| deny(v, &at, report)).unwrap_or_default(),
        labels: part("labels").map(|(v, at)| lists::labels(v, &at, report)).unwrap_or_default(),
        time_window: part("time_window").and_then(|(v, at)| windows::window(v, &at, report)),
        domain_time_windows: part("domain_time_windows")
            .map(|(v, at)| windows::by_domain(v, &at, report))
            .unwrap_or_default(),
        egress_kbps: part("limits").and_then(|(v, at)| limits(v, &at, report)),
        hosts: part("hosts").map_or_else(BTreeMap::new, |(v, at)| hosts::hosts(v, &at, report)),
    })
}

fn version(fields: &Fields<'_>, at: &At<'_>, report: &mut Report) {
    let Some(value) = fields.required("version", at, r#"begin the policy with "version": 1"#, report) else { return };
    let at = at.key("version");
    match value {
        Value::Number(number) if number.as_u64() == Some(1) => {}
        Value::Number(number) => {
            report.error(&at, format!("this program does not know version {number}"), r#"write "version": 1"#);
        }
        other => {
            report.error(
                &at,
                format!("wanted the version as a number, found {}", other.described()),
                r#"write "version": 1"#,
            );
        }
    }
}

/// `enforce` or `monitor`.
pub(super) fn mode(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Located<Mode>> {
    let index = word(value, at, "a mode", &["enforce", "monitor"], report)?;
    Some(Located { value: [Mode::Enforce, Mode::Monitor][index], path: at.pointer() })
}

fn time_zone(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Located<Tz>> {
    let text = text(value, at, "a time zone", report)?;
    if let Ok(value) = text.parse::<Tz>() {
        return Some(Located { value, path: at.pointer() });
    }
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    // People know the city; the continent is what they forget.
    let city = |name: &&str| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    let hint = match names().find(city).or_else(|| nearest(text, names())) {
        Some(name) => format!("did you mean {}?", quoted(name)),
        None => r#"time zones have IANA names such as "Europe/Berlin" or "UTC""#.to_owned(),
    };
    report.error(at, format!("{} is not a time zone", quoted(text)), hint);
    None
}

fn scope(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Scope {
    let Some(fields) = Fields::read(value, at, &["sources", "interfaces"], report) else { return Scope::default() };
    if matches!(value, Value::Object(entries) if entries.is_empty()) {
        report.error(
            at,
            "this scope names nothing",
            "name sources or interfaces, or leave scope out to police every forwarded packet",
        );
    }
    let scope = Scope {
        sources: fields.get("sources").and_then(|v| networks::list(v, &at.key("sources"), report)),
        interfaces: fields.get("interfaces").and_then(|v| lists::interfaces(v, &at.key("interfaces"), report)),
    };
    let empty = [
        ("sources", scope.sources.as_ref().is_some_and(|list| list.entries.is_empty())),
        ("interfaces", scope.interfaces.as_ref().is_some_and(|list| list.entries.is_empty())),
    ];
    for (name, _) in empty.iter().filter(|(_, empty)| *empty) {
        report.error(
            &at.key(name),
            format!("{name} is empty, so nothing would be policed"),
            format!("name at least one, or leave {name} out to police all"),
        );
    }
    scope
}

/// `allow`, global or of a host.
pub(super) fn allow(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Allow {
    let Some(fields) = Fields::read(value, at, &["domains", "ips", "ports", "domain_lists"], report) else {
        return Allow::default();
    };
    let part = |name: &'static str| fields.get(name).map(|value| (value, at.key(name)));
    Allow {
        domains: part("domains").and_then(|(v, at)| lists::domains(v, &at, report)),
        ips: part("ips").and_then(|(v, at)| networks::list(v, &at, report)),
        ports: part("ports").and_then(|(v, at)| lists::ports(v, &at, report)),
        domain_lists: part("domain_lists").and_then(|(v, at)| lists::domain_lists(v, &at, report)),
    }
}

/// `deny`, global or of a host.
pub(super) fn deny(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Deny {
    let Some(fields) = Fields::read(value, at, &["domains", "ips", "domain_lists"], report) else {
        return Deny::default();
    };
    let part = |name: &'static str| fields.get(name).map(|value| (value, at.key(name)));
    Deny {
        domains: part("domains").and_then(|(v, at)| lists::domains(v, &at, report)),
        ips: part("ips").and_then(|(v, at)| networks::list(v, &at, report)),
        domain_lists: part("domain_lists").and_then(|(v, at)| lists::domain_lists(v, &at, report)),
    }
}

/// `limits`, global or of a host: the rate in kilobits (1000 bits) per second.
pub(super) fn limits(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Located<u64>> {
    let fields = Fields::read(value, at, &["egress_kbps"], report)?;
    let at = at.key("egress_kbps");
    let value = fields.get("egress_kbps")?;
    let value = whole_number(value, &at, "a rate in kilobits per second", (1, MAX_EGRESS_KBPS), report)?;
    Some(Located { value, path: at.pointer() })
}
