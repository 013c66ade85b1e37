//! `clawgress history`, `rollback`, `confirm`: the revisions and the ways between them.

use clap::Args;

use super::apply::{changes, refused, troubles, understood};
use super::output::{columns, remark};
use super::state::{ask, short, time};
use super::{Context, Outcome};
use crate::daemon::protocol::{self, Confirmed, Request, RolledBack};

const HISTORY_EXAMPLES: &str = "\
Examples:
  clawgress history
  clawgress history --json | jq '.revisions[0]'";

/// Print the revisions, newest first
///
/// The last fifty are kept. Origins: cli (apply), import, api (with the id of the key), boot, rollback, list (a file changed).
#[derive(Debug, Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(super) struct History {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  clawgress rollback                        to the revision before the one in force
  clawgress rollback 17                     to revision 17; `clawgress history` lists them";

/// Enforce and store an earlier revision again
///
/// It gets a new number, so a second rollback returns to what the first one left. All or nothing in the kernel; where
/// only storing fails (the disk is full), the policy is in force and that is said.
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub(super) struct Rollback {
    /// The revision to return to [default: the one before the one in force]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CONFIRM_EXAMPLES: &str = "\
Examples:
  clawgress apply --policy trial.json --confirm 300
  clawgress confirm";

/// Let the policy stay that was applied with --confirm
#[derive(Debug, Args)]
#[command(after_help = CONFIRM_EXAMPLES)]
pub(super) struct Confirm {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn history(arguments: &History, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(&Request::History {}, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.json {
        context.out.json(&response.data)?;
        return Ok(Outcome::Done);
    }
    let history: protocol::History = understood(&response)?;
    if history.revisions.is_empty() {
        context.out.line("no revision yet")?;
    } else {
        let mut rows = vec![["revision", "applied at", "origin", "sha256"].map(str::to_owned).to_vec()];
        for meta in &history.revisions {
            let key = meta.key_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
            rows.push(vec![
                meta.revision.to_string(),
                time(meta.applied_at),
                format!("{}{key}", meta.origin),
                short(&meta.sha256).to_owned(),
            ]);
        }
        context.out.text(&columns(&rows))?;
    }
    context.out.finish()?;
    for damage in &history.damage {
        remark(&format!("warning: {damage}"));
    }
    Ok(Outcome::Done)
}

pub(super) fn rollback(arguments: &Rollback, context: &mut Context) -> anyhow::Result<Outcome> {
    let request = Request::Rollback { revision: arguments.revision, expect_revision: None };
    let response = context.daemon()?.ask(request)?;
    if !response.success {
        return Ok(refused("the revision", &response));
    }
    let RolledBack { to, applied } = understood(&response)?;
    if arguments.json {
        context.out.json(&response.data)?;
    } else {
        let number = applied.revision.unwrap_or_default();
        let stored = if applied.stored { " and stored" } else { "" };
        let changes = changes(applied.changes);
        let what = if to == number {
            format!("revision {to} is in force already{stored}")
        } else {
            format!("the policy of revision {to} is in force{stored}: revision {number}, {changes}")
        };
        context.out.line(&what)?;
    }
    context.out.finish()?;
    troubles(&applied);
    Ok(Outcome::Done)
}

pub(super) fn confirm(arguments: &Confirm, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(&Request::Confirm { revision: None }, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.json {
        context.out.json(&response.data)?;
        return Ok(Outcome::Done);
    }
    let confirmed: Confirmed = understood(&response)?;
    let stored = if confirmed.stored { " and is stored" } else { "" };
    context.out.line(&format!("revision {} stays{stored}", confirmed.revision))?;
    Ok(Outcome::Done)
}
