//! What is known of one secondary: which zones it follows, what it was told and what it has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, Semaphore};

use super::tsig::Key;
use super::{Secondary, is_among};
use crate::plan::rpz::{Edition, serial_is_newer};

/// A secondary that is behind for longer than this is a fault: it asks every minute even if no NOTIFY reaches it.
const LATE: TimeDelta = TimeDelta::minutes(5);

/// The shortest time between two lines about one secondary.
const PAUSE: Duration = Duration::from_secs(1);

/// One secondary.
pub(super) struct Peer {
    pub address: SocketAddr,
    pub key: Option<Key>,
    views: Option<Vec<String>>,
    /// Places for transfers.
    pub slots: Arc<Semaphore>,
    /// Told when there is something to tell.
    pub wake: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    zones: BTreeMap<String, Progress>,
    trouble: Option<Trouble>,
    /// When the log was told of trouble last.
    warned: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Progress {
    /// What we serve, and since when.
    serial: u32,
    since: DateTime<Utc>,
    /// The serial of the last NOTIFY that it answered.
    told: Option<u32>,
    /// What it has, by its own word or because it took it.
    has: Option<u32>,
}

/// What went wrong with a secondary last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: DateTime<Utc>,
    /// What, one sentence.
    pub what: String,
}

/// How a secondary is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its address, and the port at which it is told of changes.
    pub address: SocketAddr,
    /// Whether it must sign.
    pub signed: bool,
    /// The zones that it may have, by name.
    pub zones: Vec<ZoneReport>,
    /// What went wrong last.
    pub trouble: Option<Trouble>,
    /// The policy has it among the sources of a host, so it gets nothing.
    pub is_agent: bool,
    /// It does not have what we serve, and had time enough.
    pub late: bool,
}

/// One zone of a secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneReport {
    /// The zone's name with the trailing dot.
    pub zone: String,
    /// The serial that is served.
    pub serial: u32,
    /// The serial of the last NOTIFY that it answered; `None`: of none in this run.
    pub notified: Option<u32>,
    /// The serial that it has, by its own word or because it took the zone; `None`: not known in this run.
    pub confirmed: Option<u32>,
}

impl Peer {
    pub fn new(Secondary { address, key, views }: Secondary, slots: usize) -> Self {
        let slots = Arc::new(Semaphore::new(slots));
        Self { address, key, views, slots, wake: Notify::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn may_have(&self, view: &str) -> bool {
        is_among(self.views.as_deref(), view)
    }

    /// These are the zones now.
    pub fn expect<'e>(&self, editions: impl Iterator<Item = &'e Arc<Edition>>) {
        let mut state = self.state();
        let before = std::mem::take(&mut state.zones);
        for edition in editions {
            let fresh = Progress { serial: edition.serial, since: Utc::now(), told: None, has: None };
            let progress = match before.get(&edition.name) {
                Some(old) if old.serial == edition.serial => *old,
                Some(old) => Progress { told: old.told, has: old.has, ..fresh },
                None => fresh,
            };
            state.zones.insert(edition.name.clone(), progress);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The zones that it does not know to have changed, by name, with their serials.
    pub fn untold(&self) -> Vec<(String, u32)> {
        let state = self.state();
        let untold = state
            .zones
            .iter()
            .filter(|(_, progress)| progress.told != Some(progress.serial) && progress.has != Some(progress.serial));
        untold.map(|(zone, progress)| (zone.clone(), progress.serial)).collect()
    }

    /// It answered our NOTIFY.
    pub fn told(&self, zone: &str, serial: u32) {
        if let Some(progress) = self.state().zones.get_mut(zone) {
            progress.told = Some(serial);
        }
    }

    /// It has a zone. A transfer that began earlier may end later: what is newer stays.
    pub fn has(&self, zone: &str, serial: u32) {
        if let Some(progress) = self.state().zones.get_mut(zone)
            && progress.has.is_none_or(|old| serial_is_newer(serial, old))
        {
            progress.has = Some(serial);
        }
    }

    /// Something went wrong; told in the log where it is news.
    pub fn trouble(&self, what: String) {
        let mut state = self.state();
        // Anybody may send datagrams with its address.
        let pause = state.warned.is_some_and(|last| last.elapsed() < PAUSE);
        if !pause && state.trouble.as_ref().is_none_or(|old| old.what != what) {
            tracing::warn!("secondary {}: {what}", self.address);
            state.warned = Some(Instant::now());
        }
        state.trouble = Some(Trouble { at: Utc::now(), what });
    }

    pub fn report(&self, is_agent: bool) -> Report {
        let state = self.state();
        let now = Utc::now();
        let behind = |progress: &Progress| progress.has != Some(progress.serial) && now - progress.since > LATE;
        let late = state.zones.values().any(behind);
        let zones = state.zones.iter().map(|(zone, progress)| ZoneReport {
            zone: zone.clone(),
            serial: progress.serial,
            notified: progress.told,
            confirmed: progress.has,
        });
        Report {
            address: self.address,
            signed: self.key.is_some(),
            zones: zones.collect(),
            trouble: state.trouble.clone(),
            is_agent,
            late,
        }
    }
}
