//! Values to BSON, as bytes (the table of the design, section 4).
//!
//! - A value that BSON cannot hold follows a [`Policies`] entry or is refused; nothing is changed
//!   in silence.
//! - Inside `_id` nothing is lossy: timestamps finer than milliseconds are text there, by their
//!   type and not by their value, and JSON is its text; an array says how it is counted.

pub(crate) mod decimal;
pub(crate) mod element;
pub(crate) mod json;
pub(crate) mod nested;
pub(crate) mod time;

use walferry_schema::{Column, Date, Instant, Type, Value, time_text};

use element::kind;

/// The finest precision, in digits of a second, that BSON's dates have.
const DATE_DIGITS: u8 = 3;

/// How deep a part of a value may stand in it: an array has six levels at most, a composite a few.
const LEVELS_ABOVE_PARTS: usize = 12;

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

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Field,
    /// Within another value of a field.
    Part,
    Id,
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
    append_at(out, name, value, policies, Place::Field)
}

/// Appends a value in the form that it has inside `_id`, as an element called `name`.
pub(crate) fn append_key(
    out: &mut Vec<u8>,
    name: &str,
    value: &Value<'_>,
    policies: Policies,
) -> Result<(), NumberTooLarge> {
    append_at(out, name, value, policies, Place::Id).map(drop)
}

/// Appends the payload of a value inside `_id`: its type.
pub(crate) fn key_payload(
    out: &mut Vec<u8>,
    value: &Value<'_>,
    policies: Policies,
) -> Result<u8, NumberTooLarge> {
    let text = match value {
        Value::Timestamp(Instant::At { days, micros }, digits) if *digits > DATE_DIGITS => {
            time::iso((*days).into(), *micros, *digits, "")
        }
        Value::TimestampTz(Instant::At { days, micros }, digits) if *digits > DATE_DIGITS => {
            time::iso((*days).into(), *micros, *digits, "Z")
        }
        // MongoDB orders numbers of different types together.
        Value::Json(text) => return Ok(string(out, text)),
        value => return payload(out, value, policies, Place::Id).map(|(kind, _)| kind),
    };
    Ok(string(out, &text))
}

fn append_at(
    out: &mut Vec<u8>,
    name: &str,
    value: &Value<'_>,
    policies: Policies,
    place: Place,
) -> Result<Loss, NumberTooLarge> {
    let start = out.len();
    element::header(out, kind::NULL, name);
    let (kind, loss) = match place {
        Place::Field | Place::Part => payload(out, value, policies, place)?,
        Place::Id => (key_payload(out, value, policies)?, Loss::None),
    };
    if let Some(byte) = out.get_mut(start) {
        *byte = kind;
    }
    Ok(loss)
}

/// Whether a column is followed by `<column>_us` under [`Microseconds::Keep`].
pub(crate) fn has_microseconds(column: &Column) -> bool {
    is_finer_than_dates(&column.kind)
}

/// Whether it is a point in time with more digits than BSON's dates.
pub(crate) fn is_finer_than_dates(kind: &Type) -> bool {
    matches!(kind, Type::Timestamp(digits) | Type::TimestampTz(digits) if *digits > DATE_DIGITS)
}

/// Appends the field `<column>_us` of a timestamp.
pub(crate) fn append_microseconds(out: &mut Vec<u8>, column: &str, value: &Value<'_>) {
    let name = microseconds_name(column);
    let instant = match value {
        Value::Timestamp(instant, _) | Value::TimestampTz(instant, _) => *instant,
        _ => return element::header(out, kind::NULL, &name),
    };
    match time::endless(instant) {
        Ok((days, micros)) => {
            // Decimal128 past 64 bits, from the year 294247 on.
            let micros = Instant::micros(days, micros);
            if let Ok(micros) = i64::try_from(micros) {
                element::header(out, kind::INT64, &name);
                out.extend_from_slice(&micros.to_le_bytes());
            } else if let Some(decimal) = decimal::from_numeric(&micros.to_string()) {
                element::header(out, kind::DECIMAL128, &name);
                out.extend_from_slice(&decimal);
            }
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
    place: Place,
) -> Result<(u8, Loss), NumberTooLarge> {
    let kind = match value {
        Value::Null => kind::NULL,
        Value::Bool(value) => fixed(out, kind::BOOLEAN, &[u8::from(*value)]),
        Value::Int4(number) => fixed(out, kind::INT32, &number.to_le_bytes()),
        Value::Int8(number) => fixed(out, kind::INT64, &number.to_le_bytes()),
        Value::Float(number) => fixed(out, kind::DOUBLE, &number.to_le_bytes()),
        Value::Numeric(text) => numeric(out, text, policies.numeric_overflow)?,
        Value::Text(text) | Value::Bits(text) => string(out, text),
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
        Value::Json(text) => {
            let levels_above = if place == Place::Field {
                0
            } else {
                LEVELS_ABOVE_PARTS
            };
            json::payload(out, text, levels_above).unwrap_or_else(|| string(out, text))
        }
        Value::Time(micros, _) => string(out, &time_text(*micros)),
        Value::TimeTz(time) => string(out, &time.to_string()),
        Value::Interval(interval) => string(out, &interval.to_string()),
        Value::Point(x, y) => nested::point(out, *x, *y),
        Value::Hstore(entries) => nested::hstore(out, entries),
        Value::Array(array) => return nested::array(out, array, policies, place),
        Value::Literal(literal) => return nested::literal(out, literal, policies, place),
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
            &(i64::from(days) * time::MILLIS_PER_DAY).to_le_bytes(),
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
