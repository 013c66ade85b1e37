//! Lists of names, ports, interfaces and list files; labels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::policy::diagnostic::{At, Mistake, Report};
use crate::policy::domain;
use crate::policy::json::Value;
use crate::policy::model::{DomainList, List, ListFormat, Pointer};
use crate::policy::name::{Pattern, PatternRef};
use crate::policy::patterns::{Domains, Patterns};
use crate::policy::reader::{self, Fields, entries, given_name, text, whole_number, word};
use crate::policy::wording::{quoted, unprintable};

/// Longest label, characters: a word, repeated in every log line about its domain.
pub const MAX_LABEL_TEXT: usize = 64;

/// Longest interface name, octets (the kernel's IFNAMSIZ is 16 with its end mark).
const MAX_INTERFACE: usize = 15;

/// Longest path of a file, octets (the kernel's PATH_MAX is 4096 with its end mark).
const MAX_PATH: usize = 4095;

/// Reads a list, entry by entry. `None`: it is no list (reported). Entries with a mistake are left out: the policy
/// that the list is for is never used.
pub(super) fn list_of<T>(
    value: &Value<'_>,
    at: &At<'_>,
    wanted: &str,
    report: &mut Report,
    mut entry: impl FnMut(&Value<'_>, &At<'_>, &mut Report) -> Option<T>,
) -> Option<List<T>> {
    let values = reader::list(value, at, wanted, report)?;
    let mut entries = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        entries.extend(entry(&value, &at.index(index), report));
    }
    Some(List { entries: Arc::from(entries), path: at.pointer() })
}

/// Warns of entries that stand in a list more than once.
pub(super) fn warn_of_doubles<T: Eq + Hash>(list: &List<T>, at: &At<'_>, report: &mut Report) {
    let mut seen = HashSet::with_capacity(list.entries.len());
    for (index, entry) in list.entries.iter().enumerate() {
        if !seen.insert(entry) {
            warn_of_double(&at.index(index), report);
        }
    }
}

fn warn_of_double(at: &At<'_>, report: &mut Report) {
    report.warn(at, "this entry stands in the list before", "remove one of the two");
}

/// A list of domain patterns.
pub(super) fn domains(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Domains> {
    let values = reader::list(value, at, "domains", report)?;
    let mut entries = Patterns::with_room(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = at.index(index);
        let Some(text) = text(&value, &at, "a domain name", report) else { continue };
        match domain::normal(text) {
            Ok((name, below)) => {
                let pattern = if below { PatternRef::Below(&name) } else { PatternRef::Exact(&name) };
                if !entries.push(pattern) {
                    warn_of_double(&at, report);
                }
            }
            Err(mistake) => report.mistake(&at, mistake),
        }
    }
    Some(Domains { entries: entries.finish(), path: at.pointer() })
}

/// An object with domain patterns as keys; `entry` reads the values. Two keys for one pattern are a mistake.
pub(super) fn by_domain<'v, T>(
    value: &'v Value<'v>,
    at: &At<'_>,
    report: &mut Report,
    mut entry: impl FnMut(&'v Value<'v>, &At<'_>, &mut Report) -> Option<T>,
) -> BTreeMap<Pattern, T> {
    let mut map = BTreeMap::new();
    let mut written: HashMap<Pattern, &str> = HashMap::new();
    for (key, value) in entries(value, at, report).unwrap_or_default() {
        let at_key = at.key(key);
        let value = entry(value, &at_key, report);
        let pattern = match domain::pattern(key) {
            Ok(pattern) => pattern,
            Err(mistake) => {
                report.mistake(&at_key, mistake);
                continue;
            }
        };
        if let Some(first) = written.get(&pattern) {
            report.error(
                &at_key,
                format!("{} is the same domain as {}", quoted(key), quoted(first)),
                format!("keep one of the two; the other is {}", at.key(first).text()),
            );
            continue;
        }
        written.insert(pattern.clone(), key);
        if let Some(value) = value {
            map.insert(pattern, value);
        }
    }
    map
}

/// Destination ports.
pub(super) fn ports(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<List<u16>> {
    list_of(value, at, "ports", report, |value, at, report| {
        let port = whole_number(value, at, "a port", (1, u16::MAX.into()), report)?;
        u16::try_from(port).ok()
    })
}

/// Interface names that the kernel could have (dev_valid_name in net/core/dev.c), without nft's wildcard.
pub(super) fn interfaces(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<List<String>> {
    list_of(value, at, "interface names", report, |value, at, report| {
        let name = text(value, at, "an interface name", report)?;
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '*' | '"' | '\\');
        if (1..=MAX_INTERFACE).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".." {
            return Some(name.to_owned());
        }
        let hint = if name.contains('*') {
            "there are no wildcards here: name each interface".to_owned()
        } else {
            format!("1 to {MAX_INTERFACE} characters without spaces and slashes, such as eth1 or eth1.20")
        };
        report.error(at, format!("{} is not an interface name", quoted(name)), hint);
        None
    })
}

/// Lists of names kept in files. Only what is written here is checked; the files are read when the policy is applied.
pub(super) fn domain_lists(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<List<DomainList>> {
    let mut written: HashMap<String, Pointer> = HashMap::new();
    list_of(value, at, "domain lists", report, |value, at, report| {
        let fields = Fields::read(value, at, &["name", "file", "format"], report)?;
        const WHOLE: &str =
            r#"a domain list is {"name": "ads", "file": "/config/clawgress/lists/ads.txt", "format": "domains"}"#;
        let name = fields.required("name", at, WHOLE, report);
        let file = fields.required("file", at, WHOLE, report);
        let format = fields.required("format", at, WHOLE, report);
        let name = name.and_then(|value| list_name(value, &at.key("name"), &mut written, report));
        let file = file.and_then(|value| list_file(value, &at.key("file"), report));
        let format = format.and_then(|value| {
            word(value, &at.key("format"), "a list format", &ListFormat::ALL.map(ListFormat::word), report)
        });
        Some(DomainList { name: name?, file: file?, format: ListFormat::ALL[format?], contents: None })
    })
}

fn list_name(
    value: &Value<'_>,
    at: &At<'_>,
    written: &mut HashMap<String, Pointer>,
    report: &mut Report,
) -> Option<String> {
    let name = text(value, at, "a name", report)?;
    if !given_name(name, at, "list name", report) {
        return None;
    }
    if let Some(first) = written.get(name) {
        report.error(at, format!("two lists are named {}", quoted(name)), format!("the other is {first}"));
        return None;
    }
    written.insert(name.to_owned(), at.pointer());
    Some(name.to_owned())
}

fn list_file(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<String> {
    let file = text(value, at, "the path of a file", report)?;
    let parts = || file.split('/').skip(1);
    let mistake = if !file.starts_with('/') {
        Mistake::new(
            format!("{} is not an absolute path", quoted(file)),
            "begin with /, such as /config/clawgress/lists/ads.txt",
        )
    } else if file.chars().any(unprintable) {
        Mistake::new(format!("{} holds characters that do not print", quoted(file)), "rename the file")
    } else if file.len() > MAX_PATH {
        Mistake::new(format!("{} is longer than {MAX_PATH} characters", quoted(file)), "move the file")
    } else if file.ends_with('/') || parts().any(|part| part == "..") {
        Mistake::new(format!("{} does not name a file plainly", quoted(file)), "write the path without .. and end /")
    } else {
        return Some(file.to_owned());
    };
    report.mistake(at, mistake);
    None
}

/// Labels by domain.
pub(super) fn labels(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> BTreeMap<Pattern, String> {
    by_domain(value, at, report, |value, at, report| {
        let label = text(value, at, "a label", report)?;
        let mistake = if label.trim().is_empty() {
            Mistake::new("this label is empty", "write a word such as llm-provider, or remove the line")
        } else if label.chars().count() > MAX_LABEL_TEXT {
            Mistake::new(
                format!("this label has {} characters", label.chars().count()),
                format!("at most {MAX_LABEL_TEXT} are possible"),
            )
        } else if label.chars().any(unprintable) {
            Mistake::new(
                format!("the label {} holds characters that do not print", quoted(label)),
                "labels are repeated in logs: use letters, digits and punctuation",
            )
        } else {
            return Some(label.to_owned());
        };
        report.mistake(at, mistake);
        None
    })
}
