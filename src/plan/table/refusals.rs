//! The ends of packets: one chain for each reason to refuse one, with a counter, so that the table itself says what it
//! refused and why; and the copies that go to the decision log.
//!
//! ```text
//! b_REASON: count ─▶ a copy to the log, so many a second ─▶ deny: reset or admin-prohibited
//! ```
//!
//! The counter counts every packet, the copies are rationed: a flood of refusals costs a counter and a look at a
//! bucket, and what was not copied is known by its number.

use super::super::ir::{
    Action, Cond, Data, DataType, Direction, End, Family, Field, Ident, Key, KeyType, Lookup, States, Value, Verdict,
    proto,
};
use super::super::situation::Reports;
use super::build::{Build, goto, member, verdict};
use super::hosts::everybody;
use super::names;
use super::scope::{self, Side};
use crate::policy::decision::Reason;

/// The NFLOG group of the copies. Below 100 other programs have theirs by habit (ulogd, hsflowd).
pub const GROUP: u16 = 20_017;
/// Octets of a packet that are copied: an IPv6 header with extensions and the ports behind it.
const SNAPLEN: u32 = 128;
/// Copies a second of each reason and direction. Taking one in costs about two microseconds of a processor.
const RATE: u32 = 1000;
/// Copies at once after a pause: a burst of an agent that tries many places is seen whole.
const BURST: u32 = 500;
/// What stands behind the chain's name in the prefix of a copy whose packet answers the flow's opener.
const REPLY: &str = " reply";

/// A chain that refuses.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, and the prefix of its copies.
    pub chain: &'static str,
    /// The comment of its counter.
    comment: &'static str,
    /// The reasons that a packet can have to come here, the usual one first.
    pub reasons: &'static [Reason],
}

const fn refusal(chain: &'static str, comment: &'static str, reasons: &'static [Reason]) -> Refusal {
    Refusal { chain, comment, reasons }
}

/// All chains that refuse.
pub static REFUSALS: [Refusal; 12] = [
    refusal("b_malformed", "malformed", &[Reason::Malformed]),
    refusal("b_denied", "denied", &[Reason::Denied]),
    refusal("b_port", "port-not-allowed", &[Reason::PortNotAllowed]),
    refusal("b_proto", "port-not-allowed: protocol", &[Reason::PortNotAllowed]),
    refusal("b_special", "not-allowlisted: special address", &[Reason::NotAllowlisted]),
    // The host may have no names at all, so that no answer could give it a lease.
    refusal("b_lease", "no-lease", &[Reason::NoLease, Reason::NotAllowlisted]),
    refusal("b_window", "window-closed", &[Reason::WindowClosed]),
    refusal(CAP_EXHAUSTED, "cap-exhausted", &[Reason::CapExhausted]),
    refusal(RATE_LIMITED, "rate-limited", &[Reason::RateLimited]),
    refusal("b_inbound", "not-allowlisted: opened from outside", &[Reason::NotAllowlisted]),
    refusal("b_gateway", "not-allowlisted: the gateway's own service", &[Reason::NotAllowlisted]),
    refusal(SPOOFED, "malformed: a source that it cannot have", &[Reason::Malformed]),
];

/// The chain of packets with a source that they cannot have.
pub const SPOOFED: &str = "b_spoofed";
/// The chain of packets for which an exfil cap leaves nothing.
pub const CAP_EXHAUSTED: &str = "b_cap";
/// The chain of packets over a rate limit.
pub const RATE_LIMITED: &str = "b_rate";
/// The chain that lets through, and says so if all decisions are to be recorded.
pub const PASSED: &str = "passed";

/// Where a copy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flow that was let through.
    Passed,
    /// The refusal with this place in [`REFUSALS`].
    Refused(usize),
}

/// Reads the prefix of a copy: its chain, and whether the packet answered the side that opened its flow.
pub fn origin(prefix: &str) -> Option<(Origin, bool)> {
    let (chain, reply) = prefix.strip_suffix(REPLY).map_or((prefix, false), |chain| (chain, true));
    if chain == PASSED {
        return Some((Origin::Passed, reply));
    }
    let place = REFUSALS.iter().position(|refusal| refusal.chain == chain)?;
    Some((Origin::Refused(place), reply))
}

pub(super) fn add(build: &mut Build<'_>) {
    for refusal in &REFUSALS {
        build.rule(refusal.chain, vec![], vec![Action::Counter], refusal.comment);
        // Whoever is over a rate shall send again later, so it hears nothing.
        let silent = [SPOOFED, RATE_LIMITED].contains(&refusal.chain);
        let end = if silent { verdict(Verdict::Drop) } else { goto(names::DENY) };
        if build.situation.reports != Reports::None {
            copies(build, refusal.chain, &end);
        }
        build.rule(refusal.chain, vec![], end, "");
    }
    if build.situation.reports == Reports::All {
        build.rule(PASSED, vec![], vec![Action::Counter], "allowed");
        copies(build, PASSED, &verdict(Verdict::Return));
    }
    let refuse = if build.situation.monitored.is_empty() {
        names::DENY
    } else {
        monitor(build);
        names::REFUSE
    };
    // The mark goes: nothing of ours stays on a flow that we refuse.
    build.rule(refuse, vec![], vec![Action::SetMark(0)], "");
    build.rule(refuse, vec![Cond::Proto(proto::TCP)], vec![Action::Reset], "fast refusal");
    build.rule(refuse, vec![], vec![Action::Prohibit], "fast refusal");
}

/// Where nothing is enforced a flow that would have been refused passes, under a class that says so: it is noted once.
fn monitor(build: &mut Build<'_>) {
    for family in Family::BOTH {
        let ranges: Vec<_> = everybody(build, family)
            .into_iter()
            .filter_map(|(range, host)| Some((range, *build.situation.monitored.get(&host)?)))
            .collect();
        let map = names::of(names::MONITORED, family);
        let marks =
            ranges.iter().map(|((first, last), class)| (Key::Range(*first, *last), Value::plain(Data::Mark(*class))));
        build.plain_set(map.clone(), KeyType::Address(family), DataType::Mark, true, marks);
        let raw = names::of(names::UNTRACKED, family);
        let members = ranges.iter().map(|((first, last), _)| member(Key::Range(*first, *last)));
        build.plain_set(raw.clone(), KeyType::Address(family), DataType::None, true, members);

        let passing = |agent| {
            let class = Action::SetMarkFrom(Lookup::One(Field::Ct(agent, family, End::Source)), map.clone());
            [vec![class], goto(names::SENT)].concat()
        };
        let rules = |build: &mut Build<'_>, direction, side, agent| {
            for inside in scope::conditions_of(build, side, family) {
                let conds: Vec<_> =
                    [Cond::Family(family), Cond::Direction(direction)].into_iter().chain(inside).collect();
                build.rule(names::DENY, conds.clone(), passing(agent), "monitored");
                build.rule(names::DENY, conds, goto(names::REFUSE), "");
            }
        };
        // Whose flow it is: the opener's, if that is in scope, else that of the agent who answers.
        rules(build, Direction::Original, Side::Sender, Direction::Original);
        rules(build, Direction::Reply, Side::Opener, Direction::Original);
        rules(build, Direction::Reply, Side::Sender, Direction::Reply);
        for inside in scope::conditions_of(build, Side::Sender, family) {
            let lost = Cond::State(States::INVALID.or(States::UNTRACKED));
            let from = Cond::In { field: Field::Packet(family, End::Source), set: raw.clone(), negate: false };
            let conds = [Cond::Family(family), lost].into_iter().chain(inside).chain([from]).collect();
            build.rule(names::DENY, conds, verdict(Verdict::Accept), "monitored");
        }
    }
    build.rule(names::DENY, vec![], goto(names::REFUSE), "");
}

/// Copies say which way the packet went: nobody who sees the packet alone could tell who opened the flow.
fn copies(build: &mut Build<'_>, chain: &str, end: &[Action]) {
    let within = Cond::Within { rate: RATE, burst: BURST };
    let log = |prefix: Ident| vec![Action::Log { group: GROUP, prefix, snaplen: SNAPLEN }];
    let reply = Cond::Direction(Direction::Reply);
    build.rule(chain, vec![reply.clone(), within.clone()], log(format!("{chain}{REPLY}").into()), "");
    build.rule(chain, vec![reply], end.to_vec(), "");
    build.rule(chain, vec![within], log(chain.into()), "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_back() {
        for (place, refusal) in REFUSALS.iter().enumerate() {
            assert_eq!(origin(refusal.chain), Some((Origin::Refused(place), false)));
            assert_eq!(origin(&format!("{}{REPLY}", refusal.chain)), Some((Origin::Refused(place), true)));
        }
        assert_eq!(origin("passed reply"), Some((Origin::Passed, true)));
        for foreign in ["", " reply", "b_", "b_leases", "b_lease reply reply"] {
            assert_eq!(origin(foreign), None, "{foreign:?}");
        }
    }
}
