//! What differs between the document that a row should be and the one that is there.
//!
//! - Values are compared byte for byte: another BSON type is a difference, and so is another scale.
//! - The order of the fields is none: an update adds a new column's field at the end.

use std::collections::BTreeMap;

use crate::bson_value::element::{self, Elements};
pub use crate::document::show_id;

/// How much of a value is shown.
const SHOWN_CHARACTERS: usize = 200;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// The field's name.
    pub name: String,
    /// What it should be; none when there should be no such field.
    pub expected: Option<String>,
    /// What it is; none when there is no such field.
    pub found: Option<String>,
}

/// The fields that differ between two documents, in the order of their names.
pub fn differences(expected: &[u8], found: &[u8]) -> Vec<FieldDifference> {
    if expected == found {
        return Vec::new();
    }
    let mut fields: BTreeMap<&[u8], [Option<&[u8]>; 2]> = BTreeMap::new();
    for (side, document) in [expected, found].into_iter().enumerate() {
        for field in Elements::of_document(document) {
            fields.entry(field.name).or_default()[side] = Some(field.bytes);
        }
    }
    let differing = fields
        .into_iter()
        .filter(|(_, [expected, found])| expected != found);
    let difference = |(name, [expected, found]): (&[u8], [Option<&[u8]>; 2])| FieldDifference {
        name: String::from_utf8_lossy(name).into_owned(),
        expected: expected.map(show),
        found: found.map(show),
    };
    differing.map(difference).collect()
}

/// An element's value for people, with its type where the text alone could be another's.
fn show(element: &[u8]) -> String {
    let mut bytes = Vec::new();
    let document = element::open(&mut bytes);
    bytes.extend_from_slice(element);
    element::close(&mut bytes, document);
    let document = bson::RawDocumentBuf::from_bytes(bytes).ok();
    let document = document.and_then(|raw| bson::Document::try_from(&*raw).ok());
    let value = document.and_then(|document| document.into_iter().next());
    let Some((_, value)) = value else {
        return "(not BSON)".to_owned();
    };
    let text: String = value.to_string().chars().take(SHOWN_CHARACTERS).collect();
    format!("{text} ({:?})", value.element_type())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};

    fn bytes(document: &Document) -> Vec<u8> {
        document.to_vec().unwrap()
    }

    fn differing(expected: &Document, found: &Document) -> Vec<(String, bool, bool)> {
        differences(&bytes(expected), &bytes(found))
            .into_iter()
            .map(|field| (field.name, field.expected.is_some(), field.found.is_some()))
            .collect()
    }

    #[test]
    fn equal_documents_and_other_orders_of_fields_do_not_differ() {
        let document = doc! { "_id": 1, "a": "x", "b": null };
        assert!(differing(&document, &document).is_empty());
        assert!(differing(&document, &doc! { "_id": 1, "b": null, "a": "x" }).is_empty());
    }

    #[test]
    fn each_differing_field_is_named_with_both_values() {
        let expected = doc! { "_id": 1, "a": 1_i32, "b": "x", "c": f64::NAN };
        let found = doc! { "_id": 1, "a": 1_i64, "c": f64::NAN, "d": 0 };
        let named = [("a", true, true), ("b", true, false), ("d", false, true)];
        let named = named.map(|(name, expected, found)| (name.to_owned(), expected, found));
        assert_eq!(differing(&expected, &found), named);
        let fields = differences(&bytes(&expected), &bytes(&found));
        assert_eq!(fields[0].expected.as_deref(), Some("1 (Int32)"));
        assert_eq!(fields[0].found.as_deref(), Some("1 (Int64)"));
    }
}
