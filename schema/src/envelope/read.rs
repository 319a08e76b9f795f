//! From a record's JSON, and from PostgreSQL's row, to the image that a sink writes.
//!
//! - Each value is the one that PostgreSQL's text gives: what the JSON form drops, the column's
//!   type restores.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::members::{Members, Token};
use super::{Envelope, EnvelopeError, Op};
use crate::change::Cell;
use crate::value::{self, integer, text, time};
use crate::{Column, Date, Field, Image, Instant, Row, Type, Value, ValueError};

/// The bytes of `,"op":"c"`.
const OP_BYTES: usize = 9;

#[derive(Deserialize)]
struct Document<'a> {
    op: Op,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Reads the value of a record; members that it does not need are ignored.
    ///
    /// # Errors
    /// When the bytes are not an envelope, or one of another `op` than [`Op`] has.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        // Checked once for all, which is faster than string by string.
        let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        if let Some(envelope) = Self::as_written(text) {
            return Ok(envelope);
        }
        let Document { op, before, after } = serde_json::from_str(text)?;
        Ok(Self {
            op,
            before: before.map(RawValue::get),
            after: after.map(RawValue::get),
        })
    }

    /// Reads what [`write_value`](super::write_value) wrote: both rows stand at the beginning and the
    /// operation at the end, so that the 500 bytes between them are passed over. None when the
    /// members stand elsewhere.
    pub(super) fn as_written(text: &'a str) -> Option<Self> {
        let op = op_at_end(text)?;
        let (before, rest) = leading_row(text.strip_prefix("{\"before\":")?)?;
        let rest = rest.strip_prefix(",\"after\":")?;
        let after = (!rest.starts_with("null,")).then_some(rest);
        let is_row = after.is_none_or(|row| row.starts_with('{'));
        is_row.then_some(Self { op, before, after })
    }
}

/// The operation of an envelope that ends in `"op":"c","ts_ms":1,"ts_us":2,"ts_ns":3}`. In JSON only
/// members of the envelope itself can stand there: a quote within a string would have a backslash, and
/// a member of a member would be followed by two braces.
fn op_at_end(text: &str) -> Option<Op> {
    let mut rest = text.strip_suffix('}')?;
    for name in [",\"ts_ns\":", ",\"ts_us\":", ",\"ts_ms\":"] {
        let number = rest.trim_end_matches(|symbol: char| symbol.is_ascii_digit());
        if number.len() == rest.len() {
            return None;
        }
        rest = number.strip_suffix(name)?;
    }
    let (_, op) = rest.split_at_checked(rest.len().checked_sub(OP_BYTES)?)?;
    let op = op.strip_prefix(",\"op\":\"")?.strip_suffix('"')?;
    Op::ALL.into_iter().find(|known| known.name() == op)
}

/// When the reader decoded the change, microseconds since 1970, of an envelope as
/// [`write_value`](super::write_value) wrote it; none of another.
pub fn decoded_at(envelope: &str) -> Option<i64> {
    let (_, nanoseconds) = envelope.strip_suffix('}')?.rsplit_once(",\"ts_ns\":")?;
    let nanoseconds: i64 = nanoseconds.parse().ok()?;
    Some(nanoseconds / 1_000)
}

/// The row or `null` that a text begins with, and what follows it; none when it is neither.
fn leading_row(text: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = text.strip_prefix("null") {
        return Some((None, rest));
    }
    let mut members = Members::of(text).ok()?;
    while let Some((_, token)) = members.next().ok()? {
        if matches!(token, Token::Nested(_)) {
            return None;
        }
    }
    Some((Some(text), members.rest()))
}

/// The image of a row (`before` or `after` of an envelope, or a key's JSON): one field for each of
/// `columns`, absent where the JSON has no such member. What follows the row's closing brace is not
/// looked at.
///
/// # Errors
/// When a value does not fit its column's type or a member is no column.
pub fn read_image<'a>(columns: &'a [Column], row: &'a str) -> Result<Image<'a>, EnvelopeError> {
    let mut fields = vec![Field::Absent; columns.len()];
    let mut members = Members::of(row)?;
    let mut expected = 0_usize;
    while let Some((name, token)) = members.next()? {
        let Some((index, column)) = find(columns, expected, &name) else {
            return Err(EnvelopeError::UnknownColumn(name.into_owned()));
        };
        let value =
            decode(column.kind, token).map_err(|source| EnvelopeError::value(column, source))?;
        if let Some(field) = fields.get_mut(index) {
            *field = Field::Present(value);
        }
        expected = index.saturating_add(1);
    }
    Ok(Image { columns, fields })
}

/// The image of a record's key: fields for the key's columns only.
///
/// # Errors
/// As those of [`read_image`].
pub fn read_key<'a>(columns: &'a [Column], key: &'a [u8]) -> Result<Image<'a>, EnvelopeError> {
    let key = std::str::from_utf8(key).map_err(serde_json::Error::custom)?;
    read_image(columns, key)
}

/// The image of a row as PostgreSQL sent it.
///
/// # Errors
/// When a cell's text does not fit its type.
pub fn row_image<'a>(columns: &'a [Column], row: &'a Row) -> Result<Image<'a>, EnvelopeError> {
    // A loop: collecting results would move each value several times.
    let mut fields = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        fields.push(match row.cell(index) {
            Cell::Null => Field::Present(Value::Null),
            Cell::Unchanged => Field::Absent,
            Cell::Text(text) => {
                let Some(value) = value::decode(column.kind, text) else {
                    let source = ValueError::new(column.kind, text);
                    return Err(EnvelopeError::value(column, source));
                };
                Field::Present(value)
            }
        });
    }
    Ok(Image { columns, fields })
}

/// The column of a name, first where it stands when the record has the columns' order.
fn find<'a>(columns: &'a [Column], expected: usize, name: &str) -> Option<(usize, &'a Column)> {
    let is_named = |column: &Column| *column.name == *name;
    if let Some(column) = columns.get(expected).filter(|column| is_named(column)) {
        return Some((expected, column));
    }
    columns
        .iter()
        .enumerate()
        .find(|(_, column)| is_named(column))
}

fn decode(kind: Type, token: Token<'_>) -> Result<Value<'_>, ValueError> {
    match token {
        Token::Literal("null") => Ok(Value::Null),
        Token::Literal(literal) => {
            let error = || ValueError::new(kind, literal.as_bytes());
            from_literal(kind, literal.as_bytes()).ok_or_else(error)
        }
        Token::String(string) => from_string(kind, string),
        Token::Nested(text) => Err(ValueError::new(kind, text.as_bytes())),
    }
}

fn from_literal(kind: Type, literal: &[u8]) -> Option<Value<'static>> {
    match kind {
        Type::Bool => match literal {
            b"true" => Some(Value::Bool(true)),
            b"false" => Some(Value::Bool(false)),
            _ => None,
        },
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => integer(kind, literal),
        Type::Float4 => text::float4(literal).map(Value::Float),
        Type::Float8 => text::float8(literal).map(Value::Float),
        Type::Date => {
            let days = i32::try_from(text::integer(literal)?).ok()?;
            Some(Value::Date(Date::Days(days)))
        }
        Type::Timestamp(precision) => {
            let unit = if precision <= 3 { 1_000 } else { 1 };
            let micros = text::integer(literal)?.checked_mul(unit)?;
            Some(Value::Timestamp(Instant::Micros(micros), precision))
        }
        _ => None,
    }
}

fn from_string(kind: Type, string: Cow<'_, str>) -> Result<Value<'_>, ValueError> {
    match kind {
        Type::Text => return Ok(Value::Text(string)),
        Type::Json => return Ok(Value::Json(string)),
        Type::Numeric if text::is_numeric(string.as_bytes()) => return Ok(Value::Numeric(string)),
        _ => {}
    }
    from_form(kind, string.as_bytes()).ok_or_else(|| ValueError::new(kind, string.as_bytes()))
}

/// The types whose strings are a form of their own.
fn from_form(kind: Type, string: &[u8]) -> Option<Value<'static>> {
    match kind {
        Type::Float4 | Type::Float8 if text::is_non_finite(string) => {
            text::float8(string).map(Value::Float)
        }
        Type::Bytea => STANDARD
            .decode(string)
            .ok()
            .map(|bytes| Value::Bytes(bytes.into())),
        Type::Uuid => text::uuid(string).map(Value::Uuid),
        Type::Date => match time::infinity(string)? {
            Instant::NegInfinity => Some(Value::Date(Date::NegInfinity)),
            _ => Some(Value::Date(Date::Infinity)),
        },
        Type::Timestamp(p) => time::infinity(string).map(|at| Value::Timestamp(at, p)),
        Type::TimestampTz(p) => time::iso_instant(string, p).map(|at| Value::TimestampTz(at, p)),
        _ => None,
    }
}
