//! A zone in a form that a million names fit into and that is shared by all who read it: one block of memory, sorted by
//! owner, some ten octets more than the names themselves have.

use std::cmp::Ordering;
use std::convert::Infallible;

use sha2::{Digest as _, Sha256};

use super::Action;
use super::closure::close;
use super::owners::{Placed, Rule};

/// Octets in front of an owner: what happens to it, and how long it is.
const HEAD: usize = 2;

/// The records of a zone, without SOA and NS: owners relative to the zone, each once, sorted by their octets, closed
/// under the rule of wildcards (RFC 4592) as the printed zones are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Image {
    block: Box<[u8]>,
    count: usize,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.records()).finish()
    }
}

/// Records on their way into an image, in any order.
#[derive(Default)]
struct Heap {
    block: Vec<u8>,
    places: Vec<usize>,
}

impl Heap {
    /// Owners of more than 255 octets cannot be: the zone's name leaves less room.
    fn push(&mut self, owner: &str, action: Action) {
        let Ok(length) = u8::try_from(owner.len()) else { return };
        self.places.push(self.block.len());
        self.block.extend([u8::from(action == Action::Nxdomain), length]);
        self.block.extend_from_slice(owner.as_bytes());
    }

    /// Sorts; of equal owners the first that came stays.
    fn sort(&mut self) {
        let Self { block, places } = self;
        places.sort_unstable_by(|a, b| at(block, *a).0.cmp(at(block, *b).0).then(a.cmp(b)));
        places.dedup_by(|later, first| at(block, *later).0 == at(block, *first).0);
    }

    fn records(&self) -> impl Iterator<Item = (&str, Action)> + Clone {
        self.places.iter().map(|place| at(&self.block, *place))
    }

    /// Adds what the records entail ([`close`]).
    fn close(&mut self, room: usize) {
        let mut more = Self::default();
        let Ok(()) = close(self.records(), room, |owner, action| {
            more.push(owner, action);
            Ok::<_, Infallible>(())
        });
        if more.places.is_empty() {
            return;
        }
        // What was written speaks before what follows from it: it came first.
        let shift = self.block.len();
        self.block.extend(more.block);
        self.places.extend(more.places.iter().map(|place| place + shift));
        self.sort();
    }

    fn into_image(self) -> Image {
        let mut block =
            Vec::with_capacity(self.places.iter().map(|place| HEAD + at(&self.block, *place).0.len()).sum());
        for place in &self.places {
            block.extend_from_slice(&self.block[*place..place + HEAD + usize::from(self.block[place + 1])]);
        }
        Image { block: block.into(), count: self.places.len() }
    }
}

/// The record at a place of a block.
fn at(block: &[u8], place: usize) -> (&str, Action) {
    let length = usize::from(block[place + 1]);
    let owner = std::str::from_utf8(&block[place + HEAD..place + HEAD + length]).unwrap_or_default();
    (owner, if block[place] == 0 { Action::Passthru } else { Action::Nxdomain })
}

impl Image {
    /// The zone of these rules; of equal owners the first one speaks. `room`: octets of an owner.
    pub(super) fn of(rules: impl Iterator<Item = Rule>, room: usize) -> Self {
        let mut heap = Heap::default();
        for rule in rules {
            if let Placed::Owner(owner, _) = rule.place(room) {
                heap.push(&owner, rule.action());
            }
        }
        heap.sort();
        heap.close(room);
        heap.into_image()
    }

    /// The zone that refuses every name.
    pub(super) fn everything() -> Self {
        Self::from_records([("*", Action::Nxdomain)])
    }

    /// A zone of exactly these records, sorted.
    pub fn from_records<'r>(records: impl IntoIterator<Item = (&'r str, Action)>) -> Self {
        let mut heap = Heap::default();
        records.into_iter().for_each(|(owner, action)| heap.push(owner, action));
        heap.sort();
        heap.into_image()
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Octets of memory.
    pub fn size(&self) -> usize {
        self.block.len()
    }

    /// The record at a place, and the place of the next one. The first is at 0; `None`: the end.
    pub fn record(&self, place: usize) -> Option<(&str, Action, usize)> {
        (place < self.block.len()).then(|| {
            let (owner, action) = at(&self.block, place);
            (owner, action, place + HEAD + owner.len())
        })
    }

    /// All records by owner.
    pub fn records(&self) -> impl Iterator<Item = (&str, Action)> + Clone {
        let mut place = 0;
        std::iter::from_fn(move || {
            let (owner, action, next) = self.record(place)?;
            place = next;
            Some((owner, action))
        })
    }

    /// A digest of the records, hexadecimal: equal zones have equal ones.
    pub fn digest(&self) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(&self.block))
    }

    /// What `newer` has not, and what it has besides.
    pub fn difference(&self, newer: &Self) -> (Self, Self) {
        let (mut gone, mut new) = (Heap::default(), Heap::default());
        let (mut old, mut fresh) = (self.records().peekable(), newer.records().peekable());
        loop {
            let order = match (old.peek(), fresh.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.0.cmp(b.0).then(a.1.cmp(&b.1)),
            };
            if order != Ordering::Greater
                && let Some((owner, action)) = old.next()
                && order == Ordering::Less
            {
                gone.push(owner, action);
            }
            if order != Ordering::Less
                && let Some((owner, action)) = fresh.next()
                && order == Ordering::Greater
            {
                new.push(owner, action);
            }
        }
        (gone.into_image(), new.into_image())
    }
}
