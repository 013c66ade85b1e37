//! The way back: `rollback`, and revisions that go away by themselves unless somebody confirms them.
//!
//! Before such a revision is in force a file says until when it waits and what it goes back to. What waits is never
//! stored, and is never what another one goes back to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::{error, warn};

use super::boot::Last;
use super::lists::Files;
use super::read::describe;
use super::{Accepted, Author, Confirm, Keep, Rejected, Revisions, Terms, unkept};
use crate::daemon::answer::Office;
use crate::daemon::protocol::{Confirmed, MAX_CONFIRM_SECONDS, Refusal};
use crate::policy::document_digest;
use crate::store::{Origin, Revision, StoreError, Unconfirmed, Wait};

/// How long after a going back that failed the next is tried.
const AGAIN: Duration = Duration::from_secs(10);

/// A revision in force that waits for its confirmation.
pub(super) struct Waiting {
    unconfirmed: Unconfirmed,
    /// When it goes away, on a clock that nobody sets.
    due: Instant,
}

impl Waiting {
    /// `left`: what the deadline is ahead of the wall clock; never more than it was given.
    pub fn new(unconfirmed: Unconfirmed, left: Duration) -> Self {
        let left = left.min(Duration::from_secs(unconfirmed.wait.seconds));
        Self { unconfirmed, due: Instant::now() + left }
    }
}

/// Takes revisions back that nobody confirmed in time.
pub async fn keep_promises(office: Arc<Office>, stopped: impl Future<Output = ()>) {
    let changed = Arc::clone(&office.revisions.lock().await.waiting_changed);
    tokio::pin!(stopped);
    loop {
        let due = office.revisions.lock().await.waiting.as_ref().map(|waiting| waiting.due);
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => office.revisions.lock().await.expire().await,
            () = changed.notified() => {}
            () = &mut stopped => return,
        }
    }
}

impl Revisions {
    /// Until when the revision in force waits for its confirmation.
    pub fn waiting_until(&self) -> Option<DateTime<Utc>> {
        self.waiting.as_ref().map(|waiting| waiting.unconfirmed.wait.deadline)
    }

    /// Whether what waits is the revision in force.
    pub(super) fn current_waits(&self) -> bool {
        let current = self.current.as_ref().map(|current| current.meta.revision);
        self.waiting.as_ref().is_some_and(|waiting| Some(waiting.unconfirmed.wait.revision) == current)
    }

    /// The wait in one sentence, for `status`.
    pub fn waits(&self) -> Option<String> {
        let Unconfirmed { wait, back_to } = &self.waiting.as_ref()?.unconfirmed;
        let until = wait.deadline.format("%Y-%m-%d %H:%M:%S UTC");
        let (revision, back) = (wait.revision, back_to.meta.revision);
        Some(format!("revision {revision} goes back to revision {back} at {until} unless confirmed: clawgress confirm"))
    }

    /// The revision in force stays.
    ///
    /// # Errors
    /// None waits, another one than `expect` waits, or it cannot be stored; then it goes on waiting.
    pub fn confirm(&mut self, expect: Option<u64>) -> Result<Confirmed, Rejected> {
        let Some(waiting) = &self.waiting else {
            return Err(Rejected::new(Refusal::Conflict, "no revision waits for a confirmation"));
        };
        let Wait { revision, store, deadline, .. } = waiting.unconfirmed.wait;
        if expect.is_some_and(|expected| expected != revision) {
            let message = format!("revision {revision} waits for a confirmation, not revision {}", expect.unwrap_or(0));
            return Err(Rejected::new(Refusal::Conflict, message));
        }
        let kept = if store { self.store.write_policy(&self.current_text()) } else { Ok(()) };
        kept.and_then(|()| self.store.forget_unconfirmed()).map_err(|error| {
            let until = deadline.format("%H:%M:%S UTC");
            Rejected::failed(format!("not confirmed: {error}; revision {revision} still goes away at {until}"))
        })?;
        self.waiting = None;
        self.waiting_changed.notify_one();
        Ok(Confirmed { revision, stored: store })
    }

    /// Enforces and stores an earlier revision again, under a new number; absent: the one before the one in force.
    ///
    /// # Errors
    /// There is none, or it cannot be enforced; nothing changed.
    pub async fn roll_back(
        &mut self,
        to: Option<u64>,
        author: &Author,
        expect: Option<u64>,
    ) -> Result<(u64, Accepted), Rejected> {
        self.expect(expect)?;
        let target = match (to, &self.waiting) {
            (Some(number), _) => self.kept(number)?,
            (None, Some(waiting)) => waiting.unconfirmed.back_to.clone(),
            (None, None) => self.kept(self.number_before()?)?,
        };
        // Who goes back must not have to make room on a disk first.
        let staged = self.store.stage_policy(&target.policy);
        let files = Files::Of(&target.meta);
        let terms = Terms { author, last: None, keep: Keep::IfPossible, confirm: None, files };
        let mut accepted = self.change(&target.policy, terms).await?;
        match staged.and_then(crate::store::Staged::commit) {
            Ok(()) => accepted.stored = true,
            Err(error) => {
                let sentence = format!("the policy is in force, but not stored, so a start enforces another: {error}");
                accepted.trouble.push(sentence);
                self.trouble = accepted.trouble.clone();
            }
        }
        Ok((target.meta.revision, accepted))
    }

    fn kept(&self, number: u64) -> Result<Revision, Rejected> {
        match self.store.revision(number) {
            Ok(Some(revision)) => Ok(revision),
            Ok(None) => {
                let message = format!("revision {number} is not kept; `clawgress history` lists those that are");
                Err(Rejected::new(Refusal::NotFound, message))
            }
            Err(error) => Err(Rejected::failed(format!("{error}; nothing changed"))),
        }
    }

    fn number_before(&self) -> Result<u64, Rejected> {
        let none = |why: &str| Rejected::new(Refusal::Conflict, format!("{why}; `clawgress history` lists them"));
        let current =
            self.current.as_ref().ok_or_else(|| none("no revision is in force: say which one to return to"))?;
        let history = self.store.history().map_err(|error| Rejected::failed(error.to_string()))?;
        let before = history.value.iter().map(|meta| meta.revision).find(|number| *number < current.meta.revision);
        before.ok_or_else(|| none("no earlier revision is kept"))
    }

    /// Writes down what a revision goes back to, before it is in force. `None`: there is nothing to wait for, because the
    /// policy is in force already.
    pub(super) fn promise(&self, revision: u64, sha256: &str, confirm: Confirm) -> Result<Option<Waiting>, Rejected> {
        let Confirm { seconds, store } = confirm;
        if !(1..=MAX_CONFIRM_SECONDS).contains(&seconds) {
            let message = format!("a confirmation may be waited for 1 to {MAX_CONFIRM_SECONDS} seconds, not {seconds}");
            return Err(Rejected::new(Refusal::Invalid, message));
        }
        let Some(current) = &self.current else {
            let message = "no policy is in force, so there is none to go back to; import one without a confirmation";
            return Err(Rejected::new(Refusal::Conflict, message));
        };
        let back_to = match &self.waiting {
            Some(waiting) => waiting.unconfirmed.back_to.clone(),
            None => Revision { meta: current.meta.clone(), policy: self.current_text() },
        };
        if back_to.meta.sha256 == sha256 {
            return Ok(None);
        }
        let deadline = Utc::now() + TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        let wait = Wait { revision, sha256: sha256.to_owned(), deadline, seconds, store };
        let unconfirmed = Unconfirmed { wait, back_to };
        self.store.write_unconfirmed(&unconfirmed).map_err(|error| unkept(&error))?;
        Ok(Some(Waiting::new(unconfirmed, Duration::from_secs(seconds))))
    }

    pub(super) fn wait_for(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
        self.waiting_changed.notify_one();
    }

    /// The kernel refused what was promised to go back: what waited before waits on.
    pub(super) fn take_back(&self, promised: bool, rejected: Rejected) -> Rejected {
        let before = match &self.waiting {
            _ if !promised => Ok(()),
            Some(waiting) => self.store.write_unconfirmed(&waiting.unconfirmed),
            None => self.store.forget_unconfirmed(),
        };
        if let Err(error) = before {
            warn!("{error}");
        }
        rejected
    }

    /// Somebody decided: nothing waits any more. A sentence where that cannot be written down.
    pub fn wait_no_more(&mut self) -> Option<String> {
        self.waiting = None;
        self.waiting_changed.notify_one();
        let failed = self.store.forget_unconfirmed().err()?;
        Some(format!("a start may return to an earlier revision: {failed}"))
    }

    async fn expire(&mut self) {
        let Some(waiting) = self.waiting.as_ref().filter(|waiting| waiting.due <= Instant::now()) else { return };
        let unconfirmed = waiting.unconfirmed.clone();
        match self.return_to(&unconfirmed, None).await {
            Ok(accepted) => {
                self.trouble = accepted.trouble;
                self.waiting = None;
            }
            Err(rejected) => {
                let number = unconfirmed.wait.revision;
                let why = describe(&rejected);
                error!("revision {number} was not confirmed in time, and going back failed: {why}");
                self.trouble = vec![format!("revision {number} was not confirmed, and going back fails: {why}")];
                self.waiting = Some(Waiting { unconfirmed, due: Instant::now() + AGAIN });
            }
        }
    }

    /// Goes back to what was in force before a revision that nobody confirmed.
    pub(super) async fn return_to(
        &mut self,
        unconfirmed: &Unconfirmed,
        last: Option<&Last>,
    ) -> Result<Accepted, Rejected> {
        let Unconfirmed { wait, back_to } = unconfirmed;
        let author = Author::from(Origin::Rollback);
        let files = Files::Of(&back_to.meta);
        let terms = Terms { author: &author, last, keep: Keep::IfPossible, confirm: None, files };
        let mut accepted = self.enforce(&back_to.policy, terms).await?;
        warn!(
            "revision {} was not confirmed in time; the policy of revision {} is in force",
            wait.revision, back_to.meta.revision
        );
        // Without a record a start must do this again, so the file stays.
        let ended = self.unstore(unconfirmed).and_then(|()| match accepted.recorded {
            true => self.store.forget_unconfirmed(),
            false => Ok(()),
        });
        if let Err(error) = ended {
            accepted.trouble.push(format!("the going back is not recorded: {error}"));
        }
        Ok(accepted)
    }

    /// Who applied the stored policy on trial has it in the file; it must not come back with the next start.
    pub(super) fn unstore(&self, unconfirmed: &Unconfirmed) -> Result<(), StoreError> {
        let Ok(Some(text)) = self.store.stored_policy() else { return Ok(()) };
        let trial = self.store.revision(unconfirmed.wait.revision).ok().flatten();
        let trial = trial.filter(|trial| trial.meta.sha256 == unconfirmed.wait.sha256);
        let document = |text: &str| crate::policy::parse(text).ok().map(|policy| document_digest(&policy));
        let stored = document(&text);
        let same = stored.is_some()
            && (stored.as_ref() == Some(&unconfirmed.wait.sha256)
                || trial.is_some_and(|trial| document(&trial.policy) == stored));
        if !same {
            return Ok(());
        }
        warn!(
            "the stored policy was the one not confirmed; it is replaced (`clawgress history` has it as revision {})",
            unconfirmed.wait.revision
        );
        self.store.write_policy(&unconfirmed.back_to.policy)
    }

    /// The text of the policy in force: as somebody wrote it, or in normal form where that is not recorded.
    pub(super) fn current_text(&self) -> String {
        let Some(current) = &self.current else { return String::new() };
        match self.store.revision(current.meta.revision) {
            Ok(Some(found)) if found.meta.sha256 == current.meta.sha256 => found.policy,
            _ => serde_json::to_string_pretty(&crate::policy::normalised(&current.policy)).unwrap_or_default(),
        }
    }
}
