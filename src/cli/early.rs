//! `clawgress early`: the last policy at boot, before the network and the daemon.

use clap::Args;

use super::output::remark;
use super::run::require_root;
use super::{Context, Outcome};
use crate::daemon::early::before_the_daemon;
use crate::store::salvage_settings;

const EXAMPLES: &str = "\
Examples:
  clawgress early

clawgress-early.service calls this at boot. It ends at once; `clawgress run` takes over what it loaded.";

/// Enforce the last policy before the daemon runs: at boot, before there is a network
///
/// What allow.ips lets through passes, no name is answered. Where the last policy cannot be read, nothing passes for
/// those whom it was about; where no policy was ever stored, nothing is enforced.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {}

pub(super) fn early(_: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    require_root("early", "it writes the kernel's packet filter")?;
    let (settings, mistake) = match context.settings() {
        Ok(settings) => (settings, None),
        // Nobody is there yet to mend it, and the gateway must not be open meanwhile.
        Err(error) => (salvage_settings(context.config.as_deref()), Some(error)),
    };
    let early = before_the_daemon(&settings)?;
    match mistake {
        Some(mistake) if early.never => return Err(mistake),
        Some(mistake) => remark(&mistake.to_string()),
        None => {}
    }
    for sentence in &early.trouble {
        remark(sentence);
    }
    context.out.line(&early.message)?;
    Ok(Outcome::Done)
}
