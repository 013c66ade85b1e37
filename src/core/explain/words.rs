//! The sentence of an explanation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Asked;
use crate::core::caps::CapUse;
use crate::policy::decision::{Decision, Reason};
use crate::policy::model::{DEFAULT_PORTS, Effective, Pointer, Policy};
use crate::policy::name::Pattern;
use crate::policy::reference::{self, Leased, Protocol};
use crate::policy::schedule::Moment;

/// Everything that a sentence may speak of.
pub(super) struct Words<'a> {
    pub policy: &'a Policy,
    pub rules: &'a Effective<'a>,
    pub source: IpAddr,
    pub interface: &'a str,
    pub asked: &'a Asked,
    pub protocol: Option<Protocol>,
    pub leases: &'a [Leased<'a>],
    pub moment: Option<&'a Moment>,
    pub caps: &'a [(Pattern, CapUse)],
}

impl Words<'_> {
    pub fn sentence(&self, decision: &Decision) -> String {
        let (who, what) = (self.who(), self.asked);
        match decision.reason {
            Reason::OutOfScope => self.out_of_scope(decision),
            Reason::Allowed => self.allowed(decision),
            Reason::Denied => format!("{who} may never reach {what}: {}", self.line(decision)),
            Reason::PortNotAllowed => self.port(),
            Reason::NoLease if self.barred().is_some() => format!(
                "{what} is closed for {who}: no line of allow.ips covers it, and no answer may hold it: {}",
                self.barred().unwrap_or_default()
            ),
            Reason::NoLease => format!(
                "{what} is closed for {who}: no line of allow.ips covers it, and no answer for an allowed name that is \
                 still good gave it this address; ask the gateway's DNS for the name first"
            ),
            Reason::WindowClosed => self.closed(decision),
            Reason::CapExhausted => self.spent(decision),
            _ => self.not_listed(),
        }
    }

    /// Which window is closed, and when it opens.
    fn closed(&self, decision: &Decision) -> String {
        let (who, what) = (self.who(), self.asked);
        let path = decision.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let windows = self.rules.domain_windows.into_iter().flatten().flat_map(BTreeMap::values);
        let window = self.rules.window.into_iter().chain(windows).find(|w| Some(&w.path) == decision.path.as_ref());
        let opens = window.zip(self.moment).and_then(|(window, moment)| {
            let next = window.value.next_change(moment.zone, moment.utc)?;
            Some(next.with_timezone(&moment.zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string())
        });
        let opens = opens.unwrap_or_else(|| "never".to_owned());
        format!("{who} may reach {what}, but not now: the window at {path} is closed; it opens {opens}")
    }

    /// Which cap is used up, and when it turns.
    fn spent(&self, decision: &Decision) -> String {
        let (who, what) = (self.who(), self.asked);
        let path = decision.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let Some((_, cap)) = self.caps.iter().find(|(pattern, _)| Some(pattern) == decision.domain.as_ref()) else {
            return format!("{who} may send nothing more to {what} for now: the cap at {path} is used up");
        };
        let turns = match self.moment {
            Some(moment) => cap.resets_at.with_timezone(&moment.zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string(),
            None => cap.resets_at.format("%a %Y-%m-%d %H:%M:%S UTC").to_string(),
        };
        format!(
            "{who} may send nothing more to {what} for now: it has used the {} bytes that {path} gives it each {}; the              next period begins {turns}",
            cap.bytes, cap.period
        )
    }

    /// What keeps the address out of answers.
    fn barred(&self) -> Option<String> {
        let Asked::Ip(address) = self.asked else { return None };
        let (path, network) = reference::denied_answer(self.rules, *address)?;
        let file = self.rules.deny_lists.into_iter().flatten().find_map(|list| {
            let at = list.entries.iter().enumerate().find(|(at, _)| list.entry_path(*at) == path)?;
            Some(at.1.file.clone())
        });
        Some(format!("{path} has {} in line {} of {}", network.net, network.line, file.unwrap_or_default()))
    }

    /// Whose traffic it is.
    fn who(&self) -> String {
        match self.rules.host {
            Some(host) => format!("{} ({host})", self.source),
            None => format!("{} (in no host, so the global lists hold)", self.source),
        }
    }

    fn out_of_scope(&self, decision: &Decision) -> String {
        let scope = &self.policy.scope;
        let path = decision.path.as_ref();
        if let Some(list) = scope.sources.as_ref().filter(|list| Some(&list.path) == path) {
            return format!(
                "the policy is not about {}: {} says {}; it is neither filtered nor logged",
                self.source,
                list.path,
                and_list(&list.entries)
            );
        }
        let listed = scope.interfaces.as_ref().map(|list| format!("{} says {}", list.path, and_list(&list.entries)));
        format!(
            "the policy is not about what enters by {}: {}; it is neither filtered nor logged",
            self.interface,
            listed.unwrap_or_default()
        )
    }

    fn allowed(&self, decision: &Decision) -> String {
        let (who, what, line) = (self.who(), self.asked, self.line(decision));
        let told = |lease: &&Leased<'_>| {
            matches!(self.asked, Asked::Ip(address) if *address == lease.address)
                && lease.host == self.rules.host
                && decision.domain.as_ref().is_some_and(|pattern| pattern.matches(lease.name))
        };
        match self.asked {
            Asked::Ip(_) => match self.leases.iter().find(told) {
                Some(lease) => {
                    format!("{who} may reach {what}: an answer for {} gave it this address, and {line}", lease.name)
                }
                None => format!("{who} may reach {what}: {line}"),
            },
            Asked::Domain(_) => format!("{who} may reach {what}: {line}"),
        }
    }

    /// The line of the policy that decided, with its text.
    fn line(&self, decision: &Decision) -> String {
        let Some(path) = &decision.path else { return "no line of the policy says otherwise".to_owned() };
        let text = decision.domain.as_ref().map(ToString::to_string).or_else(|| self.net_at(path));
        match (text, self.file_line(path, decision)) {
            (Some(text), Some(place)) => format!("{path} has \"{text}\" in {place}"),
            (Some(text), None) => format!("{path} says \"{text}\""),
            (None, Some(place)) => format!("{path} says so in {place}"),
            (None, None) => format!("{path} says so"),
        }
    }

    /// Line and file, where the decision is by a list in a file.
    fn file_line(&self, path: &Pointer, decision: &Decision) -> Option<String> {
        let lists = self.rules.deny_lists.into_iter().chain([self.rules.domain_lists]).flatten();
        let mut entries = lists.flat_map(|list| (0..).map(|at| list.entry_path(at)).zip(list.entries.iter()));
        let (_, list) = entries.find(|(place, _)| place == path)?;
        let contents = list.contents.as_ref()?;
        let line = match (&decision.domain, self.asked) {
            (Some(pattern), _) => contents.line_of(pattern)?,
            (None, Asked::Ip(address)) => contents.denies_address(*address)?.line,
            (None, Asked::Domain(_)) => return None,
        };
        Some(format!("line {line} of {}", list.file))
    }

    /// The entry of a list of networks, by its place.
    fn net_at(&self, path: &Pointer) -> Option<String> {
        let (list, index) = path.as_str().rsplit_once('/')?;
        let index: usize = index.parse().ok()?;
        let lists = self.rules.deny_ips.into_iter().flatten().chain(self.rules.ips);
        lists.into_iter().find(|known| known.path.as_str() == list)?.entries.get(index).map(ToString::to_string)
    }

    fn port(&self) -> String {
        let who = self.who();
        let (word, port) = match self.protocol {
            Some(Protocol::Tcp(port)) => ("tcp", port),
            Some(Protocol::Udp(port)) => ("udp", port),
            _ => return format!("{who} may send TCP, UDP and echo only"),
        };
        if port == 53 {
            let what = self.asked;
            return format!("{who} reaches port 53 of the gateway only: its own DNS answers, {what} is not asked");
        }
        match self.rules.ports {
            Some(list) if list.entries.is_empty() => format!("{who} may use no port at all: {} is empty", list.path),
            Some(list) => {
                format!("{who} may not use {word} port {port}: {} says {}", list.path, and_list(&list.entries))
            }
            None => format!(
                "{who} may not use {word} port {port}: the policy names no ports, so only {} are open",
                and_list(&DEFAULT_PORTS)
            ),
        }
    }

    fn no_name(&self) -> String {
        let files = self.rules.domain_lists.filter(|list| !list.entries.is_empty());
        let written = self.rules.domains.map(|list| (&list.path, list.entries.is_empty()));
        match (written, files) {
            (written, None) => nothing_of("domains", written),
            (None, Some(files)) => format!("no list of {} has it", files.path),
            (written, Some(files)) => {
                format!("{}, and no list of {} has it", nothing_of("domains", written), files.path)
            }
        }
    }

    fn no_address(&self) -> String {
        nothing_of("ips", self.rules.ips.map(|list| (&list.path, list.entries.is_empty())))
    }

    fn not_listed(&self) -> String {
        let (who, what) = (self.who(), self.asked);
        match self.asked {
            Asked::Domain(_) => format!("{who} may not reach {what}: {}", self.no_name()),
            Asked::Ip(address) if reference::is_special(*address) => format!(
                "{who} may not reach {what}: {}, and an address of this kind (private, local or reserved) is never \
                 opened by a DNS answer",
                self.no_address()
            ),
            Asked::Ip(_) => format!(
                "{who} may not reach {what}: {}, and the policy allows it no names through which an address could open",
                self.no_address()
            ),
        }
    }
}

/// Why a list did not help.
fn nothing_of(field: &str, list: Option<(&Pointer, bool)>) -> String {
    match list {
        None => format!("the policy has no allow.{field} for it"),
        Some((path, true)) => format!("{path} is empty"),
        Some((path, false)) => format!("no line of {path} covers it"),
    }
}

/// How many entries of a list a sentence repeats.
const SHOWN: usize = 8;

fn and_list<T: ToString>(entries: &[T]) -> String {
    listing(entries, "and")
}

pub(super) fn or_list<T: ToString>(entries: &[T]) -> String {
    listing(entries, "or")
}

fn listing<T: ToString>(entries: &[T], word: &str) -> String {
    let mut shown: Vec<String> = entries.iter().take(SHOWN).map(ToString::to_string).collect();
    let last = match entries.len() - shown.len() {
        0 => shown.pop().unwrap_or_default(),
        more => format!("{more} more"),
    };
    if shown.is_empty() { last } else { format!("{} {word} {last}", shown.join(", ")) }
}
