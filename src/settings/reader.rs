//! Walking the settings: which keys are known, what kind of value stands where. Every mistake is noted and reading
//! goes on, so that people hear of all of them at once.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Mistake;
use crate::policy::wording::{nearest, one_of, quoted, unprintable};

/// The mistakes so far, and the text to tell lines from.
pub(super) struct Notes<'t> {
    text: &'t str,
    pub mistakes: Vec<Mistake>,
}

impl<'t> Notes<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, mistakes: Vec::new() }
    }

    /// Notes a mistake at a place in the text.
    pub fn mistake(
        &mut self,
        span: Option<&Range<usize>>,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let line = span.and_then(|span| self.text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        self.mistakes.push(Mistake { line, key: key.to_owned(), message: message.into(), hint });
    }
}

/// A value and the key that leads to it.
pub(super) struct Entry<'v> {
    pub key: String,
    value: &'v DeValue<'v>,
    span: Range<usize>,
}

impl<'v> Entry<'v> {
    /// Notes a mistake about this value.
    pub fn wrong(&self, notes: &mut Notes<'_>, message: impl Into<String>, hint: impl Into<String>) {
        notes.mistake(Some(&self.span), &self.key, message, Some(hint.into()));
    }

    fn kind(&self, notes: &mut Notes<'_>, wanted: &str, example: &str) {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        self.wrong(
            notes,
            format!("should be {wanted}, not {found}"),
            format!("for example {} = {example}", self.name()),
        );
    }

    /// The last part of the key, for examples; list entries have their list's.
    fn name(&self) -> &str {
        let name = self.key.rsplit('.').next().unwrap_or(&self.key);
        name.split('[').next().unwrap_or(name)
    }

    /// A text; `None`: it is none, or does not show (noted).
    pub fn text(&self, notes: &mut Notes<'_>, example: &str) -> Option<&'v str> {
        let Some(text) = self.value.as_str() else {
            self.kind(notes, "a text in quotes", &quoted(example));
            return None;
        };
        if text.trim().is_empty() {
            self.wrong(notes, "is empty", format!("for example {} = {}", self.name(), quoted(example)));
            return None;
        }
        if text.chars().any(unprintable) {
            self.wrong(notes, format!("{} has characters that do not show", quoted(text)), "write it anew by hand");
            return None;
        }
        Some(text)
    }

    pub fn boolean(&self, notes: &mut Notes<'_>) -> Option<bool> {
        let found = self.value.as_bool();
        if found.is_none() {
            self.kind(notes, "true or false, without quotes", "true");
        }
        found
    }

    /// A whole number within bounds.
    pub fn number(&self, notes: &mut Notes<'_>, bounds: RangeInclusive<u32>) -> Option<u32> {
        let Some(integer) = self.value.as_integer() else {
            self.kind(notes, "a whole number, without quotes", &bounds.start().to_string());
            return None;
        };
        let found = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|found| bounds.contains(found));
        if found.is_none() {
            let message = format!("{} is out of bounds", integer.as_str());
            self.wrong(notes, message, format!("from {} to {}", bounds.start(), bounds.end()));
        }
        found
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, notes: &mut Notes<'_>, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let text = self.text(notes, names[0])?;
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let hint = match nearest(text, names.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!(
                    "write {}",
                    one_of(
                        &names
                            .iter()
                            .map(|name| quoted(name))
                            .collect::<Vec<_>>()
                            .iter()
                            .map(String::as_str)
                            .collect::<Vec<_>>()
                    )
                ),
            };
            self.wrong(notes, format!("{} is not known here", quoted(text)), hint);
        }
        found
    }

    /// An absolute path of a file or directory.
    pub fn path(&self, notes: &mut Notes<'_>, example: &str) -> Option<PathBuf> {
        let text = self.text(notes, example)?;
        if text.starts_with('/') {
            return Some(PathBuf::from(text));
        }
        self.wrong(
            notes,
            format!("{} is not an absolute path", quoted(text)),
            format!("start it with /, as in {}", quoted(example)),
        );
        None
    }

    /// An address to listen on.
    pub fn listener(&self, notes: &mut Notes<'_>, example: &str) -> Option<SocketAddr> {
        let text = self.text(notes, example)?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => {
                self.wrong(notes, "port 0 is no port to listen on", format!("for example {}", quoted(example)));
                None
            }
            Ok(address) => Some(address),
            Err(_) => {
                let hint = if text.parse::<std::net::Ipv6Addr>().is_ok() {
                    "write the IPv6 address in brackets and the port after it, as in \"[::]:53\"".to_owned()
                } else if text.parse::<std::net::IpAddr>().is_ok() {
                    format!("the port is missing, as in {}", quoted(example))
                } else {
                    format!("write an IP address and a port, as in {}", quoted(example))
                };
                self.wrong(notes, format!("{} is not ADDRESS:PORT", quoted(text)), hint);
                None
            }
        }
    }

    /// The entries of a list.
    pub fn list(&self, notes: &mut Notes<'_>, example: &str) -> Option<Vec<Entry<'v>>> {
        let Some(list) = self.value.as_array() else {
            self.kind(notes, "a list in brackets", example);
            return None;
        };
        let entry = |(index, value): (usize, &'v Spanned<DeValue<'v>>)| Entry {
            key: format!("{}[{index}]", self.key),
            value: value.get_ref(),
            span: value.span(),
        };
        Some(list.iter().enumerate().map(entry).collect())
    }

    /// The keys of a section.
    pub fn section(&self, known: &'static [&'static str], notes: &mut Notes<'_>) -> Option<Section<'v>> {
        match self.value.as_table() {
            Some(table) => Some(Section::read(table, self.key.clone(), Some(self.span.clone()), known, notes)),
            None => {
                let name = self.name();
                let hint = format!("write [{name}] on a line of its own and the keys of the section below it");
                let list = self.key.contains('[');
                self.wrong(notes, if list { "should be { … }" } else { "should be a section" }, hint);
                None
            }
        }
    }
}

/// A section whose keys have fixed names.
pub(super) struct Section<'v> {
    table: &'v DeTable<'v>,
    prefix: String,
    span: Option<Range<usize>>,
}

/// Every section and its keys; to tell where a key belongs that stands in the wrong one.
pub(super) const SECTIONS: [(&str, &[&str]); 6] = [
    ("", &["policy", "state_dir", "runtime_dir", "dns", "rpz", "api", "log", "kernel"]),
    ("dns", &["listen", "upstreams", "redirect", "out_of_scope", "queries_per_second", "receivers"]),
    ("rpz", &["listen", "secondary"]),
    ("api", &["listen", "tls", "keys", "metrics"]),
    ("log", &["decisions", "keep_megabytes", "keep_days"]),
    ("kernel", &["lock_table"]),
];

impl<'v> Section<'v> {
    /// Looks at the keys; unknown ones are noted.
    pub fn read(
        table: &'v DeTable<'v>,
        prefix: String,
        span: Option<Range<usize>>,
        known: &'static [&'static str],
        notes: &mut Notes<'_>,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let path = join(&prefix, name);
                notes.mistake(Some(&key.span()), &path, "unknown key", Some(advice(name, known)));
            }
        }
        Self { table, prefix, span }
    }

    /// The value of a key, if it is there.
    pub fn get(&self, name: &str) -> Option<Entry<'v>> {
        let value = self.table.get(name)?;
        Some(Entry { key: join(&self.prefix, name), value: value.get_ref(), span: value.span() })
    }

    /// The value of a key that must be there; its absence is noted.
    pub fn required(&self, name: &str, hint: &str, notes: &mut Notes<'_>) -> Option<Entry<'v>> {
        let entry = self.get(name);
        if entry.is_none() {
            notes.mistake(self.span.as_ref(), &self.prefix, format!("{name} is missing"), Some(hint.to_owned()));
        }
        entry
    }
}

fn join(prefix: &str, name: &str) -> String {
    // A bare key shows as itself; everything else as TOML would have it written.
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { quoted(name) };
    if prefix.is_empty() { name } else { format!("{prefix}.{name}") }
}

fn advice(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("did you mean \"{near}\"?");
    }
    let home = SECTIONS.iter().find(|(_, keys)| keys.contains(&name));
    match home {
        Some(("", _)) => format!("{name} belongs at the top of the file, before the first section"),
        Some((section, _)) => format!("{name} belongs in [{section}]"),
        None => format!("known here: {}", known.join(", ")),
    }
}
