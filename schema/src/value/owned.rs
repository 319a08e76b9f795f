//! Values that outlive the text they were read from.

use std::borrow::Cow;

use super::{Array, Bounds, Literal, Parts, Value};

// === impl Value ===

impl Value<'_> {
    /// The same value, borrowing nothing.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int4(number) => Value::Int4(number),
            Self::Int8(number) => Value::Int8(number),
            Self::Float(number) => Value::Float(number),
            Self::Numeric(number) => Value::Numeric(text(number)),
            Self::Text(value) => Value::Text(text(value)),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Uuid(bytes) => Value::Uuid(bytes),
            Self::Date(date) => Value::Date(date),
            Self::Timestamp(instant, precision) => Value::Timestamp(instant, precision),
            Self::TimestampTz(instant, precision) => Value::TimestampTz(instant, precision),
            Self::Time(micros, precision) => Value::Time(micros, precision),
            Self::TimeTz(time) => Value::TimeTz(time),
            Self::Interval(interval) => Value::Interval(interval),
            Self::Json(json) => Value::Json(text(json)),
            Self::Bits(bits) => Value::Bits(text(bits)),
            Self::Point(x, y) => Value::Point(x, y),
            Self::Hstore(entries) => {
                let entry = |(key, value): (_, Option<_>)| (text(key), value.map(text));
                Value::Hstore(entries.into_iter().map(entry).collect())
            }
            Self::Array(array) => Value::Array(array.into_owned().into()),
            Self::Literal(literal) => Value::Literal(literal.into_owned().into()),
        }
    }
}

// === impl Array ===

impl Array<'_> {
    fn into_owned(self) -> Array<'static> {
        Array {
            elements: self.elements.into_iter().map(Value::into_owned).collect(),
            text: self.text.map(text),
        }
    }
}

// === impl Literal ===

impl Literal<'_> {
    fn into_owned(self) -> Literal<'static> {
        Literal {
            text: text(self.text),
            parts: match self.parts {
                Parts::Range(bounds) => Parts::Range(bounds.map(Bounds::into_owned)),
                Parts::Multirange(ranges) => {
                    Parts::Multirange(ranges.into_iter().map(Bounds::into_owned).collect())
                }
                Parts::Composite(fields) => {
                    let field = |(name, value): (_, Value<'_>)| (name, value.into_owned());
                    Parts::Composite(fields.into_iter().map(field).collect())
                }
                Parts::Vector(numbers) => Parts::Vector(numbers),
            },
        }
    }
}

// === impl Bounds ===

impl Bounds<'_> {
    fn into_owned(self) -> Bounds<'static> {
        Bounds {
            lower: self.lower.into_owned(),
            upper: self.upper.into_owned(),
            lower_inclusive: self.lower_inclusive,
            upper_inclusive: self.upper_inclusive,
        }
    }
}

fn text(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
