//! What holds for one host in two policies.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::entries::{Entry, Item, Placed, difference, file_words, names_difference, placed};
use super::notes::{Notes, Place, Said, item_effect, limit_effect, rate, window};
use super::windows::{self, ByName};
use super::{Effect, Field};
use crate::policy::model::{
    Cap, DEFAULT_PORTS, DomainList, Effective, Host, HostName, List, Located, Mode, Period, Pointer, Policy, Window,
};
use crate::policy::patterns::Domains;

/// The lists that were compared, by their places: hosts that inherit share them.
type Seen = RefCell<HashMap<(Field, Vec<Pointer>, Vec<Pointer>), Rc<Vec<Item>>>>;

/// Compares what holds for hosts.
pub(super) struct Views<'p> {
    old: &'p Policy,
    new: &'p Policy,
    seen: Seen,
    /// The effect of the global windows of names.
    shared_windows: Effect,
}

/// One host in one policy.
struct Side<'p> {
    policy: &'p Policy,
    own: Option<&'p Host>,
    rules: Effective<'p>,
}

impl<'p> Side<'p> {
    fn of(policy: &'p Policy, name: Option<&HostName>) -> Self {
        Self { policy, own: name.and_then(|name| policy.hosts.get(name)), rules: policy.effective(name) }
    }
}

/// Before and after. The two differ in name where sources moved.
struct Pair<'p> {
    old: Side<'p>,
    new: Side<'p>,
    /// Under whose name changes are told.
    host: Option<&'p HostName>,
}

impl<'p> Views<'p> {
    pub fn new(old: &'p Policy, new: &'p Policy) -> Self {
        let mut views = Self { old, new, seen: Seen::default(), shared_windows: Effect::None };
        views.shared_windows = views.domain_windows(&views.pair(None, None), None);
        views
    }

    fn pair(&self, before: Option<&'p HostName>, after: Option<&'p HostName>) -> Pair<'p> {
        Pair { old: Side::of(self.old, before), new: Side::of(self.new, after), host: after.or(before) }
    }

    /// What it does to sources of the host `before` that they are those of `after` now. Noted is what the global part
    /// does not tell already.
    pub fn compare(
        &self,
        before: Option<&'p HostName>,
        after: Option<&'p HostName>,
        mut notes: Option<&mut Notes>,
    ) -> Effect {
        let pair = self.pair(before, after);
        let parts = [
            self.allowed(&pair, notes.as_deref_mut()),
            self.denied(&pair, notes.as_deref_mut()),
            time_window(&pair, notes.as_deref_mut()),
            self.domain_windows(&pair, notes.as_deref_mut()),
            self.mode(&pair, notes.as_deref_mut()),
            rates(&pair, notes.as_deref_mut()),
            caps(&pair, notes),
        ];
        parts.into_iter().fold(Effect::None, Effect::and)
    }

    fn allowed(&self, pair: &Pair<'_>, mut notes: Option<&mut Notes>) -> Effect {
        let (old, new) = (&pair.old.rules, &pair.new.rules);
        let domains = self.names(pair, Field::AllowDomains, [old.domains], [new.domains], notes.as_deref_mut());
        let ips = self.list(pair, Field::AllowIps, [old.ips], [new.ips], notes.as_deref_mut());
        let items = self.difference(Field::AllowPorts, &[old.ports], &[new.ports], ports);
        let ports = told(pair, Field::AllowPorts, &items, is_own(&[old.ports, new.ports]), notes.as_deref_mut());
        let files = |side: &Side<'_>| {
            let own = side.own.and_then(|host| host.allow.domain_lists.clone());
            own.or_else(|| side.policy.allow.domain_lists.clone())
        };
        let (old, new) = (files(&pair.old), files(&pair.new));
        let (old, new) = (old.as_ref(), new.as_ref());
        let items = self.difference(Field::AllowDomainLists, &[old], &[new], in_files);
        let files = told(pair, Field::AllowDomainLists, &items, is_own(&[old, new]), notes);
        domains.and(ips).and(ports).and(files)
    }

    fn denied(&self, pair: &Pair<'_>, mut notes: Option<&mut Notes>) -> Effect {
        let (old, new) = (&pair.old.rules, &pair.new.rules);
        let (before, after) = (old.deny_domains, new.deny_domains);
        let domains = self.names(pair, Field::DenyDomains, before, after, notes.as_deref_mut());
        let ips = self.list(pair, Field::DenyIps, old.deny_ips, new.deny_ips, notes.as_deref_mut());
        let files = |side: &Side<'_>| {
            let own = side.own.and_then(|host| host.deny.domain_lists.clone());
            [own, side.policy.deny.domain_lists.clone()]
        };
        let (old, new) = (files(&pair.old), files(&pair.new));
        let (old, new) = (old.each_ref().map(Option::as_ref), new.each_ref().map(Option::as_ref));
        let items = self.difference(Field::DenyDomainLists, &old, &new, in_files);
        domains.and(ips).and(told(pair, Field::DenyDomainLists, &items, Own::ByItem, notes))
    }

    /// One list that takes the place of another, or two that hold both.
    fn list<E: Entry, const N: usize>(
        &self,
        pair: &Pair<'_>,
        field: Field,
        old: [Option<&List<E>>; N],
        new: [Option<&List<E>>; N],
        notes: Option<&mut Notes>,
    ) -> Effect {
        let items = self.difference(field, &old, &new, all);
        let own = if N == 1 { is_own(&[old[0], new[0]]) } else { Own::ByItem };
        told(pair, field, &items, own, notes)
    }

    /// The same for names.
    fn names<const N: usize>(
        &self,
        pair: &Pair<'_>,
        field: Field,
        old: [Option<&Domains>; N],
        new: [Option<&Domains>; N],
        notes: Option<&mut Notes>,
    ) -> Effect {
        let [old, new] = [old, new].map(|lists| lists.into_iter().flatten().collect::<Vec<_>>());
        let paths = |lists: &[&Domains]| lists.iter().map(|list| list.path.clone()).collect::<Vec<_>>();
        let (before, after) = (paths(&old), paths(&new));
        let own = match N {
            1 if before.iter().chain(&after).any(is_hosts) => Own::All,
            1 => Own::Nothing,
            _ => Own::ByItem,
        };
        let items = self.once(field, before, after, || names_difference(&old, &new));
        told(pair, field, &items, own, notes)
    }

    fn difference<T, E: Entry>(
        &self,
        field: Field,
        old: &[Option<&List<T>>],
        new: &[Option<&List<T>>],
        entries: impl Fn(&[Option<&List<T>>]) -> Vec<Placed<E>>,
    ) -> Rc<Vec<Item>> {
        let paths = |lists: &[Option<&List<T>>]| lists.iter().flatten().map(|list| list.path.clone()).collect();
        self.once(field, paths(old), paths(new), || difference(&entries(old), &entries(new)))
    }

    fn once(
        &self,
        field: Field,
        before: Vec<Pointer>,
        after: Vec<Pointer>,
        compare: impl FnOnce() -> Vec<Item>,
    ) -> Rc<Vec<Item>> {
        let key = (field, before, after);
        if let Some(known) = self.seen.borrow().get(&key) {
            return Rc::clone(known);
        }
        let items = Rc::new(compare());
        self.seen.borrow_mut().insert(key, Rc::clone(&items));
        items
    }

    fn domain_windows(&self, pair: &Pair<'_>, mut notes: Option<&mut Notes>) -> Effect {
        let own = |side: &Side<'_>| side.own.is_some_and(|host| !host.domain_time_windows.is_empty());
        if pair.host.is_some() && !own(&pair.old) && !own(&pair.new) {
            return self.shared_windows;
        }
        let (old, new) = (by_name(&pair.old), by_name(&pair.new));
        let mut all = Effect::None;
        let only_new = new.keys().filter(|pattern| !old.contains_key(*pattern));
        for pattern in old.keys().chain(only_new) {
            let effect = windows::effect(
                windows::around(&old, pattern).map(|window| &window.value),
                windows::around(&new, pattern).map(|window| &window.value),
            );
            all = all.and(effect);
            let (before, after) = (old.get(pattern).copied(), new.get(pattern).copied());
            let same = before.map(|window| &window.value) == after.map(|window| &window.value);
            if let Some(notes) = notes.as_deref_mut().filter(|_| !same) {
                // A global one may do something else for a host whose own windows lie around it; that adds to what is
                // told of it.
                let own = [before, after].into_iter().flatten().any(|window| is_hosts(&window.path));
                let place = Place { host: pair.host.filter(|_| own), field: Field::DomainTimeWindows };
                notes.value(place, Some(pattern.to_string()), before.map(window), after.map(window), effect);
            }
        }
        all
    }

    fn mode(&self, pair: &Pair<'_>, notes: Option<&mut Notes>) -> Effect {
        let (old, new) = (pair.old.rules.mode, pair.new.rules.mode);
        if old == new {
            return Effect::None;
        }
        let effect = Effect::of(new == Mode::Monitor, new == Mode::Enforce);
        let own = |side: &Side<'_>| side.own.and_then(|host| host.mode.as_ref()).map(|mode| mode.path.clone());
        let (before, after) = (own(&pair.old), own(&pair.new));
        if let Some(notes) = notes.filter(|_| before.is_some() || after.is_some() || pair.host.is_none()) {
            let global = |policy: &Policy| policy.mode.as_ref().map(|mode| mode.path.clone());
            let (before, after) = (before.or_else(|| global(self.old)), after.or_else(|| global(self.new)));
            let words = |mode| match mode {
                Mode::Enforce => "enforce".to_owned(),
                Mode::Monitor => "monitor".to_owned(),
            };
            let place = Place { host: pair.host, field: Field::Mode };
            notes.value(place, None, Some((words(old), before)), Some((words(new), after)), effect);
        }
        effect
    }
}

fn time_window(pair: &Pair<'_>, notes: Option<&mut Notes>) -> Effect {
    let (old, new) = (pair.old.rules.window, pair.new.rules.window);
    let value = |found: Option<&Located<Window>>| found.map(|window| window.value.clone());
    let effect = windows::effect(value(old).as_ref(), value(new).as_ref());
    let own = [old, new].into_iter().flatten().any(|window| is_hosts(&window.path));
    if let Some(notes) = notes.filter(|_| value(old) != value(new) && (own || pair.host.is_none())) {
        let place = Place { host: pair.host, field: Field::TimeWindow };
        notes.value(place, None, old.map(window), new.map(window), effect);
    }
    effect
}

/// Which items of a list are told under the host's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// All: the host has a list of its own, which takes the place of the global one.
    All,
    /// None: it inherits, before and after.
    Nothing,
    /// Those that are in its own list, which is there besides the global one.
    ByItem,
}

fn is_own<T>(lists: &[Option<&List<T>>]) -> Own {
    if lists.iter().flatten().any(|list| is_hosts(&list.path)) { Own::All } else { Own::Nothing }
}

/// Whether a place is in the block of a host.
fn is_hosts(path: &Pointer) -> bool {
    path.as_str().starts_with("/hosts/")
}

fn told(pair: &Pair<'_>, field: Field, items: &[Item], own: Own, mut notes: Option<&mut Notes>) -> Effect {
    let opens = !matches!(field, Field::DenyDomains | Field::DenyIps | Field::DenyDomainLists);
    let mut all = Effect::None;
    for item in items {
        all = all.and(item_effect(item, opens));
        let here = match own {
            _ if pair.host.is_none() => true,
            Own::All => true,
            Own::Nothing => false,
            Own::ByItem => item.path.as_ref().is_some_and(is_hosts),
        };
        if let Some(notes) = notes.as_deref_mut().filter(|_| here) {
            notes.item(Place { host: pair.host, field }, item, opens);
        }
    }
    all
}

fn all<E: Clone>(lists: &[Option<&List<E>>]) -> Vec<Placed<E>> {
    lists.iter().flatten().flat_map(|list| placed(list)).collect()
}

/// Port 53 is the gateway's own DNS whatever the list says.
fn ports(lists: &[Option<&List<u16>>]) -> Vec<Placed<u16>> {
    let default = || DEFAULT_PORTS.map(|port| (port, None)).to_vec();
    let mut ports = if lists.iter().all(Option::is_none) { default() } else { all(lists) };
    ports.retain(|(port, _)| *port != 53);
    ports
}

fn in_files(lists: &[Option<&List<DomainList>>]) -> Vec<Placed<String>> {
    all(lists).into_iter().map(|(list, path)| (file_words(&list), path)).collect()
}

/// The windows of names that hold for one side: the host's own over the global ones.
fn by_name<'p>(side: &Side<'p>) -> ByName<'p> {
    let own = side.own.into_iter().flat_map(|host| &host.domain_time_windows);
    side.policy.domain_time_windows.iter().chain(own).map(|(pattern, window)| (pattern.clone(), window)).collect()
}

/// The host's own limit, or (where it is about nobody) the global one, which holds besides.
fn rates(pair: &Pair<'_>, notes: Option<&mut Notes>) -> Effect {
    let kbps = |side: &Side<'_>| match pair.host {
        Some(_) => side.own.and_then(|host| host.egress_kbps.clone()),
        None => side.policy.egress_kbps.clone(),
    };
    let (old, new) = (kbps(&pair.old), kbps(&pair.new));
    let value = |kbps: &Option<Located<u64>>| kbps.as_ref().map(|kbps| kbps.value);
    let effect = limit_effect(value(&old), value(&new));
    if let Some(notes) = notes.filter(|_| effect != Effect::None) {
        let place = Place { host: pair.host, field: Field::EgressKbps };
        notes.value(place, None, old.as_ref().map(rate), new.as_ref().map(rate), effect);
    }
    effect
}

fn caps(pair: &Pair<'_>, mut notes: Option<&mut Notes>) -> Effect {
    let none = BTreeMap::new();
    let (old, new) = (pair.old.own.map_or(&none, |host| &host.caps), pair.new.own.map_or(&none, |host| &host.caps));
    let only_new = new.keys().filter(|pattern| !old.contains_key(*pattern));
    let mut all = Effect::None;
    for pattern in old.keys().chain(only_new) {
        let (before, after) = (old.get(pattern), new.get(pattern));
        let effect = match (before, after) {
            (None, _) => Effect::Narrows,
            (_, None) => Effect::Widens,
            (Some(before), Some(after)) if before.value == after.value => continue,
            (Some(before), Some(after)) => {
                let (old, new) = (before.value, after.value);
                // The longer the period, the less may pass in the end.
                let (long, longer) = (length(old.period), length(new.period));
                Effect::of(new.bytes > old.bytes || longer < long, new.bytes < old.bytes || longer > long)
            }
        };
        all = all.and(effect);
        if let Some(notes) = notes.as_deref_mut() {
            let place = Place { host: pair.host, field: Field::Exfil };
            notes.value(place, Some(pattern.to_string()), before.map(cap), after.map(cap), effect);
        }
    }
    all
}

fn length(period: Period) -> u8 {
    match period {
        Period::Second => 0,
        Period::Minute => 1,
        Period::Hour => 2,
        Period::Day => 3,
    }
}

/// `1048576 bytes per hour`
fn cap(cap: &Located<Cap>) -> Said {
    (format!("{} bytes per {}", cap.value.bytes, cap.value.period.word()), Some(cap.path.clone()))
}
