//! The response-policy zones for other name servers: transfers (AXFR, RFC 5936; IXFR, RFC 1995), signed (TSIG, RFC 8945),
//! and word to them when a zone changes (NOTIFY, RFC 1996).
//!
//! It has sockets of its own, apart from those that agents ask. A question goes through `request` (read), `answer` (who
//! asks, and what may they have), `stream` (messages), `tsig` (signatures); `serve` has the sockets and the limits,
//! `notify` tells, `peer` remembers what each secondary has.

mod answer;
mod notify;
mod peer;
mod request;
mod serve;
mod stream;
mod tsig;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use tokio::sync::Semaphore;

pub use peer::{Report, Trouble, ZoneReport};
pub use serve::{Bound, bind};
pub use tsig::{Algorithm, Key};

use crate::plan::rpz::{EVERYBODY, Edition};
use peer::Peer;

/// A name server that follows the zones.
#[derive(Clone, Debug)]
pub struct Secondary {
    /// The address it asks from, and the port at which it is told of changes.
    pub address: SocketAddr,
    /// The key that signs; `None`: the address suffices.
    pub key: Option<Key>,
    /// The views whose zones it may have, by the names of [`Edition::view`]; `None`: all.
    pub views: Option<Vec<String>>,
}

/// What others may take of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transfers to one secondary at once; further ones wait.
    pub transfers: usize,
    /// Connections of one source address.
    pub connections: usize,
    /// Connections of all sources together that are no secondaries.
    pub strangers: usize,
    /// How long a connection may be silent between two questions.
    pub idle: Duration,
    /// How long a reader may take for one message.
    pub stall: Duration,
    /// How long a transfer may take as a whole, waiting for its turn included.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 4,
            connections: 64,
            strangers: 8,
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            // A million names are some 30 megabytes: enough for a line of half a megabit a second.
            whole: Duration::from_secs(600),
        }
    }
}

/// What to serve, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where questions are taken, by UDP and TCP. Single addresses: changes are told from them.
    pub listen: Vec<SocketAddr>,
    /// Who may have the zones.
    pub secondaries: Vec<Secondary>,
    /// What they may take.
    pub limits: Limits,
}

/// Why the zones cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The address cannot be had.
    #[error("cannot listen on {address} ({protocol}) for other name servers: {source}; see rpz.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The zones by their names in wire form.
type Shelf = HashMap<Vec<u8>, Arc<Edition>>;

/// The zones as they are served now, and the servers that follow them.
pub struct Transfers {
    shelf: ArcSwapOption<Shelf>,
    /// The sources of hosts: whoever asks from there is an agent, whatever it can sign.
    agents: ArcSwap<Vec<IpNet>>,
    peers: Vec<Arc<Peer>>,
    limits: Limits,
    strangers: Arc<Semaphore>,
    refusals: Refusals,
}

impl Transfers {
    fn new(secondaries: Vec<Secondary>, limits: Limits) -> Self {
        let peers = secondaries.into_iter().map(|secondary| Arc::new(Peer::new(secondary, limits.transfers)));
        Self {
            shelf: ArcSwapOption::empty(),
            agents: ArcSwap::default(),
            peers: peers.collect(),
            limits,
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            refusals: Refusals::default(),
        }
    }

    /// From now on nobody with an address in these networks gets a zone.
    /// Who does not have one any more is told of what changed meanwhile.
    pub fn refuse(&self, agents: Vec<IpNet>) {
        let before = self.agents.swap(Arc::new(agents));
        let was_agent = |peer: &&Arc<Peer>| before.iter().any(|net| net.contains(&peer.address.ip()));
        for peer in self.peers.iter().filter(was_agent).filter(|peer| !self.is_agent(peer.address.ip())) {
            peer.wake.notify_one();
        }
    }

    /// Serves these zones from now on, and tells whom they concern. A transfer that is on its way goes on with the zone that
    /// it began with.
    pub fn publish(&self, editions: &[Arc<Edition>]) {
        let named =
            editions.iter().filter_map(|edition| Some((request::wire_name(&edition.name)?, Arc::clone(edition))));
        self.shelf.store(Some(Arc::new(named.collect())));
        for peer in &self.peers {
            peer.expect(editions.iter().filter(|edition| peer.may_have(&edition.view)));
        }
    }

    /// How each secondary is doing.
    pub fn report(&self) -> Vec<Report> {
        self.peers.iter().map(|peer| peer.report(self.is_agent(peer.address.ip()))).collect()
    }

    fn is_agent(&self, source: IpAddr) -> bool {
        self.agents.load().iter().any(|net| net.contains(&source))
    }

    fn is_known(&self, source: IpAddr) -> bool {
        self.peers.iter().any(|peer| peer.address.ip() == source)
    }
}

/// Tells of refusals in the log, so that a flood of questions is no flood of lines.
#[derive(Default)]
struct Refusals {
    last: Mutex<Option<Instant>>,
    untold: AtomicU64,
}

impl Refusals {
    /// The shortest time between two lines.
    const PAUSE: Duration = Duration::from_secs(1);

    fn tell(&self, source: IpAddr, what: &str, why: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < Self::PAUSE) {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *last = Some(Instant::now());
        match self.untold.swap(0, Ordering::Relaxed) {
            0 => tracing::warn!("{what} was refused to {source}: {why}"),
            more => tracing::warn!("{what} was refused to {source}: {why} ({more} refusals before it are not told)"),
        }
    }
}

/// Whether a secondary with these views may have the zone of `view`; the last zone is everybody's.
fn is_among(views: Option<&[String]>, view: &str) -> bool {
    views.is_none_or(|views| view == EVERYBODY || views.iter().any(|own| own == view))
}

/// Seconds since 1970.
fn seconds() -> u64 {
    chrono::Utc::now().timestamp().try_into().unwrap_or(0)
}
