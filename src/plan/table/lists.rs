//! The address lists of a policy as sets hold them.
//!
//! They are most of a large policy, and they do not depend on the situation: so they are sorted and digested once,
//! outside the thread that answers wait for, and shared by every table that is built of the policy.

use std::collections::HashMap;

use ipnet::IpNet;

use super::super::ir::{Elements, Family, Key};
use super::build::member;
use super::hosts::segments;
use crate::policy::model::{List, Pointer, Policy};

/// The elements by list, family, and whether they are networks (else single addresses).
#[derive(Debug, Default)]
pub struct Lists(HashMap<(Pointer, Family, bool), Elements>);

impl Lists {
    /// Sorts the lists of a policy.
    pub fn of(policy: &Policy) -> Self {
        let mut lists = Self::default();
        let hosts = policy.hosts.values().map(|host| (&host.allow, &host.deny));
        for (allow, deny) in hosts.chain([(&policy.allow, &policy.deny)]) {
            for list in [&allow.ips, &deny.ips].into_iter().flatten() {
                lists.add(list);
            }
        }
        lists
    }

    /// Single addresses go to a hash, networks to an interval set: a hash is ten times as fast and holds any number.
    fn add(&mut self, list: &List<IpNet>) {
        for family in Family::BOTH {
            let own = || list.entries.iter().filter(|net| Family::of(net.addr()) == family);
            let is_single = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
            let single: Elements = own().filter(is_single).map(|net| member(Key::Address(net.addr()))).collect();
            // A network inside another one adds nothing to a set; only the outermost stays.
            let networks = segments(own().filter(|net| !is_single(net)).map(|net| (net.trunc(), ())));
            let networks: Elements =
                networks.into_keys().map(|(first, last)| member(Key::Range(first, last))).collect();
            // By these the names of their sets are found, each time a table is built.
            let _ = (single.digest(), networks.digest());
            self.0.insert((list.path.clone(), family, false), single);
            self.0.insert((list.path.clone(), family, true), networks);
        }
    }

    /// The elements of one set; none for a list of another policy.
    pub(super) fn elements(&self, list: &List<IpNet>, family: Family, networks: bool) -> Elements {
        self.0.get(&(list.path.clone(), family, networks)).cloned().unwrap_or_default()
    }
}
