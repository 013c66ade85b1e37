//! What outlives the daemon, as files:
//!
//! ```text
//! settings.policy                   the stored policy, as it was imported; written here, read by people too
//! state_dir/lock                    held by the daemon that uses the directory
//! state_dir/enforced.json           the revision that was enforced last, with its policy
//! state_dir/revisions/000017.json   the last KEPT_REVISIONS revisions, the same form
//! state_dir/ledger                  the use of caps: a journal, each line with a sum
//! state_dir/ledger.broken-SECONDS   a journal that was damaged
//! state_dir/telemetry/…             what was counted in the last day
//! state_dir/lists/SHA256            copies of the lists in files that these revisions have
//! state_dir/unconfirmed.json        while a revision waits for its confirmation: until when, and what it goes back to
//! state_dir/serials.json            the serials of the zones that other name servers follow
//! state_dir/interfaces.json         behind which interfaces policed sources live, for the next boot
//! ```
//!
//! A revision file is two JSON documents: one line of metadata, then the policy text, byte for byte (`tail -n +2`
//! gives it back). The line carries the length and a digest of the text, so that a file cut short or changed by hand
//! is known as such.
//!
//! The settings file is read here as well ([`load_settings`]) and never written.
//!
//! Every file of ours is written whole beside its place, synced, and renamed into it: after a crash or on a full disk
//! there is the old file or the new one, never a part. Only the ledger grows at its end as well. Files are 0600,
//! directories made here 0700.

mod atomic;
mod error;
mod guarded;
pub mod ledger;
mod lists;
mod look;
mod revision;
mod serials;
mod settings;
pub mod telemetry;
mod unconfirmed;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub use atomic::Staged;
pub use error::{StoreError, words};
pub use guarded::{read_guarded, write_guarded};
pub use lists::{KeptList, ListError, MAX_COPIES, MAX_LISTS, Stamp, each_list, read_list, read_lists};
pub use look::{Look, Remains};
pub(crate) use revision::seconds;
pub use revision::{Origin, Revision, RevisionMeta};
pub use serials::{Serials, ToldZone, boot_id, read_serials, write_serials};
pub use settings::{LoadError, load_settings, salvage_settings};
pub use unconfirmed::{Unconfirmed, Wait};

use crate::policy::json::MAX_DOCUMENT;

/// How many revisions are kept: weeks of edits, and still few megabytes unless the policy is huge.
pub const KEPT_REVISIONS: usize = 50;

/// The longest line of metadata that is read, bytes; written ones have some 250, and some 200 more for each list in a
/// file, of which there are at most [`MAX_LISTS`] with a path of at most 4096.
const MAX_META: u64 = 4096 + MAX_LISTS as u64 * 8192;

/// What was found, and what had to be passed over to find it.
#[derive(Debug)]
pub struct Found<T> {
    /// What was found.
    pub value: T,
    /// Files that are there and no good, each with the reason.
    pub damage: Vec<StoreError>,
}

/// A revision written and synced, not yet in its places. Dropped without [`Store::keep`] it goes away.
#[must_use = "the revision is not recorded until it is kept"]
#[derive(Debug)]
pub struct StagedRevision {
    number: u64,
    enforced: Staged,
    kept: Staged,
}

/// The files of one daemon.
#[derive(Debug)]
pub struct Store {
    policy: PathBuf,
    enforced: PathBuf,
    unconfirmed: PathBuf,
    revisions: PathBuf,
    lists: PathBuf,
    highest: u64,
    _lock: Option<Flock<fs::File>>,
}

impl Store {
    /// Makes the directories that are missing, takes the lock, sweeps up what a crash left.
    ///
    /// # Errors
    /// The directories cannot be made or read, or another daemon uses them.
    pub fn open(policy: &Path, state_dir: &Path) -> Result<Self, StoreError> {
        let revisions = state_dir.join("revisions");
        make_dir(&revisions)?;
        let lock = lock(&state_dir.join("lock"))?;
        atomic::sweep(state_dir, "")?;
        atomic::sweep(&revisions, "")?;
        let lists = state_dir.join("lists");
        if lists.is_dir() {
            atomic::sweep(&lists, "")?;
        }
        let policy = atomic::followed(policy)?;
        if let (Some(dir), Some(name)) = (policy.parent().filter(|dir| dir.is_dir()), policy.file_name()) {
            atomic::sweep(dir, &name.to_string_lossy())?;
        }
        let enforced = state_dir.join("enforced.json");
        let unconfirmed = state_dir.join("unconfirmed.json");
        let mut store = Self { policy, enforced, unconfirmed, revisions, lists, highest: 0, _lock: Some(lock) };
        let newest = store.numbers()?.last().copied().unwrap_or(0);
        // A damaged file is told by whoever reads it; here only its number would count.
        let last = store.meta(&store.enforced).ok().flatten().map_or(0, |meta| meta.revision);
        store.highest = newest.max(last);
        Ok(store)
    }

    /// The text of the stored policy; `None`: none was ever stored.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is no text.
    pub fn stored_policy(&self) -> Result<Option<String>, StoreError> {
        read_policy(&self.policy)
    }

    /// Writes a policy beside the stored one, synced, and keeps it apart until [`Staged::commit`]. What can fail fails
    /// here, so stage before the kernel is changed and commit after it.
    ///
    /// # Errors
    /// The disk is full and the like; the stored policy is untouched.
    pub fn stage_policy(&self, text: &str) -> Result<Staged, StoreError> {
        if let Some(dir) = self.policy.parent() {
            make_dir(dir)?;
        }
        Staged::write(&self.policy, &[text.as_bytes()])
    }

    /// Stores a policy: [`Store::stage_policy`] and [`Staged::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn write_policy(&self, text: &str) -> Result<(), StoreError> {
        self.stage_policy(text)?.commit()
    }

    /// The number of the next revision: above every one ever recorded or tried here.
    pub fn next_revision(&self) -> u64 {
        self.highest + 1
    }

    /// Writes a revision beside its places, synced. What can fail fails here, so a revision that must be kept is staged
    /// before the kernel is changed, and [`Store::keep`] follows the change.
    ///
    /// # Errors
    /// The disk is full and the like; nothing changed.
    pub fn stage_revision(&self, meta: &RevisionMeta, policy: &str) -> Result<StagedRevision, StoreError> {
        let head = revision::head(meta, policy);
        let parts = [head.as_bytes(), policy.as_bytes()];
        let number = meta.revision;
        let enforced = || Staged::write(&self.enforced, &parts);
        // Together, because each waits for the disk.
        let (enforced, kept) = std::thread::scope(|scope| {
            let other = std::thread::Builder::new().spawn_scoped(scope, enforced);
            let kept = Staged::write(&self.file(number), &parts);
            (other.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(enforced), kept)
        });
        Ok(StagedRevision { number, enforced: enforced?, kept: kept? })
    }

    /// Keeps a revision that is in force: as the last one, and in the history.
    ///
    /// # Errors
    /// The system refuses. The number counts as used all the same.
    pub fn keep(&mut self, staged: StagedRevision) -> Result<(), StoreError> {
        self.highest = self.highest.max(staged.number);
        // First what the next start needs, then what people look at.
        staged.enforced.commit()?;
        staged.kept.commit()?;
        let numbers = self.numbers()?;
        for number in &numbers[..numbers.len().saturating_sub(KEPT_REVISIONS)] {
            let path = self.file(*number);
            fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
        self.sweep_lists()
    }

    /// [`Store::stage_revision`] and [`Store::keep`].
    ///
    /// # Errors
    /// As there. The number counts as used all the same.
    pub fn record(&mut self, revision: &Revision) -> Result<(), StoreError> {
        self.highest = self.highest.max(revision.meta.revision);
        let staged = self.stage_revision(&revision.meta, &revision.policy)?;
        self.keep(staged)
    }

    /// The revision that was in force last: `enforced.json`, or if that is no good the newest that is.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn last_good(&self) -> Result<Found<Option<Revision>>, StoreError> {
        let mut damage = Vec::new();
        match self.read(&self.enforced, None) {
            Ok(Some(revision)) => return Ok(Found { value: Some(revision), damage }),
            Ok(None) => {}
            Err(error) => damage.push(error),
        }
        for number in self.numbers()?.into_iter().rev() {
            match self.revision(number) {
                Ok(Some(revision)) => return Ok(Found { value: Some(revision), damage }),
                Ok(None) => {}
                Err(error) => damage.push(error),
            }
        }
        Ok(Found { value: None, damage })
    }

    /// One revision of the history; `None`: not kept.
    ///
    /// # Errors
    /// The file is there and no good.
    pub fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        self.read(&self.file(number), Some(number))
    }

    /// The kept revisions, newest first. Looks at the metadata only.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn history(&self) -> Result<Found<Vec<RevisionMeta>>, StoreError> {
        let mut found = Found { value: Vec::new(), damage: Vec::new() };
        for number in self.numbers()?.into_iter().rev() {
            let path = self.file(number);
            match self.meta(&path) {
                Ok(Some(meta)) if meta.revision == number => found.value.push(meta),
                Ok(Some(meta)) => found.damage.push(misnamed(&path, &meta)),
                Ok(None) => {}
                Err(error) => found.damage.push(error),
            }
        }
        Ok(found)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.revisions.join(format!("{number:06}.json"))
    }

    /// The numbers of the revision files, good or not, ascending.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let failed = |e| StoreError::io("list", &self.revisions, e);
        let mut numbers = Vec::new();
        let entries = match fs::read_dir(&self.revisions) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|stem| stem.parse().ok());
            // The name must be the one we would give, or a file would be found under two numbers or none.
            numbers.extend(number.filter(|number: &u64| self.file(*number).file_name() == Some(&name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, path: &Path, number: Option<u64>) -> Result<Option<Revision>, StoreError> {
        let Some(text) = read_text(path, MAX_DOCUMENT as u64 + MAX_META)? else { return Ok(None) };
        let revision = Revision::from_text(text).map_err(|what| StoreError::Damaged { path: path.to_owned(), what })?;
        if number.is_some_and(|number| number != revision.meta.revision) {
            return Err(misnamed(path, &revision.meta));
        }
        Ok(Some(revision))
    }

    /// The metadata of a revision file; its text is only measured.
    fn meta(&self, path: &Path) -> Result<Option<RevisionMeta>, StoreError> {
        let failed = |e| StoreError::io("read", path, e);
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        BufReader::new(file).take(MAX_META).read_until(b'\n', &mut head).map_err(failed)?;
        let meta = revision::meta(&head, length);
        meta.map(Some).map_err(|what| StoreError::Damaged { path: path.to_owned(), what })
    }
}

fn misnamed(path: &Path, meta: &RevisionMeta) -> StoreError {
    let what = format!("it holds revision {}, which is not the one of its name", meta.revision);
    StoreError::Damaged { path: path.to_owned(), what }
}

/// The text of a policy file; `None`: there is none.
///
/// # Errors
/// The file is there and cannot be read, or is no text.
pub fn read_policy(path: &Path) -> Result<Option<String>, StoreError> {
    read_text(path, MAX_DOCUMENT as u64)
}

fn read_text(path: &Path, limit: u64) -> Result<Option<String>, StoreError> {
    let failed = |e| StoreError::io("read", path, e);
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    match fs::metadata(path) {
        // Opening a pipe would wait for its writer, perhaps for ever.
        Ok(meta) if !meta.is_file() && !meta.is_dir() => return Err(damaged("it is not a regular file".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(damaged(format!("it is longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| damaged("it is not a text in UTF-8".to_owned()))
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| StoreError::io("make the directory", path, e))
}

fn lock(path: &Path) -> Result<Flock<fs::File>, StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.map_err(|e| StoreError::io("open", path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => StoreError::Busy { path: path.to_owned() },
        other => StoreError::io("lock", path, other.into()),
    })
}

/// The machine's time zone (`/etc/localtime`, TZ); UTC where it cannot be told.
pub fn system_zone() -> chrono_tz::Tz {
    iana_time_zone::get_timezone().ok().and_then(|name| name.parse().ok()).unwrap_or(chrono_tz::Tz::UTC)
}
