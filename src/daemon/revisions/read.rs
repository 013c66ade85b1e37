//! What a policy takes before the kernel is asked, and how a refusal is told.

use std::sync::Arc;

use super::lists::{Files, load};
use super::{Current, Rejected};
use crate::daemon::gate::Refused;
use crate::daemon::protocol::Refusal;
use crate::plan::prepared::Prepared;
use crate::policy::{Diagnostic, Parsed, Policy, digest, lists, not_yet_enforced, parse_with_warnings};
use crate::store::{KeptList, Store, StoreError};

/// A policy that can be enforced.
pub struct Read {
    pub policy: Arc<Policy>,
    pub prepared: Arc<Prepared>,
    pub sha256: String,
    pub warnings: Vec<Diagnostic>,
    /// What the record says of its files.
    pub lists: Vec<KeptList>,
    /// Files that could not be read.
    pub lists_trouble: Vec<String>,
}

/// Validates and prepares a policy, its files included. A large one takes some 100 ms, so this is done on a thread of its
/// own that ends with it: what the allocator keeps of its memory serves the next one, whichever worker that runs on.
/// `parsed`: what `text` says, if that is known already.
pub(super) fn read(
    text: &str,
    parsed: Option<Parsed>,
    files: Files<'_>,
    store: &Store,
    current: Option<&Current>,
) -> Result<Read, Rejected> {
    let work = || std::thread::scope(|scope| scope.spawn(|| read_here(text, parsed, files, store, current)).join());
    tokio::task::block_in_place(work).unwrap_or_else(|_| {
        Err(Rejected::failed("the policy could not be read: a fault in clawgress, please report it"))
    })
}

fn invalid(errors: Vec<Diagnostic>) -> Rejected {
    let count = if errors.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", errors.len()) };
    Rejected { refusal: Refusal::Invalid, message: format!("the policy has {count}; nothing changed"), errors }
}

fn read_here(
    text: &str,
    parsed: Option<Parsed>,
    files: Files<'_>,
    store: &Store,
    current: Option<&Current>,
) -> Result<Read, Rejected> {
    let Parsed { policy, mut warnings } = parsed.map_or_else(|| parse_with_warnings(text), Ok).map_err(invalid)?;
    let loaded = load(&policy, files, store, current).map_err(invalid)?;
    let policy = policy.with_contents(&loaded.contents);
    warnings.extend(lists::remarks(&policy, &loaded.held));
    let missing = not_yet_enforced(&policy);
    if !missing.is_empty() {
        return Err(Rejected {
            refusal: Refusal::Invalid,
            message: "the policy asks for what this version does not enforce; nothing changed".into(),
            errors: missing,
        });
    }
    let policy = Arc::new(policy);
    let (prepared, sha256) = (Arc::new(Prepared::of(&policy)), digest(&policy));
    Ok(Read { policy, prepared, sha256, warnings, lists: loaded.kept, lists_trouble: loaded.trouble })
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

/// The first of its mistakes, or why else.
pub(in crate::daemon) fn describe(rejected: &Rejected) -> String {
    match rejected.errors.first() {
        None => rejected.message.clone(),
        Some(first) if rejected.errors.len() == 1 => first.to_string(),
        Some(first) => format!("{first} (and {} more)", rejected.errors.len() - 1),
    }
}

/// How many hosts and how many names in allowlists a policy has; a file counts wherever it is named.
pub fn sizes(policy: &Policy) -> (usize, usize) {
    let lists = policy.hosts.values().map(|host| &host.allow).chain([&policy.allow]);
    let written: usize = lists.filter_map(|allow| allow.domains.as_ref()).map(|list| list.entries.len()).sum();
    let in_files =
        lists::summaries(policy).into_iter().filter(|list| list.is_of_allow()).map(|list| list.names as usize);
    (policy.hosts.len(), written + in_files.sum::<usize>())
}

/// A record cannot be kept, and was asked for.
pub(super) fn unkept(error: &StoreError) -> Rejected {
    Rejected::failed(format!("{error}; what was enforced before is still enforced"))
}

/// A record cannot be kept, and the revision is in force all the same.
pub(super) fn unrecorded(revision: u64, error: &StoreError) -> String {
    format!("revision {revision} is in force but not recorded: {error}")
}
