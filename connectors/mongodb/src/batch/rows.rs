//! The operations on one collection, each key folded to one.
//!
//! - Keys keep the order in which they first came.
//! - A body is complete when every column of its table is in it; a partial body over a complete one
//!   is complete.

mod folding;
mod parking;

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use walferry_schema::{Column, Image, Position, Type};

use super::Missing;
use super::entry::{Action, Body, Entry, Fate, Operation};
use crate::Result;
use crate::document::{Encoder, Span};
use parking::Parking;

pub(crate) use folding::merged;
pub(crate) use parking::Parked;

/// About what an operation takes beside its bytes.
const ENTRY_BYTES: usize = 160;
/// So much of what folding replaced may stay in the arena, and as much as is still wanted.
const SPARED_BYTES: usize = 1 << 20;

/// The folded operations on one collection.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) collection: Arc<str>,
    pub(crate) encoder: Encoder,
    /// Ids and bodies, of the entries and of what folding replaced.
    arena: Vec<u8>,
    /// How much of the arena the entries have.
    live_bytes: usize,
    /// Where the key columns stand in their bodies.
    keys: Vec<Span>,
    entries: Vec<Entry>,
    /// Places in `entries`, by id.
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
    operations: usize,
    /// Where the columns of the last row stand, and how many they are.
    columns: (usize, usize),
    /// The types of the key's columns.
    key: Vec<(u16, Type)>,
    /// How many bytes less than MongoDB takes a document may have.
    spared_bytes: usize,
    parking: Parking,
}

/// What an event does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Insert,
    Update,
    Delete,
}

// === impl Rows ===

impl Rows {
    pub(crate) fn new(collection: Arc<str>, encoder: Encoder) -> Self {
        Self {
            collection,
            encoder,
            arena: Vec::new(),
            live_bytes: 0,
            keys: Vec::new(),
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            operations: 0,
            columns: (0, 0),
            key: Vec::new(),
            spared_bytes: 0,
            parking: Parking::default(),
        }
    }

    /// Has documents be so much smaller than MongoDB takes.
    pub(crate) fn sparing(mut self, bytes: usize) -> Self {
        self.spared_bytes = bytes;
        self
    }

    /// Whether a row has columns that were not met just before.
    pub(crate) fn meets(&mut self, columns: &[Column]) -> bool {
        let met = (columns.as_ptr().addr(), columns.len());
        std::mem::replace(&mut self.columns, met) != met
    }

    /// While nothing is done yet, what will be is about keys of these columns.
    pub(crate) fn begin(&mut self, columns: &[Column]) {
        if self.entries.is_empty() {
            let key = columns.iter().filter(|column| column.key > 0);
            self.key = key.map(|it| (it.key, it.kind.clone())).collect();
        }
    }

    /// Whether the columns of a row's key have other types than those that the operations are about. By their values: where
    /// columns stand says nothing of a feed that makes them for each row.
    pub(crate) fn is_retyped(&self, columns: &[Column]) -> bool {
        let key = columns.iter().filter(|column| column.key > 0);
        let own = self.key.iter().map(|(place, kind)| (*place, kind));
        !self.entries.is_empty() && !key.map(|it| (it.key, &it.kind)).eq(own)
    }

    /// How many operations there are.
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    /// About how many bytes they take; of what is yet to be read from files, which are held open, its size.
    pub(crate) fn bytes(&self) -> usize {
        let missing = self.parking.oversize.values().map(Missing::bytes);
        self.arena.len() + self.entries.len() * ENTRY_BYTES + missing.sum::<usize>()
    }

    /// The operations in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Operation<'_>> {
        let live = self
            .entries
            .iter()
            .filter(|entry| entry.action != Action::Nothing && entry.fate == Fate::Write);
        live.map(|entry| Operation {
            id: entry.id.of(&self.arena),
            entry,
        })
    }

    /// All elements of a body.
    pub(crate) fn elements(&self, body: Body) -> &[u8] {
        body.elements.of(&self.arena)
    }

    /// The elements of a body that are not of the key, in pieces.
    pub(crate) fn values(&self, body: Body) -> impl Iterator<Item = &[u8]> {
        let elements = self.elements(body);
        let keys = body.keys.of(&self.keys);
        let starts = std::iter::once(0).chain(keys.iter().map(|key| key.end));
        let ends = keys.iter().map(|key| key.start).chain([elements.len()]);
        let pieces = starts.zip(ends).map(|(start, end)| &elements[start..end]);
        pieces.filter(|piece| !piece.is_empty())
    }

    /// Adds what happened to a row.
    pub(crate) fn push(&mut self, step: Step, image: &Image<'_>, position: Position) -> Result<()> {
        let (arena_len, keys_len) = (self.arena.len(), self.keys.len());
        let pushed = self.encode_and_fold(step, image, position);
        if pushed.is_err() {
            self.arena.truncate(arena_len);
            self.keys.truncate(keys_len);
        }
        self.compact();
        pushed
    }

    /// Adds a row whose key changed: false, and nothing done, when the columns that it carries over
    /// are not known here.
    pub(crate) fn push_move(
        &mut self,
        from: &Image<'_>,
        to: &Image<'_>,
        position: Position,
    ) -> Result<bool> {
        if to.is_complete() {
            self.push(Step::Delete, from, position)?;
            self.push(Step::Insert, to, position)?;
            self.note_move(from, to)?;
            return Ok(true);
        }
        let mut id = Vec::new();
        self.encoder.id(&mut id, from)?;
        // What is carried over would be the value before the one that stands elsewhere.
        if self.parking.oversize.contains_key(&id) {
            return Ok(false);
        }
        let carried = self
            .find(&id)
            .and_then(|at| self.entries[at].action.body())
            .filter(|body| body.is_complete);
        let Some(carried) = carried else {
            return Ok(false);
        };
        let id = self.encode_id(to)?;
        let body = self.encode_body(to)?;
        let body = self.merge(carried, body);
        self.encode_and_fold(Step::Delete, from, position)?;
        self.fold(id, Step::Insert, Some(body), position)?;
        self.note_move(from, to)?;
        self.compact();
        Ok(true)
    }

    fn encode_and_fold(&mut self, step: Step, image: &Image<'_>, position: Position) -> Result<()> {
        let id = self.encode_id(image)?;
        let body = match step {
            Step::Insert | Step::Update => Some(self.encode_body(image)?),
            Step::Delete => None,
        };
        let is_oversize = self.learn_columns(id, image, body.is_some());
        if step == Step::Insert && !is_oversize && body.is_some_and(|body| !body.is_complete) {
            return Err(self.encoder.absent(image));
        }
        self.fold(id, step, body, position)
    }

    fn encode_id(&mut self, image: &Image<'_>) -> Result<Span> {
        let start = self.arena.len();
        self.encoder.id(&mut self.arena, image)?;
        let end = self.arena.len();
        Ok(Span { start, end })
    }

    fn encode_body(&mut self, image: &Image<'_>) -> Result<Body> {
        let (start, first_key) = (self.arena.len(), self.keys.len());
        let is_complete = self.encoder.body(&mut self.arena, &mut self.keys, image)?;
        let (end, end_key) = (self.arena.len(), self.keys.len());
        Ok(Body {
            elements: Span { start, end },
            keys: Span {
                start: first_key,
                end: end_key,
            },
            is_complete,
        })
    }

    /// The place of the entry with an id.
    fn find(&self, id: &[u8]) -> Option<usize> {
        let is_it = |&at: &usize| self.entries[at].id.of(&self.arena) == id;
        self.index.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn add(&mut self, entry: Entry) {
        let Self {
            arena,
            live_bytes,
            entries,
            index,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(entry.id.of(arena));
        *live_bytes += entry.bytes();
        entries.push(entry);
        let hash_of = |&at: &usize| hasher.hash_one(entries[at].id.of(arena));
        index.insert_unique(hash, entries.len() - 1, hash_of);
    }

    /// The keys that something is done with.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| entry.id.of(&self.arena))
    }

    /// The same, each with whether its document may have been there before.
    pub(crate) fn touched(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let is_old = |action| !matches!(action, Action::Insert(_) | Action::Nothing);
        self.entries
            .iter()
            .map(move |entry| (entry.id.of(&self.arena), is_old(entry.action)))
    }

    /// Has a document stand there as given, whatever there is now; none removes it.
    pub(crate) fn put(&mut self, id: &[u8], elements: Option<&[u8]>, position: Position) {
        let id = self.append(id);
        let no_keys = Span { start: 0, end: 0 };
        let action = elements.map_or(Action::Delete, |elements| {
            Action::Replace(Body {
                elements: self.append(elements),
                keys: no_keys,
                is_complete: true,
            })
        });
        self.operations += 1;
        self.add(Entry {
            id,
            action,
            position,
            fate: Fate::Write,
        });
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        let end = self.arena.len();
        Span { start, end }
    }
}

#[cfg(test)]
mod tests;
