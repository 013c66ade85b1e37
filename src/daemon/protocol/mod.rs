//! What the tool and the daemon say to each other over the control socket (SPEC section 3): one JSON object a line
//! there, one JSON object a line back, as many pairs as the tool likes on one connection. A long policy goes ahead of
//! its request, as it is ([`Request::Text`]): so nobody turns it into a JSON text and back.
//!
//! The answer's envelope is that of the REST calls (SPEC section 5). `data` is by command: [`Status`], [`Health`],
//! [`Text`] (firewall), [`Piece`] (rpz, one answer after the other), [`Stored`] (show), [`Applied`] (apply, import, store), [`RolledBack`], [`Confirmed`],
//! [`Explanation`](crate::core::explain::Explanation) (explain), [`Logged`] (log), [`plan::Plan`], [`History`],
//! [`TornDown`], [`Report`](crate::core::telemetry::Report) (telemetry), [`Stats`](crate::core::telemetry::Stats),
//! [`Text`] (metrics).

mod data;
pub mod plan;
mod telemetry;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::explain::{self, Question, Target};
use crate::decisions::Filter;
use crate::policy::Diagnostic;
use crate::policy::schedule::Moment;

pub use self::telemetry::{Telemetry, ViewWord};
pub use data::{
    Applied, Check, Confirmed, FollowedZone, Follower, Health, History, Limits, Logged, Piece, RolledBack, StateWord,
    Status, Stored, Text, TornDown,
};

/// The longest line either side reads, bytes. As much as the longest policy; a line that has no end is cut here.
pub const MAX_LINE: usize = crate::policy::json::MAX_DOCUMENT;

/// A policy of so many octets goes ahead of its request.
pub const LONG: usize = 1 << 16;

/// The longest wait for a confirmation, seconds: a week. Who is away longer has not tried anything out.
pub const MAX_CONFIRM_SECONDS: u64 = 7 * 24 * 3600;

/// The recorded decisions of so many hours are decided again where nobody says: a day, because most of what agents do
/// comes again every day.
pub const PLAN_HOURS: u32 = 24;

/// The most hours: a year.
pub const MAX_PLAN_HOURS: u32 = 366 * 24;

/// What the tool asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The policy of the next request, which has an empty one: so many octets behind this line. It has no answer.
    Text {
        /// How many.
        octets: usize,
    },
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
        /// It goes away by itself unless it is confirmed in time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_seconds: Option<u64>,
    },
    /// Validate, enforce and store.
    Import {
        /// The text of the policy.
        policy: String,
        /// Refuse unless this revision is in force; 0: none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_revision: Option<u64>,
        /// It goes away by itself unless it is confirmed in time, and is stored only then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_seconds: Option<u64>,
    },
    /// Validate and store, and enforce nothing.
    Store {
        /// The text of the policy.
        policy: String,
        /// Refuse unless this revision is in force; 0: none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_revision: Option<u64>,
    },
    /// Return to an earlier revision.
    Rollback {
        /// Its number; absent: the one before the one in force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        /// Refuse unless this revision is in force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_revision: Option<u64>,
    },
    /// Let the revision stay that waits for its confirmation.
    Confirm {
        /// Refuse unless it is this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
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
    /// What would change if a policy were applied.
    Plan {
        /// The text of the policy.
        policy: String,
        /// The recorded decisions of so many hours are decided again; absent: [`PLAN_HOURS`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hours: Option<u32>,
    },
    /// Usage and denials.
    Telemetry(Telemetry),
    /// Totals and top lists.
    Stats {},
    /// The counters in Prometheus' format.
    Metrics {},
    /// The revisions.
    History {},
    /// Stop enforcing.
    Teardown {},
}

impl Request {
    /// The text of the policy that is sent with it.
    pub fn policy_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Apply { policy, .. } => policy.as_mut(),
            Self::Import { policy, .. } | Self::Store { policy, .. } | Self::Plan { policy, .. } => Some(policy),
            _ => None,
        }
    }
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
    /// Whose fault a failure is; the text says it to people, this to the other faces of the daemon.
    #[serde(skip)]
    pub refusal: Refusal,
}

/// Whose fault it is that something was not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// What was sent is not right.
    Invalid,
    /// It does not fit what is in force now.
    Conflict,
    /// There is no such thing.
    NotFound,
    /// The kernel or the disk refused.
    #[default]
    Failed,
}

impl Response {
    /// It was done.
    pub fn done(data: impl Serialize) -> Self {
        match serde_json::to_value(data) {
            Ok(data) => Self { success: true, data, error: None, errors: Vec::new(), refusal: Refusal::default() },
            Err(error) => Self::failed(format!("the answer cannot be written: {error}")),
        }
    }

    /// It was not done, with the reason.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::refused(error, Vec::new())
    }

    /// It was not done, and whose fault that is.
    pub fn because(refusal: Refusal, error: impl Into<String>) -> Self {
        Self { refusal, ..Self::failed(error) }
    }

    /// A policy was refused, with its mistakes.
    pub fn refused(error: impl Into<String>, errors: Vec<Diagnostic>) -> Self {
        Self { success: false, data: Value::Null, error: Some(error.into()), errors, refusal: Refusal::default() }
    }

    /// The data as the type that goes with the command.
    ///
    /// # Errors
    /// The data is something else: tool and daemon are not of one version.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::telemetry::Window;
    use crate::store::Origin;

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
            (Request::Apply { policy: None, confirm_seconds: None }, r#"{"command":"apply"}"#),
            (Request::Apply { policy: None, confirm_seconds: Some(5) }, r#"{"command":"apply","confirm_seconds":5}"#),
            (
                Request::Import { policy: "{}\n".into(), expect_revision: None, confirm_seconds: None },
                r#"{"command":"import","policy":"{}\n"}"#,
            ),
            (Request::Rollback { revision: Some(3), expect_revision: None }, r#"{"command":"rollback","revision":3}"#),
            (Request::Confirm { revision: None }, r#"{"command":"confirm"}"#),
            (Request::Telemetry(Telemetry::default()), r#"{"command":"telemetry"}"#),
            (
                Request::Telemetry(Telemetry {
                    view: Some(ViewWord::Agent),
                    target: Some("a".into()),
                    window: Some(Window::FiveMinutes),
                    no_redact: false,
                }),
                r#"{"command":"telemetry","view":"agent","target":"a","window":"5m"}"#,
            ),
            (Request::Stats {}, r#"{"command":"stats"}"#),
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
            caps: Vec::new(),
            limits: Limits::default(),
            secondaries: Vec::new(),
        };
        let value = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({ "state": "enforcing", "revision": 7, "sha256": "ab", "origin": "import",
            "applied_at": "2027-01-15T08:00:00Z", "hosts": 1, "domains": 2, "drift": false,
            "checks": [{ "name": "kernel", "ok": true, "message": "the table is in place" }],
            "caps": [], "limits": { "egress_kbps": null, "hosts": {} }, "secondaries": [] });
        assert_eq!(value, expected);
    }
}
