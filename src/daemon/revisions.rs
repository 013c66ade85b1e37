//! From a policy's text to a revision in force, and back again after a restart.
//!
//! Everything that changes the policy goes through [`Revisions`], one at a time: validate, enforce, store, record. What
//! is stored and what is in force differ only by the caller's wish (`apply FILE`) or by a failure that is said.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::Utc;
use tracing::warn;

use super::handle::Handle;
use crate::plan::prepared::Prepared;
use crate::policy::{Diagnostic, Policy, digest, not_yet_enforced, parse_with_warnings};
use crate::store::{Origin, Revision, RevisionMeta, Store, StoreError};

/// The revision in force.
#[derive(Clone, Debug)]
pub struct Current {
    /// Number, digest, origin, time.
    pub meta: RevisionMeta,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// Why a policy did not come into force.
#[derive(Debug)]
pub struct Rejected {
    /// One sentence.
    pub message: String,
    /// Every mistake, if it is the policy's.
    pub errors: Vec<Diagnostic>,
}

impl Rejected {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), errors: Vec::new() }
    }
}

/// A policy that came into force.
#[derive(Debug)]
pub struct Accepted {
    /// Its number.
    pub revision: u64,
    /// SHA-256 of the policy's normal form.
    pub sha256: String,
    /// Operations in the kernel's transaction.
    pub operations: u64,
    /// Classes of live flows that ended.
    pub cut: usize,
    /// What is odd about the policy though legal.
    pub warnings: Vec<Diagnostic>,
    /// What went wrong after it came into force.
    pub trouble: Vec<String>,
}

/// See the module.
pub struct Revisions {
    store: Store,
    policy_file: PathBuf,
    gate: Handle,
    /// The revision in force.
    pub current: Option<Current>,
    /// What is wrong with the stored policy, or with storing; shown by `status`.
    pub trouble: Vec<String>,
}

impl Revisions {
    /// Nothing is enforced by this alone; see [`Revisions::boot`].
    pub fn new(store: Store, policy_file: PathBuf, gate: Handle) -> Self {
        Self { store, policy_file, gate, current: None, trouble: Vec::new() }
    }

    /// The stored policy, for reading and for `show`.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// After a start: the stored policy, or the last good one if the stored one cannot be enforced.
    ///
    /// # Errors
    /// A policy was in force once and none can be enforced now; what the kernel still holds stays.
    pub async fn boot(&mut self) -> Result<(), String> {
        let (last, damage) = match self.store.last_good() {
            Ok(found) => (found.value, found.damage.iter().map(ToString::to_string).collect()),
            Err(error) => (None, vec![error.to_string()]),
        };
        let stored = match self.store.stored_policy() {
            Ok(Some(text)) => match self.enforce(&text, Origin::Boot, last.as_ref(), Keep::IfPossible).await {
                Ok(accepted) => {
                    self.trouble = accepted.trouble;
                    self.mend(damage, &text);
                    return Ok(());
                }
                Err(rejected) => Some(describe(&rejected)),
            },
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        let Some(last) = last else {
            self.trouble = damage;
            return match stored {
                None => Ok(()),
                Some(why) => Err(format!("the stored policy {} is not enforced: {why}", self.policy_file.display())),
            };
        };
        let why = stored.unwrap_or_else(|| "it is gone".into());
        let trouble = format!(
            "the stored policy {} is not enforced: {why}; revision {}, the last good one, is in force instead",
            self.policy_file.display(),
            last.meta.revision
        );
        let text = last.policy.clone();
        match self.enforce(&text, Origin::Boot, Some(&last), Keep::IfPossible).await {
            Ok(accepted) => {
                self.trouble = accepted.trouble;
                self.trouble.push(trouble);
                self.mend(damage, &text);
                Ok(())
            }
            Err(rejected) => Err(format!("{trouble} – but that failed too: {}", describe(&rejected))),
        }
    }

    /// Files that were no good: the revision in force is written anew, so that the next start finds it. Only what
    /// cannot be mended stays a trouble.
    fn mend(&mut self, damage: Vec<String>, text: &str) {
        let Some(current) = self.current.as_ref().filter(|_| !damage.is_empty()) else { return };
        let revision = Revision { meta: current.meta.clone(), policy: text.to_owned() };
        match self.store.record(&revision) {
            Ok(()) => {
                for sentence in damage {
                    warn!("{sentence}; revision {} was recorded anew", revision.meta.revision);
                }
            }
            Err(error) => {
                self.trouble.extend(damage);
                self.trouble.push(error.to_string());
            }
        }
    }

    /// Validates, enforces and stores: all or nothing.
    ///
    /// # Errors
    /// Nothing changed.
    pub async fn import(&mut self, text: &str, origin: Origin) -> Result<Accepted, Rejected> {
        // The new file is written and synced beside the old one first, so that nothing is enforced that cannot be kept.
        let staged = self.store.stage_policy(text).map_err(|error| unkept(&error))?;
        let mut accepted = self.enforce(text, origin, None, Keep::OrRefuse).await?;
        if let Err(error) = staged.commit() {
            accepted.trouble.push(format!("the policy is in force, but not stored: {error}"));
        }
        self.trouble = accepted.trouble.clone();
        Ok(accepted)
    }

    /// Enforces `text` without storing it, or the stored policy again.
    ///
    /// # Errors
    /// Nothing changed.
    pub async fn apply(&mut self, text: Option<&str>, origin: Origin) -> Result<Accepted, Rejected> {
        let text = match text {
            Some(text) => text.to_owned(),
            None => {
                let stored = self.store.stored_policy().map_err(|error| Rejected::plain(error.to_string()))?;
                stored.ok_or_else(|| {
                    Rejected::plain(format!(
                        "no policy is stored at {}; import one: clawgress import --policy FILE",
                        self.policy_file.display()
                    ))
                })?
            }
        };
        // Whoever closes something now must not have to make room on a disk first.
        let accepted = self.enforce(&text, origin, None, Keep::IfPossible).await?;
        self.trouble = accepted.trouble.clone();
        Ok(accepted)
    }

    /// `last`: the revision that an earlier process had in force; the same policy keeps its number.
    async fn enforce(
        &mut self,
        text: &str,
        origin: Origin,
        last: Option<&Revision>,
        keep: Keep,
    ) -> Result<Accepted, Rejected> {
        // A large policy takes some 100 ms here; DNS goes on meanwhile. On a thread that ends with it, so that what the
        // allocator keeps of its memory serves the next one, whichever worker that runs on.
        let read = || std::thread::scope(|scope| scope.spawn(|| read(text)).join());
        let Read { policy, prepared, sha256, warnings } = tokio::task::block_in_place(read).unwrap_or_else(|_| {
            Err(Rejected::plain("the policy could not be read: a fault in clawgress, please report it"))
        })?;
        let again = self.current.as_ref().filter(|current| current.meta.sha256 == sha256).cloned();
        let kept = last.filter(|last| last.meta.sha256 == sha256);
        let revision = match (&again, kept) {
            (Some(current), _) => current.meta.revision,
            (None, Some(last)) => last.meta.revision,
            (None, None) => self.next_number(),
        };
        let mut trouble = Vec::new();
        let meta = RevisionMeta { revision, sha256: sha256.clone(), origin, applied_at: Utc::now() };
        let staged = if again.is_some() || kept.is_some() {
            None
        } else {
            match self.store.stage_revision(&Revision { meta: meta.clone(), policy: text.to_owned() }) {
                Ok(staged) => Some(staged),
                Err(error) if keep == Keep::OrRefuse => return Err(unkept(&error)),
                Err(error) => {
                    trouble.push(unrecorded(revision, &error));
                    None
                }
            }
        };
        let work = policy.clone();
        let applied = self
            .gate
            .run(move |gate| gate.enforce(&work, &prepared, revision))
            .await
            .map_err(|stopped| Rejected::plain(stopped.to_string()))?
            .map_err(|refused| refusal(&refused))?;
        // It is in force whatever happens from here; a failure is said and shows in `status`.
        if let Some(Err(error)) = staged.map(|staged| self.store.keep(staged)) {
            trouble.push(unrecorded(revision, &error));
        }
        if again.is_none() {
            self.current = Some(Current { meta: kept.map_or(meta, |last| last.meta.clone()), policy });
        }
        let operations = applied.operations as u64;
        Ok(Accepted { revision, sha256, operations, cut: applied.cut, warnings, trouble })
    }

    fn next_number(&self) -> u64 {
        let stored = self.store.next_revision();
        let running = self.current.as_ref().map_or(1, |current| current.meta.revision + 1);
        stored.max(running)
    }
}

/// What happens to a policy that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It is refused.
    OrRefuse,
    /// It is enforced, and that it is not recorded is said.
    IfPossible,
}

fn unkept(error: &StoreError) -> Rejected {
    Rejected::plain(format!("{error}; what was enforced before is still enforced"))
}

fn unrecorded(revision: u64, error: &StoreError) -> String {
    format!("revision {revision} is in force but not recorded: {error}")
}

/// A policy that can be enforced.
struct Read {
    policy: Arc<Policy>,
    prepared: Arc<Prepared>,
    sha256: String,
    warnings: Vec<Diagnostic>,
}

/// All that a policy takes before the kernel is asked.
fn read(text: &str) -> Result<Read, Rejected> {
    let parsed = parse_with_warnings(text).map_err(|errors| Rejected {
        message: format!("the policy has {}; nothing changed", count(errors.len(), "mistake")),
        errors,
    })?;
    let missing = not_yet_enforced(&parsed.policy);
    if !missing.is_empty() {
        return Err(Rejected {
            message: "the policy asks for what this version does not enforce; nothing changed".into(),
            errors: missing,
        });
    }
    let policy = Arc::new(parsed.policy);
    let (prepared, sha256) = (Arc::new(Prepared::of(&policy)), digest(&policy));
    Ok(Read { policy, prepared, sha256, warnings: parsed.warnings })
}

/// The kernel's refusal in the form of a policy's mistake, if it is about one line.
fn refusal(refused: &super::gate::Refused) -> Rejected {
    let errors = refused.path.iter().map(|path| Diagnostic {
        path: path.clone(),
        message: refused.what.clone(),
        hint: Some("what was enforced before is still enforced".into()),
    });
    Rejected {
        message: format!("{}; what was enforced before is still enforced", refused.what),
        errors: errors.collect(),
    }
}

fn describe(rejected: &Rejected) -> String {
    match rejected.errors.first() {
        None => rejected.message.clone(),
        Some(first) if rejected.errors.len() == 1 => first.to_string(),
        Some(first) => format!("{first} (and {} more)", rejected.errors.len() - 1),
    }
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// How many hosts and how many entries of domain lists a policy has.
pub fn sizes(policy: &Policy) -> (usize, usize) {
    let lists = policy.hosts.values().map(|host| &host.allow).chain([&policy.allow]);
    let domains = lists.filter_map(|allow| allow.domains.as_ref()).map(|list| list.entries.len()).sum();
    (policy.hosts.len(), domains)
}
