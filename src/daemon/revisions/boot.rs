//! After a start: which policy is enforced.

use std::borrow::Cow;

use chrono::{TimeDelta, Utc};
use tracing::warn;

use super::back::Waiting;
use super::lists::Files;
use super::read::describe;
use super::{Accepted, Author, Keep, Rejected, Revisions, Terms};
use crate::policy::{Parsed, Policy, parse_with_warnings};
use crate::store::{Origin, Revision, RevisionMeta, Store, Unconfirmed};

/// The revision that an earlier process had in force.
pub struct Last {
    revision: Revision,
    /// What it says, so that it is not read twice; `None`: this version does not understand it.
    parsed: Option<Parsed>,
}

impl Last {
    /// The last revision that is good, and what was passed over to find it.
    pub fn of(store: &Store) -> (Option<Self>, Vec<String>) {
        let (revision, damage) = match store.last_good() {
            Ok(found) => (found.value, found.damage.iter().map(ToString::to_string).collect()),
            Err(error) => (None, vec![error.to_string()]),
        };
        let parsed = |revision: &Revision| parse_with_warnings(&revision.policy).ok();
        (revision.map(|revision| Self { parsed: parsed(&revision), revision }), damage)
    }

    /// What it says, without its files.
    pub fn policy(&self) -> Option<&Policy> {
        self.parsed.as_ref().map(|parsed| &parsed.policy)
    }

    /// What is known about it.
    pub(super) fn meta(&self) -> &RevisionMeta {
        &self.revision.meta
    }

    /// What `text` says, if it is that of this revision.
    pub(super) fn parsed(&self, text: &str) -> Option<Parsed> {
        self.parsed.clone().filter(|_| text == self.revision.policy)
    }
}

impl Revisions {
    /// What waited for its confirmation when the earlier process ended goes on waiting, or goes back. Else: the stored
    /// policy, or the last good one if the stored one cannot be enforced.
    ///
    /// # Errors
    /// A policy was in force once and none can be enforced now; what the kernel still holds stays.
    pub async fn boot(&mut self, last: Option<Last>, mut damage: Vec<String>) -> Result<(), String> {
        match self.store.unconfirmed() {
            Ok(None) => {}
            Ok(Some(unconfirmed)) => match self.resume(unconfirmed, last.as_ref()).await {
                Ok(Some(text)) => {
                    self.mend(damage, &text);
                    return Ok(());
                }
                Ok(None) => {}
                Err(why) => damage.push(why),
            },
            Err(error) => damage.push(error.to_string()),
        }
        let stored = self.store.stored_policy().map(|text| text.map(|text| once(text, last.as_ref())));
        let stored = match stored {
            Ok(Some(text)) => match self.enforce_at_boot(&text, last.as_ref()).await {
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
            last.meta().revision
        );
        let text = &last.revision.policy;
        match self.enforce_at_boot(text, Some(&last)).await {
            Ok(accepted) => {
                self.trouble = accepted.trouble;
                self.trouble.push(trouble);
                self.mend(damage, text);
                Ok(())
            }
            Err(rejected) => Err(format!("{trouble} – but that failed too: {}", describe(&rejected))),
        }
    }

    async fn enforce_at_boot(&mut self, text: &str, last: Option<&Last>) -> Result<Accepted, Rejected> {
        let author = Author::from(Origin::Boot);
        let files = last.map_or(Files::Now, |last| Files::Since(last.meta()));
        self.enforce(text, Terms { author: &author, last, keep: Keep::IfPossible, confirm: None, files }).await
    }

    /// Goes on with what the earlier process waited for; the text of the policy that is in force then.
    async fn resume(&mut self, unconfirmed: Unconfirmed, last: Option<&Last>) -> Result<Option<String>, String> {
        let (number, at_last) = (unconfirmed.wait.revision, last.map_or(0, |last| last.meta().revision));
        if at_last > number {
            // The wait was over, and the process died before it could say so, or could not write it down.
            if self.unstore(&unconfirmed).is_ok() {
                self.store.forget_unconfirmed().map_err(|error| error.to_string())?;
                return Ok(None);
            }
        }
        let left = (unconfirmed.wait.deadline - Utc::now()).max(TimeDelta::zero()).to_std().unwrap_or_default();
        if at_last == number
            && !left.is_zero()
            && let Some(last) = last
            && let Ok(accepted) = self.enforce_at_boot(&last.revision.policy, Some(last)).await
        {
            self.trouble = accepted.trouble;
            // A clock that is behind must not lengthen the wait.
            self.wait_for(Waiting::new(unconfirmed, left));
            return Ok(Some(last.revision.policy.clone()));
        }
        // Its time is over, or it never came so far that it could be found again.
        match self.return_to(&unconfirmed, last).await {
            Ok(accepted) => {
                self.trouble = accepted.trouble;
                Ok(Some(unconfirmed.back_to.policy))
            }
            Err(rejected) => Err(format!("revision {number} waits for its confirmation: {}", describe(&rejected))),
        }
    }

    /// Files that were no good: the revision in force is written anew, so that the next start finds it. Only what
    /// cannot be mended stays a trouble.
    fn mend(&mut self, damage: Vec<String>, text: &str) {
        let Some(current) = self.current.as_ref().filter(|_| !damage.is_empty()) else { return };
        let revision = Revision { meta: current.meta.clone(), policy: text.to_owned() };
        let forget = |store: &Store| if self.waiting.is_none() { store.forget_unconfirmed() } else { Ok(()) };
        match self.store.record(&revision).and_then(|()| forget(&self.store)) {
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
}

/// The stored policy; nearly always the one that was in force last, and then it is in memory already.
fn once(stored: String, last: Option<&Last>) -> Cow<'_, str> {
    match last {
        Some(last) if last.revision.policy == stored => Cow::Borrowed(&last.revision.policy),
        _ => Cow::Owned(stored),
    }
}
