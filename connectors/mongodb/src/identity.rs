//! When two `_id`s are one to MongoDB.
//!
//! - Numbers are one where their values are, whatever their types and scales, within documents too: a column of the key
//!   that gets another type leaves its rows under the `_id`s that they had.
//! - All that is one has the same identity, and nothing else has.

use std::borrow::Cow;

use crate::bson_value::decimal::{self, Decimal128};
use crate::bson_value::element::{Elements, kind};

/// How many bits a double's fraction has.
const FRACTION_BITS: u32 = 52;
/// What is taken from the exponent of a double whose mantissa is a whole number.
const EXPONENT_BIAS: i32 = 1_075;

/// A number, in the one form that its value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Integer(i64),
    /// Another number with so many digits that a decimal can be it; the last digit is none of zero.
    Decimal {
        is_negative: bool,
        coefficient: u128,
        exponent: i64,
    },
    /// A number that only a double can be, or none, or an endless one: its bits.
    Double(u64),
}

/// What an `_id` (type byte and payload) has in common with all that are one with it: bytes that are no BSON.
pub fn identity(id: &[u8]) -> Cow<'_, [u8]> {
    match id.split_first() {
        Some((
            &kind @ (kind::INT32 | kind::DOUBLE | kind::DECIMAL128 | kind::DOCUMENT | kind::ARRAY),
            payload,
        )) => {
            let mut out = Vec::with_capacity(id.len() + size_of::<i64>());
            append(&mut out, kind, payload);
            Cow::Owned(out)
        }
        _ => Cow::Borrowed(id),
    }
}

fn append(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    if matches!(kind, kind::DOCUMENT | kind::ARRAY) {
        out.push(kind);
        for element in Elements::of_document(payload) {
            out.extend_from_slice(element.name);
            out.push(0);
            if let (Some(&kind), Some(payload)) = (
                element.bytes.first(),
                element.bytes.get(element.name.len() + 2..),
            ) {
                append(out, kind, payload);
            }
        }
        // Behind an empty name comes a type, which is never zero.
        return out.extend_from_slice(&[0, 0]);
    }
    if let Some(number) = Number::of(kind, payload) {
        number.append(out);
    } else {
        out.push(kind);
        out.extend_from_slice(payload);
    }
}

// === impl Number ===

impl Number {
    /// None when it is no number.
    fn of(kind: u8, payload: &[u8]) -> Option<Self> {
        Some(match kind {
            kind::INT32 => Self::Integer(i32::from_le_bytes(payload.try_into().ok()?).into()),
            kind::INT64 => Self::Integer(i64::from_le_bytes(payload.try_into().ok()?)),
            kind::DOUBLE => Self::of_double(f64::from_le_bytes(payload.try_into().ok()?)),
            kind::DECIMAL128 => match decimal::take_apart(payload.try_into().ok()?) {
                Decimal128::Nan => Self::of_double(f64::NAN),
                Decimal128::Infinity { is_negative: false } => Self::of_double(f64::INFINITY),
                Decimal128::Infinity { is_negative: true } => Self::of_double(f64::NEG_INFINITY),
                Decimal128::Finite {
                    is_negative,
                    coefficient,
                    exponent,
                } => Self::finite(is_negative, coefficient, exponent),
            },
            _ => return None,
        })
    }

    fn of_double(number: f64) -> Self {
        if number.is_nan() {
            // Of which there are many.
            return Self::Double(f64::NAN.to_bits());
        }
        Self::exact(number).unwrap_or(Self::Double(number.to_bits()))
    }

    /// The number where a decimal can be it.
    fn exact(number: f64) -> Option<Self> {
        if !number.is_finite() {
            return None;
        }
        let bits = number.to_bits();
        let biased = i32::try_from((bits >> FRACTION_BITS) & 0x7FF).ok()?;
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        // The least exponent has no leading one.
        let mut mantissa = if biased == 0 {
            fraction
        } else {
            fraction | (1 << FRACTION_BITS)
        };
        if mantissa == 0 {
            return Some(Self::Integer(0));
        }
        let zeros = mantissa.trailing_zeros();
        mantissa >>= zeros;
        let mut twos = biased.max(1) - EXPONENT_BIAS + i32::try_from(zeros).ok()?;
        let mut tens = 0;
        while twos > 0 && mantissa.is_multiple_of(5) {
            (mantissa, twos, tens) = (mantissa / 5, twos - 1, tens + 1);
        }
        // A half is five tenths.
        let base: u128 = if twos < 0 { 5 } else { 2 };
        let factor = base.checked_pow(twos.unsigned_abs())?;
        let coefficient = u128::from(mantissa).checked_mul(factor)?;
        let exponent = if twos < 0 { twos.into() } else { tens };
        (coefficient < decimal::MAX_COEFFICIENT)
            .then(|| Self::finite(number.is_sign_negative(), coefficient, exponent))
    }

    fn finite(is_negative: bool, mut coefficient: u128, mut exponent: i64) -> Self {
        if coefficient == 0 {
            return Self::Integer(0);
        }
        while coefficient.is_multiple_of(10) {
            (coefficient, exponent) = (coefficient / 10, exponent + 1);
        }
        integer(is_negative, coefficient, exponent).map_or(
            Self::Decimal {
                is_negative,
                coefficient,
                exponent,
            },
            Self::Integer,
        )
    }

    fn append(self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => {
                out.push(kind::INT64);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Decimal {
                is_negative,
                coefficient,
                exponent,
            } => {
                out.extend_from_slice(&[kind::DECIMAL128, is_negative.into()]);
                out.extend_from_slice(&coefficient.to_le_bytes());
                out.extend_from_slice(&exponent.to_le_bytes());
            }
            Self::Double(bits) => {
                out.push(kind::DOUBLE);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
    }
}

/// The whole number within 64 bits, if it is one.
fn integer(is_negative: bool, coefficient: u128, exponent: i64) -> Option<i64> {
    let power = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
    let magnitude = i128::try_from(coefficient).ok()?.checked_mul(power)?;
    let number = if is_negative { -magnitude } else { magnitude };
    i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Decimal128 as Decimal, doc};
    use proptest::prelude::*;

    fn id(value: Bson) -> Vec<u8> {
        let document = doc! { "": value }.to_vec().expect("a document");
        let element = Elements::of_document(&document).next().expect("a value");
        [&element.bytes[..1], &element.bytes[2..]].concat()
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse::<Decimal>().expect("a decimal"))
    }

    fn are_one(values: &[Bson]) -> bool {
        let ids: Vec<_> = values.iter().map(|it| id(it.clone())).collect();
        ids.iter().all(|it| identity(it) == identity(&ids[0]))
    }

    #[test]
    fn equal_numbers_are_one_whatever_their_types() {
        let all: [&[Bson]; 9] = [
            &[
                5.into(),
                5_i64.into(),
                5.0.into(),
                decimal("5"),
                decimal("5.00"),
                decimal("0.5E+1"),
            ],
            &[
                0.into(),
                0_i64.into(),
                (-0.0).into(),
                decimal("-0.00"),
                decimal("0E+9"),
            ],
            &[(-7).into(), (-7_i64).into(), decimal("-7.0")],
            &[
                i64::MIN.into(),
                (-9_223_372_036_854_775_808.0).into(),
                decimal("-9223372036854775808"),
            ],
            &[
                9_223_372_036_854_775_808.0.into(),
                decimal("9223372036854775808"),
            ],
            &[0.5.into(), decimal("0.5"), decimal("0.500")],
            &[1e22.into(), decimal("1E+22")],
            &[f64::NAN.into(), (-f64::NAN).into(), decimal("NaN")],
            &[f64::NEG_INFINITY.into(), decimal("-Infinity")],
        ];
        for values in all {
            assert!(are_one(values), "{values:?}");
        }
        for (at, first) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert!(!are_one(&[first[0].clone(), other[0].clone()]));
            }
        }
    }

    #[test]
    fn what_only_looks_alike_is_not_one() {
        let pairs: [(Bson, Bson); 11] = [
            (0.1.into(), decimal("0.1")),
            (
                9_007_199_254_740_993_i64.into(),
                9_007_199_254_740_992.0.into(),
            ),
            (5.into(), "5".into()),
            (0.into(), false.into()),
            (1.into(), (-1).into()),
            (decimal("1.5"), decimal("-1.5")),
            (doc! { "a": 1 }.into(), doc! { "b": 1 }.into()),
            (
                doc! { "a": 1, "b": 2 }.into(),
                doc! { "b": 2, "a": 1 }.into(),
            ),
            (doc! { "a": 1 }.into(), doc! { "a": 1, "": 0 }.into()),
            (
                doc! { "a": {}, "b": 1 }.into(),
                doc! { "a": { "b": 1 } }.into(),
            ),
            (1e300.into(), f64::INFINITY.into()),
        ];
        for (one, other) in pairs {
            assert!(!are_one(&[one.clone(), other.clone()]), "{one} {other}");
        }
    }

    #[test]
    fn numbers_within_documents_are_one_too() {
        let key = |a: Bson| Bson::from(doc! { "a": a, "b": { "array": [1_i64, "x"] } });
        assert!(are_one(&[
            key(5.into()),
            key(5_i64.into()),
            key(decimal("5.0"))
        ]));
        let other = doc! { "a": 5, "b": { "array": [1, "x"] } };
        assert!(are_one(&[key(5.into()), other.into()]));
        for plain in ["x".into(), 5_i64.into()] {
            assert!(matches!(identity(&id(plain)), Cow::Borrowed(_)));
        }
    }

    proptest! {
        #[test]
        fn a_number_is_one_with_its_decimal(number in any::<i64>(), scale in 0..9_usize) {
            let text = format!("{number}.{}", "0".repeat(scale + 1));
            prop_assert!(are_one(&[number.into(), decimal(&text)]));
        }

        #[test]
        fn a_double_is_one_with_the_decimal_that_it_is(mantissa in -999_999..999_999_i32, halves in 0..10) {
            let number = f64::from(mantissa) / f64::from(1 << halves);
            prop_assert!(are_one(&[number.into(), decimal(&number.to_string())]));
        }

        #[test]
        fn any_double_has_an_identity(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assert!(are_one(&[number.into(), number.into()]));
        }
    }
}
