//! A document of an answer: as JSON, and as text in columns.

use bson::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf};
use serde::{Serialize, Serializer};

use crate::ExtendedJson;
use crate::bson_value::time;

const MILLIS_DIGITS: u8 = 3;

/// A document of an answer; as JSON it is relaxed extended JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(RawDocumentBuf);

// === impl Row ===

impl Row {
    pub(super) fn new(document: RawDocumentBuf) -> Self {
        Self(document)
    }

    /// Its fields in order, each as text; documents inside it stand as text too.
    pub fn cells(&self) -> Vec<(String, String)> {
        let fields = self.0.iter().flatten();
        fields
            .map(|(name, value)| (name.as_str().to_owned(), cell(value)))
            .collect()
    }

    /// The same with the fields of documents inside it as fields of its own: `evidence.amount`.
    pub fn flat_cells(&self) -> Vec<(String, String)> {
        let mut cells = Vec::new();
        flatten(&self.0, "", &mut cells);
        cells
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ExtendedJson::new(self.0.as_bytes().to_vec()).serialize(serializer)
    }
}

fn flatten(document: &RawDocument, prefix: &str, cells: &mut Vec<(String, String)>) {
    for (name, value) in document.iter().flatten() {
        let name = format!("{prefix}{}", name.as_str());
        match value {
            RawBsonRef::Document(inner) => flatten(inner, &format!("{name}."), cells),
            other => cells.push((name, cell(other))),
        }
    }
}

/// A value that has a column for itself: nothing is an empty one.
fn cell(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::Null | RawBsonRef::Undefined => String::new(),
        other => text(other),
    }
}

/// A value as people read it.
fn text(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::Null | RawBsonRef::Undefined => "null".to_owned(),
        RawBsonRef::Boolean(flag) => flag.to_string(),
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        RawBsonRef::Double(number) => number.to_string(),
        RawBsonRef::Decimal128(number) => number.to_string(),
        RawBsonRef::String(text) => text.to_owned(),
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::DateTime(at) => moment(at.timestamp_millis()),
        RawBsonRef::Document(document) => document_text(document),
        RawBsonRef::Array(array) => array_text(array),
        other => format!("{other:?}"),
    }
}

pub(super) fn document_text(document: &RawDocument) -> String {
    let fields = document.iter().flatten();
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{}: {}", name.as_str(), text(value)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn array_text(array: &RawArray) -> String {
    let items: Vec<_> = array.into_iter().flatten().map(text).collect();
    format!("[{}]", items.join(", "))
}

fn moment(millis: i64) -> String {
    let days = millis.div_euclid(time::MILLIS_PER_DAY);
    let millis = millis.rem_euclid(time::MILLIS_PER_DAY);
    let digits = if millis % 1_000 == 0 {
        0
    } else {
        MILLIS_DIGITS
    };
    time::iso(days, millis * 1_000, digits, "Z")
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, Decimal128, doc};

    use super::*;

    #[test]
    fn a_row_is_text_in_columns_with_what_is_inside_it_or_flat() {
        let amount: Decimal128 = "12.50".parse().unwrap();
        let document = doc! {
            "_id": { "rule": "f", "ref": 7 },
            "at": DateTime::from_millis(-1),
            "amount": amount,
            "list": [1, { "a": null }],
        };
        let row = Row::new(RawDocumentBuf::try_from(&document).unwrap());
        let texts: Vec<_> = row.cells().into_iter().map(|(_, text)| text).collect();
        let expected = [
            "{rule: f, ref: 7}",
            "1969-12-31T23:59:59.999Z",
            "12.50",
            "[1, {a: null}]",
        ];
        assert_eq!(texts, expected);
        let names: Vec<_> = row.flat_cells().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["_id.rule", "_id.ref", "at", "amount", "list"]);
    }
}
