//! A revision and its file form.

use std::fmt::{self, Write as _};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lists::KeptList;

/// What a revision was applied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line (`apply`).
    Cli,
    /// A REST call.
    Api,
    /// `import`.
    Import,
    /// The daemon's start, or its reading of the stored policy again.
    Boot,
    /// The return to an earlier revision.
    Rollback,
    /// The change of a file with a list of names.
    List,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cli => "cli",
            Self::Api => "api",
            Self::Import => "import",
            Self::Boot => "boot",
            Self::Rollback => "rollback",
            Self::List => "list",
        })
    }
}

/// One applied policy, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionMeta {
    /// The number; grows, never 0.
    pub revision: u64,
    /// The policy's digest ([`crate::policy::digest`]).
    pub sha256: String,
    /// What applied it.
    pub origin: Origin,
    /// When; kept to the second.
    #[serde(with = "seconds")]
    pub applied_at: DateTime<Utc>,
    /// The id of the API's key that applied it; `None`: it was no REST call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The files with lists of names that the policy has, each once, and what they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<KeptList>,
}

/// One applied policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// What is known about it.
    pub meta: RevisionMeta,
    /// The policy as somebody wrote it.
    pub policy: String,
}

/// The first line of a revision file.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    meta: RevisionMeta,
    /// Length of the text behind the line, bytes.
    bytes: u64,
    /// SHA-256 of that text: not the policy's digest, which does not see white space.
    text_sha256: String,
}

/// The first line of the file of a policy, with its line feed.
pub(super) fn head(meta: &RevisionMeta, policy: &str) -> String {
    let head = Head { meta: meta.clone(), bytes: policy.len() as u64, text_sha256: hex(policy.as_bytes()) };
    let mut line = serde_json::to_string(&head).unwrap_or_default();
    line.push('\n');
    line
}

impl Revision {
    /// Reads a file; the reason why it is no good otherwise.
    pub(super) fn from_text(mut text: String) -> Result<Self, String> {
        let (line, _) = text.split_once('\n').ok_or(NO_HEAD)?;
        let head = read_head(line.as_bytes())?;
        // In its place, because it may be long.
        text.drain(..=line.len());
        if (text.len() as u64) < head.bytes {
            return Err(CUT.to_owned());
        }
        if hex(text.as_bytes()) != head.text_sha256 {
            return Err("its policy is not the one that was written".to_owned());
        }
        Ok(Self { meta: head.meta, policy: text })
    }
}

const NO_HEAD: &str = "its first line does not say what it is";
const CUT: &str = "it is cut off";

/// The metadata in the first line of a file that is `length` bytes long.
pub(super) fn meta(line: &[u8], length: u64) -> Result<RevisionMeta, String> {
    let head = read_head(line)?;
    match length.checked_sub(head.bytes.saturating_add(line.len() as u64)) {
        Some(0) => Ok(head.meta),
        Some(_) => Err("it is longer than what was written".to_owned()),
        None => Err(CUT.to_owned()),
    }
}

fn read_head(line: &[u8]) -> Result<Head, String> {
    serde_json::from_slice(line).map_err(|_| NO_HEAD.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Times as RFC 3339 to the second, in UTC.
pub(crate) mod seconds {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(from)
    }
}
