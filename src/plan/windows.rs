//! The windows of one host's view, compiled: one look-up per label.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::policy::model::{Effective, Located, Window};
use crate::policy::name::{Name, Pattern};
use crate::policy::schedule::Moment;

/// The windows of one view.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub all: Option<Located<Window>>,
    exact: HashMap<Name, Located<Window>>,
    below: HashMap<Name, Located<Window>>,
}

impl Windows {
    pub fn new(rules: &Effective<'_>) -> Self {
        let mut windows = Self { all: rules.window.cloned(), ..Self::default() };
        // The host's own come last, so that they replace the global ones of the same pattern.
        for (pattern, window) in rules.domain_windows.into_iter().flatten().rev().flatten() {
            match pattern {
                Pattern::Exact(name) => windows.exact.insert(name.clone(), window.clone()),
                Pattern::Below(apex) => windows.below.insert(apex.clone(), window.clone()),
            };
        }
        windows
    }

    pub fn are_none(&self) -> bool {
        self.all.is_none() && self.exact.is_empty() && self.below.is_empty()
    }

    /// Every pattern that has a window.
    pub fn patterns(&self) -> impl Iterator<Item = Pattern> {
        let exact = self.exact.keys().cloned().map(Pattern::Exact);
        exact.chain(self.below.keys().cloned().map(Pattern::Below))
    }

    pub fn of(&self, name: &Name) -> Option<&Located<Window>> {
        self.exact.get(name).or_else(|| name.parents().find_map(|apex| self.below.get(apex)))
    }

    pub fn closed(&self, name: &Name, moment: &Moment) -> Option<&Located<Window>> {
        [self.all.as_ref(), self.of(name)].into_iter().flatten().find(|window| !moment.opens(Some(window)))
    }
}

/// Whether something is open, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// Not now.
    Closed,
    /// Now, until a window closes.
    Until(DateTime<Utc>),
    /// Now, and no window will close it.
    Always,
}

impl Openness {
    pub(super) fn of(window: Option<&Located<Window>>, moment: &Moment) -> Self {
        match window {
            None => Self::Always,
            Some(window) if !moment.opens(Some(window)) => Self::Closed,
            Some(window) => window.value.next_change(moment.zone, moment.utc).map_or(Self::Always, Self::Until),
        }
    }

    /// Both must be open.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Always, other) | (other, Self::Always) => other,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.min(b)),
        }
    }

    /// One must be open.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Closed, other) | (other, Self::Closed) => other,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.max(b)),
        }
    }
}
