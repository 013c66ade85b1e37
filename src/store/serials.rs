//! The serials of the zones that other name servers follow. They must never go back: whoever has a newer one would not
//! take the zone any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::Staged;
use super::{StoreError, read_text};

/// The longest file that is read, bytes: some 200 for each zone.
const MAX_SERIALS: u64 = 64 << 20;

/// What was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serials {
    /// The boot of the machine in which it was told.
    #[serde(default)]
    pub boot: Option<String>,
    /// The newest serial of any zone, also of those that are gone. `None`: none was ever told.
    pub last: Option<u32>,
    /// The zones by name.
    pub zones: BTreeMap<String, ToldZone>,
}

/// A zone under its serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldZone {
    /// The serial.
    pub serial: u32,
    /// The digest of the records.
    pub sha256: String,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("serials.json")
}

/// Writes down what is about to be told.
///
/// # Errors
/// The disk is full and the like; the old file is still there.
pub fn write_serials(state_dir: &Path, serials: &Serials) -> Result<(), StoreError> {
    let text = serde_json::to_string(serials).unwrap_or_default() + "\n";
    Staged::write(&file(state_dir), &[text.as_bytes()])?.commit()
}

/// What was written down last; empty where nothing was.
///
/// # Errors
/// The file is there and no good.
pub fn read_serials(state_dir: &Path) -> Result<Serials, StoreError> {
    let path = file(state_dir);
    let Some(text) = read_text(&path, MAX_SERIALS)? else { return Ok(Serials::default()) };
    serde_json::from_str(&text).map_err(|error| StoreError::Damaged { path, what: error.to_string() })
}

/// What tells this boot of the machine from others; `None`: the system does not say.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
