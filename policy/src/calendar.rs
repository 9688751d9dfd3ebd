//! Working days, as far as waiting periods need them. Days are days in UTC, like every date in a pack.

use alliance_protocol::time::Timestamp;
use jiff::{civil::Date, civil::Weekday, tz::TimeZone};

/// Days of the year that are no working days besides Saturday and Sunday. One that falls on a weekend moves to the next day
/// that would be a working day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DaysOff(Vec<(i8, i8)>);

/// Days in one `@days_off`: more than a month of them is a mistake.
const DAYS_OFF_MAX: usize = 40;

/// Days that are looked at for one period: every year has more than 200 working days.
const SEARCH_DAYS_MAX: u32 = 3 * 366;

impl DaysOff {
    /// Reads `01-01..01-08, 02-23`: month and day.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let day = |text: &str| -> Option<Date> {
            let (month, day) = text.split_once('-')?;
            let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<i8>().ok()).flatten();
            // A leap year, so that 02-29 is a day.
            Date::new(2024, two(month)?, two(day)?).ok()
        };
        let mut days = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.trim().split_once("..") {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(part.trim())?, day(part.trim())?),
            };
            if last < first {
                return None;
            }
            let mut next = first;
            while next <= last {
                days.push((next.month(), next.day()));
                next = next.tomorrow().ok()?;
                if days.len() > DAYS_OFF_MAX {
                    return None;
                }
            }
        }
        Some(Self(days))
    }

    fn names(&self, date: Date) -> bool {
        self.0.contains(&(date.month(), date.day()))
    }
}

fn weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Whether a day off that fell on a weekend moved to this day.
fn moved_here(date: Date, off: &DaysOff) -> bool {
    // Each day off on a weekend takes the next day that is neither weekend nor day off, and that no earlier one took. Seen from
    // this day: more of them lie behind than there were free days in between.
    let mut owed = 0_u32;
    let Ok(mut day) = date.checked_sub(jiff::Span::new().days(21)) else { return false };
    while day < date {
        if off.names(day) && weekend(day) {
            owed = owed.saturating_add(1);
        } else if !weekend(day) && !off.names(day) {
            owed = owed.saturating_sub(1);
        }
        let Ok(next) = day.tomorrow() else { return false };
        day = next;
    }
    owed > 0
}

fn works(date: Date, off: &DaysOff) -> bool {
    !weekend(date) && !off.names(date) && !moved_here(date, off)
}

fn day_of(at: Timestamp) -> Option<Date> {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    Some(stamp.to_zoned(TimeZone::UTC).date())
}

fn midnight(date: Date) -> Option<Timestamp> {
    let stamp = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(stamp.as_millisecond()).ok().map(Timestamp)
}

/// When so many full working days have passed since the day of a filing: midnight after the last of them. `None` where the
/// calendar ends before, which never comes.
pub(crate) fn elapsed(filed: Timestamp, working_days: u32, off: &DaysOff) -> Option<Timestamp> {
    let mut day = day_of(filed)?;
    let mut left = working_days;
    for _ in 0..SEARCH_DAYS_MAX {
        day = day.tomorrow().ok()?;
        if left == 0 {
            return midnight(day);
        }
        if works(day, off) {
            left = left.saturating_sub(1);
        }
    }
    None
}

/// The instant so many calendar years later; `None` where the calendar ends before.
pub(crate) fn years_later(since: Timestamp, years: u32) -> Option<Timestamp> {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(since.0).ok()?).ok()?;
    let later = stamp.to_zoned(TimeZone::UTC).checked_add(jiff::Span::new().try_years(i64::from(years)).ok()?).ok()?;
    u64::try_from(later.timestamp().as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSSIA: &str = "01-01..01-08, 02-23, 03-08, 05-01, 05-09, 06-12, 11-04";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn ten_working_days_end_at_midnight_after_the_tenth() {
        let off = DaysOff::read(RUSSIA).expect("days");
        // Filed on a Monday; Monday two weeks later is the tenth working day.
        assert_eq!(elapsed(at("2026-09-07T10:00:00Z"), 10, &off), Some(at("2026-09-22")));
        // Over 4 November, a Wednesday.
        assert_eq!(elapsed(at("2026-11-02"), 10, &off), Some(at("2026-11-18")));
        // Over New Year: 1 to 8 January are off, of which 3 and 4 fall on a weekend and move to 9 and 12.
        assert_eq!(elapsed(at("2025-12-31T23:59:59Z"), 1, &off), Some(at("2026-01-14")));
        // Filed on a Saturday.
        assert_eq!(elapsed(at("2026-09-05"), 1, &off), Some(at("2026-09-08")));
        assert_eq!(elapsed(at("2026-09-05"), 0, &off), Some(at("2026-09-06")));
    }

    #[test]
    fn days_off_are_read_strictly() {
        assert_eq!(DaysOff::read("01-01..01-03"), Some(DaysOff(vec![(1, 1), (1, 2), (1, 3)])));
        for bad in ["", "1-1", "13-01", "02-30", "01-05..01-01", "01-01..12-31", "01-01,", "x"] {
            assert_eq!(DaysOff::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn years_are_calendar_years() {
        assert_eq!(years_later(at("2023-11-25T10:00:00Z"), 3), Some(at("2026-11-25T10:00:00Z")));
        assert_eq!(years_later(at("2024-02-29"), 1), Some(at("2025-02-28")));
        assert_eq!(years_later(Timestamp(u64::MAX), 1), None);
    }
}
