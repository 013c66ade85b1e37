//! What the books say, with what else belongs to it: the policy's hosts and labels, caps, DNS.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::super::answer::Office;
use super::super::protocol::{Check, Refusal, Response, StateWord, Text};
use super::super::{caps, status};
use super::Telemetry;
use crate::core::telemetry::{self as core, Facts, Gauges, Tally, View, Window};
use crate::policy::Policy;

/// For so long metrics are told again as they were: nobody needs a key to ask for them.
const FRESH: Duration = Duration::from_secs(1);
/// Why there is no answer where the clerk's thread has died.
const FAULT: &str = "the counters could not be read: a fault in clawgress, please report it";

/// Does something with the books, which may wait for a reading.
async fn ask<T: Send + 'static>(
    office: &Arc<Office>,
    work: impl FnOnce(&Telemetry) -> T + Send + 'static,
) -> Result<T, Response> {
    let office = Arc::clone(office);
    tokio::task::spawn_blocking(move || work(&office.telemetry)).await.map_err(|_| Response::failed(FAULT))
}

/// `telemetry`
pub async fn report(office: &Arc<Office>, view: View, window: Window) -> Response {
    let read = ask(office, move |telemetry| {
        let mut clerk = telemetry.clerk();
        (clerk.window(window), clerk.trouble())
    });
    let ((since, now, tally), trouble) = match read.await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let (caps, _) = caps::usage(office).await;
    let current = current(office).await;
    let policy = current.as_ref().map(|(_, policy)| Arc::clone(policy));
    let hosts = policy.as_deref().map(sources).unwrap_or_default();
    let label = |name: &str| policy.as_deref().and_then(|policy| label(policy, name));
    let revision = current.map(|(revision, _)| revision);
    let facts =
        Facts { window, since, now, revision, tally: &tally, hosts: &hosts, caps: &caps, label: &label, trouble };
    match core::report(&facts, &view) {
        Ok(report) => Response::done(report),
        Err(unseen) => Response::because(Refusal::NotFound, unseen.to_string()),
    }
}

/// `stats`
pub async fn stats(office: &Arc<Office>) -> Response {
    let read = ask(office, |telemetry| (telemetry.clerk().window(Window::Day), telemetry.started_at));
    let ((_, now, tally), started_at) = match read.await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let revision = current(office).await.map(|(revision, _)| revision);
    let mut stats = core::stats(&tally, started_at, now, revision);
    stats.dns = dns(office);
    stats.holds = match holds(office).await {
        Ok(holds) => holds,
        Err(response) => return response,
    };
    Response::done(stats)
}

/// `GET /metrics`
pub async fn metrics(office: &Arc<Office>) -> Response {
    let exposed = || office.telemetry.exposed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, text)) = &*exposed()
        && at.elapsed() < FRESH
    {
        return Response::done(Text { text: text.clone() });
    }
    let tally: Tally = match ask(office, |telemetry| telemetry.clerk().totals()).await {
        Ok(tally) => tally,
        Err(response) => return response,
    };
    let holds = match holds(office).await {
        Ok(holds) => holds,
        Err(response) => return response,
    };
    let status = status::status(office).await;
    let word = |state: StateWord| -> String {
        let value = serde_json::to_value(state).ok();
        value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let gauges = Gauges {
        version: env!("CARGO_PKG_VERSION"),
        state: word(status.state),
        states: StateWord::ALL.map(word).into(),
        revision: status.revision.unwrap_or(0),
        checks: status.checks.into_iter().map(|check| (check.name, check.ok)).collect(),
        caps: status.caps,
        dns: dns(office),
        holds,
    };
    let text = core::exposition(&tally, &gauges);
    *exposed() = Some((Instant::now(), text.clone()));
    Response::done(Text { text })
}

/// What `health` says about it.
pub async fn check(office: &Arc<Office>) -> Check {
    let asked = ask(office, |telemetry| telemetry.clerk().trouble()).await;
    let trouble = asked.unwrap_or_else(|_| vec![FAULT.to_owned()]);
    let message = if trouble.is_empty() { "counters are read and kept".to_owned() } else { trouble.join("; ") };
    Check { name: "telemetry".into(), ok: trouble.is_empty(), message }
}

/// The revision in force, and its policy.
async fn current(office: &Arc<Office>) -> Option<(u64, Arc<Policy>)> {
    let revisions = office.revisions.lock().await;
    let current = revisions.current.as_ref()?;
    Some((current.meta.revision, Arc::clone(&current.policy)))
}

fn sources(policy: &Policy) -> BTreeMap<String, Vec<String>> {
    let hosts = policy.hosts.iter().map(|(name, host)| {
        let sources = host.sources.entries.iter().map(ToString::to_string).collect();
        (name.to_string(), sources)
    });
    hosts.collect()
}

fn label(policy: &Policy, name: &str) -> Option<String> {
    let name = crate::policy::domain::name(name).ok()?;
    super::super::decided::label(policy, &name).map(|label| label.to_string())
}

fn dns(office: &Office) -> BTreeMap<String, u64> {
    let own = &office.counters;
    let all = [
        ("queries", &own.queries),
        ("blocked", &own.blocked),
        ("allowed", &own.allowed),
        ("servfail", &own.servfail),
        ("upstream_queries", &own.upstream_queries),
        ("upstream_timeouts", &own.upstream_timeouts),
        ("cache_hits", &own.cache_hits),
        ("prefetched", &own.prefetched),
        ("stale", &own.stale),
        ("lease_failures", &own.lease_failures),
        ("over_budget", &own.over_budget),
        ("dropped_overload", &own.dropped_overload),
    ];
    all.map(|(word, counter)| (word.to_owned(), counter.load(Ordering::Relaxed))).into()
}

async fn holds(office: &Arc<Office>) -> Result<BTreeMap<String, u64>, Response> {
    let gate = office.gate.run(|gate| {
        let (classes, leases) = gate.state.counts(gate.now().ms);
        (classes, leases, gate.repairs)
    });
    let (classes, leases, repairs) = gate.await.map_err(|stopped| Response::failed(stopped.to_string()))?;
    let mut holds = ask(office, |telemetry| telemetry.clerk().sizes()).await?;
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    holds.extend([
        ("classes".to_owned(), count(classes)),
        ("leases".to_owned(), count(leases)),
        ("repairs".to_owned(), repairs),
    ]);
    Ok(holds)
}
