//! What reading a file came to: how much it says, and what of it does not hold here.

use std::collections::BTreeMap;
use std::fmt;

/// How many faulty lines a report names; the rest are counted.
pub const MAX_TOLD: usize = 10;

/// Why a line (or a name on it) means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Something that no domain name is.
    NotAName,
    /// A label over 63 octets or a name over 253 (RFC 1035 section 2.3.4).
    TooLong,
    /// A `*` that is not the whole first label.
    Wildcard,
    /// A wildcard over a public suffix.
    PublicSuffix,
    /// A wildcard over everything.
    EveryName,
    /// An address where a name belongs.
    Address,
    /// More than one name where one belongs.
    MoreWords,
    /// A line of a hosts file that does not begin with an address.
    NoAddress,
    /// A line of a hosts file with an address and no name.
    NoName,
    /// A line of a zone that is no record.
    NoRecord,
    /// An owner outside of the zone.
    OutsideZone,
    /// A network that is not well formed, in the owner of an address trigger.
    Network,
    /// `$INCLUDE`, `$GENERATE` or a directive that nobody knows.
    Directive,
    /// A bracket that is not closed.
    Bracket,
    /// A line over [`super::MAX_LINE`] octets.
    LongLine,
}

impl Fault {
    /// All of them, with the word that the kept copy of a list has for each.
    const WORDS: [(Self, &'static str); 15] = [
        (Self::NotAName, "not-a-name"),
        (Self::TooLong, "too-long"),
        (Self::Wildcard, "wildcard"),
        (Self::PublicSuffix, "public-suffix"),
        (Self::EveryName, "every-name"),
        (Self::Address, "address"),
        (Self::MoreWords, "more-words"),
        (Self::NoAddress, "no-address"),
        (Self::NoName, "no-name"),
        (Self::NoRecord, "no-record"),
        (Self::OutsideZone, "outside-zone"),
        (Self::Network, "network"),
        (Self::Directive, "directive"),
        (Self::Bracket, "bracket"),
        (Self::LongLine, "long-line"),
    ];

    /// The word for machines.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(fault, _)| *fault == self).map_or("", |(_, word)| word)
    }

    /// The fault of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(fault, _)| *fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAName => "not a domain name",
            Self::TooLong => "longer than a domain name can be",
            Self::Wildcard => "* can only be the whole first label",
            Self::PublicSuffix => "a wildcard over a public suffix",
            Self::EveryName => "would be every name there is",
            Self::Address => "an address, where a name belongs",
            Self::MoreWords => "more than one name on the line",
            Self::NoAddress => "does not begin with an address",
            Self::NoName => "an address without a name",
            Self::NoRecord => "not a record of a zone",
            Self::OutsideZone => "outside of the zone",
            Self::Network => "not a network in the form of an address trigger",
            Self::Directive => "a directive that is not followed",
            Self::Bracket => "a bracket that is not closed",
            Self::LongLine => "the line is too long",
        })
    }
}

/// What a file says well and this gateway does not do, or does in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aside {
    /// `rpz-client-ip`: who asks is the policy's matter.
    ClientIp,
    /// `rpz-nsip`: only a resolver that follows referrals sees name servers.
    NsIp,
    /// `rpz-nsdname`: likewise.
    NsDname,
    /// `CNAME rpz-tcp-only.`
    TcpOnly,
    /// Another answer in the place of the true one (a walled garden, local data): blocked instead.
    Rewrite,
    /// An adblock rule with options that look into web traffic.
    Options,
    /// An adblock rule that hides parts of pages.
    Cosmetic,
    /// An adblock rule about addresses in the web, not names.
    Url,
}

impl Aside {
    const WORDS: [(Self, &'static str); 8] = [
        (Self::ClientIp, "rpz-client-ip"),
        (Self::NsIp, "rpz-nsip"),
        (Self::NsDname, "rpz-nsdname"),
        (Self::TcpOnly, "rpz-tcp-only"),
        (Self::Rewrite, "rewrite"),
        (Self::Options, "options"),
        (Self::Cosmetic, "cosmetic"),
        (Self::Url, "url"),
    ];

    /// The word for machines.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(aside, _)| *aside == self).map_or("", |(_, word)| word)
    }

    /// The aside of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(aside, _)| *aside)
    }

    /// Whether such lines have no effect at all.
    pub fn is_left_out(self) -> bool {
        self != Self::Rewrite
    }
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientIp => "rpz-client-ip triggers (not enforced: who may ask is said by the policy)",
            Self::NsIp => "rpz-nsip triggers (not enforced: a forwarder does not see name servers)",
            Self::NsDname => "rpz-nsdname triggers (not enforced: a forwarder does not see name servers)",
            Self::TcpOnly => "rpz-tcp-only actions (not enforced)",
            Self::Rewrite => "rewritten answers (blocked instead)",
            Self::Options => "rules with options that only a browser can apply (not enforced)",
            Self::Cosmetic => "rules about parts of pages (not enforced)",
            Self::Url => "rules about URLs and patterns (not enforced)",
        })
    }
}

/// Counts of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines, the empty ones included.
    pub lines: u32,
    /// Name rules that are no exceptions. `||x^` is two: the name and all below it.
    pub names: u32,
    /// Name rules that take a name out of the list.
    pub exceptions: u32,
    /// Address triggers, exceptions included.
    pub networks: u32,
    /// Rules that stood in the file before.
    pub duplicates: u32,
    /// Names of the machine itself that every hosts file has (`localhost`).
    pub skipped: u32,
    /// What is not done, or done in another way: how often, and the first line.
    pub asides: BTreeMap<Aside, (u32, u32)>,
    /// Lines, or names on a line of several, that mean nothing.
    pub rejected: u32,
    /// The first of them, by line.
    pub told: Vec<(u32, Fault)>,
}

impl Report {
    pub(super) fn reject(&mut self, line: u32, fault: Fault) {
        self.rejected += 1;
        if self.told.len() < MAX_TOLD {
            self.told.push((line, fault));
        }
    }

    pub(super) fn aside(&mut self, line: u32, aside: Aside) {
        self.asides.entry(aside).or_insert((0, line)).0 += 1;
    }

    /// How many rules have no effect at all.
    pub fn left_out(&self) -> u32 {
        self.asides.iter().filter(|(aside, _)| aside.is_left_out()).map(|(_, (count, _))| count).sum()
    }

    /// Whether the file says nothing although it has lines that were meant to: most likely its format is another one.
    pub fn is_misread(&self) -> bool {
        self.names == 0 && self.exceptions == 0 && self.networks == 0 && (self.rejected > 0 || !self.asides.is_empty())
    }

    /// What was found where nothing could be read: the counts, and the first line that does not hold.
    pub fn found(&self) -> String {
        let first = self.remarks("").into_iter().next().unwrap_or_default();
        format!("{self};{first}")
    }

    /// What does not hold as written, one sentence each; `file` begins the ones about lines.
    pub fn remarks(&self, file: &str) -> Vec<String> {
        let mut out = Vec::new();
        for (aside, (count, first)) in &self.asides {
            out.push(format!("{file} line {first}: {count} {aside}"));
        }
        out.extend(self.told.iter().map(|(line, fault)| format!("{file} line {line}: {fault}")));
        let left = self.rejected as usize - self.told.len().min(self.rejected as usize);
        if left > 0 {
            out.push(format!("{file}: {left} more lines or names that mean nothing"));
        }
        out
    }
}

impl fmt::Display for Report {
    /// The counts that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names", self.names)?;
        for (count, what) in [
            (self.exceptions, "exceptions"),
            (self.networks, "networks"),
            (self.duplicates, "written twice"),
            (self.left_out(), "not enforceable"),
            (self.rejected, "rejected"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
