//! What `status` and `health` say.

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::revisions::{Revisions, sizes};
use crate::policy::model::{Mode, Policy};

/// One check.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// A short fixed word.
    pub name: &'static str,
    /// Whether all is well.
    pub ok: bool,
    /// What was found, and what to do if it is not well.
    pub message: String,
}

impl Check {
    /// A check that went well.
    pub fn good(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, ok: true, message: message.into() }
    }

    /// A check that did not.
    pub fn bad(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, ok: false, message: message.into() }
    }
}

/// What the gate knows, gathered on its thread.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The revision that the kernel holds; 0: none.
    pub revision: u64,
    /// The kernel holds something else than it should, and why.
    pub drift: Option<String>,
    /// A table is there that no revision of this process wrote.
    pub inherited: bool,
    /// What was found out about the kernel.
    pub checks: Vec<Check>,
}

/// `status --json`.
pub fn status(revisions: &Revisions, kernel: &Kernel, checks: Vec<Check>) -> Value {
    let mut all = kernel.checks.clone();
    all.extend(checks);
    for trouble in &revisions.trouble {
        all.push(Check::bad("policy", trouble.clone()));
    }
    if revisions.trouble.is_empty() {
        all.push(match &revisions.current {
            Some(current) => Check::good("policy", format!("revision {} is in force", current.meta.revision)),
            None if kernel.inherited => {
                Check::bad("policy", "the table of an earlier run is in force; import a policy to replace it")
            }
            None => Check::good("policy", "none yet; import one: clawgress import --policy FILE"),
        });
    }
    let healthy = all.iter().all(|check| check.ok);
    let state = match &revisions.current {
        None if kernel.inherited => "blocked",
        None => "unconfigured",
        Some(_) if !healthy => "degraded",
        Some(current) if monitors(&current.policy) => "monitoring",
        Some(_) => "enforcing",
    };
    let current = revisions.current.as_ref();
    let (hosts, domains) = current.map_or((0, 0), |current| sizes(&current.policy));
    json!({
        "state": state,
        "revision": current.map(|current| current.meta.revision),
        "sha256": current.map(|current| current.meta.sha256.clone()),
        "origin": current.map(|current| current.meta.origin),
        "applied_at": current.map(|current| current.meta.applied_at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        "hosts": hosts,
        "domains": domains,
        "drift": kernel.drift.is_some(),
        "checks": all,
    })
}

/// `health --json`, from the status.
pub fn health(status: &Value) -> Value {
    let checks = status["checks"].clone();
    let healthy = checks.as_array().is_some_and(|checks| checks.iter().all(|check| check["ok"] == true));
    json!({ "healthy": healthy, "checks": checks })
}

fn monitors(policy: &Policy) -> bool {
    policy.effective(None).mode == Mode::Monitor
        && policy.hosts.keys().all(|host| policy.effective(Some(host)).mode == Mode::Monitor)
}
