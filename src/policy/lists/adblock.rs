//! Filter lists of ad blockers: of their language, what speaks of whole names.
//!
//! `||example.com^` is the name and everything below it, `||*.example.com^` only what is below, `@@` in front takes it
//! out of the list. Everything else that the language can say looks into pages and URLs.

use super::contents::Contents;
use super::reader::pattern;
use super::report::{Aside, Fault};
use crate::policy::name::Pattern;

/// Options that narrow nothing: with them a rule is about the whole name.
const WHOLE: [&str; 5] = ["important", "all", "document", "doc", ""];
/// Marks of rules that hide or change parts of pages.
const COSMETIC: [&str; 9] = ["##", "#@#", "#?#", "#@?#", "#$#", "#@$#", "#%#", "#@%#", "$$"];

pub(super) fn line(contents: &mut Contents, number: u32, text: &str) {
    let text = text.trim();
    if text.is_empty() || text.starts_with(['!', '[']) {
        return;
    }
    if COSMETIC.iter().any(|mark| text.contains(mark)) {
        return contents.aside(number, Aside::Cosmetic);
    }
    // After the marks above, some of which begin so.
    if text.starts_with('#') {
        return;
    }
    let (rule, exception) = text.strip_prefix("@@").map_or((text, false), |rule| (rule, true));
    let Some(rule) = rule.strip_prefix("||") else { return contents.aside(number, Aside::Url) };
    let (rule, options) = rule.split_once('$').unwrap_or((rule, ""));
    if options.split(',').any(|option| !WHOLE.contains(&option.trim())) {
        return contents.aside(number, Aside::Options);
    }
    // Without the mark for its end the rule is about every name that begins so; such lines mean the name.
    let name = rule.strip_suffix('|').unwrap_or(rule);
    let name = name.strip_suffix('^').unwrap_or(name);
    if name.contains(['/', '^', ':', '|', '?', '=', '&']) {
        return contents.aside(number, Aside::Url);
    }
    let (apex, below_only) = name.strip_prefix("*.").map_or((name, false), |apex| (apex, true));
    if apex.contains('*') {
        return contents.aside(number, Aside::Url);
    }
    match pattern(&format!("*.{apex}")) {
        Ok(below @ Pattern::Below(_)) => {
            if let (Pattern::Below(apex), false) = (&below, below_only) {
                contents.add(&Pattern::Exact(apex.clone()), number, exception);
            }
            contents.add(&below, number, exception);
        }
        Ok(Pattern::Exact(_)) => contents.reject(number, Fault::NotAName),
        Err(_) if apex.parse::<std::net::IpAddr>().is_ok() => contents.reject(number, Fault::Address),
        Err(fault) => contents.reject(number, fault),
    }
}
