//! Dates of generated sales, counted from the first day of the published data, 2024-01-01.

use std::fmt;

use serde::{Serialize, Serializer};

const MINUTES_PER_DAY: u32 = 24 * 60;
const FIRST_YEAR: u32 = 2024;

/// A day, counted from 2024-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day(pub(crate) u32);

/// A moment without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Counted from 2024-01-01 00:00.
    pub(crate) minute: u32,
    /// Within the minute.
    pub(crate) microsecond: u32,
}

// === impl Day ===

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut year = FIRST_YEAR;
        let mut day = self.0;
        while day >= days_of_year(year) {
            day -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while day >= days_of_month(year, month) {
            day -= days_of_month(year, month);
            month += 1;
        }
        write!(formatter, "{year}-{month:02}-{:02}", day + 1)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Moment ===

impl Moment {
    pub(crate) fn day(self) -> Day {
        Day(self.minute / MINUTES_PER_DAY)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minute = self.minute % MINUTES_PER_DAY;
        let second = self.microsecond / 1_000_000;
        write!(
            formatter,
            "{} {:02}:{:02}:{second:02}",
            self.day(),
            minute / 60,
            minute % 60
        )?;
        match self.microsecond % 1_000_000 {
            0 => Ok(()),
            fraction => write!(formatter, ".{fraction:06}"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn days_of_year(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_through_leap_years() {
        for (day, text) in [
            (0, "2024-01-01"),
            (59, "2024-02-29"),
            (60, "2024-03-01"),
            (365, "2024-12-31"),
            (366, "2025-01-01"),
            (482, "2025-04-27"),
        ] {
            assert_eq!(Day(day).to_string(), text);
        }
    }

    #[test]
    fn a_fraction_of_a_second_is_written_only_where_there_is_one() {
        assert_eq!(
            Moment {
                minute: 1_441,
                microsecond: 0
            }
            .to_string(),
            "2024-01-02 00:01:00"
        );
        assert_eq!(
            Moment {
                minute: 59,
                microsecond: 12_000_042
            }
            .to_string(),
            "2024-01-01 00:59:12.000042"
        );
    }
}
