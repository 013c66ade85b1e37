//! `clawgress apply`, `import`, `show`: the policy itself.

use clap::Args;

use super::input::{Source, refuse};
use super::output::{complain, count, remark, remark_all};
use super::{Context, Outcome};
use crate::daemon::protocol::{Applied, MAX_CONFIRM_SECONDS, Request, Response, Stored};
use crate::policy::{normalised, parse};

const APPLY_EXAMPLES: &str = "\
Examples:
  clawgress apply                           the stored policy, after it was edited
  clawgress apply --policy trial.json       another one, until the next start or apply
  clawgress apply --policy trial.json --confirm 300
                                            goes back after 300 s unless `clawgress confirm` says it stays";

/// Enforce the stored policy again, or another one without storing it
///
/// With --confirm the revision in force before comes back by itself unless `clawgress confirm` comes in time, also where
/// the daemon is killed or the router restarts meanwhile. A file is not stored by confirming it; `clawgress import` does.
#[derive(Debug, Args)]
#[command(after_help = APPLY_EXAMPLES)]
pub(super) struct Apply {
    /// Enforce this policy and store nothing; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// Go back after this time, unless confirmed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=MAX_CONFIRM_SECONDS))]
    confirm: Option<u64>,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  clawgress import --policy policy.json
  generate-policy | clawgress import --policy -";

/// Validate, enforce and store a policy: all or nothing
///
/// A policy that is not valid, or that the kernel refuses, changes nothing: the one in force stays in force.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct Import {
    /// The policy; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Source,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  clawgress show                            the stored policy (asks the daemon)
  clawgress show --policy policy.json       a file (needs no daemon)";

/// Print the stored policy, or a file, in normal form
///
/// Names in lower case and ASCII, networks in their shortest form, fields in the order of the format.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct Show {
    /// Print this policy; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// For symmetry: a policy is JSON anyway
    #[arg(long)]
    json: bool,
}

pub(super) fn apply(arguments: &Apply, context: &mut Context) -> anyhow::Result<Outcome> {
    let (name, policy) = match &arguments.policy {
        Some(source) => match source.text()? {
            Some(text) => (source.name(), Some(text)),
            None => return Ok(Outcome::Refused),
        },
        None => ("the stored policy".to_owned(), None),
    };
    let response = context.daemon()?.ask(Request::Apply { policy, confirm_seconds: arguments.confirm })?;
    applied(&name, &response, "", context)
}

pub(super) fn import(arguments: &Import, context: &mut Context) -> anyhow::Result<Outcome> {
    let Some(policy) = arguments.policy.text()? else { return Ok(Outcome::Refused) };
    let request = Request::Import { policy, expect_revision: None, confirm_seconds: None };
    let response = context.daemon()?.ask(request)?;
    applied(&arguments.policy.name(), &response, " and stored", context)
}

fn applied(name: &str, response: &Response, stored: &str, context: &mut Context) -> anyhow::Result<Outcome> {
    if !response.success {
        return Ok(refused(name, response));
    }
    let applied: Applied = understood(response)?;
    let stored = if applied.trouble.is_empty() { stored } else { "" };
    let (revision, changes) = (applied.revision.unwrap_or_default(), changes(applied.changes));
    context.out.line(&format!("{name} is in force{stored}: revision {revision}, {changes}"))?;
    if let Some(until) = applied.confirm_by {
        let until = super::state::time(until);
        context.out.line(&format!("it goes away at {until} unless you say it stays: clawgress confirm"))?;
    }
    context.out.finish()?;
    troubles(&applied);
    Ok(Outcome::Done)
}

/// `no change`, `one change`, `7 changes` in the kernel.
pub(super) fn changes(number: u64) -> String {
    match number {
        0 => "nothing changed".to_owned(),
        number => count(usize::try_from(number).unwrap_or(usize::MAX), "change", "changes"),
    }
}

/// Says what went wrong beside a change, and what is odd about the policy.
pub(super) fn troubles(applied: &Applied) {
    for sentence in &applied.trouble {
        remark(&format!("warning: {sentence}"));
    }
    if !applied.warnings.is_empty() {
        remark_all(&count(applied.warnings.len(), "warning:", "warnings:"), &applied.warnings);
    }
}

pub(super) fn show(arguments: &Show, context: &mut Context) -> anyhow::Result<Outcome> {
    let (name, parsed) = match &arguments.policy {
        Some(source) => (source.name(), source.parse()?.map(|parsed| parsed.policy)),
        None => {
            let response = context.daemon()?.ask(Request::Show {})?;
            if !response.success {
                return Ok(refused("the stored policy", &response));
            }
            match understood::<Stored>(&response)?.policy {
                Some(text) => ("the stored policy".to_owned(), parse(&text)),
                None => anyhow::bail!("no policy is stored; store one with `clawgress import --policy FILE`"),
            }
        }
    };
    match parsed {
        Ok(policy) => context.out.json(&normalised(&policy)).map(|()| Outcome::Done),
        Err(errors) => Ok(refuse(&name, &errors)),
    }
}

/// The data of an answer as its type.
pub(super) fn understood<T: serde::de::DeserializeOwned>(response: &Response) -> anyhow::Result<T> {
    response.data().map_err(|_| super::client::ClientError::NotUnderstood.into())
}

/// Says why the daemon did not do it.
pub(super) fn refused(name: &str, response: &Response) -> Outcome {
    let reason = response.error.as_deref().unwrap_or("the daemon refused and gave no reason");
    if response.errors.is_empty() {
        complain(reason);
    } else {
        remark_all(&format!("error: {name}: {reason}"), &response.errors);
    }
    Outcome::Refused
}
