//! The policy compiled for the DNS server: one look-up per label, whatever the number of names and hosts.
//!
//! A snapshot is immutable and shared; a new revision is a new snapshot. It answers as [`crate::policy::reference`]
//! does (a property test holds them together).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use ipnet::IpNet;

use super::ids::HostId;
use super::listed::Names;
use super::table::segments;
pub use super::windows::Openness;
use super::windows::Windows;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::{HostName, List, Located, Mode, Pointer, Policy, Window};
use crate::policy::name::{Name, Pattern};
use crate::policy::patterns::Domains;
use crate::policy::reference::is_special;
use crate::policy::schedule::Moment;

/// Disjoint ranges with a value each.
type Ranges<T> = BTreeMap<(IpAddr, IpAddr), T>;

/// What one host (or nobody) may reach.
#[derive(Debug)]
struct View {
    name: Option<HostName>,
    mode: Mode,
    /// Names that may be reached: the first list that has one speaks.
    domains: Vec<Names>,
    /// What a refusal names where no list has the name.
    names_path: Option<Pointer>,
    /// Names that may never be reached, likewise.
    deny_domains: Vec<Names>,
    ips: Option<Arc<Ranges<()>>>,
    deny_ips: Vec<(Arc<Ranges<u32>>, List<IpNet>)>,
    windows: Windows,
    /// The host has exfil caps.
    capped: bool,
}

/// The compiled policy.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision it was compiled from.
    pub revision: u64,
    hosts: Ranges<HostId>,
    views: HashMap<HostId, View>,
    scope: Option<Ranges<()>>,
    interfaces: Option<HashSet<String>>,
    own: HashSet<IpAddr>,
    zone: Tz,
}

/// What becomes of one address that an answer for an allowed name holds.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may be told once it is leased.
    Lease,
    /// Only `allow.ips` can open it, and does; but the host has caps, so the kernel must know first for which name.
    Charged,
    /// Only `allow.ips` can open it, and does: it may be told and needs no lease.
    Open,
    /// A denylist line covers it: it may not be told.
    Denied(Decision),
    /// No public name should point there (SPEC section 2, meaning 7): it may not be told.
    Rebinding,
}

impl Snapshot {
    /// Compiles. `ids` has every host of the policy; `own` are the gateway's addresses, `zone` is its own time zone.
    pub fn compile(
        policy: &Policy,
        ids: &BTreeMap<HostName, HostId>,
        own: impl IntoIterator<Item = IpAddr>,
        zone: Tz,
        revision: u64,
    ) -> Self {
        Self::compile_of(policy, &Indexes::of(policy), ids, own, zone, revision)
    }

    /// [`Snapshot::compile`] with the policy's lists indexed already.
    pub fn compile_of(
        policy: &Policy,
        indexes: &Indexes,
        ids: &BTreeMap<HostName, HostId>,
        own: impl IntoIterator<Item = IpAddr>,
        zone: Tz,
        revision: u64,
    ) -> Self {
        let hosts = policy.hosts.keys().filter_map(|name| Some((*ids.get(name)?, Some(name))));
        let views = hosts.chain([(HostId::NOBODY, None)]).map(|(id, name)| (id, indexes.view(policy, name))).collect();
        let sources = policy.hosts.iter().flat_map(|(name, host)| {
            let id = ids.get(name).copied().unwrap_or(HostId::NOBODY);
            host.sources.entries.iter().map(move |net| (*net, id))
        });
        Self {
            revision,
            hosts: ranges(sources),
            views,
            scope: policy.scope.sources.as_ref().map(|list| ranges(list.entries.iter().map(|net| (*net, ())))),
            interfaces: policy.scope.interfaces.as_ref().map(|list| list.entries.iter().cloned().collect()),
            own: own.into_iter().collect(),
            zone: policy.time_zone.as_ref().map_or(zone, |zone| zone.value),
        }
    }

    /// The instant in the zone of the policy's windows.
    pub fn moment(&self, utc: DateTime<Utc>) -> Moment {
        Moment { utc, zone: self.zone }
    }

    /// Whether flows of `host` under these names are open at an instant: the host's window and the window of one of the
    /// names. No names: what `allow.ips` opens, for which only the host's window counts.
    pub fn openness<'n>(
        &self,
        host: HostId,
        names: impl IntoIterator<Item = &'n Name>,
        utc: DateTime<Utc>,
    ) -> Openness {
        let Some(view) = self.views.get(&host) else { return Openness::Closed };
        if view.windows.are_none() {
            return Openness::Always;
        }
        let moment = self.moment(utc);
        // A name that is not allowed any more opens nothing for the others.
        let of_name = |name: &Name| match self.decide_name(host, Some(name)).verdict {
            Verdict::Allow => Openness::of(view.windows.of(name), &moment),
            _ => Openness::Closed,
        };
        let names = names.into_iter().map(of_name).reduce(Openness::or).unwrap_or(Openness::Always);
        Openness::of(view.windows.all.as_ref(), &moment).and(names)
    }

    /// The host a source belongs to. `None`: the policy is not about this source. An unknown interface is in no
    /// scope that names interfaces.
    pub fn client(&self, source: IpAddr, interface: Option<&str>) -> Option<HostId> {
        let source_in = self.scope.as_ref().is_none_or(|scope| find(scope, source).is_some());
        let interface_in =
            self.interfaces.as_ref().is_none_or(|names| interface.is_some_and(|name| names.contains(name)));
        (source_in && interface_in).then(|| self.host_of(source))
    }

    /// The host that has the most specific source around an address, in scope or not.
    pub fn host_of(&self, source: IpAddr) -> HostId {
        find(&self.hosts, source).copied().unwrap_or(HostId::NOBODY)
    }

    /// The name of a host.
    pub fn host_name(&self, id: HostId) -> Option<&HostName> {
        self.views.get(&id)?.name.as_ref()
    }

    /// Whether verdicts on a host are enforced.
    pub fn mode(&self, id: HostId) -> Mode {
        self.views.get(&id).map_or(Mode::Enforce, |view| view.mode)
    }

    /// The verdict on a name at an instant.
    pub fn decide_name_at(&self, host: HostId, name: Option<&Name>, utc: DateTime<Utc>) -> Decision {
        let decision = self.decide_name(host, name);
        let (Verdict::Allow, Some(name), Some(view)) = (decision.verdict, name, self.views.get(&host)) else {
            return decision;
        };
        if view.windows.are_none() {
            return decision;
        }
        match view.windows.closed(name, &self.moment(utc)) {
            Some(window) => view.block(Reason::WindowClosed, Some(window.path.clone()), decision.domain),
            None => decision,
        }
    }

    /// The verdict on a name, whatever the time.
    pub fn decide_name(&self, host: HostId, name: Option<&Name>) -> Decision {
        let Some(view) = self.views.get(&host) else { return nobody() };
        let unlisted = || view.block(Reason::NotAllowlisted, view.names_path.clone(), None);
        let Some(name) = name else { return unlisted() };
        if let Some(denied) = self.denied_link(host, name) {
            return denied;
        }
        match view.domains.iter().find_map(|names| names.allows(name)) {
            Some((path, pattern)) => Decision {
                verdict: Verdict::Allow,
                reason: Reason::Allowed,
                path: Some(path),
                host: view.name.clone(),
                domain: Some(pattern),
                mode: view.mode,
            },
            None => unlisted(),
        }
    }

    /// The denylist line that names `name`, if one does.
    pub fn denied_link(&self, host: HostId, name: &Name) -> Option<Decision> {
        let view = self.views.get(&host)?;
        let (path, pattern) = view.deny_domains.iter().find_map(|names| names.denies(name))?;
        Some(view.block(Reason::Denied, Some(path), Some(pattern)))
    }

    /// The verdict of a list in a file that keeps an address out of every answer.
    pub fn denied_answer(&self, host: HostId, address: IpAddr) -> Option<Decision> {
        let view = self.views.get(&host)?;
        let path = view.deny_domains.iter().find_map(|names| names.denies_address(address))?;
        Some(view.block(Reason::Denied, Some(path), None))
    }

    /// The line of `deny.ips` that shuts an address, whichever way it became known.
    pub fn denied_peer(&self, host: HostId, address: IpAddr) -> Option<Decision> {
        let view = self.views.get(&host)?;
        let line =
            view.deny_ips.iter().find_map(|(ranges, list)| Some(list.entry_path(*find(ranges, address)? as usize)));
        Some(view.block(Reason::Denied, Some(line?), None))
    }

    /// What may happen to an address in an answer for an allowed name.
    pub fn judge_address(&self, host: HostId, address: IpAddr) -> AddressVerdict {
        let Some(view) = self.views.get(&host) else { return AddressVerdict::Rebinding };
        if let Some(denied) = self.denied_peer(host, address).or_else(|| self.denied_answer(host, address)) {
            return AddressVerdict::Denied(denied);
        }
        if !is_special(address) && !self.own.contains(&address) {
            // Also where allow.ips covers it: the answer outlives a policy that takes the line out.
            return AddressVerdict::Lease;
        }
        if view.opens(address) {
            return if view.capped { AddressVerdict::Charged } else { AddressVerdict::Open };
        }
        AddressVerdict::Rebinding
    }

    /// The windows that must be open for a host, and for a name that it asks for.
    pub(super) fn windows(&self, host: HostId, name: Option<&Name>) -> [Option<&Located<Window>>; 2] {
        let Some(view) = self.views.get(&host) else { return [None, None] };
        [view.windows.all.as_ref(), name.and_then(|name| view.windows.of(name))]
    }

    /// Whether it is an address of the gateway itself.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The zone of the policy's windows.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// Whether `allow.ips` opens an address to a host.
    pub fn is_open(&self, host: HostId, address: IpAddr) -> bool {
        self.views.get(&host).is_some_and(|view| {
            view.opens(address) && !view.deny_ips.iter().any(|(ranges, _)| find(ranges, address).is_some())
        })
    }
}

impl View {
    fn opens(&self, address: IpAddr) -> bool {
        self.ips.as_ref().is_some_and(|ranges| find(ranges, address).is_some())
    }

    fn block(&self, reason: Reason, path: Option<Pointer>, domain: Option<Pattern>) -> Decision {
        Decision { verdict: Verdict::Block, reason, path, host: self.name.clone(), domain, mode: self.mode }
    }
}

/// A host that this revision does not know reaches nothing.
fn nobody() -> Decision {
    Decision {
        verdict: Verdict::Block,
        reason: Reason::NotAllowlisted,
        path: None,
        host: None,
        domain: None,
        mode: Mode::Enforce,
    }
}

/// The lists of networks of a policy as the snapshot looks them up; lists of names can be asked as they are. Lists that
/// hosts inherit are indexed once; a list is known by its place in the document.
#[derive(Debug, Default)]
pub struct Indexes {
    ips: HashMap<Pointer, Arc<Ranges<()>>>,
    deny: HashMap<Pointer, Arc<Ranges<u32>>>,
}

impl Indexes {
    /// Indexes the lists of a policy.
    pub fn of(policy: &Policy) -> Self {
        let mut indexes = Self::default();
        let hosts = policy.hosts.values().map(|host| (&host.allow, &host.deny));
        for (allow, deny) in hosts.chain([(&policy.allow, &policy.deny)]) {
            if let Some(list) = &allow.ips {
                let nets = list.entries.iter().map(|net| (*net, ()));
                indexes.ips.insert(list.path.clone(), Arc::new(ranges(nets)));
            }
            if let Some(list) = &deny.ips {
                // Of equal networks the first one speaks, so the later ones go in first.
                let mut nets: Vec<_> = list.entries.iter().copied().zip(0u32..).collect();
                nets.reverse();
                let unique: BTreeMap<IpNet, u32> = nets.into_iter().collect();
                indexes.deny.insert(list.path.clone(), Arc::new(ranges(unique)));
            }
        }
        indexes
    }

    fn view(&self, policy: &Policy, host: Option<&HostName>) -> View {
        let rules = policy.effective(host);
        let names = |list: &Domains| Names::Written(list.clone());
        let written = rules.deny_domains.map(|list| list.map(names));
        let deny_domains = written.into_iter().zip(rules.deny_lists);
        View {
            name: rules.host.cloned(),
            mode: rules.mode,
            windows: Windows::new(&rules),
            capped: host.and_then(|name| policy.hosts.get(name)).is_some_and(|host| !host.caps.is_empty()),
            domains: rules.domains.map(names).into_iter().chain(Names::in_files(rules.domain_lists)).collect(),
            names_path: rules.domains.map(|list| &list.path).or(rules.domain_lists.map(|list| &list.path)).cloned(),
            deny_domains: deny_domains.flat_map(|(own, files)| own.into_iter().chain(Names::in_files(files))).collect(),
            ips: rules.ips.and_then(|list| self.ips.get(&list.path).cloned()),
            deny_ips: rules
                .deny_ips
                .into_iter()
                .flatten()
                .filter_map(|list| Some((self.deny.get(&list.path)?.clone(), list.clone())))
                .collect(),
        }
    }
}

/// [`segments`] of both families together.
fn ranges<T: Copy>(nets: impl IntoIterator<Item = (IpNet, T)>) -> Ranges<T> {
    let (v4, v6): (Vec<_>, Vec<_>) = nets.into_iter().partition(|(net, _)| net.addr().is_ipv4());
    let mut out = segments(v4);
    out.extend(segments(v6));
    out
}

fn find<T>(ranges: &Ranges<T>, address: IpAddr) -> Option<&T> {
    let top = match address {
        IpAddr::V4(_) => IpAddr::from([255; 4]),
        IpAddr::V6(_) => IpAddr::from([255; 16]),
    };
    let ((first, last), value) = ranges.range(..=(address, top)).next_back()?;
    (*first <= address && address <= *last).then_some(value)
}
