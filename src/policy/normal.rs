//! The policy as `show` prints it, and the digest that names a revision.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};

use chrono::{NaiveTime, Timelike};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::model::{Allow, Cap, Deny, DomainList, Host, List, Located, Mode, Policy, Window};
use super::name::PatternRef;
use super::parse::DAYS;
use super::patterns::{Domains, Patterns};

/// The policy as a document again: fields in the order of the format's description, hosts and domains by name, names
/// and networks in normal form, lists in the order written (so that `…/domains/3` means the same entry), absent what
/// was absent. Reading it gives the same policy.
pub fn normalised(policy: &Policy) -> Value {
    // Texts, numbers, lists and objects with texts as keys: this cannot fail.
    serde_json::to_value(document(policy)).unwrap_or_default()
}

/// What [`normalised`] is made of.
fn document(policy: &Policy) -> Document<'_> {
    let mut fields = Object::default();
    fields.put("version", Some(json!(1)));
    fields.put("mode", policy.mode.as_ref().map(mode));
    fields.put("time_zone", policy.time_zone.as_ref().map(|zone| json!(zone.value.name())));
    let mut scope = Object::default();
    scope.put("sources", policy.scope.sources.as_ref().map(texts));
    scope.put("interfaces", policy.scope.interfaces.as_ref().map(texts));
    fields.put("scope", scope.unless_empty());
    fields.put("allow", allow(&policy.allow));
    fields.put("deny", deny(&policy.deny));
    fields.put("labels", map(policy.labels.iter(), |label| json!(label)));
    fields.put("time_window", policy.time_window.as_ref().map(window));
    fields.put("domain_time_windows", map(policy.domain_time_windows.iter(), window));
    fields.put("limits", policy.egress_kbps.as_ref().map(limits));
    fields.put("hosts", map(policy.hosts.iter(), host));
    Document::Object(fields)
}

/// The digest that names a revision, 64 hexadecimal digits: [`document_digest`], and where the policy has lists in files
/// that were read, SHA-256 of that and of the digests of their contents in the order of [`Policy::domain_lists`], each
/// with a line feed behind it.
pub fn digest(policy: &Policy) -> String {
    let document = document_digest(policy);
    let mut contents = policy.domain_lists().filter_map(|(_, list)| list.contents.as_ref()).peekable();
    if contents.peek().is_none() {
        return document;
    }
    let mut hash = Sha256::new();
    for digest in std::iter::once(document.as_str()).chain(contents.map(|contents| contents.digest())) {
        hash.update(digest);
        hash.update("\n");
    }
    hexadecimal(&hash.finalize())
}

/// SHA-256 of the compact text of [`normalised`], 64 hexadecimal digits.
pub fn document_digest(policy: &Policy) -> String {
    // Written into the hash: the text of a large policy is some megabytes. A hash takes everything, so this cannot fail.
    // Entries are short, and hashing prefers long pieces.
    let mut to = BufWriter::with_capacity(1 << 16, Hash(Sha256::new()));
    let _ = serde_json::to_writer(&mut to, &document(policy)).map(|()| to.flush());
    to.into_inner().map(|hash| hexadecimal(&hash.0.finalize())).unwrap_or_default()
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A writer that only hashes.
pub(super) struct Hash(pub Sha256);

impl std::io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A part of the document, made without a second copy of long lists of names.
enum Document<'p> {
    Value(Value),
    Object(Object<'p>),
    Names(&'p Patterns),
}

impl From<Value> for Document<'_> {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(to),
            Self::Object(Object(fields)) => to.collect_map(fields.iter().map(|(name, value)| (name, value))),
            Self::Names(names) => to.collect_seq(names.iter().map(Written)),
        }
    }
}

/// An entry as text.
struct Written<'p>(PatternRef<'p>);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            PatternRef::Exact(name) => to.serialize_str(name),
            PatternRef::Below(_) => to.collect_str(&self.0),
        }
    }
}

/// An object under construction.
#[derive(Default)]
struct Object<'p>(Vec<(String, Document<'p>)>);

impl<'p> Object<'p> {
    fn put(&mut self, name: &str, value: Option<impl Into<Document<'p>>>) {
        if let Some(value) = value {
            self.0.push((name.to_owned(), value.into()));
        }
    }

    fn unless_empty(self) -> Option<Document<'p>> {
        (!self.0.is_empty()).then_some(Document::Object(self))
    }
}

fn map<'p, K: ToString + 'p, V: 'p, D: Into<Document<'p>>>(
    entries: impl Iterator<Item = (&'p K, &'p V)>,
    value: impl Fn(&'p V) -> D,
) -> Option<Document<'p>> {
    let mut object = Object::default();
    for (key, entry) in entries {
        object.put(&key.to_string(), Some(value(entry)));
    }
    object.unless_empty()
}

fn names(list: &Domains) -> Document<'_> {
    Document::Names(&list.entries)
}

fn texts<T: ToString>(list: &List<T>) -> Value {
    list.entries.iter().map(ToString::to_string).collect()
}

fn mode(mode: &Located<Mode>) -> Value {
    json!(match mode.value {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    })
}

fn limits(kbps: &Located<u64>) -> Value {
    json!({ "egress_kbps": kbps.value })
}

fn allow(allow: &Allow) -> Option<Document<'_>> {
    let mut fields = Object::default();
    fields.put("domains", allow.domains.as_ref().map(names));
    fields.put("ips", allow.ips.as_ref().map(texts));
    fields.put("ports", allow.ports.as_ref().map(|ports| ports.entries.iter().copied().collect::<Value>()));
    fields.put("domain_lists", allow.domain_lists.as_ref().map(domain_lists));
    fields.unless_empty()
}

fn deny(deny: &Deny) -> Option<Document<'_>> {
    let mut fields = Object::default();
    fields.put("domains", deny.domains.as_ref().map(names));
    fields.put("ips", deny.ips.as_ref().map(texts));
    fields.put("domain_lists", deny.domain_lists.as_ref().map(domain_lists));
    fields.unless_empty()
}

fn domain_lists(lists: &List<DomainList>) -> Value {
    let list = |list: &DomainList| json!({ "name": list.name, "file": list.file, "format": list.format.word() });
    lists.entries.iter().map(list).collect()
}

fn window(window: &Located<Window>) -> Document<'_> {
    let window = &window.value;
    let mut fields = Object::default();
    // Neither days nor hours would say nothing, and the reader refuses that.
    if window.days.len() < DAYS.len() || window.hours.is_none() {
        let names = window.days.iter().map(|day| DAYS[usize::from(day.0) % DAYS.len()]);
        fields.put("days", Some(names.collect::<Value>()));
    }
    fields.put("start", window.hours.map(|(start, _)| time(start)));
    fields.put("end", window.hours.map(|(_, end)| time(end)));
    Document::Object(fields)
}

fn time(time: NaiveTime) -> Value {
    let format = if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    json!(time.format(format).to_string())
}

fn host(host: &Host) -> Document<'_> {
    let mut fields = Object::default();
    fields.put("sources", Some(texts(&host.sources)));
    fields.put("allow", allow(&host.allow));
    fields.put("deny", deny(&host.deny));
    fields.put("mode", host.mode.as_ref().map(mode));
    fields.put("time_window", host.time_window.as_ref().map(window));
    fields.put("domain_time_windows", map(host.domain_time_windows.iter(), window));
    fields.put("limits", host.egress_kbps.as_ref().map(limits));
    let mut exfil = Object::default();
    exfil.put("domains", map(host.caps.iter(), cap));
    fields.put("exfil", exfil.unless_empty());
    Document::Object(fields)
}

fn cap(cap: &Located<Cap>) -> Value {
    json!({ "bytes": cap.value.bytes, "period": cap.value.period.word() })
}
