//! Values to BSON, as bytes (the table of the design, section 4).
//!
//! - A value that BSON cannot hold follows a [`Policies`] entry or is refused; nothing is changed
//!   in silence.
//! - Inside `_id` nothing is lossy: timestamps finer than milliseconds are text there, by their
//!   type and not by their value, and JSON is its text.

pub(crate) mod decimal;
pub(crate) mod element;
pub(crate) mod json;
pub(crate) mod time;

use walferry_schema::{Column, Date, Instant, Type, Value};

use element::kind;

const MILLIS_PER_DAY: i64 = 86_400_000;
/// The finest precision, in digits of a second, that BSON's dates have.
const DATE_DIGITS: u8 = 3;

/// What becomes of values without an exact form in BSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// `numeric` values of more than 34 digits, or outside Decimal128's exponents.
    pub numeric_overflow: NumericOverflow,
    /// The microseconds of timestamps.
    pub microseconds: Microseconds,
}

/// See [`Policies::numeric_overflow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumericOverflow {
    /// The number becomes a string: PostgreSQL's text.
    #[default]
    String,
    /// The row is refused.
    Error,
}

/// See [`Policies::microseconds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Microseconds {
    /// Cut off towards the past, and counted per column.
    #[default]
    Truncate,
    /// Columns with a precision above 3 are followed by a field `<column>_us`: all microseconds
    /// since 1970 as a 64-bit integer, null and infinities as in the column's own field.
    Keep,
}

/// What a value lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    None,
    Microseconds,
}

/// A number that Decimal128 cannot hold, where the policy refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberTooLarge;

/// Appends a value as an element called `name`.
pub(crate) fn append(
    out: &mut Vec<u8>,
    name: &str,
    value: &Value<'_>,
    policies: Policies,
) -> Result<Loss, NumberTooLarge> {
    let start = out.len();
    element::header(out, kind::NULL, name);
    let (kind, loss) = payload(out, value, policies)?;
    if let Some(byte) = out.get_mut(start) {
        *byte = kind;
    }
    Ok(loss)
}

/// Appends a value in the form that it has inside `_id`, as an element called `name`.
pub(crate) fn append_key(
    out: &mut Vec<u8>,
    name: &str,
    value: &Value<'_>,
    policies: Policies,
) -> Result<(), NumberTooLarge> {
    let start = out.len();
    element::header(out, kind::NULL, name);
    let kind = key_payload(out, value, policies)?;
    if let Some(byte) = out.get_mut(start) {
        *byte = kind;
    }
    Ok(())
}

/// Appends the payload of a value inside `_id`: its type.
pub(crate) fn key_payload(
    out: &mut Vec<u8>,
    value: &Value<'_>,
    policies: Policies,
) -> Result<u8, NumberTooLarge> {
    let text = match value {
        Value::Timestamp(Instant::Micros(micros), precision) if *precision > DATE_DIGITS => {
            time::iso(*micros, *precision, "")
        }
        Value::TimestampTz(Instant::Micros(micros), precision) if *precision > DATE_DIGITS => {
            time::iso(*micros, *precision, "Z")
        }
        // MongoDB refuses arrays as `_id`, and orders numbers of different types together.
        Value::Json(text) => {
            element::string_payload(out, text);
            return Ok(kind::STRING);
        }
        value => return payload(out, value, policies).map(|(kind, _)| kind),
    };
    element::string_payload(out, &text);
    Ok(kind::STRING)
}

/// Whether a column is followed by `<column>_us` under [`Microseconds::Keep`].
pub(crate) fn has_microseconds(column: &Column) -> bool {
    matches!(column.kind, Type::Timestamp(digits) | Type::TimestampTz(digits) if digits > DATE_DIGITS)
}

/// Appends the field `<column>_us` of a timestamp.
pub(crate) fn append_microseconds(out: &mut Vec<u8>, column: &str, value: &Value<'_>) {
    let name = microseconds_name(column);
    let instant = match value {
        Value::Timestamp(instant, _) | Value::TimestampTz(instant, _) => *instant,
        _ => return element::header(out, kind::NULL, &name),
    };
    match time::endless(instant) {
        Ok(micros) => {
            element::header(out, kind::INT64, &name);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Err(text) => element::string(out, &name, text),
    }
}

/// The field that holds a column's microseconds.
pub(crate) fn microseconds_name(column: &str) -> String {
    format!("{column}_us")
}

fn payload(
    out: &mut Vec<u8>,
    value: &Value<'_>,
    policies: Policies,
) -> Result<(u8, Loss), NumberTooLarge> {
    let kind = match value {
        Value::Null => kind::NULL,
        Value::Bool(value) => fixed(out, kind::BOOLEAN, &[u8::from(*value)]),
        Value::Int4(number) => fixed(out, kind::INT32, &number.to_le_bytes()),
        Value::Int8(number) => fixed(out, kind::INT64, &number.to_le_bytes()),
        Value::Float(number) => fixed(out, kind::DOUBLE, &number.to_le_bytes()),
        Value::Numeric(text) => numeric(out, text, policies.numeric_overflow)?,
        Value::Text(text) => string(out, text),
        Value::Bytes(bytes) => {
            element::binary_payload(out, element::GENERIC, bytes);
            kind::BINARY
        }
        Value::Uuid(bytes) => {
            element::binary_payload(out, element::UUID, bytes);
            kind::BINARY
        }
        Value::Date(date) => day(out, *date),
        Value::Timestamp(instant, _) | Value::TimestampTz(instant, _) => {
            return Ok(timestamp(out, *instant));
        }
        Value::Json(text) => json::payload(out, text).unwrap_or_else(|| string(out, text)),
    };
    Ok((kind, Loss::None))
}

fn numeric(out: &mut Vec<u8>, text: &str, policy: NumericOverflow) -> Result<u8, NumberTooLarge> {
    match (decimal::from_numeric(text), policy) {
        (Some(decimal), _) => Ok(fixed(out, kind::DECIMAL128, &decimal)),
        (None, NumericOverflow::String) => Ok(string(out, text)),
        (None, NumericOverflow::Error) => Err(NumberTooLarge),
    }
}

fn day(out: &mut Vec<u8>, date: Date) -> u8 {
    match date {
        Date::Days(days) => fixed(
            out,
            kind::DATE,
            &(i64::from(days) * MILLIS_PER_DAY).to_le_bytes(),
        ),
        Date::Infinity => string(out, "infinity"),
        Date::NegInfinity => string(out, "-infinity"),
    }
}

fn timestamp(out: &mut Vec<u8>, instant: Instant) -> (u8, Loss) {
    match time::endless(instant).map(time::millis) {
        Ok((millis, is_cut)) => {
            let loss = if is_cut {
                Loss::Microseconds
            } else {
                Loss::None
            };
            (fixed(out, kind::DATE, &millis.to_le_bytes()), loss)
        }
        Err(text) => (string(out, text), Loss::None),
    }
}

fn string(out: &mut Vec<u8>, text: &str) -> u8 {
    element::string_payload(out, text);
    kind::STRING
}

fn fixed(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) -> u8 {
    out.extend_from_slice(bytes);
    kind
}
