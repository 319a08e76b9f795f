//! A batch that keeps its events and applies them in order.

use walferry_schema::TableName;

use super::table::document_of;
use super::{Document, Documents, FakeError};
use crate::{Batch, Fault, LetterOrder, RowEvent, Skipped, Target};

/// Events in the order they came.
#[derive(Debug, Default)]
pub struct FakeBatch {
    pub(super) events: Vec<(String, Event)>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) letters: Vec<LetterOrder>,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Insert(String, Document),
    Update(String, Document),
    Delete(String),
    Move(String, String, Document),
    Truncate,
}

// === impl FakeBatch ===

impl FakeBatch {
    /// Applies the events: how many did not find what they expected.
    pub(super) fn apply(self, documents: &mut Documents) -> Result<u64, Fault> {
        let mut repaired = 0;
        for (collection, event) in self.events {
            if collection.contains('.') && !documents.contains_key(&collection) {
                return Err(FakeError::fatal(format!("{collection} was never made")));
            }
            repaired += event.apply(documents.entry(collection).or_default())?;
        }
        Ok(repaired)
    }
}

impl Batch for FakeBatch {
    fn push(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<(), Fault> {
        if target.oversize.is_some() {
            return Err(FakeError::fault(
                crate::Class::Poison,
                "the row is too large",
            ));
        }
        let event = match event {
            RowEvent::Insert(image) => {
                let (key, document) = document_of(&image);
                Event::Insert(key, document)
            }
            RowEvent::Update(image) => {
                let (key, document) = document_of(&image);
                Event::Update(key, document)
            }
            RowEvent::Delete(image) => Event::Delete(document_of(&image).0),
            RowEvent::Move { from, to } => {
                let (key, document) = document_of(&to);
                Event::Move(document_of(&from).0, key, document)
            }
            RowEvent::Truncate => Event::Truncate,
        };
        if let Event::Insert(_, document) | Event::Update(_, document) = &event
            && document.get("v").is_some_and(|value| value == "poison")
        {
            return Err(FakeError::fault(
                crate::Class::Poison,
                "column v has no form",
            ));
        }
        self.events
            .push((collection(target.table, target.staging), event));
        Ok(())
    }

    fn skip(&mut self, skipped: Skipped) {
        self.skipped.push(skipped);
    }

    fn carry_out(&mut self, order: LetterOrder) {
        self.letters.push(order);
    }

    fn operations(&self) -> usize {
        self.events.len()
    }

    fn bytes(&self) -> usize {
        10 * self.events.len()
    }
}

// === impl Event ===

impl Event {
    fn apply(self, rows: &mut std::collections::BTreeMap<String, Document>) -> Result<u64, Fault> {
        match self {
            Self::Insert(key, document) => Ok(u64::from(rows.insert(key, document).is_some())),
            Self::Update(key, document) => match rows.get_mut(&key) {
                Some(row) => {
                    row.extend(document);
                    Ok(0)
                }
                None if document.len() == 2 => {
                    rows.insert(key, document);
                    Ok(1)
                }
                None => Err(FakeError::fatal(format!("there is no {key} to update"))),
            },
            Self::Delete(key) => Ok(u64::from(rows.remove(&key).is_none())),
            Self::Move(from, to, document) => {
                let Some(mut row) = rows.remove(&from) else {
                    return Err(FakeError::fatal(format!("there is no {from} to move")));
                };
                row.extend(document);
                Ok(u64::from(rows.insert(to, row).is_some()))
            }
            Self::Truncate => {
                rows.clear();
                Ok(0)
            }
        }
    }
}

/// The collection of a table, or its staging collection.
pub(super) fn collection(table: &TableName, staging: Option<u64>) -> String {
    match staging {
        Some(generation) => format!("{}.{generation}", table.table),
        None => table.table.to_string(),
    }
}
