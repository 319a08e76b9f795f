//! The texts of dates, times and timestamps, PostgreSQL's and the envelope's ISO 8601.
//!
//! - A day that the calendar does not have, and a time outside 00:00:00–23:59:59.999999, is refused; a
//!   time of day may be 24:00:00.
//! - Digits below the declared precision are refused: nothing here rounds.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Date, Instant, TimeTz, calendar, text};

pub(crate) const MICROS_PER_DAY: i64 = 86_400_000_000;
const MICROSECONDS: u8 = 6;

/// `2024-02-29`, `0044-03-15 BC`, `infinity`.
pub(super) fn date(text: &[u8]) -> Option<Date> {
    match text {
        b"infinity" => return Some(Date::Infinity),
        b"-infinity" => return Some(Date::NegInfinity),
        _ => {}
    }
    let (text, is_bc) = strip_bc(text);
    let mut scan = Scan { rest: text };
    let days = scan.days(is_bc)?;
    scan.end()?;
    Some(Date::Days(i32::try_from(days).ok()?))
}

/// `2024-02-29 12:34:56.123456`, then `zone`, then ` BC` perhaps; `infinity`.
pub(super) fn timestamp(text: &[u8], precision: u8, zone: &[u8]) -> Option<Instant> {
    if let Some(endless) = infinity(text) {
        return Some(endless);
    }
    let (text, is_bc) = strip_bc(text);
    let mut scan = Scan { rest: text };
    let days = scan.days(is_bc)?;
    scan.literal(b" ")?;
    let time = scan.time(precision)?;
    scan.literal(zone)?;
    scan.end()?;
    instant(days, time)
}

/// Microseconds since midnight: `12:34:56.123456`, `24:00:00`.
pub(crate) fn time(text: &[u8], precision: u8) -> Option<i64> {
    let mut scan = Scan { rest: text };
    let micros = scan.time_of_day(precision)?;
    scan.end()?;
    Some(micros)
}

/// `12:34:56.12+02`, `12:34:56.12+05:30:15`, and of the envelope `10:34:56.12Z`.
pub(crate) fn time_tz(text: &[u8]) -> Option<TimeTz> {
    let mut scan = Scan { rest: text };
    let micros = scan.time_of_day(MICROSECONDS)?;
    let offset = scan.offset()?;
    scan.end()?;
    Some(TimeTz { micros, offset })
}

/// `2024-02-29Z`, `-0043-03-15Z`
pub(crate) fn iso_day(text: &[u8]) -> Option<Date> {
    let mut scan = Scan { rest: text };
    let year = scan.iso_year()?;
    let days = scan.days_of(year)?;
    scan.literal(b"Z")?;
    scan.end()?;
    Some(Date::Days(i32::try_from(days).ok()?))
}

/// `2024-02-29T12:34:56.123456Z`, `+10000-01-01T00:00:00Z`, `-0043-03-15T12:00:00Z`, `infinity`.
pub(crate) fn iso_instant(text: &[u8], precision: u8) -> Option<Instant> {
    if let Some(endless) = infinity(text) {
        return Some(endless);
    }
    let mut scan = Scan { rest: text };
    let year = scan.iso_year()?;
    let days = scan.days_of(year)?;
    scan.literal(b"T")?;
    let time = scan.time(precision)?;
    scan.literal(b"Z")?;
    scan.end()?;
    instant(days, time)
}

/// `infinity` and `-infinity`, as both PostgreSQL and the envelope write them.
pub(crate) fn infinity(text: &[u8]) -> Option<Instant> {
    match text {
        b"infinity" => Some(Instant::Infinity),
        b"-infinity" => Some(Instant::NegInfinity),
        _ => None,
    }
}

fn strip_bc(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

fn instant(days: i64, micros: i64) -> Option<Instant> {
    let days = i32::try_from(days).ok()?;
    Some(Instant::At { days, micros })
}

/// What of the text is still to be read.
struct Scan<'a> {
    rest: &'a [u8],
}

// === impl Scan ===

impl Scan<'_> {
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// A year of an era, from 1, then month and day.
    fn days(&mut self, is_bc: bool) -> Option<i64> {
        let year = self.year_digits()?;
        if year == 0 {
            return None;
        }
        let year = if is_bc {
            1_i64.checked_sub(year)?
        } else {
            year
        };
        self.days_of(year)
    }

    /// Month and day after a year: `-02-29`.
    fn days_of(&mut self, year: i64) -> Option<i64> {
        self.literal(b"-")?;
        let month = self.two_digits()?;
        self.literal(b"-")?;
        let day = self.two_digits()?;
        calendar::days(year, month, day)
    }

    /// Java's form: four digits without a sign, or a sign and four or more.
    fn iso_year(&mut self) -> Option<i64> {
        let sign = self.rest.first().copied();
        if !matches!(sign, Some(b'+' | b'-')) {
            return self.year_digits().filter(|&year| year <= 9_999);
        }
        self.rest = self.rest.get(1..)?;
        let year = self.year_digits()?;
        if sign == Some(b'-') {
            year.checked_neg()
        } else {
            Some(year)
        }
    }

    fn year_digits(&mut self) -> Option<i64> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(4..=7).contains(&digits) {
            return None;
        }
        let (year, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        text::integer(year)
    }

    /// Microseconds since midnight: `12:34:56.123456`.
    fn time(&mut self, precision: u8) -> Option<i64> {
        let hour = self.two_digits().filter(|&hour| hour < 24)?;
        self.literal(b":")?;
        let minute = self.two_digits().filter(|&minute| minute < 60)?;
        self.literal(b":")?;
        let second = self.two_digits().filter(|&second| second < 60)?;
        let seconds = hour
            .checked_mul(3_600)?
            .checked_add(minute.checked_mul(60)?)?;
        let micros = seconds.checked_add(second)?.checked_mul(1_000_000)?;
        micros.checked_add(self.fraction(precision)?)
    }

    /// As [`Self::time`], or midnight at the day's end.
    fn time_of_day(&mut self, precision: u8) -> Option<i64> {
        if let Some(rest) = self.rest.strip_prefix(b"24:00:00") {
            self.rest = rest;
            return Some(MICROS_PER_DAY);
        }
        self.time(precision)
    }

    /// Seconds east of UTC: `+02`, `-05:30`, `+05:30:15`, `Z`.
    fn offset(&mut self) -> Option<i32> {
        if self.literal(b"Z").is_some() {
            return Some(0);
        }
        let is_west = self.literal(b"-").is_some();
        if !is_west {
            self.literal(b"+")?;
        }
        let mut seconds = self.two_digits()?.checked_mul(3_600)?;
        for unit in [60_i64, 1] {
            if self.literal(b":").is_none() {
                break;
            }
            let number = self.two_digits().filter(|&number| number < 60)?;
            seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        }
        let seconds = i32::try_from(seconds).ok()?;
        if is_west {
            seconds.checked_neg()
        } else {
            Some(seconds)
        }
    }

    /// Microseconds of a second: nothing, or a point and one to six digits.
    fn fraction(&mut self, precision: u8) -> Option<i64> {
        let Some(rest) = self.rest.strip_prefix(b".") else {
            return Some(0);
        };
        self.rest = rest;
        let mut micros = 0_i64;
        let mut unit = 100_000_i64;
        let finest = 10_i64.checked_pow(6_u32.saturating_sub(u32::from(precision)))?;
        while let Some(digit) = self.rest.first().and_then(|&byte| text::digit(byte)) {
            if unit == 0 || (digit != 0 && unit < finest) {
                return None;
            }
            micros = micros.checked_add(unit.checked_mul(i64::from(digit))?)?;
            unit /= 10;
            self.rest = self.rest.get(1..)?;
        }
        (unit < 100_000).then_some(micros)
    }

    fn two_digits(&mut self) -> Option<i64> {
        let (&[tens, ones], rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        let number = text::digit(tens)?
            .wrapping_mul(10)
            .wrapping_add(text::digit(ones)?);
        Some(i64::from(number))
    }
}
