//! What one file says, in a form that is small and quick to ask.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::report::{Aside, Fault, Report};
use super::table::Table;
use crate::policy::model::ListFormat;
use crate::policy::name::{Name, Pattern};

/// In the number of a rule's line: it is an exception.
const EXCEPTION: u32 = 1 << 31;
/// In the number of a rule's line: it is a wildcard.
const BELOW: u32 = 1 << 30;
/// The number itself. A file has at most [`super::MAX_BYTES`] lines, which is less.
const LINE: u32 = BELOW - 1;
/// Octets in front of a name in the arena: the line, and the length of the name.
const HEAD: usize = 5;

/// One name rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it covers.
    pub pattern: Pattern,
    /// The line, from 1.
    pub line: u32,
    /// It takes names out of a denylist: an adblock `@@`, an RPZ PASSTHRU.
    pub exception: bool,
}

/// One address trigger of an RPZ zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// What it covers.
    pub net: IpNet,
    /// The line, from 1.
    pub line: u32,
    /// It passes.
    pub exception: bool,
}

/// What a file says. Made by [`super::Reader`]; immutable, and shared by all who have the list.
///
/// Rules stand one behind the other in one block of memory, found by a [`Table`]: some 17 octets each besides the
/// name.
#[derive(Clone)]
pub struct Contents {
    format: ListFormat,
    arena: Vec<u8>,
    table: Table,
    networks: BTreeMap<IpNet, (u32, bool)>,
    report: Report,
    digest: String,
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        self.format == other.format && self.digest == other.digest
    }
}

impl Eq for Contents {}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({:?}, {}, {})", self.format, self.report, self.digest)
    }
}

impl Contents {
    pub(super) fn new(format: ListFormat, rules: usize) -> Self {
        Self {
            format,
            arena: Vec::new(),
            table: Table::with_room(rules),
            networks: BTreeMap::new(),
            report: Report::default(),
            digest: String::new(),
        }
    }

    /// How the file was read.
    pub fn format(&self) -> ListFormat {
        self.format
    }

    /// Counts, and what does not hold.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// SHA-256 of the kept copy ([`Contents::write_copy`]), 64 hexadecimal digits: equal for files that say the same in
    /// the same lines.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many rules there are, names and networks.
    pub fn len(&self) -> usize {
        self.report.names as usize + self.report.exceptions as usize + self.networks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets in memory, nearly.
    pub fn size(&self) -> usize {
        self.arena.capacity() + self.table.size() + self.networks.len() * size_of::<(IpNet, u32, bool)>()
    }

    /// The rule that covers `name` most closely.
    pub fn closest(&self, name: &Name) -> Option<Entry> {
        let exact = self.find(name.as_str(), false);
        exact.or_else(|| name.parents().find_map(|apex| self.find(apex, true))).map(|at| self.entry(at))
    }

    /// The rule by which this list, as a denylist, denies `name`.
    pub fn denies(&self, name: &Name) -> Option<Entry> {
        self.closest(name).filter(|entry| !entry.exception)
    }

    /// The rule by which this list, as an allowlist, allows `name`. A zone says itself what passes; in the other
    /// formats every name but the exceptions is meant.
    pub fn allows(&self, name: &Name) -> Option<Entry> {
        let passes = self.format == ListFormat::Rpz;
        self.closest(name).filter(|entry| entry.exception == passes)
    }

    /// Whether this list, as an allowlist, allows anything.
    pub fn allows_some(&self) -> bool {
        if self.format == ListFormat::Rpz { self.report.exceptions > 0 } else { self.report.names > 0 }
    }

    /// The address trigger by which this list, as a denylist, denies an address in an answer: the longest prefix decides.
    pub fn denies_address(&self, address: IpAddr) -> Option<Network> {
        if self.networks.is_empty() {
            return None;
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest)
            .rev()
            .find_map(|length| {
                let net = IpNet::new(address, length).ok()?.trunc();
                let (line, exception) = *self.networks.get(&net)?;
                Some(Network { net, line, exception })
            })
            .filter(|network| !network.exception)
    }

    /// The line of a rule.
    pub fn line_of(&self, pattern: &Pattern) -> Option<u32> {
        let (name, below) = match pattern {
            Pattern::Exact(name) => (name, false),
            Pattern::Below(apex) => (apex, true),
        };
        self.find(name.as_str(), below).map(|at| self.entry(at).line)
    }

    /// All name rules in the order of the file, each pattern once.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut at = 0usize;
        std::iter::from_fn(move || {
            let length = usize::from(*self.arena.get(at + HEAD - 1)?);
            let entry = self.entry(u32::try_from(at).ok()?);
            at += HEAD + length;
            Some(entry)
        })
    }

    /// All address triggers, sorted.
    pub fn networks(&self) -> impl Iterator<Item = Network> {
        self.networks.iter().map(|(net, (line, exception))| Network { net: *net, line: *line, exception: *exception })
    }

    fn find(&self, name: &str, below: bool) -> Option<u32> {
        let hash = self.table.hash((name, below));
        self.table.find(hash, |at| {
            let (line, found) = self.at(at);
            (line & BELOW != 0) == below && found == name.as_bytes()
        })
    }

    /// Line with its marks, and name, of the rule at an offset of the arena.
    fn at(&self, at: u32) -> (u32, &[u8]) {
        let head = &self.arena[at as usize..];
        let line = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        (line, &head[HEAD..HEAD + usize::from(head[4])])
    }

    fn entry(&self, at: u32) -> Entry {
        let (line, name) = self.at(at);
        // Only names go in, and names are ASCII.
        let name = Name::from_normal(std::str::from_utf8(name).unwrap_or_default());
        let pattern = if line & BELOW == 0 { Pattern::Exact(name) } else { Pattern::Below(name) };
        Entry { pattern, line: line & LINE, exception: line & EXCEPTION != 0 }
    }

    /// Adds a rule. Of equal patterns the first one speaks, except that an adblock exception always does.
    pub(super) fn add(&mut self, pattern: &Pattern, line: u32, exception: bool) {
        let (name, below) = match pattern {
            Pattern::Exact(name) => (name.as_str(), false),
            Pattern::Below(apex) => (apex.as_str(), true),
        };
        let marks = if below { BELOW } else { 0 } | if exception { EXCEPTION } else { 0 };
        let line = (line & LINE) | marks;
        if let Some(at) = self.find(name, below) {
            self.report.duplicates += 1;
            let old = self.at(at).0;
            if self.format == ListFormat::Adblock && exception && old & EXCEPTION == 0 {
                self.arena[at as usize..at as usize + 4].copy_from_slice(&line.to_le_bytes());
                self.report.names -= 1;
                self.report.exceptions += 1;
            }
            return;
        }
        // The reader's bounds keep the arena far below 4 GiB.
        let (Ok(at), Ok(length)) = (u32::try_from(self.arena.len()), u8::try_from(name.len())) else { return };
        self.arena.extend_from_slice(&line.to_le_bytes());
        self.arena.push(length);
        self.arena.extend_from_slice(name.as_bytes());
        self.table.insert(self.table.hash((name, below)), at);
        if exception {
            self.report.exceptions += 1;
        } else {
            self.report.names += 1;
        }
    }

    /// Adds an address trigger; of equal networks the first one speaks.
    pub(super) fn add_network(&mut self, net: IpNet, line: u32, exception: bool) {
        match self.networks.entry(net) {
            btree_map::Entry::Occupied(_) => self.report.duplicates += 1,
            btree_map::Entry::Vacant(free) => {
                free.insert((line, exception));
                self.report.networks += 1;
            }
        }
    }

    pub(super) fn reject(&mut self, line: u32, fault: Fault) {
        self.report.reject(line, fault);
    }

    pub(super) fn aside(&mut self, line: u32, aside: Aside) {
        self.report.aside(line, aside);
    }

    pub(super) fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Ends the building: gives back spare memory, computes the digest.
    pub(super) fn finish(mut self) -> Self {
        self.arena.shrink_to_fit();
        self.digest = self.copy_digest();
        self
    }
}
