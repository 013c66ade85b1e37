//! The owners of a zone and what each does, closed under the rule of wildcards.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::Action;
use crate::plan::listed::{NameIndex, Names};
use crate::policy::model::Effective;
use crate::policy::name::{Name, Pattern};

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
}

impl Lists {
    pub fn of(rules: &Effective<'_>) -> Self {
        let written = |list| Names::Written(Arc::new(NameIndex::new(list)));
        let deny = rules.deny_domains.into_iter().zip(rules.deny_lists);
        Self {
            allow: rules.domains.map(written).into_iter().chain(Names::in_files(rules.domain_lists)).collect(),
            deny: deny.flat_map(|(own, files)| own.map(written).into_iter().chain(Names::in_files(files))).collect(),
        }
    }

    /// What the allowlists name. Exceptions are refused here, where the zone behind this one refuses anyway.
    pub fn allowed(&self) -> Vec<Rule> {
        patterns(&self.allow).map(|(pattern, line)| Rule { action: self.passes(&pattern), pattern, line }).collect()
    }

    /// What the denylists name. A zone cannot say "see the next one": where a denylist makes an exception, this zone says
    /// what the allowlists say.
    pub fn denied(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = patterns(&self.deny)
            .map(|(pattern, line)| {
                let action = if self.is_denied(&pattern) { Action::Nxdomain } else { self.passes(&pattern) };
                Rule { pattern, action, line }
            })
            .collect();
        if self.deny.iter().any(Names::has_exceptions) {
            let allowed = patterns(&self.allow).filter(|(pattern, _)| {
                let name = within(pattern);
                self.deny.iter().any(|names| names.mentions(&name)) && !self.is_denied(pattern)
            });
            let allowed: Vec<_> = allowed.collect();
            rules.extend(allowed.into_iter().map(|(pattern, line)| Rule {
                action: self.passes(&pattern),
                pattern,
                line,
            }));
        }
        rules
    }

    fn passes(&self, pattern: &Pattern) -> Action {
        let name = within(pattern);
        if self.allow.iter().any(|names| names.allows(&name).is_some()) { Action::Passthru } else { Action::Nxdomain }
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

/// Every pattern of some lists once, with its first line.
fn patterns(lists: &[Names]) -> impl Iterator<Item = (Pattern, String)> {
    let mut seen = HashSet::new();
    lists.iter().flat_map(Names::patterns).filter(move |(pattern, _)| seen.insert(pattern.clone()))
}

/// Writes the records of a zone into whose names so many octets fit.
pub(super) fn write(text: &mut String, rules: Vec<Rule>, room: usize) {
    let mut written: BTreeMap<String, (Action, String)> = BTreeMap::new();
    for Rule { pattern, action, line } in rules {
        let (Pattern::Exact(apex) | Pattern::Below(apex)) = &pattern;
        let apex = apex.as_str();
        if TRIGGERS.contains(&apex.rsplit('.').next().unwrap_or_default()) {
            let _ = writeln!(text, "; left out, it means something else in such a zone: {pattern} {line}");
            continue;
        }
        let owner = pattern.to_string();
        if owner.len() <= room {
            written.entry(owner).or_insert((action, line));
        } else if action == Action::Nxdomain {
            // Too much is denied rather than too little.
            let note = format!("{line} (for {pattern}, too long for a zone)");
            written.entry(shorter(apex, room)).or_insert((action, note));
        } else {
            let _ = writeln!(text, "; left out, too long for a zone: {pattern} {line}");
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
