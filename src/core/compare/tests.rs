use super::*;
use crate::policy::parse;

/// Changes as lines: `effect kind host field item before -> after`.
fn lines(old: &str, new: &str) -> Vec<String> {
    let policy = |text: &str| parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let changes = compare(&policy(old), &policy(new), Tz::UTC);
    let line = |change: Change| {
        let host = change.host.map(|host| format!("{host}: ")).unwrap_or_default();
        let field = serde_json::to_value(change.field).unwrap();
        let item = change.item.map(|item| format!(" {item}")).unwrap_or_default();
        let said = match (change.before, change.after) {
            (None, None) => String::new(),
            (before, after) => format!(" [{} -> {}]", before.unwrap_or_default(), after.unwrap_or_default()),
        };
        let path = change.path.map(|path| format!(" {path}")).unwrap_or_default();
        let words = format!("{:?} {:?}", change.effect, change.change).to_lowercase();
        format!("{words} {host}{}{item}{said}{path}", field.as_str().unwrap())
    };
    changes.into_iter().map(line).collect()
}

#[track_caller]
fn differ(old: &str, new: &str, expected: &[&str]) {
    assert_eq!(lines(old, new), expected);
    assert_eq!(lines(old, old), [""; 0]);
    assert_eq!(lines(new, new), [""; 0]);
}

#[test]
fn entries_count_by_what_they_cover() {
    differ(
        r#"{"version": 1, "allow": {"domains": ["*.a.example.com", "b.example.com"], "ips": ["192.0.2.0/25", "192.0.2.128/25"]}}"#,
        r#"{"version": 1, "allow": {"domains": ["x.a.example.com", "*.y.a.example.com", "b.example.com", "c.example.com"],
            "ips": ["192.0.2.0/24"], "ports": [53, 443, 8443]}, "deny": {"domains": ["d.example.com"]}}"#,
        &[
            "widens added allow.domains c.example.com /allow/domains/3",
            "widens added allow.ports 8443 /allow/ports/2",
            "narrows removed allow.domains *.a.example.com /allow/domains/0",
            "narrows removed allow.ports 80",
            "narrows added deny.domains d.example.com /deny/domains/0",
            "none added allow.domains *.y.a.example.com /allow/domains/1",
            "none added allow.domains x.a.example.com /allow/domains/0",
            "none added allow.ips 192.0.2.0/24 /allow/ips/0",
            "none removed allow.ips 192.0.2.0/25 /allow/ips/0",
            "none removed allow.ips 192.0.2.128/25 /allow/ips/1",
        ],
    );
}

#[test]
fn what_hosts_inherit_is_told_once() {
    let hosts = r#""hosts": {"a": {"sources": ["192.0.2.1"]}, "b": {"sources": ["192.0.2.2"],
        "allow": {"domains": ["b.example.com"]}, "deny": {"domains": ["c.example.com"]}}}"#;
    differ(
        &format!(r#"{{"version": 1, "allow": {{"domains": ["x.example.com"]}}, {hosts}}}"#),
        &format!(
            r#"{{"version": 1, "allow": {{"domains": ["y.example.com"]}}, "deny": {{"domains": ["*.example.com"]}}, {}}}"#,
            hosts.replace(r#""deny": {"domains": ["c.example.com"]}"#, r#""deny": {}"#)
        ),
        &[
            "widens added allow.domains y.example.com /allow/domains/0",
            "narrows removed allow.domains x.example.com /allow/domains/0",
            "narrows added deny.domains *.example.com /deny/domains/0",
            "none removed b: deny.domains c.example.com /hosts/b/deny/domains/0",
        ],
    );
}

#[test]
fn a_list_of_its_own_takes_the_place_of_the_global_one() {
    differ(
        r#"{"version": 1, "allow": {"domains": ["x.example.com", "y.example.com"]}, "hosts": {"a": {"sources": ["192.0.2.1"]}}}"#,
        r#"{"version": 1, "allow": {"domains": ["x.example.com", "y.example.com"]},
            "hosts": {"a": {"sources": ["192.0.2.1"], "allow": {"domains": ["y.example.com", "z.example.com"]}}}}"#,
        &[
            "widens added a: allow.domains z.example.com /hosts/a/allow/domains/1",
            "narrows removed a: allow.domains x.example.com /allow/domains/0",
        ],
    );
}

#[test]
fn windows_are_compared_by_their_times() {
    differ(
        r#"{"version": 1, "time_window": {"days": ["mon", "tue", "wed"], "start": "08:00", "end": "18:00"},
            "domain_time_windows": {"*.example.com": {"start": "08:00", "end": "12:00"}},
            "hosts": {"a": {"sources": ["192.0.2.1"], "time_window": {"start": "22:00", "end": "06:00"}}}}"#,
        r#"{"version": 1, "time_window": {"days": ["mon", "tue", "wed", "thu"], "start": "08:00", "end": "18:00"},
            "domain_time_windows": {"*.example.com": {"start": "08:00", "end": "12:00"},
                "a.example.com": {"start": "10:00", "end": "14:00"}, "b.example.com": {"start": "09:00", "end": "10:00"}},
            "hosts": {"a": {"sources": ["192.0.2.1"]}}}"#,
        &[
            "widens changed time_window [mon-wed 08:00-18:00 -> mon-thu 08:00-18:00] /time_window",
            "both added domain_time_windows a.example.com [ -> every day 10:00-14:00] /domain_time_windows/a.example.com",
            "both changed a: time_window [every day 22:00-06:00 -> mon-thu 08:00-18:00] /time_window",
            "narrows added domain_time_windows b.example.com [ -> every day 09:00-10:00] /domain_time_windows/b.example.com",
        ],
    );
}

#[test]
fn a_window_around_midnight_is_the_evening_and_the_morning() {
    let day = |window: &str| format!(r#"{{"version": 1, "time_window": {{{window}}}}}"#);
    let all = r#""days": ["sun"], "start": "20:00", "end": "08:00""#;
    let lines = lines(&day(all), &day(r#""days": ["mon"], "start": "00:00", "end": "08:00""#));
    assert_eq!(lines, ["narrows changed time_window [sun 20:00-08:00 -> mon 00:00-08:00] /time_window"]);
}

#[test]
fn another_zone_moves_what_has_times() {
    let old = r#"{"version": 1, "time_zone": "UTC", "time_window": {"start": "08:00", "end": "18:00"}}"#;
    let new = old.replace("UTC", "Europe/Berlin");
    differ(old, &new, &["both changed time_zone [UTC -> Europe/Berlin] /time_zone"]);
    let (old, new) = (r#"{"version": 1}"#, r#"{"version": 1, "time_zone": "Asia/Kolkata"}"#);
    differ(old, new, &["none changed time_zone [UTC (the gateway's) -> Asia/Kolkata] /time_zone"]);
}

#[test]
fn limits_caps_labels_and_modes_are_told() {
    differ(
        r#"{"version": 1, "limits": {"egress_kbps": 8000}, "labels": {"a.example.com": "x"}, "hosts": {"a": {
            "sources": ["192.0.2.1"], "exfil": {"domains": {"a.example.com": {"bytes": 1000, "period": "hour"},
            "b.example.com": {"bytes": 1000, "period": "hour"}, "c.example.com": {"bytes": 1000, "period": "hour"}}}}}}"#,
        r#"{"version": 1, "mode": "monitor", "labels": {"a.example.com": "y"}, "hosts": {"a": {
            "sources": ["192.0.2.1"], "mode": "enforce", "limits": {"egress_kbps": 500}, "exfil": {"domains": {
            "a.example.com": {"bytes": 2000, "period": "day"}, "b.example.com": {"bytes": 900, "period": "hour"}}}}}}"#,
        &[
            "widens changed mode [enforce -> monitor] /mode",
            "widens removed limits.egress_kbps [8000 kbit/s -> ] /limits/egress_kbps",
            "widens removed a: exfil.domains c.example.com [1000 bytes per hour -> ] /hosts/a/exfil/domains/c.example.com",
            "both changed a: exfil.domains a.example.com [1000 bytes per hour -> 2000 bytes per day] /hosts/a/exfil/domains/a.example.com",
            "narrows added a: limits.egress_kbps [ -> 500 kbit/s] /hosts/a/limits/egress_kbps",
            "narrows changed a: exfil.domains b.example.com [1000 bytes per hour -> 900 bytes per hour] /hosts/a/exfil/domains/b.example.com",
            "none changed labels a.example.com [x -> y]",
        ],
    );
}

#[test]
fn sources_that_move_get_the_lists_of_another_host() {
    let policy =
        |hosts: &str| format!(r#"{{"version": 1, "allow": {{"domains": ["g.example.com"]}}, "hosts": {{{hosts}}}}}"#);
    let wide = r#""wide": {"sources": ["192.0.2.0/28"], "allow": {"domains": ["*.example.com"]}}"#;
    // A new host inside another one: less may be reached from there.
    differ(
        &policy(wide),
        &policy(&format!(
            r#"{wide}, "narrow": {{"sources": ["192.0.2.1"], "allow": {{"domains": ["n.example.com"]}}}}"#
        )),
        &[
            "narrows added hosts narrow [ -> 192.0.2.1/32] /hosts/narrow",
            "narrows removed narrow: allow.domains *.example.com /hosts/wide/allow/domains/0",
            "none added narrow: allow.domains n.example.com /hosts/narrow/allow/domains/0",
        ],
    );
    // Another name, and nothing else.
    differ(
        &policy(wide),
        &policy(&wide.replace("\"wide\"", "\"other\"")),
        &[
            "none added hosts other [ -> 192.0.2.0/28] /hosts/other",
            "none removed hosts wide [192.0.2.0/28 -> ] /hosts/wide",
        ],
    );
    // More sources for a host that stays, and none for one that goes.
    differ(
        &policy(wide),
        &policy(&wide.replace("192.0.2.0/28", "192.0.2.0/29\", \"198.51.100.1")),
        &[
            "widens added wide: sources 198.51.100.1/32 [ -> 198.51.100.1/32] /hosts/wide/sources/1",
            "narrows removed wide: sources 192.0.2.0/28 [192.0.2.0/28 -> ] /hosts/wide/sources/0",
            "none added wide: sources 192.0.2.0/29 [ -> 192.0.2.0/29] /hosts/wide/sources/0",
        ],
    );
}

#[test]
fn what_leaves_the_scope_is_open() {
    differ(
        r#"{"version": 1, "scope": {"sources": ["192.0.2.0/24", "198.51.100.0/24"]}}"#,
        r#"{"version": 1, "scope": {"sources": ["192.0.2.0/23"], "interfaces": ["eth1"]}}"#,
        &[
            "widens removed scope.sources 198.51.100.0/24 /scope/sources/1",
            "widens changed scope.interfaces [every interface -> eth1] /scope/interfaces",
            "narrows added scope.sources 192.0.2.0/23 /scope/sources/0",
            "none removed scope.sources 192.0.2.0/24 /scope/sources/0",
        ],
    );
    differ(
        r#"{"version": 1}"#,
        r#"{"version": 1, "scope": {"sources": ["192.0.2.0/24"]}}"#,
        &["widens changed scope.sources [every source -> 192.0.2.0/24] /scope/sources"],
    );
}
