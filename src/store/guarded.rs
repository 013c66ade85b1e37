//! The interfaces behind which policed sources live, as the daemon saw them last: before there is a network nobody can
//! tell from addresses and routes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::atomic::Staged;
use super::{StoreError, read_text};

/// The longest list that is read, bytes; a name has 15 at the most.
const MAX_LIST: u64 = 64 * 1024;

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("interfaces.json")
}

/// Keeps the list for the next boot.
///
/// # Errors
/// The disk is full and the like; the old list is still there.
pub fn write_guarded(state_dir: &Path, interfaces: &BTreeSet<String>) -> Result<(), StoreError> {
    let text = serde_json::to_string(interfaces).unwrap_or_default() + "\n";
    Staged::write(&file(state_dir), &[text.as_bytes()])?.commit()
}

/// The list; empty where there is none that can be read.
pub fn read_guarded(state_dir: &Path) -> BTreeSet<String> {
    let text = read_text(&file(state_dir), MAX_LIST).ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}
