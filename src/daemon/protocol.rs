//! What the tool and the daemon say to each other over the control socket (SPEC section 3): one JSON object a line
//! there, one JSON object a line back, as many pairs as the tool likes on one connection.
//!
//! The answer's envelope is that of the REST calls (SPEC section 5). `data` is by command: [`Status`], [`Health`],
//! [`Text`] (firewall, rpz), [`Stored`] (show), [`Applied`] (apply, import),
//! [`Explanation`](crate::core::explain::Explanation) (explain), [`Logged`] (log), [`History`], [`TornDown`].

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::explain::{self, Question, Target};
use crate::decisions::{Filter, Record};
use crate::policy::Diagnostic;
use crate::policy::schedule::Moment;
use crate::store::{Origin, RevisionMeta};

/// The longest line either side reads, bytes. As much as the longest policy; a line that has no end is cut here.
pub const MAX_LINE: usize = crate::policy::json::MAX_DOCUMENT;

/// What the tool asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    // Empty braces, because serde lets unknown fields pass where a variant has none.
    /// The state.
    Status {},
    /// The checks.
    Health {},
    /// The table as the kernel holds it.
    Firewall {},
    /// The zone.
    Rpz {
        /// The view of one host; absent: of sources that belong to no host, and all hosts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// The stored policy.
    Show {},
    /// Enforce the stored policy again, or another one without storing it.
    Apply {
        /// The text of the other one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
    },
    /// Validate, enforce and store.
    Import {
        /// The text of the policy.
        policy: String,
    },
    /// The verdict on one query or flow.
    Explain(Explain),
    /// Decision records.
    Log {
        /// Go on with what comes: further answers on this connection, without a further request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        follow: bool,
        /// Which ones.
        #[serde(default)]
        filter: Filter,
    },
    /// The revisions.
    History {},
    /// Stop enforcing.
    Teardown {},
}

/// One query or flow: exactly one of `domain` and `ip` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// Who asks or connects.
    pub source: IpAddr,
    /// A name, normalised by the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// An address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Absent: TCP if there is a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Transport>,
    /// When; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl Explain {
    /// The question as the policy is asked it. The interface is not known here.
    ///
    /// # Errors
    /// There is no target, or there are two.
    pub fn question(&self, moment: Moment) -> Result<Question, &'static str> {
        let target = match (&self.domain, self.ip) {
            (Some(domain), None) => Target::Domain(domain.clone()),
            (None, Some(address)) => Target::Ip(address.to_canonical()),
            _ => return Err("say either a domain or an address"),
        };
        let protocol = self.protocol.map(|protocol| match protocol {
            Transport::Tcp => explain::Transport::Tcp,
            Transport::Udp => explain::Transport::Udp,
        });
        Ok(Question { source: self.source, interface: None, target, port: self.port, protocol, moment: Some(moment) })
    }
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The envelope of every answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Whether it was done.
    pub success: bool,
    /// What came of it; `null` where it failed.
    pub data: Value,
    /// Why it failed, one line.
    pub error: Option<String>,
    /// The mistakes of a policy that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Diagnostic>,
}

impl Response {
    /// It was done.
    pub fn done(data: impl Serialize) -> Self {
        match serde_json::to_value(data) {
            Ok(data) => Self { success: true, data, error: None, errors: Vec::new() },
            Err(error) => Self::failed(format!("the answer cannot be written: {error}")),
        }
    }

    /// It was not done, with the reason.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::refused(error, Vec::new())
    }

    /// A policy was refused, with its mistakes.
    pub fn refused(error: impl Into<String>, errors: Vec<Diagnostic>) -> Self {
        Self { success: false, data: Value::Null, error: Some(error.into()), errors }
    }

    /// The data as the type that goes with the command.
    ///
    /// # Errors
    /// The data is something else: tool and daemon are not of one version.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.data)
    }
}

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateWord {
    /// The policy is enforced.
    Enforcing,
    /// The policy is in force and blocks nothing.
    Monitoring,
    /// Enforced, but a check fails.
    Degraded,
    /// No policy can be read or enforced: everything in scope is blocked.
    Blocked,
    /// No policy was ever stored.
    Unconfigured,
}

/// One check of `status` and `health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is looked at: one word.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen, one line.
    pub message: String,
}

/// `status --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: StateWord,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The digest of its policy.
    pub sha256: Option<String>,
    /// What applied it.
    pub origin: Option<Origin>,
    /// When, RFC 3339.
    #[serde(with = "maybe_seconds")]
    pub applied_at: Option<DateTime<Utc>>,
    /// How many hosts it has.
    pub hosts: usize,
    /// How many entries its domain lists have.
    pub domains: usize,
    /// Whether what is stored or in the kernel is not what was applied.
    pub drift: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// `health --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether every check is well.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// `firewall --json`, `rpz --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The table or zone, lines.
    pub text: String,
}

/// The stored policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its text as imported; `None`: none is stored.
    pub policy: Option<String>,
}

/// What `apply` and `import` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision in force now.
    pub revision: u64,
    /// The digest of its policy.
    pub sha256: String,
    /// Whether it is enforced.
    pub applied: bool,
    /// How many things in the kernel were changed for it.
    pub changes: u64,
    /// What is odd about the policy though legal.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
    /// What went wrong after it came into force, one sentence each: the disk was full and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// `history --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    pub revisions: Vec<RevisionMeta>,
    /// Files of the history that are no good, one sentence each.
    #[serde(default)]
    pub damage: Vec<String>,
}

/// Decision records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Oldest first.
    pub records: Vec<Arc<Record>>,
    /// Records that came faster than they were taken, if one follows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What `teardown` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a table to remove.
    pub removed: bool,
    /// What is open now, one line.
    pub message: String,
}

/// Times as RFC 3339 to the second, or `null`.
mod maybe_seconds {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => crate::store::seconds::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, serde_json::Error> {
        serde_json::from_str(line)
    }

    #[test]
    fn requests_are_as_short_as_they_can_be() {
        let explain = Explain {
            source: IpAddr::from([192, 168, 10, 10]),
            domain: Some("api.example.com".into()),
            ip: None,
            port: Some(443),
            protocol: Some(Transport::Tcp),
            at: None,
        };
        for (request, line) in [
            (Request::Status {}, r#"{"command":"status"}"#),
            (Request::Rpz { host: None }, r#"{"command":"rpz"}"#),
            (Request::Rpz { host: Some("a".into()) }, r#"{"command":"rpz","host":"a"}"#),
            (
                Request::Log { follow: true, filter: Filter { host: Some("a".into()), ..Filter::default() } },
                r#"{"command":"log","follow":true,"filter":{"host":"a"}}"#,
            ),
            (Request::Apply { policy: None }, r#"{"command":"apply"}"#),
            (Request::Import { policy: "{}\n".into() }, r#"{"command":"import","policy":"{}\n"}"#),
            (
                Request::Explain(explain),
                r#"{"command":"explain","source":"192.168.10.10","domain":"api.example.com","port":443,"protocol":"tcp"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(read(line).unwrap(), request);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            r#"{"command":"status","verbose":true}"#,
            r#"{"command":"import"}"#,
            r#"{"command":"import","policy":{}}"#,
            r#"{"command":"explain","source":"1.2.3.4","domian":"x"}"#,
            r#"{"command":"log","filter":{"hots":"a"}}"#,
            r#"{"command":"reboot"}"#,
            r#"{}"#,
            "[]",
        ] {
            read(line).expect_err(line);
        }
    }

    #[test]
    fn the_envelope_is_that_of_rest() {
        let done = serde_json::to_value(Response::done(Text { text: "x".into() })).unwrap();
        assert_eq!(done, serde_json::json!({ "success": true, "data": { "text": "x" }, "error": null }));
        let mistake = Diagnostic { path: "/a".into(), message: "b".into(), hint: None };
        let refused = serde_json::to_value(Response::refused("no", vec![mistake])).unwrap();
        assert_eq!(
            refused,
            serde_json::json!({ "success": false, "data": null, "error": "no",
                "errors": [{ "path": "/a", "message": "b", "hint": null }] })
        );
    }

    #[test]
    fn status_is_the_object_of_the_contract() {
        let status = Status {
            state: StateWord::Enforcing,
            revision: Some(7),
            sha256: Some("ab".into()),
            origin: Some(Origin::Import),
            applied_at: DateTime::from_timestamp(1_800_000_000, 5_000_000),
            hosts: 1,
            domains: 2,
            drift: false,
            checks: vec![Check { name: "kernel".into(), ok: true, message: "the table is in place".into() }],
        };
        let value = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({ "state": "enforcing", "revision": 7, "sha256": "ab", "origin": "import",
            "applied_at": "2027-01-15T08:00:00Z", "hosts": 1, "domains": 2, "drift": false,
            "checks": [{ "name": "kernel", "ok": true, "message": "the table is in place" }] });
        assert_eq!(value, expected);
    }
}
