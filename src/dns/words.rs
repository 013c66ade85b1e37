//! One line for people: why a query was refused.

use std::fmt::{Display, Formatter, Result};

use crate::policy::decision::{Decision, Reason};
use crate::policy::model::HostName;

/// The line that goes with a refusal: the reason's word, what happened, and the line of the policy, if one decided.
pub(super) struct Refusal<'a> {
    /// What was decided.
    pub decision: &'a Decision,
    /// The name of the query.
    pub asked: &'a str,
    /// What the answer held (an alias, an address) if that gave the reason.
    pub subject: Option<&'a str>,
}

impl Display for Refusal<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let Self { decision, asked, subject } = *self;
        let owner = decision.host.as_ref().map_or("the global policy", HostName::as_str);
        write!(out, "{}: ", decision.reason.as_str())?;
        match (decision.reason, subject) {
            (Reason::NotAllowlisted, _) => write!(out, "{asked} is not on the allowlist of {owner}"),
            (Reason::Denied, None) => write!(out, "{asked} is on the denylist of {owner}"),
            (Reason::Denied, Some(subject)) => {
                write!(out, "{asked} leads to {subject}, which is on the denylist of {owner}")
            }
            (Reason::Rebinding, Some(subject)) => {
                write!(out, "{asked} points to {subject}, an address that no public name should have")
            }
            (Reason::WindowClosed, _) => write!(out, "{asked} is outside its time window for {owner}"),
            (Reason::CapExhausted, _) => write!(out, "the cap of {asked} for {owner} is used up"),
            (Reason::RateLimited, _) => write!(out, "{owner} asks too often"),
            (Reason::Malformed, Some(subject)) => write!(out, "the answer for {asked} is not followed: {subject}"),
            (Reason::Malformed, None) => write!(out, "{asked} is no host name"),
            (_, Some(subject)) => write!(out, "{asked} is refused for {owner} because of {subject}"),
            (_, None) => write!(out, "{asked} is refused for {owner}"),
        }?;
        match &decision.path {
            Some(path) => write!(out, " ({path})"),
            None => Ok(()),
        }
    }
}
