//! Mistakes in a policy, in the user's words, each with the place it was made at.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Pointer;

/// How many errors (and how many warnings) one report holds; the rest are counted. A document of nothing but mistakes
/// would otherwise cost many times its own size in memory.
pub const MAX_DIAGNOSTICS: usize = 100_000;

/// One mistake (or warning) in a policy document. The field order is that of the JSON form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// The place, as a JSON Pointer (RFC 6901); empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// One line: place, message and hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "policy" } else { &self.path };
        write!(f, "{path}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with one value, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake with advice.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Mistake {}

/// A place in the document while it is being read. Costs nothing until somebody asks for its text.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The document as a whole.
    pub(crate) const ROOT: At<'static> = At { parent: None, step: Step::Root };

    /// A field of this object.
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// An entry of this list.
    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// The place as a JSON Pointer.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// The place as the model keeps it.
    pub(crate) fn pointer(&self) -> Pointer {
        Pointer(Arc::from(self.text()))
    }

    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
        }
        match self.step {
            Step::Root => {}
            Step::Index(index) => {
                let _ = write!(text, "/{index}");
            }
            Step::Key(key) => {
                text.push('/');
                // RFC 6901 section 3: the two characters that a pointer escapes.
                for character in key.chars() {
                    match character {
                        '~' => text.push_str("~0"),
                        '/' => text.push_str("~1"),
                        other => text.push(other),
                    }
                }
            }
        }
    }
}

/// Everything found so far.
#[derive(Default)]
pub(crate) struct Report {
    errors: Bounded,
    warnings: Bounded,
}

#[derive(Default)]
struct Bounded {
    kept: Vec<Diagnostic>,
    left_out: usize,
}

impl Bounded {
    fn push(&mut self, path: impl FnOnce() -> String, message: String, hint: Option<String>) {
        if self.kept.len() < MAX_DIAGNOSTICS {
            self.kept.push(Diagnostic { path: path(), message, hint });
        } else {
            self.left_out += 1;
        }
    }

    fn finish(mut self, what: &str) -> Vec<Diagnostic> {
        if self.left_out > 0 {
            let message = format!("{} more {what} are not shown", self.left_out);
            let hint = Some("repair those that are, then check again".to_owned());
            self.kept.push(Diagnostic { path: String::new(), message, hint });
        }
        self.kept
    }
}

impl Report {
    /// A mistake with advice.
    pub(crate) fn error(&mut self, at: &At<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(|| at.text(), message.into(), Some(hint.into()));
    }

    /// A mistake found by somebody who did not know the place.
    pub(crate) fn mistake(&mut self, at: &At<'_>, mistake: Mistake) {
        self.errors.push(|| at.text(), mistake.message, mistake.hint);
    }

    /// Legal, but probably not what was meant.
    pub(crate) fn warn(&mut self, at: &At<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(|| at.text(), message.into(), Some(hint.into()));
    }

    /// [`Report::warn`] for a place that the model keeps.
    pub(crate) fn warn_at(&mut self, path: &Pointer, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(|| path.to_string(), message.into(), Some(hint.into()));
    }

    /// Whether there is no error so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.kept.is_empty()
    }

    /// The warnings if there is no error, else the errors.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        if self.errors.kept.is_empty() {
            Ok(self.warnings.finish("warnings"))
        } else {
            Err(self.errors.finish("mistakes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_escape_slash_and_tilde() {
        let hosts = At::ROOT.key("hosts");
        let host = hosts.key("a/b~c");
        assert_eq!(host.index(3).text(), "/hosts/a~1b~0c/3");
        assert_eq!(At::ROOT.text(), "");
    }

    #[test]
    fn a_flood_of_mistakes_is_counted_not_kept() {
        let mut report = Report::default();
        for _ in 0..MAX_DIAGNOSTICS + 7 {
            report.error(&At::ROOT, "wrong", "right");
        }
        let errors = report.finish().unwrap_err();
        assert_eq!(errors.len(), MAX_DIAGNOSTICS + 1);
        assert_eq!(errors[MAX_DIAGNOSTICS].message, "7 more mistakes are not shown");
    }
}
