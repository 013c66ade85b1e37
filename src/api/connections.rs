//! How many may be connected.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Of one source; a slow client from there leaves places for others.
const MAX_PER_SOURCE: usize = 96;

/// The connections that are open.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open connection; free again when dropped.
pub(super) struct Place {
    connections: Connections,
    source: IpAddr,
}

impl Connections {
    /// A place for one more; `None`: there are enough.
    pub fn admit(&self, source: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&source).copied().unwrap_or(0);
        if own >= MAX_PER_SOURCE || open.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        open.insert(source, own + 1);
        Some(Place { connections: self.clone(), source })
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_and_given_back() {
        let connections = Connections::default();
        let source = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut held: Vec<Place> = (0..MAX_PER_SOURCE).map(|_| connections.admit(source(1)).unwrap()).collect();
        assert!(connections.admit(source(1)).is_none());
        held.extend((0..MAX_PER_SOURCE).map(|_| connections.admit(source(2)).unwrap()));
        while let Some(place) = connections.admit(source(3)) {
            held.push(place);
        }
        assert_eq!(held.len(), MAX_CONNECTIONS);
        assert!(connections.admit(source(4)).is_none());
        held.pop();
        assert!(connections.admit(source(4)).is_some());
        drop(held);
        assert!(connections.is_empty());
    }
}
