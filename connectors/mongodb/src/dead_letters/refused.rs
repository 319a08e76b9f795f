//! A refused change as those see it who follow the dead-letter topic: its document and its key, as JSON.

use walferry_core::RefusedChange;

use super::{Letter, Operation};
use crate::bson_value::element;
use crate::document::append_id;
use crate::extended_json::ExtendedJson;
use crate::parked::Content;
use crate::parking;

// === impl Letter ===

impl Letter {
    /// Whether MongoDB refused it itself: it does not wait for another one, and did not come without some of its values,
    /// as what stands on the dead-letter topic already.
    pub(crate) fn is_refused(&self) -> bool {
        let is_known = self.operation == Operation::Delete || self.missing.is_some();
        !is_known && !parking::waits(&self.error)
    }
}

/// What is published of what a letter says; none where MongoDB did not refuse it itself.
pub(crate) fn refused(content: &Content) -> Option<RefusedChange> {
    let letter = content.refused.as_ref()?;
    Some(RefusedChange {
        letter: letter.at.clone(),
        table: letter.table.to_string(),
        error: letter.error.clone(),
        key: json(&letter.key, &[]),
        value: json(&letter.key, &content.elements),
    })
}

/// The JSON of a document with this `_id`.
fn json(id: &[u8], elements: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements.len() + id.len() + 16);
    let document = element::open(&mut bytes);
    append_id(&mut bytes, id);
    bytes.extend_from_slice(elements);
    element::close(&mut bytes, document);
    // Only what was just written here is in it: each of its types has a JSON.
    serde_json::to_vec(&ExtendedJson::new(bytes)).unwrap_or_default()
}
