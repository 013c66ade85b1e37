//! Policies as arguments: a file, or `-` for standard input.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Outcome;
use super::output::{complain, count, remark_all};
use crate::policy::json::MAX_DOCUMENT;
use crate::policy::{Diagnostic, Parsed, Policy, parse};
use crate::store::{read_lists, words};

/// Where a policy is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

impl Source {
    /// How messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The bytes, as they are.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        // One byte more than is read at most, so that the reader sees the excess and says so.
        let limit = MAX_DOCUMENT as u64 + 1;
        let mut bytes = Vec::new();
        let result = match self {
            Self::Stdin => io::stdin().lock().take(limit).read_to_end(&mut bytes),
            Self::File(path) => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
        };
        result.map_err(|error| anyhow::anyhow!("cannot read {}: {}", self.name(), words(&error)))?;
        Ok(bytes)
    }

    /// The policy, or every mistake in it.
    pub fn parse(&self) -> anyhow::Result<Result<Parsed, Vec<Diagnostic>>> {
        Ok(parse::parse_bytes(&self.read()?))
    }

    /// The text; `None`: it is none, and that has been said.
    pub fn text(&self) -> anyhow::Result<Option<String>> {
        match String::from_utf8(self.read()?) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let mistakes = parse::parse_bytes(error.as_bytes()).err().unwrap_or_default();
                refuse(&self.name(), &mistakes);
                Ok(None)
            }
        }
    }
}

/// The policy with what its files say, or every file that cannot be read.
pub(super) fn with_lists(policy: Policy) -> Result<Policy, Vec<Diagnostic>> {
    read_lists(&policy).map(|contents| policy.with_contents(&contents))
}

/// The stored policy of the settings, as a source.
pub(super) fn stored(path: &Path) -> anyhow::Result<Source> {
    // exists() would hide a missing right behind a missing file.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!(
            "no policy is stored in {}; name one with --policy FILE, or store one with `clawgress import --policy FILE`",
            path.display()
        ),
        _ => Ok(Source::File(path.to_owned())),
    }
}

/// Says that a policy is not valid and why.
pub(super) fn refuse(name: &str, mistakes: &[Diagnostic]) -> Outcome {
    let head = format!("{name} is not a valid policy: {}", count(mistakes.len(), "mistake", "mistakes"));
    if mistakes.is_empty() {
        complain(&head);
    } else {
        remark_all(&format!("error: {head}"), mistakes);
    }
    Outcome::Refused
}
