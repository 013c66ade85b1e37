//! What agents were told, by the reference: which addresses each host may use because it asked.

use std::net::IpAddr;

use clawgress::policy::decision::{Reason, Verdict};
use clawgress::policy::model::{HostName, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::reference::{self, Leased};

use super::universe::{Entry, name};

/// An address that a host was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `None`: sources of no host.
    pub host: Option<HostName>,
    pub name: Name,
    pub link: Option<Name>,
    pub address: IpAddr,
}

/// All leases. None ends by itself during a run.
#[derive(Debug, Default)]
pub struct Book {
    pub told: Vec<Told>,
}

/// What the gateway should answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// REFUSED: not for clients out of scope.
    OutOfScope,
    /// NXDOMAIN, with the reason.
    Blocked(Reason),
    /// These addresses, possibly none.
    Addresses(Vec<IpAddr>),
}

/// Whether the policy still lets a host have what an answer for `name` over `link` gave it.
pub fn holds(policy: &Policy, host: Option<&HostName>, name: &Name, link: Option<&Name>) -> bool {
    let known = host.is_none_or(|host| policy.hosts.contains_key(host));
    let rules = policy.effective(host.filter(|_| known));
    known
        && reference::decide_name(policy, host, Some(name)).verdict == Verdict::Allow
        && link.is_none_or(|link| reference::denied_name(&rules, link).is_none())
}

impl Book {
    /// A new policy: what it does not allow is gone for good, also when a later one allows it again.
    pub fn revise(&mut self, policy: &Policy) {
        self.told.retain(|told| holds(policy, told.host.as_ref(), &told.name, told.link.as_ref()));
    }

    /// What a daemon that starts again cannot know.
    pub fn forget_links(&mut self) {
        self.told.iter_mut().for_each(|told| told.link = None);
    }

    /// The leases as the reference wants them, in the order the daemon has them.
    pub fn leases(&self) -> Vec<Leased<'_>> {
        let mut leases: Vec<Leased<'_>> = self
            .told
            .iter()
            .map(|told| Leased { host: told.host.as_ref(), name: &told.name, address: told.address })
            .collect();
        leases.sort_by(|a, b| a.name.cmp(b.name));
        leases
    }

    /// The names, with the aliases on the way, under which a host holds an address.
    pub fn names(&self, host: Option<&HostName>, address: IpAddr) -> Vec<(Name, Option<Name>)> {
        let own = self.told.iter().filter(|told| told.host.as_ref() == host && told.address == address);
        own.map(|told| (told.name.clone(), told.link.clone())).collect()
    }

    /// A question and its answer by the reference; what the answer leases is written down.
    pub fn ask(&mut self, policy: &Policy, source: IpAddr, interface: &str, entry: &Entry, v4: bool) -> Answer {
        if !reference::in_scope(policy, source, interface) {
            return Answer::OutOfScope;
        }
        let host = reference::host_of(policy, source);
        let (asked, link) = (name(entry.name), entry.alias.map(name));
        let named = reference::decide_name(policy, host, Some(&asked));
        if named.verdict != Verdict::Allow {
            return Answer::Blocked(named.reason);
        }
        let rules = policy.effective(host);
        if link.as_ref().is_some_and(|link| reference::denied_name(&rules, link).is_some()) {
            return Answer::Blocked(Reason::Denied);
        }
        let (mut good, mut refused) = (Vec::new(), None);
        for address in entry.addresses.iter().map(|text| text.parse::<IpAddr>().expect("an address")) {
            if address.is_ipv4() != v4 {
                continue;
            }
            let open = reference::decide_address(policy, host, address, None, &[]);
            match open.reason {
                // The answer outlives a policy that takes the line out of allow.ips, so it is a lease all the same.
                Reason::Allowed if reference::is_special(address) => good.push(address),
                Reason::Denied => {
                    refused.get_or_insert(Reason::Denied);
                }
                Reason::NoLease | Reason::NotAllowlisted if reference::is_special(address) => {
                    refused.get_or_insert(Reason::Rebinding);
                }
                _ => {
                    let told = Told { host: host.cloned(), name: asked.clone(), link: link.clone(), address };
                    self.told.retain(|old| Told { link: told.link.clone(), ..old.clone() } != told);
                    self.told.push(told);
                    good.push(address);
                }
            }
        }
        match refused {
            Some(reason) if good.is_empty() => Answer::Blocked(reason),
            _ => Answer::Addresses(good),
        }
    }
}
