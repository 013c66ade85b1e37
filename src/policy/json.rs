//! A JSON document as written: the keys of an object in their order, and twice if they stand there twice.
//!
//! `serde_json::Value` keeps the last of two equal keys and derived readers stop at the first mistake; a policy is
//! to be told every one. The syntax itself (and the limit on nesting) is serde_json's.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::error::Category;

use super::diagnostic::Diagnostic;
use super::wording::quoted;

/// The longest document that is read, bytes. Some hundred times the largest policy known; keeps a wrong file
/// (a disk image, `/dev/zero`) from filling the gateway's memory.
pub const MAX_DOCUMENT: usize = 64 * 1024 * 1024;

/// One JSON value as written; texts without escapes are borrowed from the document.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'t> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(Cow<'t, str>),
    /// A list.
    Array(Array<'t>),
    /// An object: keys in the order written, duplicates included.
    Object(Vec<(Cow<'t, str>, Value<'t>)>),
}

impl<'t> Value<'t> {
    /// Reads one JSON document (RFC 8259; a byte order mark in front is skipped, as its section 8.1 permits).
    ///
    /// # Errors
    /// One diagnostic with line and column where the text is no JSON, or longer than [`MAX_DOCUMENT`].
    pub fn read(text: &'t str) -> Result<Self, Diagnostic> {
        if text.len() > MAX_DOCUMENT {
            return Err(whole(
                format!("the document is {} bytes long; at most {MAX_DOCUMENT} are read", text.len()),
                "move long lists of names into files (domain_lists)",
            ));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(whole("the document is empty".to_owned(), r#"the smallest policy is {"version": 1}"#));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Reading { document: text }.deserialize(&mut deserializer);
        value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| syntax(text, &error))
    }

    /// The value of the first field with this name, if this is an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What this is, in a user's words: `a list`, `the number 5`.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => format!("the number {number}"),
            Self::String(text) => format!("the text {}", quoted(text)),
            Self::Array(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

fn whole(message: String, hint: &str) -> Diagnostic {
    Diagnostic { path: String::new(), message, hint: Some(hint.to_owned()) }
}

/// What the JSON reader found wrong, with the place as people count it.
fn syntax(text: &str, error: &serde_json::Error) -> Diagnostic {
    let (line, column) = (error.line(), error.column());
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    let here = text.lines().nth(line.saturating_sub(1)).and_then(|l| l.as_bytes().get(column.saturating_sub(1)));
    let (what, hint) = match (error.classify(), here) {
        (Category::Eof, _) => ("the document ends too early", "a closing bracket or quote is missing"),
        (_, _) if words.starts_with("recursion limit") => ("nested too deeply", "a policy needs no more than 6 levels"),
        (_, _) if words.starts_with("trailing comma") => ("a comma before a closing bracket", "remove the comma"),
        (_, _) if words.starts_with("trailing characters") => {
            ("something follows the end of the document", "a file holds one policy")
        }
        (_, Some(b'/' | b'#')) => (words, "JSON has no comments"),
        (_, Some(b'\'')) => (words, "texts stand in double quotes"),
        _ => (words, "correct the JSON there"),
    };
    whole(format!("not JSON at line {line}, column {column}: {what}"), hint)
}

/// A list. One of nothing but texts without escapes stays in the document, and is read from there.
#[derive(Clone, Debug, PartialEq)]
pub enum Array<'t> {
    /// Any values.
    Any(Vec<Value<'t>>),
    /// Such texts.
    Texts(Texts<'t>),
}

/// A list of texts, as it stands in a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts<'t> {
    document: &'t str,
    /// Where the first one begins: its quote.
    start: usize,
    len: usize,
}

impl<'t> Texts<'t> {
    /// Adds the next text of the list. False: it is no part of the document as it stands there.
    fn push(&mut self, text: &'t str) -> bool {
        let place = (text.as_ptr() as usize).wrapping_sub(self.document.as_ptr() as usize);
        let quoted = |place: usize| Some((place.checked_sub(1)?, place.checked_add(text.len())?));
        let Some((open, close)) = quoted(place) else { return false };
        let octets = self.document.as_bytes();
        if octets.get(open) != Some(&b'"') || octets.get(close) != Some(&b'"') {
            return false;
        }
        if self.len == 0 {
            self.start = open;
        }
        self.len += 1;
        true
    }

    /// All of them: without escapes each ends at the next quote, and between two stands a comma with white space.
    pub fn iter(&self) -> impl Iterator<Item = &'t str> {
        let mut rest = self.document.get(self.start..).unwrap_or_default();
        (0..self.len).map_while(move |_| {
            let (text, behind) = rest.split_once('"')?.1.split_once('"')?;
            rest = behind;
            Some(text)
        })
    }
}

impl<'t> Array<'t> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Any(values) => values.len(),
            Self::Texts(texts) => texts.len,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, Value<'t>>> {
        let (values, texts) = match self {
            Self::Any(values) => (Some(values), None),
            Self::Texts(texts) => (None, Some(texts)),
        };
        let texts = texts.into_iter().flat_map(Texts::iter).map(|text| Value::String(Cow::Borrowed(text)));
        values.into_iter().flatten().map(Cow::Borrowed).chain(texts.map(Cow::Owned))
    }

    fn push(&mut self, value: Value<'t>) {
        if let (Self::Texts(texts), Value::String(Cow::Borrowed(text))) = (&mut *self, &value)
            && texts.push(text)
        {
            return;
        }
        if let Self::Texts(_) = self {
            *self = Self::Any(self.iter().map(Cow::into_owned).collect());
        }
        if let Self::Any(values) = self {
            values.push(value);
        }
    }
}

/// Reads values of a document.
#[derive(Clone, Copy)]
struct Reading<'t> {
    document: &'t str,
}

impl<'de> DeserializeSeed<'de> for Reading<'de> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'de> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Array::Texts(Texts { document: self.document, start: 0, len: 0 });
        while let Some(entry) = access.next_element_seed(self)? {
            entries.push(entry);
        }
        Ok(Value::Array(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry_seed(self, self)? {
            let Value::String(key) = key else { return Err(A::Error::custom("key must be a string")) };
            entries.push((key, value));
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_their_doubles() {
        let value = Value::read(r#"{"b": 1, "a": [null, true, -2, 1.5, "x\n"], "b": {}}"#).unwrap();
        let Value::Object(entries) = value else { panic!() };
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert_eq!(entries[2].1, Value::Object(Vec::new()));
        let Value::Array(list) = &entries[1].1 else { panic!() };
        assert_eq!(*list.iter().nth(4).unwrap(), Value::String("x\n".into()));
    }

    #[test]
    fn texts_are_what_is_written_whatever_stands_beside_them() {
        for (json, texts) in [
            ("[\"a\" ,\n\"\",\"é\", \"b,\"]", ["a", "", "é", "b,"]),
            (r#"["a", "\u0022", "\"", "\\"]"#, ["a", "\"", "\"", "\\"]),
        ] {
            let value = Value::read(json).unwrap();
            let Value::Array(list) = &value else { panic!() };
            let found: Vec<_> = list.iter().map(Cow::into_owned).collect();
            assert_eq!(found, texts.map(|text| Value::String(text.into())));
            assert_eq!(list.len(), 4);
        }
        let value = Value::read(r#"["a", 1, "b"]"#).unwrap();
        let Value::Array(list) = &value else { panic!() };
        let found: Vec<String> = list.iter().map(|value| value.described()).collect();
        assert_eq!(found, [r#"the text "a""#, "the number 1", r#"the text "b""#]);
    }

    #[test]
    fn plain_texts_are_borrowed() {
        let text = r#""plain""#;
        assert!(matches!(Value::read(text), Ok(Value::String(Cow::Borrowed("plain")))));
    }

    #[test]
    fn syntax_errors_tell_line_and_column() {
        let error = Value::read("{\n  \"version\": 1,\n}").unwrap_err();
        assert_eq!(error.path, "");
        assert_eq!(error.message, "not JSON at line 3, column 1: a comma before a closing bracket");
        let error = Value::read("{\n # note\n}").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("JSON has no comments"));
        assert!(Value::read("{} {}").unwrap_err().message.contains("follows the end"));
        assert!(Value::read("{\"a\": ").unwrap_err().message.contains("ends too early"));
        assert!(Value::read(" \n").unwrap_err().message.contains("empty"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(100_000);
        assert!(Value::read(&text).unwrap_err().message.contains("nested too deeply"));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(Value::read("\u{feff}1").unwrap(), Value::Number(1.into()));
    }
}
