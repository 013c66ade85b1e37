//! The owners of a zone and what each does, closed under the rule of wildcards.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use super::Action;
use crate::plan::listed::Names;
use crate::plan::windows::Windows;
use crate::policy::model::Effective;
use crate::policy::name::{Name, Pattern};
use crate::policy::patterns::Domains;
use crate::policy::schedule::Moment;

/// Last labels that mean something else than a name in a response-policy zone.
const TRIGGERS: [&str; 5] = ["rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname", "rpz-passthru"];
/// A label that no list can have.
const NO_LABEL: &str = "\u{1}";

/// What happens to the names that a pattern covers most closely, and the line of the policy that says so.
pub(super) struct Rule {
    pattern: Pattern,
    action: Action,
    line: String,
}

/// The lists of names of one view.
pub(super) struct Lists {
    allow: Vec<Names>,
    deny: Vec<Names>,
    /// The windows and the instant at which they are asked; `None`: as if all were open.
    windows: Option<(Windows, Moment)>,
}

impl Lists {
    pub fn of(rules: &Effective<'_>, moment: Option<&Moment>) -> Self {
        let written = |list: &Domains| Names::Written(list.clone());
        let deny = rules.deny_domains.into_iter().zip(rules.deny_lists);
        Self {
            allow: rules.domains.map(written).into_iter().chain(Names::in_files(rules.domain_lists)).collect(),
            deny: deny.flat_map(|(own, files)| own.map(written).into_iter().chain(Names::in_files(files))).collect(),
            windows: moment.map(|moment| (Windows::new(rules), *moment)),
        }
    }

    /// What the allowlists name, and what has a window of its own below that. Exceptions are refused here, where the
    /// zone behind this one refuses anyway; so is what is closed now.
    pub fn allowed(&self) -> Box<dyn Iterator<Item = Rule> + '_> {
        if self.all_closed() {
            return Box::new(std::iter::empty());
        }
        let all = patterns(&self.allow).chain(self.windowed());
        Box::new(all.map(|(pattern, line)| Rule { action: self.passes(&pattern), pattern, line }))
    }

    /// What the denylists name. A zone cannot say "see the next one": where a denylist makes an exception, this zone says
    /// what the allowlists say.
    pub fn denied(&self) -> Box<dyn Iterator<Item = Rule> + '_> {
        let rules = patterns(&self.deny).map(|(pattern, line)| {
            let action = if self.is_denied(&pattern) { Action::Nxdomain } else { self.passes(&pattern) };
            Rule { pattern, action, line }
        });
        if !self.deny.iter().any(Names::has_exceptions) {
            return Box::new(rules);
        }
        let allowed = patterns(&self.allow).chain(self.windowed()).filter(|(pattern, _)| {
            let name = within(pattern);
            self.deny.iter().any(|names| names.mentions(&name)) && !self.is_denied(pattern)
        });
        let allowed = allowed.map(|(pattern, line)| Rule { action: self.passes(&pattern), pattern, line });
        Box::new(rules.chain(allowed))
    }

    /// Patterns with windows inside what is allowed: they may be closed where what is around them is open.
    fn windowed(&self) -> impl Iterator<Item = (Pattern, String)> {
        let patterns = self.windows.iter().flat_map(|(windows, _)| windows.patterns());
        let inside = patterns.filter(|pattern| {
            let name = within(pattern);
            self.allow.iter().any(|names| names.allows(&name).is_some())
        });
        inside.map(|pattern| (pattern, "domain_time_windows".to_owned()))
    }

    fn all_closed(&self) -> bool {
        self.windows.as_ref().is_some_and(|(windows, moment)| !moment.opens(windows.all.as_ref()))
    }

    fn passes(&self, pattern: &Pattern) -> Action {
        let name = within(pattern);
        let closed = |(windows, moment): &(Windows, Moment)| windows.closed(&name, moment).is_some();
        let allowed = self.allow.iter().any(|names| names.allows(&name).is_some());
        if allowed && !self.windows.as_ref().is_some_and(closed) { Action::Passthru } else { Action::Nxdomain }
    }

    fn is_denied(&self, pattern: &Pattern) -> bool {
        let name = within(pattern);
        self.deny.iter().any(|names| names.denies(&name).is_some())
    }
}

/// A name that the pattern covers and no closer one does. What lists say of it they say of all such names.
fn within(pattern: &Pattern) -> Name {
    match pattern {
        Pattern::Exact(name) => name.clone(),
        Pattern::Below(apex) => Name::from_normal(&format!("{NO_LABEL}.{apex}")),
    }
}

/// Every pattern of some lists with its line; what stands in several comes several times.
fn patterns(lists: &[Names]) -> impl Iterator<Item = (Pattern, String)> {
    lists.iter().flat_map(Names::patterns)
}

/// What becomes of a rule in a zone into whose names so many octets fit.
pub(super) enum Placed {
    /// This owner, and a remark on the line of the policy.
    Owner(String, Option<String>),
    /// It cannot be said, for this reason.
    LeftOut(&'static str),
}

impl Rule {
    /// Where it stands.
    pub fn place(&self, room: usize) -> Placed {
        let (Pattern::Exact(apex) | Pattern::Below(apex)) = &self.pattern;
        let apex = apex.as_str();
        if TRIGGERS.contains(&apex.rsplit('.').next().unwrap_or_default()) {
            return Placed::LeftOut("it means something else in such a zone");
        }
        let owner = self.pattern.to_string();
        if owner.len() <= room {
            Placed::Owner(owner, None)
        } else if self.action == Action::Nxdomain {
            // Too much is denied rather than too little.
            Placed::Owner(shorter(apex, room), Some(format!("(for {}, too long for a zone)", self.pattern)))
        } else {
            Placed::LeftOut("too long for a zone")
        }
    }

    pub fn action(&self) -> Action {
        self.action
    }
}

/// Writes the records of a zone into whose names so many octets fit.
pub(super) fn write<'r>(text: &mut String, rules: impl Iterator<Item = Rule> + 'r, room: usize) {
    let mut written: BTreeMap<String, (Action, String)> = BTreeMap::new();
    let mut seen = HashSet::new();
    for rule in rules.filter(|rule| seen.insert(rule.pattern.clone())) {
        let placed = rule.place(room);
        let Rule { pattern, action, line } = rule;
        match placed {
            Placed::LeftOut(why) => {
                let _ = writeln!(text, "; left out, {why}: {pattern} {line}");
            }
            Placed::Owner(owner, None) => {
                written.entry(owner).or_insert((action, line));
            }
            Placed::Owner(owner, Some(remark)) => {
                written.entry(owner).or_insert((action, format!("{line} {remark}")));
            }
        }
    }
    for (owner, (action, line)) in close(written, room) {
        let _ = writeln!(text, "{owner} CNAME {} ; {line}", action.target());
    }
}

/// The wildcard that covers `name` and still fits.
fn shorter(name: &str, room: usize) -> String {
    let mut rest = name;
    while let Some((_, above)) = rest.split_once('.') {
        rest = above;
        if rest.len() + 2 <= room {
            break;
        }
    }
    format!("*.{rest}")
}

/// The closure under RFC 4592: a wildcard covers nothing at and below a name that exists, and every owner makes itself
/// and all names above it exist. So each existing name below a wildcard gets the action itself, and a wildcard of its
/// own. Lines are sorted by owner.
fn close(written: BTreeMap<String, (Action, String)>, room: usize) -> BTreeMap<String, (Action, String)> {
    let mut out = written.clone();
    for owner in written.keys() {
        let mut node = owner.strip_prefix("*.").unwrap_or(owner);
        loop {
            if let Some((wildcard, action, line)) = wildcard_above(&written, node) {
                let note = || (action, format!("{line} ({wildcard})"));
                out.entry(node.to_owned()).or_insert_with(note);
                if node.len() + 2 <= room {
                    out.entry(format!("*.{node}")).or_insert_with(note);
                }
            }
            match node.split_once('.') {
                Some((_, above)) => node = above,
                None => break,
            }
        }
    }
    out
}

/// The longest wildcard that covers `node`, with its action and line.
fn wildcard_above<'w>(
    written: &'w BTreeMap<String, (Action, String)>,
    node: &str,
) -> Option<(String, Action, &'w str)> {
    let mut rest = node;
    while let Some((_, above)) = rest.split_once('.') {
        rest = above;
        let wildcard = format!("*.{rest}");
        if let Some((action, line)) = written.get(&wildcard) {
            return Some((wildcard, *action, line));
        }
    }
    None
}
