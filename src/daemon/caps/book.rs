//! The ledger as the caps see it: what it says at the start, and what is written before it is granted.

use std::path::Path;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tracing::{error, warn};

use super::{reading, state};
use crate::core::caps::{CapRecord, Caps, Reading};
use crate::nft::Held;
use crate::plan::meter::CapId;
use crate::plan::table::names;
use crate::policy::model::HostName;
use crate::policy::name::Pattern;
use crate::store::ledger::{Entry, Ledger};

/// The disk's side: the ledger, or why there is none.
pub struct Book {
    ledger: Option<Ledger>,
    /// What was wrong with it at the start.
    trouble: Option<String>,
    /// The last write failed; said once.
    pub(super) failing: Option<String>,
    /// The file is no good and is kept aside with the next write.
    damaged: bool,
}

impl Book {
    /// Opens the ledger and takes over what it and the kernel say.
    pub fn open(state_dir: &Path, held: Option<&Held>, zone: Tz, now: DateTime<Utc>) -> (Self, Caps) {
        let objects = held.map(|held| &held.objects);
        let highest = objects.into_iter().flatten().filter_map(|(name, _)| names::read_cap(name)).map(|id| id.0).max();
        let above = highest.map_or(1, |id| id.saturating_add(1));
        let (ledger, loaded) = match Ledger::open(state_dir) {
            Ok(opened) => opened,
            Err(error) => {
                let trouble = closed(&error.to_string());
                error!("{trouble}");
                let book = Self { ledger: None, trouble: Some(trouble), failing: None, damaged: false };
                return (book, Caps::new(above).lost(now));
            }
        };
        let caps = Caps::new(loaded.next.max(above));
        let records: Option<Vec<CapRecord>> = loaded.entries.iter().map(record).collect();
        let trouble = match (&loaded.damage, &records) {
            (Some(damage), _) => Some(damage.clone()),
            (None, None) => Some("the ledger names a domain that no policy can name".into()),
            // The kernel counts for caps that the disk knows nothing of.
            (None, _) if loaded.fresh && highest.is_some() => Some("the ledger of exfil caps is gone".into()),
            _ => None,
        };
        if let Some(trouble) = &trouble {
            error!("{}", closed(trouble));
        }
        let damaged = loaded.damage.is_some() || records.is_none();
        let book = Self { ledger: Some(ledger), trouble: trouble.as_deref().map(closed), failing: None, damaged };
        let caps = match (trouble, records) {
            (None, Some(records)) => caps.resume(records, zone, |id| Some((state(held?, id)?, reading(held?, id)?))),
            _ => caps.lost(now),
        };
        (book, caps)
    }

    /// What is wrong now, for whoever asks.
    pub fn told(&self, caps: &Caps) -> Option<String> {
        let closed = self.trouble.clone().filter(|_| self.ledger.is_none() || caps.is_loss_felt());
        self.failing.clone().or(closed)
    }

    /// Writes; when it returns the records are on the disk.
    ///
    /// # Errors
    /// One sentence; nothing may be granted on the strength of these records.
    pub(super) fn write(&mut self, records: &[CapRecord], all: impl FnOnce() -> Vec<CapRecord>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let Some(ledger) = &mut self.ledger else {
            return Err(self.trouble.clone().unwrap_or_else(|| "there is no ledger of exfil caps".into()));
        };
        let entries = |records: &[CapRecord]| records.iter().map(entry).collect::<Vec<_>>();
        let written = if self.damaged {
            ledger.set_aside(Utc::now().timestamp(), &entries(records)).map(|kept| {
                self.damaged = false;
                warn!("the ledger that was no good is kept as {}", kept.display());
            })
        } else {
            ledger.append(&entries(records))
        };
        self.failing = written.as_ref().err().map(|error| format!("exfil caps cannot be granted further: {error}"));
        written.map_err(|error| error.to_string())?;
        if ledger.should_compact()
            && let Err(error) = ledger.compact(&entries(&all()))
        {
            warn!("the ledger of exfil caps could not be made smaller: {error}");
        }
        Ok(())
    }
}

fn closed(why: &str) -> String {
    format!("{why}; what was used is not known, so exfil caps are closed until their periods turn")
}

fn record(entry: &Entry) -> Option<CapRecord> {
    let pattern = Pattern::from_record(&entry.domain)?;
    Some(CapRecord {
        id: CapId(entry.number),
        host: HostName::from_record(&entry.host),
        pattern,
        period: entry.period,
        start: entry.start,
        granted: entry.granted,
        carried: entry.carried,
        base: Reading { passed: entry.passed, merged4: entry.merged4, merged6: entry.merged6, ..Reading::default() },
    })
}

fn entry(record: &CapRecord) -> Entry {
    Entry {
        number: record.id.0,
        host: record.host.as_str().to_owned(),
        domain: record.pattern.to_string(),
        period: record.period,
        start: record.start,
        granted: record.granted,
        carried: record.carried,
        passed: record.base.passed,
        merged4: record.base.merged4,
        merged6: record.base.merged6,
    }
}
