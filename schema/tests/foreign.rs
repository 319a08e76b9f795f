//! What Debezium wrote, whole and damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use walferry_schema::envelope::foreign::{self, Parts, Whence};
use walferry_schema::envelope::{Envelope, EnvelopeError};
use walferry_schema::{Columns, Modes};

/// With schemas in several modes; without schemas the columns are another capture's of the same table.
const CAPTURES: [&str; 6] = [
    include_str!("../../tests/suite/debezium/default.txt"),
    include_str!("../../tests/suite/debezium/connect.txt"),
    include_str!("../../tests/suite/debezium/iso.txt"),
    include_str!("../../tests/suite/debezium/micro.txt"),
    include_str!("../../tests/suite/debezium/nano.txt"),
    include_str!("../../tests/suite/debezium/plain.txt"),
];
/// What makes JSON of another shape, and values of other types.
const MARKS: &[u8] = b"0123456789-+.eE\"\\{}[],: TZntfu/=\x80";

/// A record's value, with the columns that are meant where it has no schema.
struct Captured {
    value: String,
    columns: Columns,
}

static RECORDS: LazyLock<Vec<Captured>> =
    LazyLock::new(|| CAPTURES.into_iter().flat_map(records).collect());

fn records(capture: &str) -> Vec<Captured> {
    let mut schemas = HashMap::new();
    let mut records = Vec::new();
    let mut table = "";
    for line in capture.lines() {
        match line.split_once(' ') {
            Some(("SCHEMA", schema)) => schemas.extend(schema.split_once(' ')),
            Some(("TOPIC", topic)) => {
                let topic = topic.split(' ').next().unwrap_or_default();
                table = topic.rsplit('.').next().unwrap_or_default();
            }
            Some(("VAL", value)) if value.contains("\"source\"") => {
                let value = expanded(value, &schemas);
                if let Some(columns) = columns_of(&value, table) {
                    records.push(Captured { value, columns });
                }
            }
            _ => {}
        }
    }
    records
}

/// A value with its schema in the place of the schema's number.
fn expanded(value: &str, schemas: &HashMap<&str, &str>) -> String {
    let Some(rest) = value.strip_prefix("{\"schema\":#") else {
        return value.to_owned();
    };
    let (number, rest) = rest.split_once(',').unwrap();
    format!("{{\"schema\":{},{rest}", schemas[number])
}

fn columns_of(value: &str, table: &str) -> Option<Columns> {
    let parts = Parts::of(value.as_bytes()).ok()?;
    if let Some(schema) = parts.schema {
        return foreign::columns(schema, Modes::default()).ok();
    }
    let of_schemas = records(CAPTURES[0]).into_iter();
    let mut same = of_schemas.filter(|it| it.value.contains(&format!("\"table\":\"{table}\"")));
    same.next().map(|it| it.columns)
}

/// How many values of a record's row are read.
fn values(value: &[u8], columns: &Columns) -> Result<usize, EnvelopeError> {
    let parts = Parts::of(value)?;
    Whence::of(parts.payload)?;
    foreign::row_names(parts.payload)?;
    let own = parts
        .schema
        .map(|it| foreign::columns(it, Modes::default()));
    let own = own.transpose()?;
    let columns = own.as_ref().unwrap_or(columns);
    let envelope = Envelope::from_bytes(parts.payload.as_bytes())?;
    // What stands in `before` Debezium may have made up; nobody reads it.
    let row = envelope.after.map(|row| foreign::read(columns, row, true));
    Ok(row.transpose()?.map_or(0, |image| image.fields.len()))
}

#[test]
fn every_captured_record_is_read() {
    let (mut read, mut most) = (0, 0);
    for Captured { value, columns } in RECORDS.iter() {
        let values = values(value.as_bytes(), columns);
        let values = values.unwrap_or_else(|error| panic!("{error}: {value}"));
        (read, most) = (read + 1, most.max(values));
    }
    assert!(read > 50 && most > 60, "{read} records, {most} values");
}

/// Where a byte changes: any, or one of a number; and to what.
type Damage = (prop::sample::Index, bool, u8);

fn damage() -> impl Strategy<Value = Damage> {
    (
        any::<prop::sample::Index>(),
        any::<bool>(),
        prop::sample::select(MARKS),
    )
}

/// A record with bytes changed from a place on.
fn damaged(value: &str, from: usize, damages: Vec<Damage>) -> Vec<u8> {
    let mut value = value.as_bytes().to_vec();
    let numbers = (from..value.len()).filter(|&at| value[at].is_ascii_digit());
    let numbers: Vec<_> = numbers.collect();
    for (index, is_number, mark) in damages {
        let at = if is_number {
            *index.get(&numbers)
        } else {
            from + index.index(value.len() - from)
        };
        value[at] = mark;
    }
    value
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_damaged_record_is_read_or_refused_and_never_a_panic(
        record: prop::sample::Index,
        damages in prop::collection::vec(damage(), 1..5),
        cut: Option<prop::sample::Index>,
    ) {
        let Captured { value, columns } = record.get(&RECORDS);
        let value = damaged(value, value.find("\"payload\"").unwrap_or_default(), damages);
        let len = cut.map_or(value.len(), |cut| cut.index(value.len()));
        let _ = values(&value[..len], columns);
    }

    #[test]
    fn a_damaged_schema_is_read_or_refused_and_never_a_panic(
        record: prop::sample::Index,
        damages in prop::collection::vec(damage(), 1..3),
    ) {
        let Captured { value, columns } = record.get(&RECORDS);
        let _ = values(&damaged(value, 0, damages), columns);
    }
}
