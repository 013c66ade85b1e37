//! Exfil caps while the policy changes around them: another period and back.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use clawgress::core::caps::{Caps, Reading};
use clawgress::plan::meter::CapId;
use clawgress::policy::model::Policy;
use clawgress::policy::parse;
use clawgress::policy::schedule::Moment;
use serde_json::json;

const BYTES: u64 = 10_000_000;

fn policy(zone: &str, period: Option<&str>) -> Policy {
    let mut policy = json!({ "version": 1, "time_zone": zone, "hosts": {
        "a": { "sources": ["10.0.0.1/32"], "allow": { "domains": ["x.test-site.com"] } } } });
    if let Some(period) = period {
        policy["hosts"]["a"]["exfil"] =
            json!({ "domains": { "x.test-site.com": { "bytes": BYTES, "period": period } } });
    }
    parse(&policy.to_string()).expect("a legal policy")
}

fn at(zone: Tz, text: &str) -> Moment {
    Moment { utc: text.parse::<DateTime<Utc>>().expect("a time"), zone }
}

/// Caps, and what the kernel counted for the one there is.
struct Run {
    caps: Caps,
    passed: u64,
    /// When it was looked at last.
    now: DateTime<Utc>,
}

impl Run {
    fn new(policy: &Policy, moment: &Moment) -> Self {
        let mut run = Self { caps: Caps::new(1), passed: 0, now: moment.utc };
        run.follow(policy, moment);
        run
    }

    fn id(&self) -> CapId {
        self.caps.ids()[0]
    }

    fn read(&mut self) {
        if let Some(id) = self.caps.ids().first() {
            self.caps.read([(*id, Reading { passed: self.passed, ..Reading::default() })], self.now);
        }
    }

    fn follow(&mut self, policy: &Policy, moment: &Moment) {
        self.now = moment.utc;
        self.read();
        let before = self.caps.ids();
        self.caps = self.caps.follow(policy, moment).0;
        // Other objects in the kernel count from the beginning.
        if self.caps.ids() != before {
            self.passed = 0;
        }
    }

    fn send(&mut self, octets: u64) {
        self.passed += octets;
        self.read();
    }

    fn turn(&mut self, moment: &Moment) {
        self.now = moment.utc;
        self.read();
        let due = self.caps.due(moment.utc);
        let _ = self.caps.turn(&due, moment);
    }

    fn used(&self) -> u64 {
        self.caps.get(self.id()).expect("it is in force").used()
    }
}

/// What was used in a day is used in that day, whatever the cap was called for some hours in between: a mistake that is
/// rolled back, a trial that nobody confirms.
#[test]
fn a_day_cap_survives_a_while_as_an_hour_cap() {
    let day = policy("UTC", Some("day"));
    let mut run = Run::new(&day, &at(Tz::UTC, "2026-11-20T09:00:00Z"));
    run.send(BYTES);
    run.follow(&policy("UTC", Some("hour")), &at(Tz::UTC, "2026-11-20T10:20:00Z"));
    assert!(run.used() >= BYTES, "the hour begins with what was used");
    run.turn(&at(Tz::UTC, "2026-11-20T11:00:00Z"));
    run.send(1000);
    run.follow(&day, &at(Tz::UTC, "2026-11-20T11:05:00Z"));
    assert!(run.used() >= BYTES + 1000, "{} of the day are left of its use", run.used());
    run.turn(&at(Tz::UTC, "2026-11-21T00:00:00Z"));
    assert_eq!(run.used(), 0, "and the next day begins anew");
}

/// The same where the cap was taken away between the two.
#[test]
fn a_day_cap_survives_being_removed_and_an_hour_cap() {
    let day = policy("UTC", Some("day"));
    let mut run = Run::new(&day, &at(Tz::UTC, "2026-11-20T09:00:00Z"));
    run.send(BYTES);
    run.follow(&policy("UTC", None), &at(Tz::UTC, "2026-11-20T10:10:00Z"));
    run.follow(&policy("UTC", Some("hour")), &at(Tz::UTC, "2026-11-20T10:20:00Z"));
    run.turn(&at(Tz::UTC, "2026-11-20T11:00:00Z"));
    run.follow(&policy("UTC", None), &at(Tz::UTC, "2026-11-20T11:05:00Z"));
    run.follow(&day, &at(Tz::UTC, "2026-11-20T11:10:00Z"));
    assert!(run.used() >= BYTES, "{} of the day are left of its use", run.used());
}
