//! The answer of a policy in a file.

use crate::daemon::protocol::{Explain, Explanation, Transport};
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::{DEFAULT_PORTS, Mode, Policy};
use crate::policy::name::Name;
use crate::policy::reference::{self, Protocol};

/// Asks the policy.
///
/// # Errors
/// The question names nothing to reach.
pub(super) fn explain(policy: &Policy, question: &Explain) -> anyhow::Result<Explanation> {
    let interface = policy.scope.interfaces.as_ref().map_or("", |list| list.entries[0].as_str());
    let mut domain = question.domain.clone();
    let decision = if !reference::in_scope(policy, question.source, interface) {
        let path = policy.scope.sources.as_ref().map(|list| list.path.clone());
        let mode = policy.effective(None).mode;
        Decision { verdict: Verdict::OutOfScope, reason: Reason::OutOfScope, path, host: None, domain: None, mode }
    } else {
        let host = reference::host_of(policy, question.source);
        match (&question.domain, question.ip) {
            (Some(name), _) => {
                let name: Name = crate::policy::domain::name(name)?;
                let decision = reference::decide_name(policy, host, Some(&name));
                with_port(policy, decision, question.port)
            }
            (None, Some(address)) => {
                let protocol = question.port.map(|port| match question.protocol {
                    Some(Transport::Udp) => Protocol::Udp(port),
                    Some(Transport::Tcp) | None => Protocol::Tcp(port),
                });
                let decision = reference::decide_address(policy, host, address, protocol, &[]);
                domain = decision.domain.as_ref().map(ToString::to_string);
                decision
            }
            (None, None) => anyhow::bail!("name a domain or an address"),
        }
    };
    Ok(Explanation {
        verdict: decision.verdict,
        reason: decision.reason,
        path: decision.path.map(|path| path.to_string()),
        host: decision.host.map(|host| host.to_string()),
        domain,
        mode: match decision.mode {
            Mode::Enforce => "enforce".to_owned(),
            Mode::Monitor => "monitor".to_owned(),
        },
    })
}

/// A name that may be asked for and a port that may not be used: the connection is refused.
fn with_port(policy: &Policy, decision: Decision, port: Option<u16>) -> Decision {
    let rules = policy.effective(decision.host.as_ref());
    let Some(port) = port.filter(|_| decision.verdict == Verdict::Allow) else { return decision };
    let listed = rules.ports.map_or(&DEFAULT_PORTS[..], |list| &list.entries);
    if port != 53 && listed.contains(&port) {
        return decision;
    }
    let path = rules.ports.map(|list| list.path.clone());
    Decision { verdict: Verdict::Block, reason: Reason::PortNotAllowed, path, ..decision }
}
