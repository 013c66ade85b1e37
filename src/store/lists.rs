//! Files with lists of names, and the copies of them that revisions need:
//!
//! ```text
//! state_dir/lists/SHA256            what a file said when a revision was applied (see `policy::lists`)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::atomic::Staged;
use super::{Store, StoreError, make_dir, words};
use crate::policy::lists::{Contents, CopyReader, MAX_RULES, Reader, Refused};
use crate::policy::model::{DomainList, ListFile, ListFormat};
use crate::policy::{Diagnostic, Policy};

/// The most files with lists that one policy may name. Each is looked at every few seconds.
pub const MAX_LISTS: usize = 64;
/// What the copies may take on the disk together, octets; the copies of the oldest revisions go first. Those that the
/// revision in force needs, or the one to go back to, always stay.
pub const MAX_COPIES: u64 = 512 << 20;
/// How much of a file is read at once, octets.
const PIECE: usize = 1 << 16;

/// Why the contents of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The system refused.
    #[error("cannot read {}: {}", path.display(), words(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is something that would never end.
    #[error("{} is not a regular file", .0.display())]
    Special(PathBuf),
    /// It is too large, or no text.
    #[error("{} is not used as a list: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Refused,
    },
    /// Somebody wrote to it meanwhile, so it may be half of the old and half of the new.
    #[error("{} was written to while it was read; read it again", .0.display())]
    Moving(PathBuf),
}

/// By what a file is known to be unchanged: size, time of the last change (nanoseconds since 1970), inode, and the time of
/// the last change of any of these, which no program can set as it likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(String);

impl Stamp {
    /// The stamp of a file as it is now.
    ///
    /// # Errors
    /// It is not there, or is no regular file.
    pub fn of(path: &Path) -> Result<Self, ListError> {
        let failed = |source| ListError::Io { path: path.to_owned(), source };
        Self::new(path, &fs::metadata(path).map_err(failed)?)
    }

    fn new(path: &Path, meta: &fs::Metadata) -> Result<Self, ListError> {
        if meta.is_dir() {
            return Err(ListError::Io { path: path.to_owned(), source: io::ErrorKind::IsADirectory.into() });
        }
        if !meta.is_file() {
            return Err(ListError::Special(path.to_owned()));
        }
        let (changed, touched) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        let (size, inode) = (meta.len(), meta.ino());
        Ok(Self(format!("{size}-{}.{:09}-{inode}-{}.{:09}", changed.0, changed.1, touched.0, touched.1)))
    }
}

/// What a revision knows of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptList {
    /// The path that the policy names.
    pub file: String,
    /// How it was read.
    pub format: String,
    /// The digest of what it said ([`Contents::digest`]).
    pub sha256: String,
    /// The file when it was last looked at; `None`: it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Stamp>,
    /// It was emptied: how many rules it had when it last had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<usize>,
}

/// Reads a file with at most `room` rules.
///
/// # Errors
/// It cannot be read, is too large, or is no text.
pub fn read_list(path: &Path, format: ListFormat, room: usize) -> Result<(Contents, Stamp), ListError> {
    let failed = |source| ListError::Io { path: path.to_owned(), source };
    // A pipe would wait for its writer, perhaps for ever.
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let stamp = Stamp::new(path, &meta)?;
    let refused = |why| ListError::Refused { path: path.to_owned(), why };
    let mut reader = Reader::new(format, meta.len(), room);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => reader.feed(&piece[..length]).map_err(refused)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let contents = reader.finish().map_err(refused)?;
    if Stamp::new(path, &file.metadata().map_err(failed)?)? != stamp {
        return Err(ListError::Moving(path.to_owned()));
    }
    Ok((contents, stamp))
}

/// What all files of a policy say now.
///
/// # Errors
/// Files that cannot be read, each with the line of the policy that names it.
pub fn read_lists(policy: &Policy) -> Result<BTreeMap<ListFile, Arc<Contents>>, Vec<Diagnostic>> {
    each_list(policy, |list, room| {
        let (contents, _) = read_list(Path::new(&list.file), list.format, room).map_err(|error| error.to_string())?;
        Ok(Arc::new(contents))
    })
}

/// Asks `contents` for each file of a policy, once, and how many rules it may have.
///
/// # Errors
/// What it said, each with the line of the policy that names the file; or that there are too many files.
pub fn each_list(
    policy: &Policy,
    mut contents: impl FnMut(&DomainList, usize) -> Result<Arc<Contents>, String>,
) -> Result<BTreeMap<ListFile, Arc<Contents>>, Vec<Diagnostic>> {
    let (mut all, mut mistakes) = (BTreeMap::<ListFile, Arc<Contents>>::new(), Vec::new());
    let mut room = MAX_RULES;
    for (path, list) in policy.domain_lists() {
        let key = list.key();
        if all.contains_key(&key) {
            continue;
        }
        let mut mistake = |message: String, hint: Option<&str>| {
            mistakes.push(Diagnostic { path: format!("{path}/file"), message, hint: hint.map(str::to_owned) });
        };
        if all.len() == MAX_LISTS {
            let message = format!("a policy may name {MAX_LISTS} files, and this is one more");
            mistake(message, Some("put some of the lists into one file"));
            break;
        }
        match contents(list, room) {
            Ok(contents) => {
                room -= contents.len().min(room);
                all.insert(key, contents);
            }
            Err(why) => mistake(why, None),
        }
    }
    if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
}

impl Store {
    fn copy(&self, digest: &str) -> PathBuf {
        self.lists.join(digest)
    }

    /// Keeps a copy of what a file says, unless there is one.
    ///
    /// # Errors
    /// The disk is full and the like.
    pub fn keep_list(&self, contents: &Contents) -> Result<(), StoreError> {
        let path = self.copy(contents.digest());
        if path.is_file() {
            return Ok(());
        }
        make_dir(&self.lists)?;
        Staged::write_by(&path, |file| {
            let mut file = BufWriter::with_capacity(PIECE, file);
            contents.write_copy(&mut file)?;
            file.into_inner().map(|_| ()).map_err(io::IntoInnerError::into_error)
        })?
        .commit()
    }

    /// The kept copy with this digest; `None`: it is not kept, or no good.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept_list(&self, digest: &str) -> Result<Option<Contents>, StoreError> {
        let path = self.copy(digest);
        // The digest is from a file that somebody could have written to.
        if digest.len() != 64 || !digest.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let failed = |error| StoreError::io("read", &path, error);
        let mut file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut reader = CopyReader::default();
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece).map_err(failed)? {
                0 => break,
                length if reader.feed(&piece[..length]).is_err() => return Ok(None),
                _ => {}
            }
        }
        let contents = reader.finish(digest);
        if contents.is_none() {
            // The next revision that needs it writes it again.
            let _ = fs::remove_file(&path);
        }
        Ok(contents)
    }

    /// Removes the copies that no revision needs, and of the oldest revisions those that are too much.
    pub(super) fn sweep_lists(&self) -> Result<(), StoreError> {
        let Ok(entries) = fs::read_dir(&self.lists) else { return Ok(()) };
        let mut needed = BTreeSet::new();
        let enforced = self.meta(&self.enforced).ok().flatten();
        let back = self.unconfirmed().ok().flatten().map(|unconfirmed| unconfirmed.back_to.meta);
        for meta in enforced.into_iter().chain(back) {
            needed.extend(meta.lists.into_iter().map(|list| list.sha256));
        }
        let size = |digest: &String| fs::metadata(self.copy(digest)).map_or(0, |meta| meta.len());
        let mut total: u64 = needed.iter().map(size).sum();
        for meta in self.history()?.value {
            for list in meta.lists.into_iter().filter(|list| !needed.contains(&list.sha256)).collect::<Vec<_>>() {
                total += size(&list.sha256);
                if total <= MAX_COPIES {
                    needed.insert(list.sha256);
                }
            }
        }
        for entry in entries.flatten() {
            if !needed.contains(entry.file_name().to_string_lossy().as_ref()) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_file_rewritten_in_place_shows_although_its_size_and_time_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(&path, "a.example\n").unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let before = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), before);
        let start = Instant::now();
        // The kernel's clock for files has ticks of some milliseconds.
        while Stamp::of(&path).unwrap() == before {
            assert!(start.elapsed() < Duration::from_secs(5), "a change that is never seen");
            fs::write(&path, "b.example\n").unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }
    }
}
