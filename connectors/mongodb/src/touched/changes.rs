//! Which documents of which collections changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bson::Bson;

use crate::batch::Segment;
use crate::document::{id_of, id_value};

/// Beyond so many documents of a collection, or bytes of their keys, it is only said that it changed.
const MOST_DOCUMENTS: usize = 20_000;
const MOST_BYTES: usize = 2 << 20;

/// Which documents of which collections changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    collections: BTreeMap<String, Noted>,
    since: Option<SystemTime>,
}

/// Which documents of a collection changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Documents<'a> {
    /// Those with these keys; each with whether it may have been there before.
    Some(&'a BTreeMap<Vec<u8>, bool>),
    /// Any of them.
    All,
}

#[derive(Clone, Debug, Default)]
struct Noted {
    /// As [`Documents::Some`]; none when there are too many.
    ids: Option<BTreeMap<Vec<u8>, bool>>,
    bytes: usize,
}

// === impl Changes ===

impl Changes {
    /// Of a collection of which any document may have changed.
    pub fn whole(collection: &str) -> Self {
        let mut changes = Self::begun();
        let noted = Noted::default();
        changes.collections.insert(collection.to_owned(), noted);
        changes
    }

    /// Of documents with these keys.
    pub fn of(collection: &str, ids: impl IntoIterator<Item = Bson>) -> Self {
        let mut changes = Self::default();
        for id in ids {
            changes.note(collection, &id_of(id));
        }
        changes
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    /// Since when this is known.
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// The collections, and what changed in each.
    pub fn collections(&self) -> impl Iterator<Item = (&str, Documents<'_>)> {
        let collections = self.collections.iter();
        collections.map(|(name, noted)| (&**name, noted.documents()))
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        self.add_those(others, |_| true);
    }

    /// Adds others that may have been there before.
    pub fn add_old(&mut self, others: &Self) {
        self.add_those(others, |is_old| is_old);
    }

    fn add_those(&mut self, others: &Self, are: impl Fn(bool) -> bool) {
        let mut has_some = false;
        for (name, others) in &others.collections {
            let Some(ids) = &others.ids else {
                self.noted(name).be_whole();
                has_some = true;
                continue;
            };
            for (id, is_old) in ids.iter().filter(|(_, is_old)| are(**is_old)) {
                self.noted(name).add(id, *is_old);
                has_some = true;
            }
        }
        let since = others.since.filter(|_| has_some);
        self.since = [self.since, since].into_iter().flatten().min();
    }

    pub(super) fn note(&mut self, collection: &str, id: &[u8]) {
        self.since.get_or_insert_with(SystemTime::now);
        self.noted(collection).add(id, true);
    }

    #[cfg(test)]
    pub(super) fn note_new(&mut self, collection: &str, id: &[u8]) {
        self.since.get_or_insert_with(SystemTime::now);
        self.noted(collection).add(id, false);
    }

    /// Adds what a segment writes to the collections that are watched.
    pub(super) fn take_in(&mut self, segment: &Segment, watched: &BTreeSet<String>) {
        let is_watched = |name: &str| watched.contains(name);
        match segment {
            Segment::Rows(all) => {
                for rows in all.iter().filter(|it| is_watched(&it.collection)) {
                    self.since.get_or_insert_with(SystemTime::now);
                    let noted = self.noted(&rows.collection);
                    rows.touched()
                        .for_each(|(id, is_old)| noted.add(id, is_old));
                }
            }
            Segment::Move(moved) if is_watched(&moved.collection) => {
                self.note(&moved.collection, &moved.from);
                self.note(&moved.collection, &moved.to);
            }
            Segment::Unset(unset) if is_watched(&unset.collection) => {
                for id in &unset.ids {
                    self.note(&unset.collection, &id_of(id.clone()));
                }
            }
            // A history is long: which versions are new is not told.
            Segment::Truncate(_) | Segment::History(_) => {
                let names = segment.collections();
                for name in names.into_iter().filter(|it| is_watched(it)) {
                    self.add(&Self::whole(name));
                }
            }
            _ => {}
        }
    }

    fn begun() -> Self {
        Self {
            since: Some(SystemTime::now()),
            ..Self::default()
        }
    }

    fn noted(&mut self, collection: &str) -> &mut Noted {
        let known = Noted {
            ids: Some(BTreeMap::new()),
            bytes: 0,
        };
        let name = collection.to_owned();
        self.collections.entry(name).or_insert(known)
    }
}

impl FromIterator<Self> for Changes {
    fn from_iter<T: IntoIterator<Item = Self>>(all: T) -> Self {
        let mut changes = Self::default();
        for it in all {
            changes.add(&it);
        }
        changes
    }
}

// === impl Documents ===

impl Documents<'_> {
    /// The keys as values; none when there are too many.
    pub fn ids(&self) -> Option<Vec<Bson>> {
        match self {
            Self::All => None,
            Self::Some(ids) => ids.keys().map(|id| id_value(id)).collect(),
        }
    }

    /// The same of those that may have been there before. To ask about the others is dear: MongoDB goes past each key that
    /// came since, for every key that it looks for.
    pub fn old_ids(&self) -> Option<Vec<Bson>> {
        match self {
            Self::All => None,
            Self::Some(ids) => {
                let old = ids.iter().filter(|(_, is_old)| **is_old);
                old.map(|(id, _)| id_value(id)).collect()
            }
        }
    }
}

// === impl Noted ===

impl Noted {
    fn documents(&self) -> Documents<'_> {
        self.ids.as_ref().map_or(Documents::All, Documents::Some)
    }

    fn add(&mut self, id: &[u8], is_old: bool) {
        let Some(ids) = &mut self.ids else { return };
        if let Some(known) = ids.get_mut(id) {
            *known |= is_old;
            return;
        }
        self.bytes += id.len();
        if ids.len() == MOST_DOCUMENTS || self.bytes > MOST_BYTES {
            return self.be_whole();
        }
        ids.insert(id.to_vec(), is_old);
    }

    fn be_whole(&mut self) {
        (self.ids, self.bytes) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changed in a collection; none when nothing did.
    fn of<'a>(changes: &'a Changes, name: &str) -> Option<Documents<'a>> {
        changes.collections.get(name).map(Noted::documents)
    }

    #[test]
    fn beyond_a_bound_it_is_only_said_that_a_collection_changed() {
        let ids = |count: usize| (0..count).map(|it| Bson::Int64(i64::try_from(it).unwrap()));
        let mut changes = Changes::of("sales", ids(MOST_DOCUMENTS));
        assert!(of(&changes, "sales") != Some(Documents::All));
        changes.add(&Changes::of("sales", ids(3)));
        assert!(of(&changes, "sales") != Some(Documents::All));
        changes.add(&Changes::of("sales", [Bson::Null]));
        assert_eq!(of(&changes, "sales"), Some(Documents::All));
        changes.add(&Changes::of("sales", ids(1)));
        assert_eq!(of(&changes, "sales"), Some(Documents::All));

        let long = Bson::String("x".repeat(MOST_BYTES));
        let changes = Changes::of("names", [long]);
        assert_eq!(of(&changes, "names"), Some(Documents::All));
        assert_eq!(of(&changes, "sales"), None);
    }

    #[test]
    fn a_row_is_new_only_while_nothing_says_that_it_was_there() {
        let mut changes = Changes::default();
        for (id, is_old) in [(1, false), (2, false), (2, true), (2, false)] {
            changes.noted("sales").add(&id_of(Bson::Int32(id)), is_old);
        }
        let sales = of(&changes, "sales").unwrap();
        assert_eq!(sales.ids().unwrap(), [1, 2].map(Bson::Int32));
        assert_eq!(sales.old_ids().unwrap(), [Bson::Int32(2)]);
    }

    #[test]
    fn keys_come_back_as_the_values_they_were() {
        let ids = [Bson::Int32(7), Bson::from(bson::doc! { "a": 1, "b": "x" })];
        let changes = Changes::of("sales", ids.clone());
        let mut found = of(&changes, "sales").unwrap().ids().unwrap();
        found.sort_by_key(|it| it.as_document().is_some());
        assert_eq!(found, ids);
    }
}
