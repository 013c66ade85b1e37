//! From a user's words to a domain pattern (SPEC section 2, meaning 1).

use std::borrow::Cow;
use std::net::IpAddr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::diagnostic::Mistake;
use super::name::{Name, Pattern};
use super::wording::quoted;

/// Longest label, octets (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest name as text without the trailing dot, octets (RFC 1035 section 2.3.4: 255 on the wire).
const MAX_NAME: usize = 253;

/// Reads one entry of a domain list: a name or `*.` and a name.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn pattern(text: &str) -> Result<Pattern, Mistake> {
    let (name, below) = normal(text)?;
    let name = Name::from_normal(&name);
    Ok(if below { Pattern::Below(name) } else { Pattern::Exact(name) })
}

/// [`pattern`] as its name in normal form (borrowed where it is written so) and whether it is a wildcard.
pub(super) fn normal(text: &str) -> Result<(Cow<'_, str>, bool), Mistake> {
    let Some(apex) = text.strip_prefix("*.") else {
        return normal_name(text).map(|name| (name, false));
    };
    if apex.is_empty() {
        return Err(star(text));
    }
    let apex = normal_name(apex).map_err(|mistake| mistake_in_wildcard(text, apex, mistake))?;
    // One label and a dot must fit in front, or nothing can be below it.
    if apex.len() + 2 > MAX_NAME {
        return Err(too_long(text));
    }
    match owners(&apex) {
        Owners::One => Ok((apex, true)),
        Owners::Many(hint) => {
            Err(Mistake::new(format!("{} covers names of many unrelated owners", quoted(&format!("*.{apex}"))), hint))
        }
    }
}

/// Reads one domain name, without wildcard.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn name(text: &str) -> Result<Name, Mistake> {
    normal_name(text).map(|name| Name::from_normal(&name))
}

fn normal_name(text: &str) -> Result<Cow<'_, str>, Mistake> {
    plain(text).map_or_else(|| careful(text).map(Cow::Owned), Ok)
}

/// The way of names that need conversion, and of all that are none.
fn careful(text: &str) -> Result<String, Mistake> {
    shape(text)?;
    let dotless = text.strip_suffix('.').unwrap_or(text);
    let ascii = Uts46::new()
        .to_ascii(dotless.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .map_err(|_| {
            Mistake::new(
                format!("{} is not a valid internationalised domain name (IDNA)", quoted(text)),
                "check its spelling, or write the form that begins with xn--",
            )
        })?;
    // A trailing dot may also have been one of the other dots that IDNA knows.
    let ascii = if dotless == text { ascii.strip_suffix('.').unwrap_or(&ascii) } else { &ascii };
    labels(text, ascii)?;
    Ok(ascii.to_ascii_lowercase())
}

/// The way of nearly every entry: ASCII, nothing to convert, nothing wrong. `None`: look closer.
fn plain(text: &str) -> Option<Cow<'_, str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let bytes = text.as_bytes();
    if bytes.len() > MAX_NAME {
        return None;
    }
    let (mut start, mut upper, mut digits) = (0, false, true);
    for (index, byte) in bytes.iter().chain(b".").enumerate() {
        match byte {
            b'.' => {
                let length = index - start;
                // `xn--` needs its Punycode checked (RFC 5890), so it takes the long way.
                if length == 0 || length > MAX_LABEL || bytes[start..].len() >= 4 && is_ace(&bytes[start..start + 4]) {
                    return None;
                }
                start = index + 1;
                if index < bytes.len() {
                    digits = true;
                }
            }
            b'-' if index == start => return None,
            b'0'..=b'9' => {}
            b'A'..=b'Z' => (upper, digits) = (true, false),
            b'a'..=b'z' | b'-' | b'_' => digits = false,
            _ => return None,
        }
    }
    if digits {
        return None;
    }
    Some(if upper { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) })
}

fn is_ace(front: &[u8]) -> bool {
    front.eq_ignore_ascii_case(b"xn--")
}

/// Things that are no names at all, each with what to do instead.
fn shape(text: &str) -> Result<(), Mistake> {
    let shown = quoted(text);
    if text.is_empty() || text == "." {
        return Err(Mistake::new(format!("{shown} is not a domain name"), "write a name such as api.example.com"));
    }
    if text.trim() != text {
        return Err(Mistake::new(
            format!("{shown} has a space at its beginning or end"),
            format!("write {}", quoted(text.trim())),
        ));
    }
    if is_address(text) {
        return Err(Mistake::new(
            format!("{shown} is an IP address, not a domain name"),
            "put it in allow.ips (or deny.ips)",
        ));
    }
    if text == "*" {
        return Err(star(text));
    }
    if let Some((_, rest)) = text.split_once("://") {
        return Err(Mistake::new(format!("{shown} is a URL, not a domain name"), only_the_name(rest)));
    }
    if text.contains(['/', '?', '#', '@']) {
        return Err(Mistake::new(format!("{shown} is more than a domain name"), only_the_name(text)));
    }
    if text.contains(':') {
        return Err(Mistake::new(
            format!("{shown} has a port, and ports are not part of a domain name"),
            format!("{}; ports go into allow.ports", only_the_name(text)),
        ));
    }
    if let Some(rest) = text.strip_prefix('.') {
        return Err(Mistake::new(
            format!("{shown} begins with a dot"),
            format!("for every name below it write {}", quoted(&format!("*.{}", rest.trim_matches('.')))),
        ));
    }
    if text.contains('*') {
        let hint = match text.strip_prefix('*') {
            Some(rest) if !rest.contains('*') => {
                format!("for every name below it write {}", quoted(&format!("*.{}", rest.trim_matches(['.', '-']))))
            }
            _ => "a wildcard covers every depth: *.example.com".to_owned(),
        };
        return Err(Mistake::new(format!("{shown}: * can only be the whole first label"), hint));
    }
    Ok(())
}

/// The name inside something that has more around it.
fn only_the_name(text: &str) -> String {
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    if host.is_empty() { "write the name alone".to_owned() } else { format!("write {}", quoted(host)) }
}

/// Whether this is an address in one of the ways people write them, with or without a prefix length.
fn is_address(text: &str) -> bool {
    let front = text.split('/').next().unwrap_or_default();
    let front = front.strip_prefix('[').and_then(|inner| inner.split(']').next()).unwrap_or(front);
    let front = match front.split_once(':') {
        Some((v4, port)) if !port.contains(':') => v4,
        _ => front,
    };
    front.parse::<IpAddr>().is_ok()
}

/// Checks an ASCII name label by label.
fn labels(text: &str, ascii: &str) -> Result<(), Mistake> {
    let shown = quoted(text);
    if ascii.is_empty() || ascii.split('.').any(str::is_empty) {
        return Err(Mistake::new(format!("{shown} has an empty part between its dots"), "remove the extra dot"));
    }
    if ascii.len() > MAX_NAME {
        return Err(too_long(text));
    }
    for label in ascii.split('.') {
        if label.len() > MAX_LABEL {
            return Err(Mistake::new(
                format!("{shown} has a part of {} characters; at most {MAX_LABEL} are possible", label.len()),
                "check its spelling",
            ));
        }
        if label.starts_with('-') {
            return Err(Mistake::new(format!("{shown} has a part that begins with a hyphen"), "remove the hyphen"));
        }
        if let Some(wrong) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(Mistake::new(
                format!("{shown} holds {}, which no domain name can", quoted(&wrong.to_string())),
                "names are letters, digits, hyphens and underscores, with dots between",
            ));
        }
    }
    let last = ascii.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new(
            format!("{shown} ends in a number, which no domain name does"),
            "an address goes into allow.ips (or deny.ips), in full",
        ));
    }
    Ok(())
}

fn too_long(text: &str) -> Mistake {
    Mistake::new(format!("{} is longer than the {MAX_NAME} characters of a domain name", quoted(text)), "check it")
}

fn star(text: &str) -> Mistake {
    Mistake::new(
        format!("{} would be every name there is", quoted(text)),
        "name the domains; *.example.com is every name below example.com",
    )
}

/// What is wrong behind `*.`, said about the entry as written.
fn mistake_in_wildcard(text: &str, apex: &str, mistake: Mistake) -> Mistake {
    if is_address(apex) {
        return Mistake::new(
            format!("{} is a wildcard over an IP address", quoted(text)),
            "put the network in allow.ips (or deny.ips), such as 192.0.2.0/24",
        );
    }
    if apex.contains('*') {
        return Mistake::new(
            format!("{}: * can only be the whole first label", quoted(text)),
            "a wildcard covers every depth: *.example.com",
        );
    }
    // Where there is more around the name, the advice keeps the wildcard.
    if apex.contains(['/', '?', '#', '@', ':'])
        && let Err(whole) = shape(text)
    {
        return whole;
    }
    mistake
}

/// Who owns the names below an apex.
enum Owners {
    One,
    /// The apex is a public suffix; what to do instead.
    Many(String),
}

/// Asks the public suffix list (the copy inside the crate `psl`), its section of hosting providers included: below
/// `github.io` as below `com` anybody can have a name, and a gateway that lets agents talk to "anybody" is none.
fn owners(apex: &str) -> Owners {
    let is_suffix =
        |name: &str| psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.as_bytes() == name.as_bytes());
    // Suffix rules may themselves be wildcards (`*.ck`): then every name directly below the apex is a public suffix.
    // The probe is a label that no rule and no exception of the list names.
    if !is_suffix(apex) && !is_suffix(&format!("no-such-label--.{apex}")) {
        return Owners::One;
    }
    let known = psl::suffix(apex.as_bytes()).is_some_and(|suffix| suffix.is_known());
    Owners::Many(if known || apex.contains('.') {
        format!(
            "{apex} is a public suffix, below which anybody can have names: write the names you mean, or {}",
            example(apex)
        )
    } else {
        format!("{apex} is a top-level name: write the names you mean, or {}", example(apex))
    })
}

fn example(apex: &str) -> String {
    format!("*.example.{apex}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> String {
        pattern(text).map_or_else(|mistake| panic!("{text}: {mistake}"), |pattern| pattern.to_string())
    }

    #[test]
    fn names_are_normalised() {
        for (written, meant) in [
            ("API.OpenAI.com", "api.openai.com"),
            ("api.openai.com.", "api.openai.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("straße.example", "xn--strae-oqa.example"),
            ("*.Bücher.example.", "*.xn--bcher-kva.example"),
            ("ｅｘａｍｐｌｅ．com", "example.com"),
            ("例え。テスト。", "xn--r8jz45g.xn--zckzah"),
            ("_acme-challenge.example.com", "_acme-challenge.example.com"),
            ("r3---sn-4g5e.example.com", "r3---sn-4g5e.example.com"),
            ("user-.example.com", "user-.example.com"),
            ("localhost", "localhost"),
            ("3com.com", "3com.com"),
            ("com", "com"),
        ] {
            assert_eq!(normal(written), meant);
        }
    }

    #[test]
    fn a_wildcard_needs_one_owner() {
        for legal in
            ["*.example.com", "*.example.co.uk", "*.city.kawasaki.jp", "*.someone.github.io", "*.a.b.example.com"]
        {
            assert_eq!(normal(legal), legal);
        }
        for refused in ["*.com", "*.CO.UK", "*.github.io", "*.kawasaki.jp", "*.local", "*.xn--p1ai", "*.рф"] {
            assert!(pattern(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn advice_keeps_the_wildcard() {
        assert_eq!(
            pattern("*.example.com:443").unwrap_err().hint.unwrap(),
            "write \"*.example.com\"; ports go into allow.ports"
        );
        assert_eq!(pattern("*.example.com/v1").unwrap_err().hint.unwrap(), "write \"*.example.com\"");
    }

    #[test]
    fn lengths_at_their_edges() {
        let label = |length: usize| "a".repeat(length);
        assert!(name(&format!("{}.com", label(63))).is_ok());
        assert!(name(&format!("{}.com", label(64))).is_err());
        let long = |last: usize| [label(63), label(63), label(63), label(last)].join(".");
        assert!(name(&long(61)).is_ok());
        assert!(name(&format!("{}.", long(61))).is_ok());
        assert!(name(&long(62)).is_err());
        assert!(pattern(&format!("*.{}", long(59))).is_ok());
        assert!(pattern(&format!("*.{}", long(60))).is_err());
        // Also where only the converted form is too long.
        assert!(name(&format!("{}ü.com", label(57))).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_short_way_is_the_long_way(text in "([a-cA-C0-9_-]{0,5}[.]){0,4}([xX]n--)?[a-cA-C0-9_-]{0,5}[.]?") {
            if let Some(name) = plain(&text) {
                prop_assert_eq!(Ok(name.into_owned()), careful(&text));
            } else if !text.to_ascii_lowercase().contains("xn--") {
                prop_assert!(careful(&text).is_err(), "{}", text);
            }
        }
    }
}
