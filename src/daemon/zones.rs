//! The zones for other name servers, kept as the policy and the clock say.

mod told;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::handle::Handle;
use super::protocol::{Check, FollowedZone, Follower};
use super::status::check;
use super::timeline::Timer;
use crate::dns::transfer::{self, Algorithm, Bound, Key, Report, Secondary, Transfers};
use crate::plan::rpz::{Edition, next_serial, served};
use crate::policy::Policy;
use crate::policy::schedule::Moment;
use crate::settings::{Hash, Settings, TransferKey};
use crate::store::{self, Serials, ToldZone};
use told::{Told, Unwritten};

/// The longest file with a secret that is read, bytes.
const MAX_SECRET: u64 = 4096;
/// After a failure of the timer.
const AGAIN: Duration = Duration::from_millis(500);
/// After serials could not be written down.
const WRITE_AGAIN: Duration = Duration::from_secs(30);

/// The zones as others see them.
pub struct Outlet {
    transfers: Arc<Transfers>,
    listen: Vec<SocketAddr>,
    /// Why serials may not outlive the daemon.
    trouble: Mutex<Option<String>>,
}

/// Takes the sockets and reads the keys; `None`: the settings name nobody who may have the zones.
///
/// # Errors
/// A port is taken, a key cannot be read or is no good.
pub fn open(settings: &Settings) -> anyhow::Result<Option<(Bound, Arc<Outlet>)>> {
    let rpz = &settings.rpz;
    if rpz.secondaries.is_empty() {
        return Ok(None);
    }
    let secondaries = rpz.secondaries.iter().map(|secondary| {
        let key = secondary.key.as_ref().map(key).transpose()?;
        Ok(Secondary { address: secondary.address, key, views: secondary.hosts.clone() })
    });
    let secondaries = secondaries.collect::<anyhow::Result<_>>()?;
    let listen = rpz.listen.clone();
    let bound = transfer::bind(transfer::Settings { listen, secondaries, limits: transfer::Limits::default() })?;
    let outlet = Outlet { transfers: bound.transfers(), listen: bound.addresses(), trouble: Mutex::default() };
    Ok(Some((bound, Arc::new(outlet))))
}

fn key(key: &TransferKey) -> anyhow::Result<Key> {
    let TransferKey { name, algorithm, secret_file: path } = key;
    let mut text = String::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| {
        if file.metadata()?.mode() & 0o077 != 0 {
            warn!("others than root can read the secret of the key {name} in {}: chmod 600 it", path.display());
        }
        file.take(MAX_SECRET).read_to_string(&mut text)
    });
    read.map_err(|error| anyhow::anyhow!(store::words(&error)))
        .with_context(|| format!("rpz.secondary: cannot read the secret of the key {name} in {}", path.display()))?;
    let algorithm = match algorithm {
        Hash::Sha256 => Algorithm::Sha256,
        Hash::Sha384 => Algorithm::Sha384,
        Hash::Sha512 => Algorithm::Sha512,
    };
    Key::new(name, algorithm, &text).map_err(|why| anyhow::anyhow!("rpz.secondary: the key {name} {why}"))
}

/// Follows the policy and its windows. `changed`: another policy came into force.
pub async fn keep(
    outlet: Arc<Outlet>,
    gate: Handle,
    changed: watch::Receiver<()>,
    settings: Settings,
    stopped: impl Future<Output = ()>,
) {
    let told = Told::new(settings.state_dir, settings.runtime_dir, store::boot_id());
    match Timer::start() {
        Ok(timer) => tokio::select! {
            () = work(outlet, gate, changed, told, timer) => {}
            () = stopped => {}
        },
        Err(error) => error!("no timer for time windows, so no zone is served to other name servers: {error}"),
    }
}

async fn work(outlet: Arc<Outlet>, gate: Handle, mut changed: watch::Receiver<()>, told: Told, mut timer: Timer) {
    let mut press = Press::new(Arc::clone(&outlet), told);
    loop {
        let Ok(policy) = gate.run(|gate| gate.policy.clone()).await else { return };
        // After a teardown the last zones stay: nobody said that the others shall open as well.
        let edge = match policy {
            None => None,
            Some(policy) => {
                let sources = policy.hosts.values().flat_map(|host| host.sources.entries.iter().copied());
                outlet.transfers.refuse(sources.collect());
                let moment = Moment::of(&policy, Utc::now(), store::system_zone());
                let edge = moment.next_change(&policy);
                // A million names take a second of a processor, which answers must not wait for.
                let print = move || {
                    press.print(&policy, &moment);
                    press
                };
                match tokio::task::spawn_blocking(print).await {
                    Ok(back) => press = back,
                    Err(_) => {
                        error!("a fault in clawgress, please report it: zones are not made any more");
                        return;
                    }
                }
                edge
            }
        };
        if let Err(error) = timer.set(edge) {
            warn!("the timer of the zones cannot be set: {error}");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        tokio::select! {
            _ = timer.events.recv() => {}
            told = changed.changed() => if told.is_err() { return },
            () = tokio::time::sleep(WRITE_AGAIN), if outlet.trouble().is_some() => {}
        }
    }
}

/// Makes editions, and remembers their serials.
pub(super) struct Press {
    outlet: Arc<Outlet>,
    told: Told,
    editions: BTreeMap<String, Arc<Edition>>,
    serials: Serials,
}

impl Press {
    fn new(outlet: Arc<Outlet>, told: Told) -> Self {
        let serials = told.read();
        Self { outlet, told, editions: BTreeMap::new(), serials }
    }

    /// The zones at an instant. First their serials are written down, then others hear of them; where they can be
    /// written nowhere, others hear nothing: a start might give another zone an older serial, and nobody would take it.
    fn print(&mut self, policy: &Policy, moment: &Moment) {
        let seconds = moment.utc.timestamp().try_into().unwrap_or(0);
        let (fresh, serials) = next(&self.editions, &self.serials, served(policy, moment), seconds);
        let changed = fresh
            .iter()
            .filter(|(name, edition)| self.editions.get(*name).is_none_or(|old| old.serial != edition.serial));
        let changed = changed.count();
        let same = changed == 0 && fresh.len() == self.editions.len();
        let before = self.outlet.trouble();
        if same && before.is_none() {
            return;
        }
        let written = if serials == self.serials && before.is_none() { Ok(()) } else { self.told.write(&serials) };
        let trouble = match &written {
            Ok(()) => None,
            Err(Unwritten::OnDisk(why) | Unwritten::Anywhere(why)) => Some(why.clone()),
        };
        if let Some(why) = trouble.as_ref().filter(|_| trouble != before) {
            error!("{why}");
        }
        *self.outlet.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        if matches!(written, Err(Unwritten::Anywhere(_))) {
            return;
        }
        (self.editions, self.serials) = (fresh, serials);
        if same {
            return;
        }
        let editions: Vec<_> = self.editions.values().cloned().collect();
        self.outlet.transfers.publish(&editions);
        info!("{changed} of {} zones changed for other name servers", editions.len());
    }
}

/// The editions of these zones, and what is to be remembered. A zone that is as it was keeps its serial.
fn next(
    before: &BTreeMap<String, Arc<Edition>>,
    serials: &Serials,
    served: Vec<crate::plan::rpz::Served>,
    seconds: u64,
) -> (BTreeMap<String, Arc<Edition>>, Serials) {
    let serial = next_serial(serials.last, seconds);
    let mut out = BTreeMap::new();
    let mut told = Serials { zones: BTreeMap::new(), ..serials.clone() };
    for zone in served {
        let name = zone.name.clone();
        let (edition, entry) = match (before.get(&name), serials.zones.get(&name)) {
            (Some(old), Some(entry)) if *old.image == zone.image && old.view == zone.view => {
                (Arc::clone(old), entry.clone())
            }
            (old, entry) => {
                let sha256 = zone.image.digest();
                let same = entry.filter(|entry| old.is_none() && entry.sha256 == sha256);
                let serial = same.map_or(serial, |entry| entry.serial);
                if same.is_none() {
                    told.last = Some(serial);
                }
                let edition = match old {
                    Some(old) if old.view == zone.view => old.follow(zone.image, serial),
                    _ => Edition::first(zone, serial),
                };
                (Arc::new(edition), ToldZone { serial, sha256 })
            }
        };
        told.zones.insert(name.clone(), entry);
        out.insert(name, edition);
    }
    (out, told)
}

impl Outlet {
    /// The secondaries, for `status --json`.
    pub fn followers(&self) -> Vec<Follower> {
        self.transfers.report().into_iter().map(follower).collect()
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The checks of `status`.
    pub fn checks(&self) -> Vec<Check> {
        let listen: Vec<String> = self.listen.iter().map(SocketAddr::to_string).collect();
        let own = match self.trouble() {
            Some(why) => check("rpz", false, why),
            None => check("rpz", true, format!("zones are served on {}", listen.join(", "))),
        };
        [own].into_iter().chain(self.transfers.report().iter().map(told)).collect()
    }
}

fn told(report: &Report) -> Check {
    let who = report.address.ip();
    if report.is_agent {
        let why = "the policy has its address among the sources of a host, so it gets no zone";
        return check("rpz", false, format!("secondary {who}: {why}"));
    }
    let current = report.zones.iter().filter(|zone| zone.confirmed == Some(zone.serial)).count();
    let newest = report.zones.iter().filter_map(|zone| zone.confirmed).max();
    let newest = newest.map(|serial| format!(", newest serial {serial}")).unwrap_or_default();
    let trouble = report
        .trouble
        .as_ref()
        .map(|trouble| format!("; last trouble at {}: {}", trouble.at.format("%Y-%m-%d %H:%M:%S UTC"), trouble.what));
    let (count, trouble) = (report.zones.len(), trouble.unwrap_or_default());
    let late = if report.late { " for too long" } else { "" };
    check(
        "rpz",
        !report.late,
        format!("secondary {who}: has {current} of {count} zones as they are{late}{newest}{trouble}"),
    )
}

fn follower(report: Report) -> Follower {
    let zones = report.zones.into_iter().map(|zone| FollowedZone {
        zone: zone.zone,
        serial: zone.serial,
        notified: zone.notified,
        confirmed: zone.confirmed,
    });
    Follower {
        address: report.address.to_string(),
        signed: report.signed,
        ok: !report.late && !report.is_agent,
        zones: zones.collect(),
        last_error: report.trouble.as_ref().map(|trouble| trouble.what.clone()),
        last_error_at: report.trouble.as_ref().map(|trouble| trouble.at),
    }
}

#[cfg(test)]
mod tests;
