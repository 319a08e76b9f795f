//! Decimal numbers as Debezium's `precise` mode has them: the unscaled number's bytes, the highest first.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use num_bigint::BigInt;

/// The bytes and the scale of a finite number's text. Of a number without a declared scale the zeros at the end of its
/// fraction are left out, as Debezium does.
pub(super) fn unscaled(text: &str, declared: Option<i16>) -> Option<(Vec<u8>, i16)> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (digits, scale) = match declared {
        Some(scale) if scale < 0 => {
            let zeros = usize::from(scale.unsigned_abs());
            let kept = integer.len().saturating_sub(zeros);
            let digits = match integer.get(..kept) {
                Some("" | "-") | None => "0",
                Some(digits) => digits,
            };
            (digits.to_owned(), scale)
        }
        Some(scale) => (format!("{integer}{fraction}"), scale),
        None => {
            let fraction = fraction.trim_end_matches('0');
            let scale = i16::try_from(fraction.len()).ok()?;
            (format!("{integer}{fraction}"), scale)
        }
    };
    let number: BigInt = digits.parse().ok()?;
    Some((number.to_signed_bytes_be(), scale))
}

/// The text of a number: with as many digits in its fraction as the scale says.
pub(super) fn text(bytes: &[u8], scale: i16) -> String {
    let number = BigInt::from_signed_bytes_be(bytes);
    let digits = number.magnitude().to_string();
    let sign = if number.sign() == num_bigint::Sign::Minus {
        "-"
    } else {
        ""
    };
    let places = usize::from(scale.unsigned_abs());
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { places };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let digits = format!("{digits:0>width$}", width = places.saturating_add(1));
    let (integer, fraction) = digits.split_at(digits.len().saturating_sub(places));
    format!("{sign}{integer}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_with_its_declared_scale() {
        let long = format!("-{}.{}", "9".repeat(900), "8".repeat(90));
        let numbers = [
            ("123.45", 2),
            ("-0.01", 2),
            ("0.00", 2),
            ("12300", -2),
            ("0", -2),
            ("-99900", -2),
            ("7", 0),
            (&long, 90),
        ];
        for (number, scale) in numbers {
            let (bytes, found) = unscaled(number, Some(scale)).unwrap();
            assert_eq!((text(&bytes, scale).as_str(), found), (number, scale));
        }
    }

    #[test]
    fn without_a_declared_scale_it_has_its_own() {
        assert_eq!(unscaled("123.4500", None), Some((vec![0x30, 0x39], 2)));
        assert_eq!(unscaled("0.00", None), Some((vec![0], 0)));
        assert_eq!(unscaled("NaN", None), None);
    }
}
