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
        let mut rest: &str = &self.0;
        std::iter::from_fn(move || {
            rest = rest.split_once('.')?.1;
            Some(rest)
        })
    }
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

impl Pattern {
    /// Of two patterns that cover one name, the greater one is closer to it: the name itself, else the longer wildcard.
    pub fn closeness(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(apex) => apex.as_str().len(),
        }
    }

    /// Whether the pattern covers `name`.
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(apex) => name.as_str().strip_suffix(apex.as_str()).is_some_and(|front| front.ends_with('.')),
        }
    }
}

impl Pattern {
    /// Reads what [`Pattern`] writes itself as. `None`: no policy can have written it.
    pub fn from_record(text: &str) -> Option<Self> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |apex| (apex, true));
        let name = Name::from_wire_labels(name.split('.').map(str::as_bytes))?;
        Some(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(apex) => write!(f, "*.{apex}"),
        }
    }
}
