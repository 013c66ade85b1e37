//! The policy's names as response-policy zones, for people to read and for other resolvers to load.
//!
//! A response-policy zone (RPZ) cannot say "allow these, deny the rest": a wildcard over everything stops covering
//! names beside the allowed ones (RFC 4592: an allowed `a.example.com` makes `example.com` and `com` exist, and `*`
//! covers nothing below a name that exists). So a view is a sequence of zones, and the first zone that has the name
//! decides:
//!
//! 1. `VIEW.denied.rpz.clawgress.`: what the denylists name (only where there are denied names);
//! 2. `VIEW.allow.rpz.clawgress.`: what the allowlist names;
//! 3. `deny.rpz.clawgress.`: everything.
//!
//! [`zones`] writes them as texts; [`served`] makes the compact [`Image`]s of which other name servers fetch [`Edition`]s.
//!
//! The same rule of wildcards bites inside a zone, so each zone is closed under it.
//! Lists in files are in them line by line, the names that they make an exception of as what the rest of the policy says
//! of them. Zones speak of names only. Ports, addresses and denied links inside a CNAME chain need the gateway itself.

mod closure;
mod edition;
mod image;
mod owners;
mod sheet;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use sha2::{Digest as _, Sha256};

pub use edition::{Delta, Edition, next_serial, serial_is_newer};
pub use image::Image;
use owners::Lists;

use crate::policy::model::{DomainList, HostName, List, Policy};
use crate::policy::patterns::Domains;
use crate::policy::schedule::Moment;

/// The view of sources in scope that belong to no host, as scripts see it (SPEC section 3, telemetry).
pub const NOBODY: &str = "*";
/// Stands as the view of the zone that all views end with. No host can have this name.
pub const EVERYBODY: &str = "**";

/// How long a resolver may keep what a zone says, seconds; short, so that a new revision works at once.
pub const TTL: u32 = 10;
/// How often a secondary asks for a new serial, and again after a failure, seconds.
pub const REFRESH: u32 = 60;
/// How long a secondary serves a zone that it cannot refresh, seconds: one day, so that a dead primary opens nothing.
pub const EXPIRE: u32 = 86_400;
/// Longest name as text without the trailing dot, octets (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label, octets.
const MAX_LABEL: usize = 63;
/// What the names of all zones end with.
const SUFFIX: &str = "rpz.clawgress.";
/// One response-policy zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The host whose own zone this is; [`NOBODY`]: that of the global lists, which hosts without lists of their own
    /// share; [`EVERYBODY`]: the last zone of all views.
    pub view: String,
    /// The zone's name with the trailing dot.
    pub name: String,
    /// The zone file (RFC 1035 section 5).
    pub text: String,
}

/// What happens to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is answered.
    Passthru,
    /// It is said not to exist.
    Nxdomain,
}

impl Action {
    /// The CNAME's target that says so, with the trailing dot.
    pub fn target(self) -> &'static str {
        match self {
            Self::Passthru => "rpz-passthru.",
            Self::Nxdomain => ".",
        }
    }
}

/// One zone at an instant, without its serial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// As [`Zone::view`].
    pub view: String,
    /// As [`Zone::name`].
    pub name: String,
    /// Its records.
    pub image: Image,
}

/// What one zone is made of.
struct Plan {
    view: String,
    name: String,
    what: What,
}

enum What {
    Denied(Lists),
    Allowed(Lists),
    Everything,
}

/// All zones of a policy, in an order that is right for every view: what is denied, what is allowed, the rest. Hosts
/// have zones of their own only where they have lists of their own. `revision` becomes the serial, which grows with it
/// (RFC 1982). With `moment` what a window closes at that instant is not allowed, and hosts with windows of their own have
/// zones of their own; without it windows do not matter.
#[must_use]
pub fn zones(policy: &Policy, revision: u64, moment: Option<&Moment>) -> Vec<Zone> {
    let written = |plan: Plan| {
        let mut text = String::new();
        // A string takes everything.
        let _ = write(&mut text, &plan, revision);
        Zone { text, view: plan.view, name: plan.name }
    };
    plans(policy, moment).into_iter().map(written).collect()
}

/// Writes a zone file.
fn write(out: &mut dyn Write, Plan { name, what, .. }: &Plan, revision: u64) -> fmt::Result {
    match what {
        What::Denied(lists) => {
            head(out, name, "names that may never be asked for", revision)?;
            sheet::write(out, lists, lists.denied(), room(name))
        }
        What::Allowed(lists) => {
            head(out, name, "names that may be asked for", revision)?;
            sheet::write(out, lists, lists.allowed(), room(name))
        }
        What::Everything => {
            head(out, name, "every name", revision)?;
            out.write_str("* CNAME .\n")
        }
    }
}

/// The same zones in the compact form in which they are served.
#[must_use]
pub fn served(policy: &Policy, moment: &Moment) -> Vec<Served> {
    let made = |Plan { view, name, what }: Plan| {
        let room = room(&name);
        let image = match what {
            What::Denied(lists) => Image::of(lists.denied(), room),
            What::Allowed(lists) => Image::of(lists.allowed(), room),
            What::Everything => Image::everything(),
        };
        Served { view, name, image }
    };
    plans(policy, Some(moment)).into_iter().map(made).collect()
}

fn plans(policy: &Policy, moment: Option<&Moment>) -> Vec<Plan> {
    let timed = moment.is_some();
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for host in [None].into_iter().chain(policy.hosts.keys().map(Some)) {
        let own = Own::of(policy, host, timed);
        let lists = || Lists::of(&policy.effective(host), moment);
        let view = || host.map_or(NOBODY, HostName::as_str).to_owned();
        if let Some(name) = denied_zone(policy, host, timed).filter(|_| own.denied) {
            denied.push(Plan { view: view(), name, what: What::Denied(lists()) });
        }
        if own.allow {
            let name = allow_zone(policy, host, timed);
            allowed.push(Plan { view: view(), name, what: What::Allowed(lists()) });
        }
    }
    let rest = Plan { view: EVERYBODY.to_owned(), name: format!("deny.{SUFFIX}"), what: What::Everything };
    denied.into_iter().chain(allowed).chain([rest]).collect()
}

/// The names of the zones that make up the view of `host` (`None`: sources in no host), the one that speaks first
/// first. `timed`: of those that follow windows.
#[must_use]
pub fn order(policy: &Policy, host: Option<&HostName>, timed: bool) -> Vec<String> {
    let denied = denied_zone(policy, host, timed);
    denied.into_iter().chain([allow_zone(policy, host, timed), format!("deny.{SUFFIX}")]).collect()
}

/// [`print()`] as one text.
#[must_use]
pub fn render(policy: &Policy, revision: u64, only: Option<&HostName>, moment: Option<&Moment>) -> String {
    let mut out = String::new();
    let _ = print(&mut out, policy, revision, only, moment);
    out
}

/// Writes a text for people: who uses which zones, then the zones. Not itself a zone file; each part between the
/// separators is one. `only`: the view of that host; `None`: all views. `moment` as for [`zones`].
///
/// # Errors
/// `out` takes no more, or there are more than four gigabytes of names.
pub fn print(
    out: &mut dyn Write,
    policy: &Policy,
    revision: u64,
    only: Option<&HostName>,
    moment: Option<&Moment>,
) -> fmt::Result {
    writeln!(out, "; the names of revision {revision} as response-policy zones; first match in this order:")?;
    let mut shown = BTreeSet::new();
    for host in policy.hosts.keys().map(Some).chain([None]).filter(|host| only.is_none() || *host == only) {
        let who = match host.and_then(|name| Some((name, policy.hosts.get(name)?))) {
            Some((name, host)) => {
                let sources: Vec<String> = host.sources.entries.iter().map(ToString::to_string).collect();
                format!("{name} ({})", sources.join(", "))
            }
            None => "sources in no host".to_owned(),
        };
        let names = order(policy, host, moment.is_some());
        writeln!(out, ";   {who}: {}", names.join(" "))?;
        shown.extend(names);
    }
    out.write_str(
        "; ports, addresses and denied links of CNAME chains cannot be said in zones; the gateway minds them\n",
    )?;
    for plan in plans(policy, moment).iter().filter(|plan| shown.contains(&plan.name)) {
        write!(out, "\n; ---- zone {} ----\n", plan.name)?;
        write(out, plan, revision)?;
    }
    Ok(())
}

/// Which zones a view does not share with the global one.
struct Own {
    allow: bool,
    denied: bool,
}

impl Own {
    fn of(policy: &Policy, host: Option<&HostName>, timed: bool) -> Self {
        let Some(host) = host.and_then(|name| policy.hosts.get(name)) else {
            return Self { allow: true, denied: true };
        };
        let windows = timed && (host.time_window.is_some() || !host.domain_time_windows.is_empty());
        let allow = host.allow.domains.is_some() || host.allow.domain_lists.is_some() || windows;
        let deny = has_names(host.deny.domains.as_ref()) || has_entries(host.deny.domain_lists.as_ref());
        // What a denylist makes an exception of passes only where the allowlist has it, so the zone is the view's own.
        let excepted = allow && lists_of(policy).any(has_exceptions);
        Self { allow, denied: deny || excepted }
    }
}

/// The global denylists in files.
fn lists_of(policy: &Policy) -> impl Iterator<Item = &DomainList> {
    policy.deny.domain_lists.iter().flat_map(|list| list.entries.iter())
}

fn has_exceptions(list: &DomainList) -> bool {
    list.contents.as_ref().is_some_and(|contents| contents.report().exceptions > 0)
}

fn has_names(list: Option<&Domains>) -> bool {
    list.is_some_and(|list| !list.entries.is_empty())
}

fn has_entries<T>(list: Option<&List<T>>) -> bool {
    list.is_some_and(|list| !list.entries.is_empty())
}

fn allow_zone(policy: &Policy, host: Option<&HostName>, timed: bool) -> String {
    let owner = host.filter(|_| Own::of(policy, host, timed).allow);
    format!("{}.allow.{SUFFIX}", label(owner))
}

/// `None`: nothing is denied by name.
fn denied_zone(policy: &Policy, host: Option<&HostName>, timed: bool) -> Option<String> {
    let rules = policy.effective(host);
    let any = rules.deny_domains.into_iter().any(has_names) || rules.deny_lists.into_iter().any(has_entries);
    let owner = host.filter(|_| Own::of(policy, host, timed).denied);
    any.then(|| format!("{}.denied.{SUFFIX}", label(owner)))
}

/// A label for a view. Host names may hold dots and capitals, and `A` and `a` are two hosts but one label; such names
/// get a part of their digest.
fn label(host: Option<&HostName>) -> String {
    const GLOBAL: &str = "global";
    let Some(host) = host else { return GLOBAL.to_owned() };
    let text = host.as_str();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if text != GLOBAL && text.len() <= MAX_LABEL && text.chars().all(legal) && !text.starts_with('-') {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let front: String = text.chars().map(|c| c.to_ascii_lowercase()).map(|c| if legal(c) { c } else { '-' }).collect();
    let front: String = front.trim_start_matches('-').chars().take(MAX_LABEL - 9).collect();
    let front = if front.is_empty() { "host".to_owned() } else { front };
    format!("{front}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// SOA and NS, which a zone must have; nobody ever asks for them. The serial wraps as RFC 1982 has it.
fn head(out: &mut dyn Write, name: &str, what: &str, revision: u64) -> fmt::Result {
    let serial = revision & u64::from(u32::MAX);
    writeln!(out, "; {name} revision {revision}: {what}\n$TTL {TTL}")?;
    writeln!(out, "@ SOA localhost. nobody.invalid. {serial} {REFRESH} {REFRESH} {EXPIRE} {TTL}\n@ NS localhost.")
}

/// Octets of an owner as text in the zone of this name.
fn room(zone: &str) -> usize {
    MAX_NAME.saturating_sub(zone.len())
}
