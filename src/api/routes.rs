//! The calls: name, role, fields, and the function that makes a request of them. The router, the roles and the OpenAPI
//! document are all made of [`ROUTES`], so a call stands in one place.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::fields::{Field, Fields, Kind};
use crate::core::explain::Explanation;
use crate::core::telemetry::{Report, Stats};
use crate::daemon::protocol::plan::Plan;
use crate::daemon::protocol::{
    Applied, Confirmed, Explain, Health, Logged, MAX_CONFIRM_SECONDS, MAX_PLAN_HOURS, Request, RolledBack, Status,
    Telemetry, Transport,
};
use crate::decisions::Filter;
use crate::settings::Role;

/// The places where each call is, the documented one first.
pub(super) const PREFIXES: [&str; 2] = ["/clawgress", "/api/clawgress"];

/// One call.
pub(super) struct Route {
    /// The last part of its path.
    pub name: &'static str,
    /// Who may.
    pub role: Role,
    /// What it does, one line.
    pub about: &'static str,
    /// What may stand in the body besides the key.
    pub fields: &'static [Field],
    /// The request of a body; `None`: a mistake was noted.
    pub request: fn(&mut Fields<'_>) -> Option<Request>,
    /// What `data` is when it was done.
    pub data: fn(&mut SchemaGenerator) -> Schema,
    /// What can be said against it besides its fields and key.
    pub refusals: &'static [Refused],
}

/// Why a call that is right may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// 409
    Conflict,
    /// 404
    NotFound,
    /// 500
    Failed,
}

/// Every call.
pub(super) const ROUTES: &[Route] = &[
    Route {
        name: "policy",
        role: Role::Write,
        about: "Validate, enforce and store a policy: all of it or nothing.",
        fields: &[
            Field { name: "policy", kind: Kind::Policy, required: true, about: "The policy." },
            Field {
                name: "apply",
                kind: Kind::Flag,
                required: false,
                about: "Absent: true. False: validate and store, and enforce nothing yet.",
            },
            EXPECT,
            Field {
                name: "confirm_seconds",
                kind: Kind::Seconds(MAX_CONFIRM_SECONDS),
                required: false,
                about: "Go back by itself after this time unless `confirm` is called; stored only then.",
            },
        ],
        request: policy,
        data: data::<Applied>,
        refusals: &[Refused::Conflict, Refused::Failed],
    },
    Route {
        name: "rollback",
        role: Role::Write,
        about: "Enforce and store an earlier revision again, under a new number.",
        fields: &[
            Field {
                name: "revision",
                kind: Kind::Revision,
                required: false,
                about: "The revision to return to. Absent: the one before the one in force.",
            },
            EXPECT,
        ],
        request: |fields| {
            let (revision, expect_revision) = (fields.get("revision"), fields.get("expect_revision"));
            Some(Request::Rollback { revision, expect_revision })
        },
        data: data::<RolledBack>,
        refusals: &[Refused::Conflict, Refused::NotFound, Refused::Failed],
    },
    Route {
        name: "confirm",
        role: Role::Write,
        about: "Let the revision stay that waits for its confirmation.",
        fields: &[Field {
            name: "revision",
            kind: Kind::Revision,
            required: false,
            about: "Refuse unless it is this one that waits.",
        }],
        request: |fields| Some(Request::Confirm { revision: fields.get("revision") }),
        data: data::<Confirmed>,
        refusals: &[Refused::Conflict, Refused::Failed],
    },
    Route {
        name: "status",
        role: Role::Read,
        about: "The state: what is in force, since when, and whether all is well.",
        fields: &[],
        request: |_| Some(Request::Status {}),
        data: data::<Status>,
        refusals: &[],
    },
    Route {
        name: "health",
        role: Role::Read,
        about: "The checks. The status is 200 also where one fails: read `healthy`.",
        fields: &[],
        request: |_| Some(Request::Health {}),
        data: data::<Health>,
        refusals: &[],
    },
    Route {
        name: "telemetry",
        role: Role::Read,
        about: "Usage and denials: all of it, or one view.",
        fields: &[
            Field { name: "view", kind: Kind::Word(VIEWS), required: false, about: "Absent: all of it." },
            Field {
                name: "target",
                kind: Kind::Text,
                required: false,
                about: "The host of the view `agent`, the name of the view `domain`.",
            },
            Field { name: "window", kind: Kind::Word(WINDOWS), required: false, about: "The last while. Absent: 1h." },
            Field {
                name: "no_redact",
                kind: Kind::Flag,
                required: false,
                about: "True: an export with source addresses.",
            },
        ],
        request: telemetry,
        data: data::<Report>,
        refusals: &[Refused::NotFound],
    },
    Route {
        name: "stats",
        role: Role::Read,
        about: "Totals, and the top lists of the last 24 hours.",
        fields: &[],
        request: |_| Some(Request::Stats {}),
        data: data::<Stats>,
        refusals: &[],
    },
    Route {
        name: "explain",
        role: Role::Read,
        about: "What would happen to a query or a connection, and which line of the policy says so.",
        fields: &[
            Field { name: "source", kind: Kind::Address, required: true, about: "The agent's address." },
            Field { name: "domain", kind: Kind::Name, required: false, about: "A name; either this or `ip`." },
            Field { name: "ip", kind: Kind::Address, required: false, about: "An address; either this or `domain`." },
            Field { name: "port", kind: Kind::Port, required: false, about: "The destination port." },
            Field {
                name: "protocol",
                kind: Kind::Word(&["tcp", "udp"]),
                required: false,
                about: "Of the port. Absent: tcp.",
            },
            Field { name: "at", kind: Kind::Time, required: false, about: "When. Absent: now." },
        ],
        request: explain,
        data: data::<Explanation>,
        refusals: &[Refused::Conflict],
    },
    Route {
        name: "log",
        role: Role::Read,
        about: "The latest decision records that all given fields want, oldest first.",
        fields: &[
            Field { name: "host", kind: Kind::Text, required: false, about: "Only of this host." },
            Field {
                name: "domain",
                kind: Kind::Name,
                required: false,
                about: "Only about this name and what is below it.",
            },
            Field {
                name: "action",
                kind: Kind::Word(&["allow", "block", "monitor"]),
                required: false,
                about: "Only where this was done.",
            },
            Field {
                name: "protocol",
                kind: Kind::Text,
                required: false,
                about: "Only of this protocol: tcp, udp, icmp, icmpv6, or an IANA number.",
            },
            Field {
                name: "text",
                kind: Kind::Text,
                required: false,
                about: "Only with this text somewhere in their JSON, in whatever case.",
            },
            Field { name: "since", kind: Kind::Time, required: false, about: "Not older than this." },
            Field {
                name: "limit",
                kind: Kind::Number(Filter::MOST as u64),
                required: false,
                about: "So many at most. Absent: 100.",
            },
        ],
        request: log,
        data: data::<Logged>,
        refusals: &[Refused::Failed],
    },
    Route {
        name: "plan",
        role: Role::Read,
        about: "What a policy would change against the one in force. Nothing is changed.",
        fields: &[
            Field { name: "policy", kind: Kind::Policy, required: true, about: "The policy." },
            Field {
                name: "hours",
                kind: Kind::Number(MAX_PLAN_HOURS as u64),
                required: false,
                about: "Decide the recorded decisions of so many hours again. Absent: 24.",
            },
        ],
        request: |fields| {
            let policy = fields.raw("policy").map(|text| format!("{text}\n"));
            let hours = number(fields, "hours", MAX_PLAN_HOURS.into());
            Some(Request::Plan { policy: policy?, hours: hours.and_then(|hours| hours.try_into().ok()) })
        },
        data: data::<Plan>,
        refusals: &[Refused::Failed],
    },
];

const WINDOWS: &[&str] = &["1m", "5m", "1h", "24h"];
const VIEWS: &[&str] = &["agents", "domains", "agent", "domain", "denies", "export"];

const EXPECT: Field = Field {
    name: "expect_revision",
    kind: Kind::Revision,
    required: false,
    about: "Refuse with 409 unless this revision is in force; 0: none.",
};

fn data<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn policy(fields: &mut Fields<'_>) -> Option<Request> {
    let policy = fields.raw("policy").map(|text| format!("{text}\n"));
    let apply = fields.get("apply").unwrap_or(true);
    let expect_revision = fields.get("expect_revision");
    let confirm_seconds = seconds(fields, "confirm_seconds", MAX_CONFIRM_SECONDS);
    let policy = policy?;
    if apply {
        return Some(Request::Import { policy, expect_revision, confirm_seconds });
    }
    if confirm_seconds.is_some() {
        let hint = Some("leave out one of the two".to_owned());
        fields.wrong("confirm_seconds", "nothing is applied, so nothing goes back", hint);
    }
    Some(Request::Store { policy, expect_revision })
}

fn explain(fields: &mut Fields<'_>) -> Option<Request> {
    let source = fields.get("source");
    let (domain, ip) = (fields.get("domain"), fields.get("ip"));
    let port = fields.get("port").filter(|port| {
        let zero = *port == 0_u16;
        if zero {
            fields.wrong("port", "should be a port, 1 to 65535", None);
        }
        !zero
    });
    let protocol = fields.get::<Transport>("protocol");
    Some(Request::Explain(Explain { source: source?, domain, ip, port, protocol, at: fields.get("at") }))
}

fn log(fields: &mut Fields<'_>) -> Option<Request> {
    let filter = Filter {
        host: fields.get("host"),
        domain: fields.get("domain"),
        action: fields.get("action"),
        protocol: fields.get("protocol"),
        text: fields.get("text"),
        since: fields.get("since"),
        limit: number(fields, "limit", Filter::MOST as u64).and_then(|limit| limit.try_into().ok()),
    };
    Some(Request::Log { follow: false, filter })
}

fn telemetry(fields: &mut Fields<'_>) -> Option<Request> {
    let (view, target) = (fields.get("view"), fields.get::<String>("target"));
    let (window, no_redact) = (fields.get("window"), fields.get("no_redact").unwrap_or(false));
    let asked = Telemetry { view, target, window, no_redact };
    match asked.view() {
        Ok(_) => Some(Request::Telemetry(asked)),
        Err(why) => {
            fields.wrong(if asked.no_redact { "no_redact" } else { "target" }, why, None);
            None
        }
    }
}

fn seconds(fields: &mut Fields<'_>, name: &'static str, most: u64) -> Option<u64> {
    within(fields, name, most, &Kind::Seconds(most))
}

fn number(fields: &mut Fields<'_>, name: &'static str, most: u64) -> Option<u64> {
    within(fields, name, most, &Kind::Number(most))
}

fn within(fields: &mut Fields<'_>, name: &'static str, most: u64, kind: &Kind) -> Option<u64> {
    let number = fields.get(name)?;
    if !(1..=most).contains(&number) {
        fields.wrong(name, format!("should be {}", kind.wanted()), None);
    }
    Some(number)
}

#[cfg(test)]
mod tests;
