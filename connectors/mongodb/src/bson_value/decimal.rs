//! Decimal numbers as text, and as Decimal128.
//!
//! - The scale is kept: `1.50` and `1.5` are two Decimal128 values that compare as equal.
//! - A number that would have to be rounded has no Decimal128.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// How many digits a Decimal128 holds.
pub(crate) const MAX_DIGITS: usize = 34;
const MIN_EXPONENT: i64 = -6_176;
const MAX_EXPONENT: i64 = 6_111;

/// The first number with more digits than that.
pub(crate) const MAX_COEFFICIENT: u128 = 10_u128.pow(34);

const NAN: u128 = 0x7C << 120;
const INFINITY: u128 = 0x78 << 120;
const SIGN: u128 = 1 << 127;
const EXPONENT_AT: u32 = 113;
const COEFFICIENT: u128 = (1 << EXPONENT_AT) - 1;
/// The form of numbers with more digits than there may be: they count as zero.
const TOO_LONG: u128 = 0b11 << 125;

/// A finite decimal number taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal<'a> {
    is_negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    /// The power of ten of the last digit of `fraction`.
    exponent: i64,
}

/// A Decimal128 taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decimal128 {
    Nan,
    Infinity {
        is_negative: bool,
    },
    Finite {
        is_negative: bool,
        coefficient: u128,
        exponent: i64,
    },
}

/// What a Decimal128 is.
pub(crate) fn take_apart(bytes: [u8; 16]) -> Decimal128 {
    let bits = u128::from_le_bytes(bytes);
    let is_negative = bits & SIGN != 0;
    if bits & NAN == NAN {
        return Decimal128::Nan;
    }
    if bits & NAN == INFINITY {
        return Decimal128::Infinity { is_negative };
    }
    let biased = i64::try_from((bits & !SIGN) >> EXPONENT_AT).unwrap_or(0);
    let coefficient = bits & COEFFICIENT;
    let is_number = bits & TOO_LONG != TOO_LONG && coefficient < MAX_COEFFICIENT;
    Decimal128::Finite {
        is_negative,
        coefficient: if is_number { coefficient } else { 0 },
        exponent: biased.saturating_add(MIN_EXPONENT),
    }
}

/// The Decimal128 of a text of PostgreSQL's `numeric`; none when it does not fit exactly.
pub(crate) fn from_numeric(text: &str) -> Option<[u8; 16]> {
    let special = match text {
        "NaN" => NAN,
        "Infinity" => INFINITY,
        "-Infinity" => INFINITY | SIGN,
        _ => return Decimal::parse(text.as_bytes())?.to_decimal128(),
    };
    Some(special.to_le_bytes())
}

// === impl Decimal ===

impl<'a> Decimal<'a> {
    /// Takes apart `-12.50e+3`; none when it is no such text or its exponent is astronomical.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix(b"-") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            None => (text, 0),
            Some(at) => (text.get(..at)?, exponent(text.get(at.checked_add(1)?..)?)?),
        };
        let (integer, fraction): (_, &[u8]) = match mantissa.iter().position(|&byte| byte == b'.') {
            None => (mantissa, b""),
            Some(at) => (mantissa.get(..at)?, mantissa.get(at.checked_add(1)?..)?),
        };
        let is_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if integer.is_empty() || !is_digits(integer) || !is_digits(fraction) {
            return None;
        }
        let exponent = power.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self {
            is_negative,
            integer,
            fraction,
            exponent,
        })
    }

    /// The Decimal128 with the same digits and scale; none when there is none.
    pub(crate) fn to_decimal128(self) -> Option<[u8; 16]> {
        if !(MIN_EXPONENT..=MAX_EXPONENT).contains(&self.exponent) {
            return None;
        }
        let mut coefficient = 0_u128;
        let mut digits = 0_usize;
        for digit in self.digits() {
            digits = digits.checked_add(1).filter(|&n| n <= MAX_DIGITS)?;
            coefficient = coefficient.checked_mul(10)?.checked_add(digit.into())?;
        }
        let biased = u128::try_from(self.exponent.checked_sub(MIN_EXPONENT)?).ok()?;
        let sign = if self.is_negative { SIGN } else { 0 };
        Some((sign | (biased << EXPONENT_AT) | coefficient).to_le_bytes())
    }

    /// The double that is exactly this number when written in its shortest form; none when there is
    /// no such double.
    pub(crate) fn to_double(self, text: &str) -> Option<f64> {
        let double: f64 = text
            .parse()
            .ok()
            .filter(|double: &f64| double.is_finite())?;
        let shortest = format!("{double:e}");
        let shortest = Decimal::parse(shortest.as_bytes())?;
        self.is_same_number(shortest).then_some(double)
    }

    fn is_same_number(self, other: Self) -> bool {
        let (mine, theirs) = (self.trailing_zeros(), other.trailing_zeros());
        let significant = |decimal: Self, zeros| {
            let len = decimal.digits().count().saturating_sub(zeros);
            (len, decimal.digits().take(len))
        };
        let ((my_len, my_digits), (their_len, their_digits)) =
            (significant(self, mine), significant(other, theirs));
        if my_len == 0 || their_len == 0 {
            return my_len == their_len;
        }
        let power = |decimal: Self, zeros| decimal.exponent.checked_add(i64::try_from(zeros).ok()?);
        self.is_negative == other.is_negative
            && power(self, mine) == power(other, theirs)
            && my_digits.eq(their_digits)
    }

    /// The digits from the first that is not zero.
    fn digits(self) -> impl DoubleEndedIterator<Item = u8> + Clone + use<'a> {
        let zeros = |part: &[u8]| part.iter().take_while(|&&byte| byte == b'0').count();
        let skip = zeros(self.integer);
        let integer = self.integer.get(skip..).unwrap_or_default();
        let skip = if integer.is_empty() {
            zeros(self.fraction)
        } else {
            0
        };
        let fraction = self.fraction.get(skip..).unwrap_or_default();
        integer
            .iter()
            .chain(fraction)
            .map(|byte| byte.wrapping_sub(b'0'))
    }

    fn trailing_zeros(self) -> usize {
        self.digits().rev().take_while(|&digit| digit == 0).count()
    }
}

/// The digits after `e`, within a billion of zero.
fn exponent(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_kept_up_to_thirty_four_digits() {
        let nines = "9".repeat(34);
        let texts = [
            "0",
            "0.00",
            "-1",
            "123.4500",
            "0.0001",
            "1000000000000000000000",
            &nines,
            "NaN",
            "Infinity",
            "-Infinity",
        ];
        for text in texts {
            let decimal = from_numeric(text).map(bson::Decimal128::from_bytes);
            assert_eq!(
                decimal.map(|decimal| decimal.to_string()).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn what_would_be_rounded_has_no_decimal128() {
        let (digits, scale) = ("1".repeat(35), format!("0.{}1", "0".repeat(6_176)));
        let zeros = format!("1{}", "0".repeat(34));
        for text in [
            digits.as_str(),
            &scale,
            &zeros,
            "",
            "-",
            ".5",
            "1e",
            "1e99999999999",
            "x",
        ] {
            assert_eq!(from_numeric(text), None, "{text}");
        }
        assert!(from_numeric("1e6111").is_some() && from_numeric("1e6112").is_none());
    }

    #[test]
    fn a_double_is_the_same_number_or_none() {
        let double = |text: &str| Decimal::parse(text.as_bytes())?.to_double(text);
        for text in [
            "0.1", "1.50", "1e3", "-0.0", "100.00", "1e300", "5e-324", "0e9",
        ] {
            assert_eq!(double(text), text.parse().ok(), "{text}");
        }
        for text in [
            "0.1000000000000000055511151231257827",
            "12345678901234567890",
            "1e400",
        ] {
            assert_eq!(double(text), None, "{text}");
        }
    }
}
