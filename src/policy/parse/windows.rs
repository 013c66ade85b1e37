//! Time windows (SPEC section 2, meaning 4).

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveTime;

use crate::policy::diagnostic::{At, Mistake, Report};
use crate::policy::json::Value;
use crate::policy::model::{Day, Located, Window};
use crate::policy::name::Pattern;
use crate::policy::reader::{self, Fields, text};
use crate::policy::wording::quoted;

use super::lists;

/// The days as a policy writes them, Monday first.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Windows by domain.
pub(super) fn by_domain(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> BTreeMap<Pattern, Located<Window>> {
    lists::by_domain(value, at, report, window)
}

/// One window.
pub(super) fn window(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<Located<Window>> {
    let fields = Fields::read(value, at, &["days", "start", "end"], report)?;
    if matches!(value, Value::Object(entries) if entries.is_empty()) {
        report.error(at, "this window says nothing", "give days, or start and end, or leave the window out");
    }
    let days = match fields.get("days") {
        None => Some((0..7).map(Day).collect()),
        Some(value) => days(value, &at.key("days"), report),
    };
    let (start, end) = (fields.get("start"), fields.get("end"));
    for (here, other, name, missing) in [(start, end, "start", "end"), (end, start, "end", "start")] {
        if here.is_some() && other.is_none() {
            report.error(
                at,
                format!("this window has {name} but no {missing}"),
                format!("add {missing}, or remove {name} for the whole day"),
            );
        }
    }
    let start = start.map(|value| time(value, &at.key("start"), report));
    let end = end.map(|value| time(value, &at.key("end"), report));
    let hours = match (start, end) {
        (None, None) => None,
        (Some(start), Some(end)) => Some((start?, end?)),
        _ => return None,
    };
    if let Some((start, end)) = hours
        && start == end
    {
        report.error(
            at,
            "start and end are the same time",
            "remove both for the whole day; to keep it closed remove the domain or the host from the policy",
        );
        return None;
    }
    Some(Located { value: Window { days: days?, hours }, path: at.pointer() })
}

fn days(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<BTreeSet<Day>> {
    let values = reader::list(value, at, "days", report)?;
    if values.is_empty() {
        report.error(
            at,
            "days is empty, so the window would never open",
            "name a day, or leave days out for every day",
        );
        return None;
    }
    let mut days = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let at = at.index(index);
        let Some(text) = text(&value, &at, "a day", report) else { continue };
        match (0..).zip(DAYS).find(|(_, name)| text.eq_ignore_ascii_case(name)) {
            Some((day, _)) => {
                days.insert(Day(day));
            }
            None => report.mistake(&at, no_day(text)),
        }
    }
    Some(days)
}

fn no_day(text: &str) -> Mistake {
    let begins = |name: &&&str| text.get(..3).is_some_and(|front| front.eq_ignore_ascii_case(name));
    let hint = match DAYS.iter().find(begins) {
        Some(name) => format!("did you mean {}?", quoted(name)),
        None => format!("days are {}; leave days out for every day", DAYS.join(", ")),
    };
    Mistake::new(format!("{} is not a day", quoted(text)), hint)
}

fn time(value: &Value<'_>, at: &At<'_>, report: &mut Report) -> Option<NaiveTime> {
    let text = text(value, at, "a time of day", report)?;
    let time = digits(text).and_then(|(hour, minute, second)| NaiveTime::from_hms_opt(hour, minute, second));
    if time.is_none() {
        report.error(at, format!("{} is not a time of day", quoted(text)), time_hint(text));
    }
    time
}

/// Hour, minute and second of `HH:MM` or `HH:MM:SS`, each two digits.
fn digits(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(':').map(|part| {
        let two = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| part.parse::<u32>().ok()).flatten()
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    parts.next().is_none().then_some((hour, minute, second))
}

fn time_hint(text: &str) -> String {
    if matches!(digits(text), Some((24, 0, 0))) {
        return r#"write "00:00": an end at 00:00 is the midnight at which the day ends"#.to_owned();
    }
    let padded = format!("0{text}");
    if matches!(digits(&padded), Some((_, 0..=59, 0..=59))) {
        return format!("write {}", quoted(&padded));
    }
    r#"times are HH:MM or HH:MM:SS from "00:00" to "23:59:59""#.to_owned()
}
