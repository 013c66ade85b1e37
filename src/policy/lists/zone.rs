//! Response-policy zones, as zone files (RFC 1035 section 5) and with the liberties that lists take.

use super::contents::Contents;
use super::report::{Aside, Fault};
use super::trigger::{Action, Trigger};

/// How many lines one record may have; an SOA has some seven. What goes on for longer has a bracket too many, and must
/// swallow neither the rest of the file nor the lines up to there: each of them is read for itself then.
const MAX_RECORD_LINES: u32 = 16;
/// Words of one record that are looked at.
const MAX_WORDS: usize = 64;
/// Types of records that say nothing about a name: those of the zone itself, and of its signatures.
const SILENT: [&str; 9] = ["SOA", "NS", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "DS", "ZONEMD"];
/// Types of records that are another answer instead of the true one. `TYPE65` and the like (RFC 3597) are as well.
const DATA: [&str; 14] =
    ["A", "AAAA", "TXT", "MX", "SRV", "PTR", "CAA", "HTTPS", "SVCB", "NAPTR", "HINFO", "SPF", "TLSA", "DNAME"];

/// Where in a zone file the reader is.
#[derive(Default)]
pub(super) struct Zone {
    /// What `$ORIGIN` said last, without the dot at its end: empty for the root. `None`: nothing.
    origin: Option<String>,
    /// The zone's name, once the SOA told it.
    zone: Option<String>,
    /// The owner of the record before, for records without one.
    owner: Option<String>,
    /// Words of a record whose brackets are still open, and where it began.
    words: Vec<String>,
    begun: u32,
    depth: u32,
    /// The lines behind the one where it began.
    held: Vec<(u32, String)>,
}

impl Zone {
    pub fn line(&mut self, contents: &mut Contents, number: u32, text: &str) {
        if self.depth > 0 {
            self.held.push((number, text.to_owned()));
        } else {
            self.words.clear();
            self.held.clear();
            self.begun = number;
            if text.trim_start().starts_with(['#', ';']) {
                return;
            }
            if text.starts_with([' ', '\t']) {
                // Stands for the owner of the record before.
                self.words.push(String::new());
            }
        }
        if !self.split(text) || self.depth > 0 && number - self.begun >= MAX_RECORD_LINES {
            return self.give_up(contents);
        }
        if self.depth > 0 {
            return;
        }
        if self.words.iter().all(String::is_empty) {
            return;
        }
        let words = std::mem::take(&mut self.words);
        let begun = self.begun;
        if let Err(fault) = self.record(contents, begun, &words) {
            contents.reject(begun, fault);
        }
        self.words = words;
    }

    /// The end of the file.
    pub fn finish(&mut self, contents: &mut Contents) {
        if self.depth > 0 {
            self.give_up(contents);
        }
    }

    /// The record does not end: its first line means nothing, and each of the others is a record of its own or means
    /// nothing. None is read a third time, so that a file of brackets costs no more than another.
    fn give_up(&mut self, contents: &mut Contents) {
        self.depth = 0;
        contents.reject(self.begun, Fault::Bracket);
        for (number, text) in std::mem::take(&mut self.held) {
            self.line(contents, number, &text);
            if self.depth > 0 {
                self.depth = 0;
                contents.reject(number, Fault::Bracket);
            }
        }
    }

    /// Adds the words of a line; false: brackets or quotes do not fit.
    fn split(&mut self, text: &str) -> bool {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            match first {
                ';' | '#' => break,
                '(' => self.depth += 1,
                ')' if self.depth == 0 => return false,
                ')' => self.depth -= 1,
                '"' => {
                    let Some(end) = closing(&rest[1..]) else { return false };
                    self.word("\"");
                    rest = rest[end + 2..].trim_start();
                    continue;
                }
                _ => {
                    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ';' | '(' | ')' | '"'));
                    let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                    self.word(word);
                    rest = after.trim_start();
                    continue;
                }
            }
            rest = rest[1..].trim_start();
        }
        true
    }

    fn word(&mut self, word: &str) {
        if self.words.len() < MAX_WORDS {
            self.words.push(word.to_owned());
        }
    }

    fn record(&mut self, contents: &mut Contents, line: u32, words: &[String]) -> Result<(), Fault> {
        let (first, rest) = words.split_first().ok_or(Fault::NoRecord)?;
        if let Some(directive) = first.strip_prefix('$') {
            return self.directive(directive, rest);
        }
        let owner = match (first.as_str(), &self.owner) {
            ("", Some(owner)) => owner.clone(),
            // The NS of the zone may come without its SOA.
            ("", None) => String::from("@"),
            (owner, _) => owner.to_owned(),
        };
        // The owner holds for records that follow, whatever becomes of this one.
        self.owner = Some(owner.clone());
        let mut fields = rest.iter().map(String::as_str).skip_while(|word| is_ttl(word) || is_class(word));
        let kind = fields.next().ok_or(Fault::NoRecord)?.to_ascii_uppercase();
        if kind == "SOA" {
            self.zone = self.absolute(&owner);
        }
        if SILENT.contains(&kind.as_str()) {
            return Ok(());
        }
        let Some(owner) = self.trigger(&owner)? else { return Ok(()) };
        let action = match kind.as_str() {
            "CNAME" => {
                let target = fields.next().ok_or(Fault::NoRecord)?;
                Action::of_cname(target, &owner, self.origin.as_deref().unwrap_or_default().is_empty())
            }
            kind if DATA.contains(&kind) || kind.starts_with("TYPE") => Action::Rewrite,
            _ => return Err(Fault::NoRecord),
        };
        let trigger = Trigger::read(&owner)?;
        let exception = match action {
            _ if matches!(trigger, Trigger::Unseen(_)) => false,
            Action::TcpOnly => {
                contents.aside(line, Aside::TcpOnly);
                return Ok(());
            }
            Action::Rewrite => {
                contents.aside(line, Aside::Rewrite);
                false
            }
            Action::Block => false,
            Action::Passthru => true,
        };
        match trigger {
            Trigger::Name(pattern) => contents.add(&pattern, line, exception),
            Trigger::Answer(net) => contents.add_network(net, line, exception),
            Trigger::Unseen(aside) => contents.aside(line, aside),
        }
        Ok(())
    }

    fn directive(&mut self, directive: &str, rest: &[String]) -> Result<(), Fault> {
        match directive.to_ascii_uppercase().as_str() {
            "TTL" => Ok(()),
            "ORIGIN" => {
                let name = rest.first().ok_or(Fault::Directive)?;
                self.origin = Some(match name.strip_suffix('.') {
                    Some(absolute) => absolute.to_ascii_lowercase(),
                    None => join(&name.to_ascii_lowercase(), self.origin.as_deref().unwrap_or_default()),
                });
                Ok(())
            }
            _ => Err(Fault::Directive),
        }
    }

    /// A name with its origin, without the dot at its end. `None`: there is no origin that could be added.
    fn absolute(&self, owner: &str) -> Option<String> {
        let owner = owner.to_ascii_lowercase();
        if let Some(absolute) = owner.strip_suffix('.') {
            return Some(absolute.to_owned());
        }
        let origin = self.origin.as_deref()?;
        Some(if owner == "@" { origin.to_owned() } else { join(&owner, origin) })
    }

    /// What an owner is about: the part before the zone's name. `None`: the zone itself.
    fn trigger(&self, owner: &str) -> Result<Option<String>, Fault> {
        if owner.contains('\\') {
            return Err(Fault::NotAName);
        }
        // Most files name no origin: then relative owners are the triggers as they stand.
        let Some(full) = self.absolute(owner) else { return Ok((owner != "@").then(|| owner.to_owned())) };
        let zone = self.zone.as_ref().or(self.origin.as_ref()).map_or("", String::as_str);
        if full == zone {
            return Ok(None);
        }
        if zone.is_empty() {
            return Ok(Some(full));
        }
        match full.strip_suffix(zone).and_then(|front| front.strip_suffix('.')) {
            Some(front) => Ok(Some(front.to_owned())),
            // Without an SOA nobody said that the origin is the zone.
            None if self.zone.is_none() => Ok(Some(full)),
            None => Err(Fault::OutsideZone),
        }
    }
}

/// Where a quoted string ends. A backslash makes the octet behind it one of the string (RFC 1035 section 5.1).
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|octet| {
        let end = octet == b'"' && !escaped;
        escaped = octet == b'\\' && !escaped;
        end
    })
}

fn join(name: &str, origin: &str) -> String {
    if origin.is_empty() { name.to_owned() } else { format!("{name}.{origin}") }
}

/// `300`, `1h30m`.
fn is_ttl(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.bytes().all(|b| b.is_ascii_digit() || b"smhdwSMHDW".contains(&b))
}

fn is_class(word: &str) -> bool {
    ["IN", "CH", "HS", "ANY"].iter().any(|class| word.eq_ignore_ascii_case(class))
}
