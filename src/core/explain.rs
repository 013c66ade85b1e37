//! Why something passes or does not, in words, with the line of the policy that says so.
//!
//! The verdict is [`crate::policy::reference`]'s, the same that the table and the DNS server are tested against; here
//! it is only asked in the right order and put into a sentence.

mod words;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::words::Words;
use super::caps::CapUse;
use crate::policy::Mistake;
use crate::policy::decision::{Reason, Verdict};
use crate::policy::domain;
use crate::policy::model::{Mode, Policy};
use crate::policy::name::{Name, Pattern};
use crate::policy::reference::{self, Leased, Protocol};
use crate::policy::schedule::Moment;

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The agent's address.
    pub source: IpAddr,
    /// The interface its packets enter by, where known. `None`: one that the policy is about.
    pub interface: Option<String>,
    /// Where to.
    pub target: Target,
    /// The destination port. `None`: whether the target is open at all.
    pub port: Option<u16>,
    /// What the port is of; TCP where nothing is said.
    pub protocol: Option<Transport>,
    /// When. `None`: time windows are left out.
    pub moment: Option<Moment>,
}

/// Where an agent wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name, as the user wrote it.
    Domain(String),
    /// An address.
    Ip(IpAddr),
}

/// The protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The verdict with its reason; the fields are those of `explain --json` (SPEC section 3) and one sentence.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The verdict with its reason, and one sentence.")]
pub struct Explanation {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The line of the policy that gives the verdict, as a JSON Pointer (RFC 6901); `None`: no line, a default.
    pub path: Option<String>,
    /// The host the source belongs to; `None`: no host, so the global lists hold.
    pub host: Option<String>,
    /// The entry of the domain list that decided, else the name asked for, else `None`.
    pub domain: Option<String>,
    /// `enforce` or `monitor`.
    pub mode: String,
    /// The same in a sentence, with the text of the policy's line.
    pub detail: String,
    /// The exfil caps that it is charged to, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<CapUse>,
}

/// What is known besides the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The leases that are good now, of all hosts; a question about an address can only be answered in full by whoever
    /// knows them.
    pub leases: &'a [Leased<'a>],
    /// The caps that the target is charged to, with their use.
    pub caps: &'a [(Pattern, CapUse)],
}

/// Answers a question by the policy and what is known besides.
///
/// # Errors
/// The question itself is wrong: a name that is none, or two addresses of different families.
pub fn explain(policy: &Policy, question: &Question, known: Known<'_>) -> Result<Explanation, Mistake> {
    let Known { leases, caps } = known;
    // ::ffff:192.0.2.1 is an IPv4 host to the kernel.
    let source = question.source.to_canonical();
    let asked = Asked::read(question, source)?;
    let listed = policy.scope.interfaces.as_ref();
    let interface = match (&question.interface, listed) {
        (Some(name), _) => name.as_str(),
        (None, Some(list)) => list.entries.first().map_or("", String::as_str),
        (None, None) => "",
    };
    let host = reference::host_of(policy, source);
    let rules = policy.effective(host);
    let protocol = question.port.map(|port| match question.protocol {
        None | Some(Transport::Tcp) => Protocol::Tcp(port),
        Some(Transport::Udp) => Protocol::Udp(port),
    });
    let moment = question.moment.as_ref();
    let decision = reference::decide_scope(policy, source, interface).unwrap_or_else(|| match &asked {
        Asked::Domain(name) => {
            let named = reference::decide_name_at(policy, host, Some(name), moment);
            let allowed = named.verdict == Verdict::Allow;
            let refused = protocol.filter(|_| allowed).and_then(|protocol| reference::refused_port(&rules, protocol));
            refused.unwrap_or(named)
        }
        Asked::Ip(address) => reference::decide_address_at(policy, host, *address, protocol, leases, moment),
    });
    let spent: Vec<&(Pattern, CapUse)> = caps.iter().filter(|(_, cap)| cap.remaining == 0).collect();
    let refusing = spent.first().filter(|_| decision.verdict == Verdict::Allow);
    let decision = match refusing.and_then(|(pattern, _)| reference::decide_cap(policy, host, pattern)) {
        Some(refused) => refused,
        None => decision,
    };
    let words = Words { policy, rules: &rules, source, interface, asked: &asked, protocol, leases, moment, caps };
    let mut detail = words.sentence(&decision);
    if question.interface.is_none()
        && decision.verdict != Verdict::OutOfScope
        && let Some(list) = listed
    {
        detail.push_str(&format!(" (this holds for packets that enter by {})", words::or_list(&list.entries)));
    }
    Ok(Explanation {
        verdict: decision.verdict,
        reason: decision.reason,
        path: decision.path.map(|path| path.to_string()),
        host: decision.host.map(|host| host.to_string()),
        domain: decision.domain.map(|pattern| pattern.to_string()).or_else(|| asked.domain()),
        mode: mode_word(decision.mode).to_owned(),
        detail,
        caps: caps.iter().map(|(_, cap)| cap.clone()).collect(),
    })
}

/// The target, read.
enum Asked {
    Domain(Name),
    Ip(IpAddr),
}

impl Asked {
    fn read(question: &Question, source: IpAddr) -> Result<Self, Mistake> {
        match &question.target {
            Target::Domain(text) => domain::name(text).map(Self::Domain),
            Target::Ip(address) => {
                let address = address.to_canonical();
                if address.is_ipv4() == source.is_ipv4() {
                    return Ok(Self::Ip(address));
                }
                let (theirs, ours) = (family(address), family(source));
                Err(Mistake {
                    message: format!("{source} is an {ours} address, which sends nothing to the {theirs} {address}"),
                    hint: Some(format!("give the agent's {theirs} address as the source")),
                })
            }
        }
    }

    fn domain(&self) -> Option<String> {
        match self {
            Self::Domain(name) => Some(name.to_string()),
            Self::Ip(_) => None,
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

#[cfg(test)]
mod tests {
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
        is(
            &ask(AGENT, "8.8.8.8", Some(443)),
            Verdict::Block,
            Reason::NoLease,
            Some("/allow/domains"),
            "ask the gateway",
        );
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
        let got =
            explain(&policy, &question(OTHER, "8.8.8.8", Some(443)), Known { leases: &[lease], caps: &[] }).unwrap();
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
    fn the_json_form_is_the_contracts() {
        let json = serde_json::to_value(ask(AGENT, "api.example.com", None)).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["verdict", "reason", "path", "host", "domain", "mode", "detail"]);
        assert_eq!((&json["verdict"], &json["mode"]), (&"allow".into(), &"enforce".into()));
        let json = serde_json::to_value(ask("172.16.0.1", "1.2.3.4", None)).unwrap();
        assert_eq!((&json["verdict"], &json["reason"]), (&"out-of-scope".into(), &"out-of-scope".into()));
        assert!(json["host"].is_null() && json["domain"].is_null());
    }
}
