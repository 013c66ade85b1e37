//! A revision that waits for its confirmation, as a file: one line about the wait, then the revision to go back to in
//! the form of every revision file. The file is there before the revision is in force, so a daemon that dies in between
//! finds what it promised.

use std::fs;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::atomic::{Staged, sync_dir};
use super::{MAX_META, Revision, Store, StoreError, read_text, revision};
use crate::policy::json::MAX_DOCUMENT;

/// A revision that goes away by itself unless somebody confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What is waited for.
    pub wait: Wait,
    /// The last revision that nobody has to confirm.
    pub back_to: Revision,
}

/// The first line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The number of the revision that waits.
    pub revision: u64,
    /// The digest of its policy.
    pub sha256: String,
    /// When it goes away.
    pub deadline: DateTime<Utc>,
    /// How long it was given, seconds.
    pub seconds: u64,
    /// Whether confirming stores its policy.
    pub store: bool,
}

impl Store {
    /// Writes down that a revision waits, in the place of one that waited before.
    ///
    /// # Errors
    /// The disk is full and the like; what was written down before is still there.
    pub fn write_unconfirmed(&self, unconfirmed: &Unconfirmed) -> Result<(), StoreError> {
        let mut wait = serde_json::to_string(&unconfirmed.wait).unwrap_or_default();
        wait.push('\n');
        let head = revision::head(&unconfirmed.back_to.meta, &unconfirmed.back_to.policy);
        let parts = [wait.as_bytes(), head.as_bytes(), unconfirmed.back_to.policy.as_bytes()];
        Staged::write(&self.unconfirmed, &parts)?.commit()
    }

    /// The revision that waits; `None`: none does.
    ///
    /// # Errors
    /// The file is there and no good.
    pub fn unconfirmed(&self) -> Result<Option<Unconfirmed>, StoreError> {
        let Some(text) = read_text(&self.unconfirmed, MAX_DOCUMENT as u64 + 2 * MAX_META)? else { return Ok(None) };
        let damaged = |what: String| StoreError::Damaged { path: self.unconfirmed.clone(), what };
        let (line, rest) = text.split_once('\n').ok_or_else(|| damaged("it is cut off".to_owned()))?;
        let wait = serde_json::from_str(line);
        let wait = wait.map_err(|_| damaged("its first line does not say what waits".to_owned()))?;
        Ok(Some(Unconfirmed { wait, back_to: Revision::from_text(rest.to_owned()).map_err(damaged)? }))
    }

    /// No revision waits any more.
    ///
    /// # Errors
    /// The system refuses; after a crash the revision would wait again.
    pub fn forget_unconfirmed(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.unconfirmed) {
            Ok(()) => sync_dir(self.unconfirmed.parent().unwrap_or(Path::new("/"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("remove", &self.unconfirmed, error)),
        }
    }
}
