//! Windows by the times of a week at which they are open.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::Timelike;

use super::Effect;
use crate::policy::model::{Located, Window};
use crate::policy::name::{Name, Pattern};
use crate::policy::parse::DAYS;

/// Seconds of a day and of a week on a clock that is never set.
const DAY: u32 = 24 * 3600;
const WEEK: u32 = 7 * DAY;

/// The windows of names as they hold for one host.
pub(super) type ByName<'p> = BTreeMap<Pattern, &'p Located<Window>>;

/// When something is open: seconds of the week, in order, with gaps between them. No window: always.
fn week(window: Option<&Window>) -> Vec<Range<u32>> {
    let Some(window) = window else { return std::iter::once(0..WEEK).collect() };
    let mut open = Vec::new();
    for day in &window.days {
        let midnight = u32::from(day.0) * DAY;
        let (start, end) = window
            .hours
            .map_or((0, DAY), |(start, end)| (start.num_seconds_from_midnight(), end.num_seconds_from_midnight()));
        if start < end {
            open.push(midnight + start..midnight + end);
        } else {
            open.push(midnight + start..midnight + DAY);
            let next = (midnight + DAY) % WEEK;
            open.push(next..next + end);
        }
    }
    open.retain(|range| !range.is_empty());
    open.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u32>> = Vec::new();
    for range in open {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn is_within(inner: &[Range<u32>], outer: &[Range<u32>]) -> bool {
    inner.iter().all(|range| outer.iter().any(|around| around.start <= range.start && range.end <= around.end))
}

/// What it does that one window takes the place of another.
pub(super) fn effect(old: Option<&Window>, new: Option<&Window>) -> Effect {
    if old == new {
        return Effect::None;
    }
    let (before, after) = (week(old), week(new));
    Effect::of(!is_within(&after, &before), !is_within(&before, &after))
}

/// The window that holds for what a pattern covers and no closer one does.
pub(super) fn around<'p>(windows: &ByName<'p>, pattern: &Pattern) -> Option<&'p Located<Window>> {
    let name = match pattern {
        Pattern::Exact(name) | Pattern::Below(name) => name,
    };
    let above = || name.parents().find_map(|apex| windows.get(&Pattern::Below(Name::from_normal(apex))));
    windows.get(pattern).or_else(above).copied()
}

/// `mon-fri 08:00-18:00`
pub(super) fn words(window: &Window) -> String {
    let days: Vec<usize> = window.days.iter().map(|day| usize::from(day.0) % DAYS.len()).collect();
    let runs = days.chunk_by(|day, next| day + 1 == *next).map(|run| match run {
        [first, .., last] if run.len() > 2 => format!("{}-{}", DAYS[*first], DAYS[*last]),
        _ => run.iter().map(|day| DAYS[*day]).collect::<Vec<_>>().join(","),
    });
    let days = if days.len() == DAYS.len() { "every day".to_owned() } else { runs.collect::<Vec<_>>().join(",") };
    let Some((start, end)) = window.hours else { return days };
    let seconds = start.second() != 0 || end.second() != 0;
    let format = if seconds { "%H:%M:%S" } else { "%H:%M" };
    format!("{days} {}-{}", start.format(format), end.format(format))
}
