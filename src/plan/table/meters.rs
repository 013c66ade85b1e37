//! Rate limits and caps: the chains that the verdicts of metered classes lead to.

use super::super::ir::{Action, Cond, Family, Ident, Object, Rule, Verdict};
use super::super::meter::{CapId, CapState, Meter};
use super::super::ops::Op;
use super::build::{Build, goto, jump, verdict};
use super::names::{self, Owner};
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
    build.rule("b_rate", vec![], vec![Action::Counter, Action::Verdict(Verdict::Drop)], "rate-limited");
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
        for counter in names::cap_counters(*cap) {
            build.object(counter, Object::COUNTER);
        }
        for rule in over(*cap, state) {
            build.push(&names::over(*cap), rule);
        }
    }
    for meter in build.situation.meters.iter().filter(|meter| !meter.is_free()) {
        for (chain, rule) in rules(meter) {
            build.push(&chain, rule);
        }
    }
}

fn rate(build: &mut Build<'_>, chain: Ident, kbps: u64, path: &str) {
    let over = Cond::OverRate { rate: kbps.saturating_mul(OCTETS_PER_KBIT), burst: BURST };
    build.rule(&chain, vec![over], goto("b_rate"), path);
}

/// What becomes of a packet that is over a cap's limit.
pub fn over(cap: CapId, state: &CapState) -> Vec<Rule> {
    let [_, spilled, ..] = names::cap_counters(cap);
    let (end, comment) =
        if state.last { (goto("b_cap"), "used up") } else { (verdict(Verdict::Drop), "more is granted in a moment") };
    let actions = std::iter::once(Action::CountIn(spilled)).chain(end).collect();
    vec![Rule { conds: Vec::new(), actions, comment: comment.into() }]
}

/// The transaction that changes a cap's limit and what becomes of packets over it.
pub fn set_cap(cap: CapId, state: &CapState, over_too: bool) -> Vec<Op> {
    let mut ops = vec![Op::SetQuota(names::cap(cap), state.limit)];
    if over_too {
        let chain = names::over(cap);
        ops.push(Op::FlushChain(chain.clone()));
        ops.extend(over(cap, state).into_iter().map(|rule| Op::AddRule(chain.clone(), rule)));
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
    let counters =
        |index: usize| meter.caps.iter().map(move |cap| Action::CountIn(names::cap_counters(*cap)[index].clone()));
    for (index, cap) in meter.caps.iter().enumerate() {
        // The caps before it were charged for a packet that does not pass.
        let spilled = counters(1).take(index).chain(goto(names::over(*cap))).collect();
        rule(&chain, vec![Cond::OverQuota(names::cap(*cap))], spilled, &format!("{}{}", names::CAP, cap.0));
    }
    let end = || meter.recheck.map_or_else(|| verdict(Verdict::Accept), |host| goto(names::recheck(host)));
    if !meter.caps.is_empty() {
        rule(&chain, vec![], counters(0).collect(), "passed");
        rule(&chain, vec![Cond::Longer(MERGED)], goto(merged.clone()), "several packets in one");
        for (family, index) in [(Family::V4, 2), (Family::V6, 3)] {
            rule(&merged, vec![Cond::Family(family)], counters(index).collect(), "");
        }
        rule(&merged, vec![], end(), "");
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
