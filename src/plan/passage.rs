//! What the compiled policy says of a flow or a query, and on which windows that depends: the decision of
//! [`crate::policy::reference`] taken apart, so that it can be asked once and hold for many moments.

use std::net::IpAddr;

use super::ids::HostId;
use super::snapshot::Snapshot;
use crate::policy::decision::{Reason, Verdict};
use crate::policy::model::{Effective, Located, Window};
use crate::policy::name::Name;
use crate::policy::reference::{Protocol, has_names, is_special, refused_port};

/// The windows that must be open at once; none: it is open whatever the time.
pub type Windows<'s> = [Option<&'s Located<Window>>; 2];

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage<'s> {
    /// Nothing, whatever the time.
    Refused(Reason),
    /// As long as the windows of one of these are open. Never empty.
    While(Vec<Windows<'s>>),
}

impl Snapshot {
    /// What holds for a query of a name.
    pub fn query(&self, host: HostId, name: Option<&Name>) -> Passage<'_> {
        let decision = self.decide_name(host, name);
        match decision.verdict {
            Verdict::Allow => Passage::While(vec![self.windows(host, name)]),
            _ => Passage::Refused(decision.reason),
        }
    }

    /// What holds for what a host sends to an address that it was given for these names. `rules`: the host's own, of
    /// the policy that this was compiled from.
    pub fn flow<'n>(
        &self,
        host: HostId,
        rules: &Effective<'_>,
        address: IpAddr,
        protocol: Protocol,
        names: impl IntoIterator<Item = &'n Name>,
    ) -> Passage<'_> {
        if let Some(denied) = self.denied_peer(host, address) {
            return Passage::Refused(denied.reason);
        }
        if let Some(refused) = refused_port(rules, protocol) {
            return Passage::Refused(refused.reason);
        }
        if self.is_open(host, address) {
            return Passage::While(vec![self.windows(host, None)]);
        }
        // What no answer may hold was given by an answer of an earlier policy, if at all.
        let barred = self.denied_answer(host, address).is_some();
        let allowed = |name: &&Name| !barred && self.decide_name(host, Some(name)).verdict == Verdict::Allow;
        let windows: Vec<_> = names.into_iter().filter(allowed).map(|name| self.windows(host, Some(name))).collect();
        if !windows.is_empty() {
            return Passage::While(windows);
        }
        let leasable = has_names(rules) && !is_special(address);
        Passage::Refused(if leasable { Reason::NoLease } else { Reason::NotAllowlisted })
    }
}
