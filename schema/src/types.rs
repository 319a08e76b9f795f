//! How the values of a column are read: scalar types by their names, others by their structure.
//!
//! - A name says everything about a scalar type. The structure of the others is the catalog's, and
//!   travels beside the name, in the header of the records.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The finest precision of times, in digits of a second; that of a type that declares none.
const MICROSECONDS: u8 = 6;
/// The digits of the fraction in the locale C, and of most currencies.
const CENTS: u8 = 2;
const COMMA: char = ',';

/// How a value's text is read and what it becomes.
///
/// A domain is its base type. Types without a form of their own travel as PostgreSQL's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `bool`
    Bool,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `oid`
    Oid,
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `numeric`, with its declared precision and scale
    Numeric(Option<(u16, i16)>),
    /// `money`, with the digits of its fraction in the database's `lc_monetary`
    Money(u8),
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `time`, with its declared precision (6 when none is)
    Time(u8),
    /// `timetz`
    TimeTz,
    /// `timestamp`, with its declared precision (6 when none is)
    Timestamp(u8),
    /// `timestamptz`, with its declared precision (6 when none is)
    TimestampTz(u8),
    /// `interval`
    Interval,
    /// `json` or `jsonb`
    Json,
    /// `bit(n)`. A `varbit` is text: its length is part of the value.
    Bit(u32),
    /// `point`
    Point,
    /// `hstore` of the extension
    Hstore,
    /// `vector` and `halfvec` of the extension: numbers in brackets
    Vector,
    /// An array of any rank, and what stands between its elements: a comma, for `box` a semicolon.
    Array(Arc<Type>, char),
    /// A range over a type.
    Range(Arc<Type>),
    /// A multirange over a type.
    Multirange(Arc<Type>),
    /// A row type.
    Composite(Arc<[Attribute]>),
    /// Everything else.
    Text,
}

/// A field of a composite type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// The field's name.
    pub name: Arc<str>,
    /// How its text is read.
    pub kind: Type,
}

/// A type as JSON: a scalar's name, or the structure by its parts.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Shape {
    Scalar(String),
    Array {
        array: Box<Shape>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delimiter: Option<char>,
    },
    Range {
        range: Box<Shape>,
    },
    Multirange {
        multirange: Box<Shape>,
    },
    Composite {
        composite: Vec<(Arc<str>, Shape)>,
    },
}

// === impl Type ===

impl Type {
    /// The scalar type that a name of [`crate::Column::type_name`] stands for; text for others.
    pub fn from_name(name: &str) -> Self {
        let (base, modifier) = match name.split_once('(') {
            Some((base, rest)) => (base, rest.strip_suffix(')')),
            None => (name, None),
        };
        let modifier: Option<u32> = modifier.and_then(|digits| digits.parse().ok());
        let precision = modifier_or(modifier, MICROSECONDS);
        match base {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "oid" => Self::Oid,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "numeric" => Self::Numeric(numeric_modifier(name)),
            "money" => Self::Money(modifier_or(modifier, CENTS)),
            "bytea" => Self::Bytea,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time" => Self::Time(precision),
            "timetz" => Self::TimeTz,
            "timestamp" => Self::Timestamp(precision),
            "timestamptz" => Self::TimestampTz(precision),
            "interval" => Self::Interval,
            "json" | "jsonb" => Self::Json,
            // Without a length it may be any, as that of a varbit.
            "bit" => modifier.map_or(Self::Text, Self::Bit),
            "point" => Self::Point,
            "hstore" => Self::Hstore,
            "vector" | "halfvec" => Self::Vector,
            _ => Self::Text,
        }
    }

    /// An array of these elements with commas between them.
    pub fn array_of(element: Self) -> Self {
        Self::Array(element.into(), COMMA)
    }

    /// Whether it is or consists of a row type.
    pub fn has_composite(&self) -> bool {
        match self {
            Self::Composite(_) => true,
            Self::Array(part, _) | Self::Range(part) | Self::Multirange(part) => {
                part.has_composite()
            }
            _ => false,
        }
    }

    /// The type below all arrays.
    pub fn innermost(&self) -> &Self {
        match self {
            Self::Array(element, _) => element.innermost(),
            other => other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Oid => "oid",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric(None) => "numeric",
            Self::Money(CENTS) => "money",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::TimeTz => "timetz",
            Self::Interval => "interval",
            Self::Json => "json",
            Self::Point => "point",
            Self::Hstore => "hstore",
            Self::Vector => "vector",
            Self::Text => "text",
            Self::Numeric(Some((precision, scale))) => {
                return write!(f, "numeric({precision},{scale})");
            }
            Self::Money(digits) => return write!(f, "money({digits})"),
            Self::Time(precision) => return write!(f, "time({precision})"),
            Self::Timestamp(precision) => return write!(f, "timestamp({precision})"),
            Self::TimestampTz(precision) => return write!(f, "timestamptz({precision})"),
            Self::Bit(length) => return write!(f, "bit({length})"),
            Self::Array(element, _) => return write!(f, "{element}[]"),
            Self::Range(bound) => return write!(f, "range of {bound}"),
            Self::Multirange(bound) => return write!(f, "multirange of {bound}"),
            Self::Composite(_) => "composite",
        };
        f.write_str(name)
    }
}

impl Serialize for Type {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Shape::deserialize(deserializer).map(Self::from)
    }
}

fn modifier_or(modifier: Option<u32>, default: u8) -> u8 {
    let digits = modifier.and_then(|digits| u8::try_from(digits).ok());
    digits.unwrap_or(default)
}

/// Precision and scale of `numeric(10,2)`.
fn numeric_modifier(name: &str) -> Option<(u16, i16)> {
    let modifier = name.strip_prefix("numeric(")?.strip_suffix(')')?;
    let (precision, scale) = modifier.split_once(',')?;
    Some((precision.parse().ok()?, scale.parse().ok()?))
}

// === impl Shape ===

impl From<&Type> for Shape {
    fn from(kind: &Type) -> Self {
        let boxed = |kind: &Type| Box::new(Self::from(kind));
        match kind {
            Type::Array(element, delimiter) => Self::Array {
                array: boxed(element),
                delimiter: (*delimiter != COMMA).then_some(*delimiter),
            },
            Type::Range(bound) => Self::Range {
                range: boxed(bound),
            },
            Type::Multirange(bound) => Self::Multirange {
                multirange: boxed(bound),
            },
            Type::Composite(attributes) => Self::Composite {
                composite: attributes
                    .iter()
                    .map(|attribute| (attribute.name.clone(), Self::from(&attribute.kind)))
                    .collect(),
            },
            scalar => Self::Scalar(scalar.to_string()),
        }
    }
}

impl From<Shape> for Type {
    fn from(shape: Shape) -> Self {
        let part = |shape: Box<Shape>| Arc::new(Self::from(*shape));
        match shape {
            Shape::Scalar(name) => Self::from_name(&name),
            Shape::Array { array, delimiter } => {
                Self::Array(part(array), delimiter.unwrap_or(COMMA))
            }
            Shape::Range { range } => Self::Range(part(range)),
            Shape::Multirange { multirange } => Self::Multirange(part(multirange)),
            Shape::Composite { composite } => {
                let attribute = |(name, shape)| Attribute {
                    name,
                    kind: Self::from(shape),
                };
                Self::Composite(composite.into_iter().map(attribute).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_type_is_known_by_its_name_and_modifier() {
        assert_eq!(
            Type::from_name("numeric(10,-2)"),
            Type::Numeric(Some((10, -2)))
        );
        assert_eq!(Type::from_name("timestamp(3)"), Type::Timestamp(3));
        assert_eq!(Type::from_name("timestamptz"), Type::TimestampTz(6));
        assert_eq!(Type::from_name("bit(12)"), Type::Bit(12));
        assert_eq!(Type::from_name("bit"), Type::Text);
        assert_eq!(Type::from_name("_int4"), Type::Text);
        assert_eq!(Type::from_name("mood"), Type::Text);
    }

    #[test]
    fn a_structure_survives_as_json() {
        let attribute = |name: &str, kind| Attribute {
            name: name.into(),
            kind,
        };
        let pair = Type::Composite(
            [
                attribute("a\"", Type::Time(3)),
                attribute("b", Type::Array(Type::Text.into(), ';')),
            ]
            .into(),
        );
        let kind = Type::array_of(pair);
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(
            json,
            r#"{"array":{"composite":[["a\"","time(3)"],["b",{"array":"text","delimiter":";"}]]}}"#
        );
        assert_eq!(serde_json::from_str::<Type>(&json).unwrap(), kind);
        for kind in [
            Type::Range(Type::TimestampTz(6).into()),
            Type::Multirange(Type::Bit(1).into()),
        ] {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<Type>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn every_scalar_is_named_as_it_is_known() {
        for name in [
            "bool",
            "int2",
            "int4",
            "int8",
            "oid",
            "float4",
            "float8",
            "numeric",
            "numeric(10,-2)",
            "numeric(10,-2)",
            "money",
            "money(0)",
            "bytea",
            "uuid",
            "date",
            "time(6)",
            "timetz",
            "timestamp(0)",
            "timestamptz(3)",
            "interval",
            "json",
            "bit(3)",
            "point",
            "hstore",
            "vector",
            "text",
        ] {
            assert_eq!(Type::from_name(name).to_string(), name);
        }
    }
}
