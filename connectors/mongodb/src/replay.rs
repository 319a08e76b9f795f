//! What becomes of a row when its dead letters are applied after all.
//!
//! - They are applied one after another to the documents as MongoDB has them, in memory; what they come to is written.
//! - Nothing is written where one of them cannot be applied.
//! - What stands elsewhere is only needed where no later letter replaces it.
//! - A column that the table has no longer stays out.

use std::collections::{HashMap, HashSet};

use crate::batch::{Elsewhere, merged};
use crate::bson_value::element::Elements;
use crate::dead_letters::{Letter, Operation};
use crate::document::{DOCUMENT_OVERHEAD, MAX_DOCUMENT_BYTES, show_id};
use crate::identity;

/// The documents of a row, by the identities of the keys that it had.
#[derive(Debug, Default)]
pub(crate) struct Replay<'l> {
    /// The fields that documents of the table have now; none where that is not known.
    fields: Option<HashSet<String>>,
    /// As MongoDB has them; none where there is none.
    stored: HashMap<Vec<u8>, Option<Known<'l>>>,
    /// What the letters made of them, and the keys that they have by now.
    changed: HashMap<Vec<u8>, (&'l [u8], Option<Known<'l>>)>,
}

/// Documents as they are to be, by their keys; none where one has to go.
pub(crate) type Documents = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What is known of a document.
#[derive(Clone, Debug, Default)]
struct Known<'l> {
    elements: Vec<u8>,
    /// The fields that stand elsewhere.
    lacks: Vec<Lack<'l>>,
    /// The order of its fields, where what it lacks comes later.
    order: &'l [String],
}

/// A field that stands elsewhere.
#[derive(Clone, Copy, Debug)]
struct Lack<'l> {
    field: &'l str,
    letter: &'l Letter,
    place: &'l Elsewhere,
}

// === impl Replay ===

impl<'l> Replay<'l> {
    /// Over documents with these fields; none where they are not known.
    pub(crate) fn over(fields: Option<HashSet<String>>) -> Self {
        Self {
            fields,
            ..Self::default()
        }
    }

    /// Begins with a document as MongoDB has it, `_id` included.
    pub(crate) fn begin(&mut self, key: &[u8], document: Option<&[u8]>) {
        let known = document.map(|document| Known {
            elements: Elements::of_document(document)
                .filter(|element| element.name != b"_id")
                .flat_map(|element| element.bytes)
                .copied()
                .collect(),
            ..Known::default()
        });
        self.stored.insert(identity(key).into_owned(), known);
    }

    /// Applies a letter, with the elements that it says; why it cannot be.
    pub(crate) fn apply(&mut self, letter: &'l Letter, elements: &[u8]) -> Result<(), String> {
        let places = letter.missing.iter().flat_map(|missing| &missing.places);
        let lacks = places.flat_map(|place| {
            place.fields.iter().map(move |field| Lack {
                field,
                letter,
                place,
            })
        });
        let elements = Elements::new(elements).filter(|it| self.has(it.name));
        let change = Known {
            elements: elements.flat_map(|it| it.bytes).copied().collect(),
            lacks: lacks.filter(|it| self.has(it.field.as_bytes())).collect(),
            order: &letter.fields,
        };
        let after = match letter.operation {
            Operation::Delete => None,
            Operation::Put => Some(change),
            Operation::Set => Some(self.take(&letter.key)?.set(change)),
            Operation::Move => {
                let from = letter.from.as_deref().unwrap_or_default();
                let fields = letter.fields.iter().filter(|it| self.has(it.as_bytes()));
                let moved = self.take(from)?.moved(change, fields)?;
                self.change(from, None);
                Some(moved)
            }
        };
        self.change(&letter.key, after);
        Ok(())
    }

    fn change(&mut self, key: &'l [u8], after: Option<Known<'l>>) {
        self.changed
            .insert(identity(key).into_owned(), (key, after));
    }

    /// What the documents still lack, each with the letter that refers to it.
    pub(crate) fn lacks(&self) -> Vec<(&'l Letter, &'l Elsewhere)> {
        let mut found: Vec<(&'l Letter, &'l Elsewhere)> = Vec::new();
        let documents = self.changed.values().filter_map(|(_, it)| it.as_ref());
        let lacks = documents.flat_map(|it| &it.lacks);
        for Lack { letter, place, .. } in lacks {
            if !found.iter().any(|(_, it)| std::ptr::eq(*it, *place)) {
                found.push((letter, place));
            }
        }
        found
    }

    /// Brings what the documents lacked of a place: its elements.
    pub(crate) fn bring(&mut self, place: &Elsewhere, elements: &[u8]) {
        for (_, known) in self.changed.values_mut() {
            if let Some(known) = known {
                known.bring(place, elements);
            }
        }
    }

    /// What the documents come to, by their keys; why that cannot be written.
    pub(crate) fn finish(self) -> Result<Documents, String> {
        let finished = self.changed.into_values().map(|(key, known)| {
            if let Some(known) = &known {
                known.check(key)?;
            }
            Ok((key.to_vec(), known.map(|it| it.elements)))
        });
        finished.collect()
    }

    /// Whether documents of the table have a field.
    fn has(&self, field: &[u8]) -> bool {
        let Some(fields) = &self.fields else {
            return true;
        };
        std::str::from_utf8(field).is_ok_and(|field| fields.contains(field))
    }

    fn take(&self, key: &[u8]) -> Result<Known<'l>, String> {
        let row = &*identity(key);
        let changed = self.changed.get(row).map(|(_, known)| known);
        let known = changed.or_else(|| self.stored.get(row));
        let known = known.cloned().flatten();
        known.ok_or_else(|| format!("the document {} that it changes is not there", show_id(key)))
    }
}

// === impl Known ===

impl<'l> Known<'l> {
    fn set(mut self, change: Self) -> Self {
        let came = |field: &str| has(&change.elements, field);
        let is_newer = |field: &str| change.lacks.iter().any(|it| it.field == field);
        self.lacks
            .retain(|it| !came(it.field) && !is_newer(it.field));
        self.lacks.extend(change.lacks);
        self.elements = merged(&self.elements, &change.elements);
        self
    }

    /// The document under another key: its fields in order, what the change lacks from the old document.
    fn moved(self, change: Self, fields: impl Iterator<Item = &'l String>) -> Result<Self, String> {
        let order = change.order;
        let known = self.set(change);
        let all: Vec<_> = Elements::new(&known.elements).collect();
        let mut elements = Vec::with_capacity(known.elements.len());
        for field in fields {
            let found = all.iter().find(|it| it.name == field.as_bytes());
            match found {
                Some(found) => elements.extend_from_slice(found.bytes),
                None if known.lacks.iter().any(|it| it.field == field) => {}
                None => return Err(format!("the document that it moves has no field {field}")),
            }
        }
        let lacks = known.lacks;
        Ok(Self {
            elements,
            lacks,
            order,
        })
    }

    /// Takes the fields that it lacked of a place.
    fn bring(&mut self, place: &Elsewhere, elements: &[u8]) {
        let (came, lacks): (Vec<Lack<'_>>, _) = std::mem::take(&mut self.lacks)
            .into_iter()
            .partition(|it| std::ptr::eq(it.place, place));
        self.lacks = lacks;
        let is_wanted = |name: &[u8]| came.iter().any(|it| it.field.as_bytes() == name);
        let wanted = Elements::new(elements).filter(|it| is_wanted(it.name));
        let brought: Vec<_> = wanted.flat_map(|it| it.bytes).copied().collect();
        self.elements = ordered(&merged(&self.elements, &brought), self.order);
    }

    fn check(&self, key: &[u8]) -> Result<(), String> {
        if let Some(Lack { field, place, .. }) = self.lacks.first() {
            let reference = &place.reference;
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

/// Elements in an order of fields, those that it does not name behind them.
fn ordered(elements: &[u8], order: &[String]) -> Vec<u8> {
    let mut all: Vec<_> = Elements::new(elements).collect();
    let places: HashMap<_, _> = order.iter().map(String::as_bytes).zip(0..).collect();
    all.sort_by_key(|it| places.get(it.name).copied().unwrap_or(usize::MAX));
    all.iter().flat_map(|it| it.bytes).copied().collect()
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
        replay.begin(&[1], document.as_deref());
        for (letter, fields) in letters {
            replay.apply(letter, &elements(fields))?;
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
        put.missing = Some(b_elsewhere());
        let first = (put, &[("a", 1)][..]);
        let why = replayed(None, std::slice::from_ref(&first)).unwrap_err();
        assert!(why.contains("p.dead-letter/7"), "{why}");
        let set = (letter(Operation::Set, 1, None), &[("b", 2)][..]);
        let state = Some(elements(&[("a", 1), ("b", 2)]));
        assert_eq!(replayed(None, &[first, set]), Ok(vec![(vec![1], state)]));
    }

    fn b_elsewhere() -> Missing {
        let place = Elsewhere {
            fields: vec!["b".into()],
            position: Position::end_of(7, Phase::Stream(Lsn(9))),
            bytes: 9,
            reference: "p.dead-letter/7".into(),
            texts: Vec::new(),
        };
        Missing {
            order: vec!["a".into(), "b".into(), "c".into()],
            places: vec![place],
        }
    }

    #[test]
    fn what_stands_elsewhere_takes_its_place_among_the_fields_once_it_is_brought() {
        let mut put = letter(Operation::Put, 1, None);
        put.missing = Some(b_elsewhere());
        put.fields = b_elsewhere().order;
        let set = letter(Operation::Set, 1, None);
        let mut replay = Replay::default();
        replay
            .apply(&put, &elements(&[("a", 1), ("c", 1)]))
            .unwrap();
        replay.apply(&set, &elements(&[("c", 2)])).unwrap();
        let [(from, place)] = replay.lacks()[..] else {
            panic!("one place");
        };
        assert_eq!(from, &put);
        replay.bring(place, &elements(&[("a", 9), ("b", 1)]));
        let state = Some(elements(&[("a", 1), ("b", 1), ("c", 2)]));
        assert_eq!(replay.finish(), Ok(vec![(vec![1], state)]));
    }

    #[test]
    fn a_column_that_the_table_has_no_longer_stays_out_and_is_not_waited_for() {
        let mut put = letter(Operation::Put, 1, None);
        put.missing = Some(b_elsewhere());
        let moved = letter(Operation::Move, 2, Some(1));
        let mut replay = Replay::over(Some(["a".to_owned()].into()));
        replay
            .apply(&put, &elements(&[("a", 1), ("c", 1)]))
            .unwrap();
        replay.apply(&moved, &[]).unwrap();
        let mut finished = replay.finish().unwrap();
        finished.sort();
        let state = Some(elements(&[("a", 1)]));
        assert_eq!(finished, [(vec![1], None), (vec![2], state)]);
    }
}
