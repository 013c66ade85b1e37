//! `clawgress explain`: the verdict, and the policy line that gives it.

mod local;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, ValueEnum};

use super::apply::{refused, understood};
use super::input::{Source, refuse};
use super::{Context, Outcome};
use crate::daemon::protocol::{self, Explained, Explanation, Request};
use crate::policy::name::Name;
use crate::policy::{domain, not_yet_enforced};

const EXAMPLES: &str = "\
Examples:
  clawgress explain --source 192.168.10.10 --domain api.example.com
  clawgress explain --source 192.168.10.10 --ip 203.0.113.7 --port 443 --json
  clawgress explain --source fd00:10::10 --domain api.example.com --policy trial.json

With --policy the file is asked instead of the daemon; nothing is known of leases then.";

/// Tell what would happen to a query or a connection, and which line of the policy says so
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("target").required(true))]
pub(super) struct Arguments {
    /// The agent's address
    #[arg(long, value_name = "IP")]
    source: IpAddr,
    /// A name the agent asks for or connects to
    #[arg(long, value_name = "NAME", group = "target", value_parser = a_name)]
    domain: Option<Name>,
    /// An address the agent connects to
    #[arg(long, value_name = "ADDR", group = "target")]
    ip: Option<IpAddr>,
    /// The destination port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The protocol of the port [default: tcp]
    #[arg(long, requires = "port")]
    protocol: Option<Protocol>,
    /// When (RFC 3339)
    // Not shown: this version has no time windows, so the answer is the same at all times.
    #[arg(long, value_name = "RFC3339", hide = true, value_parser = a_time)]
    at: Option<DateTime<Utc>>,
    /// Ask this policy instead of the daemon; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// Print { verdict, reason, path, host, domain, mode }
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

fn a_name(text: &str) -> Result<Name, String> {
    domain::name(text).map_err(|mistake| mistake.to_string())
}

fn a_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "not a time such as 2026-11-20T09:00:00+01:00 (RFC 3339)".to_owned())
}

pub(super) fn explain(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    if arguments.at.is_some() {
        anyhow::bail!("this version enforces no time windows, so no answer depends on the time; leave --at out");
    }
    let question = protocol::Explain {
        source: arguments.source,
        domain: arguments.domain.as_ref().map(ToString::to_string),
        ip: arguments.ip,
        port: arguments.port,
        protocol: arguments.protocol.map(|protocol| match protocol {
            Protocol::Tcp => protocol::Transport::Tcp,
            Protocol::Udp => protocol::Transport::Udp,
        }),
        at: None,
    };
    let explained = match &arguments.policy {
        Some(source) => match source.parse()? {
            Err(errors) => return Ok(refuse(&source.name(), &errors)),
            Ok(parsed) => {
                let missing = not_yet_enforced(&parsed.policy);
                if !missing.is_empty() {
                    let head = "not enforced by this version, so the answer leaves it out:";
                    super::output::remark_all(head, &missing);
                }
                Explained::new(&parsed.policy, local::explain(&parsed.policy, &question)?)?
            }
        },
        None => {
            let response = context.daemon()?.ask(&Request::Explain(question))?;
            if !response.success {
                return Ok(refused("clawgress", &response));
            }
            understood(&response)?
        }
    };
    if arguments.json {
        context.out.json(&explained.explanation)?;
    } else {
        let explanation: Explanation =
            serde_json::from_value(explained.explanation).map_err(|_| super::client::ClientError::NotUnderstood)?;
        context.out.line(&sentence(&explanation, explained.line.as_deref()))?;
    }
    Ok(Outcome::Done)
}

/// Verdict, reason, host, the policy's line and what it says.
fn sentence(explanation: &Explanation, line: Option<&str>) -> String {
    let verdict = serde_json::to_value(explanation.verdict).unwrap_or_default();
    let mut text = format!("{} ({})", verdict.as_str().unwrap_or_default(), explanation.reason.as_str());
    if let Some(host) = &explanation.host {
        text.push_str(&format!(" for {host}"));
    }
    match &explanation.path {
        Some(path) => text.push_str(&format!(", by {path}")),
        None => text.push_str(", by no line of the policy"),
    }
    if let Some(line) = line {
        text.push_str(&format!(": {line}"));
    }
    if explanation.mode == "monitor" && explanation.verdict == crate::policy::decision::Verdict::Block {
        text.push_str(" [monitor mode: it passes]");
    }
    text
}
