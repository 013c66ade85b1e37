//! The policy after validation: every value legal by its type, every entry with the place it was written at.
//!
//! A [`Policy`] can be made only by [`crate::policy::parse()`], so whoever holds one need not check anything again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use chrono::{NaiveTime, Weekday};
use chrono_tz::Tz;
use ipnet::IpNet;

use super::lists::Contents;
use super::name::{Name, Pattern};
use super::patterns::Domains;

/// Ports that are open where a policy names none (SPEC section 2, meaning 2).
pub const DEFAULT_PORTS: [u16; 3] = [53, 80, 443];

/// A place in the policy document as a JSON Pointer (RFC 6901), such as `/hosts/agent-1/allow/domains/0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(pub(crate) Arc<str>);

impl Pointer {
    /// The pointer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of an entry of the list at this one.
    pub fn entry(&self, index: usize) -> Self {
        Self(Arc::from(format!("{self}/{index}")))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value and the place where the policy says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located<T> {
    /// What was written, normalised.
    pub value: T,
    /// Where it was written.
    pub path: Pointer,
}

/// A list the policy wrote (possibly empty, which means "none"), with its place. The places of its entries are
/// `path/0`, `path/1`, … ; see [`List::entry_path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T> {
    /// Entries in the order written; duplicates are kept, so that indices are the document's.
    pub entries: Arc<[T]>,
    /// Where the list is.
    pub path: Pointer,
}

impl<T> List<T> {
    /// The place of entry `index`.
    pub fn entry_path(&self, index: usize) -> Pointer {
        self.path.entry(index)
    }
}

/// Enforce for real, or let pass and record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Block what the policy does not allow.
    #[default]
    Enforce,
    /// Let everything pass; record what would have been blocked.
    Monitor,
}

/// The traffic that the policy is about. Both fields given: a packet must satisfy both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Police only these sources. `None`: any. Never an empty list.
    pub sources: Option<List<IpNet>>,
    /// Police only what enters by these interfaces. `None`: any. Never an empty list.
    pub interfaces: Option<List<String>>,
}

/// A list of names kept in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainList {
    /// The user's name for it.
    pub name: String,
    /// Where the file is.
    pub file: String,
    /// How to read the file.
    pub format: ListFormat,
    /// What the file says; `None` until somebody has read it ([`Policy::with_contents`]). Such a policy is not enforced.
    pub contents: Option<Arc<Contents>>,
}

impl DomainList {
    /// What makes two lists one.
    pub fn key(&self) -> ListFile {
        (self.file.clone(), self.format)
    }
}

/// The formats of domain list files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListFormat {
    /// One name a line.
    Domains,
    /// `hosts(5)` lines.
    Hosts,
    /// A response-policy zone.
    Rpz,
    /// `||name^` lines.
    Adblock,
}

impl ListFormat {
    /// All of them, in the order of the policy's description.
    pub const ALL: [Self; 4] = [Self::Domains, Self::Hosts, Self::Rpz, Self::Adblock];

    /// The word that a policy has for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Hosts => "hosts",
            Self::Rpz => "rpz",
            Self::Adblock => "adblock",
        }
    }

    /// The format that a policy calls so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }
}

/// A file and how it is read: lists that agree in both share their contents.
pub type ListFile = (String, ListFormat);

/// What may be reached. An absent field is inherited (host) or the default (global: nothing, default ports).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Names.
    pub domains: Option<Domains>,
    /// Addresses.
    pub ips: Option<List<IpNet>>,
    /// Destination ports, TCP and UDP alike.
    pub ports: Option<List<u16>>,
    /// Names in files.
    pub domain_lists: Option<List<DomainList>>,
}

/// What may never be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deny {
    /// Names.
    pub domains: Option<Domains>,
    /// Addresses.
    pub ips: Option<List<IpNet>>,
    /// Names in files.
    pub domain_lists: Option<List<DomainList>>,
}

/// Days and times at which something is open, wall clock in the policy's zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which the window starts. Never empty: absent `days` are all seven.
    pub days: BTreeSet<Day>,
    /// Start and end; `None`: the whole day. `start > end` crosses midnight. Never equal.
    pub hours: Option<(NaiveTime, NaiveTime)>,
}

/// A weekday with an order (Monday first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u8);

impl Day {
    /// The day as chrono names it.
    pub fn weekday(self) -> Weekday {
        [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun]
            [usize::from(self.0 % 7)]
    }
}

/// The period of an exfil cap; aligned to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Turns every second.
    Second,
    /// Turns at :00 of the minute.
    Minute,
    /// Turns at the full hour.
    Hour,
    /// Turns at local midnight.
    Day,
}

/// Upload bytes from one host to one domain per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// IP packet bytes, upload direction. Never 0.
    pub bytes: u64,
    /// How often the count starts again.
    pub period: Period,
}

/// The name of a host block: 1 to 63 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(pub(crate) Arc<str>);

impl HostName {
    /// A name that a policy had once.
    pub fn from_record(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One block of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where the block is.
    pub path: Pointer,
    /// The agents' source addresses. Never empty; no CIDR stands in two hosts.
    pub sources: List<IpNet>,
    /// What replaces the global allowlists, field by field.
    pub allow: Allow,
    /// What is denied besides the global denylist.
    pub deny: Deny,
    /// `None`: the global mode.
    pub mode: Option<Located<Mode>>,
    /// Replaces the global window.
    pub time_window: Option<Located<Window>>,
    /// Merged over the global ones.
    pub domain_time_windows: BTreeMap<Pattern, Located<Window>>,
    /// This host's own bucket, kilobits (1000 bits) per second. Never 0.
    pub egress_kbps: Option<Located<u64>>,
    /// Caps by domain.
    pub caps: BTreeMap<Pattern, Located<Cap>>,
}

/// A valid policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Global mode.
    pub mode: Option<Located<Mode>>,
    /// The zone of windows and of day caps; `None`: the system's.
    pub time_zone: Option<Located<Tz>>,
    /// The traffic that the policy is about.
    pub scope: Scope,
    /// Global allowlists.
    pub allow: Allow,
    /// Global denylists.
    pub deny: Deny,
    /// Labels by domain.
    pub labels: BTreeMap<Pattern, String>,
    /// Global window.
    pub time_window: Option<Located<Window>>,
    /// Global windows by domain.
    pub domain_time_windows: BTreeMap<Pattern, Located<Window>>,
    /// The bucket of all egress in scope, kilobits (1000 bits) per second. Never 0.
    pub egress_kbps: Option<Located<u64>>,
    /// The hosts by name.
    pub hosts: BTreeMap<HostName, Host>,
}

/// The lists that hold for one host (or for sources in scope that belong to none), inheritance resolved.
#[derive(Clone, Debug)]
pub struct Effective<'a> {
    /// The host; `None`: sources that belong to no host.
    pub host: Option<&'a HostName>,
    /// Names that may be reached; `None`: the policy wrote no list, so none.
    pub domains: Option<&'a Domains>,
    /// More names that may be reached, in files; `None` as above.
    pub domain_lists: Option<&'a List<DomainList>>,
    /// Addresses that may be reached; `None` as above.
    pub ips: Option<&'a List<IpNet>>,
    /// Ports; `None`: [`DEFAULT_PORTS`].
    pub ports: Option<&'a List<u16>>,
    /// Denied names: the host's own list first, then the global one.
    pub deny_domains: [Option<&'a Domains>; 2],
    /// Denied names in files, likewise; each stands behind the list of names beside it.
    pub deny_lists: [Option<&'a List<DomainList>>; 2],
    /// Denied addresses: the host's own list first, then the global one.
    pub deny_ips: [Option<&'a List<IpNet>>; 2],
    /// When anything may be reached; `None`: always.
    pub window: Option<&'a Located<Window>>,
    /// When single names may be reached: the host's own windows first, then the global ones.
    pub domain_windows: [Option<&'a BTreeMap<Pattern, Located<Window>>>; 2],
    /// Enforce or monitor.
    pub mode: Mode,
}

impl<'a> Effective<'a> {
    /// The window of a name: that of the pattern closest to it; of equal patterns the host's own speaks.
    pub fn window_of(&self, name: &Name) -> Option<&'a Located<Window>> {
        let all = self.domain_windows.into_iter().flatten().flatten();
        let mut best: Option<(&Pattern, &Located<Window>)> = None;
        for (pattern, window) in all.filter(|(pattern, _)| pattern.matches(name)) {
            if best.is_none_or(|(old, _)| pattern.closeness() > old.closeness()) {
                best = Some((pattern, window));
            }
        }
        best.map(|(_, window)| window)
    }
}

impl Policy {
    /// Every list in a file with its place: the global ones, then those of the hosts by name; of each, `allow` first.
    pub fn domain_lists(&self) -> impl Iterator<Item = (Pointer, &DomainList)> {
        let hosts = self.hosts.values().map(|host| (&host.allow, &host.deny));
        let lists = std::iter::once((&self.allow, &self.deny))
            .chain(hosts)
            .flat_map(|(allow, deny)| [allow.domain_lists.as_ref(), deny.domain_lists.as_ref()].into_iter().flatten());
        lists.flat_map(|list| list.entries.iter().enumerate().map(|(index, entry)| (list.entry_path(index), entry)))
    }

    /// The same policy with what its files say, as far as it is given.
    #[must_use]
    pub fn with_contents(mut self, contents: &BTreeMap<ListFile, Arc<Contents>>) -> Self {
        let hosts = self.hosts.values_mut().map(|host| (&mut host.allow, &mut host.deny));
        for (allow, deny) in hosts.chain([(&mut self.allow, &mut self.deny)]) {
            for list in [&mut allow.domain_lists, &mut deny.domain_lists].into_iter().flatten() {
                let filled = list
                    .entries
                    .iter()
                    .map(|entry| DomainList { contents: contents.get(&entry.key()).cloned(), ..entry.clone() });
                list.entries = filled.collect();
            }
        }
        self
    }

    /// The lists that hold for `host`; for `None`, and for a name that is no host, the global ones.
    pub fn effective<'a>(&'a self, host: Option<&HostName>) -> Effective<'a> {
        let entry = host.and_then(|name| self.hosts.get_key_value(name));
        let own = entry.map(|(_, host)| host);
        let allow = own.map(|host| &host.allow);
        let deny = own.map(|host| &host.deny);
        Effective {
            host: entry.map(|(name, _)| name),
            domains: allow.and_then(|a| a.domains.as_ref()).or(self.allow.domains.as_ref()),
            domain_lists: allow.and_then(|a| a.domain_lists.as_ref()).or(self.allow.domain_lists.as_ref()),
            ips: allow.and_then(|a| a.ips.as_ref()).or(self.allow.ips.as_ref()),
            ports: allow.and_then(|a| a.ports.as_ref()).or(self.allow.ports.as_ref()),
            deny_domains: [deny.and_then(|d| d.domains.as_ref()), self.deny.domains.as_ref()],
            deny_lists: [deny.and_then(|d| d.domain_lists.as_ref()), self.deny.domain_lists.as_ref()],
            deny_ips: [deny.and_then(|d| d.ips.as_ref()), self.deny.ips.as_ref()],
            window: own.and_then(|host| host.time_window.as_ref()).or(self.time_window.as_ref()),
            domain_windows: [own.map(|host| &host.domain_time_windows), Some(&self.domain_time_windows)],
            mode: own
                .and_then(|host| host.mode.as_ref())
                .or(self.mode.as_ref())
                .map(|mode| mode.value)
                .unwrap_or_default(),
        }
    }
}
