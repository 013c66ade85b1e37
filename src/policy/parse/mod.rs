//! From the text of a policy to a [`Policy`], or to every mistake in it.

mod hosts;
mod lists;
mod networks;
mod top;
mod warnings;
mod windows;

pub use hosts::MAX_CAP_BYTES;
pub use lists::MAX_LABEL_TEXT;
pub use top::MAX_EGRESS_KBPS;
pub use windows::DAYS;

use super::diagnostic::{At, Diagnostic, Report};
use super::json::Value;
use super::model::Policy;

/// A policy and what is odd about it though legal.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// Legal, but probably not what was meant: entries written twice, labels and windows of domains on no list.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a policy document (SPEC section 2).
///
/// # Errors
/// Every mistake in it. A text that is no JSON is one mistake, with line and column.
pub fn parse(json: &str) -> Result<Policy, Vec<Diagnostic>> {
    parse_with_warnings(json).map(|parsed| parsed.policy)
}

/// [`parse`], and what is odd about the policy.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_warnings(json: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let value = Value::read(json).map_err(|mistake| vec![mistake])?;
    parse_value(&value)
}

/// [`parse_with_warnings`] for the bytes of a file.
///
/// # Errors
/// As [`parse`]; also for bytes that are no UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Parsed, Vec<Diagnostic>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_with_warnings(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(vec![Diagnostic {
                path: String::new(),
                message: format!("not a text in UTF-8: the mistake is in line {line}"),
                hint: Some("save the file as UTF-8".to_owned()),
            }])
        }
    }
}

/// [`parse_with_warnings`] for a policy inside a larger document, such as the body of a REST call. Paths are relative
/// to the policy.
///
/// # Errors
/// As [`parse`].
pub fn parse_value(value: &Value<'_>) -> Result<Parsed, Vec<Diagnostic>> {
    let mut report = Report::default();
    let policy = top::policy(value, &At::ROOT, &mut report);
    if let (Some(policy), true) = (&policy, report.is_clean()) {
        warnings::unused(value, policy, &mut report);
    }
    match (report.finish(), policy) {
        (Ok(warnings), Some(policy)) => Ok(Parsed { policy, warnings }),
        (Err(errors), _) => Err(errors),
        (Ok(_), None) => unreachable!("no policy without a mistake in the report"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_inside_another_document_has_its_own_paths() {
        let body = r#"{"key": "k", "policy": {"version": 1, "allow": {"ports": [0], "ports": [1]}}}"#;
        let body = Value::read(body).unwrap();
        let errors = parse_value(body.get("policy").unwrap()).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["/allow/ports", "/allow/ports/0"]);
    }

    #[test]
    fn places_are_those_of_the_document() {
        let policy = parse(
            r#"{"version": 1, "hosts": {"h": {"sources": ["10.0.0.1"], "limits": {"egress_kbps": 5},
                "exfil": {"domains": {"*.Example.com": {"bytes": 1, "period": "day"}}}}}}"#,
        )
        .unwrap();
        let host = policy.hosts.values().next().unwrap();
        assert_eq!(host.path.as_str(), "/hosts/h");
        assert_eq!(host.sources.entry_path(0).as_str(), "/hosts/h/sources/0");
        assert_eq!(host.egress_kbps.as_ref().unwrap().path.as_str(), "/hosts/h/limits/egress_kbps");
        assert_eq!(host.caps.values().next().unwrap().path.as_str(), "/hosts/h/exfil/domains/*.Example.com");
    }

    #[test]
    fn a_document_over_the_limit_is_not_read() {
        let text = " ".repeat(crate::policy::json::MAX_DOCUMENT + 1);
        assert!(parse(&text).unwrap_err()[0].message.contains("at most"));
    }
}
