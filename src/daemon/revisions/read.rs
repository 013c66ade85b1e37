//! What a policy takes before the kernel is asked, and how a refusal is told.

use std::sync::Arc;

use super::Rejected;
use crate::daemon::gate::Refused;
use crate::daemon::protocol::Refusal;
use crate::plan::prepared::Prepared;
use crate::policy::{Diagnostic, Policy, digest, not_yet_enforced, parse_with_warnings};

/// A policy that can be enforced.
pub struct Read {
    pub policy: Arc<Policy>,
    pub prepared: Arc<Prepared>,
    pub sha256: String,
    pub warnings: Vec<Diagnostic>,
}

/// Validates and prepares a policy. A large one takes some 100 ms, so this is done on a thread of its own that ends with
/// it: what the allocator keeps of its memory serves the next one, whichever worker that runs on.
pub fn read(text: &str) -> Result<Read, Rejected> {
    let work = || std::thread::scope(|scope| scope.spawn(|| read_here(text)).join());
    tokio::task::block_in_place(work).unwrap_or_else(|_| {
        Err(Rejected::failed("the policy could not be read: a fault in clawgress, please report it"))
    })
}

fn read_here(text: &str) -> Result<Read, Rejected> {
    let parsed = parse_with_warnings(text).map_err(|errors| {
        let count = if errors.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", errors.len()) };
        Rejected { refusal: Refusal::Invalid, message: format!("the policy has {count}; nothing changed"), errors }
    })?;
    let missing = not_yet_enforced(&parsed.policy);
    if !missing.is_empty() {
        return Err(Rejected {
            refusal: Refusal::Invalid,
            message: "the policy asks for what this version does not enforce; nothing changed".into(),
            errors: missing,
        });
    }
    let policy = Arc::new(parsed.policy);
    let (prepared, sha256) = (Arc::new(Prepared::of(&policy)), digest(&policy));
    Ok(Read { policy, prepared, sha256, warnings: parsed.warnings })
}

/// The kernel's refusal in the form of a policy's mistake, if it is about one line.
pub(super) fn refusal(refused: &Refused) -> Rejected {
    let errors = refused.path.iter().map(|path| Diagnostic {
        path: path.clone(),
        message: refused.what.clone(),
        hint: Some("what was enforced before is still enforced".into()),
    });
    Rejected {
        refusal: Refusal::Failed,
        message: format!("{}; what was enforced before is still enforced", refused.what),
        errors: errors.collect(),
    }
}

pub(super) fn describe(rejected: &Rejected) -> String {
    match rejected.errors.first() {
        None => rejected.message.clone(),
        Some(first) if rejected.errors.len() == 1 => first.to_string(),
        Some(first) => format!("{first} (and {} more)", rejected.errors.len() - 1),
    }
}

/// How many hosts and how many entries of domain lists a policy has.
pub fn sizes(policy: &Policy) -> (usize, usize) {
    let lists = policy.hosts.values().map(|host| &host.allow).chain([&policy.allow]);
    let domains = lists.filter_map(|allow| allow.domains.as_ref()).map(|list| list.entries.len()).sum();
    (policy.hosts.len(), domains)
}
