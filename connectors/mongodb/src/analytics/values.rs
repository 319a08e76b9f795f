//! The values that documents have in some fields, as of a moment.
//!
//! - All fields of one collection are read at once.
//! - Numbers of several types that are equal are one value, as they are for MongoDB.
//! - What MongoDB would not find as itself in a list of values, an array or a pattern, is no value.
//! - Of a row's key columns nothing is asked: what identifies the row says what they are.

use std::time::SystemTime;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use indexmap::IndexMap;

use super::{Analyst, AnalyticsError, AsOf, Query, READING};
use crate::document::id_of;
use crate::{Error, Result};

/// More values, or documents that have them, are too many.
const MOST: usize = 20_000;

/// What the server says of a document above 16 MB, or of values that take too much of its memory.
const TOO_LARGE: [i32; 2] = [10_334, 146];

/// Values, each once, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct ValueSet(IndexMap<Vec<u8>, Waiting>);

/// A value, and since when it is there, where that matters.
#[derive(Clone, Debug)]
struct Waiting {
    value: Bson,
    since: Option<SystemTime>,
}

/// Which documents have the values.
#[derive(Clone, Copy, Debug)]
pub struct Holders<'a> {
    /// Their collection.
    pub collection: &'a str,
    /// The field that is one of these.
    pub field: &'a str,
    /// These.
    pub among: &'a [Bson],
    /// Whether the documents are rows: then the columns of their keys are what their `_id` says.
    pub are_rows: bool,
}

/// The values of a field.
#[derive(Clone, Debug)]
pub enum FoundValues {
    /// All of them.
    Values(Vec<Bson>),
    /// Too many, or such as cannot be asked for, or the moment is gone.
    Unknown,
}

// === impl ValueSet ===

impl ValueSet {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds some that are there since then; whether there is room for all of them.
    pub fn add(
        &mut self,
        values: impl IntoIterator<Item = Bson>,
        since: Option<SystemTime>,
    ) -> bool {
        for value in values {
            let waiting = Waiting { value, since };
            self.0.entry(key(&waiting.value)).or_insert(waiting);
        }
        self.0.len() <= MOST
    }

    /// Adds others after its own; whether there is room for all of them.
    pub fn append(&mut self, others: Self) -> bool {
        for (key, waiting) in others.0 {
            self.0.entry(key).or_insert(waiting);
        }
        self.0.len() <= MOST
    }

    /// Takes so many away, those that came first.
    #[must_use]
    pub fn take_first(&mut self, most: usize) -> Self {
        let rest = self.0.split_off(most.min(self.0.len()));
        Self(std::mem::replace(&mut self.0, rest))
    }

    /// Since when the first is there.
    pub fn since(&self) -> Option<SystemTime> {
        self.0.values().find_map(|it| it.since)
    }

    /// Whether one is there.
    pub fn has(&self, value: &Bson) -> bool {
        self.0.contains_key(&key(value))
    }

    /// All of them, so many at a time.
    pub fn blocks(&self, most: usize) -> Vec<Vec<Bson>> {
        let values: Vec<_> = self.0.values().map(|it| it.value.clone()).collect();
        values.chunks(most).map(<[Bson]>::to_vec).collect()
    }
}

// === impl Analyst ===

impl Analyst {
    /// The values that some documents have in each of these fields, as of a moment.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn values(
        &self,
        of: Holders<'_>,
        wanted: &[&str],
        as_of: AsOf,
    ) -> Result<Vec<FoundValues>> {
        if of.among.is_empty() {
            return Ok(vec![FoundValues::Values(Vec::new()); wanted.len()]);
        }
        let known: Vec<_> = wanted.iter().map(|it| of.known(it)).collect();
        let asked = wanted.iter().zip(&known).filter(|(_, it)| it.is_none());
        let asked: Vec<_> = asked.map(|(field, _)| *field).collect();
        let mut found = self.ask_values(of, &asked, as_of).await?.into_iter();
        let known = known.into_iter();
        Ok(known
            .filter_map(|known| known.map(FoundValues::Values).or_else(|| found.next()))
            .collect())
    }

    async fn ask_values(
        &self,
        of: Holders<'_>,
        wanted: &[&str],
        as_of: AsOf,
    ) -> Result<Vec<FoundValues>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let query = Query {
            collection: of.collection.to_owned(),
            pipeline: vec![
                doc! { "$match": { of.field: { "$in": of.among } } },
                doc! { "$limit": limit(MOST + 1) },
                group(wanted),
            ],
        };
        match self.groups(&query, as_of).await {
            Ok(groups) => Ok(found(groups, wanted.len())),
            Err(error) if is_unknown(&error) => Ok(vec![FoundValues::Unknown; wanted.len()]),
            Err(error) => Err(error),
        }
    }

    async fn groups(&self, query: &Query, as_of: AsOf) -> Result<Vec<Document>> {
        let cursor = self.ask_as_of(query, as_of, None).await?;
        let cursor = cursor.with_type::<Document>();
        self.store.in_time(cursor.try_collect(), READING).await
    }
}

// === impl Holders ===

impl Holders<'_> {
    /// The values of a field that are known without a question.
    fn known(&self, field: &str) -> Option<Vec<Bson>> {
        if field == self.field {
            return Some(self.among.to_vec());
        }
        // A path with a dot leads into a field.
        if !self.are_rows || self.field != "_id" || field.contains('.') {
            return None;
        }
        let part = |id: &Bson| match id.as_document()?.get(field)? {
            // Others may be written differently in a key: a time is a text there.
            value @ (Bson::Int32(_) | Bson::Int64(_)) => Some(value.clone()),
            _ => None,
        };
        self.among.iter().map(part).collect()
    }
}

// === impl FoundValues ===

impl FoundValues {
    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        match (&mut *self, others) {
            (Self::Values(values), Self::Values(others)) => values.extend(others.iter().cloned()),
            _ => *self = Self::Unknown,
        }
    }
}

/// One document with the values of each field, by its place.
fn group(wanted: &[&str]) -> Document {
    let mut group = doc! { "_id": null, "n": { "$sum": 1 } };
    for (at, field) in wanted.iter().enumerate() {
        let value = doc! { "$ifNull": [format!("${field}"), null] };
        group.insert(at.to_string(), doc! { "$addToSet": value });
    }
    doc! { "$group": group }
}

/// Whether the moment is gone, or the values are too large for a document.
fn is_unknown(error: &Error) -> bool {
    let is_gone = matches!(error, Error::Analytics(AnalyticsError::MomentGone { .. }));
    is_gone || TOO_LARGE.iter().any(|it| error.has_code(*it))
}

fn found(groups: Vec<Document>, fields: usize) -> Vec<FoundValues> {
    let Some(mut group) = groups.into_iter().next() else {
        return vec![FoundValues::Values(Vec::new()); fields];
    };
    let documents = group.get_i32("n").unwrap_or(i32::MAX).unsigned_abs() as usize;
    let is_value = |it: &Bson| !matches!(it, Bson::Array(_) | Bson::RegularExpression(_));
    let values = |at: usize| match group.remove(at.to_string()) {
        Some(Bson::Array(values)) if documents <= MOST && values.iter().all(is_value) => {
            FoundValues::Values(values)
        }
        _ => FoundValues::Unknown,
    };
    (0..fields).map(values).collect()
}

/// One text for all that MongoDB takes for the same value; of decimals only those that are written alike.
fn key(value: &Bson) -> Vec<u8> {
    match value {
        Bson::Int32(number) => id_of(Bson::Int64((*number).into())),
        Bson::Double(number) => match whole(*number) {
            Some(number) => id_of(Bson::Int64(number)),
            None => id_of(value.clone()),
        },
        Bson::Undefined => id_of(Bson::Null),
        other => id_of(other.clone()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "it is the same number again, or none"
)]
fn whole(number: f64) -> Option<i64> {
    let whole = number as i64;
    (whole as f64 == number && whole.unsigned_abs() < 1 << 53).then_some(whole)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn equal_numbers_are_one_value_and_others_are_not() {
        let mut values = ValueSet::default();
        assert!(values.add([Bson::Int32(7), Bson::Int64(7), Bson::Double(7.0)], None));
        assert!(values.add([Bson::Double(7.5), Bson::Null, "7".into()], None));
        assert_eq!(values.len(), 4);
        assert!(values.has(&Bson::Int64(7)) && !values.has(&Bson::Int64(8)));
        assert!(!values.has(&Bson::Double(-7.5)));
    }

    #[test]
    fn there_is_room_for_so_many_values() {
        let mut values = ValueSet::default();
        let many = |from: i64| (0..10_000).map(move |it| Bson::Int64(from + it));
        assert!(values.add(many(0), None) && values.add(many(0), None));
        assert!(values.add(many(10_000), None) && !values.add([Bson::Null], None));
    }

    #[test]
    fn those_that_came_first_are_taken_first() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut values = ValueSet::default();
        values.add([9, 1].map(Bson::Int32), at(1));
        values.add([5, 9].map(Bson::Int32), at(2));
        let mut first = values.take_first(2);
        assert_eq!(first.blocks(9), [[9, 1].map(Bson::Int32)]);
        assert_eq!((first.since(), values.since()), (at(1), at(2)));
        first.append(values);
        assert_eq!(first.take_first(9).blocks(2).len(), 2);
        assert!(first.is_empty() && first.since().is_none());
    }

    #[test]
    fn a_rows_key_says_what_its_columns_are_unless_it_may_be_written_otherwise() {
        let ids = [doc! { "shop": 1, "day": "2024-01-01", "n": 7_i64 }].map(Bson::from);
        let known = |among: &[Bson], field: &str, are_rows| {
            let collection = "stock";
            let of = Holders {
                collection,
                field: "_id",
                among,
                are_rows,
            };
            of.known(field)
        };
        assert_eq!(known(&ids, "_id", false), Some(ids.to_vec()));
        assert_eq!(known(&ids, "shop", true), Some(vec![Bson::Int32(1)]));
        assert_eq!(known(&ids, "n", true), Some(vec![Bson::Int64(7)]));
        assert_eq!(known(&ids, "shop", false), None);
        for field in ["day", "level"] {
            assert_eq!(known(&ids, field, true), None, "{field}");
        }
        assert_eq!(known(&[Bson::Int32(1)], "shop", true), None);
    }

    #[test]
    fn what_is_no_value_is_not_looked_for() {
        let is_known = |n: i32, values: Vec<Bson>| {
            let found = found(vec![doc! { "n": n, "0": [1], "1": values }], 2);
            matches!(found[1], FoundValues::Values(_))
        };
        assert!(is_known(20_000, vec![Bson::Int32(1)]));
        assert!(!is_known(20_001, vec![Bson::Int32(1)]));
        assert!(!is_known(1, vec![Bson::Array(vec![1.into()])]));
    }
}
