//! Records that a real Debezium wrote: what their schema says of their columns, and what is no value in them.
//!
//! - An update's placeholder is an absent column, never a value; of a new row it is the text that it looks like.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Error as _;

use super::members::{Members, Token};
use super::read::{Decoding, read_row};
use super::{Envelope, EnvelopeError, UNAVAILABLE, UNAVAILABLE_UUID};
use crate::{
    BinaryMode, Column, Columns, DecimalMode, HstoreMode, Image, IntervalMode, Modes, TableName,
    TimePrecision, Type,
};

/// What a converter leaves of the length of bits that may have any.
const ANY_LENGTH: u32 = i32::MAX.unsigned_abs();

/// A record's key or value in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The schema, of a converter with `schemas.enable=true`.
    pub schema: Option<&'a str>,
    /// What it describes.
    pub payload: &'a str,
}

/// Where a change comes from, by its record's block `source`.
#[derive(Debug, PartialEq, Eq)]
pub struct Whence {
    /// The table.
    pub table: TableName,
    /// LSN of the change; none of a connector that tells none.
    pub lsn: Option<u64>,
    /// When it was committed, microseconds since 1970.
    pub committed_at: Option<i64>,
}

#[derive(Deserialize)]
struct Document {
    source: Source,
}

#[derive(Deserialize)]
struct Source {
    schema: String,
    table: String,
    lsn: Option<u64>,
    ts_us: Option<i64>,
}

/// A schema, as far as it says how values are written.
#[derive(Deserialize)]
struct Described {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    fields: Vec<Described>,
    items: Option<Box<Described>>,
    name: Option<String>,
    #[serde(default)]
    parameters: HashMap<String, String>,
    field: Option<String>,
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// The parts of a key or value; a row that looks like a schema and its payload is none: a schema is an object with a
    /// `type`.
    ///
    /// # Errors
    /// When the bytes are not the JSON of an object.
    pub fn of(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        let alone = Self {
            schema: None,
            payload: text,
        };
        let mut members = Members::of(text)?;
        let Some((name, Token::Nested(schema))) = members.next()? else {
            return Ok(alone);
        };
        if name != "schema" || !schema.starts_with("{\"type\":") {
            return Ok(alone);
        }
        let payload = members.rest().strip_prefix(",\"payload\":");
        Ok(match payload.and_then(|it| it.strip_suffix('}')) {
            Some(payload) => Self {
                schema: Some(schema),
                payload,
            },
            None => alone,
        })
    }
}

// === impl Whence ===

impl Whence {
    /// Where an envelope's change comes from.
    ///
    /// # Errors
    /// When the envelope does not say it.
    pub fn of(envelope: &str) -> Result<Self, EnvelopeError> {
        let Document { source } = serde_json::from_str(envelope)?;
        Ok(Self {
            table: TableName::new(source.schema, source.table),
            lsn: source.lsn,
            committed_at: source.ts_us,
        })
    }
}

/// The names of an object's members, in order.
///
/// # Errors
/// When it is none.
pub fn names(object: &str) -> Result<Vec<Cow<'_, str>>, EnvelopeError> {
    let mut members = Members::of(object)?;
    let mut names = Vec::new();
    while let Some((name, _)) = members.next()? {
        names.push(name);
    }
    Ok(names)
}

/// The names of an envelope's row: of the new one, else of the old one; none where it has neither.
///
/// # Errors
/// When it is no envelope.
pub fn row_names(envelope: &str) -> Result<Vec<Cow<'_, str>>, EnvelopeError> {
    let rows = Envelope::from_bytes(envelope.as_bytes())?;
    rows.after.or(rows.before).map_or(Ok(Vec::new()), names)
}

/// The columns of an envelope's schema, outside a key, and how their values are written; what that does not say is as
/// `modes` have it.
///
/// # Errors
/// When the schema is not that of an envelope.
pub fn columns(schema: &str, modes: Modes) -> Result<Columns, EnvelopeError> {
    let envelope: Described = serde_json::from_str(schema)?;
    let mut rows = envelope.fields.into_iter();
    let row = rows.find(|it| it.field.as_deref() == Some("after"));
    let row = row.ok_or_else(|| serde_json::Error::custom("no `after` in the schema"))?;
    // In base64: in another form it would be a string.
    let mut modes = Modes {
        binary: BinaryMode::Base64,
        ..modes
    };
    let columns = row.fields.iter().map(|it| {
        let kind = it.kind(&mut modes);
        Column {
            name: it.field.as_deref().unwrap_or_default().into(),
            type_name: kind.to_string().into(),
            kind,
            key: 0,
        }
    });
    let all: Arc<[Column]> = columns.collect();
    Ok(Columns { all, modes })
}

/// A row's image. Of an update, and of the new row of a key change, what only looks like a value is absent.
///
/// # Errors
/// When a value does not fit its column's type or a member is no column.
pub fn read<'a>(
    columns: &'a Columns,
    row: &'a str,
    is_update: bool,
) -> Result<Image<'a>, EnvelopeError> {
    let decoding = Decoding {
        columns: &columns.all,
        // A connector has one form for all columns, those of a key too.
        modes_of: |_: &Column| columns.modes,
        is_left_out: |_: &str, token: &Token<'_>| is_update && is_placeholder(token),
    };
    read_row(&decoding, row)
}

/// Whether Debezium writes this where it has no value.
fn is_placeholder(token: &Token<'_>) -> bool {
    /// Of the text in base64, and its bytes as the elements of an array of numbers.
    const BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
    const NUMBERS: &str = "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]";
    match token {
        Token::String(text) => text == UNAVAILABLE || text == BASE64 || *text == map(),
        Token::Nested(NUMBERS) => true,
        Token::Nested(text) => {
            let one = text
                .strip_prefix("[\"")
                .and_then(|it| it.strip_suffix("\"]"));
            *text == map()
                || one.is_some_and(|it| [UNAVAILABLE, BASE64, UNAVAILABLE_UUID].contains(&it))
        }
        Token::Literal(_) => false,
    }
}

/// An `hstore` without a value.
fn map() -> String {
    format!("{{\"{UNAVAILABLE}\":\"{UNAVAILABLE}\"}}")
}

// === impl Described ===

impl Described {
    fn kind(&self, modes: &mut Modes) -> Type {
        if let Some(kind) = self
            .name
            .as_deref()
            .and_then(|name| self.named(name, modes))
        {
            return kind;
        }
        match &*self.kind {
            "boolean" => Type::Bool,
            "int8" | "int16" => Type::Int2,
            "int32" => Type::Int4,
            "int64" => Type::Int8,
            "float" => Type::Float4,
            "double" => Type::Float8,
            "bytes" => Type::Bytea,
            "array" => {
                let items = self.items.as_deref();
                Type::array_of(items.map_or(Type::Text, |items| items.kind(modes)))
            }
            "map" => {
                modes.hstore = HstoreMode::Map;
                Type::Hstore
            }
            _ => Type::Text,
        }
    }

    /// The type of a schema with a name, and what the name says of its form.
    fn named(&self, name: &str, modes: &mut Modes) -> Option<Type> {
        Some(match name {
            "org.apache.kafka.connect.data.Decimal" => {
                modes.decimal = DecimalMode::Precise;
                let scale = self.parameter("scale").unwrap_or_default();
                let precision = self.parameter("connect.decimal.precision");
                Type::Numeric(Some((precision.unwrap_or(u16::MAX), scale)))
            }
            "io.debezium.data.VariableScaleDecimal" => {
                modes.decimal = DecimalMode::Precise;
                Type::Numeric(None)
            }
            "io.debezium.data.Uuid" => Type::Uuid,
            "io.debezium.data.Json" => Type::Json,
            "io.debezium.data.geometry.Point" => Type::Point,
            "io.debezium.data.Bits" => match self.parameter("length") {
                Some(length) if length < ANY_LENGTH => Type::Bit(length),
                _ => Type::Bytea,
            },
            "io.debezium.time.Date" => Type::Date,
            "io.debezium.time.Timestamp" => Type::Timestamp(3),
            "io.debezium.time.MicroTimestamp" => Type::Timestamp(6),
            "io.debezium.time.Time" => Type::Time(3),
            "io.debezium.time.MicroTime" => Type::Time(6),
            "io.debezium.time.ZonedTimestamp" => Type::TimestampTz(6),
            "io.debezium.time.ZonedTime" => Type::TimeTz,
            "io.debezium.time.Interval" => Type::Interval,
            "io.debezium.time.MicroDuration" => {
                modes.interval = IntervalMode::Numeric;
                Type::Interval
            }
            _ => {
                let (precision, kind) = match name {
                    "io.debezium.time.NanoTimestamp" => {
                        (TimePrecision::Nanoseconds, Type::Timestamp(6))
                    }
                    "io.debezium.time.NanoTime" => (TimePrecision::Nanoseconds, Type::Time(6)),
                    "io.debezium.time.IsoDate" => (TimePrecision::Isostring, Type::Date),
                    "io.debezium.time.IsoTimestamp" => {
                        (TimePrecision::Isostring, Type::Timestamp(6))
                    }
                    "io.debezium.time.IsoTime" => (TimePrecision::Isostring, Type::Time(6)),
                    "org.apache.kafka.connect.data.Date" => (TimePrecision::Connect, Type::Date),
                    "org.apache.kafka.connect.data.Timestamp" => {
                        (TimePrecision::Connect, Type::Timestamp(6))
                    }
                    "org.apache.kafka.connect.data.Time" => (TimePrecision::Connect, Type::Time(6)),
                    _ => return None,
                };
                modes.time_precision = precision;
                kind
            }
        })
    }

    fn parameter<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.parameters.get(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Value};

    fn columns(names: &[(&str, Type)]) -> Columns {
        let column = |(name, kind): &(&str, Type)| Column {
            name: (*name).into(),
            type_name: kind.to_string().into(),
            kind: kind.clone(),
            key: 0,
        };
        Columns {
            all: names.iter().map(column).collect(),
            modes: Modes::debezium(),
        }
    }

    #[test]
    fn only_a_schema_beside_its_payload_is_taken_off() {
        let of = |text: &'static str| Parts::of(text.as_bytes()).unwrap();
        let whole = r#"{"schema":{"type":"struct","fields":[]},"payload":{"id":1}}"#;
        assert_eq!(of(whole).payload, r#"{"id":1}"#);
        assert!(of(whole).schema.is_some());
        for row in [
            r#"{"schema":"public","payload":1}"#,
            r#"{"schema":{"scale":0,"value":"AA=="},"payload":1}"#,
            r#"{"id":1}"#,
        ] {
            assert_eq!(
                of(row),
                Parts {
                    schema: None,
                    payload: row
                }
            );
        }
    }

    #[test]
    fn a_placeholder_is_absent_in_an_update_and_data_in_a_new_row() {
        let forms = [
            (Type::Text, r#""__debezium_unavailable_value""#),
            (Type::Bytea, r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#),
            (
                Type::array_of(Type::Text),
                r#"["__debezium_unavailable_value"]"#,
            ),
            (
                Type::array_of(Type::Uuid),
                r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
            ),
            (
                Type::array_of(Type::Int4),
                "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]",
            ),
            (
                Type::Hstore,
                r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#,
            ),
        ];
        for (kind, form) in forms {
            let columns = columns(&[("c", kind)]);
            let row = format!(r#"{{"c":{form}}}"#);
            let field = |is_update| read(&columns, &row, is_update).unwrap().fields;
            assert_eq!(field(true), [Field::Absent], "{form}");
            assert!(matches!(field(false)[..], [Field::Present(_)]), "{form}");
        }
    }

    #[test]
    fn a_value_beside_a_placeholder_is_itself() {
        let columns = columns(&[("c", Type::Text), ("a", Type::array_of(Type::Text))]);
        let row =
            r#"{"c":"__debezium_unavailable_value ","a":["__debezium_unavailable_value","b"]}"#;
        let image = read(&columns, row, true).unwrap();
        assert!(image.is_complete());
        let text = Value::Text("__debezium_unavailable_value ".into());
        assert_eq!(image.fields.first(), Some(&Field::Present(text)));
    }
}
