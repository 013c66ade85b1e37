use super::*;
use crate::policy::parse;

const POLICY: &str = r#"{
    "version": 1,
    "scope": {"sources": ["192.168.0.0/16", "fd00::/16"], "interfaces": ["eth1", "eth2"]},
    "allow": {"domains": ["api.example.com", "*.example.org"], "ips": ["1.2.3.0/24", "10.9.0.0/16"]},
    "deny": {"domains": ["bad.example.org"], "ips": ["1.2.3.66/32"]},
    "hosts": {
        "agent-1": {"sources": ["192.168.10.10/32"], "allow": {"ports": [443, 8443]},
                    "deny": {"domains": ["*.example.org"]}},
        "closed": {"sources": ["192.168.10.11/32"], "allow": {"domains": [], "ips": [], "ports": []}}
    }
}"#;

fn policy() -> Policy {
    parse(POLICY).unwrap()
}

fn question(source: &str, target: &str, port: Option<u16>) -> Question {
    let target = target.parse().map_or_else(|_| Target::Domain(target.to_owned()), Target::Ip);
    Question {
        source: source.parse().unwrap(),
        interface: Some("eth1".into()),
        target,
        port,
        protocol: None,
        moment: None,
    }
}

fn ask(source: &str, target: &str, port: Option<u16>) -> Explanation {
    explain(&policy(), &question(source, target, port), Known::default()).unwrap()
}

/// Verdict, reason, path, and a part of the sentence.
#[track_caller]
fn is(got: &Explanation, verdict: Verdict, reason: Reason, path: Option<&str>, words: &str) {
    assert_eq!((got.verdict, got.reason, got.path.as_deref()), (verdict, reason, path), "{}", got.detail);
    assert!(got.detail.contains(words), "{}", got.detail);
}

const AGENT: &str = "192.168.10.10";
const OTHER: &str = "192.168.10.99";
const CLOSED: &str = "192.168.10.11";

#[test]
fn an_allowed_name_names_its_line() {
    let got = ask(AGENT, "API.example.com.", None);
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/domains/0"), "says \"api.example.com\"");
    assert_eq!((got.host.as_deref(), got.domain.as_deref()), (Some("agent-1"), Some("api.example.com")));
    let got = ask(OTHER, "a.b.example.org", Some(443));
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/domains/1"), "a.b.example.org: ");
    assert_eq!((got.host, got.domain.as_deref()), (None, Some("*.example.org")));
}

#[test]
fn a_denied_name_names_the_hosts_own_line_first() {
    let path = "/hosts/agent-1/deny/domains/0";
    is(&ask(AGENT, "bad.example.org", None), Verdict::Block, Reason::Denied, Some(path), "\"*.example.org\"");
    let got = ask(OTHER, "bad.example.org", None);
    is(&got, Verdict::Block, Reason::Denied, Some("/deny/domains/0"), "\"bad.example.org\"");
}

#[test]
fn a_name_on_no_list_is_told_from_an_empty_list_and_from_none() {
    let got = ask(OTHER, "elsewhere.example.com", None);
    is(&got, Verdict::Block, Reason::NotAllowlisted, Some("/allow/domains"), "no line of /allow/domains covers it");
    assert_eq!(got.domain.as_deref(), Some("elsewhere.example.com"));
    let path = "/hosts/closed/allow/domains";
    is(&ask(CLOSED, "api.example.com", None), Verdict::Block, Reason::NotAllowlisted, Some(path), "is empty");
    let bare = parse(r#"{"version": 1}"#).unwrap();
    let got = explain(&bare, &question(OTHER, "api.example.com", None), Known::default()).unwrap();
    is(&got, Verdict::Block, Reason::NotAllowlisted, None, "has no allow.domains");
}

#[test]
fn an_allowed_name_at_a_closed_port_is_a_matter_of_the_port() {
    let got = ask(AGENT, "api.example.com", Some(80));
    let path = "/hosts/agent-1/allow/ports";
    is(&got, Verdict::Block, Reason::PortNotAllowed, Some(path), "tcp port 80: ");
    assert!(got.detail.ends_with("says 443 and 8443"), "{}", got.detail);
    assert_eq!(got.domain.as_deref(), Some("api.example.com"));
    let got = ask(OTHER, "api.example.com", Some(22));
    is(&got, Verdict::Block, Reason::PortNotAllowed, None, "only 53, 80 and 443 are open");
    let got = ask(OTHER, "api.example.com", Some(53));
    is(&got, Verdict::Block, Reason::PortNotAllowed, None, "its own DNS answers");
    // Nobody is told about ports of a name that is closed anyway.
    let got = ask(OTHER, "elsewhere.example.com", Some(22));
    is(&got, Verdict::Block, Reason::NotAllowlisted, Some("/allow/domains"), "");
    let path = "/hosts/closed/allow/ports";
    is(&ask(CLOSED, "8.8.8.8", Some(443)), Verdict::Block, Reason::PortNotAllowed, Some(path), "no port at all");
}

#[test]
fn udp_is_said_where_it_was_asked() {
    let question = Question { protocol: Some(Transport::Udp), ..question(AGENT, "1.2.3.4", Some(80)) };
    let got = explain(&policy(), &question, Known::default()).unwrap();
    is(&got, Verdict::Block, Reason::PortNotAllowed, Some("/hosts/agent-1/allow/ports"), "udp port 80");
}

#[test]
fn addresses_are_decided_by_the_lists_of_addresses() {
    let got = ask(OTHER, "1.2.3.4", Some(443));
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/ips/0"), "\"1.2.3.0/24\"");
    assert_eq!(got.domain, None);
    let got = ask(OTHER, "1.2.3.66", None);
    is(&got, Verdict::Block, Reason::Denied, Some("/deny/ips/0"), "\"1.2.3.66/32\"");
    let got = ask(OTHER, "::ffff:1.2.3.4", None);
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/ips/0"), "may reach 1.2.3.4");
}

#[test]
fn an_address_that_only_an_answer_could_open() {
    is(&ask(AGENT, "8.8.8.8", Some(443)), Verdict::Block, Reason::NoLease, Some("/allow/domains"), "ask the gateway");
    let path = "/hosts/closed/allow/ips";
    is(&ask(CLOSED, "8.8.8.8", None), Verdict::Block, Reason::NotAllowlisted, Some(path), "allows it no names");
    let got = ask(AGENT, "192.168.1.1", None);
    is(&got, Verdict::Block, Reason::NotAllowlisted, Some("/allow/ips"), "private");
}

#[test]
fn a_lease_opens_an_address_for_its_host_and_names_the_answer() {
    let policy = policy();
    let name = domain::name("api.example.com").unwrap();
    let agent = policy.hosts.keys().find(|host| host.as_str() == "agent-1");
    let lease = Leased { host: agent, name: &name, address: "8.8.8.8".parse().unwrap() };
    let got = explain(
        &policy,
        &question(AGENT, "8.8.8.8", Some(443)),
        Known { leases: std::slice::from_ref(&lease), caps: &[] },
    )
    .unwrap();
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/domains/0"), "an answer for api.example.com gave it");
    assert_eq!(got.domain.as_deref(), Some("api.example.com"));
    let got = explain(&policy, &question(OTHER, "8.8.8.8", Some(443)), Known { leases: &[lease], caps: &[] }).unwrap();
    is(&got, Verdict::Block, Reason::NoLease, Some("/allow/domains"), "");
}

#[test]
fn the_scope_comes_first() {
    let got = ask("172.16.0.1", "api.example.com", None);
    is(&got, Verdict::OutOfScope, Reason::OutOfScope, Some("/scope/sources"), "192.168.0.0/16 and fd00::/16");
    let elsewhere = Question { interface: Some("wan".into()), ..question(AGENT, "1.2.3.66", None) };
    let got = explain(&policy(), &elsewhere, Known::default()).unwrap();
    is(&got, Verdict::OutOfScope, Reason::OutOfScope, Some("/scope/interfaces"), "enters by wan");
    assert_eq!(got.host, None);
}

#[test]
fn an_unknown_interface_is_one_of_the_policys_and_said() {
    let anywhere = Question { interface: None, ..question(AGENT, "api.example.com", None) };
    let got = explain(&policy(), &anywhere, Known::default()).unwrap();
    is(&got, Verdict::Allow, Reason::Allowed, Some("/allow/domains/0"), "packets that enter by eth1 or eth2");
    let bare = parse(r#"{"version": 1, "allow": {"domains": ["api.example.com"]}}"#).unwrap();
    assert!(!explain(&bare, &anywhere, Known::default()).unwrap().detail.contains("enter by"));
}

#[test]
fn a_question_that_is_none_is_refused() {
    for wrong in ["*.example.org", "https://example.org/", "a..b", ""] {
        assert!(explain(&policy(), &question(AGENT, wrong, None), Known::default()).is_err(), "{wrong}");
    }
    let mistake = explain(&policy(), &question(AGENT, "2606:4700::1", None), Known::default()).unwrap_err();
    assert!(mistake.to_string().contains("IPv6 address as the source"), "{mistake}");
}

#[test]
fn windows_and_limits_are_told_where_there_are_any() {
    let text = r#"{"version": 1, "time_zone": "UTC", "allow": {"domains": ["api.example.com"]},
        "limits": {"egress_kbps": 8000}, "time_window": {"start": "09:00", "end": "17:00"},
        "domain_time_windows": {"api.example.com": {"start": "10:00", "end": "12:00"}},
        "hosts": {"a": {"sources": ["192.168.10.10"], "limits": {"egress_kbps": 1000}}}}"#;
    let policy = parse(text).unwrap();
    let at = |hour: u32| Moment {
        utc: chrono::NaiveDate::from_ymd_opt(2026, 11, 20).unwrap().and_hms_opt(hour, 0, 0).unwrap().and_utc(),
        zone: chrono_tz::UTC,
    };
    let ask = |hour| {
        let question = Question { moment: Some(at(hour)), ..question(AGENT, "api.example.com", None) };
        explain(&policy, &question, Known::default()).unwrap()
    };
    let got = ask(11);
    assert_eq!(got.window, Some(WindowState { open: true, changes_at: Some(at(12).utc) }));
    assert_eq!(got.limits, Some(Rates { egress_kbps: Some(8000), host_kbps: Some(1000) }));
    assert_eq!(ask(9).window, Some(WindowState { open: false, changes_at: Some(at(10).utc) }));
    let bare = self::ask(AGENT, "api.example.com", None);
    assert_eq!((bare.window, bare.limits), (None, None));
}

#[test]
fn the_json_form_is_the_contracts() {
    let json = serde_json::to_value(ask(AGENT, "api.example.com", None)).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["verdict", "reason", "path", "host", "domain", "mode", "detail"]);
    assert_eq!((&json["verdict"], &json["mode"]), (&"allow".into(), &"enforce".into()));
    let json = serde_json::to_value(ask("172.16.0.1", "1.2.3.4", None)).unwrap();
    assert_eq!((&json["verdict"], &json["reason"]), (&"out-of-scope".into(), &"out-of-scope".into()));
    assert!(json["host"].is_null() && json["domain"].is_null());
}
