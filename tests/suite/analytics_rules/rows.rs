//! Rows of PostgreSQL and documents of MongoDB in one form that can be compared: field by path, value with its type.
//!
//! - A list of documents is, as in a path of MongoDB, one list per field.
//! - A decimal is compared by its value, exactly, and is no integer and no double.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::{Kind, Type};

/// The values of a row by their paths, each as its type and its text.
pub(super) type Row = BTreeMap<String, String>;

/// Asks PostgreSQL; the columns are named by the paths of the document's fields.
pub(super) async fn of_question(sql: &Client, question: &str) -> Vec<Row> {
    let statement = sql.prepare(question).await.unwrap();
    let columns = statement.columns();
    let types: BTreeMap<_, _> = columns.iter().map(|it| (it.name(), it.type_())).collect();
    let as_json = format!("select to_jsonb(asked)::text from ({question}) asked");
    let rows = sql.query(&as_json, &[]).await.unwrap();
    let row = |row: &tokio_postgres::Row| {
        let json: BTreeMap<String, Value> = serde_json::from_str(row.get(0)).unwrap();
        let cells = json.into_iter();
        let cells = cells.map(|(name, value)| (of_json(types[&*name], &value), name));
        cells
            .filter(|(value, _)| value != "[]")
            .map(|(value, name)| (name, value))
            .collect()
    };
    rows.iter().map(row).collect()
}

/// Flattens a document; when an alert was first seen is no part of the answer.
pub(super) fn of_document(document: &Document) -> Row {
    let mut row = Row::new();
    for (name, value) in document.iter().filter(|(name, _)| *name != "detected_at") {
        flatten(name, value, &mut row);
    }
    row
}

/// Panics at the first row that the other side has not, or has otherwise.
pub(super) fn compare(rule: &str, expected: &[Row], found: &[Document]) {
    if expected.iter().all(|row| key(row).is_empty()) {
        return compare_without_keys(rule, expected, found);
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for row in found.iter().map(of_document) {
        rows.insert(key(&row), row);
    }
    assert_eq!(rows.len(), found.len(), "{rule}: keys are not unique");
    for row in expected {
        let found = rows.remove(&key(row));
        assert_eq!(found.as_ref(), Some(row), "{rule}: found and expected");
    }
    assert!(rows.is_empty(), "{rule}: PostgreSQL has none of {rows:#?}");
}

/// Holds rows against each other whose keys SQL cannot know.
fn compare_without_keys(rule: &str, expected: &[Row], found: &[Document]) {
    let mut rows: Vec<Row> = found.iter().map(of_document).collect();
    for row in &mut rows {
        row.retain(|name, _| !is_of_key(name));
    }
    let mut expected = expected.to_vec();
    rows.sort();
    expected.sort();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected, "{rule}: found and expected");
    }
    assert_eq!(rows.len(), expected.len(), "{rule}");
}

fn is_of_key(name: &str) -> bool {
    name == "_id" || name.starts_with("_id.")
}

fn key(row: &Row) -> String {
    let parts = row.iter().filter(|(name, _)| is_of_key(name));
    let parts: Vec<_> = parts
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parts.join(" ")
}

fn flatten(path: &str, value: &Bson, row: &mut Row) {
    match value {
        Bson::Document(document) => {
            for (name, value) in document {
                flatten(&format!("{path}.{name}"), value, row);
            }
        }
        Bson::Array(items) if items.is_empty() => {}
        Bson::Array(items) if items.iter().all(|it| it.as_document().is_some()) => {
            let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for item in items.iter().filter_map(Bson::as_document) {
                for (name, value) in item {
                    let list = lists.entry(format!("{path}.{name}")).or_default();
                    list.push(of_bson(value));
                }
            }
            row.extend(lists.into_iter().map(|(name, list)| (name, listed(&list))));
        }
        other => {
            row.insert(path.to_owned(), of_bson(other));
        }
    }
}

fn of_bson(value: &Bson) -> String {
    match value {
        Bson::Null => "null".to_owned(),
        Bson::Boolean(value) => format!("bool {value}"),
        Bson::Int32(value) => format!("int {value}"),
        Bson::Int64(value) => format!("int {value}"),
        Bson::Double(value) => format!("double {value:?}"),
        Bson::Decimal128(value) => format!("decimal {}", exact(&value.to_string())),
        Bson::String(value) => format!("text {value}"),
        Bson::DateTime(value) => moment(&value.try_to_rfc3339_string().unwrap()),
        Bson::Array(items) => listed(&items.iter().map(of_bson).collect::<Vec<_>>()),
        other => panic!("{other:?} is in no answer"),
    }
}

fn of_json(kind: &Type, value: &Value) -> String {
    match (kind.kind(), value) {
        (_, Value::Null) => "null".to_owned(),
        (Kind::Array(kind), Value::Array(items)) => {
            let items = items.iter().map(|it| of_json(kind, it));
            listed(&items.collect::<Vec<_>>())
        }
        (_, Value::Bool(value)) => format!("bool {value}"),
        (_, Value::Number(value)) if *kind == Type::NUMERIC => {
            format!("decimal {}", exact(&value.to_string()))
        }
        (_, Value::Number(value)) if *kind == Type::FLOAT8 => {
            format!("double {:?}", value.as_f64().unwrap())
        }
        (_, Value::Number(value)) => format!("int {value}"),
        (_, Value::String(value)) if *kind == Type::TIMESTAMP => moment(value),
        (_, Value::String(value)) => format!("text {value}"),
        (_, other) => panic!("{kind}: {other} is in no answer"),
    }
}

fn listed(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// Without the zone, which is UTC on both sides, and without zeros behind the seconds.
fn moment(text: &str) -> String {
    let text = text.trim_end_matches('Z');
    match text.split_once('.') {
        Some(_) => format!("date {}", text.trim_end_matches('0').trim_end_matches('.')),
        None => format!("date {text}"),
    }
}

/// A decimal as its digits and the power of ten behind them, so that equal ones are written alike.
fn exact(text: &str) -> String {
    let (number, power) = text.split_once(['E', 'e']).unwrap_or((text, "0"));
    let (sign, number) = match number.strip_prefix('-') {
        Some(number) => ("-", number),
        None => ("", number),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    let shown = digits.trim_start_matches('0').trim_end_matches('0');
    if shown.is_empty() {
        return "0".to_owned();
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let power = power.parse::<i64>().unwrap() - i64::try_from(part.len()).unwrap()
        + i64::try_from(zeros).unwrap();
    format!("{sign}{shown}e{power}")
}

#[test]
fn equal_decimals_are_written_alike_and_others_are_not() {
    let alike = |one: &str, other: &str| exact(one) == exact(other);
    assert!(alike("1.50", "1.5") && alike("1E+3", "1000.00") && alike("-0.00", "0"));
    assert!(!alike("1.5", "15") && !alike("-1", "1") && !alike("0.05", "0.5"));
}
