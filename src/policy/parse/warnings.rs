//! Legal, but probably not what was meant: words about domains that no allowlist has.

use std::collections::HashSet;

use crate::policy::diagnostic::{At, Report};
use crate::policy::domain;
use crate::policy::json::Value;
use crate::policy::model::{Allow, Policy};
use crate::policy::name::Pattern;

const HINT: &str = "add the domain to allow.domains, or remove this line";

/// Warns of labels, windows and caps of domains that are on no allowlist for which they could matter. Says nothing
/// where names come from files, because those are not read here.
pub(super) fn unused(written: &Value<'_>, policy: &Policy, report: &mut Report) {
    let everywhere = Index::of(std::iter::once(&policy.allow).chain(policy.hosts.values().map(|host| &host.allow)));
    if let (Some(index), Some(Value::Object(labels))) = (&everywhere, written.get("labels")) {
        let at = At::ROOT.key("labels");
        for (key, _) in labels {
            if domain::pattern(key).is_ok_and(|pattern| !index.covers(&pattern)) {
                report.warn(&at.key(key), "no allowlist has this domain", HINT);
            }
        }
    }
    if let Some(index) = &everywhere {
        for (pattern, window) in &policy.domain_time_windows {
            if !index.covers(pattern) {
                report.warn_at(&window.path, "no allowlist has this domain", HINT);
            }
        }
    }
    let global = Index::of(std::iter::once(&policy.allow));
    for (name, host) in &policy.hosts {
        let windows = host.domain_time_windows.iter().map(|(pattern, window)| (pattern, &window.path));
        let mut places = windows.chain(host.caps.iter().map(|(pattern, cap)| (pattern, &cap.path))).peekable();
        if places.peek().is_none() {
            continue;
        }
        // Field by field: what the host does not say it inherits.
        let domains = host.allow.domains.as_ref().or(policy.allow.domains.as_ref()).cloned();
        let domain_lists = host.allow.domain_lists.as_ref().or(policy.allow.domain_lists.as_ref()).cloned();
        let inherits = host.allow.domains.is_none() && host.allow.domain_lists.is_none();
        let effective = Allow { domains, domain_lists, ..Allow::default() };
        let own = (!inherits).then(|| Index::of(std::iter::once(&effective)));
        let Some(index) = own.as_ref().unwrap_or(&global) else { continue };
        for (pattern, path) in places {
            if !index.covers(pattern) {
                report.warn_at(path, format!("the allowlist of {name} does not have this domain"), HINT);
            }
        }
    }
}

/// Allowlists, for asking whether they have anything to do with a pattern.
#[derive(Default)]
struct Index<'p> {
    exact: HashSet<&'p str>,
    below: HashSet<&'p str>,
    /// Every name above an entry.
    above: HashSet<&'p str>,
}

impl<'p> Index<'p> {
    /// `None`: some names come from files.
    fn of(allows: impl Iterator<Item = &'p Allow>) -> Option<Self> {
        let mut index = Self::default();
        for allow in allows {
            if allow.domain_lists.as_ref().is_some_and(|lists| !lists.entries.is_empty()) {
                return None;
            }
            for pattern in allow.domains.iter().flat_map(|list| list.entries.iter()) {
                let name = match pattern {
                    Pattern::Exact(name) => {
                        index.exact.insert(name.as_str());
                        name
                    }
                    Pattern::Below(apex) => {
                        index.below.insert(apex.as_str());
                        apex
                    }
                };
                index.above.extend(name.parents());
            }
        }
        Some(index)
    }

    /// Whether some name that the pattern covers is on the lists.
    fn covers(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(name) => {
                self.exact.contains(name.as_str()) || name.parents().any(|above| self.below.contains(above))
            }
            Pattern::Below(apex) => {
                self.below.contains(apex.as_str())
                    || self.above.contains(apex.as_str())
                    || apex.parents().any(|above| self.below.contains(above))
            }
        }
    }
}
