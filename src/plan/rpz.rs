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
//! The same rule of wildcards bites inside a zone, so each zone is closed under it.
//! Lists in files are in them line by line, the names that they make an exception of as what the rest of the policy says
//! of them. Zones speak of names only. Ports, addresses and denied links inside a CNAME chain need the gateway itself.

mod owners;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use owners::{Lists, Rule};

use crate::policy::model::{DomainList, HostName, List, Policy};

/// The view of sources in scope that belong to no host, as scripts see it (SPEC section 3, telemetry).
pub const NOBODY: &str = "*";
/// Stands as the view of the zone that all views end with. No host can have this name.
pub const EVERYBODY: &str = "**";

/// How long a resolver may keep what a zone says, seconds; short, so that a new revision works at once.
const TTL: u32 = 10;
/// How often a secondary asks for a new serial, and again after a failure, seconds.
const REFRESH: u32 = 60;
/// How long a secondary serves a zone that it cannot refresh, seconds: one day, so that a dead primary opens nothing.
const EXPIRE: u32 = 86_400;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Passthru,
    Nxdomain,
}

impl Action {
    fn target(self) -> &'static str {
        match self {
            Self::Passthru => "rpz-passthru.",
            Self::Nxdomain => ".",
        }
    }
}

/// All zones of a policy, in an order that is right for every view: what is denied, what is allowed, the rest. Hosts
/// have zones of their own only where they have lists of their own. `revision` becomes the serial, which grows with it
/// (RFC 1982).
#[must_use]
pub fn zones(policy: &Policy, revision: u64) -> Vec<Zone> {
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for host in [None].into_iter().chain(policy.hosts.keys().map(Some)) {
        let own = Own::of(policy, host);
        let lists = Lists::of(&policy.effective(host));
        let view = host.map_or(NOBODY, HostName::as_str);
        if let Some(name) = denied_zone(policy, host).filter(|_| own.denied) {
            let text = zone(&name, Action::Nxdomain, lists.denied(), revision);
            denied.push(Zone { view: view.to_owned(), name, text });
        }
        if own.allow {
            let name = allow_zone(policy, host);
            let text = zone(&name, Action::Passthru, lists.allowed(), revision);
            allowed.push(Zone { view: view.to_owned(), name, text });
        }
    }
    let name = format!("deny.{SUFFIX}");
    let text = head(&name, "every name", revision) + "* CNAME .\n";
    let rest = Zone { view: EVERYBODY.to_owned(), name, text };
    denied.into_iter().chain(allowed).chain([rest]).collect()
}

/// The names of the zones that make up the view of `host` (`None`: sources in no host), the one that speaks first
/// first.
#[must_use]
pub fn order(policy: &Policy, host: Option<&HostName>) -> Vec<String> {
    let denied = denied_zone(policy, host);
    denied.into_iter().chain([allow_zone(policy, host), format!("deny.{SUFFIX}")]).collect()
}

/// One text for people: who uses which zones, then the zones. Not itself a zone file; each part between the separators
/// is one. `only`: the view of that host; `None`: all views.
#[must_use]
pub fn render(policy: &Policy, revision: u64, only: Option<&HostName>) -> String {
    let mut out = format!("; the names of revision {revision} as response-policy zones; first match in this order:\n");
    let mut shown = BTreeSet::new();
    for host in policy.hosts.keys().map(Some).chain([None]).filter(|host| only.is_none() || *host == only) {
        let who = match host.and_then(|name| Some((name, policy.hosts.get(name)?))) {
            Some((name, host)) => {
                let sources: Vec<String> = host.sources.entries.iter().map(ToString::to_string).collect();
                format!("{name} ({})", sources.join(", "))
            }
            None => "sources in no host".to_owned(),
        };
        let names = order(policy, host);
        let _ = writeln!(out, ";   {who}: {}", names.join(" "));
        shown.extend(names);
    }
    out.push_str(
        "; ports, addresses and denied links of CNAME chains cannot be said in zones; the gateway minds them\n",
    );
    for zone in zones(policy, revision).iter().filter(|zone| shown.contains(&zone.name)) {
        let _ = write!(out, "\n; ---- zone {} ----\n{}", zone.name, zone.text);
    }
    out
}

/// The most rules of a policy whose zones are written as a text: beyond it that takes hundreds of megabytes.
pub const MAX_RULES: usize = 200_000;

/// How many rules the zones of a policy are made of; a file counts wherever it is named.
#[must_use]
pub fn rules(policy: &Policy) -> usize {
    let hosts = policy.hosts.values().map(|host| (&host.allow, &host.deny));
    let written =
        hosts.chain([(&policy.allow, &policy.deny)]).flat_map(|(allow, deny)| [&allow.domains, &deny.domains]);
    let written: usize = written.flatten().map(|list| list.entries.len()).sum();
    let in_files = policy.domain_lists().filter_map(|(_, list)| list.contents.as_ref());
    written + in_files.map(|contents| contents.len()).sum::<usize>()
}

/// Which zones a view does not share with the global one.
struct Own {
    allow: bool,
    denied: bool,
}

impl Own {
    fn of(policy: &Policy, host: Option<&HostName>) -> Self {
        let Some(host) = host.and_then(|name| policy.hosts.get(name)) else {
            return Self { allow: true, denied: true };
        };
        let allow = host.allow.domains.is_some() || host.allow.domain_lists.is_some();
        let deny = has_entries(host.deny.domains.as_ref()) || has_entries(host.deny.domain_lists.as_ref());
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

fn has_entries<T>(list: Option<&List<T>>) -> bool {
    list.is_some_and(|list| !list.entries.is_empty())
}

fn allow_zone(policy: &Policy, host: Option<&HostName>) -> String {
    let owner = host.filter(|_| Own::of(policy, host).allow);
    format!("{}.allow.{SUFFIX}", label(owner))
}

/// `None`: nothing is denied by name.
fn denied_zone(policy: &Policy, host: Option<&HostName>) -> Option<String> {
    let rules = policy.effective(host);
    let any = rules.deny_domains.into_iter().any(has_entries) || rules.deny_lists.into_iter().any(has_entries);
    let owner = host.filter(|_| Own::of(policy, host).denied);
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
fn head(name: &str, what: &str, revision: u64) -> String {
    let serial = revision & u64::from(u32::MAX);
    format!(
        "; {name} revision {revision}: {what}\n$TTL {TTL}\n\
         @ SOA localhost. nobody.invalid. {serial} {REFRESH} {REFRESH} {EXPIRE} {TTL}\n@ NS localhost.\n"
    )
}

/// A zone of these rules; of equal owners the first one speaks.
fn zone(name: &str, action: Action, rules: Vec<Rule>, revision: u64) -> String {
    let what = match action {
        Action::Passthru => "names that may be asked for",
        Action::Nxdomain => "names that may never be asked for",
    };
    let mut text = head(name, what, revision);
    owners::write(&mut text, rules, MAX_NAME.saturating_sub(name.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn policy(text: &str) -> Policy {
        parse(text).unwrap()
    }

    /// The records of a zone, without its head.
    fn records(zones: &[Zone], name: &str) -> Vec<String> {
        let zone = zones.iter().find(|zone| zone.name == name).unwrap_or_else(|| panic!("no zone {name}"));
        zone.text.lines().skip(4).map(str::to_owned).collect()
    }

    #[test]
    fn an_allowlist_and_the_zone_that_denies_the_rest() {
        let policy = policy(r#"{"version": 1, "allow": {"domains": ["b.example.com", "*.A.example.com"]}}"#);
        let zones = zones(&policy, 7);
        assert_eq!(
            zones[0].text,
            "; global.allow.rpz.clawgress. revision 7: names that may be asked for\n$TTL 10\n\
             @ SOA localhost. nobody.invalid. 7 60 60 86400 10\n@ NS localhost.\n\
             *.a.example.com CNAME rpz-passthru. ; /allow/domains/1\n\
             b.example.com CNAME rpz-passthru. ; /allow/domains/0\n"
        );
        assert_eq!(records(&zones, "deny.rpz.clawgress."), ["* CNAME ."]);
        assert_eq!(order(&policy, None), ["global.allow.rpz.clawgress.", "deny.rpz.clawgress."]);
    }

    #[test]
    fn wildcards_are_closed_over_what_exists_below_them() {
        let policy = policy(r#"{"version": 1, "allow": {"domains": ["*.clo.test", "m.clo.test", "u.v.clo.test"]}}"#);
        assert_eq!(
            records(&zones(&policy, 1), "global.allow.rpz.clawgress."),
            [
                "*.clo.test CNAME rpz-passthru. ; /allow/domains/0",
                "*.m.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
                "*.u.v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
                "*.v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
                "m.clo.test CNAME rpz-passthru. ; /allow/domains/1",
                "u.v.clo.test CNAME rpz-passthru. ; /allow/domains/2",
                "v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
            ]
        );
    }

    #[test]
    fn hosts_share_what_they_inherit() {
        let policy = policy(
            r#"{"version": 1, "allow": {"domains": ["a.test"]}, "deny": {"domains": ["d.test"]}, "hosts": {
                "same": {"sources": ["192.0.2.1"]},
                "list": {"sources": ["192.0.2.2"], "allow": {"domains": []}},
                "deny": {"sources": ["192.0.2.3"], "deny": {"domains": ["e.test"]}}}}"#,
        );
        let host = |name: &str| policy.hosts.keys().find(|host| host.as_str() == name);
        let last = "deny.rpz.clawgress.";
        let (global, denied) = ("global.allow.rpz.clawgress.", "global.denied.rpz.clawgress.");
        assert_eq!(order(&policy, host("same")), [denied, global, last]);
        assert_eq!(order(&policy, host("list")), [denied, "list.allow.rpz.clawgress.", last]);
        assert_eq!(order(&policy, host("deny")), ["deny.denied.rpz.clawgress.", global, last]);
        let zones = zones(&policy, 1);
        assert_eq!(zones.iter().map(|zone| zone.view.as_str()).collect::<Vec<_>>(), ["*", "deny", "*", "list", "**"]);
        assert_eq!(
            records(&zones, "deny.denied.rpz.clawgress."),
            ["d.test CNAME . ; /deny/domains/0", "e.test CNAME . ; /hosts/deny/deny/domains/0"]
        );
        assert!(records(&zones, "list.allow.rpz.clawgress.").is_empty());
    }

    #[test]
    fn views_never_share_a_label() {
        let names = ["a.b", "a-b", "A-b", "a-B", "global", "_", "-", ".", "a_b", &"x".repeat(63)];
        let labels: std::collections::BTreeSet<String> =
            names.iter().map(|name| label(Some(&HostName((*name).into())))).chain([label(None)]).collect();
        assert_eq!(labels.len(), names.len() + 1, "{labels:?}");
        assert!(labels.iter().all(|label| label.len() <= MAX_LABEL && !label.contains('.')), "{labels:?}");
    }

    #[test]
    fn what_does_not_fit_is_not_allowed_and_is_denied_more_widely() {
        let long = format!("{0}.{0}.{0}.{1}.test", "l".repeat(60), "k".repeat(60));
        let text = format!(
            r#"{{"version": 1, "allow": {{"domains": ["{long}", "8.8.8.8.rpz-ip"]}}, "deny": {{"domains": ["{long}"]}}}}"#
        );
        let zones = zones(&policy(&text), 1);
        let allow = records(&zones, "global.allow.rpz.clawgress.");
        assert!(allow.len() == 2 && allow.iter().all(|line| line.starts_with("; left out")), "{allow:?}");
        let denied = records(&zones, "global.denied.rpz.clawgress.");
        assert!(denied.len() == 1 && denied[0].starts_with("*.l") && denied[0].contains(" CNAME . ;"), "{denied:?}");
    }

    #[test]
    fn the_serial_is_the_revision_and_wraps() {
        let policy = policy(r#"{"version": 1}"#);
        assert!(zones(&policy, u64::from(u32::MAX) + 3)[0].text.contains(" nobody.invalid. 2 60 "));
    }

    #[test]
    fn the_rendering_says_who_uses_what() {
        let policy = policy(
            r#"{"version": 1, "hosts": {"a.b": {"sources": ["192.0.2.1", "192.0.2.8/29"]},
            "own": {"sources": ["192.0.2.2"], "allow": {"domains": []}}}}"#,
        );
        let text = render(&policy, 3, None);
        assert!(text.contains(";   a.b (192.0.2.1/32, 192.0.2.8/29): global.allow.rpz.clawgress. deny."), "{text}");
        assert!(text.contains("\n; ---- zone deny.rpz.clawgress. ----\n"), "{text}");
        assert!(text.contains("; ---- zone own.allow.rpz.clawgress. ----\n"), "{text}");
        let own = policy.hosts.keys().find(|host| host.as_str() == "own");
        let text = render(&policy, 3, own);
        assert!(!text.contains("a.b") && !text.contains("global") && text.contains("zone own.allow."), "{text}");
    }
}
