//! One line for people: why a query was refused.

use crate::policy::decision::{Decision, Reason};

/// The line that goes with a refusal: the reason's word, what happened, and the line of the policy, if one decided.
/// `asked` is the name of the query, `subject` what the answer held (an alias, an address) if that gave the reason.
pub(super) fn refusal(decision: &Decision, asked: &str, subject: Option<&str>) -> String {
    let owner = match &decision.host {
        Some(host) => host.to_string(),
        None => "the global policy".to_owned(),
    };
    let what = match (decision.reason, subject) {
        (Reason::NotAllowlisted, _) => format!("{asked} is not on the allowlist of {owner}"),
        (Reason::Denied, None) => format!("{asked} is on the denylist of {owner}"),
        (Reason::Denied, Some(subject)) => format!("{asked} leads to {subject}, which is on the denylist of {owner}"),
        (Reason::Rebinding, Some(subject)) => {
            format!("{asked} points to {subject}, an address that no public name should have")
        }
        (Reason::WindowClosed, _) => format!("{asked} is outside its time window for {owner}"),
        (Reason::CapExhausted, _) => format!("the cap of {asked} for {owner} is used up"),
        (Reason::Malformed, Some(subject)) => format!("the answer for {asked} is not followed: {subject}"),
        (Reason::Malformed, None) => format!("{asked} is no host name"),
        (_, Some(subject)) => format!("{asked} is refused for {owner} because of {subject}"),
        (_, None) => format!("{asked} is refused for {owner}"),
    };
    match &decision.path {
        Some(path) => format!("{}: {what} ({path})", decision.reason.as_str()),
        None => format!("{}: {what}", decision.reason.as_str()),
    }
}
