//! Where the serials of the zones are written down before anybody hears of them, so that they never go back.

use std::path::PathBuf;

use tracing::warn;

use crate::plan::rpz::serial_is_newer;
use crate::store::{self, Serials};

/// Two places: the disk, and a directory in memory for when the disk takes nothing (it is full, or read-only after a
/// fault). Of both the newer one is true. What is in memory is gone after a boot, so what the disk has from an earlier
/// boot may be out of date: then only the newest serial is taken from it, and all zones get newer ones.
pub(super) struct Told {
    pub state_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub boot: Option<String>,
}

/// Why serials are not on the disk.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// They are in memory.
    OnDisk(String),
    /// They are nowhere, so nobody may hear of them.
    Anywhere(String),
}

impl Told {
    /// `boot`: what tells this boot of the machine from others.
    pub fn new(state_dir: PathBuf, runtime_dir: PathBuf, boot: Option<String>) -> Self {
        Self { state_dir, runtime_dir, boot }
    }

    /// What was told last.
    pub fn read(&self) -> Serials {
        let mut damaged = false;
        let places = [&self.state_dir, &self.runtime_dir].map(|dir| {
            store::read_serials(dir).unwrap_or_else(|error| {
                warn!("{error}; the zones get new serials");
                damaged = true;
                Serials::default()
            })
        });
        let newer = |other: &Serials, one: &Serials| match (other.last, one.last) {
            (Some(other), Some(one)) => serial_is_newer(other, one),
            (other, _) => other.is_some(),
        };
        let [on_disk, in_memory] = places;
        let mut serials = if newer(&in_memory, &on_disk) { in_memory } else { on_disk };
        // A file that is no good may have been the newer one.
        if damaged || self.boot.is_none() || serials.boot != self.boot {
            serials.zones.clear();
        }
        serials.boot.clone_from(&self.boot);
        serials
    }

    /// Writes down what is about to be told.
    pub fn write(&self, serials: &Serials) -> Result<(), Unwritten> {
        let Err(error) = store::write_serials(&self.state_dir, serials) else { return Ok(()) };
        match store::write_serials(&self.runtime_dir, serials) {
            Ok(()) => Err(Unwritten::OnDisk(format!(
                "the serials of the zones are kept in memory alone, so all get new ones after a reboot: {error}"
            ))),
            Err(also) => Err(Unwritten::Anywhere(format!(
                "the zones stay as they are for other name servers, because new serials cannot be written down: {error}; \
                 {also}"
            ))),
        }
    }
}
