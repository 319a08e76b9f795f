//! The schema beside a record's payload, as Connect's `JsonConverter` writes it.
//!
//! - It is the same for all records of one relation version: its bytes are made once.
//! - A record holds every column that its schema names: of what PostgreSQL did not send, what Debezium has in its place.

mod column;
mod filling;

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Template;
use crate::{Column, Declared, Modes, Relation, SchemaMode};

/// What closes a record that begins with a schema.
const END: u8 = b'}';

/// A schema in the order of its members.
#[derive(Clone, Debug, Default, Serialize)]
struct Schema<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Schema<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Box<Schema<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Box<Schema<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Box<Schema<'a>>>,
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'a, str>>,
}

/// What a named schema is told more.
#[derive(Clone, Debug, Default, Serialize)]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<String>,
    #[serde(
        rename = "connect.decimal.precision",
        skip_serializing_if = "Option::is_none"
    )]
    precision: Option<String>,
}

/// The schemas of one relation version's keys and values.
#[derive(Debug)]
pub struct RecordSchema {
    key: Vec<u8>,
    value: Vec<u8>,
    columns: Vec<Filling>,
}

/// What stands in the place of a column's value.
#[derive(Debug)]
struct Filling {
    /// Where PostgreSQL sent none.
    missing: Vec<u8>,
    /// Where an update left it as it was.
    unchanged: Vec<u8>,
}

/// One version of a table, and the schema that its records carry, if they do.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The table.
    pub relation: &'a Relation,
    /// Its records' schema.
    pub schema: Option<&'a RecordSchema>,
}

// === impl Schema ===

impl<'a> Schema<'a> {
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    fn named(kind: &'static str, name: &'a str) -> Self {
        Self::of(kind).with_name(name, Some(1))
    }

    fn structure(fields: Vec<Self>) -> Self {
        Self {
            fields: Some(fields),
            ..Self::of("struct")
        }
    }

    fn array(items: Self) -> Self {
        Self {
            items: Some(items.into()),
            ..Self::of("array")
        }
    }

    fn with_name(self, name: impl Into<Cow<'a, str>>, version: Option<u32>) -> Self {
        Self {
            name: Some(name.into()),
            version,
            ..self
        }
    }

    fn with_parameters(self, parameters: Parameters) -> Self {
        Self {
            parameters: Some(parameters),
            ..self
        }
    }

    fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    fn field(self, name: &'a str) -> Self {
        Self {
            field: Some(name.into()),
            ..self
        }
    }

    /// The beginning of a record with this schema, to the payload.
    fn begin(&self) -> Vec<u8> {
        let mut bytes = br#"{"schema":"#.to_vec();
        let written = serde_json::to_writer(&mut bytes, self);
        written.expect("a schema is strings and numbers");
        bytes.extend_from_slice(br#","payload":"#);
        bytes
    }
}

// === impl RecordSchema ===

impl RecordSchema {
    /// The schema of a relation's records; none where they carry none.
    pub fn new(template: &Template, relation: &Relation, declared: &[Declared]) -> Option<Self> {
        let modes = template.modes;
        if modes.schemas == SchemaMode::None {
            return None;
        }
        let columns = relation.columns.iter();
        let columns = columns.map(|column| described(column, declared, modes));
        let (columns, fillings): (Vec<_>, _) = columns.unzip();
        let topic = format!("{}.{}", template.name, relation.name);
        let key = relation.key_columns();
        let key = key.iter().map(|&index| columns[index].clone()).collect();
        let key = Schema::structure(key).with_name(format!("{topic}.Key"), None);
        Some(Self {
            key: key.begin(),
            value: envelope(&topic, columns).begin(),
            columns: fillings,
        })
    }

    pub(super) fn begin_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
    }

    pub(super) fn begin_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.value);
    }

    /// What stands where PostgreSQL sent no value for a column.
    pub(super) fn missing(&self, column: usize) -> &[u8] {
        self.columns.get(column).map_or(b"null", |it| &it.missing)
    }

    /// What stands where an update left a column's value as it was.
    pub(super) fn unchanged(&self, column: usize) -> &[u8] {
        self.columns.get(column).map_or(b"null", |it| &it.unchanged)
    }
}

// === impl Version ===

impl<'a> From<&'a Relation> for Version<'a> {
    fn from(relation: &'a Relation) -> Self {
        Self {
            relation,
            schema: None,
        }
    }
}

/// Ends a record that began with a schema.
pub(super) fn end(out: &mut Vec<u8>) {
    out.push(END);
}

fn described<'a>(column: &'a Column, declared: &[Declared], modes: Modes) -> (Schema<'a>, Filling) {
    let found = declared.iter().find(|it| *it.name == *column.name);
    let declared = found.cloned().unwrap_or_default();
    let modes = modes.of(column);
    let schema = column::schema(&column.kind, &declared, modes);
    let filling = Filling {
        missing: filling::missing(&column.kind, &declared, modes),
        unchanged: filling::unchanged(&schema, &column.kind, &declared, modes),
    };
    let is_told = declared.is_required || modes.schemas == SchemaMode::Debezium;
    let default = filling::default(&column.kind, &declared, modes).filter(|_| is_told);
    let schema = Schema {
        optional: !declared.is_required,
        default: default.and_then(|json| RawValue::from_string(json).ok()),
        ..schema.field(&column.name)
    };
    (schema, filling)
}

fn envelope<'a>(topic: &str, columns: Vec<Schema<'a>>) -> Schema<'a> {
    let row = Schema::structure(columns).with_name(format!("{topic}.Value"), None);
    let row = row.optional();
    let number = |name| Schema::of("int64").optional().field(name);
    let fields = vec![
        row.clone().field("before"),
        row.field("after"),
        source().field("source"),
        transaction().field("transaction"),
        Schema::of("string").field("op"),
        number("ts_ms"),
        number("ts_us"),
        number("ts_ns"),
    ];
    Schema::structure(fields).with_name(format!("{topic}.Envelope"), Some(2))
}

fn source() -> Schema<'static> {
    const MARKS: &str =
        "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental";
    let text = |name| Schema::of("string").field(name);
    let number = |name| Schema::of("int64").field(name);
    let snapshot = Schema {
        default: RawValue::from_string(r#""false""#.to_owned()).ok(),
        ..enumeration(MARKS.to_owned()).optional().field("snapshot")
    };
    let fields = vec![
        text("version"),
        text("connector"),
        text("name"),
        number("ts_ms"),
        snapshot,
        text("db"),
        text("sequence").optional(),
        number("ts_us").optional(),
        number("ts_ns").optional(),
        text("schema"),
        text("table"),
        number("txId").optional(),
        number("lsn").optional(),
        number("xmin").optional(),
        text("origin").optional(),
        number("origin_lsn").optional(),
    ];
    Schema::structure(fields).with_name("io.debezium.connector.postgresql.Source", Some(1))
}

fn transaction() -> Schema<'static> {
    let fields = vec![
        Schema::of("string").field("id"),
        Schema::of("int64").field("total_order"),
        Schema::of("int64").field("data_collection_order"),
    ];
    let block = Schema::structure(fields).with_name("event.block", Some(1));
    block.optional()
}

fn enumeration(allowed: String) -> Schema<'static> {
    Schema::named("string", "io.debezium.data.Enum").with_parameters(Parameters {
        allowed: Some(allowed),
        ..Parameters::default()
    })
}

/// The beginning of a logical message's key.
pub(super) fn message_key() -> Vec<u8> {
    let prefix = Schema::of("string").optional().field("prefix");
    let name = "io.debezium.connector.postgresql.MessageKey";
    Schema::structure(vec![prefix])
        .with_name(name, Some(1))
        .begin()
}

/// The beginning of a logical message's value.
pub(super) fn message_value() -> Vec<u8> {
    let message = vec![
        Schema::of("string").optional().field("prefix"),
        Schema::of("bytes").optional().field("content"),
    ];
    let message =
        Schema::structure(message).with_name("io.debezium.connector.postgresql.Message", Some(1));
    let fields = vec![
        Schema::of("string").field("op"),
        Schema::of("int64").optional().field("ts_ms"),
        source().field("source"),
        transaction().field("transaction"),
        message.field("message"),
    ];
    let name = "io.debezium.connector.postgresql.MessageValue";
    Schema::structure(fields).with_name(name, Some(1)).begin()
}

/// Key and value of the transaction topic, in their schemas where records carry them.
pub fn marker(modes: Modes, key: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if modes.schemas == SchemaMode::None {
        return (key.to_vec(), value.to_vec());
    }
    let whole = |mut begin: Vec<u8>, payload| {
        begin.extend_from_slice(payload);
        end(&mut begin);
        begin
    };
    (whole(marker_key(), key), whole(marker_value(), value))
}

fn marker_key() -> Vec<u8> {
    let name = "io.debezium.connector.common.TransactionMetadataKey";
    Schema::structure(vec![Schema::of("string").field("id")])
        .with_name(name, Some(1))
        .begin()
}

fn marker_value() -> Vec<u8> {
    let collection = vec![
        Schema::of("string").field("data_collection"),
        Schema::of("int64").field("event_count"),
    ];
    let collection = Schema::structure(collection).with_name("event.collection", Some(1));
    let fields = vec![
        Schema::of("string").field("status"),
        Schema::of("string").field("id"),
        Schema::of("int64").optional().field("event_count"),
        Schema::array(collection.optional())
            .optional()
            .field("data_collections"),
        Schema::of("int64").field("ts_ms"),
    ];
    let name = "io.debezium.connector.common.TransactionMetadataValue";
    Schema::structure(fields).with_name(name, Some(1)).begin()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReplicaIdentity, TableName, Type};

    fn column(name: &str, kind: Type) -> (Column, Declared) {
        let column = Column {
            name: name.into(),
            type_name: kind.to_string().into(),
            kind,
            key: 0,
        };
        let declared = Declared {
            name: name.to_owned(),
            type_name: "text".to_owned(),
            base: "text".to_owned(),
            ..Declared::default()
        };
        (column, declared)
    }

    /// The beginning of a value of these columns.
    fn begin(schemas: SchemaMode, columns: Vec<(Column, Declared)>) -> String {
        let (columns, declared): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let relation = Relation {
            oid: 1,
            name: TableName::new("s", "t"),
            identity: ReplicaIdentity::Default,
            columns: columns.into(),
        };
        let template = Template {
            version: "1".into(),
            name: "p".into(),
            database: "d".into(),
            modes: Modes {
                schemas,
                ..Modes::default()
            },
        };
        let schema = RecordSchema::new(&template, &relation, &declared).unwrap();
        String::from_utf8(schema.value).unwrap()
    }

    #[test]
    fn the_default_of_a_column_that_may_be_null_is_debeziums_alone() {
        let with_default = |is_required| {
            let (column, declared) = column("c", Type::Text);
            let default = Some("'it''s'::text".to_owned());
            let declared = Declared {
                is_required,
                default,
                ..declared
            };
            vec![(column, declared)]
        };
        let told = r#""default":"it's","field":"c""#;
        assert!(begin(SchemaMode::Debezium, with_default(false)).contains(told));
        assert!(begin(SchemaMode::Walferry, with_default(true)).contains(told));
        assert!(!begin(SchemaMode::Walferry, with_default(false)).contains("it's"));
    }

    #[test]
    fn what_debezium_leaves_out_is_a_string_or_an_array_of_its_elements() {
        let composite = column("r", Type::Composite([].into()));
        let points = column("p", Type::array_of(Type::Interval));
        let begin = begin(SchemaMode::Debezium, vec![composite, points]);
        assert!(begin.contains(r#"{"type":"string","optional":true,"field":"r"}"#));
        let interval =
            r#"{"type":"string","optional":true,"name":"io.debezium.time.Interval","version":1}"#;
        let array = format!(r#"{{"type":"array","items":{interval},"optional":true,"field":"p"}}"#);
        assert!(begin.contains(&array), "{begin}");
    }

    #[test]
    fn a_default_that_is_no_constant_is_not_evaluated() {
        let told = |default: &str, kind: Type, type_name: &str| {
            let declared = Declared {
                default: Some(default.to_owned()),
                type_name: type_name.to_owned(),
                ..Declared::default()
            };
            filling::default(&kind, &declared, Modes::default())
        };
        assert_eq!(told("(1 + 2)", Type::Int4, "int4"), None);
        assert_eq!(
            told("nextval('s'::regclass)", Type::Int4, "int4").as_deref(),
            Some("0")
        );
        assert_eq!(
            told("CURRENT_DATE", Type::Date, "date").as_deref(),
            Some("0")
        );
        assert_eq!(
            told("'-7'::integer", Type::Int4, "int4").as_deref(),
            Some("-7")
        );
        assert_eq!(told("NULL::text", Type::Text, "text"), None);
        assert_eq!(told("CURRENT_USER", Type::Text, "text"), None);
    }
}
