//! `plan`: what a policy would change, and nothing is changed. The same transition that would put it in force is made on a
//! copy of the state, and looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};

use super::answer::Office;
use super::gate::Gate;
use super::protocol::plan::{Changes, Flow, Flows, Lease, Leases, Plan, Replay};
use super::protocol::{PLAN_HOURS, Response};
use super::revisions::{Read, Rejected};
use super::{replayed, world};
use crate::core::compare::{Change, compare};
use crate::core::doors::Now;
use crate::core::forecast::{Ending, Forecast, Live};
use crate::core::replay;
use crate::core::state::{State, World};
use crate::nft;
use crate::plan::snapshot::Snapshot;
use crate::policy::Policy;
use crate::policy::reference::Protocol;

/// Changes that are listed.
const CHANGES: usize = 1000;
/// Flows and leases that are listed.
const LISTED: usize = 100;

/// What is in force now.
struct Current {
    policy: Option<Arc<Policy>>,
    snapshot: Option<Arc<Snapshot>>,
    state: State,
    world: World,
    now: Now,
}

/// Plans.
pub async fn answer(office: &Arc<Office>, text: &str, hours: Option<u32>) -> Response {
    let read = office.revisions.lock().await.examine(text);
    let new = match read {
        Ok(new) => new,
        Err(Rejected { refusal, message, errors }) => {
            return Response { refusal, ..Response::refused(message, errors) };
        }
    };
    let _one = office.planning.lock().await;
    let policy = Arc::clone(&new.policy);
    let current = office.gate.run(move |gate| Current::of(gate, &policy)).await;
    let current = match current {
        Ok(current) => current,
        Err(stopped) => return Response::failed(stopped.to_string()),
    };
    let own = Arc::clone(office);
    let hours = hours.unwrap_or(PLAN_HOURS);
    match tokio::task::spawn_blocking(move || plan(&own, &current, &new, hours)).await {
        Ok(plan) => Response::done(plan),
        Err(_) => Response::failed("the plan could not be made: a fault in clawgress, please report it"),
    }
}

impl Current {
    /// As of now. Caps are read, so that their use is told as it is.
    fn of(gate: &mut Gate, policy: &Policy) -> Self {
        let _ = gate.read_all_caps();
        Self {
            policy: gate.policy.clone(),
            snapshot: gate.judge().load_full(),
            state: gate.state.clone(),
            world: World { guarded: world::guarded(policy), ..gate.world.clone() },
            now: gate.now(),
        }
    }
}

fn plan(office: &Office, current: &Current, new: &Read, hours: u32) -> Plan {
    let mut trouble = Vec::new();
    let mut plan = Plan {
        revision: None,
        sha256: new.sha256.clone(),
        same: false,
        changes: Changes::default(),
        flows: Some(Flows::default()),
        leases: Leases::default(),
        replay: None,
        warnings: new.warnings.clone(),
        trouble: Vec::new(),
    };
    let (Some(old), Some(old_snapshot)) = (&current.policy, &current.snapshot) else { return plan };
    let revision = current.state.revision;
    plan.revision = Some(revision);
    plan.same = crate::policy::digest(old) == new.sha256;
    plan.changes = changes(compare(old, &new.policy, current.world.zone));

    let pending = current.state.enforce_prepared(&new.policy, &new.prepared, &current.world, revision + 1, current.now);
    let snapshot = Arc::clone(&pending.snapshot);
    let mut after = current.state.clone();
    after.enforced(pending);
    let forecast = Forecast::new(&current.state, &after, &new.policy, &snapshot, current.now);
    plan.leases = leases(&forecast);
    plan.flows = match nft::flows() {
        Ok(tracked) => {
            let live: Vec<Live> = tracked.into_iter().map(|flow| flow.live).collect();
            Some(flows(&forecast, &current.state, &live))
        }
        Err(error) => {
            trouble.push(format!("which flows would be cut is not known: {error}"));
            None
        }
    };
    let since = Utc::now() - TimeDelta::hours(hours.into());
    let both = replay::Replay::new((old, old_snapshot), (&new.policy, &snapshot));
    let done = replayed::replay(&office.log.dir(), since, both);
    trouble.extend(done.unread.iter().map(|what| format!("a part of the decision log could not be read: {what}")));
    plan.replay = Some(Replay {
        since,
        recorded: office.settings.log.decisions,
        records: done.records,
        decisions: done.decisions,
        unclear: done.unclear,
        damaged: done.damaged,
        breaks: done.breaks,
        opens: done.opens,
    });
    plan.trouble = trouble;
    plan
}

fn changes(mut listed: Vec<Change>) -> Changes {
    let count = listed.len();
    let widen = listed.iter().filter(|change| change.effect.widens()).count();
    let narrow = listed.iter().filter(|change| change.effect.narrows()).count();
    listed.truncate(CHANGES);
    Changes { count, widen, narrow, listed }
}

fn leases(forecast: &Forecast<'_>) -> Leases {
    let ended = forecast.ended_leases();
    let listed = ended.iter().take(LISTED).map(|lease| Lease {
        host: lease.host.as_ref().map(ToString::to_string),
        domain: lease.name.to_string(),
        address: lease.address,
    });
    Leases { ended: ended.len(), listed: listed.collect() }
}

fn flows(forecast: &Forecast<'_>, state: &State, live: &[Live]) -> Flows {
    let mut flows = Flows::default();
    // Flows that are alike end alike.
    let mut known: std::collections::HashMap<Live, Option<Ending>> = std::collections::HashMap::new();
    let mut endings: Vec<Flow> = Vec::new();
    let mut by_reason: BTreeMap<String, usize> = BTreeMap::new();
    for flow in live.iter().filter(|flow| state.is_open(flow.class)) {
        flows.live += 1;
        let Some(ending) = known.entry(*flow).or_insert_with(|| forecast.of(flow)) else { continue };
        if ending.at.is_some() {
            flows.later += 1;
        } else {
            flows.cut += 1;
            *by_reason.entry(ending.reason.as_str().to_owned()).or_default() += 1;
        }
        endings.push(told(ending));
    }
    endings.sort_unstable();
    endings.truncate(LISTED);
    Flows { by_reason, listed: endings, ..flows }
}

fn told(ending: &Ending) -> Flow {
    let v6 = matches!(ending.peer, IpAddr::V6(_));
    let (protocol, port) = match ending.protocol {
        Protocol::Tcp(port) => ("tcp".to_owned(), Some(port)),
        Protocol::Udp(port) => ("udp".to_owned(), Some(port)),
        Protocol::Echo if v6 => ("icmpv6".to_owned(), None),
        Protocol::Echo => ("icmp".to_owned(), None),
        Protocol::Other(number) => (number.to_string(), None),
    };
    Flow {
        at: ending.at,
        host: ending.host.as_ref().map(ToString::to_string),
        source: ending.agent,
        domains: ending.names.iter().map(ToString::to_string).collect(),
        address: ending.peer,
        port,
        protocol,
        reason: ending.reason,
    }
}
