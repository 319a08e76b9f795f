//! What becomes of a row when its dead letters are applied after all.
//!
//! - They are applied one after another to the documents as MongoDB has them, in memory; what they come to is written.
//! - Nothing is written where one of them cannot be applied.

use std::collections::HashMap;

use crate::batch::merged;
use crate::bson_value::element::Elements;
use crate::dead_letters::{Letter, Operation};
use crate::document::{DOCUMENT_OVERHEAD, MAX_DOCUMENT_BYTES, show_id};

/// The documents of a row, by the keys that it had.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// As MongoDB has them; none where there is none.
    stored: HashMap<Vec<u8>, Option<Known>>,
    /// What the letters made of them.
    changed: HashMap<Vec<u8>, Option<Known>>,
}

/// Documents as they are to be, by their keys; none where one has to go.
pub(crate) type Documents = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What is known of a document.
#[derive(Clone, Debug, Default)]
struct Known {
    elements: Vec<u8>,
    /// The fields that stand elsewhere, with where.
    missing: Vec<(String, String)>,
}

// === impl Replay ===

impl Replay {
    /// Begins with a document as MongoDB has it, `_id` included.
    pub(crate) fn begin(&mut self, key: Vec<u8>, document: Option<&[u8]>) {
        let known = document.map(|document| Known {
            elements: Elements::of_document(document)
                .filter(|element| element.name != b"_id")
                .flat_map(|element| element.bytes)
                .copied()
                .collect(),
            missing: Vec::new(),
        });
        self.stored.insert(key, known);
    }

    /// Applies a letter, with the elements that it says; why it cannot be.
    pub(crate) fn apply(&mut self, letter: &Letter, elements: Vec<u8>) -> Result<(), String> {
        let missing = letter.missing.iter().flat_map(|missing| {
            let reference = missing.reference.clone();
            let fields = missing.fields.iter().cloned();
            fields.map(move |field| (field, reference.clone()))
        });
        let change = Known {
            elements,
            missing: missing.collect(),
        };
        let after = match letter.operation {
            Operation::Delete => None,
            Operation::Put => Some(change),
            Operation::Set => Some(self.take(&letter.key)?.set(change)),
            Operation::Move => {
                let from = letter.from.as_deref().unwrap_or_default();
                let moved = self.take(from)?.moved(change, &letter.fields)?;
                self.changed.insert(from.to_vec(), None);
                Some(moved)
            }
        };
        self.changed.insert(letter.key.clone(), after);
        Ok(())
    }

    /// What the documents come to, by their keys; why that cannot be written.
    pub(crate) fn finish(self) -> Result<Documents, String> {
        let finished = self.changed.into_iter().map(|(key, known)| {
            let Some(known) = known else {
                return Ok((key, None));
            };
            known.check(&key)?;
            Ok((key, Some(known.elements)))
        });
        finished.collect()
    }

    fn take(&self, key: &[u8]) -> Result<Known, String> {
        let known = self.changed.get(key).or_else(|| self.stored.get(key));
        let known = known.cloned().flatten();
        known.ok_or_else(|| format!("the document {} that it changes is not there", show_id(key)))
    }
}

// === impl Known ===

impl Known {
    fn set(mut self, change: Self) -> Self {
        let came = |field: &str| has(&change.elements, field);
        self.missing.retain(|(field, _)| !came(field));
        self.missing.extend(change.missing);
        self.elements = merged(&self.elements, &change.elements);
        self
    }

    /// The document under another key: its fields in order, what the change lacks from the old document.
    fn moved(self, change: Self, fields: &[String]) -> Result<Self, String> {
        let known = self.set(change);
        let all: Vec<_> = Elements::new(&known.elements).collect();
        let mut elements = Vec::with_capacity(known.elements.len());
        for field in fields {
            let found = all.iter().find(|it| it.name == field.as_bytes());
            match found {
                Some(found) => elements.extend_from_slice(found.bytes),
                None if known.missing.iter().any(|(it, _)| it == field) => {}
                None => return Err(format!("the document that it moves has no field {field}")),
            }
        }
        let missing = known.missing;
        Ok(Self { elements, missing })
    }

    fn check(&self, key: &[u8]) -> Result<(), String> {
        if let Some((field, reference)) = self.missing.first() {
            return Err(format!(
                "the value of {field} was too large for the log and stands in {reference}"
            ));
        }
        let bytes = self.elements.len() + key.len() + DOCUMENT_OVERHEAD;
        if bytes > MAX_DOCUMENT_BYTES {
            return Err(format!(
                "the document has {bytes} bytes, MongoDB takes {MAX_DOCUMENT_BYTES}"
            ));
        }
        Ok(())
    }
}

fn has(elements: &[u8], field: &str) -> bool {
    Elements::new(elements).any(|element| element.name == field.as_bytes())
}

#[cfg(test)]
mod tests {
    use walferry_schema::{Lsn, Phase, Position, TableName};

    use super::*;
    use crate::batch::Missing;
    use crate::bson_value::element;

    fn letter(operation: Operation, key: u8, from: Option<u8>) -> Letter {
        Letter {
            at: String::new(),
            table: TableName::new("public", "t"),
            position: Position::end_of(7, Phase::Stream(Lsn(9))),
            committed_at: None,
            operation,
            key: vec![key],
            from: from.map(|it| vec![it]),
            fields: vec!["a".into(), "b".into()],
            missing: None,
            bytes: 0,
            error: String::new(),
            epoch: 1,
        }
    }

    fn elements(fields: &[(&str, i32)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in fields {
            element::int32(&mut out, name, *value);
        }
        out
    }

    fn replayed(
        stored: Option<&[(&str, i32)]>,
        letters: &[(Letter, &[(&str, i32)])],
    ) -> Result<Documents, String> {
        let mut replay = Replay::default();
        let document = stored.map(|fields| {
            let mut out = Vec::new();
            let at = element::open(&mut out);
            out.extend(elements(fields));
            element::close(&mut out, at);
            out
        });
        replay.begin(vec![1], document.as_deref());
        for (letter, fields) in letters {
            replay.apply(letter, elements(fields))?;
        }
        let mut finished = replay.finish()?;
        finished.sort();
        Ok(finished)
    }

    #[test]
    fn the_last_state_is_what_is_written() {
        let put = letter(Operation::Put, 1, None);
        let set = letter(Operation::Set, 1, None);
        let gone = letter(Operation::Delete, 1, None);
        let whole = [(put.clone(), &[("a", 1), ("b", 1)][..]), (set, &[("b", 2)])];
        let state = Some(elements(&[("a", 1), ("b", 2)]));
        assert_eq!(replayed(None, &whole), Ok(vec![(vec![1], state)]));
        let gone = [(put, &[("a", 1)][..]), (gone, &[])];
        assert_eq!(
            replayed(Some(&[("a", 0)]), &gone),
            Ok(vec![(vec![1], None)])
        );
    }

    #[test]
    fn columns_are_set_in_the_document_that_stands_there_and_nowhere_else() {
        let set = [(letter(Operation::Set, 1, None), &[("b", 2)][..])];
        let state = Some(elements(&[("a", 1), ("b", 2)]));
        let stored = [("_id", 1), ("a", 1), ("b", 1)];
        assert_eq!(replayed(Some(&stored), &set), Ok(vec![(vec![1], state)]));
        assert!(replayed(None, &set).unwrap_err().contains("is not there"));
    }

    #[test]
    fn a_row_takes_its_fields_to_its_new_key() {
        let moved = [(letter(Operation::Move, 2, Some(1)), &[("b", 2)][..])];
        let state = Some(elements(&[("a", 1), ("b", 2)]));
        let stored = [("a", 1), ("b", 1)];
        let expected = vec![(vec![1], None), (vec![2], state)];
        assert_eq!(replayed(Some(&stored), &moved), Ok(expected));
    }

    #[test]
    fn a_value_that_stands_elsewhere_is_waited_for_until_a_later_change_brings_it() {
        let mut put = letter(Operation::Put, 1, None);
        put.missing = Some(Missing {
            fields: vec!["b".into()],
            reference: "p.dead-letter/7".into(),
        });
        let first = (put, &[("a", 1)][..]);
        let why = replayed(None, std::slice::from_ref(&first)).unwrap_err();
        assert!(why.contains("p.dead-letter/7"), "{why}");
        let set = (letter(Operation::Set, 1, None), &[("b", 2)][..]);
        let state = Some(elements(&[("a", 1), ("b", 2)]));
        assert_eq!(replayed(None, &[first, set]), Ok(vec![(vec![1], state)]));
    }
}
