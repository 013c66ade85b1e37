//! Places for kinds that are counted, bounded for each host, so that nobody's flood makes the log blind for others.

use std::collections::HashMap;

use super::alike::{Key, MAX_OPEN, Who};
use super::record::Layer;
use crate::policy::model::HostName;

/// Kinds of one layer that one host may have open; the sources that belong to none have as much together.
const MAX_OPEN_EACH: usize = MAX_OPEN / 8;
/// Crowds of hosts, besides the kinds; and as many of sources that belong to none.
pub(super) const MAX_CROWDS: usize = 512;

/// Places that are bounded together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Room {
    /// Kinds of one host, or of all sources that belong to none.
    Kinds(Option<HostName>, Layer),
    /// What exceeded shares.
    Crowds { hosts: bool },
    /// One for each cause and revision.
    Anyone,
}

impl Room {
    fn of(key: &Key) -> Self {
        let host = match &key.who {
            Who::Host(host) => Some(host),
            Who::Source(_) => None,
            Who::Anyone => return Self::Anyone,
        };
        match (&key.domain, key.address, key.port, key.protocol) {
            (None, None, None, 0) => Self::Crowds { hosts: host.is_some() },
            _ => Self::Kinds(host.cloned(), key.cause.layer),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Kinds(..) => MAX_OPEN_EACH,
            Self::Crowds { .. } => MAX_CROWDS,
            Self::Anyone => usize::MAX,
        }
    }
}

/// How many places are taken.
#[derive(Default)]
pub(super) struct Rooms(HashMap<Room, usize>);

impl Rooms {
    /// Whether there is a place for one more like this.
    pub fn has_place(&self, key: &Key) -> bool {
        let room = Room::of(key);
        self.0.get(&room).copied().unwrap_or(0) < room.size()
    }

    /// It takes its place.
    pub fn enter(&mut self, key: &Key) {
        *self.0.entry(Room::of(key)).or_default() += 1;
    }

    /// Its place is free again.
    pub fn leave(&mut self, key: &Key) {
        let room = Room::of(key);
        if let Some(taken) = self.0.get_mut(&room) {
            *taken -= 1;
            if *taken == 0 {
                self.0.remove(&room);
            }
        }
    }

    /// All places that are taken.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.0.values().sum()
    }
}
