//! Values: PostgreSQL's text with a type, decoded once for every target.
//!
//! - Text of another form than PostgreSQL writes for the type is an error, never a panic, never a
//!   near value.

pub(crate) mod calendar;
pub(crate) mod interval;
mod literal;
mod owned;
pub(crate) mod text;
pub(crate) mod time;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

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
    /// `-Infinity`. `money`: its amount.
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
    /// `time`: microseconds since midnight, 24:00 included, with the declared precision (0–6).
    Time(i64, u8),
    /// `timetz`
    TimeTz(TimeTz),
    /// `interval`
    Interval(Interval),
    /// `json`, `jsonb`: the document's text.
    Json(Cow<'a, str>),
    /// `bit(n)`: zeros and ones.
    Bits(Cow<'a, str>),
    /// `point`: x and y.
    Point(f64, f64),
    /// `hstore`: keys, each once, with their values.
    Hstore(Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>),
    /// An array of any rank.
    Array(Box<Array<'a>>),
    /// Types that travel as their text but have parts: ranges, composites, vectors.
    Literal(Box<Literal<'a>>),
}

/// An array's elements; those of an array of higher rank are arrays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array<'a> {
    /// In order; SQL NULL is [`Value::Null`].
    pub elements: Vec<Value<'a>>,
    /// PostgreSQL's text, only of an array that is not counted from 1: `[0:1]={1,2}`.
    pub text: Option<Cow<'a, str>>,
}

/// A value that travels as PostgreSQL's text, and what it consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal<'a> {
    /// The whole text.
    pub text: Cow<'a, str>,
    /// Its parts.
    pub parts: Parts<'a>,
}

/// What a [`Literal`] consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Parts<'a> {
    /// A range: its bounds, none when it is empty.
    Range(Option<Bounds<'a>>),
    /// A multirange: its ranges, none of them empty.
    Multirange(Vec<Bounds<'a>>),
    /// A composite: its fields by name.
    Composite(Vec<(Arc<str>, Value<'a>)>),
    /// A vector.
    Vector(Vec<f64>),
}

/// Where a range begins and ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds<'a> {
    /// [`Value::Null`] when it has no beginning.
    pub lower: Value<'a>,
    /// [`Value::Null`] when it has no end.
    pub upper: Value<'a>,
    /// Whether the lower bound belongs to the range.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to the range.
    pub upper_inclusive: bool,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// `-infinity`, since PostgreSQL 17
    NegInfinity,
    /// Each part with a sign of its own; none follows from another.
    Finite {
        /// Months, twelve to a year.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// `infinity`, since PostgreSQL 17
    Infinity,
}

/// A time of day with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTz {
    /// Microseconds since midnight there, 24:00 included.
    pub micros: i64,
    /// Seconds east of UTC.
    pub offset: i32,
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

/// A point in time, proleptic Gregorian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instant {
    /// `-infinity`
    NegInfinity,
    /// In two parts: PostgreSQL's years end in 294276, microseconds since 1970 in 64 bits in 294247.
    At {
        /// Days since 1970-01-01.
        days: i32,
        /// Microseconds of the day.
        micros: i64,
    },
    /// `infinity`
    Infinity,
}

/// A value's text or JSON that its type does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a value of type {kind}: {text:?}")]
pub struct ValueError {
    /// The type that was expected.
    pub kind: Box<str>,
    /// The beginning of the text.
    pub text: Box<str>,
}

// === impl Value ===

impl<'a> Value<'a> {
    /// Decodes PostgreSQL's text output (`DateStyle=ISO`, `IntervalStyle=iso_8601`, `TimeZone=UTC`,
    /// `bytea_output=hex`, `lc_monetary=C`).
    ///
    /// A timestamp must have no digits below its declared precision, and lie before
    /// 294247-01-10T04:00:54.775808, where 64 bits of microseconds since 1970 end (PostgreSQL
    /// counts from 2000 and ends thirty years later).
    ///
    /// # Errors
    /// When the text is not UTF-8 or not of the type.
    pub fn from_text(kind: &Type, text: &'a [u8]) -> Result<Self, ValueError> {
        decode(kind, text).ok_or_else(|| ValueError::new(kind, text))
    }
}

// === impl Value ===

impl Value<'_> {
    /// Whether the composites in a value of this type have all of its fields: [`Value::from_text`] takes one that was
    /// written before the type was given its last ones.
    pub fn is_whole(&self, kind: &Type) -> bool {
        match (self, kind) {
            (Self::Array(array), kind) => {
                let mut elements = array.elements.iter();
                elements.all(|element| match element {
                    Self::Array(_) => element.is_whole(kind),
                    other => other.is_whole(kind.innermost()),
                })
            }
            (Self::Literal(literal), Type::Composite(attributes)) => {
                let Parts::Composite(fields) = &literal.parts else {
                    return true;
                };
                let values = fields.iter().zip(attributes.iter());
                literal::fields(literal.text.as_bytes()) == Some(attributes.len())
                    && values
                        .into_iter()
                        .all(|((_, value), it)| value.is_whole(&it.kind))
            }
            _ => true,
        }
    }
}

// === impl TimeTz ===

impl TimeTz {
    /// The same time in UTC, on some day.
    pub(crate) fn in_utc(self) -> Self {
        let micros = self.micros - i64::from(self.offset) * 1_000_000;
        Self {
            micros: micros.rem_euclid(time::MICROS_PER_DAY),
            offset: 0,
        }
    }
}

impl fmt::Display for TimeTz {
    /// ISO 8601: `12:34:56.12+02:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&time_text(self.micros))?;
        let sign = if self.offset < 0 { '-' } else { '+' };
        let offset = self.offset.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", offset / 3_600, offset / 60 % 60)?;
        match offset % 60 {
            0 => Ok(()),
            seconds => write!(f, ":{seconds:02}"),
        }
    }
}

/// A time of day as PostgreSQL and ISO 8601 write it, `12:34:56.12`: no more digits of a second than it needs.
pub fn time_text(micros: i64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let text = format!("{hour:02}:{minute:02}:{second:02}");
    if micros == 0 {
        return text;
    }
    let digits = format!("{micros:06}");
    format!("{text}.{}", digits.trim_end_matches('0'))
}

// === impl Instant ===

impl Instant {
    /// The point this many microseconds since 1970-01-01T00:00:00; none six million years from there.
    pub fn from_micros(micros: i128) -> Option<Self> {
        let day = i128::from(time::MICROS_PER_DAY);
        Some(Self::At {
            days: i32::try_from(micros.div_euclid(day)).ok()?,
            micros: i64::try_from(micros.rem_euclid(day)).ok()?,
        })
    }

    /// Microseconds since 1970-01-01T00:00:00, of a day and the microseconds of it.
    pub fn micros(days: i32, micros: i64) -> i128 {
        i128::from(days) * i128::from(time::MICROS_PER_DAY) + i128::from(micros)
    }
}

// === impl ValueError ===

impl ValueError {
    pub(crate) fn new(kind: &Type, text: &[u8]) -> Self {
        // A character has at most four bytes; one cut off shows as a replacement character.
        let beginning = text.get(..4 * SHOWN_CHARACTERS).unwrap_or(text);
        let text = String::from_utf8_lossy(beginning)
            .chars()
            .take(SHOWN_CHARACTERS)
            .collect();
        Self {
            kind: kind.to_string().into(),
            text,
        }
    }
}

/// As [`Value::from_text`]; none for a text that is not of the type.
#[inline]
pub(crate) fn decode<'a>(kind: &Type, bytes: &'a [u8]) -> Option<Value<'a>> {
    Some(match kind {
        Type::Bool => Value::Bool(text::boolean(bytes)?),
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => integer(kind, bytes)?,
        Type::Float4 => Value::Float(text::float4(bytes)?),
        Type::Float8 => Value::Float(text::float8(bytes)?),
        Type::Numeric(_) if text::is_numeric(bytes) => Value::Numeric(string(bytes)?),
        Type::Numeric(_) => return None,
        Type::Bytea => Value::Bytes(Cow::Owned(text::bytea(bytes)?)),
        Type::Uuid => Value::Uuid(text::uuid(bytes)?),
        Type::Date => Value::Date(time::date(bytes)?),
        Type::Timestamp(p) => Value::Timestamp(time::timestamp(bytes, *p, b"")?, *p),
        Type::TimestampTz(p) => Value::TimestampTz(time::timestamp(bytes, *p, b"+00")?, *p),
        Type::Json => Value::Json(string(bytes)?),
        Type::Text => Value::Text(string(bytes)?),
        rare => return decode_rare(rare, bytes),
    })
}

/// Beside [`decode`], so that this stays small where rows are decoded.
fn decode_rare<'a>(kind: &Type, bytes: &'a [u8]) -> Option<Value<'a>> {
    Some(match kind {
        Type::Money(digits) => Value::Numeric(Cow::Owned(text::money(bytes, *digits)?)),
        Type::Time(p) => Value::Time(time::time(bytes, *p)?, *p),
        Type::TimeTz => Value::TimeTz(time::time_tz(bytes)?),
        Type::Interval => Value::Interval(interval::parse(bytes)?),
        Type::Bit(length) if text::is_bits(bytes, *length) => Value::Bits(string(bytes)?),
        Type::Point => {
            let (x, y) = literal::point(bytes)?;
            Value::Point(x, y)
        }
        Type::Hstore => Value::Hstore(literal::hstore(bytes)?),
        Type::Array(element, delimiter) => {
            Value::Array(literal::array(element, *delimiter, bytes)?.into())
        }
        Type::Range(bound) => parts(bytes, Parts::Range(literal::range(bound, bytes)?))?,
        Type::Multirange(bound) => {
            parts(bytes, Parts::Multirange(literal::multirange(bound, bytes)?))?
        }
        Type::Composite(attributes) => parts(
            bytes,
            Parts::Composite(literal::composite(attributes, bytes)?),
        )?,
        Type::Vector => parts(bytes, Parts::Vector(literal::vector(bytes)?))?,
        _ => return None,
    })
}

fn parts<'a>(bytes: &'a [u8], parts: Parts<'a>) -> Option<Value<'a>> {
    let text = string(bytes)?;
    Some(Value::Literal(Literal { text, parts }.into()))
}

/// The integer of a type, within the type's range.
#[inline]
pub(crate) fn integer<'a>(kind: &Type, bytes: &[u8]) -> Option<Value<'a>> {
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
