//! What `status` and `health` say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use super::answer::Office;
use super::gate::Gate;
use super::protocol::{Check, Health, Limits, StateWord, Status};
use super::revisions::{Revisions, sizes};
use super::{caps, held};
use crate::nft::{Kernel as Writer, KernelError};
use crate::plan::situation::DnsDoor;
use crate::plan::table::names;
use crate::policy::model::{Located, Mode};
use crate::policy::schedule::Moment;
use crate::policy::{Policy, document_digest};
use crate::store::Origin;

pub(super) fn check(name: &str, ok: bool, message: impl Into<String>) -> Check {
    Check { name: name.into(), ok, message: message.into() }
}

/// What only the gate's thread knows.
struct Kernel {
    inherited: bool,
    drift: bool,
    checks: Vec<Check>,
}

/// The state and its checks.
pub async fn status(office: &Arc<Office>) -> Status {
    let owned = office.owned;
    let kernel = office.gate.run(move |gate| kernel(gate, owned)).await.unwrap_or_else(|stopped| Kernel {
        inherited: false,
        drift: true,
        checks: vec![check("kernel", false, stopped.to_string())],
    });
    let (caps, book) = caps::usage(office).await;
    let revisions = office.revisions.lock().await;
    let mut checks = kernel.checks;
    checks.extend(book);
    checks.push(dns(office));
    checks.push(super::logged::check(&office.log));
    checks.push(super::telemetry::check(office).await);
    checks.extend(upstreams(office));
    checks.extend(api(office));
    checks.extend(office.outlet.iter().flat_map(|outlet| outlet.checks()));
    checks.extend(policy(&revisions, kernel.inherited));
    checks.extend(mode(&revisions));
    checks.extend(windows(&revisions));
    checks.extend(super::lists::checks(&revisions));
    checks.extend(revisions.waits().map(|sentence| check("confirm", true, sentence)));
    let (drift, stored) = stored(&revisions);
    checks.extend(stored);
    let healthy = checks.iter().all(|check| check.ok);
    let state = match &revisions.current {
        None if kernel.inherited => StateWord::Blocked,
        None => StateWord::Unconfigured,
        Some(_) if !healthy => StateWord::Degraded,
        Some(current) if monitors(&current.policy) => StateWord::Monitoring,
        Some(_) => StateWord::Enforcing,
    };
    let current = revisions.current.as_ref();
    let (hosts, domains) = current.map_or((0, 0), |current| sizes(&current.policy));
    Status {
        state,
        revision: current.map(|current| current.meta.revision),
        sha256: current.map(|current| current.meta.sha256.clone()),
        origin: current.map(|current| current.meta.origin),
        applied_at: current.map(|current| current.meta.applied_at),
        hosts,
        domains,
        drift: drift || kernel.drift,
        checks,
        caps,
        secondaries: office.outlet.as_ref().map(|outlet| outlet.followers()).unwrap_or_default(),
        limits: current.map(|current| limits(&current.policy)).unwrap_or_default(),
    }
}

fn limits(policy: &Policy) -> Limits {
    let rate = |kbps: &Option<Located<u64>>| kbps.as_ref().map(|kbps| kbps.value);
    let hosts = policy.hosts.iter().filter_map(|(name, host)| Some((name.to_string(), rate(&host.egress_kbps)?)));
    Limits { egress_kbps: rate(&policy.egress_kbps), hosts: hosts.collect() }
}

/// All checks, and whether all is well.
pub fn health(status: &Status) -> Health {
    Health { healthy: status.checks.iter().all(|check| check.ok), checks: status.checks.clone() }
}

/// The table of our name.
enum Found {
    Ours,
    Foreign,
    Nothing,
}

/// Asks for the smallest of our sets and not for the whole table: that can hold a hundred thousand leases, and while it is
/// read no answer goes out.
fn look(kernel: &mut Writer) -> Result<Found, KernelError> {
    if kernel.elements(names::HOSTS)?.is_some() {
        return Ok(Found::Ours);
    }
    Ok(match kernel.read()? {
        None => Found::Nothing,
        Some(found) if held::is_ours(&found) => Found::Ours,
        Some(_) => Found::Foreign,
    })
}

fn kernel(gate: &mut Gate, owned: bool) -> Kernel {
    let mut checks = Vec::new();
    let enforcing = gate.policy.is_some();
    let table = look(gate.kernel());
    let present = matches!(table, Ok(Found::Ours));
    checks.push(match (&table, &gate.drift) {
        (Err(error), _) => check("kernel", false, error.to_string()),
        (Ok(Found::Foreign), _) => check("kernel", false, held::NOT_OURS),
        (_, Some(drift)) => check("kernel", false, format!("the table is not as it should be: {drift}")),
        (Ok(Found::Nothing), _) if enforcing => check("kernel", false, "the table is gone; it is being restored"),
        (Ok(Found::Nothing), _) => check("kernel", true, "there is no table: nothing is enforced"),
        (Ok(Found::Ours), _) => {
            let (classes, leases) = gate.state.counts(gate.now().ms);
            let lock = if owned { "locked against other programs" } else { "watched, and restored when changed" };
            let repairs = match gate.repairs {
                0 => String::new(),
                1 => ", restored once".into(),
                times => format!(", restored {times} times"),
            };
            check("kernel", true, format!("the table is in place, {lock}{repairs}; {leases} leases, {classes} classes"))
        }
    });
    if let Some(why) = &gate.behind {
        let message = format!("the table does not follow the machine's addresses and other tables: {why}");
        checks.push(check("machine", false, message));
    }
    if enforcing {
        for (family, door) in [("IPv4", gate.world.dns4), ("IPv6", gate.world.dns6)] {
            if door == DnsDoor::Closed {
                let message = format!(
                    "port 53 is refused over {family}: dns.listen has no address for it, or dns.redirect is off"
                );
                checks.push(check("dns-redirect", true, message));
            }
        }
    }
    match gate.kernel().foreign_flowtables() {
        Ok(tables) if !tables.is_empty() && enforcing => {
            let first = &tables[0];
            checks.push(check(
                "flowtable",
                false,
                format!(
                    "flow table {} of table {} takes flows past every rule once they are offloaded: caps, windows and cuts do not hold for \
                     them; remove it, or keep agents' interfaces out of it",
                    first.name, first.table
                ),
            ));
        }
        _ => {}
    }
    let inherited = !enforcing && present;
    Kernel { inherited, drift: gate.drift.is_some(), checks }
}

fn dns(office: &Office) -> Check {
    let listen: Vec<String> = office.listen.iter().map(SocketAddr::to_string).collect();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &office.counters;
    let message = format!(
        "listening on {}; {} queries, {} blocked, {} without an answer from upstream",
        listen.join(", "),
        read(&counters.queries),
        read(&counters.blocked),
        read(&counters.upstream_timeouts)
    );
    check("dns", true, message)
}

/// Look-ups without an answer, in a row, that are no accident: one slow domain causes two or three.
const SILENCE: u64 = 5;

fn upstreams(office: &Office) -> Option<Check> {
    let silence = office.counters.upstream_silence.load(Ordering::Relaxed);
    (silence >= SILENCE).then(|| {
        let message = format!(
            "the last {silence} look-ups got no answer from any upstream, so allowed names do not resolve; see whether the \
             servers of dns.upstreams (or /etc/resolv.conf) can be reached from here"
        );
        check("upstreams", false, message)
    })
}

/// Nothing where no key is set: then there is no REST API.
fn api(office: &Office) -> Option<Check> {
    Some(match office.api.told()? {
        Ok(message) => check("api", true, message),
        Err(why) => check("api", false, why),
    })
}

fn policy(revisions: &Revisions, inherited: bool) -> Vec<Check> {
    let mut checks: Vec<Check> =
        revisions.trouble.iter().map(|trouble| check("policy", false, trouble.clone())).collect();
    if inherited {
        checks.push(check("policy", false, "the table of an earlier run is in force; import a policy to replace it"));
    }
    if !checks.is_empty() {
        return checks;
    }
    vec![match &revisions.current {
        Some(current) => check("policy", true, format!("revision {} is in force", current.meta.revision)),
        None => check("policy", true, "none was ever stored; import one: clawgress import --policy FILE"),
    }]
}

/// Hosts in monitor mode that `status` names one by one.
const SHOWN_HOSTS: usize = 8;

/// Windows that `status` names one by one; of more it tells how many.
const SHOWN_WINDOWS: usize = 4;

/// Which windows are open, and when that changes.
fn windows(revisions: &Revisions) -> Option<Check> {
    let policy = &revisions.current.as_ref()?.policy;
    let moment = Moment::of(policy, Utc::now(), crate::store::system_zone());
    let local =
        |instant: DateTime<Utc>| instant.with_timezone(&moment.zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string();
    let global = policy.time_window.iter().map(|window| ("everybody".to_owned(), window));
    let hosts = policy.hosts.iter().filter_map(|(name, host)| Some((name.to_string(), host.time_window.as_ref()?)));
    let named =
        policy.domain_time_windows.iter().chain(policy.hosts.values().flat_map(|host| &host.domain_time_windows));
    let named = named.map(|(pattern, window)| (pattern.to_string(), window));
    let all: Vec<_> = global.chain(hosts).chain(named).collect();
    let mut parts: Vec<String> = all
        .iter()
        .take(SHOWN_WINDOWS)
        .map(|(whose, window)| {
            let word = if moment.opens(Some(window)) { "open" } else { "closed" };
            match window.value.next_change(moment.zone, moment.utc) {
                Some(change) => format!("{whose}: {word} until {}", local(change)),
                None => format!("{whose}: {word}"),
            }
        })
        .collect();
    if all.len() > SHOWN_WINDOWS {
        parts.push(format!("{} more", all.len() - SHOWN_WINDOWS));
    }
    if let Some(change) = moment.next_change(policy) {
        parts.push(format!("the next change is at {}", local(change)));
    }
    (!all.is_empty()).then(|| check("windows", true, parts.join("; ")))
}

/// Whether what is stored is what is in force; it need not be (`apply FILE`), but somebody should know.
fn stored(revisions: &Revisions) -> (bool, Option<Check>) {
    let Some(current) = &revisions.current else { return (false, None) };
    let (ok, message) = match revisions.store().stored_policy() {
        Ok(Some(text)) => match crate::policy::parse(&text) {
            Ok(policy) if document_digest(&policy) == document_digest(&current.policy) => return (false, None),
            Ok(_) => {
                (true, "the stored policy is not the one in force; `clawgress apply` enforces the stored one".into())
            }
            Err(_) => (false, "the stored policy is not valid any more; `clawgress check` tells what is wrong".into()),
        },
        // Who only ever applied files, or tries one out, need not have stored one.
        Ok(None) => {
            let well = matches!(current.meta.origin, Origin::Cli | Origin::Rollback) || revisions.waits().is_some();
            (well, "no policy is stored; `clawgress import` stores one".into())
        }
        Err(error) => (false, error.to_string()),
    };
    (true, Some(check("stored", ok, message)))
}

/// Whether the policy in force is the stored one.
pub(super) fn is_stored(revisions: &Revisions) -> bool {
    revisions.current.is_some() && !stored(revisions).0
}

/// Hosts on which nothing is enforced: nobody should forget them.
fn mode(revisions: &Revisions) -> Option<Check> {
    let policy = &revisions.current.as_ref()?.policy;
    if monitors(policy) {
        return Some(check("mode", true, "monitor mode: nothing is blocked, only recorded"));
    }
    let watched = policy.hosts.keys().filter(|host| policy.effective(Some(host)).mode == Mode::Monitor);
    let mut watched: Vec<String> = watched.map(ToString::to_string).collect();
    if policy.effective(None).mode == Mode::Monitor {
        watched.push("sources that belong to no host".to_owned());
    }
    let more = watched.len().saturating_sub(SHOWN_HOSTS);
    watched.truncate(SHOWN_HOSTS);
    if more > 0 {
        watched.push(format!("{more} more"));
    }
    let said = format!("monitor mode: nothing is blocked for {}, only recorded", watched.join(", "));
    (!watched.is_empty()).then(|| check("mode", true, said))
}

fn monitors(policy: &Policy) -> bool {
    policy.effective(None).mode == Mode::Monitor
        && policy.hosts.keys().all(|host| policy.effective(Some(host)).mode == Mode::Monitor)
}
