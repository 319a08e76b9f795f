//! Intervals as ISO 8601: PostgreSQL's text, which leaves out what is zero, and Debezium's, which does not.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use super::Interval;
use super::time::MICROS_PER_DAY;

const MONTHS_PER_YEAR: i32 = 12;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
/// Of 30.4375 days, as Debezium counts.
const MICROS_PER_MONTH: i64 = 304_375 * MICROS_PER_DAY / 10_000;

/// Both forms, and PostgreSQL 17's infinities.
pub(crate) fn parse(text: &[u8]) -> Option<Interval> {
    match text {
        b"infinity" => return Some(Interval::Infinity),
        b"-infinity" => return Some(Interval::NegInfinity),
        _ => {}
    }
    let mut rest = text.strip_prefix(b"P").filter(|rest| !rest.is_empty())?;
    let (mut months, mut days, mut micros) = (0_i32, 0_i32, 0_i64);
    let mut is_time = false;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b"T").filter(|_| !is_time) {
            (rest, is_time) = (after, true);
            continue;
        }
        let end = rest.iter().position(u8::is_ascii_uppercase)?;
        let (number, after) = rest.split_at_checked(end)?;
        let (unit, after) = after.split_first()?;
        rest = after;
        let whole = || super::text::integer(number);
        let small = |factor: i32| i32::try_from(whole()?).ok()?.checked_mul(factor);
        match (is_time, unit) {
            (false, b'Y') => months = months.checked_add(small(MONTHS_PER_YEAR)?)?,
            (false, b'M') => months = months.checked_add(small(1)?)?,
            (false, b'D') => days = days.checked_add(small(1)?)?,
            (true, b'H') => micros = micros.checked_add(whole()?.checked_mul(MICROS_PER_HOUR)?)?,
            (true, b'M') => {
                micros = micros.checked_add(whole()?.checked_mul(MICROS_PER_MINUTE)?)?;
            }
            (true, b'S') => micros = micros.checked_add(seconds(number)?)?,
            _ => return None,
        }
    }
    Some(Interval::Finite {
        months,
        days,
        micros,
    })
}

/// Microseconds of `-6.789`.
fn seconds(text: &[u8]) -> Option<i64> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = super::text::integer(parts.next()?)?.checked_mul(MICROS_PER_SECOND)?;
    let Some(digits) = parts.next() else {
        return Some(whole);
    };
    let unit = 10_i64.checked_pow(6_u32.checked_sub(u32::try_from(digits.len()).ok()?)?)?;
    let is_digits = digits.iter().all(u8::is_ascii_digit);
    let fraction = super::text::integer(digits).filter(|_| is_digits)?;
    let fraction = fraction.checked_mul(unit)?;
    if text.starts_with(b"-") {
        whole.checked_sub(fraction)
    } else {
        whole.checked_add(fraction)
    }
}

// === impl Interval ===

impl Interval {
    /// Months, days and microseconds; none of an infinite one.
    fn parts(self) -> Option<(i32, i32, i64)> {
        match self {
            Self::Finite {
                months,
                days,
                micros,
            } => Some((months, days, micros)),
            Self::Infinity | Self::NegInfinity => None,
        }
    }

    /// Microseconds, a month being 30.4375 days; none of an infinite one, or beyond 64 bits.
    pub(crate) fn as_micros(self) -> Option<i64> {
        let (months, days, micros) = self.parts()?;
        let months = i64::from(months).checked_mul(MICROS_PER_MONTH)?;
        let days = i64::from(days).checked_mul(MICROS_PER_DAY)?;
        months.checked_add(days)?.checked_add(micros)
    }

    /// ISO 8601 with every part, `P0Y-1M2DT0H0M-1.5S`; none of an infinite one.
    pub(crate) fn with_every_part(self) -> Option<String> {
        let (months, days, micros) = self.parts()?;
        let (years, months) = (months / MONTHS_PER_YEAR, months % MONTHS_PER_YEAR);
        let Time {
            hours,
            minutes,
            seconds,
        } = Time::of(micros);
        Some(format!(
            "P{years}Y{months}M{days}DT{hours}H{minutes}M{seconds}S"
        ))
    }
}

/// PostgreSQL's text with `IntervalStyle=iso_8601`: `P1Y-2DT3H`, `PT0S`.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((months, days, micros)) = self.parts() else {
            let is_negative = *self == Self::NegInfinity;
            return f.write_str(if is_negative { "-infinity" } else { "infinity" });
        };
        if (months, days, micros) == (0, 0, 0) {
            return f.write_str("PT0S");
        }
        f.write_str("P")?;
        let parts = [
            (months / MONTHS_PER_YEAR, 'Y'),
            (months % MONTHS_PER_YEAR, 'M'),
            (days, 'D'),
        ];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number != 0) {
            write!(f, "{number}{unit}")?;
        }
        if micros == 0 {
            return Ok(());
        }
        let time = Time::of(micros);
        f.write_str("T")?;
        for (number, unit) in [(time.hours, 'H'), (time.minutes, 'M')] {
            if number != 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        if micros % MICROS_PER_MINUTE != 0 {
            write!(f, "{}S", time.seconds)?;
        }
        Ok(())
    }
}

struct Time {
    hours: i64,
    minutes: i64,
    /// No more digits than it needs.
    seconds: String,
}

// === impl Time ===

impl Time {
    fn of(micros: i64) -> Self {
        let (seconds, fraction) = (
            micros / MICROS_PER_SECOND % 60,
            (micros % MICROS_PER_SECOND).unsigned_abs(),
        );
        let sign = if micros < 0 && seconds == 0 && fraction != 0 {
            "-"
        } else {
            ""
        };
        let digits = format!("{fraction:06}");
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        Self {
            hours: micros / MICROS_PER_HOUR,
            minutes: micros / MICROS_PER_MINUTE % 60,
            seconds: format!("{sign}{seconds}{point}{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_postgresqls_and_debeziums_form() {
        let forms = [
            ("PT0S", "P0Y0M0DT0H0M0S", 0),
            (
                "P1Y2M3DT4H5M6.789S",
                "P1Y2M3DT4H5M6.789S",
                37_091_106_789_000,
            ),
            ("P-1M2DT-1.5S", "P0Y-1M2DT0H0M-1.5S", -2_457_001_500_000),
            ("PT-0.000001S", "P0Y0M0DT0H0M-0.000001S", -1),
            ("PT-26H-5M", "P0Y0M0DT-26H-5M0S", -93_900_000_000),
            ("P-178000000Y", "P-178000000Y0M0DT0H0M0S", 0),
        ];
        for (text, every_part, micros) in forms {
            let interval = parse(text.as_bytes()).unwrap();
            assert_eq!(interval.to_string(), text);
            assert_eq!(interval.with_every_part().as_deref(), Some(every_part));
            assert_eq!(parse(every_part.as_bytes()), Some(interval));
            assert!(interval.as_micros().is_none_or(|it| it == micros), "{text}");
        }
        assert_eq!(
            parse(b"infinity").map(|it| it.to_string()).as_deref(),
            Some("infinity")
        );
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in [
            "",
            "P",
            "1 day",
            "P1Y ",
            "P1H",
            "PT1D",
            "P1",
            "P99999999999Y",
            "PT1.1234567S",
            "PT1.-1S",
            "PTT1S",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
