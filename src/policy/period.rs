//! When a cap's period began, and when the next one does.
//!
//! Periods follow the clock on the wall of the moment's zone, like windows. A minute and an hour begin whenever that
//! clock shows a full one, also a second time where it is set back, and where it jumps over a full one. A day begins
//! with the first instant that has its date or a later one: at midnight, at the jump that skips midnight, at the first of
//! two midnights. What a clock that is set back shows again of an ended day belongs to the new one.

use chrono::{DateTime, Offset as _, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::model::Period;
use super::schedule::Moment;

/// Seconds.
const MINUTE: i64 = 60;
/// Seconds.
const HOUR: i64 = 60 * MINUTE;
/// Seconds. Local days may have more or less.
const DAY: i64 = 24 * HOUR;
/// In no zone of the tz database are two clock changes closer to each other than three days, so none is stepped over.
const STEP: i64 = DAY;
/// How many times its usual length a period is looked for to both sides. The longest day had 47 hours (Kwajalein, 1969),
/// the longest hour has one and a half (Lord Howe Island, each year).
const REACH: i64 = 3;

impl Period {
    /// All periods, the shortest first.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// The period as policies write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The instant at which the period that contains the moment began; a whole second.
    pub fn start(self, moment: &Moment) -> DateTime<Utc> {
        instant(self.bounds(moment).0, moment)
    }

    /// The first instant of the period after the one that contains the moment; a whole second.
    pub fn next(self, moment: &Moment) -> DateTime<Utc> {
        instant(self.bounds(moment).1, moment)
    }

    /// First second of the period that contains the moment, first second of the next one; since 1970, in UTC.
    fn bounds(self, moment: &Moment) -> (i64, i64) {
        let now = moment.utc.timestamp();
        let length = match self {
            Self::Second => return (now, now + 1),
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        };
        let around = stretches(moment.zone, now - REACH * length, now + REACH * length);
        let bounds = if self == Self::Day { by_dates(&around, now) } else { by_turns(&around, length, now) };
        // Only at the ends of the calendar is there no turn within reach.
        let plain = now - now.rem_euclid(length);
        bounds.unwrap_or((plain, plain + length))
    }
}

/// `seconds`, or the moment itself where a calendar has an end.
fn instant(seconds: i64, moment: &Moment) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or(moment.utc)
}

/// A time without a clock change.
struct Stretch {
    /// First second.
    begin: i64,
    /// The second behind the last.
    end: i64,
    /// What the wall clock is ahead of UTC, seconds.
    ahead: i64,
}

impl Stretch {
    /// How many units have begun on the wall clock at a second of this stretch, since it showed 1970.
    fn count(&self, unit: i64, second: i64) -> i64 {
        (second + self.ahead).div_euclid(unit)
    }

    /// The second at which the clock of this stretch shows the beginning of a unit, be it within the stretch or not.
    fn shows(&self, unit: i64, count: i64) -> i64 {
        count * unit - self.ahead
    }

    fn has(&self, second: i64) -> bool {
        self.begin <= second && second < self.end
    }
}

/// The time from one second to another, both included, cut at each clock change.
fn stretches(zone: Tz, from: i64, to: i64) -> Vec<Stretch> {
    let ahead = |second: i64| {
        let utc = DateTime::from_timestamp(second, 0).unwrap_or_default().naive_utc();
        i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    };
    let mut out = vec![Stretch { begin: from, end: to + 1, ahead: ahead(from) }];
    let mut before = from;
    while before < to {
        let after = (before + STEP).min(to);
        let (old, new) = (ahead(before), ahead(after));
        if old != new {
            let (mut last, mut first) = (before, after);
            while first - last > 1 {
                let middle = last.midpoint(first);
                if ahead(middle) == old { last = middle } else { first = middle }
            }
            if let Some(ended) = out.last_mut() {
                ended.end = first;
            }
            out.push(Stretch { begin: first, end: to + 1, ahead: new });
        }
        before = after;
    }
    out
}

/// The turns next to `now`, where the clock turns each time it shows a full unit or jumps over one.
fn by_turns(around: &[Stretch], unit: i64, now: i64) -> Option<(i64, i64)> {
    let jumps = around.windows(2).filter_map(|pair| {
        let [old, new] = pair else { return None };
        (new.count(unit, new.begin) > old.count(unit, new.begin - 1)).then_some(new.begin)
    });
    let shown = around.iter().flat_map(|stretch| {
        let count = stretch.count(unit, now.clamp(stretch.begin, stretch.end - 1));
        // The last one up to `now` and the first one behind it, as far as this stretch shows them.
        [count, count + 1].map(|count| stretch.shows(unit, count)).into_iter().filter(|at| stretch.has(*at))
    });
    let turns: Vec<i64> = jumps.chain(shown).collect();
    let start = turns.iter().filter(|at| **at <= now).max();
    let next = turns.iter().filter(|at| **at > now).min();
    Some((*start?, *next?))
}

/// The days next to `now`, where a day begins once and dates never go back.
fn by_dates(around: &[Stretch], now: i64) -> Option<(i64, i64)> {
    let past = around.iter().filter(|stretch| stretch.begin <= now);
    let today = past.map(|stretch| stretch.count(DAY, now.min(stretch.end - 1))).max()?;
    let first = |date: i64| {
        let begins = |stretch: &Stretch| stretch.shows(DAY, date).max(stretch.begin);
        around.iter().map(|stretch| (stretch, begins(stretch))).find(|(stretch, at)| stretch.has(*at)).map(|(_, at)| at)
    };
    Some((first(today)?, first(today + 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{NaiveDateTime, TimeDelta, Timelike as _};
    use chrono_tz::{Africa, America, Antarctica, Asia, Australia, Europe, Pacific, TZ_VARIANTS};
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn bounds(period: Period, zone: Tz, text: &str) -> [String; 2] {
        let moment = Moment { utc: at(text), zone };
        [period.start(&moment), period.next(&moment)].map(|instant| instant.to_rfc3339().replace("+00:00", "Z"))
    }

    fn wall(zone: Tz, utc: DateTime<Utc>) -> NaiveDateTime {
        utc.with_timezone(&zone).naive_local()
    }

    /// Zones with the months in which their clocks do something of note.
    const CHANGES: [(Tz, &str, &str); 17] = [
        (Europe::Berlin, "2026-03-29", "2026-10-25"),
        (America::New_York, "2026-03-08", "2026-11-01"),
        // Half an hour.
        (Australia::Lord_Howe, "2026-10-03", "2026-04-04"),
        // Half an hour off, and clocks changed a minute after midnight.
        (America::St_Johns, "2010-03-14", "2010-11-07"),
        // Midnight is skipped; 23:00 to 24:00 comes twice.
        (America::Sao_Paulo, "2018-11-04", "2019-02-17"),
        // Midnight is skipped; 00:00 to 01:00 comes twice.
        (America::Havana, "2026-03-08", "2026-11-01"),
        (Asia::Beirut, "2026-03-29", "2026-10-24"),
        (Asia::Tehran, "2022-03-21", "2022-09-21"),
        (Africa::Cairo, "2026-04-23", "2026-10-29"),
        (Africa::Casablanca, "2026-02-15", "2026-03-22"),
        // Two hours; three hours.
        (Antarctica::Troll, "2026-03-29", "2026-10-25"),
        (Antarctica::Casey, "2020-03-08", "2020-10-03"),
        (America::Scoresbysund, "2023-03-26", "2024-10-27"),
        // A whole day is skipped.
        (Pacific::Apia, "2011-12-30", "2012-04-01"),
        (Pacific::Kiritimati, "1994-12-31", "1995-01-01"),
        // A day of 47 hours, and one that is skipped.
        (Pacific::Kwajalein, "1969-09-30", "1993-08-21"),
        // Three quarters of an hour off, and nothing happens.
        (Asia::Kathmandu, "2026-03-29", "2026-10-25"),
    ];

    /// Goes from second to second (or in larger steps) and asks at each what was found by going.
    fn walk(period: Period, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>, step: i64) {
        let unit = |utc| {
            let wall = wall(zone, utc);
            match period {
                Period::Minute => wall.with_second(0).unwrap(),
                Period::Hour => wall.with_second(0).unwrap().with_minute(0).unwrap(),
                _ => wall.date().into(),
            }
        };
        let mut turns: Vec<DateTime<Utc>> = Vec::new();
        let mut latest = unit(from);
        let mut passed = vec![from];
        let mut now = from;
        while now < to {
            let before = now;
            now += TimeDelta::seconds(step);
            let turned = match period {
                Period::Day => unit(now) > latest,
                _ => unit(now) == wall(zone, now) || unit(now) > unit(before),
            };
            latest = latest.max(unit(now));
            if turned {
                for inside in passed.drain(..).filter(|_| !turns.is_empty()) {
                    let moment = Moment { utc: inside, zone };
                    assert_eq!(
                        (period.start(&moment), period.next(&moment)),
                        (*turns.last().unwrap(), now),
                        "{moment:?}"
                    );
                }
                turns.push(now);
            }
            passed.push(now);
        }
        assert!(turns.len() > 1, "a walk that saw no whole period");
    }

    #[test]
    fn every_second_around_a_clock_change_is_in_the_minute_and_the_hour_that_a_walk_finds() {
        for (zone, _, _) in CHANGES {
            for change in changes(zone) {
                let hours = |count| TimeDelta::hours(count);
                walk(Period::Hour, zone, change - hours(2), change + hours(3), 1);
                walk(Period::Minute, zone, change - TimeDelta::minutes(4), change + TimeDelta::minutes(4), 1);
            }
        }
    }

    #[test]
    fn every_minute_around_a_clock_change_is_on_the_day_that_a_walk_finds() {
        for (zone, _, _) in CHANGES {
            for change in changes(zone) {
                walk(Period::Day, zone, change - TimeDelta::days(3), change + TimeDelta::days(3), 60);
            }
        }
    }

    /// The clock changes on the two days of a zone, found by looking at every minute.
    fn changes(zone: Tz) -> Vec<DateTime<Utc>> {
        let (_, first, second) = CHANGES.into_iter().find(|(other, _, _)| *other == zone).unwrap();
        let mut found = Vec::new();
        for day in [first, second] {
            let noon = at(&format!("{day}T12:00:00Z"));
            let minutes = (-36 * 60..36 * 60).map(|minute| noon + TimeDelta::minutes(minute));
            let ahead = |utc: DateTime<Utc>| wall(zone, utc) - utc.naive_utc();
            let changed = minutes.clone().find(|utc| ahead(*utc) != ahead(*utc - TimeDelta::minutes(1)));
            assert!(changed.is_some() || zone == Asia::Kathmandu, "{zone} changes nothing near {day}");
            found.push(changed.unwrap_or(noon));
        }
        found
    }

    #[test]
    fn odd_days_and_hours_are_as_long_as_the_clock_says() {
        use Period::{Day, Hour, Minute, Second};
        for (period, zone, now, start, next) in [
            (Second, Tz::UTC, "2026-11-20T10:11:12.987Z", "2026-11-20T10:11:12Z", "2026-11-20T10:11:13Z"),
            (Minute, Tz::UTC, "2026-11-20T10:11:12.987Z", "2026-11-20T10:11:00Z", "2026-11-20T10:12:00Z"),
            (Hour, Asia::Kolkata, "2026-11-20T10:11:12.987Z", "2026-11-20T09:30:00Z", "2026-11-20T10:30:00Z"),
            (Day, Asia::Kolkata, "2026-11-20T10:11:12.987Z", "2026-11-19T18:30:00Z", "2026-11-20T18:30:00Z"),
            // 2:00 to 3:00 comes twice: two periods.
            (Hour, Europe::Berlin, "2026-10-25T00:59:59Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
            (Hour, Europe::Berlin, "2026-10-25T01:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
            (Day, Europe::Berlin, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            (Day, Europe::Berlin, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            // 1:30 to 2:00 comes twice; 2:00 to 2:30 is skipped.
            (Hour, Australia::Lord_Howe, "2026-04-04T15:10:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:30:00Z"),
            (Hour, Australia::Lord_Howe, "2026-10-03T15:40:00Z", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"),
            // No midnight on the 4th: the day begins at 1:00.
            (Day, America::Sao_Paulo, "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
            // A minute after midnight it is 23:01 again.
            (Day, America::St_Johns, "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"),
            // The 30th is not there.
            (Day, Pacific::Apia, "2011-12-30T09:59:59.999Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
            (Day, Pacific::Apia, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
        ] {
            assert_eq!(bounds(period, zone, now), [start, next], "{period:?} in {zone} at {now}");
        }
    }

    /// Where much more than an hour of a day came twice: by three hours at times, or by nearly a day, in 1969.
    fn is_odd(zone: Tz, start: DateTime<Utc>) -> bool {
        zone == Antarctica::Casey || [Pacific::Kwajalein, Tz::Kwajalein].contains(&zone) && start.timestamp() < 0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        /// In any zone at any time since 1950.
        #[test]
        fn a_period_holds_its_instants_and_the_next_one_begins_where_it_ends(
            zone in prop::sample::select(&TZ_VARIANTS[..]),
            period in prop::sample::select(&Period::ALL[..]),
            now in -631_152_000_000i64..2_524_608_000_000,
            part in 0.0f64..1.0,
        ) {
            let utc = DateTime::from_timestamp_millis(now).unwrap();
            let moment = Moment { utc, zone };
            let (start, next) = (period.start(&moment), period.next(&moment));
            prop_assert!(start <= utc && utc < next, "{start} {next}");
            prop_assert_eq!((start.nanosecond(), next.nanosecond()), (0, 0));
            prop_assert_eq!(period.start(&Moment { utc: next, zone }), next);
            prop_assert_eq!(period.start(&Moment { utc: start - TimeDelta::milliseconds(1), zone }).max(start), start);
            prop_assert_eq!(period.next(&Moment { utc: start - TimeDelta::milliseconds(1), zone }), start);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some instant inside")]
            let inside = start + TimeDelta::milliseconds(((next - start).num_milliseconds() as f64 * part) as i64);
            for inside in [start, inside, next - TimeDelta::milliseconds(1)] {
                let inside = Moment { utc: inside, zone };
                prop_assert_eq!((period.start(&inside), period.next(&inside)), (start, next));
            }
            let seconds = (next - start).num_seconds();
            let longest = match period {
                Period::Second => 1,
                Period::Minute => 60,
                Period::Hour => HOUR + HOUR / 2,
                Period::Day if is_odd(zone, start) => 2 * DAY,
                Period::Day => 26 * HOUR,
            };
            prop_assert!(seconds <= longest, "{period:?} of {seconds} s");
        }
    }
}
