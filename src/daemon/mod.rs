//! The daemon.

pub mod protocol;
pub mod teardown;

use crate::settings::Settings;

/// Runs until it is told to end.
///
/// # Errors
/// Whatever keeps it from enforcing.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let _ = settings;
    anyhow::bail!("the daemon is not part of this build")
}
