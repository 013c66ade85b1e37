//! The lists of one policy, for people and scripts.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::Report;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::model::{DomainList, ListFile, ListFormat, Policy};

/// One list and what its file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The list in the policy, as a JSON Pointer (RFC 6901).
    pub path: String,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// How it was read.
    pub format: String,
    /// SHA-256 of what the file says.
    pub sha256: String,
    /// Lines of the file.
    pub lines: u32,
    /// Names and wildcards that the list names.
    pub names: u32,
    /// Names and wildcards that it makes an exception of.
    pub exceptions: u32,
    /// Networks that no answer may hold; in a list of `allow` they have no effect.
    pub networks: u32,
    /// Rules that stood in the file before.
    pub duplicates: u32,
    /// Rules that are not enforced.
    pub not_enforced: u32,
    /// Lines, or names on a line of several, that mean nothing.
    pub rejected: u32,
}

impl Summary {
    /// Whether it is an allowlist.
    pub fn is_of_allow(&self) -> bool {
        is_of_allow(&self.path)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}): {} names", self.name, self.file, self.format, self.names)?;
        for (count, what) in [
            (self.exceptions, "exceptions"),
            (self.networks, "networks"),
            (self.duplicates, "written twice"),
            (self.not_enforced, "not enforced"),
            (self.rejected, "rejected"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// The lists of a policy that were read.
pub fn summaries(policy: &Policy) -> Vec<Summary> {
    let read = policy.domain_lists().filter_map(|(path, list)| {
        let contents = list.contents.as_ref()?;
        let report = contents.report();
        let of_allow = is_of_allow(path.as_str());
        // A zone used as an allowlist names what passes.
        let turned = of_allow && list.format == ListFormat::Rpz;
        let (names, exceptions) = (report.names, report.exceptions);
        let (names, exceptions) = if turned { (exceptions, names) } else { (names, exceptions) };
        Some(Summary {
            path: path.to_string(),
            name: list.name.clone(),
            file: list.file.clone(),
            format: list.format.word().to_owned(),
            sha256: contents.digest().to_owned(),
            lines: report.lines,
            names,
            exceptions,
            networks: report.networks,
            duplicates: report.duplicates,
            not_enforced: report.left_out() + if of_allow { report.networks } else { 0 },
            rejected: report.rejected,
        })
    });
    read.collect()
}

/// A file without a rule. `held`: how many it had before.
pub fn emptied(file: &str, held: Option<usize>) -> String {
    match held {
        None => format!("{file} holds no name"),
        Some(1) => format!("{file} holds no name; it held 1 rule before"),
        Some(held) => format!("{file} holds no name; it held {held} rules before"),
    }
}

/// What does not hold as the files say it, each with its list. `held`: of files that were emptied, how many rules they had.
pub fn remarks(policy: &Policy, held: &BTreeMap<ListFile, usize>) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for (path, list) in policy.domain_lists() {
        let Some(contents) = &list.contents else { continue };
        let report = contents.report();
        let mut say = |message: String, hint: Option<&str>| {
            out.push(Diagnostic { path: path.to_string(), message, hint: hint.map(str::to_owned) });
        };
        if let Some((message, hint)) = nothing(list, report, held, is_of_allow(path.as_str())) {
            say(message, Some(hint));
        }
        if is_of_allow(path.as_str()) && report.networks > 0 {
            let networks = report.networks;
            say(format!("{}: {networks} rpz-ip triggers (not enforced: a name is allowed, or none)", list.file), None);
        }
        report.remarks(&list.file).into_iter().for_each(|remark| say(remark, None));
    }
    out
}

/// A list that cannot do what it is there for.
fn nothing(
    list: &DomainList,
    report: &Report,
    held: &BTreeMap<ListFile, usize>,
    of_allow: bool,
) -> Option<(String, &'static str)> {
    let contents = list.contents.as_ref()?;
    if report.is_misread() {
        let message = format!("nothing in {} could be read as {}", list.file, list.format.word());
        return Some((message, "see whether the format is the right one"));
    }
    if contents.is_empty() {
        let hint = if of_allow { "an allowlist without a name allows nothing" } else { "it denies nothing" };
        return Some((emptied(&list.file, held.get(&list.key()).copied()), hint));
    }
    let blocks_only = of_allow && list.format == ListFormat::Rpz && !contents.allows_some() && report.names > 0;
    blocks_only.then(|| {
        let message = format!("{} allows nothing: it is a zone in which no name passes", list.file);
        (message, "in a zone, names that may be reached have CNAME rpz-passthru.")
    })
}

fn is_of_allow(path: &str) -> bool {
    path.rsplit('/').nth(2) == Some("allow")
}
