//! `clawgress teardown`: the one way to open the gateway.

use clap::Args;

use super::apply::{refused, understood};
use super::client::{Client, ClientError};
use super::run::require_root;
use super::{Context, Outcome};
use crate::daemon::protocol::{Request, TornDown};

const EXAMPLES: &str = "\
Examples:
  clawgress teardown

The stored policy stays stored: `clawgress apply`, or the daemon's next start, puts it in force again.";

/// Stop enforcing: remove the table from the kernel, so that everything passes
///
/// Works without a daemon too, for what one that is gone left in force.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {}

pub(super) fn teardown(_: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let torn_down = match Client::connect(&context.settings()?.runtime_dir) {
        Ok(mut client) => {
            let response = client.ask(Request::Teardown {})?;
            if !response.success {
                return Ok(refused("clawgress", &response));
            }
            understood::<TornDown>(&response)?
        }
        Err(ClientError::NotRunning { .. }) => {
            require_root("teardown", "it removes a table from the kernel's packet filter")?;
            crate::daemon::teardown::without_daemon()?
        }
        Err(error) => return Err(error.into()),
    };
    context.out.line(&torn_down.message)?;
    Ok(Outcome::Done)
}
