//! Domain names and the two patterns a policy can say about them.
//!
//! A [`Name`] is what the DNS calls a host name after normalisation: lower-case A-labels, no trailing dot, at most
//! 253 octets in labels of 1 to 63 (RFC 1035 section 2.3.4). Equality of two `Name`s is equality of names.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A normalised domain name: lower case, A-labels (RFC 5890), no trailing dot, never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Wraps text that is already in normal form (see [`crate::policy::domain`] for the way from a user's words).
    pub(crate) fn from_normal(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The name of a query, from its wire labels: lower-cased and nothing else. `None` for the root and for labels
    /// with octets that no policy name can have (such a name is on no list).
    pub fn from_wire_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut text = String::with_capacity(64);
        for label in labels {
            if label.is_empty() || !label.iter().all(|&b| b.is_ascii_graphic() && b != b'.' && b != b'*' && b != b'\\')
            {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        }
        (!text.is_empty()).then(|| Self(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names above this one, nearest first: `b.c` and `c` for `a.b.c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        parents(&self.0)
    }
}

/// The names above a name, nearest first.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        rest = rest.split_once('.')?.1;
        Some(rest)
    })
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// One entry of a domain list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `example.com`: that one name.
    Exact(Name),
    /// `*.example.com`: every name below it, at any depth, and not the name itself.
    Below(Name),
}

/// A [`Pattern`] whose name is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternRef<'n> {
    /// As [`Pattern::Exact`].
    Exact(&'n str),
    /// As [`Pattern::Below`].
    Below(&'n str),
}

impl<'n> PatternRef<'n> {
    /// The name, and whether the names below it are meant.
    pub fn parts(self) -> (&'n str, bool) {
        match self {
            Self::Exact(name) => (name, false),
            Self::Below(apex) => (apex, true),
        }
    }

    /// The same with a name of its own.
    pub fn to_pattern(self) -> Pattern {
        match self {
            Self::Exact(name) => Pattern::Exact(Name::from_normal(name)),
            Self::Below(apex) => Pattern::Below(Name::from_normal(apex)),
        }
    }

    /// Of two patterns that cover one name, the greater one is closer to it: the name itself, else the longer wildcard.
    pub fn closeness(self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(apex) => apex.len(),
        }
    }

    /// Whether the pattern covers `name`.
    pub fn matches(self, name: &Name) -> bool {
        match self {
            Self::Exact(own) => own == name.as_str(),
            Self::Below(apex) => name.as_str().strip_suffix(apex).is_some_and(|front| front.ends_with('.')),
        }
    }
}

impl Pattern {
    /// The same, borrowed.
    pub fn borrowed(&self) -> PatternRef<'_> {
        match self {
            Self::Exact(name) => PatternRef::Exact(name.as_str()),
            Self::Below(apex) => PatternRef::Below(apex.as_str()),
        }
    }

    /// As [`PatternRef::closeness`].
    pub fn closeness(&self) -> usize {
        self.borrowed().closeness()
    }

    /// Whether the pattern covers `name`.
    pub fn matches(&self, name: &Name) -> bool {
        self.borrowed().matches(name)
    }

    /// Reads what [`Pattern`] writes itself as. `None`: no policy can have written it.
    pub fn from_record(text: &str) -> Option<Self> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |apex| (apex, true));
        let name = Name::from_wire_labels(name.split('.').map(str::as_bytes))?;
        Some(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for PatternRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(apex) => write!(f, "*.{apex}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}
