//! Points in time as BSON's milliseconds, and as text that keeps microseconds.

use walferry_schema::{Instant, civil};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// The text of a point in time that is none.
pub(crate) fn endless(instant: Instant) -> Result<i64, &'static str> {
    match instant {
        Instant::Micros(micros) => Ok(micros),
        Instant::Infinity => Err("infinity"),
        Instant::NegInfinity => Err("-infinity"),
    }
}

/// Milliseconds since 1970, towards the past, and whether microseconds were cut off.
pub(crate) fn millis(micros: i64) -> (i64, bool) {
    (micros.div_euclid(1_000), micros.rem_euclid(1_000) != 0)
}

/// `2024-02-29T12:34:56.123456` with exactly `precision` digits of a second, then `zone`.
///
/// Sorts as time for the years 1 to 9999 of one column, whose precision is always the same. Other
/// years are written as ISO 8601 has it, with a sign: `-0043-03-15…` (44 BC), `+10000-01-01…`.
pub(crate) fn iso(micros: i64, precision: u8, zone: &str) -> String {
    let (seconds, micros) = (
        micros.div_euclid(MICROS_PER_SECOND),
        micros.rem_euclid(MICROS_PER_SECOND),
    );
    let (days, second) = (
        seconds.div_euclid(SECONDS_PER_DAY),
        seconds.rem_euclid(SECONDS_PER_DAY),
    );
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let sign = match year {
        ..0 => "-",
        0..=9_999 => "",
        _ => "+",
    };
    let mut text = format!(
        "{sign}{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}",
        year.unsigned_abs()
    );
    if precision > 0 {
        let digits = format!("{micros:06}");
        text.push('.');
        text.push_str(digits.get(..usize::from(precision)).unwrap_or(&digits));
    }
    text.push_str(zone);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_cut_off_towards_the_past() {
        assert_eq!(millis(1_999), (1, true));
        assert_eq!(millis(-1), (-1, true));
        assert_eq!(millis(-1_000), (-1, false));
        assert_eq!(millis(i64::MIN), (i64::MIN / 1_000 - 1, true));
    }

    #[test]
    fn the_text_of_a_point_in_time_sorts_as_time() {
        let times = [
            -62_135_596_800_000_000, // year 1
            -62_135_596_799_999_999,
            -1,
            0,
            1,
            1_709_210_096_123_456,
            253_402_300_799_999_999, // year 9999
        ];
        let texts: Vec<_> = times.iter().map(|&micros| iso(micros, 6, "Z")).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[0], "0001-01-01T00:00:00.000000Z");
        assert_eq!(texts[2], "1969-12-31T23:59:59.999999Z");
        assert_eq!(texts[5], "2024-02-29T12:34:56.123456Z");
        assert_eq!(texts[6], "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn other_years_have_a_sign_and_a_precision_its_digits() {
        assert_eq!(
            iso(-63_517_824_000_000_000, 4, ""),
            "-0043-03-15T00:00:00.0000"
        );
        assert_eq!(
            iso(253_402_300_800_000_000, 5, "Z"),
            "+10000-01-01T00:00:00.00000Z"
        );
        assert!(iso(i64::MIN, 6, "").starts_with('-') && iso(i64::MAX, 6, "").starts_with('+'));
    }
}
