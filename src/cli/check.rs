//! `clawgress check`: is the policy valid, and would this version enforce it?

use clap::Args;
use serde_json::json;

use super::input::{Source, refuse, stored};
use super::output::{count, remark_all};
use super::{Context, Outcome};
use crate::policy::not_yet_enforced;

const EXAMPLES: &str = "\
Examples:
  clawgress check                           the stored policy
  clawgress check --policy policy.json      a file
  generate-policy | clawgress check --policy -
  clawgress check --policy policy.json --json | jq '.errors[].path'";

/// Tell whether a policy is valid: every mistake with its place
///
/// Needs no daemon. A valid policy may say what this version does not enforce yet (rate limits, caps,
/// monitor mode, lists in files); that is told as well, because such a policy is not applied.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The policy; - reads standard input [default: the stored policy]
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// Print { valid, errors, warnings, not_enforced }
    #[arg(long)]
    json: bool,
}

pub(super) fn check(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let source = match &arguments.policy {
        Some(source) => source.clone(),
        None => stored(&context.settings()?.policy)?,
    };
    let name = source.name();
    match source.parse()? {
        Err(errors) => {
            if arguments.json {
                let none: [(); 0] = [];
                let answer = json!({ "valid": false, "errors": errors, "warnings": none, "not_enforced": none });
                context.out.json(&answer)?;
            }
            Ok(refuse(&name, if arguments.json { &[] } else { &errors }))
        }
        Ok(parsed) => {
            let missing = not_yet_enforced(&parsed.policy);
            if arguments.json {
                let none: [(); 0] = [];
                let warnings = &parsed.warnings;
                let answer = json!({ "valid": true, "errors": none, "warnings": warnings, "not_enforced": missing });
                context.out.json(&answer)?;
                return Ok(Outcome::Done);
            }
            context.out.line(&format!("{name} is a valid policy"))?;
            // Before the remarks on stderr, where both go to one terminal.
            context.out.finish()?;
            if !parsed.warnings.is_empty() {
                remark_all(&count(parsed.warnings.len(), "warning:", "warnings:"), &parsed.warnings);
            }
            if !missing.is_empty() {
                remark_all("not enforced by this version, so the policy would not be applied:", &missing);
            }
            Ok(Outcome::Done)
        }
    }
}
