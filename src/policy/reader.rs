//! Walking a document: what kind of value stands where, which fields are known. Every mistake goes to the report and
//! reading goes on, so that people hear of all of them at once.

use std::borrow::Cow;
use std::collections::HashMap;

use super::diagnostic::{At, Report};
use super::json::{Array, Value};
use super::wording::{nearest, quoted};

/// Where a field belongs that people write in another place or under another name.
const HOMES: [(&str, &str); 33] = [
    ("version", "version belongs at the top of the document"),
    ("time_zone", "time_zone belongs at the top of the document; there is one for all"),
    ("scope", "scope belongs at the top of the document"),
    ("hosts", "hosts belongs at the top of the document"),
    ("labels", "labels belongs at the top of the document: a domain has one label for all hosts"),
    ("mode", "mode belongs at the top of the document or of a host"),
    ("allow", "allow belongs at the top of the document or of a host"),
    ("deny", "deny belongs at the top of the document or of a host"),
    ("limits", "limits belongs at the top of the document or of a host"),
    ("time_window", "time_window belongs at the top of the document or of a host"),
    ("domain_time_windows", "domain_time_windows belongs at the top of the document or of a host"),
    ("exfil", "caps belong to a host: hosts.NAME.exfil"),
    ("domains", "domains belongs in allow or deny"),
    ("ips", "ips belongs in allow or deny"),
    ("ports", "ports belongs in allow"),
    ("domain_lists", "domain_lists belongs in allow or deny"),
    ("sources", "sources belongs to a host, or in scope"),
    ("interfaces", "interfaces belongs in scope"),
    ("egress_kbps", "egress_kbps belongs in limits"),
    ("days", "days belongs in time_window"),
    ("start", "start belongs in time_window"),
    ("end", "end belongs in time_window"),
    ("bytes", "bytes belongs in exfil.domains"),
    ("period", "period belongs in exfil.domains"),
    ("whitelist", "the allowlist is allow"),
    ("allowlist", "the allowlist is allow"),
    ("blacklist", "the denylist is deny"),
    ("denylist", "the denylist is deny"),
    ("blocklist", "the denylist is deny"),
    ("block", "the denylist is deny"),
    ("rate_limit_kbps", "the rate limit is limits.egress_kbps"),
    ("label", "labels stand at the top of the document: \"labels\": {\"api.example.com\": \"word\"}"),
    ("window", "the window is time_window"),
];

/// An object whose fields have fixed names.
pub(crate) struct Fields<'v> {
    known: &'static [&'static str],
    values: Vec<Option<&'v Value<'v>>>,
}

impl<'v> Fields<'v> {
    /// Reads the object at `at`; unknown and repeated fields are reported. `None`: it is no object (reported).
    pub(crate) fn read(
        value: &'v Value<'v>,
        at: &At<'_>,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Option<Self> {
        let mut values = vec![None; known.len()];
        for (key, value) in entries(value, at, report)? {
            match known.iter().position(|name| *name == key) {
                Some(index) => values[index] = Some(value),
                None => report.error(&at.key(key), format!("unknown field {}", quoted(key)), advice(key, known)),
            }
        }
        Some(Self { known, values })
    }

    /// The value of a field, if it is there. Only names given to [`Fields::read`] can be asked for.
    pub(crate) fn get(&self, name: &str) -> Option<&'v Value<'v>> {
        self.known.iter().position(|known| *known == name).and_then(|index| self.values[index])
    }

    /// The value of a field that must be there; its absence is reported.
    pub(crate) fn required(&self, name: &str, at: &At<'_>, hint: &str, report: &mut Report) -> Option<&'v Value<'v>> {
        let value = self.get(name);
        if value.is_none() {
            report.error(at, format!("{name} is missing"), hint);
        }
        value
    }
}

fn advice(key: &str, known: &[&str]) -> String {
    if let Some((_, home)) = HOMES.iter().find(|(name, _)| *name == key) {
        return (*home).to_owned();
    }
    match nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean {}?", quoted(name)),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The fields of an object whose names are the user's, each once; repeated ones are reported and the first is kept.
pub(crate) fn entries<'v>(
    value: &'v Value<'v>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<(&'v str, &'v Value<'v>)>> {
    let Value::Object(fields) = value else {
        wrong_kind(value, at, OBJECT, report);
        return None;
    };
    let mut seen: HashMap<&str, bool> = HashMap::with_capacity(fields.len());
    let mut kept = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        match seen.insert(key, true) {
            None => {
                seen.insert(key, false);
                kept.push((key.as_ref(), value));
            }
            Some(false) => report.error(
                &at.key(key),
                format!("{} is given more than once", quoted(key)),
                "keep one of them: JSON readers disagree about which one counts",
            ),
            Some(true) => {}
        }
    }
    Some(kept)
}

/// The entries of a list. `wanted` is what the list is of: `domains`.
pub(crate) fn list<'v>(value: &'v Value<'v>, at: &At<'_>, wanted: &str, report: &mut Report) -> Option<&'v Array<'v>> {
    if let Value::Array(entries) = value {
        return Some(entries);
    }
    let message = format!("wanted a list of {wanted}, found {}", value.described());
    let hint = match value {
        Value::String(text) => format!("write [{}]", quoted(text)),
        Value::Number(number) if wanted == "ports" => format!("write [{number}]"),
        Value::Null => "a list stands in square brackets; a field with nothing to say is left out".to_owned(),
        _ => "a list stands in square brackets: [ … ]".to_owned(),
    };
    report.error(at, message, hint);
    None
}

/// A text. `wanted` is what it is: `a domain name`.
pub(crate) fn text<'v>(value: &'v Value<'v>, at: &At<'_>, wanted: &str, report: &mut Report) -> Option<&'v str> {
    if let Value::String(text) = value {
        return Some(Cow::as_ref(text));
    }
    wrong_kind(value, at, &format!("{wanted} as a text"), report);
    None
}

/// A whole number from `least` to `most`. `wanted` is what it is: `a port`.
pub(crate) fn whole_number(
    value: &Value<'_>,
    at: &At<'_>,
    wanted: &str,
    (least, most): (u64, u64),
    report: &mut Report,
) -> Option<u64> {
    let range = format!("whole numbers from {least} to {most} are possible");
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(whole) if (least..=most).contains(&whole) => return Some(whole),
            _ => report.error(at, format!("{number} is not {wanted}"), range),
        },
        Value::String(text) => {
            let hint = match text.parse::<u64>() {
                Ok(whole) => format!("write {whole} without quotes"),
                Err(_) => range,
            };
            report.error(at, format!("wanted {wanted} as a number, found {}", value.described()), hint);
        }
        _ => wrong_kind(value, at, &format!("{wanted} as a number"), report),
    }
    None
}

/// One of a few words, as its position among them.
pub(crate) fn word(value: &Value<'_>, at: &At<'_>, wanted: &str, words: &[&str], report: &mut Report) -> Option<usize> {
    let text = text(value, at, wanted, report)?;
    let found = words.iter().position(|word| *word == text);
    if found.is_none() {
        let hint = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean {}?", quoted(word)),
            None => format!("possible are {}", super::wording::one_of(words)),
        };
        report.error(at, format!("{} is not {wanted}", quoted(text)), hint);
    }
    found
}

/// A name that people give to something: 1 to 63 of `A-Z a-z 0-9 . _ -`. What is wrong with it otherwise.
pub(crate) fn given_name(text: &str, at: &At<'_>, what: &str, report: &mut Report) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = (1..=MAX_GIVEN_NAME).contains(&text.len()) && text.chars().all(legal);
    if !good {
        let hint = format!("1 to {MAX_GIVEN_NAME} letters, digits, dots, hyphens and underscores are possible");
        let hint = if text == "*" { format!("{hint}; * stands for sources of no host") } else { hint };
        report.error(at, format!("{} is not a {what}", quoted(text)), hint);
    }
    good
}

/// Longest name of a host or list, characters: as long as a DNS label, and short enough for a log line.
pub const MAX_GIVEN_NAME: usize = 63;

fn wrong_kind(value: &Value<'_>, at: &At<'_>, wanted: &str, report: &mut Report) {
    let object = wanted == OBJECT;
    let hint = match value {
        Value::Null => "leave it out where it has nothing to say".to_owned(),
        Value::Array(entries)
            if entries.len() == 1 && entries.iter().all(|entry| object == matches!(*entry, Value::Object(_))) =>
        {
            "remove the square brackets".to_owned()
        }
        _ if object => "an object stands in braces: { … }".to_owned(),
        _ => format!("write {wanted}"),
    };
    report.error(at, format!("wanted {wanted}, found {}", value.described()), hint);
}

const OBJECT: &str = "an object";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_told_its_home_or_its_neighbour() {
        const KNOWN: &[&str] = &["domains", "ips", "ports"];
        assert_eq!(advice("port", KNOWN), r#"did you mean "ports"?"#);
        assert_eq!(advice("egress_kbps", KNOWN), "egress_kbps belongs in limits");
        assert_eq!(advice("zzzzzz", KNOWN), "known here: domains, ips, ports");
    }

    #[test]
    fn a_field_given_three_times_is_reported_once() {
        let value = Value::read(r#"{"a": 1, "a": 2, "a": 3, "b": 4}"#).unwrap();
        let mut report = Report::default();
        let kept = entries(&value, &At::ROOT, &mut report).unwrap();
        assert_eq!(kept.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(report.finish().unwrap_err().len(), 1);
    }
}
