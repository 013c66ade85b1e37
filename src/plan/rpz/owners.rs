//! The owners of a zone and what each does, closed under the rule of wildcards.

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
    line: Line,
}

/// Where a rule stands: the place of a list among those of its kind, and the number of the entry.
#[derive(Clone, Copy)]
pub(super) enum Line {
    Allowed(u16, u32),
    Denied(u16, u32),
    Window,
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
        let all = patterns(&self.allow, Line::Allowed).chain(self.windowed());
        Box::new(all.map(|(pattern, line)| Rule { action: self.passes(&pattern), pattern, line }))
    }

    /// What the denylists name. A zone cannot say "see the next one": where a denylist makes an exception, this zone says
    /// what the allowlists say.
    pub fn denied(&self) -> Box<dyn Iterator<Item = Rule> + '_> {
        let rules = patterns(&self.deny, Line::Denied).map(|(pattern, line)| {
            let action = if self.is_denied(&pattern) { Action::Nxdomain } else { self.passes(&pattern) };
            Rule { pattern, action, line }
        });
        if !self.deny.iter().any(Names::has_exceptions) {
            return Box::new(rules);
        }
        let allowed = patterns(&self.allow, Line::Allowed).chain(self.windowed()).filter(|(pattern, _)| {
            let name = within(pattern);
            self.deny.iter().any(|names| names.mentions(&name)) && !self.is_denied(pattern)
        });
        let allowed = allowed.map(|(pattern, line)| Rule { action: self.passes(&pattern), pattern, line });
        Box::new(rules.chain(allowed))
    }

    /// Patterns with windows inside what is allowed: they may be closed where what is around them is open.
    fn windowed(&self) -> impl Iterator<Item = (Pattern, Line)> {
        let patterns = self.windows.iter().flat_map(|(windows, _)| windows.patterns());
        let inside = patterns.filter(|pattern| {
            let name = within(pattern);
            self.allow.iter().any(|names| names.allows(&name).is_some())
        });
        inside.map(|pattern| (pattern, Line::Window))
    }

    /// A line as people find it.
    pub fn words(&self, line: Line) -> String {
        let (list, number) = match line {
            Line::Allowed(list, number) => (self.allow.get(usize::from(list)), number),
            Line::Denied(list, number) => (self.deny.get(usize::from(list)), number),
            Line::Window => return "domain_time_windows".to_owned(),
        };
        list.map(|names| names.line(number)).unwrap_or_default()
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
fn patterns(lists: &[Names], line: fn(u16, u32) -> Line) -> impl Iterator<Item = (Pattern, Line)> {
    let of = move |(list, names)| Names::patterns(names).map(move |(pattern, number)| (pattern, line(list, number)));
    (0..).zip(lists).flat_map(of)
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
            Placed::Owner(shorter(apex, room), Some(format!(" (for {}, too long for a zone)", self.pattern)))
        } else {
            Placed::LeftOut("too long for a zone")
        }
    }

    pub fn action(&self) -> Action {
        self.action
    }

    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    pub fn line(&self) -> Line {
        self.line
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
