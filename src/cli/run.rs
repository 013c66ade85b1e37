//! `clawgress run`: the daemon.

use clap::Args;

use super::{Context, Outcome};

const EXAMPLES: &str = "\
Examples:
  clawgress run
  clawgress run --config ./clawgress.toml

SIGHUP reads settings and policy again. SIGTERM ends the daemon and leaves the policy in force in the kernel;
only `clawgress teardown` opens the gateway.";

/// Enforce the stored policy: the daemon, in the foreground
///
/// Needs root. Logs to stderr. Where no policy was ever stored nothing is enforced until one is imported.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let settings = context.settings()?;
    require_root("run", "it writes the kernel's packet filter and listens on port 53")?;
    crate::daemon::run(settings)?;
    Ok(Outcome::Done)
}

/// Refuses early and in words what would fail later and in numbers.
pub(super) fn require_root(command: &str, why: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    anyhow::bail!("`clawgress {command}` needs root: {why}; try `sudo clawgress {command}`")
}
