//! Classes: the numbers that live flows carry in their connection mark.
//!
//! A class is one host together with the names under which it was given an address. Removing a class from the
//! kernel's `up` and `down` maps ends its flows at their next packet; that is how a revision cuts what it no longer
//! allows. A number is never used twice while the table lives, so a flow can never slip into another's class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::plan::ids::HostId;
use crate::plan::ir::{CLASS_BASE, Data, Key, Value, Verdict};
use crate::plan::meter::CapId;
use crate::policy::model::HostName;
use crate::policy::name::Name;

/// The most classes kept. Beyond it the ones whose leases ended longest ago go; flows that still carry them end.
pub const MAX_CLASSES: usize = 1 << 17;
/// The most classes of one host: an agent that asks for ever new names uses up its own share and nobody else's.
pub const MAX_CLASSES_PER_HOST: usize = 1 << 15;
/// The most names on the way that one class remembers. Whoever runs the name server of an allowed name can lead over
/// others with every answer.
pub const MAX_LINKS: usize = 256;
/// Milliseconds between two searches for classes to give up: a search walks all of them.
const SEARCH_PAUSE: u64 = 1000;
/// Octets of a class's comment in the kernel; names that do not fit are not remembered across a restart.
const MAX_COMMENT: usize = 200;

/// Why the flows of a class may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The host was given the address for a name.
    Named,
    /// `allow.ips` covers the address that the host sends to.
    Nets,
    /// `allow.ips` covers the address that opened the flow to the host: what the host sends are replies.
    Inbound,
    /// Nothing is enforced on the host: it would have been refused.
    Monitored,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Whose flows.
    pub host: HostId,
    /// Why they may pass.
    pub way: Way,
    /// The names it stands for; one, or several that share addresses. None where `allow.ips` opens.
    pub names: BTreeSet<Name>,
    /// Every cap that is charged: of the names, and of names for which the host was given the same address before.
    pub caps: BTreeSet<CapId>,
    /// Other names on the way (CNAME targets), seen since this process started; not more than [`MAX_LINKS`].
    pub links: BTreeSet<Name>,
    /// Its flows are judged again at each packet, because the host's rules changed under them.
    pub recheck: bool,
    /// Milliseconds of the caller's clock at which its last lease ends.
    pub until: u64,
}

/// What makes flows one class.
type Kind = (HostId, Way, BTreeSet<Name>, BTreeSet<CapId>);

impl Class {
    /// A class of which nothing is leased.
    pub fn new(host: HostId, way: Way, names: BTreeSet<Name>, caps: BTreeSet<CapId>) -> Self {
        Self { host, way, names, caps, links: BTreeSet::new(), recheck: false, until: 0 }
    }

    fn kind(&self) -> Kind {
        (self.host, self.way, self.names.clone(), self.caps.clone())
    }
}

/// All live classes.
#[derive(Clone, Debug)]
pub struct Classes {
    // Shared, because each revision begins with a copy of all.
    by_id: BTreeMap<u32, Arc<Class>>,
    by_kind: HashMap<Arc<Kind>, u32>,
    /// Of those that are judged at each packet, one of each kind.
    judged: HashMap<Arc<Kind>, u32>,
    per_host: HashMap<HostId, usize>,
    next: u32,
    next_search: u64,
}

impl Classes {
    /// No classes yet; `first` is the first number to be used (at least [`CLASS_BASE`]).
    pub fn new(first: u32) -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_kind: HashMap::new(),
            judged: HashMap::new(),
            per_host: HashMap::new(),
            next: first.max(CLASS_BASE),
            next_search: 0,
        }
    }

    /// The first number that a fresh table should use: later tables start higher, so that flows which still carry
    /// marks of an earlier one match nothing. `unix_seconds` orders the tables; 32 numbers a second are set aside.
    pub fn first_of_table(unix_seconds: u64) -> u32 {
        const SLOT: u64 = 32;
        let slots = u64::from(u32::MAX - CLASS_BASE) / SLOT;
        let start = (unix_seconds % slots) * SLOT;
        CLASS_BASE + u32::try_from(start).unwrap_or(0)
    }

    /// The class, if it lives.
    pub fn get(&self, id: u32) -> Option<&Class> {
        self.by_id.get(&id).map(|class| &**class)
    }

    /// All of them in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Class)> {
        self.by_id.iter().map(|(id, class)| (*id, &**class))
    }

    /// Those with numbers above one.
    pub fn after(&self, id: u32) -> impl Iterator<Item = (u32, &Class)> {
        self.by_id.range(id.saturating_add(1)..).map(|(id, class)| (*id, &**class))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A number that no class had before. `None`: all are used up.
    pub fn fresh(&mut self) -> Option<u32> {
        let id = self.next;
        self.next = id.checked_add(1)?;
        Some(id)
    }

    /// The class that is like `class`, made if there is none; true if it was made.
    pub fn of(&mut self, class: Class) -> Option<(u32, bool)> {
        if let Some(id) = self.by_kind.get(&class.kind()) {
            return Some((*id, false));
        }
        let id = self.fresh()?;
        self.insert(id, class);
        Some((id, true))
    }

    /// A class like `class` that leases do not get: one whose flows are judged at each packet, or a new one.
    pub fn beside(&mut self, class: Class) -> Option<(u32, bool)> {
        if let Some(id) = self.judged.get(&class.kind()).filter(|_| class.recheck) {
            return Some((*id, false));
        }
        let id = self.fresh()?;
        let (kind, leased) = (class.kind(), self.by_kind.get(&class.kind()).copied());
        self.insert(id, class);
        match leased {
            Some(leased) => self.by_kind.insert(Arc::new(kind), leased),
            None => self.by_kind.remove(&kind),
        };
        Some((id, true))
    }

    /// Whether there is a class like that.
    pub fn has(&self, class: &Class) -> bool {
        self.by_kind.contains_key(&class.kind())
    }

    /// Charges a class to other caps.
    pub fn set_caps(&mut self, id: u32, caps: BTreeSet<CapId>) {
        let Some(mut class) = self.get(id).filter(|class| class.caps != caps).cloned() else { return };
        let until = class.until;
        self.remove(id);
        class.caps = caps;
        // Two classes may become alike; leases to come go to the one, flows of both go on.
        let like = self.by_kind.get(&class.kind()).copied();
        self.insert(id, Class { until, ..class.clone() });
        if let Some(like) = like {
            self.by_kind.insert(Arc::new(class.kind()), like);
        }
    }

    /// Adds a class under its number.
    pub fn insert(&mut self, id: u32, class: Class) {
        let kind = Arc::new(class.kind());
        if class.recheck {
            self.judged.insert(Arc::clone(&kind), id);
        }
        self.by_kind.insert(kind, id);
        *self.per_host.entry(class.host).or_default() += 1;
        if let Some(old) = self.by_id.insert(id, Arc::new(class)) {
            self.uncount(old.host);
        }
        self.next = self.next.max(id.saturating_add(1));
    }

    /// The first number that was not given yet.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Notes that a number is taken, whoever has it.
    pub fn insert_number(&mut self, id: u32) {
        self.next = self.next.max(id.saturating_add(1));
    }

    /// Notes a lease: its end, and the names on its way. Whether names of other leases had to make room for them.
    pub fn extend(&mut self, id: u32, until: u64, links: &[Name]) -> bool {
        let Some(class) = self.by_id.get_mut(&id).map(Arc::make_mut) else { return false };
        class.until = class.until.max(until);
        if links.iter().all(|link| class.links.contains(link)) {
            return false;
        }
        // Which were there first is not known; those of this answer matter most.
        let full = class.links.len() + links.len() > MAX_LINKS;
        if full {
            class.links.clear();
        }
        class.links.extend(links.iter().take(MAX_LINKS).cloned());
        full
    }

    /// Marks a class for judging at each packet.
    pub fn set_recheck(&mut self, id: u32) {
        if let Some(class) = self.by_id.get_mut(&id).map(Arc::make_mut) {
            class.recheck = true;
            self.judged.insert(Arc::new(class.kind()), id);
        }
    }

    /// Forgets a class; its number stays used.
    pub fn remove(&mut self, id: u32) {
        if let Some(class) = self.by_id.remove(&id) {
            self.uncount(class.host);
            let kind = class.kind();
            for kinds in [&mut self.by_kind, &mut self.judged] {
                if kinds.get(&kind) == Some(&id) {
                    kinds.remove(&kind);
                }
            }
        }
    }

    /// How many classes a host has.
    pub fn count(&self, host: HostId) -> usize {
        self.per_host.get(&host).copied().unwrap_or(0)
    }

    fn uncount(&mut self, host: HostId) {
        if let Some(count) = self.per_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.per_host.remove(&host);
            }
        }
    }

    /// Whether [`Classes::surplus`] would search.
    pub fn are_many(&self, now: u64) -> bool {
        now >= self.next_search
            && (self.by_id.len() >= MAX_CLASSES || self.per_host.values().any(|count| *count >= MAX_CLASSES_PER_HOST))
    }

    /// The classes to give up when there are too many: of those whose leases ended, the ones that ended first, a quarter
    /// of the bound. A host that has its full share gives up its own.
    pub fn surplus(&mut self, now: u64) -> Vec<u32> {
        if !self.are_many(now) {
            return Vec::new();
        }
        let all = self.by_id.len() >= MAX_CLASSES;
        let full: BTreeSet<HostId> =
            self.per_host.iter().filter(|(_, count)| **count >= MAX_CLASSES_PER_HOST).map(|(host, _)| *host).collect();
        self.next_search = now + SEARCH_PAUSE;
        let mut idle: Vec<(u64, u32, HostId)> = self
            .iter()
            .filter(|(_, class)| class.until < now && (all || full.contains(&class.host)))
            .map(|(id, class)| (class.until, id, class.host))
            .collect();
        idle.sort_unstable();
        let mut left: HashMap<HostId, usize> = full.iter().map(|host| (*host, MAX_CLASSES_PER_HOST / 4)).collect();
        let mut left_of_all = if all { MAX_CLASSES / 4 } else { 0 };
        idle.retain(|(_, _, host)| {
            let own = left.get_mut(host).filter(|own| **own > 0);
            let of_all = (left_of_all > 0).then_some(&mut left_of_all);
            own.or(of_all).map(|count| *count -= 1).is_some()
        });
        idle.into_iter().map(|(_, id, _)| id).collect()
    }
}

/// The element of a registry (`up` or `down`) that keeps a class alive.
pub fn element(id: u32, class: &Class, verdict: Verdict, host: Option<&HostName>) -> (Key, Value) {
    let value = Value { data: Data::Verdict(verdict), timeout_ms: None, comment: Some(comment(class, host)) };
    (Key::Mark(id), value)
}

/// In the place of names of which not all found room.
const CUT: &str = "+";
/// In the place of names: somebody outside opens the flows.
const FROM_OUTSIDE: &str = "<";
/// In the place of names: nothing is enforced on the host.
const MONITORED: &str = "!";

/// `agent-1 api.openai.com,cdn.example`: for people who list the table, for telemetry, and for a daemon that starts again.
fn comment(class: &Class, host: Option<&HostName>) -> Arc<str> {
    let mut text = String::from(host.map_or("*", HostName::as_str));
    text.push(' ');
    match class.way {
        Way::Inbound => text.push_str(FROM_OUTSIDE),
        Way::Monitored => text.push_str(MONITORED),
        Way::Named | Way::Nets => {}
    }
    for (index, name) in class.names.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if text.len() + name.as_str().len() + CUT.len() + 1 > MAX_COMMENT {
            text.push_str(CUT);
            break;
        }
        text.push_str(name.as_str());
    }
    Arc::from(text)
}

/// What the comment of a class's element says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<'t> {
    /// The word for the host.
    pub host: &'t str,
    /// The names.
    pub names: BTreeSet<Name>,
    /// Not all names found room.
    pub cut: bool,
    /// Somebody outside opens the flows.
    pub inbound: bool,
    /// Nothing is enforced on the host.
    pub monitored: bool,
}

/// Reads the comment of a class's element.
pub fn read_comment(text: &str) -> Option<Said<'_>> {
    let (host, list) = text.split_once(' ')?;
    let words = || list.split(',').filter(|word| !word.is_empty());
    let names = words().filter(|word| ![CUT, FROM_OUTSIDE, MONITORED].contains(word)).map(Name::from_normal).collect();
    let is_there = |mark| words().any(|word| word == mark);
    let (inbound, monitored) = (is_there(FROM_OUTSIDE), is_there(MONITORED));
    Some(Said { host, names, cut: is_there(CUT), inbound, monitored })
}
