//! Exfil caps while the policy changes around them: another time zone.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use clawgress::core::caps::{Caps, Reading};
use clawgress::plan::meter::CapId;
use clawgress::policy::model::Policy;
use clawgress::policy::parse;
use clawgress::policy::schedule::Moment;
use serde_json::json;

const BYTES: u64 = 10_000_000;

fn policy(zone: &str) -> Policy {
    let policy = json!({ "version": 1, "time_zone": zone, "hosts": {
        "a": { "sources": ["10.0.0.1/32"], "allow": { "domains": ["x.test-site.com"] },
               "exfil": { "domains": { "x.test-site.com": { "bytes": BYTES, "period": "day" } } } } } });
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
        self.caps = self.caps.follow(policy, moment).0;
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

/// A day begins at midnight of the policy's zone, also of a zone that the policy has only since today.
#[test]
fn a_day_cap_turns_at_midnight_of_the_new_zone() {
    let mut run = Run::new(&policy("UTC"), &at(Tz::UTC, "2026-11-20T12:00:00Z"));
    run.send(1000);
    let zone = Tz::Asia__Tokyo;
    run.follow(&policy("Asia/Tokyo"), &at(zone, "2026-11-20T13:00:00Z"));
    assert_eq!(run.used(), 1000);
    let midnight = at(zone, "2026-11-20T15:00:00Z").utc;
    assert_eq!(run.caps.next_turn(), Some(midnight), "midnight in Tokyo");
    run.turn(&at(zone, "2026-11-20T15:00:00Z"));
    run.send(BYTES);
    // Midnight in UTC is nothing here.
    run.turn(&at(zone, "2026-11-21T00:00:00Z"));
    assert!(run.used() >= BYTES, "the cap got through twice in one day");
}
