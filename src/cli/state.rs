//! `clawgress status`, `health`, `firewall`, `rpz`: what the daemon sees.

use clap::Args;

use super::apply::{refused, understood};
use super::client::ClientError;
use super::output::{Output, Tone, columns, remark};
use super::{Context, Outcome};
use crate::core::caps::CapUse;
use crate::daemon::protocol::{self, Check, Piece, Request, Response, StateWord, Text};

const STATUS_EXAMPLES: &str = "\
Examples:
  clawgress status
  clawgress status --json | jq -r .state";

/// Print the state: what is in force, since when, and whether all is well
///
/// States: enforcing, monitoring (nothing is blocked), degraded (enforced, but a check fails), blocked (no policy can
/// be enforced, so everything in scope is blocked), unconfigured (no policy was ever stored).
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const HEALTH_EXAMPLES: &str = "\
Examples:
  clawgress health || systemctl restart clawgress";

/// Run the checks; exit status 1 when one fails
#[derive(Debug, Args)]
#[command(after_help = HEALTH_EXAMPLES)]
pub(super) struct Health {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const FIREWALL_EXAMPLES: &str = "\
Examples:
  clawgress firewall | less";

/// Print the table as the kernel holds it
#[derive(Debug, Args)]
#[command(after_help = FIREWALL_EXAMPLES)]
pub(super) struct Firewall {
    /// Print { text }
    #[arg(long)]
    json: bool,
}

const RPZ_EXAMPLES: &str = "\
Examples:
  clawgress rpz
  clawgress rpz --host agent-1";

/// Print the DNS policy as a response-policy zone
#[derive(Debug, Args)]
#[command(after_help = RPZ_EXAMPLES)]
pub(super) struct Rpz {
    /// The zone as this host sees it
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Print { text }
    #[arg(long)]
    json: bool,
}

/// Asks; `Err`: the daemon refused, and that has been said.
pub(super) fn ask(request: &Request, context: &Context) -> anyhow::Result<Result<Response, Outcome>> {
    let response = context.daemon()?.ask(request.clone())?;
    Ok(if response.success { Ok(response) } else { Err(refused("clawgress", &response)) })
}

pub(super) fn status(arguments: &Status, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(&Request::Status {}, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.json {
        context.out.json(&response.data)?;
        return Ok(Outcome::Done);
    }
    let status: protocol::Status = understood(&response)?;
    let text = table(&status, &context.out);
    context.out.text(&text)?;
    // Where a check fails, there is more to say than this, and the check has said it.
    if status.state == StateWord::Unconfigured && status.checks.iter().all(|check| check.ok) {
        context.out.line("no policy was ever stored: import one with `clawgress import --policy FILE`")?;
    }
    Ok(Outcome::Done)
}

/// How much of a digest people compare.
const SHORT_DIGEST: usize = 12;

pub(super) fn short(digest: &str) -> &str {
    digest.get(..SHORT_DIGEST).unwrap_or(digest)
}

fn table(status: &protocol::Status, out: &Output) -> String {
    let state = match status.state {
        StateWord::Enforcing => out.toned(Tone::Good, "enforcing"),
        StateWord::Monitoring => "monitoring".to_owned(),
        StateWord::Degraded => out.toned(Tone::Bad, "degraded"),
        StateWord::Blocked => out.toned(Tone::Bad, "blocked"),
        StateWord::Unconfigured => "unconfigured".to_owned(),
    };
    let dash = || "-".to_owned();
    let mut rows = vec![
        ("state", state),
        ("revision", status.revision.map_or_else(dash, |number| number.to_string())),
        ("sha256", status.sha256.as_deref().map_or_else(dash, |digest| short(digest).to_owned())),
        ("origin", status.origin.map_or_else(dash, |origin| origin.to_string())),
        ("applied at", status.applied_at.map_or_else(dash, time)),
        ("hosts", status.hosts.to_string()),
        ("domains", status.domains.to_string()),
        ("drift", if status.drift { out.toned(Tone::Bad, "yes") } else { "no".to_owned() }),
    ];
    for (index, line) in limits(&status.limits).into_iter().enumerate() {
        rows.push((if index == 0 { "limits" } else { "" }, line));
    }
    for (index, line) in caps(&status.caps).into_iter().enumerate() {
        rows.push((if index == 0 { "caps" } else { "" }, line));
    }
    let checks = checks(&status.checks, out);
    for (index, line) in checks.lines().enumerate() {
        rows.push((if index == 0 { "checks" } else { "" }, line.to_owned()));
    }
    rows.iter().map(|(name, value)| format!("{name:<10}  {value}\n")).collect()
}

/// Lines of a kind that `status` shows; of more it tells how many.
const SHOWN: usize = 8;

fn limits(limits: &protocol::Limits) -> Vec<String> {
    let all = limits.egress_kbps.map(|kbps| format!("all egress: {kbps} kbit/s"));
    let hosts = limits.hosts.iter().map(|(host, kbps)| format!("{host}: {kbps} kbit/s"));
    few(all.into_iter().chain(hosts))
}

/// The fullest first.
fn caps(caps: &[CapUse]) -> Vec<String> {
    let mut caps: Vec<&CapUse> = caps.iter().collect();
    caps.sort_by_key(|cap| u128::from(cap.remaining) * 1_000_000 / u128::from(cap.bytes.max(1)));
    few(caps.into_iter().map(cap))
}

/// One cap on one line.
pub(super) fn cap(cap: &CapUse) -> String {
    let CapUse { host, domain, bytes, period, used, remaining, resets_at } = cap;
    let left = if *remaining == 0 { "used up".to_owned() } else { format!("{remaining} left") };
    format!("{host} to {domain}: {used} of {bytes} bytes a {period} used, {left}; next period {}", time(*resets_at))
}

fn few(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("… and {more} more (--json tells all)"));
    }
    lines
}

pub(super) fn time(time: chrono::DateTime<chrono::Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// One line for each check, `ok` or `FAIL` in front.
fn checks(checks: &[Check], out: &Output) -> String {
    let rows: Vec<Vec<String>> = checks.iter().map(|check| vec![check.name.clone(), check.message.clone()]).collect();
    let lines = columns(&rows);
    let mut text = String::new();
    for (check, line) in checks.iter().zip(lines.lines()) {
        let word = if check.ok { out.toned(Tone::Good, "ok  ") } else { out.toned(Tone::Bad, "FAIL") };
        text.push_str(&format!("{word}  {line}\n"));
    }
    text
}

pub(super) fn health(arguments: &Health, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(&Request::Health {}, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    let health: protocol::Health = understood(&response)?;
    if arguments.json {
        context.out.json(&response.data)?;
    } else {
        let text = checks(&health.checks, &context.out);
        context.out.text(&text)?;
    }
    if health.healthy {
        return Ok(Outcome::Done);
    }
    context.out.finish()?;
    let failed: Vec<&str> = health.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    remark(&format!("error: unhealthy: {}", failed.join(", ")));
    Ok(Outcome::Refused)
}

pub(super) fn firewall(arguments: &Firewall, context: &mut Context) -> anyhow::Result<Outcome> {
    text(&Request::Firewall {}, arguments.json, context)
}

pub(super) fn rpz(arguments: &Rpz, context: &mut Context) -> anyhow::Result<Outcome> {
    let mut daemon = context.daemon()?;
    let mut response = daemon.ask(Request::Rpz { host: arguments.host.clone() })?;
    let mut begun = false;
    loop {
        if !response.success {
            return Ok(refused("clawgress", &response));
        }
        let Piece { text, more } = understood(&response)?;
        piece(&text, !begun, !more, arguments.json, context)?;
        if !more || !context.out.is_read() {
            return Ok(Outcome::Done);
        }
        begun = true;
        response = daemon.more()?.ok_or(ClientError::Closed)?;
    }
}

/// Writes a piece of a text; as JSON the pieces are one string.
fn piece(text: &str, first: bool, last: bool, json: bool, context: &mut Context) -> anyhow::Result<()> {
    if !json {
        return if last { context.out.lines(text) } else { context.out.text(text) };
    }
    let quoted = serde_json::to_string(text)?;
    let inner = quoted.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or_default();
    let (before, after) = (if first { "{\n  \"text\": \"" } else { "" }, if last { "\"\n}\n" } else { "" });
    [before, inner, after].iter().try_for_each(|part| context.out.text(part))
}

fn text(request: &Request, json: bool, context: &mut Context) -> anyhow::Result<Outcome> {
    let response = match ask(request, context)? {
        Ok(response) => response,
        Err(outcome) => return Ok(outcome),
    };
    if json {
        context.out.json(&response.data)?;
    } else {
        context.out.lines(&understood::<Text>(&response)?.text)?;
    }
    Ok(Outcome::Done)
}
