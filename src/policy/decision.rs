//! The verdict on one query or flow, with the policy line that gives it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{HostName, Mode, Pointer};
use super::name::Pattern;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It is refused (in monitor mode: it would be).
    Block,
    /// The policy is not about it.
    OutOfScope,
}

/// Why; the closed list of SPEC section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(description = "Why.")]
pub enum Reason {
    /// A line of the policy allows it.
    Allowed,
    /// No line of the policy allows it.
    NotAllowlisted,
    /// A line of a denylist names it.
    Denied,
    /// The destination port (or the protocol) is not allowed.
    PortNotAllowed,
    /// Outside the time window.
    WindowClosed,
    /// The exfil cap is used up.
    CapExhausted,
    /// Over the rate limit.
    RateLimited,
    /// Only an answer of the gateway's own DNS could open the address, and this host holds none that is good now.
    NoLease,
    /// An answer pointed an allowed name at an address that no public name should have.
    Rebinding,
    /// The name in the connection is not the one that was asked for.
    NameMismatch,
    /// DNS in a form that hides the question.
    EncryptedDns,
    /// On a threat list.
    Threat,
    /// Not well formed.
    Malformed,
    /// The policy is not about it.
    OutOfScope,
}

impl Reason {
    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NotAllowlisted => "not-allowlisted",
            Self::Denied => "denied",
            Self::PortNotAllowed => "port-not-allowed",
            Self::WindowClosed => "window-closed",
            Self::CapExhausted => "cap-exhausted",
            Self::RateLimited => "rate-limited",
            Self::NoLease => "no-lease",
            Self::Rebinding => "rebinding",
            Self::NameMismatch => "name-mismatch",
            Self::EncryptedDns => "encrypted-dns",
            Self::Threat => "threat",
            Self::Malformed => "malformed",
            Self::OutOfScope => "out-of-scope",
        }
    }
}

/// One verdict with its reason.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The line of the policy that gives the verdict; `None` where no line does (a default).
    pub path: Option<Pointer>,
    /// The host the source belongs to; `None`: no host.
    pub host: Option<HostName>,
    /// The entry of the domain list that decided, if one did.
    pub domain: Option<Pattern>,
    /// Whether the verdict is enforced.
    pub mode: Mode,
}
