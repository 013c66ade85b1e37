//! `clawgress plan`: what a policy would change, and nothing is changed.

mod words;

use clap::Args;

use super::apply::{refused, understood};
use super::input::Source;
use super::output::{count, remark, remark_all};
use super::{Context, Outcome};
use crate::daemon::protocol::plan::Plan;
use crate::daemon::protocol::{MAX_PLAN_HOURS, PLAN_HOURS, Request};

const EXAMPLES: &str = "\
Examples:
  clawgress plan --policy policy.json               before clawgress import --policy policy.json
  clawgress plan --policy policy.json --hours 168   with the decisions of a week
  generate-policy | clawgress plan --policy -
  clawgress plan --policy policy.json --json | jq '.changes.listed[] | select(.effect == \"widens\")'

Nothing is changed. What would newly break is known from what is recorded to have passed, so only where the settings
say decisions = \"all\".";

/// Tell what a policy would change: what it opens and shuts, which flows it cuts, what agents would notice
///
/// Compared is with the policy in force. The recorded decisions of the last hours are decided again by both, so it is also
/// told what would have been refused, or let through, on a day like the last one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The policy; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Source,
    /// Decide the recorded decisions of so many hours again
    #[arg(long, value_name = "N", default_value_t = PLAN_HOURS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PLAN_HOURS)))]
    hours: u32,
    /// Print { revision, sha256, same, changes, flows, leases, replay, warnings, trouble }
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let name = arguments.policy.name();
    let Some(policy) = arguments.policy.text()? else { return Ok(Outcome::Refused) };
    let response = context.daemon()?.ask(Request::Plan { policy, hours: Some(arguments.hours) })?;
    if !response.success {
        return Ok(refused(&name, &response));
    }
    let plan: Plan = understood(&response)?;
    if arguments.json {
        context.out.json(&plan)?;
        return Ok(Outcome::Done);
    }
    context.out.text(&words::all(&name, &plan))?;
    // Before the remarks on stderr, where both go to one terminal.
    context.out.finish()?;
    for sentence in &plan.trouble {
        remark(&format!("warning: {sentence}"));
    }
    if !plan.warnings.is_empty() {
        remark_all(&count(plan.warnings.len(), "warning:", "warnings:"), &plan.warnings);
    }
    Ok(Outcome::Done)
}
