//! Legal, but probably not what was meant: words about domains that no allowlist has.

use std::cell::OnceCell;
use std::collections::HashSet;

use crate::policy::diagnostic::{At, Report};
use crate::policy::domain;
use crate::policy::json::Value;
use crate::policy::model::{Allow, DomainList, List, Policy};
use crate::policy::name::{Pattern, PatternRef, parents};
use crate::policy::patterns::{Domains, Patterns};

const HINT: &str = "add the domain to allow.domains, or remove this line";

/// Warns of labels, windows and caps of domains that are on no allowlist for which they could matter. Says nothing
/// where names come from files, because those are not read here.
pub(super) fn unused(written: &Value<'_>, policy: &Policy, report: &mut Report) {
    let everywhere = Index::of(policy.hosts.values().map(|host| &host.allow).chain([&policy.allow]).map(names));
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
    let global = Index::of([names(&policy.allow)]);
    for (name, host) in &policy.hosts {
        let windows = host.domain_time_windows.iter().map(|(pattern, window)| (pattern, &window.path));
        let mut places = windows.chain(host.caps.iter().map(|(pattern, cap)| (pattern, &cap.path))).peekable();
        if places.peek().is_none() {
            continue;
        }
        // Field by field: what the host does not say it inherits.
        let (rules, inherits) =
            (policy.effective(Some(name)), host.allow.domains.is_none() && host.allow.domain_lists.is_none());
        let own = (!inherits).then(|| Index::of([(rules.domains, rules.domain_lists)]));
        let Some(index) = own.as_ref().unwrap_or(&global) else { continue };
        for (pattern, path) in places {
            if !index.covers(pattern) {
                report.warn_at(path, format!("the allowlist of {name} does not have this domain"), HINT);
            }
        }
    }
}

/// What an allowlist says of names, written and in files.
type Lists<'p> = (Option<&'p Domains>, Option<&'p List<DomainList>>);

fn names(allow: &Allow) -> Lists<'_> {
    (allow.domains.as_ref(), allow.domain_lists.as_ref())
}

/// Allowlists, for asking whether they have anything to do with a pattern.
struct Index<'p> {
    lists: Vec<&'p Patterns>,
    /// Every name above an entry; made when it is asked for, because a list may be long.
    above: OnceCell<HashSet<&'p str>>,
}

impl<'p> Index<'p> {
    /// `None`: some names come from files.
    fn of(allows: impl IntoIterator<Item = Lists<'p>>) -> Option<Self> {
        let mut lists = Vec::new();
        for (written, files) in allows {
            if files.is_some_and(|files| !files.entries.is_empty()) {
                return None;
            }
            lists.extend(written.map(|list| &*list.entries));
        }
        Some(Self { lists, above: OnceCell::new() })
    }

    /// Whether some name that the pattern covers is on the lists.
    fn covers(&self, pattern: &Pattern) -> bool {
        let any = |pattern| self.lists.iter().any(|list| list.find(pattern).is_some());
        let (Pattern::Exact(name) | Pattern::Below(name)) = pattern;
        if any(pattern.borrowed()) || name.parents().any(|above| any(PatternRef::Below(above))) {
            return true;
        }
        matches!(pattern, Pattern::Below(_)) && self.above().contains(name.as_str())
    }

    fn above(&self) -> &HashSet<&'p str> {
        self.above.get_or_init(|| {
            let names = self.lists.iter().flat_map(|list| list.iter()).map(|entry| entry.parts().0);
            names.flat_map(parents).collect()
        })
    }
}
