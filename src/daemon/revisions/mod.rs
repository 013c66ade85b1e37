//! From a policy's text to a revision in force, and back again after a restart.
//!
//! Everything that changes the policy goes through [`Revisions`], one at a time: validate, enforce, store, record. What
//! is stored and what is in force differ only by the caller's wish (`apply FILE`, a policy that waits for its
//! confirmation, one that is stored and not applied) or by a failure that is said.

mod back;
mod boot;
mod lists;
mod read;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::Utc;
use tokio::sync::Notify;

use super::handle::Handle;
use super::protocol::Refusal;
use crate::policy::{Diagnostic, Parsed, Policy};
use crate::store::{KeptList, Origin, RevisionMeta, StagedRevision, Store};

pub use back::keep_promises;
pub use boot::Last;
use lists::Files;
pub(super) use read::describe;
pub use read::{Read, sizes};
use read::{read, refusal, unkept, unrecorded};

/// The revision in force.
#[derive(Clone, Debug)]
pub struct Current {
    /// Number, digest, origin, time.
    pub meta: RevisionMeta,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// Who changes the policy, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// By what.
    pub origin: Origin,
    /// The id of the API's key; `None`: it was no REST call.
    pub key_id: Option<String>,
}

impl From<Origin> for Author {
    fn from(origin: Origin) -> Self {
        Self { origin, key_id: None }
    }
}

/// Why a policy did not come into force.
#[derive(Debug)]
pub struct Rejected {
    /// Whose fault it is.
    pub refusal: Refusal,
    /// One sentence.
    pub message: String,
    /// Every mistake, if it is the policy's.
    pub errors: Vec<Diagnostic>,
}

impl Rejected {
    fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into(), errors: Vec::new() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Refusal::Failed, message)
    }
}

/// A policy that came into force, or (`applied` is false) was only stored.
#[derive(Debug)]
pub struct Accepted {
    /// The number of the revision in force now; `None`: none is.
    pub revision: Option<u64>,
    /// SHA-256 of the policy's normal form.
    pub sha256: String,
    /// Whether the kernel has it.
    pub applied: bool,
    /// Whether it is the stored policy now.
    pub stored: bool,
    /// Whether the revision can be found again after a crash.
    recorded: bool,
    /// Operations in the kernel's transaction.
    pub operations: u64,
    /// Classes of live flows that ended.
    pub cut: usize,
    /// When it goes away unless it is confirmed.
    pub confirm_by: Option<chrono::DateTime<Utc>>,
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
    /// Files with lists that could not be read, so that what they said before stays in force; shown by `status`.
    pub lists_trouble: Vec<String>,
    waiting: Option<back::Waiting>,
    /// Told whenever another revision waits for its confirmation, or none any more.
    waiting_changed: Arc<Notify>,
}

/// How a policy is to come into force.
struct Terms<'a> {
    author: &'a Author,
    /// The revision that an earlier process had in force; the same policy keeps its number.
    last: Option<&'a Last>,
    keep: Keep,
    confirm: Option<Confirm>,
    files: Files<'a>,
}

/// The policy goes away by itself unless it is confirmed.
#[derive(Clone, Copy)]
struct Confirm {
    seconds: u64,
    /// Confirming stores it.
    store: bool,
}

/// What happens to a policy that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It is refused.
    OrRefuse,
    /// It is enforced, and that it is not recorded is said.
    IfPossible,
}

impl Revisions {
    /// Nothing is enforced by this alone; see [`Revisions::boot`].
    pub fn new(store: Store, policy_file: PathBuf, gate: Handle) -> Self {
        let (current, trouble) = (None, Vec::new());
        let (lists_trouble, waiting_changed) = (Vec::new(), Arc::default());
        Self { store, policy_file, gate, current, trouble, lists_trouble, waiting: None, waiting_changed }
    }

    /// A policy as it would be enforced now, its files included. Nothing is changed.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn examine(&self, text: &str) -> Result<Read, Rejected> {
        self.read(text, None, Files::Now)
    }

    /// The stored policy, for reading and for `show`.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Validates, enforces and stores: all or nothing. With `confirm` it is stored only when it is confirmed.
    ///
    /// # Errors
    /// Nothing changed.
    pub async fn import(
        &mut self,
        text: &str,
        author: &Author,
        expect: Option<u64>,
        confirm: Option<u64>,
    ) -> Result<Accepted, Rejected> {
        self.expect(expect)?;
        let confirm = confirm.map(|seconds| Confirm { seconds, store: true });
        let terms = Terms { author, last: None, keep: Keep::OrRefuse, confirm, files: Files::Now };
        if confirm.is_some() {
            let mut accepted = self.change(text, terms).await?;
            if self.waiting.is_none() {
                // It is in force already and nobody doubts it.
                self.store.write_policy(text).map_err(|error| unkept(&error))?;
                accepted.stored = true;
            }
            return Ok(accepted);
        }
        // The new file is written and synced beside the old one first, so that nothing is enforced that cannot be kept.
        let staged = self.store.stage_policy(text).map_err(|error| unkept(&error))?;
        let mut accepted = self.change(text, terms).await?;
        match staged.commit() {
            Ok(()) => accepted.stored = true,
            Err(error) => {
                accepted.trouble.push(format!("the policy is in force, but not stored: {error}"));
                self.trouble = accepted.trouble.clone();
            }
        }
        Ok(accepted)
    }

    /// Validates and stores a policy without enforcing it; the next start, or `apply`, does.
    ///
    /// # Errors
    /// Nothing changed.
    pub fn keep_for_later(&mut self, text: &str, expect: Option<u64>) -> Result<Accepted, Rejected> {
        self.expect(expect)?;
        let Read { sha256, warnings, .. } = self.read(text, None, Files::Now)?;
        self.store.write_policy(text).map_err(|error| unkept(&error))?;
        Ok(Accepted {
            revision: self.current.as_ref().map(|current| current.meta.revision),
            sha256,
            applied: false,
            stored: true,
            recorded: true,
            operations: 0,
            cut: 0,
            confirm_by: self.waiting_until(),
            warnings,
            trouble: Vec::new(),
        })
    }

    /// Enforces `text` without storing it, or the stored policy again.
    ///
    /// # Errors
    /// Nothing changed.
    pub async fn apply(
        &mut self,
        text: Option<&str>,
        author: &Author,
        confirm: Option<u64>,
    ) -> Result<Accepted, Rejected> {
        let stored = text.is_none();
        let text = match text {
            Some(text) => text.to_owned(),
            None => self.stored_text()?,
        };
        let confirm = confirm.map(|seconds| Confirm { seconds, store: false });
        // Whoever closes something now must not have to make room on a disk first; but a promise to go back takes room.
        let keep = if confirm.is_some() { Keep::OrRefuse } else { Keep::IfPossible };
        let mut accepted = self.change(&text, Terms { author, last: None, keep, confirm, files: Files::Now }).await?;
        accepted.stored = stored;
        Ok(accepted)
    }

    fn stored_text(&self) -> Result<String, Rejected> {
        let stored = self.store.stored_policy().map_err(|error| Rejected::failed(error.to_string()))?;
        stored.ok_or_else(|| {
            let file = self.policy_file.display();
            let why = format!("no policy is stored at {file}; import one: clawgress import --policy FILE");
            Rejected::new(Refusal::Conflict, why)
        })
    }

    /// Whether the caller knows which revision he changes; 0 stands for none.
    fn expect(&self, expected: Option<u64>) -> Result<(), Rejected> {
        let current = self.current.as_ref().map_or(0, |current| current.meta.revision);
        let Some(expected) = expected.filter(|expected| *expected != current) else { return Ok(()) };
        let now = if current == 0 { "no revision is".to_owned() } else { format!("revision {current} is") };
        let message = format!("{now} in force, not revision {expected}; nothing changed: look at it and decide again");
        Err(Rejected::new(Refusal::Conflict, message))
    }

    /// A change that somebody asked for: it ends every wait for a confirmation but its own.
    async fn change(&mut self, text: &str, terms: Terms<'_>) -> Result<Accepted, Rejected> {
        let confirm = terms.confirm;
        let mut accepted = self.enforce(text, terms).await?;
        if confirm.is_none() || !self.current_waits() {
            accepted.trouble.extend(self.wait_no_more());
        }
        accepted.confirm_by = self.waiting_until();
        self.trouble = accepted.trouble.clone();
        Ok(accepted)
    }

    async fn enforce(&mut self, text: &str, terms: Terms<'_>) -> Result<Accepted, Rejected> {
        let Read { policy, prepared, sha256, warnings, lists, lists_trouble } =
            self.read(text, terms.last.and_then(|last| last.parsed(text)), terms.files)?;
        let again = self.current.as_ref().filter(|current| current.meta.sha256 == sha256).cloned();
        let kept = terms.last.map(Last::meta).filter(|last| last.sha256 == sha256);
        let revision = match (&again, kept) {
            (Some(current), _) => current.meta.revision,
            (None, Some(last)) => last.revision,
            (None, None) => self.next_number(),
        };
        let mut trouble = Vec::new();
        let Author { origin, key_id } = terms.author.clone();
        let applied_at = Utc::now();
        let meta = RevisionMeta { revision, sha256: sha256.clone(), origin, applied_at, key_id, lists: lists.clone() };
        self.keep_lists(&policy, terms.keep, &mut trouble)?;
        let known = again.is_some() || kept.is_some();
        let staged = if known { None } else { self.stage(&meta, text, terms.keep, &mut trouble)? };
        let promised = match terms.confirm {
            Some(confirm) => self.promise(revision, &sha256, confirm)?,
            None => None,
        };
        let work = policy.clone();
        let enforced = self.gate.run(move |gate| (gate.enforce(&work, &prepared, revision), gate.past.take())).await;
        let applied = enforced.map(|(applied, past)| {
            drop(past); // A thread for it would keep the allocator's arena from the next one that reads a policy.
            applied
        });
        let applied = match applied {
            Ok(Ok(applied)) => applied,
            Ok(Err(refused)) => return Err(self.take_back(promised.is_some(), refusal(&refused))),
            Err(stopped) => return Err(self.take_back(promised.is_some(), Rejected::failed(stopped.to_string()))),
        };
        // It is in force whatever happens from here; a failure is said and shows in `status`.
        let mut recorded = known || staged.is_some();
        if let Some(Err(error)) = staged.map(|staged| self.store.keep(staged)) {
            recorded = false;
            trouble.push(unrecorded(revision, &error));
        }
        lists::tell_emptied(self.current.as_ref(), &lists);
        if again.is_none() {
            self.current = Some(Current { meta: kept.cloned().unwrap_or(meta), policy });
        }
        if let Some(current) = &mut self.current {
            // The same contents, perhaps in files that were touched.
            current.meta.lists = lists;
        }
        self.lists_trouble = lists_trouble;
        if let Some(promised) = promised {
            self.wait_for(promised);
        }
        Ok(Accepted {
            revision: Some(revision),
            sha256,
            applied: true,
            stored: false,
            recorded,
            operations: applied.operations as u64,
            cut: applied.cut,
            confirm_by: None,
            warnings,
            trouble,
        })
    }

    fn read(&self, text: &str, parsed: Option<Parsed>, files: Files<'_>) -> Result<Read, Rejected> {
        read(text, parsed, files, &self.store, self.current.as_ref())
    }

    /// Keeps copies of the files, without which a record could not be enforced again.
    fn keep_lists(&self, policy: &Policy, keep: Keep, trouble: &mut Vec<String>) -> Result<(), Rejected> {
        for contents in policy.domain_lists().filter_map(|(_, list)| list.contents.as_ref()) {
            match self.store.keep_list(contents) {
                Ok(()) => {}
                Err(error) if keep == Keep::OrRefuse => return Err(unkept(&error)),
                Err(error) => trouble.push(format!("a list is in force but not kept: {error}")),
            }
        }
        Ok(())
    }

    /// The files of the policy in force, each with what it looked like when it was read.
    pub fn lists(&self) -> Vec<KeptList> {
        self.current.as_ref().map(|current| current.meta.lists.clone()).unwrap_or_default()
    }

    /// Puts in force what the files of the policy say now, if it is another thing. A file that cannot be read keeps what
    /// it said. `None`: a revision is on trial, and nothing is read until that is over.
    ///
    /// # Errors
    /// The kernel refused; what was in force stays.
    pub async fn follow_lists(&mut self) -> Option<Result<Accepted, Rejected>> {
        let meta = self.current.as_ref().filter(|_| self.waiting.is_none())?.meta.clone();
        let (text, author) = (self.current_text(), Author::from(Origin::List));
        let files = Files::Since(&meta);
        let terms = Terms { author: &author, last: None, keep: Keep::IfPossible, confirm: None, files };
        Some(self.enforce(&text, terms).await)
    }

    /// Writes the record of a revision beside its place.
    fn stage(
        &self,
        meta: &RevisionMeta,
        text: &str,
        keep: Keep,
        trouble: &mut Vec<String>,
    ) -> Result<Option<StagedRevision>, Rejected> {
        match self.store.stage_revision(meta, text) {
            Ok(staged) => Ok(Some(staged)),
            Err(error) if keep == Keep::OrRefuse => Err(unkept(&error)),
            Err(error) => {
                trouble.push(unrecorded(meta.revision, &error));
                Ok(None)
            }
        }
    }

    fn next_number(&self) -> u64 {
        let stored = self.store.next_revision();
        let running = self.current.as_ref().map_or(1, |current| current.meta.revision + 1);
        stored.max(running)
    }
}
