//! Days of the proleptic Gregorian calendar, counted from 1970-01-01.
//!
//! - A day's number and its year, month and day are each other's inverse.
//!
//! Years are astronomical: 0 is 1 BC. Callers keep them within ten million of zero, far from any
//! overflow. The algorithms: Howard Hinnant, "chrono-compatible low-level date algorithms".

/// Days of one 400-year cycle.
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01, where the algorithms count, to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_468;

/// The day's number; none when the calendar has no such day.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 || day > last_day(year, month) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH)
}

/// The year, month and day of a day's number, counted from 1970-01-01.
///
/// Proleptic Gregorian; year 0 is 1 BC. Days within ten million years of 1970 only.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn last_day(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_have_their_numbers() {
        let known = [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 1, 1), 10_957),
            ((2024, 2, 29), 19_782),
            ((-43, 3, 15), -735_160),
            ((5_874_897, 12, 31), 2_145_042_905),
        ];
        for ((year, month, day), number) in known {
            assert_eq!(days(year, month, day), Some(number), "{year}-{month}-{day}");
            assert_eq!(civil(number), (year, month, day));
        }
    }

    #[test]
    fn days_outside_the_calendar_are_refused() {
        let outside = [
            (2023, 2, 29),
            (1900, 2, 29),
            (2024, 4, 31),
            (2024, 0, 1),
            (2024, 13, 1),
            (2024, 1, 0),
        ];
        for (year, month, day) in outside {
            assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
        }
        assert!(days(2000, 2, 29).is_some() && days(0, 2, 29).is_some());
    }

    proptest::proptest! {
        #[test]
        fn a_day_and_its_number_are_inverse(number in -2_500_000_i64..2_145_042_905) {
            let (year, month, day) = civil(number);
            proptest::prop_assert_eq!(days(year, month, day), Some(number));
        }
    }
}
