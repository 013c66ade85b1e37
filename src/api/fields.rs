//! The body of a call: an object with known fields. Every mistake in it is told at once, like those of a policy.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::policy::Diagnostic;
use crate::policy::wording::{nearest, one_of, quoted};

/// Fields in one body; the longest call has a tenth of it.
const MAX_FIELDS: usize = 100;
/// The field with the key.
pub(super) const KEY: &str = "key";

/// One field of a call.
pub(super) struct Field {
    /// Its name.
    pub name: &'static str,
    /// What stands there.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What it means, for the document.
    pub about: &'static str,
}

/// What may stand in a field.
pub(super) enum Kind {
    /// A policy document.
    Policy,
    /// `true` or `false`.
    Flag,
    /// The number of a revision; 0 stands for none.
    Revision,
    /// A number of seconds, from 1 to this.
    Seconds(u64),
    /// A port.
    Port,
    /// An IP address.
    Address,
    /// A domain name.
    Name,
    /// Any text.
    Text,
    /// A time, RFC 3339.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Kind {
    /// In a user's words.
    pub fn wanted(&self) -> String {
        match self {
            Self::Policy => "a policy".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Revision => "the number of a revision".to_owned(),
            Self::Seconds(most) => format!("a number of seconds, 1 to {most}"),
            Self::Port => "a port, 1 to 65535".to_owned(),
            Self::Address => "an IP address in quotes".to_owned(),
            Self::Name => "a domain name in quotes".to_owned(),
            Self::Text => "a text in quotes".to_owned(),
            Self::Time => "a time such as \"2026-11-20T09:00:00+01:00\" (RFC 3339)".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                one_of(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }

    /// As JSON Schema.
    pub fn schema(&self) -> Value {
        match self {
            Self::Policy => json!({ "$ref": "#/components/schemas/Policy" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Revision => json!({ "type": "integer", "minimum": 0 }),
            Self::Seconds(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
            Self::Port => json!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
            Self::Address => json!({ "type": "string", "examples": ["192.168.10.10", "fd00::10"] }),
            Self::Name => json!({ "type": "string", "examples": ["api.example.com"] }),
            Self::Text => json!({ "type": "string" }),
            Self::Time => json!({ "type": "string", "format": "date-time" }),
            Self::Word(words) => json!({ "enum": words }),
        }
    }
}

/// The fields of one body, on their way to a request.
pub(super) struct Fields<'t> {
    known: &'static [Field],
    entries: Vec<(String, &'t RawValue)>,
    mistakes: Vec<Diagnostic>,
}

impl<'t> Fields<'t> {
    /// Reads the body. What it means is looked at later, by [`Fields::expect`] and [`Fields::get`].
    ///
    /// # Errors
    /// It is no JSON object, in one sentence.
    pub fn read(text: &'t str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(r#"the body is empty; the shortest one is {"key": "…"}"#.to_owned());
        }
        let Entries(entries) = serde_json::from_str(text).map_err(|error| format!("not a call: {error}"))?;
        Ok(Self { known: &[], entries, mistakes: Vec::new() })
    }

    /// The key in the body. Not more than one.
    pub fn take_key(&mut self) -> Option<String> {
        let at = self.entries.iter().position(|(name, _)| name == KEY)?;
        let (_, value) = self.entries.remove(at);
        serde_json::from_str(value.get()).ok()
    }

    /// From here on the fields are those of this call.
    pub fn expect(&mut self, known: &'static [Field]) {
        self.known = known;
    }

    /// Notes a mistake in a field.
    pub fn wrong(&mut self, name: &str, message: impl Into<String>, hint: Option<String>) {
        let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.mistakes.push(Diagnostic { path, message: message.into(), hint });
    }

    /// The text of a field as it was sent; `None`: it is not there, or `null`.
    pub fn raw(&mut self, name: &'static str) -> Option<&'t str> {
        let found = self.entries.iter().position(|(other, _)| other == name);
        let value = found.map(|at| self.entries.remove(at).1.get()).filter(|text| *text != "null");
        if value.is_none() && self.field(name).is_some_and(|field| field.required) {
            self.wrong(name, "is missing", self.field(name).map(|field| format!("it is {}", field.kind.wanted())));
        }
        value
    }

    /// The value of a field; `None`: it is not there, or not what it should be (noted).
    pub fn get<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let text = self.raw(name)?;
        let value = serde_json::from_str(text).ok();
        if value.is_none() {
            let wanted = self.field(name).map(|field| field.kind.wanted()).unwrap_or_default();
            self.wrong(name, format!("should be {wanted}"), None);
        }
        value
    }

    fn field(&self, name: &str) -> Option<&'static Field> {
        self.known.iter().find(|field| field.name == name)
    }

    /// What is left over was not asked for.
    ///
    /// # Errors
    /// Every mistake.
    pub fn finish(mut self) -> Result<(), Vec<Diagnostic>> {
        for (name, _) in std::mem::take(&mut self.entries) {
            if name == KEY || self.field(&name).is_some() {
                self.wrong(&name, "is there twice", Some("keep one of the two".to_owned()));
                continue;
            }
            let names = self.known.iter().map(|field| field.name).chain([KEY]);
            let hint = match nearest(&name, names.clone()) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
            };
            self.wrong(&name, "unknown field", Some(hint));
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }
}

/// The entries of an object in their order, doubles included.
struct Entries<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in braces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry::<String, &'de RawValue>()? {
            entries.push(entry);
            if entries.len() > MAX_FIELDS {
                return Err(A::Error::custom(format!("more than {MAX_FIELDS} fields")));
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Field] = &[
        Field { name: "policy", kind: Kind::Policy, required: true, about: "" },
        Field { name: "apply", kind: Kind::Flag, required: false, about: "" },
        Field { name: "source", kind: Kind::Address, required: false, about: "" },
    ];

    fn read(text: &str) -> Fields<'_> {
        let mut fields = Fields::read(text).unwrap();
        fields.expect(KNOWN);
        fields
    }

    #[test]
    fn a_body_is_taken_apart() {
        let mut fields =
            read("{\"key\": \"k\\u0031\", \"policy\": { \"version\" : 1 },\n\"apply\": false, \"source\": null}");
        assert_eq!(fields.take_key().as_deref(), Some("k1"));
        assert_eq!(fields.raw("policy"), Some("{ \"version\" : 1 }"), "as it was sent");
        assert_eq!(fields.get::<bool>("apply"), Some(false));
        assert_eq!(fields.get::<std::net::IpAddr>("source"), None);
        fields.finish().unwrap();
    }

    #[test]
    fn every_mistake_is_told() {
        let mut fields = read(r#"{"aply": true, "apply": 1, "source": "x", "key": "a", "key": "b", "~/": 1}"#);
        fields.take_key();
        assert_eq!(fields.raw("policy"), None);
        assert_eq!(fields.get::<bool>("apply"), None);
        assert_eq!(fields.get::<std::net::IpAddr>("source"), None);
        let told: Vec<String> = fields.finish().unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "/policy: is missing; it is a policy",
                "/apply: should be true or false",
                "/source: should be an IP address in quotes",
                "/aply: unknown field; did you mean \"apply\"?",
                "/key: is there twice; keep one of the two",
                "/~0~1: unknown field; known here: policy, apply, source, key",
            ]
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", " ", "[]", "1", "{", "{\"a\": }", "{\"a\": 1} x", "nul"] {
            assert!(Fields::read(text).is_err(), "{text:?}");
        }
        let many: String = (0..=MAX_FIELDS).map(|n| format!(",\"f{n}\":0")).collect();
        assert!(Fields::read(&format!("{{{}}}", &many[1..])).err().unwrap().contains("more than 100 fields"));
        let deep = format!("{{\"policy\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).raw("policy").is_some(), "depth is for who reads it");
    }
}
