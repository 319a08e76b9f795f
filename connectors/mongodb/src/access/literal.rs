//! A value as a configuration states it, and as documents hold it.

use std::fmt;

use bson::{Bson, Document, RawDocumentBuf};
use walferry_schema::{Column, Type, Value};

use crate::Policies;
use crate::bson_value::{self, element};

/// A value as a configuration states it.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `true`, `false`
    Bool(bool),
    /// `17`
    Integer(i64),
    /// `0.5`
    Float(f64),
    /// `"open"`
    Text(String),
}

// === impl Literal ===

impl Literal {
    /// The value as it is, for a field that no type is known of.
    pub fn bson(&self) -> Bson {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Integer(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.as_str().into(),
        }
    }

    /// The value as the documents of a column hold it; none when it is not of the column's type.
    pub(super) fn of(&self, column: &Column, policies: Policies) -> Option<Bson> {
        let text = self.text_for(column)?;
        let value = Value::from_text(&column.kind, text.as_bytes()).ok()?;
        encoded(&value, policies)
    }

    /// PostgreSQL's text of it, where a value of the column's type is stated so.
    fn text_for(&self, column: &Column) -> Option<String> {
        match (self, &column.kind) {
            (Self::Bool(value), Type::Bool) => Some(if *value { "t" } else { "f" }.to_owned()),
            (Self::Integer(value), kind) if is_whole(kind) || has_fraction(kind) => {
                Some(value.to_string())
            }
            (Self::Float(value), kind) if has_fraction(kind) => Some(value.to_string()),
            (Self::Text(value), Type::Text) => Some(padded(column, value)),
            (Self::Text(value), Type::Uuid | Type::Date | Type::Numeric(_)) => Some(value.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

pub(super) fn is_whole(kind: &Type) -> bool {
    matches!(kind, Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid)
}

pub(super) fn has_fraction(kind: &Type) -> bool {
    matches!(kind, Type::Float4 | Type::Float8 | Type::Numeric(_))
}

/// A text as a column of type `char(n)` keeps it.
fn padded(column: &Column, text: &str) -> String {
    let length = column.type_name.strip_prefix("bpchar(");
    let length = length.and_then(|it| it.strip_suffix(')')?.parse().ok());
    let length = length.unwrap_or(0);
    format!("{text:<length$}")
}

fn encoded(value: &Value<'_>, policies: Policies) -> Option<Bson> {
    let mut bytes = Vec::new();
    let document = element::open(&mut bytes);
    bson_value::append(&mut bytes, "v", value, policies).ok()?;
    element::close(&mut bytes, document);
    let document = RawDocumentBuf::from_bytes(bytes).ok()?;
    Document::try_from(&*document).ok()?.remove("v")
}
