//! From a record's JSON, and from PostgreSQL's row, to the image that a sink writes.
//!
//! - Each value is the one that PostgreSQL's text gives: what the JSON form drops, the column's
//!   type restores.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::members::{Members, Token};
use super::{Envelope, EnvelopeError, Op, decimal};
use crate::change::Cell;
use crate::value::time::MICROS_PER_DAY;
use crate::value::{self, integer, interval, text, time};
use crate::{
    Array, BinaryMode, Column, Date, DecimalMode, Field, HstoreMode, Image, Instant, Interval,
    Modes, Row, SchemaMode, TimePrecision, Type, Value, ValueError,
};

/// The bytes of `,"op":"c"`.
const OP_BYTES: usize = 9;

#[derive(Deserialize)]
struct Point<'a> {
    #[serde(borrow)]
    x: &'a RawValue,
    #[serde(borrow)]
    y: &'a RawValue,
}

#[derive(Deserialize)]
struct Scaled<'a> {
    scale: i16,
    value: &'a str,
}

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

/// The key or value in a record's bytes, without the schema that it carries in these modes.
///
/// # Errors
/// When there should be a schema, and is none.
pub fn payload(bytes: &[u8], modes: Modes) -> Result<&[u8], EnvelopeError> {
    if modes.schemas == SchemaMode::None {
        return Ok(bytes);
    }
    let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
    match after_schema(text) {
        Some(payload) => Ok(payload.as_bytes()),
        None => Err(serde_json::Error::custom("no payload behind a schema").into()),
    }
}

/// The payload of `{"schema":…,"payload":…}`; none of a text that is not written so.
fn after_schema(text: &str) -> Option<&str> {
    let mut members = Members::of(text).ok()?;
    let (name, _schema) = members.next().ok()??;
    let payload = members.rest().strip_prefix(",\"payload\":")?;
    payload.strip_suffix('}').filter(|_| name == "schema")
}

/// When the reader decoded the change, microseconds since 1970, of an envelope as
/// [`write_value`](super::write_value) wrote it; none of another.
pub fn decoded_at(envelope: &str) -> Option<i64> {
    // Two where it is a payload behind its schema.
    let members = envelope.trim_end_matches('}');
    let (_, nanoseconds) = members.rsplit_once(",\"ts_ns\":")?;
    let nanoseconds: i64 = nanoseconds.parse().ok()?;
    Some(nanoseconds / 1_000)
}

/// The row or `null` that a text begins with, and what follows it; none when it is neither.
fn leading_row(text: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = text.strip_prefix("null") {
        return Some((None, rest));
    }
    let mut members = Members::of(text).ok()?;
    while members.next().ok()?.is_some() {}
    Some((Some(text), members.rest()))
}

/// The image of a row (`before` or `after` of an envelope, or a key's JSON): one field for each of
/// `columns`, absent where the JSON has no such member. What follows the row's closing brace is not
/// looked at.
///
/// # Errors
/// When a value does not fit its column's type or a member is no column.
pub fn read_image<'a>(
    columns: &'a [Column],
    modes: Modes,
    row: &'a str,
) -> Result<Image<'a>, EnvelopeError> {
    read_changed(columns, modes, row, &[])
}

/// The same without the columns of these names: something else stands in the place of what an update left as it was.
///
/// # Errors
/// As those of [`read_image`].
pub fn read_changed<'a>(
    columns: &'a [Column],
    modes: Modes,
    row: &'a str,
    unchanged: &[Cow<'_, str>],
) -> Result<Image<'a>, EnvelopeError> {
    let decoding = Decoding {
        columns,
        modes_of: |column: &Column| modes.of(column),
        is_left_out: |name: &str, _: &Token<'_>| unchanged.iter().any(|it| it == name),
    };
    read_row(&decoding, row)
}

/// How the members of a row become fields.
pub(super) struct Decoding<'a, M, L> {
    pub(super) columns: &'a [Column],
    /// How a column's values are written.
    pub(super) modes_of: M,
    /// Whether a member is no value.
    pub(super) is_left_out: L,
}

pub(super) fn read_row<'a, M, L>(
    decoding: &Decoding<'a, M, L>,
    row: &'a str,
) -> Result<Image<'a>, EnvelopeError>
where
    M: Fn(&Column) -> Modes,
    L: Fn(&str, &Token<'_>) -> bool,
{
    let columns = decoding.columns;
    let mut fields = vec![Field::Absent; columns.len()];
    let mut members = Members::of(row)?;
    let mut expected = 0_usize;
    while let Some((name, token)) = members.next()? {
        let Some((index, column)) = find(columns, expected, &name) else {
            return Err(EnvelopeError::UnknownColumn(name.into_owned()));
        };
        expected = index.saturating_add(1);
        if (decoding.is_left_out)(&name, &token) {
            continue;
        }
        let value = decode(&column.kind, (decoding.modes_of)(column), token)
            .map_err(|source| EnvelopeError::value(column, source))?;
        if let Some(field) = fields.get_mut(index) {
            *field = Field::Present(value);
        }
    }
    Ok(Image { columns, fields })
}

/// The image of a record's key: fields for the key's columns only.
///
/// # Errors
/// As those of [`read_image`].
pub fn read_key<'a>(
    columns: &'a [Column],
    modes: Modes,
    key: &'a [u8],
) -> Result<Image<'a>, EnvelopeError> {
    let key = std::str::from_utf8(key).map_err(serde_json::Error::custom)?;
    read_image(columns, modes, key)
}

/// The image of a row as PostgreSQL sent it, without the values that are too large to go with it.
///
/// # Errors
/// When a cell's text does not fit its type.
pub fn row_image<'a>(columns: &'a [Column], row: &'a Row) -> Result<Image<'a>, EnvelopeError> {
    // A loop: collecting results would move each value several times.
    let mut fields = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        fields.push(match row.cell(index) {
            Cell::Null => Field::Present(Value::Null),
            Cell::Unchanged | Cell::Large(_) => Field::Absent,
            Cell::Text(text) => {
                let Some(value) = value::decode(&column.kind, text) else {
                    let source = ValueError::new(&column.kind, text);
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

fn decode<'a>(kind: &Type, modes: Modes, token: Token<'a>) -> Result<Value<'a>, ValueError> {
    match token {
        Token::Literal("null") => Ok(Value::Null),
        Token::Literal(literal) => {
            let error = || ValueError::new(kind, literal.as_bytes());
            from_literal(kind, modes, literal.as_bytes()).ok_or_else(error)
        }
        Token::String(string) => from_string(kind, modes, string),
        Token::Nested(text) => {
            let error = || ValueError::new(kind, text.as_bytes());
            from_nested(kind, modes, text).ok_or_else(error)
        }
    }
}

fn from_literal(kind: &Type, modes: Modes, literal: &[u8]) -> Option<Value<'static>> {
    match kind {
        Type::Bool => boolean(literal).map(Value::Bool),
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => integer(kind, literal),
        Type::Float4 => text::float4(literal).map(Value::Float),
        Type::Float8 => text::float8(literal).map(Value::Float),
        Type::Numeric(_) | Type::Money(_) if modes.decimal == DecimalMode::Double => {
            let number = text::float8(literal)?;
            Some(Value::Numeric(number.to_string().into()))
        }
        Type::Date => {
            let days = i32::try_from(text::integer(literal)?).ok()?;
            Some(Value::Date(Date::Days(days)))
        }
        Type::Timestamp(precision) => {
            let micros = micros(literal, *precision, modes.time_precision)?;
            Some(Value::Timestamp(Instant::from_micros(micros)?, *precision))
        }
        Type::Time(precision) => {
            let micros = micros(literal, *precision, modes.time_precision)?;
            let micros = i64::try_from(micros).ok()?;
            (0..=MICROS_PER_DAY)
                .contains(&micros)
                .then_some(Value::Time(micros, *precision))
        }
        Type::Interval => {
            let micros = text::integer(literal)?;
            Some(Value::Interval(Interval::Finite {
                months: 0,
                days: 0,
                micros,
            }))
        }
        Type::Bit(1) => {
            let bit = if boolean(literal)? { "1" } else { "0" };
            Some(Value::Bits(bit.into()))
        }
        _ => None,
    }
}

fn boolean(literal: &[u8]) -> Option<bool> {
    match literal {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Of a number of milliseconds, microseconds or nanoseconds.
fn micros(literal: &[u8], precision: u8, mode: TimePrecision) -> Option<i128> {
    let wide = || std::str::from_utf8(literal).ok()?.parse().ok();
    let number = text::integer(literal).map(i128::from).or_else(wide)?;
    match (mode, precision) {
        (TimePrecision::Isostring, _) => None,
        (TimePrecision::Adaptive, 0..=3) | (TimePrecision::Connect, _) => number.checked_mul(1_000),
        (TimePrecision::Nanoseconds, _) => Some(number.div_euclid(1_000)),
        _ => Some(number),
    }
}

fn from_string<'a>(
    kind: &Type,
    modes: Modes,
    string: Cow<'a, str>,
) -> Result<Value<'a>, ValueError> {
    match kind {
        Type::Text => return Ok(Value::Text(string)),
        Type::Json => return Ok(Value::Json(string)),
        Type::Numeric(_) | Type::Money(_) if is_decimal(kind, &string, modes) => {
            return Ok(Value::Numeric(string));
        }
        _ => {}
    }
    from_form(kind, modes, &string)
        .or_else(|| from_text(kind, string.as_bytes()))
        .ok_or_else(|| ValueError::new(kind, string.as_bytes()))
}

/// Whether a number is written as its digits, or as what is not finite. In base64 a number may read as `Infinity`, but
/// one of a declared scale is never infinite.
fn is_decimal(kind: &Type, string: &str, modes: Modes) -> bool {
    let bytes = string.as_bytes();
    match (modes.decimal, kind) {
        (DecimalMode::String, _) => text::is_numeric(bytes),
        (DecimalMode::Precise, Type::Numeric(Some(_)) | Type::Money(_)) => bytes == b"NaN",
        (DecimalMode::Precise | DecimalMode::Double, _) => text::is_non_finite(bytes),
    }
}

/// PostgreSQL's text of the types that are always written so, and of those that walferry wrote so before it knew their
/// parts: such records may still wait in Kafka.
fn from_text(kind: &Type, text: &[u8]) -> Option<Value<'static>> {
    match kind {
        Type::Array(..)
        | Type::Range(_)
        | Type::Multirange(_)
        | Type::Composite(_)
        | Type::Vector
        | Type::Money(_)
        | Type::Time(_)
        | Type::Bit(_)
        | Type::Point
        | Type::Hstore => value::decode(kind, text).map(Value::into_owned),
        _ => None,
    }
}

/// The types whose strings are a form of their own.
fn from_form(kind: &Type, modes: Modes, string: &str) -> Option<Value<'static>> {
    let bytes = string.as_bytes();
    let is_iso = modes.time_precision == TimePrecision::Isostring;
    match kind {
        Type::Float4 | Type::Float8 if text::is_non_finite(bytes) => {
            text::float8(bytes).map(Value::Float)
        }
        Type::Numeric(Some((_, scale))) => scaled(string, *scale, modes),
        Type::Money(digits) => scaled(string, i16::from(*digits), modes),
        Type::Bytea => binary(string, modes.binary).map(|bytes| Value::Bytes(bytes.into())),
        Type::Uuid => text::uuid(bytes).map(Value::Uuid),
        Type::Date => match time::infinity(bytes) {
            Some(Instant::NegInfinity) => Some(Value::Date(Date::NegInfinity)),
            Some(_) => Some(Value::Date(Date::Infinity)),
            None if is_iso => time::iso_day(bytes).map(Value::Date),
            None => None,
        },
        Type::Timestamp(p) => match time::infinity(bytes) {
            None if is_iso => time::iso_instant(bytes, *p),
            endless => endless,
        }
        .map(|at| Value::Timestamp(at, *p)),
        Type::TimestampTz(p) => time::iso_instant(bytes, *p).map(|at| Value::TimestampTz(at, *p)),
        Type::Time(p) if is_iso => {
            let time = time::time(bytes.strip_suffix(b"Z")?, *p)?;
            Some(Value::Time(time, *p))
        }
        Type::TimeTz => time::time_tz(bytes).map(Value::TimeTz),
        Type::Interval => interval::parse(bytes).map(Value::Interval),
        Type::Bit(length) if *length > 1 => bits(&STANDARD.decode(bytes).ok()?, *length),
        Type::Hstore => hstore(string),
        _ => None,
    }
}

fn scaled(string: &str, scale: i16, modes: Modes) -> Option<Value<'static>> {
    if modes.decimal != DecimalMode::Precise {
        return None;
    }
    let bytes = STANDARD.decode(string).ok()?;
    Some(Value::Numeric(decimal::text(&bytes, scale).into()))
}

fn binary(string: &str, mode: BinaryMode) -> Option<Vec<u8>> {
    match mode {
        BinaryMode::Base64 => STANDARD.decode(string).ok(),
        BinaryMode::Base64UrlSafe => URL_SAFE.decode(string).ok(),
        BinaryMode::Hex => text::hex(string.as_bytes()),
    }
}

/// So many bits of a number whose lowest byte comes first.
fn bits(bytes: &[u8], length: u32) -> Option<Value<'static>> {
    let length = usize::try_from(length).ok()?;
    if bytes.len() != length.div_ceil(8) {
        return None;
    }
    let digits = |byte: &u8| format!("{byte:08b}");
    let digits: String = bytes.iter().rev().map(digits).collect();
    let (spare, bits) = digits.split_at_checked(digits.len().checked_sub(length)?)?;
    (!spare.contains('1')).then(|| Value::Bits(bits.to_owned().into()))
}

fn hstore(object: &str) -> Option<Value<'static>> {
    let mut members = Members::of(object).ok()?;
    let mut entries = Vec::new();
    while let Some((key, token)) = members.next().ok()? {
        let value = match token {
            Token::Literal("null") => None,
            Token::String(value) => Some(Cow::Owned(value.into_owned())),
            _ => return None,
        };
        entries.push((Cow::Owned(key.into_owned()), value));
    }
    Some(Value::Hstore(entries))
}

fn from_nested<'a>(kind: &Type, modes: Modes, text: &'a str) -> Option<Value<'a>> {
    match kind {
        Type::Array(..) => {
            let elements: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
            let elements = elements
                .into_iter()
                .map(|raw| element(kind, modes, raw.get()));
            let elements = elements.collect::<Option<_>>()?;
            Some(Value::Array(
                Array {
                    elements,
                    text: None,
                }
                .into(),
            ))
        }
        Type::Point => {
            let Point { x, y } = serde_json::from_str(text).ok()?;
            let float = |raw: &RawValue| match token(raw.get())? {
                Token::Literal(literal) => text::float8(literal.as_bytes()),
                Token::String(string) => text::float8(string.as_bytes()),
                Token::Nested(_) => None,
            };
            Some(Value::Point(float(x)?, float(y)?))
        }
        Type::Hstore if modes.hstore == HstoreMode::Map => hstore(text),
        Type::Numeric(None) if modes.decimal == DecimalMode::Precise => {
            let Scaled { scale, value } = serde_json::from_str(text).ok()?;
            scaled(value, scale, modes)
        }
        _ => None,
    }
}

/// An element of an array: an array again as long as it looks like one.
fn element<'a>(array: &Type, modes: Modes, json: &'a str) -> Option<Value<'a>> {
    let kind = if json.starts_with('[') {
        array
    } else {
        array.innermost()
    };
    decode(kind, modes, token(json)?).ok()
}

fn token(json: &str) -> Option<Token<'_>> {
    Some(match json.as_bytes().first()? {
        b'"' => Token::String(match serde_json::from_str::<&str>(json) {
            Ok(plain) => Cow::Borrowed(plain),
            Err(_) => Cow::Owned(serde_json::from_str(json).ok()?),
        }),
        b'[' | b'{' => Token::Nested(json),
        _ => Token::Literal(json),
    })
}
