//! `clawgress check`: is the policy valid, and would this version enforce it?

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::input::{Source, refuse, stored, with_lists};
use super::output::{count, remark_all};
use super::{Context, Outcome};
use crate::policy::lists::{remarks, summaries};
use crate::policy::{Parsed, not_yet_enforced};

const EXAMPLES: &str = "\
Examples:
  clawgress check                           the stored policy
  clawgress check --policy policy.json      a file
  generate-policy | clawgress check --policy -
  clawgress check --policy policy.json --json | jq '.errors[].path'
  clawgress check --json | jq '.lists[] | {name, names, rejected}'";

/// Tell whether a policy is valid: every mistake with its place
///
/// Needs no daemon. Reads the files with lists of names as well and tells what they come to; one that cannot
/// be read is a mistake. What a valid policy says and this version does not enforce is told too, because such
/// a policy is not applied.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The policy; - reads standard input [default: the stored policy]
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// Print { valid, errors, warnings, not_enforced, lists }
    #[arg(long)]
    json: bool,
}

pub(super) fn check(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let source = match &arguments.policy {
        Some(source) => source.clone(),
        None => stored(&context.settings()?.policy)?,
    };
    let name = source.name();
    let parsed =
        source.parse()?.and_then(|Parsed { policy, warnings }| Ok(Parsed { policy: with_lists(policy)?, warnings }));
    let Parsed { policy, mut warnings } = match parsed {
        Ok(parsed) => parsed,
        Err(errors) => {
            if arguments.json {
                let none: [(); 0] = [];
                let answer =
                    json!({ "valid": false, "errors": errors, "warnings": none, "not_enforced": none, "lists": none });
                context.out.json(&answer)?;
            }
            return Ok(refuse(&name, if arguments.json { &[] } else { &errors }));
        }
    };
    warnings.extend(remarks(&policy, &BTreeMap::new()));
    let (missing, lists) = (not_yet_enforced(&policy), summaries(&policy));
    if arguments.json {
        let none: [(); 0] = [];
        let answer =
            json!({ "valid": true, "errors": none, "warnings": warnings, "not_enforced": missing, "lists": lists });
        context.out.json(&answer)?;
        return Ok(Outcome::Done);
    }
    context.out.line(&format!("{name} is a valid policy"))?;
    for list in &lists {
        context.out.line(&format!("{}: {list}", list.path))?;
    }
    // Before the remarks on stderr, where both go to one terminal.
    context.out.finish()?;
    if !warnings.is_empty() {
        remark_all(&count(warnings.len(), "warning:", "warnings:"), &warnings);
    }
    if !missing.is_empty() {
        remark_all("not enforced by this version, so the policy would not be applied:", &missing);
    }
    Ok(Outcome::Done)
}
