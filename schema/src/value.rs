//! Values: PostgreSQL's text with a type, decoded once for every target.
//!
//! - Text of another form than PostgreSQL writes for the type is an error, never a panic, never a
//!   near value.

pub(crate) mod calendar;
pub(crate) mod text;
pub(crate) mod time;

use std::borrow::Cow;

use crate::Type;

/// How much of a refused text an error shows, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// A typed value, borrowed from the row or record where that is possible.
///
/// Both paths end here (PostgreSQL's text from the stream or a COPY, and the JSON of the
/// envelope), so that a sink has one conversion and the paths cannot differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// `bool`
    Bool(bool),
    /// `int2`, `int4`
    Int4(i32),
    /// `int8`, `oid`
    Int8(i64),
    /// `float4` (through its shortest text), `float8`; NaN and infinities included.
    Float(f64),
    /// `numeric`: PostgreSQL's text, so scale and trailing zeros are kept; `NaN`, `Infinity`,
    /// `-Infinity`.
    Numeric(Cow<'a, str>),
    /// Everything that travels as text.
    Text(Cow<'a, str>),
    /// `bytea`
    Bytes(Cow<'a, [u8]>),
    /// `uuid`, in network order.
    Uuid([u8; 16]),
    /// `date`
    Date(Date),
    /// `timestamp`: wall-clock microseconds without a zone, with the declared precision (0–6).
    Timestamp(Instant, u8),
    /// `timestamptz`: UTC, with the declared precision (0–6).
    TimestampTz(Instant, u8),
    /// `json`, `jsonb`: the document's text.
    Json(Cow<'a, str>),
}

/// A calendar day, BC and far years included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Date {
    /// `-infinity`
    NegInfinity,
    /// Days since 1970-01-01, proleptic Gregorian.
    Days(i32),
    /// `infinity`
    Infinity,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instant {
    /// `-infinity`
    NegInfinity,
    /// Microseconds since 1970-01-01T00:00:00, proleptic Gregorian.
    Micros(i64),
    /// `infinity`
    Infinity,
}

/// A value's text or JSON that its type does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a value of type {kind:?}: {text:?}")]
pub struct ValueError {
    /// The type that was expected.
    pub kind: Type,
    /// The beginning of the text.
    pub text: String,
}

// === impl Value ===

impl<'a> Value<'a> {
    /// Decodes PostgreSQL's text output (`DateStyle=ISO`, `TimeZone=UTC`, `bytea_output=hex`).
    ///
    /// A timestamp must have no digits below its declared precision, and lie before
    /// 294247-01-10T04:00:54.775808, where 64 bits of microseconds since 1970 end (PostgreSQL
    /// counts from 2000 and ends thirty years later).
    ///
    /// # Errors
    /// When the text is not UTF-8 or not of the type.
    pub fn from_text(kind: Type, text: &'a [u8]) -> Result<Self, ValueError> {
        decode(kind, text).ok_or_else(|| ValueError::new(kind, text))
    }
}

// === impl ValueError ===

impl ValueError {
    pub(crate) fn new(kind: Type, text: &[u8]) -> Self {
        // A character has at most four bytes; one cut off shows as a replacement character.
        let beginning = text.get(..4 * SHOWN_CHARACTERS).unwrap_or(text);
        let text = String::from_utf8_lossy(beginning)
            .chars()
            .take(SHOWN_CHARACTERS)
            .collect();
        Self { kind, text }
    }
}

/// As [`Value::from_text`]; none for a text that is not of the type.
#[inline]
pub(crate) fn decode(kind: Type, bytes: &[u8]) -> Option<Value<'_>> {
    Some(match kind {
        Type::Bool => Value::Bool(text::boolean(bytes)?),
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => integer(kind, bytes)?,
        Type::Float4 => Value::Float(text::float4(bytes)?),
        Type::Float8 => Value::Float(text::float8(bytes)?),
        Type::Numeric if text::is_numeric(bytes) => Value::Numeric(string(bytes)?),
        Type::Numeric => return None,
        Type::Bytea => Value::Bytes(Cow::Owned(text::bytea(bytes)?)),
        Type::Uuid => Value::Uuid(text::uuid(bytes)?),
        Type::Date => Value::Date(time::date(bytes)?),
        Type::Timestamp(p) => Value::Timestamp(time::timestamp(bytes, p, b"")?, p),
        Type::TimestampTz(p) => Value::TimestampTz(time::timestamp(bytes, p, b"+00")?, p),
        Type::Json => Value::Json(string(bytes)?),
        Type::Text => Value::Text(string(bytes)?),
    })
}

/// The integer of a type, within the type's range.
#[inline]
pub(crate) fn integer<'a>(kind: Type, bytes: &[u8]) -> Option<Value<'a>> {
    let number = text::integer(bytes)?;
    match kind {
        Type::Int2 => i16::try_from(number)
            .ok()
            .map(|number| Value::Int4(number.into())),
        Type::Int4 => i32::try_from(number).ok().map(Value::Int4),
        Type::Oid => u32::try_from(number)
            .ok()
            .map(|number| Value::Int8(number.into())),
        _ => Some(Value::Int8(number)),
    }
}

fn string(bytes: &[u8]) -> Option<Cow<'_, str>> {
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests;
