//! Points in time as BSON's milliseconds, and as text that keeps microseconds.

use walferry_schema::{Instant, civil};

const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MILLIS_PER_DAY: i64 = 86_400_000;

/// Days since 1970 and microseconds of the day, or the text of a point in time that is none.
pub(crate) fn endless(instant: Instant) -> Result<(i32, i64), &'static str> {
    match instant {
        Instant::At { days, micros } => Ok((days, micros)),
        Instant::Infinity => Err("infinity"),
        Instant::NegInfinity => Err("-infinity"),
    }
}

/// Milliseconds since 1970, towards the past, and whether microseconds were cut off.
pub(crate) fn millis((days, micros): (i32, i64)) -> (i64, bool) {
    let millis = i64::from(days) * MILLIS_PER_DAY + micros / 1_000;
    (millis, micros % 1_000 != 0)
}

/// `2024-02-29T12:34:56.123456` with exactly `precision` digits of a second, then `zone`.
///
/// Sorts as time for the years 1 to 9999 of one column, whose precision is always the same. Other
/// years are written as ISO 8601 has it, with a sign: `-0043-03-15…` (44 BC), `+10000-01-01…`.
pub(crate) fn iso(days: i64, micros: i64, precision: u8, zone: &str) -> String {
    let (second, micros) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
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

    fn parts(micros: i128) -> (i32, i64) {
        endless(Instant::from_micros(micros).unwrap()).unwrap()
    }

    fn text(micros: i128, precision: u8, zone: &str) -> String {
        let (days, micros) = parts(micros);
        iso(days.into(), micros, precision, zone)
    }

    #[test]
    fn milliseconds_are_cut_off_towards_the_past() {
        assert_eq!(millis(parts(1_999)), (1, true));
        assert_eq!(millis(parts(-1)), (-1, true));
        assert_eq!(millis(parts(-1_000)), (-1, false));
        // The last of PostgreSQL's, past 64 bits of microseconds.
        let (days, micros) = parts(9_224_318_015_999_999_999);
        assert_eq!(millis((days, micros)), (9_224_318_015_999_999, true));
        assert_eq!(
            iso(days.into(), micros, 6, ""),
            "+294276-12-31T23:59:59.999999"
        );
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
        let texts: Vec<_> = times.iter().map(|&micros| text(micros, 6, "Z")).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[0], "0001-01-01T00:00:00.000000Z");
        assert_eq!(texts[2], "1969-12-31T23:59:59.999999Z");
        assert_eq!(texts[5], "2024-02-29T12:34:56.123456Z");
        assert_eq!(texts[6], "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn other_years_have_a_sign_and_a_precision_its_digits() {
        assert_eq!(
            text(-63_517_824_000_000_000, 4, ""),
            "-0043-03-15T00:00:00.0000"
        );
        assert_eq!(
            text(253_402_300_800_000_000, 5, "Z"),
            "+10000-01-01T00:00:00.00000Z"
        );
    }
}
