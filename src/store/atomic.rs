//! Writing a file so that it is there whole or not at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::StoreError;

/// What unfinished files end in. Only we give this name, so whatever bears it at the start is a crash's.
const UNFINISHED: &str = ".clawgress-unfinished";

/// A file written and synced beside its place, not yet in it. Dropped without [`Staged::commit`] it goes away.
#[must_use = "the file is not in its place until it is committed"]
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Writes the parts, one behind the other, mode 0600.
    pub(super) fn write(path: &Path, parts: &[&[u8]]) -> Result<Self, StoreError> {
        Self::write_by(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
    }

    /// Writes what `content` writes, mode 0600.
    pub(super) fn write_by(
        path: &Path,
        content: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io("write", path, e);
        let dir = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        // Made with mode 0600.
        let made = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(UNFINISHED).tempfile_in(dir);
        let mut file = made.map_err(|e| failed(e.kind().into()))?;
        content(file.as_file_mut()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The file for whoever goes on writing to it once it is in its place.
    pub(super) fn handle(&self) -> Result<File, StoreError> {
        self.file.as_file().try_clone().map_err(|e| StoreError::io("write", &self.path, e))
    }

    /// Puts the file into its place.
    ///
    /// # Errors
    /// The system refuses; the old file is still there.
    pub fn commit(self) -> Result<(), StoreError> {
        self.file.persist(&self.path).map_err(|e| StoreError::io("write", &self.path, e.error))?;
        sync_dir(self.path.parent().unwrap_or(Path::new("/")))
    }
}

/// Names are part of their directory, which a power cut forgets unless told.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| StoreError::io("sync", dir, e))
}

/// Removes what a crash left half-written in `dir`: files on their way to `name`, or to any name if that is empty.
pub(super) fn sweep(dir: &Path, name: &str) -> Result<(), StoreError> {
    let failed = |e| StoreError::io("list", dir, e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let ours = found.starts_with(&format!(".{name}")) && found.ends_with(UNFINISHED);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::remove_file(entry.path()).map_err(|e| StoreError::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// The file that a path stands for: where a symbolic link leads to, so that a write replaces the file and not the link.
pub(super) fn followed(path: &Path) -> Result<PathBuf, StoreError> {
    let Ok(target) = fs::read_link(path) else { return Ok(path.to_owned()) };
    match fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A link to what is not there yet: the first write makes it.
            Ok(path.parent().unwrap_or(Path::new("/")).join(target))
        }
        Ok(followed) => Ok(followed),
        // A link that leads nowhere (a circle, a directory that is a file) is found when the file is read, where a
        // daemon can go on with the last good policy.
        Err(_) => Ok(path.to_owned()),
    }
}
