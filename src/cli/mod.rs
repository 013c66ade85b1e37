//! The command line (SPEC section 3): one file for each group of commands.
//!
//! Exit status: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage. What is asked for goes to
//! stdout; remarks, warnings and reasons go to stderr, so that a pipe carries only the answer.

mod apply;
mod check;
pub mod client;
mod early;
mod explain;
mod generate;
mod input;
mod log;
mod output;
mod plan;
mod revisions;
mod run;
mod state;
mod teardown;
mod telemetry;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::settings::Settings;
use crate::store;
use output::Output;

const EXAMPLES: &str = "\
Examples:
  clawgress check --policy policy.json      is the policy valid?
  clawgress run                             enforce the stored policy (as root)
  clawgress import --policy policy.json     enforce and store another one
  clawgress explain --source 192.168.10.10 --domain api.example.com --port 443

Exit status: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage.";

/// Egress gateway for AI agents: one policy, enforced in the kernel and in DNS
#[derive(Debug, Parser)]
#[command(name = "clawgress", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Early(early::Arguments),
    Check(check::Arguments),
    Plan(plan::Arguments),
    Apply(apply::Apply),
    Import(apply::Import),
    Show(apply::Show),
    Status(state::Status),
    Health(state::Health),
    Firewall(state::Firewall),
    Rpz(state::Rpz),
    Explain(explain::Arguments),
    Telemetry(telemetry::Arguments),
    Stats(telemetry::Stats),
    Log(log::Arguments),
    History(revisions::History),
    Rollback(revisions::Rollback),
    Confirm(revisions::Confirm),
    Teardown(teardown::Arguments),
    Generate(generate::Arguments),
}

/// How a command ended that said all there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It did what was asked.
    Done,
    /// It did not; the reason is on stderr.
    Refused,
}

/// What every command works with.
struct Context {
    config: Option<PathBuf>,
    out: Output,
}

impl Context {
    /// The settings; read only by commands that need them.
    fn settings(&self) -> anyhow::Result<Settings> {
        let settings = store::load_settings(self.config.as_deref())?;
        Ok(settings)
    }

    /// A connection to the daemon.
    fn daemon(&self) -> anyhow::Result<client::Client> {
        let client = client::Client::connect(&self.settings()?.runtime_dir)?;
        Ok(client)
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout; whoever closed it does not want them.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let mut context = Context { config: cli.config, out: Output::new() };
    let result = dispatch(cli.command, &mut context).and_then(|outcome| {
        context.out.finish()?;
        Ok(outcome)
    });
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        Err(error) => {
            output::complain(&told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what it comes from. Errors of the drivers tell their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        if cause.is::<store::StoreError>() || cause.is::<client::ClientError>() || cause.is::<crate::dns::DnsError>() {
            break;
        }
    }
    text
}

/// The exit status of wrong usage.
const USAGE: u8 = 2;

fn dispatch(command: Command, context: &mut Context) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(arguments) => run::run(&arguments, context),
        Command::Early(arguments) => early::early(&arguments, context),
        Command::Check(arguments) => check::check(&arguments, context),
        Command::Plan(arguments) => plan::plan(&arguments, context),
        Command::Apply(arguments) => apply::apply(&arguments, context),
        Command::Import(arguments) => apply::import(&arguments, context),
        Command::Show(arguments) => apply::show(&arguments, context),
        Command::Status(arguments) => state::status(&arguments, context),
        Command::Health(arguments) => state::health(&arguments, context),
        Command::Firewall(arguments) => state::firewall(&arguments, context),
        Command::Rpz(arguments) => state::rpz(&arguments, context),
        Command::Explain(arguments) => explain::explain(&arguments, context),
        Command::Telemetry(arguments) => telemetry::telemetry(&arguments, context),
        Command::Stats(arguments) => telemetry::stats(&arguments, context),
        Command::Log(arguments) => log::log(&arguments, context),
        Command::History(arguments) => revisions::history(&arguments, context),
        Command::Rollback(arguments) => revisions::rollback(&arguments, context),
        Command::Confirm(arguments) => revisions::confirm(&arguments, context),
        Command::Teardown(arguments) => teardown::teardown(&arguments, context),
        Command::Generate(arguments) => generate::generate(&arguments, context),
    }
}
