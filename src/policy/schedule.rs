//! When a window is open, and when that changes next.
//!
//! A window is about the wall clock of its zone: it is open at an instant if a clock on the wall there shows a time
//! inside it. So where a clock change repeats an hour, a window inside that hour opens twice, and where it skips an
//! hour, a window inside that hour does not open on that day.

use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::model::{Day, Located, Policy, Window};

/// How far ahead the next change can be: a window of one weekday may be skipped once by a clock change.
const HORIZON_DAYS: u64 = 16;

/// An instant, with the zone in which the windows of a policy are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub utc: DateTime<Utc>,
    /// The zone.
    pub zone: Tz,
}

impl Moment {
    /// `utc` for a policy, where the machine's own zone is `system`.
    pub fn of(policy: &Policy, utc: DateTime<Utc>, system: Tz) -> Self {
        Self { utc, zone: policy.time_zone.as_ref().map_or(system, |zone| zone.value) }
    }

    /// Whether a window is open; where there is none, everything is.
    pub fn opens(&self, window: Option<&Located<Window>>) -> bool {
        window.is_none_or(|window| window.value.is_open(self.zone, self.utc))
    }

    /// The next instant at which any window of the policy opens or closes. `None`: none ever does.
    pub fn next_change(&self, policy: &Policy) -> Option<DateTime<Utc>> {
        let hosts =
            policy.hosts.values().flat_map(|host| host.time_window.iter().chain(host.domain_time_windows.values()));
        let all = policy.time_window.iter().chain(policy.domain_time_windows.values()).chain(hosts);
        all.filter_map(|window| window.value.next_change(self.zone, self.utc)).min()
    }
}

impl Window {
    /// Whether the window is open.
    pub fn is_open(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&zone).naive_local();
        let Some((start, end)) = self.hours else { return self.has_day(local.date()) };
        let time = local.time();
        if start < end {
            return self.has_day(local.date()) && start <= time && time < end;
        }
        // Across midnight: the evening belongs to today's window, the morning to yesterday's.
        let yesterday = local.date().pred_opt();
        (self.has_day(local.date()) && start <= time) || (time < end && yesterday.is_some_and(|day| self.has_day(day)))
    }

    /// The first instant after `at` at which the window opens or closes. `None`: it never does.
    pub fn next_change(&self, zone: Tz, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let open = self.is_open(zone, at);
        let mut instants = self.candidates(zone, at);
        instants.sort_unstable();
        instants.into_iter().find(|instant| *instant > at && self.is_open(zone, *instant) != open)
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        u8::try_from(date.weekday().num_days_from_monday()).is_ok_and(|day| self.days.contains(&Day(day)))
    }

    /// Every instant at which something could change: the times of the window and midnight on each day, in each of
    /// their readings, and the clock changes between.
    fn candidates(&self, zone: Tz, at: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let today = at.with_timezone(&zone).date_naive();
        let times = [Some(NaiveTime::MIN), self.hours.map(|(start, _)| start), self.hours.map(|(_, end)| end)];
        let mut instants = Vec::new();
        for ahead in 0..=HORIZON_DAYS {
            let Some(date) = today.checked_add_days(Days::new(ahead)) else { break };
            for time in times.into_iter().flatten() {
                match zone.from_local_datetime(&date.and_time(time)) {
                    LocalResult::Single(instant) => instants.push(instant.to_utc()),
                    LocalResult::Ambiguous(first, second) => instants.extend([first.to_utc(), second.to_utc()]),
                    LocalResult::None => {}
                }
            }
            instants.extend(clock_change(zone, date));
        }
        instants
    }
}

/// The instant within the day (or close to it) at which the zone's distance from UTC changes.
fn clock_change(zone: Tz, date: NaiveDate) -> Option<DateTime<Utc>> {
    let midnight = NaiveDateTime::from(date).and_utc();
    let (mut before, mut after) = (midnight - TimeDelta::hours(15), midnight + TimeDelta::hours(39));
    let offset = |instant: DateTime<Utc>| {
        let local = instant.with_timezone(&zone).naive_local();
        local - instant.naive_utc()
    };
    if offset(before) == offset(after) {
        return None;
    }
    while after - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
        if offset(middle) == offset(before) { before = middle } else { after = middle }
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn window(days: &[u8], hours: Option<(&str, &str)>) -> Window {
        let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M:%S").unwrap();
        Window {
            days: days.iter().map(|day| Day(*day)).collect(),
            hours: hours.map(|(start, end)| (time(start), time(end))),
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const BERLIN: Tz = chrono_tz::Europe::Berlin;

    #[test]
    fn a_window_is_open_from_its_start_to_just_before_its_end() {
        let office = window(&[0, 1, 2, 3, 4], Some(("09:00:00", "17:00:00")));
        // 2026-11-20 is a Friday; Berlin is one hour ahead.
        for (instant, open) in [
            ("2026-11-20T07:59:59Z", false),
            ("2026-11-20T08:00:00Z", true),
            ("2026-11-20T15:59:59Z", true),
            ("2026-11-20T16:00:00Z", false),
            ("2026-11-21T10:00:00Z", false),
        ] {
            assert_eq!(office.is_open(BERLIN, at(instant)), open, "{instant}");
        }
        assert_eq!(office.next_change(BERLIN, at("2026-11-20T16:00:00Z")), Some(at("2026-11-23T08:00:00Z")));
    }

    #[test]
    fn across_midnight_it_belongs_to_the_day_it_starts_on() {
        let night = window(&[4], Some(("22:00:00", "06:00:00")));
        for (instant, open) in [
            ("2026-11-20T20:59:59Z", false),
            ("2026-11-20T21:00:00Z", true),
            ("2026-11-21T04:59:59Z", true),
            ("2026-11-21T05:00:00Z", false),
            ("2026-11-20T04:00:00Z", false),
        ] {
            assert_eq!(night.is_open(BERLIN, at(instant)), open, "{instant}");
        }
    }

    #[test]
    fn a_skipped_hour_opens_nothing_and_a_repeated_one_opens_twice() {
        let early = window(&[6], Some(("02:15:00", "02:45:00")));
        // 2026-03-29, 02:00 becomes 03:00.
        assert_eq!(early.next_change(BERLIN, at("2026-03-28T12:00:00Z")), Some(at("2026-04-05T00:15:00Z")));
        // 2026-10-25, 03:00 becomes 02:00 again.
        let mut instant = at("2026-10-24T12:00:00Z");
        let mut edges = Vec::new();
        for _ in 0..4 {
            instant = early.next_change(BERLIN, instant).unwrap();
            edges.push(instant.format("%H:%M").to_string());
        }
        assert_eq!(edges, ["00:15", "00:45", "01:15", "01:45"]);
    }

    #[test]
    fn a_window_of_all_days_never_changes() {
        let always = window(&[0, 1, 2, 3, 4, 5, 6], None);
        assert_eq!(always.next_change(BERLIN, at("2026-11-20T00:00:00Z")), None);
    }

    proptest! {
        /// Against the naive way: look at every minute of the next days.
        #[test]
        fn the_next_change_is_the_first_minute_that_differs(
            zone in prop::sample::select(vec![
                BERLIN, chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe, chrono_tz::Africa::Casablanca,
                chrono_tz::Asia::Kolkata, chrono_tz::Pacific::Apia, chrono_tz::UTC, chrono_tz::America::St_Johns,
            ]),
            start in 1_750_000_000i64..1_830_000_000,
            days in prop::collection::btree_set(0u8..7, 1..7),
            hours in prop::option::of((0u32..1440, 0u32..1440).prop_filter("a length", |(a, b)| a != b)),
        ) {
            let time = |minutes: u32| NaiveTime::from_hms_opt(minutes / 60, minutes % 60, 0).unwrap();
            let days: BTreeSet<Day> = days.into_iter().map(Day).collect();
            let window = Window { days, hours: hours.map(|(a, b)| (time(a), time(b))) };
            let from = DateTime::from_timestamp(start - start % 60, 0).unwrap();
            let open = window.is_open(zone, from);
            let naive = (1..=9 * 24 * 60)
                .map(|minute| from + TimeDelta::minutes(minute))
                .find(|instant| window.is_open(zone, *instant) != open);
            let found = window.next_change(zone, from).filter(|instant| *instant <= from + TimeDelta::days(9));
            prop_assert_eq!(found, naive);
        }
    }
}
