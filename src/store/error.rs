//! What can go wrong with files, in words.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a file of ours could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {operation} {}: {}{}", path.display(), words(source), advice(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is there and no good.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another daemon uses the state directory.
    #[error("another clawgress runs and holds {}; stop it first, or give this one its own state_dir", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// Whether there was no room for it.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What to do. That the file is as it was is true of every failed write; what else came of it the caller tells.
fn advice(error: &io::Error) -> &'static str {
    if is_full(error) { "; make room and try again" } else { "" }
}

/// A system error as a person would say it, with what to do where that is known.
pub fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied; run this as root".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::NotADirectory => "a part of the path is a file, not a directory".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only; mount it for writing".to_owned(),
        ErrorKind::AlreadyExists => "something else is there".to_owned(),
        // "No such device (os error 19)": the number helps nobody.
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}
