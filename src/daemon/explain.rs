//! `explain` with the leases that are good now.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::answer::Office;
use super::protocol::{self, Refusal, Response};
use crate::core::caps::CapUse;
use crate::core::explain::{Known, Target, explain};
use crate::plan::ids::HostId;
use crate::plan::meter::CapId;
use crate::policy::model::HostName;
use crate::policy::name::{Name, Pattern};
use crate::policy::reference::{Leased, host_of};
use crate::policy::schedule::Moment;

/// Answers by the policy in force.
pub async fn answer(office: &Arc<Office>, asked: protocol::Explain) -> Response {
    let policy = match &office.revisions.lock().await.current {
        Some(current) => Arc::clone(&current.policy),
        None => {
            let why = "no policy is in force; import one: clawgress import --policy FILE";
            return Response::because(Refusal::Conflict, why);
        }
    };
    let moment = Moment::of(&policy, asked.at.unwrap_or_else(Utc::now), crate::store::system_zone());
    let question = match asked.question(moment) {
        Ok(question) => question,
        Err(message) => return Response::because(Refusal::Invalid, message),
    };
    let host = host_of(&policy, asked.source.to_canonical()).cloned();
    let mut names = Vec::new();
    if let Target::Ip(address) = question.target {
        let word = host.clone();
        let held = office.gate.run(move |gate| {
            let id = word.and_then(|name| gate.state.hosts.get(&name).copied()).unwrap_or(HostId::NOBODY);
            gate.state.names_of(id, address, gate.now().ms)
        });
        names = held.await.unwrap_or_default();
    }
    let leases: Vec<Leased<'_>> = match question.target {
        Target::Ip(address) => names.iter().map(|name| Leased { host: host.as_ref(), name, address }).collect(),
        Target::Domain(_) => Vec::new(),
    };
    let target = match &question.target {
        Target::Ip(address) => Some(Charged::Address(*address)),
        Target::Domain(text) => crate::policy::domain::name(text).ok().map(Charged::Name),
    };
    let at = question.moment.map_or_else(Utc::now, |moment| moment.utc);
    let caps = match (&host, target) {
        (Some(host), Some(target)) => caps(office, host.clone(), target, at).await,
        _ => Vec::new(),
    };
    match explain(&policy, &question, Known { leases: &leases, caps: &caps }) {
        Ok(explanation) => Response::done(explanation),
        Err(mistake) => Response::because(Refusal::Invalid, mistake.to_string()),
    }
}

/// What a question about caps is about.
enum Charged {
    Name(Name),
    Address(IpAddr),
}

/// The caps that the target is charged to, as of now. Nothing is known of their use at an instant in another period.
async fn caps(office: &Arc<Office>, host: HostName, target: Charged, at: DateTime<Utc>) -> Vec<(Pattern, CapUse)> {
    let held = office.gate.run(move |gate| {
        let id = gate.state.hosts.get(&host).copied().unwrap_or(HostId::NOBODY);
        let ids: Vec<CapId> = match &target {
            Charged::Name(name) => gate.state.caps_of_name(id, name),
            Charged::Address(address) => gate.state.caps_of_address(id, *address),
        }
        .into_iter()
        .collect();
        // What cannot be read now is told as it was read last.
        let _ = gate.read_caps(&ids);
        let caps = ids.iter().filter_map(|id| gate.state.caps.get(*id));
        let caps = caps.filter(|cap| cap.start <= at && at < cap.turns);
        caps.map(|cap| (cap.pattern.clone(), cap.usage())).collect()
    });
    held.await.unwrap_or_default()
}
