//! Rate limits and caps: the chains that the verdicts of metered classes lead to.

use super::super::ir::{Action, Cond, Direction, Family, Field, Ident, Object, Rule, Verdict};
use super::super::meter::{CapCounters, CapId, CapState, Meter};
use super::super::ops::Op;
use super::build::{Build, goto, jump, verdict};
use super::names::{self, Owner};
use super::refusals;
use crate::policy::model::Policy;

/// Octets per second in one kbit/s (SPEC section 1: 1 kbit is 1000 bits).
const OCTETS_PER_KBIT: u64 = 125;
/// Octets of the bucket besides one second of the rate: the longest packet there is must fit into the smallest bucket.
const BURST: u32 = 65_536;
/// Longer IP packets than these octets were merged on the way (GRO) or not yet cut (GSO).
pub const MERGED: u32 = 1500;

/// Whether the policy measures anything.
pub(super) fn is_metered(policy: &Policy) -> bool {
    policy.egress_kbps.is_some()
        || policy.hosts.values().any(|host| host.egress_kbps.is_some() || !host.caps.is_empty())
}

pub(super) fn add(build: &mut Build<'_>) {
    sent(build);
    if let Some(kbps) = &build.policy.egress_kbps {
        rate(build, names::rate(Owner::Global), kbps.value, kbps.path.as_str());
    }
    for (name, host) in &build.policy.hosts {
        if let Some(kbps) = &host.egress_kbps {
            rate(build, names::rate(Owner::Host(build.situation.id(Some(name)))), kbps.value, kbps.path.as_str());
        }
    }
    for (cap, state) in &build.situation.caps {
        build.object(names::cap(*cap), Object::Quota { limit: state.limit, used: 0 });
        build.object(names::rest(*cap), Object::Quota { limit: state.rest, used: 0 });
        for counter in names::cap_counters(*cap).into_array() {
            build.object(counter, Object::COUNTER);
        }
        for rule in over(*cap, &[]) {
            build.push(&names::over(*cap), rule);
        }
        for rule in stop(state) {
            build.push(&names::stop(*cap), rule);
        }
    }
    for meter in build.situation.meters.iter().filter(|meter| !meter.is_free()) {
        for (chain, rule) in rules(meter) {
            build.push(&chain, rule);
        }
    }
}

/// `up` and `down` have counted their packets before these were measured and judged, so they are counted again here,
/// where they have passed.
fn sent(build: &mut Build<'_>) {
    for (conds, map) in [(vec![Cond::Direction(Direction::Original)], names::SENT_UP), (vec![], names::SENT_DOWN)] {
        build.rule(names::SENT, conds, vec![Action::Vmap(Field::CtMark, map.into())], "counted");
    }
    build.rule(names::SENT, vec![], verdict(Verdict::Accept), "");
}

fn rate(build: &mut Build<'_>, chain: Ident, kbps: u64, path: &str) {
    let over = Cond::OverRate { rate: kbps.saturating_mul(OCTETS_PER_KBIT), burst: BURST };
    build.rule(&chain, vec![over], goto(refusals::RATE_LIMITED), path);
}

/// Packets beyond the first limit of a cap: counted, and back where they came from as long as the rest allows. They are
/// counted behind the quota, so that the counter never tells of more than the quota has charged.
/// `charged`: the caps that were charged before this one, for a packet that may not pass now.
fn over(cap: CapId, charged: &[CapId]) -> Vec<Rule> {
    let counted = || Action::CountIn(names::cap_counters(cap).over);
    let spilled = charged.iter().chain([&cap]).map(|cap| Action::CountIn(names::cap_counters(*cap).spilled));
    let beyond = Rule {
        conds: vec![Cond::OverQuota(names::rest(cap))],
        actions: [counted()].into_iter().chain(spilled).chain(goto(names::stop(cap))).collect(),
        comment: String::new(),
    };
    vec![beyond, Rule { conds: Vec::new(), actions: vec![counted()], comment: String::new() }]
}

/// What becomes of a packet that is beyond both limits of a cap.
pub fn stop(state: &CapState) -> Vec<Rule> {
    let (actions, comment) = match state {
        CapState { last: true, .. } => (goto(refusals::CAP_EXHAUSTED), "used up"),
        CapState { lenient: true, .. } => (goto(names::SENT), "monitored"),
        _ => (verdict(Verdict::Drop), "more is granted in a moment"),
    };
    vec![Rule { conds: Vec::new(), actions, comment: comment.into() }]
}

/// The transaction that changes a cap's limits and what becomes of packets beyond them.
pub fn set_cap(cap: CapId, state: &CapState, stop_too: bool) -> Vec<Op> {
    let mut ops = vec![Op::SetQuota(names::cap(cap), state.limit), Op::SetQuota(names::rest(cap), state.rest)];
    if stop_too {
        let chain = names::stop(cap);
        ops.push(Op::FlushChain(chain.clone()));
        ops.extend(stop(state).into_iter().map(|rule| Op::AddRule(chain.clone(), rule)));
    }
    ops
}

/// The chains of a meter with their rules in order: buckets first, so that what is dropped there is charged to no cap.
pub fn rules(meter: &Meter) -> Vec<(Ident, Rule)> {
    let chain = meter.chain();
    let merged = names::merged(&chain);
    let mut out: Vec<(Ident, Rule)> = Vec::new();
    let mut rule = |chain: &Ident, conds: Vec<Cond>, actions: Vec<Action>, comment: &str| {
        out.push((chain.clone(), Rule { conds, actions, comment: comment.to_owned() }));
    };
    for owner in meter.rate.map(Owner::Host).into_iter().chain(meter.all.then_some(Owner::Global)) {
        rule(&chain, vec![], jump(names::rate(owner)), "rate limit");
    }
    let caps: Vec<CapId> = meter.caps.iter().copied().collect();
    for (index, cap) in caps.iter().enumerate() {
        let beyond = if index == 0 { names::over(*cap) } else { names::over_behind(&chain, index) };
        rule(&chain, vec![Cond::OverQuota(names::cap(*cap))], jump(beyond.clone()), &names::cap(*cap));
        for one in over(*cap, &caps[..index]).into_iter().filter(|_| index > 0) {
            rule(&beyond, one.conds, one.actions, &one.comment);
        }
    }
    let count = |of: fn(CapCounters<Ident>) -> Ident| -> Vec<Action> {
        caps.iter().map(|cap| Action::CountIn(of(names::cap_counters(*cap)))).collect()
    };
    let end = || goto(meter.recheck.map_or(names::SENT.into(), names::recheck));
    if !meter.caps.is_empty() {
        // Counted before what passed, so that no reading of what passed is without the headers.
        rule(&chain, vec![Cond::Longer(MERGED)], jump(merged.clone()), "several packets in one");
        rule(&merged, vec![Cond::Family(Family::V4)], count(|counters| counters.merged4), "");
        rule(&merged, vec![Cond::Family(Family::V6)], count(|counters| counters.merged6), "");
        rule(&chain, vec![], count(|counters| counters.passed), "passed");
    }
    rule(&chain, vec![], end(), "");
    out
}

/// The transaction that makes a meter's chains.
pub fn make(meter: &Meter) -> Vec<Op> {
    let rules = rules(meter);
    let mut chains: Vec<&Ident> = rules.iter().map(|(chain, _)| chain).collect();
    chains.sort_unstable();
    chains.dedup();
    let chains: Vec<Op> = chains.into_iter().map(|chain| Op::AddChain(chain.clone(), None)).collect();
    chains.into_iter().chain(rules.into_iter().map(|(chain, rule)| Op::AddRule(chain, rule))).collect()
}
