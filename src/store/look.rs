//! Looking at a daemon's files without taking them: nothing is made, swept up or written. For what must know the last
//! policy before the daemon runs, when the disk may still be read-only.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Revision, Store, StoreError, Unconfirmed, atomic};

/// What was found.
#[derive(Debug)]
pub enum Look {
    /// A daemon has the files: it enforces by itself.
    InUse,
    /// No policy was ever stored or enforced.
    Never,
    /// A policy was stored or enforced.
    Remains(Box<Remains>),
}

/// What is left of earlier runs. Nothing in it: it is there and cannot be read.
#[derive(Debug, Default)]
pub struct Remains {
    /// The revision that was in force last.
    pub last: Option<Revision>,
    /// What waited for its confirmation then.
    pub unconfirmed: Option<Unconfirmed>,
    /// The stored policy.
    pub stored: Option<String>,
    /// Files that are there and no good.
    pub damage: Vec<StoreError>,
}

impl Look {
    /// Looks at the files that [`Store::open`] would take.
    pub fn at(policy: &Path, state_dir: &Path) -> Self {
        let mut found = Remains::default();
        let lock = match shared(&state_dir.join("lock")) {
            Ok(lock) => lock,
            Err(StoreError::Busy { .. }) => return Self::InUse,
            // Whoever can take it later will be told; here the files count.
            Err(_) => None,
        };
        let policy = atomic::followed(policy).unwrap_or_else(|_| policy.to_owned());
        let store = Store {
            policy,
            enforced: state_dir.join("enforced.json"),
            unconfirmed: state_dir.join("unconfirmed.json"),
            revisions: state_dir.join("revisions"),
            lists: state_dir.join("lists"),
            highest: 0,
            _lock: lock,
        };
        if !store.ever() {
            return Self::Never;
        }
        match store.last_good() {
            Ok(last) => {
                found.last = last.value;
                found.damage.extend(last.damage);
            }
            Err(error) => found.damage.push(error),
        }
        match store.unconfirmed() {
            Ok(unconfirmed) => found.unconfirmed = unconfirmed,
            Err(error) => found.damage.push(error),
        }
        match store.stored_policy() {
            Ok(stored) => found.stored = stored,
            Err(error) => found.damage.push(error),
        }
        Self::Remains(Box::new(found))
    }
}

impl Store {
    /// Whether there is any trace of a policy. What cannot be looked at may be one.
    fn ever(&self) -> bool {
        let there = |path: &Path| fs::symlink_metadata(path).map_or_else(|e| !is_absent(&e), |_| true);
        let files = [&self.policy, &self.enforced, &self.unconfirmed].into_iter().any(|path| there(path));
        files || self.numbers().map_or(true, |numbers| !numbers.is_empty())
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The lock, beside others who only look. `None`: there is none, so no daemon ever ran here.
fn shared(path: &Path) -> Result<Option<Flock<fs::File>>, StoreError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    Flock::lock(file, FlockArg::LockSharedNonblock).map(Some).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StoreError::Busy { path: path.to_owned() },
        other => StoreError::io("lock", path, other.into()),
    })
}
