//! `explain` with the leases that are good now.

use std::sync::Arc;

use chrono::Utc;

use super::answer::Office;
use super::protocol::{self, Refusal, Response};
use crate::core::explain::{Target, explain};
use crate::plan::ids::HostId;
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
    match explain(&policy, &question, &leases) {
        Ok(explanation) => Response::done(explanation),
        Err(mistake) => Response::because(Refusal::Invalid, mistake.to_string()),
    }
}
