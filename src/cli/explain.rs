//! `clawgress explain`: the verdict, and the policy line that gives it.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, ValueEnum};

use super::apply::{refused, understood};
use super::input::{Source, refuse, with_lists};
use super::{Context, Outcome};
use crate::core::explain::{self, Explanation, Known};
use crate::daemon::protocol::{self, Request};
use crate::policy::decision::Verdict;
use crate::policy::name::Name;
use crate::policy::schedule::Moment;
use crate::policy::{domain, not_yet_enforced};

const EXAMPLES: &str = "\
Examples:
  clawgress explain --source 192.168.10.10 --domain api.example.com
  clawgress explain --source 192.168.10.10 --ip 203.0.113.7 --port 443 --json
  clawgress explain --source fd00:10::10 --domain api.example.com --policy trial.json
  clawgress explain --source 192.168.10.10 --domain api.example.com --at 2026-11-20T18:00:00+01:00

With --policy the file is asked instead of the daemon; nothing is known of leases and used caps then.";

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
    /// When, such as 2026-11-20T09:00:00+01:00 (RFC 3339) [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = a_time)]
    at: Option<DateTime<Utc>>,
    /// Ask this policy instead of the daemon; - reads standard input
    #[arg(long, value_name = "FILE")]
    policy: Option<Source>,
    /// Print { verdict, reason, path, host, domain, mode, detail }
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

fn a_name(text: &str) -> Result<Name, String> {
    if text.contains('*') {
        return Err("a wildcard is many names; ask for one of them".to_owned());
    }
    domain::name(text).map_err(|mistake| mistake.to_string())
}

fn a_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "not a time such as 2026-11-20T09:00:00+01:00 (RFC 3339)".to_owned())
}

pub(super) fn explain(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    let question = protocol::Explain {
        source: arguments.source,
        domain: arguments.domain.as_ref().map(ToString::to_string),
        ip: arguments.ip,
        port: arguments.port,
        protocol: arguments.protocol.map(|protocol| match protocol {
            Protocol::Tcp => protocol::Transport::Tcp,
            Protocol::Udp => protocol::Transport::Udp,
        }),
        at: arguments.at,
    };
    let (data, explanation) = match &arguments.policy {
        Some(source) => match source.parse()?.and_then(|parsed| with_lists(parsed.policy)) {
            Err(errors) => return Ok(refuse(&source.name(), &errors)),
            Ok(policy) => {
                let missing = not_yet_enforced(&policy);
                if !missing.is_empty() {
                    let head = "not enforced by this version, so the answer leaves it out:";
                    super::output::remark_all(head, &missing);
                }
                let at = arguments.at.unwrap_or_else(Utc::now);
                let moment = Moment::of(&policy, at, crate::store::system_zone());
                let question = question.question(moment).map_err(anyhow::Error::msg)?;
                let explanation = explain::explain(&policy, &question, Known::default())?;
                (serde_json::to_value(&explanation)?, explanation)
            }
        },
        None => {
            let response = context.daemon()?.ask(Request::Explain(question))?;
            if !response.success {
                return Ok(refused("clawgress", &response));
            }
            let explanation = understood(&response)?;
            (response.data, explanation)
        }
    };
    if arguments.json {
        context.out.json(&data)?;
    } else {
        context.out.line(&sentence(&explanation))?;
    }
    Ok(Outcome::Done)
}

/// Verdict, reason, and in words why, with the policy's line.
fn sentence(explanation: &Explanation) -> String {
    let verdict = match explanation.verdict {
        Verdict::Allow => "allow",
        Verdict::Block => "block",
        Verdict::OutOfScope => "out of scope",
    };
    let mut text = verdict.to_owned();
    // "allow, allowed" and "out of scope, out-of-scope" would say nothing twice.
    if explanation.verdict == Verdict::Block {
        text.push_str(&format!(" ({})", explanation.reason.as_str()));
        if explanation.mode == "monitor" {
            text.push_str(", but monitor mode lets it pass");
        }
    }
    text.push_str(&format!(": {}", explanation.detail));
    if let Some(window) = explanation.window.as_ref().filter(|window| window.open)
        && let Some(end) = window.changes_at
    {
        text.push_str(&format!("\nits time window closes {}", super::state::time(end)));
    }
    if let Some(limits) = &explanation.limits {
        let all = limits.egress_kbps.map(|kbps| format!("{kbps} kbit/s for all egress together"));
        let own = limits.host_kbps.map(|kbps| format!("{kbps} kbit/s for the host"));
        let limits: Vec<String> = own.into_iter().chain(all).collect();
        text.push_str(&format!("\nrate limit: {}", limits.join(", ")));
    }
    for cap in &explanation.caps {
        text.push_str(&format!("\n{}", super::state::cap(cap)));
    }
    text
}
