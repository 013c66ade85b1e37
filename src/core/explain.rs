//! Why something passes or does not, in words, with the line of the policy that says so.
//!
//! The verdict is [`crate::policy::reference`]'s, the same that the table and the DNS server are tested against; here
//! it is only asked in the right order and put into a sentence.

mod bounds;
mod words;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::bounds::{Rates, WindowState};
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
    /// The time windows that it stands under, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowState>,
    /// The rate limits that hold for the source, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Rates>,
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
    let policed = decision.verdict != Verdict::OutOfScope;
    Ok(Explanation {
        window: policed.then(|| bounds::window(&rules, &asked, leases, moment)).flatten(),
        limits: policed.then(|| bounds::rates(policy, &rules)).flatten(),
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
mod tests;
